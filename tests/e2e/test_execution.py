"""Executions from the request to the result: an edge, a real worker process, and viewers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from tests.edges import (
    ALL_SCOPES,
    ROOT,
    EdgeProcess,
    Follower,
    call,
    edges,
    read_log,
    stream_path,
    token_for,
    under_load,
)

HERE = Path(__file__).resolve().parent
ALICE = token_for("alice")
EXECUTE = "/api/agent/execute"


@pytest.fixture(scope="module")
def stack() -> Iterator[tuple[EmbeddedRedis, list[EdgeProcess]]]:
    """A Redis, two edges and one worker; what the tests here share is never flushed."""
    with EmbeddedRedis() as server, edges(server.url, 2, heartbeat_seconds=1, executes_per_minute=0) as both:
        environ = {**os.environ, "RUNCAST_REDIS_URL": server.url, "PYTHONPATH": str(ROOT)}
        worker = subprocess.Popen(
            [sys.executable, "-m", "emitter", "e2e_agents:agents", "--grace-seconds", "1", "--log-level", "warning"],
            cwd=HERE,
            env=environ,
        )
        try:
            yield server, both
        finally:
            worker.terminate()
            assert worker.wait(under_load(15)) == 0


@pytest.fixture
async def both(stack: tuple[EmbeddedRedis, list[EdgeProcess]]) -> list[EdgeProcess]:
    """The two edges, once the worker has announced its agents."""
    async with asyncio.timeout(under_load(15)):
        while len((await call(stack[1][0].port, "GET", "/api/agent/agents", ALICE)).body["agents"]) < 4:
            await asyncio.sleep(0.05)
    return stack[1]


async def execute(port: int, agent: str, token: str = ALICE, **fields: Any) -> str:
    answer = await call(port, "POST", EXECUTE, token, {"task": "t", "agent": agent, **fields})
    assert answer.status == 202, answer
    assert answer.body["state"] == "queued"
    assert answer.body["streamUrl"] == stream_path(answer.body["executionId"])
    return str(answer.body["executionId"])


async def test_an_execution_runs_and_is_watched_from_queued_to_complete(
    stack: tuple[EmbeddedRedis, list[EdgeProcess]], both: list[EdgeProcess]
) -> None:
    """The viewer sees exactly the log, from `execution:queued` to `execution:complete`; the state folds the same."""
    execution_id = await execute(both[0].port, "counter", params={"n": 20})
    async with Follower(both, stream_path(execution_id), ALICE) as viewer:
        await viewer.until_done()
    client = connect(stack[0].url)
    assert viewer.events == await read_log(client, Owner("alice").execution(execution_id).log)
    await client.aclose()
    types = [event.type for event in viewer.events]
    assert types[:3] == ["execution:queued", "execution:started", "phase:start"]
    assert types[-1] == "execution:complete"
    assert types.count("tool:start") == types.count("tool:complete") == 20
    text = "".join(json.loads(e.data)["data"]["delta"] for e in viewer.events if e.type == "message:delta")
    assert text == "".join(f"{number} " for number in range(20))
    state = await call(both[1].port, "GET", f"/api/agent/executions/{execution_id}", ALICE)
    assert (state.body["status"], state.body["result"]) == ("completed", {"total": 190})
    assert state.body["cursor"] == viewer.events[-1].id


async def test_a_failing_agent_ends_in_one_error(both: list[EdgeProcess]) -> None:
    """The exception becomes the terminal event; its stack trace is shown to `executions:debug` only."""
    execution_id = await execute(both[0].port, "failer")
    async with Follower(both, stream_path(execution_id), ALICE) as viewer:
        await viewer.until_done()
    assert [event.type for event in viewer.events][-1] == "execution:error"
    assert "as told" in viewer.events[-1].data
    assert "Traceback" not in "".join(event.data for event in viewer.events)
    path = f"/api/agent/executions/{execution_id}"
    plain = await call(both[0].port, "GET", path, ALICE)
    debug = await call(both[0].port, "GET", path, token_for("alice", scopes=ALL_SCOPES))
    assert plain.body["error"].get("stack") is None
    assert "Traceback" in debug.body["error"]["stack"]


async def test_cancel_reaches_a_running_agent_and_is_idempotent(both: list[EdgeProcess]) -> None:
    """202 as often as asked, one `execution:cancelled` that says by whom; a completed one is 409."""
    execution_id = await execute(both[0].port, "sleeper")
    path = f"/api/agent/executions/{execution_id}/cancel"
    async with Follower(both, stream_path(execution_id), ALICE) as viewer:
        await viewer.until("it runs", lambda v: "thinking" in [event.type for event in v.events])
        for edge in both:
            assert (await call(edge.port, "POST", path, ALICE, {"reason": "enough"})).status == 202
        await viewer.until_done()
    assert [event.type for event in viewer.events].count("execution:cancelled") == 1
    assert json.loads(viewer.events[-1].data)["data"] == {"reason": "enough", "by": "alice"}
    assert (await call(both[0].port, "POST", path, ALICE, {})).status == 202
    done = await execute(both[0].port, "counter")
    async with Follower(both, stream_path(done), ALICE) as viewer:
        await viewer.until_done()
    late = await call(both[0].port, "POST", f"/api/agent/executions/{done}/cancel", ALICE, {})
    assert (late.status, late.body["state"]) == (409, "completed")


async def test_the_first_answer_wins_and_the_second_hears_whose_it_was(both: list[EdgeProcess]) -> None:
    """Two people answer at once over two edges: one is 202, one 409 with who answered, and the agent has the first."""
    execution_id = await execute(both[0].port, "asker")
    path = f"/api/agent/executions/{execution_id}/input"
    async with Follower(both, stream_path(execution_id), ALICE) as viewer:
        await viewer.until("the question", lambda v: "input:required" in [event.type for event in v.events])
        asked = next(json.loads(e.data)["data"] for e in viewer.events if e.type == "input:required")
        wrong = await call(both[0].port, "POST", path, ALICE, {"inputId": asked["inputId"], "value": "maybe"})
        assert (wrong.status, wrong.body["path"]) == (422, "$.value")
        unknown = await call(both[0].port, "POST", path, ALICE, {"inputId": "in_99", "value": True})
        assert unknown.status == 404
        answers = await asyncio.gather(
            *(call(e.port, "POST", path, ALICE, {"inputId": asked["inputId"], "value": True}) for e in both)
        )
        await viewer.until_done()
    assert sorted(answer.status for answer in answers) == [202, 409]
    (second,) = [answer for answer in answers if answer.status == 409]
    assert second.body["answeredBy"] == "alice"
    assert [event.type for event in viewer.events].count("input:received") == 1
    assert json.loads(viewer.events[-1].data)["data"]["result"] == {"approved": True}


async def test_an_idempotency_key_makes_a_repeat_the_first_answer(both: list[EdgeProcess]) -> None:
    """Ten requests at once with one key over two edges start one execution; another body under it is refused."""
    body = {"task": "once", "agent": "counter"}
    headers = {"Idempotency-Key": "k-1"}
    answers = await asyncio.gather(
        *(call(both[number % 2].port, "POST", EXECUTE, ALICE, body, headers=headers) for number in range(10))
    )
    assert {answer.status for answer in answers} == {202}
    (execution_id,) = {answer.body["executionId"] for answer in answers}
    async with Follower(both, stream_path(execution_id), ALICE) as viewer:
        await viewer.until_done()
    assert [event.type for event in viewer.events].count("execution:started") == 1
    again = await call(both[1].port, "POST", EXECUTE, ALICE, body, headers=headers)
    assert (again.status, again.body["executionId"]) == (202, execution_id)
    other = await call(both[0].port, "POST", EXECUTE, ALICE, body | {"task": "twice"}, headers=headers)
    assert other.status == 422


async def test_an_unknown_agent_is_refused_with_the_known_ones(both: list[EdgeProcess]) -> None:
    """422 with names, and nothing is started."""
    answer = await call(both[0].port, "POST", EXECUTE, ALICE, {"task": "t", "agent": "nobody"})
    assert (answer.status, answer.body["path"]) == (422, "$.agent")
    assert answer.body["known"] == ["asker", "counter", "failer", "sleeper"]


# --- publishing over HTTP --------------------------------------------------------------------------------------------

PUBLISHER = token_for("bob", scopes=ALL_SCOPES)


def events_path(execution_id: str) -> str:
    return f"/api/agent/executions/{execution_id}/events"


STARTED = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}


def thinking(thought: str) -> dict[str, Any]:
    return {"type": "thinking", "data": {"thought": thought}}


async def test_events_published_over_http_are_watched_and_repeats_append_nothing(both: list[EdgeProcess]) -> None:
    """One event, then NDJSON of many; the same Producer-Seq again adds nothing, an overlap only what is new."""
    execution_id, path = "ex_http", events_path("ex_http")

    async def post(first: int, *events: dict[str, Any]) -> Any:
        ndjson = "\n".join(json.dumps(event) for event in events).encode()
        headers = {"Producer-Id": "p1", "Producer-Seq": str(first), "Content-Type": "application/x-ndjson"}
        return await call(both[first % 2].port, "POST", path, PUBLISHER, ndjson, headers=headers)

    single = await call(
        both[0].port, "POST", path, PUBLISHER, STARTED, headers={"Producer-Id": "p1", "Producer-Seq": "1"}
    )
    assert (single.status, single.body["appended"]) == (202, 1)
    async with Follower(both, stream_path(execution_id), PUBLISHER) as viewer:
        first = await post(2, thinking("a"), thinking("b"), thinking("c"))
        repeat = await post(2, thinking("a"), thinking("b"), thinking("c"))
        overlap = await post(4, thinking("c"), thinking("d"))
        assert [answer.body["appended"] for answer in (first, repeat, overlap)] == [3, 0, 1]
        end = {"type": "execution:complete", "data": {"result": 1, "duration": 1.0}}
        ended = await call(both[0].port, "POST", path, PUBLISHER, end)
        assert ended.status == 202
        await viewer.until_done()
    assert [json.loads(e.data)["data"].get("thought") for e in viewer.events] == [None, "a", "b", "c", "d", None]
    late = await call(both[0].port, "POST", path, PUBLISHER, thinking("e"))
    assert (late.status, late.body["state"]) == (409, "completed")


async def test_bad_events_are_refused_whole_with_the_field(both: list[EdgeProcess]) -> None:
    """413 names the limit, 422 the line and the path, 400 broken JSON, 403 the missing scope; nothing is stored."""
    port, path = both[0].port, events_path("ex_bad")
    assert (await call(port, "POST", path, PUBLISHER, STARTED)).status == 202
    big = await call(port, "POST", path, PUBLISHER, thinking("x" * 70_000))
    assert (big.status, big.body["limit"]) == (413, 65536)
    wrong = await call(port, "POST", path, PUBLISHER, {"type": "progress", "data": {"progress": "half"}})
    assert (wrong.status, wrong.body["path"]) == (422, "$.progress")
    unknown = await call(port, "POST", path, PUBLISHER, {"type": "nonsense", "data": {}})
    assert unknown.status == 422
    broken = await call(port, "POST", path, PUBLISHER, b"{")
    assert broken.status == 400
    lines = json.dumps(thinking("fine")).encode() + b"\n" + json.dumps({"type": "thinking", "data": {}}).encode()
    second = await call(port, "POST", path, PUBLISHER, lines, headers={"Content-Type": "application/x-ndjson"})
    assert second.status == 422
    assert "line 2" in second.body["detail"]
    assert (await call(port, "POST", path, token_for("bob"), thinking("x"))).status == 403
    assert (await call(port, "POST", events_path("ex_none"), PUBLISHER, thinking("x"))).status == 404
    log = await call(port, "GET", path, PUBLISHER)
    assert [event["event"]["type"] for event in log.body["events"]] == ["execution:started"]


async def test_secrets_published_over_http_are_not_stored(both: list[EdgeProcess]) -> None:
    """What looks like a credential is redacted before it is in the log."""
    port, path = both[0].port, events_path("ex_secret")
    await call(port, "POST", path, PUBLISHER, STARTED)
    params = {"query": "q", "api_key": "sk-live-123", "nested": {"password": "hunter2"}}
    event = {"type": "tool:start", "data": {"callId": "c1", "toolName": "t", "params": params}}
    assert (await call(port, "POST", path, PUBLISHER, event)).status == 202
    stored = (await call(port, "GET", path, PUBLISHER)).body["events"][1]["event"]["data"]["params"]
    assert stored == {"query": "q", "api_key": "[redacted]", "nested": {"password": "[redacted]"}}
