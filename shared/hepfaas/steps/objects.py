"""The encodings of results in the store, and reading a step's result as values.

Most results are JSON. A prepared part is an Arrow file and a checkpoint a safetensors file: their values are in the
metadata of the file. Results refer to blobs (graphs, plots, code), whose keys are hashes of their content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hepfaas.errors import MissingError
from hepfaas.platform.storage import Store
from hepfaas.runs.results import PreparedPart
from hepfaas.runs.steps import Predict, Prepare, Survey
from hepfaas.training import checkpoint


def encoded(values: Mapping[str, Any]) -> bytes:
    """Return JSON text of values, equal for equal values."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def put_blob(store: Store, data: bytes) -> str:
    """Store data under its own hash and return the key."""
    key = f"blobs/{hashlib.sha256(data).hexdigest()}"
    store.create(key, data)
    return key


def layout_of(step: Survey | Prepare | Predict, store: Store) -> str:
    """Return the layout of the table that a step reads, '' for a ROOT file. Raises: MissingError."""
    return bytes(store.get(step.layout)).decode() if step.layout else ""


def result_of(key: str, store: Store) -> dict[str, Any]:
    """Return the values of a step's result. Raises: MissingError if there is none."""
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
    """Return the values of a step's result, None if there is none."""
    try:
        return result_of(key, store)
    except MissingError:
        return None


def open_part(key: str, size_bytes: int, store: Store) -> Any:
    """Open a prepared part, read by ranges."""
    from hepfaas.training.prepared import StoredPart  # pyarrow: only where parts are read

    return StoredPart(lambda start, stop: store.get_range(key, start, stop), size_bytes)


def part_of_fold(key: str, store: Store, fold: int | None) -> tuple[PreparedPart, Any]:
    """Return a prepared part as the network of a fold sees it, and the part opened. Raises: MissingError."""
    size_bytes = store.size_bytes(key)
    if size_bytes is None:
        raise MissingError(key, store.url)
    stored = open_part(key, size_bytes, store)
    return PreparedPart(key=key, size_bytes=size_bytes, **vars(stored.facts)).of_fold(fold), stored


def open_scores(key: str, store: Store) -> Any:
    """Open the scores of an entry range, read by ranges. Raises: MissingError."""
    from hepfaas.scores.parts import ScorePart  # pyarrow: only where parts are read

    size_bytes = store.size_bytes(key)
    if size_bytes is None:
        raise MissingError(key, store.url)
    return ScorePart(lambda start, stop: store.get_range(key, start, stop), size_bytes)


def code_files(manifest: str, store: Store) -> dict[str, bytes]:
    """Return the user's code files by name."""
    return {name: store.get(blob) for name, blob in json.loads(store.get(manifest)).items()}


def _scored(key: str, store: Store) -> dict[str, Any]:
    """Return the values as a list of one part, which adds up."""
    return {"parts": [{"key": key, **asdict(open_scores(key, store).facts)}]}


def _prepared(key: str, store: Store) -> dict[str, Any]:
    """Return the values as a list of one part, which adds up."""
    size_bytes = store.size_bytes(key)
    if size_bytes is None:
        raise MissingError(key, store.url)
    part = open_part(key, size_bytes, store)
    return {"parts": [{"key": key, "size_bytes": size_bytes, **asdict(part.facts)}]}
