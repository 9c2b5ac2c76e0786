"""`startIndex` over real sockets: whose execution, from which chunk, and what is said where that cannot be had."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter.events import ExecutionComplete, ExecutionSuperseded, MessageDelta
from tests.edges import Author, EdgeProcess, call, edge, request, token_for
from tests.protocols import shows
from tests.protocols.shows import CHAT
from tests.protocols.test_ai_sdk_routes import DONE, RESTARTED, TEXT

CHUNKS = "/api/agent/chat/{}/stream?startIndex={}"


@pytest.fixture
async def turn(redis: Redis, two_edges: list[EdgeProcess], author: Author) -> Author:
    """Of an execution in the chat, that no worker runs."""
    await shows.known(redis, two_edges)
    return (await shows.begin(two_edges[0], author)).author


async def chunks(at: EdgeProcess, turn: Author, start: int, named: str = CHAT, token: str | None = None) -> list[Any]:
    path = CHUNKS.format(named, start)
    async with asyncio.timeout(15), request(at.port, "GET", path, token or turn.token) as response:
        assert response.status == 200
        body = await response.body()
        assert response.whole
    return shows.contents(body)


async def test_the_same_on_every_edge(two_edges: list[EdgeProcess], turn: Author) -> None:
    """What a POST shows, and what each edge shows from a chunk on, is one sequence; a lost attempt counts, and an
    execution that has ended is shown as well."""
    await turn.write(*TEXT, ExecutionSuperseded(from_seq=1, attempt=2), RESTARTED)
    show = shows.AI_SDK[0]
    async with show.stream(two_edges[0], shows.Turn(turn, "")) as response, asyncio.timeout(15):
        assert response.headers["x-workflow-run-id"] == turn.execution_id
        await turn.write(MessageDelta(message_id="n", delta="Ho"), DONE)
        whole = shows.contents(await response.body())
    assert whole[0]["type"] == "start"
    for start in (0, 1, 5, len(whole) - 1):
        for at in two_edges:
            for named in (CHAT, turn.execution_id):
                assert await chunks(at, turn, start, named) == whole[start:]
    assert await chunks(two_edges[0], turn, len(whole) + 5) == whole[-1:]


async def test_headers(redis_url: str, two_edges: list[EdgeProcess], turn: Author) -> None:
    """The run's id, and for the last chunks the index of the last one, which pages of other origins may read."""
    await turn.write(*TEXT, DONE)
    origin = "https://app.example.com"
    with edge(redis_url, cors_origins=origin) as open_one:
        for start in (0, -2):
            path = CHUNKS.format(turn.execution_id, start)
            async with request(open_one.port, "GET", path, turn.token, headers={"Origin": origin}) as response:
                assert response.status == 200
                body = shows.contents(await response.body())
                assert response.headers["x-workflow-run-id"] == turn.execution_id
                exposed = response.headers["access-control-expose-headers"].lower()
                assert {"x-workflow-run-id", "x-workflow-stream-tail-index"} <= set(exposed.split(", "))
                tail = response.headers.get("x-workflow-stream-tail-index")
                whole = await chunks(two_edges[1], turn, 0)
                place = 0 if tail is None else int(tail) + 1 - 2
                assert (tail is None, body) == (start == 0, whole[place:])


async def test_the_newest_of_a_chat(two_edges: list[EdgeProcess], turn: Author, author: Author) -> None:
    """By a chat's id it is the newest execution, whether or not an older one still runs."""
    body = {"id": CHAT, "agent": shows.AGENT, "message": {"id": "u2", "role": "user", "content": "more"}}
    headers = {"Content-Type": "application/json"}
    async with request(
        two_edges[0].port, "POST", "/api/agent/chat", author.token, headers=headers, body=json.dumps(body).encode()
    ) as response:
        newest = Author(author.redis, author.user, response.headers["x-workflow-run-id"])
    assert newest.execution_id != turn.execution_id
    await newest.write(DONE)
    assert (await chunks(two_edges[0], turn, 0))[0]["messageId"] == newest.execution_id


async def test_nothing_there(two_edges: list[EdgeProcess], turn: Author) -> None:
    """A chat without an execution, or another's, is a stream that ends at once: 204 would be an error."""
    assert await chunks(two_edges[0], turn, 0, "another") == [{"type": "finish"}]
    stranger = token_for("stranger")
    for named in (CHAT, turn.execution_id):
        assert await chunks(two_edges[0], turn, 3, named, stranger) == [{"type": "finish"}]


