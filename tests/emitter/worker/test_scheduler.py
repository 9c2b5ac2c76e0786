"""Ticks become executions, each once, against a real server: what is started, by whom, and what is made up for."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from broker.cli.embedded import EmbeddedRedis
from emitter.events import ExecutionComplete
from emitter.store import jobs
from emitter.store.append import APPEND_SCRIPT, LogLimits, append, prepare
from emitter.store.connection import GONE, connect
from emitter.store.lifecycle import Lifecycle
from emitter.tasks import told_to_stop
from emitter.wire.envelope import decode_envelope
from emitter.wire.keys import SCHEDULES, Owner, jobs_key, member
from emitter.wire.redact import Redactor
from emitter.worker import scheduler
from emitter.worker.agents import Agents, Context
from emitter.worker.scheduler import KEPT_MS, Mark, Scheduler, read_mark
from emitter.worker.worker import Worker, WorkerSettings
from tests.emitter.lossy import lossy
from tests.faults.outages import normal_connections_killed, redis_stopped

OPS = Owner("ops")
MONTH = 30 * 86_400
"""Seconds between ticks that do not come by themselves while a test runs; a mark set back makes one due."""


def agents_with(**schedules: dict[str, Any]) -> Agents:
    agents = Agents()
    agents.agent("writer")(work)
    for name, options in schedules.items():
        agents.schedule(name, **{"agent": "writer", "user_id": "ops", "task": "Report", "every": MONTH, **options})
    return agents


async def work(context: Context) -> Any:
    return context.metadata


def scheduler_of(redis: Redis, agents: Agents | None = None, **limits: int) -> Scheduler:
    """By default one with the schedule `monthly`."""
    schedules = (agents or agents_with(monthly={})).schedules
    return Scheduler(redis, Lifecycle(redis, LogLimits(**limits), Redactor()), schedules)


async def latest(redis: Redis) -> int:
    """The month's tick that has come last."""
    return await jobs.redis_ms(redis) // (MONTH * 1000) * MONTH * 1000


async def mark_of(redis: Redis, name: str = "monthly") -> Mark | None:
    stored: Any = await redis.hget(SCHEDULES, name)
    return read_mark(stored or b"")


async def set_mark(redis: Redis, mark: Mark, *names: str) -> None:
    for name in names or ("monthly",):
        await redis.hset(SCHEDULES, name, msgspec.json.encode(mark))


async def missed(redis: Redis, ticks: int, *names: str) -> int:
    """The mark stands so many ticks back, as after a time without workers; the tick that is due."""
    tick = await latest(redis)
    await set_mark(redis, Mark(tick=tick - ticks * MONTH * 1000), *names)
    return tick


async def started(redis: Redis, owner: Owner = OPS) -> list[str]:
    """Ids of the owner's executions."""
    ids: Any = await redis.zrange(owner.index, 0, -1)
    return [id_.decode() for id_ in ids]


async def types_of(redis: Redis, execution_id: str) -> list[str]:
    rows: Any = await redis.xrange(OPS.execution(execution_id).log)
    return [next(iter(fields)).decode() for _, fields in rows]


async def finish(redis: Redis, execution_id: str) -> None:
    event = prepare(ExecutionComplete(result=1, duration=1.0), execution_id, redact=Redactor())
    await append(redis, OPS, execution_id, [event])


# --- which ticks -----------------------------------------------------------------------------------------------------


async def test_a_new_schedule_starts_with_its_next_tick(redis: Redis) -> None:
    """The first look starts nothing, however long the latest tick is past; the mark says from where on."""
    tick = await latest(redis)
    assert await scheduler_of(redis).start_due() >= tick
    assert await mark_of(redis) == Mark(tick=tick)
    await scheduler_of(redis).start_due()
    assert await started(redis) == []


async def test_a_due_tick_starts_its_execution(redis: Redis) -> None:
    """Everything registered is in the record, and the metadata say which tick it was; it waits for a worker."""
    agents = agents_with(monthly={"org": "acme", "params": {"n": 1}})
    tick = await missed(redis, 1)
    with capture_logs() as logs:
        await scheduler_of(redis, agents).start_due()
    owner = Owner("ops", "acme")
    (execution_id,) = await started(redis, owner)
    assert execution_id == agents.schedules[0].execution_id(tick)
    stored: Any = await redis.hgetall(owner.execution(execution_id).record)
    record = {name.decode(): value.decode() for name, value in stored.items()}
    assert (record["state"], record["task"], record["agent"], record["params"]) == (
        "queued", "Report", "writer", '{"n":1}',
    )  # fmt: skip
    assert json.loads(record["metadata"]) == {"schedule": "monthly", "tick": tick}
    assert await redis.xlen(jobs_key("writer")) == 1
    (line,) = [line for line in logs if line["event"] == "tick_started"]
    assert (line["schedule"], line["tick"], line["execution"]) == ("monthly", tick, execution_id)


