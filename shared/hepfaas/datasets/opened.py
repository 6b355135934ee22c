"""Describes files of events and reads entry ranges of them, local or on servers. Identity: file_identity.py."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hepfaas.datasets.branch_choice import Branch
from hepfaas.datasets.errors import translated_errors
from hepfaas.datasets.event_file import EventFile, open_file
from hepfaas.datasets.file_identity import identity_of, is_still, stat_of, uploaded
from hepfaas.datasets.formats import ROOT, USUAL_FORM, Form, place_of
from hepfaas.datasets.ranges import Baskets, EntryRange
from hepfaas.datasets.reading import PLAIN, Endpoint, Reading
from hepfaas.errors import RequestError
from hepfaas.features.jagged import Values
from hepfaas.runs.identities import identity_of_events

MOST_KEPT_OPEN = 4


@dataclass(frozen=True)
class OpenedFile:
    """The identity of a file and the description of one tree, or of the table.

    fingerprint: equal for copies of the file (root_worker.py). edges: the entries at which the baskets of each branch
    end. left_out: branches that are not numbers, with their types. notes: for the user. format: one of
    formats.py. layout: for `read`.
    """

    identity: str
    fingerprint: str
    url: str
    tree: str
    entries: int
    size_bytes: int
    branches: tuple[Branch, ...]
    left_out: tuple[tuple[str, str], ...]
    edges: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()
    layout: str = ""
    format: str = ROOT

    @property
    def place(self) -> str:
        """The tree and its file, for messages."""
        return place_of(self.url, self.tree, self.format)

    def identity_of_events(self, usual_tree: str) -> str:
        """Return the identity of the events; a table has no other tree. usual_tree: as for the function."""
        return identity_of_events(self.identity, self.tree, usual_tree if self.format == ROOT else "")

    def baskets(self, names: Sequence[str]) -> list[Baskets]:
        """Return the baskets of these branches; branches with the same edges are added up."""
        sizes: dict[tuple[int, ...], int] = {}
        for branch in self.branches:
            if branch.name in names:
                edges = self.edges[branch.name]
                sizes[edges] = sizes.get(edges, 0) + branch.size_bytes
        return [Baskets(edges, size) for edges, size in sizes.items()]


def opened(
    url: str, tree: str, reading: Reading = PLAIN, form: Form = USUAL_FORM, *, or_only: bool = False
) -> OpenedFile:
    """Return the description of a file. Of binary files no event is read. or_only: the only tree of a ROOT file without
    this one is opened instead. Raises: RequestError; UnavailableError."""

    def at(endpoint: Endpoint) -> OpenedFile:
        with translated_errors(endpoint.url), _opened_at(endpoint, url, reading, form=form) as file:
            since, identity = stat_of(file.source), identity_of(file.source, file.fingerprint, url, reading)
            name = file.tree_or_only(tree) if or_only and file.format == ROOT else tree
            described = file.tree(name)
            if not is_still(file.source, identity, since):
                raise _changed(endpoint.url)
            return OpenedFile(
                identity=identity,
                fingerprint=file.fingerprint,
                url=url,
                tree=name,
                entries=described.entries,
                size_bytes=file.source.size_bytes,
                branches=described.branches,
                left_out=described.left_out,
                edges=described.edges,
                notes=described.notes,
                layout=described.layout,
                format=file.format,
            )

    return reading.through(url, at)


def read(
    url: str,
    identity: str,
    tree: str,
    *,
    branches: Sequence[str],
    entries: EntryRange,
    reading: Reading = PLAIN,
    layout: str = "",
) -> dict[str, Values]:
    """Return the branches for a range of entries, each (events,) or jagged, all from one endpoint.

    layout: of the same file; without it, a table is looked at as by `opened`. Raises: RequestError if the file has
    another identity, or no such branch; UnavailableError.
    """

    def at(endpoint: Endpoint) -> dict[str, Values]:
        with translated_errors(endpoint.url), _OpenFile(endpoint, identity, layout, url, reading) as kept:
            arrays = kept.file.read(tree, branches, entries)
            if not is_still(kept.file.source, identity, kept.since):
                raise _changed(endpoint.url)
            return arrays

    return reading.through(url, at)


def _opened_at(
    endpoint: Endpoint, url: str, reading: Reading, *, form: Form = USUAL_FORM, layout: str = ""
) -> EventFile:
    """Return the file at an endpoint. It is fetched whole up to a size; uploads were hashed before and are read by
    ranges."""
    most_held = 0 if uploaded(url, reading) else reading.hashed_bytes
    return open_file(endpoint, most_held, reading.memory, form, layout)


def _changed(url: str) -> RequestError:
    return RequestError(f"'{url}' has changed since the run opened it; start again to read the new content")


class _KeptFile:
    """A file kept open, and its state when its identity was computed."""

    def __init__(self, endpoint: Endpoint, identity: str, layout: str, url: str, reading: Reading) -> None:
        self.file = _opened_at(endpoint, url, reading, layout=layout)
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

    _kept: ClassVar[OrderedDict[tuple[Endpoint, str, str], _KeptFile]] = OrderedDict()
    _lock = threading.Lock()

    def __init__(self, endpoint: Endpoint, identity: str, layout: str, url: str, reading: Reading) -> None:
        self._key = (endpoint, identity, layout)
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
