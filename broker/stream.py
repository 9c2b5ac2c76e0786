"""The life of a viewer, top to bottom: admission, join, replay, live, close reason."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Coroutine

from aiohttp import web
from redis.exceptions import RedisError

from broker import sse
from broker.admission import Admission
from broker.auth import Identity, Reason, Unauthorized
from broker.history import TERMINAL_STATES, History, Page, Reset
from broker.hub import TERMINAL_TYPES, Topic
from broker.logs import get_logger
from broker.metrics import CloseReason, Metrics, RedisOp
from broker.problems import REDIS_AWAY, Problem, retry_after
from broker.request import StreamRequest, Target, read_parameters
from broker.settings import Settings
from broker.timer import Timer
from broker.viewer import Viewer, ViewerState, take_over
from broker.watch import Watch, Watched
from emitter import tasks
from emitter.connection import GONE
from emitter.errors import RedisUnavailable, UnknownExecution
from emitter.wire import START, EventId

STREAM_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}
RETRY_MS = (1000, 3000)
"""Range of a client's reconnection time; each gets its own, so that a broken edge's viewers do not return as one."""
CLOSE_SECONDS = 5.0
"""How long a closed connection may take to send what it still holds."""
LOST_REDIS_SECONDS = 60.0
"""How long a replaying viewer waits for a Redis that does not answer."""
EXPIRY_NOTICE_SECONDS = 60.0
MAX_SHARED_LENSES = 256


class Streams:
    """All open streams of one edge."""

    def __init__(self, settings: Settings, history: History, admission: Admission, metrics: Metrics) -> None:
        self._settings = settings
        self._history = history
        self._admission = admission
        self._metrics = metrics
        self.watch = Watch(history, metrics, self)
        self._viewers: dict[int, Viewer] = {}
        self._lenses: dict[tuple[object, ...], sse.Lens] = {}
        self._opening = 0
        self._numbers = itertools.count(1)
        self._timer: Timer[Viewer] = Timer(self._tick)
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = get_logger()
        self.draining = False

    def __len__(self) -> int:
        return len(self._viewers)

    # --- open --------------------------------------------------------------------------------------------------------

    async def open(
        self, request: web.Request, target: Target, identity: Identity, request_id: str
    ) -> web.StreamResponse:
        """Answer a GET of a stream: 200 with the viewer on its way, 204 when nothing will ever follow its cursor, or a
        `Problem` before anything was sent."""
        wanted = self._shared_lens(read_parameters(request, is_feed=target.record is None))
        if identity.expires_at is not None and identity.expires_at <= time.time():
            # Within the leeway other requests still pass, but a stream would end at once, and its viewer come back.
            raise Unauthorized(Reason.EXPIRED, "the token has expired")
        if refusal := self._full():
            return self._refuse(wanted, refusal)
        self._opening += 1
        try:
            with self._metrics.redis_call(RedisOp.ADMISSION):
                await self._admission.admit(identity.principal)
            try:
                state = await self._state(target, wanted)
                if state is None:
                    return self._nothing(identity)
                return await self._establish(request, target, identity, wanted, state, request_id)
            except BaseException:
                self._admission.release(identity.principal)
                raise
        except REDIS_AWAY:
            if not wanted.wants_sse:
                raise
            return self._refuse(wanted, "redis")
        except Problem as problem:
            if problem.status == 429:
                limit = "connect_rate" if problem.slug == "rate-limited" else "user_connections"
                self._metrics.rejected[limit].inc()
                self._log.info("stream_refused", reason=limit, user=identity.principal.user)
            raise
        finally:
            self._opening -= 1

    def _shared_lens(self, wanted: StreamRequest) -> StreamRequest:
        """One lens object for all viewers that ask for the same, up to a sane number of different wishes."""
        if len(self._lenses) >= MAX_SHARED_LENSES:
            self._lenses.clear()
        return wanted._replace(lens=self._lenses.setdefault(wanted.lens.key, wanted.lens))

    def _full(self) -> str | None:
        if self.draining:
            return "draining"
        limit = self._settings.max_connections
        return "capacity" if limit and len(self._viewers) + self._opening >= limit else None

    def _refuse(self, wanted: StreamRequest, reason: str) -> web.StreamResponse:
        """`EventSource` gives up for ever on an error status: it gets an empty stream that says when to return."""
        self._metrics.rejected[reason].inc()
        self._log.info("stream_refused", reason=reason)
        if not wanted.wants_sse:
            raise Problem(503, reason, "this edge takes no more streams now", headers=retry_after(random.randint(1, 5)))
        body = sse.retry_frame(random.randint(2000, 10_000)) + sse.control_frame(
            "stream:end", {"reason": CloseReason.REFUSED}
        )
        return web.Response(body=body, headers=STREAM_HEADERS)

    async def _state(self, target: Target, wanted: StreamRequest) -> str | None:
        """The state to announce; None when the execution has ended and the cursor lies at or past its end. Asks Redis
        only if this edge does not watch the log already. Raises `UnknownExecution`."""
        if target.record is None:
            return "live"
        watched = self.watch.get(target.log)
        if watched is not None and watched.topic.state is not None and watched.topic.last is not None:
            state, last = watched.topic.state, watched.topic.last
        else:
            head = await self._history.head(target.record)
            if head is None:
                assert target.execution_id is not None
                raise UnknownExecution(target.execution_id)
            state, last = head.state, head.last
        if state not in TERMINAL_STATES:
            return state
        past = wanted.from_now if wanted.cursor is None else wanted.cursor == last
        return None if past else state

    def _nothing(self, identity: Identity) -> web.StreamResponse:
        self._admission.release(identity.principal)
        return web.Response(status=204)

    async def _establish(
        self,
        request: web.Request,
        target: Target,
        identity: Identity,
        wanted: StreamRequest,
        state: str,
        request_id: str,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=STREAM_HEADERS)
        if wanted.lens.chunked:
            response.enable_chunked_encoding()
        else:
            response.force_close()
        await response.prepare(request)
        await response.write(self._greeting(target, wanted, state))
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client left while its stream was opened")
        watched = self.watch.enter(target.log, target.record)
        viewer = Viewer(self, watched.topic, wanted.lens, identity, wanted.cursor or START)
        take_over(request, viewer, self._settings.viewer_buffer_bytes)
        self._register(viewer, target, request_id)
        self._own(self._replay(viewer, watched, wanted), "viewer-replay")
        return response

    def _greeting(self, target: Target, wanted: StreamRequest, state: str) -> bytes:
        retry = random.randint(*RETRY_MS)
        opened: dict[str, object] = {} if target.execution_id is None else {"executionId": target.execution_id}
        if wanted.cursor is not None:
            opened["cursor"] = str(wanted.cursor)
        opened |= {"state": state, "retryMs": retry, "heartbeatSeconds": self._settings.heartbeat_seconds}
        greeting = sse.retry_frame(retry) + sse.control_frame("stream:open", opened)
        if wanted.malformed:
            greeting += self._reset_frame(Reset("unknown"), None)
        return greeting

    def _register(self, viewer: Viewer, target: Target, request_id: str) -> None:
        now = asyncio.get_running_loop().time()
        settings = self._settings
        viewer.number = next(self._numbers)
        viewer.started_at = now
        viewer.heartbeat_at = now + settings.heartbeat_seconds * random.uniform(0.5, 1)
        age = settings.max_stream_age_seconds
        viewer.aged_at = now + age * random.uniform(0.8, 1.2) if age else float("inf")
        if viewer.identity.expires_at is not None:
            viewer.expires_at = now + viewer.identity.expires_at - time.time()
        self._viewers[viewer.number] = viewer
        self._timer.add(viewer, self._next_tick(viewer, now))
        self._metrics.connections.set(len(self._viewers))
        self._metrics.connections_opened["native" if target.execution_id else "feed"].inc()
        self._log.info(
            "stream_opened",
            viewer=viewer.number,
            request_id=request_id,
            user=viewer.identity.principal.user,
            org=viewer.identity.principal.org,
            execution=target.execution_id,
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
        place = viewer.place()
        viewer.events += place.seq - viewer.cursor.seq
        viewer.cursor = place
        viewer.state = ViewerState.REPLAYING
        viewer.topic.remove(viewer)
        viewer.stuck_seconds(asyncio.get_running_loop().time())
        self._metrics.slow_viewers.inc()
        self.replay(viewer)

    async def _replay(self, viewer: Viewer, watched: Watched, wanted: StreamRequest | None) -> None:
        """Read the log after the viewer's cursor until the hub can take over."""
        try:
            async with asyncio.timeout(LOST_REDIS_SECONDS) as patience:
                await self._subscribed(watched)
                if wanted is not None and wanted.cursor is None and wanted.from_now:
                    viewer.cursor = await self._now(watched)
                    # Else a stream cut before its first event would resume at a later now, and lose what came between.
                    viewer.write(viewer.lens.wrap(sse.id_frame(viewer.cursor)))
                while viewer.state is ViewerState.REPLAYING:
                    await self._drained(viewer, patience)
                    if self._join(viewer):
                        return
                    await self.watch.settled(watched)
                    if not self._join(viewer) and await self._send_page(viewer, watched):
                        patience.reschedule(asyncio.get_running_loop().time() + LOST_REDIS_SECONDS)
        except TimeoutError:
            self.close(viewer, CloseReason.LOST_REDIS)
        except asyncio.CancelledError:
            raise
        except Exception:  # the last resort of this task: nobody awaits it
            self._log.exception("replay_failed", viewer=viewer.number)
            self.close(viewer, CloseReason.LOST_REDIS)

    async def _subscribed(self, watched: Watched) -> None:
        while True:
            with contextlib.suppress(RedisUnavailable):
                await self.watch.subscribed(watched.topic.key)
                return

    async def _now(self, watched: Watched) -> EventId:
        """The end of a log, for a viewer that wants only what comes."""
        while True:
            try:
                return watched.topic.last or await self._history.last(watched.topic.key)
            except (RedisError, *GONE) as error:
                self._redis_failed("history_read_failed", error)
                await asyncio.sleep(random.uniform(0.1, 0.5))

    def _redis_failed(self, event: str, error: Exception) -> None:
        self._log.warning(event, error=type(error).__name__)

    async def _drained(self, viewer: Viewer, patience: asyncio.Timeout) -> None:
        """Wait until the transport has room. The timer closes a viewer that makes no progress, which ends the wait."""
        if viewer.paused:
            patience.reschedule(None)
            viewer.drained = asyncio.get_running_loop().create_future()
            await viewer.drained
            viewer.drained = None
            patience.reschedule(asyncio.get_running_loop().time() + LOST_REDIS_SECONDS)

    async def _send_page(self, viewer: Viewer, watched: Watched) -> bool:
        """Write what comes next in the log; false when Redis did not tell."""
        topic = watched.topic
        hub, after = topic.last, viewer.cursor
        try:
            page = await self._history.read(topic.key, viewer.cursor, record=watched.record)
        except (RedisError, *GONE) as error:
            self._redis_failed("history_read_failed", error)
            await asyncio.sleep(random.uniform(0.1, 0.5))
            return False
        if viewer.state is not ViewerState.REPLAYING:
            return True
        if page.reset is not None:
            viewer.whole = False
            viewer.marked = START  # in another history the same ordinal is news
            self._metrics.replays["gap" if page.reset.reason == "trimmed" else "reset"].inc()
            viewer.write(viewer.lens.wrap(self._reset_frame(page.reset, page)))
            if not page.entries:
                # The cursor must move although nothing is left to send, or every reconnect would be told again.
                viewer.write(viewer.lens.wrap(sse.id_frame(page.cursor)))
        viewer.write(page.render(viewer.lens))
        viewer.cursor = page.cursor
        viewer.events += len(page.entries)
        self._metrics.replayed_events.inc(len(page.entries))
        if page.closed or (page.entries and topic.is_execution and page.entries[-1].type in TERMINAL_TYPES):
            self._go_live(viewer)
            self.close(viewer, CloseReason.FINISHED)
        elif page.end:
            # What history knows, the hub now knows too: it delivers it to others, or begins here.
            if page.reset is None or not page.entries:
                topic.settle(page.cursor if page.reset else after, page.entries)
            if hub is not None and not page.entries and hub != page.cursor:
                # The log ends where the hub does not stand: it missed a message, or the log went back. Reading again
                # and again would not bring the two together.
                self.watch.doubt(watched)
            elif topic.last is None or page.cursor.seq > topic.last.seq:
                self.watch.absorb(watched, list(page.entries))
        return True

    def _reset_frame(self, reset: Reset, page: Page | None) -> bytes:
        self._metrics.resets[reset.reason].inc()
        data: dict[str, object] = {"reason": reset.reason}
        if reset.lost is not None:
            data |= {"lostFrom": reset.lost[0], "lostTo": reset.lost[1]}
        if page is not None:
            first = page.entries[0].id if page.entries else page.cursor
            data["resumedAt"] = str(first)
        return sse.control_frame("stream:reset", data)

    def _join(self, viewer: Viewer) -> bool:
        """Go live if the hub knows everything after the viewer's cursor. Synchronous: nothing can come between."""
        topic = viewer.topic
        watched = self.watch.get(topic.key)
        if viewer.state is not ViewerState.REPLAYING or watched is None or watched.catching_up is not None:
            return viewer.state is ViewerState.CLOSING
        if viewer.paused:
            return False
        missing = topic.missing(viewer.cursor)
        if missing is None:
            return False
        if missing:
            viewer.write(topic.render_tail(viewer.lens, missing))
            viewer.events += len(missing)
            self._metrics.history_reads["tail"].inc()
            self._metrics.replayed_events.inc(len(missing))
        assert topic.last is not None
        viewer.cursor = topic.last
        self._go_live(viewer)
        if topic.ended:
            self.close(viewer, CloseReason.FINISHED)
        elif viewer.paused:
            return False  # the tail filled its socket: it drains first, and then joins with what came meanwhile
        else:
            viewer.state = ViewerState.LIVE
            topic.add(viewer)
        return True

    def _go_live(self, viewer: Viewer) -> None:
        if not viewer.seen_live:
            viewer.seen_live = True
            if viewer.whole:
                self._metrics.replays["ok"].inc()
            now = asyncio.get_running_loop().time()
            self._metrics.replay_duration.observe(now - viewer.started_at)
            viewer.write(viewer.lens.wrap(sse.control_frame("stream:live", {"replayed": viewer.events})))

    # --- now and then ------------------------------------------------------------------------------------------------

    def _next_tick(self, viewer: Viewer, now: float) -> float:
        due = min(viewer.heartbeat_at, viewer.aged_at)
        if viewer.expires_at is not None:
            notice = viewer.expires_at - EXPIRY_NOTICE_SECONDS
            due = min(due, viewer.expires_at if viewer.warned or notice <= now else notice)
        if viewer.paused:
            due = min(due, now + max(0.25, self._settings.write_timeout_seconds / 8))
        return due

    def _tick(self, viewer: Viewer, now: float) -> float | None:
        """What is due for one viewer; returns when to look again, None when it is gone."""
        if viewer.state is ViewerState.CLOSING:
            if now < viewer.aged_at:
                return viewer.aged_at
            viewer.transport.abort()  # it was given time to send its last bytes
            return None
        reason = self._overdue(viewer, now)
        if reason is not None:
            self.close(viewer, reason)
            return viewer.aged_at
        self._notify_expiry(viewer, now)
        if now >= viewer.heartbeat_at - 0.005:
            viewer.heartbeat_at = now + self._settings.heartbeat_seconds
            self._heartbeat(viewer)
        return self._next_tick(viewer, now)

    def _overdue(self, viewer: Viewer, now: float) -> CloseReason | None:
        timeout = self._settings.write_timeout_seconds
        if viewer.stuck_seconds(now) > timeout > 0:
            return CloseReason.SLOW
        if viewer.expires_at is not None and now >= viewer.expires_at:
            return CloseReason.EXPIRED
        return CloseReason.AGED if now >= viewer.aged_at else None

    def _notify_expiry(self, viewer: Viewer, now: float) -> None:
        if viewer.expires_at is None or viewer.warned or now < viewer.expires_at - EXPIRY_NOTICE_SECONDS:
            return
        viewer.warned = True
        assert viewer.identity.expires_at is not None
        expires = {"expiresAt": int(viewer.identity.expires_at * 1000)}
        viewer.write(viewer.lens.wrap(sse.control_frame("stream:token_expiring", expires)))

    def _heartbeat(self, viewer: Viewer) -> None:
        """A sign of life; for a filtered view also the cursor, so that a resume does not read it all again."""
        if not viewer.paused:
            viewer.write(viewer.lens.heartbeat)
            self._mark(viewer)

    def _mark(self, viewer: Viewer) -> None:
        if viewer.lens.filter is None:
            return
        place = viewer.place()
        if place.seq > viewer.marked.seq:
            viewer.marked = place
            viewer.write(viewer.lens.wrap(sse.id_frame(place)))

    # --- close -------------------------------------------------------------------------------------------------------

    def on_ended(self, topic: Topic) -> None:
        """The terminal event went out."""
        for viewer in list(topic.live()):
            self.close(viewer, CloseReason.FINISHED)

    def close(self, viewer: Viewer, reason: CloseReason) -> None:
        """End a stream: the cursor and the reason in band, the last chunk, and the connection."""
        if viewer.state is ViewerState.CLOSING:
            return
        self._mark(viewer)
        if reason is CloseReason.SLOW:
            viewer.transport.abort()  # what it does not read cannot be said to it
        else:
            farewell = sse.control_frame("stream:end", {"reason": reason})
            if reason in (CloseReason.AGED, CloseReason.DRAINING):
                farewell = sse.retry_frame(random.randint(100, 2000)) + farewell
            viewer.write(viewer.lens.wrap(farewell) + (sse.LAST_CHUNK if viewer.lens.chunked else b""))
            viewer.transport.close()
        self._depart(viewer, reason)
        viewer.aged_at = asyncio.get_running_loop().time() + CLOSE_SECONDS

    def on_gone(self, viewer: Viewer) -> None:
        """The connection is lost; unless we closed it ourselves, the viewer left."""
        if viewer.state is not ViewerState.CLOSING:
            self._depart(viewer, CloseReason.GONE)

    def _depart(self, viewer: Viewer, reason: CloseReason) -> None:
        place = viewer.place()
        if viewer.state is ViewerState.LIVE:
            viewer.topic.remove(viewer)
            viewer.events += max(0, place.seq - viewer.cursor.seq)
        viewer.state = ViewerState.CLOSING
        if viewer.drained is not None and not viewer.drained.done():
            viewer.drained.set_result(None)
        del self._viewers[viewer.number]
        self.watch.leave(viewer.topic.key)
        self._admission.release(viewer.identity.principal)
        self._metrics.connections.set(len(self._viewers))
        self._metrics.connections_closed[reason].inc()
        self._log.info(
            "stream_closed",
            viewer=viewer.number,
            reason=reason,
            user=viewer.identity.principal.user,
            org=viewer.identity.principal.org,
            events=viewer.events,
            cursor=str(place),
            seconds=round(asyncio.get_running_loop().time() - viewer.started_at, 3),
        )

    def close_revoked(self, is_revoked: Callable[[Identity], bool]) -> None:
        """Close every stream whose identity is refused now."""
        for viewer in list(self._viewers.values()):
            if is_revoked(viewer.identity):
                self.close(viewer, CloseReason.REVOKED)

    async def drain(self, seconds: float) -> None:
        """Close all streams in random order, spread over `seconds`, so that their reconnects are spread as well."""
        self.draining = True
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

    async def stop(self) -> None:
        """End what still runs. The streams are closed before (`drain`)."""
        for viewer in list(self._viewers.values()):
            self.close(viewer, CloseReason.DRAINING)
        await tasks.end(self._tasks)
        await self.watch.close()
        await self._history.close()
        self._timer.stop()
