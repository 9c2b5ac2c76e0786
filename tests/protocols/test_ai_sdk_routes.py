"""The AI SDK's endpoints over real sockets: who may call, what bad requests get, what a response is byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter.events import ExecutionComplete, ExecutionStarted, ExecutionSuperseded, InputRequired, MessageDelta
from emitter.wire import ids, keys
from tests.edges import Author, EdgeProcess, call, edge, request, token_for

CHAT = "/api/agent/chat"
JSON = {"Content-Type": "application/json"}
TEXT = [ExecutionStarted(task="t", started_at=1, attempt=1), MessageDelta(message_id="m", delta="Hi")]
RESTARTED = ExecutionStarted(task="t", started_at=2, attempt=2)
AGENTS = ["manual", "other"]
DONE = ExecutionComplete(result=None, duration=1.0)


@pytest.fixture(autouse=True)
async def known(redis: Redis, two_edges: list[EdgeProcess]) -> None:
    """Agents that no worker runs: the tests write their executions."""
    await redis.zadd(keys.AGENTS_KNOWN, dict.fromkeys(AGENTS, ids.now_ms()))
    for each in two_edges:
        async with asyncio.timeout(10):
            while await known_agents(each) != AGENTS:  # an edge looks every second
                await asyncio.sleep(0.05)


async def known_agents(at: EdgeProcess) -> list[str]:
    refused = await call(at.port, "POST", "/api/agent/execute", token_for("nobody"), {"task": "t", "agent": "-"})
    return list(refused.body["known"])


def body(text: str = "t", id_: str = "u1", **fields: Any) -> bytes:
    message = {"id": id_, "role": "user", "parts": [{"type": "text", "text": text}]}
    return json.dumps({"id": "c", "messages": [message], "agent": "manual", **fields}).encode()


def post(at: EdgeProcess, author: Author, content: bytes, path: str = CHAT) -> Any:
    return request(at.port, "POST", path, author.token, headers=JSON, body=content)


async def executions(at: EdgeProcess, author: Author) -> list[Mapping[str, Any]]:
    return list((await call(at.port, "GET", "/api/agent/executions", author.token)).body["executions"])


async def started(at: EdgeProcess, author: Author, content: bytes | None = None, path: str = CHAT) -> Author:
    """Start a turn and leave; the author of its execution."""
    async with post(at, author, content or body(), path) as response:
        assert response.status == 200
    execution = (await executions(at, author))[0]
    return Author(author.redis, author.user, execution["executionId"])


async def test_the_response(two_edges: list[EdgeProcess], author: Author) -> None:
    """A response is an event stream, as the SDK's own servers head it, that ends after the end; leaving it changes
    nothing; two edges give the same bytes, and so does a request that is sent again."""
    turn = await started(two_edges[0], author)
    await turn.write(*TEXT)
    async with asyncio.timeout(15):
        async with post(two_edges[0], author, body()) as first, post(two_edges[1], author, body()) as second:
            await turn.write(DONE)
            got = [await first.body(), await second.body()]
            assert first.whole
            assert second.whole
        async with post(two_edges[1], author, body()) as third:
            got.append(await third.body())
    assert first.headers["content-type"] == "text/event-stream"
    assert first.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert {data.replace(b": hb\n", b"") for data in got} == {got[2]}
    lines = [line for line in got[2].split(b"\n") if line]
    assert lines[0].startswith(b'data: {"type":"start","messageId":"%b"' % turn.execution_id.encode())
    assert lines[-1] == b"data: [DONE]"
    assert len(await executions(two_edges[0], author)) == 1


async def test_waiting_does_not_end_the_stream(two_edges: list[EdgeProcess], author: Author) -> None:
    """A question leaves the response open; what follows the answer is in it."""
    turn = await started(two_edges[0], author)
    async with asyncio.timeout(15), post(two_edges[1], author, body()) as response:
        await turn.write(*TEXT, InputRequired(input_id="i", prompt="?", kind="text"))
        pieces = response.pieces()
        seen = b""
        while b"data-input" not in seen:
            seen += await anext(pieces)
        path = f"/api/agent/executions/{turn.execution_id}/input"
        answer = await call(two_edges[0].port, "POST", path, author.token, {"inputId": "i", "value": "yes"})
        assert answer.status == 202
        await turn.write(DONE)
        rest = b"".join([piece async for piece in pieces])
    assert b'"state":"received"' in rest
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_turn_whose_log_has_gone(two_edges: list[EdgeProcess], author: Author) -> None:
    """A message that is sent again after its log has expired is still answered with how it ended."""
    turn = await started(two_edges[0], author)
    await turn.write(*TEXT, DONE)
    await author.redis.delete(turn.keys.log)
    async with asyncio.timeout(15), post(two_edges[1], author, body()) as response:
        got = await response.body()
        assert response.whole
    assert b'"type":"finish"' in got
    assert got.endswith(b"data: [DONE]\n\n")


async def test_resume(two_edges: list[EdgeProcess], author: Author) -> None:
    """A chat's stream is its running execution from the start; of those that run, the newest; 204 when none does."""
    path = CHAT + "/c/stream"
    assert (await call(two_edges[1].port, "GET", path, author.token)).status == 204
    old = await started(two_edges[0], author, body(id_="u1"))
    turn = await started(two_edges[0], author, body(id_="u2"))
    assert old.execution_id != turn.execution_id
    await turn.write(*TEXT)
    async with asyncio.timeout(15), request(two_edges[1].port, "GET", path, author.token) as response:
        assert response.status == 200
        await turn.write(DONE)
        got = await response.body()
    assert got.startswith(b'data: {"type":"start","messageId":"%b"' % turn.execution_id.encode())
    assert b'"delta":"Hi"' in got
    await old.write(DONE)
    assert (await call(two_edges[1].port, "GET", path, author.token)).status == 204
    assert (await call(two_edges[1].port, "GET", CHAT + "/d/stream", author.token)).status == 204


