"""Reads TTrees and RNTuples of ROOT files, local or on servers, in confined workers (root_worker.py). Identity:
file_identity.py.

This process opens files and fetches bytes; only workers parse them, and their answers are checked.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from hepfaas.datasets.branch_choice import Branch
from hepfaas.datasets.byte_source import ByteSource, LocalSource, Range
from hepfaas.datasets.errors import translated_errors
from hepfaas.datasets.file_identity import identity_of, in_memory, is_still, stat_of, uploaded
from hepfaas.datasets.ranges import Baskets, EntryRange
from hepfaas.datasets.reading import PLAIN, Endpoint, Reading
from hepfaas.errors import RequestError
from hepfaas.features.jagged import Values, unpacked
from hepfaas.platform.address import XROOTD, parsed
from hepfaas.sandbox.processes import USUAL_MEMORY, Memory, fork_server
from hepfaas.sandbox.tasks import Answer, TaskWorker, WorkerLostError

MOST_KEPT_OPEN = 4
MOST_FETCHED = 600_000_000
"""Bytes that a worker may request at once."""

WORKER = "hepfaas.datasets.root_worker"

_TYPE = re.compile(r"bool|u?int(?:8|16|32|64)|float(?:16|32|64)")


@dataclass(frozen=True)
class OpenedFile:
    """The identity of a file and the description of one tree.

    fingerprint: equal for copies of the file (root_worker.py). edges: the entries at which the baskets of each branch
    end. left_out: branches that are not numbers, with their types.
    """

    identity: str
    fingerprint: str
    url: str
    tree: str
    entries: int
    size_bytes: int
    branches: tuple[Branch, ...]
    left_out: tuple[tuple[str, str], ...]
    edges: dict[str, tuple[int, ...]]

    @property
    def place(self) -> str:
        """The tree and its file, for messages."""
        return f"TTree '{self.tree}' in '{self.url}'"

    def baskets(self, names: Sequence[str]) -> list[Baskets]:
        """Return the baskets of these branches; branches with the same edges are added up."""
        sizes: dict[tuple[int, ...], int] = {}
        for branch in self.branches:
            if branch.name in names:
                edges = self.edges[branch.name]
                sizes[edges] = sizes.get(edges, 0) + branch.size_bytes
        return [Baskets(edges, size) for edges, size in sizes.items()]


def opened(url: str, tree: str, reading: Reading = PLAIN) -> OpenedFile:
    """Read the header, the keys and the tree's description, but no basket. Raises: RequestError; UnavailableError."""

    def at(endpoint: Endpoint) -> OpenedFile:
        with translated_errors(endpoint.url), open_root(endpoint, _most_held(url, reading), reading.memory) as file:
            since, identity = stat_of(file.source), identity_of(file.source, file.fingerprint, url, reading)
            entries, branches, left_out, edges = file.tree(tree)
            if not is_still(file.source, identity, since):
                raise _changed(endpoint.url)
            return OpenedFile(
                identity=identity,
                fingerprint=file.fingerprint,
                url=url,
                tree=tree,
                entries=entries,
                size_bytes=file.source.size_bytes,
                branches=branches,
                left_out=left_out,
                edges=edges,
            )

    return reading.through(url, at)


def read(
    url: str, identity: str, tree: str, *, branches: Sequence[str], entries: EntryRange, reading: Reading = PLAIN
) -> dict[str, Values]:
    """Return the branches for a range of entries, each (events,) or jagged, all from one endpoint. Raises: RequestError
    if the file has another identity, or no such branch; UnavailableError."""

    def at(endpoint: Endpoint) -> dict[str, Values]:
        with translated_errors(endpoint.url), _OpenFile(endpoint, identity, url, reading) as kept:
            arrays = kept.file.read(tree, branches, entries)
            if not is_still(kept.file.source, identity, kept.since):
                raise _changed(endpoint.url)
            return arrays

    return reading.through(url, at)


