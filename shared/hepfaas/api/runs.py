"""The HTTP of `runs`: routes to what a person asks of runs and models. Every answer is made of objects in the store,
so that any replica gives the same one. Old clients' nine calls are in old_api.py, the document of both in openapi.py.
"""

from __future__ import annotations

import itertools
import json
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Request, Response
from markupsafe import Markup, escape
from werkzeug.exceptions import MethodNotAllowed, NotFound, RequestEntityTooLarge
from werkzeug.routing import Map, Rule
from werkzeug.utils import secure_filename

from hepfaas.api.forms import form_in
from hepfaas.datasets.addresses import check_address, check_file, check_is_not_ours
from hepfaas.datasets.files import MOST_ADDRESS
from hepfaas.datasets.readings import Readings
from hepfaas.datasets.sources import EVERYTHING, Sources
from hepfaas.errors import ForbiddenError, MissingError, RequestError
from hepfaas.jobs.folder import READ, recipe_of
from hepfaas.jobs.uploads import Unpacked, given_names, stored_file, write_job
from hepfaas.models import versions
from hepfaas.orchestration import records
from hepfaas.orchestration.submitting import Submitting, trace_of
from hepfaas.platform.browsers import page_policy
from hepfaas.platform.cloud_events import Sender
from hepfaas.platform.credentials import Vault, credential_of
from hepfaas.platform.http import MOST_EVENT_BYTES, json_answer
from hepfaas.platform.identity import Caller, Quotas
from hepfaas.platform.roles import Group
from hepfaas.platform.spool import Share, Spool
from hepfaas.platform.storage import LEAST_BYTES, Staged, Store, counted_bytes, is_name
from hepfaas.platform.terminal import visible
from hepfaas.runs.params import check_shape
from hepfaas.runs.prediction import Prediction
from hepfaas.runs.recipe import Recipe
from hepfaas.views import overview
from hepfaas.views.following import Follower, Followers, follow_events, follow_log

PAGE, MOST_PAGE, MOST_LOOKED = 50, 500, 2000
RETRY_AFTER_S = "2"
MOST_CREDENTIAL_BYTES = 100_000
PIECE_BYTES = 4_000_000
MOST_JOB_BYTES = 8_000_000
"""Of a job that comes as JSON: its code has 5 MB at most."""
TARS = ("application/gzip", "application/x-gzip", "application/x-tar", "application/x-tar+gzip")
NAMES = ("files", "labels", "model", "params", "name")
FOLLOWERS = Followers()
_PARSING = threading.Lock()
TYPES = {".png": "image/png", ".pdf": "application/pdf", ".json": "application/json"}


@dataclass(frozen=True)
class Asked:
    """One request, who sent it, and what it may touch: the owner's store."""

    request: Request
    root: Store
    store: Store
    sender: Sender
    caller: Caller
    quotas: Quotas
    readings: Readings
    allow_private: bool
    most_upload_bytes: int
    spool: Spool

    @property
    def owner(self) -> str:
        """Whose store it is."""
        return self.caller.owner

    @property
    def submitting(self) -> Submitting:
        """What begins and ends runs for this owner."""
        return Submitting(self.root, self.store, self.sender, self.owner, self.quotas)

    @property
    def vault(self) -> Vault:
        """His credentials for servers of files."""
        return self.readings.vault(self.store, self.owner)

    @property
    def trace(self) -> str:
        """The W3C trace context that the client sent, or a new one."""
        return trace_of(self.request.headers.get("traceparent", ""))

    @contextmanager
    def received(self) -> Iterator[Share]:
        """Take an upload: a body as large as a folder may be, and a share of the disk, which ends with the block.

        Raises: RequestEntityTooLarge; LimitError; UnavailableError.
        """
        size = self.request.content_length
        self.request.max_content_length = self.most_upload_bytes
        if size is not None and size > self.most_upload_bytes:
            raise RequestEntityTooLarge()
        with self.spool.share(self.owner, size) as share:
            yield share

    @property
    def _announced_bytes(self) -> int:
        return self.request.content_length or LEAST_BYTES

    def check_body(self) -> None:
        """Count the body, by what the client says of it, to what the owner stores. Raises: ForbiddenError."""
        self.quotas.check_bytes(self.owner, self._announced_bytes)

    def check_unpacked(self, sizes: Iterable[int]) -> None:
        """Count objects of these sizes that came of the body, as far as they are more than `check_body` has counted.

        Raises: ForbiddenError.
        """
        more = sum(map(counted_bytes, sizes)) - self._announced_bytes
        if more > 0:
            self.quotas.check_bytes(self.owner, more)

    def run(self, run: str) -> str:
        """The run, if it is there. Raises: NotFound."""
        if not records.is_there(self.store, run) or records.is_deleted(self.store, run):
            raise NotFound(f"there is no run '{run}'; GET /v1/runs lists them")
        return run


