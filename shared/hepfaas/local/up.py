"""`hepfaas up`: the whole service on one machine, with SeaweedFS, processes of each function, a broker, a ping each
minute, and one front door. All state is in the store's folder: the next start continues every run."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import signal
import sys
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from hepfaas.errors import RequestError, UnavailableError, public_text
from hepfaas.local.broker import Broker, Delivery, Trigger
from hepfaas.local.dispatch import function_for
from hepfaas.local.door import HOP_BY_HOP, Door
from hepfaas.local.replicas import Function, Replicas
from hepfaas.local.seaweed import SeaweedFS
from hepfaas.orchestration import events
from hepfaas.platform.browsers import protect
from hepfaas.platform.cloud_events import CloudEvent
from hepfaas.platform.settings import Settings
from hepfaas.platform.statuses import status_of
from hepfaas.sandbox import confinement
from hepfaas.serving.connection import ProtectedProtocol

PING_S = 60.0
REAP_S = 5.0
STOP_S = 5.0
LENT_S = 60
SEND_TOKEN = "Programs send the token: export HEPFAAS_TOKEN=… (docs/reference/identity.md)\n"
STOPPING = (signal.SIGINT, signal.SIGTERM)
DOOR_CONCURRENCY = 64
COMMANDS_OWN = ("HEPFAAS_TOKEN", "HEPFAAS_TOKEN_FILE", "HEPFAAS_LOCAL_TOKEN")
"""Variables that functions do not get: commands send the first two, the front door checks the third."""

TRIGGERS = (
    *(
        Trigger(frozenset(f"{events.PREFIX}.{kind}.requested" for kind in kinds), name)
        for name, kinds in events.DOES.items()
    ),
    Trigger(
        frozenset(
            {
                events.RUN_REQUESTED,
                events.RUN_SUBMITTED,
                events.PHASE_COMPLETED,
                events.STEP_COMPLETED,
                events.STEP_FAILED,
                events.STEP_MISSING,
                events.PING,
            }
        ),
        "advance",
    ),
    Trigger(frozenset({events.PING}), "intake"),
)


@dataclass(frozen=True)
class Options:
    """Options of `hepfaas up`.

    folder: of the store. workers: processes of each function that reads or scores events. token: whether requests need
    one. variables: further environment variables of the functions.
    """

    folder: Path
    port: int = 8080
    workers: int = 2
    ping_s: float = PING_S
    idle_s: float = 120.0
    token: bool = False
    delivery: Delivery = field(default_factory=Delivery)
    variables: Mapping[str, str] = field(default_factory=dict)


class Up:
    """The service, which runs until the `async with` ends."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.store = SeaweedFS(options.folder / "seaweedfs")
        self._tasks: list[asyncio.Task[Any]] = []
        self._serving: list[asyncio.Task[None]] = []
        self._servers: list[uvicorn.Server] = []

    @property
    def url(self) -> str:
        """URL of the front door."""
        return f"http://127.0.0.1:{self.options.port}"

    @property
    def login_url(self) -> str:
        """URL of the front door for a browser, with the token if there is one."""
        return f"{self.url}/?token={self.door.token}" if self.door.token else self.url

    async def __aenter__(self) -> Up:
        settings = Settings.from_environ({**os.environ, **self.options.variables})
        confinement.check(settings.learner_without_landlock)
        if self.options.token and settings.issuers:
            raise RequestError("HEPFAAS_ISSUER has tokens of its own: remove --token")
        self.door = Door(settings, settings.local_token or (secrets.token_urlsafe(32) if self.options.token else ""))
        async with AsyncExitStack() as held:  # if the start fails, all is released
            held.callback(os.close, _locked(self.options.folder))
            await self._start_store()
            held.push_async_callback(asyncio.to_thread, self.store.stop)
            logs = self.options.folder / "log"
            logs.mkdir(exist_ok=True)
            logs.chmod(0o700)
            self.replicas = Replicas(functions_folder(), self._environ(), logs)
            for function in _functions(self.options, self.door.inner_token):
                self.replicas.add(function)
            self._client = await held.enter_async_context(httpx.AsyncClient(timeout=None, trust_env=False))
            self.broker = Broker(TRIGGERS, "advance", self.replicas, self.options.delivery)
            held.push_async_callback(self._stop_serving)
            sink = await self._serve(self.broker.app, 0)
            self.replicas.set_variable("K_SINK", f"http://127.0.0.1:{sink}/")
            self.options = _at_port(self.options, await self._serve(self._forward, self.options.port))
            self._tasks += [asyncio.create_task(self._ping()), asyncio.create_task(self._reap())]
            self._held = held.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._held.aclose()

    async def _start_store(self) -> None:
        starting = asyncio.ensure_future(asyncio.to_thread(self.store.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            self.store.give_up()
            await asyncio.wait({starting})
            starting.exception()  # mark it as retrieved
            raise

    async def _stop_serving(self) -> None:
        self.broker.forget()
        for server in self._servers:
            server.should_exit = server.force_exit = True
        for task in self._tasks:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving, timeout=STOP_S)
        await self.replicas.close()
        self.broker.forget()

    def ping(self) -> None:
        """Send the event of the PingSource, at which `advance` looks at every unfinished run."""
        self.broker.take(CloudEvent(events.PING, "/hepfaas/up", "ping", uuid.uuid4().hex, {}))

    async def _ping(self) -> None:
        while True:
            self.ping()
            await asyncio.sleep(self.options.ping_s)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_S)
            self.replicas.reap()

    def _environ(self) -> dict[str, str]:
        defaults = {"HEPFAAS_EVENT_KEYS": secrets.token_hex(32)}
        own = {
            "HEPFAAS_STORE": self.store.url,
            "HEPFAAS_OWNER": "local",
            "HEPFAAS_MAX_SCALE": str(self.options.workers),
            "HEPFAAS_ALLOW_PRIVATE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        variables = {**defaults, **self.store.environ(os.environ), **own, **self.options.variables}
        return {name: value for name, value in variables.items() if name not in COMMANDS_OWN}

    async def _serve(self, app: ASGIApp, port: int) -> int:
        """Serve an app on this machine and return its port."""
        config = uvicorn.Config(
            app,
            "127.0.0.1",
            port,
            log_level="error",
            interface="asgi3",
            http=ProtectedProtocol,
            lifespan="off",
            ws="none",
            server_header=False,
            date_header=False,
        )  # functions send both headers
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]  # `_run` handles signals
        self._servers.append(server)
        self._serving.append(asyncio.create_task(_served(server)))
        while not server.started:
            if self._serving[-1].done():
                raise RequestError(f"port {port} is in use; choose another with --port")
            await asyncio.sleep(0.01)
        return int(server.servers[0].sockets[0].getsockname()[1])

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a request to its function, and stream the response back. The function has room for another request when
        either side has closed its connection."""
        request = Request(scope, receive)
        try:
            response = self.door.login(request)
            headers = self.door.passed(request) if response is None else []
        except RequestError as error:
            status, more_headers = status_of(error) or (403, {})
            response = JSONResponse({"error": str(error)}, status, more_headers)
        if response is not None:
            protect(response.raw_headers)
            await response(scope, receive, send)
            return
        name = function_for(request)
        with suppress(ClientDisconnect, httpx.HTTPError):  # the client or the function has closed its connection
            async with AsyncExitStack() as held:
                try:
                    url = await asyncio.wait_for(held.enter_async_context(self.replicas.lent(name)), LENT_S)
                    reply = await self._client.send(_forwarded(request, url, headers), stream=True)
                    held.push_async_callback(reply.aclose)
                except (httpx.HTTPError, TimeoutError, UnavailableError) as error:
                    reason = public_text(error) or "it is busy"
                    response = JSONResponse({"error": f"function '{name}' does not answer: {reason}"}, 503)
                else:
                    kept = {key: value for key, value in reply.headers.items() if key.encode() not in HOP_BY_HOP}
                    response = StreamingResponse(reply.aiter_raw(), reply.status_code, kept)
                protect(response.raw_headers)
                await response(scope, receive, send)


def run(options: Options) -> None:
    """Run the service until Ctrl-C."""
    asyncio.run(_run(options))


async def _run(options: Options) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def stop() -> None:
        for number in STOPPING:
            loop.add_signal_handler(number, lambda: None)  # the first signal is enough
        sys.stderr.write("hepfaas: stopping\n")
        task.cancel()

    for number in STOPPING:
        loop.add_signal_handler(number, stop)
    with suppress(asyncio.CancelledError):
        async with Up(options) as system:
            sys.stderr.write(
                f"hepfaas is up at {system.login_url}; store and logs in {options.folder}\n"
                f"{SEND_TOKEN if system.door.token else ''}"
                f"Next: hepfaas submit FOLDER --url {system.url} --wait   (Ctrl-C stops the service; nothing is lost)\n"
            )
            await asyncio.Event().wait()


def _forwarded(request: Request, url: str, headers: list[tuple[bytes, bytes]]) -> httpx.Request:
    """Return a request for a function, with other headers."""
    query = request.scope["query_string"]
    target = httpx.URL(url, raw_path=request.scope["raw_path"] + (b"?" + query if query else b""))
    return httpx.Request(request.method, target, headers=headers, content=request.stream())


async def _served(server: uvicorn.Server) -> None:
    with suppress(SystemExit):  # uvicorn raises it if it cannot bind the port
        await server.serve()


def functions_folder() -> Path:
    """Return the folder of the functions' entry points: in an installed package, else in the repository."""
    here = Path(__file__).parents[1]
    installed, cloned = here / "_functions", here.parents[1] / "functions"
    return installed if installed.exists() else cloned


def _functions(options: Options, token: str) -> list[Function]:
    """Return the functions. Those that users call require `token`, unless it is empty."""
    parallel = ("survey", "prepare", "score", "apply")
    steps = [Function(name, options.workers if name in parallel else 1, 1, options.idle_s) for name in events.DOES]
    variables = {"HEPFAAS_LOCAL_TOKEN": token} if token else {}
    public = [Function(name, 1, DOOR_CONCURRENCY, options.idle_s, variables) for name in ("runs", "intake", "predict")]
    return [*steps, Function("advance", 1, 1, options.idle_s), *public]


def _at_port(options: Options, port: int) -> Options:
    return Options(**{**vars(options), "port": port})


def _locked(folder: Path) -> int:
    """Lock the folder and return the descriptor. Raises: RequestError if another `hepfaas up` has locked it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise RequestError(
            f"'{folder}' is in use by another `hepfaas up`; stop that or choose another --folder"
        ) from error
    return lock