def open_root(endpoint: Endpoint, most_held: int = 0, memory: Memory = USUAL_MEMORY) -> RootFile:
    """Return the file, which the caller closes. Call it within `translated_errors`.

    most_held: largest file on a server, in bytes, that is fetched whole and read from memory.
    """
    if "://" not in endpoint.url:
        return RootFile(LocalSource(endpoint.url), endpoint.url, memory)
    address = parsed(endpoint.url)
    url = str(address)
    return RootFile(in_memory(_source(replace(endpoint, url=url), address.scheme), most_held), url, memory)


class RootFile:
    """An open file and the worker that parses it. Every method raises RequestError and the errors of the source."""

    def __init__(self, source: ByteSource, name: str, memory: Memory = USUAL_MEMORY) -> None:
        self.source, self._name = source, name
        descriptors = [] if source.descriptor is None else [source.descriptor]
        try:
            self._worker = TaskWorker(fork_server(), WORKER, memory, descriptors)
        except BaseException:
            source.close()
            raise
        try:
            facts, _ = self._call("open", name=name, size_bytes=source.size_bytes)
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

    def tree(
        self, name: str
    ) -> tuple[int, tuple[Branch, ...], tuple[tuple[str, str], ...], dict[str, tuple[int, ...]]]:
        """Return the number of entries of a tree, its branches of numbers, other branches with their types, and the
        entries at which the baskets of each branch end."""
        facts, arrays = self._call("tree", tree=name)
        edges = [tuple(array.tolist()) for array in arrays]
        branches = tuple(branch_of(values[:5]) for values in facts["branches"])
        places = {str(values[0]): edges[values[5]] for values in facts["branches"]}
        return int(facts["entries"]), branches, _pairs(facts["left_out"]), places

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


def _source(endpoint: Endpoint, scheme: str) -> ByteSource:
    """Return the byte source of a file on a server. The endpoint's address is in its normal form."""
    if scheme in XROOTD:
        from hepfaas.datasets.xrootd_source import XRootDSource  # each client: only where it is used

        return XRootDSource(endpoint)
    if scheme == "s3":
        from hepfaas.datasets.s3_source import S3Source

        return S3Source(endpoint.url)
    from hepfaas.datasets.http_source import HttpSource

    return HttpSource(endpoint.url, credential=endpoint.credential, private=endpoint.private)


def _most_held(url: str, reading: Reading) -> int:
    """Return the size up to which a file is fetched whole; uploads were hashed before and are read by ranges."""
    return 0 if uploaded(url, reading) else reading.hashed_bytes


def _changed(url: str) -> RequestError:
    return RequestError(f"'{url}' has changed since the run opened it; start again to read the new content")


class _KeptFile:
    """A file kept open, and its state when its identity was computed."""

    def __init__(self, endpoint: Endpoint, identity: str, url: str, reading: Reading) -> None:
        self.file = open_root(endpoint, _most_held(url, reading), reading.memory)
        try:
            self.since = stat_of(self.file.source)
            if identity_of(self.file.source, self.file.fingerprint, url, reading) != identity:
                raise _changed(endpoint.url)
        except BaseException:
            self.file.close()
            raise


class _OpenFile:
    """A context with an open file. Opening a file with a thousand branches takes half a second, so a process keeps the
    last four open, each for the credential it was opened with."""

    _kept: ClassVar[OrderedDict[tuple[Endpoint, str], _KeptFile]] = OrderedDict()
    _lock = threading.Lock()

    def __init__(self, endpoint: Endpoint, identity: str, url: str, reading: Reading) -> None:
        self._key = (endpoint, identity)
        self._url, self._reading = url, reading

    def __enter__(self) -> _KeptFile:
        with self._lock:
            kept = self._kept.pop(self._key, None)
        if kept is not None and stat_of(kept.file.source) != kept.since:
            kept.file.close()
            kept = None
        self._current = kept or _KeptFile(*self._key, self._url, self._reading)
        return self._current

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:  # open it again after an error: its server may have been away
            self._current.file.close()
            return
        with self._lock:
            self._kept[self._key] = self._current
            surplus = [self._kept.popitem(last=False)[1] for _ in range(len(self._kept) - MOST_KEPT_OPEN)]
        for kept in surplus:
            kept.file.close()
