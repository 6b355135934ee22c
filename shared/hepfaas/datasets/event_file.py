"""An open file of events, local or on a server, and the confined worker that parses it.

This process opens files and fetches bytes; only workers parse them, and their answers are checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hepfaas.datasets.branch_choice import Branch
from hepfaas.datasets.byte_source import ByteSource, LocalSource, Range
from hepfaas.datasets.file_identity import in_memory
from hepfaas.datasets.formats import HEAD_BYTES, ROOT, USUAL_FORM, Form, format_named, format_of
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.reading import Endpoint
from hepfaas.errors import RequestError
from hepfaas.features.jagged import Values, unpacked
from hepfaas.platform.address import XROOTD, parsed
from hepfaas.sandbox.processes import USUAL_MEMORY, Memory, fork_server
from hepfaas.sandbox.tasks import Answer, TaskWorker, WorkerLostError

MOST_FETCHED = 600_000_000
"""Bytes that a worker may request at once."""

ROOT_WORKER, TABLE_WORKER = "hepfaas.datasets.root_worker", "hepfaas.datasets.tables.worker"

_TYPE = re.compile(r"bool|u?int(?:8|16|32|64)|float(?:16|32|64)")


def open_file(
    endpoint: Endpoint,
    most_held: int = 0,
    memory: Memory = USUAL_MEMORY,
    form: Form = USUAL_FORM,
    layout: str = "",
) -> EventFile:
    """Return the file, which the caller closes. Call it within `translated_errors`.

    most_held: largest file on a server, in bytes, that is fetched whole and read from memory. layout: of the same file
    (`Tree`), from which its form is taken; '' if it is not known.
    """
    url, source = endpoint.url, _source(endpoint, most_held)
    try:
        if layout:
            known = json.loads(layout)
            form = Form(known["format"], known["record_function"])
        dtype = form.dtype
        format_ = dtype or format_named(url)
        if format_ != ROOT:
            (head,) = source.fetch([(0, min(HEAD_BYTES, source.size_bytes))])
            format_ = format_of(url, bytes(head), dtype)
    except BaseException:
        source.close()
        raise
    return EventFile(source, url, memory, format_, form.record_function, layout)


@dataclass(frozen=True)
class Tree:
    """The events of a file: of one tree, or of a table.

    branches: of numbers. left_out: other branches with their types. edges: the entries at which the baskets of each
    branch end. notes: for the user. layout: JSON text with which another process opens a table without looking at
    all of it, '' for ROOT files.
    """

    entries: int
    branches: tuple[Branch, ...]
    left_out: tuple[tuple[str, str], ...]
    edges: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()
    layout: str = ""


class EventFile:
    """An open file and the worker that parses it. Every method raises RequestError and the errors of the source.

    format_: one of formats.py. record_function: see `Form`. layout: see `open_file`.
    """

    def __init__(
        self,
        source: ByteSource,
        name: str,
        memory: Memory = USUAL_MEMORY,
        format_: str = ROOT,
        record_function: str = "",
        layout: str = "",
    ) -> None:
        self.source, self._name, self.format = source, name, format_
        descriptors = [] if source.descriptor is None else [source.descriptor]
        try:
            self._worker = TaskWorker(
                fork_server(), ROOT_WORKER if format_ == ROOT else TABLE_WORKER, memory, descriptors
            )
        except BaseException:
            source.close()
            raise
        try:
            form = {"format": format_, "layout": layout, "record_function": record_function}
            facts, _ = self._call("open", name=name, size_bytes=source.size_bytes, **form)
            self.fingerprint = str(facts["fingerprint"])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and end the worker."""
        self._worker.close()
        self.source.close()

    def tree(self, name: str) -> Tree:
        """Return the description of a tree, or of the table."""
        facts, arrays = self._call("tree", tree=name)
        edges = [tuple(array.tolist()) for array in arrays]
        return Tree(
            entries=int(facts["entries"]),
            branches=tuple(branch_of(values[:5]) for values in facts["branches"]),
            left_out=_pairs(facts["left_out"]),
            edges={str(values[0]): edges[values[5]] for values in facts["branches"]},
            notes=tuple(map(str, facts.get("notes", ()))),
            layout=str(facts.get("layout", "")),
        )

    def tree_or_only(self, name: str) -> str:
        """Return the name of a tree, or that of the only tree of a file that has no tree of this name."""
        return str(self._call("tree_or_only", tree=name)[0]["tree"])

    def trees(self) -> list[Mapping[str, Any]]:
        """Return the values for the summary of each tree (summary.py)."""
        return list(self._call("trees")[0]["trees"])

    def decoded(self, tree: str, names: Sequence[str]) -> tuple[int, int]:
        """Return the size of branches in memory: bytes, and the larger of the numbers of values and entries."""
        facts, _ = self._call("decoded", tree=tree, names=list(names))
        return int(facts["size_bytes"]), int(facts["values"])

    def read(self, tree: str, names: Sequence[str], entries: EntryRange) -> dict[str, Values]:
        """Return branches for a range of entries, each (events,) or jagged."""
        names = list(dict.fromkeys(names))
        facts, arrays = self._call("read", tree=tree, names=names, start=entries.start, stop=entries.stop)
        return unpacked(names, facts["jagged"], arrays)

    def _call(self, function: str, **values: Any) -> Answer:
        try:
            return self._worker.call(function, values, back={"fetch": self._fetch})
        except WorkerLostError as error:
            raise RequestError(f"'{self._name}' cannot be read: {error}") from error

    def _fetch(self, values: Mapping[str, Any]) -> Sequence[NDArray[np.uint8]]:
        ranges, most = _ranges(values.get("ranges")), self.source.size_bytes
        parts = self.source.fetch([(min(start, most), min(stop, most)) for start, stop in ranges])
        return [np.frombuffer(part, np.uint8) for part in parts]


