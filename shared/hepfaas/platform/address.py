"""The one parser of addresses of files. What it accepts, every client reads in the same way. Light: no library.

An address is parsed where it comes in. Checks, clients, records and credentials get the parsed value, or its text,
which is the normal form: never what was sent.
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
"""Default port of each scheme; s3 has none, its server is a setting."""

MOST_CHARACTERS = 4_096
MOST_SHOWN = 200
READ = "addresses of files are root://, s3://, http(s):// or dav(s)://"

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([1-9][0-9]{0,4}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label that resolvers take for a part of an IPv4 address: https://url.spec.whatwg.org/#ends-in-a-number-checker"""

_BUCKET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,254}")
_CODED = re.compile(r"%(?:2[eEfF]|5[cC]|[01][0-9A-Fa-f]|7[fF]|[cC][01])")
"""Percent-encoded dots, slashes and control characters, which one server decodes and another does not."""

_CODED_SIGN = re.compile(r"%(?:23|3[bBfF]|40)")
"""# ; ? @ percent-encoded: in keys of S3 they are signs like others."""

MOST_CODED = 4
"""How often a path may be percent-encoded, one time over the other."""

_PATH = "/!$&'()*+,:=@~"
_QUERY = f"{_PATH};?"
"""Characters that stand as they are in a path and a query (RFC 3986), beside letters, digits, '-', '.' and '_'."""

_STRICT_QUERY = re.compile(rf"(?:[A-Za-z0-9._{re.escape(_QUERY)}-]|%[0-9A-Fa-f]{{2}})*")


@dataclass(frozen=True)
class Address:
    """A parsed address. `str` gives its normal form.

    scheme: lower case. host: lower case without a trailing dot, IPv6 without brackets; of s3 the bucket. port: None for
    the default port of the scheme. path: begins with '/'; of http(s) and dav(s) percent-encoded. query: of http(s) and
    dav(s), where one is permitted.
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
        """The host, IPv6 in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def place(self) -> str:
        """Host, and port unless it is the default one."""
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
        """The path as a server takes it, without percent-encoding."""
        return unquote(self.path) if self.scheme in WEB else self.path

    def below(self, folder: Address) -> Address:
        """The address of the same path in a folder of another server. Raises: RequestError if that server cannot have
        such a path."""
        if self.query:
            raise RequestError(f"{_shown(str(self))} has a query, which is for its own server alone")
        path = folder.plain_path.rstrip("/") + self.plain_path
        return replace(folder, path=_path(folder.scheme, _encoded(path) if folder.scheme in WEB else path, str(folder)))

    def over_http(self) -> Address:
        """The http(s) address of a WebDAV one."""
        return replace(self, scheme={"dav": "http", "davs": "https"}.get(self.scheme, self.scheme))


def parsed(text: str, with_query: bool = False) -> Address:
    """Return the address that a text names. with_query: whether an http(s) address may have a query.

    Raises: RequestError if two clients or servers could read it differently, or if it holds a user, a password or,
    where none is permitted, a query. The message does not repeat those.
    """
    if len(text) > MOST_CHARACTERS:
        raise RequestError(f"{_shown(text)} has {len(text)} characters; an address has at most {MOST_CHARACTERS}")
    if not text.isprintable() or text != text.strip():
        raise RequestError(f"{_shown(text)} is no address: it has control characters, or spaces at its ends")
    scheme, mark, rest = text.partition("://")
    scheme = scheme.lower()
    if not mark or scheme not in SCHEMES:
        raise RequestError(f"{_shown(text)} cannot be read: {READ}")
    authority, _, path = rest.partition("/")
    _check_no_secrets(scheme, authority, text)
    host, port = _bucket(authority, text) if scheme == "s3" else host_and_port(authority, text)
    query = ""
    if scheme in XROOTD and "?" in path:
        raise _steering()
    if scheme in WEB:
        path, mark, query = path.partition("?")
        if mark and not with_query:
            raise RequestError(
                f"{_shown(text)} goes on with a query ('?…'), which may hold a secret; addresses are stored and shown. "
                "Leave it out, and POST /v1/credentials what the server asks for"
            )
        if not _STRICT_QUERY.fullmatch(query):
            raise RequestError(f"{_shown(text)} goes on with a query that has signs which must be percent-encoded")
    port = None if port == PORTS.get(scheme) else port
    return Address(scheme, host, port, _path(scheme, f"/{path}", text), _uppercase_codes(query))


def led_to(here: Address, location: str) -> Address:
    """Return where a web server leads by a `Location`, relative to the address that it was asked for.

    The server chooses path and query, so these are encoded and not judged; host and port are as strict as everywhere.
    Raises: RequestError if it is no http(s) address.
    """
    if not location.isascii() or not location.isprintable() or "\\" in location:
        raise RequestError(f"'{here}' leads to {_shown(location)}, which is no address")
    try:
        text = urljoin(str(here), location).partition("#")[0]
    except ValueError as error:
        raise RequestError(f"'{here}' leads to {_shown(location)}, which is no address") from error
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme not in WEB:
        raise RequestError(f"'{here}' leads to {_shown(text)}, which is no http(s):// address")
    authority, path, query = re.fullmatch(r"([^/?]*)([^?]*)\??(.*)", rest, re.S).groups()  # type: ignore[union-attr]
    _check_no_secrets(scheme, authority, text)
    host, port = host_and_port(authority, text)
    path, query = quote(path or "/", f"{_PATH};%"), quote(query, f"{_QUERY}%")
    return Address(scheme, host, None if port == PORTS[scheme] else port, path, query).over_http()


