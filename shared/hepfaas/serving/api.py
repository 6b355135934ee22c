"""The /v1 calls of `predict`: scores of raw events and of files, runs, versions and their aliases."""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from hepfaas.datasets.address_checks import check_file, check_is_not_ours
from hepfaas.datasets.files import file_and_tree
from hepfaas.datasets.reading import Reading
from hepfaas.errors import NotThereError, RequestError, UnavailableError
from hepfaas.inputs.json_object import json_object
from hepfaas.models import versions
from hepfaas.models.inference import Inference
from hepfaas.models.served import Served
from hepfaas.platform.settings import STREAM_S
from hepfaas.platform.storage import Store, is_name
from hepfaas.runs.params import FORMATS
from hepfaas.scores.files import Columns, columns_of
from hepfaas.scores.streams import ARROW_STREAM, LINES, PARQUET, error_line, streamed
from hepfaas.serving.context import Context
from hepfaas.serving.responses import in_thread, json_response

if TYPE_CHECKING:
    from hepfaas.datasets.opened import OpenedFile
    from hepfaas.serving.run_requests import FileEntries

MOST_FILES = 1_000
OUT_OF_TIME = (
    "the time for one answer is over; ask for the other events with 'entries', or for a run with Prefer: respond-async"
)

JSON = "application/json"
CURL_DEFAULT = "application/x-www-form-urlencoded"
"""Content type that `curl -d` sends with any text, mostly JSON."""

_READERS = ThreadPoolExecutor(8, "files")
"""Threads for files alone, so that a file server that hangs does not hold up other requests."""


async def predict(context: Context, name: str, number: str = "") -> Response:
    """POST /v1/models/{name}[/versions/{number}]/predict: {"events": …}, a document of events, or {"files": [URL]}."""
    end = time.monotonic() + STREAM_S
    served = await context.server.model(name, number)
    kind = context.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    kind = JSON if kind in ("", CURL_DEFAULT) else kind
    body = await context.body()
    if kind == JSON and b'"files"' in body:
        values = json_object(body)
        if "files" in values:
            return await _of_files(context, served, values, end)
    return await _of_events(context, served, kind, body)


async def run_status(context: Context, run: str) -> Response:
    """GET /v1/runs/{run}: the progress of a run that was requested here."""
    from hepfaas.serving import run_results  # only for requests about runs

    response: Response = await in_thread(run_results.status, context.server.store, run)
    return response


async def run_scores(context: Context, run: str) -> Response:
    """GET /v1/runs/{run}/scores: its scores as JSON lines, Arrow or Parquet."""
    from hepfaas.serving import run_results

    accept = context.request.headers.get("accept", "")
    response: Response = await in_thread(run_results.scores, context.server.store, run, accept)
    return response


async def run_ledger(context: Context, run: str) -> Response:
    """GET /v1/runs/{run}/ledger: its events and scores, counted again from the stored parts."""
    from hepfaas.serving import run_results

    response: Response = await in_thread(run_results.ledger, context.server.store, run)
    return response


async def list_aliases(context: Context, name: str) -> Response:
    """GET /v1/models/{name}/aliases: the version that each alias names."""
    await in_thread(versions.find, context.server.store, name)
    return json_response({"aliases": await in_thread(versions.aliases, context.server.store, name)})


async def put_alias(context: Context, name: str, alias: str) -> Response:
    """PUT /v1/models/{name}/aliases/{alias}: {"version": n}. An earlier version rolls it back."""
    number = (await context.few_values()).get("version")
    if not is_name(alias) or alias.isdecimal():
        raise RequestError(f"'{alias[:100]}' is not a name for an alias; use letters, digits, '.', '_' and '-'")
    if type(number) is not int or number < 1:
        raise RequestError(f"'version' is {str(number)[:40]}; it takes the number of a version")
    await in_thread(versions.find, context.server.store, name, str(number))
    await in_thread(versions.set_alias, context.server.store, name, alias, number)
    return json_response({"aliases": await in_thread(versions.aliases, context.server.store, name)})


