"""Workers that die, freeze or are stopped: every execution comes to one end, and no attempt writes after its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from broker.cli.embedded import EmbeddedRedis
from emitter import tasks
from emitter.events import (
    Event,
    ExecutionCancelled,
    ExecutionComplete,
    ExecutionError,
    ExecutionStarted,
    ExecutionSuperseded,
    Thinking,
)
from emitter.wire.envelope import decode_envelope
from tests.edges import Received, eventually, under_load
from tests.faults.chaos import invariants
from tests.faults.conftest import ALICE, Stand

pytestmark = pytest.mark.timeout(180)  # a busy machine takes its time


def check(log: Sequence[Received]) -> Event:
    """The invariants of every log; returns its end. An agent that has completed says in which attempt, and after how
    many of the steps that the log has of it."""
    wrong = invariants.dense(log) + invariants.one_end(log) + invariants.fenced(log) + invariants.in_order(log)
    assert not wrong
    assert log[0].type == "execution:queued"
    end = decode_envelope(log[-1].data.encode())[1]
    if isinstance(end, ExecutionComplete):
        attempt = 1 + len(invariants.of(log, "execution:superseded"))
        said = [each for each in invariants.of(log, "thinking") if each["thought"].startswith(f"{attempt} ")]
        assert end.result == {"attempt": attempt, "steps": len(said)}
    return end


# --- one at a time ---


async def test_a_killed_workers_execution_is_tried_again_by_another(stand: Stand) -> None:
    """SIGKILL mid-run is noticed when the lease ends; another worker runs the next attempt to the end."""
    victim = stand.worker()
    execution_id = await stand.accept("patient")
    await stand.until(execution_id, Thinking)
    other = stand.worker()
    await eventually("the other works", lambda: bool(other.logged("worker_started")))
    victim.kill()
    killed_at = time.time() * 1000
    superseded = await stand.until(execution_id, ExecutionSuperseded)
    assert superseded == ExecutionSuperseded(from_seq=1, attempt=2)
    assert (await stand.until(execution_id, ExecutionComplete)).result == 2
    assert other.alive
    (id_,) = [id_ for id_, fields in await stand.redis.xrange(ALICE.execution(execution_id).log) if
              b"execution:superseded" in fields]  # fmt: skip
    assert int(id_.split(b"-")[0]) - killed_at < under_load(15) * 1000
    await stand.nothing_left()


async def test_a_job_that_kills_its_worker_does_not_circulate(stand: Stand) -> None:
    """After `max_attempts` losses the execution fails with `worker_lost`; other executions go on."""
    bad, good = await stand.accept("killer"), await stand.accept("steady")
    async with stand.kept_up(1):
        await stand.all_ended([bad, good], 90)
    written = await stand.written(bad)
    assert len(invariants.of(written, "execution:started")) == 2
    end = check(written)
    assert isinstance(end, ExecutionError)
    assert end.code == "worker_lost"
    assert isinstance(check(await stand.written(good)), ExecutionComplete)


async def test_a_frozen_workers_later_words_are_refused(stand: Stand) -> None:
    """A worker that was stopped for longer than its lease finds its attempt fenced: it writes nothing any more, and
    its agent is cancelled."""
    zombie = stand.worker()
    execution_id = await stand.accept("steady", steps=40, pause=0.1)
    await stand.until(execution_id, Thinking)
    zombie.send_signal(signal.SIGSTOP)
    stand.worker()
    await stand.until(execution_id, ExecutionSuperseded)
    zombie.send_signal(signal.SIGCONT)
    await eventually("its attempt has ended", lambda: bool(zombie.logged("execution_ended")), 30)
    assert zombie.logged("execution_ended")[0]["outcome"] == "lost"
    await stand.all_ended([execution_id], 60)
    assert isinstance(check(await stand.written(execution_id)), ExecutionComplete)


async def test_a_stopped_workers_executions_are_handed_over_at_once(stand: Stand) -> None:
    """SIGTERM with a grace period that is over: another worker starts the next attempt long before the lease ends."""
    leaving = stand.worker(lease_seconds=60)
    execution_id = await stand.accept("patient")
    await stand.until(execution_id, Thinking)
    stand.worker(lease_seconds=60)
    assert await leaving.stop() == 0
    assert (await stand.until(execution_id, ExecutionComplete)).result == 2
    assert ExecutionSuperseded(from_seq=1, attempt=2) in await stand.events(execution_id)


async def test_a_rolling_deploy_spends_no_attempts(stand: Stand) -> None:
    """An agent of one attempt survives workers that are replaced in order."""
    execution_id = await stand.accept("once")
    for attempt in (1, 2, 3):
        worker = stand.worker()
        async with asyncio.timeout(45):
            while f"{attempt} 0" not in [getattr(event, "thought", "") for event in await stand.events(execution_id)]:
                await asyncio.sleep(0.05)
        assert await worker.stop() == 0
    assert await stand.state(execution_id) == "queued"
    stand.worker().kill()
    assert await stand.lifecycle.cancel(ALICE, execution_id, reason=None, by="alice") == "cancelled"
    assert isinstance(check(await stand.written(execution_id)), ExecutionCancelled)


async def test_a_loss_while_cancelling_ends_cancelled(stand: Stand) -> None:
    """A cancel that the dead worker did not hear is not forgotten: no attempt follows."""
    worker = stand.worker()
    execution_id = await stand.accept("patient")
    await stand.until(execution_id, Thinking)
    worker.send_signal(signal.SIGSTOP)
    assert await stand.lifecycle.cancel(ALICE, execution_id, reason="enough", by="alice") == "running"
    worker.kill()
    stand.worker()
    assert await stand.until(execution_id, ExecutionCancelled) == ExecutionCancelled(reason="enough", by="alice")
    assert [type(event) for event in await stand.events(execution_id)].count(ExecutionStarted) == 1


async def test_a_redis_outage_longer_than_the_lease_costs_no_attempt(stand: Stand, own_redis: EmbeddedRedis) -> None:
    """All workers lose Redis for longer than their leases last; when it is back each keeps what it runs."""
    for _ in range(2):
        stand.worker(lease_seconds=3)
    names = [await stand.accept("steady", steps=60, pause=0.1) for _ in range(10)]
    for name in names:
        await stand.until(name, Thinking)
    await stand.redis.execute_command("CLIENT", "PAUSE", "4000", "ALL")
    await stand.all_ended(names, 90)
    for name in names:
        log = await stand.written(name)
        assert isinstance(check(log), ExecutionComplete)
        assert not invariants.of(log, "execution:superseded")


# --- all at once ---


@contextlib.asynccontextmanager
async def chaos(stand: Stand, workers: int, seconds: float) -> AsyncIterator[None]:
    """So many workers, of which one is killed or frozen every so many seconds; the dead ones are replaced. On a busy
    machine a new one takes longer to begin than that, and would never do anything: the next blow waits for it."""

    async def strike() -> None:
        for number in itertools.count():
            stand.replace_dead(workers, concurrency=50, lease_seconds=2)
            await asyncio.sleep(seconds)
            if not all(worker.logged("worker_started") for worker in stand.workers):
                continue
            victim = random.choice(stand.workers)
            if number % 3 < 2:
                victim.kill()
                continue
            victim.send_signal(signal.SIGSTOP)
            await asyncio.sleep(3)
            victim.send_signal(signal.SIGCONT)

    task = asyncio.create_task(strike())
    try:
        yield
    finally:
        await tasks.end([task])


@pytest.mark.timeout(240)
async def test_many_executions_end_once_while_workers_die(stand: Stand) -> None:
    """300 executions through four workers of which one is killed or frozen every other second: each comes to exactly
    one end, its log is dense and fenced, and nothing is left behind."""
    names = [await stand.accept("steady", steps=20, pause=0.1) for _ in range(297)]
    async with chaos(stand, workers=4, seconds=2):
        killers = [await stand.accept("killer") for _ in range(3)]
        await stand.all_ended([*names, *killers], 180)
    superseded = 0
    for name in names:
        log = await stand.written(name)
        assert isinstance(check(log), ExecutionComplete)
        superseded += len(invariants.of(log, "execution:superseded"))
    assert superseded > 0, "no worker was lost: the test showed nothing"
    for name in killers:
        end = check(await stand.written(name))
        assert isinstance(end, ExecutionError)
        assert end.code == "worker_lost"
    await stand.nothing_left()
