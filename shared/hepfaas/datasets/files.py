"""Lists of files and labels as users write them, and the location of each file."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from hepfaas.errors import RequestError

MOST_NAME = 200
MOST_NAME_BYTES = 255
"""Longest part of a path, in bytes, on usual file systems."""
MOST_ADDRESS = 4_096
MOST_LABEL = 9_999
MOST_LISTED = 20_000
"""Names in one list, of files or of branches."""


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
    names: list[str] = []
    for line in io.StringIO(text, newline=None):
        for word in re.finditer(r"[^,]+", re.split(r"(?:^|\s)#", line, maxsplit=1)[0]):
            if name := word[0].strip():
                names.append(name)
                if len(names) > MOST_LISTED:
                    raise RequestError(f"a list has more than {MOST_LISTED:,} names")
    return tuple(names)


def labels_of(text: str) -> tuple[int, ...]:
    """Return the labels in a list, whole numbers from 0. Raises: RequestError naming the word that is not one."""
    words = listed(text)
    for place, word in enumerate(words, 1):
        if not re.fullmatch(r"[+]?[0-9]{1,9}", word) or int(word) > MOST_LABEL:
            raise RequestError(
                f"label {place} is '{word[:50]}'; a label is a whole number from 0 to {MOST_LABEL}, one for each file "
                "(of two classes 0 and 1)"
            )
    return tuple(map(int, words))


def located(path: str, folder: Path | None, redirector: str, inside: bool = False) -> str:
    """Return the location of a listed file: a URL as it is, the path of a file that exists in the folder or on disk,
    or a logical name below the redirector ('' for none). inside: whether only files in the folder count. folder: None
    if the list came alone.
    Raises: RequestError if there is no such file and no redirector."""
    if not path.isprintable() or len(path) > MOST_ADDRESS:
        raise RequestError(f"'{path[:MOST_NAME]}' in the list of files is not a name or address of a file")
    if "://" in path:
        return path
    local = (folder / path).resolve() if folder else None
    if folder and local and (not inside or local.is_relative_to(folder.resolve())) and _exists(local):
        return str(local)
    if redirector:
        return f"{redirector.rstrip('/')}//{path.lstrip('/')}"
    place = f" at '{local}'" if local else ""
    raise RequestError(f"file '{path}' does not exist{place}, and 'redirector' in params.json is empty")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the name is too long
        return False


def paired(files: Sequence[str], labels: Sequence[int]) -> tuple[tuple[str, int], ...]:
    """Return each file with its label, by position. Raises: RequestError if their numbers differ, if a file is listed
    twice, or if there is only one class."""
    if not files:
        raise RequestError("the list of files is empty; name one file a line")
    if len(files) != len(labels):
        raise RequestError(
            f"the list of files has {len(files)} entries, the list of labels {len(labels)}; each file needs one label, "
            "in the same order"
        )
    places: dict[str, int] = {}
    for place, file in enumerate(files, 1):
        if (first := places.setdefault(file, place)) != place:
            raise RequestError(f"file '{file}' is listed twice, as number {first} and {place}; list it once")
    if len(set(labels)) == 1:
        raise RequestError(f"all files have label {labels[0]}; a classifier needs files of at least two labels")
    return tuple(zip(files, labels, strict=True))
