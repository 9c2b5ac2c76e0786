"""One timer for every heartbeat, expiry, age limit and write deadline of the process."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from broker.base.slices import SLICE_SECONDS

MIN_DROPPED = 64
"""Entries of forgotten subjects are removed when they are half of the heap, and at least so many."""

T = TypeVar("T")

Entry = list[Any]
"""[when, number, subject]; the subject is None when it was forgotten."""


class TimerHeap(Generic[T]):
    """A heap of entries on the loop's clock, and one loop timer for its top.

    `tick(subject, now)` is called when a subject is due, and returns when to call again, or None to forget it.
    """

    def __init__(self, tick: Callable[[T, float], float | None]) -> None:
        self._tick = tick
        self._heap: list[Entry] = []
        self._count = itertools.count()
        self._forgotten = 0
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Entries, with those of forgotten subjects."""
        return len(self._heap)

    def add(self, subject: T, when: float) -> Entry:
        """Call `tick` for the subject at `when`. Returns what `forget` takes."""
        entry: Entry = [when, next(self._count), subject]
        heapq.heappush(self._heap, entry)
        if self._handle is None or when < self._handle.when():
            self._arm()
        return entry

    def forget(self, entry: Entry) -> None:
        """Let go of a subject now, and not when it would have been due."""
        if entry[2] is None:
            return
        entry[2] = None
        self._forgotten += 1
        if self._forgotten >= MIN_DROPPED and 2 * self._forgotten > len(self._heap):
            self._heap = [each for each in self._heap if each[2] is not None]
            heapq.heapify(self._heap)
            self._forgotten = 0

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = asyncio.get_running_loop().call_at(self._heap[0][0], self._fire) if self._heap else None

    def _fire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._handle = None
        try:
            # In slices: after a stall, thousands may be due together.
            while self._heap and self._heap[0][0] <= now + 0.005 and loop.time() <= now + SLICE_SECONDS:
                entry = heapq.heappop(self._heap)
                if (subject := entry[2]) is None:
                    self._forgotten -= 1
                    continue
                again = self._tick(subject, now)
                if entry[2] is None:  # forgotten by its own tick
                    self._forgotten -= 1
                elif again is None:
                    entry[2] = None
                else:
                    # Never in the past: a subject that is late must not hold the loop.
                    entry[:2] = max(again, now + 0.02), next(self._count)
                    heapq.heappush(self._heap, entry)
        finally:
            self._arm()  # an error in one subject's tick must not stop the clock of all others

    def stop(self) -> None:
        self._heap.clear()
        self._arm()
