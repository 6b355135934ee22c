"""The HTTP of `intake`: rules, notifications of S3 servers, CloudEvents from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Request, Response
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map
from werkzeug.routing import Rule as Route

from hepfaas.platform.http import MOST_EVENT_BYTES, event_in, json_answer
from hepfaas.platform.storage import Store, is_name
from hepfaas.service import rules
from hepfaas.service.api import body_object
from hepfaas.service.intake import Intake, is_ping, news_in, news_of


@dataclass(frozen=True)
class Asked:
    """One request, and whose it is."""

    request: Request
    intake: Intake
    store: Store
    owner: str


def list_rules(asked: Asked) -> Response:
    """All rules."""
    return json_answer({"rules": [rule.to_json() for rule in rules.all_rules(asked.store)]})


def put_rule(asked: Asked, name: str) -> Response:
    """Makes a rule, or changes it."""
    rule = rules.rule_of(name, body_object(asked.request))
    asked.intake.put(asked.owner, rule)
    return json_answer(rule.to_json())


def show_rule(asked: Asked, name: str) -> Response:
    """A rule, how many files came, and what became of each batch."""
    rule = rules.get(asked.store, name)
    if rule is None:
        raise NotFound(f"there is no rule '{name}'; GET /v1/rules lists them")
    outcomes = [rules.outcome(asked.store, name, number) for number in rules.batches(asked.store, name)]
    return json_answer({**rule.to_json(), "arrived": len(rules.files(asked.store, name)), "batches": outcomes})


def delete_rule(asked: Asked, name: str) -> Response:
    """No more runs by this rule; those it began go on."""
    if rules.get(asked.store, name) is None:
        raise NotFound(f"there is no rule '{name}'; GET /v1/rules lists them")
    rules.delete(asked.store, name)
    return Response(status=204)


def notified(asked: Asked) -> Response:
    """What an S3 server says of its buckets."""
    news = news_of(body_object(asked.request))
    runs = asked.intake.take(asked.owner, news.files, asked.request.headers.get("traceparent", ""))
    return json_answer({"runs": runs, "ignored": list(news.ignored)}, 202)


def event(asked: Asked) -> Response:
    """A CloudEvent: news of a file, or the ping."""
    found = event_in(asked.request)
    if is_ping(found):
        asked.intake.ping()
    else:
        asked.intake.take(asked.owner, news_in(found).files, found.trace)
    return Response(status=204)


_ROUTES = Map(
    [
        Route("/v1/rules", methods=["GET"], endpoint=list_rules),
        Route("/v1/rules/<name>", methods=["PUT"], endpoint=put_rule),
        Route("/v1/rules/<name>", methods=["GET"], endpoint=show_rule),
        Route("/v1/rules/<name>", methods=["DELETE"], endpoint=delete_rule),
        Route("/v1/notifications", methods=["POST"], endpoint=notified),
        Route("/v1/events", methods=["POST"], endpoint=event),
        Route("/", methods=["POST"], endpoint=event),
    ]
)


def answer(asked: Asked) -> Response:
    """Raises: NotFound; RequestError; UnavailableError."""
    try:
        call, values = _ROUTES.bind("").match(asked.request.path, asked.request.method)
    except MethodNotAllowed as error:
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return json_answer({"error": f"{asked.request.path} takes {allowed}"}, 405, Allow=allowed)
    named: Mapping[str, Any] = values
    if not all(is_name(value) for value in named.values()):
        raise NotFound("there is no rule of that name: use letters, digits, '.', '_' and '-'")
    asked.request.max_content_length = MOST_EVENT_BYTES
    response: Response = call(asked, **named)
    return response
