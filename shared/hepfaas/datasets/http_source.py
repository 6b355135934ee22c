"""Files on web servers. Owns the checks of redirections."""

from __future__ import annotations

from http.client import HTTPException

import urllib3

from hepfaas.datasets.address_checks import is_private
from hepfaas.datasets.ranged_source import RangedSource
from hepfaas.errors import RequestError
from hepfaas.platform import web
from hepfaas.platform.address import Address, parsed, redirect_target
from hepfaas.platform.credentials import Credential

MOST_REDIRECTS = 5


class HttpSource(RangedSource):
    """One file, http(s)://. A server may redirect, but not from the internet into a private network.

    version: a strong ETag, '' without one. private: whether the host may be in a private network. Raises: RequestError
    if the host is there or redirects there and may not; HTTPException with the status if it is not 200 (errors.py).
    """

    def __init__(self, file_path: str, credential: Credential | None = None, private: bool = True) -> None:
        self._file_path = file_path
        self._address, self._may_be_private = parsed(file_path).over_http(), private
        self._private = private and is_private(self._address)
        self._credential = credential
        self._place, answer = self._request("HEAD", {})
        answer.close()
        etag = answer.headers.get("ETag", "")
        self.version = "" if etag.startswith("W/") else etag  # a weak one may stay when bytes change
        size = answer.headers.get("Content-Length", "")
        if answer.status == 404:
            raise FileNotFoundError(file_path)
        if answer.status != 200:
            raise HTTPException(f"status {answer.status}")
        if not size.isdecimal():
            raise RequestError(f"the server of '{file_path}' does not send its size; put the file on another server")
        super().__init__(int(size))

    def fetched(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop)."""
        place, answer = self._request("GET", {"Range": f"bytes={start}-{stop - 1}"})
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
            raise HTTPException(f"{len(data)} bytes came, {stop - start} were requested")
        etag = answer.headers.get("ETag", "")
        if self.version and etag and place == self._place and etag != self.version:
            raise RequestError(
                f"'{self._file_path}' was changed while it was read; start again to read the new content"
            )
        return data

    def _request(self, method: str, headers: dict[str, str]) -> tuple[Address, urllib3.BaseHTTPResponse]:
        """Return the address after all redirections, and its response, not read yet."""
        here = self._address
        for _ in range(MOST_REDIRECTS + 1):
            is_named = here.origin == self._address.origin
            credential = self._credential if is_named else None  # never sent where its host redirects
            bearer = credential and credential.kind == "bearer"
            login = {"Authorization": f"Bearer {credential.secret}"} if credential and bearer else {}
            try:
                answer = web.request(
                    method,
                    str(here),
                    {**login, **headers},
                    private=self._private or (self._may_be_private and here == self._address),
                    certificate=credential.path if credential and not bearer else "",
                )
            except urllib3.exceptions.HTTPError as error:
                raise HTTPException(_reason(error)) from error
            if answer.status not in (301, 302, 303, 307, 308):
                return here, answer
            answer.close()
            here = redirect_target(here, answer.headers.get("Location", ""))
            self._check(here)
        raise RequestError(f"'{self._address}' redirects more than {MOST_REDIRECTS} times")

    def _check(self, address: Address) -> None:
        if not self._private and is_private(address):
            raise RequestError(
                f"'{self._address}' redirects to '{address.origin}{address.path}', an address in a private network, "
                "which public servers must not do; give that address itself"
            )


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """Return the operating system's reason for a failed connection, if it gives one."""
    while error.__cause__ and not isinstance(error, OSError):
        error = error.__cause__  # type: ignore[assignment]
    return getattr(error, "strerror", None) or str(error)
