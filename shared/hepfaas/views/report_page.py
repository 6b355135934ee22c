"""The report of a training as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hepfaas import __version__
from hepfaas.platform.clock import utc
from hepfaas.platform.storage import Store
from hepfaas.runs.ledger import Ledger
from hepfaas.views.document import Code, Document, Facts, Picture, Pictures, Section, Table, Text, Tiles, blocks
from hepfaas.views.numbers import Cell, Quantity, measured, number, percent
from hepfaas.views.report import File, Report, short_name

Json = Mapping[str, Any]

MOST_PICTURES, MOST_PICTURE_BYTES = 400, 40_000_000
"""Pictures of a page, and their size together."""

MOST_ROWS = 500
"""Rows of a table of files, features or matrix entries."""

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
    "profiles": "Residuals against branches",
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


def page(report: Report, store: Store) -> str:
    """Return the report as HTML, with the pictures of the version inside."""
    created = [utc(report.created)] if report.created is not None else []
    by = [f"by {report.submitter}"] if report.submitter else []
    took = []
    if report.created is not None and report.ended is not None:
        took = [f"took {_duration(report.ended - report.created)}"]
    classes = [f"classes: {', '.join(report.classes)}"] if report.is_trained and report.classes else []
    return Document(
        title=f"Model {report.version}",
        above=f"hepfaas {'training' if report.is_trained else 'model'}{' · run ' + report.run if report.run else ''}",
        below=[*created, *by, *took, *classes],
        tags=report.tags,
        sections=sections(report, pictures(report, store)),
        foot=f"Written by hepfaas {__version__}. Numbers with ± have their standard error.",
    ).html()


def pictures(report: Report, store: Store) -> dict[str, bytes]:
    """Return the PNG files of a version by their names, as many as fit on a page."""
    found: dict[str, bytes] = {}
    left = MOST_PICTURE_BYTES
    for name in [name for name in report.pictures if name.endswith(".png")][:MOST_PICTURES]:
        size_bytes = store.size_bytes(key := f"{report.version.prefix}{name}") or 0
        if 0 < size_bytes <= left:
            found[name.removesuffix(".png")] = store.get(key)
            left -= size_bytes
    return found


def sections(report: Report, found: Mapping[str, bytes]) -> list[Section]:
    """Return the sections of the page. What the evaluation does not have is left out."""
    main = {name: data for name, data in found.items() if _is_main(name)}
    rest = {name: data for name, data in found.items() if name not in main}
    about = [Section("Notes", _notes(report)), Section("Provenance", _provenance(report))]
    if not report.is_trained:
        return [Section("Model", _uploaded(report)), *about]
    return [
        Section("Result", blocks(_tiles(report))),
        Section("Metrics", _metrics(report)),
        Section("Pictures", _pictures(main)),
        Section("Thresholds", _thresholds(report)),
        Section("Classes", _classes(report)),
        Section("Checks", _checks(report)),
        Section("Branches", _branches(report, rest)),
        Section("Data", _data(report)),
        Section("Cut flow", blocks(*_cut_flow(report.evaluation.get("cut_flow")))),
        Section("Recipe", _recipe(report)),
        Section("Training", _training(report)),
        Section("Features", _features(report)),
        *about,
    ]


def _uploaded(report: Report) -> list[Any]:
    card = report.card
    facts: list[tuple[str, Cell]] = [
        ("uploaded as", str(card.get("foreign", ""))),
        ("inputs", " × ".join(map(str, card.get("shape", [card["n_features"]])))),
        ("outputs", card["outputs"]),
        ("parameters", card["parameters"]),
        ("labels", tuple(map(str, card["labels"][:MOST_ROWS]))),
    ]
    return [Facts(facts), Text("The model was trained elsewhere: it has no recipe and no evaluation.")]


def _tiles(report: Report) -> Tiles:
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


def _metrics(report: Report) -> list[Any]:
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


def _regression(metrics: Json, splits: Sequence[str]) -> list[Any]:
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


def _thresholds(report: Report) -> list[Any]:
    test = report.card["metrics"]["test"]
    points = test.get("working_points") or {}
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
        Table(
            [
                "background efficiency up to",
                "signal efficiency",
                "threshold",
                "background efficiency",
                "background events",
            ],
            [
                [
                    Quantity(f"{100 * float(name):g} %"),
                    measured(each["signal"], each["uncertainty"]),
                    number(each["threshold"]),
                    percent(each["background"]),
                    each["background_events"],
                ]
                for name, each in points.items()
            ],
            caption="Working points, test events",
        ),
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


def _classes(report: Report) -> list[Any]:
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


def _checks(report: Report) -> list[Any]:
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
    """Return the values that come from a sample of the test events, {} if the release that trained had none."""
    for name in ("examined", "examine", "sample"):
        if isinstance(found := report.evaluation.get(name), Mapping):
            return found
    return report.evaluation


def _branches(report: Report, found: Mapping[str, bytes]) -> list[Any]:
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
        *_pictures(found),
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


def _pictures(found: Mapping[str, bytes]) -> list[Pictures]:
    """Return pictures in the order of their captions, those without one at the end."""
    known = {**CAPTIONS, **FURTHER_CAPTIONS}
    order = [*(name for name in known if name in found), *(name for name in found if name not in known)]
    return (
        [Pictures([Picture(known.get(name, name.replace("_", " ")), found[name]) for name in order])] if order else []
    )


def _is_main(name: str) -> bool:
    return name in CAPTIONS or name.startswith("scores_")


def _data(report: Report) -> list[Any]:
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
                *(sum(file.split[place] for file in files) for place in range(3)),
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
    )


def _label(files: Sequence[File]) -> str:
    labels = sorted({file.label for file in files if file.label is not None and file.label >= 0})
    return ", ".join(map(str, labels)) or "by event"


def _cut_flow(flow: Any) -> list[Table]:
    """Return the cut flow of all samples: numbers of events, and weighted yields if there are any."""
    if not flow or len(flow["cuts"]) < 2 or not flow["samples"]:
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


def _recipe(report: Report) -> list[Any]:
    every = report.settings
    changed: list[list[Cell]] = [
        [each.name, each.value, each.default or ("none",)] for each in every if not each.is_default
    ]
    same: list[list[Cell]] = [[each.name, each.value or ("none",)] for each in every if each.is_default]
    code: list[Any] = [Code(name, text) for name, text in report.code.items()]
    if not code:
        code = [Text(f"The code files are not in the store any more: {report.recipe['code']}.")]
    return [
        *blocks(
            Table(["setting", "value", "default"], changed, caption="Settings that differ from their defaults"),
            Table(["setting", "value"], same, folded=f"{len(same)} settings with their defaults"),
        ),
        *code,
    ]


def _training(report: Report) -> list[Any]:
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
    facts += [("optimizer", report.trained.optimizer)] if report.trained and report.trained.optimizer else []
    long = len(rows) > 30
    return blocks(Facts(facts), Table(heads, rows, folded=f"{len(rows)} epochs" if long else ""))


def _features(report: Report) -> list[Any]:
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


def _notes(report: Report) -> list[Any]:
    return blocks(
        Table(
            ["time", "note", "by"],
            [[utc(note.time), tuple(note.text.split("\n")), note.by] for note in report.notes],
            caption="Notes on the run",
        ),
        Table(["message"], [[message] for message in report.messages], caption="Messages of hepfaas on the job"),
    )


def _provenance(report: Report) -> list[Any]:
    card = report.card
    facts: list[tuple[str, Cell]] = [("model", str(report.version)), ("run", report.run or "deleted")]
    if report.ledger:
        facts.append(("ledger", _ledger(report.ledger)))
    check = card.get("graph_check") or {}
    facts += [
        ("weights", card.get("weights", "")),
        ("spec", card.get("spec", "")),
        ("code", str(report.recipe.get("code", "")).rpartition("/")[2]),
        *((f"step {name}", key) for name, key in (card.get("steps") or {}).items()),
        ("software", ", ".join(f"{name} {version}" for name, version in (card.get("versions") or {}).items())),
        ("processor", card.get("processor", "")),
    ]
    if "largest_difference" in check:
        facts.append(
            (
                "graph",
                f"differs from the network by at most {check['largest_difference']:.2g} in {check['events']:,} events",
            )
        )
    return [Facts([(name, value) for name, value in facts if value])]


def _ledger(ledger: Ledger) -> tuple[str, ...]:
    rejected = f", {sum(ledger.rejected):,} of them rejected by cuts" if ledger.rejected else ""
    return (
        "holds: every event is counted once" if ledger.holds else "does not hold",
        f"{ledger.events:,} events in {ledger.files:,} files{rejected}",
        f"{ledger.training_events:,} training events in each of {ledger.epochs:,} epochs",
        *ledger.findings,
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
