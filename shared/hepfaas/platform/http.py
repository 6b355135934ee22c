"""Answers of functions: JSON documents, and errors as statuses. The outermost layer of every function."""

from __future__ import annotations

import functools
import io
import json
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from flask import Request, Response, current_app, has_app_context, has_request_context
from gunicorn.config import LimitRequestLine
from gunicorn.http.errors import NoMoreData, ParseException
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge

from hepfaas.errors import ForbiddenError, NotThereError, RequestError, UnavailableError, public_text
from hepfaas.platform.browsers import PROTECTION
from hepfaas.platform.cloud_events import CloudEvent, Keys, is_signed, keys_of, read_event
from hepfaas.platform.statuses import FAULT, status_of
from hepfaas.platform.terminal import fault_line

LOG = logging.getLogger("hepfaas")
LOG.setLevel(logging.INFO)
MOST_EVENT_BYTES = 256 * 1024
MOST_DRAINED_BYTES, DRAINING_S = 16_000_000, 2.0
_DRAINS, ARRIVED_S = threading.BoundedSemaphore(3), 0.02
"""Threads that wait for the rest of a body at once; the others read what has arrived."""
STALLED_S = 60.0
"""Longest silence of a client within its body: it occupies one of few threads."""
MOST_MESSAGE = 5_000
"""Characters of an error message, which may quote the request."""

MOST_LINE = 8_190
LimitRequestLine.validator = staticmethod(lambda value: int(value) or MOST_LINE)
"""functions-framework sets 0, no limit, and has no option: gunicorn would buffer an endless request line, and search
all of it again with each piece."""

WAIT_S = 10.0
"""Longest time that an event waits for the previous one."""

MARGIN_S = 300.0
"""Time that an event may continue after its deadline: nobody waits for its answer, but its results are stored."""

Handler = Callable[[Request], Response]


def json_answer(values: Any, status: int = 200, **headers: str) -> Response:
    """Return a JSON document. headers: with '_' for '-'."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(json.dumps(values), status, fields, mimetype="application/json")


def answers(name: str, is_well: Callable[[], bool] = lambda: True) -> Callable[[Handler], Handler]:
    """Return a decorator that turns the errors of a function into answers and logs one line for each request. It
    answers /healthz itself: with 503 if the process must be restarted."""

    if not LOG.hasHandlers():  # neither framework nor gunicorn adds one; Python alone drops lines below a warning
        LOG.addHandler(logging.StreamHandler())
    if has_app_context() and not has_request_context():  # the framework loads the function: protect its errors too
        current_app.after_request(_protected)

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def answered(request: Request) -> Response:
            if request.path == "/healthz":
                return _protected(Response(status=204 if is_well() else 503))
            began = time.monotonic()
            if request.max_content_length is None:
                request.max_content_length = MOST_EVENT_BYTES  # a handler may set a larger limit
            body = request.environ["wsgi.input"] = _CountedInput(request.environ["wsgi.input"])
            with _patience(request, STALLED_S):
                response, said = _answer(handler, request)
            if malformed := _drain(request, body):
                response.close()  # a stream frees its resources
                response, said = malformed
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
            LOG.info(json.dumps({key: value for key, value in fields.items() if value != ""}))
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
    keys: Keys = (),
    *,
    unsigned: Sequence[str] = (),
    deadline_s: float = 300.0,
) -> Handler:
    """Return a function that handles CloudEvents, one at a time: after a 504 the previous one continues.

    made: returns the handler; it is called at the first event, never at import. keys: for signatures; without keys any
    event is accepted. unsigned: types of events that cannot be signed. deadline_s: limit of an event; if one has not
    ended long after it, /healthz fails.
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
        known = keys_of(event, keys)
        if known and event.type not in unsigned and not is_signed(event, known):
            raise ForbiddenError("the event is not signed by this service, or was changed")
        if not lock.acquire(timeout=WAIT_S):
            raise UnavailableError(f"function '{name}' still handles an earlier event; send the event again")
        try:
            began = time.monotonic()
            if not kept:
                kept.append(made())
            kept[0](event)
        except NotThereError as error:
            # a broker would deliver the event again after a 404
            raise RequestError(str(error), outside=public_text(error)) from error
        finally:
            began = math.inf
            lock.release()
        return Response(status=204)

    return function


