"""What every call of `predict` shares: the owner's models, the workers that compute, bodies with a limit, answers."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.datastructures import FormData
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hepfaas.datasets.reading import Readings
from hepfaas.errors import NotThereError, RequestError, TooLargeError, UnavailableError, public_text
from hepfaas.inputs.json_object import json_object
from hepfaas.models.batching import Batching
from hepfaas.models.inference import Inference
from hepfaas.models.served import Loaded, Served
from hepfaas.models.versions import Version
from hepfaas.platform.backends import KEPT_OWNERS, root_store, sender, store_of_owner
from hepfaas.platform.identity import Caller, Identity, IdentityHeaders, Quotas
from hepfaas.platform.roles import Group
from hepfaas.platform.settings import Settings
from hepfaas.platform.spool import Spool
from hepfaas.platform.storage import Store, is_name
from hepfaas.serving.held import Held

if TYPE_CHECKING:
    from hepfaas.orchestration.requesting import Asking

DEADLINE_S = 30.0
"""A request that has waited so long is not computed any more."""


MOST_FIELDS, MOST_FIELD_BYTES = 20, 64_000
"""Of a form; of a field that is no file, and of a file that stays in memory."""

MOST_VALUES_BYTES = 64_000
"""Of a JSON body that names things and has no events."""

SCORE_BYTES = 16
"""Memory of a score in an array and in an answer of any form."""

LONG_BYTES = 64_000
"""Answers that take more count among what requests hold."""

PIECE_BYTES = 64
"""Memory of a piece of a body, beside its bytes."""


@dataclass(frozen=True)
class Serving:
    """What answers: the owner's store, models in memory, workers that compute.

    settings: of this instance. asking: what asks for runs. spool: disk space for uploads. readings: how files are read.
    processes: versions by the old name of the run that published them, as old clients name models. had: default models
    that were in memory once. answered: requests by their method. held: memory of long bodies and answers of requests
    under way, of all owners.
    """

    settings: Settings
    store: Store
    loaded: Loaded
    inference: Inference
    batching: Batching
    asking: Callable[[], Asking]
    spool: Spool
    held: Held
    readings: Readings = field(default_factory=Readings)
    had: set[str] = field(default_factory=set)
    processes: dict[str, Version] = field(default_factory=dict)
    answered: Counter[str] = field(default_factory=Counter)

    async def check_ready(self) -> None:
        """The store answers, and the default models are in memory. One that was, and that somebody has deleted since,
        keeps nobody from the others. Raises: UnavailableError if not."""
        await in_thread(lambda: next(iter(self.store.keys("models/")), None))
        for model in self.settings.predict_models:
            name, _, number = model.partition("/")
            try:
                await self.model(name, number)
                self.had.add(model)
            except RequestError as error:
                if model in self.had and isinstance(error, NotThereError):
                    continue
                raise UnavailableError(f"default model '{model}' cannot be served: {public_text(error)}") from error

    async def model(self, name: str, number: str = "") -> Served:
        """The version that a request names. Raises: NotThereError; UnavailableError."""
        if served := self.loaded.now(self.store, name, number):
            return served
        if not is_name(name):
            raise NotThereError(f"there is no model '{name[:100]}'; GET /models lists them")
        if number and not is_name(number):
            raise NotThereError(f"model '{name}' has no version '{number[:100]}'; give its number or an alias")
        return await self.loaded.get(self.store, name, number)

    async def scores(self, request: Hashable, served: Served, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (events, outputs) of features (events, features), or of images. request: it holds their memory.

        Raises: RequestError if they have another length than the model's; TooLargeError; OverloadedError;
        UnavailableError.
        """
        if features.shape[1:] != served.shape:
            features = served.fitted(features)
        if not len(features):
            return np.zeros((0, served.outputs), dtype=np.float32)
        size, most = SCORE_BYTES * len(features) * served.outputs, self.settings.predict_waiting_bytes
        if size > LONG_BYTES:
            if size > most:
                raise TooLargeError(
                    f"{len(features):,} events with {served.outputs:,} scores each take {size:,} bytes as an answer, "
                    f"and at most {most:,} may be (HEPFAAS_PREDICT_WAITING_BYTES); send fewer events at a time"
                )
            self.held.hold(request, served.owner, self.held.size_of(request) + size)
        return await self.batching.predict(served, features, time.monotonic() + DEADLINE_S)


