"""Plug-ins end to end: the example package, installed, named in the environment of an edge and of a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from emitter import AgentEmitter
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from tests.edges import (
    ALL_SCOPES,
    ROOT,
    Answer,
    EdgeProcess,
    Follower,
    Received,
    call,
    edge,
    read_log,
    stream_path,
    under_load,
    until_announced,
)
from tests.edges import token_for as token
from tests.plugins import install, install_example

HERE = Path(__file__).resolve().parent
HOOKS = "drop_invisible,redact_mail,add_cost,strict"
MAIL = "bob@example.com"
STRICT = """
def strict(event, origin):
    if "boom" in repr(event):
        raise RuntimeError(f"no {event}")
    return event
"""
ALICE = token("alice", scopes=ALL_SCOPES)
STARTED = {"type": "execution:started", "data": {"task": f"Write to {MAIL}", "startedAt": 1, "attempt": 1}}
HIDDEN = {"type": "thinking", "data": {"thought": "hm", "visible": False}}
TEXT = {"type": "message:delta", "data": {"messageId": "m1", "delta": f"I wrote to {MAIL}."}}
USAGE = {
    "type": "usage",
    "data": {"inputTokens": 1000, "outputTokens": 100, "totalTokens": 1100, "model": "example-small"},
}
SENT = {"type": "custom:sent", "data": {"to": MAIL}}
BOOM = {"type": "status", "data": {"status": "boom", "message": MAIL}}
DONE = {"type": "execution:complete", "data": {"result": {"to": MAIL}, "duration": 1}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the example package and a hook that fails, on the import path of what starts from here."""
    path = tmp_path_factory.mktemp("site")
    install_example(path)
    install(path, "rc_strict", {"strict": "rc_strict:strict"}, STRICT)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(path)]))
        yield path


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="module")
def hooked(site: Path, server: EmbeddedRedis) -> Iterator[EdgeProcess]:
    """An edge with hooks."""
    with edge(server.url, hooks=HOOKS, executes_per_minute=0) as started:
        yield started


