"""What a log has acknowledged lately, held in case a failover of Redis loses it."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque

from emitter.wire.prepared import Batch

HELD_SECONDS = 60.0
"""Longer than a primary that is cut off takes writes (15 s in a Cluster by its defaults), and a failover then takes."""
HELD_BYTES = 256 * 1024
"""Of one outbox."""


class Sent:
    """The batches of one outbox that arrived last, for `HELD_SECONDS` and up to `HELD_BYTES`."""

    def __init__(self) -> None:
        self._held: deque[tuple[float, Batch]] = deque()
        """With when each left for the last time (loop time)."""
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self.is_asking = False
        """Whether a batch is on the way, which will tell if the log still has these: until then nothing is too old."""

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, batch: Batch, at: float) -> None:
        """Hold a batch that left `at` (loop time)."""
        self._held.append((at, batch))
        self._size += batch.size
        while self._size > HELD_BYTES:
            self._drop()
        if self._timer is None and self._held:
            self._arm(HELD_SECONDS)

    def take_after(self, reached: int) -> list[Batch]:
        """The batches with events after this sequence, in order; they are no longer held."""
        lost: list[Batch] = []
        while self._held and _last(self._held[-1][1]) > reached:
            _, batch = self._held.pop()
            self._size -= batch.size
            lost.append(batch)
        return lost[::-1]

    def clear(self) -> None:
        self._held.clear()
        self._size = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop(self) -> None:
        self._size -= self._held.popleft()[1].size

    def _arm(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._expire, context=contextvars.Context())

    def _expire(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._held and self._held[0][0] + HELD_SECONDS <= now and not self.is_asking:
            self._drop()
        if self._held:
            self._arm(HELD_SECONDS if self.is_asking else self._held[0][0] + HELD_SECONDS - now)


def _last(batch: Batch) -> int:
    """Sequence of its last event."""
    return batch.first_seq + len(batch.events) - 1
