"""Raw events in a request become features; scores become documents: JSON, Arrow, Parquet, ROOT.

Features are built by the code and the spec of the training, so they are the same bit for bit.
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
from hepfaas.features.spec import FeatureSpec, InputBranch
from hepfaas.features.vectors import Vectors, preprocessing_bytes, vectors_of
from hepfaas.inputs.decoded import ARROW_FILE, ARROW_STREAM, PARQUET, VALUE_BYTES, Hold
from hepfaas.inputs.json_object import json_object
from hepfaas.inputs.numbers import cast, from_json, place_in_events, place_of_event
from hepfaas.models.served import Served
from hepfaas.models.versions import Published
from hepfaas.platform.work_limit import REQUEST_S, work_limit
from hepfaas.sandbox.processes import USUAL_MEMORY, Memory, fork_server, sealed_memory
from hepfaas.sandbox.tasks import Answer, TaskWorker, WorkerLostError
from hepfaas.scores.files import Columns, score_file

ROOT, JSON = "application/x-root", "application/json"
SCORE_TYPES = (ARROW_STREAM, ARROW_FILE, PARQUET, ROOT)
"""Media types of scores besides JSON, for clients that accept them."""

JSON_BYTES = {b",": 16, b"[": 64, b"{": 256}
"""Memory of a JSON value, list and object as Python objects, by the character before each."""

SUFFIXES = {PARQUET: ".parquet", ROOT: ".root"}


@dataclass(frozen=True)
class Events:
    """Raw events: branches (events,) or (events, var), and the branches that identify an event, (events,)."""

    branches: Mapping[str, Values]
    identifiers: Mapping[str, NDArray[Any]]


def vectors_of_events(served: Served, events: Events, hold: Hold) -> Vectors:
    """Return the vectors of events. Raises: RequestError naming a branch that is wrong; what `hold` raises."""
    spec = served.published.spec
    size = feature_bytes(served, len(next(iter(events.branches.values()), ())))
    hold(2 * size + preprocessing_bytes(events.branches, spec) if spec.preprocessing else size)
    return vectors_of(events.branches, spec, check=work_limit(REQUEST_S))


def feature_bytes(served: Served, n_events: int) -> int:
    """Return the memory of the features of this many events."""
    return n_events * served.published.spec.n_features * np.dtype(np.float32).itemsize


def vectors_of_tensors(served: Served, tensors: Mapping[str, NDArray[Any]], most_bytes: int) -> Vectors:
    """Return the vectors of flat branches (events,) and jagged ones (events, slots), padded with NaN.

    Raises: RequestError naming an input that does not fit; TooLargeError if the features take more than `most_bytes`.
    """
    spec = served.published.spec
    for branch in spec.inputs:
        shape = tensors[branch.name].shape
        if len(shape) != 1 + branch.jagged:
            expectation = "[events, slots], NaN where there is no value" if branch.jagged else "[events]"
            raise RequestError(f"input '{branch.name}' has shape {list(shape)}; it takes {expectation}")
    _check_lengths(tensors)
    n_events = len(tensors[spec.inputs[0].name])
    if n_events and not any(tensors[branch.name].size for branch in spec.inputs):
        raise RequestError("the inputs have events and no value at all; give a slot, NaN where there is no value")
    _check_size(n_events, feature_bytes(served, n_events), most_bytes)  # a few bytes of the body may have many events
    branches = {branch.name: _from_tensor(tensors[branch.name], branch) for branch in spec.inputs}
    _check_size(n_events, feature_bytes(served, n_events) + preprocessing_bytes(branches, spec), most_bytes)
    return vectors_of(branches, spec, check=work_limit(REQUEST_S))


def _check_size(n_events: int, size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise TooLargeError(
            f"the features of {n_events:,} events take {size:,} bytes in memory, and at most {most_bytes:,} may be "
            "(HEPFAAS_PREDICT_WAITING_BYTES); send fewer events at a time"
        )


def events_in(
    served: Served, kind: str, body: bytes, *, hold: Hold, memory: Memory = USUAL_MEMORY, tree: str = ""
) -> Events:
    """Return the events in a body of a media type.

    hold: called with the memory that they need, before they are decoded. memory: limits of the process that decodes
    them. tree: of a ROOT file, '' for that of the training, or the only one of a file without it. Raises: RequestError;
    what `hold` raises.
    """
    spec = served.published.spec
    if kind == JSON:
        hold(sum(body.count(sign) * size for sign, size in JSON_BYTES.items()))
        return _from_json(spec, json_object(body).get("events"))
    if kind in (ARROW_STREAM, ARROW_FILE, PARQUET):
        return _from_table(spec, kind, body, hold, memory=memory)
    if kind == ROOT:
        return _from_root(served.published, body, tree, hold, memory=memory)
    raise RequestError(f"events come as {', '.join((JSON, ARROW_STREAM, ARROW_FILE, PARQUET, ROOT))}, not as '{kind}'")


def scores_as(kind: str, columns: Columns) -> bytes:
    """Return scores as a document of a media type: Arrow, Parquet, or a ROOT file with a TTree 'scores'."""
    if kind in (ARROW_STREAM, ARROW_FILE):
        import pyarrow as pa

        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        out = io.BytesIO()
        open_writer = pa.ipc.new_stream if kind == ARROW_STREAM else pa.ipc.new_file
        with open_writer(out, table.schema) as writer:
            writer.write_table(table)
        return out.getvalue()
    with tempfile.TemporaryDirectory(prefix="hepfaas-") as scratch:
        path = Path(scratch) / f"scores{SUFFIXES[kind]}"
        with score_file(path) as write:
            write(columns)
        return path.read_bytes()


def _from_json(spec: FeatureSpec, events: Any) -> Events:
    """Return events given by branch, {"met": [...], "jet_pt": [[...], ...]}, or as one object for each event."""
    if isinstance(events, list):
        events = _transposed(spec, events)
    if not isinstance(events, dict):
        raise RequestError("'events' is missing: an object from branch to a list of values, or a list of events")
    branches = {branch.name: _read_json(branch, _value(events, branch.name)) for branch in spec.inputs}
    _check_lengths(branches)
    identifiers = {name: _flat(name, events[name], "int64") for name in spec.identifiers if name in events}
    _check_lengths({**branches, **identifiers})
    return Events(branches, identifiers)


def _transposed(spec: FeatureSpec, events: Sequence[Any]) -> dict[str, list[Any]]:
    if not all(isinstance(event, dict) for event in events):
        raise RequestError("'events' is a list, but one of its events is not an object from branch to value")
    names = [
        *spec.input_names,
        *(name for name in spec.identifiers if events and name in events[0]),
    ]
    return {name: [_value(event, name) for event in events] for name in names}


def _value(events: Mapping[str, Any], name: str) -> Any:
    if name not in events:
        raise missing_branch("the request", name, list(events))
    return events[name]


def _read_json(branch: InputBranch, values: Any) -> Values:
    if not branch.jagged:
        return _flat(branch.name, values, _type(branch))
    _check_is_list(branch.name, values)
    if not all(isinstance(value, list) for value in values):
        raise RequestError(f"branch '{branch.name}' is jagged: each event has a list of values")
    counts = np.fromiter(map(len, values), dtype=np.int64, count=len(values))
    flat = list(itertools.chain.from_iterable(values))
    numbers = from_json(flat, _type(branch), f"branch '{branch.name}'", null=True, place=place_in_events(counts))
    if numbers.ndim != 1:
        raise RequestError(f"branch '{branch.name}': an event has one list of values, without lists in it")
    return Jagged(numbers, counts)


def _flat(name: str, values: Any, type_: str) -> NDArray[Any]:
    """Return one number for each event; null becomes NaN among floats."""
    _check_is_list(name, values)
    numbers = from_json(values, type_, f"branch '{name}'", null=True, place=place_of_event)
    if numbers.ndim != 1:
        raise RequestError(f"branch '{name}' is flat: each event has one value")
    return numbers


def _check_is_list(name: str, values: Any) -> None:
    if not isinstance(values, list):
        raise RequestError(f"branch '{name}' is not a list with one value for each event")


def _type(branch: InputBranch) -> str:
    """Return the type that the branch had in training."""
    return branch.type or "float32"


def _from_tensor(values: NDArray[Any], branch: InputBranch) -> Values:
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


def _from_table(spec: FeatureSpec, kind: str, body: bytes, hold: Hold, *, memory: Memory) -> Events:
    """Return the events of an Arrow or Parquet table, read in a confined worker."""
    described = [(branch.name, branch.jagged, _type(branch)) for branch in spec.inputs]
    values = {"kind": kind, "branches": described, "identifiers": list(spec.identifiers)}
    facts, arrays = in_worker(body, "table", values, hold, memory=memory)
    names = spec.input_names
    identifiers = [name for name in spec.identifiers if name in facts["identifiers"]]
    columns = unpacked([*names, *identifiers], facts["jagged"], arrays)
    return Events(
        {name: columns[name] for name in names}, {name: flat_values(columns[name], name) for name in identifiers}
    )


def pixels_of(served: Served, body: bytes, hold: Hold, memory: Memory) -> NDArray[np.float32]:
    """Return the pixels of a picture (images.py) in the model's shape, read in a confined worker.

    Raises: RequestError.
    """
    values = {"shape": served.shape, "model": str(served.version)}
    _, (pixels,) = in_worker(body, "picture", values, hold, memory=memory)
    if pixels.shape != served.shape or pixels.dtype != np.float32:
        raise RequestError(f"'image' cannot be decoded for model '{served.version}'")
    return pixels


def in_worker(body: bytes, function: str, values: Mapping[str, Any], hold: Hold, *, memory: Memory) -> Answer:
    """Call a function of body_worker.py on a body, in a confined worker. Raises: RequestError; what `hold` raises."""
    descriptor = sealed_memory(len(body), body)
    try:
        with TaskWorker(fork_server(), "hepfaas.inputs.body_worker", memory, [descriptor]) as worker:
            return worker.call(function, values, back={"hold": partial(_hold_size, hold)})
    except WorkerLostError as error:
        raise RequestError(f"the body cannot be read: {error}") from error
    finally:
        os.close(descriptor)


def _hold_size(hold: Hold, values: Mapping[str, Any]) -> Sequence[NDArray[Any]]:
    size = values.get("size")
    if type(size) is not int:
        raise ValueError("the size is not a number")
    hold(size)
    return ()


def _from_root(published: Published, body: bytes, tree: str, hold: Hold, *, memory: Memory) -> Events:
    from hepfaas.datasets.byte_source import BodySource
    from hepfaas.datasets.event_file import EventFile
    from hepfaas.datasets.ranges import EntryRange

    with EventFile(BodySource(body), "the body", memory) as file:
        spec, tree = published.spec, tree or file.tree_or_only(published.tree)
        described = file.tree(tree)
        in_file = {branch.name for branch in described.branches}
        identifiers = [name for name in spec.identifiers if name in in_file]
        names = [*spec.input_names, *identifiers]
        size_bytes, n_values = file.decoded(tree, names)
        hold(max(size_bytes, VALUE_BYTES * n_values))
        arrays = file.read(tree, names, EntryRange(0, described.entries))
    return Events(arrays, {name: flat_values(arrays.pop(name), name) for name in identifiers})


def _check_lengths(branches: Mapping[str, Any]) -> None:
    """Check that all branches have as many events as the first. Raises: RequestError."""
    lengths = {name: len(values) for name, values in branches.items()}
    first = next(iter(lengths), "")
    for name, length in lengths.items():
        if length != lengths[first]:
            raise RequestError(f"branch '{name}' has {length} events and '{first}' has {lengths[first]}")
