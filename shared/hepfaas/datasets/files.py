"""Lists of files and labels as users write them, and the locations of the files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from hepfaas.datasets.wildcards import found, is_pattern, on_disk
from hepfaas.errors import RequestError
from hepfaas.runs.params import REDIRECTOR
from hepfaas.runs.recipe import LabelledFile

MOST_NAME = 200
MOST_NAME_BYTES = 255
"""Longest part of a path, in bytes, on usual file systems."""
MOST_ADDRESS = 4_096
MOST_LABEL = 9_999
"""Largest label of a file, and the smallest one without its sign."""

MOST_LISTED = 20_000
"""Names in one list, of files or of branches."""

MOST_ADDRESSES = 5_000_000
"""Characters of all addresses of a job: each look at its run reads them again."""

MOST_NOTES = 20
READ = "functions read root://, s3://, http(s):// addresses and files that came with the job"

_COMMENT = re.compile(r"(?:^|\s)#")
_TREE = re.compile(r"(.+\.root(?:\.[0-9]+)?):([^/].*)")
"""A file and a tree in it, in the notation of uproot."""

_RUCIO_NAME = re.compile(r"[A-Za-z0-9._-]{1,60}:[^:,\s][^:,]*")
_RUCIO_CSV = re.compile(rf"({_RUCIO_NAME.pattern}),(?:\(None\)|[0-9A-Fa-f-]{{36}}),\w*,[^,]*,\w*")
"""A line of `rucio list-files --csv`: scope:name, GUID, Adler-32, size, events (rucio/cli/bin_legacy/rucio.py)."""


def checked_name(name: str) -> PurePosixPath:
    """Return a path below a folder. Raises: RequestError if it leads elsewhere."""
    path = PurePosixPath(name)
    plain = all(
        part.isprintable() and part != ".." and "\\" not in part and len(part.encode()) <= MOST_NAME_BYTES
        for part in path.parts
    )
    if path.is_absolute() or not path.parts or not plain or len(name) > MOST_NAME:
        raise RequestError(f"'{name[:MOST_NAME]}' is not the name of a file inside a folder")
    return path


def listed(text: str) -> tuple[str, ...]:
    """Return the names in a list, separated by lines or commas; '#' starts a comment.

    Raises: RequestError if there are too many."""
    return _few(name for line in _lines(text) for name in _separated(line))


def listed_files(text: str) -> tuple[str, ...]:
    """Return the names in a list of files: as `listed`, or the output of `rucio list-files --csv`.

    Raises: RequestError if there are too many, or if it is a table of Rucio."""
    return _few(name for line in _lines(text) for name in _file_names(line))


def _few(names: Iterator[str]) -> tuple[str, ...]:
    some: list[str] = []
    for name in names:
        some.append(name)
        if len(some) > MOST_LISTED:
            raise RequestError(f"a list has more than {MOST_LISTED:,} names")
    return tuple(some)


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a list that are not empty, without comments."""
    for line in io.StringIO(text, newline=None):
        if line := _COMMENT.split(line, maxsplit=1)[0].strip():
            yield line


def _separated(line: str) -> Iterator[str]:
    return (name for word in re.finditer(r"[^,]+", line) if (name := word[0].strip()))


def _file_names(line: str) -> Iterator[str]:
    if match := _RUCIO_CSV.fullmatch(line):
        return iter((match[1],))
    if line.startswith(("+--", "| ")):
        raise RequestError(
            "the list of files is a table of Rucio; make it with `rucio list-files --csv DID`, or with `rucio "
            "list-file-replicas --pfns DID`"
        )
    return _separated(line)


def file_and_tree(name: str) -> tuple[str, str]:
    """Return the path or address in a name such as 'data.root:Signal', and the tree, '' for none.

    The name of a file that Rucio knows ('user.root:data.root') is no tree, and neither is the port of a server.
    """
    scheme, mark, rest = name.partition("://")
    host, slash, path = rest.partition("/")
    match = _TREE.fullmatch(path if mark else name)
    if not match or re.search(r"\.root(\.[0-9]+)?$", match[2]) or (mark and "?" in path):
        return name, ""
    return (f"{scheme}{mark}{host}{slash}{match[1]}" if mark else match[1]), match[2]