async def test_of_missed_ticks_the_latest_is_made_up_for(redis: Redis) -> None:
    """After a time without workers one execution starts, that of the last tick, and no more at the next looks."""
    tick = await missed(redis, 5)
    mine = scheduler_of(redis)
    for _ in range(3):
        await mine.start_due()
    assert await started(redis) == [agents_with(monthly={}).schedules[0].execution_id(tick)]
    mark = await mark_of(redis)
    assert mark is not None
    assert (mark.tick, mark.accepted) == (tick, True)


async def test_a_cron_tick_that_was_missed_is_made_up_for(redis: Redis) -> None:
    """An expression's ticks are those of its timezone, by the clock of Redis."""
    agents = agents_with(monthly={"every": None, "cron": "0 3 1 * *", "timezone": "Europe/Vienna"})
    tick = agents.schedules[0].ticks.latest(await jobs.redis_ms(redis))
    assert tick is not None
    await set_mark(redis, Mark(tick=tick - 1))
    await scheduler_of(redis, agents).start_due()
    assert await started(redis) == [agents.schedules[0].execution_id(tick)]


async def test_a_changed_schedule_goes_on_from_its_mark(redis: Redis) -> None:
    """With another interval, what was due before the mark stays past, and what came after it is made up for."""
    await missed(redis, 1)
    await scheduler_of(redis).start_due()
    moved = agents_with(monthly={"offset": 1})
    await scheduler_of(redis, moved).start_due()
    assert len(await started(redis)) == 2
    await scheduler_of(redis).start_due()
    assert len(await started(redis)) == 2


async def test_a_clock_that_was_ahead_does_not_silence_a_schedule(redis: Redis) -> None:
    """A mark in the future goes back to the present, and an execution that exists is not started again."""
    tick = await missed(redis, 1)
    mine = scheduler_of(redis)
    await mine.start_due()
    (execution_id,) = await started(redis)
    await finish(redis, execution_id)
    await set_mark(redis, Mark(tick=tick + 10 * MONTH * 1000))
    await mine.start_due()
    assert await mark_of(redis) == Mark(tick=tick)
    await missed(redis, 1)
    await mine.start_due()
    assert await started(redis) == [execution_id]
    assert await types_of(redis, execution_id) == ["execution:queued", "execution:complete"]


@pytest.mark.parametrize(
    "stored",
    [b"{", b"\xff", b"[]", b'{"tick":"soon"}', b"1763682345123", b'{"tick":1,"execution":"ex_1","accepted":false}'],
)
async def test_an_unreadable_mark_is_begun_anew(redis: Redis, stored: bytes) -> None:
    """What somebody else wrote there starts nothing, and stops nothing for ever."""
    await redis.hset(SCHEDULES, "monthly", stored)
    await scheduler_of(redis).start_due()
    assert await mark_of(redis) == Mark(tick=await latest(redis))
    assert await started(redis) == []


# --- once ------------------------------------------------------------------------------------------------------------


async def test_many_workers_start_a_tick_once(redis: Redis, redis_url: str) -> None:
    """Twenty that look at the same moment: one event, one job, and all but one of them did nothing."""
    await missed(redis, 1)
    clients = [connect(redis_url) for _ in range(20)]
    with capture_logs() as logs:
        await asyncio.gather(*(scheduler_of(client).start_due() for client in clients))
    await asyncio.gather(*(client.aclose() for client in clients))
    (execution_id,) = await started(redis)
    assert await types_of(redis, execution_id) == ["execution:queued"]
    assert await redis.xlen(jobs_key("writer")) == 1
    assert [line["event"] for line in logs].count("tick_started") == 1


async def claim_unfinished(redis: Redis, *, claimed_at: int | None = None) -> str:
    """A worker claimed the latest tick and went away before it said that the execution was accepted."""
    tick = await latest(redis)
    execution_id = agents_with(monthly={}).schedules[0].execution_id(tick)
    at = await jobs.redis_ms(redis) if claimed_at is None else claimed_at
    name = member(OPS, execution_id)
    await set_mark(redis, Mark(tick=tick, execution=name, claimed_at=at, accepted=False))
    return execution_id


