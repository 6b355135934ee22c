"""Routes of HTTP functions. One table for each function gives its calls, their rights, and its OpenAPI document."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule

from hepfaas import __version__

Schema = Mapping[str, Any]
Call = Callable[..., Any]

ERRORS = (400, 401, 403, 404, 413, 422, 429, 503)

ERROR = {
    "description": "the reason, and what to change",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "of an issuer and for an audience of the service, if it has any (docs/reference/identity.md)",
}


@dataclass(frozen=True, eq=False)
class Route:
    """One call of a function.

    path: with werkzeug's variables, each an argument of `call`. query: schema of each query parameter; required if
    `is_query_required`. bodies: schema of the body by media type. status: on success. errors: statuses in addition to
    ERRORS. is_public: needs no token. is_for_admins: whether an admin may call it for another owner; by default every
    GET. is_for_publishers: needs the role of a publisher.
    """

    method: str
    path: str
    call: Call
    query: Mapping[str, Schema] = field(default_factory=dict)
    bodies: Mapping[str, Schema] = field(default_factory=dict)
    status: int = 200
    errors: tuple[int, ...] = ()
    is_query_required: bool = False
    is_public: bool = False
    is_for_admins: bool | None = None
    is_for_publishers: bool = False

    @property
    def is_for_visitors(self) -> bool:
        """Return whether an admin may call it for another owner."""
        return self.method == "GET" if self.is_for_admins is None else self.is_for_admins


class Router:
    """The routes of a function, by method and path."""

    def __init__(self, routes: Iterable[Route], merge_slashes: bool = True) -> None:
        self.routes = tuple(routes)
        rules = (Rule(route.path, methods=[route.method], endpoint=route) for route in self.routes)
        self._adapter = Map(rules, merge_slashes=merge_slashes).bind("")

    def match(self, method: str, path: str) -> tuple[Route, dict[str, Any]]:
        """Return the route of a request and the values in its path.

        Raises: werkzeug's NotFound, MethodNotAllowed and RequestRedirect.
        """
        try:
            route, values = self._adapter.match(path, method)
        except NotFound as error:
            raise NotFound(f"there is no '{path[:200]}'; /openapi.json lists the paths") from error
        except MethodNotAllowed as error:
            allowed = ", ".join(sorted(error.valid_methods or ()))
            raise MethodNotAllowed(error.valid_methods, f"{path[:200]} takes {allowed}") from error
        return route, dict(values)


def openapi(title: str, routes: Iterable[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of routes. The first line of a call's docstring is its summary."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"<(?:[^:<>]*:)?([^<>]+)>", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    error = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "paths": paths,
        "security": [{"token": []}, {}],
        "components": {"schemas": {"Error": error}, "securitySchemes": {"token": TOKEN}},
    }


def _operation(route: Route) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "integer" if kind else "string"}}
        for kind, name in re.findall(r"<(int[^:]*:)?([^<>]+)>", route.path)
    ]
    in_query = [
        {"name": name, "in": "query", "schema": schema, "required": route.is_query_required}
        for name, schema in route.query.items()
    ]
    names = (route.method.lower(), route.call.__module__.rpartition(".")[2], route.call.__name__, route.path)
    operation: dict[str, Any] = {
        "summary": (inspect.getdoc(route.call) or "").partition("\n")[0],
        "operationId": re.sub(r"\W+", "_", " ".join(names)).strip("_"),
        "parameters": [*in_path, *in_query],
        "responses": {
            str(route.status): {"description": "done"},
            **{str(status): ERROR for status in (*ERRORS, *route.errors)},
        },
    }
    if route.bodies:
        content = {kind: {"schema": schema} for kind, schema in route.bodies.items()}
        operation["requestBody"] = {"required": True, "content": content}
    return operation
