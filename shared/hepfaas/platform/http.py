"""Answers of functions: JSON, and our two families of errors as statuses. The outermost shell of every function."""

from __future__ import annotations

import functools
import io
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from flask import Request, Response, current_app, has_app_context, has_request_context
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from hepfaas.errors import ForbiddenError, NotThereError, RequestError, UnavailableError, public_text
from hepfaas.platform.browsers import PROTECTION
from hepfaas.platform.cloud_events import CloudEvent, is_signed, read_event
from hepfaas.platform.statuses import FAULT, status_of

LOG = logging.getLogger("hepfaas")
MOST_EVENT_BYTES = 256 * 1024
MOST_DRAINED_BYTES = 16_000_000
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")

WAIT_S = 10.0
"""So long an event waits for the one before it."""

MARGIN_S = 300.0
"""So long an event may go on after its deadline: nobody waits for it any more, but what it stores counts."""

Handler = Callable[[Request], Response]


def json_answer(values: Any, status: int = 200, **headers: str) -> Response:
    """A JSON document."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(json.dumps(values), status, named, mimetype="application/json")


def answers(name: str, is_well: Callable[[], bool] = lambda: True) -> Callable[[Handler], Handler]:
    """Turns what a function raises into an answer, and logs one line a request. /healthz answers for itself: 503 when
    the process is to be started anew."""

    if has_app_context() and not has_request_context():  # the framework loads the function: protect its errors too
        current_app.after_request(_protected)

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def answered(request: Request) -> Response:
            if request.path == "/healthz":
                return _protected(Response(status=204 if is_well() else 503))
            began = time.monotonic()
            response, said = _answer(handler, request)
            fields = {
                "function": name,
                "method": request.method,
                "path": request.path,
                "id": request.headers.get("ce-id", ""),
                "type": request.headers.get("ce-type", ""),
                "status": response.status_code,
                "seconds": round(time.monotonic() - began, 4),
                "outcome": said,
            }
            LOG.warning(json.dumps({key: value for key, value in fields.items() if value != ""}))
            return _protected(response)

        return answered

    return decorate


def raw_headers(request: Request) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request as ASGI has them: bytes, names in lower case."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]


def _protected(response: Response) -> Response:
    for name, value in PROTECTION.items():
        response.headers.setdefault(name, value)
    return response


def takes_events(
    name: str,
    made: Callable[[], Callable[[CloudEvent], None]],
    keys: Sequence[str] = (),
    unsigned: Sequence[str] = (),
    deadline_s: float = 300.0,
) -> Handler:
    """A function that is called by CloudEvents, one at a time: after a 504 the one before computes on.

    `made` gives what handles them; it is called at the first event, never at import. keys: that sign events; without
    them any event counts. unsigned: types of events that nobody can sign. deadline_s: of one; who has not ended
    long after it never will, and /healthz says so.
    """
    lock = threading.Lock()
    began = math.inf

    def is_well() -> bool:
        return time.monotonic() - began < deadline_s + MARGIN_S

    kept: list[Callable[[CloudEvent], None]] = []

    @answers(name, is_well)
    def function(request: Request) -> Response:
        nonlocal began
        if request.method != "POST":
            return json_answer({"error": f"function '{name}' takes CloudEvents by POST"}, 405, Allow="POST")
        event = event_in(request)
        if keys and event.type not in unsigned and not is_signed(event, keys):
            raise ForbiddenError("the event is not signed by this service, or not as it is now")
        if not lock.acquire(timeout=WAIT_S):
            raise UnavailableError(f"function '{name}' still does what it was asked for before; send the event again")
        try:
            began = time.monotonic()
            if not kept:
                kept.append(made())
            kept[0](event)
        except NotThereError as error:
            # a broker delivers what was answered with 404 again
            raise RequestError(str(error), outside=public_text(error)) from error
        finally:
            began = math.inf
            lock.release()
        return Response(status=204)

    return function


def event_in(request: Request) -> CloudEvent:
    """The CloudEvent of a request. Raises: RequestError if there is none; RequestEntityTooLarge."""
    request.max_content_length = MOST_EVENT_BYTES
    body = request.get_data()
    if request.content_length is None and len(body) == MOST_EVENT_BYTES:
        raise RequestEntityTooLarge()  # werkzeug cuts off a body that did not say how long it is
    return read_event(dict(request.headers), body)


def _answer(handler: Handler, request: Request) -> tuple[Response, str]:
    try:
        return handler(request), "done"
    except RequestEntityTooLarge:
        _drain(request)
        said = _met(request)
        return json_answer({"error": said}, 413), said
    except HTTPException as error:
        return json_answer({"error": error.description or error.name}, error.code or 500), error.name
    except Exception as error:
        if found := status_of(error):
            status, headers = found
            return json_answer({"error": public_text(error)}, status, **headers), str(error)
        LOG.exception("a fault of ours")
        return json_answer({"error": FAULT}, 500), repr(error)


def _met(request: Request) -> str:
    """The limit that werkzeug found a request over: it has one for bytes, and two for forms, all with one exception."""
    size, most = request.content_length, request.max_content_length
    if not request.mimetype.startswith(FORMS) or size is None or (most is not None and size > most):
        return f"the request has more than {most} bytes"
    return (
        f"the form has more than {request.max_form_parts:,} parts, or one that is no file has more than "
        f"{request.max_form_memory_size:,} bytes; send many files as one tar.gz, and long texts as files"
    )


def _drain(request: Request) -> None:
    """Reads a little of what is too much: who still sends would not see an answer. The framework, which reads all that
    is left behind each answer, finds nothing."""
    raw, left = request.environ["wsgi.input"], MOST_DRAINED_BYTES
    while left > 0 and (data := raw.read(min(left, 1 << 16))):
        left -= len(data)
    request.stream = io.BytesIO()
