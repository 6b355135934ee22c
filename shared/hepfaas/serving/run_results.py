"""Progress and results of the runs that `predict` has requested, at the host that named them.

Runs of other kinds belong to the function `runs`, which has its own host and audience.
"""

from __future__ import annotations

from starlette.responses import Response, StreamingResponse

from hepfaas.errors import NotThereError, RequestError, public_text
from hepfaas.orchestration import records
from hepfaas.platform.storage import Store, is_name
from hepfaas.runs.prediction import Prediction
from hepfaas.serving.responses import json_response
from hepfaas.serving.run_requests import RETRY_AFTER_S
from hepfaas.views import overview, stored_scores


def status(store: Store, run: str) -> Response:
    """Return the progress of a run. Raises: NotThereError."""
    progress = _pending(store, run) or overview.status(store, _checked(store, run))
    headers = {} if progress.state in overview.ENDED else {"Retry-After": RETRY_AFTER_S}
    return json_response(progress.to_json(), 200, headers)


def scores(store: Store, run: str, accept: str) -> Response:
    """Return the scores of a run, part by part. Raises: NotThereError, also if they are not complete yet."""
    kind = stored_scores.kind_for(accept)
    if kind is None:
        return json_response({"error": stored_scores.not_written(accept)}, 406)
    try:
        return StreamingResponse(stored_scores.sent(store, _checked(store, run), kind), media_type=kind)
    except RequestError as error:
        raise NotThereError(str(error), outside=public_text(error)) from error


def ledger(store: Store, run: str) -> Response:
    """Return the ledger of a run, counted again from its stored parts. Raises: NotThereError."""
    return json_response(overview.verified(store, _checked(store, run)).to_json())


def _pending(store: Store, run: str) -> overview.Row | None:
    """Return the row of a run that has not begun yet."""
    row = overview.pending(store, run) if is_name(run) and not records.is_there(store, run) else None
    return row if row and row.kind == Prediction.kind else None


def _checked(store: Store, run: str) -> str:
    """Return the name of a run that is a prediction. Raises: NotThereError if it is not."""
    exists = is_name(run) and records.is_there(store, run) and not records.is_deleted(store, run)
    if not exists or not isinstance(records.request_of(store, run).recipe, Prediction):
        raise NotThereError(f"there is no prediction '{run[:100]}' here; the function 'runs' lists runs of all kinds")
    return run
