"""A training job as a value, and its recipe. A job comes as a folder (folder.py) or as a JSON object."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from hepfaas.datasets.files import Locations, checked_name, labels_of, listed, listed_files, located, paired
from hepfaas.datasets.listings import Listing, listable
from hepfaas.errors import RequestError
from hepfaas.jobs import samples as sample_files
from hepfaas.jobs.uploads import checked_path
from hepfaas.platform.storage import Store
from hepfaas.runs.params import Params, json_object, params_in
from hepfaas.runs.preproc import preprocessing_of
from hepfaas.runs.preprocessing import NOTHING
from hepfaas.runs.preprocessing_keys import joined
from hepfaas.runs.recipe import LabelledFile, Recipe, Sample
from hepfaas.steps.objects import encoded, put_blob

MODULE, SUBMIT, PREPROC, MATCHES = "model.py", "submit.json", "preproc.json", "matches.json"
"""MATCHES: {address with wildcards: [address of each file]}, as the client has found them (client/matches.py)."""

MOST_CODE_BYTES = 5_000_000
MOST_CODE_FILES = 1_000
"""Files in the 'code' of a job that comes as JSON."""
LABELLING = ("label", "target", "targets")
"""Fields of a recipe, set by params.json, that give each event its label or its targets: files need no labels then."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DATA_KEYS = ("files", "labels", *sample_files.KEYS)
_KEYS = ("name", *DATA_KEYS, "code", "model", "params", "webhook")

Place = Callable[[str, Path | None], str]
"""Return the URL at which steps read a file, given its address or path and the job's folder."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The files of a job: addresses, or paths on this machine, with their labels. samples: that they belong to.

    luminosity: in 1/pb. label: expression for the label of each event, '': the files have labels. notes: for the user.
    """

    files: tuple[LabelledFile, ...] = ()
    samples: tuple[Sample, ...] = ()
    luminosity: float | None = None
    label: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training job: its code is not stored yet, and its addresses are not checked.

    name: of the model that it trains. code: content of each Python file by its name below the job's folder.
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


@dataclass(frozen=True)
class Texts:
    """The files that came with a job. read: return the content of one by its name; place: where they are."""

    names: Collection[str]
    read: Callable[[str], bytes]
    place: str

    def text(self, name: str) -> str:
        """Return the text of a file. Raises: RequestError if it is missing or not UTF-8."""
        try:
            return self.read(checked_name(name).as_posix()).decode("utf-8-sig")  # Windows editors write a BOM
        except (KeyError, FileNotFoundError) as error:
            names = sorted(name for name in self.names if "/" not in name)
            similar = ", ".join(difflib.get_close_matches(name, names, 3, 0.3) or names[:10])
            raise RequestError(f"{self.place} has no '{name}'; it has: {similar or 'nothing'}") from error
        except (OSError, UnicodeDecodeError) as error:
            why = error.reason if isinstance(error, UnicodeDecodeError) else error.strerror
            raise RequestError(f"'{name}' in {self.place} cannot be read as text: {why}") from error

    def code(self, module: str) -> dict[str, bytes]:
        """Return the module and all Python files of the user, which it may import. Raises: RequestError."""
        self.text(module)
        code: dict[str, bytes] = {}
        left = MOST_CODE_BYTES
        for name in {checked_name(module).as_posix(), *filter(self._is_code, self.names)}:
            code[name] = self.read(name)
            left -= len(code[name])
            if left < 0:
                raise RequestError(f"{self.place} has more than {MOST_CODE_BYTES / 1e6:g} MB of Python files")
        return code

    def _is_code(self, name: str) -> bool:
        """Return whether a file is a Python file, not in a hidden folder and not in a virtual environment."""
        return name.endswith(".py") and not any(
            folder.name.startswith(".") or f"{folder}/pyvenv.cfg" in self.names
            for folder in PurePosixPath(name).parents[:-1]
        )

    def completed(self, params: Params, preproc: str = "") -> Params:
        """Return params with what other files say: excluded branches, and the preprocessing of preproc.json.

        preproc: name of that file, if submit.json names it. Raises: RequestError.
        """
        recipe, notes = dict(params.recipe), params.notes
        if params.branch_file:
            recipe["excluded"] = listed(self.text(params.branch_file))
        name = preproc or params.preproc or (PREPROC if PREPROC in self.names else "")
        if name:
            if name.endswith(".py"):
                raise RequestError(
                    f"'{name}': a function preprocessing(record) is not supported yet; write cuts and new branches as "
                    f"{PREPROC} (docs/how-to/migrate.md)"
                )
            first, more = preprocessing_of(json_object(self.text(name), name), name)
            recipe["preprocessing"] = joined(first, recipe.get("preprocessing", NOTHING), f"{name} and params.json")
            notes = (*notes, *more)
        return replace(params, recipe=recipe, notes=notes)

    def listing(self) -> Listing:
        """Return the matches of wildcards in addresses that came with the job; the service lists no servers."""
        sent = json_object(self.text(MATCHES), MATCHES) if MATCHES in self.names else {}

        def matches(pattern: str) -> tuple[str, ...]:
            address = str(listable(pattern))
            urls = sent.get(address)
            if urls is None:
                raise RequestError(
                    f"'{address}' has a wildcard, and the service does not list servers; `hepfaas submit` finds the "
                    "matches on your machine, or list the files"
                )
            if not isinstance(urls, list) or not urls or not all(isinstance(url, str) and "://" in url for url in urls):
                raise RequestError(f"{MATCHES}: '{address}' takes the addresses of its files in a list")
            return tuple(urls)

        return matches


