"""The only reader of the process's environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hepfaas.errors import RequestError


@dataclass(frozen=True)
class Settings:
    """What a process is told by its environment.

    store: address of the store, HEPFAAS_STORE; where none is given, hepfaas in the user's data folder.
    broker: URL that takes CloudEvents, K_SINK. owner: whose runs these are, HEPFAAS_OWNER.
    max_scale: instances of each step function, HEPFAAS_MAX_SCALE. budget_s: how long a request goes on with further
    steps, HEPFAAS_BUDGET_S. deadline_s: how long one may take, HEPFAAS_DEADLINE_S.
    allow_private: whether files may be read from private addresses, HEPFAAS_ALLOW_PRIVATE=1.
    most_upload_bytes: of one folder, HEPFAAS_MOST_UPLOAD_BYTES. url: of the service that commands ask, HEPFAAS_URL.
    faults: folder of a plan of faults, HEPFAAS_FAULTS; for chaos tests alone.
    """

    store: str
    broker: str = ""
    owner: str = "local"
    max_scale: int = 4
    budget_s: float = 60.0
    deadline_s: float = 300.0
    allow_private: bool = False
    most_upload_bytes: int = 2_000_000_000
    url: str = "http://127.0.0.1:8080"
    faults: str = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """The settings that the variables give. Raises: RequestError naming the variable that is wrong."""
        data = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        return cls(
            store=(environ.get("HEPFAAS_STORE") or f"{data}/hepfaas").rstrip("/"),
            broker=environ.get("K_SINK", ""),
            owner=environ.get("HEPFAAS_OWNER", "local"),
            max_scale=int(_number(environ, "HEPFAAS_MAX_SCALE", cls.max_scale)),
            budget_s=_number(environ, "HEPFAAS_BUDGET_S", cls.budget_s),
            deadline_s=_number(environ, "HEPFAAS_DEADLINE_S", cls.deadline_s),
            allow_private=environ.get("HEPFAAS_ALLOW_PRIVATE", "") == "1",
            most_upload_bytes=int(_number(environ, "HEPFAAS_MOST_UPLOAD_BYTES", cls.most_upload_bytes)),
            url=environ.get("HEPFAAS_URL") or cls.url,
            faults=environ.get("HEPFAAS_FAULTS", ""),
        )


def _number(environ: Mapping[str, str], name: str, usual: float) -> float:
    text = environ.get(name, "")
    try:
        value = float(text) if text else usual
    except ValueError as error:
        raise RequestError(f"{name} is '{text}'; it takes a number") from error
    if value <= 0:
        raise RequestError(f"{name} is {text}; it takes a number above 0")
    return value
