"""Agents that block their worker's event loop, or end its process: their neighbours do not pay for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from emitter.events import (
    Event,
    ExecutionCancelled,
    ExecutionComplete,
    ExecutionError,
    ExecutionSuperseded,
    Thinking,
)
from tests.edges import eventually
from tests.faults.conftest import ALICE, Stand
from tests.workers import WorkerProcess

pytestmark = pytest.mark.timeout(180)  # a busy machine takes its time

LEASE_SECONDS = 4
"""Longer than a thread that renews leases is held up on a busy machine."""


async def told(worker: WorkerProcess, event: str, execution_id: str) -> dict[str, Any]:
    """The first line of the worker's log about an event of an execution. On a busy machine a loop may stand still for
    other reasons as well."""

    def lines() -> list[dict[str, Any]]:
        return [line for line in worker.logged(event) if line.get("execution") == execution_id]

    await eventually(event, lambda: bool(lines()), 20)
    return lines()[0]


def superseded(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, ExecutionSuperseded)]


async def one_worker_with(stand: Stand, agent: str, innocents: int, **options: Any) -> tuple[WorkerProcess, list[str]]:
    """A worker that runs so many innocent executions of an agent."""
    worker = stand.worker(lease_seconds=LEASE_SECONDS, **options)
    names = [await stand.accept(agent, steps=50, pause=0.1) for _ in range(innocents)]
    for name in names:
        await stand.until(name, Thinking)
    return worker, names


async def test_a_blocked_loop_restarts_nobody(stand: Stand) -> None:
    """An agent blocks the loop for three leases beside four others while a second worker looks on: none of the five is
    restarted, and the log names the agent, its execution, the place and the seconds."""
    worker, innocents = await one_worker_with(stand, "steady", 4)
    blocker = await stand.accept("blocker", seconds=3 * LEASE_SECONDS)
    await stand.until(blocker, Thinking)
    stand.worker(lease_seconds=LEASE_SECONDS)
    await stand.all_ended([blocker, *innocents], 90)
    for name in (blocker, *innocents):
        events = await stand.events(name)
        assert isinstance(events[-1], ExecutionComplete)
        assert not superseded(events)
    line = await told(worker, "loop_blocked", blocker)
    assert line["agent"] == "blocker"
    assert "faulty_agents.py" in line["at"]
    line = await told(worker, "loop_unblocked", blocker)
    assert line["agent"] == "blocker"
    assert line["seconds"] > 2 * LEASE_SECONDS


async def test_a_cancel_is_seen_by_an_agent_that_blocks(stand: Stand) -> None:
    """`context.cancelled` turns true while the agent blocks the loop that would interrupt it."""
    stand.worker(lease_seconds=2)
    blocker = await stand.accept("blocker", seconds=30, step=0.1)
    await stand.until(blocker, Thinking)
    started = time.monotonic()
    await stand.lifecycle.cancel(ALICE, blocker, reason="enough", by="alice")
    assert await stand.until(blocker, ExecutionCancelled) == ExecutionCancelled(reason="enough", by="alice")
    assert time.monotonic() - started < 28, "before it is done"


async def test_a_cancel_ends_an_agent_that_only_blocks(stand: Stand) -> None:
    """One that never looks is cut after the same time as a sync agent; the loop may be blocked for long after that."""
    stand.worker(lease_seconds=2)
    blocker = await stand.accept("blocker", seconds=25)
    await stand.until(blocker, Thinking)
    started = time.monotonic()
    await stand.lifecycle.cancel(ALICE, blocker, reason="enough", by="alice")
    assert await stand.until(blocker, ExecutionCancelled) == ExecutionCancelled(reason="enough", by="alice")
    assert time.monotonic() - started < 23, "before it is done"


async def test_a_time_limit_holds_for_an_agent_that_blocks(stand: Stand) -> None:
    """The execution fails when its limit has passed, not when the agent lets go of the loop; silence that another
    agent has caused counts against nobody's idle limit."""
    worker, (quiet,) = await one_worker_with(stand, "quiet", 1)
    limited = await stand.accept("limited", seconds=12)
    await stand.until(limited, Thinking)
    started = time.monotonic()
    error = await stand.until(limited, ExecutionError)
    assert (error.code, error.error) == ("timeout", "over its time limit of 2 s")
    assert time.monotonic() - started < 11, "before it is done"
    await stand.all_ended([quiet], 90)
    assert isinstance((await stand.events(quiet))[-1], ExecutionComplete)
    assert (await told(worker, "execution_cut", limited))["agent"] == "limited"


async def test_a_loop_that_stays_blocked_is_given_up(stand: Stand) -> None:
    """After `blocked_seconds` the others are handed to another worker as soon as there is one, which is no loss of
    theirs; the lease of the agent that blocks lapses."""
    worker, innocents = await one_worker_with(stand, "steady", 3, blocked_seconds=3)
    blocker = await stand.accept("blocker", seconds=25)
    await stand.until(blocker, Thinking)
    assert (await told(worker, "loop_given_up", blocker))["agent"] == "blocker"
    stand.worker(lease_seconds=LEASE_SECONDS)
    await stand.all_ended(innocents, 90)
    for name in innocents:
        assert isinstance((await stand.events(name))[-1], ExecutionComplete)
        assert await stand.redis.hget(ALICE.execution(name).record, "lost") is None
    await stand.until(blocker, ExecutionSuperseded)
    assert await stand.redis.hget(ALICE.execution(blocker).record, "lost") == b"1"


@pytest.mark.parametrize("workers", [1, 2])
async def test_only_the_execution_that_crashes_its_worker_fails(stand: Stand, workers: int) -> None:
    """A poisonous execution beside four innocent ones, with workers that are restarted each time: it fails as
    `worker_lost`, and they complete."""
    innocents = [await stand.accept("lasting", steps=30, pause=0.1) for _ in range(4)]
    poison = await stand.accept("poison", after=1.0)
    async with stand.kept_up(workers):
        await stand.all_ended([poison, *innocents], 100)
    error = (await stand.events(poison))[-1]
    assert isinstance(error, ExecutionError)
    assert error.code == "worker_lost"
    ends = [(await stand.events(name))[-1] for name in innocents]
    assert [type(end) for end in ends] == [ExecutionComplete] * 4
    assert any([superseded(await stand.events(name)) for name in innocents]), "none ran beside it"
