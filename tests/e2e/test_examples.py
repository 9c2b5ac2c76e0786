"""The examples run as their first lines say."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.wire.keys import Owner
from tests.edges import ALL_SCOPES, ROOT, EdgeProcess, call, read_log, token_for, under_load, until_announced
from tests.workers import WorkerProcess

EXAMPLES = ROOT / "deploy" / "examples"
ENDS = ("execution:complete", "execution:error")


async def events_of(redis: Redis, execution_id: str, user: str = "alice") -> list[dict[str, Any]]:
    log = await read_log(redis, Owner(user).execution(execution_id).log)
    return [json.loads(event.data) for event in log]


# --- curl ---


def run_script(edge: EdgeProcess, execution_id: str, **environ: str) -> None:
    token = token_for("alice", scopes=ALL_SCOPES)
    given = {**os.environ, "RUNCAST_URL": f"http://127.0.0.1:{edge.port}", "RUNCAST_TOKEN": token, **environ}
    command = [EXAMPLES / "publish.sh", execution_id, str(EXAMPLES)]
    subprocess.run(command, env=given, check=True, timeout=under_load(30), capture_output=True)


async def test_a_shell_script_publishes_an_execution_once(two_edges: list[EdgeProcess], redis: Redis) -> None:
    """The script's events are the log; run again as the same producer, through another edge, it adds nothing."""
    run_script(two_edges[0], "ex_curl", PRODUCER="backup-1")
    types = [event["type"] for event in await events_of(redis, "ex_curl")]
    assert types == [
        "execution:started", "phase:start", "tool:start", "tool:complete", "phase:complete", "progress",
        "execution:complete",
    ]  # fmt: skip
    run_script(two_edges[1], "ex_curl", PRODUCER="backup-1")
    assert [event["type"] for event in await events_of(redis, "ex_curl")] == types


# --- Celery ---


@pytest.fixture
def celery(own_redis: EmbeddedRedis) -> Iterator[dict[str, str]]:
    """A real Celery worker with the example's task, its broker in the same Redis; the environment to queue from."""
    path = own_redis.url.removeprefix("unix://").partition("?")[0]
    environ = {
        **os.environ,
        "RUNCAST_REDIS_URL": own_redis.url,
        "CELERY_BROKER_URL": f"redis+socket://{path}",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "celery", "-A", "celery_task", "worker", "--concurrency=2", "--loglevel=error"]
    worker = subprocess.Popen(command, cwd=EXAMPLES, env=environ, start_new_session=True)
    try:
        yield environ
    finally:
        worker.terminate()
        try:
            worker.wait(under_load(15))
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


async def queue(environ: dict[str, str], execution_id: str, folder: Path) -> None:
    command = [sys.executable, "celery_task.py", "alice", execution_id, str(folder)]
    process = await asyncio.create_subprocess_exec(*command, cwd=EXAMPLES, env=environ)
    assert await asyncio.wait_for(process.wait(), under_load(20)) == 0


async def ended(redis: Redis, execution_id: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(under_load(30)):
        while True:
            events = await events_of(redis, execution_id)
            if events and events[-1]["type"] in ENDS:
                return events
            await asyncio.sleep(0.1)


async def test_a_celery_task_says_what_it_does(celery: dict[str, str], own_author: Any, tmp_path: Path) -> None:
    """The task's phases, tools and progress are in the log; a try that failed is superseded by the next."""
    (tmp_path / "a.py").write_text("1\n2\n")
    (tmp_path / "b.py").write_text("3\n")
    await queue(celery, "ex_celery", tmp_path)
    types = [event["type"] for event in await ended(own_author.redis, "ex_celery")]
    assert types == [
        "execution:started", "phase:start", "tool:start", "tool:complete", "progress", "tool:start", "tool:complete",
        "progress", "phase:complete", "execution:complete",
    ]  # fmt: skip

    (tmp_path / "b.py").unlink()
    (tmp_path / "b.py").mkdir()  # reading it is an OSError, which the task tries again
    await queue(celery, "ex_again", tmp_path)
    async with asyncio.timeout(under_load(20)):
        while not any(event["type"] == "tool:error" for event in await events_of(own_author.redis, "ex_again")):
            await asyncio.sleep(0.05)
    (tmp_path / "b.py").rmdir()
    events = await ended(own_author.redis, "ex_again")
    superseded = [event["data"] for event in events if event["type"] == "execution:superseded"]
    assert superseded[0] == {"fromSeq": 0, "attempt": 2}
    assert [each["attempt"] for each in superseded] == list(range(2, 2 + len(superseded)))
    assert events[-1]["data"]["result"] == {"files": 1, "lines": 2}


# --- LangGraph, steered ---


async def test_a_graph_is_steered_while_it_works(two_edges: list[EdgeProcess], redis_url: str) -> None:
    """What is said during a section changes those after it, and none before; each section is written once."""
    token = token_for("alice")
    worker = WorkerProcess(redis_url, "steered_agent:agents", EXAMPLES, grace_seconds=0)
    try:
        await until_announced(two_edges[0], "writer", 45)
        body = {"agent": "writer", "task": "Rome"}
        answer = await call(two_edges[0].port, "POST", "/api/agent/execute", token, body)
        execution_id = answer.body["executionId"]
        path = f"/api/agent/executions/{execution_id}"
        first = (None, "History, as usual")
        await until(two_edges[0], path, lambda state: (state["activity"] or {}).get("message") not in first)
        said = await call(two_edges[1].port, "POST", path + "/messages", token, {"text": "shorter"})
        assert said.status == 202
        state = await until(two_edges[0], path, lambda state: state["status"] == "completed")
        page = (await call(two_edges[0].port, "GET", path + "/events", token)).body["events"]
    finally:
        worker.close()
    types = [each["event"]["type"] for each in page]
    before = types[: types.index("user:message:taken")].count("status")
    assert before == types[: types.index("user:message")].count("status") < 5, "taken before the next one began"
    manners = ["as usual"] * before + ["shorter"] * (5 - before)
    titles = ("History", "Food", "Sights", "Getting there", "Where to stay")
    assert state["result"] == [f"{title} of Rome ({how})." for title, how in zip(titles, manners, strict=True)]
    assert [message["state"] for message in state["userMessages"]] == ["taken"]


async def until(edge: EdgeProcess, path: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The state of the execution once it is so."""
    async with asyncio.timeout(60):
        while not condition(state := (await call(edge.port, "GET", path, token_for("alice"))).body):
            await asyncio.sleep(0.05)
    return dict(state)
