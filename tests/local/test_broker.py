"""The broker delivers as Knative's does: retries, dead letters, replies."""

import asyncio
import base64
from collections.abc import Mapping

import httpx
import pytest
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.local.broker import MAX_TTL, Broker, Delivery, Trigger
from hepfaas.platform.cloud_events import CloudEvent, on_the_wire, read_event

EVENT = CloudEvent("requested", "/t", "s", "1", {"run": "a"})
TRIGGERS = (Trigger(frozenset({"requested"}), "does"), Trigger(frozenset({"replied"}), "hears"))
AWAY = -1


class Caller:
    """Answers from a list and keeps its calls."""

    def __init__(self, *answers: httpx.Response | int) -> None:
        self._answers = list(answers)
        self.calls: list[tuple[str, CloudEvent]] = []

    async def call(self, name: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> httpx.Response:
        self.calls.append((name, read_event(headers, body)))
        assert headers["Prefer"] == "reply"
        answer = self._answers.pop(0) if self._answers and name != "dead" else 204
        if answer == AWAY:
            raise UnavailableError("cut")
        return answer if isinstance(answer, httpx.Response) else httpx.Response(answer)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


def delivered(caller: Caller, event: CloudEvent = EVENT) -> Broker:
    """Take an event and wait for the end of all deliveries."""

    async def deliver() -> Broker:
        broker = Broker(TRIGGERS, "dead", caller, Delivery(retry=2, back_off_s=0.001, timeout_s=1))
        broker.take(event)
        async with asyncio.timeout(10):
            while broker._tasks:
                await asyncio.sleep(0.001)
        return broker

    return asyncio.run(deliver())


@pytest.mark.parametrize("code", [AWAY, 404, 408, 409, 429, 500, 503, 504])
def test_these_answers_are_retried_and_dead_in_the_end(code: int) -> None:
    caller = Caller(code, code, code)
    delivered(caller)
    assert caller.names() == ["does", "does", "does", "dead"]
    assert caller.calls[-1][1].extensions["knativeerrorcode"] == str(code)


@pytest.mark.parametrize("code", [301, 400, 401, 403, 422])
def test_these_answers_are_final(code: int) -> None:
    caller = Caller(httpx.Response(code, content=b"why"))
    delivered(caller)
    assert caller.names() == ["does", "dead"]
    assert base64.b64decode(caller.calls[-1][1].extensions["knativeerrordata"]) == b"why"
    assert caller.calls[-1][1].data == EVENT.data


def test_a_retry_that_succeeds_ends_it() -> None:
    caller = Caller(503, 204)
    delivered(caller)
    assert caller.names() == ["does", "does"]


def test_a_body_that_is_no_event_is_a_failure() -> None:
    caller = Caller(*[httpx.Response(200, content=b"OK")] * 3)
    delivered(caller)
    assert caller.names() == ["does", "does", "does", "dead"]
    assert caller.calls[-1][1].extensions["knativeerrorcode"] == "502"


def test_a_reply_that_is_an_event_is_delivered_with_one_pass_less() -> None:
    headers, body = on_the_wire(CloudEvent("replied", "/f", "s", "2", {}))
    caller = Caller(httpx.Response(200, headers=headers, content=body))
    delivered(caller)
    assert caller.names() == ["does", "hears"]
    passes = [int(event.extensions["knativebrokerttl"]) for _, event in caller.calls]
    assert passes == [MAX_TTL, MAX_TTL - 1]


def test_an_event_that_passed_too_often_is_refused() -> None:
    worn = CloudEvent("requested", "/t", "s", "1", {}, {"knativebrokerttl": "1"})
    with pytest.raises(RequestError, match="too often"):
        delivered(Caller(), worn)


def test_what_nobody_wants_is_dropped() -> None:
    caller = Caller()
    delivered(caller, CloudEvent("other", "/t", "s", "1", {}))
    assert caller.calls == []
