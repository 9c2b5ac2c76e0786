"""Limits hold exactly, over several edges on a real Redis, and heal by themselves."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from broker.base.error_mapping import to_problem
from broker.base.problem import Problem
from broker.cli.embedded import EmbeddedRedis
from broker.streams.admission import APPLIED_AT_ONCE, Admission
from emitter.errors import RedisUnavailable
from emitter.store.connection import connect
from emitter.wire.ids import now_ms
from emitter.wire.keys import EDGES, Owner
from tests.edges import under_load

ALICE, BOB = Owner("alice"), Owner("bob")


@pytest.fixture
async def announced(redis: Redis) -> None:
    """The edges of these tests announce themselves, as edges do."""
    await redis.zadd(EDGES, dict.fromkeys(("e1", "e2", "live", "ahead"), now_ms() + 3_600_000))


@pytest.fixture
async def second(redis_url: str) -> AsyncIterator[Redis]:
    """The client of another edge."""
    client = connect(redis_url)
    yield client
    await client.aclose()


@asynccontextmanager
async def calls_of(redis: Redis) -> AsyncIterator[Counter[str]]:
    """Counts the server's calls per command while the block runs; filled in at its end."""
    await redis.config_resetstat()
    counted: Counter[str] = Counter()
    yield counted
    stats = await redis.info("commandstats")
    counted.update({name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()})


async def outcome(attempt: Awaitable[None]) -> str:
    try:
        await attempt
    except Problem as problem:
        refusal = problem
    else:
        return "admitted"
    assert int(refusal.headers["Retry-After"]) >= 1
    return refusal.slug


async def outcomes(admission: Admission, owner: Owner, count: int) -> Counter[str]:
    return Counter(await asyncio.gather(*(outcome(admission.admit(owner)) for _ in range(count))))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Redis tells nobody about a changed hash, so this one looks until it is so."""
    async with asyncio.timeout(5):
        while not await condition():
            await asyncio.sleep(0.01)


async def has_none(redis: Redis) -> bool:
    return not await counts(redis)


async def counts(redis: Redis, owner: Owner = ALICE) -> dict[str, int]:
    rows = await redis.hgetall(owner.connections)
    return {edge.decode(): int(value.split()[0]) for edge, value in rows.items()}


# --- one edge --------------------------------------------------------------------------------------------------------


async def test_without_user_limits_redis_is_not_asked(redis: Redis) -> None:
    """With both per-user limits off, admitting and leaving send nothing."""
    async with calls_of(redis) as calls, Admission(redis, "e1") as admission:
        for _ in range(10):
            await admission.admit(ALICE)
        for _ in range(10):
            admission.release(ALICE)
        await admission.rate(ALICE, "executes", 0)
        assert admission.open_for(ALICE) == 0
    assert not calls.keys() & {"evalsha", "eval"}


async def test_admissions_of_one_moment_share_a_call(redis: Redis) -> None:
    """A thousand admissions of ten users that come together are ten calls of the script."""
    async with Admission(redis, "e1", max_connections_per_user=100) as admission:
        await admission.admit(BOB)
        async with calls_of(redis) as calls:
            await asyncio.gather(*(admission.admit(Owner(f"u{number % 10}")) for number in range(1000)))
        assert calls["evalsha"] == 10


async def test_more_users_than_a_round_holds_are_all_admitted(redis: Redis) -> None:
    """Thousands of different users at once are served in several rounds, and their departures reach Redis."""
    owners = [Owner(f"u{number}") for number in range(1200)]
    async with Admission(redis, "e1", max_connections_per_user=1) as admission:
        await asyncio.gather(*(admission.admit(owner) for owner in owners))
        assert await redis.dbsize() == 1200
        for owner in owners:
            admission.release(owner)
        await until(lambda: is_empty(redis))


async def is_empty(redis: Redis) -> bool:
    return bool(await redis.dbsize() == 0)


# --- several edges ---------------------------------------------------------------------------------------------------


async def test_those_who_are_admitted_together_go_on_in_turns(redis: Redis) -> None:
    """Each opens a stream then: others' events are delivered between."""
    async with Admission(redis, "e1", max_connections_per_user=1) as admission:
        turns: Counter[int] = Counter()
        turn = 0

        async def count() -> None:
            nonlocal turn
            while True:
                turn += 1
                await asyncio.sleep(0)

        async def admit(owner: Owner) -> None:
            await admission.admit(owner)
            turns[turn] += 1

        counting = asyncio.create_task(count())
        await asyncio.gather(*(admit(Owner(f"u{number}")) for number in range(200)))
        counting.cancel()
        assert sum(turns.values()) == 200
        assert max(turns.values()) <= APPLIED_AT_ONCE