def submit(asked: Asked) -> Response:
    """Begins a run: JSON values, a tar.gz, or a form with one or with the folder's files."""
    asked.check_body()
    with asked.received() as share, tempfile.TemporaryDirectory(prefix="hepfaas-") as scratch:
        folder, given, webhook = _received(asked, Path(scratch), share)
        webhook = check_webhook(webhook, asked.allow_private)
        recipe, notes = stored_job(asked, folder, given)
    request = records.Request(recipe, time.time(), notes, asked.trace, webhook, submitter=asked.caller.submitter())
    run = asked.submitting.submit(request, asked.request.headers.get("Idempotency-Key", "")[:200])
    links = {"self": f"/v1/runs/{run}", "events": f"/v1/runs/{run}/events", "log": f"/v1/runs/{run}/log"}
    values = {"run": run, "notes": list(notes), "links": links}
    return json_answer(values, 202, Location=f"/v1/runs/{run}", Retry_After=RETRY_AFTER_S)


def list_runs(asked: Asked) -> Response:
    """Runs, newest first; ?state= only those, ?limit= so many, ?after= goes on behind a page."""
    args = asked.request.args
    limit, state = _limit(args.get("limit", "")), args.get("state", "")
    if state and state not in overview.STATES:
        raise RequestError(f"state is '{state}'; it takes {', '.join(overview.STATES)}")
    rows: list[dict[str, Any]] = []
    after = ""
    for looked, (mark, run) in enumerate(records.newest(asked.store, _mark(args.get("after", "")))):
        if len(rows) == limit or looked == MOST_LOOKED:
            return json_answer({"runs": rows, "after": after})
        after = mark
        if not records.is_deleted(asked.store, run):
            row = overview.row(asked.store, run)
            rows += [row] if state in ("", row["state"]) else []
    return json_answer({"runs": rows, "after": None})


def show_run(asked: Asked, run: str) -> Response:
    """How far a run is."""
    if not records.is_there(asked.store, run) and (coming := overview.pending(asked.store, run)):
        return json_answer(coming, Retry_After=RETRY_AFTER_S)
    found = overview.status(asked.store, asked.run(run))
    if found["state"] in overview.ENDED:
        return json_answer(found)
    return json_answer(found, Retry_After=RETRY_AFTER_S)


def run_events(asked: Asked, run: str) -> Response:
    """Server-sent events: every step as it is done, then how the run ended; at most 300 s, then ask again."""
    last = _mark(asked.request.headers.get("Last-Event-ID", "") or asked.request.args.get("after", ""))
    follower = _follower(asked, run)
    stream = follow_events(asked.store, run, last, is_displaced=follower.is_displaced)
    response = Response(stream, mimetype="text/event-stream", headers={"Cache-Control": "no-store"})
    response.call_on_close(follower.leave)
    return response


def run_log(asked: Asked, run: str) -> Response:
    """The log of all steps, or of one (?step=kind or the start of its hash); ?follow=1 goes on as it grows, for some
    minutes, and ends with the mark from which ?after= goes on."""
    args = asked.request.args
    follow, after, step = args.get("follow", "") in ("1", "true"), _mark(args.get("after", "")), args.get("step", "")
    if not follow:
        return Response(follow_log(asked.store, asked.run(run), step, False, after), mimetype="text/plain")
    follower = _follower(asked, run)
    lines = follow_log(asked.store, run, step, True, after, is_displaced=follower.is_displaced)
    response = Response(lines, mimetype="text/plain")
    response.call_on_close(follower.leave)
    return response


