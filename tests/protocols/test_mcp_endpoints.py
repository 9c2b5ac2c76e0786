"""The MCP endpoint over real sockets: calls, questions, tasks and subscriptions, on whatever edge a request comes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from shows import AGENT, HELD, begin, known

from broker.base.settings import Settings
from broker.cli.embedded import EmbeddedRedis
from broker.edge.edge import Edge
from emitter.events import (
    Artifact,
    Event,
    ExecutionComplete,
    ExecutionStarted,
    InputReceived,
    InputRequired,
    MessageComplete,
    MessageDelta,
    Status,
)
from emitter.store import announcements
from emitter.store.announcements import AgentInfo, Example, WorkerInfo
from emitter.wire import keys
from emitter.wire.ids import now_ms
from emitter.wire.record import Field
from tests.edges import SECRET, Answer, Author, Connection, EdgeProcess, call, edges, eventually, request, token_for

MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
TASKS = {"extensions": {META + "tasks": {}}}
FORMS = {"elicitation": {}}
STARTED = ExecutionStarted(task="hi", started_at=1, attempt=1)
ASK = InputRequired(input_id="i", prompt="Go on?", kind="approval")
DONE = ExecutionComplete(result="fine", duration=1.0)
RUN = f"run_{AGENT}"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_ids = itertools.count(1)


@pytest.fixture(autouse=True)
async def agents(redis: Redis, two_edges: list[EdgeProcess]) -> None:
    await known(redis, two_edges)


# --- how clients ask -------------------------------------------------------------------------------------------------


def asking(method: str, params: Any, can: Any = None, **meta: Any) -> tuple[bytes, dict[str, str]]:
    """A request of 2026-07-28, and its headers."""
    about = {META + "protocolVersion": MODERN, META + "clientCapabilities": can or {}, **meta}
    body = {"jsonrpc": "2.0", "id": next(_ids), "method": method, "params": {**params, "_meta": about}}
    name = params.get(NAMED.get(method, "taskId"))
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method, "Content-Type": "application/json"}
    return json.dumps(body).encode(), headers | ({"Mcp-Name": name} if name else {})


async def ask(
    at: EdgeProcess, author: Author, method: str, params: Any, can: Any = None, *, status: int = 200, **meta: Any
) -> Any:
    """The result, or the error, of a request that is answered at once."""
    body, headers = asking(method, params, can, **meta)
    async with request(at.port, "POST", "/mcp", author.token, headers=headers, body=body) as response:
        assert response.status == status
        async with asyncio.timeout(20):
            told = messages(await response.body())
    return told[-1].get("result") or told[-1]["error"]


def messages(body: bytes) -> list[Any]:
    if body.startswith(b"{"):
        return [json.loads(body)]
    return [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ") and line != b"data: "]


@contextlib.asynccontextmanager
async def calling(
    at: EdgeProcess, author: Author, params: Any, can: Any = None, **meta: Any
) -> AsyncIterator[Connection]:
    body, headers = asking("tools/call", params, can, **meta)
    async with request(at.port, "POST", "/mcp", author.token, headers=headers, body=body) as response:
        assert response.status == 200
        yield response


def run(**arguments: Any) -> dict[str, Any]:
    return {"name": RUN, "arguments": {"task": "hi", **arguments}}


async def started(author: Author) -> Author:
    """Who writes the newest execution of this user."""
    async with asyncio.timeout(10):
        while not (found := await author.redis.zrange(author.owner.index, 0, 0, desc=True)):
            await asyncio.sleep(0.02)
    return Author(author.redis, author.user, found[0].decode())


async def last(response: Connection) -> Any:
    """The response at the end of a stream."""
    async with asyncio.timeout(15):
        told = messages(await response.body())
    assert response.whole
    return told[-1].get("result") or told[-1]["error"]


async def held(at: EdgeProcess, author: Author, *told: Event, params: Any = None, can: Any = None) -> Any:
    """The result of a call whose agent tells this."""
    async with calling(at, author, params or run(), can) as response:
        agent = await started(author)
        await agent.write(*told)
        return await last(response)


# --- calls -----------------------------------------------------------------------------------------------------------


async def test_a_call(two_edges: list[EdgeProcess], author: Author) -> None:
    """An agent is a tool: its progress, and its result, on one stream without ids."""
    async with calling(two_edges[0], author, run(n=1), progressToken="p") as response:
        agent = await started(author)
        await agent.write(STARTED, Status(status="s", message="Looking"))
        await agent.write(MessageDelta(message_id="m", delta="Hello"), MessageComplete(message_id="m"), DONE)
        body = await response.body()
    assert b"id:" not in body.replace(b'"id":', b"")
    told = messages(body)
    assert [each["params"]["message"] for each in told[:-1]] == ["hi", "Looking"]
    assert told[-1]["result"]["resultType"] == "complete"
    assert [block["text"] for block in told[-1]["result"]["content"]] == ["Hello", "fine"]
    state = await call(two_edges[1].port, "GET", f"/api/agent/executions/{agent.execution_id}", author.token)
    assert (state.body["task"], state.body["agent"]) == ("hi", AGENT)


async def test_a_wait_ends_with_what_to_call_next(two_edges: list[EdgeProcess], author: Author) -> None:
    """A client that cuts calls after a minute gets the execution's id before that, and the result by waiting again,
    on another edge."""
    turn = await begin(two_edges[0], author)
    wait: dict[str, Any] = {"name": "wait_for_execution", "arguments": {"executionId": turn.id, "seconds": 0.3}}
    on = await ask(two_edges[0], author, "tools/call", wait)
    assert on["structuredContent"]["executionId"] == turn.id
    assert "isError" not in on
    await turn.author.write(STARTED, DONE)
    for seconds in (0.3, 10**400):
        wait["arguments"] = {"executionId": turn.id, "seconds": seconds}
        over = await ask(two_edges[1], author, "tools/call", wait)
        assert over["structuredContent"]["result"] == "fine"


async def test_what_is_held_is_shown_by_the_log(two_edges: list[EdgeProcess], author: Author) -> None:
    """A wait in the old era, as a client without a version sends it, ends with the execution."""
    turn = await begin(two_edges[0], author)
    async with HELD[0].stream(two_edges[1], turn) as response:
        await turn.author.write(STARTED, DONE)
        assert HELD[0].end in await response.body()


async def test_a_call_that_is_given_up_is_cancelled_later(two_edges: list[EdgeProcess], author: Author) -> None:
    """Closing a call of 2026-07-28 is a cancel. Runcast waits for half a minute; an answer with an id ends that."""
    async with calling(two_edges[0], author, run()):
        agent = await started(author)
    name = keys.member(author.owner, agent.execution_id)
    async with asyncio.timeout(10):
        while (due := await author.redis.zscore(keys.ABANDONED, name)) is None:
            await asyncio.sleep(0.05)
    assert 20_000 < due - now_ms() < 31_000
    async with calling(two_edges[0], author, run(), TASKS) as response:
        assert (await last(response))["resultType"] == "task"
    other = keys.member(author.owner, (await started(author)).execution_id)
    assert other != name
    first = await held(two_edges[0], author, STARTED, ASK, can=FORMS)
    asking = keys.member(author.owner, (await started(author)).execution_id)
    async with calling(two_edges[0], author, {**run(), "requestState": first["requestState"]}, FORMS):
        pass
    await asyncio.sleep(0.3)
    for known_by_id in (other, asking):
        assert await author.redis.zscore(keys.ABANDONED, known_by_id) is None


async def test_tools_for_executions(two_edges: list[EdgeProcess], author: Author) -> None:
    """Look, answer, cancel, list; what is wrong with arguments is a result that a model can mend."""
    turn = await begin(two_edges[0], author)
    await turn.author.write(STARTED, ASK)

    async def tool(name: str, **arguments: Any) -> Any:
        found = await ask(two_edges[1], author, "tools/call", {"name": name, "arguments": arguments})
        return found["content"][0]["text"] if found.get("isError") else found["structuredContent"]

    looked = await tool("get_execution", executionId=turn.id)
    assert (looked["state"], looked["openInputs"][0]["inputId"]) == ("waiting_input", "i")
    assert "true or false" in await tool("answer_input", executionId=turn.id, value="perhaps")
    assert (await tool("answer_input", executionId=turn.id, value=True))["inputId"] == "i"
    assert "waits for no answer" in await tool("answer_input", executionId=turn.id, value=True)
    assert "no such execution" in await tool("get_execution", executionId="ex_none")
    listed = await tool("list_executions", limit=1)
    assert [each["executionId"] for each in listed["executions"]] == [turn.id]
    assert "takes no messages" in await tool("send_message", executionId=turn.id, text="faster")
    await author.redis.hset(author.owner.execution(turn.id).record, Field.ACCEPTS, "1")
    assert "text or data" in await tool("send_message", executionId=turn.id, text="")
    for _ in range(2):  # a repeat is the same message
        sent = await tool("send_message", executionId=turn.id, text="faster", messageId="m1", mode="interrupt")
        assert (sent["messageId"], sent["state"]) == ("m1", "queued")
    state = await call(two_edges[0].port, "GET", f"/api/agent/executions/{turn.id}", author.token)
    assert [(said["text"], said["mode"]) for said in state.body["userMessages"]] == [("faster", "interrupt")]
    assert (await tool("cancel_execution", executionId=turn.id))["executionId"] == turn.id


async def test_an_unknown_tool(two_edges: list[EdgeProcess], author: Author) -> None:
    error = await ask(two_edges[0], author, "tools/call", {"name": "run_nobody", "arguments": {}}, status=400)
    assert error["code"] == -32602


# --- questions -------------------------------------------------------------------------------------------------------


async def test_a_question_ends_the_call_and_the_next_one_answers(two_edges: list[EdgeProcess], author: Author) -> None:
    """The client calls again, on another edge, with its answer and the state: the same execution goes on."""
    first = await held(two_edges[0], author, STARTED, ASK, can=FORMS)
    assert first["resultType"] == "input_required"
    assert list(first["inputRequests"]) == ["i"]
    agent = await started(author)
    responses = {"i": {"action": "accept", "content": {"confirm": True}}, "other": 1}
    again = {**run(), "inputResponses": responses, "requestState": first["requestState"]}
    async with calling(two_edges[1], author, again, FORMS) as response:
        assert (await agent.log())[-1].type == "input:received"
        await agent.write(DONE)
        assert (await last(response))["structuredContent"]["executionId"] == agent.execution_id
    assert len(await author.redis.zrange(author.owner.index, 0, -1)) == 1
    other = {**run(n=2), "inputResponses": responses, "requestState": first["requestState"]}
    for params, token in ((other, author.token), (again, token_for("eve"))):
        body, headers = asking("tools/call", params, FORMS)
        refused = await call(two_edges[1].port, "POST", "/mcp", token, body, headers=headers)
        assert (refused.status, refused.body["error"]["code"]) == (400, -32602)


async def test_a_declined_approval_is_refused(two_edges: list[EdgeProcess], author: Author) -> None:
    first = await held(two_edges[0], author, STARTED, ASK, can=FORMS)
    again = {**run(), "inputResponses": {"i": {"action": "decline"}}, "requestState": first["requestState"]}
    agent = await started(author)
    async with calling(two_edges[1], author, again, FORMS):
        state = await call(two_edges[0].port, "GET", f"/api/agent/executions/{agent.execution_id}", author.token)
        assert state.body["openInputs"] == []


async def test_a_declined_question_is_the_agents_to_handle(two_edges: list[EdgeProcess], author: Author) -> None:
    """Of another kind than an approval it has no value; a cancelled form leaves the question open."""
    question = InputRequired(input_id="i", prompt="Who?", kind="text")
    first = await held(two_edges[0], author, STARTED, question, can=FORMS)
    agent = await started(author)
    state = first["requestState"]
    left = {**run(), "inputResponses": {"i": {"action": "cancel"}}, "requestState": state}
    async with calling(two_edges[1], author, left, FORMS) as response:
        assert (await last(response))["resultType"] == "input_required"
    declined = {**run(), "inputResponses": {"i": {"action": "decline"}}, "requestState": state}
    async with calling(two_edges[1], author, declined, FORMS) as response:
        (received,) = [entry for entry in await agent.log() if entry.type == "input:received"]
        assert json.loads(received.data)["data"] == {"inputId": "i", "by": author.user, "declined": True}
        await agent.write(DONE)
        assert (await last(response))["structuredContent"]["result"] == "fine"


# --- tasks -----------------------------------------------------------------------------------------------------------


async def test_a_task(two_edges: list[EdgeProcess], author: Author) -> None:
    """A call that takes longer becomes a task, that any edge answers for: working, asking, over; to its owner alone."""
    can = {**FORMS, **TASKS}
    made = await held(two_edges[0], author, STARTED, can=can)
    assert made["resultType"] == "task"
    agent, task = await started(author), {"taskId": made["taskId"]}
    assert agent.execution_id == made["taskId"]
    assert (await ask(two_edges[1], author, "tasks/get", task, can))["status"] == "working"
    await agent.write(ASK, InputRequired(input_id="j", prompt="And?", kind="text"))
    asked = await ask(two_edges[1], author, "tasks/get", task, can)
    assert (asked["status"], list(asked["inputRequests"])) == ("input_required", ["i", "j"])
    part = {"i": {"action": "accept", "content": {"confirm": True}}}
    updated = await ask(two_edges[0], author, "tasks/update", {**task, "inputResponses": part}, can)
    assert updated == {"resultType": "complete"}
    assert list((await ask(two_edges[1], author, "tasks/get", task, can))["inputRequests"]) == ["j"]
    await agent.write(DONE)
    over = await ask(two_edges[1], author, "tasks/get", task, can)
    assert (over["status"], over["result"]["content"][0]["text"]) == ("completed", "fine")
    assert await ask(two_edges[0], author, "tasks/cancel", task, can) == {"resultType": "complete"}
    eve = Author(author.redis, "eve")
    assert (await ask(two_edges[1], eve, "tasks/get", task, can, status=400))["code"] == -32602
    lacking = await ask(two_edges[1], author, "tasks/get", task, FORMS, status=400)
    assert (lacking["code"], lacking["data"]["requiredCapabilities"]) == (-32021, TASKS)


async def test_a_subscription(two_edges: list[EdgeProcess], author: Author) -> None:
    """First the acknowledgement, then each task as it stands and as it changes, and a result when all are over."""
    can = {**FORMS, **TASKS}
    tasks = [(await held(two_edges[0], author, STARTED, can=can))["taskId"] for _ in range(2)]
    first, second = (Author(author.redis, author.user, task_id) for task_id in tasks)
    await second.write(DONE)
    body, headers = asking("subscriptions/listen", {"notifications": {"taskIds": tasks}}, can)
    async with request(two_edges[1].port, "POST", "/mcp", author.token, headers=headers, body=body) as response:
        frames = response.frames()
        acknowledged, *present = [json.loads((await anext(frames)).data or "") for _ in range(3)]
        await first.write(ASK)
        asked = json.loads((await anext(frames)).data or "")
        await first.write(InputReceived(input_id="i", by="b", value=True), DONE)
        rest = [json.loads(frame.data or "") async for frame in frames if frame.data]
    assert acknowledged["params"]["notifications"] == {"taskIds": tasks}
    assert [each["params"]["status"] for each in present] == ["working", "completed"]
    assert (asked["params"]["status"], asked["params"]["taskId"]) == ("input_required", tasks[0])
    assert rest[-2]["params"]["result"]["content"]
    assert rest[-1]["result"]["resultType"] == "complete"
    assert {each["params"]["_meta"][META + "subscriptionId"] for each in [acknowledged, *present, asked]} == {
        rest[-1]["id"]
    }


async def test_a_subscription_reads_no_more_than_it_must(
    own_author: Author, own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a task has changed, and not with which events: hundreds may come together, of 64 KB each."""
    read, xread = list[int](), Redis.xread

    async def reading(redis: Any, *given: Any, **named: Any) -> Any:
        found = await xread(redis, *given, **named)
        read.extend(len(rows) for _, rows in found)
        return found

    monkeypatch.setattr(Redis, "xread", reading)
    await own_author.write(STARTED)
    settings = Settings(redis_url=own_redis.url, jwt_secret=SECRET, host="127.0.0.1", admin_host="127.0.0.1",
                        port=0, admin_port=0, drain_seconds=0)  # fmt: skip
    named = {"notifications": {"taskIds": [own_author.execution_id]}}
    body, headers = asking("subscriptions/listen", named, TASKS)
    async with (
        Edge(settings) as edge,
        request(edge.port, "POST", "/mcp", own_author.token, headers=headers, body=body) as response,
    ):
        frames = response.frames()
        for _ in range(2):  # the acknowledgement, and the task as it stands
            await anext(frames)
        await own_author.write(*[Status(status="s", message=f"m{number}") for number in range(300)])
        assert json.loads((await anext(frames)).data or "")["params"]["statusMessage"] == "m299"
        await own_author.write(DONE)
        rest = [json.loads(frame.data or "") async for frame in frames if frame.data]
    assert rest[-1]["result"]["resultType"] == "complete"
    assert read
    assert max(read) == 1


