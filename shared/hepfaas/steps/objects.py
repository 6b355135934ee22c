"""How results lie in the store, and how a step's result is read as values. Owns the encodings, not their meaning.

Most results are JSON. A prepared part is an Arrow file and a checkpoint a safetensors file: of these the values
are what stands in their metadata. What results refer to (graphs, plots, code) are blobs, keyed by their hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hepfaas.errors import MissingError
from hepfaas.platform.storage import Store
from hepfaas.training import checkpoint


def encoded(values: Mapping[str, Any]) -> bytes:
    """JSON text of values, the same for equal values."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def put_blob(store: Store, data: bytes) -> str:
    """Stores data under its own hash and gives the key."""
    key = f"blobs/{hashlib.sha256(data).hexdigest()}"
    store.create(key, data)
    return key


def result_of(key: str, store: Store) -> dict[str, Any]:
    """The values of a step's result. Raises: MissingError if it is not there."""
    kind = key.split("/")[1]
    if kind == "prepare":
        return _prepared(key, store)
    if kind == "predict":
        return _scored(key, store)
    if kind == "train":
        metadata: dict[str, Any] = checkpoint.metadata_of(lambda start, stop: store.get_range(key, start, stop))
        return metadata
    values: dict[str, Any] = json.loads(store.get(key))
    return values


def result_if_there(key: str, store: Store) -> dict[str, Any] | None:
    """The values of a step's result, None if it is not there."""
    try:
        return result_of(key, store)
    except MissingError:
        return None


def open_part(key: str, size_bytes: int, store: Store) -> Any:
    """A prepared part, read by ranges."""
    from hepfaas.training.prepared import PreparedPart  # pyarrow: only where parts are read

    return PreparedPart(lambda start, stop: store.get_range(key, start, stop), size_bytes)


def open_scores(key: str, store: Store) -> Any:
    """The scores of an entry range, read by ranges. Raises: MissingError."""
    from hepfaas.scores.parts import ScorePart  # pyarrow: only where parts are read

    size_bytes = store.size_bytes(key)
    if size_bytes is None:
        raise MissingError(key, store.url)
    return ScorePart(lambda start, stop: store.get_range(key, start, stop), size_bytes)


def code_files(manifest: str, store: Store) -> dict[str, bytes]:
    """The user's code files by name."""
    return {name: store.get(blob) for name, blob in json.loads(store.get(manifest)).items()}


def _scored(key: str, store: Store) -> dict[str, Any]:
    """In the form that adds up: a list of one part."""
    return {"parts": [{"key": key, **asdict(open_scores(key, store).facts)}]}


def _prepared(key: str, store: Store) -> dict[str, Any]:
    """In the form that adds up: a list of one part."""
    size_bytes = store.size_bytes(key)
    if size_bytes is None:
        raise MissingError(key, store.url)
    part = open_part(key, size_bytes, store)
    return {"parts": [{"key": key, "size_bytes": size_bytes, **asdict(part.facts)}]}