def serving_of(settings: Settings) -> Serving:
    """What answers for the owner of these settings; made by the thread of an event loop."""
    inference = Inference(settings.worker_memory)
    batching = Batching(
        inference,
        workers=settings.predict_threads,
        most_workers=settings.predict_workers,
        most_bytes=settings.predict_waiting_bytes,
        cache_bytes=settings.predict_cache_bytes,
    )
    loaded = Loaded(settings.predict_cache_bytes, lambda served: batching.load(served, time.monotonic() + DEADLINE_S))
    store = store_of_owner(settings)(settings.owner)
    asking = functools.cache(lambda: _asking(settings, settings.owner))
    spool = Spool(settings.spool_bytes)
    held = Held(settings.predict_waiting_bytes)
    return Serving(settings, store, loaded, inference, batching, asking, spool, held, Readings.from_settings(settings))


def _asking(settings: Settings, owner: str, quotas: Quotas | None = None) -> Asking:
    """Raises: RequestError if there is no broker that could begin runs."""
    from hepfaas.orchestration.requesting import Asking  # CloudEvents: only where runs are asked for

    if not settings.broker:
        raise RequestError("this instance of predict cannot begin runs: it has no broker (K_SINK)")
    return Asking(root_store(settings), sender(settings), owner, "predict", quotas)


class Servings:
    """What answers each owner. Models in memory, threads and limits are shared; `base` is that of HEPFAAS_OWNER."""

    def __init__(self, settings: Settings, identity: Identity) -> None:
        self.base, self._identity = serving_of(settings), identity
        self._stores, self._mine = store_of_owner(settings), settings.owner
        self._of_owner = functools.lru_cache(KEPT_OWNERS)(self._made)
        self._quotas = functools.cache(lambda: Quotas(settings, identity.roles, root_store(settings)))

    async def of(self, presented: IdentityHeaders | None) -> tuple[Caller, Serving]:
        """Who asks, and what answers him. Raises: UnauthenticatedError; ForbiddenError; LimitError;
        UnavailableError."""
        return self.known(presented) or self._admitted(await in_thread(self._identity.caller, presented))

    def known(self, presented: IdentityHeaders | None) -> tuple[Caller, Serving] | None:
        """The same without a wait, if his token was verified a moment ago or none is asked for. Raises: LimitError."""
        caller = self._identity.known(presented)
        return None if caller is None else self._admitted(caller)

    def _admitted(self, caller: Caller) -> tuple[Caller, Serving]:
        self._identity.admit(caller)
        return caller, self._of_owner(caller.owner)

    def _made(self, owner: str) -> Serving:
        if owner == self._mine:
            return self.base
        asking = functools.cache(lambda: _asking(self.base.settings, owner, self._quotas()))
        return replace(self.base, store=self._stores(owner), asking=asking, processes={})


