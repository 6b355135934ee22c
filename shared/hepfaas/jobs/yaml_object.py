"""YAML with the types of JSON: true, false, null, decimal numbers and text.

So `no`, `12:30` and 2026-01-01 are text here, and 1e5 is a number. Anchors, aliases and tags are refused.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from hepfaas.errors import RequestError

MOST_CHARACTERS = 1_000_000
MOST_VALUES, MOST_NESTED = 100_000, 20

_MAP, _LIST, _TEXT = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:str"
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_NAMING = ("while scanning an alias", "while scanning an anchor")
_CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}
_SCALARS = (
    ("tag:yaml.org,2002:null", r"(?:null|~|)$", ["n", "~", ""]),
    ("tag:yaml.org,2002:bool", r"(?:true|false)$", ["t", "f"]),
    (_INT, r"[-+]?(?:0|[1-9][0-9]*)$", list("+-0123456789")),
    (_FLOAT, r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", list("+-.0123456789")),
)


class _Loader(yaml.CSafeLoader):
    """A loader that recognises the scalars of JSON only."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def yaml_object(text: str, place: str) -> dict[str, Any]:
    """Return the object in a YAML text; `place` names it in messages. Raises: RequestError with the line."""
    if len(text) > MOST_CHARACTERS:
        raise RequestError(
            f"{place} has {len(text) / 1e6:.1f} MB; at most {MOST_CHARACTERS / 1e6:g} MB of YAML are read; write JSON, "
            "or put the files into a list of their own"
        )
    try:
        _check_events(text, place)
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" at line {mark.line + 1} column {mark.column + 1}" if mark else ""
        hint = "; quote text that begins with '*' or '&'" if error.context in _NAMING else ""
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise RequestError(f"{place} is not YAML: {what}{line}{hint}") from error
    except yaml.YAMLError as error:  # a character that YAML does not have
        raise RequestError(f"{place} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(node, yaml.MappingNode):
        raise RequestError(f"{place} is not an object; it has keys and values: 'samples:' and below it the samples")
    values: dict[str, Any] = _plain(node, place)
    return values


def _check_events(text: str, place: str) -> None:
    """Check the size, the depth and the kinds of nodes, before any is built. Raises: RequestError; YAMLError."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, _Loader)):
        line = _line(event, place)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise RequestError(
                f"{line} has an anchor or an alias ('&', '*'); write the value where it is used, or quote it"
            )
        if tag := getattr(event, "tag", None):
            raise RequestError(
                f"{line} has the tag '{tag[:60]}'; write plain values, or quote text that begins with '!'"
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_NESTED:
            raise RequestError(f"{place} is nested deeper than {MOST_NESTED} levels")
        if count > MOST_VALUES:
            raise RequestError(f"{place} has more than {MOST_VALUES:,} values")


def _plain(node: yaml.Node, place: str) -> Any:
    """Return the value of a node. Raises: RequestError if a key is not text or is there twice."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, place) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = _line(key_node, place)
            if key_node.tag != _TEXT:
                shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or object"
                raise RequestError(f"{line} has the key {shown[:60]}, which is not text; quote it")
            if key_node.value in values:
                raise RequestError(f"{line} has the key '{key_node.value[:100]}' twice")
            values[key_node.value] = _plain(value_node, place)
        return values
    return _scalar(node, place)


def _line(thing: yaml.Event | yaml.Node, place: str) -> str:
    """Return where an event or a node begins, for messages."""
    return f"{place} line {thing.start_mark.line + 1}" if thing.start_mark else place


def _scalar(node: yaml.Node, place: str) -> Any:
    text = str(node.value)
    if node.tag == _TEXT:
        return text
    try:
        if node.tag == _INT:
            return int(text)
        return float(text) if node.tag == _FLOAT else _CONSTANTS[text]
    except ValueError as error:  # thousands of digits
        raise RequestError(f"{_line(node, place)} has a number that cannot be read: {error}") from error
