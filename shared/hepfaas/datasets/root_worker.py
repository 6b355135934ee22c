"""The program of a confined worker that reads one ROOT file. The only module that opens one with uproot.

It has the descriptor of the file, or requests byte ranges from its parent. Functions: `open` first, then the others.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import queue
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self

import awkward  # noqa: F401  # uproot imports it late; here workers share it
import numpy as np
import uproot
from numpy.typing import NDArray
from uproot.deserialization import DeserializationError
from uproot.source.chunk import Chunk, Source
from uproot.source.futures import TrivialFuture

from hepfaas.datasets import rntuple
from hepfaas.datasets.branch_choice import Branch, missing_branch
from hepfaas.datasets.errors import first_line, translated_errors
from hepfaas.errors import RequestError
from hepfaas.features.jagged import packed
from hepfaas.sandbox.tasks import Answer, Callbacks, serve_calls

TREE_CLASSES = ("TTree", "TNtuple", "TNtupleD", "TChain", rntuple.CLASS)

MOST_NAMED = 10
LONGEST_TITLE = 100
LEAVES = re.compile(r"[^\s:]+(:[^\s:]+)*/[A-Za-z]|[^\s:]+\[\w+\]")
"""Titles that only list the leaves."""

Edges = dict[str, tuple[int, ...]]
Range = tuple[int, int]
Described = tuple[tuple[Branch, ...], tuple[tuple[str, str], ...], Edges]


def serve(channel_number: int, file_number: int | None = None) -> None:
    """Answer calls about one file until the channel closes."""

    def functions(callbacks: Callbacks) -> Mapping[str, Callable[..., Answer]]:
        reader = _Reader(callbacks, file_number)
        names = ("open", "tree", "tree_or_only", "decoded", "read", "trees")
        return {name: partial(reader.run, getattr(reader, f"do_{name}")) for name in names}

    serve_calls(channel_number, functions)


class _Reader:
    """An open file."""

    def __init__(self, callbacks: Callbacks, file_number: int | None) -> None:
        self._callbacks, self._file_number = callbacks, file_number
        self._name = ""
        self._trees: dict[str, Any] = {}
        self._names: dict[str, dict[str, None]] = {}
        self._columns: dict[str, dict[str, rntuple.Column | None]] = {}

    def run(self, function: Callable[..., Answer], arrays: object, **values: Any) -> Answer:
        """Return the result of the function; translate its errors."""
        self._name = values.pop("name", self._name)
        with translated_errors(self._name):
            return function(**values)

    def do_open(self, size_bytes: int, format: str, layout: str, record_function: str) -> Answer:
        """Open the file; return the fingerprint of its structure."""
        source: Source = _Fetched(self._name, size_bytes, self._callbacks)
        if self._file_number is not None:
            source = _Mapped(self._name, self._file_number)
        self._file = uproot.open({self._name: None}, handler=_Given, source=source)
        whole = int(self._file.file.fEND)
        if size_bytes < whole:
            raise RequestError(
                f"'{self._name}' is cut short: it has {size_bytes:,} of its {whole:,} bytes; copy it again or leave it "
                "out"
            )
        return {"fingerprint": self._fingerprint(size_bytes)}, []

    def do_tree(self, tree: str) -> Answer:
        """Describe a tree: entries, branches of numbers, others, and where the baskets of each branch end."""
        opened = self._tree(tree)
        branches, left_out, edges = self._branches(tree)
        places = {ends: place for place, ends in enumerate(dict.fromkeys(edges.values()))}
        described = [[b.name, b.jagged, b.type, b.size_bytes, b.title, places[edges[b.name]]] for b in branches]
        values = {"entries": int(opened.num_entries), "branches": described, "left_out": left_out}
        return values, [np.asarray(ends, dtype=np.int64) for ends in places]

    def do_tree_or_only(self, tree: str) -> Answer:
        """Return the name of the tree, or of the only one if there is none of this name."""
        names = [name for name, key in self._objects().items() if key.fClassName in TREE_CLASSES]
        return {"tree": names[0] if len(names) == 1 else tree}, []

    def do_decoded(self, tree: str, names: Sequence[str]) -> Answer:
        """Return the size of branches in memory by the headers of their baskets; the sizes that tree and branches state
        are not trusted."""
        opened = self._tree(tree)
        branches, left_out, _ = self._branches(tree)
        numbers, others = {branch.name for branch in branches}, dict(left_out)
        for name in names:
            if name in others:
                raise RequestError(
                    f"branch '{name}' of TTree '{tree}' in '{self._name}' is {others[name]}, not a number"
                )
            if name not in numbers:
                raise missing_branch(f"TTree '{tree}' in '{self._name}'", name, sorted(numbers))
        if _is_ntuple(opened):
            sizes = {column.name: rntuple.decoded(opened, column) for column in self._chosen(tree, names)}
            places = names
        else:
            places = [self._place(tree, name)[0] for name in names]
            sizes = {branch: _decoded(opened[branch]) for branch in places}
        entries = int(opened.num_entries)
        size_bytes = sum(size for size, _ in sizes.values())  # the leaves of a branch are read together
        return {"size_bytes": size_bytes, "values": sum(max(sizes[place][1], entries) for place in places)}, []

    def do_read(self, tree: str, names: Sequence[str], start: int, stop: int) -> Answer:
        """Return the values of branches for a range of entries; those of a jagged branch are followed by its counts."""
        opened = self._tree(tree)
        if _is_ntuple(opened):
            jagged, arrays = packed(rntuple.arrays(opened, self._chosen(tree, names), start, stop))
            return {"jagged": jagged}, arrays
        places = {name: self._place(tree, name) for name in names}
        wanted = list(dict.fromkeys(branch for branch, _ in places.values()))
        read = self._arrays(opened, wanted, start, stop)
        jagged, arrays = packed(
            {name: read[branch][leaf] if leaf else read.pop(branch) for name, (branch, leaf) in places.items()}
        )
        return {"jagged": jagged}, arrays

    def _place(self, tree: str, name: str) -> tuple[str, str]:
        """Return the branch of a TTree that a name is in, and its leaf, '' for a branch without several.

        Raises: RequestError if there is none.
        """
        if tree not in self._names:
            self._names[tree] = dict.fromkeys(self._tree(tree).keys(recursive=True, full_paths=True))
        available = self._names[tree]
        branch, _, leaf = name.rpartition(".")
        if name in available:
            return name, ""
        if branch in available:
            return branch, leaf
        raise missing_branch(f"TTree '{tree}' in '{self._name}'", name, list(available))

    def _chosen(self, tree: str, names: Sequence[str]) -> list[rntuple.Column]:
        """Return the columns of an RNTuple. Raises: RequestError if one does not exist."""
        columns = self._columns_of(tree)
        chosen = []
        for name in names:
            column = columns.get(name)
            if column is None:
                known = [known for known, each in columns.items() if each]
                raise missing_branch(f"RNTuple '{tree}' in '{self._name}'", name, known)
            chosen.append(column)
        return chosen

    def _columns_of(self, tree: str) -> dict[str, rntuple.Column | None]:
        if tree not in self._columns:
            self._columns[tree] = rntuple.columns_of(self._tree(tree))
        return self._columns[tree]

    def _branches(self, tree: str) -> Described:
        opened = self._tree(tree)
        return rntuple.branches_of(opened, self._columns_of(tree)) if _is_ntuple(opened) else branches_of(opened)

    def _arrays(self, tree: Any, names: list[str], start: int, stop: int) -> dict[str, Any]:
        """Return branches for a range of entries. Raises: RequestError naming the branch if some cannot be read."""
        limits = {"entry_start": start, "entry_stop": stop, "library": "ak", "how": dict, "array_cache": None}
        try:
            return dict(tree.arrays(names, **limits))
        except (ValueError, DeserializationError) as error:
            failures = []
            for name in names:
                try:
                    tree.arrays([name], **limits)
                except (ValueError, DeserializationError):
                    failures.append(name)
            if len(failures) == len(names):
                raise
            raise RequestError(
                f"{len(failures)} of the {len(names)} branches that are read of '{self._name}' cannot be read "
                f'({first_line(error)}): {", ".join(failures[:MOST_NAMED])}; leave them out: "exclude_branches": '
                f"{json.dumps(failures[:MOST_NAMED])}"
            ) from error

    def do_trees(self) -> Answer:
        """Describe all trees."""
        compression = _compression_of(self._file.file) or "none"
        names = [name for name, key in self._objects().items() if key.fClassName in TREE_CLASSES]
        if not names:
            raise RequestError(f"'{self._name}' has no TTree and no RNTuple; it has: {self._others()}")
        return {"trees": [_summary(name, self._tree(name), self._branches(name), compression) for name in names]}, []

    def _tree(self, tree: str) -> Any:
        if tree in self._trees:
            return self._trees[tree]
        objects = self._objects()
        if tree in objects and objects[tree].fClassName in TREE_CLASSES:
            self._trees[tree] = objects[tree].get()
            return self._trees[tree]
        if tree in objects:
            kind = objects[tree].fClassName
            raise RequestError(f"'{tree}' in '{self._name}' is of class {kind}; only TTrees and RNTuples are read")
        names = [name for name, key in objects.items() if key.fClassName in TREE_CLASSES]
        raise RequestError(
            f"'{self._name}' has no TTree '{tree}'; it has: {', '.join(names) or f'none, but {self._others()}'}"
        )

    def _objects(self) -> dict[str, Any]:
        """Return the key of each object by its name: of several cycles the highest, as in ROOT."""
        objects: dict[str, Any] = {}
        for name, key in _keys(self._file):
            if name not in objects or abs(key.fCycle) > abs(objects[name].fCycle):
                objects[name] = key
        return objects

    def _others(self) -> str:
        """Return the names and classes of some objects, as text."""
        objects = [f"{name} ({key.fClassName})" for name, key in self._objects().items()]
        return ", ".join(objects[:MOST_NAMED]) + (", …" if len(objects) > MOST_NAMED else "") or "nothing"

    def _fingerprint(self, size_bytes: int) -> str:
        """Return a hash of size, UUID and keys: equal for copies of a file, and easy to forge for another one."""
        keys = [key for _, key in _keys(self._file)]
        facts = [(k.fName, k.fClassName, k.fCycle, k.fSeekKey, k.fNbytes, k.fObjlen, k.fDatime) for k in keys]
        text = repr((size_bytes, self._file.file.uuid.hex, facts))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _keys(directory: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the name and the key of each object in a folder and below. uproot's own functions look names up again, and
    fail at a ':'."""
    seen: set[tuple[str, int]] = set()
    for key in directory._keys:
        if (key.fName, key.fCycle) not in seen:
            seen.add((key.fName, key.fCycle))
            yield f"{path}{key.fName}", key
        if key.fClassName in ("TDirectory", "TDirectoryFile"):
            yield from _keys(key.get(), f"{path}{key.fName}/")


