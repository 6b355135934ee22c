"""Times as people and programs read them."""

from __future__ import annotations

import time


def utc(seconds: float) -> str:
    """Return a time, seconds since 1970, as ISO 8601 in UTC: `2026-11-30T14:12:18Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
