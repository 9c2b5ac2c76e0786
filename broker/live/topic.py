"""What an edge knows of a watched log, and its live viewers. Pure: no clock, and no I/O but the synchronous writes of
`fanout`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Generic

from broker.live.fanout import Delivery, Failure, Group, V
from broker.live.view import RenderedOnce, StreamView
from emitter.events import TERMINAL_STATE_OF, TERMINAL_TYPES, State
from emitter.wire.entries import Entry
from emitter.wire.ids import START, EventId

TAIL_EVENTS = 256
TAIL_BYTES = 256 * 1024
EVENTS_AT_ONCE = 16
"""A viewer of another protocol that shares the work with nobody gets at most so many events live. More are rendered in
turns (`Topic.behind`)."""
MANY = 8
"""So many viewers that share the work never wait for it: each on its own would then do it again."""


def _is_dense(entries: Sequence[Entry]) -> bool:
    """Whether the ordinals have no gap. Several messages may come as one list, with one lost, doubled or late."""
    return all(later.seq == earlier.seq + 1 for earlier, later in pairwise(entries))


class Topic(Generic[V]):
    """One watched log: its last id, its live viewers, and a short tail of recent events.

    `last` is the id up to which every live viewer has the log; None until a read or a message gives it. `tail` is dense
    and ends at `last`; `tail_start` is the id before its first event, if that is known.
    """

    __slots__ = (
        "_rendered",
        "_tail_bytes",
        "before",
        "behind",
        "delivered_at",
        "end",
        "failed",
        "groups",
        "is_execution",
        "key",
        "lagging",
        "last",
        "over",
        "shared",
        "tail",
        "tail_start",
    )

    def __init__(self, key: str, *, is_execution: bool) -> None:
        self.key = key
        self.is_execution = is_execution
        self.last: EventId | None = None
        self.before: EventId | None = None
        """The value of `last` before the entries that were accepted last."""
        self.tail_start: EventId | None = None
        self.end: State | None = None
        """The state after the terminal event of the execution. Any other state is in the record."""
        self.groups: dict[tuple[object, ...], Group[V]] = {}
        self.delivered_at = 0.0
        """When its live viewers were written to last, on the loop's clock. Its owner sets it."""
        self.shared: dict[Any, None] = {}
        """The renderings (`broker.live.rendering.Shared`) of live viewers of other protocols that others may join."""
        self.tail: list[Entry] = []  # an empty deque has 600 bytes, and most logs that many edges watch are quiet
        self._tail_bytes = 0
        self._rendered: RenderedOnce | None = None
        # Empty tuples until there is somebody: most logs have one viewer, and four lists would be a part of its cost.
        self.lagging: Sequence[V] = ()
        """Viewers whose transport filled up during a delivery."""
        self.over: Sequence[V] = ()
        """Viewers that a delivery showed the last of what their protocol shows."""
        self.behind: Sequence[V] = ()
        """Viewers that got nothing of a delivery, for lack of time: they are at `before`."""
        self.failed: Sequence[Failure[V]] = ()
        """Viewers that could not be shown a delivery. They may have missed it, and must get nothing more."""

    # --- what arrives ---

    def accept(self, entries: Sequence[Entry]) -> list[Entry] | None:
        """The new entries among these, which are part of the topic from here on. None if they prove a gap, or that the
        log is another one than before; then nothing has changed."""
        if not _is_dense(entries):
            return None
        last = self.last
        if last is not None and entries and (entries[0].seq != last.seq + 1 or entries[0].ms < last.ms):
            if self._contradicts(entries):
                return None
            entries = [entry for entry in entries if entry.seq > last.seq]
            if entries and entries[0].seq != last.seq + 1:
                return None
        if entries:
            self._remember(entries)
        return list(entries)

    def _contradicts(self, entries: Sequence[Entry]) -> bool:
        """Whether an entry cannot be in the known log: another is in its place, or ids would go back."""
        assert self.last is not None
        last, known = self.last, {entry.seq: entry.ms for entry in self.tail}
        return any(
            entry.ms < last.ms
            if entry.seq > last.seq
            else entry.ms > last.ms or known.get(entry.seq, entry.ms) != entry.ms
            for entry in entries
        )

    def _remember(self, entries: Sequence[Entry]) -> None:
        if not self.tail:
            self.tail_start = START if entries[0].seq == 1 else self.last
        self.before = self.last
        self.last = entries[-1].id
        self._rendered = None
        self.tail += entries
        for entry in entries:
            self._tail_bytes += len(entry.json)
        if self.is_execution and entries[-1].type in TERMINAL_TYPES:  # nothing follows it
            self.end = TERMINAL_STATE_OF[entries[-1].type.decode()]
        if len(self.tail) > 2 * TAIL_EVENTS or self._tail_bytes > TAIL_BYTES:
            self._shorten()

    def _shorten(self) -> None:
        """Shorten the tail to its limits. It is called well beyond them, so that it costs little per event."""
        drop = max(0, len(self.tail) - TAIL_EVENTS)
        size = self._tail_bytes - sum(len(entry.json) for entry in self.tail[:drop])
        while size > TAIL_BYTES / 2:
            size -= len(self.tail[drop].json)
            drop += 1
        if drop:
            self.tail_start = self.tail[drop - 1].id
            del self.tail[:drop]
        self._tail_bytes = size

    def set_baseline(self, after: EventId, entries: Sequence[Entry]) -> None:
        """The log has `entries` after `after`, and then nothing more. A topic that knows nothing begins at `after`. One
        that began with a live event gets the events before it, so that other viewers can join without Redis."""
        if self.last is None:
            self.last = self.tail_start = after
        elif self.tail_start is None and self.tail:
            older = [entry for entry in entries if entry.seq < self.tail[0].seq]
            if older and older[-1].seq == self.tail[0].seq - 1:
                self.tail[:0] = older
                self._tail_bytes += sum(len(entry.json) for entry in older)
                self._rendered = None
                self.tail_start = after

    def forget(self) -> None:
        """The log is another one: know nothing until it is read again."""
        self.last = self.before = self.tail_start = self.end = None
        self.tail.clear()
        self._tail_bytes = 0
        self._rendered = None

    @property
    def ended(self) -> bool:
        return self.end is not None

    # --- viewers ---

    def missing(self, cursor: EventId) -> list[Entry] | None:
        """The events between a cursor and `last`, if they are known without Redis; otherwise None."""
        if self.last is None:
            return None
        if cursor == self.last:
            return []
        if not self.tail:
            return None
        if cursor == self.tail_start:
            return list(self.tail)
        first = self.tail[0].seq
        at = cursor.seq - first
        if 0 <= at < len(self.tail) and self.tail[at].ms == cursor.ms:
            return self.tail[at + 1 :]
        return None

    def render_tail(self, view: StreamView, entries: Sequence[Entry]) -> bytes:
        """The bytes of the tail's end. Viewers that resume at the same id share them."""
        if self._rendered is None:
            self._rendered = RenderedOnce()
        return self._rendered.get(view, entries)

    def drop_rendered(self) -> None:
        """The log has been quiet: drop the bytes that resumed viewers share, and the memory of compression."""
        self._rendered = None
        for group in self.groups.values():
            group.rest()

    def add(self, viewer: V) -> None:
        group = self.groups.get(viewer.view.key)
        if group is None:
            special = viewer.view.make_group()
            group = Group(viewer.view) if special is None else special
            self.groups[viewer.view.key] = group
        group.add(viewer)

    def remove(self, viewer: V) -> None:
        """Call it before the viewer's socket is closed: the descriptor may be another connection's a moment later."""
        group = self.groups.get(viewer.view.key)
        if group is not None:
            group.remove(viewer)
            is_last = not len(group)
            group.view.part(self.shared, is_last=is_last)
            if is_last:
                del self.groups[viewer.view.key]

    def mark_backlogged(self, viewer: V) -> None:
        """The viewer's transport still holds bytes of a direct write."""
        self.groups[viewer.view.key].mark_backlogged(viewer)

    def mark_lagging(self, viewer: V) -> None:
        """Its transport is full."""
        if not isinstance(self.lagging, list):
            self.lagging = []
        self.lagging.append(viewer)

    def live(self) -> Iterable[V]:
        for group in self.groups.values():
            yield from group

    # --- the live path ---

    def deliver(self, entries: Sequence[Entry], is_late: Callable[[], bool] | None = None) -> Delivery:
        """Write accepted entries to every live viewer: the same bytes, synchronously, without a task or a queue each.

        A transport that fills up calls its viewer's `pause_writing` from inside `write`, which puts it on `lagging`.
        A view or a transport that raises costs its own viewers alone. Viewers are `behind`, and get nothing, if there
        is much to show to one that shares the work with nobody, or `is_late` says that the delivery takes too long.
        """
        behind: list[V] = []
        failed: list[Failure[V]] = []
        over: list[V] = []
        viewers = events = size = sent = 0
        late = False
        is_much = len(entries) > EVENTS_AT_ONCE
        is_timed = is_late is not None and len(self.groups) > 1
        for group in self.groups.values():
            view = group.view
            # Of views that share a rendering all are behind or none: it can stand at one place only.
            if (late or (is_much and not view.is_native)) and _can_wait(group, entries, late=late):
                behind += group
                continue
            try:
                wanted = view.select(entries)
                data = view.encode(wanted) if wanted else b""
                is_over = view.is_over
            except Exception as error:  # it costs the viewers of this view alone
                failed += [Failure(viewer, error) for viewer in group]
                continue
            if not wanted:
                continue
            count = len(group)
            viewers += count
            events += count * len(wanted)
            size += count * len(data)
            if data:
                sent += group.write(data, failed)
            if is_over:
                over += group
            if is_timed and not late:
                late = is_late()  # type: ignore[misc]  # it is not None if `is_timed`
        for shared in self.shared:
            shared.forget()
        if behind or failed or over:
            self.behind = [*self.behind, *behind]
            self.failed = [*self.failed, *failed]
            self.over = [*self.over, *over]
        return Delivery(viewers, events, sent, size - sent)


def _can_wait(group: Group[V], entries: Sequence[Entry], *, late: bool) -> bool:
    """Whether a delivery that is much, or `late`, does without these viewers, who are then shown it in turns."""
    view = group.view
    if view.is_native:
        return len(group) == 1
    if late:
        return view.sharers < MANY and not view.has_made(entries)
    return view.sharers <= 1
