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
    """The media type that a client takes, of those offered."""
    return parse_accept_header(accept or "*/*", MIMEAccept).best_match(OFFERED)


def not_written(accept: str) -> str:
    """What a client is told that takes none of them (406)."""
    offered = f"{', '.join(OFFERED)} are offered; `hepfaas predict --url URL --out x.root` writes ROOT where it runs"
    return f"scores are not written as '{accept[:100]}' here: {offered}"


def sent(store: Store, run: str, kind: str) -> Iterator[bytes]:
    """All of them, in the order of the run's files and their entries.

    Raises: RequestError if they are not all there, and what is wrong with the first part, before the first bytes.
    """
    made = overview.scored(store, run)
    some = _columns(store, made)
    first = next(some, None)
    every = itertools.chain([first] if first else [], some)
    return streamed(kind, every, made.recipe.model, len(made.files))


def _columns(store: Store, made: overview.Scored) -> Iterator[Columns]:
    numbers = {file.identity: number for number, file in enumerate(made.files)}
    for part in made.parts:
        for batch in open_scores(part["key"], store).batches():
            columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
            yield {"file": np.full(batch.num_rows, numbers[part["file"]], dtype=np.int32), **columns}