def event_in(request: Request) -> CloudEvent:
    """Return the CloudEvent of a request. Raises: RequestError if there is none; RequestEntityTooLarge."""
    request.max_content_length = MOST_EVENT_BYTES
    body = request.get_data()
    if request.content_length is None and len(body) == MOST_EVENT_BYTES:
        raise RequestEntityTooLarge()  # werkzeug truncates a body without a length
    return read_event(dict(request.headers), body)


def _answer(handler: Handler, request: Request) -> tuple[Response, str]:
    try:
        return handler(request), "done"
    except RequestEntityTooLarge:
        message = f"the request has more than {request.max_content_length} bytes"
        return json_answer({"error": message}, 413), message
    except (ParseException, NoMoreData, TimeoutError) as error:  # gunicorn reads a body as the handler does
        return _malformed(error)
    except MethodNotAllowed as error:
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return json_answer({"error": error.description or error.name}, 405, Allow=allowed), error.name
    except HTTPException as error:
        return json_answer({"error": error.description or error.name}, error.code or 500), error.name
    except Exception as error:
        if known := status_of(error):
            status, headers = known
            answer = json_answer({"error": public_text(error)[:MOST_MESSAGE]}, status, **headers)
            return answer, str(error)[:MOST_MESSAGE]
        LOG.error(fault_line(error))
        return json_answer({"error": FAULT}, 500), repr(error)


def _malformed(error: Exception) -> tuple[Response, str]:
    message = f"the request's body is malformed: {str(error)[:200]}"
    return json_answer({"error": message}, 400), message


class _CountedInput:
    """A WSGI input that knows how much of it was read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._size, self._has_ended = 0, False

    def is_read(self, content_length: int | None) -> bool:
        """Return whether nothing of the body is left."""
        return self._has_ended or self._size == content_length

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, b"" at the end."""
        data = self._source.read(size)
        self._size += len(data)
        self._has_ended |= size < 0 or len(data) < size
        return data

    def readline(self, size: int = -1) -> bytes:
        """Return a line."""
        line = self._source.readline(size)
        self._size += len(line)
        self._has_ended |= not line
        return line


def _drain(request: Request, body: _CountedInput) -> tuple[Response, str] | None:
    """Read some of the rest of the body: a client that is still sending would not see the answer. Return the answer if
    the body is malformed. The framework, which would read all of the rest into memory, gets an empty stream.

    Few threads do so at once. A body that does not end in time is cut off: gunicorn would wait for the rest of it.
    """
    request.stream = io.BytesIO()
    has_body = request.content_length is not None or request.headers.get("Transfer-Encoding")
    if not has_body or body.is_read(request.content_length):
        return None
    may_wait = _DRAINS.acquire(blocking=False)
    left, end = MOST_DRAINED_BYTES, time.monotonic() + (DRAINING_S if may_wait else ARRIVED_S)
    try:
        while left > 0 and (wait_s := end - time.monotonic()) > 0:
            with _patience(request, wait_s):
                data = body.read(min(left, 1 << 16))
            if not data:
                return None
            left -= len(data)
    except ParseException as error:
        return _malformed(error)
    except OSError:  # the client has closed, or waits
        pass
    finally:
        if may_wait:
            _DRAINS.release()
    if connection := request.environ.get("gunicorn.socket"):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RD)
    return None


@contextmanager
def _patience(request: Request, wait_s: float) -> Iterator[None]:
    """Limit the wait for each piece of the body, if the server passes its socket."""
    connection = request.environ.get("gunicorn.socket")
    if connection is None:
        yield
        return
    before = connection.gettimeout()
    connection.settimeout(wait_s)
    try:
        yield
    finally:
        connection.settimeout(before)