def _follower(asked: Asked, run: str) -> Follower:
    """A place for a stream that lasts. Raises: NotFound if there is no such run; LimitError; UnavailableError."""
    asked.run(run)
    return FOLLOWERS.join(asked.owner)


def run_report(asked: Asked, run: str) -> Response:
    """Metrics and the addresses of the pictures; as a page for a browser."""
    version = _version_of(asked, asked.run(run))
    card = versions.card_of(asked.store, version)
    names = [name for name in versions.files_of(asked.store, version) if name.endswith((".png", ".pdf"))]
    values = {
        "run": run,
        "model": str(version),
        "metrics": card["metrics"],
        "best_epoch": card["best_epoch"],
        "pictures": {name: f"/v1/runs/{run}/report/{name}" for name in names},
    }
    if asked.request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        return Response(_page(values), mimetype="text/html", headers={"Content-Security-Policy": page_policy(STYLE)})
    return json_answer(values)


def run_picture(asked: Asked, run: str, name: str) -> Response:
    """One picture of the report."""
    return _file(asked, _version_of(asked, asked.run(run)), name)


def run_model(asked: Asked, run: str) -> Response:
    """The model version that the run published, as tar.gz."""
    version = _version_of(asked, asked.run(run))
    data = archive(asked.store, version)
    name = f"{version.name}-{version.number}.tar.gz"
    return Response(data, mimetype="application/gzip", headers={"Content-Disposition": f"attachment; filename={name}"})


def run_ledger(asked: Asked, run: str) -> Response:
    """Recounts every event of every epoch from what is stored."""
    return json_answer(overview.recounted(asked.store, asked.run(run)))


def cancel_run(asked: Asked, run: str) -> Response:
    """Ends a run; what it has stored stays for a retry."""
    asked.submitting.cancel(asked.run(run))
    return json_answer(overview.row(asked.store, run))


def retry_run(asked: Asked, run: str) -> Response:
    """A new attempt of a run that failed or was cancelled; it goes on from what is there."""
    attempt = asked.submitting.retry(asked.run(run))
    return json_answer({"run": run, "attempt": attempt}, 202, Location=f"/v1/runs/{run}", Retry_After=RETRY_AFTER_S)


def delete_run(asked: Asked, run: str) -> Response:
    """Cancels a run and forgets it; the model versions it published stay."""
    asked.submitting.delete(asked.run(run))
    return Response(status=204)


def list_models(asked: Asked) -> Response:
    """All model versions with what their cards say."""
    return json_answer({"models": overview.models(asked.store)})


def list_versions(asked: Asked, name: str) -> Response:
    """The versions of one model."""
    rows = [row for row in overview.models(asked.store) if row["model"].rpartition("/")[0] == name]
    if not rows:
        raise NotFound(f"there is no model '{name}'; GET /v1/models lists them")
    return json_answer({"models": rows})


def show_version(asked: Asked, name: str, number: int) -> Response:
    """The card of a version, and its files."""
    version = published(asked, name, number)
    files = {file: f"/v1/models/{name}/{number}/{file}" for file in versions.files_of(asked.store, version)}
    return json_answer({"card": versions.card_of(asked.store, version), "files": files})


def version_file(asked: Asked, name: str, number: int, file: str) -> Response:
    """One file of a version."""
    return _file(asked, published(asked, name, number), file)


def show_caller(asked: Asked) -> Response:
    """Who asks: the owner of what he sends, his groups and what he may do."""
    return json_answer(asked.caller.to_json())


def list_owners(asked: Asked) -> Response:
    """All owners, for an admin, who may name one of them in the header Hepfaas-Owner."""
    if not asked.caller.is_admin:
        raise ForbiddenError("only an admin may list owners")
    return json_answer({"owners": list(_owners(asked.root))})


def list_credentials(asked: Asked) -> Response:
    """The hosts that the owner has credentials for, their kinds and when they end; never what they are."""
    return json_answer({"credentials": [found.told() for found in asked.vault.all()]})


