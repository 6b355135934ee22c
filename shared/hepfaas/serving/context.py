"""The context of a request to `predict`: its caller, its body within limits, and the models of its owner."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from starlette.datastructures import FormData
from starlette.requests import ClientDisconnect, Request

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
from hepfaas.serving.memory_budget import MemoryBudget
from hepfaas.serving.responses import in_thread

if TYPE_CHECKING:
    from hepfaas.features.vectors import Vectors
    from hepfaas.orchestration.requesting import Asking

DEADLINE_S = 30.0
"""A request that has waited longer is not computed."""

MOST_FIELDS = 20
"""Fields of a form."""

MOST_FIELD_BYTES = 64_000
"""Size of a form's text field, and of a file in it that stays in memory."""

MOST_VALUES_BYTES = 64_000
"""Size of a JSON body that has no events."""

SCORE_BYTES = 16
"""Memory of one score in an array and in a response of any form."""

LONG_BYTES = 64_000
"""Larger responses count in the memory budget."""

PIECE_BYTES = 64
"""Memory overhead of each piece of a body."""

MOST_PREPROCESSING = 2
"""Requests of one owner whose events are preprocessed at once; all owners share the threads."""


class Instance:
    """Resources that all owners share in one process: models in memory, inference workers, limits.

    It is made in the thread of the event loop. base: serves the models of HEPFAAS_OWNER. answered: requests by method.
    """

    def __init__(self, settings: Settings, identity: Identity) -> None:
        self.settings = settings
        self.inference = Inference(settings.worker_memory)
        self.batching = Batching(
            self.inference,
            workers=settings.predict_threads,
            most_workers=settings.predict_workers,
            most_bytes=settings.predict_waiting_bytes,
            cache_bytes=settings.predict_cache_bytes,
        )
        self.loaded = Loaded(
            settings.predict_cache_bytes, lambda served: self.batching.load(served, time.monotonic() + DEADLINE_S)
        )
        self.spool = Spool(settings.spool_bytes)
        self.memory = MemoryBudget(settings.predict_waiting_bytes)
        self.readings = Readings.from_settings(settings)
        self.answered: Counter[str] = Counter()
        self._identity = identity
        self._store_of = store_of_owner(settings)
        self._server_of = functools.lru_cache(KEPT_OWNERS)(self._new_server)
        self._quotas = functools.cache(lambda: Quotas(identity.roles, root_store(settings)))
        self._were_ready: set[str] = set()
        self.base = self._new_server(settings.owner)

    async def server(self, presented: IdentityHeaders | None) -> tuple[Caller, ModelServer]:
        """Return the caller and the server of their owner's models.

        Raises: UnauthenticatedError; ForbiddenError; LimitError; UnavailableError.
        """
        return self.known_server(presented) or self._admitted(await in_thread(self._identity.caller, presented))

    def known_server(self, presented: IdentityHeaders | None) -> tuple[Caller, ModelServer] | None:
        """Return the same without waiting if the token was verified a moment ago, or none is needed.

        Raises: LimitError.
        """
        caller = self._identity.known(presented)
        return None if caller is None else self._admitted(caller)

    async def check_ready(self) -> None:
        """Check that the store answers and the default models are in memory.

        A default model that was ready once and was deleted since is ignored. Raises: UnavailableError.
        """
        await in_thread(lambda: next(iter(self.base.store.keys("models/")), None))
        for model in self.settings.predict_models:
            name, _, number = model.partition("/")
            try:
                await self.base.model(name, number)
                self._were_ready.add(model)
            except RequestError as error:
                if model in self._were_ready and isinstance(error, NotThereError):
                    continue
                raise UnavailableError(f"default model '{model}' cannot be served: {public_text(error)}") from error

    def _admitted(self, caller: Caller) -> tuple[Caller, ModelServer]:
        self._identity.admit(caller)
        return caller, self.base if caller.owner == self.settings.owner else self._server_of(caller.owner)

    def _new_server(self, owner: str) -> ModelServer:
        return ModelServer(self, self._store_of(owner), functools.cache(functools.partial(self._asking, owner)))

    def _asking(self, owner: str) -> Asking:
        """Raises: RequestError if there is no broker that could start runs."""
        from hepfaas.orchestration.requesting import Asking  # CloudEvents: only where runs are requested

        settings = self.settings
        if not settings.broker:
            raise RequestError("this instance of predict cannot begin runs: it has no broker (K_SINK)")
        quotas = None if owner == settings.owner else self._quotas()
        return Asking(root_store(settings), sender(settings), owner, "predict", quotas)


