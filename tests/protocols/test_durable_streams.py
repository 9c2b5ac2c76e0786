"""Durable Streams over real sockets: what the published conformance kit (`@durable-streams/server-conformance-tests`
0.3.6) asks of readers, in our own words, and what offsets may be."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from emitter.events import MessageDelta
from emitter.store.append import LogLimits
from emitter.wire.ids import EventId
from tests.edges import (
    Author,
    Connection,
    EdgeProcess,
    Frame,
    call,
    edge,
    edges,
    eventually,
    request,
    token_for,
    under_load,
)

OFFSET, UP_TO_DATE, CLOSED, CURSOR = "stream-next-offset", "stream-up-to-date", "stream-closed", "stream-cursor"
INTERVAL = 20
ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def small(redis_server: EmbeddedRedis) -> Iterator[EdgeProcess]:
    """An edge with room for two streams, which pages of another origin may ask."""
    with edge(redis_server.url, max_connections=2, cors_origins=ORIGIN) as started:
        yield started


def path(author: Author, query: str = "") -> str:
    return f"/ds/executions/{author.execution_id}" + (f"?{query}" if query else "")


def ask(
    at: EdgeProcess, author: Author, query: str = "", *, method: str = "GET", headers: Mapping[str, str] = {}
) -> AbstractAsyncContextManager[Connection]:
    return request(at.port, method, path(author, query), author.token, headers=headers, seconds=25)


async def get(at: EdgeProcess, author: Author, query: str = "", **headers: str) -> tuple[Connection, Any]:
    """The answer and its JSON; None for no body."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with asyncio.timeout(25), ask(at, author, query, headers=given) as response:
        body = b"" if response.status in (204, 304) else await response.body()
    return response, json.loads(body) if body else None


def told(response: Connection) -> dict[str, str]:
    """What an answer says of the stream."""
    names = (OFFSET, UP_TO_DATE, CLOSED)
    return {name: response.headers[name] for name in names if name in response.headers}


def offset(id_: EventId) -> str:
    return f"{id_.ms:013d}_{id_.seq:010d}"


async def sse(at: EdgeProcess, author: Author, query: str) -> list[Frame]:
    """All of a stream that ends by itself."""
    async with ask(at, author, "live=sse&" + query) as response, asyncio.timeout(15):
        assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
        frames = [frame async for frame in response.frames()]
        assert response.whole
    return frames


def types(items: Any) -> list[str]:
    return [item["type"] for item in items]


# --- catch-up --------------------------------------------------------------------------------------------------------


async def test_a_whole_stream(two_edges: list[EdgeProcess], author: Author) -> None:
    """An open stream is read from the start to its end, an ended one says so where all of it was read, and an offset
    means what follows it, on every edge. Nothing, `-1`, an offset of ours, and an id of ours are offsets."""
    first = await author.begin()
    tail = await author.say(2)
    for at in two_edges:
        whole, items = await get(at, author)
        assert types(items) == ["execution:started", "thinking", "thinking"]
        assert told(whole) == {OFFSET: offset(tail), UP_TO_DATE: "true"}
        assert (await get(at, author, "offset=-1"))[1] == items
        for after in (offset(first), str(first)):
            assert (await get(at, author, f"offset={after}"))[1] == items[1:]
        nothing, empty = await get(at, author, f"offset={offset(tail)}")
        assert (empty, told(nothing)) == ([], {OFFSET: offset(tail), UP_TO_DATE: "true"})
    end = await author.end()
    ended = {OFFSET: offset(end), UP_TO_DATE: "true", CLOSED: "true"}
    last, items = await get(two_edges[1], author, f"offset={offset(tail)}")
    assert (types(items), told(last)) == (["execution:complete"], ended)
    nothing, empty = await get(two_edges[1], author, f"offset={offset(end)}")
    assert (nothing.status, empty, told(nothing)) == (200, [], ended)
    assert json.loads((await author.log())[1].data) in (await get(two_edges[0], author))[1], "as the log has it"


async def test_pages(two_edges: list[EdgeProcess], author: Author) -> None:
    """A long log comes in pages that say they are none of the end; together they are the log, once and in order; and
    the offsets sort as text where our ids do not."""
    await author.begin()
    for _ in range(9):
        await author.say(100)
    end = await author.end()
    offsets, items, query = ["-1"], [], "offset=-1"
    while True:
        page, more = await get(two_edges[len(offsets) % 2], author, query)
        items += more
        offsets.append(page.headers[OFFSET])
        assert (CLOSED in page.headers) == (UP_TO_DATE in page.headers)
        if CLOSED in page.headers:
            break
        query = "offset=" + offsets[-1]
    assert len(offsets) > 4
    assert offsets == sorted(set(offsets))
    assert offsets[-1] == offset(end)
    assert items == [json.loads(event.data) for event in await author.log()]


