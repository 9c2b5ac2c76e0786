"""The endpoints of the AI SDK's transport for durable streams, and its chunks by offset, over real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from redis.asyncio import Redis

from emitter.events import ExecutionComplete, ExecutionStarted, InputReceived, InputRequired, MessageDelta
from emitter.store.append import LogLimits
from tests.edges import Answer, Author, EdgeProcess, call, eventually, request, token_for
from tests.protocols import shows
from tests.protocols.shows import CHAT, Turn

BASE = "/ds/chat"
STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
DONE = ExecutionComplete(result=None, duration=1.0)
ASKED = InputRequired(input_id="i", prompt="Go on?", kind="approval")


@pytest.fixture(autouse=True)
async def known(redis: Redis, two_edges: list[EdgeProcess]) -> None:
    await shows.known(redis, two_edges)


def body(**fields: Any) -> dict[str, Any]:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "t"}]}
    return {"id": CHAT, "messages": [message], "agent": shows.AGENT, "trigger": "submit-message", **fields}


async def post(at: EdgeProcess, author: Author, token: str | None = None, **fields: Any) -> Answer:
    return await call(at.port, "POST", BASE, token or author.token, body(**fields))


def path_of(answer: Answer, asked: str = BASE) -> str:
    """The URL that an answer names, from the root on."""
    assert answer.headers["location"] == answer.body["streamUrl"]
    assert answer.headers["cache-control"] == "no-store"
    return urljoin(asked, answer.headers["location"])


async def chunks(at: EdgeProcess, path: str, token: str | None = None, offset: int | str = "-1") -> tuple[Any, Any]:
    offset = f"{offset:010d}" if isinstance(offset, int) else offset
    answer = await call(at.port, "GET", f"{path}&offset={offset}", token)
    return answer, answer.body


def execution_in(path: str) -> str:
    return urlsplit(path).path.rsplit("/", 1)[1]


async def test_a_turn(two_edges: list[EdgeProcess], author: Author) -> None:
    """A POST starts an execution and names its chunks, which can be read without any header; the same POST again names
    the same; and while it runs a GET does."""
    answer = await post(two_edges[0], author)
    path = path_of(answer)
    again = await post(two_edges[1], author)
    assert (answer.status, again.status) == (201, 201)
    run = Author(author.redis, author.user, execution_in(path))
    assert execution_in(path_of(again)) == run.execution_id
    where = f"{BASE}/{CHAT}/stream"
    running = await call(two_edges[1].port, "GET", where, author.token)
    assert (running.status, execution_in(path_of(running, where))) == (200, run.execution_id)
    await run.write(STARTED, MessageDelta(message_id="m", delta="Hi"), DONE)
    whole, items = await chunks(two_edges[1], path)
    assert (items[0]["type"], items[-1]["type"]) == ("start", "finish")
    assert [item["delta"] for item in items if item["type"] == "text-delta"] == ["Hi"]
    assert whole.headers["stream-closed"] == "true"
    assert int(whole.headers["stream-next-offset"]) == len(items)
    assert (await call(two_edges[0].port, "GET", where, author.token)).status == 204


async def test_who_gets_a_ticket(two_edges: list[EdgeProcess], author: Author) -> None:
    """A URL for a caller with a token has a ticket for this execution; one for a page with the cookie has none."""
    path = path_of(await post(two_edges[0], author))
    assert set(parse_qs(urlsplit(path).query)) == {"format", "ticket"}
    other = Author(author.redis, author.user, "ex_other")
    await other.begin()
    foreign = path.replace(execution_in(path), other.execution_id)
    assert (await chunks(two_edges[0], foreign))[0].status == 403
    cookie = {"Cookie": f"runcast_token={author.token}", "Origin": f"http://127.0.0.1:{two_edges[0].port}"}
    answer = await call(two_edges[0].port, "POST", BASE, None, body(), headers=cookie)
    path = path_of(answer)
    assert set(parse_qs(urlsplit(path).query)) == {"format"}
    assert (await call(two_edges[0].port, "GET", path, None, headers=cookie)).status == 200
    assert (await call(two_edges[0].port, "GET", path, None)).status == 401
    reader = token_for(author.user, scopes={"executions:read"})
    assert (await post(two_edges[0], author, reader)).status == 403


@pytest.fixture
async def turn(two_edges: list[EdgeProcess], author: Author) -> Turn:
    return await shows.begin(two_edges[0], author)


async def test_offsets_are_numbers_of_chunks(two_edges: list[EdgeProcess], turn: Turn) -> None:
    """From each of them on there is the rest, on every edge, as pages, long poll and stream; HEAD and `now` count them;
    an offset of another form is none, and one beyond the end is of another log."""
    path = f"/ds/executions/{turn.id}?format=ai-sdk"
    await turn.author.write(STARTED, MessageDelta(message_id="m", delta="Hi"))
    _, whole = await chunks(two_edges[0], path, turn.author.token)
    waiting = asyncio.create_task(
        call(two_edges[1].port, "GET", f"{path}&live=long-poll&offset={len(whole):010d}", turn.author.token)
    )
    await eventually("it waits", lambda: two_edges[1].metric("runcast_waits") >= 1)
    await turn.author.write(DONE)
    came = await waiting
    whole += came.body
    assert came.headers["stream-closed"] == "true"
    for number in (0, 1, len(whole) - 1, len(whole)):
        for at in two_edges:
            assert (await chunks(at, path, turn.author.token, number))[1] == whole[number:]
            target = f"{path}&live=sse&offset={number:010d}"
            async with request(at.port, "GET", target, turn.author.token) as response, asyncio.timeout(10):
                frames = [frame async for frame in response.frames()]
            items = [item for each in frames if each.event == "data" for item in json.loads(each.data or "")]
            assert items == whole[number:]
    now, nothing = await chunks(two_edges[0], path, turn.author.token, "now")
    async with request(two_edges[1].port, "HEAD", path, turn.author.token) as head:
        assert (int(head.headers["stream-next-offset"]), head.headers["stream-closed"]) == (len(whole), "true")
    assert (nothing, int(now.headers["stream-next-offset"])) == ([], len(whole))
    for offset, status in (("1763682353170_0000000012", 400), ("5-5", 400), ("3", 400), (len(whole) + 1, 410)):
        assert (await chunks(two_edges[0], path, turn.author.token, offset))[0].status == status
    assert (await chunks(two_edges[0], path + "&approvals=x", turn.author.token))[0].status == 400


async def test_pages_of_chunks(two_edges: list[EdgeProcess], turn: Turn) -> None:
    """A long answer comes in pages, which together are what one stream has."""
    path = f"/ds/executions/{turn.id}?format=ai-sdk"
    await turn.author.write(STARTED)
    for number in range(12):
        text = MessageDelta(message_id=f"m{number}", delta="x" * 50_000)
        await turn.author.write(text)
    await turn.author.write(DONE)
    found, offset, pages = [], "-1", 0
    while True:
        page, items = await chunks(two_edges[pages % 2], path, turn.author.token, offset)
        found += items
        offset, pages = page.headers["stream-next-offset"], pages + 1
        assert int(offset) == len(found)
        assert ("stream-closed" in page.headers) == ("stream-up-to-date" in page.headers)
        if "stream-closed" in page.headers:
            break
    assert pages > 2
    async with request(two_edges[0].port, "GET", f"{path}&live=sse&offset=-1", turn.author.token) as response:
        frames = [frame async for frame in response.frames()]
    assert found == [item for each in frames if each.event == "data" for item in json.loads(each.data or "")]


async def test_views_of_approvals(two_edges: list[EdgeProcess], author: Author) -> None:
    """A turn that wants the SDK's approvals closes at the question. What follows the answer is a view with a number of
    its own; a page that is opened again gets it all, up to what is asked now."""
    path = path_of(await post(two_edges[0], author, toolApprovals=True))
    run = Author(author.redis, author.user, execution_in(path))
    await run.write(STARTED, ASKED)
    first, asked = await chunks(two_edges[0], path)
    assert (asked[-1]["type"], first.headers["stream-closed"]) == ("finish", "true")
    await run.write(InputReceived(input_id="i", by=author.user, value=True), MessageDelta(message_id="m", delta="Yes"))
    assert (await chunks(two_edges[1], path))[1] == asked, "the same, whatever came since"
    seq = len(await run.log()) - 2
    _, rest = await chunks(two_edges[1], f"/ds/executions/{run.execution_id}.{seq}?format=ai-sdk", author.token)
    assert [item["delta"] for item in rest if item["type"] == "text-delta"] == ["Yes"]
    where = f"{BASE}/{CHAT}/stream"
    again = await call(two_edges[1].port, "GET", where, author.token)
    whole, items = await chunks(two_edges[0], path_of(again, where))
    assert "stream-closed" not in whole.headers
    assert "Yes" in [item.get("delta") for item in items]


async def test_chunks_without_a_beginning(two_edges: list[EdgeProcess], turn: Turn) -> None:
    """If the log has lost its head, or is gone, the count of its chunks is gone as well."""
    path = f"/ds/executions/{turn.id}?format=ai-sdk"
    short = Author(turn.author.redis, turn.author.user, turn.id, limits=LogLimits(log_maxlen=100))
    for _ in range(6):
        await short.say(60)
    for offset in ("-1", 3):
        answer, problem = await chunks(two_edges[0], path, turn.author.token, offset)
        assert (answer.status, problem["type"]) == (410, "urn:runcast:problem:trimmed")
    await short.end()
    await short.redis.delete(short.keys.log)
    answer, problem = await chunks(two_edges[0], path, turn.author.token)
    assert (answer.status, problem["type"]) == (410, "urn:runcast:problem:trimmed")