async def delete_alias(context: Context, name: str, alias: str) -> Response:
    """DELETE /v1/models/{name}/aliases/{alias}: remove an alias."""
    if alias not in await in_thread(versions.aliases, context.server.store, name):
        raise NotThereError(f"model '{name}' has no alias '{alias[:100]}'; GET /v1/models/{name}/aliases lists them")
    await in_thread(versions.set_alias, context.server.store, name, alias, 0)
    return Response(status_code=204)


async def delete_version(context: Context, name: str, number: str) -> Response:
    """DELETE /v1/models/{name}/versions/{number}: delete a version. It may answer for a few seconds longer."""
    version = await in_thread(versions.find, context.server.store, name, number)
    if str(version.number) != number:
        raise RequestError(f"'{number}' is an alias; give the number of the version, {version.number}")
    await in_thread(versions.delete, context.server.store, version)
    return Response(status_code=204)


async def _of_events(context: Context, served: Served, kind: str, body: bytes) -> Response:
    from hepfaas.inputs import raw_events  # takes a sixth of a second: only for raw events

    tree = context.request.query_params.get("tree", "")
    read = functools.partial(raw_events.events_in, hold=context.hold, memory=context.settings.worker_memory, tree=tree)
    events = await in_thread(read, served, kind, body)
    vectors = await context.server.vectors(served, raw_events.vectors_of_events, events, context.hold)
    scores = vectors.of_all(await context.scores(served, vectors.features))
    columns = columns_of(
        np.arange(len(scores), dtype=np.int64), events.identifiers, scores, served.published.spec.targets
    )
    accept = context.request.headers.get("accept", "")
    for offered in raw_events.SCORE_TYPES:
        if offered in accept:
            return Response(await in_thread(raw_events.scores_as, offered, columns), media_type=offered)
    return json_response({"model": str(served.version), "scores": columns})


async def _of_files(context: Context, served: Served, values: Mapping[str, Any], end: float) -> Response:
    """Stream the scores of files as they are read, or request a run if that would take long.

    end: when the response must be complete, by the monotonic clock.
    """
    from hepfaas.serving import run_requests  # only for files

    wanted = await _in_reader(_file_entries, context, served, values)  # it resolves host names
    reading = context.server.instance.readings.reading(context.server.store, context.owner, context.memberships)
    respond_async = "respond-async" in context.request.headers.get("prefer", "").lower()
    headers: Sequence[OpenedFile] = ()
    if not respond_async:
        most = context.settings.predict_stream_events
        headers, is_long = await _in_reader(run_requests.look, served, wanted, most, reading)
    if respond_async or is_long:
        response: Response = await in_thread(run_requests.request_run, context, served, wanted, respond_async)
        return response
    accept = context.request.headers.get("accept", "")
    kind = next((kind for kind in (ARROW_STREAM, PARQUET) if kind in accept), LINES)
    inference, store = context.server.instance.inference, context.server.store
    blocks = _blocks(inference, served, wanted, store=store, headers=headers, reading=reading, end=end)
    first = await _in_reader(next, blocks, None)  # an error in the first file becomes a status, not a line
    parts = streamed(kind, itertools.chain([first] if first else [], blocks), str(served.version), len(wanted.files))

    pending = _READERS.submit(next, parts, None)

    async def stream() -> AsyncIterator[bytes]:
        nonlocal pending
        events = 0
        while await _is_done(pending, end):
            if (part := pending.result()) is None:
                return
            events += part.count(b"\n") if kind == LINES else 0
            yield part
            pending = _READERS.submit(next, parts, None)
        if kind != LINES:
            raise UnavailableError(OUT_OF_TIME)  # the connection breaks off
        yield error_line(OUT_OF_TIME, events)  # the reading thread may go on for a while

    def end_reading() -> None:
        pending.add_done_callback(lambda _: _READERS.submit(blocks.close))

    return _FileScores(stream(), kind, end_reading)


