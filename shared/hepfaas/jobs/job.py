"""A training job as a value, and its recipe. A job comes as a folder (folder.py) or as a JSON object."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hepfaas.datasets.files import Locations, checked_name
from hepfaas.errors import RequestError
from hepfaas.jobs.code import code_of
from hepfaas.jobs.data import Data, data_of_lists, data_of_samples, labels_each_event, sent_listing
from hepfaas.jobs.samples import JSON_NAME, KEYS, YAML_NAMES
from hepfaas.jobs.texts import MODULE, SUBMIT, Texts
from hepfaas.jobs.uploads import checked_path
from hepfaas.platform.storage import Store
from hepfaas.runs.params import Params, params_in
from hepfaas.runs.recipe import LabelledFile, Recipe, Sample, with_usual_tree
from hepfaas.steps.objects import encoded, put_blob

MOST_CODE_FILES = 1_000
"""Files in the 'code' of a job that comes as JSON."""

DATA_KEYS = ("files", "labels", *KEYS)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEYS = ("name", *DATA_KEYS, "code", "model", "params", "webhook")

Place = Callable[[str, Path | None], str]
"""Return the URL at which steps read a file, given its address or path and the job's folder."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training job: its code is not stored yet, and its addresses are not checked.

    name: of the model that it trains. code: content of each file of the code by its name below the job's folder.
    module: the file that defines `model`. files, samples, luminosity, label: as in `Data`.
    folder: the folder with the files that came with the job; None if there is none. notes: for the user.
    """

    name: str
    code: Mapping[str, bytes]
    module: str
    params: Params
    files: tuple[LabelledFile, ...] = ()
    samples: tuple[Sample, ...] = ()
    luminosity: float | None = None
    label: str = ""
    folder: Path | None = None
    webhook: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises: RequestError if the name cannot name a model."""
        if not _NAME.fullmatch(self.name):
            allowed = "use up to 64 letters, digits, '.', '_' and '-' (option --name)"
            raise RequestError(f"'{self.name[:100]}' cannot name a model: {allowed}")


def job_of(values: Mapping[str, Any]) -> Job:
    """Return the job in the JSON object of POST /v1/runs. Raises: RequestError naming the key and what it takes."""
    job, texts = job_without_files(values), _texts(values)
    locations = Locations(sent_listing(texts), job.params.redirector)
    about = {key: values[key] for key in KEYS if key in values}
    if not about:
        if not labels_each_event(job.params):
            return with_data(job, data_of_lists(_lines(values, "files"), _labels(values), locations))
        data = data_of_lists(_lines(values, "files"), None, locations)
        note = "'labels' has no effect: 'params' gives each event its label or its targets"
        return with_data(job, replace(data, notes=(*data.notes, note)) if values.get("labels") else data)
    if other := [key for key in ("files", "labels") if key in values]:
        raise RequestError(f"the job has '{other[0]}' and 'samples'; give only one of them")
    return with_data(job, data_of_samples(about, "the job", texts, locations, not labels_each_event(job.params)))


def with_data(job: Job, data: Data) -> Job:
    """Return a job with its files."""
    return replace(
        job,
        files=data.files,
        samples=data.samples,
        luminosity=data.luminosity,
        label=data.label,
        notes=(*job.notes, *data.notes),
    )


def job_without_files(values: Mapping[str, Any]) -> Job:
    """Return the job in a JSON object as POST /v1/runs takes it; its files, labels and samples are not read."""
    for key in values:
        if key not in _KEYS:
            raise RequestError(f"the job has the unknown key '{key[:100]}'; it takes {', '.join(_KEYS)}")
    texts = _texts(values)
    for name in (SUBMIT, JSON_NAME, *YAML_NAMES):
        if name in texts.names:
            raise RequestError(f"the job's 'code' has '{name}'; give its values as keys of the job instead")
    names = names_in(values, ("name", "model"))
    module, settings = names.get("model", MODULE), values.get("params", {})
    if not isinstance(settings, dict):
        raise RequestError(
            "the job's 'params' is not an object; it takes what params.json takes (docs/reference/params.md)"
        )
    texts.text(module)
    params = texts.completed(params_in(settings, "params.json"))
    code = code_of(texts, module)
    return Job(
        name=names.get("name", "model"),
        code=code.files,
        module=module,
        params=params,
        webhook=str(values.get("webhook") or ""),
        notes=(*params.notes, *code.notes),
    )


def recipe_of(job: Job, store: Store, place: Place | None = None) -> Recipe:
    """Return the recipe of a job, and store its code.

    place: where steps on other machines read a file; None: they run on this machine. Raises: what `place` raises.
    """
    manifest = {name: put_blob(store, data) for name, data in job.code.items()}
    files, tree = with_usual_tree(job.files, job.params.recipe.get("tree", Recipe.tree))
    return Recipe(
        name=job.name,
        files=tuple(replace(file, url=place(file.url, job.folder)) for file in files) if place else files,
        code=put_blob(store, encoded(manifest)),
        module=job.module,
        samples=job.samples,
        luminosity=job.luminosity,
        **{**({"label": job.label} if job.label else {}), **job.params.recipe, "tree": tree},
    )


def names_in(values: Mapping[str, Any], keys: Iterable[str]) -> dict[str, str]:
    """Return the values of those keys that are set. Raises: RequestError if one is not a name."""
    names = {key: values[key] for key in keys if values.get(key) is not None}
    for key, name in names.items():
        if not isinstance(name, str) or not name:
            raise RequestError(f"'{key}' is {json.dumps(name)[:100]}; it takes a name")
        if key != "name":
            checked_name(name)
    return names


def _texts(values: Mapping[str, Any]) -> Texts:
    contents = _contents(values.get("code"))
    return Texts(contents, contents.__getitem__, lambda name: len(contents[name]), "the job's 'code'")


def _contents(code: object) -> dict[str, bytes]:
    """Return the content of each file in 'code' by the normal form of its name."""
    if not isinstance(code, dict) or not code or not all(isinstance(text, str) for text in code.values()):
        raise RequestError("the job needs 'code': an object from file name to Python text, 'model.py' among them")
    if len(code) > MOST_CODE_FILES:
        raise RequestError(f"the job's 'code' has {len(code):,} files; it takes {MOST_CODE_FILES:,}, or send a tar.gz")
    contents = {checked_path(name).as_posix(): text.encode(errors="surrogatepass") for name, text in code.items()}
    for name in code:
        if any(folder.as_posix() in contents for folder in checked_path(name).parents):
            raise RequestError(f"'{name}' in the job's 'code' lies below another file")
    if len(contents) < len(code):
        raise RequestError(f"the job's 'code' has a file twice: {', '.join(code)[:200]}")
    return contents


def _labels(values: Mapping[str, Any]) -> str:
    """Return the list of labels as text, or an expression that labels each event."""
    labels = values.get("labels")
    return labels if isinstance(labels, str) and labels.strip() else _lines(values, "labels")


def _lines(values: Mapping[str, Any], key: str) -> str:
    lines = values.get(key)
    if not isinstance(lines, list) or not all(isinstance(line, str | int) for line in lines):
        raise RequestError(f"the job needs '{key}': a list, one for each file")
    return "\n".join(map(str, lines))
