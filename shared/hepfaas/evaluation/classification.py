"""Precision, recall and F1 of each class. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hepfaas.evaluation.tally import Floats, Tally

COLUMNS = ("precision", "recall", "f1")


def classification_report(confusion: Tally, names: Sequence[str]) -> dict[str, Any]:
    """Return precision, recall, F1 and support of each class, and their means over the classes, as JSON values.

    confusion: (true class, predicted class). classes: a list in the order of the classes. macro: plain means; mean: by
    support. With weights `events` has the same of the numbers of events. A value is None if it divides by a sum that is
    not positive.
    """
    report = _report(confusion.yields, names)
    if confusion.is_weighted:
        report["events"] = _report(confusion.events.astype(np.float64), names)
    return report


def texts(report: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the report as the file 'classification.txt'."""
    return {"classification.txt": as_text(report).encode()}


def as_text(report: Mapping[str, Any]) -> str:
    """Return the report as a table of text."""
    rows = [(values["name"], values) for values in report["classes"]]
    rows += [("mean of classes", report["macro"]), ("mean by support", report["mean"])]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}" + "".join(f"{column:>11}" for column in (*COLUMNS, "support"))]
    for name, values in rows:
        shares = ["-" if values[column] is None else f"{values[column]:.4f}" for column in COLUMNS]
        lines.append(f"{name:{width}}" + "".join(f"{text:>11}" for text in shares) + f"{values['support']:>11,.6g}")
    return "\n".join(lines) + "\n"


def _report(matrix: Floats, names: Sequence[str]) -> dict[str, Any]:
    predicted, true = matrix.sum(axis=0).tolist(), matrix.sum(axis=1).tolist()
    classes: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        right = float(matrix[number, number])
        classes.append(
            {
                "name": name,
                "precision": _share(right, predicted[number]),
                "recall": _share(right, true[number]),
                "f1": _share(2 * right, predicted[number] + true[number]),
                "support": true[number],
            }
        )
    total = sum(true)
    return {
        "classes": classes,
        "macro": {**{column: _mean(classes, column, None) for column in COLUMNS}, "support": total},
        "mean": {**{column: _mean(classes, column, total) for column in COLUMNS}, "support": total},
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _mean(classes: Sequence[Mapping[str, Any]], column: str, total: float | None) -> float | None:
    """Return the mean of a column over the classes, by support if `total` is their sum; None if a value is None."""
    values = [each[column] for each in classes]
    if None in values or (total is not None and total <= 0):
        return None
    if total is None:
        return float(sum(values)) / len(values)
    return float(sum(value * each["support"] for value, each in zip(values, classes, strict=True))) / total