async def test_a_claim_whose_worker_died_is_finished_by_the_next(redis: Redis) -> None:
    """The tick is not lost with the worker that took it."""
    execution_id = await claim_unfinished(redis)
    await scheduler_of(redis).start_due()
    assert await started(redis) == [execution_id]
    mark = await mark_of(redis)
    assert mark is not None
    assert (mark.execution, mark.accepted) == (member(OPS, execution_id), True)


async def test_a_claim_that_was_carried_out_is_not_again(redis: Redis) -> None:
    """The worker died just before it could say so; even if the execution has ended meanwhile, it is the only one."""
    await missed(redis, 1)
    await scheduler_of(redis).start_due()
    (execution_id,) = await started(redis)
    await finish(redis, execution_id)
    assert await claim_unfinished(redis) == execution_id
    await scheduler_of(redis).start_due()
    assert await types_of(redis, execution_id) == ["execution:queued", "execution:complete"]
    mark = await mark_of(redis)
    assert mark is not None
    assert mark.accepted


async def test_a_claim_older_than_what_is_kept_is_left_alone(redis: Redis) -> None:
    """Whether its execution ran, nobody can know any more; it does not run twice, and the next tick goes on."""
    await claim_unfinished(redis, claimed_at=await jobs.redis_ms(redis) - KEPT_MS - 1)
    await scheduler_of(redis).start_due()
    assert await started(redis) == []
    mark = await mark_of(redis)
    assert mark is not None
    await set_mark(redis, msgspec.structs.replace(mark, tick=mark.tick - 1))
    await scheduler_of(redis).start_due()
    assert len(await started(redis)) == 1


async def test_a_claim_is_for_one_only(redis: Redis) -> None:
    """Who acts on a mark that has moved meanwhile changes nothing."""
    await missed(redis, 1)
    late, schedule = scheduler_of(redis), agents_with(monthly={}).schedules[0]
    now, (stored,) = await late._look()
    assert stored is not None
    await set_mark(redis, Mark(tick=now, execution="default:ops:sch_other"))
    await late._advance(schedule, stored, now)
    assert await started(redis) == []
    assert await mark_of(redis) == Mark(tick=now, execution="default:ops:sch_other")


@pytest.mark.parametrize("loss", ["lose_replies", "lose_requests"])
async def test_a_start_that_was_cut_off_is_made_whole(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, loss: str
) -> None:
    """Whether the execution was accepted before the connection broke or not: the next look leaves exactly one."""
    await redis.script_load(APPEND_SCRIPT)
    tick = await missed(redis, 1)
    async with lossy(str(redis_server.socket_path), tmp_path) as (proxy, url):
        client = connect(url)
        setattr(proxy, loss, 2)  # an append is repeated once
        mine = scheduler_of(client)
        with pytest.raises(GONE):
            await mine.start_due()
        mark = await mark_of(redis)
        assert mark is not None
        assert (mark.tick, mark.accepted) == (tick, False)
        assert len(await started(redis)) == (1 if loss == "lose_replies" else 0)
        await mine.start_due()
        await client.aclose()
    (execution_id,) = await started(redis)
    assert await types_of(redis, execution_id) == ["execution:queued"]
    assert await redis.xlen(jobs_key("writer")) == 1


async def test_lost_replies_start_nothing_twice(own_redis: EmbeddedRedis) -> None:
    """While connections are killed with their replies on the way, each due tick is one execution, and none is lost."""
    names = [f"s{number}" for number in range(30)]
    agents = agents_with(**{name: {} for name in names})
    truth, *clients = (connect(own_redis.url) for _ in range(4))
    await missed(truth, 1, *names)
    killer = connect(own_redis.url)
    async with normal_connections_killed(killer, every_seconds=0.01), asyncio.timeout(30):
        cuts = await asyncio.gather(*(until_all_started(scheduler_of(client, agents)) for client in clients))
    assert sum(cuts) > 0
    with contextlib.suppress(*GONE):
        await truth.ping()  # its connection is one of the killed
    ids = await started(truth)
    assert sorted(ids) == sorted([schedule.execution_id(await latest(truth)) for schedule in agents.schedules])
    assert [await types_of(truth, id_) for id_ in ids] == [["execution:queued"]] * len(ids)
    assert [mark.accepted for name in names if (mark := await mark_of(truth, name))] == [True] * len(names)
    await asyncio.gather(*(client.aclose() for client in (truth, killer, *clients)))


