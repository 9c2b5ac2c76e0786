"""The steps of a replay: a viewer that is not live gets pages of the log until the hub knows all after its cursor.

What takes long is done in turns (`broker.base.slices`): a viewer whose log costs much to show keeps no other waiting.
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
"""What is rendered for one viewer is written when there is so much of it: then its socket tells whether it is full."""
LOST_REDIS_SECONDS = 60.0
"""How long a replaying viewer waits for a Redis that does not answer."""


class Replay:
    """What `Streams` does with a replaying viewer, step by step. `close` ends a stream."""

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
                await self._watch.subscribed(watched.topic.key)
                return

    async def drained(self, viewer: Viewer, patience: asyncio.Timeout) -> None:
        """Wait until the transport has room. The timer closes a viewer that makes no progress, which ends the wait."""
        if viewer.paused:
            patience.reschedule(None)
            await viewer.wait_writable()
            self._be_patient(patience)

    # --- from the log ---

    async def skip(self, viewer: Viewer, watched: WatchedLog) -> None:
        """Put a viewer that wants only what comes at the end of the log, and tell it where that is: else a stream cut
        before its first event would resume at a later end, and lose what came between."""
        viewer.advance(await self._end(watched), 0)
        viewer.write(viewer.view.position_frame(viewer.cursor))

    async def _end(self, watched: WatchedLog) -> EventId:
        while True:
            try:
                return watched.topic.last or await self._history.last(watched.topic.key)
            except (RedisError, *GONE) as error:
                await self._try_again_later(error)

    async def page(self, viewer: Viewer, watched: WatchedLog, patience: asyncio.Timeout) -> None:
        """Write what comes next in the log, if Redis tells."""
        hub, after = watched.topic.last, viewer.cursor
        try:
            page = await self._history.read(watched.topic.key, after, record=watched.record)
        except (RedisError, *GONE) as error:
            await self._try_again_later(error)
            return
        if viewer.state is not ViewerState.REPLAYING:
            return
        self._be_patient(patience)
        if page.reset is not None and not viewer.view.is_native and after != START:
            # It was shown a history that is gone: it must come back, and be shown what there is from the start.
            self._close(viewer, CloseReason.LOST_REDIS)
            return
        is_last = _is_last(page, watched)
        if page.end and not is_last:
            self._tell_hub(watched, page, after, hub)
        self._write_reset(viewer, page)
        await self._show(viewer, page, patience)
        if viewer.state is ViewerState.REPLAYING and (is_last or viewer.view.is_over):
            self._catch_up(viewer)
            self._close(viewer, CloseReason.FINISHED)

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
            # The cursor must move although nothing is left to send, or every reconnect would be told again.
            viewer.write(viewer.view.position_frame(page.cursor))

    async def _show(self, viewer: Viewer, page: Page, patience: asyncio.Timeout) -> None:
        """Write a page. It ends early where the viewer has seen all, or is closed."""
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
            self._has_shown(viewer, page.entries, page.cursor)

    def _render(self, viewer: Viewer, entries: Sequence[Entry]) -> int:
        """Show one viewer as many of the entries as its turn allows; how many. Its cursor goes with them."""
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
        self._has_shown(viewer, entries[:shown], entries[shown - 1].id)
        return shown

    def _has_shown(self, viewer: Viewer, entries: Sequence[Entry], cursor: EventId) -> None:
        viewer.advance(cursor, len(entries))
        self._metrics.replayed_events.inc(len(entries))

    def _be_patient(self, patience: asyncio.Timeout) -> None:
        """Redis answers, and the replay goes on: wait for the next answer as long as for the first."""
        patience.reschedule(asyncio.get_running_loop().time() + LOST_REDIS_SECONDS)

    def _tell_hub(self, watched: WatchedLog, page: Page, after: EventId, hub: EventId | None) -> None:
        """What history knows, the hub now knows too: it delivers it to others, or begins here. `hub` is where it stood
        before the page after `after` was read."""
        topic = watched.topic
        if page.reset is None or not page.entries:
            topic.set_baseline(page.cursor if page.reset else after, page.entries)
        if hub is not None and not page.entries and hub != page.cursor:
            # The log ends where the hub does not stand: it missed a message, or the log went back. Reading again and
            # again would not bring the two together.
            self._watch.resync(watched)
        elif topic.last is None or page.cursor.seq > topic.last.seq:
            self._watch.ingest(watched, list(page.entries))
        if watched.dirty and watched.catching_up is None and topic.last is not None:
            self._watch.resync(watched)  # messages may have been missed while nothing was known of the log

    # --- to the hub ---

    async def join(self, viewer: Viewer, patience: asyncio.Timeout) -> bool:
        """Go live if the hub knows everything after the viewer's cursor; whether the replay is over."""
        before = viewer.cursor
        is_done = await self._turns.take(viewer.identity.principal, lambda: self._join(viewer))
        if viewer.cursor != before:
            self._be_patient(patience)
        return is_done

    def needs_page(self, viewer: Viewer, watched: WatchedLog) -> bool:
        """Whether only the log can tell what comes next."""
        is_waiting = viewer.paused or watched.catching_up is not None or viewer.state is not ViewerState.REPLAYING
        return not is_waiting and viewer.topic.missing(viewer.cursor) is None

    def _join(self, viewer: Viewer) -> bool:
        """Synchronous: nothing can come between the last that was missing and what is live."""
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
            self._has_shown(viewer, missing, missing[-1].id)
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
