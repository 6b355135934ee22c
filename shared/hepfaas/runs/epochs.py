"""Sizes of the parts of an epoch. They follow from row and feature counts, never from a clock."""

from __future__ import annotations

BATCH_ROWS = 2_000
"""Rows of a stored record batch, the unit of reading."""

BLOCK_ROWS = 32_000
"""Rows that are shuffled together, approximately."""

VALIDATION_ROWS = 200_000
"""Most validation rows used after an epoch."""

CHECK_ROWS = 10_000
"""Most held-back rows on which a graph is compared with its network."""

MOST_BLOCKS = 2_000
"""Most blocks of a segment of a training by chunks, where they are small: the learner gets a list of them."""

MOST_TRAINS = 100_000
"""Most train steps of a run. Each names the step before, so each look at a run hashes them all, in four seconds."""


def n_blocks(rows: int) -> int:
    """Return the number of blocks of an epoch with this many rows."""
    return max(1, -(-rows // BLOCK_ROWS))


def n_segments(rows: int, segment_rows: int, n_chunks: int = 0) -> int:
    """Return the number of segments, one train step each, of an epoch with this many rows."""
    count = n_chunks * blocks_per_chunk(rows, n_chunks) if n_chunks else n_blocks(rows)
    return -(-count // blocks_per_segment(segment_rows, rows, n_chunks))


def blocks_per_chunk(rows: int, n_chunks: int) -> int:
    """Return the number of blocks of each of the chunks that the rows are cut into."""
    return n_blocks(-(-rows // n_chunks))


def blocks_per_segment(segment_rows: int, rows: int = 0, n_chunks: int = 0) -> int:
    """Return the number of whole blocks in a segment of about this many rows. rows, n_chunks: of a training by chunks,
    whose blocks may be small."""
    if not n_chunks:
        return max(1, segment_rows // BLOCK_ROWS)
    block_rows = -(-rows // (n_chunks * blocks_per_chunk(rows, n_chunks)))
    return max(1, min(MOST_BLOCKS, segment_rows // max(1, block_rows)))


def usual_segment_rows(n_features: int) -> int:
    """Return the default rows of a segment: a million, or fewer where these would pass 3.2 GB (float32)."""
    return max(BLOCK_ROWS, min(1_000_000, 800_000_000 // max(1, n_features)))


def pays_for_xla(rows: int) -> bool:
    """Return whether an epoch is long enough to pay for XLA's seconds of compiling."""
    return rows >= 200_000
