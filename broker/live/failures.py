"""Logs that could not be shown a moment ago: a client that returns at once must not make the edge try at once."""

from __future__ import annotations

import time
from collections.abc import Callable

from broker.live.view import StreamView

PAUSE_SECONDS = 30.0
MAX_REMEMBERED = 1000


class Failures:
    """Logs by the protocol in which they could not be shown."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str], float] = {}

    def note(self, log: str, view: StreamView) -> bool:
        """Remember a failure. Returns whether it is the first within the pause."""
        key, now = (log, view.name), self._clock()
        is_first = self._until.pop(key, 0.0) <= now
        if len(self._until) >= MAX_REMEMBERED:
            del self._until[next(iter(self._until))]  # the oldest
        self._until[key] = now + PAUSE_SECONDS
        return is_first

    def seconds_left(self, log: str, view: StreamView) -> float:
        """How long the log must not be tried in this view; 0 if it may be."""
        until = self._until.get((log, view.name)) if self._until else None
        return 0.0 if until is None else max(0.0, until - self._clock())