async def test_a_part(two_edges: list[EdgeProcess], author: Author) -> None:
    """`types` leaves items out and moves the offset over them; with `compact`, chunks of one text that are read at once
    are one."""
    await author.begin()
    tail = await author.write(*(MessageDelta(message_id="m", delta=str(number)) for number in range(5)))
    page, items = await get(two_edges[0], author, "types=execution:*")
    assert (types(items), page.headers[OFFSET]) == (["execution:started"], offset(tail))
    page, items = await get(two_edges[0], author, "compact=true&types=message:delta")
    assert [item["data"]["delta"] for item in items] == ["01234"]
    assert page.headers[OFFSET] == offset(tail)
    refused, _ = await get(two_edges[0], author, "types=%20")
    assert refused.status == 400


async def test_etags(two_edges: list[EdgeProcess], author: Author) -> None:
    """Each answer has an ETag, with which it is not sent again; it changes with what was added and with the end, and is
    the same on every edge. Answers may be kept, and not be shown without asking."""
    first = await author.begin()
    at_end = f"offset={offset(first)}"
    seen = set()
    for write in (author.say, author.end):
        before, _ = await get(two_edges[0], author, at_end)
        etag = before.headers["etag"]
        assert before.headers["cache-control"] == "private, no-cache"
        assert {"Authorization", "Cookie", "Origin"} <= set(before.headers["vary"].split(", "))
        for given in (etag, f'"x", W/{etag}', "*"):
            known, nothing = await get(two_edges[1], author, at_end, If_None_Match=given)
            assert (known.status, nothing, known.headers["etag"]) == (304, None, etag)
            assert known.headers[OFFSET] == before.headers[OFFSET]
        await write()
        changed, items = await get(two_edges[1], author, at_end, If_None_Match=etag)
        assert changed.status == 200
        assert items
        seen |= {etag, changed.headers["etag"]}
    assert len(seen) == 3


async def test_now(two_edges: list[EdgeProcess], author: Author) -> None:
    """`now` is the present end: it has no items and no ETag, is not kept, and can be read on from."""
    tail = await author.begin()
    now, items = await get(two_edges[0], author, "offset=now")
    assert (items, told(now)) == ([], {OFFSET: offset(tail), UP_TO_DATE: "true"})
    assert ("etag" in now.headers, now.headers["cache-control"]) == (False, "no-store")
    await author.say()
    assert types((await get(two_edges[1], author, "offset=" + now.headers[OFFSET]))[1]) == ["thinking"]
    end = await author.end()
    closed = {OFFSET: offset(end), UP_TO_DATE: "true", CLOSED: "true"}
    now, items = await get(two_edges[0], author, "offset=now")
    assert (items, told(now)) == ([], closed)
    polled, nothing = await get(two_edges[0], author, "offset=now&live=long-poll")
    assert (polled.status, nothing, told(polled)) == (204, None, closed)
    (control,) = await sse(two_edges[0], author, "offset=now")
    assert json.loads(control.data or "") == {"streamNextOffset": offset(end), "upToDate": True, "streamClosed": True}


async def test_head(two_edges: list[EdgeProcess], author: Author) -> None:
    """HEAD says where the end is and whether it is final, and is not kept."""
    for write, closed in ((author.begin, {}), (author.end, {CLOSED: "true"})):
        tail = await write()
        async with ask(two_edges[0], author, method="HEAD") as head:
            assert told(head) == {OFFSET: offset(tail), **closed}
            assert (head.status, head.headers["content-type"]) == (200, "application/json")
            assert head.headers["cache-control"] == "no-store"


# --- long poll -------------------------------------------------------------------------------------------------------


