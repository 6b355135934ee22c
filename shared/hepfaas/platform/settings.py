"""The settings of a process, each declared once. The only reader of the process's environment.

`make settings` writes the table in docs/reference/settings.md from these declarations.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from hepfaas.errors import RequestError
from hepfaas.sandbox.processes import Memory

MOST_EVENT_KEYS, LEAST_KEY = 2, 32
EVENT_KEYS = "HEPFAAS_EVENT_KEYS"
STREAM_S = 280.0
"""Longest streamed answer: Knative cuts it off at 300 s (manifests/base/function.yaml)."""

TABLE_BEGINS, TABLE_ENDS = "<!-- settings: written by make settings -->\n", "<!-- end of settings -->\n"

T = TypeVar("T")


def _path(text: str, name: str) -> str:
    return text.rstrip("/")


def _names(text: str, name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _hosts(text: str, name: str) -> tuple[str, ...]:
    return _names(text.lower(), name)


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise RequestError(f"{name} is '{text}'; it takes a number") from error
    if value <= 0:
        raise RequestError(f"{name} is {text}; it takes a number above 0")
    return value


def _whole(text: str, name: str) -> int:
    return int(_number(text, name))


_PARSERS: Mapping[type[Any], Callable[[str, str], Any]] = {
    str: lambda text, name: text,
    bool: lambda text, name: text == "1",
    int: _whole,
    float: _number,
    tuple: _names,
}


def _issuers(text: str, name: str) -> tuple[str, ...]:
    urls = _names(text, name)
    for url in urls:
        if not url.startswith(("https://", "http://")):
            raise RequestError(f"{name} has '{url}'; an issuer is an https:// address")
    return urls


def _local_token(text: str, name: str) -> str:
    if len(text) < LEAST_KEY:
        raise RequestError(f"{name} takes {LEAST_KEY} characters or more")
    return text


def _event_keys(text: str, name: str) -> tuple[str, ...]:
    keys = _names(text, name)
    if len(keys) > MOST_EVENT_KEYS or any(len(key) < LEAST_KEY for key in keys):
        raise RequestError(f"{name} takes one key or two, of {LEAST_KEY} characters or more each")
    return keys


def _sealing_keys(text: str, name: str) -> tuple[bytes, ...]:
    return tuple(_sealing_key(part, name) for part in _names(text, name))


def _sealing_key(text: str, name: str) -> bytes:
    try:
        key = base64.b64decode(text, altchars=b"-_", validate=True)
    except ValueError:
        key = b""
    if len(key) != LEAST_KEY:
        raise RequestError(
            f"{name} is not a key: it takes {LEAST_KEY} random bytes as URL-safe base64, commas between several"
        )
    return key


def _setting(
    variable: str,
    default: T,
    text: str,
    *,
    parse: Callable[[str, str], T] | None = None,
    shown: str = "",
    secret: bool = False,
) -> T:
    """Declare a setting: its variable, its default where that is unset or empty, and its text in the documentation.

    parse: turns the variable's text into the value; by default it follows from the type of the default.
    shown: the default as the documentation shows it. secret: keep the value out of `repr`.
    """
    metadata = {"variable": variable, "parse": parse or _PARSERS[type(default)], "text": text, "shown": shown}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The settings of a process. Beside the declared variables:

    on_knative: whether K_SERVICE is set. guarded: whether a function must have an issuer and event keys.
    function_event_keys: the keys that `advance` shares with a step function, by its name.
    """

    store: str = field(
        metadata={
            "variable": "HEPFAAS_STORE",
            "parse": _path,
            "text": "object store: a folder or `s3://bucket/prefix`, with the usual `AWS_*` variables",
            "shown": "`~/.local/share/hepfaas`",
        }
    )
    url: str = _setting(
        "HEPFAAS_URL", "http://127.0.0.1:8080", "service that commands with `--url` send their requests to"
    )
    broker: str = _setting("K_SINK", "", "URL of the broker that takes CloudEvents")
    port: int = _setting("PORT", 8080, "port that a function listens on")
    metrics_port: int = _setting(
        "HEPFAAS_METRICS_PORT", 0, "port at which `predict-grpc` answers `/metrics` by HTTP; `predict` has it at `PORT`"
    )
    owner: str = _setting("HEPFAAS_OWNER", "local", "owner of all runs and models of a service without an issuer")
    issuers: tuple[str, ...] = _setting(
        "HEPFAAS_ISSUER",
        (),
        "issuers whose tokens `runs`, `intake`, `predict` and `predict-grpc` accept, commas between several: "
        "[identity.md](identity.md)",
        parse=_issuers,
    )
    audiences: tuple[str, ...] = _setting(
        "HEPFAAS_AUDIENCE",
        (),
        "audiences, one of which a token must have, commas between several; required with an issuer",
    )
    roles: str = _setting("HEPFAAS_ROLES", "", "path of a JSON file with the rights of groups and the limits of owners")
    sources: str = _setting(
        "HEPFAAS_SOURCES",
        "",
        "path of a JSON file with the addresses that may be read, by which groups, and the caches and origins of "
        "federations: [reading.md](reading.md)",
    )
    hashed_bytes: int = _setting(
        "HEPFAAS_HASHED_BYTES",
        8_000_000,
        "largest file on a server that is fetched whole and identified by its content; larger ones are identified by "
        "their address: [reading.md](reading.md#identity-of-a-file). All functions must have the same value",
    )
    credentials_keys: tuple[bytes, ...] = _setting(
        "HEPFAAS_CREDENTIALS_KEY",
        (),
        "32 random bytes, URL-safe base64, that encrypt owners' credentials for file servers; without it none are "
        "stored. Of several, commas between them, the first encrypts and all decrypt",
        secret=True,
        parse=_sealing_keys,
    )
    hosts: tuple[str, ...] = _setting(
        "HEPFAAS_HOSTS",
        (),
        "host names of this service, commas between several; `.example.org` stands for all names below it, `*` for "
        "every name: [identity.md](identity.md#pages-of-other-sites)",
        parse=_hosts,
    )
    local_token: str = _setting(
        "HEPFAAS_LOCAL_TOKEN",
        "",
        "bearer token, of 32 characters or more, that every request to a service without an issuer must have: "
        "[identity.md](identity.md#a-token-for-one-machine)",
        secret=True,
        parse=_local_token,
    )
    event_keys: tuple[str, ...] = _setting(
        EVENT_KEYS,
        (),
        "one or two keys that sign events, of 32 characters or more: the first signs, both verify; without a key, "
        "unsigned events are accepted. `hepfaas up` generates one",
        secret=True,
        parse=_event_keys,
    )
    function_event_keys: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict,
        repr=False,
        metadata={
            "variable": f"{EVENT_KEYS}_<FUNCTION>",
            "text": f"for `advance`: the keys that it shares with one step function, which has them as `{EVENT_KEYS}`",
            "shown": f"`{EVENT_KEYS}`",
        },
    )
    guarded: bool = field(
        default=False,
        metadata={
            "variable": "HEPFAAS_WITHOUT_IDENTITY",
            "text": "`1`: functions on Knative, where `K_SERVICE` is set, start without an issuer and event keys too, "
            "open to everybody who can reach them",
        },
    )
    on_knative: bool = False
    token: str = _setting("HEPFAAS_TOKEN", "", "bearer token that commands send to a service", secret=True)
    token_file: str = _setting("HEPFAAS_TOKEN_FILE", "", "file with that token, read for each request")
    group: str = _setting("HEPFAAS_GROUP", "", "group on whose behalf commands send requests")
    max_scale: int = _setting(
        "HEPFAAS_MAX_SCALE",
        4,
        "instances of each step function; about twice as many steps are under way at a time, shared by all runs: each "
        "run may have two, and steps that are sent again are not limited",
    )
    budget_s: float = _setting(
        "HEPFAAS_BUDGET_S", 60.0, "time after which `train` starts no further step in the same request"
    )
    deadline_s: float = _setting(
        "HEPFAAS_DEADLINE_S",
        300.0,
        "longest time of a request; a step without a result is sent again after twice that time",
    )
    learner_memory_mb: int = _setting(
        "HEPFAAS_LEARNER_MEMORY_MB",
        8_000,
        "private memory of the process that runs a model's code ([model](model.md)), in 10^6 bytes, page tables "
        "included. Its address space may be larger by 8,000 MB and 1,000 MB for each processor. A result (a "
        "checkpoint, a graph with its Keras file) may take an eighth of it, since the function holds several copies "
        "while it stores the result",
    )
    learner_cpus: int = _setting("HEPFAAS_LEARNER_CPUS", 64, "processors that this process may run on")
    learner_scratch_mb: int = _setting(
        "HEPFAAS_LEARNER_SCRATCH_MB",
        2_000,
        "disk space for all files of this process together, in 10^6 bytes, checked each second",
    )
    learner_silence_s: float = _setting(
        "HEPFAAS_LEARNER_SILENCE_S",
        240.0,
        "longest time until this process answers: for a compilation, a checkpoint, or a block of some 32,000 rows of a "
        "pass; keep it below the deadline",
    )
    learner_without_landlock: bool = _setting(
        "HEPFAAS_LEARNER_WITHOUT_LANDLOCK",
        False,
        "`1`: this process may run where the kernel has no Landlock to hide files from it; otherwise `train` and "
        "`hepfaas up` do not start there",
    )
    most_upload_bytes: int = _setting(
        "HEPFAAS_MOST_UPLOAD_BYTES", 2_000_000_000, "largest folder, as it is sent and as it is unpacked"
    )
    spool_bytes: int = _setting(
        "HEPFAAS_SPOOL_BYTES",
        6_000_000_000,
        "disk space (`TMPDIR`) for all uploads under way in one process of `runs` or `predict`, of which one owner may "
        "use two thirds. Keep it below the size of the scratch volume",
    )
    worker_memory_mb: int = _setting(
        "HEPFAAS_WORKER_MEMORY_MB",
        1_000,
        "private memory of a confined process that runs a graph or reads a file, in 10^6 bytes: in `predict`, "
        "`predict-grpc`, `apply`, `score`, `train`",
    )
    workers_memory_mb: int = _setting(
        "HEPFAAS_WORKERS_MEMORY_MB",
        2_000,
        "private memory of all these processes of one function together; beyond it the largest is killed",
    )
    predict_threads: int = _setting(
        "HEPFAAS_PREDICT_THREADS",
        2,
        "processes that compute scores of one owner at the same time; set it to the number of processors",
    )
    predict_workers: int = _setting("HEPFAAS_PREDICT_WORKERS", 32, "such processes of all owners in one instance")
    predict_rate: float = _setting(
        "HEPFAAS_PREDICT_RATE",
        1e9,
        "requests of one owner per second that an instance answers; the others get 429",
        shown="no limit",
    )
    predict_requests: int = _setting(
        "HEPFAAS_PREDICT_REQUESTS",
        1_000,
        "requests under way at once in one instance; the others get 429. As many connections again may wait; those "
        "beyond get 503",
    )
    predict_models: tuple[str, ...] = _setting(
        "HEPFAAS_PREDICT_MODELS",
        (),
        "`a,b/2`: models of `HEPFAAS_OWNER`, or versions of them, that must be in memory before `/v2/health/ready` "
        "answers 200. On a service with an issuer, set `HEPFAAS_OWNER` to the owner of these models (`user-…` or "
        "`group-…`), or no pod gets ready",
    )
    predict_base: str = _setting("HEPFAAS_PREDICT_BASE", "", "prefix of every path, such as `/tfaas`", parse=_path)
    predict_cache_bytes: int = _setting("HEPFAAS_PREDICT_CACHE_BYTES", 1_000_000_000, "memory for models")
    predict_waiting_bytes: int = _setting(
        "HEPFAAS_PREDICT_WAITING_BYTES",
        256_000_000,
        "memory for features that wait to be computed, and for long bodies and answers (16 bytes a score) of one owner "
        "at once, less half of what other owners use; beyond that 429. Also the events of one body, or its answer, in "
        "memory; beyond that 413",
    )
    predict_body_bytes: int = _setting("HEPFAAS_PREDICT_BODY_BYTES", 64_000_000, "largest body of a request")
    predict_stream_events: int = _setting(
        "HEPFAAS_PREDICT_STREAM_EVENTS",
        1_000_000,
        "most events in files whose scores are streamed at once; for more events a run is started",
    )
    predict_model_bytes: int = _setting(
        "HEPFAAS_PREDICT_MODEL_BYTES", 500_000_000, "largest uploaded model, as it is sent and as it is unpacked"
    )
    predict_upload_s: float = _setting(
        "HEPFAAS_PREDICT_UPLOAD_S",
        120.0,
        "time that an upload waits until its model is converted; then the answer is 503 with the run's name",
    )
    allow_private: bool = _setting(
        "HEPFAAS_ALLOW_PRIVATE",
        False,
        "`1`: files and webhooks may have private addresses; even then a server outside cannot redirect into a private "
        "network",
    )
    faults: str = _setting(
        "HEPFAAS_FAULTS",
        "",
        "folder with a plan of faults; for chaos tests only: a function on Knative does not start with it",
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings that the variables give. Raises: RequestError naming the variable that is wrong."""
        values: dict[str, Any] = {
            declared.name: declared.metadata["parse"](text, declared.metadata["variable"])
            for declared in fields(cls)
            if "parse" in declared.metadata and (text := environ.get(declared.metadata["variable"]))
        }
        if "local_token" in values and "issuers" in values:
            raise RequestError(
                "HEPFAAS_LOCAL_TOKEN cannot be set with HEPFAAS_ISSUER: the tokens of an issuer say who the caller is"
            )
        if "faults" in values and environ.get("K_SERVICE"):
            raise RequestError(
                f"HEPFAAS_FAULTS is '{values['faults']}', a plan of faults that kill functions: it is for chaos tests "
                "and may not be set on Knative; remove it"
            )
        data = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        on_knative = bool(environ.get("K_SERVICE"))
        return cls(
            **{"store": f"{data}/hepfaas", **values},
            function_event_keys={
                name.removeprefix(f"{EVENT_KEYS}_").lower(): _event_keys(text, name)
                for name, text in environ.items()
                if name.startswith(f"{EVENT_KEYS}_")
            },
            on_knative=on_knative,
            guarded=on_knative and environ.get("HEPFAAS_WITHOUT_IDENTITY", "") != "1",
        )

    @property
    def worker_memory(self) -> Memory:
        """Memory limits of confined workers."""
        return Memory(self.worker_memory_mb, self.workers_memory_mb)

    def keys_of_events(self) -> tuple[str, ...]:
        """Return the keys that verify incoming events. Raises: RequestError if a key is required and none is set."""
        if self.guarded and not self.event_keys:
            raise RequestError(
                "HEPFAAS_EVENT_KEYS is empty, so that every event would be accepted: create Secret 'event-keys' with "
                "it, of a step function 'event-keys-<function>' (docs/how-to/operate.md), or set "
                "HEPFAAS_WITHOUT_IDENTITY=1 if that is intended"
            )
        return self.event_keys


def documented(document: str) -> str:
    """Return a document with the table of all settings between its markers."""
    before, _, rest = document.partition(TABLE_BEGINS)
    _, _, after = rest.partition(TABLE_ENDS)
    rows = [
        f"| `{declared.metadata['variable']}` | {_shown(declared)} | {declared.metadata['text']} |\n"
        for declared in fields(Settings)
        if declared.metadata
    ]
    table = "".join(["| variable | default | meaning |\n", "|---|---|---|\n", *rows])
    return f"{before}{TABLE_BEGINS}{table}{TABLE_ENDS}{after}"


def _shown(declared: Any) -> str:
    """Return the default of a setting as the documentation shows it."""
    shown: str = declared.metadata.get("shown", "")
    if shown or declared.default in ("", (), 0):
        return shown
    return f"`{declared.default}`" if isinstance(declared.default, str) else f"{declared.default:.0f}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(documented(path.read_text()))
