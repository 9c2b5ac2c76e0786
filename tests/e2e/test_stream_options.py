"""How a stream can be asked for: filters, names, heartbeats, HTTP/1.0. Whatever the view, its cursor is the log's."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.edges import SSE, Author, Connection, EdgeProcess, Follower, Frame, call, edge, request, under_load


async def test_a_filter_shows_only_its_types_and_moves_the_cursor_past_the_rest(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    """`types=` lets through what matches; `stream:cursor`, at most one a heartbeat, carries the cursor on."""
    await author.begin()
    async with Follower(two_edges, author.path + "?types=progress,execution:*", author.token) as viewer:
        await viewer.until_live()
        await author.progress(10)
        hidden = await author.say(5)
        await viewer.until("the cursor past what is hidden", lambda v: v.cursor == str(hidden), 4)
        await author.progress(20)
        await author.end()
        await viewer.until_done()
    wanted = [event for event in await author.log() if event.type != "thinking"]
    assert viewer.events == wanted
    assert viewer.statuses == [200, 204]


async def test_a_filtered_view_resumes_without_repeats_or_gaps(two_edges: list[EdgeProcess], author: Author) -> None:
    """Over reconnects to other edges the filtered sequence is exactly the log's, filtered."""
    await author.begin()
    async with Follower(two_edges, author.path + "?types=progress", author.token) as viewer:
        for number in range(12):
            await author.say(3)
            await author.progress(number)
            await author.say(2)
            await viewer.until_events(number + 1)
            viewer.hang_up()
        await author.end()
        await viewer.until_done()
    assert viewer.events == [event for event in await author.log() if event.type == "progress"]


