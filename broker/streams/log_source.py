"""Logs as a source of streams: a viewer enters, replays, is live, falls behind and replays again, until it leaves."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine

from broker.base.metrics import Metrics
from broker.base.reasons import CloseReason
from broker.base.slices import Turns
from broker.live.topic import Topic
from broker.live.viewer import Viewer, ViewerState
from broker.log.delivery_spans import Deliveries
from broker.log.history import Head, History
from broker.log.watch_leases import DisconnectPolicy, WatchLeases
from broker.log.watched import WatchedLog, WatchedLogs
from broker.streams.replay import LOST_REDIS_SECONDS, Replay
from broker.streams.request import Opening, StreamRequest, Target, policy_of
from emitter import tasks
from emitter.errors import UnknownExecution
from emitter.wire.keys import member_of_log

CLOSED_AT_ONCE = 32
"""So many viewers of a log that ends are closed at once. More take turns."""


class LogSource:
    """The watched logs of one edge. `close` ends a stream, `fail` one that something raised for."""

    def __init__(
        self,
        history: History,
        leases: WatchLeases,
        metrics: Metrics,
        deliveries: Deliveries | None,
        close: Callable[[Viewer, CloseReason], None],
        fail: Callable[[Viewer, Exception], None],
    ) -> None:
        self._history = history
        self._leases = leases
        self._metrics = metrics
        self._close = close
        self.on_failed = fail
        self._turns = Turns()
        self.watch = WatchedLogs(history, metrics, self, deliveries)
        self.steps = Replay(history, self.watch, metrics, self._turns, close)
        self._viewers = 0
        self.joining = 0
        """Viewers that wait for their first page of the log."""
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return self._viewers

    # --- enter -------------------------------------------------------------------------------------------------------

    async def head(self, target: Target, *, with_size: bool) -> Head | None:
        """What is known of an execution, if it matters with the size of its log; None for a feed. Asks Redis only if
        the watched log does not tell. Raises `UnknownExecution`."""
        if target.record is None:
            return None
        watched = self.watch.get(target.log)
        known = None if watched is None else watched.current_head()
        if known is not None and (known.log_bytes is not None or not with_size):
            return known
        head = await self._history.head(target.record)
        if head is None:
            assert target.execution_id is not None
            raise UnknownExecution(target.execution_id)
        return head

    def enter(self, opening: Opening) -> Topic[Viewer]:
        target = opening.target
        assert target is not None
        watched = self.watch.enter(target.log, target.record, policy_of(target, opening.head))
        watched.head = opening.head
        self._viewers += 1
        return watched.topic

    def start(self, viewer: Viewer, opening: Opening) -> None:
        watched = self._watched(viewer)
        if watched.policy is not None and not viewer.identity.is_visitor:
            self._leases.enter(watched.policy)
        wanted: StreamRequest | None = opening.wanted
        if viewer.view.is_native and self.watch.is_current(watched):  # then it may go live without a task
            if opening.wanted.is_from_end and watched.topic.last is not None:
                self.steps.skip_to(viewer, watched.topic.last)
                wanted = None
            if (wanted is None or not wanted.is_from_end) and self.steps.join_now(viewer):
                return
        self._run(self._replay(viewer, watched, wanted), "viewer-replay")

    # --- replay ------------------------------------------------------------------------------------------------------

    async def _replay(self, viewer: Viewer, watched: WatchedLog, wanted: StreamRequest | None) -> None:
        """Read the log after the viewer's cursor until the topic can take over."""
        joining = int(not viewer.has_caught_up)
        self.joining += joining
        try:
            async with asyncio.timeout(LOST_REDIS_SECONDS) as patience:
                await self.steps.subscribed(watched)
                if wanted is not None and wanted.is_from_end:
                    await self.steps.skip(viewer, watched)
                while viewer.state is ViewerState.REPLAYING:
                    await self.steps.drained(viewer, patience)
                    await self.watch.wait_caught_up(watched)
                    if await self.steps.join(viewer, patience):
                        return
                    if self.steps.needs_page(viewer, watched):
                        await self.steps.page(viewer, watched, patience)
                        self.joining -= joining
                        joining = 0
        except TimeoutError:
            self._close(viewer, CloseReason.LOST_REDIS)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the last resort of this task: nobody awaits it
            self.on_failed(viewer, error)
        finally:
            self.joining -= joining

    def replay(self, viewer: Viewer) -> None:
        """Feed a viewer from the log again, from its cursor until it has caught up."""
        self._run(self._replay(viewer, self._watched(viewer), None), "viewer-replay")

    def _watched(self, viewer: Viewer) -> WatchedLog:
        watched = self.watch.get(viewer.topic.key)
        assert watched is not None, "a topic with viewers is watched"
        return watched

    # --- live --------------------------------------------------------------------------------------------------------

    def on_lagging(self, viewer: Viewer) -> None:
        """Its socket takes no more: it leaves the live path, with its cursor at the topic's end."""
        viewer.fall_behind(viewer.position)
        self.replay(viewer)
        viewer.stall_seconds(asyncio.get_running_loop().time())
        self._metrics.slow_viewers.inc()

    def on_behind(self, viewer: Viewer) -> None:
        """It was not shown the last delivery, which takes turns."""
        assert viewer.topic.before is not None, "it was live before"
        viewer.fall_behind(viewer.topic.before)
        self.replay(viewer)

    def on_over(self, viewer: Viewer) -> None:
        """It was shown the last of what its protocol shows."""
        self._close(viewer, CloseReason.FINISHED)

    def on_ended(self, topic: Topic[Viewer]) -> None:
        """The terminal event went out."""
        viewers = list(topic.live())
        for viewer in viewers[:CLOSED_AT_ONCE]:
            self._close(viewer, CloseReason.FINISHED)
        if len(viewers) > CLOSED_AT_ONCE:
            self._run(self._finish(deque(viewers[CLOSED_AT_ONCE:])), "finish")

    async def _finish(self, viewers: deque[Viewer]) -> None:
        """Close the viewers of a log that has ended, in turns."""

        def some() -> None:
            while viewers and not self._turns.is_over:
                viewer = viewers.popleft()
                if viewer.state is ViewerState.LIVE:  # or it has gone back to the log, which ends it
                    self._close(viewer, CloseReason.FINISHED)

        while viewers:
            await self._turns.take(viewers[0].identity.principal, some)

    # --- leave -------------------------------------------------------------------------------------------------------

    def leave(self, viewer: Viewer, reason: CloseReason) -> None:
        self._viewers -= 1
        watched = self.watch.leave(viewer.topic.key)
        if viewer.identity.is_visitor:
            return
        if watched.policy is not None:
            self._leases.leave(watched.policy, _why_left(viewer, reason))
        elif reason is CloseReason.GONE and viewer.view.cancel_after_ms and not viewer.topic.ended:
            self._abandon(viewer)

    def _abandon(self, viewer: Viewer) -> None:
        """Its client gave up what it had started: as if the last viewer of an execution with a policy had left."""
        policy = DisconnectPolicy(member_of_log(viewer.topic.key), viewer.view.cancel_after_ms)
        self._leases.enter(policy)
        self._leases.leave(policy, CloseReason.GONE)

    async def stop(self) -> None:
        await tasks.end(self._tasks)

    def _run(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _why_left(viewer: Viewer, reason: CloseReason) -> CloseReason:
    """The reason for the watch lease: `FINISHED` if the execution has ended. A protocol that ends its stream to ask
    for an input finishes a stream whose viewer is likely to come back."""
    if viewer.topic.ended:
        return CloseReason.FINISHED
    return CloseReason.AGED if reason is CloseReason.FINISHED and not viewer.view.is_native else reason
