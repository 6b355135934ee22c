"""The stored form of a checkpoint: named arrays, safetensors, with what is known of them as metadata. Pure.

safetensors: 8 bytes of header length, a JSON header, the arrays; no pickle, so nothing in it can run.
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
"""Read at once from the start of a checkpoint: the whole header of a network of some hundred layers."""


def to_bytes(arrays: Arrays, metadata: Mapping[str, Any]) -> bytes:
    """The checkpoint as it is stored; the metadata are JSON values."""
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    data: bytes = save(whole, metadata={"hepfaas": json.dumps(metadata, sort_keys=True)})
    return data


def arrays_of(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays by name."""
    arrays: dict[str, NDArray[Any]] = load(data)
    return arrays


def metadata_of(read: Callable[[int, int], bytes]) -> dict[str, Any]:
    """The metadata alone, from the first bytes; `read(start, stop)` gives bytes of the stored checkpoint."""
    start = read(0, HEADER_BYTES)
    size = int.from_bytes(start[:8], "little")
    header = start[8 : 8 + size]
    if len(header) < size:
        header += read(8 + len(header), 8 + size)
    metadata: dict[str, Any] = json.loads(json.loads(header)["__metadata__"]["hepfaas"])
    return metadata


def weights_hash(arrays: Arrays) -> str:
    """A hash of the model's own arrays (names 'model/…'): equal for bit-identical weights."""
    digest = hashlib.sha256()
    for name in sorted(name for name in arrays if name.startswith("model/")):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
