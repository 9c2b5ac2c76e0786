"""Live viewers whose bytes are compressed once for all of them.

One deflate stream per group refers to what it wrote before, which makes an event of 190 bytes 40. These references
reach back `WINDOW_BYTES` at most. A viewer can decode them once it has got so many bytes from the group, with nothing
of its own in between, or all since the deflate stream began: it is *in step* then. Until then it gets the same events
stored. So a viewer may join, and get something of its own, at any moment.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Protocol

from broker.live.fanout import Failure, Group, Subscriber, View
from broker.live.gzip_body import GzipBody, deflated, stored

WINDOW_BITS = 11
WINDOW_BYTES = 1 << WINDOW_BITS
"""2 KiB, some ten events. Twice as many make an event 3 % smaller, and a viewer out of step for twice as long."""
MEMORY_LEVEL = 3
"""With the window, 18 KiB for a deflate stream."""
BYTES_PER_VIEWER = 512
"""What is larger for each viewer is stored: to deflate it would cost a third of what a delivery does, or more."""
LARGE_BYTES = 16 * 1024
"""What is larger is compressed by itself, which is faster, and for all viewers alike."""


class Packers:
    """Room for the deflate streams of one edge. A group that finds none stores what it sends."""

    MOST = 1024
    MANY_VIEWERS = 8
    """Half of the room is for groups of so many."""

    def __init__(self) -> None:
        self.used = 0

    def take(self, viewers: int) -> bool:
        if self.used >= (self.MOST if viewers >= self.MANY_VIEWERS else self.MOST // 2):
            return False
        self.used += 1
        return True

    def give_back(self) -> None:
        self.used -= 1


class PackedView(View, Protocol):
    """A view whose `encode` gives the bytes before any coding."""

    packers: Packers

    def wrap_coded(self, coded: bytes) -> bytes: ...


class PackedSubscriber(Subscriber, Protocol):
    @property
    def body(self) -> GzipBody: ...


class PackedGroup(Group[Any]):
    """A group of viewers with a `GzipBody`. The bytes that it writes are what its view encodes, before the coding.

    `crc` and `size` are of all that it wrote. `_joined`: the size at which each viewer that is out of step joined, in
    that order.
    """

    __slots__ = ("_deflate", "_in_step", "_joined", "_out_of_step", "_packers", "_view", "crc", "size")

    def __init__(self, view: PackedView) -> None:
        super().__init__(view)
        self._view = view
        self._packers = view.packers
        self._deflate: Any = None
        self._in_step: Group[Any] = Group(view)
        self._out_of_step: Group[Any] = Group(view)
        self._joined: dict[PackedSubscriber, int] = {}
        self.crc = self.size = 0

    def __len__(self) -> int:
        return len(self._in_step) + len(self._joined)

    def __iter__(self) -> Iterator[Any]:
        yield from self._in_step
        yield from self._out_of_step

    def add(self, viewer: PackedSubscriber) -> None:
        viewer.body.enter(self.crc, self.size)
        self._joined[viewer] = self.size
        self._out_of_step.add(viewer)

    def remove(self, viewer: PackedSubscriber) -> None:
        viewer.body.leave(self.crc, self.size)
        self._half(viewer).remove(viewer)
        self._joined.pop(viewer, None)
        if not len(self):
            self.rest()

    def mark_backlogged(self, viewer: PackedSubscriber) -> None:
        self._half(viewer).mark_backlogged(viewer)

    def _half(self, viewer: PackedSubscriber) -> Group[Any]:
        return self._out_of_step if viewer in self._joined else self._in_step

    def rest(self) -> None:
        """Keep no memory of what was written: nobody is left, or the log is quiet."""
        if self._deflate is not None:
            self._deflate = None
            self._packers.give_back()
        for viewer in list(self._in_step):
            self._move(viewer, self._in_step, self._out_of_step)
            self._joined[viewer] = self.size

    def write(self, data: bytes, failed: list[Failure[Any]]) -> int:
        self._bring_into_step()
        sent, is_costly = 0, len(data) > BYTES_PER_VIEWER * len(self)
        if self._deflate is not None and (is_costly or len(data) > LARGE_BYTES):
            coded = self._view.wrap_coded(stored(data) if is_costly else deflated(data))
            sent = self._in_step.write(coded, failed) + self._out_of_step.write(coded, failed)
            self._restart()
        else:
            if len(self._in_step):
                coded = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
                sent = self._in_step.write(self._view.wrap_coded(coded), failed)
            if self._joined:
                sent += self._out_of_step.write(self._view.wrap_coded(stored(data)), failed)
        self.crc = zlib.crc32(data, self.crc)
        self.size += len(data)
        return sent

    # --- in step ---

    def _bring_into_step(self) -> None:
        """Move those who have got enough. If most have not, begin anew: then all are in step at once."""
        joined = self._joined
        if not joined:
            return
        if len(joined) > len(self._in_step):
            if self._deflate is not None or self._packers.take(len(self)):
                self._restart()
            return
        enough = self.size - WINDOW_BYTES
        while joined:
            viewer, size = next(iter(joined.items()))
            if size > enough:
                break
            del joined[viewer]
            self._move(viewer, self._out_of_step, self._in_step)

    def _restart(self) -> None:
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, -WINDOW_BITS, MEMORY_LEVEL)
        for viewer in self._joined:
            self._move(viewer, self._out_of_step, self._in_step)
        self._joined.clear()

    def _move(self, viewer: PackedSubscriber, source: Group[Any], target: Group[Any]) -> None:
        source.remove(viewer)
        target.add(viewer)
