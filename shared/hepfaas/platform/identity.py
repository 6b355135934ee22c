"""Who asks: the bearer token of a request, verified again whatever stands before the function, gives the owner.

Nothing else says who asks: no header that a proxy sets, as anybody can send it, and nothing in the query, as it is
logged. Without an issuer there is one owner, HEPFAAS_OWNER: a service for one person, on his own machine.
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
from hepfaas.platform.storage import LEAST_BYTES, Opened, is_name

KNOWN_S, MOST_KNOWN = 300.0, 4096
"""A verified token is known so long, if it does not expire before, and so many of them."""

GROUP_CLAIMS = ("wlcg.groups", "groups")
"""Where groups are: of INDIGO IAM (the WLCG profile), of Keycloak and most others. The first that is there."""

MOST_RATES, USED_S = 4096, 60.0
CHALLENGE = 'Bearer realm="hepfaas"'


@dataclass(frozen=True)
class Presented:
    """What a request says of who sends it. group: for which it is done. owner: whose things an admin wants to see."""

    authorization: str = ""
    group: str = ""
    owner: str = ""

    @classmethod
    def by(cls, get: Callable[[str], str | None]) -> Presented:
        """What headers say."""
        return cls(*(get(name) or "" for name in ("Authorization", "Hepfaas-Group", "Hepfaas-Owner")))

    @classmethod
    def in_pairs(cls, pairs: Iterable[tuple[Any, Any]]) -> Presented:
        """What headers or metadata say. One that comes twice is none that holds."""
        found: dict[str, str] = {}
        for key, value in pairs:
            if field := _FIELDS.get(key):
                text = value.decode("latin-1") if isinstance(value, bytes) else value
                found[field] = f"{found[field]},{text}" if field in found else text
        return cls(**found)


_FIELDS: dict[str | bytes, str] = {
    key: field
    for name, field in (("authorization", "authorization"), ("hepfaas-group", "group"), ("hepfaas-owner", "owner"))
    for key in (name, name.encode())
}
"""What each header says, by its name in gRPC and in ASGI."""


@dataclass(frozen=True)
class Caller:
    """Who asks. owner: the first part of the keys of all that is his. group: for which he asks, '' for himself.

    visits: an admin who looks at what is another's.
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
        """His groups, each with the issuer that tells it."""
        return memberships_of(self.submitter())

    def submitter(self) -> dict[str, Any]:
        """What is remembered of him with what he asks for; his groups too, as they say what may be read for him."""
        said = {"issuer": self.issuer, "subject": self.subject, "name": self.name, "group": self.group}
        said_groups = {"groups": list(self.groups)} if self.groups else {}
        return {**{key: value for key, value in said.items() if value}, **said_groups}

    def to_json(self) -> dict[str, Any]:
        """What he may know of himself."""
        may = {"publisher": self.is_publisher, "admin": self.is_admin}
        return {"owner": self.owner, **self.submitter(), "groups": list(self.groups), **may}


def memberships_of(submitter: Mapping[str, Any]) -> list[Group]:
    """The groups of who is remembered so."""
    return [(submitter["issuer"], name) for name in submitter.get("groups", ())]


