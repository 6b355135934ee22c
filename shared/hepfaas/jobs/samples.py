"""samples.json and samples.yaml: the samples of a job, their files, labels and weights (docs/reference/samples.md).

The keys of POST /v1/runs are the same ones.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hepfaas.datasets.files import MOST_LABEL, MOST_LISTED, listed_files
from hepfaas.errors import RequestError
from hepfaas.expressions.expression import parse
from hepfaas.runs.json_values import json_value
from hepfaas.runs.recipe import LabelledFile, Sample

JSON_NAME, YAML_NAMES = "samples.json", ("samples.yaml", "samples.yml")
LISTS = (".txt", ".csv")
"""Ends of the names of files that list files."""

KEYS = ("luminosity", "samples")
MOST_SAMPLES, MOST_NAME, MOST_BRANCH = 1_000, 64, 500
PER_PB = {"fb": 1000.0, "pb": 1.0}
"""1/fb and 1/pb in 1/pb."""

_SAMPLE_KEYS = ("files", "label", "weight", "cross_section", "sum_of_weights")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LUMINOSITY = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(?:/\s*(fb|pb)|(fb|pb)\^?-1)")
_SUM = re.compile(r"[^/\s](?:[^\s]*[^/\s])?/[^/\s]+")


@dataclass(frozen=True)
class Described:
    """Samples as a job describes them. files: as they are named, with label and sample. luminosity: in 1/pb."""

    samples: tuple[Sample, ...]
    files: tuple[LabelledFile, ...]
    luminosity: float | None
    notes: tuple[str, ...]


def samples_text(text: str, name: str) -> dict[str, Any]:
    """Return the values in a file of samples, JSON or YAML by its name. Raises: RequestError."""
    if name.endswith((".yaml", ".yml")):
        from hepfaas.jobs.yaml_object import yaml_object  # only where it is used: clients do without it

        return yaml_object(text, name)
    values = json_value(text, name, unique=True)
    if not isinstance(values, dict):
        raise RequestError(f'{name} is not an object; it takes {{"samples": {{name: {{"files": …}}}}}}')
    return values


def described(values: Mapping[str, Any], place: str, read: Callable[[str], str], has_labels: bool) -> Described:
    """Return the samples in an object.

    place: names the object in messages. read: return the text of a list of files by its name. has_labels: whether
    samples need labels; else something else labels their events.
    Raises: RequestError naming the sample and what is wrong with it.
    """
    _check_keys(values, KEYS, place)
    objects = values.get("samples")
    if not isinstance(objects, dict) or not objects:
        raise RequestError(f"{place} needs 'samples': an object from the name of each sample to its files and label")
    if len(objects) > MOST_SAMPLES:
        raise RequestError(f"{place} has {len(objects):,} samples; at most {MOST_SAMPLES:,} are taken")
    luminosity = _luminosity(values.get("luminosity"), place)
    numbers = _class_numbers(objects, place, has_labels)
    samples, files = [], []
    for name, about in objects.items():
        where = f"{place}: sample '{name}'"
        label = about.get("label")
        samples.append(_sample(name, about, where))
        number = numbers[label] if isinstance(label, str) else label or 0
        files += [LabelledFile(file, number, name) for file in _files(about.get("files"), where, read)]
        if len(files) > MOST_LISTED:
            raise RequestError(f"{place} lists more than {MOST_LISTED:,} files")
    return Described(tuple(samples), tuple(files), luminosity, _notes(samples, numbers, luminosity, place))


def expression(text: str, where: str) -> str:
    """Return an expression without blanks around it. Raises: RequestError if it is not one; `where` names its place."""
    text = text.strip()
    parse(text, where)
    return text


def _check_keys(values: Mapping[str, Any], keys: Sequence[str], place: str) -> None:
    for key in values:
        if key not in keys:
            similar = difflib.get_close_matches(str(key)[:100], keys, 1) or keys
            raise RequestError(f"{place} has the unknown key '{str(key)[:100]}'; closest: {', '.join(similar)}")


def _wrong(where: str, key: str, value: Any, takes: str) -> RequestError:
    return RequestError(f"{where}: '{key}' is {json.dumps(value)[:100]}; it takes {takes}")


def _class_numbers(objects: Mapping[str, Any], place: str, has_labels: bool) -> dict[str, int]:
    """Return the number of each label that is a name, in the order of the samples. Raises: RequestError if a sample or
    its label is wrong, or if some labels are names and others numbers."""
    kinds: dict[type, str] = {}
    names: dict[str, int] = {}
    for name, about in objects.items():
        where = f"{place}: sample '{str(name)[:100]}'"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RequestError(f"{where}: a name has up to {MOST_NAME} letters, digits, '.', '_' and '-'")
        if not isinstance(about, dict):
            raise RequestError(f"{where} is {json.dumps(about)[:60]}; it takes an object with 'files' and 'label'")
        _check_keys(about, _SAMPLE_KEYS, where)
        label = about.get("label")
        if (label is None) == has_labels:
            raise RequestError(
                f"{where} needs 'label': a whole number, or the name of a class"
                if has_labels
                else f"{where} has 'label', and the job has labels or targets of each event; give only one"
            )
        if label is None:
            continue
        is_name = isinstance(label, str) and _NAME.fullmatch(label) and not re.fullmatch(r"[0-9]+", label)
        if not is_name and (type(label) is not int or abs(label) > MOST_LABEL):
            takes = f"a whole number from -{MOST_LABEL} to {MOST_LABEL}, or the name of a class"
            raise _wrong(where, "label", label, takes)
        kinds.setdefault(type(label), name)
        if len(kinds) > 1:
            raise RequestError(
                f"{place}: the label of sample '{kinds[str]}' is a name, and that of '{kinds[int]}' a number; use one "
                "kind"
            )
        if isinstance(label, str):
            names.setdefault(label, len(names))
    return names


def _sample(name: str, about: Mapping[str, Any], where: str) -> Sample:
    weight, label = about.get("weight", ""), about.get("label")
    if not isinstance(weight, str):
        raise _wrong(where, "weight", weight, 'an expression, as "genWeight"')
    cross_section, total = about.get("cross_section"), about.get("sum_of_weights")
    if cross_section is not None and (_number(cross_section) or 0) <= 0:
        raise _wrong(where, "cross_section", cross_section, "a number of pb above 0")
    if total is not None:
        is_text = isinstance(total, str) and len(total) <= MOST_BRANCH and total.isprintable()
        is_branch = is_text and _SUM.fullmatch(total)
        if not is_branch and not _number(total):
            raise _wrong(where, "sum_of_weights", total, 'a number that is not 0, or a branch as "Runs/genEventSumw"')
        if cross_section is None:
            raise RequestError(f"{where} has 'sum_of_weights' and no 'cross_section'; give both, or neither")
    return Sample(
        name=name,
        weight=expression(weight, f"{where}: 'weight'") if weight else "",
        cross_section=None if cross_section is None else float(cross_section),
        sum_of_weights=total if total is None or isinstance(total, str) else float(total),
        class_name=label if isinstance(label, str) else "",
    )


def _number(value: Any) -> float | None:
    """Return a finite number; None if the value is not one."""
    if type(value) not in (int, float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _luminosity(value: Any, place: str) -> float | None:
    """Return a luminosity in 1/pb: of a number in 1/fb, or of text with its unit."""
    if value is None:
        return None
    match = _LUMINOSITY.fullmatch(value.strip()) if isinstance(value, str) and len(value) < 100 else None
    unit = (match[2] or match[3]) if match else "fb"
    try:
        number = float(match[1]) if match else _number(value)
    except ValueError:
        number = None
    luminosity = _number((number or 0) * PER_PB[unit])
    if luminosity is None or luminosity <= 0:
        raise _wrong(
            place, "luminosity", value, 'a number of 1/fb above 0, or text with a unit as "59.8/fb" or "59800/pb"'
        )
    return luminosity


def _files(value: Any, where: str, read: Callable[[str], str]) -> tuple[str, ...]:
    """Return the names in 'files'; lists of files are read."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        takes = "addresses, paths and wildcards in a list, or the name of a .txt file that lists them"
        raise _wrong(where, "files", value, takes)
    files: list[str] = []
    for name in map(str.strip, names):
        is_list = "://" not in name and name.endswith(LISTS)
        listed = listed_files(read(name)) if is_list else (name,)
        if not listed:
            raise RequestError(f"{where}: '{name[:200]}' lists no file")
        files += listed
    return tuple(files)


def _notes(
    samples: Sequence[Sample], numbers: Mapping[str, int], luminosity: float | None, place: str
) -> tuple[str, ...]:
    notes = []
    if numbers:
        listed = ", ".join(f"{name} = {number}" for name, number in numbers.items())
        notes.append(f"{place}: the labels are {listed}")
    without = [sample.name for sample in samples if sample.cross_section is None]
    if len(without) == len(samples) and luminosity is not None:
        notes.append(f"{place}: 'luminosity' has no effect, since no sample has a 'cross_section'")
    elif without and len(without) < len(samples):
        names = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
        notes.append(f"{place}: events of {names} are not normalised, since they have no 'cross_section'")
    if luminosity is None and len(without) < len(samples):
        notes.append(f"{place}: there is no 'luminosity'; events are normalised to 1/pb")
    return tuple(notes)
