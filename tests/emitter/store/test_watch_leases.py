"""The edges' word on who watches, on a real Redis: when an execution is abandoned, and when it is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter.store import watch_leases
from emitter.store.jobs import redis_ms
from emitter.store.watch_leases import WatchLease, abandoned, forget, say
from emitter.wire.keys import ABANDONED, ABANDONED_ASKED, Owner, member, viewers_key

ALICE = Owner("alice", "acme")
NAME = member(ALICE, "ex_1")
LONG_MS = 60_000


async def holds(redis: Redis, edge: str, ms: int, *, cancel_after_ms: int = LONG_MS, name: str = NAME) -> None:
    """An edge's viewers watch for `ms` more; 0 or less: they left so long ago."""
    await say(redis, edge, [WatchLease(name, cancel_after_ms, ms)])


async def due_in(redis: Redis, name: str = NAME) -> float:
    """Milliseconds until the execution is abandoned; each call of Redis may have taken a few."""
    score = await redis.zscore(ABANDONED, name)
    assert score is not None
    return float(score - await redis_ms(redis))


def about(ms: float) -> Any:
    return pytest.approx(ms, abs=2000)


async def test_the_clock_starts_when_the_last_viewer_leaves(redis: Redis) -> None:
    """An execution is listed once its time has passed since, not before, and until it is forgotten."""
    left_at = await redis_ms(redis)
    await holds(redis, "e1", 0, cancel_after_ms=200)
    async with asyncio.timeout(5):
        while not (found := await abandoned(redis, 10)):
            pass
    assert await redis_ms(redis) >= left_at + 200
    assert found == await abandoned(redis, 10) == [(ALICE, "ex_1", NAME)]
    await forget(redis, NAME)
    assert await abandoned(redis, 10) == []


async def test_an_edge_with_viewers_holds_it(redis: Redis) -> None:
    """Whoever else left, it lives as long as one edge says that it has viewers, and its time on."""
    await holds(redis, "e1", 15_000)
    assert await due_in(redis) == about(15_000 + LONG_MS)
    await holds(redis, "e2", 15_000)
    await holds(redis, "e1", 0)
    assert await due_in(redis) == about(15_000 + LONG_MS)
    await holds(redis, "e2", 0)
    assert await due_in(redis) == about(LONG_MS)


async def test_who_returns_stops_the_clock(redis: Redis) -> None:
    """A new word outweighs that the same edge, or another, had none left; the clock starts anew after it."""
    await holds(redis, "e1", 0)
    await holds(redis, "e1", 15_000)
    assert await due_in(redis) == about(15_000 + LONG_MS)
    await holds(redis, "e1", 0)
    await holds(redis, "e2", 5000)
    assert await due_in(redis) == about(5000 + LONG_MS)


async def test_the_word_of_a_dead_edge_ends(redis: Redis) -> None:
    """An edge that says no more holds nothing any more once its last word has ended."""
    await holds(redis, "e1", 3000, cancel_after_ms=1)
    assert await abandoned(redis, 10) == []
    async with asyncio.timeout(3 + 5):
        while not await abandoned(redis, 10):
            await asyncio.sleep(0.01)


async def test_a_departure_told_late_counts_from_when_it_was(redis: Redis) -> None:
    """The clock runs from the departure, not from when it was told; a later departure elsewhere is not undone by it."""
    await holds(redis, "e1", -20_000)
    assert await due_in(redis) == about(LONG_MS - 20_000)
    await holds(redis, "e2", -1000)
    await holds(redis, "e3", -30_000)
    assert await due_in(redis) == about(LONG_MS - 1000)


async def test_nobody_watched_yet(redis: Redis) -> None:
    """What no edge ever spoke of is not abandoned."""
    assert await abandoned(redis, 10) == []


async def test_many_are_spoken_of_at_once(redis: Redis) -> None:
    """Each execution of a call has its own time; the most overdue are listed first, no more than asked for."""
    names = [member(ALICE, f"ex_{number}") for number in range(100)]
    await say(redis, "e1", [WatchLease(name, 10 + number, -1000) for number, name in enumerate(names)])
    assert [name for _, _, name in await abandoned(redis, 3)] == names[:3]
    assert len(await abandoned(redis, 200)) == 100
    await forget(redis, *names)
    assert await redis.keys("*viewers*") == await abandoned(redis, 10) == []


async def test_edges_that_died_leave_no_trace(redis: Redis) -> None:
    """Words that ended are dropped, but for the last one; the key outlives the clock and then expires."""
    for number in range(50):
        await holds(redis, f"dead-{number}", number - 100)
    assert await redis.zrange(viewers_key(NAME), 0, -1) == [b"dead-49"]
    assert await redis.pttl(viewers_key(NAME)) == about(LONG_MS + watch_leases.WORD_MS - 51)
    await holds(redis, "e1", 15_000)
    assert await redis.zrange(viewers_key(NAME), 0, -1) == [b"e1"]


async def test_a_key_of_somebody_else_stands_before_nobody(redis: Redis) -> None:
    """Where something else is stored under an execution's key, the word replaces it, and those after it are said."""
    await redis.set(viewers_key(NAME), "no word")
    other = member(ALICE, "ex_2")
    await say(redis, "e1", [WatchLease(NAME, LONG_MS, 15_000), WatchLease(other, LONG_MS, 15_000)])
    for name in (NAME, other):
        assert await due_in(redis, name) == about(15_000 + LONG_MS)
    assert await redis.zrange(viewers_key(NAME), 0, -1) == [b"e1"]


async def test_rubbish_is_dropped(redis: Redis) -> None:
    """What cannot be the name of an execution is taken out of the list, and the others come through."""
    await redis.zadd(ABANDONED, {"rubbish": 1, b"\xff": 2, NAME: 3})
    assert await abandoned(redis, 10) == [(ALICE, "ex_1", NAME)]
    assert await redis.zcard(ABANDONED) == 1


@pytest.mark.parametrize("gap_ms", [watch_leases.GAP_MS + 1000, -3_600_000], ids=["away", "clock stepped back"])
async def test_after_a_gap_edges_get_the_time_to_speak(redis: Redis, gap_ms: int) -> None:
    """When nobody could ask for a while, neither could edges renew their words: nothing is abandoned until they had the
    time to. Then it is as before."""
    await holds(redis, "e1", -10, cancel_after_ms=1)
    assert len(await abandoned(redis, 10)) == 1
    await redis.hincrby(ABANDONED_ASKED, "at", -gap_ms)
    assert await abandoned(redis, 10) == []
    assert await abandoned(redis, 10) == [], "one more question does not end the patience"
    await redis.hincrby(ABANDONED_ASKED, "since", -watch_leases.PATIENCE_MS)
    assert len(await abandoned(redis, 10)) == 1


async def test_questions_in_time_are_no_gap(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks every few seconds is answered."""
    monkeypatch.setattr(watch_leases, "GAP_MS", 60_000)
    await holds(redis, "e1", -10, cancel_after_ms=1)
    for _ in range(5):
        assert len(await abandoned(redis, 10)) == 1
        await redis.hincrby(ABANDONED_ASKED, "at", 10_000 - watch_leases.GAP_MS)