def put_credential(asked: Asked) -> Response:
    """Keeps a credential, to be shown to one host when the owner's files are read there, in place of one before."""
    asked.quotas.check_bytes(asked.owner)
    if not asked.vault.keys:
        raise RequestError("this service keeps no credentials: its operator sets HEPFAAS_CREDENTIALS_KEY")
    found = credential_of(body_object(asked.request, MOST_CREDENTIAL_BYTES))
    asked.vault.put(found)
    return json_answer(found.told(), 201)


def delete_credential(asked: Asked, host: str) -> Response:
    """Removes the credential for a host."""
    if not asked.vault.delete(host.lower()):
        raise NotFound(f"there is no credential for host '{host}'; GET /v1/credentials lists them")
    return Response(status=204)


Call = Callable[..., Response]

ROUTES: tuple[tuple[str, str, Call], ...] = (
    ("POST", "/v1/runs", submit),
    ("GET", "/v1/runs", list_runs),
    ("GET", "/v1/runs/<run>", show_run),
    ("DELETE", "/v1/runs/<run>", delete_run),
    ("GET", "/v1/runs/<run>/events", run_events),
    ("GET", "/v1/runs/<run>/log", run_log),
    ("GET", "/v1/runs/<run>/report", run_report),
    ("GET", "/v1/runs/<run>/report/<name>", run_picture),
    ("GET", "/v1/runs/<run>/model", run_model),
    ("GET", "/v1/runs/<run>/ledger", run_ledger),
    ("POST", "/v1/runs/<run>/cancel", cancel_run),
    ("POST", "/v1/runs/<run>/retry", retry_run),
    ("GET", "/v1/models", list_models),
    ("GET", "/v1/models/<name>", list_versions),
    ("GET", "/v1/models/<name>/<int(max=999999):number>", show_version),
    ("GET", "/v1/models/<name>/<int(max=999999):number>/<file>", version_file),
    ("GET", "/v1/me", show_caller),
    ("GET", "/v1/owners", list_owners),
    ("POST", "/v1/credentials", put_credential),
    ("GET", "/v1/credentials", list_credentials),
    ("DELETE", "/v1/credentials/<host>", delete_credential),
)
FOR_VISITORS = frozenset({cancel_run, *(call for method, _, call in ROUTES if method == "GET")})
"""What an admin may do with what is another's."""


class Routes:
    """Which call answers which request."""

    def __init__(self, routes: tuple[tuple[str, str, Call], ...]) -> None:
        self._map = Map([Rule(path, methods=[method], endpoint=call) for method, path, call in routes])

    def answer(self, asked: Asked) -> Response:
        """Raises: NotFound; MethodNotAllowed; RequestError."""
        adapter = self._map.bind("")
        try:
            call, values = adapter.match(asked.request.path, asked.request.method)
        except NotFound as error:
            raise NotFound(f"there is no '{asked.request.path}'; /openapi.json tells what there is") from error
        except MethodNotAllowed as error:
            allowed = ", ".join(sorted(error.valid_methods or ()))
            return json_answer({"error": f"{asked.request.path} takes {allowed}"}, 405, Allow=allowed)
        for value in values.values():
            if isinstance(value, str) and not is_name(value):
                raise NotFound(f"there is no '{value[:100]}'")
        if asked.caller.visits and call not in FOR_VISITORS:
            raise ForbiddenError("an admin may see what is another's and cancel his runs, no more")
        response: Response = call(asked, **values)
        return response


def archive(store: Store, version: versions.Version, more: Mapping[str, bytes] | None = None) -> Iterator[bytes]:
    """All files of a version as tar.gz, under its name, piece by piece. Raises: MissingError before the first."""
    keys = [f"{version.prefix}{name}" for name in versions.files_of(store, version)]
    sizes = {key: _size(store, key) for key in keys}
    files = {key.removeprefix(version.prefix): (size, _pieces(store, key, size)) for key, size in sizes.items()}
    files |= {name: (len(data), iter((data,))) for name, data in (more or {}).items()}
    return _packed({f"{version.name}/{name}": file for name, file in files.items()})


