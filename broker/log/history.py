"""Reads logs after a cursor, proves that nothing is missing, and lets viewers at the same place share one read."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from operator import itemgetter
from typing import Any, Literal, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from broker.base.logging import get_logger
from broker.base.metrics import Metrics
from broker.base.reasons import RedisOp
from broker.live.view import RenderedOnce, StreamView
from broker.log.batcher import CommandBatcher
from emitter import tasks
from emitter.events import TERMINAL_STATES, TERMINAL_TYPES, State
from emitter.wire.deltas import merged
from emitter.wire.entries import Entry, parse_stream
from emitter.wire.ids import START, EventId, parse_event_id
from emitter.wire.record import Field, Selection

PAGE_EVENTS = 200
LONG_PAGE_EVENTS = 2000
"""Of a short page, whose events are fewer than those that are read."""
LONG_PAGES_LOG_BYTES = 8 * 1024 * 1024
"""Of a log up to this size, whatever the sizes of its events, Redis may send a long page."""
KEPT_PAGES = 64
KEPT_SECONDS = 60.0
WORTH_KEEPING = 4
"""A short page is kept if it has so many times fewer events than were read."""
PAGE_BYTES = 256 * 1024
"""A page ends after the event that reaches this, so that a viewer's buffer holds little more than one page."""
FIRST_EVENTS = 32
"""Asked for at a place about which nothing is known. Of the largest events that the defaults allow, 2 MiB."""
SMALL_LOG_BYTES = 1024 * 1024
"""Of a log up to this size the first read asks for a whole page."""
GROWTH = 4
"""The next read asks for at most so many times more events: after small events there may be large ones."""
MAX_PLACES = 4096
PAGE_WEIGHT = 4
"""Weight of a read in a batch of commands: at most 16 pages are under way."""
READ_SECONDS = 10.0
_JSON = itemgetter(Entry._fields.index("json"))
_HEAD = Selection(Field.STATE, Field.MS, Field.SEQ, Field.CANCEL_AFTER, Field.BYTES)
_LAST = Selection(Field.MS, Field.SEQ)
_END = Selection(Field.MS, Field.SEQ, Field.END)


class Reset(NamedTuple):
    """Some history is gone. `lost`: its first and last ordinal, if they are known."""

    reason: Literal["trimmed", "diverged", "unknown"]
    lost: tuple[int, int] | None = None


class Page:
    """Events after a cursor, in order.

    `cursor`: where a reader of the page stands. `end`: the log ended here when it was read. `closed`: nothing will ever
    follow. `reset`: events before these are gone. `size`: how many events of the log these are.
    """

    def __init__(
        self, entries: Sequence[Entry], cursor: EventId, *, end: bool, reset: Reset | None = None, closed: bool = False
    ) -> None:
        self.entries = entries
        self.size = len(entries)
        self.cursor = cursor
        self.end = end
        self.reset = reset
        self.closed = closed
        self._rendered = RenderedOnce()

    def render(self, view: StreamView) -> bytes:
        """The page's bytes; made once for all viewers that share the page and the view."""
        return self._rendered.get(view, self.entries)

    def shortened(self, max_event_bytes: int) -> Page:
        """The page with neighbours that are chunks of one text as one event. Whether more follows must be read: there
        may be more by now."""
        page = Page(merged(self.entries, max_event_bytes), self.cursor, end=False)
        page.size = self.size
        return page


class Head(NamedTuple):
    """Facts of an execution's record. `cancel_after_ms`: the execution is cancelled after so long without a viewer; 0:
    never. `log_bytes`: of all events that were ever appended, if it is known."""

    state: State
    last: EventId
    cancel_after_ms: int = 0
    log_bytes: int | None = None

    @property
    def has_long_pages(self) -> bool:
        return self.log_bytes is not None and self.log_bytes <= LONG_PAGES_LOG_BYTES


