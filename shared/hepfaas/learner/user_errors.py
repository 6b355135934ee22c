"""What went wrong in the user's code, as they can act on it: where in their files, and what. Pure.

Python keeps the frames of an error that is raised at once. TensorFlow writes those of code that it turned into a
graph into the message, and Keras wraps its own words round it; both are undone here.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path

GRAPH_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\w+)', re.MULTILINE)
GRAPH_NODE = re.compile(r"\s*\[\[\{\{.*|\s*\[Op:.*", re.DOTALL)
KERAS_WORDS = re.compile(r"Exception encountered when calling .*?\n\s*\x1b\[1m(?P<what>.*?)\x1b\[0m.*", re.DOTALL)
INNER_ERROR = re.compile(r"^\s*(?P<kind>\w+(?:Error|Exception)): (?P<what>.*)", re.MULTILINE | re.DOTALL)

UNKNOWN_OPERATION = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")


class ModelError(Exception):
    """What the user has to change, said to them."""


def told(error: BaseException, code: Path) -> str:
    """'model.py line 7, in model: NameError: name 'foo' is not defined'; `code` is the folder of the user's files."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(code):
        return f"{Path(error.filename).relative_to(code)} line {error.lineno}: SyntaxError: {error.msg}"
    places = list(dict.fromkeys([*_raised_in(error, code), *_named_in(str(error), code)]))
    return f"{'; '.join(places)}: {what(error)}" if places else f"the model cannot be trained: {what(error)}"


def what(error: BaseException) -> str:
    """The error's kind and its words, on one line, without what frameworks put round them."""
    kind, words = type(error).__name__, str(error)
    frames = list(GRAPH_FRAME.finditer(words))
    if frames:
        words = words[frames[-1].end() :].partition("\n")[2]
        inner = INNER_ERROR.search(words)
        if inner:
            kind, words = inner["kind"], inner["what"]
    words = KERAS_WORDS.sub(lambda found: found["what"], words)
    words = GRAPH_NODE.sub("", words)
    return f"{kind}: {' '.join(words.split())}".removesuffix(": ")


def not_exported(error: Exception) -> str:
    """Why a network has no LiteRT graph: the operations that LiteRT has not, or what its converter said first."""
    operations = sorted(set(UNKNOWN_OPERATION.findall(str(error))))
    if operations:
        return (
            f"LiteRT, which serves the network, has no operation {', '.join(operations)}; make do without in the layers"
        )
    return f"the network cannot be exported for serving: {what(error)[:300]}"


def _raised_in(error: BaseException, code: Path) -> Iterator[str]:
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).is_relative_to(code):
            yield f"{Path(frame.filename).relative_to(code)} line {frame.lineno}, in {frame.name}"


def _named_in(words: str, code: Path) -> Iterator[str]:
    for frame in GRAPH_FRAME.finditer(words):
        if Path(frame["file"]).is_relative_to(code):
            yield f"{Path(frame['file']).relative_to(code)} line {frame['line']}, in {frame['name']}"
