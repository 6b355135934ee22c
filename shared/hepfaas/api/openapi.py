"""The OpenAPI document of `runs`, made from its routes: what each takes and answers."""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any

from flask import Response

from hepfaas import __version__
from hepfaas.api import mlaas4hep as old_api
from hepfaas.api import runs as api
from hepfaas.api import scores as scores_api
from hepfaas.api.runs import Asked, Call
from hepfaas.platform.credentials import KINDS
from hepfaas.platform.http import json_answer
from hepfaas.views import overview

ERROR = {
    "description": "the reason, and what to change",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "of an issuer and for an audience of the service, where it has any (docs/identity.md)",
}
JOB = {
    "type": "object",
    "required": ["files", "labels", "code"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
        "files": {"type": "array", "items": {"type": "string"}, "description": "root://, s3://, http(s):// addresses"},
        "labels": {"type": "array", "items": {"type": "integer"}, "description": "one for each file"},
        "code": {"type": "object", "additionalProperties": {"type": "string"}, "description": "file name to text"},
        "model": {"type": "string", "description": "the file that defines model(); default model.py"},
        "params": {"type": "object", "description": "what params.json takes"},
        "webhook": {"type": "string", "description": "gets the events of the run by POST"},
    },
}
CREDENTIAL = {
    "type": "object",
    "required": ["host", "kind", "secret"],
    "additionalProperties": False,
    "properties": {
        "host": {"type": "string", "description": "the server's name, without a port"},
        "kind": {"type": "string", "enum": list(KINDS)},
        "secret": {
            "type": "string",
            "writeOnly": True,
            "description": "the token; a proxy with its key and chain, PEM",
        },
        "expires": {"type": "number", "description": "seconds since 1970, if the secret does not tell"},
    },
}
FORM = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
QUERIES: dict[Call, dict[str, Any]] = {
    api.list_runs: {
        "state": {"type": "string", "enum": list(overview.STATES)},
        "limit": {"type": "integer", "minimum": 1, "maximum": api.MOST_PAGE},
        "after": {"type": "string"},
    },
    api.run_log: {
        "step": {"type": "string"},
        "after": {"type": "string"},
        "follow": {"type": "string", "enum": ["0", "1"]},
    },
    api.run_events: {"after": {"type": "string"}},
    old_api.upload: {"name": {"type": "string"}},
    old_api.delete_specs: {"name": {"type": "string"}},
    old_api.delete_folder: {"name": {"type": "string"}},
    **{
        call: {"process_name": {"type": "string"}}
        for call in (old_api.status_docker, old_api.logs, old_api.model, old_api.setup_tfaas)
    },
}
BODIES: dict[Call, dict[str, Any]] = {
    api.submit: {
        "application/json": {"schema": JOB},
        "multipart/form-data": {"schema": FORM},
        "application/gzip": {"schema": {"type": "string", "format": "binary"}},
    },
    api.put_credential: {"application/json": {"schema": CREDENTIAL}},
    old_api.upload: {"multipart/form-data": {"schema": FORM}},
    old_api.setup_tfaas: {"multipart/form-data": {"schema": FORM}},
    old_api.submit: {
        "application/json": {
            "schema": {
                "type": "object",
                "required": list(old_api.SUBMITTED),
                "properties": {name: {"type": ["string", "integer"]} for name in old_api.SUBMITTED},
            }
        }
    },
}
STATUSES: dict[Call, int] = {
    api.put_credential: 201,
    api.delete_credential: 204,
    api.submit: 202,
    api.retry_run: 202,
    api.delete_run: 204,
}

MORE_STATUSES: dict[Call, tuple[int, ...]] = {scores_api.run_scores: (406,)}


def show(asked: Asked) -> Response:
    """This document."""
    return json_answer(document())


ROUTES: tuple[tuple[str, str, Call], ...] = (("GET", "/openapi.json", show),)


@functools.cache
def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, call in (*api.ROUTES, *scores_api.ROUTES, *old_api.ROUTES, *ROUTES):
        shown = re.sub(r"<(?:[^:<>]*:)?([^<>]+)>", r"{\1}", path)
        paths.setdefault(shown, {})[method.lower()] = _operation(method, path, call)
    error = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "hepfaas runs", "version": __version__},
        "paths": paths,
        "security": [{"token": []}, {}],
        "components": {"schemas": {"Error": error}, "securitySchemes": {"token": TOKEN}},
    }


def _operation(method: str, path: str, call: Call) -> dict[str, Any]:
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "integer" if kind else "string"}}
        for kind, name in re.findall(r"<(int[^:]*:)?([^<>]+)>", path)
    ]
    asked = [
        {"name": name, "in": "query", "schema": schema, "required": "/v1/" not in path}
        for name, schema in QUERIES.get(call, {}).items()
    ]
    operation: dict[str, Any] = {
        "summary": (inspect.getdoc(call) or "").partition("\n")[0],
        "operationId": f"{method.lower()}_{call.__module__.rpartition('.')[2]}_{call.__name__}",
        "parameters": [*named, *asked],
        "responses": {
            str(STATUSES.get(call, 200)): {"description": "done"},
            **{str(status): ERROR for status in (400, 401, 403, 404, 413, 422, 429, 503, *MORE_STATUSES.get(call, ()))},
        },
    }
    if call in BODIES:
        operation["requestBody"] = {"required": True, "content": BODIES[call]}
    return operation
