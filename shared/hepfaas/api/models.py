"""Model versions by HTTP."""

from __future__ import annotations

from flask import Response
from werkzeug.exceptions import NotFound

from hepfaas.api.archives import file_answer, published
from hepfaas.api.context import Context
from hepfaas.models import versions
from hepfaas.platform.http import json_answer
from hepfaas.platform.routes import Route
from hepfaas.views import overview


def list_models(context: Context) -> Response:
    """All model versions with values of their cards."""
    return json_answer({"models": [row.to_json() for row in overview.models(context.store)]})


def list_versions(context: Context, name: str) -> Response:
    """The versions of one model."""
    rows = [row.to_json() for row in overview.models(context.store) if row.model.rpartition("/")[0] == name]
    if not rows:
        raise NotFound(f"there is no model '{name}'; GET /v1/models lists them")
    return json_answer({"models": rows})


def show_version(context: Context, name: str, number: int) -> Response:
    """The card of a version, and its files."""
    version = published(context.store, name, number)
    files = {file: f"/v1/models/{name}/{number}/{file}" for file in versions.files_of(context.store, version)}
    return json_answer({"card": versions.card_of(context.store, version), "files": files})


def version_file(context: Context, name: str, number: int, file: str) -> Response:
    """One file of a version."""
    return file_answer(context.store, published(context.store, name, number), file)


ROUTES = (
    Route("GET", "/v1/models", list_models),
    Route("GET", "/v1/models/<name>", list_versions),
    Route("GET", "/v1/models/<name>/<int(max=999999):number>", show_version),
    Route("GET", "/v1/models/<name>/<int(max=999999):number>/<file>", version_file),
)
