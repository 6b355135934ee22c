"""Reads TTrees of ROOT files, local or on servers. The only module that opens one. Identity: identity.py."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from urllib.parse import quote

import awkward as ak
import uproot

from hepfaas.datasets.addresses import check_host
from hepfaas.datasets.chosen import Branch, missing_branch
from hepfaas.datasets.doors import PLAIN, Door, Reading
from hepfaas.datasets.faults import explained
from hepfaas.datasets.identity import Given, LocalSource, fingerprint, held, identity_of, is_still, stat_of, uploaded
from hepfaas.datasets.ranges import Baskets, EntryRange
from hepfaas.errors import RequestError
from hepfaas.platform.address import XROOTD, Address, parsed

XROOTD_LIMITS = {
    "XRD_CONNECTIONWINDOW": "10",
    "XRD_CONNECTIONRETRY": "2",
    "XRD_REQUESTTIMEOUT": "60",
    "XRD_STREAMERRORWINDOW": "30",
    "XRD_TIMEOUTRESOLUTION": "1",
}
"""Seconds and counts: XRootD's own would let a dead door hold a request for half an hour."""

VECTOR_LIMITS = (1024, 2_097_136)
"""Parts of one vector read, and bytes of each, that XRootD servers take unless they are told otherwise."""

MOST_OPEN = 4
TREE_CLASSES = ("TTree", "TNtuple", "TNtupleD", "TChain")


@dataclass(frozen=True)
class OpenedFile:
    """What the header of a file tells: who it is, its entries, its branches of numbers and how they lie.

    fingerprint: equal for copies of the file (identity.fingerprint). edges: the entries at which the baskets of each
    branch end. left_out: branches that are no numbers, and what they are.
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

    def at(door: Door) -> OpenedFile:
        with explained(door.url), open_root(door, _most_held(url, reading)) as file:
            since, identity = stat_of(file), identity_of(file, url, reading)
            found = _tree(file, door.url, tree)
            branches, left_out, edges = branches_of(found)
            entries, size = int(found.num_entries), _size(file)
            if not is_still(file, identity, since):
                raise _changed(door.url)
            result = OpenedFile(identity, fingerprint(file), url, tree, entries, size, branches, left_out, edges)
            _check_server(file)
            return result

    return reading.through(url, at)


@dataclass(frozen=True)
class Decoded:
    """What some branches take in memory: bytes, and values or entries, whichever are more."""

    size_bytes: int
    values: int


def decoded(path: str, tree: str, names: Sequence[str]) -> Decoded:
    """What branches of a file here take once read, by the headers of their baskets: what tree and branches claim of
    themselves is not believed. Raises: RequestError."""
    with explained(path), open_root(Door(path)) as file:
        found = _tree(file, path, tree)
        size = values = 0
        branches, left_out, _ = branches_of(found)
        there, others = [branch.name for branch in branches], dict(left_out)
        for name in names:
            if name in others:
                raise RequestError(f"branch '{name}' of TTree '{tree}' in '{path}' is {others[name]}, and no number")
            if name not in there:
                raise missing_branch(f"TTree '{tree}' in '{path}'", name, there)
            branch = found[name]
            how = branch.interpretation
            item = (how.content if isinstance(how, uproot.AsJagged) else how).itemsize
            baskets = sum(branch.basket_uncompressed_bytes(place) for place in range(branch.num_baskets))
            size += baskets
            values += max(baskets // item, int(found.num_entries))
        return Decoded(size, values)


def read(
    url: str, identity: str, tree: str, branches: Sequence[str], entries: EntryRange, reading: Reading = PLAIN
) -> dict[str, ak.Array]:
    """The branches of some entries, each (events,) or (events, var), all of them from one door. Raises: RequestError if
    the file is another than the one with this identity, or has no such branch; UnavailableError."""

    def at(door: Door) -> dict[str, ak.Array]:
        with explained(door.url), _Lent(door, identity, tree, url, reading) as found:
            for name in branches:
                if name not in found.names:
                    raise missing_branch(f"TTree '{tree}' in '{door.url}'", name, found.names)
            arrays: dict[str, ak.Array] = found.tree.arrays(
                list(branches),
                entry_start=entries.start,
                entry_stop=entries.stop,
                library="ak",
                how=dict,
                array_cache=None,
            )
            if not is_still(found.file, identity, found.since):
                raise _changed(door.url)
            return arrays

    return reading.through(url, at)


class XRootDSource(uproot.XRootDSource):  # type: ignore[misc]  # uproot has no types
    """A file behind an XRootD server. What is shown to the server stands in its own address of the file alone.

    Connections are shared by name of user: one that no one else has keeps them apart, through redirections too.
    """

    def __init__(self, file_path: str, door: Door, **options: Any) -> None:
        self._door = door
        super().__init__(file_path, **options, timeout=door.limit_s)

    def _open(self) -> None:
        opened = _with_credential(self._door)
        try:
            self._resource = uproot.source.xrootd.XRootDResource(opened, self._timeout)
        except OSError as error:
            raise type(error)(str(error).replace(opened, self._file_path)) from None
        self._resource._file_path = self._file_path
        self.check_server()
        # uproot asks the server for its own limits under no one's name, and so without the credential.
        if self._door.credential is None:
            limits: tuple[int, int] = uproot.source.xrootd.get_server_config(self._resource.file)
        else:
            limits = VECTOR_LIMITS
        self._max_num_elements, self._max_element_size = limits
        nothing = [uproot.source.xrootd.trivial_resource() for _ in range(self._num_workers)]
        self._executor = uproot.source.futures.ResourceThreadPoolExecutor(nothing)

    def chunk(self, start: int, stop: int) -> Any:
        """One range, from where the server may lead."""
        found = super().chunk(start, stop)
        self.check_server()
        return found

    def check_server(self) -> None:
        """Check where the server has led the client by now: its client follows before anybody is asked.

        Raises: RequestError if that is a file of this machine, or a private network where none may be.
        """
        client, file = uproot.extras.XRootD_client(), self._resource.file
        last, server = (client.URL(file.get_property(name)) for name in ("LastURL", "DataServer"))
        try:
            if last.protocol == "file":
                raise RequestError(f"'{self._file_path}' leads to a file of this machine, where no server may lead")
            if server.hostname and not self._door.private:
                check_host(Address("root", server.hostname.strip("[]"), server.port), allow_private=False)
        except RequestError:
            file.close(timeout=1)
            raise


def _with_credential(door: Door) -> str:
    """What XRootD's client opens: the token goes along with each request, the proxy is what it logs in with."""
    found = door.credential
    if found is None:
        return door.url
    address = parsed(door.url)
    shown = f"authz=Bearer%20{quote(found.secret, safe='')}"
    if found.kind == "x509":
        shown = f"xrd.wantprot=gsi&xrd.gsiusrpxy={found.path}"
    return f"{address.scheme}://{found.mark}@{address.place}/{address.path}?{shown}"