async def test_long_poll(two_edges: list[EdgeProcess], author: Author) -> None:
    """It answers at once with what there is, waits for what comes on another edge, and says at once that nothing will;
    the cursor is a number that rises."""
    tail = await author.begin()
    there, items = await get(two_edges[0], author, "offset=-1&live=long-poll")
    assert (types(items), told(there)) == (["execution:started"], {OFFSET: offset(tail), UP_TO_DATE: "true"})
    waiting = asyncio.create_task(get(two_edges[0], author, f"offset={offset(tail)}&live=long-poll"))
    now = asyncio.create_task(get(two_edges[1], author, "offset=now&live=long-poll"))
    await eventually("both wait", lambda: all(each.metric("runcast_waits") >= 1 for each in two_edges))
    last = await author.say(2)
    for response, items in (await waiting, await now):
        assert (types(items), told(response)) == (["thinking"] * 2, {OFFSET: offset(last), UP_TO_DATE: "true"})
        assert "etag" in response.headers
        assert int(response.headers[CURSOR]) > 3_000_000
    waiting = asyncio.create_task(get(two_edges[0], author, f"offset={offset(last)}&live=long-poll"))
    await eventually("one waits", lambda: two_edges[0].metric("runcast_waits") >= 1)
    end = await author.end()
    response, items = await waiting
    closed = {OFFSET: offset(end), UP_TO_DATE: "true", CLOSED: "true"}
    assert (types(items), told(response)) == (["execution:complete"], closed)
    over, nothing = await get(two_edges[1], author, f"offset={offset(end)}&live=long-poll")
    assert (over.status, nothing, told(over)) == (204, None, closed)


async def test_cursors(two_edges: list[EdgeProcess], author: Author) -> None:
    """The cursor is the number of the interval of 20 s since 2024-10-09T00:00Z, and greater than what the client sends
    if that is as great; what is no cursor of ours is none."""
    await author.begin()
    interval = int(time.time() - 1_728_432_000) // INTERVAL

    async def cursor(given: str) -> int:
        response, _ = await get(two_edges[0], author, f"offset=-1&live=long-poll&cursor={given}")
        return int(response.headers[CURSOR])

    for known in ("0", str(interval - 1), "", "x", "9" * 30, "-5"):
        assert interval <= await cursor(known) <= interval + 2
    for ahead in (interval + 3, interval + 100_000):
        assert ahead < await cursor(str(ahead)) <= ahead + 3600 // INTERVAL


async def test_what_is_left_out_wakes_nobody(two_edges: list[EdgeProcess], author: Author) -> None:
    """A long poll with a filter waits on for an item that it wants, and its offset has moved over the others."""
    await author.begin()
    waiting = asyncio.create_task(get(two_edges[0], author, "offset=now&live=long-poll&types=message:*"))
    await eventually("it waits", lambda: two_edges[0].metric("runcast_waits") >= 1)
    await author.say()
    await asyncio.sleep(0.3)
    last = await author.write(MessageDelta(message_id="m", delta="x"))
    response, items = await waiting
    assert (types(items), response.headers[OFFSET]) == (["message:delta"], offset(last))


async def test_waits_end(small: EdgeProcess, author: Author) -> None:
    """A wait takes a stream slot, which its end gives back; it ends with its client, and with its token."""
    tail = await author.begin()
    query = f"offset={offset(tail)}&live=long-poll"
    waiting = [asyncio.create_task(get(small, author, query)) for _ in range(2)]
    await eventually("both wait", lambda: small.metric("runcast_waits") == 2)
    full, problem = await get(small, author, query)
    assert (full.status, problem["type"], "retry-after" in full.headers) == (503, "urn:runcast:problem:capacity", True)
    for task in waiting:
        task.cancel()
    await eventually("their clients have left", lambda: small.metric("runcast_waits") == 0)
    short = token_for(author.user, ttl=min(6, under_load(1.5)))
    async with asyncio.timeout(10), request(small.port, "GET", path(author, query), short, seconds=10) as response:
        assert (response.status, told(response)) == (204, {OFFSET: offset(tail), UP_TO_DATE: "true"})


async def test_revoked_waits(small: EdgeProcess, author: Author) -> None:
    """A wait of a user who is revoked is cut."""
    await author.begin()
    waiting = asyncio.create_task(get(small, author, "offset=now&live=long-poll"))
    await eventually("it waits", lambda: small.metric("runcast_waits") == 1)
    admin = token_for("root", scopes={"admin"})
    assert (await call(small.port, "POST", "/api/admin/revocations", admin, {"user": author.user})).status == 202
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await waiting
    await eventually("it is over", lambda: small.metric("runcast_waits") == 0)


# --- SSE -------------------------------------------------------------------------------------------------------------


