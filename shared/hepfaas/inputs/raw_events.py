"""Raw events in, scores out: JSON, Arrow, Parquet, a ROOT file in the body, or files that lie elsewhere.

Vectors are built by the code and the spec of the training, so they are the same bit for bit.
"""

from __future__ import annotations

import io
import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepfaas.datasets.branch_choice import missing_branch
from hepfaas.errors import RequestError, TooLargeError
from hepfaas.features.jagged import Jagged, Values, flat_values, unpacked
from hepfaas.features.matrix import matrix
from hepfaas.features.spec import FeatureBranch, Spec
from hepfaas.inputs.body_worker import ARROW_FILE, ARROW_STREAM, PARQUET
from hepfaas.inputs.decoded import VALUE_BYTES, Hold
from hepfaas.inputs.json_object import json_object
from hepfaas.inputs.numbers import cast, from_json, place_in_events, place_of_event
from hepfaas.models.served import Served
from hepfaas.platform.settings import Settings
from hepfaas.sandbox.processes import USUAL_MEMORY, Memory, fork_server, sealed_memory
from hepfaas.sandbox.tasks import Answer, TaskWorker, WorkerLostError
from hepfaas.scores.files import Columns, score_file

ROOT, JSON = "application/x-root", "application/json"
WRITTEN = (ARROW_STREAM, ARROW_FILE, PARQUET, ROOT)
"""What scores are written as, where a client accepts it."""

MOST_VECTOR_BYTES = Settings.predict_waiting_bytes
JSON_BYTES = {b",": 16, b"[": 64, b"{": 256}
"""What a document takes as Python's objects, by what stands before each value, list and object."""

ENDINGS = {PARQUET: ".parquet", ROOT: ".root"}


@dataclass(frozen=True)
class Events:
    """Raw events: branches (events,) or (events, var), and those that name an event, (events,)."""

    branches: Mapping[str, Values]
    identifiers: Mapping[str, NDArray[Any]]


def features_of(served: Served, events: Events, hold: Hold) -> NDArray[np.float32]:
    """Vectors (events, features). Raises: RequestError naming the branch that does not fit; what `hold` does."""
    hold(vector_bytes(served, len(next(iter(events.branches.values()), ()))))
    return matrix(events.branches, served.published.spec)


def vector_bytes(served: Served, n_events: int) -> int:
    """Of so many vectors."""
    return n_events * served.published.spec.n_features * np.dtype(np.float32).itemsize


