"""Without a living worker the edges look after executions."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emitter.events import ExecutionError, ExecutionSuperseded, Thinking
from tests.edges import edges, under_load
from tests.faults.conftest import ALICE, Stand

# An edge that stands still for more than a second, as on a busy machine, has patience with the lost anew.
pytestmark = pytest.mark.timeout(180)
SECONDS = 90.0

SCRIPT = Path(__file__).parents[1] / "emitter" / "script.py"


async def test_viewers_hear_that_all_workers_are_gone(stand: Stand) -> None:
    """The execution of the last worker, which was killed, waits for another one instead of running for ever."""
    with edges(stand.url, 1, lease_seconds=1):
        worker = stand.worker(lease_seconds=1)
        execution_id = await stand.accept("patient")
        await stand.until(execution_id, Thinking)
        worker.kill()
        assert (await stand.until(execution_id, ExecutionSuperseded, SECONDS)).attempt == 2
        assert await stand.state(execution_id) == "queued"


async def test_an_edge_takes_nothing_from_a_worker_that_lives(stand: Stand) -> None:
    """However long it runs."""
    with edges(stand.url, 1, lease_seconds=1):
        stand.worker(lease_seconds=2)
        execution_id = await stand.accept("steady", steps=100, pause=0.1)
        await stand.all_ended([execution_id], SECONDS)
        assert not [event for event in await stand.events(execution_id) if isinstance(event, ExecutionSuperseded)]


async def test_a_script_that_dies_is_noticed_where_there_never_was_a_worker(stand: Stand) -> None:
    environ = {**os.environ, "RUNCAST_UNHELD_LEASE_SECONDS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    with edges(stand.url, 1, lease_seconds=1):
        command = [sys.executable, str(SCRIPT), stand.url, "ex_script", "60"]
        process = await asyncio.to_thread(subprocess.Popen, command, env=environ, stdout=subprocess.PIPE)
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        record = ALICE.execution("ex_script").record.replace("default", "acme")
        async with asyncio.timeout(under_load(15)):
            while not await stand.redis.hexists(record, "lease"):  # it was renewed
                await asyncio.sleep(0.05)
        process.kill()
        await asyncio.to_thread(process.communicate)
        async with asyncio.timeout(SECONDS):
            while await stand.redis.hget(record, "state") != b"failed":
                await asyncio.sleep(0.1)
        assert ExecutionError.type in (await stand.redis.hget(record, "end")).decode()
