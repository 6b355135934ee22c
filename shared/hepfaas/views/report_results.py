"""Sections of the report of a training that show its evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hepfaas.views.document import Block, Picture, Pictures, Table, Text, Tiles, blocks
from hepfaas.views.numbers import Cell, Quantity, measured, number, percent
from hepfaas.views.report import Report

Json = Mapping[str, Any]

MOST_ROWS = 500
"""Rows of a table."""

MOST_TILES = 3
"""Targets of a regression among the few numbers that matter most."""

SPLITS = ("test", "validation")

CAPTIONS = {
    "roc": "Background rejection against signal efficiency",
    "roc_efficiencies": "Signal efficiency against background efficiency",
    "scores": "Score by true class",
    "loss": "Loss and metrics by epoch",
    "confusion": "Predicted class against true class",
    "significance": "Expected significance against the threshold",
    "calibration": "Signal fraction against score",
    "residuals": "Residuals: predicted minus true value",
    "predictions": "Predicted against true value",
    "profile": "Bias and resolution against branches",
}
"""Pictures of the result, in their order."""

FURTHER_CAPTIONS = {
    "importance": "Permutation importance",
    "sculpting": "Spectators of the background in slices of the score",
    "correlations": "Linear correlations",
    "branches": "Branches by class",
    "scaled": "Branches as the network sees them",
    "efficiencies": "Efficiency of the selection against branches",
}
"""Pictures of branches, in their order."""

MEASURES = {
    "s_over_sqrt_b": "S / √B",
    "s_over_sqrt_s_plus_b": "S / √(S + B)",
    "asimov": "Asimov",
    "ams": "AMS, B + 10",
}


def tiles(report: Report) -> Tiles:
    """Return the few numbers that matter most."""
    test = report.card["metrics"]["test"]
    several = len(report.classes) > 2
    tiles: list[tuple[str, Cell, str]] = []
    for target in test.get("targets", ())[:MOST_TILES]:
        value = measured(target["rmse"], target.get("rmse_uncertainty"))
        tiles.append((f"RMSE of {target['name']}", value, "test events"))
    if "auc" in test:
        text = "mean over the classes" if several else "test events"
        tiles.append(("AUC", measured(test["auc"], test.get("auc_uncertainty")), text))
    if "loss" in test:
        tiles.append(("Loss", number(test["loss"]), "test events"))
    if "accuracy" in test:
        tiles.append(("Accuracy", percent(test["accuracy"]), "test events"))
    if best := (test.get("significance") or {}).get("asimov"):
        tiles.append(("Significance", number(best["value"], 3), f"Asimov, score > {best['threshold']:.3f}"))
    events = sum(file.events for file in report.files)
    tiles.append(("Events", number(events), f"selected, in {len(report.files):,} files"))
    tiles.append(("Model", number(report.card["parameters"]), f"parameters, {report.card['n_features']:,} features"))
    return Tiles(tiles)


def metrics(report: Report) -> list[Block]:
    """Return the metrics of test and validation events."""
    metrics = report.card["metrics"]
    splits = [split for split in SPLITS if split in metrics]
    if any("targets" in metrics[split] for split in splits):
        return _regression(metrics, splits)

    def row(name: str, value: Any) -> list[Cell]:
        return [name, *(value(metrics[split]) for split in splits)]

    rows = [
        row("events", lambda each: number(each.get("events"))),
        row("AUC", lambda each: measured(each.get("auc"), each.get("auc_uncertainty"))),
        row("loss", lambda each: number(each.get("loss"))),
        row("accuracy", lambda each: number(each.get("accuracy"))),
        row("Brier score", lambda each: number(each.get("brier"))),
        row("calibration error", lambda each: number(each.get("calibration_error"))),
    ]
    known = [each for each in rows if any(cell != number(None) for cell in each[1:])]
    curves = report.evaluation.get("curves", {})
    return blocks(
        Table(["metric", *splits], known),
        Table(
            ["background rejection at a signal efficiency of", *splits],
            _rejections(curves, splits) if len(report.classes) == 2 else [],
        ),
        Table(
            ["class against the rest", *(f"AUC, {split}" for split in splits)],
            _class_aucs(report.classes, curves, splits) if len(report.classes) > 2 else [],
        ),
        _matrix("AUC of each pair of classes, test", report.classes, metrics["test"].get("pairwise_auc")),
    )


def _regression(metrics: Json, splits: Sequence[str]) -> list[Block]:
    """Return the metrics of each target, in its unit."""
    rows: list[list[Cell]] = [
        [
            target["name"],
            split,
            metrics[split]["events"],
            *(measured(target[name], target.get(f"{name}_uncertainty")) for name in ("rmse", "bias", "resolution")),
            number(target.get("r2")),
        ]
        for split in splits
        for target in metrics[split]["targets"]
    ]
    heads = ["target", "sample", "events", "RMSE", "bias", "resolution", "R²"]
    note = "The resolution is half of the width of the central 68 % of the residuals."
    return [Table(heads, rows, note=note)]


def _rejections(curves: Json, splits: Sequence[str]) -> list[list[Cell]]:
    found = {split: curves[split][0].get("rejection", {}) for split in splits if curves.get(split)}
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    return [[name, *(number(found.get(split, {}).get(name), 3) for split in splits)] for name in names]


def _class_aucs(classes: Sequence[str], curves: Json, splits: Sequence[str]) -> list[list[Cell]]:
    def auc(split: str, place: int) -> Quantity:
        every = curves.get(split, ())
        return measured(every[place]["auc"], every[place]["uncertainty"]) if place < len(every) else number(None)

    return [[name, *(auc(split, place) for split in splits)] for place, name in enumerate(classes)]


def _working_points(name: str, points: Mapping[str, Json]) -> Table:
    """Return the working points of one score. name: of its class, if there are several."""
    rows: list[list[Cell]] = [
        [
            Quantity(f"{100 * float(at):g} %"),
            measured(each["signal"], each["uncertainty"]),
            number(each["threshold"]),
            percent(each["background"]),
            each["background_events"],
        ]
        for at, each in points.items()
    ]
    heads = ["background efficiency up to", "signal efficiency", "threshold", "background left", "background events"]
    of = f" of the score of {name}, {name} against the rest" if name else ""
    return Table(heads, rows, caption=f"Working points{of}, test events")


def thresholds(report: Report) -> list[Block]:
    """Return working points and the best thresholds."""
    test = report.card["metrics"]["test"]
    curves = test.get("classes") or [{"name": "", "working_points": test.get("working_points") or {}}]
    significance = test.get("significance") or {}
    curve = (report.evaluation.get("curves", {}).get("test") or [{}])[0]
    rows = [
        [
            MEASURES.get(name, name),
            number(best["value"]),
            number(best["threshold"]),
            number(best["signal"]),
            number(best["background"]),
        ]
        for name, best in significance.items()
        if isinstance(best, Mapping)
    ]
    threshold = curve.get("threshold") if len(report.classes) == 2 else None
    return blocks(
        *(_working_points(each["name"], each["working_points"]) for each in curves),
        Table(
            ["significance", "best value", "threshold", "signal", "background"],
            rows,
            caption="Best thresholds, test events",
            note=f"S and B are {significance.get('yields', 'yields')} above the threshold, scaled from the test sample "
            "to all events. Thresholds with fewer than 10 background events are not considered.",
        ),
        Text(f"The best geometric mean of efficiency and rejection is at a threshold of {threshold:.4f}.")
        if threshold is not None
        else None,
    )


def classes(report: Report) -> list[Block]:
    """Return quality, yields and confusion of each class."""
    test = report.card["metrics"]["test"]
    classification = test.get("classification") or {}
    rows = [_quality(each["name"], each) for each in classification.get("classes", ())]
    means = (("mean of classes", "macro"), ("mean by support", "mean"))
    rows += [_quality(name, classification[key]) for name, key in means if key in classification]
    yields = test.get("yields") or ()
    return blocks(
        Table(["class", "precision", "recall", "F1", "support"], rows, caption="Classification, test events"),
        Table(
            ["class", "events", "yield", "effective events"],
            [
                [name, each["events"], measured(each["sum"], each["uncertainty"]), number(each["effective"])]
                for name, each in zip(report.classes, yields, strict=False)
            ],
            caption="Yields of the test sample, scaled to all events",
        ),
        _confusion("Confusion, numbers of test events", report.classes, test.get("confusion")),
        _confusion("Confusion, sums of weights", report.classes, test.get("weighted_confusion")),
    )


def _quality(name: str, values: Json) -> list[Cell]:
    return [name, *(number(values[key]) for key in ("precision", "recall", "f1", "support"))]


def _confusion(caption: str, classes: Sequence[str], matrix: Any) -> Table | None:
    if not matrix or len(matrix) > 30:
        return None
    rows = []
    for name, values in zip(classes, matrix, strict=False):
        total = sum(values)
        rows.append([name, *(Quantity(f"{number(value)} ({percent(value, total)})") for value in values)])
    return Table(["true class", *(f"as {name}" for name in classes)], rows, caption=caption)


def _matrix(caption: str, classes: Sequence[str], matrix: Any) -> Table | None:
    if not matrix:
        return None
    rows: list[list[Cell]] = [
        [name, *(number(value) for value in values)] for name, values in zip(classes, matrix, strict=False)
    ]
    return Table(["", *classes], rows, caption=caption)


def checks(report: Report) -> list[Block]:
    """Return checks of overtraining and calibration."""
    overtraining = report.card["metrics"]["test"].get("overtraining") or {}
    rows: list[list[Cell]] = []
    curves = overtraining.get("curves", ())
    for place, each in enumerate(curves):
        score = report.classes[place if len(curves) > 1 else -1]
        for name, found in zip(report.classes, each, strict=False):
            if found:
                rows.append([f"score of {score}", name, number(found["distance"], 3), number(found["probability"], 2)])
    calibration = (report.evaluation.get("calibration", {}).get("test") or [{}])[0].get("bins", ())
    return blocks(
        Table(
            ["score", "true class", "Kolmogorov distance", "probability"],
            rows,
            caption="Overtraining: training against test events",
            note=f"A small probability means that training and test scores differ. {number(events)} training events."
            if (events := overtraining.get("training_events"))
            else "",
        ),
        Table(
            ["mean score", "signal fraction", "events"],
            [
                [number(each["score"], 3), measured(each["fraction"], each["uncertainty"]), each["events"]]
                for each in calibration
            ],
            folded="Calibration by score, test events",
        ),
    )


def _examined(report: Report) -> Json:
    """Return the values that come from a sample of the test events."""
    found: Json = report.evaluation.get("examined") or report.evaluation
    return found


def branches(report: Report, found: Mapping[str, bytes]) -> list[Block]:
    """Return what a sample of the test events shows of branches, with their pictures."""
    values = _examined(report)
    importance = values.get("importance") or {}
    groups = sorted(importance.get("groups", ()), key=lambda each: -each["fall"])
    shown = f"{number(importance.get('events'))} test events, AUC {number(importance.get('auc'))}"
    rows = [[each["name"], each["kind"], measured(each["fall"], each["spread"])] for each in groups[:MOST_ROWS]]
    return blocks(
        Table(
            ["permuted", "", "fall of the AUC"],
            rows[:20],
            caption="Permutation importance",
            note=f"{shown}. ± is the spread over repeated permutations.",
        ),
        Table(["permuted", "", "fall of the AUC"], rows[20:], folded=f"{len(rows) - 20} further branches"),
        *_sculpting(values, report.classes),
        *_correlations(values, report.classes),
        *pictures(found),
    )


def _sculpting(values: Json, classes: Sequence[str]) -> list[Table]:
    found = values.get("sculpting") or ()
    rows: list[list[Cell]] = [
        [
            each["name"],
            classes[each["curve"] if len(classes) > 2 else -1],
            number(each["threshold"]),
            number(each["divergence"], 3),
            number(each["chance"], 2),
        ]
        for each in found
    ]
    heads = ["spectator", "score of", "threshold", "divergence [bit]", "by chance"]
    note = (
        "Jensen-Shannon divergence of the background above and below the threshold; 0 if the score does not shape it."
    )
    return [Table(heads, rows, caption="Sculpting of the background", note=note)]


def _correlations(values: Json, classes: Sequence[str]) -> list[Table]:
    """Return the correlations of each column with the score, in each class."""
    found = values.get("correlations") or {}
    names, matrices = found.get("names", ()), found.get("classes", ())
    if not names or not matrices:
        return []
    rows = [
        [name, *(number(matrix[0][place], 2) for matrix in matrices)] for place, name in enumerate(names) if place > 0
    ]
    return [Table(["", *classes], rows[:MOST_ROWS], folded=f"Correlation with the {names[0]}, by class")]


def pictures(found: Mapping[str, bytes]) -> list[Pictures]:
    """Return pictures in the order of their captions, those without one at the end."""
    known = {**CAPTIONS, **FURTHER_CAPTIONS}
    order = [*(name for name in known if name in found), *(name for name in found if name not in known)]
    return [Pictures([Picture(_caption(name, known), found[name]) for name in order])] if order else []


def _caption(name: str, known: Mapping[str, str]) -> str:
    """Return the caption of a picture, that of `roc` with a number for `roc_1`."""
    first, _, number = name.rpartition("_")
    if first in known and number.isdecimal():
        return f"{known[first]} ({number})"
    return known.get(name, name.replace("_", " "))


def is_main(name: str) -> bool:
    """Return whether a picture shows the result, not branches."""
    return name in CAPTIONS or name.rpartition("_")[0] in CAPTIONS
