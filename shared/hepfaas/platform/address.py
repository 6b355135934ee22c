"""The parser of file addresses. It accepts only addresses that all clients read in the same way. Light: no library.

An address is parsed where it is received. Checks, clients, records and credentials get the parsed value or its normal
form, never the original text.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urljoin

from hepfaas.errors import RequestError

XROOTD = ("root", "roots", "xroot", "xroots")
WEB = ("http", "https", "dav", "davs")
SCHEMES = (*XROOTD, "s3", *WEB)
PORTS = {**dict.fromkeys(XROOTD, 1094), "http": 80, "dav": 80, "https": 443, "davs": 443}
"""Default port of each scheme; s3 has none, since its server is a setting."""

MOST_CHARACTERS = 4_096
MOST_SHOWN = 200
SUPPORTED = "addresses of files are root://, s3://, http(s):// or dav(s)://"

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([1-9][0-9]{0,4}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label that resolvers treat as a part of an IPv4 address: https://url.spec.whatwg.org/#ends-in-a-number-checker"""

_BUCKET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,254}")
_CODED = re.compile(r"%(?:2[eEfF]|5[cC]|[01][0-9A-Fa-f]|7[fF]|[cC][01])")
"""Percent-encoded dots, slashes and control characters, which only some servers decode."""

_CODED_SIGN = re.compile(r"%(?:23|3[bBfF]|40)")
"""Percent-encoded # ; ? @: ordinary characters in keys of S3."""

MOST_CODED = 4
"""Limit of nested percent-encodings in a path."""

_PATH = "/!$&'()*+,:=@~"
_QUERY = f"{_PATH};?"
"""Characters that are not encoded in a path and in a query (RFC 3986), besides letters, digits, '-', '.' and '_'."""

_STRICT_QUERY = re.compile(rf"(?:[A-Za-z0-9._{re.escape(_QUERY)}-]|%[0-9A-Fa-f]{{2}})*")


