"""CloudEvents: read from requests, signed, and posted to a broker. The only module for their HTTP binding."""

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
"""An event has keys of objects, never data."""

SIGNATURE = "hepfaassig"
"""The extension attribute with the signature of an event of this service."""

BROKER_S, WEBHOOK_S = 30.0, 5.0
"""Longest time for the delivery of an event, from the look-up of the name to the end of the answer."""

MOST_ANSWER_BYTES = 64 * 1024
"""Longest part of an answer that is read; if that is all of it, its connection is reused."""


@dataclass(frozen=True)
class CloudEvent:
    """One CloudEvent. extensions: other attributes, such as `traceparent` and those that a broker adds to a dead
    letter."""

    type: str
    source: str
    subject: str
    id: str
    data: Mapping[str, Any]
    extensions: Mapping[str, str] = field(default_factory=dict)

    @property
    def trace(self) -> str:
        """The W3C trace context of the event."""
        return self.extensions.get("traceparent", "")


Keys = Sequence[str] | Callable[[CloudEvent], Sequence[str]]
"""Keys that sign events, the first one new events; or a function that returns the keys of an event."""


class Sender(Protocol):
    """Delivers events."""

    def send(self, event: CloudEvent) -> None:
        """Send the event. Raises: UnavailableError if no receiver confirmed it; one may have it anyway."""
        ...


class HttpSender:
    """Posts events to a URL, in binary mode, signed with the first of their keys if there is one.

    most_s: limit for a delivery. private: whether the URL may be in a private network. receiver: for messages.
    """

    def __init__(
        self, url: str, keys: Keys = (), *, most_s: float = BROKER_S, private: bool = True, receiver: str = "broker"
    ) -> None:
        if not url:
            raise RequestError("there is no broker to send events to: set K_SINK to its URL")
        self._url, self._keys, self._most_s, self._private, self._receiver = url, keys, most_s, private, receiver

    def send(self, event: CloudEvent) -> None:
        """Send the event. Raises: as a Sender; RequestError if the URL is in a private network and must not be."""
        keys = keys_of(event, self._keys)
        headers, body = on_the_wire(signed(event, keys[0]) if keys else event)
        try:
            with within(self._most_s):
                answer = web.request("POST", self._url, headers, body=body, private=self._private)
                with closing(answer):
                    answer.read(MOST_ANSWER_BYTES, decode_content=False)
        except urllib3.exceptions.HTTPError as error:
            silent = f"the {self._receiver} does not answer"
            raise UnavailableError(f"{silent}: {error}", outside=silent) from error
        if answer.status >= 300:
            raise UnavailableError(f"the {self._receiver} answers {answer.status} to an event of type {event.type}")


def webhook(url: str, private: bool = False) -> HttpSender:
    """Return the sender to the webhook of a run: unsigned and with a short limit."""
    return HttpSender(str(parsed(url, with_query=True)), most_s=WEBHOOK_S, private=private, receiver="webhook")


def keys_of(event: CloudEvent, keys: Keys) -> Sequence[str]:
    """Return the keys of one event."""
    return keys(event) if callable(keys) else keys


def signed(event: CloudEvent, key: str) -> CloudEvent:
    """Return the event with its signature."""
    return replace(event, extensions={**event.extensions, SIGNATURE: _signature(event, key)})


def is_signed(event: CloudEvent, keys: Sequence[str]) -> bool:
    """Return whether one of the keys signed this event. Attributes that brokers add are not part of it."""
    signature = event.extensions.get(SIGNATURE, "").encode()
    return any(hmac.compare_digest(signature, _signature(event, key).encode()) for key in keys)


def _signature(event: CloudEvent, key: str) -> str:
    """Return the HMAC-SHA256 of the event in hexadecimal digits. The data are signed in a canonical form, since a
    broker may serialise them again."""
    text = json.dumps([event.id, event.type, event.source, event.subject, event.data], **CANONICAL).encode()
    return hmac.new(key.encode(), text, hashlib.sha256).hexdigest()


def on_the_wire(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body in binary mode."""
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
            f"an event of type {event.type} has {len(data)} bytes; at most {MOST_DATA_BYTES} are permitted"
        )
    return dict(headers), data


def read_event(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """Return the event in a request, in binary or structured mode. Raises: RequestError if there is none."""
    try:
        wire = from_http(dict(headers), body)
        attributes = {name: str(value) for name, value in wire.get_attributes().items()}
        data = _json(wire.get_data())
    except (GenericException, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError("the request has no CloudEvent with a JSON object as its data") from error
    known = {name: attributes.pop(name, "") for name in ("type", "source", "subject", "id")}
    return CloudEvent(**known, data=data, extensions=attributes)


def _json(data: Any) -> Mapping[str, Any]:
    values = json.loads(data) if isinstance(data, str | bytes) else data
    if not isinstance(values, dict):
        raise ValueError(type(values).__name__)
    return values
