"""The function that answers a request at the front door, by the routes of the functions."""

from __future__ import annotations

from starlette.requests import Request
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect

from hepfaas.api import calls, intake
from hepfaas.platform.routes import Router
from hepfaas.serving import app

OF_BROKER = "/"
"""Path of intake for the CloudEvents of the broker, which does not pass the front door."""

_FUNCTIONS = {
    **dict.fromkeys(calls.ROUTES, "runs"),  # the first function with a path gets it
    **dict.fromkeys(app.ROUTES, "predict"),
    **dict.fromkeys((route for route in intake.ROUTES if route.path != OF_BROKER), "intake"),
}
_ROUTER = Router(_FUNCTIONS, merge_slashes=False)


def function_for(request: Request) -> str:
    """Return the name of the function that has the path of a request; `runs` answers for unknown paths."""
    path, method = request.scope["path"], request.method
    if path == "/upload":  # of a folder in MLaaS4HEP, which has ?name=, and of a model in TFaaS
        return "runs" if "name" in request.query_params else "predict"
    if path == "/metrics":
        return "predict"
    try:
        try:
            route, _ = _ROUTER.match(method, path)
        except MethodNotAllowed as error:
            route, _ = _ROUTER.match(next(iter(error.valid_methods or ())), path)
    except (NotFound, RequestRedirect):
        return "runs"
    return _FUNCTIONS[route]
