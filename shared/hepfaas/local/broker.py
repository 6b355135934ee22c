"""A broker with the delivery rules of Knative's (Knative Eventing 1.22, channel-based broker): in memory, unordered,
at least once. What is retried and what is not, back-off, time limit, dead letters, replies, the limit on passes."""

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
MOST_ERROR_BYTES = 1024
MOST_BODY_BYTES = 256 * 1024
"""Of a request: what functions take of an event (platform/http.py). Any local user may post here."""


@dataclass(frozen=True)
class Delivery:
    """attempts = retry + 1; the n-th retry comes after back_off_s * 2^n; timeout_s: of each attempt."""

    retry: int = 5
    back_off_s: float = 0.2
    timeout_s: float = 330.0


@dataclass(frozen=True)
class Trigger:
    """Which events go to which function: those of these types."""

    types: frozenset[str]
    function: str


class Caller(Protocol):
    """Calls a function with an event."""

    async def call(self, name: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> httpx.Response:
        """Its answer. Raises: UnavailableError if none came."""
        ...


class Broker:
    """Takes events and delivers each to every trigger that wants it. Nothing outlives it."""

    def __init__(
        self, triggers: Sequence[Trigger], dead_letters: str, caller: Caller, delivery: Delivery | None = None
    ) -> None:
        self._triggers, self._dead_letters, self._caller = triggers, dead_letters, caller
        self._delivery = delivery or Delivery()
        self._under_way: set[asyncio.Task[None]] = set()
        self.taken: list[str] = []
        self.app = Starlette(routes=[Route("/", self._posted, methods=["POST"])])

    async def _posted(self, request: Request) -> Response:
        """202 once the event is taken; delivery goes on behind it."""
        body = b""
        try:
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BODY_BYTES:
                    return Response(f"an event has at most {MOST_BODY_BYTES} bytes", 413, {"Connection": "close"})
            self.take(read_event(dict(request.headers), body))
        except ClientDisconnect:
            return Response(status_code=400)
        except RequestError as error:
            return Response(str(error), 400)
        return Response(status_code=202)

    def take(self, event: CloudEvent) -> None:
        """Delivers an event to whom it concerns. Raises: RequestError if it has passed here too often."""
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
        """What a restart does: everything under way is gone. Gives how much that was."""
        count = len(self._under_way)
        for task in self._under_way:
            task.cancel()
        return count

    def _begin(self, delivery: Awaitable[None]) -> None:
        task = asyncio.ensure_future(delivery)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _deliver(self, event: CloudEvent, function: str) -> None:
        code, said = 0, b""
        for attempt in range(self._delivery.retry + 1):
            if attempt:
                await asyncio.sleep(self._delivery.back_off_s * 2**attempt)
            code, said = await self._attempt(event, function)
            if 200 <= code < 300:
                return
            if 0 <= code < 500 and code not in RETRIED:
                break
        await self._bury(event, function, code, said)

    async def _attempt(self, event: CloudEvent, function: str) -> tuple[int, bytes]:
        """Status and body of one delivery; -1 if there was no answer, 502 for an answer that is no event."""
        headers, body = on_the_wire(event)
        try:
            answer = await self._caller.call(function, {**headers, "Prefer": "reply"}, body, self._delivery.timeout_s)
        except UnavailableError as error:
            return -1, public_text(error).encode()
        if not 200 <= answer.status_code < 300 or not answer.content:
            return answer.status_code, answer.content
        try:
            reply = read_event(dict(answer.headers), answer.content)
        except RequestError:
            return 502, answer.content
        self.take(_with(reply, {"knativebrokerttl": event.extensions["knativebrokerttl"]}))
        return answer.status_code, b""

    async def _bury(self, event: CloudEvent, function: str, code: int, said: bytes) -> None:
        """To the dead letter sink, with why; what that refuses is dropped."""
        dead = _with(
            event,
            {
                "knativeerrordest": f"http://{function}",
                "knativeerrorcode": str(code),
                "knativeerrordata": base64.b64encode(said[:MOST_ERROR_BYTES]).decode(),
            },
        )
        for attempt in range(self._delivery.retry + 1):
            if attempt:
                await asyncio.sleep(self._delivery.back_off_s * 2**attempt)
            code, _ = await self._attempt(dead, self._dead_letters)
            if 200 <= code < 500 and code not in RETRIED:
                return


def _with(event: CloudEvent, extensions: Mapping[str, str]) -> CloudEvent:
    return CloudEvent(event.type, event.source, event.subject, event.id, event.data, {**event.extensions, **extensions})