def _ranges(values: Any) -> list[Range]:
    """Return the ranges that a worker requests. Raises: ValueError."""
    if not isinstance(values, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in values):
        raise ValueError("ranges that are not pairs")
    size = 0
    for start, stop in values:
        if type(start) is not int or type(stop) is not int or not 0 <= start <= stop:
            raise ValueError(f"bytes {str(start)[:20]} to {str(stop)[:20]}")
        size += stop - start
    if size > MOST_FETCHED:
        raise ValueError(f"{size:,} bytes at once")
    return [(start, stop) for start, stop in values]


def branch_of(values: Sequence[Any]) -> Branch:
    """Return a branch of numbers from a worker's description. Raises: ValueError."""
    name, jagged, type_, size_bytes, *title = values
    if not _TYPE.fullmatch(type_):
        raise ValueError(f"type {type_[:40]!r}")
    return Branch(str(name), bool(jagged), type_, int(size_bytes), str(*title))


def _pairs(values: Sequence[Sequence[Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), str(type_)) for name, type_ in values)


def _source(endpoint: Endpoint, most_held: int) -> ByteSource:
    """Return the bytes of a file; in memory if it is on a server and has at most `most_held` bytes."""
    if "://" not in endpoint.url:
        return LocalSource(endpoint.url)
    address = parsed(endpoint.url)
    return in_memory(_on_server(replace(endpoint, url=str(address)), address.scheme), most_held)


def _on_server(endpoint: Endpoint, scheme: str) -> ByteSource:
    """Return the byte source of a file on a server. The endpoint's address is in its normal form."""
    if scheme in XROOTD:
        from hepfaas.datasets.xrootd_source import XRootDSource  # each client: only where it is used

        return XRootDSource(endpoint)
    if scheme == "s3":
        from hepfaas.datasets.s3_source import S3Source

        return S3Source(endpoint.url)
    from hepfaas.datasets.http_source import HttpSource

    return HttpSource(endpoint.url, credential=endpoint.credential, private=endpoint.private)