class PageSizes:
    """How many events to ask for at a place in a log, so that Redis sends about as much as a page keeps. It learns from
    each page for the next one, and from the record for the first page of a small log."""

    def __init__(self) -> None:
        self._places: dict[object, int] = {}

    def at(self, log: str, cursor: EventId, record: str | None, unknown: int) -> int:
        """`unknown` is for a place about which nothing is known."""
        known = self._places.get((log, cursor))
        if known is None and record is not None:
            known = self._places.pop(record, None)  # once: the log may have grown by the next time
        return known or unknown

    def learn(self, log: str, page: Page, asked: int) -> None:
        """From a page that is not the last, for the next one."""
        size = _json_bytes(page.entries)
        fitting = -(-PAGE_BYTES * len(page.entries) // max(size, 1))
        self._expect((log, page.cursor), min(fitting, GROWTH * asked, LONG_PAGE_EVENTS))

    def learn_small(self, record: str) -> None:
        self._expect(record, LONG_PAGE_EVENTS)

    def _expect(self, place: object, events: int) -> None:
        self._places[place] = events
        if len(self._places) > MAX_PLACES:
            del self._places[next(iter(self._places))]


class KeptPages:
    """Short pages for the next readers: reading a long log takes ten times as long as sending it in short. Each is
    followed by a read from its cursor, which proves that the log still is the same one."""

    def __init__(self) -> None:
        self._pages: OrderedDict[tuple[str, EventId], tuple[float, Page]] = OrderedDict()

    def get(self, log: str, cursor: EventId) -> Page | None:
        kept_at, page = self._pages.get((log, cursor), (0.0, None))
        return page if time.monotonic() - kept_at < KEPT_SECONDS else None

    def add(self, log: str, cursor: EventId, page: Page) -> None:
        """Keep a page if that is worth it. The oldest goes."""
        if page.size >= WORTH_KEEPING * len(page.entries):
            self._pages.pop((log, cursor), None)
            self._pages[log, cursor] = time.monotonic(), page
            if len(self._pages) > KEPT_PAGES:
                self._pages.popitem(last=False)

    def drop_old(self) -> None:
        before = time.monotonic() - KEPT_SECONDS
        while self._pages and next(iter(self._pages.values()))[0] <= before:
            self._pages.popitem(last=False)


class History:
    """The log reads of one edge. `max_event_bytes`: of the block of an event in a stream, 0: no limit."""

    def __init__(self, redis: Redis, metrics: Metrics, max_event_bytes: int = 0) -> None:
        self._commands = CommandBatcher(redis)
        self._metrics = metrics
        self._max_event_bytes = max_event_bytes
        self._sizes = PageSizes()
        self._kept = KeptPages()
        self._log = get_logger()
        self._reading: dict[tuple[object, ...], asyncio.Task[Page]] = {}

    async def read(
        self, log: str, cursor: EventId, *, record: str | None = None, limit: int = PAGE_EVENTS, shared: bool = True
    ) -> Page:
        """Up to `limit` events after `cursor`, fewer if they are large. `record` is the execution's hash, which
        outlives its log. Callers at one place with one limit share a read, which may have begun before the call. A read
        that is not `shared` has all that was logged before the call.

        Raises redis errors; `TimeoutError` after `READ_SECONDS`.
        """
        async with asyncio.timeout(READ_SECONDS):
            if not shared:
                self._metrics.history_reads["redis"].inc()
                return await self._read(log, cursor, record, limit)
            return await self._shared_read((log, cursor, limit), lambda: self._read(log, cursor, record, limit))

    async def read_short(self, log: str, cursor: EventId, *, record: str, is_long: bool) -> Page:
        """As `read`, of an execution, with neighbours that are chunks of one text as one event. A page that is read to
        the log's end has all events as they are. `is_long`: the log allows long pages."""
        if (kept := self._kept.get(log, cursor)) is not None:
            self._metrics.history_reads["tail"].inc()
            return kept
        limit = LONG_PAGE_EVENTS if is_long else PAGE_EVENTS
        async with asyncio.timeout(READ_SECONDS):
            return await self._shared_read(
                (log, cursor, limit, "short"), lambda: self._read_short(log, cursor, record, limit)
            )

    def drop_old(self) -> None:
        """Free what no reader will be given any more."""
        self._kept.drop_old()

    async def _read_short(self, log: str, cursor: EventId, record: str, limit: int) -> Page:
        page = await self._read(log, cursor, record, limit)
        if page.reset is not None or not page.entries:
            return page
        short = page.shortened(self._max_event_bytes)
        self._kept.add(log, cursor, short)
        return page if page.end else short

    async def _shared_read(self, key: tuple[object, ...], read: Callable[[], Coroutine[Any, Any, Page]]) -> Page:
        task = self._reading.get(key)
        if task is None:
            self._metrics.history_reads["redis"].inc()
            task = self._reading[key] = asyncio.create_task(read(), name="history-read")
            task.add_done_callback(lambda done: self._read_done(key, done))
        else:
            self._metrics.history_reads["shared"].inc()
        return await asyncio.shield(task)

    def _read_done(self, key: tuple[object, ...], task: asyncio.Task[Page]) -> None:
        del self._reading[key]
        if not task.cancelled():
            task.exception()  # all callers may have left: nobody wants the error

    async def close(self) -> None:
        await tasks.end(self._reading.values())
        await self._commands.close()

    async def head(self, record: str) -> Head | None:
        """State and last id of an execution; None if it does not exist."""
        with self._metrics.redis_call(RedisOp.RECORD):
            found = _HEAD.read(await self._commands.execute("HMGET", record, *_HEAD.names))
        if found.log_bytes is not None and found.log_bytes <= SMALL_LOG_BYTES:
            self._sizes.learn_small(record)
        if found.state is None:
            return None
        return Head(found.state, found.last, found.cancel_after_ms, found.log_bytes)

    async def terminal_event(self, log: str, record: str | None) -> Entry | None:
        """The last event of an execution that has ended and whose log has gone, as its record keeps it."""
        if record is None or await self._commands.execute("EXISTS", log):
            return None
        return _END.read(await self._commands.execute("HMGET", record, *_END.names)).terminal_event

    async def last(self, log: str) -> EventId:
        """The last id in a log; `START` if it is empty."""
        rows = await self._commands.execute("XREVRANGE", log, "+", "-", "COUNT", 1)
        return parse_event_id(rows[0][0].decode()) if rows else START

    async def lasts(self, watched: Sequence[tuple[str, str | None]]) -> list[EventId | None]:
        """The last ids of many logs, (log, record or None) each; None for one that another program has overwritten."""
        with self._metrics.redis_call(RedisOp.TAILS):
            return await asyncio.gather(*(self._readable_last(log, record) for log, record in watched))

    async def _readable_last(self, log: str, record: str | None) -> EventId | None:
        try:
            return await self._last(log, record)
        except (ValueError, ResponseError) as error:
            if isinstance(error, ResponseError) and not str(error).startswith("WRONGTYPE"):
                raise  # it concerns more than this key
            self._log.error("record_unreadable", key=record or log, error=str(error)[:200])
            return None

    async def _last(self, log: str, record: str | None) -> EventId:
        if record is None:
            return await self.last(log)
        return _LAST.read(await self._commands.execute("HMGET", record, *_LAST.names)).last

    async def _read(self, log: str, cursor: EventId, record: str | None, limit: int) -> Page:
        # A log that allows long pages is small: 200 of its events cannot be too much.
        unknown = FIRST_EVENTS if limit <= PAGE_EVENTS else PAGE_EVENTS
        count = min(limit, self._sizes.at(log, cursor, record, unknown))
        page = await self._page_after(log, cursor, record, count)
        if not page.end:
            self._sizes.learn(log, page, count)
        return page

    async def _page_after(self, log: str, cursor: EventId, record: str | None, count: int) -> Page:
        # Inclusive: only the cursor's own entry proves that the log still is the one that the cursor comes from.
        at_start = cursor.seq == 0
        rows = await self._range(log, "-" if at_start else str(cursor), count)
        entries = parse_stream(rows)
        if not at_start:
            if not entries or entries[0].id != cursor:
                return await self._broken(log, cursor, record, count)
            own = entries.pop(0)
            if not entries and record is not None and own.type in TERMINAL_TYPES:
                # It has ended: a record with another state is from before a failover.
                return Page([], cursor, end=True, closed=True)
        elif entries and entries[0].seq != 1:
            return _page(entries, cursor, rows, count, Reset("trimmed", (1, entries[0].seq - 1)))
        elif not entries:
            return await self._empty(log, cursor, record, count)
        return _page(entries, cursor, rows, count)

    async def _range(self, log: str, first: str, count: int) -> list[Any]:
        with self._metrics.redis_call(RedisOp.HISTORY):
            rows: list[Any] = await self._commands.execute(
                "XRANGE", log, first, "+", "COUNT", count + 1, weight=PAGE_WEIGHT
            )
        return rows

    async def _broken(self, log: str, cursor: EventId, record: str | None, count: int) -> Page:
        """The cursor's entry is not there: it was trimmed, is of another log, or was lost in a failover."""
        rows = await self._range(log, "-", count)
        entries = parse_stream(rows)
        if not entries:
            return await self._empty(log, cursor, record, count)
        first = entries[0]
        if first.seq <= cursor.seq or first.ms < cursor.ms:
            return _page(entries, cursor, rows, count, Reset("diverged"))
        lost = (cursor.seq + 1, first.seq - 1)
        return _page(entries, cursor, rows, count, Reset("trimmed", lost) if lost[0] <= lost[1] else None)

    async def _empty(self, log: str, cursor: EventId, record: str | None, count: int) -> Page:
        """There is no log: nothing was written yet, or it has expired and only the record is left."""
        head = await self.head(record) if record is not None else None
        if head is None or head.last.seq == 0:
            gone = Reset("diverged") if cursor.seq else None
            return Page([], START, end=True, reset=gone)
        if await self._commands.execute("EXISTS", log):  # it began between the two reads
            return await self._page_after(log, cursor, record, count)
        closed = head.state in TERMINAL_STATES
        if cursor == head.last:
            return Page([], cursor, end=True, closed=closed)
        if cursor.seq < head.last.seq:
            return Page([], head.last, end=True, reset=Reset("trimmed", (cursor.seq + 1, head.last.seq)), closed=closed)
        return Page([], head.last, end=True, reset=Reset("diverged"), closed=closed)


def _page(
    entries: list[Entry], cursor: EventId, rows: Sequence[object], count: int, reset: Reset | None = None
) -> Page:
    """The page from a read of up to `count` + 1 events."""
    kept, size = min(len(entries), count), 0
    if _json_bytes(entries[:kept]) > PAGE_BYTES:
        most, kept = kept, 0
        while kept < most and size < PAGE_BYTES:
            size += len(entries[kept].json)
            kept += 1
    end = len(rows) <= count and kept == len(entries)
    entries = entries[:kept]
    return Page(entries, entries[-1].id if entries else cursor, end=end, reset=reset)


def _json_bytes(entries: Sequence[Entry]) -> int:
    return sum(map(len, map(_JSON, entries)))