def _packed(files: Mapping[str, tuple[int, Iterator[bytes]]]) -> Iterator[bytes]:
    """A tar.gz of files, each its size and its pieces."""
    gzip = zlib.compressobj(wbits=31)
    for name, (size, pieces) in files.items():
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o644
        for piece in itertools.chain((info.tobuf(),), pieces, (bytes(-size % tarfile.BLOCKSIZE),)):
            yield gzip.compress(piece)
    yield gzip.compress(bytes(2 * tarfile.BLOCKSIZE)) + gzip.flush()


def _pieces(store: Store, key: str, size: int) -> Iterator[bytes]:
    return (store.get_range(key, start, min(start + PIECE_BYTES, size)) for start in range(0, size, PIECE_BYTES))


def _size(store: Store, key: str) -> int:
    size = store.size_bytes(key)
    if size is None:
        raise MissingError(key, store.url)
    return size


def _owners(root: Store) -> Iterator[str]:
    """First parts of keys, each found by one look behind the one before, that have a list of runs or models."""
    after = ""
    while key := next(iter(root.keys("", after)), None):
        name = key.split("/")[0]
        if any(next(iter(root.keys(f"{name}/{kind}/")), None) for kind in ("newest", "models", "rules", "folders")):
            yield name
        after = f"{name}0"  # '0' follows '/'


def place_files(
    store: Store, allow_private: bool, sources: Sources = EVERYTHING, groups: Collection[Group] = ()
) -> Callable[[str, Path], str]:
    """Where steps find the files of a job: one that came with it goes to the store, an address must be allowed to
    members of these groups."""

    def place(url: str, folder: Path) -> str:
        if "://" in url:
            address = check_file(url, allow_private, sources, groups)
            check_is_not_ours(address, store.url)
            return str(address)
        path = Path(url)
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise RequestError(f"file '{path.name}' is not in the folder; {READ}")
        return f"{store.url}/{stored_file(path, store)}"

    return place


