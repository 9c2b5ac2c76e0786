"""Redis behind Sentinel, and Redis Cluster: the whole way from execute to the viewer, on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.embedded import find_server
from tests.edges import ROOT, EdgeProcess, Follower, call, edges, reserved_ports, stream_path, token_for

HERE = Path(__file__).resolve().parent
ALICE = token_for("alice")
START_SECONDS = 15.0


def ask(port: int, *words: str) -> bytes:
    """The beginning of a server's answer to one command; empty if there is none."""
    command = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(command)
            return connection.recv(4096)
    except OSError:
        return b""


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "the server is not there in time"
        time.sleep(0.05)


@contextlib.contextmanager
def server(port: int, *arguments: str) -> Iterator[None]:
    """A server process on a loopback port."""
    with tempfile.TemporaryDirectory() as directory:
        quiet = ["--save", "", "--loglevel", "warning", "--dir", directory]
        command = [find_server(), *arguments, "--port", str(port), "--bind", "127.0.0.1", *quiet]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            until(lambda: ask(port, "PING").startswith(b"+PONG"))
            yield
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def sentinel() -> Iterator[str]:
    """A primary and the Sentinel that knows where it is."""
    with (
        tempfile.TemporaryDirectory() as directory,
        reserved_ports(2) as (primary, watcher),
        server(primary),
    ):
        configuration = Path(directory) / "sentinel.conf"
        configuration.write_text(f"sentinel monitor mymaster 127.0.0.1 {primary} 1\n")
        with server(watcher, str(configuration), "--sentinel"):
            yield f"redis+sentinel://127.0.0.1:{watcher}/mymaster"


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """A cluster of one node that has all slots."""
    with reserved_ports(2) as (port, bus), server(port, "--cluster-enabled", "yes", "--cluster-port", str(bus)):
        ask(port, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        until(lambda: b"cluster_state:ok" in ask(port, "CLUSTER", "INFO"))
        yield f"redis+cluster://127.0.0.1:{port}"


@contextlib.contextmanager
def worker(redis_url: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "emitter", "e2e_agents:agents", "--grace-seconds", "1", "--log-level", "warning"],
        cwd=HERE,
        env={**os.environ, "RUNCAST_REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(15) == 0


async def known_agents(edge: EdgeProcess) -> None:
    async with asyncio.timeout(15):
        while not (await call(edge.port, "GET", "/api/agent/agents", ALICE)).body["agents"]:
            await asyncio.sleep(0.05)


async def execute(edge: EdgeProcess, agent: str) -> str:
    body = {"task": "t", "agent": agent, "conversationId": "c"}
    answer = await call(edge.port, "POST", "/api/agent/execute", ALICE, body)
    assert answer.status == 202, answer
    return str(answer.body["executionId"])


@pytest.mark.parametrize("topology", [sentinel, cluster])
async def test_an_execution_is_run_watched_answered_and_cancelled(
    topology: Callable[[], contextlib.AbstractContextManager[str]],
) -> None:
    """Edges, workers and emitters find their Redis, and a viewer has exactly the log."""
    with topology() as url, edges(url, 2, heartbeat_seconds=1) as both, worker(url):
        await known_agents(both[0])
        asking = await execute(both[0], "asker")
        async with Follower(both[1:], stream_path(asking), ALICE) as viewer:
            await viewer.until("the question", lambda seen: any(e.type == "input:required" for e in seen.events))
            asked = next(json.loads(e.data)["data"] for e in viewer.events if e.type == "input:required")
            body = {"inputId": asked["inputId"], "value": True}
            answer = await call(both[0].port, "POST", f"/api/agent/executions/{asking}/input", ALICE, body)
            assert answer.status == 202
            await viewer.until_done()
        logged = (await call(both[0].port, "GET", f"/api/agent/executions/{asking}/events", ALICE)).body["events"]
        assert viewer.ids == [each["id"] for each in logged]
        assert logged[-1]["event"]["data"]["result"] == {"approved": True}

        sleeping = await execute(both[1], "sleeper")
        async with Follower(both[:1], stream_path(sleeping), ALICE) as viewer:
            await viewer.until("the thought", lambda seen: any(e.type == "thinking" for e in seen.events))
            await call(both[1].port, "POST", f"/api/agent/executions/{sleeping}/cancel", ALICE, {})
            await viewer.until_done()
        assert viewer.events[-1].type == "execution:cancelled"
        listed = await call(both[0].port, "GET", "/a2a/tasks?contextId=c", ALICE, headers={"A2A-Version": "1.0"})
        assert {task["id"] for task in listed.body["tasks"]} == {asking, sleeping}