async def test_a_user_limit_is_exact_over_edges(redis: Redis, second: Redis, announced: None) -> None:
    """Of thousands of concurrent connects over two edges exactly the limit is admitted; the rest gets 429."""
    limits: dict[str, Any] = {"max_connections_per_user": 700}
    async with Admission(redis, "e1", **limits) as one, Admission(second, "e2", **limits) as two:
        alice, bob = Counter[str](), Counter[str]()

        async def connects(edge: Admission) -> None:
            for _ in range(25):
                of_alice, of_bob = await asyncio.gather(outcomes(edge, ALICE, 20), outcomes(edge, BOB, 4))
                alice.update(of_alice)
                bob.update(of_bob)

        await asyncio.gather(*(connects(edge) for edge in (one, two, one, two)))
        assert alice == {"admitted": 700, "too-many-connections": 1300}
        assert bob == {"admitted": 400}
        assert await counts(redis) == {"e1": one.open_for(ALICE), "e2": two.open_for(ALICE)}
        assert min(one.open_for(ALICE), two.open_for(ALICE)) > 0


async def test_limits_hold_while_viewers_come_and_go(redis: Redis, second: Redis, announced: None) -> None:
    """While streams open and close on two edges, never more than the limit are open, and nothing is lost in the end."""
    open_now = most = admitted = 0

    async def churn(edge: Admission) -> None:
        nonlocal open_now, most, admitted
        for _ in range(30):
            if await outcome(edge.admit(ALICE)) == "admitted":
                open_now, admitted = open_now + 1, admitted + 1
                most = max(most, open_now)
                await asyncio.sleep(0)
                open_now -= 1
                edge.release(ALICE)

    async with (
        Admission(redis, "e1", max_connections_per_user=10) as one,
        Admission(second, "e2", max_connections_per_user=10) as two,
    ):
        await asyncio.gather(*(churn(edge) for edge in (one, two) for _ in range(20)))
        assert most <= 10
        assert admitted > 10
        await until(lambda: has_none(redis))


async def test_a_place_that_is_left_is_free_on_other_edges(redis: Redis, announced: None) -> None:
    """When a stream ends on one edge another edge may admit its user's next one."""
    async with (
        Admission(redis, "e1", max_connections_per_user=1) as one,
        Admission(redis, "e2", max_connections_per_user=1) as two,
    ):
        await one.admit(ALICE)
        assert await outcome(two.admit(ALICE)) == "too-many-connections"
        one.release(ALICE)
        await until(lambda: has_none(redis))
        assert await outcome(two.admit(ALICE)) == "admitted"


async def test_a_stopping_edge_takes_its_counts_along(redis: Redis) -> None:
    """An edge that leaves in order frees its users' places at once; refused waiters get 503."""
    async with Admission(redis, "e1", max_connections_per_user=5) as one:
        await one.admit(ALICE)
        await one.admit(BOB)
        assert await counts(redis) == {"e1": 1}
    assert await redis.dbsize() == 0
    with pytest.raises(RedisUnavailable):
        await one.admit(ALICE)
    one.release(ALICE)
    assert (one.open_for(ALICE), one.open_for(BOB)) == (0, 0)


async def test_a_dead_edge_is_forgotten(redis: Redis, announced: None) -> None:
    """Counts of an edge that no longer renews them do not count, and are dropped."""
    past, future = int(time.time() * 1000) - 1, int(time.time() * 1000) + 60_000
    await redis.hset(ALICE.connections, mapping={"dead": f"7 {past}", "odd": "?", "live": f"1 {future}"})
    async with Admission(redis, "e1", max_connections_per_user=2) as admission:
        assert await outcomes(admission, ALICE, 2) == {"admitted": 1, "too-many-connections": 1}
        assert await counts(redis) == {"live": 1, "e1": 1}


async def test_counts_are_renewed_and_heal(redis: Redis) -> None:
    """What is in Redis is made true again by the next renewal, also after all of it was lost."""
    async with Admission(redis, "e1", max_connections_per_user=5, refresh_seconds=0.05) as admission:
        await admission.admit(ALICE)
        await redis.flushall()  # the counts, and the script as well
        await redis.script_flush()
        await until(lambda: shows(redis, {"e1": 1}))
        await redis.hset(ALICE.connections, "e1", "5 0")
        await until(lambda: shows(redis, {"e1": 1}))
        assert 0 < await redis.pttl(ALICE.connections) <= 90_000


async def shows(redis: Redis, expected: dict[str, int]) -> bool:
    return await counts(redis) == expected


# --- rates -----------------------------------------------------------------------------------------------------------


