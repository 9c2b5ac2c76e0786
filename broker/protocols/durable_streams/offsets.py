"""Places as text that sorts as text (section 8), and the cursors that keep caches from going round (section 10.1).
Pure."""

from __future__ import annotations

import random
import re

from broker.base.problem import Problem
from emitter.wire.ids import START, EventId, parse_event_id

FIRST, NOW = "-1", "now"
"""What clients send for the beginning, and for the present end."""
_OFFSET = re.compile(r"(\d{13})_(\d{10})\Z", re.ASCII)
_CURSOR = re.compile(r"\d{1,15}\Z", re.ASCII)
INTERVAL_SECONDS = 20
EPOCH = 1_728_432_000
"""2024-10-09T00:00Z, from which intervals are counted."""
MAX_JITTER_SECONDS = 3600


def offset_of(place: EventId) -> str:
    """`<milliseconds, 13 digits>_<ordinal, 10 digits>`: after this event. Our ids do not sort: `…-9` > `…-10`."""
    return f"{place.ms:013d}_{place.seq:010d}"


def place_of(offset: str) -> EventId:
    """The place of an offset, or of an id of ours. Raises `Problem` 400."""
    if offset == FIRST:
        return START
    if (match := _OFFSET.match(offset)) is not None:
        return EventId(int(match[1]), int(match[2]))
    try:
        return parse_event_id(offset)
    except ValueError:
        raise malformed() from None


def malformed() -> Problem:
    return Problem(400, "malformed-offset", "offset is one that this stream gave, -1, or now", path="offset")


def known_cursor(text: str | None) -> int:
    """What a client sends back; -1 for nothing, or for what is no cursor of ours."""
    return int(text) if text is not None and _CURSOR.match(text) else -1


def next_cursor(known: int, now: float) -> int:
    """The number of the interval in which `now` (unix seconds) lies, or one that is greater than the client's."""
    interval = int((now - EPOCH) // INTERVAL_SECONDS)
    if known < interval:
        return interval
    return known + 1 + random.randrange(MAX_JITTER_SECONDS // INTERVAL_SECONDS)