# --- the old era -----------------------------------------------------------------------------------------------------


async def initialized(at: EdgeProcess, author: Author, can: Any) -> dict[str, str]:
    """The headers of a session."""
    params = {"protocolVersion": "2025-11-25", "capabilities": can, "clientInfo": {"name": "t", "version": "1"}}
    answer = await post(at, author, {"id": 0, "method": "initialize", "params": params})
    assert answer.body["result"]["protocolVersion"] == "2025-11-25"
    return {"MCP-Protocol-Version": "2025-11-25", "Mcp-Session-Id": answer.headers["mcp-session-id"]}


async def post(at: EdgeProcess, author: Author, message: Any, headers: Any = None) -> Answer:
    return await call(at.port, "POST", "/mcp", author.token, {"jsonrpc": "2.0", **message}, headers=headers or {})


@contextlib.asynccontextmanager
async def old_call(at: EdgeProcess, author: Author, headers: dict[str, str], id_: Any = 7) -> AsyncIterator[Connection]:
    params = {**run(), "_meta": {"progressToken": "p"}}
    body = json.dumps({"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params}).encode()
    given = {"Content-Type": "application/json", **headers}
    async with request(at.port, "POST", "/mcp", author.token, headers=given, body=body) as response:
        assert response.status == 200
        yield response


async def test_an_old_call_is_resumed_on_another_edge(two_edges: list[EdgeProcess], author: Author) -> None:
    """A stream that breaks is no cancel: with its last id the client goes on, asks and all, wherever it comes."""
    session = await initialized(two_edges[0], author, FORMS)
    async with old_call(two_edges[0], author, session) as response:
        frames = response.frames()
        first = await anext(frames)
        assert (first.data or "") == ""
        agent = await started(author)
        await agent.write(STARTED)
        seen = await anext(frames)
        assert json.loads(seen.data or "")["params"]["progress"] == 2
    await agent.write(ASK)
    again = {**session, "Last-Event-ID": seen.id}
    async with request(two_edges[1].port, "GET", "/mcp", author.token, headers=again) as response:
        frames = response.frames()
        asked = json.loads((await anext(frames)).data or "")
        assert asked["method"] == "elicitation/create"
        reply = {"id": asked["id"], "result": {"action": "accept", "content": {"confirm": True}}}
        assert (await post(two_edges[0], author, reply, session)).status == 202
        assert (await agent.log())[-1].type == "input:received"
        await agent.write(DONE)
        rest = [json.loads(frame.data) async for frame in frames if frame.data]
    assert (rest[-1]["id"], rest[-1]["result"]["content"][0]["text"]) == (7, "fine")
    async with request(two_edges[0].port, "GET", "/mcp", author.token, headers=again) as response:
        assert messages(await response.body())[-1] == rest[-1], "the response is there for who lost it"


async def test_an_old_call_is_cancelled_on_another_edge(two_edges: list[EdgeProcess], author: Author) -> None:
    """The notification names the request alone; and the same request again shows the same execution."""
    session = await initialized(two_edges[0], author, {})
    async with old_call(two_edges[0], author, session) as response:
        agent = await started(author)
        async with old_call(two_edges[1], author, session) as second:
            cancel = {"method": "notifications/cancelled", "params": {"requestId": 7, "reason": "enough"}}
            assert (await post(two_edges[1], author, cancel, session)).status == 202
            for each in (response, second):
                error = await last(each)
                assert error["data"]["executionId"] == agent.execution_id
                assert error["data"]["reason"] == "enough"
    assert len(await author.redis.zrange(author.owner.index, 0, -1)) == 1


async def test_requests_of_the_old_era(two_edges: list[EdgeProcess], author: Author) -> None:
    session = await initialized(two_edges[1], author, {})
    assert (await post(two_edges[0], author, {"id": 1, "method": "ping"}, session)).body["result"] == {}
    unknown = await post(two_edges[0], author, {"id": 2, "method": "tasks/list"}, session)
    assert (unknown.status, unknown.body["error"]["code"]) == (200, -32601)
    assert (await post(two_edges[0], author, {"method": "notifications/initialized"}, session)).status == 202
    assert (await call(two_edges[0].port, "GET", "/mcp", author.token)).status == 405
    broken = await call(two_edges[0].port, "GET", "/mcp", author.token, headers={"Last-Event-ID": "1-2"})
    assert broken.status == 400


async def test_an_edge_that_stops(own_redis: EmbeddedRedis, own_author: Author) -> None:
    """It ends a call of the new era with what to call next; one of the old era goes on at another edge, told when to
    come back. A subscription ends with its result. Nothing is cancelled."""
    with edges(own_redis.url, 2, drain_seconds=0.5) as (first, second):
        await known(own_author.redis, [first, second])
        session = await initialized(second, own_author, {})
        body, headers = asking("subscriptions/listen", {"notifications": {"promptsListChanged": True}})
        async with (
            calling(first, own_author, run()) as new,
            request(first.port, "POST", "/mcp", own_author.token, headers=headers, body=body) as listening,
        ):
            other = await started(own_author)
            async with old_call(first, own_author, session) as old:
                agent = await started(own_author)
                assert agent.execution_id != other.execution_id
                await agent.write(STARTED)
                first.send_signal(signal.SIGTERM)
                assert (await last(new))["structuredContent"]["executionId"] == other.execution_id
                raw = await old.body()
            assert messages(await listening.body())[-1]["result"]["resultType"] == "complete"
        assert old.whole
        assert b"retry: " in raw
        ids = [line[4:].decode() for line in raw.split(b"\n") if line.startswith(b"id: ")]
        await agent.write(DONE)
        again = {**session, "Last-Event-ID": ids[-1]}
        async with request(second.port, "GET", "/mcp", own_author.token, headers=again) as response:
            assert messages(await response.body())[-1]["result"]["content"][0]["text"] == "fine"
        assert not await own_author.redis.exists(keys.ABANDONED)


# --- who may, and what there is --------------------------------------------------------------------------------------


async def test_who_may(two_edges: list[EdgeProcess], author: Author) -> None:
    """Without a token a client is told where to get one; a foreign page is refused; reading is not running."""
    at = two_edges[0].port
    body, headers = asking("tools/list", {})
    refused = await call(at, "POST", "/mcp", None, body, headers=headers)
    assert refused.status == 401
    challenge = refused.headers["www-authenticate"]
    where = f"http://127.0.0.1:{at}/.well-known/oauth-protected-resource"
    assert f'resource_metadata="{where}/mcp"' in challenge
    assert 'scope="executions:read executions:write"' in challenge
    for path in ("", "/mcp"):
        told = (await call(at, "GET", "/.well-known/oauth-protected-resource" + path, None)).body
        assert (told["resource"], told["bearer_methods_supported"]) == (f"http://127.0.0.1:{at}/mcp", ["header"])
    for origin, status in (("http://evil.example.com", 403), ("http://localhost:3000", 200)):
        answer = await call(at, "POST", "/mcp", author.token, body, headers={**headers, "Origin": origin})
        assert answer.status == status, origin
    body, headers = asking("tools/call", run())
    reader = token_for(author.user, scopes=["executions:read"])
    refused = await call(at, "POST", "/mcp", reader, body, headers=headers)
    assert refused.status == 403
    assert 'scope="executions:write"' in refused.headers["www-authenticate"]
    assert not await author.redis.exists(author.owner.index)


async def test_what_agents_announce(two_edges: list[EdgeProcess], author: Author) -> None:
    """Live agents are tools, and their examples prompts, whose gaps the user is asked to fill."""
    example = Example(task="Compare {a} with {b}", name="compare")
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "x-mcp-requires": {"sampling": {}}}
    info = AgentInfo(name="announced", description="Compares", input_schema=schema, examples=(example,))
    worker = WorkerInfo(id="w-mcp", host="h", pid=1, concurrency=1, running=0, agents=(info,))
    await announcements.announce(author.redis, worker)
    try:
        tools: dict[str, Any] = {}
        async with asyncio.timeout(15):  # an edge reads the live agents once a second
            while "run_announced" not in tools:
                await asyncio.sleep(0.05)
                listed = await ask(two_edges[0], author, "tools/list", {})
                tools = {tool["name"]: tool for tool in listed["tools"]}
        assert list(tools["run_announced"]["inputSchema"]["properties"]) == ["task", "n", "budget"]
        lacking = await ask(two_edges[0], author, "tools/call", {"name": "run_announced"}, status=400)
        assert lacking["data"]["requiredCapabilities"] == {"sampling": {}}
        prompt = {"name": "compare", "arguments": {"a": "x"}}
        asked = await ask(two_edges[0], author, "prompts/get", prompt, FORMS)
        wanted = asked["inputRequests"]["arguments"]["params"]["requestedSchema"]
        assert wanted["required"] == ["b"]
        responses = {"arguments": {"action": "accept", "content": {"b": "y"}}}
        filled = await ask(two_edges[0], author, "prompts/get", {**prompt, "inputResponses": responses}, FORMS)
        assert "Compare x with y" in filled["messages"][0]["content"]["text"]
    finally:
        await announcements.retire(author.redis, "w-mcp")


async def test_a_budget(two_edges: list[EdgeProcess], author: Author) -> None:
    """A call may limit what its execution spends; what is no limit is refused, and starts nothing."""
    wanted = run(budget={"toolCalls": 3, "costUsd": 0.5})
    async with calling(two_edges[0], author, wanted):
        path = f"/api/agent/executions/{(await started(author)).execution_id}"
    state = (await call(two_edges[1].port, "GET", path, author.token)).body
    assert {name: value for name, value in state["budget"]["limit"].items() if value} == {
        "toolCalls": 3,
        "costUsd": 0.5,
    }
    for wrong in (5, {"dollars": 1}, {"toolCalls": -1}):
        assert (await ask(two_edges[0], author, "tools/call", run(budget=wrong), status=400))["code"] == -32602


async def test_resources(two_edges: list[EdgeProcess], author: Author) -> None:
    """An execution is read as its transcript, and what it made by its own name."""
    turn = await begin(two_edges[0], author)
    await turn.author.write(STARTED, Artifact(artifact_id="a b", media_type="text/plain", text="made", last=True), DONE)
    listed = await ask(two_edges[1], author, "resources/list", {})
    uri = listed["resources"][0]["uri"]
    assert uri == f"runcast://executions/{turn.id}"
    (page,) = (await ask(two_edges[1], author, "resources/read", {"uri": uri}))["contents"]
    assert "fine" in page["text"]
    (made,) = (await ask(two_edges[1], author, "resources/read", {"uri": uri + "/artifacts/a%20b"}))["contents"]
    assert made["text"] == "made"
    for gone in (uri + "x", uri + "/artifacts/c", "file:///etc/passwd"):
        error = await ask(two_edges[1], author, "resources/read", {"uri": gone}, status=400)
        assert (error["code"], error["data"]["uri"]) == (-32602, gone)
    ref = {"ref": {"type": "ref/resource", "uri": "runcast://executions/{executionId}"}}
    completed = await ask(
        two_edges[1], author, "completion/complete", {**ref, "argument": {"name": "executionId", "value": turn.id[:5]}}
    )
    assert completed["completion"]["values"] == [turn.id]


async def test_a_viewer_is_counted(two_edges: list[EdgeProcess], author: Author) -> None:
    """As a stream of this protocol, which ends as finished."""
    before = two_edges[0].metric("runcast_connections_opened_total", protocol="mcp")
    await held(two_edges[0], author, STARTED, DONE)
    await eventually(
        "counted", lambda: two_edges[0].metric("runcast_connections_opened_total", protocol="mcp") == before + 1
    )
