"""The one place where live events are written: viewers that share a view of a log get the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from emitter.wire.entries import Entry


class Delivery(NamedTuple):
    """The sums of one call of `deliver`. `saved`: bytes that compression kept off the wire."""

    viewers: int
    events: int
    bytes: int
    saved: int = 0


class View(Protocol):
    """The part of a `StreamView` that the live path needs."""

    key: tuple[object, ...]

    @property
    def is_native(self) -> bool: ...

    @property
    def is_over(self) -> bool: ...

    @property
    def sharers(self) -> int: ...

    def has_made(self, entries: Sequence[Entry]) -> bool: ...

    def part(self, others: dict[Any, None], *, is_last: bool) -> None: ...

    def select(self, entries: Sequence[Entry]) -> Sequence[Entry]: ...

    def encode(self, entries: Sequence[Entry]) -> bytes: ...

    def make_group(self) -> Group[Any] | None:
        """For the live viewers that share this view; None for a plain `Group`."""


class Transport(Protocol):
    """The part of `asyncio.Transport` that the live path needs."""

    def write(self, data: bytes) -> None: ...

    def get_write_buffer_size(self) -> int: ...


class Subscriber(Protocol):
    """The part of a `Viewer` that the live path needs. `fd`: its socket, or -1 if that must not be written directly."""

    @property
    def fd(self) -> int: ...

    @property
    def view(self) -> View: ...

    @property
    def transport(self) -> Transport: ...


V = TypeVar("V", bound=Subscriber)

NOBODY: Mapping[int, Any] = MappingProxyType({})
NONE: AbstractSet[Any] = frozenset()


class Failure(NamedTuple, Generic[V]):
    """A viewer that could not be shown something, and the error."""

    viewer: V
    error: Exception


class Group(Generic[V]):
    """Live viewers that share one view, so that their bytes are made once.

    The transport of a `writable` viewer holds nothing, so that its bytes go straight to the socket, by its number. A
    transport's own `write` would do the same after reading a dozen of its attributes, and with thousands of viewers
    each of those is a cache miss: 1 of 6 µs. What a socket does not take goes to the transport. Its viewer is
    `backlogged` then, and written to through the transport until that holds nothing. A viewer is in exactly one of the
    two.
    """

    __slots__ = ("backlogged", "view", "writable")

    def __init__(self, view: View) -> None:
        self.view = view
        # Made for the first member: most logs have one viewer, and an empty set or dict would be a part of its cost.
        self.writable: Mapping[int, V] = NOBODY
        self.backlogged: AbstractSet[V] = NONE

    def __len__(self) -> int:
        return len(self.writable) + len(self.backlogged)

    def __iter__(self) -> Iterator[V]:
        yield from self.writable.values()
        yield from self.backlogged

    def add(self, viewer: V) -> None:
        if viewer.fd >= 0 and viewer.transport.get_write_buffer_size() == 0:
            if not isinstance(self.writable, dict):
                self.writable = {}
            self.writable[viewer.fd] = viewer
        else:
            self._add_backlogged(viewer)

    def _add_backlogged(self, viewer: V) -> None:
        if not isinstance(self.backlogged, set):
            self.backlogged = set()
        self.backlogged.add(viewer)

    def remove(self, viewer: V) -> None:
        if isinstance(self.writable, dict) and self.writable.get(viewer.fd) is viewer:
            del self.writable[viewer.fd]
        if isinstance(self.backlogged, set):
            self.backlogged.discard(viewer)

    def mark_backlogged(self, viewer: V) -> None:
        self.remove(viewer)
        self._add_backlogged(viewer)

    def rest(self) -> None:
        """The log is quiet: keep nothing that only an event needs."""

    def write(self, data: bytes, failed: list[Failure[V]]) -> int:
        """Write the same bytes to every viewer, synchronously. A viewer whose transport raised is added to `failed`.
        Returns how many bytes that was for all together."""
        if self.backlogged:
            for viewer in [viewer for viewer in self.backlogged if viewer.transport.get_write_buffer_size() == 0]:
                self.remove(viewer)
                self.add(viewer)
            for viewer in self.backlogged:
                _write(viewer, data, failed)
        size, send, behind = len(data), os.write, []
        for fd in self.writable:
            try:
                sent = send(fd, data)
            except OSError:  # full or broken: its transport finds out
                sent = 0
            if sent != size:
                behind.append((fd, sent))
        for fd, sent in behind:
            viewer = self.writable[fd]
            self.mark_backlogged(viewer)
            _write(viewer, data[sent:], failed)
        return size * len(self)


def _write(viewer: V, data: bytes, failed: list[Failure[V]]) -> None:
    try:
        viewer.transport.write(data)
    except Exception as error:  # it costs this viewer alone
        failed.append(Failure(viewer, error))
