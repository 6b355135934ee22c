"""What `predict` tells of the runs that it has asked for, at the host that gave their names: how far they are, and what
they made. Other runs are those of `runs`, which has a host and an audience of its own."""

from __future__ import annotations

from starlette.responses import Response, StreamingResponse

from hepfaas.errors import NotThereError, RequestError, public_text
from hepfaas.orchestration import records
from hepfaas.platform.storage import Store, is_name
from hepfaas.runs.prediction import Prediction
from hepfaas.serving.predicting import json_response
from hepfaas.serving.prediction_runs import RETRY_AFTER_S
from hepfaas.views import overview, stored_scores


def status(store: Store, run: str) -> Response:
    """How far the run is. Raises: NotThereError."""
    found = _pending(store, run) or overview.status(store, _checked(store, run))
    return json_response(found.to_json(), 200, {} if found.state in overview.ENDED else {"Retry-After": RETRY_AFTER_S})


def scores(store: Store, run: str, accept: str) -> Response:
    """What it made, part after part. Raises: NotThereError, also if it is not all there yet."""
    kind = stored_scores.kind_for(accept)
    if kind is None:
        return json_response({"error": stored_scores.not_written(accept)}, 406)
    try:
        return StreamingResponse(stored_scores.sent(store, _checked(store, run), kind), media_type=kind)
    except RequestError as error:
        raise NotThereError(str(error), outside=public_text(error)) from error


def ledger(store: Store, run: str) -> Response:
    """What it made, recounted. Raises: NotThereError."""
    return json_response(overview.verified(store, _checked(store, run)).to_json())


def _pending(store: Store, run: str) -> overview.Row | None:
    """The row of a run that has not begun yet."""
    coming = overview.pending(store, run) if is_name(run) and not records.is_there(store, run) else None
    return coming if coming and coming.kind == Prediction.kind else None


def _checked(store: Store, run: str) -> str:
    """The name of a prediction. Raises: NotThereError if there is none."""
    there = is_name(run) and records.is_there(store, run) and not records.is_deleted(store, run)
    if not there or not isinstance(records.request_of(store, run).recipe, Prediction):
        raise NotThereError(f"there is no prediction '{run[:100]}' here; the function runs tells of runs of all kinds")
    return run