async def test_connects_are_limited_per_minute(redis: Redis) -> None:
    """A burst of a minute's worth passes, exactly; then Retry-After says when the next one may come."""
    async with Admission(redis, "e1", connects_per_minute=7) as admission:
        assert await outcomes(admission, ALICE, 10) == {"admitted": 7, "rate-limited": 3}
        with pytest.raises(Problem) as caught:
            await admission.admit(ALICE)
        assert caught.value.status == 429
        assert 7 <= int(caught.value.headers["Retry-After"]) <= 9
        assert await outcome(admission.admit(BOB)) == "admitted"
        assert (admission.open_for(ALICE), admission.open_for(BOB)) == (7, 1)
        assert 0 < await redis.pttl(ALICE.rate("connects")) <= 60_000
        assert await redis.exists(ALICE.connections) == 0


async def test_a_rate_is_exact_over_edges(redis: Redis, second: Redis) -> None:
    """Two edges share a user's rate: together they let exactly a burst through."""
    limits: dict[str, Any] = {"connects_per_minute": 60, "max_connections_per_user": 1000}
    async with Admission(redis, "e1", **limits) as one, Admission(second, "e2", **limits) as two:
        started = time.monotonic()
        results = await asyncio.gather(*(outcomes(edge, ALICE, 100) for edge in (one, two)))
        total = results[0] + results[1]
        assert 60 <= total["admitted"] <= 61 + (time.monotonic() - started), "a second allows one more"
        assert total["admitted"] == sum((await counts(redis)).values())


async def test_a_rate_pays_off_with_time(redis: Redis) -> None:
    """After a burst, one more is let through each sixtieth of a minute's worth, and refusals cost nothing."""
    per_minute = 600  # one in 100 ms
    async with Admission(redis, "e1") as admission:
        for _ in range(per_minute):
            await admission.rate(ALICE, "executes", per_minute)
        refused = 0
        started = time.monotonic()
        while await outcome(admission.rate(ALICE, "executes", per_minute)) != "admitted":
            refused += 1
            assert time.monotonic() - started < 5
            await asyncio.sleep(0.005)
        assert refused < 40, "about 100 ms"
        assert await outcome(admission.rate(ALICE, "other", per_minute)) == "admitted", "each thing has its own rate"
        assert await outcome(admission.rate(BOB, "executes", per_minute)) == "admitted"


async def test_executes_are_limited_per_minute(redis: Redis) -> None:
    """The rate of another thing than connects is refused with its name and limit, and counts no stream."""
    async with Admission(redis, "e1") as admission:
        results = await asyncio.gather(*(outcome(admission.rate(ALICE, "executes", 3)) for _ in range(5)))
        assert Counter(results) == {"admitted": 3, "rate-limited": 2}
        with pytest.raises(Problem, match="more than 3 executes per minute"):
            await admission.rate(ALICE, "executes", 3)
        assert admission.open_for(ALICE) == 0


async def test_a_refused_connection_costs_no_rate(redis: Redis) -> None:
    """Who is over the number of streams is told so, and keeps his rate."""
    async with Admission(redis, "e1", max_connections_per_user=2, connects_per_minute=4) as admission:
        assert await outcomes(admission, ALICE, 9) == {"admitted": 2, "too-many-connections": 7}
        admission.release(ALICE)
        admission.release(ALICE)
        assert await outcomes(admission, ALICE, 2) == {"admitted": 2}
        admission.release(ALICE)
        assert await outcomes(admission, ALICE, 1) == {"rate-limited": 1}


# --- clients that leave, Redis that goes -----------------------------------------------------------------------------


