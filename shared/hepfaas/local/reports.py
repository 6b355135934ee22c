"""`hepfaas report` and `hepfaas compare`: reports and comparisons as text and as files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.local.tables import table
from hepfaas.platform.storage import Store
from hepfaas.platform.terminal import visible
from hepfaas.views import compared as rows_of
from hepfaas.views.compared import Comparison
from hepfaas.views.numbers import Cell

Files = Mapping[str, bytes]

PAGE = "report.html"
FORMATS = (".html", ".png", ".pdf", ".json")
MOST_LINES = 40
"""Lines of a difference of code that are shown."""


def from_store(store: Store, name: str, *, page: bool, plots: bool) -> tuple[dict[str, Any], Files]:
    """Return the report of a run or model as JSON values, and the files that are wanted."""
    from hepfaas.views import report, report_page  # a client has not what they need

    made = report.named(store, name)
    files = {PAGE: report_page.page(made, store).encode()} if page else {}
    if plots:
        files |= {picture: store.get(made.version.prefix + picture) for picture in made.pictures}
    return made.to_json(), files


def write(out: Path, files: Files) -> None:
    """Write the page to a file, or all files into a folder."""
    if is_page(out):
        out.write_bytes(files[PAGE])
        return
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (out / name).write_bytes(data)


def check_comparison_name(out: Path | None) -> None:
    """Raise RequestError if the name of a file does not end in one of its formats."""
    if out and out.suffix not in FORMATS:
        raise RequestError(f"'{out}' has no known format; its name ends in {', '.join(FORMATS)}")


def comparison_file(compared: Comparison, suffix: str) -> bytes:
    """Return a comparison as a page (.html), its ROC curves as a picture (.png, .pdf), or its values (.json)."""
    if suffix == ".json":
        return json.dumps(compared.to_json(), indent=1).encode()
    try:
        return _drawn(compared, suffix)
    except ImportError as error:
        raise RequestError(
            f"a {suffix} file needs '{error.name}', which is not installed; install hepfaas[local], or write .json"
        ) from error


def _drawn(compared: Comparison, suffix: str) -> bytes:
    from hepfaas.evaluation.compared_curves import compared_curves  # matplotlib: only where pictures are drawn
    from hepfaas.views import comparison_page

    roc: Mapping[str, bytes] = {}
    if any(curve["auc"] is not None for curve in compared.curves):
        roc = compared_curves(compared.curves, compared.names)
    if suffix == ".html":
        return comparison_page.page(compared, roc.get("roc.png")).encode()
    if not roc:
        raise RequestError("none of the trainings has a ROC curve to draw")
    return roc[f"roc{suffix}"]


def comparison_text(compared: Comparison) -> str:
    """Return a comparison as text."""
    return "\n".join(_comparison_lines(compared)).strip()


def _comparison_lines(compared: Comparison) -> Iterator[str]:
    names = compared.names
    yield _rows("metric", names, rows_of.metric_rows(compared))
    if any(metric.best is not None for metric in compared.metrics):
        yield "* better than every other by more than both standard errors"
    yield from (f"note: {visible(note)}" for note in compared.notes)
    yield _rows("model", names, rows_of.fact_rows(compared))
    yield _rows("setting", names, rows_of.setting_rows(compared))
    yield _rows("data", names, rows_of.data_rows(compared))
    for difference in compared.code:
        yield f"\n{visible(rows_of.heading(difference))}"
        yield from (f"  {visible(line)}" for line in difference.lines[:MOST_LINES])
        if len(difference.lines) > MOST_LINES:
            yield f"  ({len(difference.lines) - MOST_LINES} more lines: --out compare.html)"


def _rows(title: str, names: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return a table below an empty line; a cell of several lines takes several rows. '' without rows."""
    if not rows:
        return ""
    heads = [title, *_distinct(names)]
    lines = [line for row in rows for line in _unfolded(row)]
    return f"\n{table([dict(zip(heads, line, strict=True)) for line in lines], '')}"


def _unfolded(row: Sequence[Cell]) -> Iterator[list[str]]:
    cells = [tuple(cell) if isinstance(cell, tuple) else (str(cell),) for cell in row]
    for number in range(max(map(len, cells))):
        yield [cell[number] if number < len(cell) else "" for cell in cells]


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names as heads of columns: a name that appears twice gets its number."""
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]


def is_page(out: Path | None) -> bool:
    """Return whether this is the name of a page, not of a folder."""
    return out is not None and out.suffix in (".html", ".htm")