@dataclass(frozen=True)
class Address:
    """A parsed address. `str` gives its normal form.

    scheme: lower case. host: lower case without a trailing dot, IPv6 without brackets; for s3 the bucket. port: None
    for the default port of the scheme. path: starts with '/'; percent-encoded for http(s) and dav(s). query: only for
    http(s) and dav(s), where one is permitted.
    """

    scheme: str
    host: str
    port: int | None = None
    path: str = "/"
    query: str = ""

    def __str__(self) -> str:
        slash = "/" if self.scheme in XROOTD else ""
        return f"{self.origin}{slash}{self.path}{'?' if self.query else ''}{self.query}"

    @property
    def bracketed(self) -> str:
        """The host, with brackets for IPv6."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def place(self) -> str:
        """The host, and the port unless it is the default."""
        return f"{self.bracketed}:{self.port}" if self.port else self.bracketed

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{self.scheme}://{self.place}"

    @property
    def connects_to(self) -> int | None:
        """The port that a client connects to; None for s3."""
        return self.port or PORTS.get(self.scheme)

    @property
    def plain_path(self) -> str:
        """The path without percent-encoding, as a server reads it."""
        return unquote(self.path) if self.scheme in WEB else self.path

    def below(self, folder: Address) -> Address:
        """Return the address of the same path in a folder of another server. Raises: RequestError if that server cannot
        have such a path."""
        if self.query:
            raise RequestError(f"{_shown(str(self))} has a query, which other servers must not get")
        path = folder.plain_path.rstrip("/") + self.plain_path
        return replace(folder, path=_path(folder.scheme, _encoded(path) if folder.scheme in WEB else path, str(folder)))

    def over_http(self) -> Address:
        """Return the http(s) address of a WebDAV address."""
        return replace(self, scheme={"dav": "http", "davs": "https"}.get(self.scheme, self.scheme))


def parsed(text: str, with_query: bool = False) -> Address:
    """Return the parsed address. with_query: whether an http(s) address may have a query.

    Raises: RequestError if two clients or servers could read it differently, or if it contains a user, a password or a
    query that is not permitted. The message does not repeat those.
    """
    if len(text) > MOST_CHARACTERS:
        raise RequestError(f"{_shown(text)} has {len(text)} characters; an address has at most {MOST_CHARACTERS}")
    if not text.isprintable() or text != text.strip():
        raise RequestError(f"{_shown(text)} is not an address: it has control characters, or spaces at its ends")
    scheme, mark, rest = text.partition("://")
    scheme = scheme.lower()
    if not mark or scheme not in SCHEMES:
        raise RequestError(f"{_shown(text)} cannot be read: {SUPPORTED}")
    authority, _, path = rest.partition("/")
    _check_no_secrets(scheme, authority, text)
    host, port = _bucket(authority, text) if scheme == "s3" else host_and_port(authority, text)
    query = ""
    if scheme in XROOTD and "?" in path:
        raise _not_only_an_address()
    if scheme in WEB:
        path, mark, query = path.partition("?")
        if mark and not with_query:
            raise RequestError(
                f"{_shown(text)} has a query ('?…'), which may contain a secret; addresses are stored and shown. "
                "Leave it out, and POST /v1/credentials the credential for the server"
            )
        if not _STRICT_QUERY.fullmatch(query):
            raise RequestError(f"{_shown(text)} has a query with characters that must be percent-encoded")
    port = None if port == PORTS.get(scheme) else port
    return Address(scheme, host, port, path=_path(scheme, f"/{path}", text), query=_uppercase_codes(query))


def redirect_target(here: Address, location: str) -> Address:
    """Return the target of a web server's `Location`, relative to the requested address.

    The server chooses path and query, so these are encoded and not checked; host and port are checked as always.
    Raises: RequestError if it is not an http(s) address.
    """
    if not location.isascii() or not location.isprintable() or "\\" in location:
        raise RequestError(f"'{here}' redirects to {_shown(location)}, which is not an address")
    try:
        text = urljoin(str(here), location).partition("#")[0]
    except ValueError as error:
        raise RequestError(f"'{here}' redirects to {_shown(location)}, which is not an address") from error
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme not in WEB:
        raise RequestError(f"'{here}' redirects to {_shown(text)}, which is not an http(s):// address")
    authority, path, query = re.fullmatch(r"([^/?]*)([^?]*)\??(.*)", rest, re.S).groups()  # type: ignore[union-attr]
    _check_no_secrets(scheme, authority, text)
    host, port = host_and_port(authority, text)
    path, query = quote(path or "/", f"{_PATH};%"), quote(query, f"{_QUERY}%")
    return Address(scheme, host, None if port == PORTS[scheme] else port, path=path, query=query).over_http()


def place_of(url: str) -> str:
    """Return host and port of the address of a file; 'disk' for a path, 'unknown' for an invalid address."""
    try:
        return parsed(url).place if "://" in url else "disk"
    except RequestError:
        return "unknown"


def host_and_port(authority: str, text: str = "") -> tuple[str, int | None]:
    """Return the normal form of a host, IPv6 without brackets, and its port. text: the address, for messages.

    Raises: RequestError if two resolvers could read it differently.
    """
    match = _AUTHORITY.fullmatch(authority)
    shown = _shown(text or authority)
    if not authority:
        raise RequestError(f"{shown} has no host")
    if not match or int(match[2] or 1) > 65_535:
        raise RequestError(f"{shown} is not an address: a host, or host:port, goes between '://' and the path")
    port = int(match[2]) if match[2] else None
    if match[1].startswith("["):
        return _ipv6(match[1].strip("[]"), shown), port
    host = match[1].lower().removesuffix(".")
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host)), port
        except ValueError as error:
            raise RequestError(f"{shown} is not an address: IPv4 is four decimal numbers, as in 192.0.2.1") from error
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise RequestError(f"{shown} is not an address: '{host[:100]}' is not a host name")
    return host, port


def is_bucket(text: str) -> bool:
    """Return whether a text is the name of a bucket."""
    return bool(_BUCKET.fullmatch(text))


def _ipv6(text: str, shown: str) -> str:
    """Return an IPv6 address in the form of RFC 5952; a mapped IPv4 address as IPv4."""
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError as error:
        raise RequestError(f"{shown} is not an address: '[{text[:60]}]' is not an IPv6 address") from error
    return str(address.ipv4_mapped or address)


def _bucket(text: str, whole: str) -> tuple[str, None]:
    if not text:
        raise RequestError(f"{_shown(whole)} has no host or bucket")
    if not is_bucket(text):
        raise RequestError(f"{_shown(whole)} is not an address: the name of a bucket goes between 's3://' and the key")
    return text, None


def _check_no_secrets(scheme: str, authority: str, text: str) -> None:
    """Raise RequestError if there is more than host and port before the path."""
    user, at, _ = authority.rpartition("@")
    if ":" in user and scheme in WEB:
        raise RequestError("the address has a password in it; leave it out, since addresses are stored and shown")
    if at or (scheme in XROOTD and {"?", "#"} & set(authority)):
        raise _not_only_an_address()


def _not_only_an_address() -> RequestError:
    return RequestError(
        "the address has a user, a token or a client option in it; leave it out, and POST /v1/credentials the "
        "credential for its server"
    )


def _path(scheme: str, path: str, text: str) -> str:
    """Return the normal form of a path. Raises: RequestError if servers could read it differently."""
    if scheme != "s3":
        path = re.sub("/+", "/", path)  # servers read these as one, and most addresses start with two
    if scheme in WEB and re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise RequestError(f"{_shown(text)} has a '%' that encodes nothing; write %25")
    if _is_ambiguous(path, scheme == "s3"):
        raise _not_plain(text)
    try:
        plain = unquote(path, errors="strict") if scheme in WEB else path
        plain.encode()
    except UnicodeError as error:
        raise RequestError(f"{_shown(text)} has a path that is not UTF-8") from error
    segments = plain.split("/")[1:]
    dots = any(segment.partition(";")[0].strip() in (".", "..") for segment in segments)
    if dots or "\\" in plain or not plain.isprintable():
        raise _not_plain(text)
    if scheme != "s3" and ({"?", "#", ";"} & set(plain) or any(segment.endswith(":") for segment in segments[:-1])):
        raise _not_plain(text)
    return _encoded(plain) if scheme in WEB else plain


def _is_ambiguous(path: str, is_key: bool) -> bool:
    """Return whether a server that decodes a path any number of times finds separators, dots or control characters."""
    for _ in range(MOST_CODED):
        if _CODED.search(path) or (not is_key and _CODED_SIGN.search(path)):
            return True
        decoded = unquote(path)
        if decoded == path:
            return False
        path = decoded
    return True


def _not_plain(text: str) -> RequestError:
    return RequestError(
        f"{_shown(text)} has a path with '.', '..', '?', '#', ';', '\\', '://' or encoded characters in it, which "
        "servers read differently; write the plain path"
    )


def _encoded(path: str) -> str:
    return quote(path, safe=_PATH)


def _uppercase_codes(text: str) -> str:
    return re.sub("%[0-9A-Fa-f]{2}", lambda match: match[0].upper(), text)


def _shown(text: str) -> str:
    """Return the text of an invalid address for messages: on one line, without possible secrets."""
    begin = re.split(r"[?#]", text)[0]
    scheme, mark, rest = begin.partition("://")
    shown = f"{scheme}{mark}{rest.rpartition('@')[2]}"[:MOST_SHOWN]
    return f"'{shown}'" if shown.isprintable() else ascii(shown)