async def until_all_started(mine: Scheduler) -> int:
    """Look again and again, as a worker's loop does, until one was cut off, and two in a row came through; how many
    were cut off."""
    cuts = whole = 0
    while (whole < 2 or not cuts) and not told_to_stop():
        try:
            await mine.start_due()
            whole += 1
        except GONE:
            cuts, whole = cuts + 1, 0
    return cuts


# --- overlap ---------------------------------------------------------------------------------------------------------


async def test_without_overlap_a_tick_is_left_out_while_the_last_one_runs(redis: Redis) -> None:
    """However many ticks come meanwhile; the first one after its end starts again."""
    mine = scheduler_of(redis, agents_with(monthly={"overlap": False}))
    await missed(redis, 1)
    await mine.start_due()
    (first,) = await started(redis)
    for _ in range(2):
        with capture_logs() as logs:
            await one_tick_later(redis)
            await mine.start_due()
        assert [line["event"] for line in logs] == ["tick_skipped"]
        assert await started(redis) == [first]
    await finish(redis, first)
    await mine.start_due()
    assert await started(redis) == [first], "a tick that was left out is not made up for"
    await redis.delete(OPS.execution(first).log, OPS.execution(first).record)  # the due tick here is always the same
    await one_tick_later(redis)
    await mine.start_due()
    assert await types_of(redis, first) == ["execution:queued"]


async def one_tick_later(redis: Redis) -> None:
    """The same as if time had gone on: the mark stands one tick further back."""
    mark = await mark_of(redis)
    assert mark is not None
    await set_mark(redis, msgspec.structs.replace(mark, tick=mark.tick - 1))


async def test_with_overlap_a_tick_does_not_wait_for_the_last_one(redis: Redis) -> None:
    """By default each tick starts, whatever became of the one before."""
    agents = agents_with(monthly={"every": 1})
    mine = scheduler_of(redis, agents)
    await mine.start_due()
    async with asyncio.timeout(10):
        while len(await started(redis)) < 2:
            await mine.step()
    assert [await types_of(redis, id_) for id_ in await started(redis)] == [["execution:queued"]] * 2


# --- what fails ------------------------------------------------------------------------------------------------------


async def test_a_tick_that_can_never_be_accepted_is_given_up(redis: Redis) -> None:
    """It is said once, and the other schedules, and its own next ticks, go on."""
    agents = agents_with(big={"task": "x" * 5000}, small={})
    mine = scheduler_of(redis, agents, max_event_bytes=1024)
    tick = await missed(redis, 1, "big", "small")
    with capture_logs() as logs:
        await mine.start_due()
        await mine.start_due()
    failed = [line for line in logs if line["event"] == "schedule_failed"]
    assert [(line["schedule"], line["tick"]) for line in failed] == [("big", tick)]
    assert await started(redis) == [agents.schedules[1].execution_id(tick)]


async def test_a_tick_that_cannot_be_accepted_now_is_tried_again(redis: Redis) -> None:
    """An error of Redis about one schedule's keys leaves the others alone, and the claim to the next look."""
    agents = agents_with(broken={"user_id": "other"}, sound={})
    mine = scheduler_of(redis, agents)
    tick = await missed(redis, 1, "broken", "sound")
    record = Owner("other").execution(agents.schedules[0].execution_id(tick)).record
    await redis.set(record, "not a hash")
    with capture_logs() as logs:
        await mine.start_due()
    assert [line["schedule"] for line in logs if line["event"] == "schedule_failed"] == ["broken"]
    assert await started(redis) == [agents.schedules[1].execution_id(tick)]
    await redis.delete(record)
    await mine.start_due()
    assert await started(redis, Owner("other")) == [agents.schedules[0].execution_id(tick)]


# --- workers ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def working(url: str, agents: Agents, count: int = 1) -> AsyncIterator[list[Worker]]:
    settings = WorkerSettings(redis_url=url, lease_seconds=3.0, grace_seconds=5.0, block_ms=100)
    workers = [Worker(agents, settings) for _ in range(count)]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.stop()
        async with asyncio.timeout(15):
            await asyncio.gather(*tasks)