@dataclass(eq=False)
class ModelServer:
    """Serves the models of one owner.

    asking: returns what requests runs. version_of_run: versions by the names that TFaaS clients know runs by.
    """

    instance: Instance
    store: Store
    asking: Callable[[], Asking]
    version_of_run: dict[str, Version] = field(default_factory=dict)
    _preprocessing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_PREPROCESSING))

    async def model(self, name: str, number: str = "") -> Served:
        """Return the version that a request names. Raises: NotThereError; UnavailableError."""
        loaded = self.instance.loaded
        if served := loaded.now(self.store, name, number):
            return served
        if not is_name(name):
            raise NotThereError(f"there is no model '{name[:100]}'; GET /models lists them")
        if number and not is_name(number):
            raise NotThereError(f"model '{name}' has no version '{number[:100]}'; give its number or an alias")
        return await loaded.get(self.store, name, number)

    async def vectors(self, served: Served, compute: Callable[..., Vectors], *arguments: Any) -> Vectors:
        """Return the vectors that a function of a model gives, called in a thread. An owner's expressions may take
        seconds, so that few of an owner's requests do this at once."""
        if not served.published.spec.preprocessing:
            return cast("Vectors", await in_thread(compute, served, *arguments))
        async with self._preprocessing:
            return cast("Vectors", await in_thread(compute, served, *arguments))

    async def scores(self, request: Hashable, served: Served, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores (events, outputs) for features (events, features), or for images.

        request: holds the memory of a long response. Raises: RequestError if the features do not have the model's
        shape; TooLargeError; OverloadedError; UnavailableError.
        """
        if features.shape[1:] != served.shape:
            features = served.fitted(features)
        if not len(features):
            return np.zeros((0, served.outputs), dtype=np.float32)
        instance = self.instance
        size = SCORE_BYTES * len(features) * served.outputs
        if size > LONG_BYTES:
            most = instance.settings.predict_waiting_bytes
            if size > most:
                raise TooLargeError(
                    f"{len(features):,} events with {served.outputs:,} scores each take {size:,} bytes as an answer, "
                    f"and at most {most:,} may be (HEPFAAS_PREDICT_WAITING_BYTES); send fewer events at a time"
                )
            instance.memory.hold(request, served.owner, instance.memory.size_of(request) + size)
        return await instance.batching.predict(served, features, time.monotonic() + DEADLINE_S)


@dataclass(slots=True)
class Context:
    """One request and the server of its owner's models. caller: None for public routes."""

    request: Request
    server: ModelServer
    caller: Caller | None = None

    @property
    def settings(self) -> Settings:
        """Settings of this instance."""
        return self.server.instance.settings

    @property
    def submitter(self) -> dict[str, Any]:
        """The caller, as the record of a run names them."""
        return self.caller.submitter() if self.caller else {}

    @property
    def owner(self) -> str:
        """The owner of the models and files."""
        return self.caller.owner if self.caller else self.settings.owner

    @property
    def memberships(self) -> list[Group]:
        """The caller's groups."""
        return self.caller.memberships if self.caller else []

    def header(self, name: str) -> str | None:
        """Return a header, without building an object of all headers first."""
        value = dict(self.request.scope["headers"]).get(name.lower().encode())
        return None if value is None else value.decode("latin-1")

    async def body(self, most: int = 0) -> bytes:
        """Return the whole body. most: its largest size in bytes, HEPFAAS_PREDICT_BODY_BYTES if 0.

        Raises: TooLargeError; OverloadedError if other requests under way hold too many bytes.
        """
        receive, most = self.request.receive, most or self.server.instance.settings.predict_body_bytes
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
        """Count the memory of the events in the body; from any thread.

        Raises: TooLargeError; OverloadedError if other requests under way hold too much.
        """
        most = self.settings.predict_waiting_bytes
        if size > most:
            raise TooLargeError(
                f"the events in the body take {size:,} bytes in memory, and at most {most:,} may be "
                "(HEPFAAS_PREDICT_WAITING_BYTES); send them in parts, or give the addresses of files: many events "
                "in 'files' become a run"
            )
        self._hold(max(size, self.server.instance.memory.size_of(self.request)))

    def _hold(self, size: int) -> None:
        self.server.instance.memory.hold(self.request, self.server.store.url, size)

    async def scores(self, served: Served, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores (events, outputs) for features (events, features), or for images.

        Raises: as `ModelServer.scores`.
        """
        return await self.server.scores(self.request, served, features)

    async def chunks(self, most_bytes: int, count: Callable[[int], None] | None = None) -> AsyncGenerator[bytes]:
        """Yield the body as it arrives.

        count: called with the size of each chunk; without it they count in the memory budget.
        Raises: TooLargeError; OverloadedError; what `count` raises.
        """
        size = 0
        async for chunk in self.request.stream():
            size += len(chunk)
            if size > most_bytes:
                raise TooLargeError(f"the body has more than {most_bytes} bytes")
            if count:
                count(len(chunk))
            else:
                self._hold(size)
            yield chunk

    @asynccontextmanager
    async def form(self, most_bytes: int, count: Callable[[int], None] | None = None) -> AsyncIterator[FormData]:
        """Open the form in the body. Large files of it lie on disk until it is closed.

        count: as for `chunks`. Raises: RequestError if the body is not a form; what `chunks` raises.
        """
        from python_multipart.exceptions import FormParserError  # only for forms
        from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

        headers, chunks = self.request.headers, self.chunks(most_bytes, count)
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
            raise RequestError(f"the body is not a form: {error}") from error
        try:
            yield form
        finally:
            await form.close()

    async def values(self) -> Mapping[str, Any]:
        """Return the JSON object in the body. Raises: RequestError."""
        return json_object(await self.body())

    async def few_values(self) -> Mapping[str, Any]:
        """Return the JSON object in a body that has no events. Raises: RequestError; TooLargeError."""
        return json_object(await self.body(MOST_VALUES_BYTES))
