"""The view of a replay in short. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from broker.live.view import StreamView
from emitter.wire.deltas import merged
from emitter.wire.entries import Entry


class CompactView(StreamView):
    """A replay in short: of the entries that the filter lets through, neighbours that are chunks of one text are one
    event, whose id is the last one's. So a client may resume anywhere, in whatever view. What comes live is as in the
    other view, and shares its bytes. `max_bytes`: the size of an event's block; 0: no limit."""

    __slots__ = ("_live", "_max_bytes")

    is_compact = True

    def __init__(self, live: StreamView, max_bytes: int) -> None:
        self._live = live
        self._max_bytes = max_bytes
        super().__init__(named=live.named, types=live.filter, chunked=live.chunked)
        self.heartbeat, self.heartbeat_seconds = live.heartbeat, live.heartbeat_seconds
        self.key = (*live.key, "compact")

    @property
    def coding(self) -> str | None:  # type: ignore[override]
        return self._live.coding

    @property
    def live(self) -> StreamView:
        return self._live

    def wrap(self, data: bytes) -> bytes:
        return self._live.wrap(data)

    def render(self, entries: Sequence[Entry]) -> bytes:
        return self._live.render(merged(self._live.select(entries), self._max_bytes))