async def test_sse(two_edges: list[EdgeProcess], author: Author) -> None:
    """Data and the control after it come in one write, and each says where it is; the end of the execution is the end
    of the stream. A client that is caught up is told so, an empty stream included."""
    first = await author.begin()
    async with ask(two_edges[0], author, "offset=-1&live=sse") as response, asyncio.timeout(15):
        assert "content-length" not in response.headers
        assert response.headers["cache-control"] == "no-cache, no-transform"
        pieces = response.pieces()
        got = b""
        while b"upToDate" not in got:
            got += await anext(pieces)
        frames = response.sse.feed(got)
        assert [frame.event for frame in frames] == ["data", "control", "control"]
        assert types(json.loads(frames[0].data or "")) == ["execution:started"]
        for frame, more in zip(frames[1:], ({}, {"upToDate": True}), strict=True):
            control = json.loads(frame.data or "")
            assert int(control.pop("streamCursor")) > 3_000_000
            assert control == {"streamNextOffset": offset(first), **more}
        second = await author.think("two\nlines")
        piece = b""
        while not piece:  # signs of life come when they are due
            piece = (await anext(pieces)).replace(b": hb\n", b"")
        data, control = response.sse.feed(piece)
        assert piece.endswith(b"\n\n"), "one write"
        assert json.loads(data.data or "")[0]["data"]["thought"] == "two\nlines"
        assert json.loads(control.data or "")["streamNextOffset"] == offset(second)
        end = await author.end()
        rest = response.sse.feed(b"".join([piece async for piece in pieces]))
        assert response.whole
    assert types(json.loads(rest[0].data or "")) == ["execution:complete"]
    closed = {"streamNextOffset": offset(end), "upToDate": True, "streamClosed": True}
    assert [json.loads(frame.data or "") for frame in rest[1:]] == [closed]
    again = await sse(two_edges[1], author, f"offset={offset(first)}")
    assert [frame.event for frame in again] == ["data", "control"] * 2
    assert json.loads(again[-1].data or "") == closed
    (control,) = await sse(two_edges[1], author, f"offset={offset(end)}")
    assert json.loads(control.data or "") == closed


async def test_sse_from_now(two_edges: list[EdgeProcess], author: Author) -> None:
    """The first control has the end; nothing that was before is shown; a cursor of the client's is passed."""
    tail = await author.begin()
    ahead = int(time.time() - 1_728_432_000) // INTERVAL + 500
    async with ask(two_edges[0], author, f"offset=now&live=sse&cursor={ahead}") as response, asyncio.timeout(15):
        frames = response.frames()
        control = json.loads((await anext(frames)).data or "")
        assert int(control.pop("streamCursor")) > ahead
        assert control == {"streamNextOffset": offset(tail), "upToDate": True}
        await author.say()
        assert types(json.loads((await anext(frames)).data or "")) == ["thinking"]


async def test_a_stream_goes_on_elsewhere(redis_url: str, author: Author) -> None:
    """A stream that its edge must close ends cleanly, as one whose edge has died does: its body ends with its
    connection. A wait is answered when its edge drains."""
    await author.begin()
    with edges(redis_url, 2, drain_seconds=0) as started:
        for at, end in ((started[0], EdgeProcess.stop), (started[1], EdgeProcess.kill)):
            waiting = asyncio.create_task(get(at, author, "offset=now&live=long-poll"))
            async with ask(at, author, "offset=-1&live=sse") as response, asyncio.timeout(15):
                assert response.headers["connection"] == "close"
                assert "transfer-encoding" not in response.headers
                frames = response.frames()
                while "upToDate" not in ((await anext(frames)).data or ""):
                    pass
                await eventually("it waits", lambda at=at: at.metric("runcast_waits") == 1)  # type: ignore[misc]
                await asyncio.to_thread(end, at)
                assert [frame async for frame in frames] == []
                assert response.whole
            if end is EdgeProcess.stop:
                answer, nothing = await waiting
                assert (answer.status, nothing, answer.headers["connection"]) == (204, None, "close")
            waiting.cancel()


# --- refusals --------------------------------------------------------------------------------------------------------

BAD = ["offset=", "offset=1&offset=2", "offset=-1&offset=-1", "offset=a,b", "offset=1%202", "offset=0", "offset=-2",
       "offset=1_2", "offset=../x", "offset=0000000001000_000000000x", "live=sse", "live=long-poll", "offset=-1&live=x",
       "offset=-1&format=x", "offset=%00", "offset=NOW", "offset=0000000003", "offset=" + "9" * 500]  # fmt: skip


@pytest.mark.parametrize("query", BAD)
async def test_bad_requests(two_edges: list[EdgeProcess], author: Author, query: str) -> None:
    """400 as a problem, with the headers that a browser needs."""
    await author.begin()
    refused, problem = await get(two_edges[0], author, query)
    assert (refused.status, problem["status"]) == (400, 400)
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["x-content-type-options"] == "nosniff"


