"""Search in one's executions on a real Redis: what is found, and what is read for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.base.problem import Problem
from broker.executions.listing import Listing
from broker.executions.search import DAY_MS, PART_CHARACTERS, Sought, day_key, words_of
from emitter.wire.keys import Owner

ALICE = Owner("alice")
DAY = 20_000 * DAY_MS


@pytest.fixture
def listing(redis: Redis) -> Listing:
    return Listing(redis, 3600)


async def add(
    redis: Redis, execution_id: str, created_ms: int, *, owner: Owner = ALICE, result: Any = None, **fields: Any
) -> None:
    """An execution as the append script leaves it; with a result it has ended."""
    record = {"state": "running", "ms": 1, "seq": 1, "task": "t", "agent": "a", "metadata": "{}", **fields}
    if result is not None:
        event = {"type": "execution:complete", "data": {"result": result, "duration": 1}}
        record |= {"state": "completed", "end": json.dumps(event, ensure_ascii=False), **fields}
    await redis.hset(owner.execution(execution_id).record, mapping=record)
    await redis.zadd(owner.index, {execution_id: created_ms})


async def find(listing: Listing, query: str = "", *, limit: int = 50, **fields: Any) -> list[str]:
    """All pages of what a search finds."""
    found, cursor = [], None
    sought = Sought(words=words_of(query), **fields)
    while True:
        page = await listing.page(ALICE, state=None, limit=limit, cursor=cursor, sought=sought)
        found += [each.execution_id for each in page.executions]
        if (cursor := page.next_cursor) is None:
            return found


async def records_read(redis: Redis) -> int:
    calls: Any = (await redis.info("commandstats")).get("cmdstat_hmget", {"calls": 0})
    return int(calls["calls"])


QUERIES = [
    ("quarterly", ["ex_3", "ex_1"]),
    ("QUARTERLY", ["ex_3", "ex_1"]),
    ("quart", ["ex_3", "ex_1"]),
    ("arterly report", ["ex_1"]),
    ("report quarterly", ["ex_1"]),
    ("tromsø", ["ex_2"]),
    ("ＴＲＯＭＳØ", ["ex_2"]),  # full width
    ("北京", ["ex_2"]),
    ("京", ["ex_2"]),
    ("4711", ["ex_3"]),
    ("ex_2", ["ex_2"]),
    ("editor", ["ex_2"]),
    ("missing-file", ["ex_4"]),
    ("duration", []),  # a field's name
    ("nowhere", []),
    ("   ", ["ex_4", "ex_3", "ex_2", "ex_1"]),
    ("*", []),
]


@pytest.mark.parametrize(("query", "found"), QUERIES)
async def test_words_in_task_result_error_agent_and_id(
    redis: Redis, listing: Listing, query: str, found: list[str]
) -> None:
    """Newest first; whether a search has come by before or not."""
    await add(redis, "ex_1", DAY, task="Write the Quarterly report")
    await add(redis, "ex_2", DAY + 1, agent="editor", result={"text": ["Weather in Tromsø", {"zh": "北京的天气"}]})
    await add(redis, "ex_3", DAY + DAY_MS, task="sum", result={"quarterly": 4711, "note": "quarterly sum"})
    failed = {"type": "execution:error", "data": {"error": "missing-file", "duration": 1}}
    await add(redis, "ex_4", DAY + 9 * DAY_MS, state="failed", end=json.dumps(failed))
    await add(redis, "ex_5", DAY, owner=Owner("bob"), task="quarterly report of bob")
    assert await find(listing, query) == found
    assert await find(listing, query, limit=1) == found


async def test_agent_state_and_time(redis: Redis, listing: Listing) -> None:
    for number in range(12):
        states = {"result": {"n": number}} if number % 2 else {"state": "running"}
        await add(redis, f"ex_{number:02}", DAY + number, agent="ab"[number % 3 == 0], **states)
    assert await find(listing, agent="b") == ["ex_09", "ex_06", "ex_03", "ex_00"]
    assert await find(listing, agent="b", state="completed") == ["ex_09", "ex_03"]
    assert await find(listing, state="running", limit=2) == ["ex_10", "ex_08", "ex_06", "ex_04", "ex_02", "ex_00"]
    for limit in (1, 50):
        assert await find(listing, since=DAY + 9, limit=limit) == ["ex_11", "ex_10", "ex_09"]
        assert await find(listing, until=DAY + 2, limit=limit) == ["ex_01", "ex_00"]
        assert await find(listing, since=DAY + 3, until=DAY + 5, limit=limit) == ["ex_04", "ex_03"]
        assert await find(listing, "a", since=DAY + 3, until=DAY + 5, agent="a", limit=limit) == ["ex_04"]


async def test_the_record_of_an_ended_execution_is_searched_once(redis: Redis, listing: Listing) -> None:
    """What still runs is read anew, since its end will have more."""
    for number in range(120):
        await add(redis, f"ex_{number:03}", DAY + number, result={"n": f"result {number}", "filler": "x" * 5000})
    await add(redis, "ex_live", DAY + 500, task="live")
    assert await find(listing, "nowhere") == []
    before = await records_read(redis)
    assert await find(listing, "nowhere") == []
    assert await find(listing, '"result 77"'.strip('"')) == ["ex_077"]
    # Twice the row's hash and the record that still runs; then what is shown.
    assert await records_read(redis) - before == 5
    await add(redis, "ex_live", DAY + 500, result={"n": "late words"})
    assert await find(listing, "late") == ["ex_live"]
    assert await redis.hlen(day_key(ALICE, DAY)) == 121
    assert 0 < await redis.pttl(day_key(ALICE, DAY)) <= 3_600_000
    assert await redis.memory_usage(day_key(ALICE, DAY)) < 121 * (PART_CHARACTERS + 300)


async def test_a_search_prolongs_no_row(redis: Redis, listing: Listing) -> None:
    """Also where something of that day still runs: what has expired is not kept with it."""
    await add(redis, "ex_1", DAY, result={"n": "one"})
    await add(redis, "ex_live", DAY + 1)
    assert await find(listing, "one") == ["ex_1"]
    await redis.pexpire(day_key(ALICE, DAY), 60_000)
    await add(redis, "ex_2", DAY + 2, result={"n": "two"})
    assert await find(listing, "two") == ["ex_2"]
    assert await redis.pttl(day_key(ALICE, DAY)) <= 60_000


async def test_an_id_that_was_used_again_is_found_by_what_it_is_now(redis: Redis, listing: Listing) -> None:
    await add(redis, "ex_1", DAY, result={"n": "first"})
    assert await find(listing, "first") == ["ex_1"]
    await redis.delete(ALICE.execution("ex_1").record)
    assert await find(listing, "first") == []
    await add(redis, "ex_1", DAY + 5, result={"n": "second"})
    assert await find(listing, "first") == []
    assert await find(listing, "second") == ["ex_1"]


async def test_what_is_odd_hides_nothing(redis: Redis, listing: Listing) -> None:
    """Neither a row nor a record that another program wrote."""
    for number in range(4):
        await add(redis, f"ex_{number}", DAY + number, result={"n": "fine"})
    await redis.hset(day_key(ALICE, DAY), mapping={"ex_0": b"\xff", "ex_1": b'["a"]'})
    await redis.hset(ALICE.execution("ex_2").record, mapping={"end": b"\xff{", "seq": "odd"})
    await redis.hset(ALICE.execution("ex_3").record, "end", b"[" * 5000)
    assert await find(listing, "fine") == ["ex_1", "ex_0"]


@pytest.mark.parametrize("query", ["x" * 201, " ".join(map(str, range(9)))])
def test_a_query_is_bounded(query: str) -> None:
    with pytest.raises(Problem) as caught:
        words_of(query)
    assert (caught.value.status, caught.value.extensions["path"]) == (400, "q")
