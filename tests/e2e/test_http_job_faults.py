"""Workers over HTTP that die, hang or do not listen, and the other ways in which their executions are started."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from emitter.wire.keys import FENCE_SECRET
from tests.edges import EdgeProcess, call, edges, request, token_for, under_load
from tests.http_workers import (
    BASE,
    OPERATOR,
    HttpWorker,
    announced,
    execute,
    state_of,
    types_of,
    until_ended,
)
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
LEASE_SECONDS = 4.0


@pytest.fixture(scope="module")
def redis_of_jobs() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="module")
def pair(redis_of_jobs: EmbeddedRedis) -> Iterator[list[EdgeProcess]]:
    with edges(redis_of_jobs.url, 2, lease_seconds=LEASE_SECONDS, executes_per_minute=0) as started:
        yield started


def process(edge: EdgeProcess) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "http_worker.py"), f"http://127.0.0.1:{edge.port}", OPERATOR]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def until_killed(worker: subprocess.Popen[str]) -> Iterator[int]:
    """Its attempt; it is killed in the end, with SIGKILL."""
    assert worker.stdout is not None
    try:
        yield int(worker.stdout.readline())
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()


# --- death -----------------------------------------------------------------------------------------------------------


async def test_a_killed_worker_is_missed(pair: list[EdgeProcess]) -> None:
    """When a worker is killed, the edges notice without any worker of ours: its attempt is superseded, and the next
    waits. If that one's worker is killed too, no attempt is left: the execution fails, once."""
    await announced(pair, "doomed")
    execution_id = await execute(pair[0], "doomed")
    for number in (1, 2):
        with until_killed(process(pair[number % 2])) as attempt:
            assert attempt == number
            await asyncio.sleep(1.5 * LEASE_SECONDS)
            assert (await state_of(pair[0], execution_id))["status"] == "running"  # it renews
    state = await until_ended(pair[0], execution_id)
    assert (state["status"], state["error"]["code"]) == ("failed", "worker_lost")
    types = await types_of(pair[0], execution_id)
    assert types == [
        "execution:queued", "execution:started", "execution:superseded", "execution:started", "execution:error",
    ]  # fmt: skip


async def test_a_worker_that_returns_too_late(pair: list[EdgeProcess]) -> None:
    """A worker that was silent for its lease may not go on: others have the job, and it hears so."""
    worker, other = await announced(pair, "late"), HttpWorker(pair, ["late"])
    execution_id = await execute(pair[0], "late")
    job = await worker.one()
    await worker.start(job)
    second = await other.one(20)
    assert (second["executionId"], second["attempt"], second["lost"]) == (execution_id, 2, 1)
    answer = await worker.complete(job)
    assert (answer.status, answer.body["type"]) == (409, "urn:runcast:problem:superseded")
    assert [each["why"] for each in await worker.renew(job)] == ["superseded"]
    await other.complete(second)
    assert (await state_of(pair[0], execution_id))["status"] == "completed"


async def test_the_edge_that_wrote_the_end_dies(redis_of_jobs: EmbeddedRedis, pair: list[EdgeProcess]) -> None:
    """An end whose answer is lost is sent again through another edge, and stands in the log once."""
    worker = await announced(pair, "ends")
    with edges(redis_of_jobs.url, 1, lease_seconds=LEASE_SECONDS) as (doomed,):
        await execute(pair[0], "ends", executionId="ex_ends")
        job = await worker.one()
        producer = {"Producer-Id": "p", "Producer-Seq": "1"}
        first = HttpWorker([doomed], ["ends"], name=worker.name)
        assert (await first.publish(job, "execution:complete", producer, result=1, duration=1)).status == 202
        doomed.kill()
    again = await worker.publish(job, "execution:complete", producer, result=1, duration=1)
    assert (again.status, again.body["appended"]) == (202, 0)
    assert (await types_of(pair[0], "ex_ends")).count("execution:complete") == 1