async def test_a_lost_attempt(two_edges: list[EdgeProcess], author: Author) -> None:
    """Who resumes after a retry took over is not shown what is void. Who sends again is, with the mark: chunks have one
    number in all answers to one message."""
    turn = await started(two_edges[0], author)
    await turn.write(
        *TEXT, ExecutionSuperseded(from_seq=1, attempt=2), RESTARTED, MessageDelta(message_id="n", delta="Ho")
    )
    resume = request(two_edges[1].port, "GET", CHAT + "/c/stream", author.token)
    async with asyncio.timeout(15), resume as resumed, post(two_edges[0], author, body()) as repeated:
        await turn.write(DONE)
        seen, again = await resumed.body(), await repeated.body()
    assert (b'"delta":"Ho"' in seen, b'"delta":"Hi"' in seen) == (True, False)
    assert again.index(b'"delta":"Hi"') < again.index(b"data-superseded") < again.index(b'"delta":"Ho"')


async def test_another_answer(two_edges: list[EdgeProcess], author: Author) -> None:
    """A question that is asked again, by its own id too, is answered again each time; a page that sends one message
    goes on from its last answer."""

    def one(id_: str, **fields: Any) -> bytes:
        message = {"id": id_, "role": "user", "parts": [{"type": "text", "text": id_}]}
        return json.dumps({"id": "c", "message": message, "agent": "manual", **fields}).encode()

    answers = []
    for number in range(3):
        again = {"trigger": "regenerate-message", "messageId": "u1"} if number else {}
        answers.append(await started(two_edges[0], author, one("u1", **again)))
        await answers[-1].write(MessageDelta(message_id="m", delta=f"answer {number}"), DONE)
    assert len({each.execution_id for each in answers}) == 3
    next_one = await started(two_edges[1], author, one("u2"))
    record = next_one.owner.execution(next_one.execution_id).record
    given = json.loads(await author.redis.hget(record, "params") or b"")
    assert [each["content"] for each in given["messages"]] == ["u1", "answer 2", "u2"]


