"""ROOT files behind web servers, for uproot. Owns where their servers may lead it."""

from __future__ import annotations

from http.client import HTTPException
from typing import Any
from urllib.parse import urljoin

import urllib3
from urllib3.util import make_headers, parse_url

from hepfaas.datasets.addresses import is_private
from hepfaas.datasets.ranged_source import RangedSource
from hepfaas.errors import RequestError
from hepfaas.platform import web
from hepfaas.platform.credentials import Credential

MOST_REDIRECTS = 5


class HttpSource(RangedSource):
    """One file, http(s)://. A server may lead elsewhere, but none on the internet into a private network.

    version: a strong ETag, '' without one. private: whether its host may be in one. Raises: RequestError if it is or
    leads there and may not, or HTTPException with the status of what is no file; see faults.py.
    """

    def __init__(
        self, file_path: str, credential: Credential | None = None, private: bool = True, **options: Any
    ) -> None:
        self._url, self._may_be_private = _of_web(file_path), private
        self._private = private and is_private(file_path)
        self._credential = credential
        self._place, answer = self._asked("HEAD", {})
        answer.close()
        etag = answer.headers.get("ETag", "")
        self.version = "" if etag.startswith("W/") else etag  # a weak one may stay when bytes change
        size = answer.headers.get("Content-Length", "")
        if answer.status == 404:
            raise FileNotFoundError(file_path)
        if answer.status != 200:
            raise HTTPException(f"status {answer.status}")
        if not size.isdecimal():
            raise RequestError(f"the server of '{file_path}' does not tell its size; put the file on another one")
        super().__init__(file_path, int(size))

    def fetched(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop)."""
        place, answer = self._asked("GET", {"Range": f"bytes={start}-{stop - 1}"})
        if answer.status != 206:
            answer.close()
            raise HTTPException(f"status {answer.status}")
        try:
            data: bytes = answer.read(decode_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise HTTPException(str(error)) from error
        finally:
            answer.release_conn()
        if len(data) != stop - start:
            raise HTTPException(f"{len(data)} bytes came where {stop - start} were asked for")
        etag = answer.headers.get("ETag", "")
        if self.version and etag and place == self._place and etag != self.version:
            raise RequestError(f"'{self._file_path}' was changed while it was read; start again to read it anew")
        return data

    def _asked(self, method: str, headers: dict[str, str]) -> tuple[str, urllib3.BaseHTTPResponse]:
        """Return the address that answers in the end, and its response, not read yet."""
        url, first = self._url, parse_url(self._url)
        for _ in range(MOST_REDIRECTS + 1):
            here = parse_url(url)
            own = (here.scheme, here.netloc) == (first.scheme, first.netloc)
            login = make_headers(basic_auth=first.auth) if first.auth and own else {}
            shown = self._credential if own else None  # to the host that it is for, and never where that one leads
            if shown and shown.kind == "bearer":
                login = {"Authorization": f"Bearer {shown.secret}"}
            try:
                answer = web.request(
                    method,
                    here._replace(auth=None).url,
                    {**login, **headers},
                    private=self._private or (self._may_be_private and url == self._url),
                    certificate=shown.path if shown and shown.kind == "x509" else "",
                )
            except urllib3.exceptions.HTTPError as error:
                raise HTTPException(_reason(error)) from error
            if answer.status not in (301, 302, 303, 307, 308):
                return url, answer
            answer.close()
            url = _of_web(urljoin(url, answer.headers.get("Location", "")))
            self._check(url)
        raise RequestError(f"'{self._url}' leads from one address to the next more than {MOST_REDIRECTS} times")

    def _check(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise RequestError(f"'{self._url}' leads to '{url[:200]}', which is no http(s):// address")
        if not self._private and is_private(url):
            raise RequestError(
                f"'{self._url}' leads to '{url[:200]}', an address in a private network, where no server outside may "
                "lead; give that address itself"
            )


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """What the operating system says of a connection that failed, if it does."""
    while error.__cause__ and not isinstance(error, OSError):
        error = error.__cause__  # type: ignore[assignment]
    return getattr(error, "strerror", None) or str(error)


def _of_web(url: str) -> str:
    """The http(s):// address of a WebDAV one."""
    return f"http{url[3:]}" if url.startswith(("dav://", "davs://")) else url
