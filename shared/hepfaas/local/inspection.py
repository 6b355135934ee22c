"""`hepfaas inspect`: the trees of files, and the ranges and odd values of their first entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from hepfaas.datasets.files import file_and_tree
from hepfaas.datasets.formats import Form
from hepfaas.datasets.listings import on_server
from hepfaas.datasets.opened import opened, read
from hepfaas.datasets.ranges import EntryRange
from hepfaas.datasets.summary import TreeSummary, trees_of
from hepfaas.datasets.wildcards import found, is_pattern, on_disk
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.features.branches import BranchRange, BranchSurvey, survey_of, total
from hepfaas.features.findings import findings, sentinels
from hepfaas.features.jagged import Values, values_and_counts
from hepfaas.runs.steps import IDENTIFIERS

READ_ENTRIES = 10_000
"""Entries in memory at once."""

LEAST_ENTRIES = 10
"""Fewest entries whose values tell something about a branch. A tree like `Runs` of NanoAOD has fewer."""

MOST_NAMED = 5

Failure: TypeAlias = RequestError | UnavailableError


@dataclass(frozen=True)
class Sample:
    """The ranges of the branches of a tree over its first entries. empty: entries without a value of each branch."""

    entries: int
    branches: Mapping[str, BranchRange]
    empty: Mapping[str, int] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """Notes on these branches for the user; empty for a tree with few entries."""
        if self.entries < LEAST_ENTRIES:
            return []
        features = {name: branch for name, branch in self.branches.items() if name not in IDENTIFIERS}
        return [f"in the first {self.entries:,} entries, {note}" for note in findings(features)]

    def sentinels(self, name: str) -> dict[float, int]:
        """Return the values of a branch that probably stand for "no value", and how often each occurs."""
        branch = self.branches[name]
        if name in IDENTIFIERS:
            return {}
        counts = {end.value: end.count for end in (branch.bottom, branch.top) if end}
        return {sentinel.value: counts[sentinel.value] for sentinel in sentinels(branch)}

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        branches = {
            name: {
                "low": branch.low,
                "high": branch.high,
                "values": branch.n_finite + branch.n_missing,
                "nan_or_infinite": branch.n_missing,
                "empty_entries": self.empty.get(name, 0),
                "most_values": branch.multiplicity,
                "sentinels": [{"value": value, "count": count} for value, count in self.sentinels(name).items()],
            }
            for name, branch in self.branches.items()
        }
        return {"entries": self.entries, "branches": branches, "notes": self.notes}


@dataclass(frozen=True)
class Inspected:
    """A file, its trees, a sample of each if one was wanted, and why the file cannot be read, None if it can."""

    name: str
    trees: Sequence[TreeSummary] = ()
    samples: Sequence[Sample] = ()
    error: Failure | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        trees = [asdict(tree) for tree in self.trees]
        for tree, sample in zip(trees, self.samples, strict=False):
            tree["sample"] = sample.to_json()
        return {"file": self.name, "trees": trees, "error": str(self.error) if self.error else None}


def named_files(names: Iterable[str]) -> dict[str, Failure | None]:
    """Return each file that is named, or that a name with wildcards matches, once; a pattern that matches none with the
    reason."""
    files: dict[str, Failure | None] = {}
    for name in names:
        try:
            files.update(dict.fromkeys(_matches(name)))
        except (RequestError, UnavailableError) as error:
            files[name] = error
    return files


def inspected(
    files: Mapping[str, Failure | None], sample_entries: int | None = None, dtype: str = ""
) -> Iterator[Inspected]:
    """Yield what is in each of `named_files`. sample_entries: of each tree that are read, None: no values are read.
    dtype: format of the files, '' for that of their names.
    A file that cannot be read has an error and does not stop the others."""
    for name, failure in files.items():
        yield Inspected(name, error=failure) if failure else _inspected(name, sample_entries, Form(dtype))


def check_all_read(files: Sequence[Inspected]) -> None:
    """Raise the error of the only file; RequestError or UnavailableError if some of several could not be read."""
    errors = {file.name: file.error for file in files if file.error}
    if not errors:
        return
    if len(files) == 1:
        raise next(iter(errors.values()))
    may_work_later = all(isinstance(error, UnavailableError) for error in errors.values())
    names = ", ".join(list(errors)[:MOST_NAMED]) + (", …" if len(errors) > MOST_NAMED else "")
    text = f"{len(errors):,} of {len(files):,} files cannot be read: {names}"
    raise UnavailableError(text) if may_work_later else RequestError(text)


def _matches(name: str) -> Sequence[str]:
    """Return the files that a name with wildcards matches, each with the tree of the name; any other name as it is."""
    file, tree = file_and_tree(name)
    if not is_pattern(file) or ("://" not in file and Path(file).is_file()):
        return [name]
    files = on_server(file) if "://" in file else found(file, on_disk(Path(), inside=False))
    return [f"{file}:{tree}" if tree else file for file in files]


def _inspected(name: str, sample_entries: int | None, form: Form) -> Inspected:
    file, tree = file_and_tree(name)
    trees: Sequence[TreeSummary] = ()
    try:
        trees = _trees(file, tree, form)
        if not any(tree.branches for tree in trees):
            raise RequestError(f"'{file}' has nothing to read: no branch of its trees is a number")
        samples = [_sample(file, tree, sample_entries, form) for tree in trees] if sample_entries else []
    except (RequestError, UnavailableError) as error:
        return Inspected(name, trees, error=error)
    return Inspected(name, trees, samples)


def _trees(file: str, tree: str, form: Form) -> Sequence[TreeSummary]:
    """Return the trees of a file, or the one that is named."""
    trees = trees_of(file, form)
    named = [one for one in trees if tree in ("", one.name)]
    if not named:
        raise RequestError(f"'{file}' has no tree '{tree}'; it has: {', '.join(one.name for one in trees)}")
    return named


def _sample(file: str, tree: TreeSummary, most: int, form: Form) -> Sample:
    """Return the sample of a tree, which is read in parts, so that any number of entries fits into memory."""
    names, entries = [branch.name for branch in tree.branches], min(tree.entries, most)
    if not names:
        return Sample(entries, {})
    described = opened(file, tree.name, form=form)
    identity = described.identity
    survey, empty = BranchSurvey(), dict.fromkeys(names, 0)
    for start in range(0, max(1, entries), READ_ENTRIES):
        part = EntryRange(start, min(start + READ_ENTRIES, entries))
        arrays = read(file, identity, tree.name, branches=names, entries=part, layout=described.layout)
        survey = total([survey, survey_of(identity, arrays, part.stop - part.start)])
        empty = {name: count + _n_empty(arrays[name]) for name, count in empty.items()}
    return Sample(entries, dict(survey.branches), empty)


def _n_empty(branch: Values) -> int:
    """Return the number of events without a value."""
    _, counts = values_and_counts(branch)
    return 0 if counts is None else int(np.count_nonzero(counts == 0))
