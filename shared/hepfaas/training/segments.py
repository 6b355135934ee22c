"""Order of the rows in training: epochs, blocks and segments drawn from the prepared parts. Pure.

A prepared part has record batches of `BATCH_ROWS` rows of one split each. In each epoch the batches of each label are
permuted; block b of B takes the b-th of B equal shares of every label's rows, so that each block, and so each segment,
mixes the labels in proportion. The learner then shuffles the rows of a block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepfaas.runs.epochs import blocks_per_chunk, blocks_per_segment, n_blocks


class Slice(NamedTuple):
    """Rows [start, stop) of one stored record batch; `batch` is '<part>/<number of the batch>'."""

    batch: str
    start: int
    stop: int


class Rows(NamedTuple):
    """Rows of one record batch: features (rows, features) float32, labels (rows,) int64 or standardised targets
    (rows, targets) float32, event ids (rows,), event weights (rows,). weights: None if all are 1."""

    features: NDArray[np.float32]
    labels: NDArray[Any]
    ids: NDArray[np.uint64]
    weights: NDArray[np.float32] | None = None


Block = Sequence[Slice]


@dataclass(frozen=True)
class SplitPart:
    """One split of a prepared part: the part's key and label, and the number and the rows of each record batch."""

    key: str
    label: int
    numbered: Sequence[tuple[int, int]]

    @property
    def rows(self) -> int:
        """Rows of all record batches."""
        return sum(rows for _, rows in self.numbered)

    def batches(self) -> Iterator[Slice]:
        """Yield the whole record batches of the split."""
        for number, rows in self.numbered:
            yield Slice(f"{self.key}/{number}", 0, rows)


def seed_of(*names: object) -> int:
    """Return a seed below 2**32 that depends only on these names."""
    text = "/".join(map(str, names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def blocks_of(parts: Sequence[SplitPart], seed: int) -> list[Block]:
    """Return all rows of the parts, once each, as blocks of some 32,000 rows that mix the labels in proportion."""
    return [block for block in _cut(parts, n_blocks(_rows(parts)), seed) if block]


def round_of(parts: Sequence[SplitPart], seed: int, *, n_chunks: int, passes: int, number: int) -> list[Block]:
    """Return the blocks of one round of a training by chunks, in the order in which they are trained.

    The rows are cut into equal chunks that mix the labels in proportion. Over all rounds each chunk is passed over
    `passes` times before the next one begins; a round has as many passes as there are chunks. A chunk is several blocks
    if it is long. Blocks may be empty.
    """
    per_chunk = blocks_per_chunk(_rows(parts), n_chunks)
    blocks = _cut(parts, n_chunks * per_chunk, seed)
    chunks = (place // passes for place in range(number * n_chunks, (number + 1) * n_chunks))
    return [block for chunk in chunks for block in blocks[chunk * per_chunk : (chunk + 1) * per_chunk]]


def _rows(parts: Sequence[SplitPart]) -> int:
    return sum(part.rows for part in parts)


def _cut(parts: Sequence[SplitPart], count: int, seed: int) -> list[Block]:
    """Return all rows of the parts, once each, as `count` blocks that mix the labels in proportion."""
    shares = [
        _shares([part for part in parts if part.label == label], count, seed_of(seed, label))
        for label in sorted({part.label for part in parts})
    ]
    return [[piece for share in shares for piece in share[number]] for number in range(count)]


def _shares(parts: Sequence[SplitPart], n_shares: int, seed: int) -> list[list[Slice]]:
    """Return the rows of one label as equal shares of its record batches in shuffled order."""
    batches = [batch for part in parts for batch in part.batches()]
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(batches))
    total = sum(batch.stop for batch in batches)
    shares: list[list[Slice]] = [[] for _ in range(n_shares)]
    share, done = 0, 0
    for index in order:
        batch, start, stop = batches[index]
        while start < stop:
            while done >= (share + 1) * total // n_shares:
                share += 1
            taken = min(stop - start, (share + 1) * total // n_shares - done)
            shares[share].append(Slice(batch, start, start + taken))
            start, done = start + taken, done + taken
    return shares


def rows_in(blocks: Sequence[Block]) -> int:
    """Return the number of rows in all blocks."""
    return sum(piece.stop - piece.start for block in blocks for piece in block)


def segments_of(blocks: Sequence[Block], segment_rows: int, rows: int = 0, n_chunks: int = 0) -> list[Sequence[Block]]:
    """Return the blocks of an epoch in segments of at most `segment_rows` rows, but at least one block each. rows,
    n_chunks: of a training by chunks."""
    per_segment = blocks_per_segment(segment_rows, rows, n_chunks)
    return [blocks[start : start + per_segment] for start in range(0, len(blocks), per_segment)]


def first_rows(blocks: Sequence[Block], max_rows: int) -> list[Block]:
    """Return the first blocks with at most `max_rows` rows; the last takes the same share of each of its slices."""
    taken: list[Block] = []
    left = max_rows
    for block in blocks:
        rows = rows_in([block])
        if rows <= left:
            taken.append(block)
            left -= rows
        else:
            taken.append([Slice(batch, start, start + (stop - start) * left // rows) for batch, start, stop in block])
            break
    return taken
