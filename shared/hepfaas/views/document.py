"""One self-contained HTML page of sections, which opens without a server: no script, no address, pictures inside.

All text is escaped by the template, and passes through `visible` first: names and messages of users are hostile.
Jinja2 comes with Flask.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from hepfaas.platform.browsers import file_policy
from hepfaas.platform.terminal import visible, visible_lines
from hepfaas.views.numbers import Best, Cell, Quantity, number

FOLDER = Path(__file__).parent / "templates"
STYLE = (FOLDER / "document.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Table:
    """Rows below the heads of their columns. caption: above it. note: below it. folded: text to click on that unfolds
    the table, '' for an open one."""

    kind: ClassVar[str] = "table"
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    note: str = ""
    folded: str = ""

    @property
    def is_right(self) -> list[bool]:
        """True for columns that contain only numbers; they are right-aligned."""
        return [all(_is_number(row[column]) for row in self.rows) for column in range(len(self.heads))]


@dataclass(frozen=True)
class Facts:
    """Values by their names."""

    kind: ClassVar[str] = "facts"
    pairs: Sequence[tuple[str, Cell]]


@dataclass(frozen=True)
class Tiles:
    """The few numbers that matter most: name, value, explanation."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[tuple[str, Cell, str]]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Code:
    """A text of several lines as it was written, folded below its name."""

    kind: ClassVar[str] = "code"
    name: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A PNG with its caption."""

    caption: str
    png: bytes

    @property
    def address(self) -> str:
        """The picture as a data: URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Pictures:
    """Pictures beside each other."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]


Block = Table | Facts | Tiles | Text | Code | Pictures


@dataclass(frozen=True)
class Section:
    """Blocks under a title."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A page. above: a line above the title. tags: beside the line below the title."""

    title: str
    above: str
    below: Sequence[str]
    tags: Sequence[str]
    sections: Sequence[Section]
    foot: str

    def html(self) -> str:
        """Return the page. Sections without blocks are left out."""
        sections = [section for section in self.sections if section.blocks]
        return _template().render(page=self, sections=sections, style=Markup(STYLE), policy=file_policy(STYLE))


def blocks(*candidates: Block | None) -> list[Block]:
    """Return the blocks that there are; a table without rows is none."""
    return [each for each in candidates if each is not None and not (isinstance(each, Table) and not each.rows)]


def _is_number(cell: Cell) -> bool:
    value = cell.value if isinstance(cell, Best) else cell
    return value is None or isinstance(value, int | float | Quantity)


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"lines": _lines, "verbatim": _verbatim}
    environment.tests["best"] = lambda value: isinstance(value, Best)
    return environment.get_template("document.html")


def _shown(value: Any) -> Any:
    """Return a value as text on one line, without characters that hide or reorder others."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, int | float):
        return number(value)
    return visible(str(value))


def _lines(value: Any) -> Markup:
    """Return the lines of a cell, one below the other."""
    items: Iterable[Any] = value if isinstance(value, tuple) else (value,)
    return Markup("<br>").join(escape(_shown(item)) for item in items)


def _verbatim(text: str) -> Markup:
    """Return a text with its line feeds."""
    return escape(visible_lines(text))
