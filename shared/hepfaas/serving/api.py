"""predict's own calls: raw events or files in, scores out; versions and the aliases that name them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from hepfaas.datasets.address_checks import check_file, check_is_not_ours
from hepfaas.datasets.reading import Reading
from hepfaas.errors import NotThereError, RequestError, UnavailableError
from hepfaas.inputs.json_object import json_object
from hepfaas.models import versions
from hepfaas.models.inference import Inference
from hepfaas.models.served import Served
from hepfaas.platform.settings import STREAM_S
from hepfaas.platform.storage import is_name
from hepfaas.scores.files import Columns, columns_of
from hepfaas.scores.streams import ARROW_STREAM, LINES, PARQUET, error_line, streamed
from hepfaas.serving.predicting import Context, in_thread, json_response

MOST_FILES = 1_000
OVER = "the time for one answer is over; ask for what is missing by 'entries', or with Prefer: respond-async for a run"

JSON = "application/json"
CURLS_OWN = "application/x-www-form-urlencoded"
"""What curl -d says of any text, JSON mostly."""

_READERS = ThreadPoolExecutor(8, "files")
"""Of their own: where a file's server does not answer, others are looked after all the same."""


async def predict(context: Context, name: str, number: str = "") -> Response:
    """POST /v1/models/{name}[/versions/{number}]/predict: {"events": …}, a document of events, or {"files": [URL]}."""
    end = time.monotonic() + STREAM_S
    served = await context.serving.model(name, number)
    kind = context.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    kind = JSON if kind in ("", CURLS_OWN) else kind
    body = await context.body()
    if kind == JSON and b'"files"' in body:
        values = json_object(body)
        if "files" in values:
            return await _of_files(context, served, values, end)
    return await _of_events(context, served, kind, body)


async def run_status(context: Context, run: str) -> Response:
    """GET /v1/runs/{run}: how far a run is that was asked for here."""
    from hepfaas.serving import prediction_answers  # runs: only where one is followed

    answer: Response = await in_thread(prediction_answers.status, context.serving.store, run)
    return answer


async def run_scores(context: Context, run: str) -> Response:
    """GET /v1/runs/{run}/scores: what it made, as JSON lines, Arrow or Parquet."""
    from hepfaas.serving import prediction_answers

    accept = context.request.headers.get("accept", "")
    answer: Response = await in_thread(prediction_answers.scores, context.serving.store, run, accept)
    return answer


async def run_ledger(context: Context, run: str) -> Response:
    """GET /v1/runs/{run}/ledger: what it made, recounted."""
    from hepfaas.serving import prediction_answers

    answer: Response = await in_thread(prediction_answers.ledger, context.serving.store, run)
    return answer


async def list_aliases(context: Context, name: str) -> Response:
    """GET /v1/models/{name}/aliases: which version each names."""
    await in_thread(versions.find, context.serving.store, name)
    return json_response({"aliases": await in_thread(versions.aliases, context.serving.store, name)})


async def put_alias(context: Context, name: str, alias: str) -> Response:
    """PUT /v1/models/{name}/aliases/{alias}: {"version": n}; put again with an earlier one, it is rolled back."""
    number = (await context.few_values()).get("version")
    if not is_name(alias) or alias.isdecimal():
        raise RequestError(f"'{alias[:100]}' is no name of an alias: use letters, digits, '.', '_' and '-'")
    if type(number) is not int or number < 1:
        raise RequestError(f"'version' is {str(number)[:40]}; it takes the number of a version")
    await in_thread(versions.find, context.serving.store, name, str(number))
    await in_thread(versions.set_alias, context.serving.store, name, alias, number)
    return json_response({"aliases": await in_thread(versions.aliases, context.serving.store, name)})


async def delete_alias(context: Context, name: str, alias: str) -> Response:
    """DELETE /v1/models/{name}/aliases/{alias}"""
    if alias not in await in_thread(versions.aliases, context.serving.store, name):
        raise NotThereError(f"model '{name}' has no alias '{alias[:100]}'; GET /v1/models/{name}/aliases lists them")
    await in_thread(versions.set_alias, context.serving.store, name, alias, 0)
    return Response(status_code=204)


async def delete_version(context: Context, name: str, number: str) -> Response:
    """DELETE /v1/models/{name}/versions/{number}: it answers a few seconds longer at most."""
    version = await in_thread(versions.find, context.serving.store, name, number)
    if str(version.number) != number:
        raise RequestError(f"'{number}' is an alias; give the number of the version, {version.number}")
    await in_thread(versions.delete, context.serving.store, version)
    return Response(status_code=204)


async def _of_events(context: Context, served: Served, kind: str, body: bytes) -> Response:
    from hepfaas.inputs import raw_events  # a sixth of a second: only where raw events come

    usual = served.published.tree
    tree = context.request.query_params.get("tree") or usual
    memory = context.serving.settings.worker_memory
    events = await in_thread(raw_events.events_in, served, kind, body, tree, context.hold, memory)
    features = await in_thread(raw_events.features_of, served, events, context.hold)
    scores = await context.scores(served, features)
    columns = columns_of(np.arange(len(scores), dtype=np.int64), events.identifiers, scores)
    accepted = context.request.headers.get("accept", "")
    for wanted in raw_events.WRITTEN:
        if wanted in accepted:
            return Response(await in_thread(raw_events.written, wanted, columns), media_type=wanted)
    return json_response({"model": str(served.version), "scores": columns})