class _FileScores(StreamingResponse):
    """A stream that ends the reading of files when it is over, also if the client disconnects."""

    def __init__(self, parts: AsyncIterator[bytes], media_type: str, end_reading: Callable[[], None]) -> None:
        super().__init__(parts, media_type=media_type)
        self._end_reading = end_reading

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end_reading()


async def _is_done(work: Future[Any], end: float) -> bool:
    """Wait until some work is done; return False if it is not by that time."""
    await asyncio.wait([asyncio.wrap_future(work)], timeout=max(0.0, end - time.monotonic()))
    return work.done()


async def _in_reader(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.wrap_future(_READERS.submit(work, *arguments))


def _file_entries(context: Context, served: Served, values: Mapping[str, Any]) -> FileEntries:
    """Return the entries that a request names. Raises: RequestError."""
    from hepfaas.serving.run_requests import FileEntries

    _ = served.published.tree  # refuses a model without a spec before anything is read
    files, entries, tree = values["files"], values.get("entries"), values.get("tree") or ""
    dtype = values.get("dtype") or ""
    unknown = set(values) - {"files", "tree", "entries", "dtype"}
    if unknown:
        raise RequestError(
            f"unknown key '{sorted(unknown)[0]}'; a prediction on files takes files, tree, entries, dtype"
        )
    if (
        not isinstance(files, list)
        or not 0 < len(files) <= MOST_FILES
        or not all(isinstance(url, str) for url in files)
    ):
        raise RequestError(f"'files' takes a list of 1 to {MOST_FILES} URLs")
    if not isinstance(tree, str):
        raise RequestError("'tree' takes the name of a TTree")
    if dtype and dtype not in FORMATS:
        raise RequestError(f"'dtype' is {str(dtype)[:60]!r}; it takes {', '.join(FORMATS)}")
    addresses, trees = [], []
    for url, own_tree in map(file_and_tree, files):
        if "://" not in url:
            raise RequestError(f"'{Path(url).name}' is not an address; use root://, s3:// or http(s)://, or send it")
        private, sources = context.settings.allow_private, context.server.instance.readings.sources
        address = check_file(url, private, sources, context.memberships)
        check_is_not_ours(address, context.server.store.url)
        addresses.append(str(address))
        trees.append(own_tree or tree)
    if entries is None:
        return FileEntries(addresses, trees, dtype=dtype)
    is_pair = isinstance(entries, list) and len(entries) == 2 and all(type(entry) is int for entry in entries)
    if not is_pair or not 0 <= entries[0] <= entries[1]:
        raise RequestError(f"'entries' is {str(entries)[:60]}; it takes [first, one after the last]")
    return FileEntries(addresses, trees, (entries[0], entries[1]), dtype)


def _blocks(
    inference: Inference,
    served: Served,
    wanted: FileEntries,
    *,
    store: Store,
    headers: Sequence[OpenedFile],
    reading: Reading,
    end: float,
) -> Generator[Columns]:
    """Yield the scores of blocks of events, with the number of their file.

    Raises: RequestError; UnavailableError, also at that time.
    """
    from hepfaas.models.networks import networks_of
    from hepfaas.platform.work_limit import REQUEST_S
    from hepfaas.steps.predict import predicted, with_events

    def blocks(networks: Any) -> Iterator[Columns]:
        for number, (url, tree) in enumerate(zip(wanted.files, wanted.trees, strict=True)):
            for block in predicted(
                served.published,
                networks,
                url,
                tree,
                wanted=wanted.entries,
                file=headers[number] if number < len(headers) else None,
                dtype=wanted.dtype,
                reading=reading,
                limit_s=REQUEST_S,
            ):
                yield {"file": np.full(len(block.entries), number, dtype=np.int32), **block.columns}
                if time.monotonic() > end:
                    raise UnavailableError(OUT_OF_TIME)

    with networks_of(served.published, served.graph, store, inference) as networks:
        yield from with_events(blocks(networks))
