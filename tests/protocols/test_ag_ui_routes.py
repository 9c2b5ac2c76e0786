"""AG-UI's endpoints over real sockets: who may call, what bad requests get, what a response is byte by byte."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter.events import ExecutionComplete, ExecutionStarted, ExecutionSuperseded, InputRequired, MessageDelta
from emitter.wire import keys
from emitter.wire.ids import now_ms
from tests.edges import Author, EdgeProcess, call, request, token_for

JSON = {"Content-Type": "application/json"}
AGENTS = ["manual", "other"]
STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
HI = MessageDelta(message_id="m", delta="Hi")
DONE = ExecutionComplete(result=None, duration=1.0)
Json = dict[str, Any]


@pytest.fixture(autouse=True)
async def known(redis: Redis, two_edges: list[EdgeProcess]) -> None:
    """Agents that no worker runs: the tests write their executions."""
    await redis.zadd(keys.AGENTS_KNOWN, dict.fromkeys(AGENTS, now_ms()))
    for edge in two_edges:
        async with asyncio.timeout(10):
            while await known_agents(edge) != AGENTS:  # an edge looks every second
                await asyncio.sleep(0.05)


async def known_agents(edge: EdgeProcess) -> list[str]:
    refused = await call(edge.port, "POST", "/api/agent/execute", token_for("nobody"), {"task": "t", "agent": "-"})
    return list(refused.body["known"])


def body(run_id: str = "run-1", **fields: Any) -> bytes:
    message = {"id": "u1", "role": "user", "content": "t"}
    return json.dumps({"threadId": "thread-1", "runId": run_id, "messages": [message], **fields}).encode()


def post(edge: EdgeProcess, author: Author, content: bytes, path: str = "/ag-ui/manual", **headers: str) -> Any:
    return request(edge.port, "POST", path, author.token, headers=JSON | headers, body=content)


async def executions(edge: EdgeProcess, author: Author) -> list[Json]:
    return list((await call(edge.port, "GET", "/api/agent/executions", author.token)).body["executions"])


async def started(edge: EdgeProcess, author: Author, run_id: str = "run-1", **fields: Any) -> Author:
    """Start a run and leave; the author of its execution."""
    async with post(edge, author, body(run_id, **fields)) as response:
        assert response.status == 200
    return Author(author.redis, author.user, run_id)


def events(data: bytes) -> list[Json]:
    return [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: ")]


def types(data: bytes) -> list[str]:
    return [event["type"] for event in events(data)]


async def got(edge: EdgeProcess, author: Author, method: str, path: str, content: bytes = b"", **headers: str) -> bytes:
    """A response that ends by itself, without its signs of life."""
    asked = request(edge.port, method, path, author.token, headers=JSON | headers, body=content)
    async with asyncio.timeout(15), asked as response:
        assert response.status == 200
        assert response.headers["content-type"] == "text/event-stream"
        data = await response.body()
        assert response.whole
    return bytes(data).replace(b": hb\n", b"")


async def test_the_response(two_edges: list[EdgeProcess], author: Author) -> None:
    """A run is an event stream that ends after its end; leaving it changes nothing; two edges give the same bytes."""
    run = await started(two_edges[0], author)
    async with asyncio.timeout(15):
        async with post(two_edges[0], author, body()) as first, post(two_edges[1], author, body()) as second:
            await run.write(STARTED, HI, DONE)
            bodies = {(await each.body()).replace(b": hb\n", b"") for each in (first, second)}
    assert len(bodies) == 1
    (data,) = bodies
    assert types(data) == [
        "RUN_STARTED", "MESSAGES_SNAPSHOT", "STATE_SNAPSHOT", "STATE_DELTA", "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT", "STATE_DELTA", "TEXT_MESSAGE_END", "RUN_FINISHED",
    ]  # fmt: skip
    assert events(data)[0] == {
        "type": "RUN_STARTED", "threadId": "thread-1", "runId": "run-1", "protocolVersion": "1.0",
        "metadata": {"executionId": "run-1"},
    }  # fmt: skip
    assert b"\r" not in data
    (execution,) = await executions(two_edges[0], author)
    assert (execution["conversationId"], execution["agent"], execution["task"]) == ("thread-1", "manual", "t")


async def test_attach(two_edges: list[EdgeProcess], author: Author) -> None:
    """An execution is shown to whoever asks for it, however it was started: from its beginning, or from a frame on."""
    run = await started(two_edges[0], author, state={"theirs": 1})
    await run.write(STARTED, HI)
    await run.write(DONE)
    whole = await got(two_edges[1], author, "GET", "/ag-ui/run-1?runId=r2")
    assert types(whole)[0] == "RUN_STARTED"
    assert "MESSAGES_SNAPSHOT" not in types(whole)
    assert (events(whole)[0]["threadId"], events(whole)[0]["runId"]) == ("thread-1", "r2")
    assert events(whole)[1]["snapshot"]["theirs"] == 1
    ids = [line[4:].decode() for line in whole.split(b"\n") if line.startswith(b"id: ")]
    place = next(id_ for id_ in ids if id_.endswith("-3"))
    for path, headers in (
        (f"/ag-ui/run-1?runId=r2&cursor={place}", {}),
        ("/ag-ui/run-1?runId=r2", {"Last-Event-ID": place}),
    ):
        rest = await got(two_edges[0], author, "GET", path, **headers)
        assert types(rest) == [
            "RUN_STARTED", "STATE_SNAPSHOT", "TEXT_MESSAGE_START", "STATE_DELTA", "TEXT_MESSAGE_END", "RUN_FINISHED",
        ]  # fmt: skip
        assert rest.endswith(whole.split(b"\n\n", 5)[-1])


async def test_a_run_that_others_started(two_edges: list[EdgeProcess], author: Author) -> None:
    """A run may be an execution that was started elsewhere: in its own thread, or in any if it is in none. To follow it
    nothing needs to be asked, and nothing is started."""
    for name, about in (("in_none", {}), ("in_one", {"conversationId": "thread-1"})):
        wanted = {"task": "t", "agent": "manual", "executionId": name, **about}
        assert (await call(two_edges[0].port, "POST", "/api/agent/execute", author.token, wanted)).status == 202
        await Author(author.redis, author.user, name).write(STARTED, HI, DONE)
        whole = await got(two_edges[1], author, "POST", "/ag-ui/manual", body(name, messages=[]))
        assert (types(whole)[0], types(whole)[-1]) == ("RUN_STARTED", "RUN_FINISHED")
    elsewhere = body("in_one", threadId="thread-2")
    assert (await call(two_edges[1].port, "POST", "/ag-ui/manual", author.token, elsewhere)).status == 409
    assert len(await executions(two_edges[0], author)) == 2


async def test_a_cursor_of_another_log(two_edges: list[EdgeProcess], author: Author) -> None:
    """A place beyond the log's end, or where another event is, is none of it: all is shown."""
    run = await started(two_edges[0], author)
    await run.write(STARTED, HI, DONE)
    whole = await got(two_edges[1], author, "GET", "/ag-ui/run-1")
    for place in ("5-99", "5-3", "5-3.1"):
        assert await got(two_edges[1], author, "GET", f"/ag-ui/run-1?cursor={place}") == whole


