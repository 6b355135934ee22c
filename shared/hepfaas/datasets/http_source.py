"""Files behind web servers. Owns where their servers may lead."""

from __future__ import annotations

from http.client import HTTPException

import urllib3

from hepfaas.datasets.addresses import is_private
from hepfaas.datasets.ranged_source import RangedSource
from hepfaas.errors import RequestError
from hepfaas.platform import web
from hepfaas.platform.address import Address, led_to, parsed
from hepfaas.platform.credentials import Credential

MOST_REDIRECTS = 5


class HttpSource(RangedSource):
    """One file, http(s)://. A server may lead elsewhere, but none on the internet into a private network.

    version: a strong ETag, '' without one. private: whether its host may be in one. Raises: RequestError if it is or
    leads there and may not, or HTTPException with the status of what is no file; see errors.py.
    """

    def __init__(self, file_path: str, credential: Credential | None = None, private: bool = True) -> None:
        self._file_path = file_path
        self._address, self._may_be_private = parsed(file_path).over_http(), private
        self._private = private and is_private(self._address)
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
        super().__init__(int(size))

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
            raise RequestError(
                f"'{self._file_path}' was changed while it was read; start again to read its new content"
            )
        return data

    def _asked(self, method: str, headers: dict[str, str]) -> tuple[Address, urllib3.BaseHTTPResponse]:
        """Return the address that answers in the end, and its response, not read yet."""
        here = self._address
        for _ in range(MOST_REDIRECTS + 1):
            own = here.origin == self._address.origin
            shown = self._credential if own else None  # to the host that it is for, and never where that one leads
            login = {"Authorization": f"Bearer {shown.secret}"} if shown and shown.kind == "bearer" else {}
            try:
                answer = web.request(
                    method,
                    str(here),
                    {**login, **headers},
                    private=self._private or (self._may_be_private and here == self._address),
                    certificate=shown.path if shown and shown.kind == "x509" else "",
                )
            except urllib3.exceptions.HTTPError as error:
                raise HTTPException(_reason(error)) from error
            if answer.status not in (301, 302, 303, 307, 308):
                return here, answer
            answer.close()
            here = led_to(here, answer.headers.get("Location", ""))
            self._check(here)
        raise RequestError(f"'{self._address}' leads from one address to the next more than {MOST_REDIRECTS} times")

    def _check(self, address: Address) -> None:
        if not self._private and is_private(address):
            raise RequestError(
                f"'{self._address}' leads to '{address.origin}{address.path}', an address in a private network, where "
                "no server outside may lead; give that address itself"
            )


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """What the operating system says of a connection that failed, if it does."""
    while error.__cause__ and not isinstance(error, OSError):
        error = error.__cause__  # type: ignore[assignment]
    return getattr(error, "strerror", None) or str(error)
