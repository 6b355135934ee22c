"""A prediction run, which scores the events of files with one published version: its recipe and its plan. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

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
from hepfaas.runs.results import Header, headers_of
from hepfaas.runs.steps import Open, Predict, Step


@dataclass(frozen=True)
class Prediction:
    """A prediction, complete. name: of its runs.

    model: '<name>/<version>'; graph, spec: hashes of its graph and spec; features, identifiers: the branches that the
    spec names. tree: that the model was trained on. trees: of each file, '' for `tree` if the file has it, else for its
    only tree; (): `tree` in all files. spectators: expressions that are kept beside the scores; preprocessing: text of
    the model's `Preprocessing`. fold_by: expression of the fold of an event, '' if there is none. entries: the range of
    entries [first, stop) of each file; None: all. range_events: most entries that one step reads. dtype: format of the
    files, '' for that of their names. record_function: source of `preprocessing(record)`, '' for none.
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
    spectators: tuple[str, ...] = ()
    preprocessing: str = ""
    fold_by: str = ""
    entries: tuple[int, int] | None = None
    range_events: int = 100_000
    trees: tuple[str, ...] = ()
    dtype: str = ""
    record_function: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The address of each file, and its tree if the request names one."""
        if not self.trees:
            return self.urls
        return tuple(f"{url}:{tree}" if tree else url for url, tree in zip(self.urls, self.trees, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Prediction:
        """Return the recipe that `to_json` gave, also after a round trip through JSON text."""
        lists = {
            name: tuple(values.get(name, ())) for name in ("urls", "features", "identifiers", "spectators", "trees")
        }
        entries = values["entries"]
        rest = {name: value for name, value in values.items() if name not in ("kind", "entries")}
        return cls(**{**rest, **lists}, entries=(entries[0], entries[1]) if entries else None)


def finished(recipe: Prediction, attempt: str, results: Results) -> Finished:
    """Return the outcome. Raises: Wait for the steps that come first; RequestError if a file is listed twice."""
    opened = phase("open", open_levels(recipe, attempt), results)
    steps = predict_levels(recipe, opened)
    if not steps[0]:
        return Finished(scores={"parts": []})
    return Finished(scores=phase("predict", steps, results).values)


def levels(recipe: Prediction, attempt: str, results: Results) -> list[Sequence[Step]]:
    """Return all steps of the run. Raises: Wait before the files are opened."""
    opened = phase("open", open_levels(recipe, attempt), results)
    return [*open_levels(recipe, attempt), *predict_levels(recipe, opened)]


def inputs(recipe: Prediction, headers: Sequence[Header]) -> list[Input]:
    """Return the opened files, each with its wanted ranges. Raises: RequestError if a file is listed twice."""
    check_distinct(recipe.names, headers)
    files = []
    for url, header in zip(recipe.urls, headers, strict=True):
        first, stop = recipe.entries or (0, header.entries)
        tree = header.tree or recipe.tree
        files.append(Input(url, 0, header.identity, cut(header.ranges, first, stop), tree))
    return files


@functools.lru_cache(maxsize=KEPT)
def open_levels(recipe: Prediction, attempt: str) -> Levels:
    """Return the open steps and their sums."""
    optional = tuple(dict.fromkeys(filter(None, (*recipe.spectators, recipe.fold_by))))
    steps = [
        Open(
            url=url,
            tree=tree,
            usual_tree=recipe.tree,
            selected=recipe.features,
            excluded=(),
            identifiers=recipe.identifiers,
            range_events=recipe.range_events,
            attempt=attempt,
            preprocessing=recipe.preprocessing if optional else "",
            optional=optional,
            dtype=recipe.dtype,
            record_function=recipe.record_function,
        )
        for url, tree in zip(recipe.urls, recipe.trees or [recipe.tree] * len(recipe.urls), strict=True)
    ]
    return tree_of(steps)


@functools.lru_cache(maxsize=KEPT)
def predict_levels(recipe: Prediction, opened: Found) -> Levels:
    """Return the predict steps of all wanted entry ranges, file after file, and their sums."""
    headers = headers_of(opened.values)
    steps = [
        Predict(
            file=file.identity,
            tree=file.tree,
            entries=entries,
            branches=recipe.features,
            identifiers=header.identifiers,
            spec=recipe.spec,
            graph=recipe.graph,
            spectators=tuple(name for name in header.spectators if name in recipe.spectators),
            extra=header.extra,
            fold_by=recipe.fold_by if recipe.fold_by in header.spectators else "",
            model=recipe.model,
            url=file.url,
            layout=header.layout,
        )
        for file, header in zip(inputs(recipe, headers), headers, strict=True)
        for entries in file.ranges
    ]
    return tree_of(steps) if steps else ((),)
