"""JSON responses of `predict`, and its thread pool for blocking work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class JsonResponse(Response):
    """A JSON document. It skips the work of Starlette's constructor, which counts at ten thousand responses a second.

    The headers of `browsers.PROTECTION` are added when it is sent (connection.py).
    """

    def __init__(self, body: bytes, status: int) -> None:
        self.status_code, self.body, self.background = status, body, None
        self.raw_headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


def json_response(values: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return values as JSON; arrays become lists. All but printable ASCII is escaped, since a terminal may show it."""
    body = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    if not body.isascii() or b"\x7f" in body:
        body = ascii_json(orjson.loads(body))
    return _with(JsonResponse(body, status), headers)


def error_response(text: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as JSON. Its text may have lone surrogates, which orjson refuses."""
    return _with(JsonResponse(ascii_json({"error": text}), status), headers)


def ascii_json(values: Any) -> bytes:
    """Return JSON in which all but printable ASCII is escaped."""
    return json.dumps(values, separators=(",", ":")).encode()


def _with(response: Response, headers: Mapping[str, str] | None) -> Response:
    if headers:
        response.headers.update(headers)
    return response


async def in_thread(work: Any, *arguments: Any) -> Any:
    """Return the result of a function that would block the event loop."""
    return await asyncio.to_thread(work, *arguments)
