"""The identity of callers: the bearer token of a request, which every function verifies itself, gives the owner.

Nothing else counts: not a header from a proxy, since anybody can send it, and nothing in the query, since it is logged.
Without an issuer there is one owner, HEPFAAS_OWNER: a service for one person on their own machine.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hepfaas.errors import ForbiddenError, LimitError, RequestError, UnauthenticatedError
from hepfaas.platform import roles
from hepfaas.platform.oidc import Issuer, verified
from hepfaas.platform.roles import Group, Roles, roles_in
from hepfaas.platform.settings import Settings
from hepfaas.platform.storage import LEAST_BYTES, OpenedStore, is_name

KNOWN_S, MOST_KNOWN = 300.0, 4096
"""Time that a verified token is remembered, unless it expires before, and the number of remembered tokens."""

GROUP_CLAIMS = ("wlcg.groups", "groups")
"""Claims with groups: of INDIGO IAM (the WLCG profile), of Keycloak and most others. The first one counts."""

MOST_RATES, USED_S = 4096, 60.0
CHALLENGE = 'Bearer realm="hepfaas"'


@dataclass(frozen=True)
class IdentityHeaders:
    """The headers of a request that identify its sender. group: on whose behalf. owner: whose objects an admin asks
    for."""

    authorization: str = ""
    group: str = ""
    owner: str = ""

    @classmethod
    def from_headers(cls, get: Callable[[str], str | None]) -> IdentityHeaders:
        """Return the values of headers."""
        return cls(*(get(name) or "" for name in ("Authorization", "Hepfaas-Group", "Hepfaas-Owner")))

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[Any, Any]]) -> IdentityHeaders:
        """Return the values in pairs of headers or metadata. Repeated headers are joined, which makes them invalid."""
        values: dict[str, str] = {}
        for key, value in pairs:
            if field := _FIELDS.get(key):
                text = value.decode("latin-1") if isinstance(value, bytes) else value
                values[field] = f"{values[field]},{text}" if field in values else text
        return cls(**values)


_FIELDS: dict[str | bytes, str] = {
    key: field
    for name, field in (("authorization", "authorization"), ("hepfaas-group", "group"), ("hepfaas-owner", "owner"))
    for key in (name, name.encode())
}
"""The field of each header, by its name in gRPC and in ASGI."""


@dataclass(frozen=True)
class Caller:
    """The sender of a request. owner: key prefix of everything the owner has. group: on whose behalf the caller acts,
    '' for the caller. visits: whether it is an admin who acts for another owner.
    """

    owner: str
    issuer: str = ""
    subject: str = ""
    name: str = ""
    groups: tuple[str, ...] = ()
    group: str = ""
    is_publisher: bool = True
    is_admin: bool = False
    visits: bool = False

    @property
    def memberships(self) -> list[Group]:
        """The caller's groups, each with its issuer."""
        return memberships_of(self.submitter())

    def submitter(self) -> dict[str, Any]:
        """Return the values that are stored with a request; the groups decide which files may be read for it."""
        values = {"issuer": self.issuer, "subject": self.subject, "name": self.name, "group": self.group}
        groups = {"groups": list(self.groups)} if self.groups else {}
        return {**{key: value for key, value in values.items() if value}, **groups}

    def to_json(self) -> dict[str, Any]:
        """Return the values that the caller may see."""
        rights = {"publisher": self.is_publisher, "admin": self.is_admin}
        return {"owner": self.owner, **self.submitter(), "groups": list(self.groups), **rights}


def memberships_of(submitter: Mapping[str, Any]) -> list[Group]:
    """Return the groups of a stored submitter."""
    return [(submitter["issuer"], name) for name in submitter.get("groups", ())]


