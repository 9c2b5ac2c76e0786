"""One timer for every heartbeat, expiry, age limit and write deadline of the process."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Generic, TypeVar

from broker.base.slices import SLICE_SECONDS

T = TypeVar("T")


class TimerHeap(Generic[T]):
    """A heap of (when, subject) on the loop's clock, and one loop timer for its top.

    `tick(subject, now)` is called when a subject is due, and returns when to call again, or None to forget it.
    """

    def __init__(self, tick: Callable[[T, float], float | None]) -> None:
        self._tick = tick
        self._heap: list[tuple[float, int, T]] = []
        self._count = itertools.count()
        self._handle: asyncio.TimerHandle | None = None

    def add(self, subject: T, when: float) -> None:
        heapq.heappush(self._heap, (when, next(self._count), subject))
        if self._handle is None or when < self._handle.when():
            self._arm()

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
                _, _, subject = heapq.heappop(self._heap)
                again = self._tick(subject, now)
                if again is not None:
                    # Never in the past: a subject that is late must not hold the loop.
                    heapq.heappush(self._heap, (max(again, now + 0.02), next(self._count), subject))
        finally:
            self._arm()  # an error in one subject's tick must not stop the clock of all others

    def stop(self) -> None:
        self._heap.clear()
        self._arm()
