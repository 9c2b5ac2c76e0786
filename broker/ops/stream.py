"""The operations stream: how edges, workers and Redis are, every two seconds, for who may see it (`ops:read`).

Its viewers are those of any other stream: admitted, kept alive, told that their token expires, and sent elsewhere when
the edge drains. But they follow no log: each snapshot says everything, so one who cannot take it just gets the next.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import msgspec
from aiohttp import web

from broker.auth.tickets import Tickets
from broker.base.identity import Identity
from broker.base.logging import get_logger
from broker.base.metrics import Metrics
from broker.base.problem import Problem, retry_after
from broker.base.reasons import CloseReason, StreamProtocol
from broker.base.settings import Settings
from broker.live import sse
from broker.live.topic import Topic
from broker.live.view import StreamView
from broker.live.viewer import Viewer, ViewerState, take_over
from broker.ops.snapshot import OpsSnapshotBuilder
from broker.ops.types import OpsSnapshot
from broker.streams.admission import Admission
from broker.streams.reconnect import STREAM_HEADERS
from broker.streams.request import read_parameters
from broker.streams.service import RETRY_MS, Streams
from broker.streams.timers import ViewerTimers
from emitter import tasks
from emitter.wire.ids import START
from emitter.wire.keys import Owner

EVERY_SECONDS = 2.0
MAX_VIEWERS = 32
"""Of one edge. They are people at dashboards, not users."""
MAX_VIEWERS_PER_USER = 16


class Ops:
    """The operations stream of one edge. It asks Redis only while somebody watches, once for all."""

    def __init__(
        self,
        settings: Settings,
        streams: Streams,
        admission: Admission,
        tickets: Tickets,
        collector: OpsSnapshotBuilder,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._streams = streams
        self._admission = admission
        self._tickets = tickets
        self._collector = collector
        self._metrics = metrics
        self._pulse = ViewerTimers(settings, self.close, self._fail)
        self._topic: Topic[Viewer] = Topic("", is_execution=False)  # a viewer needs one; nothing ever happens on it
        self._viewers: set[Viewer] = set()
        self._opening: Counter[Owner] = Counter()
        self._latest = b""
        self._collecting: asyncio.Task[None] | None = None
        self._log = get_logger()

    def __len__(self) -> int:
        return len(self._viewers)

    # --- open --------------------------------------------------------------------------------------------------------

    async def open(self, request: web.Request, identity: Identity, request_id: str) -> web.StreamResponse:
        """Answer a GET: 200 with the viewer on its way, or a `Problem` before anything was sent."""
        view = read_parameters(request, is_feed=True).view
        who = identity.principal
        own = sum(viewer.identity.principal == who for viewer in self._viewers) + self._opening[who]
        if own >= MAX_VIEWERS_PER_USER or len(self._viewers) + self._opening.total() >= MAX_VIEWERS:
            detail = f"{MAX_VIEWERS} watch the operations of this edge, or {MAX_VIEWERS_PER_USER} as this user"
            raise Problem(503, "capacity", detail, headers=retry_after(random.randint(5, 15)))
        self._opening[who] += 1
        try:
            async with self._streams.seat(identity) as seat:
                response = await self._greet(request, view)
                viewer = Viewer(self, self._topic, view, identity, START)
                take_over(request, viewer, self._settings.viewer_buffer_bytes)
                seat.is_used = True
        finally:
            self._opening[who] -= 1
            self._opening += Counter()  # whoever is at zero is forgotten
        self._register(viewer, request_id)
        return response

    async def _greet(self, request: web.Request, view: StreamView) -> web.StreamResponse:
        response = web.StreamResponse(headers=STREAM_HEADERS)
        if view.chunked:
            response.enable_chunked_encoding()
        else:
            response.force_close()
        await response.prepare(request)
        retry = random.randint(*RETRY_MS)
        opened = {"state": "live", "retryMs": retry, "heartbeatSeconds": self._settings.heartbeat_seconds}
        await response.write(sse.control_frame("stream:open", opened, retry_ms=retry))
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client left while its stream was opened")
        return response

    def _register(self, viewer: Viewer, request_id: str) -> None:
        self._viewers.add(viewer)
        self._pulse.add(viewer)
        self._tickets.opened(viewer.identity, partial(self.close, viewer))
        self._metrics.connections_opened[StreamProtocol.OPS].inc()
        who = viewer.identity.principal
        self._log.info("stream_opened", request_id=request_id, user=who.user, org=who.org, protocol=StreamProtocol.OPS)
        if self._collecting is None:
            self._collecting = asyncio.create_task(self._collect(), name="ops")
        elif self._latest:
            viewer.write(viewer.view.wrap(self._latest))

    # --- tell --------------------------------------------------------------------------------------------------------

    async def _collect(self) -> None:
        """Take a snapshot every `EVERY_SECONDS` and show it, until nobody watches."""
        loop = asyncio.get_running_loop()
        try:
            while self._viewers and not tasks.told_to_stop():
                began = loop.time()
                self._tell(await self._collector.collect())
                await asyncio.sleep(max(EVERY_SECONDS / 4, began + EVERY_SECONDS - loop.time()))
        except Exception:  # the last resort of this task: nobody awaits it
            self._log.exception("ops_failed")
            for viewer in list(self._viewers):
                self.close(viewer, CloseReason.LOST_REDIS)
        finally:
            self._collecting = None
            self._latest = b""

    def _tell(self, snapshot: OpsSnapshot) -> None:
        self._latest = b"event: ops\ndata: %b\n\n" % msgspec.json.encode(snapshot)
        for viewer in list(self._viewers):
            if not viewer.paused:
                try:
                    viewer.write(viewer.view.wrap(self._latest))
                except Exception as error:  # one viewer's transport is no other's
                    self._fail(viewer, error)

    # --- close -------------------------------------------------------------------------------------------------------

    def close(self, viewer: Viewer, reason: CloseReason) -> None:
        """End a stream: the reason in band, the last chunk, and the connection."""
        if viewer.state is ViewerState.CLOSING:
            return
        if reason is CloseReason.SLOW:
            viewer.transport.abort()
        else:
            viewer.finish(viewer.view.wrap(sse.end_frames(reason)))
        self._depart(viewer, reason)

    def _fail(self, viewer: Viewer, error: Exception) -> None:
        self._log.error("viewer_failed", protocol=StreamProtocol.OPS, exc_info=error)
        viewer.transport.abort()
        if viewer.state is not ViewerState.CLOSING:
            self._depart(viewer, CloseReason.FAILED)

    def on_gone(self, viewer: Viewer) -> None:
        """The connection is lost; unless we closed it ourselves, the viewer left."""
        if viewer.state is not ViewerState.CLOSING:
            self._depart(viewer, CloseReason.GONE)

    def _depart(self, viewer: Viewer, reason: CloseReason) -> None:
        viewer.close()
        self._viewers.discard(viewer)
        self._tickets.closed(viewer.identity)
        who = viewer.identity.principal
        self._admission.release(who)
        self._metrics.connections_closed[reason].inc()
        self._log.info("stream_closed", reason=reason, user=who.user, org=who.org, protocol=StreamProtocol.OPS)

    def close_revoked(self, is_revoked: Callable[[Identity], bool]) -> None:
        """Close every stream whose identity is refused now."""
        for viewer in list(self._viewers):
            if is_revoked(viewer.identity):
                self.close(viewer, CloseReason.REVOKED)

    def drain(self) -> None:
        """Send all viewers elsewhere. They are few: nothing needs spreading."""
        for viewer in list(self._viewers):
            self.close(viewer, CloseReason.DRAINING)

    async def stop(self) -> None:
        """End what still runs."""
        self.drain()
        if self._collecting is not None:
            await tasks.end([self._collecting])
        self._pulse.stop()
