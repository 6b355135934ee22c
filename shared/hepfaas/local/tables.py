"""Plain text for a person: tables, facts and times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hepfaas.platform.terminal import PRINTED, visible

if TYPE_CHECKING:  # at run time it would import uproot
    from hepfaas.datasets.summary import TreeSummary


MOST_NOTE = 60
"""Characters of a note in a list of runs."""

UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z(?=  |$)")
"""A time in ISO 8601 that is a whole text, or begins a line of a log."""


def in_local_time(text: str) -> str:
    """Return the text with the time at its beginning, if it is in UTC, in the time zone of this machine."""
    if not (time := UTC.match(text)):
        return text
    return f"{datetime.fromisoformat(time[0]).astimezone():%Y-%m-%d %H:%M:%S}{text[time.end() :]}"


def table(rows: Sequence[Mapping[str, Any]], empty: str) -> str:
    """Return rows below the names of their columns, numbers aligned to the right; `empty` if there are no rows."""
    if not rows:
        return empty
    names = list(rows[0])
    cells = [[_text(row[name]) for name in names] for row in rows]
    headings = [visible(str(name)) for name in names]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    right = [all(isinstance(row[name], int | float | None) for row in rows) for name in names]
    return "\n".join(_line(line, widths, right) for line in [headings, *cells])


def runs_text(rows: Sequence[Mapping[str, Any]], empty: str) -> str:
    """Return a list of runs, each with the begin of its last note, without columns that no run has."""
    shown = [{**row, "note": _short(str(row.get("note") or "")), "tags": row.get("tags") or None} for row in rows]
    used = [name for name in (shown[0] if shown else ()) if any(row.get(name) not in (None, "") for row in shown)]
    return table([{name: row.get(name) for name in used} for row in shown], empty)


def notes_text(notes: Sequence[Mapping[str, Any]]) -> str:
    """Return notes: a line with time and author, then the text, indented."""
    return "\n".join(
        f"{in_local_time(str(note['time']))}  {visible(str(note.get('by', '')))}".rstrip()
        + "".join(f"\n{PRINTED}{visible(line)}" for line in str(note["text"]).split("\n"))
        for note in notes
    )


def metrics_text(report: Mapping[str, Any]) -> str:
    """Return loss, accuracy and AUC of each sample, and the model of the run."""
    rows = [
        {
            "sample": split,
            "events": values["events"],
            "loss": values["loss"],
            "accuracy": values["accuracy"],
            "AUC": f"{values['auc']:.4f} ± {values['auc_uncertainty']:.4f}" if values["auc"] is not None else "-",
        }
        for split, values in report["metrics"].items()
    ]
    return f"{table(rows, '')}\n\nmodel {report['model']} (best epoch {report['best_epoch']})"


def facts(values: Mapping[str, Any], indent: str = "") -> str:
    """Return one line for each value; nested values are indented."""
    named = {visible(str(name)): value for name, value in values.items()}
    width = max(map(len, named), default=0)
    lines = []
    for name, value in named.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}", facts(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines += [f"{indent}{name}", *(f"{indent}  {row}" for row in table(value, "").splitlines())]
        elif isinstance(value, list) and value and isinstance(value[0], str):
            lines += [f"{indent}{name}", *(f"{indent}  {_text(text)}" for text in value)]
        else:
            lines.append(f"{indent}{name:<{width}}  {_text(value)}".rstrip())
    return "\n".join(line for line in lines if line)


def described(tree: TreeSummary) -> str:
    """Return a TTree with its branches."""
    title = f" ({visible(tree.title)})" if tree.title else ""
    heading = (
        f"TTree '{visible(tree.name)}'{title}: {tree.entries:,} entries in {tree.clusters:,} clusters, "
        f"{size(tree.compressed_bytes)} on disk ({visible(tree.compression)}), "
        f"{size(tree.uncompressed_bytes)} uncompressed"
    )
    rows = [
        {
            "branch": branch.name,
            "form": "jagged" if branch.jagged else "flat",
            "type": branch.type,
            "size": size(branch.size_bytes),
        }
        for branch in tree.branches
    ]
    others = [{"branch": name, "form": "left out", "type": why, "size": ""} for name, why in tree.left_out]
    return f"{heading}\n{table([*rows, *others], 'no branch')}"


def size(size_bytes: float) -> str:
    """Return bytes with a unit, e.g. '1.9 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def _short(text: str) -> str:
    line = text.partition("\n")[0]
    return line if line == text and len(line) <= MOST_NOTE else f"{line[:MOST_NOTE]}…"


def _line(cells: Iterable[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return visible(in_local_time(str(value)))