async def test_an_expired_log(two_edges: list[EdgeProcess], author: Author) -> None:
    """Of an execution whose log is gone the end is still told."""
    run = await started(two_edges[0], author)
    await run.write(STARTED, HI, DONE)
    await author.redis.delete(run.keys.log)
    data = await got(two_edges[1], author, "GET", "/ag-ui/run-1")
    assert types(data) == ["RUN_STARTED", "STATE_SNAPSHOT", "CUSTOM", "RUN_FINISHED"]
    assert events(data)[2]["value"] == {"reason": "trimmed", "lostFrom": 1, "lostTo": 3}


async def test_of_a_retry_only_what_counts(two_edges: list[EdgeProcess], author: Author) -> None:
    """Who comes after a retry took over is not shown the lost attempt."""
    run = await started(two_edges[0], author)
    again = ExecutionStarted(task="t", started_at=1, attempt=2)
    await run.write(STARTED, HI, ExecutionSuperseded(from_seq=1, attempt=2), again, HI, DONE)
    data = await got(two_edges[1], author, "GET", "/ag-ui/run-1")
    said = [event["messageId"] for event in events(data) if event["type"] == "TEXT_MESSAGE_CONTENT"]
    assert said == ["run-1.2:message:m"]


def resume(id_: str, status: str = "resolved", **fields: Any) -> Json:
    return {"resume": [{"interruptId": id_, "status": status, **fields}]}


async def asked(edge: EdgeProcess, author: Author, kind: Any = "text") -> tuple[Author, str]:
    """A run that asks something, and the id of its interrupt."""
    run = await started(edge, author)
    await run.write(STARTED, HI, InputRequired(input_id="i", prompt="?", kind=kind))
    end = events(await got(edge, author, "POST", "/ag-ui/manual", body()))[-1]
    return run, str(end["outcome"]["interrupts"][0]["id"])