async def test_a_client_that_leaves_while_waiting_takes_no_place(redis: Redis) -> None:
    """Cancelled before, during or right after the call, an admission leaves nothing counted."""
    async with Admission(redis, "e1", max_connections_per_user=50) as admission:
        for turns in range(12):
            tasks = [asyncio.create_task(admission.admit(ALICE)) for _ in range(4)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks[:2]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            admitted = sum(result is None for result in done)
            assert admission.open_for(ALICE) == admitted
            for _ in range(admitted):
                admission.release(ALICE)
        await until(lambda: is_empty(redis))


async def test_a_client_that_leaves_during_the_call_is_taken_out_again(redis: Redis, second: Redis) -> None:
    """Redis counted a stream whose client left meanwhile: a second call corrects it without waiting for a renewal."""
    async with Admission(redis, "e1", max_connections_per_user=50) as admission:
        await redis.config_resetstat()
        await second.client_pause(10_000, all=False)  # scripts wait, and who asks about them does not
        task = asyncio.create_task(admission.admit(ALICE))

        async def arrived() -> bool:
            return bool((await second.info("clients"))["blocked_clients"])

        await until(arrived)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await second.client_unpause()

        async def corrected() -> bool:
            calls = (await second.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
            return bool(calls >= 2)

        await until(corrected)
        assert await is_empty(second)


async def test_a_cancel_in_the_moment_of_admission_counts_nothing(redis: Redis) -> None:
    """A client that leaves after Redis granted its place, but before it could take it, gives the place back."""
    async with Admission(redis, "e1", max_connections_per_user=50) as admission:
        task = asyncio.create_task(admission.admit(ALICE))
        async with asyncio.timeout(5):
            while admission.open_for(ALICE) == 0:
                await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            admission.release(ALICE)
        assert admission.open_for(ALICE) == 0
        await until(lambda: is_empty(redis))


async def test_when_redis_is_away_nobody_gets_in_and_counts_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Redis gone, admissions fail as 503 and count nothing, releases go on, and the log says so once; when it is
    back, admissions work and the counts are true again."""
    monkeypatch.setattr("broker.streams.admission.RETRY_SECONDS", 0.05)
    with EmbeddedRedis() as server:
        redis = connect(server.url)
        async with Admission(redis, "e1", max_connections_per_user=5) as admission:
            await admission.admit(ALICE)
            await admission.admit(BOB)
            server.stop()
            with structlog.testing.capture_logs() as logs:
                for _ in range(3):
                    with pytest.raises(RedisUnavailable) as caught:
                        await admission.admit(ALICE)
                admission.release(BOB)
            problem = to_problem(caught.value)
            assert problem is not None
            assert problem.status == 503
            assert [line["event"] for line in logs] == ["admission_failed"]
            assert (admission.open_for(ALICE), admission.open_for(BOB)) == (1, 0)
            server.start()
            await until(lambda: shows(redis, {"e1": 1}))
            assert await outcome(admission.admit(BOB)) == "admitted"
            assert await counts(redis, BOB) == {"e1": 1}
        await redis.aclose()


async def test_counts_that_cannot_be_written_wait_for_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Redis gone and more to report than a round holds, the edge tries once and waits, and does not spin."""
    monkeypatch.setattr("broker.streams.admission.MAX_BATCH", 1)
    monkeypatch.setattr("broker.streams.admission.FLUSH_SECONDS", 0)
    tries = 0

    def counted(*, transaction: bool) -> Any:
        nonlocal tries
        tries += 1
        return pipeline(transaction=transaction)

    with EmbeddedRedis() as server, structlog.testing.capture_logs():
        redis = connect(server.url)
        async with Admission(redis, "e1", max_connections_per_user=5) as admission:
            owners = [Owner(f"u{number}") for number in range(5)]
            for owner in owners:
                await admission.admit(owner)
            server.stop()
            pipeline = redis.pipeline
            monkeypatch.setattr(redis, "pipeline", counted)
            for owner in owners:
                admission.release(owner)
            await asyncio.sleep(0.2)
            assert tries == 1
        await redis.aclose()


async def test_closing_is_bounded_when_redis_is_away() -> None:
    """Leaving with Redis gone neither hangs nor raises."""
    with EmbeddedRedis() as server:
        redis = connect(server.url)
        started = time.monotonic()
        with structlog.testing.capture_logs():
            async with Admission(redis, "e1", max_connections_per_user=5) as admission:
                await admission.admit(ALICE)
                server.stop()
        assert time.monotonic() - started < under_load(5)
        await redis.aclose()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "admission"]


async def test_an_edge_that_is_not_announced_any_more_has_no_streams(redis: Redis, announced: None) -> None:
    """What it has written does not expire for long; it goes when somebody would be refused because of it."""
    future = now_ms() + 60_000
    await redis.hset(ALICE.connections, mapping={"killed": f"7 {future}", "live": f"1 {future}"})
    async with Admission(redis, "e1", max_connections_per_user=2) as admission:
        assert await outcomes(admission, ALICE, 1) == {"admitted": 1}
        assert await outcomes(admission, ALICE, 1) == {"too-many-connections": 1}
        assert await counts(redis) == {"live": 1, "e1": 1}


async def test_a_clock_that_steps_back_locks_nobody_out(redis: Redis) -> None:
    """What was written an hour ahead, of the rate and of a count, is worth a minute and nothing."""
    hour = 3600 * 1000
    await redis.set(ALICE.rate("connects"), (now_ms() + hour) * 1000)
    async with Admission(redis, "e1", connects_per_minute=600) as admission:
        with pytest.raises(Problem) as refused:
            await admission.admit(ALICE)
        assert int(refused.value.headers["Retry-After"]) <= 1
        await asyncio.sleep(0.25)
        assert await outcome(admission.admit(ALICE)) == "admitted"
    await redis.hset(ALICE.connections, "ahead", f"9 {now_ms() + hour}")
    async with Admission(redis, "e1", max_connections_per_user=1) as admission:
        assert await outcome(admission.admit(ALICE)) == "admitted"
