"""The logs an edge watches: which, up to where, and how they resync.

Every message arrives here. After a gap in the ordinals, after a reconnect, and if an idle log has another end than is
known here, the edge reads the log from the topic's last id, once for all its viewers.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from redis.exceptions import RedisError

from broker.base.logging import get_logger
from broker.base.metrics import Metrics
from broker.base.slices import SLICE_SECONDS
from broker.live.topic import Topic
from broker.live.viewer import Viewer, ViewerState
from broker.log.cluster_subscription import AnySubscription
from broker.log.delivery_spans import Deliveries
from broker.log.history import PAGE_BYTES, PAGE_EVENTS, Head, History, Page
from broker.log.watch_leases import DisconnectPolicy
from emitter import tasks
from emitter.backoff import backoff_seconds
from emitter.events import TERMINAL_TYPES
from emitter.store.connection import GONE
from emitter.wire.entries import Entry, parse_message
from emitter.wire.envelope import may_change_state

LINGER_SECONDS = 15.0
"""How long a log stays watched after its last viewer left. Most viewers return soon, and then need no call to Redis."""
RECHECK_CHUNK = 200


class Audience(Protocol):
    """The owner of the viewers of a topic."""

    def on_lagging(self, viewer: Viewer) -> None: ...

    def on_behind(self, viewer: Viewer) -> None: ...

    def on_over(self, viewer: Viewer) -> None: ...

    def on_ended(self, topic: Topic[Viewer]) -> None: ...

    def on_failed(self, viewer: Viewer, error: Exception) -> None:
        """The viewer must be closed, since it may have missed something. Raises nothing."""

    def replay(self, viewer: Viewer) -> None: ...


class WatchedLog:
    """A topic, and what is needed to keep it complete."""

    __slots__ = (
        "catching_up",
        "dirty",
        "head",
        "idle_since",
        "last_message_at",
        "pending",
        "policy",
        "record",
        "topic",
        "viewers",
        "waiters",
    )

    def __init__(self, topic: Topic[Viewer], record: str | None, policy: DisconnectPolicy | None) -> None:
        self.topic = topic
        self.record = record
        self.policy = policy
        self.head: Head | None = None
        """The record when it was read last."""
        self.viewers = 0
        self.pending: list[Entry] = []
        self.catching_up: asyncio.Task[None] | None = None
        self.dirty = False
        self.last_message_at = 0.0
        self.idle_since = 0.0
        self.waiters: Collection[asyncio.Future[None]] = ()
        """Of requests that wait for the log to go on."""

    async def change(self) -> None:
        """Wait until its topic may have changed."""
        if not isinstance(self.waiters, set):
            self.waiters = set()
        waiters, waiter = self.waiters, asyncio.get_running_loop().create_future()
        waiters.add(waiter)
        try:
            await waiter
        finally:
            waiters.discard(waiter)

    def wake(self) -> None:
        """Its topic may have changed: those who wait look again."""
        waiters, self.waiters = self.waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def current_head(self) -> Head | None:
        """The record as it is now, if that is known without Redis: the log has ended, or no event since the last
        reading can have changed the state."""
        topic = self.topic
        if topic.end is not None and topic.last is not None:
            after = self.policy.cancel_after_ms if self.policy is not None else 0
            size = self.head.log_bytes if self.head is not None and self.head.last == topic.last else None
            return Head(topic.end, topic.last, after, size)
        since = None if self.head is None else topic.missing(self.head.last)
        if self.head is None or since is None or any(may_change_state(entry.type) for entry in since):
            return None
        assert topic.last is not None, "or nothing is known to be missing"
        if since:
            self.head = self.head._replace(last=topic.last, log_bytes=None)
        return self.head


class WatchedLogs:
    """All watched logs of one edge."""

    def __init__(
        self, history: History, metrics: Metrics, audience: Audience, deliveries: Deliveries | None = None
    ) -> None:
        self.subscription: AnySubscription | None = None  # set by the edge before the first join
        self._history = history
        self._metrics = metrics
        self._deliveries = deliveries
        self._audience = audience
        self._watched: dict[str, WatchedLog] = {}
        self._flush_soon: OrderedDict[WatchedLog, None] = OrderedDict()  # a dict is slow to take the first from
        self._has_rest = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._delivered = self._delivered_bytes = self._saved_bytes = self._unwanted = 0
        """Events, not yet counted in the metrics (`_count`)."""
        self._log = get_logger()

    def __len__(self) -> int:
        return len(self._watched)

    def get(self, key: str) -> WatchedLog | None:
        return self._watched.get(key)

    def enter(self, key: str, record: str | None, policy: DisconnectPolicy | None = None) -> WatchedLog:
        """Count a viewer of a log in; `leave` counts it out. `policy` is that of the log's execution, which does not
        change."""
        watched = self._watched.get(key)
        if watched is None:
            watched = self._watched[key] = WatchedLog(Topic(key, is_execution=record is not None), record, policy)
            watched.last_message_at = time.monotonic()
        watched.viewers += 1
        return watched

    def leave(self, key: str) -> WatchedLog:
        watched = self._watched[key]
        watched.viewers -= 1
        if watched.viewers == 0:
            watched.idle_since = time.monotonic()
        return watched

    async def subscribe(self, key: str) -> None:
        """Wait until messages of this log arrive here. Raises `RedisUnavailable`."""
        assert self.subscription is not None
        await self.subscription.subscribe(key)
        self._metrics.subscribed_channels.set(self.subscription.channels)

    def is_current(self, watched: WatchedLog) -> bool:
        """Whether messages of this log arrive here, and its topic has all of them."""
        assert self.subscription is not None
        return watched.catching_up is None and self.subscription.holds(watched.topic.key)

    # --- live messages ---

    def on_message(self, channel: str, data: bytes) -> None:
        watched = self._watched.get(channel)
        if watched is None:
            return
        if watched.catching_up is not None:
            watched.dirty = True  # the read in progress may end before this message: read again after it
            return
        try:
            watched.pending += parse_message(data)
        except ValueError:
            self._log.warning("message_not_understood", channel=channel, size=len(data))
            self.resync(watched)
            return
        self._flush_soon[watched] = None

    def flush(self) -> None:
        """Deliver what has arrived, log by log in the order of arrival. Call it after the messages of one read, which
        leave as one write per viewer. After a slice of time the loop runs once before the rest; what arrives meanwhile
        joins it."""
        if not self._flush_soon or self._has_rest:
            return
        now = time.monotonic()
        until = now + SLICE_SECONDS

        def is_late() -> bool:
            return time.monotonic() >= until

        try:
            while self._flush_soon and time.monotonic() < until:
                self._flush_one(now, is_late)
        finally:  # an error must not stop the delivery of later messages
            if self._flush_soon:
                self._has_rest = True
                asyncio.get_running_loop().call_soon(self._flush_rest)
            self._count()

    def _flush_rest(self) -> None:
        self._has_rest = False
        self.flush()

    def _count(self) -> None:
        """Count what was delivered since the last time: once for all deliveries of a flush, since each count takes as
        long as a viewer's part of a write."""
        events, size, saved, unwanted = self._delivered, self._delivered_bytes, self._saved_bytes, self._unwanted
        self._delivered = self._delivered_bytes = self._saved_bytes = self._unwanted = 0
        if events:
            self._metrics.events_delivered.inc(events)
            self._metrics.event_bytes.inc(size)
        if saved:
            self._metrics.event_bytes_saved.inc(saved)
        if unwanted:
            self._metrics.events_unwanted.inc(unwanted)

    def _flush_one(self, now: float, is_late: Callable[[], bool]) -> None:
        watched, _ = self._flush_soon.popitem(last=False)
        entries, watched.pending = watched.pending, []
        if len(entries) > 1:
            entries, watched.pending = _split(entries, PAGE_EVENTS if watched.topic.shared else len(entries))
        if watched.pending:
            self._flush_soon[watched] = None
        watched.last_message_at = now
        if watched.catching_up is None and entries:
            try:
                self._ingest(watched, entries, is_late)
            except Exception as error:  # it costs the viewers of this log alone
                self._fail(watched, error)
            watched.wake()

    def ingest(self, watched: WatchedLog, entries: list[Entry]) -> None:
        """Events of a log, read by a viewer's replay: deliver what is new, and resync after a gap. No events mean that
        the viewer is at the log's end, and the topic before it: resync as well."""
        try:
            self._ingest(watched, entries)
        except Exception as error:
            self._fail(watched, error)
        finally:
            self._count()
            watched.wake()

    def _ingest(self, watched: WatchedLog, entries: list[Entry], is_late: Callable[[], bool] | None = None) -> None:
        topic = watched.topic
        if topic.last is None and entries and not topic.groups:
            # Nobody is live yet. A short tail lets the viewers that now replay join without another read.
            topic.accept(entries)
            return
        fresh = topic.accept(entries)
        if fresh is None or not entries:
            self.resync(watched)
        elif fresh:
            self._deliver(topic, fresh, is_late)

    def _deliver(self, topic: Topic[Viewer], entries: list[Entry], is_late: Callable[[], bool] | None = None) -> None:
        delivery = topic.deliver(entries, is_late)
        topic.delivered_at = time.monotonic()
        if topic.failed or topic.behind or topic.lagging or topic.over:
            self._report(topic)
        if delivery.viewers:
            self._delivered += delivery.events
            self._delivered_bytes += delivery.bytes
            self._saved_bytes += max(0, delivery.saved)
            self._metrics.observe_delivery(time.time() - entries[-1].ms / 1000)
            if self._deliveries is not None:
                self._deliveries.show(entries, delivery)
        elif topic.groups:
            self._unwanted += len(entries)
        if entries[-1].type in TERMINAL_TYPES and topic.is_execution:
            self._audience.on_ended(topic)

    def _report(self, topic: Topic[Viewer]) -> None:
        """Report the viewers that need attention after a delivery."""
        failed, behind, lagging, over = topic.failed, topic.behind, topic.lagging, topic.over
        topic.failed = topic.behind = topic.lagging = topic.over = ()
        for viewer, error in failed:
            self._audience.on_failed(viewer, error)
        self._notify_each(behind, self._audience.on_behind)  # before `lagging`: a viewer in both got nothing of it
        self._notify_each([viewer for viewer in lagging if viewer.paused], self._audience.on_lagging)
        self._notify_each(over, self._audience.on_over)

    def _notify_each(self, viewers: Iterable[Viewer], do: Callable[[Viewer], None]) -> None:
        """An error of one viewer concerns no other."""
        for viewer in viewers:
            # A heartbeat may have filled its socket long before: it may have left, or be replaying by now.
            if viewer.state is ViewerState.LIVE:
                try:
                    do(viewer)
                except Exception as error:
                    self._audience.on_failed(viewer, error)

    def _fail(self, watched: WatchedLog, error: Exception) -> None:
        """It is unknown what the live viewers of this log got: they must reconnect, and the log is read again."""
        self._log.error("log_failed", log=watched.topic.key, exc_info=error)
        topic = watched.topic
        for viewer in [*topic.live(), *(each for each, _ in topic.failed)]:
            self._audience.on_failed(viewer, error)
        topic.failed = topic.lagging = topic.behind = topic.over = ()
        topic.forget()

    # --- resync ---

    def on_lost(self, channel: str) -> None:
        """Messages of a channel may have been missed."""
        watched = self._watched.get(channel)
        if watched is not None:
            self.resync(watched)

    def resync(self, watched: WatchedLog) -> None:
        """Read the log from the topic's last id, once at a time."""
        watched.dirty = True
        if watched.catching_up is None:
            watched.catching_up = task = asyncio.create_task(self._catch_up(watched), name="catch-up")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _catch_up(self, watched: WatchedLog) -> None:
        try:
            while watched.dirty and watched.topic.last is not None:
                watched.dirty = False
                page = await self._read_with_retry(watched)
                if not self._apply_page(watched, page):
                    return
                watched.dirty = watched.dirty or not page.end
        except Exception as error:
            self._fail(watched, error)
        finally:
            watched.catching_up = None
            watched.pending.clear()
            watched.wake()

    async def _read_with_retry(self, watched: WatchedLog) -> Page:
        """The log after the topic's last id, however long Redis is away. Viewers keep their heartbeats meanwhile."""
        failures = 0
        while True:
            topic = watched.topic
            assert topic.last is not None
            try:
                return await self._history.read(topic.key, topic.last, record=watched.record, shared=False)
            except (RedisError, *GONE) as error:
                failures += 1
                self._log.warning("catch_up_failed", error=type(error).__name__, failures=failures)
                await asyncio.sleep(backoff_seconds(failures, first=0.05, most=2.0))

    def _apply_page(self, watched: WatchedLog, page: Page) -> bool:
        """Deliver a page that was read for the topic. False if the log is not the one that the viewers know: then they
        replay."""
        fresh = None if page.reset is not None else watched.topic.accept(page.entries)
        if fresh is not None:
            if fresh:
                self._deliver(watched.topic, fresh)
                self._count()
            return True
        last = watched.topic.last
        viewers = list(watched.topic.live())
        for viewer in viewers:
            assert last is not None
            viewer.fall_behind(last)
        watched.topic.forget()
        for viewer in viewers:
            self._audience.replay(viewer)
        return False

    async def wait_caught_up(self, watched: WatchedLog) -> None:
        """Wait until no catching up is under way."""
        if watched.catching_up is not None:
            await asyncio.wait([watched.catching_up])

    # --- regular checks ---

    async def recheck(self, idle_seconds: float) -> None:
        """Compare the ends of idle logs with Redis: the last message may have been lost. One round trip for many logs.
        Also releases logs without viewers, and old pages."""
        self._release()
        self._history.drop_old()
        before = time.monotonic() - idle_seconds
        idle = [w for w in self._watched.values() if w.topic.last is not None and w.last_message_at <= before]
        for start in range(0, len(idle), RECHECK_CHUNK):
            part = idle[start : start + RECHECK_CHUNK]
            lasts = await self._history.lasts([(w.topic.key, w.record) for w in part])
            for watched, last in zip(part, lasts, strict=True):
                known = watched.topic.last
                if known is None or last is None or watched.last_message_at > before:
                    continue
                watched.topic.drop_rendered()
                if last != known:
                    self.resync(watched)

    def _release(self) -> None:
        assert self.subscription is not None
        before = time.monotonic() - LINGER_SECONDS
        for key, watched in list(self._watched.items()):
            if watched.viewers == 0 and watched.idle_since <= before:
                del self._watched[key]
                self.subscription.unsubscribe(key)
        self._metrics.subscribed_channels.set(self.subscription.channels)

    async def close(self) -> None:
        await tasks.end(self._tasks)


def _split(entries: list[Entry], most: int) -> tuple[list[Entry], list[Entry]]:
    """The entries that one write may carry, `most` at most, and the rest: a full socket is left with no more than
    that."""
    size = 0
    for number, entry in enumerate(entries, 1):
        size += len(entry.json)
        if size >= PAGE_BYTES or number == most:
            return entries[:number], entries[number:]
    return entries, []