class Rate:
    """So many requests a second, and as many at once after a quiet second."""

    def __init__(self, per_s: float, now: float) -> None:
        self._per_s, self._left, self._at = per_s, max(1.0, per_s), now

    def take(self, now: float) -> None:
        """One more, at a time of `time.perf_counter`. Raises: LimitError if it is one too many."""
        self._left = min(max(1.0, self._per_s), self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            raise LimitError(f"more than {self._per_s:g} requests a second; ask again in a second")
        self._left -= 1


class Identity:
    """Tells who asks; threads may share it. most_rate: requests a second of an owner, if his limit is not lower.

    Raises: RequestError naming the setting that is wrong.
    """

    def __init__(
        self, settings: Settings, most_rate: float = float("inf"), clock: Callable[[], float] = time.time
    ) -> None:
        if settings.guarded and not settings.issuers:
            raise RequestError(
                f"HEPFAAS_ISSUER is empty, so that everybody would be owner '{settings.owner}' and an admin: set "
                "issuer, clients and audiences in ConfigMap 'identity' of your overlay (manifests/overlays/site), or "
                "HEPFAAS_WITHOUT_IDENTITY=1 if that is meant"
            )
        if bool(settings.issuers) != bool(settings.audiences):
            raise RequestError(
                "HEPFAAS_ISSUER and HEPFAAS_AUDIENCE go together: whose tokens count, and for whom made; on Knative "
                "both come of ConfigMap 'identity'"
            )
        self._issuers = {url: Issuer(url) for url in settings.issuers}
        self._audiences, self._clock = settings.audiences, clock
        self.roles = roles_in(settings.roles, settings.issuers[0] if settings.issuers else "")
        alone = Caller(settings.owner, is_admin=True) if not settings.issuers else None
        self._local_token = settings.local_token.encode()
        self._anybody = None if self._local_token else alone
        self._by_local_token = alone if self._local_token else None
        self._known: OrderedDict[tuple[bytes, str, str], tuple[float, Caller]] = OrderedDict()
        self._lock = threading.Lock()
        self._rate_of = lru_cache(MOST_RATES)(
            lambda owner: Rate(min(most_rate, self.roles.limits_of(owner).requests_per_s), time.perf_counter())
        )

    @property
    def is_on(self) -> bool:
        """Whether tokens say who asks."""
        return self._anybody is None

    def known(self, presented: Presented | None) -> Caller | None:
        """Who asks, if his token was verified a moment ago: the way of nearly every request. None if not known."""
        if self._anybody is not None or presented is None:
            return self._anybody
        place, now = _place(presented), self._clock()
        with self._lock:
            until, caller = self._known.get(place, (0.0, None))
            if caller is not None:
                self._known.move_to_end(place)
        return caller if now < until else None

    def caller(self, presented: Presented) -> Caller:
        """Who asks. Raises: UnauthenticatedError; ForbiddenError; UnavailableError if an issuer tells no keys."""
        if caller := self.known(presented):
            return caller
        scheme, _, token = presented.authorization.partition(" ")
        if not presented.authorization:
            raise UnauthenticatedError("there is no token; send one as 'Authorization: Bearer …'")
        if scheme.lower() != "bearer":
            raise UnauthenticatedError("'Authorization' takes a bearer token, 'Bearer …'")
        if self._by_local_token:
            if not hmac.compare_digest(token.strip().encode(), self._local_token):
                raise UnauthenticatedError("the token is not the one of this service (HEPFAAS_LOCAL_TOKEN)")
            caller, until = self._by_local_token, self._clock() + KNOWN_S
        else:
            claims = verified(token.strip(), self._issuers, self._audiences, self._clock())
            caller = _caller_of(claims, presented, self.roles)
            until = min(float(claims["exp"]), self._clock() + KNOWN_S)
        with self._lock:
            self._known[_place(presented)] = (until, caller)
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        return caller

    def admitted(self, presented: Presented) -> Caller:
        """Who asks, one more request of his taken. Raises: as `caller` and `admit`."""
        caller = self.caller(presented)
        self.admit(caller)
        return caller

    def admit(self, caller: Caller) -> None:
        """One more request of his owner. Raises: LimitError if there are too many a second."""
        self._rate_of(caller.owner).take(time.perf_counter())


class Quotas:
    """Whether an owner may have more. root: the store above all owners. What is in the store is counted by listing it,
    at most once in USED_S for each instance, and what this instance writes meanwhile is added: requests to several
    instances, and what runs write, may pass the limit together for so long.
    """

    def __init__(self, found: Roles, root: Opened) -> None:
        self._roles, self._root = found, root
        self._used: dict[str, tuple[float, int]] = {}

    def check_runs(self, owner: str) -> None:
        """Raises: LimitError if the owner has as many runs as he may have that are unfinished or asked for."""
        most = self._roles.limits_of(owner).runs
        if most == float("inf"):
            return
        runs: set[str] = set()  # one that begins just now is in both lists
        for key in itertools.chain(self._root.keys(f"active/{owner}/"), self._root.keys(f"asked/{owner}/")):
            runs.add(key.rpartition("/")[2])
            if len(runs) >= most:
                raise LimitError(f"'{owner}' has {most:g} unfinished runs, which is the limit; wait for one to end")
        if not most:
            raise ForbiddenError(f"'{owner}' may begin no runs")

    def check_bytes(self, owner: str, more_bytes: int = LEAST_BYTES) -> None:
        """Count what is about to be written for the owner, `more_bytes`, to what he stores.

        Raises: ForbiddenError if that would be more than he may have.
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


def _place(presented: Presented) -> tuple[bytes, str, str]:
    """Where a token is remembered: not by what could be stolen."""
    return hashlib.sha256(presented.authorization.encode()).digest(), presented.group, presented.owner


def _caller_of(claims: Mapping[str, Any], presented: Presented, found: Roles) -> Caller:
    issuer, subject, names = str(claims["iss"]), str(claims["sub"]), _groups_in(claims)
    groups = [(issuer, name) for name in names]
    if not roles.may(found.users, groups):
        raise ForbiddenError(f"'{subject}' is in no group that may use this service; the token tells {_told(names)}")
    if presented.group and presented.group not in names:
        raise ForbiddenError(f"'{subject}' is not in group '{presented.group[:100]}'; the token tells {_told(names)}")
    kind, name = ("group", presented.group) if presented.group else ("user", subject)
    owner, admin = roles.owner_of(kind, issuer, name), roles.may(found.admins, groups)
    visits = presented.owner not in ("", owner)
    if visits and not admin:
        raise ForbiddenError("only an admin may name another owner in 'Hepfaas-Owner'")
    if visits and not is_name(presented.owner):
        raise ForbiddenError("'Hepfaas-Owner' is no name of an owner; GET /v1/owners lists them")
    return Caller(
        owner=presented.owner if visits else owner,
        issuer=issuer,
        subject=subject,
        name=str(claims.get("preferred_username") or claims.get("name") or ""),
        groups=tuple(names),
        group=presented.group,
        is_publisher=roles.may(found.publishers, groups),
        is_admin=admin,
        visits=visits,
    )


def _groups_in(claims: Mapping[str, Any]) -> list[str]:
    found: Any = next((claims[name] for name in GROUP_CLAIMS if name in claims), [])
    return [name for name in found if isinstance(name, str) and name] if isinstance(found, list) else []


def _told(names: list[str]) -> str:
    return ", ".join(names[:20]) or "no groups"
