"""The only reader of the process's environment."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hepfaas.errors import RequestError
from hepfaas.sandbox.processes import Memory

MOST_EVENT_KEYS, LEAST_KEY = 2, 32
EVENT_KEYS = "HEPFAAS_EVENT_KEYS"
STREAM_S = 280.0
"""So long an answer goes on that comes bit by bit: Knative cuts it off at 300 s (manifests/base/function.yaml)."""


@dataclass(frozen=True)
class Settings:
    """What a process is told by its environment.

    store: address of the store, HEPFAAS_STORE; where none is given, hepfaas in the user's data folder.
    broker: URL that takes CloudEvents, K_SINK. owner: whose runs these are where nobody says who he is, HEPFAAS_OWNER.
    issuers: whose tokens count, HEPFAAS_ISSUER; audiences: for whom they must be made, HEPFAAS_AUDIENCE. roles: file
    that says which groups may do what, HEPFAAS_ROLES. event_keys: that sign events, HEPFAAS_EVENT_KEYS.
    function_event_keys: those that `advance` shares with one step function, HEPFAAS_EVENT_KEYS with its name behind.
    guarded: whether a function may not do without issuer and keys: on Knative, which sets K_SERVICE, unless
    HEPFAAS_WITHOUT_IDENTITY=1.
    hosts: names of this service beside those of this machine, HEPFAAS_HOSTS; on_knative: whether K_SERVICE is set.
    local_token: without an issuer, the bearer token of all requests, HEPFAAS_LOCAL_TOKEN.
    sources: file that says where files are read, HEPFAAS_SOURCES. hashed_bytes: largest file on a server that is
    fetched whole and identified by its content, HEPFAAS_HASHED_BYTES. credentials_keys: the first seals owners'
    credentials, all open them, HEPFAAS_CREDENTIALS_KEY.
    token, token_file, group: what commands send, HEPFAAS_TOKEN, HEPFAAS_TOKEN_FILE, HEPFAAS_GROUP.
    max_scale: instances of each step function, HEPFAAS_MAX_SCALE. budget_s: how long a request goes on with further
    steps, HEPFAAS_BUDGET_S. deadline_s: how long one may take, HEPFAAS_DEADLINE_S.
    learner_memory_mb: that a model's code may take, HEPFAAS_LEARNER_MEMORY_MB. learner_cpus: processors that it may run
    on, HEPFAAS_LEARNER_CPUS. learner_scratch_mb: of the disk, HEPFAAS_LEARNER_SCRATCH_MB. learner_silence_s: how long
    it may say nothing, HEPFAAS_LEARNER_SILENCE_S. learner_without_landlock: whether it may run where the kernel cannot
    hide files from it, HEPFAAS_LEARNER_WITHOUT_LANDLOCK=1.
    worker_memory_mb: memory of a confined process that runs a graph or reads a file, HEPFAAS_WORKER_MEMORY_MB;
    workers_memory_mb: of all of them in one function, HEPFAAS_WORKERS_MEMORY_MB. predict_threads: processes that run
    graphs of one owner, HEPFAAS_PREDICT_THREADS; predict_workers: of all owners, HEPFAAS_PREDICT_WORKERS.
    predict_rate: requests a second that an instance
    answers, HEPFAAS_PREDICT_RATE. predict_requests: under way at once, HEPFAAS_PREDICT_REQUESTS. predict_models: names,
    or name/version, that are in memory before it says that it is ready, HEPFAAS_PREDICT_MODELS. predict_base: what
    stands before every path, HEPFAAS_PREDICT_BASE. predict_cache_bytes: of models in memory,
    HEPFAAS_PREDICT_CACHE_BYTES. predict_waiting_bytes: of features that wait, and of bodies of requests under way,
    HEPFAAS_PREDICT_WAITING_BYTES. predict_body_bytes: of one request, HEPFAAS_PREDICT_BODY_BYTES.
    predict_stream_events: of files that are answered at once, HEPFAAS_PREDICT_STREAM_EVENTS. predict_model_bytes:
    of an uploaded model, HEPFAAS_PREDICT_MODEL_BYTES. predict_upload_s: that an upload waits until its model is
    converted, HEPFAAS_PREDICT_UPLOAD_S.
    allow_private: whether files may be read from private addresses, HEPFAAS_ALLOW_PRIVATE=1.
    most_upload_bytes: of one folder, HEPFAAS_MOST_UPLOAD_BYTES. spool_bytes: of the disk, for all uploads
    that a process has under way, HEPFAAS_SPOOL_BYTES. url: of the service that commands ask, HEPFAAS_URL.
    port: that predict-grpc listens on, PORT. metrics_port: where it tells Prometheus by HTTP, HEPFAAS_METRICS_PORT; 0:
    nowhere.
    faults: folder of a plan of faults, HEPFAAS_FAULTS; for chaos tests alone.
    """

    store: str
    broker: str = ""
    owner: str = "local"
    issuers: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    roles: str = ""
    event_keys: tuple[str, ...] = field(default=(), repr=False)
    function_event_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    guarded: bool = False
    hosts: tuple[str, ...] = ()
    on_knative: bool = False
    local_token: str = field(default="", repr=False)
    sources: str = ""
    hashed_bytes: int = 8_000_000
    credentials_keys: tuple[bytes, ...] = field(default=(), repr=False)
    token: str = field(default="", repr=False)
    token_file: str = ""
    group: str = ""
    max_scale: int = 4
    budget_s: float = 60.0
    deadline_s: float = 300.0
    learner_memory_mb: int = 8_000
    learner_cpus: int = 64
    learner_scratch_mb: int = 2_000
    learner_silence_s: float = 240.0
    learner_without_landlock: bool = False
    worker_memory_mb: int = 1_000
    workers_memory_mb: int = 2_000
    predict_threads: int = 2
    predict_workers: int = 32
    predict_rate: float = 1e9
    predict_requests: int = 1_000
    predict_models: tuple[str, ...] = ()
    predict_base: str = ""
    predict_cache_bytes: int = 1_000_000_000
    predict_waiting_bytes: int = 256_000_000
    predict_body_bytes: int = 64_000_000
    predict_stream_events: int = 1_000_000
    predict_model_bytes: int = 500_000_000
    predict_upload_s: float = 120.0
    allow_private: bool = False
    most_upload_bytes: int = 2_000_000_000
    spool_bytes: int = 6_000_000_000
    url: str = "http://127.0.0.1:8080"
    port: int = 8080
    metrics_port: int = 0
    faults: str = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """The settings that the variables give. Raises: RequestError naming the variable that is wrong."""
        data = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        return cls(
            store=(environ.get("HEPFAAS_STORE") or f"{data}/hepfaas").rstrip("/"),
            broker=environ.get("K_SINK", ""),
            owner=environ.get("HEPFAAS_OWNER", "local"),
            **_identity(environ),
            sources=environ.get("HEPFAAS_SOURCES", ""),
            hashed_bytes=int(_number(environ, "HEPFAAS_HASHED_BYTES", cls.hashed_bytes)),
            credentials_keys=tuple(
                _key(text, "HEPFAAS_CREDENTIALS_KEY") for text in _list(environ, "HEPFAAS_CREDENTIALS_KEY")
            ),
            max_scale=int(_number(environ, "HEPFAAS_MAX_SCALE", cls.max_scale)),
            budget_s=_number(environ, "HEPFAAS_BUDGET_S", cls.budget_s),
            deadline_s=_number(environ, "HEPFAAS_DEADLINE_S", cls.deadline_s),
            learner_memory_mb=int(_number(environ, "HEPFAAS_LEARNER_MEMORY_MB", cls.learner_memory_mb)),
            learner_cpus=int(_number(environ, "HEPFAAS_LEARNER_CPUS", cls.learner_cpus)),
            learner_scratch_mb=int(_number(environ, "HEPFAAS_LEARNER_SCRATCH_MB", cls.learner_scratch_mb)),
            learner_silence_s=_number(environ, "HEPFAAS_LEARNER_SILENCE_S", cls.learner_silence_s),
            learner_without_landlock=environ.get("HEPFAAS_LEARNER_WITHOUT_LANDLOCK", "") == "1",
            worker_memory_mb=int(_number(environ, "HEPFAAS_WORKER_MEMORY_MB", cls.worker_memory_mb)),
            workers_memory_mb=int(_number(environ, "HEPFAAS_WORKERS_MEMORY_MB", cls.workers_memory_mb)),
            predict_workers=int(_number(environ, "HEPFAAS_PREDICT_WORKERS", cls.predict_workers)),
            predict_threads=int(_number(environ, "HEPFAAS_PREDICT_THREADS", cls.predict_threads)),
            predict_rate=_number(environ, "HEPFAAS_PREDICT_RATE", cls.predict_rate),
            predict_requests=int(_number(environ, "HEPFAAS_PREDICT_REQUESTS", cls.predict_requests)),
            predict_models=tuple(filter(None, map(str.strip, environ.get("HEPFAAS_PREDICT_MODELS", "").split(",")))),
            predict_base=environ.get("HEPFAAS_PREDICT_BASE", "").rstrip("/"),
            predict_cache_bytes=int(_number(environ, "HEPFAAS_PREDICT_CACHE_BYTES", cls.predict_cache_bytes)),
            predict_waiting_bytes=int(_number(environ, "HEPFAAS_PREDICT_WAITING_BYTES", cls.predict_waiting_bytes)),
            predict_body_bytes=int(_number(environ, "HEPFAAS_PREDICT_BODY_BYTES", cls.predict_body_bytes)),
            predict_stream_events=int(_number(environ, "HEPFAAS_PREDICT_STREAM_EVENTS", cls.predict_stream_events)),
            predict_model_bytes=int(_number(environ, "HEPFAAS_PREDICT_MODEL_BYTES", cls.predict_model_bytes)),
            predict_upload_s=_number(environ, "HEPFAAS_PREDICT_UPLOAD_S", cls.predict_upload_s),
            allow_private=environ.get("HEPFAAS_ALLOW_PRIVATE", "") == "1",
            most_upload_bytes=int(_number(environ, "HEPFAAS_MOST_UPLOAD_BYTES", cls.most_upload_bytes)),
            spool_bytes=int(_number(environ, "HEPFAAS_SPOOL_BYTES", cls.spool_bytes)),
            url=environ.get("HEPFAAS_URL") or cls.url,
            port=int(_number(environ, "PORT", cls.port)),
            metrics_port=int(_number(environ, "HEPFAAS_METRICS_PORT", cls.metrics_port)),
            faults=_faults(environ),
        )

    @property
    def worker_memory(self) -> Memory:
        """Limits of confined workers."""
        return Memory(self.worker_memory_mb, self.workers_memory_mb)

    def keys_of_events(self) -> tuple[str, ...]:
        """Those that the events of others are known by. Raises: RequestError if there must be one and is none."""
        if self.guarded and not self.event_keys:
            raise RequestError(
                "HEPFAAS_EVENT_KEYS is empty, so that every event would count: create Secret 'event-keys' with it, "
                "of a step function 'event-keys-<function>' (docs/operate.md), or set HEPFAAS_WITHOUT_IDENTITY=1 if "
                "that is meant"
            )
        return self.event_keys


def _faults(environ: Mapping[str, str]) -> str:
    folder = environ.get("HEPFAAS_FAULTS", "")
    if folder and environ.get("K_SERVICE"):
        raise RequestError(
            f"HEPFAAS_FAULTS is '{folder}', a plan of faults that kill functions: it is for chaos tests alone and may "
            "not be set on Knative; remove it"
        )
    return folder


def _identity(environ: Mapping[str, str]) -> dict[str, Any]:
    """Who may ask, what signs events, and what commands say of themselves."""
    issuers = _list(environ, "HEPFAAS_ISSUER")
    for url in issuers:
        if not url.startswith(("https://", "http://")):
            raise RequestError(f"HEPFAAS_ISSUER has '{url}'; an issuer is an https:// address")
    of_functions = {
        name.removeprefix(f"{EVENT_KEYS}_").lower(): _event_keys(environ, name)
        for name in environ
        if name.startswith(f"{EVENT_KEYS}_")
    }
    local_token = environ.get("HEPFAAS_LOCAL_TOKEN", "")
    if local_token and (issuers or len(local_token) < LEAST_KEY):
        raise RequestError(
            f"HEPFAAS_LOCAL_TOKEN takes {LEAST_KEY} characters or more, and goes without HEPFAAS_ISSUER, whose tokens "
            "tell who asks"
        )
    return {
        "hosts": tuple(host.lower() for host in _list(environ, "HEPFAAS_HOSTS")),
        "on_knative": bool(environ.get("K_SERVICE")),
        "local_token": local_token,
        "issuers": issuers,
        "audiences": _list(environ, "HEPFAAS_AUDIENCE"),
        "roles": environ.get("HEPFAAS_ROLES", ""),
        "event_keys": _event_keys(environ, EVENT_KEYS),
        "function_event_keys": of_functions,
        "guarded": bool(environ.get("K_SERVICE")) and environ.get("HEPFAAS_WITHOUT_IDENTITY", "") != "1",
        "token": environ.get("HEPFAAS_TOKEN", ""),
        "token_file": environ.get("HEPFAAS_TOKEN_FILE", ""),
        "group": environ.get("HEPFAAS_GROUP", ""),
    }


def _event_keys(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    keys = _list(environ, name)
    if len(keys) > MOST_EVENT_KEYS or any(len(key) < LEAST_KEY for key in keys):
        raise RequestError(f"{name} takes one key or two, of {LEAST_KEY} characters or more each")
    return keys


def _key(text: str, name: str) -> bytes:
    """A key of 32 bytes."""
    try:
        found = base64.b64decode(text, altchars=b"-_", validate=True)
    except ValueError:
        found = b""
    if len(found) != LEAST_KEY:
        raise RequestError(
            f"{name} is no key: it takes {LEAST_KEY} random bytes as URL-safe base64, commas between several"
        )
    return found


def _list(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in environ.get(name, "").split(",") if part.strip())


def _number(environ: Mapping[str, str], name: str, usual: float) -> float:
    text = environ.get(name, "")
    if not text:
        return usual
    try:
        value = float(text)
    except ValueError as error:
        raise RequestError(f"{name} is '{text}'; it takes a number") from error
    if value <= 0:
        raise RequestError(f"{name} is {text}; it takes a number above 0")
    return value
