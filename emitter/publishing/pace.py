"""How soon the next round trip may leave. Pure."""

from __future__ import annotations

ROUND_TRIP_SECONDS = 0.002
"""Under load round trips are this far apart, so that executions share them. A round trip costs a process, Redis and the
edges as much as many events."""
FREE = 32
"""So many round trips may leave at once after a quiet time."""


class Pace:
    """On average at most one round trip in `seconds`; whoever sends less often never waits. Times in seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._slack = seconds * FREE
        self._ahead = 0.0

    def wait(self, now: float) -> float:
        """How long the next round trip must wait."""
        return max(0.0, self._ahead - now - self._slack)

    def count(self, now: float) -> None:
        """A round trip leaves."""
        self._ahead = min(max(self._ahead, now) + self._seconds, now + self._slack + self._seconds)
