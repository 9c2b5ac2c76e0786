"""How many deliveries one receiver, and one user, may have under way, and how long a user's receiver that is away is
left alone. Pure but for waiting: the time is passed in.

A lane has a few places, and some that wait for them a moment. Whoever finds no place comes again later: the more come,
the later, at the pace at which the lane moves. So the deliveries to a slow receiver cost a few places, however many
there are.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict

PLACES = {"receiver": 16, "user": 32, "user at receiver": 8}
"""More than one user has at a receiver there are for others at it, and for the user elsewhere."""
WAITING = 24
PATIENCE_SECONDS = 2.0
FAILURES = 5
"""In a row: then the receiver counts as away."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between the tries of one that is away."""
MAX_LANES = 4096
USUAL_SECONDS = 0.1


class Lane:
    """The places of one receiver or user."""

    def __init__(self, places: int) -> None:
        self._places = asyncio.Semaphore(places)
        self._count = places
        self._used = self._waiting = 0
        self._usual = USUAL_SECONDS
        self._next_at = 0.0
        self._failures = 0
        self._closed_until = 0.0
        self._is_tried = False

    @property
    def is_idle(self) -> bool:
        return not (self._used or self._waiting)

    async def enter(self, now: float) -> float:
        """Take a place: 0, or after how many seconds to come again."""
        if self._waiting >= WAITING and self._places.locked():
            return self._later(now)
        self._waiting += 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            return self._later(now + PATIENCE_SECONDS)
        finally:
            self._waiting -= 1
        self._used += 1
        return 0.0

    def leave(self, seconds: float | None = None) -> None:
        """Give the place back. `seconds`: how long a delivery has taken."""
        self._used -= 1
        self._places.release()
        if seconds is not None:
            self._usual += (max(seconds, 0.001) - self._usual) / 8

    def _later(self, now: float) -> float:
        self._next_at = max(self._next_at, now) + self._usual / self._count
        return max(self._next_at - now, 0.05)

    def closed_for(self, now: float) -> float:
        """For how many seconds the user's receiver is left alone. The first who comes after that tries it for all."""
        if self._failures < FAILURES:
            return 0.0
        if now < self._closed_until:
            return self._closed_until - now + random.uniform(0, 1)
        self._closed_until, self._is_tried = now + self._pause(), True
        return 0.0

    def note(self, now: float, *, is_away: bool) -> None:
        """How a delivery went. Of many that fail together only the first ones count: the pause grows from try to
        try."""
        if not is_away:
            self._failures, self._closed_until, self._is_tried = 0, 0.0, False
            return
        if self._failures >= FAILURES and not self._is_tried:
            return
        self._is_tried = False
        self._failures += 1
        self._closed_until = now + self._pause()

    def _pause(self) -> float:
        return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(max(0, self._failures - FAILURES), 16)))


class Lanes:
    """Lanes by kind and name. Those that nobody uses are forgotten, the oldest first."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[tuple[str, str], Lane] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lanes)

    def of(self, kind: str, name: str) -> Lane:
        key = (kind, name)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(PLACES[kind])
            self._forget()
        self._lanes.move_to_end(key)
        return lane

    def _forget(self) -> None:
        if len(self._lanes) <= MAX_LANES:
            return
        for key, lane in list(self._lanes.items())[:64]:
            if lane.is_idle:
                del self._lanes[key]
