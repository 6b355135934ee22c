"""Escape text from users and servers before a person reads it on a terminal.

Stored text and JSON answers keep every character; only what is written as plain text passes through here.
"""

from __future__ import annotations

import json
import re
import traceback

PRINTED = "          | "
"""Prefix of every line from user code, and of every further line of an error. No other line starts with it."""

_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Invisible characters that `str.isprintable` accepts: Default_Ignorable_Code_Point of Unicode's
DerivedCoreProperties.txt (fillers, variation selectors), and the blank braille pattern."""


def visible(text: str) -> str:
    """Return the text on one line, with everything that moves the cursor, reorders, hides or cannot be encoded as an
    escape: `\\x1b`, `\\n`, `\\u202e`. A tab becomes four spaces. A second application changes nothing."""
    if text.isprintable() and not _BLANK.search(text):
        return text
    return "".join(
        char if char.isprintable() and not _BLANK.match(char) else "    " if char == "\t" else ascii(char)[1:-1]
        for char in text
    )


def visible_lines(text: str, further: str = "") -> str:
    """Return the text with its line feeds, and every other control character escaped. further: prefix of each line
    after the first."""
    return f"\n{further}".join(map(visible, text.split("\n")))


def in_columns(text: str, columns: int) -> str:
    """Return the text with the lines of user code cut to the width of a terminal, each piece with the prefix: the rest
    of a line that the terminal wraps itself would have none."""
    from rich.cells import chop_cells  # only for a terminal

    width = max(columns - len(PRINTED), 1)
    return "\n".join(
        "\n".join(PRINTED + piece for piece in chop_cells(line.removeprefix(PRINTED), width))
        if line.startswith(PRINTED)
        else line
        for line in text.split("\n")
    )


def fault_line(error: BaseException) -> str:
    """Return the traceback of an error as one line of JSON: its message may contain text from a request."""
    return json.dumps({"fault": repr(error), "traceback": traceback.format_exception(error)})
