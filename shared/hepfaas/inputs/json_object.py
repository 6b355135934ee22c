"""The JSON object in a body."""

from __future__ import annotations

from typing import Any

import orjson

from hepfaas.errors import RequestError


def json_object(data: bytes | memoryview) -> dict[str, Any]:
    """Return the JSON object in a body. Raises: RequestError if there is none."""
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise RequestError("the body is not a JSON object")
    return values
