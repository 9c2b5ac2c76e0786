"""How a log is shown in another protocol: the interface of a renderer, and how viewers share one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import islice
from typing import Protocol, cast

from broker.live.sse import chunk
from broker.live.view import StreamView
from emitter.wire.entries import Entry
from emitter.wire.ids import EventId

LAST: Mapping[str, str] = {"Keep-Alive": "timeout=0"}
"""A header of a response after which nothing is read from its connection, as a viewer has it. Not `Connection: close`:
with that Node's fetch takes a connection that was cut for one that has ended."""
SSE_HEADERS: Mapping[str, str] = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    **LAST,
}
HOLE = b"\0"
"""In the bytes of a renderer, the place of its `fill`. JSON has no such byte."""
MAX_MET = 16
"""Of so many renderers of a log, the newest, it is looked at whether they are where a viewer is that becomes live."""


class Rendering(Protocol):
    """Renders an execution for one viewer. It gets the log's entries in order, each once, from the first (but see
    `PlacedRendering`).

    `headers` are the response's, its Content-Type included. `heartbeat` is written between frames after at most
    `heartbeat_seconds` of silence. `is_over`: the protocol's own last message was rendered. The stream ends right after
    it, and gets no more entries. A stream that must be closed earlier is aborted, since to these clients a clean end
    means success (but see `RenderedView.resumes`).

    `fill` is the viewer's own part of what is rendered, for every `HOLE` in it; empty if there are none.
    """

    name: str
    heartbeat_seconds: float
    fill: bytes

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def heartbeat(self) -> bytes: ...

    @property
    def is_over(self) -> bool: ...

    @property
    def state_key(self) -> Hashable:
        """Renderings of one log with equal keys render the same from here on, but for their `fill`. None: no other one
        is known to do so. It costs little, and is asked for between two calls of `render`."""

    def fork(self) -> Rendering:
        """Another one in the same state, which goes on independently. Only where the key is not None."""

    def open(self) -> bytes:
        """The first bytes, before any entry."""

    def render(self, entries: Sequence[Entry]) -> bytes:
        """The frames for these entries; empty if none is shown."""


class TimedRendering(Rendering, Protocol):
    """A rendering that also says something at a time. `heartbeat` is asked for at each one.

    `cancel_after_ms`: how long the execution goes on if its viewer leaves now; 0: what its record says.
    """

    cancel_after_ms: int

    def begin(self, wake: Callable[[float], None]) -> None:
        """Its viewer has its connection. `wake` asks for a call of `due` in so many seconds, instead of an earlier."""

    def due(self) -> bytes:
        """What is to be said now; it may be the protocol's own last message."""

    def farewell(self) -> bytes:
        """What makes a clean end of a stream that its edge must close early, the last message; empty if nothing
        does."""


class PlacedRendering(Rendering, Protocol):
    """A rendering that may begin after any place of the log, for clients that know where they stand.

    `max_age_seconds` as in `StreamView`. Its streams end with their connections, without a coding of their own: to its
    clients an edge that dies is a stream that ends, and they come back.
    """

    max_age_seconds: float

    def caught_up(self) -> bytes:
        """What is said when all there is was rendered; not after the protocol's own last message."""

    def fell_behind(self) -> None:
        """There is more than was rendered, until `caught_up`."""


class Shared:
    """A rendering, and the live views that show what it makes: of each delivery once, for all of them."""

    __slots__ = ("_entries", "_error", "_made", "rendering", "viewers", "views")

    def __init__(self, rendering: Rendering) -> None:
        self.rendering = rendering
        self.views: dict[tuple[bool, bool, bytes], RenderedView] = {}
        """Live ones, each with all viewers that get the same bytes."""
        self.viewers = 0
        """Of all of them."""
        self._entries: Sequence[Entry] = ()
        self._made = b""
        self._error: Exception | None = None

    def has_made(self, entries: Sequence[Entry]) -> bool:
        """Whether these were rendered, for another view of the same delivery, or it failed: there is no way back."""
        return self._entries is entries or self._error is not None

    def make(self, entries: Sequence[Entry]) -> bytes:
        rendering = self.rendering
        if len(self.views) < 2:
            return b"" if rendering.is_over else rendering.render(entries)
        if self._error is not None:
            raise self._error  # of the entries it was rendering some may have been taken
        if self._entries is entries:
            return self._made
        try:
            made = b"" if rendering.is_over else rendering.render(entries)
        except Exception as error:
            self._error = error
            raise
        self._entries, self._made = entries, made
        return made

    def forget(self) -> None:
        """The delivery is over."""
        self._entries, self._made = (), b""