async def test_redis_loses_the_secret(redis_of_jobs: EmbeddedRedis, pair: list[EdgeProcess]) -> None:
    """Fences that were made with a secret which Redis has lost are refused by nobody but those who have read the new
    one; and the next ones are good at every edge."""
    worker = await announced(pair, "secret")
    client: Any = connect(redis_of_jobs.url)
    await client.delete(FENCE_SECRET)
    await client.aclose()
    for number in range(4):
        await execute(pair[number % 2], "secret")
        job = await worker.one()
        assert {(await worker.renew(job))[0]["state"] for _ in pair} == {"held"}
        assert (await worker.complete(job)).status == 202


# --- limits ----------------------------------------------------------------------------------------------------------


async def test_a_worker_that_ignores_the_time_limit(pair: list[EdgeProcess]) -> None:
    """A worker that goes on over its agent's time limit has its execution ended by the edge, while it renews; whatever
    it publishes then is too late."""
    worker = await announced(pair, {"name": "timed", "timeLimit": 1})
    execution_id = await execute(pair[0], "timed")
    job = await worker.one()
    assert job["limits"]["timeLimit"] == 1
    await worker.start(job)
    assert await _lost(worker, job) == "timeout"
    state = await state_of(pair[0], execution_id)
    assert (state["status"], state["error"]) == (
        "failed", {"error": "over its time limit of 1 s", "code": "timeout", "stack": None},
    )  # fmt: skip
    assert (await worker.complete(job)).status == 409


async def _lost(worker: HttpWorker, job: dict[str, Any], seconds: float = 15) -> Any:
    """Why a job was lost, by renewals that wait."""
    async with asyncio.timeout(under_load(seconds)):
        while (found := (await worker.renew(job, wait_seconds=5))[0])["state"] != "lost":
            pass
    return found["why"]


async def test_a_worker_that_says_nothing(pair: list[EdgeProcess]) -> None:
    """The idle limit counts from the last event; waiting for a person is not idle."""
    worker = await announced(pair, {"name": "idle", "idleLimit": 3.5})
    execution_id = await execute(pair[0], "idle")
    job = await worker.one()
    await worker.start(job)
    began = time.monotonic()
    while time.monotonic() - began < 5:
        assert (await worker.publish(job, "thinking", thought="still here")).status == 202
        assert (await worker.renew(job))[0]["state"] == "held"
        await asyncio.sleep(0.3)
    await worker.publish(job, "input:required", inputId="q", prompt="Go on?", kind="approval")
    began = time.monotonic()
    while time.monotonic() - began < 5:
        assert (await worker.renew(job, wait_seconds=1))[0]["state"] == "held"
    answer = {"inputId": "q", "value": True}
    await call(pair[0].port, "POST", f"{BASE}/{execution_id}/input", token_for("alice"), answer)
    assert await _lost(worker, job) == "timeout"
    assert (await state_of(pair[0], execution_id))["error"]["error"] == "over its idle limit of 3.5 s"


async def test_a_worker_that_does_not_follow_a_cancel(pair: list[EdgeProcess]) -> None:
    """Ten seconds after it was told, the edge ends the execution in its place."""
    worker = await announced(pair, "stubborn")
    execution_id = await execute(pair[0], "stubborn")
    job = await worker.one()
    await worker.start(job)
    await call(pair[0].port, "POST", f"{BASE}/{execution_id}/cancel", token_for("alice"), {"reason": "stop"})
    began = time.monotonic()
    async with asyncio.timeout(under_load(13)):
        while (renewed := (await worker.renew(job))[0])["state"] == "cancel":
            await asyncio.sleep(0.2)
    assert (renewed["state"], renewed["why"]) == ("lost", "ended")
    assert time.monotonic() - began > 9
    assert (await state_of(pair[0], execution_id))["cancelled"] == {"by": "alice", "reason": "stop"}


# --- other ways to start ---------------------------------------------------------------------------------------------