def open_root(door: Door, most_held: int = 0) -> Any:
    """Return the file, to be closed by the caller; its faults are for `explained` to translate. most_held: bytes of a
    file on a server up to which it is fetched whole and read from memory."""
    if "://" in door.url:
        address = parsed(door.url)
        url = str(address)
        source = held(_source(replace(door, url=url), address.scheme), url, most_held)
        try:
            file = uproot.open({url: None}, handler=Given, source=source)
        except BaseException:
            source.__exit__(None, None, None)
            raise
    else:
        url = door.url
        file = uproot.open({url: None}, handler=LocalSource)
    size, whole = _size(file), int(file.file.fEND)
    if size < whole:
        file.close()
        raise RequestError(f"'{url}' is cut short: it has {size:,} of its {whole:,} bytes; copy it anew")
    return file


def _source(door: Door, scheme: str) -> Any:
    """Return what reads byte ranges of a file on a server. The door's address is in its normal form."""
    if scheme in XROOTD:
        for name, value in XROOTD_LIMITS.items():
            os.environ.setdefault(name, value)
        _forbid_metalinks()
        return XRootDSource(door.url, door=door)
    if scheme == "s3":
        from hepfaas.datasets.s3_source import S3Source  # boto3: only where it is used

        return S3Source(door.url)
    from hepfaas.datasets.http_source import HttpSource  # urllib3: only where it is used

    return HttpSource(door.url, credential=door.credential, private=door.private)


def _forbid_metalinks() -> None:
    """Read files named x.meta4 or x.metalink as files: their server could list others, also local ones, to be opened.

    The client reads the variable once, when it is imported, and lets nobody change what it has read there.
    """
    os.environ["XRD_METALINKPROCESSING"] = "0"
    uproot.extras.XRootD_client().EnvPutInt("MetalinkProcessing", 0)


