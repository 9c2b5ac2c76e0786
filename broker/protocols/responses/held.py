"""A request that is held until its response is over. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from broker.live.rendering import LAST
from broker.protocols.responses.frames import NONE
from broker.protocols.responses.renderer import Renderer
from broker.protocols.responses.response import About
from emitter.wire.entries import Entry
from emitter.wire.ids import now_ms

HEADERS: Mapping[str, str] = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    **LAST,
}


class Held(Renderer):
    """A `TimedRendering`: one JSON body, the response when it is over, or as it is after `seconds`. White space before
    it keeps the connection alive."""

    headers = HEADERS
    heartbeat = b"\n"
    state_key: Hashable = None
    cancel_after_ms = 0

    def __init__(self, about: About, seconds: float, *, clock: Callable[[], int] = now_ms) -> None:
        super().__init__(about, starting_after=NONE)
        self._clock = clock
        self._ends_at = clock() + int(seconds * 1000)
        self._wake: Callable[[float], None] = lambda _: None

    def begin(self, wake: Callable[[float], None]) -> None:
        self._wake = wake
        self._wait()

    def _wait(self) -> None:
        self._wake(max(0.0, (self._ends_at - self._clock()) / 1000))

    def render(self, entries: Sequence[Entry]) -> bytes:
        was_over = self.is_over
        super().render(entries)
        return self.response() if self.is_over and not was_over else b""

    def due(self) -> bytes:
        if self._clock() < self._ends_at - 5:
            self._wait()
            return b""
        return self.farewell()

    def farewell(self) -> bytes:
        """The response as it is. Its client goes on by `GET /v1/responses/{id}`."""
        made = self.response()
        self.is_over = True
        return made
