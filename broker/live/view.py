"""How a viewer sees a log: which events, under which names, in which body coding."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from broker.live.sse import HEARTBEAT, HEARTBEAT_EVENT, chunk, control_frame, cursor_frame
from emitter.wire.entries import Entry
from emitter.wire.ids import EventId

_PATTERN = re.compile(r"[a-z0-9_.:-]{1,80}\*?|\*")
MAX_PATTERNS = 32


class TypeFilter:
    """Which event types a viewer wants: names, or prefixes that end in `*`. `ValueError` for anything else."""

    def __init__(self, text: str) -> None:
        patterns = sorted({part.strip() for part in text.split(",") if part.strip()})
        if not 1 <= len(patterns) <= MAX_PATTERNS or not all(map(_PATTERN.fullmatch, patterns)):
            raise ValueError(f"types: 1 to {MAX_PATTERNS} names like tool:start or tool:*, comma separated")
        self.text = ",".join(patterns)
        self._names = frozenset(p.encode() for p in patterns if not p.endswith("*"))
        self._prefixes = tuple(p[:-1].encode() for p in patterns if p.endswith("*"))

    def __contains__(self, type_: bytes) -> bool:
        return type_ in self._names or type_.startswith(self._prefixes)


class StreamView:
    """How a viewer sees a log: which events, under which name, in which body coding. Equal views share their bytes."""

    __slots__ = ("chunked", "filter", "heartbeat", "heartbeat_seconds", "key", "named")

    name = "native"
    is_over = False
    """Whether nothing more will be shown, although the log may go on."""
    is_native = True
    """Whether its clients know the control events of the stream, and resume."""
    resumes = False
    """Whether the clients of another protocol take no end but that protocol's own for the end."""
    is_compact = False
    """Whether it is a replay in short."""
    coding: str | None = None
    """The Content-Encoding of its bodies: None or `gzip`."""
    max_age_seconds: float | None = None
    """An upper limit of a stream's age, ± 20 %, if it is lower than that of the settings."""

    def __init__(
        self,
        *,
        named: bool = True,
        types: TypeFilter | None = None,
        chunked: bool = True,
        heartbeat_event: bool = False,
        heartbeat_seconds: float | None = None,
    ) -> None:
        self.named = named
        self.filter = types
        self.chunked = chunked
        self.heartbeat = self.wrap(HEARTBEAT_EVENT if heartbeat_event else HEARTBEAT)
        self.heartbeat_seconds = heartbeat_seconds
        """An upper limit, if it is lower than that of the settings."""
        self.key: tuple[object, ...] = (named, types.text if types else "", chunked, heartbeat_event)

    @property
    def live(self) -> StreamView:
        """The view from `stream:live` on."""
        return self

    def make_group(self) -> Any:
        """For the live viewers of a log that share this view; None for a plain `Group`."""
        return None

    def wrap(self, data: bytes) -> bytes:
        """Any bytes of a body, ready to be written."""
        return chunk(data) if self.chunked and data else data

    def control(self, event: str, data: dict[str, Any]) -> bytes:
        """A control event, as one write."""
        return self.wrap(control_frame(event, data))

    def caught_up(self, replayed: int | None) -> bytes:
        """What is said when the viewer has all there is, as one write. `replayed`: how many events; None if it was
        behind, and has caught up again."""
        return b"" if replayed is None else self.control("stream:live", {"replayed": replayed})

    def position_frame(self, event_id: EventId) -> bytes:
        """The frame that moves the client's cursor, as one write."""
        return self.wrap(cursor_frame(event_id))

    def select(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """The entries that the filter lets through."""
        if self.filter is None:
            return entries
        return [entry for entry in entries if entry.type in self.filter]

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """The entries as their group takes them, for one write; empty for none."""
        return self.wrap(self.frames(entries))

    def frames(self, entries: Sequence[Entry]) -> bytes:
        """The entries before any coding."""
        if self.named:
            frames = [b"id: %d-%d\nevent: %b\ndata: %b\n\n" % entry for entry in entries]
        else:
            frames = [b"id: %d-%d\ndata: %b\n\n" % (ms, seq, json) for ms, seq, _, json in entries]
        return b"".join(frames)

    def render(self, entries: Sequence[Entry]) -> bytes:
        """The entries that the filter lets through, as one write; empty for none."""
        return self.encode(self.select(entries))

    # --- what a view says at a time: nothing, or see `broker.live.rendering` ---

    cancel_after_ms = 0
    """How long an execution goes on whose viewer left before its end; 0: what its record says."""

    def begin(self, wake: Callable[[float], None]) -> None:
        """Its viewer has its connection. `wake` asks for a call of `due` in so many seconds, instead of an earlier."""

    def beat(self) -> bytes:
        """A sign of life, as one write."""
        return self.heartbeat

    def due(self) -> bytes:
        """What is to be said now, as one write."""
        return b""

    def farewell(self) -> bytes:
        """What makes a clean end of a stream that its edge must close early, as one write; empty if nothing does."""
        return b""

    # --- what a view keeps of what it has shown: nothing, or see `broker.live.rendering` ---

    @property
    def sharers(self) -> int:
        """Live viewers who need what it makes for this one; 0 if that is not counted."""
        return 0

    def has_made(self, entries: Sequence[Entry]) -> bool:  # noqa: ARG002
        """Whether another view has made what it needs for these entries of a delivery."""
        return False

    def meet(self, others: dict[Any, None]) -> StreamView:  # noqa: ARG002
        """The view of a viewer that becomes live."""
        return self

    def part(self, others: dict[Any, None], *, is_last: bool) -> None:
        """A viewer of this view is live no more; `is_last`: it was the only one."""

    def apart(self) -> StreamView:
        """The view of a viewer that is live no more."""
        return self


CLOSED = StreamView(chunked=False)
"""The view of a closed viewer."""


class RenderedOnce:
    """The bytes of the ends of one list of entries in each view, made once. Bounded: callers choose their views."""

    __slots__ = ("_bytes", "_kept")

    MAX_BYTES = 384 * 1024
    OVERHEAD_BYTES = 4096
    """The view's key and the dictionary entry of one."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], bytes] = {}
        self._bytes = 0

    def get(self, view: StreamView, entries: Sequence[Entry]) -> bytes:
        key = (view.key, len(entries))
        data = self._kept.get(key)
        if data is None:
            data = view.render(entries)
            size = len(data) + self.OVERHEAD_BYTES
            if self._bytes + size > self.MAX_BYTES:
                self.clear()
            self._kept[key] = data
            self._bytes += size
        return data

    def clear(self) -> None:
        if self._kept:
            self._kept = {}
            self._bytes = 0