def place_of(url: str) -> str:
    """Return host and port of the address of a file; 'disk' for a path, 'unknown' for what is no address any more."""
    try:
        return parsed(url).place if "://" in url else "disk"
    except RequestError:
        return "unknown"


def host_and_port(authority: str, text: str = "") -> tuple[str, int | None]:
    """Return the normal form of a host, IPv6 without brackets, and the port that stands behind it. text: the address
    for messages. Raises: RequestError if it is written so that two resolvers could take it differently."""
    found = _AUTHORITY.fullmatch(authority)
    what = _shown(text or authority)
    if not authority:
        raise RequestError(f"{what} names no host")
    if not found or int(found[2] or 1) > 65_535:
        raise RequestError(f"{what} is no address: between '://' and the path stands a host, or host:port")
    port = int(found[2]) if found[2] else None
    if found[1].startswith("["):
        return _ipv6(found[1].strip("[]"), what), port
    host = found[1].lower().removesuffix(".")
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host)), port
        except ValueError as error:
            raise RequestError(f"{what} is no address: IPv4 is four decimal numbers, as in 192.0.2.1") from error
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise RequestError(f"{what} is no address: '{host[:100]}' is no name of a host")
    return host, port


def is_bucket(text: str) -> bool:
    """Whether a text names a bucket."""
    return bool(_BUCKET.fullmatch(text))


def _ipv6(text: str, what: str) -> str:
    """IPv6 in the form of RFC 5952; one that stands for an IPv4 address as that."""
    try:
        found = ipaddress.IPv6Address(text)
    except ValueError as error:
        raise RequestError(f"{what} is no address: '[{text[:60]}]' is no IPv6 address") from error
    return str(found.ipv4_mapped or found)


def _bucket(text: str, whole: str) -> tuple[str, None]:
    if not text:
        raise RequestError(f"{_shown(whole)} names no host or bucket")
    if not is_bucket(text):
        raise RequestError(f"{_shown(whole)} is no address: between 's3://' and the key stands the name of a bucket")
    return text, None


def _check_no_secrets(scheme: str, authority: str, text: str) -> None:
    """Raises: RequestError if anything but host and port stands before the path."""
    user, at, _ = authority.rpartition("@")
    if ":" in user and scheme in WEB:
        raise RequestError("the address has a password in it; addresses are stored and shown: leave it out")
    if at or (scheme in XROOTD and {"?", "#"} & set(authority)):
        raise _steering()


def _steering() -> RequestError:
    return RequestError(
        "the address has a user, a token or a setting of the client in it; POST /v1/credentials what is to be shown to "
        "its server, and leave that out"
    )


def _path(scheme: str, path: str, text: str) -> str:
    """The normal form of a path. Raises: RequestError if servers could take it for another one."""
    if scheme != "s3":
        path = re.sub("/+", "/", path)  # servers take these for one, and most addresses have two at the start
    if scheme in WEB and re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise RequestError(f"{_shown(text)} has a '%' that encodes nothing; write %25")
    if _is_ambiguous(path, scheme == "s3"):
        raise _not_plain(text)
    try:
        plain = unquote(path, errors="strict") if scheme in WEB else path
        plain.encode()
    except UnicodeError as error:
        raise RequestError(f"{_shown(text)} has a path that is no UTF-8") from error
    segments = plain.split("/")[1:]
    dots = any(segment.partition(";")[0].strip() in (".", "..") for segment in segments)
    if dots or "\\" in plain or not plain.isprintable():
        raise _not_plain(text)
    if scheme != "s3" and ({"?", "#", ";"} & set(plain) or any(segment.endswith(":") for segment in segments[:-1])):
        raise _not_plain(text)
    return _encoded(plain) if scheme in WEB else plain


def _is_ambiguous(path: str, is_key: bool) -> bool:
    """Whether a server that decodes a path, as often as it likes, finds separators, dots or control characters."""
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
        f"{_shown(text)} has a path with '.', '..', '?', '#', ';', '\\', '://' or coded signs in it, which servers "
        "take differently; write the plain path"
    )


def _encoded(path: str) -> str:
    return quote(path, safe=_PATH)


def _uppercase_codes(text: str) -> str:
    return re.sub("%[0-9A-Fa-f]{2}", lambda found: found[0].upper(), text)


def _shown(text: str) -> str:
    """How messages name what is no address: without what may be a secret, on one line."""
    begin = re.split(r"[?#]", text)[0]
    scheme, mark, rest = begin.partition("://")
    shown = f"{scheme}{mark}{rest.rpartition('@')[2]}"[:MOST_SHOWN]
    return f"'{shown}'" if shown.isprintable() else ascii(shown)
