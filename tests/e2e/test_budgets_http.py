"""Budgets over HTTP: from the request to the end, and for those that publish without a worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from tests.edges import ALL_SCOPES, EdgeProcess, Follower, call, edge, request, stream_path, token_for, under_load
from tests.workers import WorkerProcess

ALICE = token_for("alice", scopes=ALL_SCOPES)
EXECUTIONS = "/api/agent/executions"
AGENTS = Path(__file__).resolve().parents[1] / "faults"
USAGE = {"inputTokens": 1, "outputTokens": 0, "costUsd": 0.0}


@pytest.fixture(scope="module")
def stack() -> Iterator[EdgeProcess]:
    """An edge and a worker, whose settings let no execution use more than 5,000 tokens or 50 calls."""
    limits = {"budget_total_tokens": 5000, "budget_tool_calls": 50}
    with EmbeddedRedis() as server, edge(server.url, heartbeat_seconds=1, executes_per_minute=0, **limits) as started:
        worker = WorkerProcess(server.url, "budget_agents:agents", AGENTS, grace_seconds=0)
        try:
            yield started
        finally:
            worker.close()


@pytest.fixture
async def port(stack: EdgeProcess) -> int:
    async with asyncio.timeout(under_load(30)):
        while not (await call(stack.port, "GET", "/api/agent/agents", ALICE)).body["agents"]:
            await asyncio.sleep(0.05)
    return stack.port


async def execute(port: int, agent: str, **fields: Any) -> str:
    answer = await call(port, "POST", "/api/agent/execute", ALICE, {"task": "t", "agent": agent, **fields})
    assert answer.status == 202, answer
    return str(answer.body["executionId"])


async def state(port: int, execution_id: str) -> dict[str, Any]:
    answer = await call(port, "GET", f"{EXECUTIONS}/{execution_id}", ALICE)
    assert answer.status == 200, answer
    return dict(answer.body)


async def publish(port: int, execution_id: str, *events: dict[str, Any], **headers: str) -> Any:
    body = "\n".join(json.dumps(event) for event in events).encode()
    names = {"Content-Type": "application/x-ndjson"} | {name.replace("_", "-"): text for name, text in headers.items()}
    return await call(port, "POST", f"{EXECUTIONS}/{execution_id}/events", ALICE, body, headers=names)


def started(**data: Any) -> dict[str, Any]:
    return {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1, **data}}


def usage(tokens: int) -> dict[str, Any]:
    return {"type": "usage", "data": {**USAGE, "totalTokens": tokens}}


def tools(*call_ids: str) -> list[dict[str, Any]]:
    return [{"type": "tool:start", "data": {"callId": id_, "toolName": "t", "params": {}}} for id_ in call_ids]


# --- with a worker ---------------------------------------------------------------------------------------------------


async def test_from_the_request_to_the_end(stack: EdgeProcess, port: int) -> None:
    """The viewer sees the notices and the end; the state has limits and amounts, also in a list."""
    execution_id = await execute(port, "spender", budget={"toolCalls": 5}, params={"pause": 0.05})
    async with Follower([stack], stream_path(execution_id), ALICE) as viewer:
        await viewer.until_done()
    types = [event.type for event in viewer.events]
    assert types.count("budget") == 2
    assert types[-2:] == ["budget", "execution:error"]
    queued = json.loads(viewer.events[0].data)["data"]
    assert queued["budget"] == {"totalTokens": 5000, "toolCalls": 5}
    found = await state(port, execution_id)
    assert found["error"] == {
        "error": "over its budget (toolCalls): 6 tool calls spent of 5", "code": "budget_exceeded", "stack": None
    }  # fmt: skip
    assert found["budget"]["limit"] == {"totalTokens": 5000, "toolCalls": 5}
    spent = found["budget"]["spent"]
    assert (spent["toolCalls"], spent["totalTokens"]) in ((6, 50), (6, 60)), "a report may come with the last call"
    assert 0.2 < spent["seconds"] < under_load(10)
    listed = (await call(port, "GET", EXECUTIONS, ALICE)).body["executions"]
    assert next(each for each in listed if each["executionId"] == execution_id)["budget"] == found["budget"]


async def test_the_time_of_a_running_attempt_is_in_its_state(port: int) -> None:
    """It grows while it runs."""
    execution_id = await execute(port, "sleeper", budget={"seconds": 60})
    async with asyncio.timeout(under_load(20)):
        while (await state(port, execution_id))["budget"]["spent"]["seconds"] < 0.3:
            await asyncio.sleep(0.05)
    assert (await call(port, "POST", f"{EXECUTIONS}/{execution_id}/cancel", ALICE, {})).status == 202


async def test_agents_announce_their_budget(port: int) -> None:
    agents = (await call(port, "GET", "/api/agent/agents", ALICE)).body["agents"]
    found = {agent["name"]: agent.get("budget") for agent in agents}
    assert (found["spender"], found["sleeper"]) == ({"totalTokens": 10000, "toolCalls": 500}, None)


@pytest.mark.parametrize(
    "budget",
    [{"toolCalls": 0}, {"toolCalls": 1.5}, {"totalTokens": -1}, {"costUsd": "1"}, {"seconds": 0}, {"euros": 1}, 5],
)
async def test_what_is_no_budget(port: int, budget: Any) -> None:
    """The field is named."""
    answer = await call(port, "POST", "/api/agent/execute", ALICE, {"task": "t", "agent": "plain", "budget": budget})
    assert answer.status == 422
    assert answer.body["path"].startswith("$.budget")


async def test_a_chat_has_a_budget(port: int) -> None:
    """As an execute request."""
    message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Go"}]}
    chat = {"id": "chat-1", "messages": [message], "agent": "plain", "budget": {"toolCalls": 4}}
    body = json.dumps(chat).encode()

    names = {"Content-Type": "application/json", "Connection": "close"}
    async with request(port, "POST", "/api/agent/chat", ALICE, headers=names, body=body) as response:
        assert response.status == 200
        text = (await response.body()).decode()
    assert '"toolName":"search"' in text
    listed = (await call(port, "GET", EXECUTIONS, ALICE)).body["executions"]
    assert listed[0]["budget"]["limit"]["toolCalls"] == 4


# --- without a worker ------------------------------------------------------------------------------------------------


async def test_published_over_http(stack: EdgeProcess, port: int) -> None:
    """The limits of the settings count: the edge warns, and ends the execution; what comes after is refused."""
    assert (await publish(port, "ex_http", started(), usage(4000))).status == 202
    assert (await state(port, "ex_http"))["budget"] == {
        "limit": {"totalTokens": 5000, "toolCalls": 50},
        "spent": {"totalTokens": 4000, "costUsd": 0.0, "toolCalls": 0, "seconds": 0.0},
    }
    assert (await publish(port, "ex_http", usage(4100))).status == 202
    answer = await publish(port, "ex_http", usage(5200))
    assert answer.status == 202
    refused = await publish(port, "ex_http", usage(5300))
    assert (refused.status, refused.body["detail"]) == (409, "execution ex_http: already failed; its log is closed")
    found = await state(port, "ex_http")
    assert found["status"] == "failed"
    assert found["error"]["error"] == "over its budget (totalTokens): 5200 tokens spent of 5000"
    log = (await call(port, "GET", f"{EXECUTIONS}/ex_http/events", ALICE)).body["events"]
    assert [each["event"]["type"] for each in log] == [
        "execution:started", "usage", "budget", "usage", "usage", "budget", "execution:error",
    ]  # fmt: skip
    assert stack.metric("runcast_budget_exceeded_total", limit="totalTokens") == 1


async def test_a_publisher_sets_its_own_limits(port: int) -> None:
    """With `execution:started`; of those of the settings the smaller counts. Another start changes nothing."""
    limit = {"toolCalls": 2, "totalTokens": 90_000}
    budget = {"limit": limit, "spent": {}}
    await publish(port, "ex_own", started(budget=budget), *tools("a"))
    await publish(port, "ex_own", started(budget={"limit": {"toolCalls": 40}, "spent": {}}), *tools("b"))
    assert (await state(port, "ex_own"))["budget"]["limit"] == {"toolCalls": 2, "totalTokens": 5000}
    await publish(port, "ex_own", *tools("c"))
    assert (await state(port, "ex_own"))["error"]["code"] == "budget_exceeded"


async def test_a_repeat_over_http_counts_once(port: int) -> None:
    """By its producer's numbers."""
    for _ in range(3):
        answer = await publish(
            port, "ex_again", started(), *tools("a", "b"), usage(70), Producer_Id="p", Producer_Seq="1"
        )
        assert answer.status == 202
    spent = (await state(port, "ex_again"))["budget"]["spent"]
    assert (spent["toolCalls"], spent["totalTokens"]) == (2, 70)