async def test_started_by_an_ai_sdk_chat(pair: list[EdgeProcess]) -> None:
    """A chat with an agent of a worker over HTTP gets its text, and is over with it."""
    worker = await announced(pair, "chatty")
    message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}
    body = json.dumps({"id": "chat-1", "messages": [message], "agent": "chatty"}).encode()
    json_type = {"Content-Type": "application/json"}
    running = asyncio.create_task(_answer(worker))
    port, token = pair[0].port, token_for("alice")
    async with request(port, "POST", "/api/agent/chat", token, headers=json_type, body=body) as chat:
        assert chat.status == 200
        async with asyncio.timeout(under_load(15)):
            text = (await chat.body()).decode()
    assert "Hello yourself" in text
    assert text.rstrip().endswith("data: [DONE]")
    await running


async def _answer(worker: HttpWorker) -> None:
    job = await worker.one()
    assert job["params"]["messages"][-1]["content"] == "Hello"
    await worker.publish(job, "message:complete", messageId="m", text="Hello yourself")
    await worker.complete(job)


async def test_started_over_a2a(pair: list[EdgeProcess]) -> None:
    """An A2A client that sends a message to such an agent gets the task with its result."""
    worker = await announced(pair, {"name": "remote", "description": "Far away"})
    part = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "Hello"}]}
    params = {"message": part, "metadata": {"agent": "remote"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
    sending = asyncio.create_task(
        call(pair[0].port, "POST", "/a2a", token_for("alice"), body, headers={"A2A-Version": "1.0"})
    )
    job = await worker.one()
    assert job["task"] == "Hello"
    await worker.complete(job, "done")
    task = (await sending).body["result"]["task"]
    assert (task["id"], task["status"]["state"]) == (job["executionId"], "TASK_STATE_COMPLETED")


async def test_started_by_a_schedule(redis_of_jobs: EmbeddedRedis, pair: list[EdgeProcess]) -> None:
    """A worker of ours that only has schedules starts the agent of a worker over HTTP."""
    worker = await announced(pair, "scheduled")
    ticking = WorkerProcess(redis_of_jobs.url, "elsewhere_agents:agents", HERE)
    try:
        job = await worker.one(20)
        assert (job["owner"]["user"], job["task"], job["params"]) == ("ops", "Report", {"n": 1})
        assert job["metadata"]["schedule"] == "elsewhere"
        await worker.complete(job, 1)
        assert (await until_ended(pair[0], job["executionId"], "ops"))["result"] == 1
        assert await ticking.stop() == 0, ticking.log_text()
    finally:
        ticking.close()


async def test_delayed_and_by_two_kinds_of_workers(pair: list[EdgeProcess]) -> None:
    """`notBefore` holds for these workers as well."""
    worker = await announced(pair, "delayed")
    at = int(time.time() * 1000) + 4500
    await execute(pair[0], "delayed", notBefore=at)
    assert await worker.claim(1) == []
    job = await worker.one(10)
    assert time.time() * 1000 >= at - 50
    await worker.complete(job)


async def test_who_looks_at_the_workers_sees_them(pair: list[EdgeProcess]) -> None:
    """The operations stream shows such a worker with what it runs, also while it claims nothing; when it is silent, not
    for long."""
    worker = await announced(pair, "seen")
    await worker.claim(0, concurrency=7, host="build-3")
    await execute(pair[0], "seen")
    job = await worker.one(concurrency=7, host="build-3")
    await worker.renew(job)
    async with request(pair[1].port, "GET", "/api/ops/stream", token_for("o", scopes={"ops:read"})) as stream:
        async with asyncio.timeout(under_load(10)):
            async for frame in stream.frames():
                if frame.event == "ops":
                    snapshot = json.loads(frame.data or "")
                    break
    (shown,) = [each for each in snapshot["workers"] if each["id"] == f"default:operator:{worker.name}"]
    assert (shown["running"], shown["concurrency"], shown["host"]) == (1, 7, "build-3")
    await worker.complete(job)