class _Bytes(Source):  # type: ignore[misc]  # uproot has no types
    """A file for uproot that gets its ranges from `_ranges`."""

    def __init__(self, file_path: str, size_bytes: int) -> None:
        super().__init__()
        self._file_path, self._num_bytes, self._closed = file_path, size_bytes, False

    def _ranges(self, ranges: list[Range]) -> Sequence[NDArray[np.uint8]]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._closed = True

    @property
    def closed(self) -> bool:
        """Return whether the source is closed."""
        return self._closed

    def chunk(self, start: int, stop: int) -> Chunk:
        """Return one range."""
        return self.chunks([(start, stop)], queue.Queue())[0]

    def chunks(self, ranges: list[Range], notifications: queue.Queue[Any]) -> list[Chunk]:
        """Return many ranges."""
        parts = self._ranges(ranges)
        chunks = [
            Chunk(self, start, stop, TrivialFuture(part)) for (start, stop), part in zip(ranges, parts, strict=True)
        ]
        for chunk in chunks:
            notifications.put(chunk)
        return chunks


class _Mapped(_Bytes):
    """A file that is open in this process."""

    def __init__(self, file_path: str, descriptor: int) -> None:
        super().__init__(file_path, os.fstat(descriptor).st_size)
        self._data = np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8)

    def _ranges(self, ranges: list[Range]) -> Sequence[NDArray[np.uint8]]:
        return [self._data[start:stop] for start, stop in ranges]