async def test_who_may_read(two_edges: list[EdgeProcess], author: Author) -> None:
    """An execution is unknown to others, whatever they ask; a token without the scope may not; and nobody writes."""
    at, known = two_edges[0].port, path(author)
    await author.begin()
    for query in ("", "?offset=now", "?offset=-1&live=sse", "?offset=-1&live=long-poll", "?offset=-1&format=ai-sdk"):
        assert (await call(at, "GET", known + query, token_for("mallory"))).status == 404
        assert (await call(at, "GET", "/ds/executions/ex_none" + query, author.token)).status == 404
        assert (await call(at, "GET", "/ds/executions/ex{1}" + query, author.token)).status == 404
        assert (await call(at, "GET", known + query, None)).status == 401
        assert (await call(at, "GET", known + query, token_for(author.user, scopes={"events:publish"}))).status == 403
    admin = token_for("root", scopes={"admin", "executions:read"})
    assert len((await call(at, "GET", f"{known}?user={author.user}", admin)).body) == 1
    for method in ("PUT", "POST", "DELETE"):
        refused = await call(at, method, known, author.token, {})
        assert (refused.status, refused.headers["allow"]) == (405, "GET,HEAD")


async def test_tickets(two_edges: list[EdgeProcess], author: Author) -> None:
    """A ticket reads its execution in every mode, again and again and on every edge, and no other."""
    first = await author.begin()
    asked = {"executionId": author.execution_id}
    minted = await call(two_edges[0].port, "POST", "/api/agent/stream-tickets", author.token, asked)
    ticket = minted.body["ticket"]
    other = Author(author.redis, author.user, "ex_other")
    await other.begin()
    for query in ("", f"&offset={offset(first)}", "&offset=-1&live=long-poll"):
        for at in two_edges:
            assert (await call(at.port, "GET", path(author, f"ticket={ticket}{query}"), None)).status == 200
    assert (await call(two_edges[0].port, "GET", path(other, f"ticket={ticket}"), None)).status == 403
    target = path(author, f"ticket={ticket}&live=sse&offset=-1")
    async with request(two_edges[1].port, "GET", target) as response, asyncio.timeout(10):
        assert types(json.loads((await anext(response.frames())).data or "")) == ["execution:started"]


async def test_what_is_gone(two_edges: list[EdgeProcess], author: Author) -> None:
    """An offset before the kept head, or of another log, is 410, in every mode; the answer says where what is left
    begins, and that can be read."""
    short = Author(author.redis, author.user, limits=LogLimits(log_maxlen=100))
    first = await short.begin()
    for _ in range(6):
        await short.say(50)
    kept = await short.log()
    last = kept[-1].id
    gone = [f"offset={offset(first)}", "offset=-1", ""]
    foreign = [
        f"offset={offset(EventId(first.ms + 1, int(last.split('-')[1])))}",
        f"offset={offset(EventId(first.ms, 999))}",
    ]
    for query, slug in [*((each, "trimmed") for each in gone), *((each, "diverged") for each in foreign)]:
        for live in ("", "&live=sse", "&live=long-poll"):
            if live and not query:
                continue
            refused, problem = await get(two_edges[0], short, query + live)
            assert (refused.status, problem["type"]) == (410, "urn:runcast:problem:" + slug), query + live
    page, items = await get(two_edges[1], short, f"offset={problem['earliestOffset']}")
    assert (page.status, len(items)) == (200, len(kept))


async def test_a_log_that_has_expired(two_edges: list[EdgeProcess], author: Author) -> None:
    """Its end can still be read, and nothing before it."""
    first = await author.begin()
    end = await author.end()
    await author.redis.delete(author.keys.log)
    refused, problem = await get(two_edges[0], author, f"offset={offset(first)}")
    assert (refused.status, problem["earliestOffset"]) == (410, offset(end))
    page, items = await get(two_edges[0], author, f"offset={offset(end)}")
    assert (items, told(page)) == ([], {OFFSET: offset(end), UP_TO_DATE: "true", CLOSED: "true"})


async def test_pages_of_other_origins(small: EdgeProcess, author: Author) -> None:
    """They may read what they need, in every mode, and ask with what they need."""
    await author.begin()
    await author.end()
    for query in ("", "offset=-1&live=sse", "offset=-1&live=long-poll", "offset=now&live=long-poll"):
        async with ask(small, author, query, headers={"Origin": ORIGIN}) as response:
            headers = response.headers
        exposed = set(headers["access-control-expose-headers"].lower().split(", "))
        assert {OFFSET, UP_TO_DATE, CLOSED, CURSOR, "etag", "location", "retry-after"} <= exposed
        assert headers["access-control-allow-origin"] == ORIGIN
        assert headers["cross-origin-resource-policy"] == "cross-origin"
        assert headers["x-content-type-options"] == "nosniff"
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    async with ask(small, author, method="OPTIONS", headers=asked) as preflight:
        assert "If-None-Match" in preflight.headers["access-control-allow-headers"]
