"""A task watched by an `EventSource`, which can send no header but `Last-Event-ID`: by cookie, or by ticket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from emitter.events import ExecutionComplete, ExecutionStarted, Thinking
from tests.edges import Author, EdgeProcess, Frame, call, edge, request, token_for

STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
DONE = ExecutionComplete(result={"ok": True}, duration=1.0)
ORIGIN = "https://app.example.com"
FORMS = ["&A2A-Version=1.0", "", "&format=simple"]


def opening(at: EdgeProcess, task_id: str, query: str = "", **headers: str) -> Any:
    """What a browser sends for `new EventSource(…)`, and each time it comes back."""
    given = {"Accept": "text/event-stream", "Cache-Control": "no-cache", "Sec-Fetch-Mode": "cors"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return request(at.port, "GET", f"/a2a/stream?taskId={task_id}{query}", headers=given)


def cookie(author: Author) -> dict[str, str]:
    return {"Cookie": f"runcast_token={author.token}", "Sec_Fetch_Site": "same-origin"}


async def ticket(at: EdgeProcess, author: Author, execution_id: str | None = None) -> str:
    body = {} if execution_id is None else {"executionId": execution_id}
    answer = await call(at.port, "POST", "/api/agent/stream-tickets", author.token, body)
    return f"&ticket={answer.body['ticket']}"


async def frames_of(connection: Any, count: int) -> list[Frame]:
    found: list[Frame] = []
    async with asyncio.timeout(15):
        async for frame in connection.frames():
            found.append(frame)
            if len(found) == count:
                break
    return found


def told(frames: list[Frame]) -> list[str]:
    return [frame.id for frame in frames if frame.id]


@pytest.mark.parametrize("form", FORMS)
async def test_by_cookie(two_edges: list[EdgeProcess], author: Author, form: str) -> None:
    """With a cookie it comes back by itself: joined over its connections to two edges it has the task once, in order,
    to the end, and then 204, which stops it."""
    await author.write(STARTED, Thinking(thought="one"))
    async with opening(two_edges[0], "ex_1", form, **cookie(author)) as stream:
        seen = await frames_of(stream, 2)
    await author.write(Thinking(thought="two"), DONE)
    async with opening(two_edges[1], "ex_1", form, **cookie(author), Last_Event_ID=seen[-1].id or "") as stream:
        seen += await frames_of(stream, -1)
        assert stream.whole
    assert told(seen) == [event.id for event in await author.log()]
    async with opening(two_edges[0], "ex_1", form, **cookie(author), Last_Event_ID=seen[-1].id or "") as stream:
        assert stream.status == 204


async def test_a_foreign_pages_cookie(two_edges: list[EdgeProcess], author: Author) -> None:
    """A cookie counts for nothing on another site's page."""
    await author.begin()
    foreign = cookie(author) | {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"}
    async with opening(two_edges[0], "ex_1", **foreign) as stream:
        assert stream.status == 403


@pytest.mark.parametrize("form", FORMS)
async def test_by_ticket(two_edges: list[EdgeProcess], author: Author, form: str) -> None:
    """A ticket opens a stream, at any edge; with it, or with a new one, the stream goes on after the last event, also
    where that is said in the query."""
    await author.write(STARTED, Thinking(thought="one"))
    first = await ticket(two_edges[0], author, "ex_1")
    async with opening(two_edges[1], "ex_1", form + first) as stream:
        seen = await frames_of(stream, 2)
    await author.write(Thinking(thought="two"))
    async with opening(two_edges[0], "ex_1", form + first, Last_Event_ID=seen[-1].id or "") as stream:
        seen += await frames_of(stream, 1)
    await author.write(DONE)
    again = await ticket(two_edges[0], author, "ex_1") + f"&lastEventId={seen[-1].id}"
    async with opening(two_edges[0], "ex_1", form + again) as stream:
        seen += await frames_of(stream, -1)
    assert told(seen) == [event.id for event in await author.log()]


async def test_anothers_ticket(two_edges: list[EdgeProcess], author: Author) -> None:
    """A ticket for one execution opens no other, not even of the same user; one for all opens any of theirs."""
    await author.begin()
    other = Author(author.redis, author.user, "ex_2")
    await other.begin()
    async with opening(two_edges[0], "ex_2", await ticket(two_edges[0], author, "ex_1")) as stream:
        assert stream.status == 403
    async with opening(two_edges[0], "ex_2", await ticket(two_edges[0], author)) as stream:
        assert stream.status == 200
    stranger = Author(author.redis, "stranger")
    async with opening(two_edges[0], "ex_1", await ticket(two_edges[0], stranger)) as stream:
        assert stream.status == 404


async def test_a_ticket_is_no_oracle(two_edges: list[EdgeProcess], author: Author) -> None:
    """With a ticket for one execution every other one is refused in the same way, whether it runs, has ended at the
    cursor, or does not exist."""
    await author.begin()
    for name in ("ex_2", "ex_3"):
        await Author(author.redis, author.user, name).begin()
    ended = Author(author.redis, author.user, "ex_3")
    await ended.end()
    last = (await ended.log())[-1].id
    for query in ("&", f"&lastEventId={last}&"):
        for name in ("ex_2", "ex_3", "ex_4", "*"):
            used = query.rstrip("&") + await ticket(two_edges[0], author, "ex_1")
            async with opening(two_edges[0], name, used) as stream:
                assert stream.status == 403, (name, query)


async def test_an_admins_ticket_is_for_one_owner(two_edges: list[EdgeProcess], author: Author) -> None:
    """A ticket that an admin made for one user opens nobody else's executions."""
    await author.begin()
    other = Author(author.redis, "other")
    await other.begin()
    admin = token_for("root", scopes=["admin", "executions:read"])
    for user, status in ((author.user, 200), (other.user, 403)):
        made = await call(two_edges[0].port, "POST", f"/api/agent/stream-tickets?user={author.user}", admin, {})
        async with opening(two_edges[0], "ex_1", f"&user={user}&ticket={made.body['ticket']}") as stream:
            assert stream.status == status


@pytest.mark.parametrize("form", FORMS)
async def test_a_task_whose_log_has_gone(two_edges: list[EdgeProcess], author: Author, form: str) -> None:
    """Of a task that is only a memory it is shown the end, and then stopped."""
    await author.write(STARTED, DONE)
    await author.redis.delete(author.keys.log)
    async with opening(two_edges[0], "ex_1", form, **cookie(author)) as stream:
        seen = await frames_of(stream, -1)
        assert stream.whole
    last = json.loads(seen[-1].data or "")
    assert "completed" in json.dumps(last).lower()
    async with opening(two_edges[0], "ex_1", form, **cookie(author), Last_Event_ID=seen[-1].id or "") as stream:
        assert stream.status == 204


async def test_a_full_edge_sends_it_elsewhere(own_redis: EmbeddedRedis, own_author: Author) -> None:
    """A full edge gives it an empty stream and says when to return, since an error would stop it for ever; who is none
    is refused."""
    await own_author.begin()
    with edge(own_redis.url, max_connections=1) as at:
        async with opening(at, "ex_1", **cookie(own_author)) as first:
            assert first.status == 200
            async with opening(at, "ex_1", **cookie(own_author)) as second:
                assert second.status == 200
                assert "retry: " in (await second.body()).decode()
            refused = await call(at.port, "GET", "/a2a/stream?taskId=ex_1", token_for(own_author.user))
            assert refused.status == 503
