"""Moments as text. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

_FIRST, _LAST = -62_135_596_800_000, 253_402_300_799_999
"""Milliseconds of the years 1 to 9999, which are all that the format has."""


def timestamp(ms: int) -> str:
    """RFC 3339 in UTC with milliseconds. What lies outside of its years is their first or last moment: old logs may
    hold any number."""
    seconds, rest = divmod(ms if _FIRST <= ms <= _LAST else min(max(ms, _FIRST), _LAST), 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """Many events come in the same one."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
