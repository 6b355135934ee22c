"""JSON bodies with a limit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask import Request

from hepfaas.errors import RequestError
from hepfaas.platform.http import MOST_EVENT_BYTES
from hepfaas.runs.json_values import check_shape

PIECE_BYTES = 250_000


def body_of(request: Request, most_bytes: int) -> bytearray:
    """Return the body, without a second copy in memory. Raises: RequestEntityTooLarge."""
    request.max_content_length = most_bytes
    data = bytearray()
    while piece := request.stream.read(PIECE_BYTES):
        data += piece
    return data


def object_in(data: bytearray) -> Mapping[str, Any]:
    """Return the JSON object in a body. Raises: RequestError if there is none."""
    try:
        text = data.decode("utf-8-sig", "surrogatepass")
        check_shape(text, "the body")
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError("the body is not JSON") from error
    if not isinstance(values, dict):
        raise RequestError("the body is not a JSON object")
    return values


def body_object(request: Request, most_bytes: int = MOST_EVENT_BYTES) -> Mapping[str, Any]:
    """Return the JSON object of a request. Raises: RequestError if there is none; RequestEntityTooLarge."""
    if request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise RequestError("the body is not JSON: its Content-Type is not application/json")
    return object_in(body_of(request, most_bytes))