@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_log_without_its_head(two_edges: list[EdgeProcess], turn: Author, is_gone: bool) -> None:
    """Where the oldest events are gone, a number of chunks means nothing any more; who begins gets what there is."""
    await turn.write(*TEXT, ExecutionComplete(result="42", duration=1.0))
    if is_gone:
        await turn.redis.delete(turn.keys.log)
    else:
        await turn.redis.xtrim(turn.keys.log, maxlen=2, approximate=False)
    refused = await call(two_edges[0].port, "GET", CHUNKS.format(CHAT, 2), turn.token)
    assert (refused.status, refused.body["type"]) == (410, "urn:runcast:problem:trimmed")
    assert refused.headers["content-type"].startswith("application/problem+json")
    for start in (0, -100):
        seen = await chunks(two_edges[1], turn, start)
        assert (seen[0]["type"], seen[-1]["messageMetadata"]["result"]) == ("start", "42")
        assert any("lostBefore" in (each.get("messageMetadata") or {}) for each in seen)


@pytest.mark.parametrize("start", ["", "x", "1.5", "+1", "--1", "1e3", "9" * 10, "%D9%A3"])
async def test_bad_numbers(two_edges: list[EdgeProcess], turn: Author, start: str) -> None:
    """What is no number is refused."""
    refused = await call(two_edges[0].port, "GET", CHUNKS.format(CHAT, start), turn.token)
    assert (refused.status, refused.body["path"]) == (400, "startIndex")


async def test_who_may(two_edges: list[EdgeProcess], turn: Author) -> None:
    """Without a token, or the right to read, there is nothing."""
    path = CHUNKS.format(CHAT, 0)
    limited = token_for(turn.user, scopes=["executions:write"])
    assert (await call(two_edges[0].port, "GET", path, limited)).status == 403
    assert (await call(two_edges[0].port, "GET", path, None)).status == 401


@pytest.mark.parametrize("end", ["%0D%0AX-Mine: 1", "%0AX-Mine: 1", "%0D%0A%0D%0A%3Cp%3E", "%E2%82%AC", "%00", "a b"])
@pytest.mark.parametrize("is_over", [False, True])
async def test_an_id_of_a_run_that_is_none(two_edges: list[EdgeProcess], turn: Author, end: str, is_over: bool) -> None:
    """It names nothing, and nothing of it comes into the head of the response."""
    await turn.write(*TEXT, *([DONE] if is_over else []))
    path = CHUNKS.format(f"{turn.execution_id}~m{end}".replace(" ", "%20"), 0)
    async with request(two_edges[0].port, "GET", path, turn.token) as response:
        assert response.status == 200
        assert not {"x-mine", "x-workflow-run-id"} & set(response.headers)
        assert shows.contents(await response.body()) == [{"type": "finish"}]
        assert response.whole
    path = f"/ds/executions/{turn.execution_id}~m{end}?format=ai-sdk".replace(" ", "%20")
    assert (await call(two_edges[0].port, "GET", path, turn.token)).status == 404


async def test_a_refusal_that_passes(redis_url: str, turn: Author) -> None:
    """An edge that drains, or is full, ends such a stream after a moment, without a `finish`, and its connection: the
    client asks again. An error would be the end to it."""
    await turn.write(*TEXT)
    path = CHUNKS.format(CHAT, 0)
    with edge(redis_url, max_connections=1, drain_seconds=60) as full:
        async with asyncio.timeout(20), request(full.port, "GET", path, turn.token) as held:
            assert held.status == 200
            assert await _later(full, turn) == b": later\n\n"
            full.send_signal(signal.SIGTERM)
            async for _ in held.pieces():
                pass  # until the drain ends it
            assert held.whole, "a clean end, which is no error to this client"
            assert await _later(full, turn) == b": later\n\n"


async def _later(at: EdgeProcess, turn: Author) -> bytes:
    async with request(at.port, "GET", CHUNKS.format(CHAT, 2), turn.token) as response:
        assert (response.status, response.headers["connection"]) == (200, "close")
        body = await response.body()
        assert response.whole
    return body