def job_of(values: Mapping[str, Any]) -> Job:
    """Return the job in the JSON object of POST /v1/runs. Raises: RequestError naming the key and what it takes."""
    job, texts = job_without_files(values), _texts(values)
    locations = Locations(texts.listing(), job.params.redirector)
    about = {key: values[key] for key in sample_files.KEYS if key in values}
    if not about:
        labels = None if labels_each_event(job.params) else _labels(values)
        return with_data(job, data_of_lists(_lines(values, "files"), labels, locations))
    if other := [key for key in ("files", "labels") if key in values]:
        raise RequestError(f"the job has '{other[0]}' and 'samples'; give only one of them")
    return with_data(job, data_of_samples(about, "the job", texts, locations, not labels_each_event(job.params)))


def labels_each_event(params: Params) -> bool:
    """Return whether params.json gives each event its label or its targets."""
    return any(params.recipe.get(name) for name in LABELLING)


def data_of_lists(files: str, labels: str | None, locations: Locations) -> Data:
    """Return the data of a list of files and a list of labels; None: events have labels or targets of their own."""
    numbers = "" if labels is None else labels_of(labels)
    label = sample_files.expression(numbers, "the list of labels") if isinstance(numbers, str) and numbers else ""
    found = located(paired(listed_files(files), numbers), locations, has_labels=not isinstance(numbers, str))
    return Data(files=found.files, label=label, notes=found.notes)


def data_of_samples(
    values: Mapping[str, Any], place: str, texts: Texts, locations: Locations, has_labels: bool
) -> Data:
    """Return the data of samples, as samples.json has them; `place` names the object in messages."""
    about = sample_files.described(values, place, texts.text, has_labels)
    found = located(about.files, locations, has_labels)
    return Data(
        files=found.files, samples=about.samples, luminosity=about.luminosity, notes=(*about.notes, *found.notes)
    )


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
    for name in (SUBMIT, sample_files.JSON_NAME, *sample_files.YAML_NAMES):
        if name in texts.names:
            raise RequestError(f"the job's 'code' has '{name}'; give its values as keys of the job instead")
    names = names_in(values, ("name", "model"))
    module, settings = names.get("model", MODULE), values.get("params", {})
    if not isinstance(settings, dict):
        raise RequestError(
            "the job's 'params' is not an object; it takes what params.json takes (docs/reference/params.md)"
        )
    params = texts.completed(params_in(settings, "params.json"))
    return Job(
        name=names.get("name", "model"),
        code=texts.code(module),
        module=module,
        params=params,
        webhook=str(values.get("webhook") or ""),
        notes=params.notes,
    )


def recipe_of(job: Job, store: Store, place: Place | None = None) -> Recipe:
    """Return the recipe of a job, and store its code.

    place: where steps on other machines read a file; None: they run on this machine. Raises: what `place` raises.
    """
    manifest = {name: put_blob(store, data) for name, data in job.code.items()}
    return Recipe(
        name=job.name,
        files=tuple(replace(file, url=place(file.url, job.folder)) for file in job.files) if place else job.files,
        code=put_blob(store, encoded(manifest)),
        module=job.module,
        samples=job.samples,
        luminosity=job.luminosity,
        **{**({"label": job.label} if job.label else {}), **job.params.recipe},
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
    return Texts(contents, contents.__getitem__, "the job's 'code'")


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
