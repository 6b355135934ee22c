"""The values of a comparison of trainings, and the rows of its tables. Light: a client shows what a service sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hepfaas.views.numbers import Best, Cell, Quantity, measured, number

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """A metric of each training. uncertainties: standard errors, None where there is none. best: index of the training
    whose value is better than every other by more than both errors together, None if there is none."""

    name: str
    values: Sequence[float | None]
    uncertainties: Sequence[float | None]
    best: int | None = None


@dataclass(frozen=True)
class CodeDifference:
    """Difference of a code file from that of the first training. name: of the training. lines: of the unified
    difference, without its heading."""

    name: str
    file: str
    added: int
    removed: int
    lines: Sequence[str]


@dataclass(frozen=True)
class Comparison:
    """Differences between trainings. names: as the caller named them; the lists beside them have the same order.

    facts: run, model, optimizer and more by name. settings: lines of each training, by name of the setting; only those
    that differ. data: numbers by name. files: names of files that not all have, and which trainings have them. curves:
    ROC curves of test events: index of the training, class, efficiencies, AUC. notes: what makes it less comparable.
    """

    names: Sequence[str]
    facts: Mapping[str, Sequence[Any]]
    metrics: Sequence[Metric]
    settings: Mapping[str, Sequence[Sequence[str]]]
    code: Sequence[CodeDifference]
    data: Mapping[str, Sequence[int | None]]
    files: Mapping[str, Sequence[bool]]
    curves: Sequence[Json]
    notes: Sequence[str] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Json) -> Comparison:
        """Return the comparison from the values of `to_json`; a later release may send more."""
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        known["metrics"] = [Metric(**each) for each in known["metrics"]]
        known["code"] = [CodeDifference(**each) for each in known["code"]]
        return cls(**known)


def metric_rows(compared: Comparison) -> list[list[str]]:
    """Return a row for each metric as text, the best value with a star."""
    return [
        [each.name, *(f"{cell.value} *" if isinstance(cell, Best) else str(cell) for cell in metric_cells(each))]
        for each in compared.metrics
    ]


def fact_rows(compared: Comparison) -> list[list[Cell]]:
    """Return a row for each fact of the models."""
    return [[name, *map(_fact, values)] for name, values in compared.facts.items() if any(values)]


def setting_rows(compared: Comparison) -> list[list[Cell]]:
    """Return a row for each setting that differs."""
    return [
        [name, *(tuple(lines) or ("none",) for lines in values)] for name, values in compared.settings.items()
    ]  # fmt: skip


def data_rows(compared: Comparison) -> list[list[Cell]]:
    """Return a row for each number of files and events, and for each file that not all trainings have."""
    counts: list[list[Cell]] = [[name, *map(number, values)] for name, values in compared.data.items()]
    files: list[list[Cell]] = [
        [name, *("yes" if has else "no" for has in values)] for name, values in compared.files.items()
    ]
    return [*counts, *files]


def heading(difference: CodeDifference) -> str:
    """Return which file differs, and by how many lines."""
    return f"{difference.file} of {difference.name}: +{difference.added} −{difference.removed} lines"


def metric_cells(metric: Metric) -> list[Any]:
    """Return the values of a metric with their uncertainties, the best one marked."""
    cells: list[Any] = [
        measured(value, error) for value, error in zip(metric.values, metric.uncertainties, strict=True)
    ]
    if metric.best is not None:
        cells[metric.best] = Best(cells[metric.best])
    return cells


def _fact(value: Any) -> Cell:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return number(value, 3)
    return Quantity(f"{value:,}") if isinstance(value, int) else ("–" if value is None else str(value))
