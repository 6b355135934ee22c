"""The files of a job that its code needs: Python files, and what it reads beside them. Light: clients import it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from hepfaas.datasets.files import checked_name
from hepfaas.errors import RequestError
from hepfaas.jobs.texts import Texts

MOST_CODE_BYTES = 5_000_000
"""Size of all Python files."""

MOST_OTHERS, MOST_OTHER_BYTES = 100, 20_000_000
"""Number and size of the other files that travel with a job."""

MOST_NAMED = 5
"""Files that a note names."""

DATA = (".root", ".parquet", ".pq", ".avro", ".jsonl", ".ndjson")
"""Endings of files of events. JSON and CSV files may be tables of the model."""

RESULTS = (
    ".log", ".out", ".err", ".pdf", ".png", ".jpg", ".jpeg", ".svg", ".gif", ".html", ".md", ".ipynb", ".pyc", ".zip",
    ".tar", ".tgz", ".gz",
)  # fmt: skip
"""Endings of files that people read, and of archives."""

FOR_PEOPLE = ("readme", "license", "makefile")
"""Beginnings of other names of such files."""

JOB = (
    "files.txt", "labels.txt", "params.json", "submit.json", "preproc.json", "matches.json", "samples.json",
    "samples.yaml", "samples.yml",
)  # fmt: skip
"""Usual names of the files that make a job."""

_STORE = re.compile(r"(?:(?P<store>.+)/)?(?P<owner>[^/]+)/(?:blobs|steps/\w+)/[0-9a-f]{64}")
"""An object in a store that lies in the folder."""

_KEYS_OF_STORES = ("active", "asked", "untold", "deleted", "waiting", "probe")


@dataclass(frozen=True)
class Code:
    """Content of each file by its name below the job's folder. notes: for the user."""

    files: dict[str, bytes]
    notes: tuple[str, ...] = ()


def code_of(texts: Texts, module: str, data: Collection[str] = ()) -> Code:
    """Return the module, all Python files of the user, and the other files that the code may read.

    data: names of the files of events. Other files travel if they are few and small; a note says which do, or why none
    does. Raises: RequestError if the module is missing, or there is too much code.
    """
    module = checked_name(module).as_posix()
    texts.text(module)
    own = [name for name in sorted(texts.names) if _is_own(name, texts.names)]
    python = {module, *(name for name in own if name.endswith(".py"))}
    if sum(map(texts.size_bytes, python)) > MOST_CODE_BYTES:
        raise RequestError(f"{texts.place} has more than {MOST_CODE_BYTES / 1e6:g} MB of Python files")
    excluded = {*data, *JOB, *texts.used}
    others = [
        name
        for name in _without_stores(own)
        if name not in python and name not in excluded and not _is_left_out(PurePosixPath(name).name.lower())
    ]
    others = [name for name in others if texts.size_bytes(name) <= MOST_OTHER_BYTES]
    if not others:
        return Code({name: texts.read(name) for name in python})
    n_bytes = sum(map(texts.size_bytes, others))
    if len(others) > MOST_OTHERS or n_bytes > MOST_OTHER_BYTES:
        note = (
            f"only Python files travel with the job: {texts.place} has {len(others):,} other files of "
            f"{n_bytes / 1e6:,.1f} MB, more than {MOST_OTHERS} or {MOST_OTHER_BYTES / 1e6:g} MB; if {module} reads one "
            "of them, put the job into a folder of its own"
        )
        return Code({name: texts.read(name) for name in python}, (note,))
    note = f"{_listed(others)} {'travels' if len(others) == 1 else 'travel'} with {module}"
    return Code({name: texts.read(name) for name in (*python, *others)}, (note,))


def _is_own(name: str, names: Collection[str]) -> bool:
    """Return whether a file is neither hidden nor in a hidden folder, a virtual environment or Python's cache."""
    path = PurePosixPath(name)
    return not path.name.startswith(".") and not any(
        folder.name.startswith(".") or folder.name == "__pycache__" or f"{folder}/pyvenv.cfg" in names
        for folder in path.parents[:-1]
    )


def _is_left_out(name: str) -> bool:
    return name.endswith((*DATA, *RESULTS)) or name.startswith(FOR_PEOPLE)


def _without_stores(names: Sequence[str]) -> list[str]:
    """Return the names that are not in a store of hepfaas."""
    inside: set[str] = set()
    for name in names:
        if place := _STORE.fullmatch(name):
            tops = [place["store"]] if place["store"] else [place["owner"], *_KEYS_OF_STORES]
            inside.update(f"{top}/" for top in tops)
    starts = tuple(inside)
    return [name for name in names if not name.startswith(starts)]


def _listed(names: list[str]) -> str:
    more = [f"{len(names) - MOST_NAMED:,} more files"] if len(names) > MOST_NAMED else []
    return ", ".join([*names[:MOST_NAMED], *more])