async def test_resume(two_edges: list[EdgeProcess], author: Author) -> None:
    """A run that resumes answers the question and goes on from it. Sent again, or after another's answer, it changes
    nothing, and shows all from the beginning."""
    run, id_ = await asked(two_edges[0], author)
    content = body("run-2", **resume(id_, payload="yes"))
    async with asyncio.timeout(15), post(two_edges[1], author, content, "/ag-ui") as response:
        assert response.status == 200
        await run.write(HI, DONE)
        data = (await response.body()).replace(b": hb\n", b"")
    assert types(data) == [
        "RUN_STARTED", "STATE_SNAPSHOT", "TEXT_MESSAGE_START", "STATE_DELTA", "CUSTOM", "TEXT_MESSAGE_CONTENT",
        "STATE_DELTA", "TEXT_MESSAGE_END", "RUN_FINISHED",
    ]  # fmt: skip
    assert events(data)[4]["value"] == {"inputId": "i", "by": author.user, "value": "yes"}
    assert (events(data)[-1]["runId"], len(await executions(two_edges[0], author))) == ("run-2", 1)
    again = await got(two_edges[0], author, "POST", "/ag-ui", body("run-2", **resume(id_, payload="no")))
    assert types(again)[:3] == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "STATE_SNAPSHOT"]
    assert types(again).count("TEXT_MESSAGE_CONTENT") == 2
    assert events(again)[-1]["outcome"] == {"type": "success"}


async def test_a_question_that_is_left(two_edges: list[EdgeProcess], author: Author) -> None:
    """A question that the user leaves unanswered is declined, and the agent decides what follows."""
    agent, id_ = await asked(two_edges[0], author)
    content = body("run-2", **resume(id_, "cancelled"))
    resumed = asyncio.create_task(got(two_edges[1], author, "POST", "/ag-ui", content))
    async with asyncio.timeout(10):
        while (await agent.log())[-1].type != "input:received":
            await asyncio.sleep(0.02)
    await agent.write(ExecutionComplete(result=None, duration=1.0))
    data = await resumed
    assert events(data)[-1]["outcome"] == {"type": "success"}
    (received,) = [each["value"] for each in events(data) if each.get("name") == "input:received"]
    assert received == {"inputId": "i", "by": author.user, "declined": True}


@pytest.mark.parametrize(
    ("content", "status", "path"),
    [
        (b"{", 400, None),
        (b'{"runId":"r","messages":[]}', 422, "$.threadId"),
        (b'{"threadId":"","runId":"r","messages":[]}', 422, "$.threadId"),
        (b'{"threadId":"t","runId":"r","messages":[]}', 422, "$.messages"),
        (body(state={"x": "x" * 70_000}), 413, None),
        (body(resume=[{"interruptId": "x", "status": "resolved"}]), 422, "$.resume[0].interruptId"),
        (body(resume=[{"interruptId": "none:1-1:i", "status": "resolved", "payload": 1}]), 404, None),
    ],
)
async def test_bad_requests(
    two_edges: list[EdgeProcess], author: Author, content: bytes, status: int, path: str | None
) -> None:
    """A body that asks for nothing gets a problem that says where it is wrong, and starts nothing."""
    answer = await call(two_edges[0].port, "POST", "/ag-ui/manual", author.token, content)
    assert (answer.status, answer.body.get("path")) == (status, path)
    assert not await executions(two_edges[0], author)


async def test_who_may(two_edges: list[EdgeProcess], author: Author) -> None:
    """Runs need both scopes, attaching one; another's execution is as unknown as one that does not exist; a run's id is
    taken once, in one thread; a malformed cursor is refused, and of several agents one must be named."""
    await started(two_edges[0], author)
    port = two_edges[1].port
    for scope in ("executions:read", "executions:write"):
        only = token_for(author.user, scopes={scope})
        assert (await call(port, "POST", "/ag-ui/manual", only, body())).status == 403
    other = token_for("somebody-else")
    for path, token in (("/ag-ui/run-1", other), ("/ag-ui/none", author.token), ("/ag-ui/a.b", author.token)):
        assert (await call(port, "GET", path, token)).status == 404
    elsewhere = await call(port, "POST", "/ag-ui/manual", author.token, body(threadId="thread-2"))
    assert elsewhere.status == 409
    assert (await call(port, "GET", "/ag-ui/run-1?cursor=x", author.token)).status == 400
    unnamed = await call(port, "POST", "/ag-ui", author.token, body("run-2"))
    assert (unnamed.status, unnamed.body["known"]) == (422, AGENTS)
