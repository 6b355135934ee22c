"""The scores of a prediction run: GET /v1/runs/{run}/scores of `runs`."""

from __future__ import annotations

from flask import Response
from werkzeug.exceptions import NotFound

from hepfaas.api.context import Context
from hepfaas.errors import RequestError, public_text
from hepfaas.platform.http import json_answer
from hepfaas.platform.routes import Route
from hepfaas.views import stored_scores


def run_scores(context: Context, run: str) -> Response:
    """The scores of a prediction run, sorted by file and entry, as JSON lines, Arrow or Parquet."""
    accept = context.request.headers.get("Accept", "")
    kind = stored_scores.kind_for(accept)
    if kind is None:
        return json_answer({"error": stored_scores.not_written(accept)}, 406)
    try:
        return Response(stored_scores.sent(context.store, context.run(run), kind), mimetype=kind)
    except RequestError as error:
        raise NotFound(public_text(error)) from error


ROUTES = (Route("GET", "/v1/runs/<run>/scores", run_scores, errors=(406,)),)