def features_of_tensors(served: Served, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Vectors of raw values: flat branches (events,), jagged ones (events, slots) with NaN where there is no value."""
    spec = served.published.spec
    for branch in spec.branches:
        shape = tensors[branch.name].shape
        if len(shape) != 1 + branch.jagged:
            wanted = "[events, slots], NaN where there is no value" if branch.jagged else "[events]"
            raise RequestError(f"input '{branch.name}' has shape {list(shape)}; it takes {wanted}")
    _check_lengths(tensors)
    n_events = len(tensors[spec.branches[0].name])
    if n_events and not any(tensors[branch.name].size for branch in spec.branches):
        raise RequestError("the inputs have events and no value at all; give a slot, NaN where there is no value")
    size = vector_bytes(served, n_events)
    if size > MOST_VECTOR_BYTES:  # events without a value take no byte of the body
        raise TooLargeError(f"vectors of so many events take {size:,} bytes, and at most {MOST_VECTOR_BYTES:,} may be")
    return matrix({branch.name: _from_tensor(tensors[branch.name], branch) for branch in spec.branches}, spec)


def events_in(served: Served, kind: str, body: bytes, tree: str, hold: Hold, memory: Memory = USUAL_MEMORY) -> Events:
    """The events in a body of that media type. hold: told what they will take, before they are decoded. memory: of the
    process that decodes them.

    Raises: RequestError saying what is wrong with it; what `hold` does.
    """
    spec = served.published.spec
    if kind == JSON:
        hold(sum(body.count(sign) * size for sign, size in JSON_BYTES.items()))
        return _from_json(spec, json_object(body).get("events"))
    if kind in (ARROW_STREAM, ARROW_FILE, PARQUET):
        return _of_table(spec, kind, body, hold, memory)
    if kind == ROOT:
        return _from_root(spec, body, tree, hold, memory)
    raise RequestError(f"events come as {', '.join((JSON, ARROW_STREAM, ARROW_FILE, PARQUET, ROOT))}, not as '{kind}'")


def written(kind: str, columns: Columns) -> bytes:
    """Scores as a document of a media type: Arrow, Parquet, or a ROOT file with a tree 'scores' for AddFriend."""
    if kind in (ARROW_STREAM, ARROW_FILE):
        import pyarrow as pa

        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        out = io.BytesIO()
        new = pa.ipc.new_stream if kind == ARROW_STREAM else pa.ipc.new_file
        with new(out, table.schema) as writer:
            writer.write_table(table)
        return out.getvalue()
    with tempfile.TemporaryDirectory(prefix="hepfaas-") as scratch:
        path = Path(scratch) / f"scores{ENDINGS[kind]}"
        with score_file(path) as write:
            write(columns)
        return path.read_bytes()


def _from_json(spec: Spec, events: Any) -> Events:
    """Events by branch, {"met": [...], "jet_pt": [[...], ...]}, or one object an event."""
    if isinstance(events, list):
        events = _transposed(spec, events)
    if not isinstance(events, dict):
        raise RequestError("'events' is missing: an object from branch to a list of values, or a list of events")
    branches = {branch.name: _read_json(branch, _found(events, branch.name)) for branch in spec.branches}
    _check_lengths(branches)
    named = {name: _flat(name, events[name], "int64") for name in spec.identifiers if name in events}
    _check_lengths({**branches, **named})
    return Events(branches, named)


def _transposed(spec: Spec, events: Sequence[Any]) -> dict[str, list[Any]]:
    if not all(isinstance(event, dict) for event in events):
        raise RequestError("'events' is a list, and an event of it no object from branch to value")
    wanted = [
        *(branch.name for branch in spec.branches),
        *(name for name in spec.identifiers if events and name in events[0]),
    ]
    return {name: [_found(event, name) for event in events] for name in wanted}


def _found(events: Mapping[str, Any], name: str) -> Any:
    if name not in events:
        raise missing_branch("what was sent", name, list(events))
    return events[name]


def _read_json(branch: FeatureBranch, values: Any) -> Values:
    if not branch.jagged:
        return _flat(branch.name, values, _type(branch))
    _check_is_list(branch.name, values)
    if not all(isinstance(some, list) for some in values):
        raise RequestError(f"branch '{branch.name}' is jagged: each event has a list of values")
    counts = np.fromiter(map(len, values), dtype=np.int64, count=len(values))
    flat = list(itertools.chain.from_iterable(values))
    found = from_json(flat, _type(branch), f"branch '{branch.name}'", True, place_in_events(counts))
    if found.ndim != 1:
        raise RequestError(f"branch '{branch.name}': an event has one list of values, and no lists in it")
    return Jagged(found, counts)


def _flat(name: str, values: Any, type_: str) -> NDArray[Any]:
    """Numbers, one an event; null is NaN where there is such a thing."""
    _check_is_list(name, values)
    found = from_json(values, type_, f"branch '{name}'", True, place_of_event)
    if found.ndim != 1:
        raise RequestError(f"branch '{name}' is flat: each event has one value")
    return found


def _check_is_list(name: str, values: Any) -> None:
    if not isinstance(values, list):
        raise RequestError(f"branch '{name}' is no list, of one value for each event")


def _type(branch: FeatureBranch) -> str:
    """Of a value in training: as such a value is read here."""
    return branch.type or "float32"


def _from_tensor(values: NDArray[Any], branch: FeatureBranch) -> Values:
    what = f"input '{branch.name}'"
    if not branch.jagged:
        return cast(values, _type(branch), what, place_of_event)
    if values.dtype.kind != "f":
        raise RequestError(
            f"{what} is jagged, and {values.dtype.name} has no NaN for a slot without a value; send FP32 or FP64"
        )
    if not values.size:
        return Jagged(np.zeros(0, _type(branch)), np.zeros(len(values), np.int64))
    counts = values.shape[1] - np.isnan(values[:, ::-1]).cumprod(axis=1).sum(axis=1, dtype=np.int64)
    kept = values[np.arange(values.shape[1]) < counts[:, None]]
    return Jagged(cast(kept, _type(branch), what, place_in_events(counts)), counts)


def _of_table(spec: Spec, kind: str, body: bytes, hold: Hold, memory: Memory) -> Events:
    """Events of an Arrow or Parquet table, read in a confined worker."""
    wanted = [(branch.name, branch.jagged, _type(branch)) for branch in spec.branches]
    values = {"kind": kind, "branches": wanted, "identifiers": list(spec.identifiers)}
    facts, arrays = in_body(body, "table", values, hold, memory)
    named = [name for name in spec.identifiers if name in facts["identifiers"]]
    names = [branch.name for branch in spec.branches]
    branches = unpacked([*names, *named], facts["jagged"], arrays)
    return Events({name: branches[name] for name in names}, {name: flat_values(branches[name], name) for name in named})


def picture(served: Served, body: bytes, hold: Hold, memory: Memory) -> NDArray[np.float32]:
    """The numbers of a picture (images.py), of the model's shape, read in a confined worker. Raises: RequestError."""
    values = {"shape": served.shape, "model": str(served.version)}
    _, (pixels,) = in_body(body, "picture", values, hold, memory)
    if pixels.shape != served.shape or pixels.dtype != np.float32:
        raise RequestError(f"'image' cannot be decoded for model '{served.version}'")
    return pixels


def in_body(body: bytes, function: str, values: Mapping[str, Any], hold: Hold, memory: Memory) -> Answer:
    """Return what a function of body_worker.py gives for a body. Raises: RequestError; what `hold` does."""
    descriptor = sealed_memory(len(body), body)
    try:
        with TaskWorker(fork_server(), "hepfaas.inputs.body_worker", memory, [descriptor]) as worker:
            return worker.call(function, values, back={"hold": partial(_hold, hold)})
    except WorkerLostError as error:
        raise RequestError(f"the body cannot be read: {error}") from error
    finally:
        os.close(descriptor)


def _hold(hold: Hold, values: Mapping[str, Any]) -> Sequence[NDArray[Any]]:
    size = values.get("size")
    if type(size) is not int:
        raise ValueError("a size that is no number")
    hold(size)
    return ()


def _from_root(spec: Spec, body: bytes, tree: str, hold: Hold, memory: Memory) -> Events:
    from hepfaas.datasets.byte_source import BodySource
    from hepfaas.datasets.ranges import EntryRange
    from hepfaas.datasets.root import RootFile

    with RootFile(BodySource(body), "the body", memory) as file:
        entries, branches, _, _ = file.tree(tree)
        there = {branch.name for branch in branches}
        names = [*(branch.name for branch in spec.branches), *(name for name in spec.identifiers if name in there)]
        size_bytes, n_values = file.decoded(tree, names)
        hold(max(size_bytes, VALUE_BYTES * n_values))
        return _named(spec, file.read(tree, names, EntryRange(0, entries)))


def _named(spec: Spec, arrays: dict[str, Values]) -> Events:
    named = {}
    for name in [name for name in spec.identifiers if name in arrays]:
        named[name] = flat_values(arrays.pop(name), name)
    return Events(arrays, named)


def _check_lengths(branches: Mapping[str, Any]) -> None:
    """Raises: RequestError if some branch has another number of events than the first."""
    lengths = {name: len(values) for name, values in branches.items()}
    first = next(iter(lengths), "")
    for name, length in lengths.items():
        if length != lengths[first]:
            raise RequestError(f"branch '{name}' has {length} events and '{first}' has {lengths[first]}")
