"""The life of a viewer, top to bottom: admission, join, replay, live, close reason."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial

from aiohttp import HttpVersion11, web

from broker.auth.tickets import Tickets
from broker.base.identity import Identity
from broker.base.logging import get_logger
from broker.base.metrics import Metrics
from broker.base.outage import is_away
from broker.base.problem import Problem, retry_after
from broker.base.reasons import CloseReason
from broker.base.request_context import trace_of
from broker.base.settings import Settings
from broker.base.slices import Turns
from broker.live import sse
from broker.live.failures import Failures
from broker.live.rendering import RenderedView, Rendering
from broker.live.topic import Topic
from broker.live.view import StreamView
from broker.live.viewer import Viewer, ViewerState, take_over
from broker.log.delivery_spans import Deliveries
from broker.log.history import Head, History, Reset
from broker.log.watch_leases import DisconnectPolicy, WatchLeases
from broker.log.watched import WatchedLog, WatchedLogs
from broker.streams.admission import Admission
from broker.streams.reconnect import STREAM_HEADERS
from broker.streams.replay import LOST_REDIS_SECONDS, Replay
from broker.streams.request import StreamRequest, Target, read_parameters
from broker.streams.slots import StreamSlot, StreamSlots
from broker.streams.timers import ViewerTimers
from emitter import tasks
from emitter.errors import UnknownExecution
from emitter.events import TERMINAL_STATES
from emitter.tracing.trace import log_fields
from emitter.wire.ids import START
from emitter.wire.keys import member

RETRY_MS = (1000, 3000)
"""Range of a client's reconnection time; each gets its own, so that a broken edge's viewers do not return as one."""
MAX_SHARED_VIEWS = 256
CLOSED_AT_ONCE = 32
"""Viewers of a log that ends who are closed at once; more take turns."""
LAST_BYTES_SECONDS = 5.0
"""How long an edge waits after its drain for those who still read the end of their streams. Meanwhile others stop."""


class Streams:
    """All open streams of one edge."""

    def __init__(
        self,
        settings: Settings,
        history: History,
        admission: Admission,
        presence: WatchLeases,
        tickets: Tickets,
        metrics: Metrics,
        deliveries: Deliveries | None = None,
    ) -> None:
        self._settings = settings
        self._history = history
        self._admission = admission
        self._seats = StreamSlots(
            settings.max_connections, admission, metrics, lambda: len(self._viewers) + len(self._closing)
        )
        self._presence = presence
        self._tickets = tickets
        self._metrics = metrics
        self.watch = WatchedLogs(history, metrics, self, deliveries)
        self._turns = Turns()
        self._steps = Replay(history, self.watch, metrics, self._turns, self.close)
        self._pulse = ViewerTimers(settings, self.close, self.on_failed)
        self._failures = Failures()
        self._viewers: dict[int, Viewer] = {}
        self._closing: set[Viewer] = set()
        """Whose streams have ended, and whose connections have not: they keep their seats."""
        self._views: dict[tuple[object, ...], StreamView] = {}
        self._gone = asyncio.Event()
        self._last_bytes_by = 0.0
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = get_logger()

    def __len__(self) -> int:
        return len(self._viewers)

    @property
    def draining(self) -> bool:
        return self._seats.draining

    # --- open --------------------------------------------------------------------------------------------------------

    async def open(
        self, request: web.Request, target: Target, identity: Identity, request_id: str
    ) -> web.StreamResponse:
        """Answer a GET of a stream: 200 with the viewer on its way, 204 when nothing will ever follow its cursor, or a
        `Problem` before anything was sent."""
        wanted = self._shared_view(read_parameters(request, is_feed=target.record is None))
        return await self._admit(request, target, identity, wanted, request_id)

    async def open_rendered(
        self,
        request: web.Request,
        target: Target,
        identity: Identity,
        request_id: str,
        rendering: Rendering,
        *,
        seat: StreamSlot | None = None,
    ) -> web.StreamResponse:
        """Answer with an execution as another protocol shows it. `seat` is the room that was held for it.
        Raises `Problem` before anything was sent; the request's body must have been read."""
        view = RenderedView(rendering, chunked=request.version >= HttpVersion11)
        wanted = StreamRequest(view, None, from_now=False, malformed=False)
        if seat is None:
            return await self._admit(request, target, identity, wanted, request_id)
        return await self._answer(request, target, identity, wanted, request_id, seat)

    async def _admit(
        self, request: web.Request, target: Target, identity: Identity, wanted: StreamRequest, request_id: str
    ) -> web.StreamResponse:
        try:
            async with self._seats.take(identity) as seat:
                return await self._answer(request, target, identity, wanted, request_id, seat)
        except Exception as error:
            if is_away(error):
                self._seats.reject("redis")
            raise

    def seat(self, identity: Identity) -> AbstractAsyncContextManager[StreamSlot]:
        """Room for one stream, before anything is started that is to be shown on it; errors of `StreamSlots.take`."""
        return self._seats.take(identity)

    async def _answer(
        self,
        request: web.Request,
        target: Target,
        identity: Identity,
        wanted: StreamRequest,
        request_id: str,
        seat: StreamSlot,
    ) -> web.StreamResponse:
        if not wanted.view.is_native and (seconds := self._failures.seconds_left(target.log, wanted.view)) > 0:
            detail = "this execution could not be shown; it will be tried again later"
            raise Problem(500, "cannot-be-shown", detail, headers=retry_after(seconds))
        head = await self._head(target)
        if head is not None and head.state in TERMINAL_STATES:
            if isinstance(wanted.view, RenderedView):
                if end := await self._history.terminal_event(target.log, target.record):
                    with self._noting(target, wanted.view):
                        return web.Response(body=wanted.view.render_all([end]), headers=wanted.view.headers)
            elif _nothing_follows(head, wanted):
                return web.Response(status=204)
        return await self._establish(request, target, identity, wanted, head, request_id, seat)

    @contextlib.contextmanager
    def _noting(self, target: Target, view: StreamView) -> Iterator[None]:
        """Around what a view makes before there is a viewer: an error is this request's, and remembered."""
        try:
            yield
        except Exception:
            self._failures.note(target.log, view)
            raise

    def _shared_view(self, wanted: StreamRequest) -> StreamRequest:
        """One view object for all viewers that ask for the same, up to a sane number of different wishes."""
        if len(self._views) >= MAX_SHARED_VIEWS:
            self._views.clear()
        view = wanted.view
        return wanted._replace(view=self._views.setdefault((*view.key, view.heartbeat_seconds), view))

    async def _head(self, target: Target) -> Head | None:
        """What is known of an execution; None for a feed. Asks Redis only if the log, as far as this edge watches it,
        does not tell. Raises `UnknownExecution`."""
        if target.record is None:
            return None
        watched = self.watch.get(target.log)
        if watched is not None and (known := watched.current_head()) is not None:
            return known
        head = await self._history.head(target.record)
        if head is None:
            assert target.execution_id is not None
            raise UnknownExecution(target.execution_id)
        return head

    async def _establish(
        self,
        request: web.Request,
        target: Target,
        identity: Identity,
        wanted: StreamRequest,
        head: Head | None,
        request_id: str,
        seat: StreamSlot,
    ) -> web.StreamResponse:
        view = wanted.view
        with self._noting(target, view):
            opening = view.open() if isinstance(view, RenderedView) else self._greeting(target, wanted, head)
        response = web.StreamResponse(headers=view.headers if isinstance(view, RenderedView) else STREAM_HEADERS)
        if view.chunked:
            response.enable_chunked_encoding()
        else:
            response.force_close()
        await response.prepare(request)
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client left while its stream was opened")
        watched = self.watch.enter(target.log, target.record, _tether(target, head))
        watched.head = head
        viewer = Viewer(self, watched.topic, view, identity, wanted.cursor or START)
        take_over(request, viewer, self._settings.viewer_buffer_bytes)
        seat.is_used = True
        self._register(viewer, target, {"request_id": request_id, **log_fields(trace_of(request))})
        viewer.write(view.wrap(opening))  # not by aiohttp, which would wait for its reader without a bound
        if watched.policy is not None:
            self._presence.enter(watched.policy)
        self._own(self._replay(viewer, watched, wanted), "viewer-replay")
        return response

    def _greeting(self, target: Target, wanted: StreamRequest, head: Head | None) -> bytes:
        retry = random.randint(*RETRY_MS)
        opened: dict[str, object] = {} if target.execution_id is None else {"executionId": target.execution_id}
        if wanted.cursor is not None:
            opened["cursor"] = str(wanted.cursor)
        state = "live" if head is None else head.state
        beat = self._pulse.heartbeat_seconds(wanted.view)
        opened |= {"state": state, "retryMs": retry, "heartbeatSeconds": beat}
        greeting = sse.control_frame("stream:open", opened, retry_ms=retry)
        if wanted.malformed:
            greeting += self._steps.reset_frame(Reset("unknown"), None)
        return greeting

    def _register(self, viewer: Viewer, target: Target, request: dict[str, str]) -> None:
        viewer.number = next(self._numbers)
        self._viewers[viewer.number] = viewer
        self._pulse.add(viewer)
        self._tickets.opened(viewer.identity, partial(self.close, viewer))
        self._metrics.connections.set(len(self._viewers))
        native = "native" if target.execution_id else "feed"
        protocol = viewer.view.name if isinstance(viewer.view, RenderedView) else native
        self._metrics.connections_opened[protocol].inc()
        self._log.info(
            "stream_opened",
            viewer=viewer.number,
            **request,
            user=viewer.identity.principal.user,
            org=viewer.identity.principal.org,
            execution=target.execution_id,
            protocol=protocol,
            cursor=str(viewer.cursor),
        )

    # --- replay ------------------------------------------------------------------------------------------------------

    def _own(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def replay(self, viewer: Viewer) -> None:
        """Send a viewer back to the log, to be fed from its cursor until it has caught up."""
        watched = self.watch.get(viewer.topic.key)
        assert watched is not None, "a topic with viewers is watched"
        self._own(self._replay(viewer, watched, None), "viewer-replay")

    def on_lagging(self, viewer: Viewer) -> None:
        """Its socket takes no more: it leaves the live path, with its cursor where the hub stands."""
        viewer.fall_behind(viewer.position)
        self.replay(viewer)
        viewer.stall_seconds(asyncio.get_running_loop().time())
        self._metrics.slow_viewers.inc()

    def on_behind(self, viewer: Viewer) -> None:
        """It was not shown what the hub was given last: that takes turns."""
        assert viewer.topic.before is not None, "it was live before"
        viewer.fall_behind(viewer.topic.before)
        self.replay(viewer)

    async def _replay(self, viewer: Viewer, watched: WatchedLog, wanted: StreamRequest | None) -> None:
        """Read the log after the viewer's cursor until the hub can take over."""
        try:
            async with asyncio.timeout(LOST_REDIS_SECONDS) as patience:
                await self._steps.subscribed(watched)
                if wanted is not None and wanted.cursor is None and wanted.from_now:
                    await self._steps.skip(viewer, watched)
                while viewer.state is ViewerState.REPLAYING:
                    await self._steps.drained(viewer, patience)
                    await self.watch.wait_caught_up(watched)
                    if await self._steps.join(viewer, patience):
                        return
                    if self._steps.needs_page(viewer, watched):
                        await self._steps.page(viewer, watched, patience)
        except TimeoutError:
            self.close(viewer, CloseReason.LOST_REDIS)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the last resort of this task: nobody awaits it
            self.on_failed(viewer, error)

    # --- close -------------------------------------------------------------------------------------------------------

    def on_ended(self, topic: Topic[Viewer]) -> None:
        """The terminal event went out."""
        viewers = list(topic.live())
        for viewer in viewers[:CLOSED_AT_ONCE]:
            self.close(viewer, CloseReason.FINISHED)
        if len(viewers) > CLOSED_AT_ONCE:
            self._own(self._finish(deque(viewers[CLOSED_AT_ONCE:])), "finish")

    async def _finish(self, viewers: deque[Viewer]) -> None:
        """Close the viewers of a log that has ended, in turns."""

        def some() -> None:
            while viewers and not self._turns.is_over:
                viewer = viewers.popleft()
                if viewer.state is ViewerState.LIVE:  # or it has gone back to the log, which ends it
                    self.close(viewer, CloseReason.FINISHED)

        while viewers:
            await self._turns.take(viewers[0].identity.principal, some)

    def on_over(self, viewer: Viewer) -> None:
        """It was shown the last of what its protocol shows."""
        self.close(viewer, CloseReason.FINISHED)

    def on_failed(self, viewer: Viewer, error: Exception) -> None:
        """It could not be shown something: it is closed, so that it never misses an event, and told to come back later.
        Renderings are not even tried again before: they fail for good, and may cost much until they do."""
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
        if reason is CloseReason.SLOW or not (view.is_native or (view.is_over and not failed)):
            # What it does not read cannot be said to it; and where a clean end means success, there must be none.
            viewer.transport.abort()
            return
        if not failed:  # else it may not have got what lies before the place where it stands
            viewer.send_position()
        viewer.finish(view.wrap(sse.end_frames(reason)) if view.is_native else b"")
        if reason is CloseReason.REVOKED and not viewer.is_sent:
            viewer.transport.abort()  # who may see no more has no time to take the rest

    def on_gone(self, viewer: Viewer) -> None:
        """The connection is lost; unless we closed it ourselves, the viewer left."""
        if viewer.state is not ViewerState.CLOSING:
            self._depart(viewer, CloseReason.GONE)
        self._closing.discard(viewer)
        self._gone.set()
        self._admission.release(viewer.identity.principal)

    def _depart(self, viewer: Viewer, reason: CloseReason) -> None:
        why = _why_left(viewer, reason)
        viewer.close()
        del self._viewers[viewer.number]
        self._tickets.closed(viewer.identity)
        self._closing.add(viewer)
        watched = self.watch.leave(viewer.topic.key)
        if watched.policy is not None:
            self._presence.leave(watched.policy, why)
        self._metrics.connections.set(len(self._viewers))
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

    def close_revoked(self, is_revoked: Callable[[Identity], bool]) -> None:
        """Close every stream whose identity is refused now."""
        for viewer in list(self._viewers.values()):
            if is_revoked(viewer.identity):
                self.close(viewer, CloseReason.REVOKED)

    async def drain(self, seconds: float) -> None:
        """Close all streams in random order, spread over `seconds`, so that their reconnects are spread as well."""
        self._seats.draining = True
        viewers = list(self._viewers.values())
        random.shuffle(viewers)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, viewer in enumerate(viewers):
            wait = began + seconds * number / len(viewers) - loop.time()
            if wait > 0.005:
                await asyncio.sleep(wait)
            self.close(viewer, CloseReason.DRAINING)
        for viewer in list(self._viewers.values()):  # those that were being opened meanwhile
            self.close(viewer, CloseReason.DRAINING)
        self._last_bytes_by = loop.time() + LAST_BYTES_SECONDS

    async def stop(self) -> None:
        """End what still runs. The streams are closed before (`drain`); those who still read have some time to."""
        for viewer in list(self._viewers.values()):
            self.close(viewer, CloseReason.DRAINING)
        await tasks.end(self._tasks)
        await self._sent()
        await self.watch.close()
        await self._history.close()
        self._pulse.stop()

    async def _sent(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._last_bytes_by):
                while self._closing:
                    self._gone.clear()
                    await self._gone.wait()
        for viewer in list(self._closing):
            viewer.transport.abort()


def _nothing_follows(head: Head, wanted: StreamRequest) -> bool:
    """Whether the cursor lies at the end, of an execution that has ended: such a viewer gets 204."""
    return wanted.from_now if wanted.cursor is None else wanted.cursor == head.last


def _why_left(viewer: Viewer, reason: CloseReason) -> CloseReason:
    """What a closed stream says of its viewer: it was there to the end, or is likely to come back, as where a protocol
    ends its stream to ask something."""
    if viewer.topic.ended:
        return CloseReason.FINISHED
    return CloseReason.AGED if reason is CloseReason.FINISHED and not viewer.view.is_native else reason


def _tether(target: Target, head: Head | None) -> DisconnectPolicy | None:
    """What the viewers of an execution keep alive by watching, if they do."""
    if head is None or not head.cancel_after_ms or head.state in TERMINAL_STATES:
        return None
    assert target.execution_id is not None
    return DisconnectPolicy(member(target.owner, target.execution_id), head.cancel_after_ms)