class _Fetched(_Bytes):
    """A file whose bytes the parent process fetches."""

    def __init__(self, file_path: str, size_bytes: int, callbacks: Callbacks) -> None:
        super().__init__(file_path, size_bytes)
        self._callbacks = callbacks

    def _ranges(self, ranges: list[Range]) -> Sequence[NDArray[np.uint8]]:
        return self._callbacks("fetch", ranges=ranges)


class _Given(Source):  # type: ignore[misc]  # uproot has no types
    """A handler that makes uproot read from an open source."""

    def __new__(cls, file_path: str, source: Source, **options: Any) -> Source:
        """Return that source."""
        return source


def branches_of(tree: Any) -> Described:
    """Return the branches of numbers in the order of the tree, other branches with their types, and the entries at
    which the baskets of each branch end."""
    branches, left_out, edges = [], [], {}
    names = set(tree.keys(recursive=True, full_paths=True))
    entries = int(tree.num_entries)
    for name, branch in tree.iteritems(recursive=True, full_paths=True):
        if len(branch.branches):
            continue
        for leaf, described in _described(name, branch).items():
            if leaf in edges or (leaf != name and leaf in names):
                left_out.append((leaf, "the second branch of this name"))
            elif isinstance(described, str):
                left_out.append((leaf, described))
            elif int(branch.num_entries) != entries:
                left_out.append((leaf, f"{branch.num_entries:,} of {entries:,} entries"))
            else:
                branches.append(described)
                edges[leaf] = tuple(branch.entry_offsets)
    return tuple(branches), tuple(left_out), edges


