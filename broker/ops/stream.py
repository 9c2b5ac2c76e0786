"""The operations stream: how edges, workers and Redis are, every two seconds, for callers with `ops:read`.

It is a source of streams (`broker.streams.service`) without a log: each snapshot has everything, so a viewer whose
transport is full skips it and gets the next.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import msgspec
from aiohttp import web

from broker.base.identity import Identity
from broker.base.logging import get_logger
from broker.base.problem import Problem, retry_after
from broker.base.reasons import CloseReason
from broker.live.topic import Topic
from broker.live.viewer import Viewer
from broker.ops.snapshot import OpsSnapshotBuilder
from broker.ops.types import OpsSnapshot
from broker.streams.admission import too_many
from broker.streams.request import Opening
from broker.streams.service import Streams
from emitter import tasks
from emitter.wire.keys import Owner

EVERY_SECONDS = 2.0
MAX_VIEWERS = 32
"""Of one edge. They are people at dashboards, not users."""
MAX_VIEWERS_PER_USER = 16


class Ops:
    """The operations stream of one edge. It asks Redis only while there are viewers, once for all of them."""

    def __init__(self, streams: Streams, builder: OpsSnapshotBuilder) -> None:
        self._streams = streams
        self._builder = builder
        self.topic: Topic[Viewer] = Topic("ops", is_execution=False)
        """Of no log: it has the live viewers."""
        self._opening: Counter[Owner] = Counter()
        self._latest = b""
        self._collecting: asyncio.Task[None] | None = None
        self._log = get_logger()

    def __len__(self) -> int:
        return sum(map(len, self.topic.groups.values()))

    async def open(self, request: web.Request, identity: Identity, request_id: str) -> web.StreamResponse:
        """Answer a GET: 200 with a viewer, or a `Problem` before anything was sent."""
        who = identity.principal
        own = sum(viewer.identity.principal == who for viewer in self.topic.live()) + self._opening[who]
        if own >= MAX_VIEWERS_PER_USER:
            raise too_many(MAX_VIEWERS_PER_USER)
        if len(self) + self._opening.total() >= MAX_VIEWERS:
            detail = f"{MAX_VIEWERS} watch the operations of this edge"
            raise Problem(503, "capacity", detail, headers=retry_after(random.randint(5, 15)))
        self._opening[who] += 1
        try:
            return await self._streams.open_snapshots(request, self, identity, request_id)
        finally:
            self._opening[who] -= 1
            self._opening += Counter()  # drops the users at zero

    # --- a source of streams -----------------------------------------------------------------------------------------

    def enter(self, opening: Opening) -> Topic[Viewer]:  # noqa: ARG002 - there is one topic for all
        return self.topic

    def start(self, viewer: Viewer, opening: Opening) -> None:  # noqa: ARG002
        viewer.go_live()
        if self._collecting is None:
            self._collecting = asyncio.create_task(self._collect(), name="ops")
        elif self._latest:
            viewer.write(viewer.view.wrap(self._latest))

    def leave(self, viewer: Viewer, reason: CloseReason) -> None:
        """Nothing to do: the topic loses a viewer that closes."""

    # --- snapshots ---------------------------------------------------------------------------------------------------

    async def _collect(self) -> None:
        """Take a snapshot every `EVERY_SECONDS` and show it, until there are no viewers."""
        loop = asyncio.get_running_loop()
        try:
            while len(self) and not tasks.told_to_stop():
                began = loop.time()
                self._show(await self._builder.collect())
                await asyncio.sleep(max(EVERY_SECONDS / 4, began + EVERY_SECONDS - loop.time()))
        except Exception:  # the last resort of this task: nobody awaits it
            self._log.exception("ops_failed")
            self._close_all(CloseReason.LOST_REDIS)
        finally:
            self._collecting = None
            self._latest = b""

    def _show(self, snapshot: OpsSnapshot) -> None:
        self._latest = b"event: ops\ndata: %b\n\n" % msgspec.json.encode(snapshot)
        for viewer in list(self.topic.live()):
            if not viewer.paused:
                try:
                    viewer.write(viewer.view.wrap(self._latest))
                except Exception as error:  # it costs this viewer alone
                    self._streams.fail(viewer, error)
        self.topic.lagging = ()  # they stay, and get a later snapshot

    # --- stop --------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Close all viewers. They are few: their reconnects need no spreading."""
        self._close_all(CloseReason.DRAINING)

    def _close_all(self, reason: CloseReason) -> None:
        for viewer in list(self.topic.live()):
            self._streams.close(viewer, reason)

    async def stop(self) -> None:
        """End what still runs."""
        self.drain()
        if self._collecting is not None:
            await tasks.end([self._collecting])