def labels_of(text: str) -> tuple[int, ...] | str:
    """Return the labels in a list, one for each file, or the expression that gives the label of each event.

    Raises: RequestError naming the word that is neither."""
    words, lines = listed(text), list(_lines(text))
    wrong = next((place for place, word in enumerate(words) if not _is_label(word)), None)
    if wrong is None:
        return tuple(map(int, words))
    if len(lines) == 1 and re.search(r"[^\W\d]", lines[0]):  # an expression has a name in it
        return lines[0]
    raise RequestError(
        f"label {wrong + 1} is '{words[wrong][:50]}'; a label is a whole number from -{MOST_LABEL} to {MOST_LABEL}, "
        "one for each file; or the list is one line: a branch or an expression that gives the label of each event"
    )


def _is_label(word: str) -> bool:
    return bool(re.fullmatch(r"[+-]?[0-9]{1,9}", word)) and abs(int(word)) <= MOST_LABEL


@dataclass(frozen=True)
class Locations:
    """The locations of the files that a job names.

    listing: gives the addresses that an address with wildcards matches. redirector: goes before names of files that are
    nowhere else, '' for none. folder: where files that came with the job are, None if there are none. inside: use no
    file of this machine that is not in the folder. keeps_missing: a path of this machine where no file is has a
    location, too: the run skips such files.
    """

    listing: Callable[[str], Sequence[str]]
    redirector: str = REDIRECTOR
    folder: Path | None = None
    inside: bool = True
    keeps_missing: bool = False

    def of(self, name: str) -> tuple[str, ...]:
        """Return the addresses of files, or their paths on this machine. A name with wildcards has several.

        Raises: RequestError naming the file and what is wrong with it; what `listing` raises."""
        if not name.isprintable() or len(name) > MOST_ADDRESS:
            raise RequestError(f"'{name[:MOST_NAME]}' in the list of files is not a name or address of a file")
        if "://" in name:
            return tuple(self.listing(name)) if is_pattern(name) else (name,)
        return self._local(name) or self._below_redirector(name)

    def _local(self, name: str) -> tuple[str, ...]:
        """Return the paths of the files on this machine that have a name; none if it may be one on a server."""
        if self.folder is None:
            return ()
        path = (self.folder / name).resolve()
        if (not self.inside or path.is_relative_to(self.folder.resolve())) and _exists(path):
            return (str(path),)
        if not is_pattern(name):
            return ()
        try:
            paths = found(name, on_disk(self.folder, self.inside))
        except RequestError:
            if self._is_logical(name):
                return ()
            raise
        return tuple(dict.fromkeys(str((self.folder / path).resolve()) for path in paths))

    def _below_redirector(self, name: str) -> tuple[str, ...]:
        """Return the addresses of a logical name."""
        if not self._is_logical(name):
            if self.keeps_missing and self.folder and not self.inside and not is_pattern(name):
                return (str((self.folder / name).resolve()),)
            raise self._missing(name)
        path = logical_name(name)
        if path == name and self.redirector == REDIRECTOR and _RUCIO_NAME.fullmatch(name):
            raise RequestError(
                f"'{name[:MOST_NAME]}' is a name of Rucio without a path; list the addresses that `rucio "
                "list-file-replicas --pfns` prints, or set 'redirector' in params.json to a server that finds files by "
                "scope and name, as root://host//atlas/rucio"
            )
        address = f"{self.redirector.rstrip('/')}//{path.lstrip('/')}"
        return tuple(self.listing(address)) if is_pattern(address) else (address,)

    def _is_logical(self, name: str) -> bool:
        """Return whether a name that is not a file of this machine goes below the redirector. CMS's redirector is the
        default, and gets only paths of CMS from wildcards and from jobs of other machines."""
        path, is_default = logical_name(name), self.redirector == REDIRECTOR
        if not self.redirector or not is_default or path.startswith("/store/"):
            return bool(self.redirector)
        return not is_pattern(name) and not (self.inside and path.startswith("/"))

    def _missing(self, name: str) -> RequestError:
        shown = name[:MOST_NAME]
        if is_pattern(name):
            return RequestError(f"no file matches '{shown}': no file came with the job; {READ}")
        if self.redirector:
            return RequestError(f"file '{shown}' did not come with the job and does not start with /store/; {READ}")
        place = f" at '{(self.folder / name).resolve()}'" if self.folder else ""
        return RequestError(f"file '{shown}' does not exist{place}, and 'redirector' in params.json is empty")


