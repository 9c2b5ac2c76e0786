"""Reads of a log on a real Redis: what is proven, what is said to be missing, and who shares a read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.live.view import StreamView
from broker.log import history as history_module
from broker.log.history import KEPT_PAGES, LONG_PAGE_EVENTS, PAGE_BYTES, PAGE_EVENTS, Head, History, Page, Reset
from emitter.events import ExecutionComplete, MessageDelta, Status
from emitter.store.append import append, prepare
from emitter.wire.entries import Entry
from emitter.wire.ids import START, EventId
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor

ALICE = Owner("alice")
KEYS = ALICE.execution("ex_1")
LOG, RECORD = KEYS.log, KEYS.record
BASE_MS = 1_700_000_000_000


def id_of(seq: int) -> EventId:
    return EventId(BASE_MS + seq, seq)


@pytest.fixture
async def history(redis: Redis) -> AsyncIterator[History]:
    history = History(redis, Metrics("0"))
    yield history
    await history.close()


async def write(redis: Redis, first: int, last: int, *, size: int = 2, state: str = "running") -> None:
    """A log of entries with known ids, and its record, as the append script leaves them."""
    pipe = redis.pipeline(transaction=False)
    for seq in range(first, last + 1):
        pipe.xadd(LOG, {b"status": b"x" * size}, id=str(id_of(seq)))
    pipe.hset(RECORD, mapping={"state": state, "ms": BASE_MS + last, "seq": last})
    await pipe.execute()


async def trim(redis: Redis, first: int) -> None:
    """Leave the entries from `first` on."""
    await redis.xtrim(LOG, minid=str(id_of(first)), approximate=False)


async def calls(redis: Redis, command: str) -> int:
    stats: Any = await redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


def seqs(page: Page) -> list[int]:
    return [entry.seq for entry in page.entries]


# --- after a cursor --------------------------------------------------------------------------------------------------


async def test_a_log_is_read_from_its_start(redis: Redis, history: History) -> None:
    """From the start all is there, in order and as it was stored, and the page ends at the log's end."""
    await write(redis, 1, 5)
    page = await history.read(LOG, START, record=RECORD)
    assert page.entries == [Entry(BASE_MS + seq, seq, b"status", b"xx") for seq in range(1, 6)]
    assert (page.cursor, page.end, page.reset, page.closed) == (id_of(5), True, None, False)


async def test_a_log_is_read_after_a_cursor(redis: Redis, history: History) -> None:
    """After a cursor comes what follows it, without the cursor's own event; at the end, nothing."""
    await write(redis, 1, 5)
    page = await history.read(LOG, id_of(3), record=RECORD)
    assert (seqs(page), page.cursor, page.end, page.reset) == ([4, 5], id_of(5), True, None)
    page = await history.read(LOG, id_of(5), record=RECORD)
    assert (seqs(page), page.cursor, page.end, page.reset, page.closed) == ([], id_of(5), True, None, False)


@pytest.mark.parametrize("count", [PAGE_EVENTS - 1, PAGE_EVENTS, PAGE_EVENTS + 1, 2 * PAGE_EVENTS + 1])
@pytest.mark.parametrize("skip", [0, 1])
async def test_pages_join_to_the_log(redis: Redis, history: History, count: int, skip: int) -> None:
    """Pages read one after the other are the log, whatever its length, and each holds at most the limit."""
    await write(redis, 1, count)
    cursor, found, reads = (id_of(skip) if skip else START), [], 0
    while True:
        page = await history.read(LOG, cursor, record=RECORD)
        found, reads, cursor = found + seqs(page), reads + 1, page.cursor
        assert len(page.entries) <= PAGE_EVENTS
        assert page.reset is None
        if page.end:
            break
    assert found == list(range(skip + 1, count + 1))
    assert reads <= count // PAGE_EVENTS + 4, "the first pages of a log of which nothing is known are small"


