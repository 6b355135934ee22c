"""`hepfaas workflow`: the options of MLaaS4HEP's workflow.py, for a training as `hepfaas train` does it.

MLaaS4HEP was started in a folder with paths of files; here these become the names of the files of a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hepfaas.datasets.listings import on_server
from hepfaas.errors import RequestError
from hepfaas.jobs.folder import job_from
from hepfaas.jobs.job import Job
from hepfaas.jobs.samples import JSON_NAME, YAML_NAMES
from hepfaas.jobs.texts import MODULE, PREPROC, SUBMIT, texts_in
from hepfaas.local.given_files import GivenFiles
from hepfaas.local.train import train_on
from hepfaas.models import versions
from hepfaas.platform.storage import Store
from hepfaas.runs.params import FORMATS

HIDDEN = (SUBMIT, PREPROC, JSON_NAME, *YAML_NAMES)
"""Files of a folder that `hepfaas train` takes without being told; workflow.py took only files that it was told."""

KERAS_NAMES = (".h5", ".hdf5", ".keras")


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """Options of workflow.py, '' for those that are not given, and the name of the model.

    files, labels: path of a list, or the list with commas; labels: also what labels each event. model, params, preproc,
    specs: paths. dtype: format of the files. fout: path of the model.
    """

    files: str
    labels: str
    model: str = ""
    params: str = ""
    preproc: str = ""
    specs: str = ""
    dtype: str = ""
    fout: str = ""
    name: str = ""


def run(options: Workflow, place: Path, store: Store, workers: int, verbose: int | None = None) -> dict[str, Any]:
    """Train in the folder `place`, write the model to `fout`, and return what `train` returns."""
    saved = _saved_as(options.fout, place)
    report = train_on(job_of(options, place), store, workers, verbose=verbose)
    if saved is None:
        return report
    return {**report, "saved": _save(saved, report["model"], store)}


def job_of(options: Workflow, place: Path) -> Job:
    """Return the job that the options describe. Raises: RequestError naming the option or file."""
    if options.dtype and options.dtype not in FORMATS:
        raise RequestError(f"--dtype is '{options.dtype[:50]}'; it takes {', '.join(FORMATS)}")
    below, given = texts_in(place), GivenFiles(place)
    names = {
        "files": given.listed("files", options.files),
        "labels": given.listed("labels", options.labels),
        "model": given.module(options.model or MODULE),
        **{
            key: given.file(key, value)
            for key, value in (("params", options.params), ("preproc", options.preproc), ("specs", options.specs))
            if value
        },
        **({"name": options.name} if options.name else {}),
    }
    texts = given.above(replace(below, names={name for name in below.names if name not in HIDDEN}))
    job = job_from(texts, place, names, inside=False, listing=on_server)
    if not options.dtype:
        return job
    return replace(job, params=replace(job.params, recipe={**job.params.recipe, "dtype": options.dtype}))


def _saved_as(fout: str, place: Path) -> Path | None:
    """Return the path of the model, without an ending that of a folder. Raises: RequestError for other endings."""
    if not fout:
        return None
    path = place / fout
    if path.suffix in KERAS_NAMES:
        return path.with_suffix(".keras")
    if path.suffix not in ("", ".tflite"):
        raise RequestError(
            f"--fout '{fout[:200]}': models are saved as .keras or .tflite files; a name without an ending is a folder "
            "that gets all files of the model"
        )
    return path


def _save(path: Path, model: str, store: Store) -> str:
    name, _, number = model.rpartition("/")
    version = versions.Version(name, int(number))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        data = store.get(version.prefix + (versions.GRAPH if path.suffix == ".tflite" else versions.KERAS))
        path.write_bytes(data)
        return str(path)
    path.mkdir(exist_ok=True)
    for file in versions.files_of(store, version):
        (path / file).write_bytes(store.get(version.prefix + file))
    return str(path)


def report_text(report: Mapping[str, Any], text: str) -> str:
    """Return the result of a training as text, with the path of the saved model."""
    return f"{text}\nThe model is in {report['saved']}" if "saved" in report else text
