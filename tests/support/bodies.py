"""Fuzzed requests: valid ones with parts changed, cut off or moved. Equal seeds give equal requests."""

import copy
import gzip
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WORDS = [
    "",
    "job",
    "features",
    "met",
    "lep_pt",
    "event",
    "scores",
    "FP32",
    "../../etc/passwd",
    "\ud800",
    "a" * 300,
    "\0",
]
NUMBERS = [0, -1, 1, 2**31, 2**63, -(2**70), 1e400, -1e308, 0.5, float("nan")]


@dataclass(frozen=True)
class Body:
    """One POST request."""

    path: str
    body: bytes
    headers: Mapping[str, str]


def changed(chooser: random.Random, bodies: list[Body]) -> Body:
    """Return one of the requests, changed in one to three ways."""
    original = chooser.choice(bodies)
    body, headers, path = original.body, dict(original.headers), original.path
    for _ in range(chooser.randint(1, 3)):
        match chooser.randint(0, 9):
            case 0 | 1 | 2 if body[:1] == b"{" and "Inference-Header-Content-Length" not in headers:
                body = _changed_json(chooser, body)
            case 3:
                headers["Content-Type"] = chooser.choice(
                    [*(other.headers.get("Content-Type", "") for other in bodies), "x"]
                )
            case 4:
                headers["Inference-Header-Content-Length"] = chooser.choice(["0", "7", "-1", "x", str(len(body))])
            case 5:
                path = _changed_path(chooser, path)
            case 6:
                headers["Content-Encoding"] = chooser.choice(["gzip", "base64", "br"])
                body = gzip.compress(body, 1) if chooser.random() < 0.3 else body
            case _:
                body = changed_bytes(chooser, body, chooser.choice(bodies).body)
    return Body(path, body, headers)


def changed_bytes(chooser: random.Random, whole: bytes, other: bytes) -> bytes:
    """Return the bytes with a part set, removed, repeated, cut off or taken from another body."""
    data = bytearray(whole)
    at = chooser.randint(0, len(data))
    end = min(len(data), at + chooser.choice([1, 4, 64, 4096]))
    match chooser.randint(0, 6):
        case 0:
            return chooser.randbytes(chooser.choice([0, 1, 30, 2000]))
        case 1:
            del data[at:]
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = data[at:end] * chooser.choice([1, 2, 50])
        case 4:
            data[at:end] = other[at:end]
        case 5:
            data[at : at + 4] = chooser.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
        case _:
            for _ in range(min(len(data), chooser.randint(1, 8))):
                data[chooser.randrange(len(data))] = chooser.randrange(256)
    return bytes(data)


def _changed_json(chooser: random.Random, body: bytes) -> bytes:
    try:
        values = json.loads(body)
    except ValueError:
        return body
    places = _places(values)
    if places:
        holder, key = chooser.choice(places)
        match chooser.randint(0, 3):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chooser.choice(WORDS)] = holder.pop(key)
            case 2:
                holder[key] = [copy.deepcopy(holder[key])]
            case _:
                holder[key] = _value(chooser)
    return json.dumps(values).encode()


def _places(values: Any) -> list[tuple[Any, Any]]:
    """Return all places in a document: the containing object or list, and the key or index."""
    if not isinstance(values, dict | list):
        return []
    inside = list(values.items() if isinstance(values, dict) else enumerate(values))
    return [(values, key) for key, _ in inside] + [place for _, value in inside for place in _places(value)]


def _value(chooser: random.Random) -> Any:
    simple = [None, True, False, chooser.choice(NUMBERS), chooser.choice(WORDS), [], {}]
    return chooser.choice([*simple, [chooser.choice(simple)] * 3, {chooser.choice(WORDS): chooser.choice(simple)}])


def _changed_path(chooser: random.Random, path: str) -> str:
    parts = path.split("/")
    parts[chooser.randrange(len(parts))] = chooser.choice(
        ["..", "%00", "%2e%2e", "job", "9" * 30, "a" * 3000, "?tree=%00"]
    )
    return "/" + "/".join(parts).lstrip("/")
