"""The steps of a replay: a viewer that is not live gets pages of the log until the topic has all after its cursor.

Slow work takes turns (`broker.base.slices`): a log that costs much to show does not delay the viewers of others.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence

from redis.exceptions import RedisError

from broker.base.logging import get_logger
from broker.base.metrics import Metrics
from broker.base.reasons import CloseReason
from broker.base.slices import Turns
from broker.live import sse
from broker.live.viewer import Viewer, ViewerState
from broker.log.history import History, Page, Reset
from broker.log.watched import WatchedLog, WatchedLogs
from emitter.errors import RedisUnavailable
from emitter.events import TERMINAL_TYPES
from emitter.store.connection import GONE
from emitter.wire.entries import Entry
from emitter.wire.ids import START, EventId

WRITE_BYTES = 64 * 1024
"""Rendered bytes are written when there are so many. After each write it is known whether the socket is full."""
LOST_REDIS_SECONDS = 60.0
"""How long a replaying viewer waits for a Redis that does not answer."""


class Replay:
    """The steps of `LogSource` with a replaying viewer. `close` ends a stream."""

    def __init__(
        self,
        history: History,
        watch: WatchedLogs,
        metrics: Metrics,
        turns: Turns,
        close: Callable[[Viewer, CloseReason], None],
    ) -> None:
        self._history = history
        self._watch = watch
        self._metrics = metrics
        self._close = close
        self._turns = turns
        self._log = get_logger()

    # --- waiting ---

    async def subscribed(self, watched: WatchedLog) -> None:
        """Wait until the log's messages arrive here."""
        while True:
            with contextlib.suppress(RedisUnavailable):
                await self._watch.subscribe(watched.topic.key)
                return

    async def drained(self, viewer: Viewer, patience: asyncio.Timeout) -> None:
        """Wait until the transport has room. The timer closes a viewer that makes no progress, which ends the wait."""
        if viewer.paused:
            patience.reschedule(None)
            await viewer.wait_writable()
            self._be_patient(patience)

    # --- from the log ---

    async def skip(self, viewer: Viewer, watched: WatchedLog) -> None:
        """Move a viewer that wants only new events to the end of the log, and send it that cursor. Without it, a stream
        that is cut before its first event would resume at a later end, and lose the events between."""
        self.skip_to(viewer, await self._end(watched))

    def skip_to(self, viewer: Viewer, end: EventId) -> None:
        viewer.advance(end, 0)
        viewer.write(viewer.view.position_frame(end))

    async def _end(self, watched: WatchedLog) -> EventId:
        while True:
            try:
                return watched.topic.last or await self._history.last(watched.topic.key)
            except (RedisError, *GONE) as error:
                await self._try_again_later(error)

    async def page(self, viewer: Viewer, watched: WatchedLog, patience: asyncio.Timeout) -> None:
        """Write the next page of the log, if Redis answers."""
        known, after = watched.topic.last, viewer.cursor
        try:
            page = await self._read(viewer, watched)
        except (RedisError, *GONE) as error:
            await self._try_again_later(error)
            return
        if viewer.state is not ViewerState.REPLAYING:
            return
        self._be_patient(patience)
        if page.reset is not None and not viewer.view.is_native and after != START:
            # It was shown a history that is gone: it must reconnect, and gets the new one from the start.
            self._close(viewer, CloseReason.LOST_REDIS)
            return
        is_last = _is_last(page, watched)
        if page.end and not is_last:
            self.update_topic(watched, page, after, known)
        self._write_reset(viewer, page)
        await self._show(viewer, page, patience)
        if viewer.state is ViewerState.REPLAYING and (is_last or viewer.view.is_over):
            self._catch_up(viewer)
            self._close(viewer, CloseReason.FINISHED)

    async def _read(self, viewer: Viewer, watched: WatchedLog) -> Page:
        log, after, record = watched.topic.key, viewer.cursor, watched.record
        if not viewer.view.is_compact or record is None:  # no feed has chunks
            return await self._history.read(log, after, record=record)
        is_long = watched.head is not None and watched.head.has_long_pages
        return await self._history.read_short(log, after, record=record, is_long=is_long)

    async def _try_again_later(self, error: Exception) -> None:
        self._log.warning("history_read_failed", error=type(error).__name__)
        await asyncio.sleep(random.uniform(0.1, 0.5))

    def _write_reset(self, viewer: Viewer, page: Page) -> None:
        if page.reset is None:
            return
        viewer.lose_history()
        self._metrics.replays["gap" if page.reset.reason == "trimmed" else "reset"].inc()
        if viewer.view.is_native:
            self._metrics.resets[page.reset.reason].inc()
            viewer.write(viewer.view.wrap(reset_frame(page.reset, page)))
        if not page.entries:
            # The cursor must move although nothing is left to send, or every reconnect would get this reset again.
            viewer.write(viewer.view.position_frame(page.cursor))

    async def _show(self, viewer: Viewer, page: Page, patience: asyncio.Timeout) -> None:
        """Write a page. It ends early if the viewer has seen all, or is closed."""
        if viewer.view.is_native:
            await self._turns.take(viewer.identity.principal, lambda: self._write_page(viewer, page))
            return
        entries, who = page.entries, viewer.identity.principal
        while entries and viewer.state is ViewerState.REPLAYING and not viewer.view.is_over:
            await self.drained(viewer, patience)
            shown = await self._turns.take(who, lambda: self._render(viewer, entries))  # noqa: B023 - awaited here
            entries = entries[shown:]
            self._be_patient(patience)
        if viewer.state is ViewerState.REPLAYING and not entries:
            viewer.advance(page.cursor, 0)

    def _write_page(self, viewer: Viewer, page: Page) -> None:
        """Bytes that many viewers may share."""
        if viewer.state is ViewerState.REPLAYING:
            viewer.write(page.render(viewer.view))
            self._has_shown(viewer, page.size, page.cursor)

    def _render(self, viewer: Viewer, entries: Sequence[Entry]) -> int:
        """Show one viewer as many of the entries as its turn allows, and move its cursor. Returns how many."""
        if viewer.state is not ViewerState.REPLAYING:
            return 0
        pieces: list[bytes] = []
        size = shown = 0
        for entry in entries:
            piece = viewer.view.render((entry,))
            pieces.append(piece)
            size += len(piece)
            shown += 1
            if size >= WRITE_BYTES or viewer.view.is_over or self._turns.is_over:
                break
        viewer.write(b"".join(pieces))
        self._has_shown(viewer, shown, entries[shown - 1].id)
        return shown

    def _has_shown(self, viewer: Viewer, events: int, cursor: EventId) -> None:
        viewer.advance(cursor, events)
        self._metrics.replayed_events.inc(events)

    def _be_patient(self, patience: asyncio.Timeout) -> None:
        """The replay has progressed: wait for the next answer as long as for the first."""
        patience.reschedule(asyncio.get_running_loop().time() + LOST_REDIS_SECONDS)

    def update_topic(self, watched: WatchedLog, page: Page, after: EventId, known: EventId | None) -> None:
        """Give the topic what was read: it delivers new events to its viewers, or begins here. `known` was its last id
        before the page after `after` was read."""
        topic = watched.topic
        if page.reset is None or not page.entries:
            topic.set_baseline(page.cursor if page.reset else after, page.entries)
        if known is not None and not page.entries and known != page.cursor:
            # The log has another end than the topic, which missed a message, or the log went back. More reads by this
            # viewer would not make them agree.
            self._watch.resync(watched)
        elif topic.last is None or page.cursor.seq > topic.last.seq:
            self._watch.ingest(watched, list(page.entries))
        if watched.dirty and watched.catching_up is None and topic.last is not None:
            self._watch.resync(watched)  # messages may have been missed while nothing was known of the log

    # --- to live ---

    async def join(self, viewer: Viewer, patience: asyncio.Timeout) -> bool:
        """Go live if the topic has everything after the viewer's cursor. Returns whether the replay is over."""
        before = viewer.cursor
        is_done = await self._turns.take(viewer.identity.principal, lambda: self._join(viewer))
        if viewer.cursor != before:
            self._be_patient(patience)
        return is_done

    def needs_page(self, viewer: Viewer, watched: WatchedLog) -> bool:
        """Whether what comes next must be read from the log."""
        is_waiting = viewer.paused or watched.catching_up is not None or viewer.state is not ViewerState.REPLAYING
        return not is_waiting and viewer.topic.missing(viewer.cursor) is None

    def join_now(self, viewer: Viewer) -> bool:
        """`join` without waiting for a turn."""
        return self._join(viewer)

    def _join(self, viewer: Viewer) -> bool:
        """Synchronous: no event can come between the last missing one and the first live one."""
        topic = viewer.topic
        watched = self._watch.get(topic.key)
        if viewer.state is not ViewerState.REPLAYING or watched is None or watched.catching_up is not None:
            return viewer.state is ViewerState.CLOSING
        if viewer.paused:
            return False
        missing = topic.missing(viewer.cursor)
        if missing is None:
            return False
        rest = b""
        if missing and viewer.view.is_native:
            rest = topic.render_tail(viewer.view, missing)
            self._has_shown(viewer, len(missing), missing[-1].id)
        elif missing and self._render(viewer, missing) < len(missing) and not viewer.view.is_over:
            return False
        if missing:
            self._metrics.history_reads["tail"].inc()
        if topic.ended or viewer.view.is_over:
            self._catch_up(viewer, rest)
            self._close(viewer, CloseReason.FINISHED)
            return True
        self._catch_up(viewer, rest)
        if viewer.paused:
            return False  # the tail filled its socket: it drains first, and then joins with what came meanwhile
        viewer.go_live()
        return True

    def _catch_up(self, viewer: Viewer, rest: bytes = b"") -> None:
        if viewer.catch_up(rest):
            if viewer.is_complete:
                self._metrics.replays["ok"].inc()
            self._metrics.replay_duration.observe(asyncio.get_running_loop().time() - viewer.started_at)


def reset_frame(reset: Reset, page: Page | None = None) -> bytes:
    """`stream:reset`, before the page with what there is."""
    data: dict[str, object] = {"reason": reset.reason}
    if reset.lost is not None:
        data |= {"lostFrom": reset.lost[0], "lostTo": reset.lost[1]}
    if page is not None:
        data["resumedAt"] = str(page.entries[0].id if page.entries else page.cursor)
    return sse.control_frame("stream:reset", data)


def _is_last(page: Page, watched: WatchedLog) -> bool:
    """Whether nothing will ever follow."""
    ends = watched.topic.is_execution and bool(page.entries) and page.entries[-1].type in TERMINAL_TYPES
    return page.closed or ends