def logical_name(name: str) -> str:
    """Return the path of a logical name: without the scope of Rucio, if the name in it is a path as in CMS."""
    _scope, colon, path = name.partition(":")
    return path if colon and path.startswith("/") and _RUCIO_NAME.fullmatch(name) else name


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the name is too long
        return False


def paired(names: Sequence[str], labels: Sequence[int] | str) -> tuple[LabelledFile, ...]:
    """Return each listed name with its label, by position; with label 0 if an expression labels the events.

    Raises: RequestError if their numbers differ, or if there are none."""
    if not names:
        raise RequestError("the list of files is empty; name one file a line")
    if isinstance(labels, str):
        return tuple(LabelledFile(name, 0) for name in names)
    if len(names) != len(labels):
        raise RequestError(
            f"the list of files has {len(names)} entries, the list of labels {len(labels)}; each file needs one label, "
            "in the same order"
        )
    return tuple(LabelledFile(name, label) for name, label in zip(names, labels, strict=True))


@dataclass(frozen=True)
class Located:
    """The files of a job at their locations, and notes for the user on wildcards."""

    files: tuple[LabelledFile, ...]
    notes: tuple[str, ...]


def located(named: Sequence[LabelledFile], locations: Locations, has_labels: bool = True) -> Located:
    """Return files by their locations instead of their names; a name with wildcards gives its label and its tree to all
    its matches.

    has_labels: whether the labels of the files are those of their events. Raises: RequestError if a file is named
    twice, if there are too many, or if there is only one class.
    """
    files: dict[str, LabelledFile] = {}
    places: dict[str, str] = {}
    notes, size = [], 0
    for number, one in enumerate(named, 1):
        place = f"sample '{one.sample}'" if one.sample else f"number {number}"
        name, tree = file_and_tree(one.url)
        urls = locations.of(name)
        if is_pattern(name) and urls != (name,):
            notes.append(f"'{name[:MOST_NAME]}' matches {len(urls):,} file{'s' if len(urls) > 1 else ''}")
        for file in (replace(one, url=url, tree=tree) for url in urls):
            address = file.address
            if address in files:
                trees = "" if tree else ", or name a tree of each, as file.root:Signal and file.root:Background"
                raise RequestError(
                    f"file '{address}' is listed twice, as {_both(places[address], place)}; list it once{trees}"
                )
            files[address], places[address] = file, place
            size += len(address)
        if len(files) > MOST_LISTED:
            raise RequestError(f"the job has more than {MOST_LISTED:,} files")
        if size > MOST_ADDRESSES:
            raise RequestError(
                f"the addresses of the files have more than {MOST_ADDRESSES / 1e6:g} MB together: 'redirector' counts "
                "once for each file"
            )
    labels = {file.label for file in files.values()}
    if has_labels and len(labels) == 1:
        raise RequestError(f"all files have label {labels.pop()}; a classifier needs files of at least two labels")
    return Located(tuple(files.values()), tuple(notes[:MOST_NOTES]))


def _both(first: str, second: str) -> str:
    """Return two places in one text: 'number 1 and 3'."""
    return f"{first} and {second.removeprefix('number ')}" if first != second else f"{first} and again"
