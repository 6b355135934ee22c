"""POST /v1/runs: a job as JSON, tar.gz or form becomes a recipe, and a run begins."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flask import Response
from werkzeug.utils import secure_filename

from hepfaas.api.bodies import body_of, object_in
from hepfaas.api.context import Context
from hepfaas.api.forms import FORM, form_in
from hepfaas.errors import RequestError
from hepfaas.jobs.addresses import check_webhook, place_files
from hepfaas.jobs.folder import job_in
from hepfaas.jobs.job import Job, job_of, names_in, recipe_of
from hepfaas.jobs.uploads import Unpacked
from hepfaas.orchestration import records
from hepfaas.platform.http import json_answer
from hepfaas.platform.routes import Route
from hepfaas.platform.spool import Share
from hepfaas.platform.storage import StagedStore
from hepfaas.runs.recipe import Recipe

MOST_JOB_BYTES = 8_000_000
"""Size of a job that comes as JSON: its code has 5 MB at most."""
TARS = ("application/gzip", "application/x-gzip", "application/x-tar", "application/x-tar+gzip")
NAMES = ("files", "labels", "samples", "model", "params", "preproc", "specs", "name")
RETRY_AFTER_S = "2"
_PARSING = threading.Lock()


def submit(context: Context) -> Response:
    """Begin a run: JSON values, a tar.gz, or a form with a tar.gz or with the files of the folder."""
    context.check_body()
    with context.received() as share, tempfile.TemporaryDirectory(prefix="hepfaas-") as scratch:
        job = _received(context, Path(scratch), share)
        webhook = check_webhook(job.webhook, context.allow_private)
        recipe = stored_recipe(context, job)
    submitter = context.caller.submitter()
    request = records.Request(recipe, time.time(), job.notes, context.trace, webhook, submitter=submitter)
    run = context.submitting.submit(request, context.request.headers.get("Idempotency-Key", "")[:200])
    links = {"self": f"/v1/runs/{run}", "events": f"/v1/runs/{run}/events", "log": f"/v1/runs/{run}/log"}
    values = {"run": run, "notes": list(job.notes), "links": links}
    return json_answer(values, 202, Location=f"/v1/runs/{run}", Retry_After=RETRY_AFTER_S)


def stored_recipe(context: Context, job: Job) -> Recipe:
    """Return the recipe of a job; its code and files are stored after all checks."""
    staged = StagedStore(context.store)
    caller = context.caller
    place = place_files(staged, context.allow_private, context.readings.sources, caller.memberships)
    recipe = recipe_of(job, staged, place)
    context.check_unpacked((*staged.new_sizes(), len(json.dumps(recipe.to_json()))))
    staged.store()
    return recipe


def _received(context: Context, scratch: Path, share: Share) -> Job:
    """Return the job in the body; a folder is unpacked below `scratch`."""
    request = context.request
    if request.mimetype == "application/json":
        data = body_of(request, MOST_JOB_BYTES)
        with _PARSING:  # the values may take several times the memory of their text
            return job_of(object_in(data))
    values = request.args.to_dict()
    if request.mimetype in TARS:
        unpacked = _unpacked(context, scratch, values, share)
        unpacked.add_tar(request.stream)
        return _job(unpacked, values)
    if request.mimetype != "multipart/form-data":
        raise RequestError(
            "a job is sent as application/json, multipart/form-data or application/gzip, not as "
            f"'{request.mimetype[:100] or 'nothing'}'"
        )
    with form_in(request, share.take) as form:
        values = {**values, **form.fields, "folder": values.get("folder") or form.fields.get("folder", "")}
        unpacked = _unpacked(context, scratch, values, share)
        if not form.files:
            raise RequestError("the form has no file; send the folder as tar.gz, or each of its files")
        for file in form.files:
            if len(form.files) == 1 and file.filename.endswith((".tar.gz", ".tgz", ".tar")):
                unpacked.add_tar(file)
            else:
                unpacked.add(file.filename, file)
        return _job(unpacked, values)


def _unpacked(context: Context, scratch: Path, values: Mapping[str, str], share: Share) -> Unpacked:
    """Return a place for an upload: a job without a name is called like its folder."""
    folder = scratch / (secure_filename(values.get("folder", "")) or "model")
    folder.mkdir()
    return Unpacked(folder, context.most_upload_bytes, take=share.take)


def _job(unpacked: Unpacked, values: Mapping[str, str]) -> Job:
    return replace(job_in(unpacked.job(), names_in(values, NAMES)), webhook=values.get("webhook", ""))


SAMPLE = {
    "type": "object",
    "required": ["files"],
    "additionalProperties": False,
    "properties": {
        "files": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "label": {"type": ["integer", "string"], "description": "or the name of a class"},
        "weight": {"type": "string", "description": "expression"},
        "cross_section": {"type": "number", "exclusiveMinimum": 0, "description": "in pb"},
        "sum_of_weights": {"type": ["number", "string"], "description": "or '<tree>/<branch>'"},
    },
}
JOB = {
    "type": "object",
    "required": ["code"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
        "files": {"type": "array", "items": {"type": "string"}, "description": "root://, s3://, http(s):// addresses"},
        "labels": {
            "anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "string"}],
            "description": "one for each file, or an expression that gives the label of each event",
        },
        "samples": {
            "type": "object",
            "additionalProperties": SAMPLE,
            "description": "name of each sample to its files and label, instead of 'files' and 'labels'",
        },
        "luminosity": {"type": ["number", "string"], "description": "of all samples: in 1/fb, or with a unit"},
        "code": {"type": "object", "additionalProperties": {"type": "string"}, "description": "file name to text"},
        "model": {"type": "string", "description": "the file that defines model(); default model.py"},
        "params": {"type": "object", "description": "what params.json takes"},
        "webhook": {"type": "string", "description": "gets the events of the run by POST"},
    },
}

ROUTES = (
    Route(
        "POST", "/v1/runs", submit,
        bodies={
            "application/json": JOB,
            "multipart/form-data": FORM,
            "application/gzip": {"type": "string", "format": "binary"},
        },
        status=202,
    ),
)  # fmt: skip
