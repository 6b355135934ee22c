"""All calls of `runs`, and their OpenAPI document."""

from __future__ import annotations

import functools

from flask import Response
from werkzeug.exceptions import NotFound

from hepfaas.api import mlaas4hep, models, owners, remarks, reports, runs, scores, submission
from hepfaas.api.context import Context
from hepfaas.errors import ForbiddenError
from hepfaas.platform.http import json_answer
from hepfaas.platform.routes import Route, Router, openapi
from hepfaas.platform.storage import is_name


def show(context: Context) -> Response:
    """The OpenAPI document of the service."""
    return json_answer(document())


ROUTES = (
    *submission.ROUTES,
    *runs.ROUTES,
    *remarks.ROUTES,
    *scores.ROUTES,
    *reports.ROUTES,
    *models.ROUTES,
    *owners.ROUTES,
    *mlaas4hep.ROUTES,
    Route("GET", "/openapi.json", show),
)
_ROUTER = Router(ROUTES)


@functools.cache
def document() -> dict[str, object]:
    """Return the OpenAPI document."""
    return openapi("hepfaas runs", ROUTES)


def answer(context: Context) -> Response:
    """Answer a request. Raises: NotFound; MethodNotAllowed; ForbiddenError; RequestError; UnavailableError."""
    route, values = _ROUTER.match(context.request.method, context.request.path)
    for value in values.values():
        if isinstance(value, str) and not is_name(value):
            raise NotFound(f"there is no '{value[:100]}'")
    if context.caller.visits and not route.is_for_visitors:
        raise ForbiddenError("an admin may only read the data of another owner and cancel their runs")
    response: Response = route.call(context, **values)
    return response
