"""A job that is sent: JSON, a tar.gz or a form becomes a recipe, and a run begins."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from flask import Request, Response
from werkzeug.utils import secure_filename

from hepfaas.api.bodies import body_of, object_in
from hepfaas.api.context import Context
from hepfaas.api.forms import FORM, form_in
from hepfaas.errors import RequestError
from hepfaas.jobs.addresses import check_webhook, place_files
from hepfaas.jobs.folder import recipe_of
from hepfaas.jobs.uploads import Unpacked, given_names, write_job
from hepfaas.orchestration import records
from hepfaas.platform.http import json_answer
from hepfaas.platform.routes import Route
from hepfaas.platform.spool import Share
from hepfaas.platform.storage import StagedStore
from hepfaas.runs.recipe import Recipe

MOST_JOB_BYTES = 8_000_000
"""Of a job that comes as JSON: its code has 5 MB at most."""
TARS = ("application/gzip", "application/x-gzip", "application/x-tar", "application/x-tar+gzip")
NAMES = ("files", "labels", "model", "params", "name")
RETRY_AFTER_S = "2"
_PARSING = threading.Lock()


def submit(context: Context) -> Response:
    """Begins a run: JSON values, a tar.gz, or a form with one or with the folder's files."""
    context.check_body()
    with context.received() as share, tempfile.TemporaryDirectory(prefix="hepfaas-") as scratch:
        folder, given, webhook = _received(context, Path(scratch), share)
        webhook = check_webhook(webhook, context.allow_private)
        recipe, notes = stored_job(context, folder, given)
    request = records.Request(recipe, time.time(), notes, context.trace, webhook, submitter=context.caller.submitter())
    run = context.submitting.submit(request, context.request.headers.get("Idempotency-Key", "")[:200])
    links = {"self": f"/v1/runs/{run}", "events": f"/v1/runs/{run}/events", "log": f"/v1/runs/{run}/log"}
    values = {"run": run, "notes": list(notes), "links": links}
    return json_answer(values, 202, Location=f"/v1/runs/{run}", Retry_After=RETRY_AFTER_S)


def stored_job(context: Context, folder: Path, given: Mapping[str, str]) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe of a job and notes on it; its code and files are stored once all of it is right."""
    staged = StagedStore(context.store)
    caller = context.caller
    place = place_files(staged, context.allow_private, context.readings.sources, caller.memberships)
    recipe, notes = recipe_of(folder, given, staged, place)
    context.check_unpacked((*staged.new_sizes(), len(json.dumps(recipe.to_json()))))
    staged.store()
    return recipe, notes


def _received(context: Context, scratch: Path, share: Share) -> tuple[Path, dict[str, str], str]:
    """What was sent as a job's folder, names of its files that were given, and the webhook."""
    request = context.request
    if request.mimetype == "application/json":
        return _received_values(request, _named(scratch, ""), share)
    given = given_names({**request.args.to_dict()}, NAMES)
    webhook, name = request.args.get("webhook", ""), request.args.get("folder", "")
    if request.mimetype in TARS:
        unpacked = Unpacked(_named(scratch, name), context.most_upload_bytes, take=share.take)
        unpacked.add_tar(request.stream)
        return unpacked.job(), given, webhook
    if request.mimetype != "multipart/form-data":
        raise RequestError(
            f"a job is sent as application/json, multipart/form-data or application/gzip, not as "
            f"'{request.mimetype[:100] or 'nothing'}'"
        )
    with form_in(request, share.take) as form:
        unpacked = Unpacked(
            _named(scratch, name or form.fields.get("folder", "")), context.most_upload_bytes, take=share.take
        )
        if not form.files:
            raise RequestError("the form has no file; send the folder as tar.gz, or each of its files")
        for file in form.files:
            if len(form.files) == 1 and file.filename.endswith((".tar.gz", ".tgz", ".tar")):
                unpacked.add_tar(file)
            else:
                unpacked.add(file.filename, file)
        given |= given_names(form.fields, NAMES)
        return unpacked.job(), given, form.fields.get("webhook", webhook)


def _received_values(request: Request, folder: Path, share: Share) -> tuple[Path, dict[str, str], str]:
    """A job that came as JSON. One is parsed at a time: its values may take some times the memory of its text."""
    data = body_of(request, MOST_JOB_BYTES)
    with _PARSING:
        values = object_in(data)
        share.take(2 * len(data))
        write_job(values, folder)
        return folder, given_names(values, ("name", "model")), str(values.get("webhook") or "")


def _named(scratch: Path, name: str) -> Path:
    """A folder of that name: a job without any other is called like its folder."""
    folder = scratch / (secure_filename(name) or "model")
    folder.mkdir()
    return folder


JOB = {
    "type": "object",
    "required": ["files", "labels", "code"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
        "files": {"type": "array", "items": {"type": "string"}, "description": "root://, s3://, http(s):// addresses"},
        "labels": {"type": "array", "items": {"type": "integer"}, "description": "one for each file"},
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
