"""An agent that forks stops neither its worker nor itself, and a child that uses its parent's emitter is told so."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter import SyncAgentEmitter
from emitter.store.append import LogLimits
from emitter.store.lifecycle import Lifecycle, Start
from emitter.wire.envelope import decode_envelope
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from tests.edges import eventually
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
ALICE = Owner("alice")


async def begin(redis: Redis, agent: str, number: int = 0) -> str:
    execution_id = f"ex_{agent}_{number}"
    await Lifecycle(redis, LogLimits(), Redactor()).accept(ALICE, execution_id, Start(agent=agent, task="t"))
    return execution_id


async def events(redis: Any, execution_id: str) -> list[Any]:
    rows = await redis.xrange(ALICE.execution(execution_id).log)
    return [decode_envelope(next(iter(fields.values())))[1] for _, fields in rows]


async def end_of(redis: Redis, execution_id: str, seconds: float = 45) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (seen := await events(redis, execution_id)) and seen[-1].type in ("execution:complete", "execution:error"):
            return seen[-1]
        time.sleep(0.05)
    raise AssertionError(f"no end: {[event.type for event in seen]}")


@pytest.fixture
def worker(redis: Redis, redis_url: str) -> Any:
    process = WorkerProcess(redis_url, "fork_agents:agents", HERE, lease_seconds=5, grace_seconds=20)
    yield process
    process.close()


@pytest.mark.parametrize(
    ("agent", "result"), [("pool", "left"), ("terminate", -signal.SIGTERM), ("terminate-at-once", -signal.SIGTERM)]
)
async def test_children_are_ended_and_the_worker_goes_on(
    redis: Redis, worker: WorkerProcess, agent: str, result: object
) -> None:
    """What ends a child ends the child: the worker takes no signal for it and runs the next execution."""
    for number in range(2):
        execution_id = await begin(redis, agent, number)
        assert (await end_of(redis, execution_id)).result == result, number
        assert worker.alive
        assert not worker.logged("worker_stopping")


async def test_a_signal_to_the_group_keeps_the_grace_period(redis: Redis, worker: WorkerProcess) -> None:
    """SIGTERM to the worker and its children, as systemd and Ctrl-C send it, is one signal to the worker."""
    execution_id = await begin(redis, "child-alive")
    deadline = time.monotonic() + 45
    while len(seen := await events(redis, execution_id)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child = int(seen[2].message)
    os.kill(child, signal.SIGTERM)
    worker.send_signal(signal.SIGTERM)
    assert (await end_of(redis, execution_id)).result == "done"
    await eventually("the worker ends", lambda: not worker.alive)
    assert worker.process.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


async def test_a_child_that_uses_its_parents_emitter_is_told(redis: Redis, worker: WorkerProcess) -> None:
    """At once, by an error that says what to do, where it would wait for ever for a thread that it does not have."""
    said = (await end_of(redis, await begin(redis, "emits-in-child"))).result
    assert len(said) == 2
    assert all("another process" in text for text in said)


def test_a_sync_emitter_in_a_forked_child(redis_url: str) -> None:
    """A call raises; leaving the `with` block ends nothing that is the parent's."""
    with SyncAgentEmitter("alice", "ex_forked", redis_url=redis_url) as emitter:
        emitter.execution_started(task="t")
        pid = os.fork()
        if pid == 0:
            try:
                emitter.status("child", "x")
            except RuntimeError:
                emitter.close()
                os._exit(7)
            os._exit(1)
        deadline = time.monotonic() + 20
        while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < deadline, "the child hangs"
            time.sleep(0.02)
        assert os.waitstatus_to_exitcode(ended[1]) == 7
        emitter.execution_complete(result="parent")
