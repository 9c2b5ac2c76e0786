"""What a rollout brings together: edges, workers and records of the previous release and of this one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from emitter.wire.record import FIELDS, FORMAT, PREFIXES, ExecutionRecord
from tests.edges import (
    ALL_SCOPES,
    Answer,
    EdgeProcess,
    Follower,
    assert_dense,
    call,
    stream_path,
    token_for,
    under_load,
)
from tests.workers import WorkerProcess

pytestmark = pytest.mark.timeout(120)

AGENTS = "skew_agents:agents"
ALICE = Owner("alice")
TOKEN = token_for("alice", scopes=ALL_SCOPES)
BOTH_WAYS = pytest.mark.parametrize(("first", "second"), [("old", "new"), ("new", "old")])


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="module")
def ports(server: EmbeddedRedis, roots: Mapping[str, Path]) -> Iterator[dict[str, int]]:
    """An edge of each version."""
    with contextlib.ExitStack() as stack:
        started: dict[str, EdgeProcess] = {}
        for version, root in roots.items():
            started[version] = EdgeProcess(server.url, root=root, lease_seconds=1, executes_per_minute=0)
            stack.callback(started[version].close)
            started[version].start()
        yield {version: edge.wait_ready().port for version, edge in started.items()}


@pytest.fixture
async def redis(server: EmbeddedRedis) -> AsyncIterator[Redis]:
    client = connect(server.url)
    yield client
    await client.aclose()


@pytest.fixture
def work(server: EmbeddedRedis, roots: Mapping[str, Path]) -> Iterator[Callable[[str], WorkerProcess]]:
    """Starts a worker of a version."""
    with contextlib.ExitStack() as stack:

        def start(version: str) -> WorkerProcess:
            worker = WorkerProcess(server.url, AGENTS, Path(__file__).parent, root=roots[version], lease_seconds=1)
            stack.callback(worker.close)
            return worker

        yield start


async def execute(port: int, agent: str, **body: Any) -> str:
    async with asyncio.timeout(45):  # until a worker has announced its agents
        while True:
            answer = await call(port, "POST", "/api/agent/execute", TOKEN, {"task": "t", "agent": agent, **body})
            if answer.status == 202:
                return str(answer.body["executionId"])
            await asyncio.sleep(0.02)


async def post(port: int, execution_id: str, what: str, value: Any, **headers: str) -> Answer:
    path = f"/api/agent/executions/{execution_id}/{what}"
    return await call(port, "POST", path, TOKEN, value, headers=headers)


async def fields_of(redis: Redis, execution_id: str) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = await redis.hgetall(ALICE.execution(execution_id).record)  # type: ignore[misc]
    return found


async def until(redis: Redis, execution_id: str, what: Callable[[ExecutionRecord], bool]) -> ExecutionRecord:
    async with asyncio.timeout(under_load(20)):
        while not what(found := ExecutionRecord.read(await fields_of(redis, execution_id))):
            await asyncio.sleep(0.02)
    return found


async def everything(port: int, execution_id: str) -> dict[str, Any]:
    """All that an edge shows of an execution that has ended: state, list, log, whole stream, A2A task."""
    state = await call(port, "GET", f"/api/agent/executions/{execution_id}", TOKEN)
    listed = await call(port, "GET", "/api/agent/executions", TOKEN)
    page = await call(port, "GET", f"/api/agent/executions/{execution_id}/events", TOKEN)
    task = await call(port, "GET", f"/a2a/v1/tasks/{execution_id}", TOKEN)
    async with Follower([port], stream_path(execution_id), TOKEN, cursor="0-0") as viewer:
        await viewer.until_done()
    assert_dense(viewer.events)
    assert not viewer.resets
    assert (state.status, listed.status, page.status, task.status) == (200, 200, 200, 200)
    for name in ("children", "budget"):  # 0.2 knows of none
        state.body.pop(name, None)
    for message in state.body["messages"]:
        for name in ("complete", "interrupted"):  # said since 0.3
            message.pop(name, None)
    assert state.body.pop("userMessages", []) == []  # 0.2 knows of no messages
    return {
        "state": {name: value for name, value in state.body.items() if name != "params"},  # new in 0.3
        "listed": [each for each in listed.body["executions"] if each["executionId"] == execution_id],
        "page": page.body,
        "task": task.body,
        "events": viewer.events,
    }


async def cancel_elsewhere(redis: Redis, ports: dict[str, int], first: str, second: str) -> None:
    execution_id = await execute(ports[first], "waiter")
    await until(redis, execution_id, lambda found: bool(found.owner) and found.seq > 1)
    assert (await post(ports[second], execution_id, "cancel", {"reason": "enough"})).status == 202
    ended = await until(redis, execution_id, lambda found: found.has_ended)
    assert (ended.state, json.loads(ended.end or b"")["data"]) == ("cancelled", {"reason": "enough", "by": "alice"})
    assert await everything(ports["old"], execution_id) == await everything(ports["new"], execution_id)


@BOTH_WAYS
async def test_an_execution_moves_to_the_other_version(
    redis: Redis, ports: dict[str, int], work: Callable[[str], WorkerProcess], first: str, second: str
) -> None:
    """Started and asked for by one version, answered over an edge of the other, whose worker ends it once the first
    one is dead; every edge shows the same. What runs beside it is cancelled over an edge of the other version."""
    dying = work(first)
    cancelled = asyncio.create_task(cancel_elsewhere(redis, ports, first, second))
    execution_id = await execute(ports[first], "relay", params={"password": "s3cret-of-relay"}, conversationId="c")
    asked = await until(redis, execution_id, lambda found: bool(found.open_inputs))
    await cancelled
    work(second)
    path = (execution_id, "input")
    given = await post(ports[second], *path, {"inputId": asked.open_inputs[0], "value": "yes"})
    late = await post(ports[first], *path, {"inputId": asked.open_inputs[0], "value": "no"})
    assert (given.status, late.status) == (202, 409)
    await until(redis, execution_id, lambda found: found.state == "running")
    dying.kill()
    ended = await until(redis, execution_id, lambda found: found.has_ended)
    assert (ended.state, ended.attempt, ended.lost, ended.given) == ("completed", 2, 1, b"")
    old, new = await everything(ports["old"], execution_id), await everything(ports["new"], execution_id)
    assert old == new
    assert old["state"]["result"] == {"version": second, "answer": "yes", "secret": True}
    assert (old["listed"][0]["state"], old["listed"][0]["attempt"]) == ("completed", 2)


@BOTH_WAYS
async def test_one_version_continues_what_the_other_published(
    redis: Redis, ports: dict[str, int], first: str, second: str
) -> None:
    """A publisher whose requests reach edges of both versions appends nothing twice and leaves nothing out."""
    execution_id = f"by_{first}"

    async def publish(version: str, number: int, type_: str, **data: Any) -> tuple[int, Any]:
        headers = {"Producer-Id": "p", "Producer-Seq": str(number)}
        answer = await post(ports[version], execution_id, "events", {"type": type_, "data": data}, **headers)
        return answer.status, answer.body.get("appended")

    assert await publish(first, 1, "execution:started", task="t", startedAt=1, attempt=1) == (202, 1)
    assert await publish(second, 1, "execution:started", task="t", startedAt=1, attempt=1) == (202, 0)
    assert await publish(second, 2, "status", status="on", message="m") == (202, 1)
    assert await publish(second, 4, "status", status="on", message="too far") == (409, None)
    assert await publish(first, 3, "execution:complete", result=1, duration=1) == (202, 1)
    assert await publish(second, 4, "status", status="on", message="late") == (409, None)
    ended = await until(redis, execution_id, lambda found: found.has_ended)
    assert (ended.seq, ended.producers) == (3, {"http.p": 3})
    assert await everything(ports["old"], execution_id) == await everything(ports["new"], execution_id)


async def test_a_record_has_the_format_of_who_began_it(redis: Redis, ports: dict[str, int]) -> None:
    """Every field of either version is known here."""
    for version, written in (("old", b"1"), ("new", b"%d" % FORMAT)):
        body = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}
        assert (await post(ports[version], f"format_{version}", "events", body)).status == 202
        fields = await fields_of(redis, f"format_{version}")
        assert fields.get(b"format") == written
        unknown = {name for name in map(bytes.decode, fields) if name not in FIELDS and name[:2] not in PREFIXES}
        assert unknown == set()


async def test_the_old_version_ends_what_has_messages(redis: Redis, ports: dict[str, int]) -> None:
    """It knows of no messages: they are in its log, and those that wait at the end are shown as dropped by the new
    version all the same."""
    execution_id, new, old = "said_before", ports["new"], ports["old"]
    started = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}
    assert (await post(old, execution_id, "events", started)).status == 202
    assert (await post(new, execution_id, "messages/take", {})).body["messages"] == []
    for id_ in ("a", "b"):
        assert (await post(new, execution_id, "messages", {"text": id_, "messageId": id_})).status == 202
    taken = await post(new, execution_id, "messages/take", {"max": 1})
    assert [message["text"] for message in taken.body["messages"]] == ["a"]
    status = {"type": "status", "data": {"status": "on", "message": "m"}}
    assert (await post(old, execution_id, "events", status)).status == 202
    assert (await post(new, execution_id, "messages", {"text": "c"})).status == 202
    complete = {"type": "execution:complete", "data": {"result": 1, "duration": 1}}
    assert (await post(old, execution_id, "events", complete)).status == 202
    path = f"/api/agent/executions/{execution_id}"
    listed = (await call(new, "GET", path + "/messages", TOKEN)).body["messages"]
    folded = (await call(new, "GET", path, TOKEN)).body["userMessages"]
    for shown in (listed, folded):
        states = [(message["state"], message["reason"]) for message in shown]
        assert states == [("taken", None), ("dropped", "ended"), ("dropped", "ended")]
    assert (await call(old, "GET", path, TOKEN)).body["status"] == "completed"
    assert (await until(redis, execution_id, lambda found: found.has_ended)).seq == 7


async def test_children_run_under_workers_of_the_previous_version(
    server: EmbeddedRedis, roots: Mapping[str, Path], ports: dict[str, int], redis: Redis
) -> None:
    """Which tell nobody that a child has ended, and end none with its parent: the parent's worker does, and the log is
    read by edges of both."""
    folder = Path(__file__).parent
    with contextlib.ExitStack() as stack:
        for root in roots.values():
            worker = WorkerProcess(server.url, "skew_children:agents", folder, root=root, lease_seconds=3)
            stack.callback(worker.close)
        async with asyncio.timeout(under_load(20)):  # until the old worker has announced its agent
            while await redis.zscore("rc:{jobs}:agents", "child") is None:
                await asyncio.sleep(0.02)
        parent = await execute(ports["old"], "parent")
        record = await until(redis, parent, lambda found: found.has_ended)
        assert record.state == "completed"
        logs = []
        for port in ports.values():
            page = await call(port, "GET", f"/api/agent/executions/{parent}/events", TOKEN)
            logs.append([each["event"] for each in page.body["events"]])
            assert (await call(port, "GET", f"/api/agent/executions/{parent}", TOKEN)).body["result"] == "old"
        assert logs[0] == logs[1]
        types = [event["type"] for event in logs[0]]
        assert types[2:] == ["child:started", "child:started", "child:ended", "execution:complete"]
        left = logs[0][2]["data"]["executionId"]
        assert (await until(redis, left, lambda found: found.has_ended)).state == "cancelled"
