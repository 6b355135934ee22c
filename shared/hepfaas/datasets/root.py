"""Reads TTrees of ROOT files, local or on servers, in confined workers (root_worker.py). Identity: identity.py.

This process opens files and fetches bytes; only workers look into them, and what they say is checked.
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
from hepfaas.datasets.identity import held, identity_of, is_still, stat_of, uploaded
from hepfaas.datasets.ranges import Baskets, EntryRange
from hepfaas.datasets.reading import PLAIN, Endpoint, Reading
from hepfaas.errors import RequestError
from hepfaas.features.jagged import Values, unpacked
from hepfaas.platform.address import XROOTD, parsed
from hepfaas.sandbox.processes import USUAL_MEMORY, Memory, fork_server
from hepfaas.sandbox.tasks import Answer, TaskWorker, WorkerLostError

MOST_OPEN = 4
MOST_FETCHED = 600_000_000
"""Bytes that a worker may ask for at once."""

WORKER = "hepfaas.datasets.root_worker"

_TYPE = re.compile(r"bool|u?int(?:8|16|32|64)|float(?:16|32|64)")


@dataclass(frozen=True)
class OpenedFile:
    """What the header of a file tells: who it is, its entries, its branches of numbers and how they lie.

    fingerprint: equal for copies of the file (root_worker.py). edges: the entries at which the baskets of each branch
    end. left_out: branches that are no numbers, and what they are.
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
        """How messages name the tree."""
        return f"TTree '{self.tree}' in '{self.url}'"

    def baskets(self, names: Sequence[str]) -> list[Baskets]:
        """How the baskets of these branches are cut, those alike together."""
        sizes: dict[tuple[int, ...], int] = {}
        for branch in self.branches:
            if branch.name in names:
                edges = self.edges[branch.name]
                sizes[edges] = sizes.get(edges, 0) + branch.size_bytes
        return [Baskets(edges, size) for edges, size in sizes.items()]


def opened(url: str, tree: str, reading: Reading = PLAIN) -> OpenedFile:
    """Reads the header, the keys and the tree's description; no basket. Raises: RequestError; UnavailableError."""

    def at(endpoint: Endpoint) -> OpenedFile:
        with translated_errors(endpoint.url), open_root(endpoint, _most_held(url, reading), reading.memory) as file:
            since, identity = stat_of(file.source), identity_of(file.source, file.fingerprint, url, reading)
            entries, branches, left_out, edges = file.tree(tree)
            if not is_still(file.source, identity, since):
                raise _changed(endpoint.url)
            return OpenedFile(
                identity, file.fingerprint, url, tree, entries, file.source.size_bytes, branches, left_out, edges
            )

    return reading.through(url, at)


def read(
    url: str, identity: str, tree: str, branches: Sequence[str], entries: EntryRange, reading: Reading = PLAIN
) -> dict[str, Values]:
    """The branches of some entries, each (events,) or jagged, all of them from one endpoint. Raises: RequestError if
    the file is another than the one with this identity, or has no such branch; UnavailableError."""

    def at(endpoint: Endpoint) -> dict[str, Values]:
        with translated_errors(endpoint.url), _Lent(endpoint, identity, url, reading) as found:
            arrays = found.file.read(tree, branches, entries)
            if not is_still(found.file.source, identity, found.since):
                raise _changed(endpoint.url)
            return arrays

    return reading.through(url, at)


def open_root(endpoint: Endpoint, most_held: int = 0, memory: Memory = USUAL_MEMORY) -> RootFile:
    """Return the file, to be closed by the caller; the faults of its source are for `translated_errors` to translate.

    most_held: bytes of a file on a server up to which it is fetched whole and read from memory.
    """
    if "://" not in endpoint.url:
        return RootFile(LocalSource(endpoint.url), endpoint.url, memory)
    address = parsed(endpoint.url)
    url = str(address)
    return RootFile(held(_source(replace(endpoint, url=url), address.scheme), most_held), url, memory)