class Rate:
    """A rate limit: `per_s` requests a second, and as many at once after a second without any."""

    def __init__(self, per_s: float, now: float) -> None:
        self._per_s, self._left, self._at = per_s, max(1.0, per_s), now

    def take(self, now: float) -> None:
        """Count one request, at a time of `time.perf_counter`. Raises: LimitError if it exceeds the rate."""
        self._left = min(max(1.0, self._per_s), self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            raise LimitError(f"more than {self._per_s:g} requests a second; try again in a second")
        self._left -= 1


class Identity:
    """Identifies callers. Threads may share it. most_rate: requests a second of an owner, unless the owner's limit is
    lower.

    Raises: RequestError naming the setting that is wrong.
    """

    def __init__(
        self, settings: Settings, most_rate: float = float("inf"), clock: Callable[[], float] = time.time
    ) -> None:
        if settings.guarded and not settings.issuers:
            raise RequestError(
                f"HEPFAAS_ISSUER is empty, so that everybody would be owner '{settings.owner}' and an admin: set "
                "issuer, clients and audiences in ConfigMap 'identity' of your overlay (manifests/overlays/site), or "
                "HEPFAAS_WITHOUT_IDENTITY=1 if that is intended"
            )
        if bool(settings.issuers) != bool(settings.audiences):
            raise RequestError(
                "HEPFAAS_ISSUER and HEPFAAS_AUDIENCE go together: the issuer of tokens and their audience; on Knative "
                "both come from ConfigMap 'identity'"
            )
        self._issuers = {url: Issuer(url) for url in settings.issuers}
        self._audiences, self._clock = settings.audiences, clock
        self.roles = roles_in(settings.roles, settings.issuers[0] if settings.issuers else "")
        sole = Caller(settings.owner, is_admin=True) if not settings.issuers else None
        self._local_token = settings.local_token.encode()
        self._anybody = None if self._local_token else sole
        self._by_local_token = sole if self._local_token else None
        self._known: OrderedDict[tuple[bytes, str, str], tuple[float, Caller]] = OrderedDict()
        self._lock = threading.Lock()
        self._rate_of = lru_cache(MOST_RATES)(
            lambda owner: Rate(min(most_rate, self.roles.limits_of(owner).requests_per_s), time.perf_counter())
        )

    @property
    def is_on(self) -> bool:
        """Return whether requests need a token."""
        return self._anybody is None

    def known(self, headers: IdentityHeaders | None) -> Caller | None:
        """Return the caller if the token was verified recently, as for most requests, else None."""
        if self._anybody is not None or headers is None:
            return self._anybody
        key, now = _key(headers), self._clock()
        with self._lock:
            until, caller = self._known.get(key, (0.0, None))
            if caller is not None:
                self._known.move_to_end(key)
        return caller if now < until else None

    def caller(self, headers: IdentityHeaders) -> Caller:
        """Return the caller. Raises: UnauthenticatedError; ForbiddenError; UnavailableError if an issuer does not
        answer."""
        if caller := self.known(headers):
            return caller
        scheme, _, token = headers.authorization.partition(" ")
        if not headers.authorization:
            raise UnauthenticatedError("there is no token; send one as 'Authorization: Bearer …'")
        if scheme.lower() != "bearer":
            raise UnauthenticatedError("'Authorization' takes a bearer token, 'Bearer …'")
        if self._by_local_token:
            if not hmac.compare_digest(token.strip().encode(), self._local_token):
                raise UnauthenticatedError("the token is not the one of this service (HEPFAAS_LOCAL_TOKEN)")
            caller, until = self._by_local_token, self._clock() + KNOWN_S
        else:
            claims = verified(token.strip(), self._issuers, self._audiences, self._clock())
            caller = _caller_of(claims, headers, self.roles)
            until = min(float(claims["exp"]), self._clock() + KNOWN_S)
        with self._lock:
            self._known[_key(headers)] = (until, caller)
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        return caller

    def admitted(self, headers: IdentityHeaders) -> Caller:
        """Return the caller, and count the request. Raises: as `caller` and `admit`."""
        caller = self.caller(headers)
        self.admit(caller)
        return caller

    def admit(self, caller: Caller) -> None:
        """Count a request of the caller's owner. Raises: LimitError if there are too many a second."""
        self._rate_of(caller.owner).take(time.perf_counter())


class Quotas:
    """The limits of owners on runs and bytes. root: the store with the keys of all owners. Each instance lists an
    owner's objects at most once in USED_S, and adds what it writes itself in between; so requests to several instances,
    and the results of runs, may exceed the limit for that time.
    """

    def __init__(self, found: Roles, root: OpenedStore) -> None:
        self._roles, self._root = found, root
        self._used: dict[str, tuple[float, int]] = {}

    def check_runs(self, owner: str) -> None:
        """Check that the owner may start a run. Raises: LimitError if the owner has the permitted number of unfinished
        or requested runs; ForbiddenError if none are permitted."""
        most = self._roles.limits_of(owner).runs
        if most == float("inf"):
            return
        runs: set[str] = set()  # a run that is just starting is in both lists
        for key in itertools.chain(self._root.keys(f"active/{owner}/"), self._root.keys(f"asked/{owner}/")):
            runs.add(key.rpartition("/")[2])
            if len(runs) >= most:
                raise LimitError(f"'{owner}' has {most:g} unfinished runs, which is the limit; wait for one to end")
        if not most:
            raise ForbiddenError(f"'{owner}' may not start runs")

    def check_bytes(self, owner: str, more_bytes: int = LEAST_BYTES) -> None:
        """Add `more_bytes`, which are about to be written, to what the owner stores.

        Raises: ForbiddenError if that would exceed the owner's limit.
        """
        most = self._roles.limits_of(owner).bytes
        if most == float("inf"):
            return
        at, used = self._used.get(owner, (-USED_S, 0))
        if time.monotonic() - at > USED_S:
            used = self._root.below(owner).used_bytes()
            at = time.monotonic()
        is_too_much = used + more_bytes > most
        self._used[owner] = (at, used if is_too_much else used + more_bytes)
        if is_too_much:
            raise ForbiddenError(
                f"what '{owner}' stores has {used / 1e9:.3f} GB, {more_bytes / 1e9:.3f} GB would come, and "
                f"{most / 1e9:.3f} GB is the limit (an object counts as {LEAST_BYTES:,} bytes at least); ask the "
                "operator for more: deleting runs or versions of models frees little, as the results of steps stay"
            )


def _key(headers: IdentityHeaders) -> tuple[bytes, str, str]:
    """Return the cache key of headers, without the token itself."""
    return hashlib.sha256(headers.authorization.encode()).digest(), headers.group, headers.owner


def _caller_of(claims: Mapping[str, Any], headers: IdentityHeaders, known: Roles) -> Caller:
    issuer, subject, names = str(claims["iss"]), str(claims["sub"]), _groups_in(claims)
    groups = [(issuer, name) for name in names]
    if not roles.may(known.users, groups):
        raise ForbiddenError(f"'{subject}' is in no group that may use this service; the token has {_listed(names)}")
    if headers.group and headers.group not in names:
        raise ForbiddenError(f"'{subject}' is not in group '{headers.group[:100]}'; the token has {_listed(names)}")
    kind, name = ("group", headers.group) if headers.group else ("user", subject)
    owner, admin = roles.owner_of(kind, issuer, name), roles.may(known.admins, groups)
    visits = headers.owner not in ("", owner)
    if visits and not admin:
        raise ForbiddenError("only an admin may name another owner in 'Hepfaas-Owner'")
    if visits and not is_name(headers.owner):
        raise ForbiddenError("'Hepfaas-Owner' is not the name of an owner; GET /v1/owners lists them")
    return Caller(
        owner=headers.owner if visits else owner,
        issuer=issuer,
        subject=subject,
        name=str(claims.get("preferred_username") or claims.get("name") or ""),
        groups=tuple(names),
        group=headers.group,
        is_publisher=roles.may(known.publishers, groups),
        is_admin=admin,
        visits=visits,
    )


def _groups_in(claims: Mapping[str, Any]) -> list[str]:
    groups: Any = next((claims[name] for name in GROUP_CLAIMS if name in claims), [])
    return [name for name in groups if isinstance(name, str) and name] if isinstance(groups, list) else []


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) or "no groups"
