"""A broker in memory with the delivery rules of Knative's channel-based broker (Knative Eventing 1.22): unordered, at
least once, with retries, back-off, time limit, dead letters, replies and a limit on passes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import httpx
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from hepfaas.errors import RequestError, UnavailableError, public_text
from hepfaas.platform.cloud_events import CloudEvent, on_the_wire, read_event

MAX_TTL = 255
RETRIED = (404, 408, 409, 429)
MAX_ERROR_BYTES = 1024
MAX_BODY_BYTES = 256 * 1024
"""Largest event, as in functions (platform/http.py). Every local user can post to the broker."""


@dataclass(frozen=True)
class Delivery:
    """Rules of a delivery: retry + 1 attempts of timeout_s each; the n-th retry waits for back_off_s * 2^n."""

    retry: int = 5
    back_off_s: float = 0.2
    timeout_s: float = 330.0


@dataclass(frozen=True)
class Trigger:
    """The types of events that a function gets."""

    types: frozenset[str]
    function: str


class Caller(Protocol):
    """Sends events to functions."""

    async def call(self, name: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> httpx.Response:
        """Return the response of a function. Raises: UnavailableError if it does not answer."""
        ...


class Broker:
    """Takes events and delivers each to every trigger of its type. Events are lost when the broker ends."""

    def __init__(
        self, triggers: Sequence[Trigger], dead_letters: str, caller: Caller, delivery: Delivery | None = None
    ) -> None:
        self._triggers, self._dead_letters, self._caller = triggers, dead_letters, caller
        self._delivery = delivery or Delivery()
        self._tasks: set[asyncio.Task[None]] = set()
        self.taken: list[str] = []
        self.app = Starlette(routes=[Route("/", self._posted, methods=["POST"])])

    async def _posted(self, request: Request) -> Response:
        """Answer 202 when the event is taken; its delivery continues."""
        body = b""
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return Response(f"an event has at most {MAX_BODY_BYTES} bytes", 413, {"Connection": "close"})
            self.take(read_event(dict(request.headers), body))
        except ClientDisconnect:
            return Response(status_code=400)
        except RequestError as error:
            return Response(str(error), 400)
        return Response(status_code=202)

    def take(self, event: CloudEvent) -> None:
        """Start the delivery of an event. Raises: RequestError if it has passed the broker too often."""
        passes = int(event.extensions.get("knativebrokerttl", MAX_TTL + 1)) - 1
        if passes <= 0:
            raise RequestError("the event has passed the broker too often (knativebrokerttl)")
        stamped = CloudEvent(
            event.type, event.source, event.subject, event.id, event.data,
            {**event.extensions, "knativebrokerttl": str(passes)},
        )  # fmt: skip
        self.taken.append(event.type)
        for trigger in self._triggers:
            if event.type in trigger.types:
                self._begin(self._deliver(stamped, trigger.function))

    def forget(self) -> int:
        """Drop all deliveries, as a restart does, and return their number."""
        count = len(self._tasks)
        for task in self._tasks:
            task.cancel()
        return count

    def _begin(self, delivery: Awaitable[None]) -> None:
        task = asyncio.ensure_future(delivery)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, event: CloudEvent, function: str) -> None:
        """Deliver an event, or send it to the dead letter sink with the reason; drop it if the sink refuses it."""
        code, body = await self._attempts(event, function)
        if not 200 <= code < 300:
            reason = {
                "knativeerrordest": f"http://{function}",
                "knativeerrorcode": str(code),
                "knativeerrordata": base64.b64encode(body[:MAX_ERROR_BYTES]).decode(),
            }
            await self._attempts(_with(event, reason), self._dead_letters)

    async def _attempts(self, event: CloudEvent, function: str) -> tuple[int, bytes]:
        """Return the outcome of the last attempt."""
        code, body = 0, b""
        for attempt in range(self._delivery.retry + 1):
            if attempt:
                await asyncio.sleep(self._delivery.back_off_s * 2**attempt)
            code, body = await self._attempt(event, function)
            if 0 <= code < 500 and code not in RETRIED:
                break
        return code, body

    async def _attempt(self, event: CloudEvent, function: str) -> tuple[int, bytes]:
        """Return status and body of one delivery; -1 if there is no response, 502 if it is not an event."""
        headers, body = on_the_wire(event)
        try:
            response = await self._caller.call(function, {**headers, "Prefer": "reply"}, body, self._delivery.timeout_s)
        except UnavailableError as error:
            return -1, public_text(error).encode()
        if not 200 <= response.status_code < 300 or not response.content:
            return response.status_code, response.content
        try:
            reply = read_event(dict(response.headers), response.content)
        except RequestError:
            return 502, response.content
        self.take(_with(reply, {"knativebrokerttl": event.extensions["knativebrokerttl"]}))
        return response.status_code, b""


def _with(event: CloudEvent, extensions: Mapping[str, str]) -> CloudEvent:
    return CloudEvent(event.type, event.source, event.subject, event.id, event.data, {**event.extensions, **extensions})
