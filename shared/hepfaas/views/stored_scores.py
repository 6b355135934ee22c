"""The scores that a prediction run has stored, as `runs` and `predict` send them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from hepfaas.platform.storage import Store
from hepfaas.scores.files import Columns
from hepfaas.scores.streams import OFFERED, streamed
from hepfaas.steps.objects import open_scores
from hepfaas.views import overview


def kind_for(accept: str) -> str | None:
    """Return the offered media type that a client accepts, None if there is none."""
    return parse_accept_header(accept or "*/*", MIMEAccept).best_match(OFFERED)


def not_written(accept: str) -> str:
    """Return the message for a client that accepts none of them (406)."""
    offered = f"{', '.join(OFFERED)} are available; `hepfaas predict --url URL --out x.root` writes ROOT locally"
    return f"scores are not available as '{accept[:100]}': {offered}"


def sent(store: Store, run: str, kind: str) -> Iterator[bytes]:
    """Return all scores of a run as a stream, sorted by file and entry.

    Raises: RequestError if scores are missing, and errors of the first part, before the first bytes.
    """
    scored = overview.scored(store, run)
    columns = _columns(store, scored)
    first = next(columns, None)
    return streamed(kind, itertools.chain([first] if first else [], columns), scored.recipe.model, len(scored.files))


def _columns(store: Store, scored: overview.Scored) -> Iterator[Columns]:
    numbers = {file.identity: number for number, file in enumerate(scored.files)}
    for part in scored.parts:
        for batch in open_scores(part.key, store).batches():
            columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
            yield {"file": np.full(batch.num_rows, numbers[part.file], dtype=np.int32), **columns}
