"""advance: looks at what exists of a run and sends the steps that are next.

Takes CloudEvents org.hepfaas.run.submitted, .phase.completed, .step.completed, .step.failed, .step.missing, dead
letters, and dev.knative.sources.ping, which looks at all unfinished runs (docs/reference/events.md). Sends the
.requested events of steps, .run.completed, .run.failed, .run.cancelled and .model.published. Answers 204, 403 to an
event that is not ours, 422 if there is no such run, 503 to be asked again.
"""

import functools
import os
from collections.abc import Callable

import functions_framework
from flask import Request, Response
from hepfaas.orchestration.advancing import Advancing
from hepfaas.orchestration.events import UNSIGNED, keys_by_function
from hepfaas.platform.cloud_events import CloudEvent, webhook
from hepfaas.platform.http import takes_events
from hepfaas.platform.outside import check_store, root_store, sender, store_of_owner
from hepfaas.platform.settings import Settings

SETTINGS = Settings.from_environ(os.environ)
SETTINGS.keys_of_events()  # there must be some
KEYS = keys_by_function(SETTINGS)


def made() -> Callable[[CloudEvent], None]:
    check_store(SETTINGS)
    root, stores, broker = root_store(SETTINGS), store_of_owner(SETTINGS), sender(SETTINGS, KEYS)
    hook = functools.partial(webhook, private=SETTINGS.allow_private)
    return Advancing(root, stores, broker, SETTINGS.max_scale, SETTINGS.deadline_s, webhook=hook).handle


ANSWER = takes_events("advance", made, KEYS, unsigned=UNSIGNED, deadline_s=SETTINGS.deadline_s)


@functions_framework.http
def advance(request: Request) -> Response:
    return ANSWER(request)