def _described(name: str, branch: Any) -> dict[str, Branch | str]:
    """Return a branch of numbers, or the type of another branch; of a list of leaves each, as '<branch>.<leaf>'."""
    type_ = branch.interpretation
    jagged, content = isinstance(type_, uproot.AsJagged), _content(type_)
    if not isinstance(content, (uproot.AsDtype, uproot.AsDouble32, uproot.AsFloat16)):
        return {name: _type_name(branch)}
    # A tree that was never flushed keeps its baskets inside its own description.
    inside = sum(basket.member("fLast") - basket.member("fKeylen") for basket in branch.embedded_baskets)
    size = int(branch.uncompressed_bytes) + inside
    values, shape = content.to_dtype.base, content.to_dtype.shape
    if values.names and not shape:
        return {f"{name}.{leaf}": _leaf(f"{name}.{leaf}", jagged, values, leaf, size) for leaf in values.names}
    if values.kind not in "biuf" or (jagged and shape) or len(shape) > 1:
        return {name: _type_name(branch)}
    return {name: Branch(name, jagged or bool(shape), values.name, size, _title(branch))}


def _leaf(name: str, jagged: bool, record: Any, leaf: str, size_bytes: int) -> Branch | str:
    """Return a leaf of a branch that has several, or its type if it is not a number."""
    values = record[leaf]
    if values.kind not in "biuf" or values.shape:
        return str(values)
    return Branch(name, jagged, values.name, size_bytes * values.itemsize // record.itemsize)


def _decoded(branch: Any) -> tuple[int, int]:
    """Return the bytes and the number of values of a branch of a TTree in memory."""
    content = _content(branch.interpretation)
    baskets = sum(branch.basket_uncompressed_bytes(place) for place in range(branch.num_baskets))
    items = baskets // content.itemsize
    return max(baskets, items * content.to_dtype.base.itemsize), items  # Double32_t and Float16_t are stored shorter


def _content(interpretation: Any) -> Any:
    """Return the interpretation of one value."""
    return interpretation.content if isinstance(interpretation, uproot.AsJagged) else interpretation


def _type_name(branch: Any) -> str:
    try:
        return str(branch.typename)
    except (KeyError, ValueError, TypeError):  # uproot has no name for some types
        return str(branch.interpretation)


def _title(branch: Any) -> str:
    """Return the title of a branch; '' for the list of leaves, such as 'pt/F' or 'pt[nMuon]/F', that ROOT writes."""
    title = str(branch.title)
    if title == branch.name or LEAVES.fullmatch(title):
        return ""
    return "".join(character if character.isprintable() else " " for character in title[:LONGEST_TITLE])


def _summary(name: str, tree: Any, described: Described, default_compression: str) -> dict[str, Any]:
    branches, left_out, edges = described
    entries = int(tree.num_entries)
    shared = set.intersection(*map(set, edges.values())) if edges else {0, entries}
    return {
        "name": name,
        "kind": "RNTuple" if _is_ntuple(tree) else "TTree",
        "title": str(tree.description if _is_ntuple(tree) else tree.title),
        "entries": entries,
        "clusters": max(0, len(shared | {0, entries}) - 1),
        "compressed_bytes": rntuple.compressed_bytes(tree) if _is_ntuple(tree) else int(tree.compressed_bytes),
        "uncompressed_bytes": sum(branch.size_bytes for branch in branches),
        "compression": ("" if _is_ntuple(tree) else _compression(tree)) or default_compression,
        "branches": [[branch.name, branch.jagged, branch.type, branch.size_bytes] for branch in branches],
        "left_out": left_out,
    }


def _is_ntuple(tree: Any) -> bool:
    return bool(tree.classname == rntuple.CLASS)


def _compression(tree: Any) -> str:
    names = {_compression_of(branch) for branch in tree.values()}
    return ", ".join(sorted(names - {""}))


def _compression_of(item: Any) -> str:
    """Return the compression of a file or a branch, '' for none."""
    try:
        compression = item.compression
    except ValueError:
        return "unknown compression"
    return "" if compression is None else str(compression)