def stored_job(asked: Asked, folder: Path, given: Mapping[str, str]) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe of a job and notes on it; its code and files are stored once all of it is right."""
    staged = Staged(asked.store)
    caller = asked.caller
    place = place_files(staged, asked.allow_private, asked.readings.sources, caller.memberships)
    recipe, notes = recipe_of(folder, given, staged, place)
    asked.check_unpacked((*staged.new_sizes(), len(json.dumps(recipe.to_json()))))
    staged.store()
    return recipe, notes


def _received(asked: Asked, scratch: Path, share: Share) -> tuple[Path, dict[str, str], str]:
    """What was sent as a job's folder, names of its files that were given, and the webhook."""
    request = asked.request
    if request.mimetype == "application/json":
        return _received_values(request, _named(scratch, ""), share)
    given = given_names({**request.args.to_dict()}, NAMES)
    webhook, name = request.args.get("webhook", ""), request.args.get("folder", "")
    if request.mimetype in TARS:
        unpacked = Unpacked(_named(scratch, name), asked.most_upload_bytes, take=share.take)
        unpacked.add_tar(request.stream)
        return unpacked.job(), given, webhook
    if request.mimetype != "multipart/form-data":
        raise RequestError(
            f"a job is sent as application/json, multipart/form-data or application/gzip, not as "
            f"'{request.mimetype[:100] or 'nothing'}'"
        )
    with form_in(request, share.take) as form:
        unpacked = Unpacked(
            _named(scratch, name or form.fields.get("folder", "")), asked.most_upload_bytes, take=share.take
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


def check_webhook(url: str, allow_private: bool) -> str:
    """Return the normal form of a webhook's address, '' for none. Raises: RequestError if it may not be told."""
    if not url:
        return ""
    if len(url) > MOST_ADDRESS or not url.startswith(("http://", "https://")):
        raise RequestError(f"webhook is '{url[:200]}'; it takes an http(s):// address")
    return str(check_address(url, allow_private, with_query=True))


def _named(scratch: Path, name: str) -> Path:
    """A folder of that name: a job without any other is called like its folder."""
    folder = scratch / (secure_filename(name) or "model")
    folder.mkdir()
    return folder


def body_of(request: Request, most_bytes: int) -> bytearray:
    """The body, without a second copy of it on the way. Raises: RequestEntityTooLarge."""
    request.max_content_length = most_bytes
    data = bytearray()
    while piece := request.stream.read(PIECE_BYTES // 16):
        data += piece
    return data


def object_in(data: bytearray) -> Mapping[str, Any]:
    """The JSON object in a body. Raises: RequestError if there is none."""
    try:
        text = data.decode("utf-8-sig", "surrogatepass")
        check_shape(text, "the body")
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError("the body is no JSON") from error
    if not isinstance(values, dict):
        raise RequestError("the body is no JSON object")
    return values


def body_object(request: Request, most_bytes: int = MOST_EVENT_BYTES) -> Mapping[str, Any]:
    """The JSON object that was sent. Raises: RequestError if there is none; RequestEntityTooLarge."""
    if request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise RequestError("the body is no JSON: its Content-Type is not application/json")
    return object_in(body_of(request, most_bytes))


def _limit(text: str) -> int:
    if not text:
        return PAGE
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= MOST_PAGE):
        raise RequestError(f"limit is '{text[:20]}'; it takes 1 to {MOST_PAGE}")
    return int(text)


def _mark(text: str) -> str:
    if text and not is_name(text):
        raise RequestError(f"'{text[:40]}' is no place to go on from; give the 'after' of the page before")
    return text


def _version_of(asked: Asked, run: str) -> versions.Version:
    end = records.last_end(asked.store, run)
    if end is None or not end.model:
        state = (end.refused or f"it is {end.state}") if end else "it is under way"
        if isinstance(records.request_of(asked.store, run).recipe, Prediction):
            state = f"it is a prediction; GET /v1/runs/{run}/scores gives what it made"
        raise NotFound(f"run '{run}' has published no model: {state}")
    name, _, number = end.model.rpartition("/")
    return published(asked, name, int(number))


def published(asked: Asked, name: str, number: int) -> versions.Version:
    """A version that is there. Raises: NotFound, also when it was deleted."""
    version = versions.Version(name, number)
    if not versions.is_there(asked.store, version):
        raise NotFound(f"there is no model version '{name}/{number}' (any more); GET /v1/models lists them")
    return version


def _file(asked: Asked, version: versions.Version, name: str) -> Response:
    try:
        size = _size(asked.store, key := f"{version.prefix}{name}")
    except MissingError as error:
        raise NotFound(f"model version '{version}' has no file '{name}'") from error
    kind = TYPES.get(Path(name).suffix, "application/octet-stream")
    return Response(_pieces(asked.store, key, size), mimetype=kind, headers={"Content-Length": str(size)})


STYLE = "body{font:16px sans-serif;max-width:60em;margin:2em auto}img{max-width:100%}td,th{padding-right:2em}"


def _page(values: Mapping[str, Any]) -> Iterator[str]:
    """The report for a browser: every value is escaped."""
    run, model, best = _escaped(values["run"]), _escaped(values["model"]), _escaped(values["best_epoch"])
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{run}</title><style>{STYLE}</style>"
    yield f"<h1>{run}: model {model}</h1>"
    yield "<table><tr><th>sample<th>events<th>loss<th>accuracy<th>AUC"
    for split, found in values["metrics"].items():
        auc = f"{found['auc']:.4f} ± {found['auc_uncertainty']:.4f}" if found["auc"] is not None else "-"
        yield f"<tr><td>{_escaped(split)}<td>{_escaped(found['events'])}"
        yield f"<td>{found['loss']:.4f}<td>{found['accuracy']:.4f}<td>{auc}"
    yield f"</table><p>best epoch: {best}</p>"
    for name, url in values["pictures"].items():
        text, address = _escaped(name), _escaped(quote(url))
        picture = f"<img src='{address}' alt='{text}'>" if name.endswith(".png") else f"<a href='{address}'>{text}</a>"
        yield f"<p>{picture}</p>"


def _escaped(value: Any) -> Markup:
    """A value as HTML shows it: no markup, and no character that reorders or hides others."""
    return escape(visible(str(value)))