class RenderedView(StreamView):
    """A view through a rendering, which gets the log from its first event, on which it may depend.

    Each viewer comes with one of its own. When it becomes live it may `meet` others that render the same, and shares
    their work, or the very view; when it falls behind them it goes on with a rendering of its own (`apart`).
    """

    __slots__ = ("_fill", "_shared", "max_age_seconds", "resumes")

    is_native = False

    def __init__(
        self, rendering: Rendering, *, chunked: bool, fill: bytes | None = None, resumes: bool = False
    ) -> None:
        placed = _placed(rendering)
        super().__init__(chunked=chunked and placed is None)
        self.resumes = resumes
        self.max_age_seconds = None if placed is None else placed.max_age_seconds
        self._shared = Shared(rendering)
        self._fill = rendering.fill if fill is None else fill
        self.heartbeat = self.wrap(rendering.heartbeat)
        self.heartbeat_seconds = rendering.heartbeat_seconds
        self.key = (object(),)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self._shared.rendering.name

    @property
    def headers(self) -> Mapping[str, str]:
        return self._shared.rendering.headers

    def open(self) -> bytes:
        return self._filled(self._shared.rendering.open())

    @property
    def is_over(self) -> bool:  # type: ignore[override]  # of a native view it never changes
        return self._shared.rendering.is_over

    def render_all(self, entries: Sequence[Entry]) -> bytes:
        """The whole body for a log of which only these are left, without any coding."""
        return self.open() + self._filled(self._shared.make(entries))

    def encode(self, entries: Sequence[Entry]) -> bytes:
        data = self._shared.make(entries)
        if not data:
            return b""
        if self._fill:
            data = data.replace(HOLE, self._fill)
        return chunk(data) if self.chunked else data

    def _filled(self, data: bytes) -> bytes:
        return data.replace(HOLE, self._fill) if self._fill else data

    def control(self, event: str, data: dict[str, object]) -> bytes:  # noqa: ARG002 - it is the native protocol's
        return b""

    def position_frame(self, event_id: EventId) -> bytes:  # noqa: ARG002
        return b""

    def caught_up(self, replayed: int | None) -> bytes:  # noqa: ARG002
        placed = _placed(self._shared.rendering)
        return b"" if placed is None or self.is_over else self.wrap(placed.caught_up())

    # --- at a time ---

    @property
    def _timed(self) -> TimedRendering | None:
        rendering = self._shared.rendering
        return cast(TimedRendering, rendering) if hasattr(rendering, "due") else None

    @property
    def cancel_after_ms(self) -> int:  # type: ignore[override]  # of a native view it never changes
        return 0 if self._timed is None or self.is_over else self._timed.cancel_after_ms

    def begin(self, wake: Callable[[float], None]) -> None:
        if self._timed is not None:
            self._timed.begin(wake)

    def beat(self) -> bytes:
        return self.heartbeat if self._timed is None else self.wrap(self._timed.heartbeat)

    def due(self) -> bytes:
        return b"" if self._timed is None or self.is_over else self.wrap(self._timed.due())

    def farewell(self) -> bytes:
        return b"" if self._timed is None or self.is_over else self.wrap(self._timed.farewell())

    # --- shared ---

    @property
    def _group(self) -> tuple[bool, bool, bytes]:
        """In what views of one rendering differ."""
        return self.chunked, self.resumes, self._fill

    @property
    def sharers(self) -> int:
        return self._shared.viewers

    def has_made(self, entries: Sequence[Entry]) -> bool:
        return self._shared.has_made(entries)

    def meet(self, others: dict[Shared, None]) -> RenderedView:
        """The view of a viewer that becomes live; `others` are the renderings of the log's live viewers, to which its
        own may come."""
        key = self._shared.rendering.state_key
        if key is not None:
            for other in islice(reversed(others), MAX_MET):
                if other.rendering.state_key == key:
                    self._shared = other
                    break
            else:
                others[self._shared] = None
        self._shared.viewers += 1
        return self._shared.views.setdefault(self._group, self)

    def part(self, others: dict[Shared, None], *, is_last: bool) -> None:
        """A viewer of this view is live no more; `is_last`: it was the only one."""
        shared = self._shared
        shared.viewers -= 1
        if is_last:
            shared.views.pop(self._group, None)
        if not shared.views:
            others.pop(shared, None)

    def apart(self) -> RenderedView:
        """The view of a viewer that is live no more, at the place where the others stand."""
        view = self
        if self._shared.views:
            rendering = self._shared.rendering.fork()
            view = RenderedView(rendering, chunked=self.chunked, fill=self._fill, resumes=self.resumes)
        if (placed := _placed(view._shared.rendering)) is not None:
            placed.fell_behind()
        return view


def _placed(rendering: Rendering) -> PlacedRendering | None:
    return cast(PlacedRendering, rendering) if hasattr(rendering, "caught_up") else None
