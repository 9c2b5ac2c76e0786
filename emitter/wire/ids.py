"""Ids of executions, inputs and events."""

from __future__ import annotations

import os
import re
import time
from typing import NamedTuple

from emitter.errors import InvalidEvent

EXECUTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
INPUT_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
EVENT_ID = re.compile(r"(\d{1,15})-(\d{1,15})\Z", re.ASCII)


class EventId(NamedTuple):
    """A place in one log: Redis time at append in milliseconds, and the event's ordinal, dense from 1."""

    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


START = EventId(0, 0)
"""The cursor before the first event."""


def parse_event_id(text: str) -> EventId:
    """`<ms>-<seq>` as an `EventId`; `ValueError` for anything else."""
    match = EVENT_ID.match(text)
    if match is None:
        raise ValueError(f"not an event id: {text[:64]!r}")
    return EventId(int(match[1]), int(match[2]))


_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def new_execution_id() -> str:
    """`ex_` and a ULID (48 bits of time, 80 random ones; lower case Crockford base 32), which sorts by time."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "ex_" + "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def check_execution_id(execution_id: str) -> str:
    if not (isinstance(execution_id, str) and EXECUTION_ID.match(execution_id)):
        raise InvalidEvent(f"executionId: {str(execution_id)[:80]!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
    return execution_id
