"""Lists of executions on a real Redis: what a page reads, how much it may hold, and what else may be in an index."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from broker.executions.listing import LIST_BYTES, LIST_PAGE, LIST_READ, Listing
from broker.executions.types import ExecutionList
from emitter.errors import NewerRecord
from emitter.store import announcements
from emitter.wire import ids, keys
from emitter.wire.keys import Owner
from emitter.wire.record import FORMAT

ALICE = Owner("alice")


@pytest.fixture
def listing(redis: Redis) -> Listing:
    return Listing(redis, 3600)


async def listed(redis: Redis, count: int, *, first_ms: int = 1000, **fields: Any) -> None:
    """Executions `ex_<number>`, one a millisecond, as the append script leaves them."""
    record = {"state": "running", "ms": 1, "seq": 1, "task": "t", "agent": "a", "metadata": "{}", **fields}
    pipe = redis.pipeline(transaction=False)
    for number in range(count):
        pipe.hset(ALICE.execution(f"ex_{number:04}").record, mapping=record)
        pipe.zadd(ALICE.index, {f"ex_{number:04}": first_ms + number})
    await pipe.execute()


async def page(listing: Listing, limit: int = 200, **options: Any) -> ExecutionList:
    return await listing.page(ALICE, **{"state": None, "limit": limit, "cursor": None, **options})


async def all_pages(listing: Listing, limit: int = 200, **options: Any) -> list[list[str]]:
    found, cursor = [], None
    while True:
        each = await page(listing, limit, cursor=cursor, **options)
        found.append([summary.execution_id for summary in each.executions])
        if (cursor := each.next_cursor) is None:
            return found


async def usage(redis: Redis) -> tuple[int, int]:
    """Records read so far, and bytes sent."""
    calls: Any = (await redis.info("commandstats")).get("cmdstat_hmget", {"calls": 0})
    sent: Any = await redis.info("stats")
    return int(calls["calls"]), int(sent["total_net_output_bytes"])


# --- what is read ----------------------------------------------------------------------------------------------------


async def test_a_page_reads_no_more_records_than_it_shows(redis: Redis, listing: Listing) -> None:
    """Whatever else the user has."""
    await listed(redis, 150, metadata=json.dumps({"k": "x" * 50_000}))
    for limit in (1, 5):
        before = await usage(redis)
        assert len((await page(listing, limit)).executions) == limit
        after = await usage(redis)
        assert after[0] - before[0] == limit
        assert after[1] - before[1] < limit * 51_000 + 30_000


async def test_a_filtered_page_reads_only_what_fits_whole(redis: Redis, listing: Listing) -> None:
    """Of the others it reads the state."""
    await listed(redis, 150, metadata=json.dumps({"k": "x" * 50_000}))
    await redis.hset(ALICE.execution("ex_0007").record, "state", "failed")
    before = await usage(redis)
    assert [each.execution_id for each in (await page(listing, 5, state="failed")).executions] == ["ex_0007"]
    assert (await usage(redis))[1] - before[1] < 51_000 + 60_000


async def test_a_page_is_bounded_by_bytes(redis: Redis, listing: Listing) -> None:
    """It ends after the execution that fills it, and the next goes on: the pages are still the list."""
    await listed(redis, 60, metadata=json.dumps({"k": "x" * 60_000}))
    found = await all_pages(listing)
    assert [each for some in found for each in some] == [f"ex_{number:04}" for number in reversed(range(60))]
    assert [len(some) for some in found] == [18, 18, 18, 6]
    before = await usage(redis)
    await page(listing)
    assert (await usage(redis))[1] - before[1] < LIST_BYTES + LIST_READ * 61_000


async def test_a_brief_page_has_neither_tasks_nor_metadata(redis: Redis, listing: Listing) -> None:
    """Nor does it read them."""
    await listed(redis, 150, task="x" * 60_000, metadata=json.dumps({"k": "x" * 60_000}))
    before = await usage(redis)
    found = await page(listing, is_brief=True)
    assert (await usage(redis))[1] - before[1] < 60_000
    assert len(found.executions) == 150
    assert {(each.task, each.metadata, each.agent) for each in found.executions} == {(None, None, "a")}


# --- what else may be there ------------------------------------------------------------------------------------------

ODD_FIELDS = [
    {"ms": "soon"},
    {"seq": "1e3"},
    {"attempt": "first"},
    {"attempt": b"\xff"},
    {"metadata": "[1]"},
    {"metadata": "{"},
    {"metadata": b'{"a":"\xff'},
    {"state": "odd"},
    {"state": ""},
]


@pytest.mark.parametrize("fields", ODD_FIELDS, ids=str)
async def test_an_odd_record_does_not_hide_the_others(redis: Redis, listing: Listing, fields: dict[str, Any]) -> None:
    """It is left out and logged, once."""
    await listed(redis, 5)
    await redis.hset(ALICE.execution("ex_0002").record, mapping=fields)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            assert await all_pages(listing) == [["ex_0004", "ex_0003", "ex_0001", "ex_0000"]]
    assert [(each["event"], each["execution"]) for each in logs] == [("record_unreadable", "ex_0002")]
    assert await listing.summary(ALICE, "ex_0002") is None


async def test_a_conversation_is_not_shown_without_a_newer_record(redis: Redis, listing: Listing) -> None:
    """Of all executions it is left out; in its conversation, and alone, it is for an edge that knows its format."""
    await listed(redis, 3, conversationId="c")
    await redis.zadd(ALICE.conversation("c"), {"ex_0000": 1000, "ex_0001": 1001, "ex_0002": 1002})
    await redis.hset(ALICE.execution("ex_0001").record, "format", FORMAT + 1)  # type: ignore[misc,arg-type]
    assert await all_pages(listing) == [["ex_0002", "ex_0000"]]
    for asked in (page(listing, conversation_id="c"), listing.summary(ALICE, "ex_0001")):
        with pytest.raises(NewerRecord):
            await asked


@pytest.mark.parametrize("limit", [1, 2, 200])
async def test_odd_rows_of_an_index_do_not_hide_the_others(redis: Redis, listing: Listing, limit: int) -> None:
    """Names that are no ids and scores that are no times, at the ends and in between, even more than a page of them."""
    await listed(redis, 5)
    for name, score in (
        (b"\xff\xfe", 1002), (b"", 1003), (b"a b", 1e300), (b"inf", "inf"), (b"-inf", "-inf"), (b"neg", -5),
        (b"{x}", 1001), ("x" * 65, 1004), (b"far", 1e16),
    ):  # fmt: skip
        await redis.zadd(ALICE.index, {name: score})  # type: ignore[dict-item]
    await redis.zadd(ALICE.index, {f"odd {number}": 2000 + number for number in range(LIST_PAGE + 10)})
    found = await all_pages(listing, limit)
    assert [each for some in found for each in some] == [f"ex_{number:04}" for number in reversed(range(5))]


async def test_odd_announcements_do_not_stop_others(redis: Redis) -> None:
    """An agent's name that is not text, and what is no announcement."""
    info = announcements.WorkerInfo(
        id="w", host="h", pid=1, concurrency=1, running=0, agents=(announcements.AgentInfo(name="writer"),)
    )
    await announcements.announce(redis, info)
    await redis.zadd(keys.AGENTS_KNOWN, {b"\xff": ids.now_ms()})
    await redis.zadd(keys.WORKERS, {"odd": ids.now_ms() + 10_000, "odder": ids.now_ms() + 10_000})
    await redis.hset(keys.WORKER_INFO, mapping={"odd": b'{"id":"\xff"}', "odder": "7"})
    assert await announcements.known_agents(redis) == {"writer"}
    assert [agent.name for agent in await announcements.live_agents(redis)] == ["writer"]