async def test_the_end_of_a_filtered_view_moves_the_cursor_to_the_end(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    """A view that hides the terminal event still ends at it: the next connect is a 204, not the same end again."""
    await author.begin()
    async with Follower(two_edges, author.path + "?types=progress", author.token) as viewer:
        await viewer.until_live()
        await author.progress(1)
        last = await author.end()
        await viewer.until_done()
    assert viewer.cursor == str(last)
    assert viewer.statuses == [200, 204]
    async with Follower(two_edges, author.path + "?types=progress", author.token) as late:
        await late.until_done()
    assert late.events == viewer.events
    assert late.statuses == [200, 204]


async def test_no_id_comes_alone(two_edges: list[EdgeProcess], author: Author) -> None:
    """Many clients make an empty event of a block without data, or forget its id: there is none, not for a filtered
    view, nor for one that begins now."""
    await author.begin()
    hidden = await author.say(3)
    for query in ("types=progress", "types=progress&from=now", "from=now&named=false"):
        async with request(two_edges[0].port, "GET", f"{author.path}?{query}", author.token, headers=SSE) as response:
            frames, seen = response.frames(), []
            async with asyncio.timeout(under_load(5)):
                while not any(frame.id for frame in seen):
                    seen.append(await anext(frames))
        assert all(frame.data for frame in seen)
        assert (seen[-1].event, seen[-1].id) == ("stream:cursor", str(hidden))
        assert json.loads(seen[-1].data or "") == {"cursor": str(hidden)}


async def test_a_bad_filter_is_refused(two_edges: list[EdgeProcess], author: Author) -> None:
    """What is not understood is a 400 with the parameter's name, not an empty stream."""
    await author.begin()
    for query in ("types=", "types=%0A", "types=a*b", "from=yesterday"):
        answer = await call(two_edges[0].port, "GET", f"{author.path}?{query}", author.token)
        assert (answer.status, answer.body["path"]) == (400, query.split("=")[0])


async def test_unnamed_events_are_messages_with_the_same_ids_and_data(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    """`named=false` puts every event into `message`; its type is in the data, and the ids are the log's."""
    await author.begin()
    async with Follower(two_edges, author.path + "?named=false", author.token) as viewer:
        await viewer.until_live()
        await author.say(3)
        await author.end()
        await viewer.until_done()
    log = await author.log()
    assert {event.type for event in viewer.events} == {"message"}
    assert [(event.id, event.data) for event in viewer.events] == [(event.id, event.data) for event in log]
    assert [json.loads(event.data)["type"] for event in viewer.events] == [event.type for event in log]


async def test_heartbeats_are_comments_or_events_as_asked(two_edges: list[EdgeProcess], author: Author) -> None:
    """A quiet stream shows life every heartbeat: a comment, or with `heartbeat=event` an event without an id."""
    await author.begin()
    port = two_edges[0].port
    async with request(port, "GET", author.path, author.token, headers=SSE) as silent:
        async with asyncio.timeout(under_load(5)):
            async for piece in silent.pieces():
                silent.sse.feed(piece)
                if silent.sse.comments >= 2:
                    break
    async with Follower([port], author.path + "?heartbeat=event", author.token) as viewer:
        await viewer.until("two heartbeats", lambda v: len(v.named("heartbeat")) >= 2, 5)
        await author.end()
        await viewer.until_done()
    assert viewer.events == await author.log()


async def test_heartbeats_as_close_as_a_client_needs_them(redis_url: str, author: Author) -> None:
    """A client that gives up after seconds of silence says how close they must be, and is told what it gets: never more
    than the edge's own pause."""
    await author.begin()
    with edge(redis_url, heartbeat_seconds=15) as usual:
        for query, said in (("heartbeat=1", 1), ("heartbeat=event,1", 1), ("heartbeat=60", 15), ("named=true", 15)):
            path = f"{author.path}?{query}"
            async with request(usual.port, "GET", path, author.token, headers=SSE) as response:
                async with asyncio.timeout(under_load(5)):
                    opened = await _opened(response, signs=2 if said == 1 else 0)
                assert opened["heartbeatSeconds"] == said, query
                assert (response.sse.comments == 0) == ("event" in query or said == 15)
        for wrong in ("0", "61", "1.5", "event,", "comment", "1,event"):
            answer = await call(usual.port, "GET", f"{author.path}?heartbeat={wrong}", author.token)
            assert (answer.status, answer.body["path"]) == (400, "heartbeat")


async def _opened(response: Connection, *, signs: int) -> dict[str, Any]:
    """What `stream:open` says, once so many heartbeats have come."""
    frames: list[Frame] = []
    async for piece in response.pieces():
        frames += response.sse.feed(piece)
        heard = response.sse.comments + sum(frame.event == "heartbeat" for frame in frames)
        if frames and heard >= signs:
            break
    opened: dict[str, Any] = json.loads(frames[0].data or "")
    return opened


async def test_an_http_1_0_client_gets_an_unchunked_body_that_ends_with_the_connection(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    """Old proxies speak HTTP/1.0: no chunks, and exactly the log all the same."""
    await author.begin()
    async with request(two_edges[0].port, "GET", author.path, author.token, headers=SSE, version="1.0") as response:
        assert "transfer-encoding" not in response.headers
        frames = response.frames()
        received = [await anext(frames) for _ in range(3)]
        await author.say(5)
        await author.end()
        async with asyncio.timeout(under_load(5)):
            received += [frame async for frame in frames]
    assert [frame.id for frame in received if frame.id] == [event.id for event in await author.log()]
    assert received[-1].event == "stream:end"


async def test_text_that_looks_like_frames_is_data(two_edges: list[EdgeProcess], author: Author) -> None:
    """Line ends of every kind, NUL and separators in an agent's words cannot end a line, a field or a frame."""
    nasty = "a\nb\r\nc\rd\x00e\u2028f\u2029g\x85h\ndata: x\n\nid: 1-1\n\n"
    await author.begin()
    await author.think(nasty)
    await author.end()
    async with Follower(two_edges, author.path, author.token) as viewer:
        await viewer.until_done()
    assert viewer.events == await author.log()
    assert json.loads(viewer.events[1].data)["data"]["thought"] == nasty


async def test_a_stream_from_now_says_once_where_now_is(two_edges: list[EdgeProcess], author: Author) -> None:
    """Before it is live, a stream that begins now gives its cursor in one frame, and nothing of what was before."""
    await author.begin()
    end = await author.say(5)
    reader, writer = await asyncio.open_connection("127.0.0.1", two_edges[0].port)
    head = f"GET {author.path}?from=now HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {author.token}\r\n\r\n"
    writer.write(head.encode())
    seen = await asyncio.wait_for(reader.readuntil(b"stream:live"), under_load(10))
    writer.close()
    assert [line for line in seen.split(b"\n") if line.startswith(b"id:")] == [f"id: {end}".encode()]
