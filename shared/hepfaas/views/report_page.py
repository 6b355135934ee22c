"""The report of a training as one page."""

from __future__ import annotations

from collections.abc import Mapping

from hepfaas import __version__
from hepfaas.platform.clock import utc
from hepfaas.platform.storage import Store
from hepfaas.runs.ledger import Ledger
from hepfaas.views import report_inputs, report_results
from hepfaas.views.document import Block, Document, Facts, Section, Table, Text, blocks
from hepfaas.views.numbers import Cell
from hepfaas.views.report import Report

MOST_PICTURES, MOST_PICTURE_BYTES = 400, 40_000_000
"""Pictures of a page, and their size together."""

MOST_LABELS = 500
"""Labels of an uploaded model that are shown."""


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
        sections=sections(report, png_files(report, store)),
        foot=f"Written by hepfaas {__version__}. Numbers with ± have their standard error.",
    ).html()


def png_files(report: Report, store: Store) -> dict[str, bytes]:
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
    main = {name: data for name, data in found.items() if report_results.is_main(name)}
    rest = {name: data for name, data in found.items() if name not in main}
    about = [Section("Notes", _notes(report)), Section("Provenance", _provenance(report))]
    if not report.is_trained:
        return [Section("Model", _uploaded(report)), *about]
    return [
        Section("Result", blocks(report_results.tiles(report))),
        Section("Metrics", report_results.metrics(report)),
        Section("Pictures", report_results.pictures(main)),
        Section("Thresholds", report_results.thresholds(report)),
        Section("Classes", report_results.classes(report)),
        Section("Checks", report_results.checks(report)),
        Section("Branches", report_results.branches(report, rest)),
        Section("Data", report_inputs.data(report)),
        Section("Cut flow", blocks(*report_inputs.cut_flow(report.evaluation.get("cut_flow")))),
        Section("Recipe", report_inputs.recipe(report)),
        Section("Training", report_inputs.training(report)),
        Section("Features", report_inputs.features(report)),
        *about,
    ]


def _uploaded(report: Report) -> list[Block]:
    card = report.card
    facts: list[tuple[str, Cell]] = [
        ("uploaded as", str(card.get("foreign", ""))),
        ("inputs", " × ".join(map(str, card.get("shape", [card["n_features"]])))),
        ("outputs", card["outputs"]),
        ("parameters", card["parameters"]),
        ("labels", tuple(map(str, card["labels"][:MOST_LABELS]))),
    ]
    return [Facts(facts), Text("The model was trained elsewhere: it has no recipe and no evaluation.")]


def _notes(report: Report) -> list[Block]:
    return blocks(
        Table(
            ["time", "note", "by"],
            [[utc(note.time), tuple(note.text.split("\n")), note.by] for note in report.notes],
            caption="Notes on the run",
        ),
        Table(["message"], [[message] for message in report.messages], caption="Messages of hepfaas on the job"),
    )


def _provenance(report: Report) -> list[Block]:
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
        *([f"{len(ledger.skipped):,} files cannot be read and were left out"] if ledger.skipped else []),
        *ledger.findings,
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
