"""The HTTP of `intake`: rules, notifications of S3 servers, CloudEvents from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Request, Response
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map
from werkzeug.routing import Rule as Route

from hepfaas.api.runs import body_object
from hepfaas.errors import ForbiddenError
from hepfaas.orchestration import rules
from hepfaas.orchestration.intake import Intake, is_ping, news_in, news_of
from hepfaas.platform.http import MOST_EVENT_BYTES, event_in, json_answer
from hepfaas.platform.identity import Caller, Identity, Presented
from hepfaas.platform.storage import Store, is_name


@dataclass(frozen=True)
class Asked:
    """One request, and who sent it. only: the rule that he may tell news for, '' for all."""

    request: Request
    intake: Intake
    caller: Caller
    only: str = ""

    @property
    def owner(self) -> str:
        """Whose rules they are."""
        return self.caller.owner

    @property
    def store(self) -> Store:
        """Where they are."""
        return self.intake.store(self.owner)


def list_rules(asked: Asked) -> Response:
    """All rules."""
    return json_answer({"rules": [rule.to_json() for rule in rules.all_rules(asked.store)]})


def put_rule(asked: Asked, name: str) -> Response:
    """Makes a rule, or changes it."""
    rule = rules.rule_of(name, body_object(asked.request))
    asked.intake.put(asked.owner, rule, asked.caller.submitter())
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
    rules.delete_tokens(asked.store, name)
    return Response(status=204)


def make_token(asked: Asked, name: str) -> Response:
    """A token for the S3 server whose news are for the rule; it is shown this once."""
    if rules.get(asked.store, name) is None:
        raise NotFound(f"there is no rule '{name}'; GET /v1/rules lists them")
    return json_answer({"token": asked.intake.make_token(asked.owner, name)}, 201)


def delete_tokens(asked: Asked, name: str) -> Response:
    """None of the rule's tokens holds any more."""
    rules.delete_tokens(asked.store, name)
    return Response(status=204)


def notified(asked: Asked) -> Response:
    """What an S3 server says of its buckets."""
    news = news_of(body_object(asked.request))
    trace = asked.request.headers.get("traceparent", "")
    runs = asked.intake.take(asked.owner, news.files, trace, asked.only)
    return json_answer({"runs": runs, "ignored": list(news.ignored)}, 202)


def event(asked: Asked) -> Response:
    """A CloudEvent: news of a file."""
    found = event_in(asked.request)
    asked.intake.take(asked.owner, news_in(found).files, found.trace, asked.only)
    return Response(status=204)


_ROUTES = Map(
    [
        Route("/v1/rules", methods=["GET"], endpoint=list_rules),
        Route("/v1/rules/<name>", methods=["PUT"], endpoint=put_rule),
        Route("/v1/rules/<name>", methods=["GET"], endpoint=show_rule),
        Route("/v1/rules/<name>", methods=["DELETE"], endpoint=delete_rule),
        Route("/v1/rules/<name>/tokens", methods=["POST"], endpoint=make_token),
        Route("/v1/rules/<name>/tokens", methods=["DELETE"], endpoint=delete_tokens),
        Route("/v1/notifications", methods=["POST"], endpoint=notified),
        Route("/v1/events", methods=["POST"], endpoint=event),
        Route("/", methods=["POST"], endpoint=event),
    ]
)


def answer(request: Request, identity: Identity, presented: Presented, intake: Intake) -> Response:
    """Raises: UnauthenticatedError; ForbiddenError; NotFound; RequestError; LimitError; UnavailableError."""
    request.max_content_length = MOST_EVENT_BYTES
    try:
        call, values = _ROUTES.bind("").match(request.path, request.method)
    except MethodNotAllowed as error:
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return json_answer({"error": f"{request.path} takes {allowed}"}, 405, Allow=allowed)
    if call is event and is_ping(event_in(request)):  # nobody can sign it, and it asks for no more than a look
        intake.ping()
        return Response(status=204)
    asked = _asked(request, identity, presented, intake)
    named: Mapping[str, Any] = values
    if not all(is_name(value) for value in named.values()):
        raise NotFound("there is no rule of that name: use letters, digits, '.', '_' and '-'")
    if asked.only and call not in (event, notified):
        raise ForbiddenError("the token of a rule lets tell news, and do nothing else")
    if asked.caller.visits and request.method != "GET":
        raise ForbiddenError("an admin may see another's rules, no more")
    response: Response = call(asked, **named)
    return response


def _asked(request: Request, identity: Identity, presented: Presented, intake: Intake) -> Asked:
    """Who sent it: a person, or an S3 server with the token of a rule."""
    scheme, _, token = presented.authorization.partition(" ")
    if identity.is_on and scheme.lower() == "bearer" and token.startswith(rules.TOKEN_PREFIX):
        owner, name = intake.teller(token)
        caller = Caller(owner)
        identity.admit(caller)
        return Asked(request, intake, caller, name)
    return Asked(request, intake, identity.admitted(presented))
