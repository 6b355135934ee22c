"""Linear correlations of branches, spectators and the score in each class. Pure; from a sample of events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hepfaas.evaluation.sample import Sample
from hepfaas.evaluation.tally import Floats

MOST_COLUMNS = 100
MOST_ROWS = 2**15
"""Most events of a class, so that the sums of `_products` stay exact."""


def correlations(sample: Sample, classes: Sequence[str]) -> dict[str, Any]:
    """Return the names of the columns and a matrix for each class, (columns, columns), as JSON values.

    The columns are the scores, the spectators, and the first slot of each branch, at most 100 in all. An entry is None
    if one of both columns is constant in the events of the class in which both have a value.
    """
    scores = {f"score of {classes[-1]}": sample.probabilities[:, 1]}
    if sample.n_classes > 2:
        scores = {f"score of {name}": sample.probabilities[:, number] for number, name in enumerate(classes)}
    branches = {name: values[:, 0] for name, values in sample.branches.items()}
    columns = list({**scores, **sample.spectators, **branches}.items())[:MOST_COLUMNS]
    table = np.stack([values for _, values in columns], axis=1)
    return {
        "names": [name for name, _ in columns],
        "classes": [_of_class(table, sample, number) for number in range(sample.n_classes)],
    }


def _of_class(table: Floats, sample: Sample, number: int) -> list[list[float | None]]:
    rows = np.flatnonzero(sample.labels == number)
    rows = rows[:: max(1, -(-len(rows) // MOST_ROWS))]
    matrix = correlation_matrix(table[rows], sample.weights[rows])
    return [[None if np.isnan(value) else round(value, 6) for value in row] for row in matrix.tolist()]


def correlation_matrix(table: Floats, weights: Floats) -> Floats:
    """Return the weighted correlation of each pair of columns over the rows in which both are finite, (columns,
    columns); NaN if one of them is constant there or the weights leave no positive variance. table: (rows, columns)."""
    finite = np.isfinite(table)
    filled = np.where(finite, table, 0.0)
    largest = np.abs(filled).max(axis=0, initial=0)
    filled = filled / np.where(largest > 0, largest, 1)
    centre = filled.sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    filled = np.where(finite, filled - centre, 0.0)  # the sums below cancel less
    mask = finite.astype(np.float64)
    weighted, weighted_mask = filled * weights[:, None], mask * weights[:, None]
    total = _products(weighted_mask, mask)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = _products(weighted, mask) / total  # of the first column where the second is finite
        square = _products(weighted * filled, mask) / total
        covariance = _products(weighted, filled) / total - mean * mean.T
        variance = square - mean**2
        variance = np.where(variance > 1e-12 * np.abs(square), variance, np.nan)
        correlation = np.clip(covariance / np.sqrt(variance * variance.T), -1, 1)
    return (correlation + correlation.T) / 2  # rounded to other steps on each side of the diagonal


def _products(one: Floats, other: Floats) -> Floats:
    """Return the matrix product of two tables, (rows, columns), equal on every processor.

    The values become whole numbers up to 2**18, so that the sums of their products stay below 2**53 and are exact. For
    tables of this size `einsum` takes less time than BLAS with its threads.
    """
    (first, first_step), (second, second_step) = _whole(one), _whole(other)
    product: Floats = np.einsum("ni,nj->ij", first, second) * (first_step[:, None] * second_step)
    return product


def _whole(table: Floats) -> tuple[Floats, Floats]:
    """Return whole numbers and the step of each column."""
    step = np.abs(table).max(axis=0, initial=0) * 2.0**-18
    step = np.where(step > 0, step, 1)
    return np.rint(table / step), step
