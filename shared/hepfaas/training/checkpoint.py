"""Stored form of a checkpoint: named arrays and metadata in a safetensors file. Pure.

safetensors: 8 bytes of header length, a JSON header, the arrays. It has no pickle, so it cannot contain code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

Arrays = Mapping[str, NDArray[Any]]

HEADER_BYTES = 1 << 15
"""Bytes of the first read of a checkpoint, enough for the header of a network of some hundred layers."""


def to_bytes(arrays: Arrays, metadata: Mapping[str, Any]) -> bytes:
    """Return the checkpoint as it is stored; the metadata are JSON values."""
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    data: bytes = save(contiguous, metadata={"hepfaas": json.dumps(metadata, sort_keys=True)})
    return data


def arrays_of(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays by name."""
    arrays: dict[str, NDArray[Any]] = load(data)
    return arrays


def metadata_of(read: Callable[[int, int], bytes]) -> dict[str, Any]:
    """Return the metadata, reading only the header; `read(start, stop)` returns bytes of the stored checkpoint."""
    start = read(0, HEADER_BYTES)
    size = int.from_bytes(start[:8], "little")
    header = start[8 : 8 + size]
    if len(header) < size:
        header += read(8 + len(header), 8 + size)
    metadata: dict[str, Any] = json.loads(json.loads(header)["__metadata__"]["hepfaas"])
    return metadata


def weights_hash(arrays: Arrays) -> str:
    """Return a hash of the model's own arrays (names 'model/…'): equal for bit-identical weights."""
    digest = hashlib.sha256()
    for name in sorted(name for name in arrays if name.startswith("model/")):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