@pytest.fixture(scope="module")
def worker(site: Path, server: EmbeddedRedis) -> Iterator[None]:
    """A worker with hooks."""
    environ = {**os.environ, "RUNCAST_REDIS_URL": server.url, "RUNCAST_HOOKS": HOOKS}
    command = [sys.executable, "-m", "emitter", "hook_agents:agents", "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=HERE, env=environ)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(under_load(15)) == 0


async def publish(port: int, execution_id: str, *events: dict[str, Any], seq: int | None = None) -> Answer:
    lines = b"\n".join(json.dumps(event).encode() for event in events)
    headers = {"Content-Type": "application/x-ndjson"}
    if seq is not None:
        headers |= {"Producer-Id": "p", "Producer-Seq": str(seq)}
    return await call(port, "POST", f"/api/agent/executions/{execution_id}/events", ALICE, lines, headers=headers)


async def log_of(server: EmbeddedRedis, execution_id: str) -> list[Received]:
    async with connect(server.url) as client:
        return await read_log(client, Owner("alice").execution(execution_id).log)


def data_of(log: list[Received]) -> dict[str, Any]:
    return {event.type: json.loads(event.data)["data"] for event in log}


def check_hooked(log: list[Received]) -> None:
    """What the three hooks leave of the events that both agents of these tests have."""
    data = data_of(log)
    assert "thinking" not in data
    assert data["message:delta"]["delta"] == "I wrote to [e-mail]."
    assert data["usage"]["costUsd"] == 0.000375
    assert data["custom:sent"] == {"to": "[e-mail]"}
    assert data["execution:complete"]["result"] == {"to": "[e-mail]"}


async def test_what_is_published_over_http_passes_the_edges_hooks(hooked: EdgeProcess, server: EmbeddedRedis) -> None:
    """Redacted, enriched and dropped before anything is stored; a repeated request adds nothing; who watches sees
    exactly the log."""
    for appended in (4, 0):
        answer = await publish(hooked.port, "ex_http", STARTED, HIDDEN, TEXT, USAGE, HIDDEN, SENT, HIDDEN, seq=1)
        assert (answer.status, answer.body["appended"]) == (202, appended)
    all_dropped = await publish(hooked.port, "ex_http", HIDDEN, seq=8)
    assert all_dropped.body == answer.body
    assert (await publish(hooked.port, "ex_http", DONE, seq=9)).body["appended"] == 1
    assert [hooked.metric("runcast_publish_total", result=name) for name in ("ok", "repeated")] == [3, 1]
    log = await log_of(server, "ex_http")
    check_hooked(log)
    assert MAIL not in str(log)
    assert [event.id.split("-")[1] for event in log] == ["1", "2", "3", "4", "5"]
    async with Follower([hooked], stream_path("ex_http"), ALICE) as viewer:
        await viewer.until_done()
    assert viewer.events == log


async def test_a_hook_that_fails_at_the_edge_stores_nothing(hooked: EdgeProcess, server: EmbeddedRedis) -> None:
    """The request is refused as a whole, as the edge's failure and under the hook's name; the edge's log says so too,
    and neither says what the event said."""
    answer = await publish(hooked.port, "ex_boom", STARTED, BOOM)
    assert (answer.status, answer.body["type"]) == (500, "urn:runcast:problem:hook-failed")
    assert (answer.body["hook"], answer.body["detail"]) == (
        "strict",
        "line 2: hook 'strict' failed on status: RuntimeError",
    )
    assert answer.headers["content-type"] == "application/problem+json"
    assert await log_of(server, "ex_boom") == []
    [line] = hooked.logged("hook_failed")
    assert (line["hook"], line["at"], line["execution"]) == ("strict", "rc_strict.py:4", "ex_boom")
    assert MAIL not in str(answer.body) + hooked.log_text()
    assert hooked.metric("runcast_publish_total", result="error") == 1


async def run_agent(at: EdgeProcess, agent: str) -> str:
    """Start an agent, once the worker has announced it, and wait for its end; the execution's id."""
    await until_announced(at, agent)
    answer = await call(at.port, "POST", "/api/agent/execute", ALICE, {"task": "t", "agent": agent})
    execution_id: str = answer.body["executionId"]
    async with Follower([at], stream_path(execution_id), ALICE) as viewer:
        await viewer.until_done()
    return execution_id


@pytest.mark.usefixtures("worker")
async def test_a_workers_agents_pass_its_hooks(hooked: EdgeProcess, server: EmbeddedRedis) -> None:
    """What the environment of a worker names is applied to everything that its agents emit."""
    log = await log_of(server, await run_agent(hooked, "writer"))
    check_hooked(log)
    assert MAIL not in str(log)


@pytest.mark.usefixtures("worker")
async def test_an_agent_whose_result_a_hook_fails_on_has_failed(hooked: EdgeProcess, server: EmbeddedRedis) -> None:
    """The execution has one end, which names the hook and nothing else; it is not tried again."""
    execution_id = await run_agent(hooked, "unlucky")
    log = await log_of(server, execution_id)
    assert [event.type for event in log] == ["execution:queued", "execution:started", "execution:error"]
    assert data_of(log)["execution:error"] == {"error": "hook 'strict' failed", "code": "hook_failed"}
    state = await call(hooked.port, "GET", f"/api/agent/executions/{execution_id}", ALICE)
    assert (state.body["status"], state.body["attempt"]) == ("failed", 1)
    assert state.body["error"].get("stack") is None


async def test_an_emitter_in_a_process_of_its_own_has_the_environments_hooks(
    site: Path, server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that only makes an `AgentEmitter` need not know of them."""
    monkeypatch.setenv("RUNCAST_HOOKS", HOOKS)
    async with AgentEmitter("alice", "ex_script", redis_url=server.url) as emitter:
        await emitter.thinking("who is bob?", visible=False)
        await emitter.text(f"I wrote to {MAIL}.")
        await emitter.usage(input_tokens=1000, output_tokens=100, model="example-small")
        await emitter.custom("sent", {"to": MAIL})
        await emitter.execution_complete({"to": MAIL})
    log = await log_of(server, "ex_script")
    check_hooked(log)
    assert MAIL not in str(log)


def test_a_hook_that_is_not_installed_stops_the_start(site: Path, server: EmbeddedRedis) -> None:
    """Edge and worker end with 2 and one line that has the variable, its value and what is installed."""
    broken = EdgeProcess(server.url, hooks="redact_mail,nope").start()
    environ = {**os.environ, "RUNCAST_HOOKS": "redact_mail,nope"}
    command = [sys.executable, "-m", "emitter", "hook_agents:agents"]
    worker = subprocess.run(
        command, cwd=HERE, env=environ, capture_output=True, text=True, timeout=under_load(20), check=False
    )
    assert (broken.wait(), worker.returncode) == (2, 2)
    for text in (broken.log_text(), worker.stderr):
        said = [line for line in text.splitlines() if not line.startswith("{")]
        assert len(said) == 1, text
        assert "RUNCAST_HOOKS: 'redact_mail,nope' is not allowed" in said[0]
        assert "(add_cost, drop_invisible, redact_mail, strict)" in said[0]
        assert "there is no 'nope'" in said[0]
    broken.close()