async def test_stop(two_edges: list[EdgeProcess], author: Author) -> None:
    """Stop cancels all that runs in the chat, and nothing else; a repeat finds nothing."""
    other = await started(two_edges[0], author, body(id_="u0", id="other"))
    turns = [await started(two_edges[0], author, body(id_=f"u{number}")) for number in (1, 2)]
    answer = await call(two_edges[1].port, "POST", CHAT + "/c/stop", author.token, {"reason": "enough"})
    stopped = {each["executionId"]: each["state"] for each in answer.body["executions"]}
    assert (answer.status, stopped) == (202, {turn.execution_id: "cancelled" for turn in turns})
    states = {each["executionId"]: each["state"] for each in await executions(two_edges[0], author)}
    assert states[other.execution_id] == "queued"
    events = await call(two_edges[0].port, "GET", f"/api/agent/executions/{turns[0].execution_id}/events", author.token)
    assert events.body["events"][-1]["event"]["data"] == {"reason": "enough", "by": author.user}
    again = await call(two_edges[1].port, "POST", CHAT + "/c/stop", author.token)
    assert (again.status, again.body) == (202, {"executions": []})


async def test_which_agent(two_edges: list[EdgeProcess], author: Author) -> None:
    """The agent is the body's, or else the query's; where there are several, one must be named."""
    unnamed = {"agent": None}
    await started(two_edges[0], author, body(id_="u1"), CHAT + "?agent=other")
    await started(two_edges[0], author, body(id_="u2", **unnamed), CHAT + "?agent=other")
    assert {each["agent"] for each in await executions(two_edges[0], author)} == {"manual", "other"}
    refused = await call(two_edges[0].port, "POST", CHAT, author.token, body(id_="u3", **unnamed))
    assert (refused.status, refused.body["known"]) == (422, AGENTS)


@pytest.mark.parametrize(
    ("content", "status", "path"),
    [
        (b"{", 400, None),
        (b'{"messages":[]}', 422, "$.messages"),
        (b'{"id":""}', 422, "$.id"),
        (b'{"id":"c"}', 422, "$.messages"),
        (b'{"id":"c","message":{"role":"assistant"}}', 422, "$.message"),
        (b'{"id":"c","messages":[{"role":"user","content":"t"}],"trigger":"dance"}', 422, "$.trigger"),
        (body(agent="nobody"), 422, "$.agent"),
        (body(text="t" * 65_537), 422, "$.task"),
    ],
)
async def test_bad_requests(
    two_edges: list[EdgeProcess], author: Author, content: bytes, status: int, path: str | None
) -> None:
    """A request that is none is refused as a problem that names the field; nothing is started."""
    refused = await call(two_edges[0].port, "POST", CHAT, author.token, content)
    assert (refused.status, refused.body.get("path")) == (status, path)
    assert await executions(two_edges[0], author) == []


@pytest.mark.parametrize(
    ("method", "path", "scope", "status"),
    [
        ("POST", CHAT, "executions:read", 403),
        ("POST", CHAT, "executions:write", 403),
        ("GET", CHAT + "/c/stream", "executions:write", 403),
        ("GET", CHAT + "/c/stream", "executions:read", 204),
        ("POST", CHAT + "/c/stop", "executions:read", 403),
        ("POST", CHAT + "/c/stop", "executions:write", 202),
    ],
)
async def test_scopes(
    two_edges: list[EdgeProcess], author: Author, method: str, path: str, scope: str, status: int
) -> None:
    """A turn starts and reads; a resume reads; a stop writes. Without a token there is nothing."""
    content = body() if path == CHAT else None
    limited = token_for(author.user, scopes=[scope])
    assert (await call(two_edges[0].port, method, path, limited, content)).status == status
    assert (await call(two_edges[0].port, method, path, None, content)).status == 401
    assert await executions(two_edges[0], author) == []


async def test_the_rate_of_executions(redis: Redis, redis_url: str, author: Author) -> None:
    """A turn counts as an execution where their rate is limited."""
    with edge(redis_url, executes_per_minute=1) as strict:
        await started(strict, author)
        refused = await call(strict.port, "POST", CHAT, author.token, body(id_="u2"))
    assert (refused.status, "retry-after" in refused.headers) == (429, True)


async def test_chats_are_their_owners(two_edges: list[EdgeProcess], author: Author) -> None:
    """Nobody resumes or stops the chat of somebody else, also when it has the same id."""
    await started(two_edges[0], author)
    stranger = token_for("stranger")
    assert (await call(two_edges[0].port, "GET", CHAT + "/c/stream", stranger)).status == 204
    assert (await call(two_edges[0].port, "POST", CHAT + "/c/stop", stranger)).body == {"executions": []}
    assert [each["state"] for each in await executions(two_edges[0], author)] == ["queued"]
