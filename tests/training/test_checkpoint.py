"""A checkpoint returns its arrays bit by bit, and its metadata without reading them."""

import numpy as np
from hepfaas.training.checkpoint import arrays_of, metadata_of, to_bytes, weights_hash

ARRAYS = {
    "model/0000/kernel": np.random.default_rng(1).random((300, 40)).astype(np.float32),
    "model/0001/seed": np.array([1, 2], dtype=np.uint32),
    "optimizer/0000/iteration": np.array(12, dtype=np.int64),
}


def test_arrays_survive_bit_by_bit() -> None:
    arrays = arrays_of(to_bytes(ARRAYS, {}))
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape, arrays[name].tobytes()) == (
            array.dtype,
            array.shape,
            array.tobytes(),
        )


def test_metadata_are_read_from_the_first_bytes() -> None:
    metadata = {"metrics": {"loss": 0.1}, "rows": 10}
    reads: list[tuple[int, int]] = []
    for many in ({}, {f"model/{number:04d}/bias": np.zeros(1) for number in range(2_000)}):
        data = to_bytes({**ARRAYS, **many}, metadata)

        def read(start: int, stop: int, data: bytes = data) -> bytes:
            reads.append((start, stop))
            return data[start:stop]

        assert metadata_of(read) == metadata
    assert len(reads) == 3


def test_the_hash_is_that_of_the_models_own_bits() -> None:
    base = weights_hash(ARRAYS)
    assert weights_hash({**ARRAYS, "optimizer/0000/iteration": np.array(13)}) == base
    assert weights_hash({**ARRAYS, "model/0001/seed": np.array([1, 3], dtype=np.uint32)}) != base
    assert weights_hash({**ARRAYS, "model/0001/seed": np.array([1, 2], dtype=np.int32)}) != base