async def test_a_page_ends_after_the_event_that_fills_it(redis: Redis, history: History) -> None:
    """Large events make short pages: each ends with the event that reaches the byte limit, and none is empty."""
    await write(redis, 1, 10, size=PAGE_BYTES // 3)
    sizes, cursor = [], START
    while True:
        page = await history.read(LOG, cursor, record=RECORD)
        sizes.append(len(page.entries))
        cursor = page.cursor
        if page.end:
            break
    assert sizes == [4, 4, 2]
    await redis.flushall()
    await write(redis, 1, 3, size=2 * PAGE_BYTES)
    page = await history.read(LOG, START, record=RECORD)
    assert (seqs(page), page.end) == ([1], False)


async def sent_bytes(redis: Redis) -> int:
    stats: Any = await redis.info("stats")
    return int(stats["total_net_output_bytes"])


async def read_all(history: History, cursor: EventId = START) -> tuple[list[int], int]:
    """The ordinals after a cursor, and how many pages they took."""
    found, pages = [], 0
    while True:
        page = await history.read(LOG, cursor, record=RECORD)
        found, pages, cursor = found + seqs(page), pages + 1, page.cursor
        if page.end:
            return found, pages


async def test_a_log_of_large_events_costs_redis_about_its_size(redis: Redis, history: History) -> None:
    """A page asks for about what it keeps, wherever in the log its reader stands."""
    await write(redis, 1, 300, size=60_000)
    size, before = 300 * 60_000, await sent_bytes(redis)
    assert (await read_all(history))[0] == list(range(1, 301))
    assert await sent_bytes(redis) - before < 1.5 * size
    before = await sent_bytes(redis)
    places = [id_of(seq) for seq in range(200, 300, 10)]
    found = await asyncio.gather(*(read_all(history, place) for place in places))
    assert [seqs_[0] for seqs_, _ in found] == [place.seq + 1 for place in places]
    rest = sum(300 - place.seq for place in places) * 60_000
    assert await sent_bytes(redis) - before < 1.5 * rest + len(places) * 33 * 60_000, "each has a first page"


async def test_large_events_after_small_ones_cost_a_few_pages(redis: Redis, history: History) -> None:
    """What small events teach holds for the next page only in steps."""
    await write(redis, 1, 700)
    await write(redis, 701, 1000, size=60_000)
    before = await sent_bytes(redis)
    assert (await read_all(history))[0] == list(range(1, 1001))
    assert await sent_bytes(redis) - before < (300 + 201) * 60_000 * 1.3


async def test_a_small_log_is_read_in_whole_pages(redis: Redis, history: History) -> None:
    """Where the record tells that a log is small, its first page is a whole one; a large log begins with less."""
    await write(redis, 1, 390)
    for size, pages in ((800, 2), (50_000_000, 4)):
        await redis.hset(RECORD, "bytes", size)
        await history.head(RECORD)
        before = await calls(redis, "xrange")
        assert await read_all(history) == (list(range(1, 391)), pages)
        assert await calls(redis, "xrange") - before == pages


async def test_many_places_cost_bounded_memory(redis: Redis, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of places is forgotten, the oldest first."""
    monkeypatch.setattr("broker.log.history.MAX_PLACES", 10)
    await write(redis, 1, 100)
    for seq in range(1, 60):
        await history.read(LOG, id_of(seq), record=RECORD)
    assert len(history._sizes._places) == 10


async def test_a_log_that_lost_its_beginning_is_said_to(redis: Redis, history: History) -> None:
    """From the start of a trimmed log comes what is left, with the exact ordinals that are gone."""
    await write(redis, 1, 10)
    await trim(redis, 7)
    page = await history.read(LOG, START, record=RECORD)
    assert (seqs(page), page.reset, page.end) == ([7, 8, 9, 10], Reset("trimmed", (1, 6)), True)


async def test_a_cursor_that_was_trimmed_away_is_told_what_is_gone(redis: Redis, history: History) -> None:
    """After a trimmed cursor the loss is known exactly; the cursor's own event is not a loss."""
    await write(redis, 1, 10)
    await trim(redis, 7)
    page = await history.read(LOG, id_of(3), record=RECORD)
    assert (seqs(page), page.reset) == ([7, 8, 9, 10], Reset("trimmed", (4, 6)))
    page = await history.read(LOG, id_of(6), record=RECORD)
    assert (seqs(page), page.reset) == ([7, 8, 9, 10], None), "only the cursor itself is gone: nothing is missing"


async def test_a_long_trimmed_log_is_paged(redis: Redis, history: History) -> None:
    """What is left after a loss is paged like any log, and told about once."""
    await write(redis, 1, PAGE_EVENTS + 20)
    await redis.hset(RECORD, "bytes", 2 * (PAGE_EVENTS + 20))
    await trim(redis, 5)
    await history.head(RECORD)
    page = await history.read(LOG, id_of(2), record=RECORD)
    assert (len(page.entries), page.end, page.reset) == (PAGE_EVENTS, False, Reset("trimmed", (3, 4)))
    rest = await history.read(LOG, page.cursor, record=RECORD)
    assert (seqs(rest)[-1], rest.end, rest.reset) == (PAGE_EVENTS + 20, True, None)


@pytest.mark.parametrize(
    "cursor",
    [EventId(BASE_MS + 99, 3), EventId(BASE_MS + 1, 3), EventId(BASE_MS + 50, 50), EventId(5, 10), EventId(1, 1)],
    ids=["later time", "earlier time", "beyond the end", "far past, last ordinal", "far past"],
)
async def test_a_foreign_cursor_gets_the_log_anew(redis: Redis, history: History, cursor: EventId) -> None:
    """An id that is not in the log is proof of another history: the whole log is read, and said to be another."""
    await write(redis, 1, 10)
    page = await history.read(LOG, cursor, record=RECORD)
    assert (seqs(page), page.reset, page.end) == (list(range(1, 11)), Reset("diverged"), True)


async def test_a_cursor_from_after_the_trimmed_logs_start_in_time_diverged(redis: Redis, history: History) -> None:
    """A low ordinal with a time after the log's first entry cannot be of this log, trimmed or not."""
    await write(redis, 1, 10)
    await trim(redis, 7)
    page = await history.read(LOG, EventId(BASE_MS + 50, 3), record=RECORD)
    assert (seqs(page), page.reset) == ([7, 8, 9, 10], Reset("diverged"))


# --- where there is no log -------------------------------------------------------------------------------------------


async def test_nothing_written_yet_is_the_end(redis: Redis, history: History) -> None:
    """Where there is neither log nor record, the start is the end; any other cursor is foreign."""
    page = await history.read(LOG, START, record=RECORD)
    assert (seqs(page), page.cursor, page.end, page.reset, page.closed) == ([], START, True, None, False)
    page = await history.read(LOG, id_of(4), record=RECORD)
    assert (page.cursor, page.end, page.reset) == (START, True, Reset("diverged"))
    page = await history.read(ALICE.feed, id_of(4))
    assert (page.cursor, page.end, page.reset) == (START, True, Reset("diverged"))


async def test_a_log_that_begins_while_it_is_looked_for_is_read(
    redis: Redis, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first event comes after the log was read and before the record is: nothing is missing."""
    head = history.head

    async def later(record: str) -> Head | None:
        await write(redis, 1, 2)
        return await head(record)

    monkeypatch.setattr(history, "head", later)
    page = await history.read(LOG, START, record=RECORD)
    assert (seqs(page), page.end, page.reset) == ([1, 2], True, None)


@pytest.mark.parametrize(("state", "closed"), [("completed", True), ("failed", True), ("running", False)])
async def test_an_expired_log_is_answered_from_its_record(
    redis: Redis, history: History, state: str, closed: bool
) -> None:
    """The tombstone tells where the log ended: who stood there missed nothing, who stood before missed exactly that."""
    await write(redis, 1, 10, state=state)
    await redis.delete(LOG)
    page = await history.read(LOG, id_of(10), record=RECORD)
    assert (page.cursor, page.end, page.reset, page.closed) == (id_of(10), True, None, closed)
    page = await history.read(LOG, id_of(4), record=RECORD)
    assert (page.cursor, page.end, page.reset, page.closed) == (id_of(10), True, Reset("trimmed", (5, 10)), closed)
    page = await history.read(LOG, START, record=RECORD)
    assert (page.cursor, page.end, page.reset, page.closed) == (id_of(10), True, Reset("trimmed", (1, 10)), closed)
    for foreign in (id_of(11), EventId(BASE_MS, 10)):
        page = await history.read(LOG, foreign, record=RECORD)
        assert (page.cursor, page.end, page.reset, page.closed) == (id_of(10), True, Reset("diverged"), closed)


async def test_an_ended_log_is_closed_whatever_its_record_says(redis: Redis, history: History) -> None:
    """Who stands at the terminal event has all: a record from before a failover may still say that it runs."""
    await write(redis, 1, 3)
    prepared = [prepare(ExecutionComplete(result=None, duration=1.0), "ex_1", redact=Redactor())]
    end = (await append(redis, ALICE, "ex_1", prepared)).last
    await redis.hset(RECORD, "state", "running")
    page = await history.read(LOG, end, record=RECORD)
    assert (page.entries, page.cursor, page.end, page.reset, page.closed) == ([], end, True, None, True)
    page = await history.read(LOG, id_of(3), record=RECORD)
    assert (seqs(page), page.closed) == ([end.seq], False)


# --- heads and ends --------------------------------------------------------------------------------------------------


async def test_heads_and_last_ids(redis: Redis, history: History) -> None:
    """The record tells state, last id and how long the execution goes on unwatched; `lasts` tells the ids of many logs
    in one round trip, in order."""
    assert await history.head(RECORD) is None
    assert await history.last(LOG) == START
    events = [Status(status="a", message="b"), ExecutionComplete(result=None, duration=1.0)]
    prepared = [prepare(event, "ex_1", redact=Redactor()) for event in events]
    appended = await append(redis, ALICE, "ex_1", prepared)
    size = sum(len(each.json) for each in prepared)
    assert await history.head(RECORD) == ("completed", appended.last, 0, size)
    await redis.hset(RECORD, "cancelAfter", "2000")
    assert await history.head(RECORD) == ("completed", appended.last, 2000, size)
    assert await history.last(LOG) == appended.last
    unknown = ALICE.execution("ex_2")
    asked = [(LOG, RECORD), (ALICE.feed, None), (unknown.log, unknown.record), ("rc:{default:bob}:feed", None)]
    assert await history.lasts(asked) == [appended.last, await history.last(ALICE.feed), START, START]
    assert await history.lasts([]) == []


async def test_an_odd_record_does_not_hide_the_ends_of_others(redis: Redis, history: History) -> None:
    """What somebody else has written in has no last id, and all others have theirs."""
    await write(redis, 1, 5)
    odd, other, feed = (ALICE.execution(name) for name in ("ex_2", "ex_3", "ex_4"))
    await redis.hset(odd.record, mapping={"state": "running", "ms": "soon", "seq": 1})
    await redis.set(other.record, "text")
    await redis.set(feed.log, "text")
    asked = [(LOG, RECORD), (odd.log, odd.record), (other.log, other.record), (feed.log, None)]
    assert await history.lasts(asked) == [id_of(5), None, None, None]


# --- one read for many -----------------------------------------------------------------------------------------------


async def test_callers_at_one_place_share_one_read(redis: Redis, history: History) -> None:
    """A thousand viewers that come together cost Redis one XRANGE, and share the page and its bytes."""
    await write(redis, 1, 20)
    before = await calls(redis, "xrange")
    pages = await asyncio.gather(*(history.read(LOG, id_of(3), record=RECORD) for _ in range(1000)))
    assert await calls(redis, "xrange") - before == 1
    assert len({id(page) for page in pages}) == 1
    view = StreamView()
    assert pages[0].render(view) is pages[999].render(StreamView())
    assert pages[0].render(StreamView(named=False)) != pages[0].render(view)


async def test_callers_at_other_places_read_for_themselves(redis: Redis, history: History) -> None:
    """Cursors and logs are told apart, and a read that is over is not taken for a later one."""
    await write(redis, 1, 20)
    one, two = await asyncio.gather(history.read(LOG, id_of(3)), history.read(LOG, id_of(4)))
    assert (seqs(one)[0], seqs(two)[0]) == (4, 5)
    await redis.xadd(LOG, {b"status": b"new"}, id=str(id_of(21)))
    assert seqs(await history.read(LOG, id_of(3)))[-1] == 21


async def test_a_reader_that_must_see_the_newest_does_not_share(redis: Redis, history: History) -> None:
    """A read `alone` begins now: it never gets the answer of a read that was sent before something was appended."""
    await write(redis, 1, 20)
    before = await calls(redis, "xrange")
    pages = await asyncio.gather(*(history.read(LOG, id_of(3), record=RECORD, shared=False) for _ in range(3)))
    assert await calls(redis, "xrange") - before == 3
    assert [len(page.entries) for page in pages] == [17, 17, 17]


async def test_a_caller_that_leaves_does_not_end_the_others_read(redis: Redis, history: History) -> None:
    """Cancelling one of those who share a read, even the one that began it, leaves the others their page."""
    await write(redis, 1, 20)
    before = await calls(redis, "xrange")
    readers = [asyncio.create_task(history.read(LOG, START, record=RECORD)) for _ in range(5)]
    await asyncio.sleep(0)
    readers[0].cancel()
    readers[3].cancel()
    done = await asyncio.gather(*readers, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in done] == [True, False, False, True, False]
    assert seqs(done[1]) == list(range(1, 21))  # type: ignore[arg-type]
    assert await calls(redis, "xrange") - before == 1


async def test_an_error_reaches_all_who_share_the_read_and_nobody_later(redis: Redis, history: History) -> None:
    """A failed read fails for each of its callers; the next read is a new one. Nobody waiting is not an error."""
    await redis.set(LOG, "not a stream")
    errors = await asyncio.gather(*(history.read(LOG, START) for _ in range(3)), return_exceptions=True)
    assert all("WRONGTYPE" in str(error) for error in errors)
    lonely = asyncio.create_task(history.read(LOG, START))
    await asyncio.sleep(0)
    lonely.cancel()
    await asyncio.gather(lonely, return_exceptions=True)
    await redis.delete(LOG)
    await write(redis, 1, 2)
    assert seqs(await history.read(LOG, START)) == [1, 2]


async def test_closing_ends_reads_under_way(redis: Redis, history: History) -> None:
    """`close` cancels what is being read and leaves nothing behind."""
    reader = asyncio.create_task(history.read(LOG, START))
    await asyncio.sleep(0)
    await history.close()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert history._reading == {}
    await history.close()


# --- short pages ------------------------------------------------------------------------------------------------------


async def chunks(redis: Redis, first: int, last: int, *, apart: bool = False, size: int = 4) -> None:
    """A log of chunks of one text, or of two in turns."""
    pipe = redis.pipeline(transaction=False)
    for seq in range(first, last + 1):
        event = MessageDelta(message_id="ab"[seq % 2] if apart else "m", delta="x" * size)
        pipe.xadd(LOG, {b"message:delta": prepare(event, "ex_1", redact=Redactor(), ts=1).json}, id=str(id_of(seq)))
    pipe.hset(RECORD, mapping={"state": "running", "ms": BASE_MS + last, "seq": last, "bytes": last * (size + 100)})
    await pipe.execute()


async def short(history: History, cursor: EventId = START, *, is_long: bool = True) -> Page:
    """As a stream does: the record first, which tells how much may be asked for."""
    await history.head(RECORD)
    return await history.read_short(LOG, cursor, record=RECORD, is_long=is_long)


async def test_short_pages_are_long(redis: Redis, history: History) -> None:
    """A page with few events left takes many of the log; where the log's size is unknown, or large, as many as any."""
    await chunks(redis, 1, LONG_PAGE_EVENTS + 500)
    head = await history.head(RECORD)
    assert head is not None
    assert head.has_long_pages
    assert not head._replace(log_bytes=None).has_long_pages
    assert not head._replace(log_bytes=1 << 30).has_long_pages
    page = await short(history)
    assert (page.size, page.cursor, page.end) == (LONG_PAGE_EVENTS, id_of(LONG_PAGE_EVENTS), False)
    assert [entry.id for entry in page.entries] == [page.cursor]
    rest = await short(history, page.cursor)
    assert (rest.size, len(rest.entries), rest.end) == (500, 500, True), "its events are what the topic begins with"
    assert (await short(history, id_of(1), is_long=False)).size == PAGE_EVENTS


async def test_short_pages_are_kept(redis: Redis, history: History) -> None:
    """The next reader gets them without Redis, at every place that was read; what follows is read."""
    await chunks(redis, 1, 500)
    first = await short(history)
    assert (first.size, first.end) == (500, True)
    before = await calls(redis, "xrange")
    kept = await short(history)
    assert (kept.size, kept.cursor, kept.end) == (500, id_of(500), False), "there may be more by now"
    assert await short(history) is kept
    assert await calls(redis, "xrange") == before
    await chunks(redis, 501, 600)
    assert (await short(history, kept.cursor)).cursor == id_of(600)
    assert (await short(history, id_of(100))).size == 500, "another place"


async def test_a_kept_page_of_another_log_is_found_out(redis: Redis, history: History) -> None:
    """After a kept page comes a read that proves the log: one that went back meanwhile is told, not continued."""
    await chunks(redis, 1, 500)
    await short(history)
    await redis.delete(LOG)
    await write(redis, 11, 12)
    kept = await short(history)
    assert kept.cursor == id_of(500)
    assert (await short(history, kept.cursor)).reset == Reset("diverged")


async def test_few_pages_are_kept_and_not_for_long(
    redis: Redis, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their number is bounded, their time too, and what is not much shorter than the log is not kept at all."""
    await chunks(redis, 1, 100)
    for seq in range(KEPT_PAGES + 1):
        await short(history, id_of(seq) if seq else START)
    before = await calls(redis, "xrange")
    await short(history, id_of(KEPT_PAGES))
    assert await calls(redis, "xrange") == before
    await short(history)
    assert await calls(redis, "xrange") == before + 1, "the oldest is gone"
    history.drop_old()
    await short(history)
    assert await calls(redis, "xrange") == before + 1
    monkeypatch.setattr(history_module, "KEPT_SECONDS", 0.0)
    await short(history)
    assert await calls(redis, "xrange") == before + 2
    history.drop_old()
    monkeypatch.undo()
    await short(history)
    assert await calls(redis, "xrange") == before + 3, "it was freed"
    await redis.delete(LOG)
    await chunks(redis, 1, 100, apart=True)
    other = History(redis, Metrics("1"))
    assert [entry.seq for entry in (await short(other)).entries] == list(range(1, 101))
    before = await calls(redis, "xrange")
    await short(other)
    assert await calls(redis, "xrange") == before + 1
    await other.close()


async def test_a_short_page_after_a_reset_is_whole(redis: Redis, history: History) -> None:
    """What follows a reset begins where the reset says, and is not kept."""
    await chunks(redis, 1, 300)
    await trim(redis, 100)
    for _ in range(2):
        page = await short(history)
        assert (page.reset, page.entries[0].id) == (Reset("trimmed", (1, 99)), id_of(100))


async def test_short_and_plain_readers_share_no_page(redis: Redis, history: History) -> None:
    """Readers that ask for one place at once get pages of their own kind, each from one read."""
    await chunks(redis, 1, 3000)
    await history.head(RECORD)
    before = await calls(redis, "xrange")
    plain = [history.read(LOG, START, record=RECORD) for _ in range(3)]
    *pages, one, other = await asyncio.gather(*plain, short(history), short(history))
    assert {len(page.entries) for page in pages} <= {PAGE_EVENTS, 32}
    assert one is other
    assert await calls(redis, "xrange") == before + 2
