"""Sections of the report of a training that show what the model was made of: data, cuts, recipe, epochs, features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hepfaas.views.document import Block, Code, Facts, Table, Text, blocks
from hepfaas.views.numbers import Cell, Quantity, measured, number, percent
from hepfaas.views.report import File, Report, short_name

Json = Mapping[str, Any]

MOST_ROWS = 500
"""Rows of a table."""


def data(report: Report) -> list[Block]:
    """Return samples and files."""
    samples: dict[str, list[File]] = {}
    for file in report.files:
        samples.setdefault(file.sample or f"label {file.label}", []).append(file)
    settings_of = {one["name"]: one for one in report.recipe.get("samples", ())}
    rows: list[list[Cell]] = []
    for name, files in samples.items():
        entries = [file.entries for file in files]
        total = None if None in entries else sum(entry or 0 for entry in entries)
        given = settings_of.get(name, {})
        rows.append(
            [
                name,
                _label(files),
                len(files),
                total,
                sum(file.events for file in files),
                *(report.events_of(place, files) for place in range(3)),
                *([number(given.get("cross_section")), given.get("weight") or ""] if settings_of else []),
            ]
        )
    heads = ["sample", "label", "files", "events", "selected", "training", "validation", "test"]
    heads += ["cross section [pb]", "weight"] if settings_of else []
    listed = [
        [short_name(file), file.sample, _label([file]), file.entries, file.events, file.name or file.identity]
        for file in report.files[:MOST_ROWS]
    ]
    more = len(report.files) - len(listed)
    luminosity = report.recipe.get("luminosity")
    return blocks(
        Table(heads, rows),
        Facts([("luminosity", f"{number(luminosity)} / pb")]) if luminosity is not None else None,
        Table(
            ["file", "sample", "label", "events", "selected", "address"],
            listed,
            folded=f"{len(report.files):,} files",
            note=f"{more:,} more files are not listed." if more else "",
        ),
        Table(
            ["file", "reason"],
            [[one.file, one.reason] for one in report.skipped[:MOST_ROWS]],
            caption=f"{len(report.skipped):,} files that cannot be read and were left out",
        )
        if report.skipped
        else None,
    )


def _label(files: Sequence[File]) -> str:
    labels = sorted({file.label for file in files if file.label is not None and file.label >= 0})
    return ", ".join(map(str, labels)) or "by event"


def cut_flow(flow: Any) -> list[Table]:
    """Return the cut flow of all samples: numbers of events, and weighted yields if there are any."""
    if not flow or not flow["samples"]:
        return []
    if len(flow["cuts"]) < 2 and not any(each.get("weights") for each in flow["samples"]):
        return []
    samples = flow["samples"][:MOST_ROWS]
    heads = ["cut", *(head for each in samples for head in (each["sample"], "of all"))]
    events: list[list[Cell]] = [
        [
            cut,
            *(
                cell
                for each in samples
                for cell in (number(each["events"][place]), percent(each["events"][place], each["events"][0]))
            ),
        ]
        for place, cut in enumerate(flow["cuts"])
    ]
    tables = [Table(heads, events, caption="Events left after each cut")]
    if any(each.get("weights") for each in samples):
        weighted: list[list[Cell]] = [
            [cut, *(cell for each in samples for cell in _weighted(each, place))]
            for place, cut in enumerate(flow["cuts"])
        ]
        tables.append(Table(heads, weighted, caption="Sums of weights left after each cut"))
    return tables


def _weighted(sample: Json, place: int) -> tuple[Quantity, Quantity]:
    weights = sample.get("weights")
    if not weights:
        return number(None), number(None)
    return measured(weights[place], sample["uncertainties"][place]), percent(weights[place], weights[0])


def recipe(report: Report) -> list[Block]:
    """Return the settings and the code."""
    every = report.settings
    changed: list[list[Cell]] = [
        [each.name, each.value, each.default or ("none",)] for each in every if not each.is_default
    ]
    same: list[list[Cell]] = [[each.name, each.value or ("none",)] for each in every if each.is_default]
    code: list[Block] = [Code(name, text) for name, text in report.code.items()]
    if not code:
        code = [Text(f"The code files are not in the store any more: {report.recipe['code']}.")]
    return [
        *blocks(
            Table(["setting", "value", "default"], changed, caption="Settings that differ from their defaults"),
            Table(["setting", "value"], same, folded=f"{len(same)} settings with their defaults"),
        ),
        *code,
    ]


def training(report: Report) -> list[Block]:
    """Return the history of the training, of each fold if there are several."""
    if folds := report.evaluation.get("folds"):
        return _folds(report, folds)
    history = report.evaluation.get("history") or ()
    names = list(dict.fromkeys(name for epoch in history for name in epoch))
    plain = [name for name in names if not name.startswith("val_")]
    order = [name for each in plain for name in (each, f"val_{each}") if name in names]
    rates = list(report.trained.rates) if report.trained else []
    has_rates = any(rate is not None for rate in rates)
    best = report.card["best_epoch"]
    rows: list[list[Cell]] = []
    for place, epoch in enumerate(history):
        rate = rates[place] if place < len(rates) else None
        mark = " (published)" if place + 1 == best else ""
        rows.append(
            [
                f"{place + 1}{mark}",
                *(number(epoch.get(name)) for name in order),
                *([number(rate, 3)] if has_rates else []),
            ]
        )
    heads = ["epoch", *(name.replace("val_", "validation ") for name in order), *(["learning rate"] * has_rates)]
    facts: list[tuple[str, Cell]] = [("published epoch", f"{best} of {len(history)}")]
    if report.trained:
        facts.append(("optimizer", report.trained.optimizer))
        facts += [("learning rate", number(report.trained.rate, 3))] if not has_rates else []
    long = len(rows) > 30
    return blocks(Facts(facts), Table(heads, rows, folded=f"{len(rows)} epochs" if long else ""))


def _folds(report: Report, folds: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Return what became of each fold, and the history of each."""
    names = [name for name in ("events", "auc", "auc_uncertainty", "accuracy", "loss") if name in folds[0]["metrics"]]
    targets = [str(target["name"]) for target in folds[0]["metrics"].get("targets", ())]
    heads = ["fold", "epochs", "published epoch", *(f"test {name.replace('_', ' ')}" for name in names)]
    heads += [f"test RMSE of {target}" for target in targets]
    rows: list[list[Cell]] = []
    histories: list[Block] = []
    for fold_number, fold in enumerate(folds, 1):
        history, metrics = fold["history"], fold["metrics"]
        rows.append(
            [
                str(fold_number),
                str(len(history)),
                str(fold["best_epoch"]),
                *(f"{metrics[name]:,}" if name == "events" else number(metrics.get(name)) for name in names),
                *(number(target["rmse"]) for target in metrics.get("targets", ())),
            ]
        )
        metric_names = list(history[0])
        lines: list[list[Cell]] = [
            [str(epoch), *(number(metrics[name]) for name in metric_names)] for epoch, metrics in enumerate(history, 1)
        ]
        histories += blocks(
            Table(
                ["epoch", *(name.replace("val_", "validation ") for name in metric_names)],
                lines,
                folded=f"fold {fold_number}: {len(lines)} epochs",
            )
        )
    trained = report.trained
    facts: list[tuple[str, Cell]] = [("optimizer", trained.optimizer)] if trained else []
    text = Text(
        "Each event is a test event of one network, which learned from the other folds. The served model is the mean "
        "of all networks."
    )
    return blocks(*([Facts(facts)] if facts else []), text, Table(heads, rows), *histories)


