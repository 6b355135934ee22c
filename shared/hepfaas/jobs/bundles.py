"""A model as clients of TFaaS upload it: a folder with its files, params.json and labels.txt, read as values.

params.json has two dialects: inputNode, outputNode of the releases; input_node, output_node, input_name, output_name,
img_channels, op of the later ones. A folder without it has its own name and what its model tells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.runs.params import json_object

PARAMS, LABELS = "params.json", "labels.txt"
SAVED_MODEL = "saved_model.pb"
KERAS = (".keras", ".h5", ".hdf5")
MOST_TEXT_BYTES = 1_000_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
TEXTS = (
    "name", "model", "labels", "op", "input_name", "output_name", "input_node", "output_node", "inputNode",
    "outputNode", "description", "timestamp",
)  # fmt: skip


@dataclass(frozen=True)
class Bundle:
    """A model that was made elsewhere.

    format: 'keras', 'saved_model' or 'frozen_graph'; file: the one below the folder that is read, '.' the folder of
    them all. input, output: names of its nodes, '': those that it has. params: what params.json says.
    """

    folder: Path
    name: str
    format: str
    file: str
    input: str
    output: str
    params: Mapping[str, Any]
    labels: tuple[str, ...]


def bundle_in(folder: Path, name: str = "") -> Bundle:
    """The model in a folder, under the name given, else that of its params.json. Raises: RequestError saying what is
    missing, or that the two names differ."""
    params = _params(folder / PARAMS) if (folder / PARAMS).exists() else {}
    named = str(params.get("name") or "")
    if name and named and name != named:
        raise RequestError(f"the model is called '{name[:100]}' and in its {PARAMS} '{named[:100]}'; give one name")
    called = name or named
    if not NAME.fullmatch(called):
        raise RequestError(
            f"'{called[:100]}' cannot name a model: use up to 64 letters, digits, '.', '_' and '-'"
            if called
            else "the model has no name: put its files in a directory of that name, or 'name' in params.json"
        )
    format_, file = _recognised(folder, params)
    input_, output = _nodes(format_, params)
    labels = _labels(folder, str(params.get("labels") or ""))
    return Bundle(folder, called, format_, file, input_, output, {**params, "name": called}, labels)


def files_of(bundle: Bundle) -> dict[str, Path]:
    """The files that the model is made of, by their names below the folder; empty ones say nothing."""
    if bundle.file != ".":
        return {bundle.file: bundle.folder / bundle.file}
    paths = sorted(path for path in bundle.folder.rglob("*") if path.is_file() and path.stat().st_size)
    return {path.relative_to(bundle.folder).as_posix(): path for path in paths}


def _params(path: Path) -> dict[str, Any]:
    """Raises: RequestError if it is no JSON object, or a value is of another kind than TFaaS takes."""
    values = json_object(_text(path), PARAMS)
    for key in TEXTS:
        if not isinstance(values.get(key) or "", str):
            raise RequestError(f"{PARAMS}: '{key}' is {json.dumps(values[key])[:60]}; it takes text")
    channels = values.get("img_channels", 0)
    if channels not in (0, 1, 3, 4) or isinstance(channels, bool):
        raise RequestError(f"{PARAMS}: 'img_channels' is {json.dumps(channels)[:60]}; it takes 1, 3 or 4")
    return values


def _recognised(folder: Path, params: Mapping[str, Any]) -> tuple[str, str]:
    """What the model is, and the file that is read. The one that params.json names goes first."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if SAVED_MODEL in files and any(file.startswith("variables/") for file in files):
        return "saved_model", "."
    named = str(params.get("model") or "")
    candidates = [file for file in files if file.lower().endswith((".pb", *KERAS))]
    if named in candidates:
        candidates = [named]
    if len(candidates) != 1:
        there = ", ".join(files[:10]) or "nothing"
        raise RequestError(
            f"the upload has {len(candidates) or 'no'} models: it takes a SavedModel ({SAVED_MODEL} and variables/), a "
            f"frozen graph (.pb) or a Keras file ({', '.join(KERAS)}); 'model' in {PARAMS} names the one of several. "
            f"It has: {there}"
        )
    (file,) = candidates
    return ("frozen_graph" if file.lower().endswith(".pb") else "keras"), file


def _nodes(format_: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """Names of the nodes: of a graph of TensorFlow 1 in either dialect, else those that TFaaS uses for TensorFlow 2."""
    if format_ != "frozen_graph":
        return _first(params, "input_name"), _first(params, "output_name")
    return (
        _first(params, "input_node", "inputNode", "input_name"),
        _first(params, "output_node", "outputNode", "output_name"),
    )


def _first(params: Mapping[str, Any], *keys: str) -> str:
    return next((str(params[key]) for key in keys if params.get(key)), "")


def _labels(folder: Path, named: str) -> tuple[str, ...]:
    """A label a line; none where there is no such file."""
    path = next((path for name in (named, LABELS) if name and _is_inside(path := folder / name, folder)), None)
    return tuple(line.strip() for line in _text(path).splitlines() if line.strip()) if path else ()


def _is_inside(path: Path, folder: Path) -> bool:
    return ".." not in path.parts and path.is_relative_to(folder) and path.is_file()


def _text(path: Path) -> str:
    if path.stat().st_size > MOST_TEXT_BYTES:
        raise RequestError(f"{path.name} has more than {MOST_TEXT_BYTES / 1e6:g} MB")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path.name} is no text in UTF-8: {error.reason}") from error