async def ended(redis: Redis, count: int) -> list[tuple[int, int, list[str]]]:
    """Wait until so many executions have ended. Of every one in order: its tick, when it was accepted, its events."""
    async with asyncio.timeout(20):
        while True:
            found = [await story(redis, id_) for id_ in await started(redis)]
            if sum(types[-1] == "execution:complete" for _, _, types in found) >= count:
                return found
            await asyncio.sleep(0.05)


def begun(stories: list[tuple[int, int, list[str]]]) -> list[tuple[int, int, list[str]]]:
    """Without the last ones if no worker has begun them: those came this moment, or while the workers stopped."""
    while stories and stories[-1][2] == ["execution:queued"]:
        stories = stories[:-1]
    return stories


async def story(redis: Redis, execution_id: str) -> tuple[int, int, list[str]]:
    rows: Any = await redis.xrange(OPS.execution(execution_id).log)
    stored: Any = await redis.hget(OPS.execution(execution_id).record, "metadata")
    return json.loads(stored)["tick"], int(rows[0][0].split(b"-")[0]), [next(iter(row)).decode() for _, row in rows]


async def test_five_workers_start_and_run_every_tick_once(redis: Redis, redis_url: str) -> None:
    """With a tick every three seconds and five workers, there is one execution for each tick, none is left out and none
    comes early; each runs once, and its agent sees its tick."""
    async with working(redis_url, agents_with(pulse={"every": 3}), 5):  # a standstill that spans two would cost one
        await ended(redis, 3)
    stories = [await story(redis, id_) for id_ in await started(redis)]
    ticks = [tick for tick, _, _ in stories]
    assert ticks == list(range(ticks[0], ticks[0] + 3000 * len(ticks), 3000))
    assert ticks[0] % 3000 == 0
    assert all(accepted_at >= tick for tick, accepted_at, _ in stories)
    assert {tuple(types) for _, _, types in begun(stories)} == {
        ("execution:queued", "execution:started", "execution:complete"),
    }
    (first, *_) = await started(redis)
    stored: Any = await redis.hget(OPS.execution(first).record, "end")
    _, end = decode_envelope(stored)
    assert isinstance(end, ExecutionComplete)
    assert end.result == {"schedule": "pulse", "tick": ticks[0]}


async def test_a_worker_that_starts_makes_up_for_the_latest_tick_only(redis: Redis, redis_url: str) -> None:
    """A restart after five missed ticks runs one; a restart right after it runs none."""
    agents = agents_with(monthly={}, pulse={"every": 1, "user_id": "clock"})
    tick = await missed(redis, 5)
    async with working(redis_url, agents):
        await ended(redis, 1)
    await redis.delete(Owner("clock").index)
    async with working(redis_url, agents), asyncio.timeout(15):
        while not await started(redis, Owner("clock")):  # so the schedules were looked at
            await asyncio.sleep(0.05)
    assert [(told, types) for told, _, types in await ended(redis, 1)] == [
        (tick, ["execution:queued", "execution:started", "execution:complete"])
    ]


async def test_a_schedule_goes_on_after_redis_was_away(own_redis: EmbeddedRedis) -> None:
    """Redis stands still over some ticks: the workers stay, go on, and no tick has two executions."""
    redis = connect(own_redis.url)
    async with working(own_redis.url, agents_with(pulse={"every": 1}), 2):
        before = len(await ended(redis, 1))
        with redis_stopped(own_redis):
            await asyncio.sleep(1.5)
        stories = await ended(redis, before + 2)
    ticks = [tick for tick, _, _ in stories]
    assert ticks == sorted(set(ticks))
    for _, _, types in begun(stories):
        assert types.count("execution:queued") == types.count("execution:started") == 1
    await redis.aclose()


async def test_a_tick_while_redis_was_away_is_made_up_for(
    own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came due while no connection held starts when one does again, not at the tick after it."""
    monkeypatch.setattr(scheduler, "LOOK_SECONDS", 0.1)
    redis, killer = connect(own_redis.url, retries=20), connect(own_redis.url)
    async with working(own_redis.url, agents_with(monthly={})):
        async with asyncio.timeout(10):
            while await mark_of(redis) is None:
                await asyncio.sleep(0.02)
        with capture_logs() as logs:
            async with normal_connections_killed(killer), asyncio.timeout(10):
                tick = await missed(redis, 1)
                while not [line for line in logs if line.get("loop") == "schedule"]:
                    await asyncio.sleep(0.02)
        stories = await ended(redis, 1)
    assert [(told, types.count("execution:queued")) for told, _, types in stories] == [(tick, 1)]
    await asyncio.gather(redis.aclose(), killer.aclose())