@dataclass(slots=True)
class Context:
    """One request, what answers it, and who asks: None where nobody needs to say so."""

    request: Request
    serving: Serving
    caller: Caller | None = None

    @property
    def submitter(self) -> dict[str, Any]:
        """Who asks, as a run tells it."""
        return self.caller.submitter() if self.caller else {}

    @property
    def owner(self) -> str:
        """Whose models and files they are."""
        return self.caller.owner if self.caller else self.serving.settings.owner

    @property
    def memberships(self) -> list[Group]:
        """The groups of who asks."""
        return self.caller.memberships if self.caller else []

    def header(self, name: str) -> str | None:
        """A header, without making all of them into an object first."""
        found = dict(self.request.scope["headers"]).get(name.lower().encode())
        return None if found is None else found.decode("latin-1")

    async def body(self, most: int = 0) -> bytes:
        """All of it. most: bytes that it may have, if not HEPFAAS_PREDICT_BODY_BYTES.

        Raises: TooLargeError; OverloadedError if others under way have too many bytes already."""
        receive, most = self.request.receive, most or self.serving.settings.predict_body_bytes
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect()
            piece = message.get("body", b"")
            size += len(piece)
            if size > most:
                raise TooLargeError(f"the body has more than {most} bytes; send its events in parts")
            if not message.get("more_body", False):
                return b"".join([*pieces, piece]) if pieces else piece
            pieces.append(piece)
            self._hold(size + PIECE_BYTES * len(pieces))

    def hold(self, size: int) -> None:
        """Counts what the events in the body take in memory; from any thread. Raises: TooLargeError; OverloadedError if
        others under way take too much already."""
        most = self.serving.settings.predict_waiting_bytes
        if size > most:
            raise TooLargeError(
                f"the events in the body take {size:,} bytes in memory, and at most {most:,} may be "
                "(HEPFAAS_PREDICT_WAITING_BYTES); send them in parts, or give the addresses of files: many events "
                "in 'files' become a run"
            )
        self._hold(max(size, self.serving.held.size_of(self.request)))

    def _hold(self, size: int) -> None:
        self.serving.held.hold(self.request, self.serving.store.url, size)

    async def scores(self, served: Served, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (events, outputs) of features (events, features), or of images. Raises: as `Serving.scores`."""
        return await self.serving.scores(self.request, served, features)

    async def chunks(self, most_bytes: int, take: Callable[[int], None] | None = None) -> AsyncGenerator[bytes]:
        """The body as it comes. Raises: TooLargeError; what `take` raises, or OverloadedError without it."""
        size = 0
        async for chunk in self.request.stream():
            size += len(chunk)
            if size > most_bytes:
                raise TooLargeError(f"the body has more than {most_bytes} bytes")
            if take:
                take(len(chunk))
            else:
                self._hold(size)
            yield chunk

    @asynccontextmanager
    async def form(self, most_bytes: int, take: Callable[[int], None] | None = None) -> AsyncIterator[FormData]:
        """The form in the body, its files on disk where they are large, while it is used.

        take: counts the bytes that go to disk; without it they count among the bodies of requests under way.
        Raises: RequestError if it is none; TooLargeError; OverloadedError; what `take` raises.
        """
        from python_multipart.exceptions import FormParserError  # only where forms come
        from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

        headers, chunks = self.request.headers, self.chunks(most_bytes, take)
        try:
            if "form-data" in headers.get("content-type", "").lower():
                parser = MultiPartParser(
                    headers, chunks, max_files=MOST_FIELDS, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES
                )
                parser.spool_max_size = MOST_FIELD_BYTES
                form = await parser.parse()
            else:
                form = await FormParser(headers, chunks, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES).parse()
        except (MultiPartException, FormParserError) as error:
            raise RequestError(f"the body is no form: {error}") from error
        try:
            yield form
        finally:
            await form.close()

    async def values(self) -> Mapping[str, Any]:
        """The JSON object in the body. Raises: RequestError."""
        return json_object(await self.body())

    async def few_values(self) -> Mapping[str, Any]:
        """The JSON object in a body that has no events. Raises: RequestError; TooLargeError."""
        return json_object(await self.body(MOST_VALUES_BYTES))


class JsonResponse(Response):
    """A JSON document, made with less ado than its parent's: there are ten thousand a second. The headers of
    `browsers.PROTECTION` are added where it is sent (connection.py)."""

    def __init__(self, body: bytes, status: int) -> None:
        self.status_code, self.body, self.background = status, body, None
        self.raw_headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


def json_response(values: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON document; arrays are lists in it. All but printable ASCII is escaped, as a terminal may show it."""
    body = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    if not body.isascii() or b"\x7f" in body:
        body = _ascii(orjson.loads(body))
    return _with(JsonResponse(body, status), headers)


def error_response(text: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """The JSON of an error, whatever text it quotes: also one that orjson refuses, as it is no UTF-8."""
    return _with(JsonResponse(_ascii({"error": text}), status), headers)


def _ascii(values: Any) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()


def _with(response: Response, headers: Mapping[str, str] | None) -> Response:
    if headers:
        response.headers.update(headers)
    return response


async def in_thread(work: Any, *given: Any) -> Any:
    """What a function gives that would hold up the loop."""
    return await asyncio.to_thread(work, *given)
