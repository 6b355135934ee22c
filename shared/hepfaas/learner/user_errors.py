"""Messages about errors in the user's code: the place in their files and the reason. Pure.

For code that TensorFlow compiled into a graph, the frames stand in the error's text, and Keras wraps that text in its
own; both are undone here.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path

GRAPH_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\w+)', re.MULTILINE)
GRAPH_NODE = re.compile(r"\s*\[\[\{\{.*|\s*\[Op:.*", re.DOTALL)
KERAS_TEXT = re.compile(r"Exception encountered when calling .*?\n\s*\x1b\[1m(?P<text>.*?)\x1b\[0m.*", re.DOTALL)
INNER_ERROR = re.compile(r"^\s*(?P<kind>\w+(?:Error|Exception)): (?P<text>.*)", re.MULTILINE | re.DOTALL)

UNKNOWN_OPERATION = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")


class ModelError(Exception):
    """An error in the user's model, with a message for the user."""


def message_of(error: BaseException, code: Path) -> str:
    """Return the message, as "model.py line 7, in model: NameError: name 'foo' is not defined".

    code: folder of the user's files.
    """
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(code):
        return f"{Path(error.filename).relative_to(code)} line {error.lineno}: SyntaxError: {error.msg}"
    places = list(dict.fromkeys([*_raised_in(error, code), *_named_in(str(error), code)]))
    return f"{'; '.join(places)}: {summary(error)}" if places else f"the model cannot be trained: {summary(error)}"


def summary(error: BaseException) -> str:
    """Return the error's class and text on one line, without the text that frameworks add."""
    kind, text = type(error).__name__, str(error)
    frames = list(GRAPH_FRAME.finditer(text))
    if frames:
        text = text[frames[-1].end() :].partition("\n")[2]
        inner = INNER_ERROR.search(text)
        if inner:
            kind, text = inner["kind"], inner["text"]
    text = KERAS_TEXT.sub(lambda match: match["text"], text)
    text = GRAPH_NODE.sub("", text)
    return f"{kind}: {' '.join(text.split())}".removesuffix(": ")


def export_message(error: Exception) -> str:
    """Return why a network has no LiteRT graph: the operations that LiteRT lacks, or the converter's message."""
    operations = sorted(set(UNKNOWN_OPERATION.findall(str(error))))
    if operations:
        return f"LiteRT, which serves the network, has no operation {', '.join(operations)}; use layers without it"
    return f"the network cannot be exported for serving: {summary(error)[:300]}"


def _raised_in(error: BaseException, code: Path) -> Iterator[str]:
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).is_relative_to(code):
            yield f"{Path(frame.filename).relative_to(code)} line {frame.lineno}, in {frame.name}"


def _named_in(text: str, code: Path) -> Iterator[str]:
    for frame in GRAPH_FRAME.finditer(text):
        if Path(frame["file"]).is_relative_to(code):
            yield f"{Path(frame['file']).relative_to(code)} line {frame['line']}, in {frame['name']}"
