"""The nine calls of MLaaS4HEP_server for clients written for it: same parameters, same replies.

Its defects are not copied: no value reaches a shell, names may contain '_', a restart loses nothing, errors have a
status of their own, and a folder belongs to its owner. A folder is stored as numbered lists of its files; the newest
counts.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flask import Response
from werkzeug.exceptions import NotFound
from werkzeug.utils import secure_filename

from hepfaas.api.archives import PIECE_BYTES, archive, published
from hepfaas.api.bodies import body_object
from hepfaas.api.context import Context
from hepfaas.api.forms import FORM, form_in
from hepfaas.api.submission import stored_recipe
from hepfaas.datasets.files import checked_name
from hepfaas.errors import RequestError
from hepfaas.jobs.folder import job_in
from hepfaas.jobs.uploads import Unpacked, mapped, stored_file
from hepfaas.models import versions
from hepfaas.orchestration import records
from hepfaas.platform.browsers import check_removes
from hepfaas.platform.http import json_answer, raw_headers
from hepfaas.platform.routes import Route
from hepfaas.platform.spool import Share
from hepfaas.platform.storage import Store, is_name
from hepfaas.views import overview
from hepfaas.views.following import follow_log

EXTENSIONS = (".gz", ".tgz", ".tar", ".txt", ".pdf", ".json")
SUBMITTED = ("name", "device", "memory", "cpus", "files", "labels", "model", "params")
ALLOWED = ("preproc", "specs")
MOST_EXTRA_BYTES = 100_000_000


def upload(context: Context) -> Response:
    """POST /upload?name=N, form field 'file': the folder of a job as tar.gz, with any name inside."""
    with context.received() as share, form_in(context.request, share.take) as form:
        file = form.file("file")
        if file is None:
            return _text("No file was provided \n", 422)
        name = context.request.args.get("name")
        if not name:
            return _text("No name was provided \n", 422)
        _check_folder_name(name)
        context.check_body()
        if not file.filename.lower().endswith(EXTENSIONS):
            raise RequestError(
                f"'{file.filename[:100]}' cannot be uploaded; the name must end in {', '.join(EXTENSIONS)}"
            )
        with tempfile.TemporaryDirectory(prefix="hepfaas-") as scratch:
            unpacked = Unpacked(Path(scratch), context.most_upload_bytes, take=share.take)
            if file.filename.lower().endswith(EXTENSIONS[:3]):
                unpacked.add_tar(file)
            else:
                unpacked.add(file.filename, file)
            job = unpacked.job()
            paths = sorted(path for path in job.rglob("*") if path.is_file() and path.stat().st_size)
            context.check_unpacked(path.stat().st_size for path in paths)
            keys = {path.relative_to(job).as_posix(): stored_file(path, context.store) for path in paths}
            _write(context.store, name, keys)
    return _text("Successfully uploaded!\n")


def submit(context: Context) -> Response:
    """POST /submit with all eight keys: train on the folder N; the reply names the process, 'N_k'."""
    context.quotas.check_bytes(context.owner)
    values = body_object(context.request)
    for key in SUBMITTED:
        if key not in values:
            raise RequestError(f"'{key}' is missing; submit takes {', '.join(SUBMITTED)}")
        if not isinstance(values[key], str | int) or isinstance(values[key], bool):
            raise RequestError(f"'{key}' is {json.dumps(values[key])[:100]}; it takes text")
    name = str(values["name"])
    files = {key: str(values[key]) for key in ("files", "labels", "model", "params")}
    files |= {key: str(values[key]) for key in ALLOWED if values.get(key)}
    for file in files.values():
        checked_name(file)
    with context.spool.share(context.owner) as share, tempfile.TemporaryDirectory(prefix="hepfaas-") as scratch:
        folder = Path(scratch)
        _unpack(context.store, name, folder, share)
        job = job_in(folder, {**files, "name": name})
        recipe = stored_recipe(context, job)
    limits = (f"'{key}' has no effect: each function has its own limits" for key in ("device", "memory", "cpus"))
    notes, submitter = (*limits, *job.notes), context.caller.submitter()
    request = records.Request(recipe, time.time(), notes, context.trace, submitter=submitter)
    run = context.submitting.submit(request)
    return _json({"process_name": process_of(run), "job_id": int(run.rpartition("-")[2])})


def status_docker(context: Context) -> Response:
    """GET /status_docker?process_name=P: how long the process has been up, or how it exited, as docker writes it."""
    run = _run(context)
    request, end = records.request_of(context.store, run), records.last_end(context.store, run)
    state = overview.row(context.store, run).state
    if end is None:
        text = f"Up {_ago(time.time() - request.created)}"
    else:
        text = f"Exited ({0 if end.state == 'completed' else 1}) {_ago(time.time() - end.time)} ago"
    return _json({"process_name": process_of(run), "status": text, "state": state})


def logs(context: Context) -> Response:
    """GET /logs?process_name=P: the log as a text file."""
    run = _run(context)
    return _attached("".join(follow_log(context.store, run)), f"logs_{process_of(run)}.txt", "text/plain")


def model(context: Context) -> Response:
    """GET /model?process_name=P: the published model as tar.gz, with a params.json."""
    run = _run(context)
    end = records.last_end(context.store, run)
    if end is None or not end.model:
        state = (end.refused or f"it is {end.state}") if end else "it is not done yet"
        raise NotFound(f"process '{process_of(run)}' has no model: {state}")
    name, _, number = end.model.rpartition("/")
    params = json.dumps({"name": process_of(run), "model": versions.GRAPH}).encode()
    data = archive(context.store, published(context.store, name, int(number)), {"params.json": params})
    return _attached(data, f"{process_of(run)}.tar.gz", "application/gzip")


def delete_specs(context: Context) -> Response:
    """GET /delete_specs?name=N: remove '*specs*' from the folder. A run reads such a file only if it names it."""
    _check_site(context)
    name = _folder_name(context)
    files = _folder(context.store, name)
    kept = {path: key for path, key in files.items() if "specs" not in path.rpartition("/")[2]}
    if kept != files:
        _write(context.store, name, kept)
    return _text("Specs deletion completed!\n")


def delete_folder(context: Context) -> Response:
    """GET /delete_folder?name=N: remove the folder; its runs and models stay."""
    _check_site(context)
    name = _folder_name(context)
    _folder(context.store, name)
    _write(context.store, name, None)
    return _text("Folder deletion completed!\n")


def setup_tfaas(context: Context) -> Response:
    """POST /setup_tfaas?process_name=P, form field 'file': add a file to the model that P published."""
    run = _run(context)
    end = records.last_end(context.store, run)
    if end is None or not end.model:
        raise RequestError(f"process '{process_of(run)}' has no model yet")
    context.check_body()
    name, _, number = end.model.rpartition("/")
    with (
        context.received() as share,
        form_in(context.request, share.take) as form,
        tempfile.TemporaryDirectory(prefix="hepfaas-") as scratch,
    ):
        file = form.file("file")
        if file is None:
            return _text("No file was provided \n", 422)
        filename = secure_filename(file.filename)
        if not filename:
            raise RequestError("the file needs a name")
        path = Path(scratch) / filename
        Unpacked(Path(scratch), MOST_EXTRA_BYTES, "a model version takes no larger ones", share.take).add(
            filename, file
        )
        context.check_unpacked([path.stat().st_size])
        versions.add(context.store, published(context.store, name, int(number)), filename, mapped(path))
    return _text("Successfully uploaded!\n")


def hello(context: Context) -> Response:
    """GET /hello"""
    return _text("Hello World\n")


PROCESS = {"process_name": {"type": "string"}}
NAME = {"name": {"type": "string"}}

ROUTES = (
    Route("POST", "/upload", upload, NAME, {"multipart/form-data": FORM}, is_query_required=True),
    Route(
        "POST", "/submit", submit,
        bodies={
            "application/json": {
                "type": "object",
                "required": list(SUBMITTED),
                "properties": {name: {"type": ["string", "integer"]} for name in (*SUBMITTED, *ALLOWED)},
            }
        },
    ),
    Route("GET", "/status_docker", status_docker, PROCESS, is_query_required=True),
    Route("GET", "/logs", logs, PROCESS, is_query_required=True),
    Route("GET", "/model", model, PROCESS, is_query_required=True),
    Route("GET", "/delete_specs", delete_specs, NAME, is_query_required=True, is_for_admins=False),
    Route("DELETE", "/delete_specs", delete_specs, NAME, is_query_required=True),
    Route("GET", "/delete_folder", delete_folder, NAME, is_query_required=True, is_for_admins=False),
    Route("DELETE", "/delete_folder", delete_folder, NAME, is_query_required=True),
    Route("POST", "/setup_tfaas", setup_tfaas, PROCESS, {"multipart/form-data": FORM}, is_query_required=True),
    Route("GET", "/hello", hello),
)  # fmt: skip


def process_of(run: str) -> str:
    """Return the process name of a run: 'N_k' for 'N-k'."""
    name, _, number = run.rpartition("-")
    return f"{name}_{number}"


def _check_site(context: Context) -> None:
    """Raise ForbiddenError if a page of another site may have sent this request by a link."""
    if context.request.method == "GET":
        check_removes(context.request.path, raw_headers(context.request))


def _run(context: Context) -> str:
    name, _, number = context.request.args.get("process_name", "").rpartition("_")
    if not is_name(f"{name}-{number}") or not number.isdecimal():
        raise NotFound("there is no such process; 'process_name' is in the reply of submit, e.g. luca_1")
    return context.run(f"{name}-{number}")


def _check_folder_name(name: str) -> None:
    if not is_name(name):
        raise RequestError(f"'{name[:100]}' cannot name a folder: use letters, digits, '.', '_' and '-'")


def _folder_name(context: Context) -> str:
    name = context.request.args.get("name", "")
    _check_folder_name(name)
    return name


def _folder(store: Store, name: str) -> dict[str, str]:
    """Return the key of each file of a folder. Raises: NotFound."""
    _check_folder_name(name)
    keys = sorted(store.keys(f"folders/{name}/"), key=_number)
    files: dict[str, str] | None = json.loads(store.get(keys[-1])) if keys else None
    if files is None:
        raise NotFound(f"there is no folder '{name}'; upload it first")
    return files


def _write(store: Store, name: str, files: Mapping[str, str] | None) -> None:
    """Store the new list of a folder's files; None removes the folder."""
    number = 1 + max(map(_number, store.keys(f"folders/{name}/")), default=0)
    while not store.create(f"folders/{name}/{number}", json.dumps(files).encode()):
        number += 1


def _number(key: str) -> int:
    return int(key.rpartition("/")[2])


def _unpack(store: Store, name: str, folder: Path, share: Share) -> None:
    for path, key in _folder(store, name).items():
        target = folder / checked_name(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            for start in itertools.count(0, PIECE_BYTES):
                piece = store.get_range(key, start, start + PIECE_BYTES)
                share.take(len(piece))
                out.write(piece)
                if len(piece) < PIECE_BYTES:
                    break


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(1, int(seconds))} seconds"


def _json(values: Mapping[str, Any]) -> Response:
    answer = json_answer({})
    answer.set_data(json.dumps(values, indent=True))
    return answer


def _text(text: str, status: int = 200) -> Response:
    return Response(text, status, mimetype="text/html")


def _attached(data: str | Iterator[bytes], name: str, mimetype: str) -> Response:
    return Response(data, mimetype=mimetype, headers={"Content-Disposition": f"attachment; filename={name}"})
