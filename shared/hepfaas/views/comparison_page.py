"""A comparison of trainings as one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hepfaas import __version__
from hepfaas.views.compared import Comparison, data_rows, fact_rows, heading, metric_cells, setting_rows
from hepfaas.views.document import Code, Document, Picture, Pictures, Section, Table, Text, blocks

BEST = "Marked values are better than every other by more than the standard errors of both, added in quadrature."


def page(compared: Comparison, roc: bytes | None) -> str:
    """Return the comparison as HTML. roc: a PNG with the ROC curves."""
    names = list(compared.names)
    metrics = [[each.name, *metric_cells(each)] for each in compared.metrics]
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
