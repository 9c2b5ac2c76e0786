"""A view in gzip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.live.gzip_body import Piece, deflated, stored
from broker.live.packed_group import PackedGroup, Packers
from broker.live.sse import chunk
from broker.live.view import StreamView
from emitter.wire.entries import Entry


class GzipView(StreamView):
    """What is for one viewer is stored, what many may share is compressed: history by itself, and live events by the
    viewers' group."""

    __slots__ = ("packers",)

    coding = "gzip"

    def __init__(self, packers: Packers, **view: Any) -> None:
        """`view`: what a `StreamView` takes."""
        super().__init__(**view)
        self.packers = packers
        self.key = (*self.key, self.coding)

    def make_group(self) -> PackedGroup:
        return PackedGroup(self)

    def wrap(self, data: bytes) -> bytes:
        return Piece.of(data, stored(data), chunked=self.chunked) if data else b""

    def wrap_coded(self, coded: bytes) -> bytes:
        return chunk(coded) if self.chunked else coded

    def encode(self, entries: Sequence[Entry]) -> bytes:
        return self.frames(entries)

    def render(self, entries: Sequence[Entry]) -> bytes:
        data = self.frames(self.select(entries))
        return Piece.of(data, deflated(data), chunked=self.chunked) if data else b""
