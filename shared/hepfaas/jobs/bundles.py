"""A model as clients of TFaaS upload it: a folder with its files, params.json and labels.txt, read as values.

params.json has two dialects: inputNode and outputNode in the releases; input_node, output_node, input_name,
output_name, img_channels and op in later sources. Without it the model has the name of its folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.runs.json_values import json_object

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
    """A model that was trained elsewhere.

    format: 'keras', 'saved_model' or 'frozen_graph'. file: its name below the folder, '.' if the folder is the model.
    input, output: names of its nodes, '': the only ones. params: the values in params.json.
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
    """Return the model in a folder. name: '' for that in params.json.

    Raises: RequestError if the model or its name is missing, or the two names differ.
    """
    params = _params(folder / PARAMS) if (folder / PARAMS).exists() else {}
    own_name = str(params.get("name") or "")
    if name and own_name and name != own_name:
        raise RequestError(f"the model is called '{name[:100]}' and in its {PARAMS} '{own_name[:100]}'; give one name")
    name = name or own_name
    if not NAME.fullmatch(name):
        raise RequestError(
            f"'{name[:100]}' cannot name a model: use up to 64 letters, digits, '.', '_' and '-'"
            if name
            else f"the model has no name: put its files in a directory of that name, or 'name' in {PARAMS}"
        )
    format_, file = _recognised(folder, params)
    input_, output = _nodes(format_, params)
    return Bundle(
        folder=folder,
        name=name,
        format=format_,
        file=file,
        input=input_,
        output=output,
        params={**params, "name": name},
        labels=_labels(folder, str(params.get("labels") or "")),
    )


def files_of(bundle: Bundle) -> dict[str, Path]:
    """Return the files of a model by their names below the folder, without empty ones."""
    if bundle.file != ".":
        return {bundle.file: bundle.folder / bundle.file}
    paths = sorted(path for path in bundle.folder.rglob("*") if path.is_file() and path.stat().st_size)
    return {path.relative_to(bundle.folder).as_posix(): path for path in paths}


def _params(path: Path) -> dict[str, Any]:
    """Raises: RequestError if the file is not a JSON object, or TFaaS does not take a value."""
    values = json_object(_text(path), PARAMS)
    for key in TEXTS:
        if not isinstance(values.get(key) or "", str):
            raise RequestError(f"{PARAMS}: '{key}' is {json.dumps(values[key])[:60]}; it takes text")
    channels = values.get("img_channels", 0)
    if channels not in (0, 1, 3, 4) or isinstance(channels, bool):
        raise RequestError(f"{PARAMS}: 'img_channels' is {json.dumps(channels)[:60]}; it takes 1, 3 or 4")
    return values


def _recognised(folder: Path, params: Mapping[str, Any]) -> tuple[str, str]:
    """Return the format of the model and its file: the one that params.json names, else the only one."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if SAVED_MODEL in files and any(file.startswith("variables/") for file in files):
        return "saved_model", "."
    preferred = str(params.get("model") or "")
    candidates = [file for file in files if file.lower().endswith((".pb", *KERAS))]
    if preferred in candidates:
        candidates = [preferred]
    if len(candidates) != 1:
        raise RequestError(
            f"the upload has {len(candidates) or 'no'} models: it takes a SavedModel ({SAVED_MODEL} and variables/), a "
            f"frozen graph (.pb) or a Keras file ({', '.join(KERAS)}); 'model' in {PARAMS} chooses one of several. "
            f"It has: {', '.join(files[:10]) or 'nothing'}"
        )
    (file,) = candidates
    return ("frozen_graph" if file.lower().endswith(".pb") else "keras"), file


def _nodes(format_: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of input and output: of a TensorFlow 1 graph in both dialects, else of TensorFlow 2."""
    if format_ != "frozen_graph":
        return _first(params, "input_name"), _first(params, "output_name")
    return (
        _first(params, "input_node", "inputNode", "input_name"),
        _first(params, "output_node", "outputNode", "output_name"),
    )


def _first(params: Mapping[str, Any], *keys: str) -> str:
    return next((str(params[key]) for key in keys if params.get(key)), "")


def _labels(folder: Path, file: str) -> tuple[str, ...]:
    """Return the labels, one a line, in a file or else in labels.txt; none if there is neither."""
    path = next((path for name in (file, LABELS) if name and _is_inside(path := folder / name, folder)), None)
    return tuple(line.strip() for line in _text(path).splitlines() if line.strip()) if path else ()


def _is_inside(path: Path, folder: Path) -> bool:
    return ".." not in path.parts and path.is_relative_to(folder) and path.is_file()


def _text(path: Path) -> str:
    if path.stat().st_size > MOST_TEXT_BYTES:
        raise RequestError(f"{path.name} has more than {MOST_TEXT_BYTES / 1e6:g} MB")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path.name} is not UTF-8 text: {error.reason}") from error
