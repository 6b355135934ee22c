"""Several trainings beside each other: metrics, settings, code, data and ROC curves."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.platform.storage import Store
from hepfaas.runs.differences import differing
from hepfaas.views import report
from hepfaas.views.compared import CodeDifference, Comparison, Json, Metric
from hepfaas.views.report import Report, short_name

LEAST, MOST = 2, 10
"""Trainings of a comparison."""

MOST_LINES = 1_000
"""Lines of a code file of which a difference is computed."""

MOST_SHOWN = 200
"""Lines of a difference that are kept."""

MOST_FILES = 100
"""Data files that are listed because not all trainings have them."""

SPLITS = ("test", "validation")
NAMES = {"rmse": "RMSE", "resolution": "resolution"}


def compare(store: Store, names: Sequence[str]) -> Comparison:
    """Return the comparison of runs and model versions by their names.

    Raises: RequestError if there are too few or too many, or one of them is no training that published a model.
    """
    if not LEAST <= len(names) <= MOST:
        raise RequestError(f"{len(names)} names of runs or models were given; a comparison takes {LEAST} to {MOST}")
    reports = [report.named(store, name) for name in names]
    for name, each in zip(names, reports, strict=True):
        if not each.is_trained:
            raise RequestError(f"model '{name}' was not trained here: it has no metrics to compare")
    return of_reports(names, reports)


def of_reports(names: Sequence[str], reports: Sequence[Report]) -> Comparison:
    """Return the comparison of reports."""
    settings = differing([each.recipe for each in reports])
    return Comparison(
        names=tuple(names),
        facts=_facts(reports),
        metrics=list(_metrics(reports)),
        settings=settings,
        code=list(_code(names, reports)),
        data=_data(reports),
        files=_files(reports),
        curves=list(_curves(reports)),
        notes=_notes(reports, settings),
    )


def best_of(values: Sequence[float | None], uncertainties: Sequence[float | None]) -> int | None:
    """Return the index of the largest value if it exceeds every other by more than both errors, added in quadrature."""
    known = [
        (value, error, place)
        for place, (value, error) in enumerate(zip(values, uncertainties, strict=True))
        if value is not None and error is not None
    ]
    if len(known) < max(2, len(values)):
        return None
    (value, error, best), *others = sorted(known, reverse=True)
    return best if all(value - other > math.hypot(error, its_error) for other, its_error, _ in others) else None


def _metrics(reports: Sequence[Report]) -> Iterator[Metric]:
    for split in SPLITS:
        every = [each.card["metrics"].get(split, {}) for each in reports]
        mean = "mean AUC" if any("classes" in one for one in every) else "AUC"
        yield from _with_errors(f"{mean}, {split}", every, lambda one: (one.get("auc"), one.get("auc_uncertainty")))
        for name in dict.fromkeys(each["name"] for one in every for each in one.get("classes", ())):
            yield from _with_errors(f"AUC of {name}, {split}", every, partial(_of_class, name))
        yield from _with_errors(f"accuracy, {split}", every, lambda one: (one.get("accuracy"), _accuracy_error(one)))
        yield from _with_errors(f"loss, {split}", every, lambda one: (one.get("loss"), None))
        yield from _with_errors(f"calibration error, {split}", every, lambda one: (one.get("calibration_error"), None))
    every = [each.card["metrics"].get("test", {}) for each in reports]
    for at in dict.fromkeys(at for one in every for at in one.get("working_points") or ()):
        name = f"signal efficiency at {100 * float(at):g} % background, test"
        yield from _with_errors(name, every, partial(_working, at))
    yield from _with_errors("significance (Asimov), test", every, lambda one: (_significance(one), None))
    for target in dict.fromkeys(each["name"] for one in every for each in one.get("targets", ())):
        for metric in ("rmse", "resolution"):
            name = f"{NAMES[metric]} of {target}, test"
            yield from _with_errors(name, every, partial(_of_target, target, metric), is_low_better=True)


def _with_errors(
    name: str,
    every: Sequence[Json],
    values_of: Callable[[Json], tuple[float | None, float | None]],
    is_low_better: bool = False,
) -> Iterator[Metric]:
    """Yield the metric if a training has it."""
    pairs = [values_of(one) for one in every]
    values, errors = [value for value, _ in pairs], [error for _, error in pairs]
    if any(value is not None for value in values):
        signed = [None if value is None else -value for value in values] if is_low_better else values
        yield Metric(name, values, errors, best_of(signed, errors))


def _of_class(name: str, metrics: Json) -> tuple[float | None, float | None]:
    """Return the AUC of a class against the others, and its uncertainty."""
    found = [(each["auc"], each["uncertainty"]) for each in metrics.get("classes", ()) if each["name"] == name]
    return found[0] if found else (None, None)


def _accuracy_error(metrics: Json) -> float | None:
    """Return the binomial error of the accuracy; with weights of the effective number of events."""
    accuracy, yields = metrics.get("accuracy"), metrics.get("yields")
    number = float(metrics.get("events") or 0)
    if yields:
        variance = sum(each["uncertainty"] ** 2 for each in yields)
        number = sum(each["sum"] for each in yields) ** 2 / variance if variance else 0.0
    if accuracy is None or not number > 0:
        return None
    return math.sqrt(max(0.0, accuracy * (1 - accuracy)) / number)


def _working(at: str, metrics: Json) -> tuple[float | None, float | None]:
    point = (metrics.get("working_points") or {}).get(at) or {}
    return point.get("signal"), point.get("uncertainty")


def _of_target(target: str, metric: str, metrics: Json) -> tuple[float | None, float | None]:
    found: Json = next((each for each in metrics.get("targets", ()) if each["name"] == target), {})
    return found.get(metric), found.get(f"{metric}_uncertainty")


def _significance(metrics: Json) -> float | None:
    best = (metrics.get("significance") or {}).get("asimov") or {}
    return best.get("value")


def _facts(reports: Sequence[Report]) -> dict[str, list[Any]]:
    return {
        "run": [each.run or None for each in reports],
        "model": [str(each.version) for each in reports],
        "tags": [list(each.tags) for each in reports],
        "optimizer": [each.trained.optimizer if each.trained else None for each in reports],
        "learning rate, first epoch": [_first_rate(each) for each in reports],
        "learning rate, published epoch": [each.trained.rate if each.trained else None for each in reports],
        "epochs": [_by_fold(each, len(each.evaluation.get("history", ())), _n_epochs) for each in reports],
        "published epoch": [_by_fold(each, each.card["best_epoch"], _published_epoch) for each in reports],
        "features": [each.card["n_features"] for each in reports],
        "parameters": [each.card["parameters"] for each in reports],
        "tensorflow": [each.card.get("versions", {}).get("tensorflow") for each in reports],
        "processor": [each.card.get("processor") for each in reports],
        "weights": [str(each.card.get("weights", ""))[:12] for each in reports],
    }


def _by_fold(each: Report, value: Any, of_fold: Callable[[Json], int]) -> Any:
    """Return a value of a training; with folds, that of each as text."""
    folds = each.evaluation.get("folds")
    return ", ".join(str(of_fold(fold)) for fold in folds) if folds else value


def _n_epochs(fold: Json) -> int:
    return len(fold["history"])


def _published_epoch(fold: Json) -> int:
    return int(fold["best_epoch"])


def _first_rate(each: Report) -> float | None:
    return each.trained.rates[0] if each.trained and each.trained.rates else None


def _code(names: Sequence[str], reports: Sequence[Report]) -> Iterator[CodeDifference]:
    first = reports[0].code
    for name, each in zip(names[1:], reports[1:], strict=True):
        for file in sorted({*first, *each.code}):
            before, after = first.get(file), each.code.get(file)
            if before != after:
                yield _difference(name, file, before or "", after or "")


def _difference(name: str, file: str, before: str, after: str) -> CodeDifference:
    one, other = before.splitlines(), after.splitlines()
    if max(len(one), len(other)) > MOST_LINES:
        return CodeDifference(name, file, len(other), len(one), (f"(files of more than {MOST_LINES:,} lines)",))
    lines = list(difflib.unified_diff(one, other, n=2, lineterm=""))[2:]
    added, removed = (sum(line.startswith(mark) for line in lines) for mark in ("+", "-"))
    more = [f"({len(lines) - MOST_SHOWN:,} more lines)"] if len(lines) > MOST_SHOWN else []
    return CodeDifference(name, file, added, removed, [*lines[:MOST_SHOWN], *more])


def _data(reports: Sequence[Report]) -> dict[str, list[int | None]]:
    def entries(each: Report) -> int | None:
        known = [file.entries for file in each.files]
        return None if None in known else sum(entry or 0 for entry in known)

    return {
        "files": [len(each.files) for each in reports],
        "events": [entries(each) for each in reports],
        "selected events": [sum(file.events for file in each.files) for each in reports],
        **{
            f"{split} events": [each.events_of(place, each.files) for each in reports]
            for place, split in enumerate(("training", "validation", "test"))
        },
    }


def _files(reports: Sequence[Report]) -> dict[str, list[bool]]:
    """Return the files that not all trainings have. A file is the same if its content or version is."""
    names = {file.identity: short_name(file) for each in reports for file in each.files}
    sets = [{file.identity for file in each.files} for each in reports]
    missing = [identity for identity in names if not all(identity in known for known in sets)]
    return {
        f"{names[identity]} ({identity.removeprefix('address-')[:8]})": [identity in known for known in sets]
        for identity in missing[:MOST_FILES]
    }


def _curves(reports: Sequence[Report]) -> Iterator[dict[str, Any]]:
    for number, each in enumerate(reports):
        curves = each.evaluation.get("curves", {}).get("test", ())
        for place, curve in enumerate(curves):
            yield {
                "training": number,
                "class": each.classes[place if len(curves) > 1 else -1],
                **{name: curve[name] for name in ("signal", "background", "auc", "uncertainty", "resolution")},
            }


def _notes(reports: Sequence[Report], settings: Mapping[str, Any]) -> list[str]:
    tests = [{(file.identity, file.split[2]) for file in each.files} for each in reports]
    notes = []
    if any(test != tests[0] for test in tests) or "split_seed" in settings:
        notes.append("The trainings have different test events: differences of their metrics may be due to them.")
    if any(each.classes != reports[0].classes for each in reports[1:]):
        notes.append("The trainings have different classes.")
    return notes
