"""HTTP of `intake`: rules, notifications of S3 servers, CloudEvents from outside."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Request, Response
from werkzeug.exceptions import NotFound

from hepfaas.api.bodies import body_object
from hepfaas.errors import ForbiddenError
from hepfaas.orchestration import rules
from hepfaas.orchestration.intake import Intake, is_ping, news_in, news_of
from hepfaas.platform.arrivals import Arrivals
from hepfaas.platform.http import MOST_EVENT_BYTES, event_in, json_answer
from hepfaas.platform.identity import Caller, Identity, IdentityHeaders
from hepfaas.platform.routes import Route, Router, openapi
from hepfaas.platform.storage import Store, is_name


@dataclass(frozen=True)
class Context:
    """One request and its caller. only: the rule that the caller may send news for, '' for all."""

    request: Request
    intake: Intake
    caller: Caller
    only: str = ""

    @property
    def owner(self) -> str:
        """The owner of the rules."""
        return self.caller.owner

    @property
    def store(self) -> Store:
        """The owner's store."""
        return self.intake.store(self.owner)


def list_rules(context: Context) -> Response:
    """List all rules."""
    return json_answer({"rules": [rule.to_json() for rule in rules.all_rules(context.store)]})


def put_rule(context: Context, name: str) -> Response:
    """Create or change a rule."""
    rule = rules.rule_of(name, body_object(context.request))
    context.intake.put(context.owner, rule, context.caller.submitter())
    return json_answer(rule.to_json())


def show_rule(context: Context, name: str) -> Response:
    """Show a rule, how many files arrived, and the outcome of each batch."""
    rule = _rule(context, name)
    outcomes = [rules.outcome(context.store, name, number) for number in rules.batches(context.store, name)]
    batches = [outcome and outcome.to_json() for outcome in outcomes]
    return json_answer({**rule.to_json(), "arrived": len(rules.files(context.store, name)), "batches": batches})


def delete_rule(context: Context, name: str) -> Response:
    """Delete a rule; the runs that it began go on."""
    _rule(context, name)
    rules.delete(context.store, name)
    rules.delete_tokens(context.store, name)
    return Response(status=204)


def make_token(context: Context, name: str) -> Response:
    """Create a token with which an S3 server sends news for the rule; it is shown only here."""
    _rule(context, name)
    return json_answer({"token": context.intake.make_token(context.owner, name)}, 201)


def delete_tokens(context: Context, name: str) -> Response:
    """Delete all tokens of a rule."""
    rules.delete_tokens(context.store, name)
    return Response(status=204)


def notified(context: Context) -> Response:
    """Take a notification of an S3 server."""
    news = news_of(body_object(context.request))
    trace = context.request.headers.get("traceparent", "")
    runs = context.intake.take(context.owner, news.files, trace, context.only)
    return json_answer({"runs": runs, "ignored": list(news.ignored)}, 202)


def event(context: Context) -> Response:
    """Take a CloudEvent with news of a file."""
    sent = event_in(context.request)
    if is_ping(sent):
        context.intake.ping()
        return Response(status=204)
    context.intake.take(context.owner, news_in(sent).files, sent.trace, context.only)
    return Response(status=204)


def show_openapi(context: Context) -> Response:
    """Show this document."""
    return json_answer(openapi("hepfaas intake", ROUTES))


def _rule(context: Context, name: str) -> rules.Rule:
    """Raises: NotFound."""
    rule = rules.get(context.store, name)
    if rule is None:
        raise NotFound(f"there is no rule '{name}'; GET /v1/rules lists them")
    return rule


RULE = {"application/json": {"type": "object"}}

ROUTES = (
    Route("GET", "/v1/rules", list_rules),
    Route("PUT", "/v1/rules/<name>", put_rule, bodies=RULE),
    Route("GET", "/v1/rules/<name>", show_rule),
    Route("DELETE", "/v1/rules/<name>", delete_rule, status=204),
    Route("POST", "/v1/rules/<name>/tokens", make_token, status=201),
    Route("DELETE", "/v1/rules/<name>/tokens", delete_tokens, status=204),
    Route("POST", "/v1/notifications", notified, bodies={"application/json": {"type": "object"}}, status=202),
    Route("POST", "/v1/events", event, bodies={"application/cloudevents+json": {"type": "object"}}, status=204),
    Route("POST", "/", event, bodies={"application/cloudevents+json": {"type": "object"}}, status=204),
    Route("GET", "/openapi.json", show_openapi),
)
_ROUTER = Router(ROUTES)


def answer(
    request: Request, identity: Identity, headers: IdentityHeaders, intake: Intake, arrivals: Arrivals
) -> Response:
    """Answer a request.

    Raises: UnauthenticatedError; ForbiddenError; NotFound; RequestError; LimitError; UnavailableError.
    """
    request.max_content_length = MOST_EVENT_BYTES
    route, values = _ROUTER.match(request.method, request.path)
    if route.call is event and not headers.authorization:  # a ping has no token; it only starts a look
        with arrivals.body(request, ""):
            is_for_us = is_ping(event_in(request))
        if is_for_us:
            intake.ping()
            return Response(status=204)
    context = _context(request, identity, headers, intake)
    if not all(is_name(value) for value in values.values()):
        raise NotFound("there is no rule of that name: use letters, digits, '.', '_' and '-'")
    if context.only and route.call not in (event, notified):
        raise ForbiddenError("the token of a rule permits notifications only")
    if context.caller.visits and not route.is_for_visitors:
        raise ForbiddenError("an admin may read the rules of other owners but not change them")
    with arrivals.body(request, context.owner):
        response: Response = route.call(context, **values)
    return response


def _context(request: Request, identity: Identity, headers: IdentityHeaders, intake: Intake) -> Context:
    """Return the context of a request, from a person or from an S3 server with the token of a rule."""
    scheme, _, token = headers.authorization.partition(" ")
    if identity.is_on and scheme.lower() == "bearer" and token.startswith(rules.TOKEN_PREFIX):
        owner, name = intake.teller(token)
        caller = Caller(owner)
        identity.admit(caller)
        return Context(request, intake, caller, name)
    return Context(request, intake, identity.admitted(headers))
