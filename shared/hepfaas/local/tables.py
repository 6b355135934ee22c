"""Plain text for a person: tables and lists of facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hepfaas.platform.terminal import visible

if TYPE_CHECKING:  # it comes with uproot, which tables need not
    from hepfaas.datasets.summary import TreeSummary


def table(rows: Sequence[Mapping[str, Any]], empty: str) -> str:
    """Rows under the names of their columns, numbers to the right; `empty` if there are none."""
    if not rows:
        return empty
    names = list(rows[0])
    cells = [[_text(row[name]) for name in names] for row in rows]
    heads = [visible(str(name)) for name in names]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    right = [all(isinstance(row[name], int | float | None) for row in rows) for name in names]
    return "\n".join(_line(line, widths, right) for line in [heads, *cells])


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Loss, accuracy and AUC of each sample."""
    rows = [
        {
            "sample": split,
            "events": found["events"],
            "loss": found["loss"],
            "accuracy": found["accuracy"],
            "AUC": f"{found['auc']:.4f} ± {found['auc_uncertainty']:.4f}" if found["auc"] is not None else "-",
        }
        for split, found in metrics.items()
    ]
    return table(rows, "")


def facts(values: Mapping[str, Any], indent: str = "") -> str:
    """One line a fact, facts of facts indented."""
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
    """One TTree with its branches."""
    title = f" ({visible(tree.title)})" if tree.title else ""
    head = (
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
    return f"{head}\n{table([*rows, *others], 'no branch')}"


def size(size_bytes: float) -> str:
    """Bytes with a unit: '1.9 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


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
    return visible(str(value))
