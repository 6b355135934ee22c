"""A prediction run: scores of files' events by one published version. What it is asked, and its plan. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from hepfaas.runs.opened import files_of
from hepfaas.runs.phases import (
    KEPT,
    Finished,
    Found,
    Input,
    Levels,
    Results,
    check_distinct,
    cut,
    phase,
    tree_of,
)
from hepfaas.runs.steps import Open, Predict, Step


@dataclass(frozen=True)
class Prediction:
    """A prediction, complete. name: of its runs.

    model: '<name>/<version>'; graph, spec: hashes of its graph and spec; features, identifiers: the branches that the
    spec names. entries: the wanted ones of each file, [first, one behind the last); None: all. range_events: most
    entries read by one step.
    """

    kind: ClassVar[str] = "prediction"
    name: str
    model: str
    graph: str
    spec: str
    urls: tuple[str, ...]
    tree: str
    features: tuple[str, ...]
    identifiers: tuple[str, ...]
    entries: tuple[int, int] | None = None
    range_events: int = 100_000

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Prediction:
        """What `to_json` gave, also after a journey through JSON text."""
        lists = {name: tuple(values[name]) for name in ("urls", "features", "identifiers")}
        entries = values["entries"]
        rest = {name: value for name, value in values.items() if name not in ("kind", "entries")}
        return cls(**{**rest, **lists}, entries=(entries[0], entries[1]) if entries else None)


def finished(recipe: Prediction, attempt: str, results: Results) -> Finished:
    """What the run came to. Raises: Wait for the steps that come first; RequestError if a file is listed twice."""
    opened = phase("open", open_levels(recipe, attempt), results)
    steps = predict_levels(recipe, opened)
    if not steps[0]:
        return Finished(scores={"parts": []})
    return Finished(scores=phase("predict", steps, results).values)


def levels(recipe: Prediction, attempt: str, results: Results) -> list[Sequence[Step]]:
    """All steps of the run. Raises: Wait before the files are opened."""
    opened = phase("open", open_levels(recipe, attempt), results)
    return [*open_levels(recipe, attempt), *predict_levels(recipe, opened)]


def inputs(recipe: Prediction, found: Sequence[Mapping[str, Any]]) -> list[Input]:
    """The files as opened, each with the ranges that are wanted. Raises: RequestError if a file is listed twice."""
    check_distinct(recipe.urls, found)
    files = []
    for url, opened in zip(recipe.urls, found, strict=True):
        first, stop = recipe.entries or (0, opened["entries"])
        files.append(Input(url, 0, opened["identity"], cut(opened["ranges"], first, stop)))
    return files


@functools.lru_cache(maxsize=KEPT)
def open_levels(recipe: Prediction, attempt: str) -> Levels:
    """The open steps and their sums."""
    steps = [
        Open(url, recipe.tree, recipe.features, (), recipe.identifiers, recipe.range_events, attempt)
        for url in recipe.urls
    ]
    return tree_of(steps)


@functools.lru_cache(maxsize=KEPT)
def predict_levels(recipe: Prediction, opened: Found) -> Levels:
    """The predict steps of all entry ranges, file after file, and their sums; no step where no entry is wanted."""
    found = files_of(opened.values)
    steps = [
        Predict(
            file.identity,
            recipe.tree,
            entries,
            recipe.features,
            tuple(header["identifiers"]),
            recipe.spec,
            recipe.graph,
            recipe.model,
            file.url,
        )
        for file, header in zip(inputs(recipe, found), found, strict=True)
        for entries in file.ranges
    ]
    return tree_of(steps) if steps else ((),)
