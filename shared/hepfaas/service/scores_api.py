"""The scores that a prediction run has made, by HTTP: GET /v1/runs/{run}/scores."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from flask import Response
from werkzeug.exceptions import NotFound

from hepfaas.datasets.score_files import Columns
from hepfaas.errors import RequestError
from hepfaas.platform.http import json_answer
from hepfaas.platform.storage import Store
from hepfaas.service import overview
from hepfaas.service.api import Asked, Call
from hepfaas.service.score_streams import OFFERED, streamed
from hepfaas.steps.objects import open_scores


def run_scores(asked: Asked, run: str) -> Response:
    """The scores of a prediction run, in the order of its files and their entries: as JSON lines, Arrow or Parquet."""
    kind = asked.request.accept_mimetypes.best_match(OFFERED)
    if kind is None:
        wanted = asked.request.headers.get("Accept", "")[:100]
        offered = (
            f"{', '.join(OFFERED)} are offered; `hepfaas predict --url URL --out x.root` writes ROOT where it runs"
        )
        return json_answer({"error": f"scores are not written as '{wanted}' here: {offered}"}, 406)
    try:
        made = overview.scored(asked.store, asked.run(run))
    except RequestError as error:
        raise NotFound(str(error)) from error
    some = _columns(asked.store, made)
    first = next(some, None)  # what is wrong with the first part is a status
    every = itertools.chain([first] if first else [], some)
    return Response(streamed(kind, every, made.recipe.model, len(made.files)), mimetype=kind)


ROUTES: tuple[tuple[str, str, Call], ...] = (("GET", "/v1/runs/<run>/scores", run_scores),)


def _columns(store: Store, made: overview.Scored) -> Iterator[Columns]:
    numbers = {file.identity: number for number, file in enumerate(made.files)}
    for part in made.parts:
        for batch in open_scores(part["key"], store).batches():
            columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
            yield {"file": np.full(batch.num_rows, numbers[part["file"]], dtype=np.int32), **columns}
