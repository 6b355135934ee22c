"""Files that a run leaves out because they cannot be read, by the key `unreadable_files` of params.json. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from hepfaas.errors import RequestError
from hepfaas.runs.recipe import LabelledFile, Recipe
from hepfaas.runs.results import Header

MOST_NAMED = 10
"""Files that a note or a message names."""


@dataclass(frozen=True)
class Skipped:
    """A file that is left out, and why it cannot be read."""

    file: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return JSON values."""
        return asdict(self)


def read_files(recipe: Recipe, headers: Sequence[Header]) -> list[tuple[LabelledFile, Header]]:
    """Return each file that is read, with its header. headers: of all files of the recipe, in its order.

    Raises: RequestError if no file is left, or none of a class or a sample, or if the weights of a sample would be
    wrong without the others.
    """
    left = [(file, header) for file, header in zip(recipe.files, headers, strict=True) if not header.skipped]
    if len(left) < len(headers):
        _check(recipe, [file for file, _ in left], skipped_files(recipe, headers))
    return left


def skipped_files(recipe: Recipe, headers: Sequence[Header]) -> list[Skipped]:
    """Return the files that are left out. headers: of all files of the recipe; none before they are opened."""
    pairs = zip(recipe.files, headers, strict=True) if headers else ()
    return [Skipped(file.address, header.skipped) for file, header in pairs if header.skipped]


def notes(skipped: Sequence[Skipped]) -> list[str]:
    """Return a note on the files that are left out; none if there are none."""
    if not skipped:
        return []
    count = f"{len(skipped):,} file{'s are' if len(skipped) > 1 else ' is'}"
    return [f"{count} skipped, since 'unreadable_files' is 'skip': {_listed(skipped)}"]


def _check(recipe: Recipe, left: Sequence[LabelledFile], skipped: Sequence[Skipped]) -> None:
    """Raise RequestError if a run cannot do without the skipped files. left: the others."""
    if not left:
        raise RequestError(f"none of the {len(skipped):,} files can be read: {_listed(skipped)}")
    names = {one.file for one in skipped}
    lost = [file for file in recipe.files if file.address in names]
    samples, labels = {file.sample for file in left}, {file.label for file in left}
    for file in lost:
        if file.sample not in samples:
            raise RequestError(f"no file of sample '{file.sample}' can be read: {_listed(skipped)}")
        if file.label not in labels and not recipe.label and not recipe.targets:
            raise RequestError(f"no file of label {file.label} can be read: {_listed(skipped)}")
    of_lost = {file.sample for file in lost}
    for sample in recipe.samples:
        if sample.name in of_lost and sample.cross_section is not None and isinstance(sample.sum_of_weights, float):
            raise RequestError(
                f"files of sample '{sample.name}' cannot be read, whose events its 'sum_of_weights' counts, too; take "
                "them out of the list and give the sum over the others, or the name of a branch as "
                f"'Runs/genEventSumw': {_listed(skipped)}"
            )


def _listed(skipped: Sequence[Skipped]) -> str:
    more = f"; and {len(skipped) - MOST_NAMED:,} more" if len(skipped) > MOST_NAMED else ""
    return "; ".join(one.reason for one in skipped[:MOST_NAMED]) + more