def features(report: Report) -> list[Block]:
    """Return how branches become features."""
    spec = report.spec
    assert spec is not None
    new = {each.name: each.expression for each in spec.preprocessing.new}
    missing = [f"{each.pattern} = {each.value:g}" for each in spec.preprocessing.missing]
    rows: list[list[Cell]] = []
    for branch in spec.branches[:MOST_ROWS]:
        clip = "" if branch.clip is None else f"{branch.clip[0]:g} to {branch.clip[1]:g}"
        more = [*(["indicator"] * branch.indicator), *(["mask"] * branch.mask)]
        rows.append(
            [
                branch.name,
                f"jagged, {branch.width} slots" if branch.jagged else "flat",
                branch.type,
                number(branch.low),
                number(branch.high),
                branch.scaling,
                *([clip] if any(each.clip for each in spec.branches) else []),
                number(branch.nan),
                number(branch.pad) if branch.jagged else "",
                ", ".join(more),
                new.get(branch.name, ""),
            ]
        )
    heads = ["branch", "form", "type", "lowest", "highest", "scaling"]
    heads += ["clip"] if any(each.clip for each in spec.branches) else []
    heads += ["missing →", "pad", "further columns", "expression"]
    keep = [place for place in range(len(heads)) if place < 6 or any(row[place] not in ("", None) for row in rows)]
    rows = [[row[place] for place in keep] for row in rows]
    facts: list[tuple[str, Cell]] = [
        ("features", f"{spec.n_features:,} from {len(spec.branches):,} branches"),
        ("identifiers", ", ".join(spec.identifiers)),
        ("spectators", tuple(spec.spectators)),
        ("values that are missing", tuple(missing)),
        ("events with more objects", {"truncate": "the first ones are used", "error": "refused"}[spec.surplus]),
    ]
    folded = f"{len(spec.branches):,} branches" if len(rows) > 12 else ""
    more_note = f"{len(spec.branches) - len(rows):,} more branches are not listed."
    return blocks(
        Facts([(name, value) for name, value in facts if value]),
        Table(
            [heads[place] for place in keep], rows, folded=folded,
            note=more_note if len(spec.branches) > len(rows) else "",
        ),
    )  # fmt: skip
