"""Requests to a service: address, token, retries, and errors as exceptions."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform.terminal import PRINTED, visible_lines

TRIES = 6
BACK_OFF_S = 0.25
TIMEOUT = httpx.Timeout(60, connect=10)
STREAM_TIMEOUT = httpx.Timeout(330, connect=10)
MOST_CONNECTIONS = 1_000
LIMITS = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=20)
WITHOUT_PROXY = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))
"""Services on this machine are reached without http_proxy."""

TEMPORARY = (429, 502, 503, 504)
"""Statuses of failures after which the same request may succeed."""

HOW_TO_LOG_IN = "Programs send a bearer token: set HEPFAAS_TOKEN or HEPFAAS_TOKEN_FILE, or use Client(url, token=…)"

Token = str | Path | Callable[[], str]
"""A bearer token, a file that holds one, or a function that returns one. The last two are read at each request."""


class Connection:
    """A service at a URL. Temporary failures are retried with growing pauses; a context manager closes it."""

    def __init__(self, url: str, token: Token, group: str) -> None:
        self.http = httpx.Client(
            base_url=_checked_url(url), auth=Bearer(token, group), timeout=TIMEOUT, limits=LIMITS, mounts=WITHOUT_PROXY
        )

    def response(
        self, method: str, path: str, *, stream: bool = False, upload: BinaryIO | None = None, **more: Any
    ) -> httpx.Response:
        """Return the response of a success. upload: a file that is the body. stream: the body is left unread.

        Raises: RequestError if the service refuses; UnavailableError if the last retry fails.
        """
        if stream:
            more["timeout"] = STREAM_TIMEOUT
        for attempt in range(1, TRIES + 1):
            if upload:
                upload.seek(0)
            try:
                request = self.http.build_request(method, path, content=upload, **more)
                response = self.http.send(request, stream=stream)
                if response.status_code not in TEMPORARY or attempt == TRIES:
                    return _checked(response)
                response.close()
            except httpx.HTTPError as error:
                if attempt == TRIES:
                    raise UnavailableError(f"service {self.http.base_url} does not answer: {error}") from error
            time.sleep(BACK_OFF_S * 2**attempt)
        raise AssertionError


class Bearer(httpx.Auth):
    """Adds the token, and the group that the request is for."""

    def __init__(self, token: Token, group: str = "") -> None:
        self._token, self._group = token, group

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the present token. Raises: RequestError if its file cannot be read."""
        if token := self._present_token():
            request.headers["Authorization"] = f"Bearer {token}"
        if self._group:
            request.headers["Hepfaas-Group"] = self._group
        yield request

    def _present_token(self) -> str:
        try:
            token = self._token.read_text() if isinstance(self._token, Path) else self._token
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"the token file '{self._token}' cannot be read: {error}") from error
        return (token if isinstance(token, str) else token()).strip()


def _checked_url(url: str) -> str:
    """Raise RequestError if it is not the address of a service."""
    if not re.match(r"https?://[^/]", url):
        likely = f"http://{url}" if re.match(r"[^/:]+(:\d+)?(/|$)", url) else "http://127.0.0.1:8080"
        raise RequestError(f"'{url}' is not the address of a service; write it with http:// or https://, e.g. {likely}")
    return url


def _checked(response: httpx.Response) -> httpx.Response:
    """Return the response of a success, raise the error of any other."""
    if response.is_success:
        return response
    response.read()
    try:
        error = visible_lines(str(response.json()["error"]), PRINTED)
    except (ValueError, KeyError, TypeError):
        error = f"{response.request.url} answers {response.status_code}"
    if response.status_code == 401:
        raise RequestError(f"{error}. {HOW_TO_LOG_IN}")
    if response.is_redirect:
        raise RequestError(f"{response.request.url} redirects to a login page for browsers. {HOW_TO_LOG_IN}")
    raise UnavailableError(error) if response.status_code in TEMPORARY else RequestError(error)
