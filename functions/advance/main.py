"""advance: looks at the results of a run and sends the next steps.

Takes CloudEvents org.hepfaas.run.submitted, .phase.completed, .step.completed, .step.failed, .step.missing, dead
letters, and dev.knative.sources.ping, which makes it look at all runs (docs/reference/events.md). Sends the .requested
events of steps, .run.completed, .run.failed, .run.cancelled and .model.published. Answers 204, 403 to an event without
a valid signature, 422 if there is no such run, 503 to get the event again.
"""

import functools
import os
from collections.abc import Callable

import functions_framework
from flask import Request, Response
from hepfaas.orchestration.advancing import Advancing
from hepfaas.orchestration.events import UNSIGNED, keys_by_function
from hepfaas.platform.backends import check_store, root_store, sender, store_of_owner
from hepfaas.platform.cloud_events import CloudEvent, webhook
from hepfaas.platform.http import takes_events
from hepfaas.platform.settings import Settings

SETTINGS = Settings.from_environ(os.environ)
SETTINGS.keys_of_events()  # fails where keys are missing
KEYS = keys_by_function(SETTINGS)


def handler() -> Callable[[CloudEvent], None]:
    check_store(SETTINGS)
    root, stores, broker = root_store(SETTINGS), store_of_owner(SETTINGS), sender(SETTINGS, KEYS)
    hook = functools.partial(webhook, private=SETTINGS.allow_private)
    return Advancing(
        root, stores, broker, max_scale=SETTINGS.max_scale, deadline_s=SETTINGS.deadline_s, webhook=hook
    ).handle


ANSWER = takes_events("advance", handler, KEYS, unsigned=UNSIGNED, deadline_s=SETTINGS.deadline_s)


@functions_framework.http
def advance(request: Request) -> Response:
    return ANSWER(request)
