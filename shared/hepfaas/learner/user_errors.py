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

UNKNOWN_OPERATION = re.compile(r"error: (?:failed to legalize operation )?'tf\.(\w+)'|'tf\.(\w+)' op is neither")
OTHER_TYPES = re.compile(r"^\s*tf\.(\w+)\(tensor<(?:[\d?]+x)*(f16|bf16|f64|complex\w*|i8|i16|ui\d+)>", re.MULTILINE)
"""Operations in the converter's summary whose first argument is not of a usual type."""

TYPES = {"f16": "float16", "bf16": "bfloat16", "f64": "float64"}

HINTS = {
    "TensorList": "unroll=True in recurrent layers",
    "Erf": "gelu instead of erf",
    "float16": "float32, also for mixed precision",
    "float64": "float32",
}
"""What to use instead, by a part of what LiteRT lacks."""


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
    text = str(error)
    types = {name: TYPES.get(type_, type_) for name, type_ in OTHER_TYPES.findall(text)}
    names = sorted({first or second for first, second in UNKNOWN_OPERATION.findall(text)})
    operations = [f"{name} of {types[name]}" if name in types else name for name in names]
    if operations:
        hints = [hint for part, hint in HINTS.items() if any(part in operation for operation in operations)]
        use = f"use {', '.join(hints)}" if hints else "use layers without it"
        return f"LiteRT, which serves the network, has no operation {', '.join(operations)}; {use}"
    return f"the network cannot be exported for serving: {summary(error)[:300]}"


def _raised_in(error: BaseException, code: Path) -> Iterator[str]:
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).is_relative_to(code):
            yield f"{Path(frame.filename).relative_to(code)} line {frame.lineno}, in {frame.name}"


def _named_in(text: str, code: Path) -> Iterator[str]:
    for frame in GRAPH_FRAME.finditer(text):
        if Path(frame["file"]).is_relative_to(code):
            yield f"{Path(frame['file']).relative_to(code)} line {frame['line']}, in {frame['name']}"