def _tree(file: Any, url: str, tree: str) -> Any:
    classes = file.classnames(recursive=True, cycle=False)
    if classes.get(tree) in TREE_CLASSES:
        return file[tree]
    if tree in classes:
        raise RequestError(f"'{tree}' in '{url}' is of class {classes[tree]}; only TTrees are read")
    raise RequestError(f"'{url}' has no TTree '{tree}'; it has: {', '.join(tree_names(file)) or 'none'}")


def tree_names(file: Any) -> list[str]:
    """Paths of the TTrees in a file."""
    classes = file.classnames(recursive=True, cycle=False)
    return [name for name, kind in classes.items() if kind in TREE_CLASSES]


def branches_of(tree: Any) -> tuple[tuple[Branch, ...], tuple[tuple[str, str], ...], dict[str, tuple[int, ...]]]:
    """Branches of numbers in the order of the tree, those that are none with what they are, and the entries at which
    each branch's baskets end."""
    branches, left_out, edges = [], [], {}
    for name, branch in tree.iteritems(recursive=True, full_paths=True):
        if len(branch.branches):
            continue
        described = _described(name, branch)
        if isinstance(described, Branch):
            branches.append(described)
            edges[name] = tuple(branch.entry_offsets)
        else:
            left_out.append((name, described))
    return tuple(branches), tuple(left_out), edges


def _described(name: str, branch: Any) -> Branch | str:
    """A branch of numbers, or what it is instead."""
    how = branch.interpretation
    jagged = isinstance(how, uproot.AsJagged)
    content = how.content if jagged else how
    if not isinstance(content, uproot.AsDtype):
        return str(branch.typename)
    values, shape = content.to_dtype.base, content.to_dtype.shape
    if values.kind not in "biuf" or (jagged and shape) or len(shape) > 1:
        return str(branch.typename)
    # A tree that was never flushed keeps its baskets inside its own description.
    inside = sum(basket.member("fLast") - basket.member("fKeylen") for basket in branch.embedded_baskets)
    return Branch(name, jagged or bool(shape), values.name, int(branch.uncompressed_bytes) + inside)


def _check_server(file: Any) -> None:
    """Raises: RequestError if the server of a file has led where it may not."""
    if isinstance(file.file.source, XRootDSource):
        file.file.source.check_server()


def _size(file: Any) -> int:
    return int(file.file.source.num_bytes)


def _most_held(url: str, reading: Reading) -> int:
    """Return up to how many bytes a file is fetched whole; uploads have been hashed and are read by ranges."""
    return 0 if uploaded(url, reading) else reading.hashed_bytes


def _changed(url: str) -> RequestError:
    return RequestError(f"'{url}' has changed since the run opened it; start again to read it as it is now")


class _Found:
    """A tree kept open, and its branches' names."""

    def __init__(self, door: Door, identity: str, tree: str, url: str, reading: Reading) -> None:
        self.file = open_root(door, _most_held(url, reading))
        try:
            self.since = stat_of(self.file)
            if identity_of(self.file, url, reading) != identity:
                raise _changed(door.url)
            self.tree = _tree(self.file, door.url, tree)
            self.names = self.tree.keys(recursive=True, full_paths=True)
        except BaseException:
            self.file.close()
            raise


class _Lent:
    """Lends an open tree: opening one of a thousand branches takes half a second, so a process keeps the last four,
    each for whom it was opened."""

    _kept: ClassVar[OrderedDict[tuple[Door, str, str], _Found]] = OrderedDict()
    _lock = threading.Lock()

    def __init__(self, door: Door, identity: str, tree: str, url: str, reading: Reading) -> None:
        self._key = (door, identity, tree)
        self._named = (url, reading)

    def __enter__(self) -> _Found:
        with self._lock:
            self._found = self._kept.pop(self._key, None)
        if self._found is not None and stat_of(self._found.file) != self._found.since:
            self._found.file.close()
            self._found = None
        if self._found is None:
            self._found = _Found(*self._key, *self._named)
        return self._found

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        assert self._found is not None
        try:
            _check_server(self._found.file)
        except RequestError:
            self._found.file.close()
            raise
        if kind is not None:  # what failed once is not read from again: its server may have been away
            with suppress(OSError, ValueError):
                self._found.file.close()
            return
        with self._lock:
            self._kept[self._key] = self._found
            surplus = [self._kept.popitem(last=False)[1] for _ in range(len(self._kept) - MOST_OPEN)]
        for found in surplus:
            found.file.close()
