"""The life of a stream, top to bottom: admission, greeting, hand-over to its source, end.

A source (`Source`) shows a log or snapshots. `broker.streams.log_source` has the part of a viewer's life that depends
on its log: replay, live, behind. `Viewer` has the transitions.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

from aiohttp import HttpVersion11, web

from broker.auth.refusals import Reason, Unauthorized
from broker.auth.tickets import Tickets
from broker.base.identity import Identity
from broker.base.logging import get_logger
from broker.base.metrics import Metrics
from broker.base.outage import is_away
from broker.base.problem import Problem, retry_after
from broker.base.reasons import CloseReason
from broker.base.request_context import trace_of
from broker.base.settings import Settings
from broker.live.failures import Failures
from broker.live.packed_group import Packers
from broker.live.rendering import RenderedView, Rendering
from broker.live.sse import control_frame
from broker.live.topic import Topic
from broker.live.view import StreamView
from broker.live.viewer import Viewer, ViewerState, take_over
from broker.log.delivery_spans import Deliveries
from broker.log.history import Head, History, Reset
from broker.log.watch_leases import WatchLeases
from broker.streams.admission import Admission
from broker.streams.log_source import LogSource
from broker.streams.reconnect import STREAM_HEADERS, end_frames
from broker.streams.replay import reset_frame
from broker.streams.request import Opening, StreamRequest, Target, read_parameters
from broker.streams.response_head import TakenOver, response_head
from broker.streams.slots import StreamSlot, StreamSlots
from broker.streams.timers import ViewerTimers
from broker.streams.waits import LogWaits
from emitter.events import TERMINAL_STATES
from emitter.tracing.trace import log_fields
from emitter.wire.ids import START, EventId

RETRY_MS = (1000, 3000)
"""Range of a client's reconnection time. Each client gets its own, so that the viewers of a broken edge return spread.
"""
MAX_SHARED_VIEWS = 256
PLANNED = (CloseReason.AGED, CloseReason.DRAINING, CloseReason.EXPIRED, CloseReason.LOST_REDIS)
"""Ends of streams at which a rendering may still say its last message."""
LAST_BYTES_SECONDS = 5.0
"""How long an edge waits after its drain for clients that still read the end of their streams."""


class Source(Protocol):
    """What streams show: logs (`LogSource`) or snapshots (`broker.ops.stream`)."""

    def enter(self, opening: Opening) -> Topic[Viewer]:
        """Count a viewer in. The topic writes to it while it is live."""

    def start(self, viewer: Viewer, opening: Opening) -> None:
        """Show what there is. The viewer has its connection and was greeted."""

    def leave(self, viewer: Viewer, reason: CloseReason) -> None:
        """Count a viewer out, before it closes."""


class Streams:
    """All open streams of one edge. `head_fields` makes the headers that every response has, by its request."""

    def __init__(
        self,
        settings: Settings,
        history: History,
        admission: Admission,
        leases: WatchLeases,
        tickets: Tickets,
        metrics: Metrics,
        deliveries: Deliveries | None = None,
        head_fields: Callable[[web.Request], Mapping[str, str]] = lambda _: {},
        is_revoked: Callable[[Identity], bool] = lambda _: False,
    ) -> None:
        self._settings = settings
        self._is_revoked = is_revoked
        self._head_fields = head_fields
        self._history = history
        self._admission = admission
        self._slots = StreamSlots(
            settings.max_connections, admission, metrics, lambda: len(self._viewers) + len(self._closing)
        )
        metrics.waits.set_function(lambda: self._slots.waiting)
        self._tickets = tickets
        self._metrics = metrics
        self._logs = LogSource(history, leases, metrics, deliveries, self.close, self.fail)
        self.watch = self._logs.watch
        self._waits = LogWaits(history, self.watch, leases, self._logs.steps)
        self._timers = ViewerTimers(settings, self.close, self.fail)
        self._failures = Failures()
        self._viewers: dict[Viewer, Source] = {}
        self._closing: set[Viewer] = set()
        """Viewers whose stream has ended and whose connection has not. They keep their slots."""
        self._views: dict[tuple[object, ...], StreamView] = {}
        self._gone = asyncio.Event()
        self._last_bytes_by = 0.0
        self._packers = Packers() if settings.compress_streams == "auto" else None
        self._numbers = itertools.count(1)
        self._log = get_logger().bind()  # once and not for each line

    def __len__(self) -> int:
        """The viewers of logs."""
        return len(self._logs)

    @property
    def joining(self) -> int:
        """Streams that open, and viewers that wait for their first page of a log."""
        return self._slots.opening + self._logs.joining

    @property
    def draining(self) -> bool:
        return self._slots.draining

    # --- admission ---------------------------------------------------------------------------------------------------

    async def open(
        self, request: web.Request, target: Target, identity: Identity, request_id: str
    ) -> web.StreamResponse:
        """Answer a GET of a log's stream: 200 with a viewer, 204 when nothing will ever follow its cursor, or a
        `Problem` before anything was sent."""
        max_bytes, is_feed = self._settings.max_event_bytes, target.record is None
        wanted = read_parameters(request, is_feed=is_feed, max_event_bytes=max_bytes, packers=self._packers)
        wanted = self._shared_view(wanted)
        return await self._admit(Opening(request, identity, request_id, wanted, target))

    async def open_rendered(
        self,
        request: web.Request,
        target: Target,
        identity: Identity,
        request_id: str,
        rendering: Rendering,
        *,
        slot: StreamSlot | None = None,
        resumes: bool = False,
        after: EventId | None = None,
    ) -> web.StreamResponse:
        """Answer with an execution as another protocol shows it, from its first event or `after` a place on. `slot` was
        taken for it before, if it is given; `resumes` as in `StreamView`. Raises `Problem` before anything was sent;
        the request's body must have been read."""
        view = RenderedView(rendering, chunked=request.version >= HttpVersion11, resumes=resumes)
        wanted = StreamRequest(view, after, from_now=False, malformed=False)
        opening = Opening(request, identity, request_id, wanted, target)
        return await self._admit(opening) if slot is None else await self._answer(opening, slot)

    async def open_snapshots(
        self, request: web.Request, source: Source, identity: Identity, request_id: str
    ) -> web.StreamResponse:
        """Answer with the snapshots of a source, which have no cursor. Raises `Problem` before anything was sent."""
        view = self._shared_view(read_parameters(request, is_feed=True)).view
        wanted = StreamRequest(view, None, from_now=True, malformed=False)
        async with self._slots.take(identity) as slot:
            return self._establish(source, Opening(request, identity, request_id, wanted, None), slot)

    async def wait(
        self, target: Target, identity: Identity, after: EventId, seconds: float, is_gone: Callable[[], bool]
    ) -> bool:
        """Wait for a log to go on after a place, before anything of a response is written (`LogWaits.until_more`), with
        a slot. It ends before the token does. Errors of `StreamSlots.take`, and `UnknownExecution`."""
        if identity.expires_at is not None:
            seconds = min(seconds, identity.expires_at - time.time())
        async with self._slots.wait(identity):
            head = await self._logs.head(target, with_size=False)
            assert head is not None, "it is an execution's"
            counts = not identity.is_visitor
            return await self._waits.until_more(target, head, after, seconds, is_gone, counts=counts)

    def slot(self, identity: Identity) -> AbstractAsyncContextManager[StreamSlot]:
        """Room for one stream, before anything is started that is to be shown on it; errors of `StreamSlots.take`."""
        return self._slots.take(identity)

    def _shared_view(self, wanted: StreamRequest) -> StreamRequest:
        """One view object for all viewers that ask for the same. Bounded: callers choose their views."""
        if len(self._views) >= MAX_SHARED_VIEWS:
            self._views.clear()
        view = wanted.view
        return wanted._replace(view=self._views.setdefault((*view.key, view.heartbeat_seconds), view))

    async def _admit(self, opening: Opening) -> web.StreamResponse:
        try:
            async with self._slots.take(opening.identity) as slot:
                return await self._answer(opening, slot)
        except Exception as error:
            if is_away(error):
                self._slots.reject("redis")
            raise

    async def _answer(self, opening: Opening, slot: StreamSlot) -> web.StreamResponse:
        """A log's stream, unless the log has ended and nothing can follow."""
        view, target = opening.wanted.view, opening.target
        assert target is not None
        if not view.is_native and (seconds := self._failures.seconds_left(target.log, view)) > 0:
            detail = "this execution could not be shown; it will be tried again later"
            raise Problem(500, "cannot-be-shown", detail, headers=retry_after(seconds))
        head = await self._logs.head(target, with_size=view.is_compact)
        if head is not None and head.state in TERMINAL_STATES:
            if isinstance(view, RenderedView):
                if end := await self._history.terminal_event(target.log, target.record):
                    with self._noting(opening):
                        return web.Response(body=view.render_all([end]), headers=view.headers)
            elif _nothing_follows(head, opening.wanted):
                return web.Response(status=204)
        return self._establish(self._logs, opening._replace(head=head), slot)

    @contextlib.contextmanager
    def _noting(self, opening: Opening) -> Iterator[None]:
        """Around what a view makes before there is a viewer: an error fails this request, and is remembered."""
        try:
            yield
        except Exception:
            self._failures.note(opening.log, opening.wanted.view)
            raise

    # --- open --------------------------------------------------------------------------------------------------------

    def _establish(self, source: Source, opening: Opening, slot: StreamSlot) -> web.StreamResponse:
        """Hand the connection to a viewer, write the response head, greet it, and let the source show what there is."""
        request, wanted, view = opening.request, opening.wanted, opening.wanted.view
        with self._noting(opening):
            greeting = view.open() if isinstance(view, RenderedView) else self._greeting(opening)
        head = response_head(request.version, self._headers(opening), chunked=view.chunked)
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client left while its stream was opened")
        if self._is_revoked(opening.identity):  # meanwhile, when `close_revoked` did not see this stream
            raise Unauthorized(Reason.REVOKED, "the token or its user was revoked")
        viewer = Viewer(self, source.enter(opening), view, opening.identity, wanted.cursor or START)
        has_ended = take_over(request, viewer, self._settings.viewer_buffer_bytes)
        slot.is_used = True
        self._register(viewer, source, opening)
        with viewer.as_one_write():
            viewer.write_head(head)
            viewer.write(view.wrap(greeting))
            view.begin(partial(self._timers.wake, viewer))
            try:
                source.start(viewer, opening)
            except Exception as error:  # it is nobody else's any more
                self.fail(viewer, error)
        if has_ended:
            viewer.eof_received()
        return TakenOver()

    def _headers(self, opening: Opening) -> Mapping[str, str]:
        view, common = opening.wanted.view, self._head_fields(opening.request)
        if isinstance(view, RenderedView):
            return {**view.headers, **common}
        headers = {**STREAM_HEADERS, **common}
        if self._packers is not None:
            headers["Vary"] = ", ".join(filter(None, (headers.get("Vary"), "Accept-Encoding")))
        if view.coding is not None:
            headers["Content-Encoding"] = view.coding
        return headers

    def _greeting(self, opening: Opening) -> bytes:
        wanted, retry = opening.wanted, random.randint(*RETRY_MS)
        opened: dict[str, object] = {} if opening.execution_id is None else {"executionId": opening.execution_id}
        if wanted.cursor is not None:
            opened["cursor"] = str(wanted.cursor)
        state = "live" if opening.head is None else opening.head.state
        beat = self._timers.heartbeat_seconds(wanted.view)
        opened |= {"state": state, "retryMs": retry, "heartbeatSeconds": beat}
        greeting = control_frame("stream:open", opened, retry_ms=retry)
        if wanted.malformed:
            self._metrics.resets["unknown"].inc()
            greeting += reset_frame(Reset("unknown"))
        return greeting

    def _register(self, viewer: Viewer, source: Source, opening: Opening) -> None:
        viewer.number = next(self._numbers)
        self._viewers[viewer] = source
        self._timers.add(viewer)
        self._tickets.opened(viewer.identity, partial(self.close, viewer))
        self._metrics.connections.set(len(self))
        self._metrics.connections_opened[opening.protocol].inc()
        self._log.info(
            "stream_opened",
            viewer=viewer.number,
            request_id=opening.request_id,
            **log_fields(trace_of(opening.request)),
            user=viewer.identity.principal.user,
            org=viewer.identity.principal.org,
            execution=opening.execution_id,
            protocol=opening.protocol,
            cursor=str(viewer.cursor),
        )

    # --- close -------------------------------------------------------------------------------------------------------

    def fail(self, viewer: Viewer, error: Exception) -> None:
        """It could not be shown something: it is closed, so that it never misses an event, and may come back later.
        Until then renderings are not tried again: they fail for good, and may cost much until they do."""
        if viewer.state is ViewerState.CLOSING:
            return
        is_first = self._failures.note(viewer.topic.key, viewer.view)
        about = {"viewer": viewer.number, "protocol": viewer.view.name, "error": type(error).__name__}
        self._log.error("viewer_failed", **about, exc_info=error if is_first else None)
        self.close(viewer, CloseReason.FAILED)

    def close(self, viewer: Viewer, reason: CloseReason) -> None:
        """End a stream: the cursor and the reason in band, the last chunk, and the connection. Raises nothing: others
        are closed after this one."""
        if viewer.state is ViewerState.CLOSING:
            return
        try:
            self._say_goodbye(viewer, reason)
        except Exception:
            self._log.exception("farewell_failed", viewer=viewer.number)
            viewer.transport.abort()
        self._depart(viewer, reason)

    def _say_goodbye(self, viewer: Viewer, reason: CloseReason) -> None:
        view = viewer.view
        failed = reason is CloseReason.FAILED
        if reason in PLANNED:
            viewer.write(view.farewell())
        ends = view.is_native or (not failed and (view.is_over or view.resumes))
        if reason is CloseReason.SLOW or not ends:
            # It would not read a reason; and to clients for which a clean end means success, there must be none.
            viewer.transport.abort()
            return
        if not failed:  # or it may not have got what lies before its position
            viewer.send_position()
        viewer.finish(view.wrap(end_frames(reason)) if view.is_native else b"")
        if reason is CloseReason.REVOKED and not viewer.is_sent:
            viewer.transport.abort()  # it may see no more: it gets no time to take the rest

    def on_gone(self, viewer: Viewer) -> None:
        """The connection is lost; unless we closed it ourselves, the viewer left."""
        if viewer.state is not ViewerState.CLOSING:
            self._depart(viewer, CloseReason.GONE)
        self._closing.discard(viewer)
        self._timers.forget(viewer)
        self._gone.set()
        self._admission.release(viewer.identity.principal)

    def _depart(self, viewer: Viewer, reason: CloseReason) -> None:
        self._viewers.pop(viewer).leave(viewer, reason)
        viewer.close()
        self._tickets.closed(viewer.identity)
        self._closing.add(viewer)
        self._metrics.connections.set(len(self))
        self._metrics.connections_closed[reason].inc()
        self._log.info(
            "stream_closed",
            viewer=viewer.number,
            reason=reason,
            user=viewer.identity.principal.user,
            org=viewer.identity.principal.org,
            events=viewer.events,
            cursor=str(viewer.cursor),
            seconds=round(asyncio.get_running_loop().time() - viewer.started_at, 3),
        )

    def close_revoked(self, token_id: str | None = None) -> None:
        """Close every stream whose identity is refused now; if a token is named, only of that: any user may revoke
        share links, and to ask about each of thousands of viewers would delay them all."""
        for viewer in list(self._viewers):
            if token_id in (None, viewer.identity.token_id) and self._is_revoked(viewer.identity):
                self.close(viewer, CloseReason.REVOKED)

    # --- stop --------------------------------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> None:
        """Close all streams in random order, spread over `seconds`, so that their reconnects are spread as well. It is
        over earlier when all have left."""
        self._slots.draining = True
        self._waits.drain(seconds)
        viewers = list(self._viewers)
        random.shuffle(viewers)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, viewer in enumerate(viewers):
            if (moment := began + seconds * number / len(viewers)) > loop.time() + 0.005:
                await self._none_left(self._viewers, moment)
            self.close(viewer, CloseReason.DRAINING)
        self._close_all()  # those that were being opened meanwhile
        self._last_bytes_by = loop.time() + LAST_BYTES_SECONDS

    def _close_all(self) -> None:
        for viewer in list(self._viewers):
            self.close(viewer, CloseReason.DRAINING)

    async def stop(self) -> None:
        """End what still runs. The streams are closed before (`drain`); clients that still read have some time to."""
        self._close_all()
        await self._logs.stop()
        await self._sent()
        await self.watch.close()
        await self._history.close()
        self._timers.stop()

    async def _none_left(self, viewers: Collection[Viewer], moment: float) -> None:
        """Wait until all of them are gone, but not beyond this time of the loop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(moment):
                while viewers:
                    self._gone.clear()
                    await self._gone.wait()

    async def _sent(self) -> None:
        await self._none_left(self._closing, self._last_bytes_by)
        for viewer in list(self._closing):
            viewer.transport.abort()


def _nothing_follows(head: Head, wanted: StreamRequest) -> bool:
    """Whether the cursor lies at the end, of an execution that has ended: such a viewer gets 204."""
    return wanted.from_now if wanted.cursor is None else wanted.cursor == head.last