class RootFile:
    """An open file, and the worker that looks into it. Every method raises RequestError and what the source raises."""

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
        """Entries of a tree, branches of numbers, others with what they are, and the entries at which the baskets of
        each branch end."""
        facts, arrays = self._call("tree", tree=name)
        edges = [tuple(array.tolist()) for array in arrays]
        branches = tuple(branch_of(values[:4]) for values in facts["branches"])
        places = {str(values[0]): edges[values[4]] for values in facts["branches"]}
        return int(facts["entries"]), branches, _pairs(facts["left_out"]), places

    def trees(self) -> list[Mapping[str, Any]]:
        """Return what summary.py shows of each tree."""
        return list(self._call("trees")[0]["trees"])

    def decoded(self, tree: str, names: Sequence[str]) -> tuple[int, int]:
        """Return what branches take in memory once read: bytes, and values or entries, whichever are more."""
        facts, _ = self._call("decoded", tree=tree, names=list(names))
        return int(facts["size_bytes"]), int(facts["values"])

    def read(self, tree: str, names: Sequence[str], entries: EntryRange) -> dict[str, Values]:
        """Return branches of some entries, each (events,) or jagged."""
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
    """Return the ranges that a worker asks for. Raises: ValueError."""
    if not isinstance(values, list) or not all(isinstance(one, list) and len(one) == 2 for one in values):
        raise ValueError("bytes that are no ranges")
    size = 0
    for start, stop in values:
        if type(start) is not int or type(stop) is not int or not 0 <= start <= stop:
            raise ValueError(f"bytes {str(start)[:20]} to {str(stop)[:20]}")
        size += stop - start
    if size > MOST_FETCHED:
        raise ValueError(f"{size:,} bytes at once")
    return [(start, stop) for start, stop in values]


def branch_of(values: Sequence[Any]) -> Branch:
    """Return a branch of numbers as a worker describes it. Raises: ValueError."""
    name, jagged, type_, size_bytes = values
    if not _TYPE.fullmatch(type_):
        raise ValueError(f"type {type_[:40]!r}")
    return Branch(str(name), bool(jagged), type_, int(size_bytes))


def _pairs(values: Sequence[Sequence[Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), str(what)) for name, what in values)


def _source(endpoint: Endpoint, scheme: str) -> ByteSource:
    """Return what reads byte ranges of a file on a server. The endpoint's address is in its normal form."""
    if scheme in XROOTD:
        from hepfaas.datasets.xrootd_source import XRootDSource  # each client: only where it is used

        return XRootDSource(endpoint)
    if scheme == "s3":
        from hepfaas.datasets.s3_source import S3Source

        return S3Source(endpoint.url)
    from hepfaas.datasets.http_source import HttpSource

    return HttpSource(endpoint.url, credential=endpoint.credential, private=endpoint.private)


def _most_held(url: str, reading: Reading) -> int:
    """Return up to how many bytes a file is fetched whole; uploads have been hashed and are read by ranges."""
    return 0 if uploaded(url, reading) else reading.hashed_bytes


def _changed(url: str) -> RequestError:
    return RequestError(f"'{url}' has changed since the run opened it; start again to read it as it is now")


class _Found:
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


class _Lent:
    """Lends an open file: opening one of a thousand branches takes half a second, so a process keeps the last four,
    each for whom it was opened."""

    _kept: ClassVar[OrderedDict[tuple[Endpoint, str], _Found]] = OrderedDict()
    _lock = threading.Lock()

    def __init__(self, endpoint: Endpoint, identity: str, url: str, reading: Reading) -> None:
        self._key = (endpoint, identity)
        self._named = (url, reading)

    def __enter__(self) -> _Found:
        with self._lock:
            found = self._kept.pop(self._key, None)
        if found is not None and stat_of(found.file.source) != found.since:
            found.file.close()
            found = None
        self._found = found or _Found(*self._key, *self._named)
        return self._found

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:  # what failed once is not read from again: its server may have been away
            self._found.file.close()
            return
        with self._lock:
            self._kept[self._key] = self._found
            surplus = [self._kept.popitem(last=False)[1] for _ in range(len(self._kept) - MOST_OPEN)]
        for found in surplus:
            found.file.close()
