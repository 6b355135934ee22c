"""Plain text for a person: tables, facts and times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hepfaas.platform.terminal import PRINTED, visible
from hepfaas.runs.cut_flow import CutFlow, SampleFlow
from hepfaas.views.numbers import measured

if TYPE_CHECKING:  # at run time it would import uproot
    from hepfaas.datasets.branch_choice import Branch
    from hepfaas.datasets.summary import TreeSummary
    from hepfaas.local.branch_differences import Difference
    from hepfaas.local.inspection import Inspected, Sample

MOST_NOTE = 60
"""Characters of a note in a list of runs."""

UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z(?=  |$)")
"""A time in ISO 8601 that is a whole text, or begins a line of a log."""


MOST_FILES = 3
"""Files that a difference between files names."""

MOST_CLASSES = 6
"""Most classes whose AUC has a column of its own."""


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
    """Return loss, accuracy and AUC of each sample, or the metrics of each target, and the model of the run."""
    if "targets" in next(iter(report["metrics"].values()), {}):
        rows = list(target_rows(report["metrics"]))
    else:
        rows = class_rows(report["metrics"])
    folds = report.get("folds")
    published = f"best epoch {report['best_epoch']}"
    if folds:
        epochs = ", ".join(str(fold["best_epoch"]) for fold in folds)
        published = f"mean of {len(folds)} folds, best epochs {epochs}"
    skipped = "".join(
        f"\nnote: file {visible(one['file'])} was skipped: {visible(one['reason'])}"
        for one in report.get("skipped_files") or ()
    )
    return f"{table(rows, '')}\n\nmodel {report['model']} ({published}){skipped}"


def target_rows(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the metrics of each sample and target of a regression, in the target's unit."""
    for split, values in metrics.items():
        for target in values["targets"]:
            errors = {
                name: "-" if target[name] is None else f"{target[name]:.4g} ± {target[f'{name}_uncertainty']:.2g}"
                for name in ("rmse", "bias", "resolution")
            }
            yield {"sample": split, "events": values["events"], "target": target["name"], **errors, "R²": target["r2"]}


def class_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return loss, accuracy and AUC of each sample. With several classes the AUC is that of each class against the
    others, of up to `MOST_CLASSES` classes."""
    return [
        {
            "sample": split,
            "events": values["events"],
            "loss": values["loss"],
            "accuracy": values["accuracy"],
            **_auc_columns(values),
        }
        for split, values in metrics.items()
    ]


def _auc_columns(values: Mapping[str, Any]) -> dict[str, str]:
    classes = values.get("classes", [])
    mean = _auc(values["auc"], values["auc_uncertainty"])
    if not 0 < len(classes) <= MOST_CLASSES:
        return {"mean AUC" if classes else "AUC": mean}
    return {f"AUC of {each['name']}": _auc(each["auc"], each["uncertainty"]) for each in classes}


def _auc(value: float | None, uncertainty: float | None) -> str:
    return "-" if value is None else f"{value:.4f} ± {uncertainty:.4f}"


def status_text(values: Mapping[str, Any]) -> str:
    """Return the JSON values of a run's status as text."""
    flow = values.get("cut_flow")
    return facts({**values, "cut_flow": cut_flow_rows(CutFlow.from_json(flow))} if flow else values)


def cut_flow_rows(flow: CutFlow) -> list[dict[str, str]]:
    """Return a row for each cut: its name and what is left of each sample, as text."""
    return [
        {"cut": cut, **{sample.sample: _left(sample, number) for sample in flow.samples}}
        for number, cut in enumerate(flow.cuts)
    ]


def _left(flow: SampleFlow, number: int) -> str:
    events = f"{flow.events[number]:,}"
    return f"{events} ({measured(flow.weights[number], flow.uncertainties[number])})" if flow.weights else events


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


def inspected_text(file: Inspected, is_only: bool) -> str:
    """Return a file with its trees. is_only: the name of the file and the reason why it cannot be read are left out,
    since the command tells them."""
    samples: Sequence[Sample | None] = file.samples or [None] * len(file.trees)
    trees = [described(tree, sample) for tree, sample in zip(file.trees, samples, strict=True)]
    if is_only:
        return "\n\n".join(trees)
    failure = [f"cannot be read: {visible(str(file.error))}"] if file.error else []
    return "\n\n".join([f"file {visible(file.name)}", *trees, *failure]) + "\n"


def difference_text(one: Difference) -> str:
    """Return a difference as a line: what each group of files has."""
    tree = f"tree '{visible(one.tree)}'" if one.tree else "the table"
    what = f"branch '{visible(one.branch)}' of {tree}" if one.branch else tree
    groups = [f"{visible(kind)} in {_few(files)}" for kind, files in one.files.items()]
    return f"{what}: {'; '.join(groups)}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_FILES:,} more" if len(names) > MOST_FILES else ""
    return ", ".join(map(visible, names[:MOST_FILES])) + more


def described(tree: TreeSummary, sample: Sample | None = None) -> str:
    """Return a TTree, an RNTuple or a table with its branches, and with the values of a sample."""
    title = f" ({visible(tree.title)})" if tree.title else ""
    name = f" '{visible(tree.name)}'" if tree.name else ""  # tables have none
    heading = (
        f"{visible(tree.kind)}{name}{title}: {_counted(tree.entries, 'entry', 'entries')} in "
        f"{_counted(tree.clusters, 'cluster', 'clusters')}, "
        f"{size(tree.compressed_bytes)} on disk ({visible(tree.compression)}), "
        f"{size(tree.uncompressed_bytes)} uncompressed"
    )
    rows = [
        {
            "branch": branch.name,
            "form": "jagged" if branch.jagged else "flat",
            "type": branch.type,
            "size": size(branch.size_bytes),
            **(_values_of(branch, sample) if sample else {}),
        }
        for branch in tree.branches
    ]
    no_values = dict.fromkeys(_SAMPLED, "") if sample else {}
    others = [{"branch": name, "form": "left out", "type": why, "size": "", **no_values} for name, why in tree.left_out]
    notes = [f"note: {visible(note)}" for note in (sample.notes if sample else [])]
    return "\n".join([heading, table([*rows, *others], "no branch"), *notes])


_SAMPLED = ("low", "high", "NaN/inf", "most values", "empty", "sentinels")


def _values_of(branch: Branch, sample: Sample) -> dict[str, str]:
    """Return what a sample shows of a branch, as text: range, number of NaN and infinite values, most values of an
    entry, entries without one, and values that probably stand for "no value" with their number."""
    values = sample.branches[branch.name]
    multiplicity = [f"{values.multiplicity:,}", f"{sample.empty.get(branch.name, 0):,}"] if branch.jagged else ["", ""]
    odd = ", ".join(f"{_value(value)} ({count:,})" for value, count in sample.sentinels(branch.name).items())
    cells = (_value(values.low), _value(values.high), f"{values.n_missing:,}", *multiplicity, odd)
    return dict(zip(_SAMPLED, cells, strict=True))


def _counted(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


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
