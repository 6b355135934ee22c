"""Uploads of models that were made elsewhere, as clients of TFaaS send them. A run converts each model once."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import json
import secrets
import tempfile
import time
from pathlib import Path, PurePosixPath
from typing import IO

from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from hepfaas.errors import RequestError, UnavailableError
from hepfaas.jobs.bundles import LABELS, PARAMS, Bundle, bundle_in, files_of
from hepfaas.jobs.uploads import Unpacked, stored_file
from hepfaas.orchestration import records
from hepfaas.orchestration.submitting import trace_of
from hepfaas.platform.spool import Share
from hepfaas.platform.storage import Store
from hepfaas.runs.conversion import Conversion
from hepfaas.serving.context import Context
from hepfaas.serving.responses import in_thread

LOOK_S = 0.2
"""Interval of the checks whether a run has ended."""

BLOCK_BYTES = 1 << 20
LIMIT = "HEPFAAS_PREDICT_MODEL_BYTES is what this instance takes"


async def upload(context: Context) -> Response:
    """POST /upload, /bundle: a form (name, params, model, labels), or a tar of one directory.

    The response is empty and comes once the model can be served. The same name again makes the next version.
    """
    server, spool = context.server, context.server.instance.spool
    asking = await in_thread(server.asking)
    announced = _announced(context) or 0
    await in_thread(asking.check_quotas, announced)  # before anything is stored
    is_form = "form-data" in context.request.headers.get("content-type", "").lower()
    with (
        spool.share(context.owner, _announced(context)) as share,
        tempfile.TemporaryDirectory(prefix="hepfaas-upload-") as scratch,
    ):
        folder = Path(scratch) / "model"
        folder.mkdir()
        bundle = await (_from_form if is_form else _from_tar)(context, folder, share)
        sizes = [path.stat().st_size for path in files_of(bundle).values()]
        await in_thread(asking.check_unpacked, sizes, announced)
        recipe = await in_thread(_recipe, bundle, server.store)
    trace = trace_of(context.request.headers.get("traceparent", ""))
    request = records.Request(recipe, time.time(), trace=trace, submitter=context.submitter)
    run = await in_thread(asking.ask, request)
    await _wait_for(run, server.store, context.settings.predict_upload_s)
    server.instance.loaded.forget(server.store, recipe.name)
    return Response()


def _announced(context: Context) -> int | None:
    """Return the size of the body in bytes, None if the client did not send it."""
    length = context.header("content-length") or ""
    return int(length) if length.isdecimal() else None


async def _from_form(context: Context, folder: Path, share: Share) -> Bundle:
    """Return the model in the fields of a form. 'op', which later clients send, is ignored."""
    most = context.settings.predict_model_bytes
    encoding = context.request.headers.get("content-encoding", "").lower()
    async with context.form(most + most // 2, share.take) as form:  # base64 takes a third more
        return await asyncio.to_thread(_unpack_form, form, folder, share, most_bytes=most, encoding=encoding)


async def _from_tar(context: Context, folder: Path, share: Share) -> Bundle:
    """Return the model in a tar, which may be gzipped."""
    most = context.settings.predict_model_bytes
    with tempfile.TemporaryFile() as file:
        async for chunk in context.chunks(most):
            share.take(len(chunk))
            await in_thread(file.write, chunk)
        file.seek(0)
        return await asyncio.to_thread(_unpack_tar, file, folder, most, share)


def _unpack_form(form: FormData, folder: Path, share: Share, *, most_bytes: int, encoding: str) -> Bundle:
    unpacked = Unpacked(folder, most_bytes, LIMIT, share.take)
    model, name = form.get("model"), form.get("name")
    if not isinstance(model, UploadFile):
        raise RequestError("the form has no file 'model'; it takes name, params, model and labels")
    file = PurePosixPath((model.filename or "").replace("\\", "/")).name
    if file in ("", PARAMS, LABELS):
        raise RequestError(f"the form's file 'model' is called '{file}'; give it the model's own name, as in model.pb")
    with tempfile.TemporaryFile() as decoded:
        unpacked.add(file, _from_base64(model.file, decoded, share) if encoding == "base64" else model.file)
    for field, file_name in (("params", PARAMS), ("labels", LABELS)):
        value = form.get(field)
        if isinstance(value, UploadFile):
            unpacked.add(file_name, value.file)
        elif value:
            (folder / file_name).write_text(value, encoding="utf-8", errors="surrogatepass")
    return bundle_in(folder, name if isinstance(name, str) else "")


def _from_base64(data: IO[bytes], into: IO[bytes], share: Share) -> IO[bytes]:
    """Write base64 data into a file, decoded and without white space. Raises: RequestError if it is not base64."""
    rest = b""
    while block := data.read(BLOCK_BYTES):
        text = rest + block.translate(None, b" \t\r\n")
        whole = len(text) - len(text) % 4
        share.take(whole)
        into.write(_bytes_of(text[:whole]))
        rest = text[whole:]
    into.write(_bytes_of(rest))
    into.seek(0)
    return into


def _bytes_of(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise RequestError(f"Content-Encoding is base64, but 'model' is not: {error}") from error


def _unpack_tar(file: IO[bytes], folder: Path, most_bytes: int, share: Share) -> Bundle:
    unpacked = Unpacked(folder, most_bytes, LIMIT, share.take)
    unpacked.add_tar(file)
    inside = unpacked.job()
    return bundle_in(inside, inside.name if inside != folder else "")


def _recipe(bundle: Bundle, store: Store) -> Conversion:
    """Store the files of a model; return the recipe of its conversion."""
    files = {name: stored_file(path, store) for name, path in files_of(bundle).items()}
    listed = json.dumps(files, sort_keys=True).encode()
    code = f"uploads/{hashlib.sha256(listed).hexdigest()}/files.json"
    store.create(code, listed)
    return Conversion(
        name=bundle.name,
        code=code,
        format=bundle.format,
        file=bundle.file,
        input=bundle.input,
        output=bundle.output,
        params=json.dumps(bundle.params, sort_keys=True),
        labels=bundle.labels,
        upload=secrets.token_hex(16),
    )


async def _wait_for(run: str, store: Store, most_s: float) -> None:
    """Wait for the end of a run. Raises: RequestError with the reason if it failed; UnavailableError if it takes
    longer."""
    until = time.monotonic() + most_s
    while (end := await in_thread(records.last_end, store, run)) is None:
        if time.monotonic() > until:
            raise UnavailableError(
                f"the model is not converted after {most_s:g} s; run '{run}' goes on, and GET /models will list it"
            )
        await asyncio.sleep(LOOK_S)
    if end.state != "completed":
        raise RequestError(end.error or f"run '{run}' was {end.state}")
