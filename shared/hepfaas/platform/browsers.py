"""Rejects requests that pages of other sites make a browser send, and sets the security headers of answers.

A browser sends requests for any page, with the user's session and from the user's machine. So a request is accepted
only if its host is a name of this service (otherwise a page could read answers by DNS rebinding) and if no page of
another origin sent it. Programs other than browsers do not send the headers that are checked here. Light: only the
standard library.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Iterable

from hepfaas.errors import ForbiddenError
from hepfaas.platform.settings import Settings

Headers = Iterable[tuple[bytes, bytes]]

NOTHING = "default-src 'none'; frame-ancestors 'none'"
"""Content-Security-Policy of answers that are not pages."""

PROTECTION = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": NOTHING,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
RAW_PROTECTION = [(name.lower().encode(), value.encode()) for name, value in PROTECTION.items()]

_OURS = frozenset((b"same-origin", b"none"))
"""Values of Sec-Fetch-Site: a page of this service, or the user (https://www.w3.org/TR/fetch-metadata/)."""

_CHECKED = frozenset((b"host", b"origin", b"sec-fetch-site"))
_CLUSTER = (".svc", ".svc.cluster.local")
_MOST_KNOWN = 1_000
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d{1,5})?", re.IGNORECASE)


class Browsers:
    """Rejects requests that a page of another origin sent. Threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self._hosts = frozenset(settings.hosts)
        self._suffixes = (".localhost", *(host for host in settings.hosts if host.startswith(".")))
        self._suffixes += _CLUSTER if settings.on_knative else ()
        self._any = "*" in settings.hosts or bool(settings.issuers and not settings.hosts)
        self._known: set[bytes] = set()

    def check(self, method: str, headers: Headers) -> None:
        """Reject a request that a page of another origin sent. headers: names in lower case.

        Raises: ForbiddenError.
        """
        host = origin = site = None
        for name, value in headers:
            if name in _CHECKED:
                if name == b"host":
                    if value not in self._known:
                        self._check_host(value)
                    host = value
                elif name == b"origin":
                    origin = value
                elif site is None or site in _OURS:  # of several values, one of another site counts
                    site = value
        if site is None:
            if origin is not None:
                self._check_origin(origin, host or b"")
        elif site not in _OURS:
            self._check_is_link(site, method, dict(headers))

    def _check_host(self, host: bytes) -> None:
        text = host.decode("latin-1")
        match = _HOST.fullmatch(text)
        if text and not (match and self._is_ours(_plain(match[1]))):
            raise ForbiddenError(
                f"the request is for host '{text[:100]}', which is not a name of this service; its operator may add "
                "it to HEPFAAS_HOSTS"
            )
        if len(self._known) < _MOST_KNOWN:
            self._known.add(host)

    def _is_ours(self, name: str) -> bool:
        """Return whether a host is this service: a configured name, or one that DNS of others cannot point here."""
        if self._any or name == "localhost" or self._is_named(name):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_named(self, name: str) -> bool:
        return name in self._hosts or name.endswith(self._suffixes)

    def _check_origin(self, origin: bytes, host: bytes) -> None:
        """Check the origin from a browser without Sec-Fetch-Site: an old one, or one without HTTPS or loopback."""
        scheme, _, place = origin.decode("latin-1").lower().partition("://")
        match = _HOST.fullmatch(place)
        if scheme in ("http", "https") and match:
            port = ":443" if scheme == "https" else ":80"
            if place.removesuffix(port) == host.decode("latin-1").lower().removesuffix(port):
                return
            if self._is_named(_plain(match[1])):
                return
        raise ForbiddenError(
            f"a page of another site ('{origin.decode('latin-1')[:100]}') sent this request; if it is a page of this "
            "service, its operator adds its host to HEPFAAS_HOSTS"
        )

    def _check_is_link(self, site: bytes, method: str, headers: dict[bytes, bytes]) -> None:
        """Check that the request follows a link to a page of this service, which is allowed from anywhere."""
        is_link = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
        if method not in ("GET", "HEAD") or not is_link:
            shown = site.decode("latin-1")[:40]
            raise ForbiddenError(f"a page of another site ({shown}) sent this request; nothing was done")


def check_removes(path: str, headers: Headers) -> None:
    """Reject a GET that removes something, unless a page of this service or a program sent it.

    A browser without Sec-Fetch-Site is recognised by headers that programs of old clients do not send.
    Raises: ForbiddenError.
    """
    values = dict(headers)
    site = values.get(b"sec-fetch-site")
    if site is None:
        agent = values.get(b"user-agent", b"").lstrip().lower()
        if not ({b"cookie", b"referer", b"origin"} & values.keys() or agent.startswith(b"mozilla/")):
            return
    elif site in _OURS:
        return
    shown = f"a page of another site ({site.decode('latin-1')[:40]})" if site else "a browser without Sec-Fetch-Site"
    raise ForbiddenError(
        f"{shown} sent this request, and GET '{path}' removes something; nothing was removed: use DELETE, type the "
        "address, or use curl"
    )


def page_policy(style: str) -> str:
    """Return the Content-Security-Policy of a page with one style sheet of its own and images of this service."""
    return f"{NOTHING}; {_style_source(style)}; img-src 'self' data:; base-uri 'none'; form-action 'none'"


def file_policy(style: str) -> str:
    """Return the Content-Security-Policy that a page carries in itself: one style sheet, and images inside the page."""
    return f"default-src 'none'; {_style_source(style)}; img-src data:; base-uri 'none'; form-action 'none'"


def _style_source(style: str) -> str:
    return f"style-src 'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"


def protect(raw: list[tuple[bytes, bytes]]) -> None:
    """Add the headers of PROTECTION that an answer does not have."""
    present = {name for name, _ in raw}
    raw += [pair for pair in RAW_PROTECTION if pair[0] not in present]


def _plain(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()
