"""Lists of files and labels as users write them, and where each file is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hepfaas.errors import RequestError


def listed(text: str) -> tuple[str, ...]:
    """The names in a list: one a line or with commas between them; from '#' on a line is a comment."""
    lines = (re.split(r"(?:^|\s)#", line)[0] for line in text.splitlines())
    return tuple(name.strip() for line in lines for name in line.split(",") if name.strip())


def labels_of(text: str) -> tuple[int, ...]:
    """The labels in a list, whole numbers. Raises: RequestError naming the word that is none."""
    words = listed(text)
    for place, word in enumerate(words, 1):
        if not re.fullmatch(r"[+-]?[0-9]+", word):
            raise RequestError(f"label {place} is '{word}'; a label is a whole number, one for each file")
    return tuple(map(int, words))


def located(path: str, folder: Path, redirector: str) -> str:
    """Where a listed file is: a URL is taken as it is, a file in the folder or on disk is that file, and anything
    else is a logical name below the redirector ('' for none). Raises: RequestError if it can be nowhere."""
    if "://" in path:
        return path
    local = (folder / path).resolve()
    if local.exists():
        return str(local)
    if redirector:
        return f"{redirector.rstrip('/')}//{path.lstrip('/')}"
    raise RequestError(
        f"file '{path}' does not exist at '{local}', and 'redirector' in params.json is empty, so it is nowhere else"
    )


def paired(files: Sequence[str], labels: Sequence[int]) -> tuple[tuple[str, int], ...]:
    """Each file with its label, by position. Raises: RequestError if they do not pair, or there is one class only."""
    if not files:
        raise RequestError("the list of files is empty; name one file a line")
    if len(files) != len(labels):
        raise RequestError(
            f"the list of files has {len(files)} and the list of labels {len(labels)}; each file needs one label, "
            "in the same order"
        )
    for place, file in enumerate(files):
        if file in files[:place]:
            first = files.index(file) + 1
            raise RequestError(f"file '{file}' is listed twice, as number {first} and {place + 1}; list it once")
    if len(set(labels)) == 1:
        raise RequestError(f"all files have label {labels[0]}; a classifier needs files of at least two labels")
    return tuple(zip(files, labels, strict=True))
