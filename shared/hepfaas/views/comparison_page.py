"""A comparison of trainings as one page, and as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hepfaas import __version__
from hepfaas.views.comparison import CodeDifference, Comparison, Metric
from hepfaas.views.document import Best, Cell, Code, Document, Picture, Pictures, Section, Table, Text, blocks
from hepfaas.views.numbers import Quantity, measured, number

BEST = "Marked values are better than every other by more than the standard errors of both, added in quadrature."


def page(compared: Comparison, roc: bytes | None) -> str:
    """Return the comparison as HTML. roc: a PNG with the ROC curves."""
    names = list(compared.names)
    metrics = [[each.name, *_cells(each)] for each in compared.metrics]
    return Document(
        title=" · ".join(names) if len(names) < 5 else f"{len(names)} trainings",
        above="hepfaas comparison",
        below=(),
        tags=(),
        sections=[
            Section("Metrics", [*blocks(Table(["", *names], metrics, note=BEST)), *map(Text, compared.notes)]),
            Section("ROC curves", [Pictures([Picture("Test events", roc)])] if roc else []),
            Section("Models", blocks(Table(["", *names], fact_rows(compared)))),
            Section("Settings", _settings(compared)),
            Section("Code", [Code(heading(each), "\n".join(each.lines)) for each in compared.code]),
            Section("Data", _data(compared)),
        ],
        foot=f"Written by hepfaas {__version__}. Numbers with ± have their standard error.",
    ).html()


def metric_rows(compared: Comparison) -> list[list[str]]:
    """Return a row for each metric as text, the best value with a star."""
    return [
        [each.name, *(f"{cell.value} *" if isinstance(cell, Best) else str(cell) for cell in _cells(each))]
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


def _cells(metric: Metric) -> list[Any]:
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


def _settings(compared: Comparison) -> Sequence[Any]:
    if not compared.settings:
        return [Text("All settings are the same.")]
    return [Table(["setting", *compared.names], setting_rows(compared))]


def _data(compared: Comparison) -> Sequence[Any]:
    rows = data_rows(compared)
    split = len(compared.data)
    return blocks(
        Table(["", *compared.names], rows[:split]),
        Table(["file", *compared.names], rows[split:], caption="Files that not all trainings have"),
    )