async def _of_files(context: Context, served: Served, values: Mapping[str, Any], end: float) -> Response:
    """Streams the scores of files as they are read, or where that would take long asks for a run and tells its name.
    end: when the answer must be over, by the monotonic clock."""
    from hepfaas.serving import prediction_runs  # runs: only where files come

    files, tree, entries = await _by_reader(_checked, context, served, values)  # it resolves names of hosts
    reading = context.serving.readings.reading(context.serving.store, context.owner, context.memberships)
    respond_async = "respond-async" in context.request.headers.get("prefer", "").lower()
    headers: dict[str, Any] = {}
    if not respond_async:
        most = context.serving.settings.predict_stream_events
        headers, is_long = await _by_reader(prediction_runs.looked_at, files, tree, entries, most, reading)
    if respond_async or is_long:
        wish = prediction_runs.Wish(served, files, tree, entries, respond_async)
        answer: Response = await in_thread(prediction_runs.begun, context, wish)
        return answer
    accepted = context.request.headers.get("accept", "")
    kind = next((kind for kind in (ARROW_STREAM, PARQUET) if kind in accepted), LINES)
    blocks = _blocks(context.serving.inference, served, files, tree, entries, headers, reading, end)
    first = await _by_reader(next, blocks, None)  # what is wrong with the first file is a status, not a line
    some = itertools.chain([first] if first else [], blocks)
    parts = streamed(kind, some, str(served.version), len(files))

    coming = _READERS.submit(next, parts, None)

    async def sent() -> AsyncIterator[bytes]:
        nonlocal coming
        events = 0
        while await _comes(coming, end):
            if (part := coming.result()) is None:
                return
            events += part.count(b"\n") if kind == LINES else 0
            yield part
            coming = _READERS.submit(next, parts, None)
        if kind != LINES:
            raise UnavailableError(OVER)  # the connection breaks off
        yield error_line(OVER, events)  # whoever reads for us may take a while longer

    def end_reading() -> None:
        coming.add_done_callback(lambda _: _READERS.submit(blocks.close))

    return _Streamed(sent(), kind, end_reading)


class _Streamed(StreamingResponse):
    """Ends the reading when it is over, also where the client has gone before."""

    def __init__(self, parts: AsyncIterator[bytes], media_type: str, end_reading: Callable[[], None]) -> None:
        super().__init__(parts, media_type=media_type)
        self._end_reading = end_reading

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end_reading()


async def _comes(work: Future[Any], end: float) -> bool:
    """Whether some work is done before that time; it goes on if not."""
    await asyncio.wait([asyncio.wrap_future(work)], timeout=max(0.0, end - time.monotonic()))
    return work.done()


async def _by_reader(work: Callable[..., Any], *given: Any) -> Any:
    return await asyncio.wrap_future(_READERS.submit(work, *given))


def _checked(
    context: Context, served: Served, values: Mapping[str, Any]
) -> tuple[list[str], str, tuple[int, int] | None]:
    usual = served.published.tree  # a model without a spec is refused before anything is read
    files, entries, tree = values["files"], values.get("entries"), values.get("tree") or usual
    unknown = set(values) - {"files", "tree", "entries"}
    if unknown:
        raise RequestError(f"unknown key '{sorted(unknown)[0]}'; a prediction on files takes files, tree, entries")
    if (
        not isinstance(files, list)
        or not 0 < len(files) <= MOST_FILES
        or not all(isinstance(url, str) for url in files)
    ):
        raise RequestError(f"'files' takes a list of 1 to {MOST_FILES} URLs")
    if not isinstance(tree, str):
        raise RequestError("'tree' takes the name of a TTree")
    addresses = []
    for url in files:
        if "://" not in url:
            raise RequestError(f"'{Path(url).name}' is no address: root://, s3:// and http(s):// are read, or send it")
        private, sources = context.serving.settings.allow_private, context.serving.readings.sources
        address = check_file(url, private, sources, context.memberships)
        check_is_not_ours(address, context.serving.store.url)
        addresses.append(str(address))
    files = addresses
    if entries is None:
        return files, tree, None
    plain = isinstance(entries, list) and len(entries) == 2 and all(type(at) is int for at in entries)
    if not plain or not 0 <= entries[0] <= entries[1]:
        raise RequestError(f"'entries' is {str(entries)[:60]}; it takes [first, one behind the last]")
    return files, tree, (entries[0], entries[1])


def _blocks(
    inference: Inference,
    served: Served,
    files: list[str],
    tree: str,
    entries: tuple[int, int] | None,
    headers: Mapping[str, Any],
    reading: Reading,
    end: float,
) -> Generator[Columns]:
    """The scores of some events after the other, with the number of their file, until that time.

    Raises: RequestError; UnavailableError, also if it takes too long.
    """
    from hepfaas.steps.predict import predicted

    with inference.model(served.graph) as model:
        for number, url in enumerate(files):
            for some in predicted(served.published, model, url, tree, entries, headers.get(url), reading):
                yield {"file": np.full(len(some.entries), number, dtype=np.int32), **some.columns}
                if time.monotonic() > end:
                    raise UnavailableError(OVER)
