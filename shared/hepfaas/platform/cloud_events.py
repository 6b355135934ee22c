"""CloudEvents: read from a request, posted to a broker. The only module that knows their form on the wire."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import urllib3
from cloudevents.conversion import to_binary
from cloudevents.exceptions import GenericException
from cloudevents.http import CloudEvent as Wire
from cloudevents.http import from_http

from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform import web
from hepfaas.platform.address import parsed
from hepfaas.platform.time_limit import within

CANONICAL: Mapping[str, Any] = {"sort_keys": True, "separators": (",", ":")}
MOST_DATA_BYTES = 64 * 1024
"""An event carries keys, never data."""

SIGNATURE = "hepfaassig"
"""The extension attribute that says that an event is ours."""

BROKER_S, WEBHOOK_S = 30.0, 5.0
"""So long taking an event may last, from the look-up of the name to the end of the answer."""

MOST_ANSWER_BYTES = 64 * 1024
"""Of an answer no more is read; its connection is used again if that was all."""


@dataclass(frozen=True)
class CloudEvent:
    """One message. extensions: further attributes, `traceparent` and what a broker adds to a dead letter."""

    type: str
    source: str
    subject: str
    id: str
    data: Mapping[str, Any]
    extensions: Mapping[str, str] = field(default_factory=dict)

    @property
    def trace(self) -> str:
        """The W3C trace context that it belongs to."""
        return self.extensions.get("traceparent", "")


Keys = Sequence[str] | Callable[[CloudEvent], Sequence[str]]
"""Keys that sign events, the first one new ones; or what gives those of an event."""


class Sender(Protocol):
    """Takes events for delivery."""

    def send(self, event: CloudEvent) -> None:
        """Gives the event away. Raises: UnavailableError if nobody said that he has it; he may have it."""
        ...


class HttpSender:
    """Posts events to a URL, in binary form, signed with the first of their keys if there is one.

    most_s: for all of it. private: whether it may be in a private network.
    """

    def __init__(
        self, url: str, keys: Keys = (), most_s: float = BROKER_S, private: bool = True, who: str = "broker"
    ) -> None:
        if not url:
            raise RequestError("there is no broker to send events to: set K_SINK to its URL")
        self._url, self._keys, self._most_s, self._private, self._who = url, keys, most_s, private, who

    def send(self, event: CloudEvent) -> None:
        """Gives the event away. Raises: as a Sender; RequestError if it leads into a private network and may not."""
        keys = keys_of(event, self._keys)
        headers, body = on_the_wire(signed(event, keys[0]) if keys else event)
        try:
            with within(self._most_s):
                answer = web.request("POST", self._url, headers, body, self._private)
                with closing(answer):
                    answer.read(MOST_ANSWER_BYTES, decode_content=False)
        except urllib3.exceptions.HTTPError as error:
            silent = f"the {self._who} does not answer"
            raise UnavailableError(f"{silent}: {error}", outside=silent) from error
        if answer.status >= 300:
            raise UnavailableError(f"the {self._who} answers {answer.status} to an event of type {event.type}")


def webhook(url: str, private: bool = False) -> HttpSender:
    """What a run's owner named to be told its end: it is asked quickly, and unsigned."""
    return HttpSender(str(parsed(url, with_query=True)), most_s=WEBHOOK_S, private=private, who="webhook")


def keys_of(event: CloudEvent, keys: Keys) -> Sequence[str]:
    """The keys of one event."""
    return keys(event) if callable(keys) else keys


def signed(event: CloudEvent, key: str) -> CloudEvent:
    """The event with its signature."""
    return replace(event, extensions={**event.extensions, SIGNATURE: _signature(event, key)})


def is_signed(event: CloudEvent, keys: Sequence[str]) -> bool:
    """Whether one of the keys has signed just this event. What brokers add to it does not count."""
    given = event.extensions.get(SIGNATURE, "").encode()
    return any(hmac.compare_digest(given, _signature(event, key).encode()) for key in keys)


def _signature(event: CloudEvent, key: str) -> str:
    """HMAC-SHA256 of what makes the event, in hexadecimal digits. Of the data the values count, not how they are
    written: a broker may write JSON anew."""
    what = json.dumps([event.id, event.type, event.source, event.subject, event.data], **CANONICAL).encode()
    return hmac.new(key.encode(), what, hashlib.sha256).hexdigest()


def on_the_wire(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Headers and body of the binary form."""
    attributes = {
        "type": event.type,
        "source": event.source,
        "subject": event.subject,
        "id": event.id,
        "datacontenttype": "application/json",
        **event.extensions,
    }
    headers, body = to_binary(Wire(attributes, dict(event.data)))
    data = body if isinstance(body, bytes) else str(body).encode()
    if len(data) > MOST_DATA_BYTES:
        raise RequestError(
            f"an event of type {event.type} has {len(data)} bytes; at most {MOST_DATA_BYTES} go through brokers"
        )
    return dict(headers), data


def read_event(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """The event in a request, in binary or structured form. Raises: RequestError if there is none."""
    try:
        wire = from_http(dict(headers), body)
        attributes = {name: str(value) for name, value in wire.get_attributes().items()}
        data = _json(wire.get_data())
    except (GenericException, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError("the request holds no CloudEvent with a JSON object as its data") from error
    known = {name: attributes.pop(name, "") for name in ("type", "source", "subject", "id")}
    return CloudEvent(**known, data=data, extensions=attributes)


def _json(data: Any) -> Mapping[str, Any]:
    values = json.loads(data) if isinstance(data, str | bytes) else data
    if not isinstance(values, dict):
        raise ValueError(type(values).__name__)
    return values
