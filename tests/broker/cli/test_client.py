"""The client against small real servers that cut, refuse, stall and start over."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from broker.cli.client import (
    FEED_PATH,
    ApiError,
    Conflict,
    Connected,
    ConnectionLost,
    EdgeClient,
    EdgeUnreachable,
    Forbidden,
    Link,
    NotFound,
    NotSignedIn,
    stream_path,
)
from broker.cli.eventsource import Backoff, ClientEvent, Frame, NotAStream, Position, SseParser, retry_after
from emitter.wire.ids import EventId
from tests.ports import reserved_ports

FAST = Backoff(first=0.002, most=0.01)
PATH = stream_path("ex_1")
Step = Callable[[web.Request], Awaitable[web.StreamResponse]]


def event(seq: int, ms: int = 1000) -> bytes:
    body = {"type": "thinking", "executionId": "ex_1", "ts": 5, "data": {"thought": f"t{seq}"}}
    return f"id: {ms}-{seq}\nevent: thinking\ndata: {json.dumps(body)}\n\n".encode()


def control(name: str, **data: object) -> bytes:
    return f"event: stream:{name}\ndata: {json.dumps(data)}\n\n".encode()


OPEN = b"retry: 1\n\n" + control("open", executionId="ex_1", state="running", retryMs=1, heartbeatSeconds=15)
END = control("end", reason="finished")


def stream(*writes: bytes, cut: bool = False) -> Step:
    """Answer with these writes; `cut` breaks the connection inside the chunked body instead of ending it."""

    async def step(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for data in writes:
            await response.write(data)
        if cut:
            assert request.transport is not None
            request.transport.close()
        return response

    return step


def answer(status: int, body: object = None, **headers: str) -> Step:
    async def step(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is None:
            return web.Response(status=status, headers=named)
        return web.json_response(body, status=status, headers=named, content_type="application/problem+json")

    return step


class Script:
    """A server that does the next step for each request, and remembers the requests."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.cursors: list[str | None] = []
        self.queries: list[dict[str, str]] = []
        self.bodies: list[object] = []
        self.headers: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.cursors.append(request.headers.get("Last-Event-ID"))
        self.queries.append(dict(request.query))
        self.headers.append(dict(request.headers))
        if request.can_read_body:
            self.bodies.append(await request.json())
        return await self.steps.pop(0)(request)

    @contextlib.asynccontextmanager
    async def serve(self, port: int | None = None) -> AsyncIterator[EdgeClient]:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self.handle)
        async with (
            TestServer(app, port=port) as server,
            EdgeClient(str(server.make_url("")), "tok", backoff=FAST) as api,
        ):
            yield api


async def collect(
    api: EdgeClient, path: str = PATH, cursor: EventId | None = None, **more: object
) -> list[ClientEvent]:
    async with asyncio.timeout(10):
        return [event async for event in api.follow(path, cursor, **more)]  # type: ignore[arg-type]


def seqs(events: list[ClientEvent]) -> list[int]:
    return [event.id.seq for event in events if event.id is not None]


# --- the parser ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_the_parser_reads_every_line_end_in_any_pieces(line_end: bytes, size: int) -> None:
    """Frames come out the same for LF, CRLF and CR, however the bytes are cut."""
    text = (
        b"\xef\xbb\xbf: hello\n\nretry: 250\nid: 7-1\nevent: a\ndata: one\ndata:two\n\ndata: \xc3\xa9\n\ndata: not yet"
    )
    data = text.replace(b"\n", line_end)
    parser = SseParser()
    frames = [frame for start in range(0, len(data), size) for frame in parser.feed(data[start : start + size])]
    assert frames == [Frame("a", "one\ntwo", "7-1"), Frame("message", "é", None)]
    assert (parser.last_event_id, parser.retry_ms) == ("7-1", 250)


def test_the_parser_ignores_what_the_standard_says_to_ignore() -> None:
    """An id with NUL, a retry that is no number, unknown fields and an event without data dispatch nothing."""
    parser = SseParser()
    assert parser.feed(b"id: a\0b\nretry: 5s\nnonsense\nevent: x\n\n") == []
    assert (parser.last_event_id, parser.retry_ms) == ("", None)
    assert parser.feed(b"data\n\n") == [Frame("message", "", None)]
    assert parser.feed(b"id: 9-9\n\n") == [Frame("message", None, "9-9")]


def test_the_parser_refuses_a_frame_without_end() -> None:
    """A frame over the limit is an error and not a memory leak, in one line or in many."""
    with pytest.raises(NotAStream):
        SseParser(max_bytes=100).feed(b"data: " + b"x" * 200)
    with pytest.raises(NotAStream):
        SseParser(max_bytes=100).feed(b"data: xxxx\n" * 20)


# --- pure decisions --------------------------------------------------------------------------------------------------


def test_retry_after_is_seconds_or_a_date() -> None:
    """Both forms of `Retry-After` give seconds; anything else gives nothing."""
    assert retry_after("7", 0) == 7
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 50) == 10
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 90) == 0
    assert retry_after("soon", 0) is None
    assert retry_after(None, 0) is None


def test_backoff_never_undercuts_what_the_edge_asked() -> None:
    """What the edge asked is the floor; jitter grows with the failures up to its bound."""
    backoff = Backoff(first=1, most=8)
    assert backoff.delay(0, 3.0, 0.0) == 3
    assert [backoff.delay(failures, 0.0, 1.0) for failures in (0, 1, 2, 3, 50)] == [1, 2, 4, 8, 8]


def test_a_feed_from_now_resumes_at_the_now_of_its_first_connect() -> None:
    """Where the edge says at which event "now" is, a cut before the first event loses nothing."""
    position = Position(None, from_now=True)
    assert position.request() == ({}, {})
    position.accept(Frame("stream:open", '{"cursor":"500-3"}', None))
    assert position.request() == ({"Last-Event-ID": "500-3"}, {})
    other = Position(None, from_now=True)
    other.accept(Frame("message", None, "600-4"))
    assert other.request() == ({"Last-Event-ID": "600-4"}, {})


# --- following -------------------------------------------------------------------------------------------------------


async def test_it_resumes_after_a_cut_inside_a_frame_and_yields_each_event_once() -> None:
    """A frame cut in half does not count, and what the next connection repeats is dropped."""
    script = Script(
        stream(OPEN, event(1), event(2), event(3)[:20], cut=True),
        stream(OPEN, event(2), event(3), event(4), END),
    )
    links: list[Link] = []
    async with script.serve() as api:
        events = await collect(api, on_link=links.append)
    assert seqs(events) == [1, 2, 3, 4]
    assert events[1].data == {"thought": "t1"}
    assert (events[1].execution_id, events[1].ts, events[1].type) == ("ex_1", 5, "thinking")
    assert script.cursors == [None, "1000-2"]
    assert [type(link) for link in links] == [Connected, ConnectionLost, Connected]
    assert links[1].cursor == links[2].cursor == EventId(1000, 2)
    assert script.headers[0]["Authorization"] == "Bearer tok"


async def test_it_stops_at_204_and_at_the_end() -> None:
    """204 says that nothing will follow: no further request is made."""
    script = Script(stream(OPEN, event(1), cut=True), answer(204))
    async with script.serve() as api:
        assert seqs(await collect(api)) == [1]
    assert script.cursors == [None, "1000-1"]


async def test_it_goes_on_after_an_end_that_is_not_the_execution_s() -> None:
    """`stream:end` with another reason than `finished` is a reason to reconnect."""
    script = Script(stream(OPEN, event(1), control("end", reason="aged")), stream(OPEN, event(2), END))
    async with script.serve() as api:
        events = await collect(api)
    assert seqs(events) == [1, 2]
    assert [event.data["reason"] for event in events if event.type == "stream:end"] == ["aged", "finished"]


async def test_a_cursor_given_is_sent() -> None:
    """Following from a cursor sends it, and its own event is not yielded again."""
    script = Script(stream(OPEN, event(5), event(6), END))
    async with script.serve() as api:
        assert seqs(await collect(api, cursor=EventId(1000, 5))) == [6]
    assert script.cursors == ["1000-5"]


async def test_id_only_frames_move_the_cursor() -> None:
    """What a filter leaves out still moves the place where a reconnect resumes."""
    script = Script(stream(OPEN, event(1), b"id: 1000-9\n\n", cut=True), stream(OPEN, event(10), END))
    async with script.serve() as api:
        assert seqs(await collect(api, params={"types": "tool:*"})) == [1, 10]
    assert script.cursors == [None, "1000-9"]
    assert script.queries == [{"types": "tool:*"}] * 2


async def test_a_reset_is_surfaced_and_a_new_history_is_read_from_its_start() -> None:
    """After a reset that is no trimming, ordinals begin anew, also across a cut before the first of them."""
    script = Script(
        stream(OPEN, event(1), event(2), event(3), control("reset", reason="diverged", resumedAt="900-1"), cut=True),
        stream(OPEN, event(1, ms=900), event(2, ms=900), END),
    )
    async with script.serve() as api:
        events = await collect(api)
    assert [event.data["reason"] for event in events if event.type == "stream:reset"] == ["diverged"]
    assert [str(event.id) for event in events if event.id] == ["1000-1", "1000-2", "1000-3", "900-1", "900-2"]
    assert script.cursors == [None, None]
    assert script.queries[1] == {"from": "start"}


async def test_a_trimmed_reset_keeps_the_place() -> None:
    """After a trimming the log is the same one, so an event seen before is still dropped."""
    reset = control("reset", reason="trimmed", lostFrom=2, lostTo=4, resumedAt="1000-5")
    script = Script(stream(OPEN, event(1), reset, event(1), event(5), END))
    async with script.serve() as api:
        assert seqs(await collect(api)) == [1, 5]


async def test_a_busy_edge_is_asked_again_when_it_said() -> None:
    """429 and 5xx are waited out, for as long as `Retry-After` says."""
    script = Script(answer(503, Retry_After="0"), answer(429, Retry_After="1"), stream(OPEN, event(1), END))
    links: list[Link] = []
    async with script.serve() as api:
        assert seqs(await collect(api, on_link=links.append)) == [1]
    waits = [link.retry_seconds for link in links if isinstance(link, ConnectionLost)]
    assert 0 <= waits[0] < 0.5
    assert 1 <= waits[1] < 1.5


async def test_retry_of_the_stream_is_the_floor_of_the_next_wait() -> None:
    """`retry:` sets the wait, also for a connection that is refused afterwards."""
    script = Script(stream(b"retry: 120\n\n" + OPEN[10:], event(1), cut=True), answer(503), stream(OPEN, END))
    links: list[Link] = []
    async with script.serve() as api:
        await collect(api, on_link=links.append)
    assert [link.retry_seconds >= 0.12 for link in links if isinstance(link, ConnectionLost)] == [True, True]


async def test_silence_is_a_lost_connection() -> None:
    """A connection on which no byte comes for 2.5 heartbeats is given up and resumed."""
    released = asyncio.Event()
    opened = control("open", state="running", heartbeatSeconds=0.02)

    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(opened + event(1))
        await released.wait()
        return response

    async def second(request: web.Request) -> web.StreamResponse:
        released.set()
        return await stream(OPEN, event(2), END)(request)

    links: list[Link] = []
    script = Script(silent, second)
    async with script.serve() as api:
        assert seqs(await collect(api, on_link=links.append)) == [1, 2]
    assert [link.reason for link in links if isinstance(link, ConnectionLost)] == ["nothing came for 0.05 s"]


async def test_an_edge_that_is_not_there_is_waited_for() -> None:
    """A refused connection raises nothing; the stream begins when the edge is there."""
    refused = asyncio.Event()

    def on_link(link: Link) -> None:
        if isinstance(link, ConnectionLost):
            refused.set()

    with reserved_ports(1) as (port,):
        async with EdgeClient(f"http://127.0.0.1:{port}", backoff=FAST) as api:
            following = asyncio.create_task(collect(api, on_link=on_link))
            await refused.wait()
            async with Script(stream(OPEN, event(1), END)).serve(port):
                assert seqs(await following) == [1]


@pytest.mark.parametrize(
    ("status", "error"), [(401, NotSignedIn), (403, Forbidden), (404, NotFound), (400, ApiError), (302, ApiError)]
)
async def test_what_will_not_pass_by_itself_is_raised(status: int, error: type[ApiError]) -> None:
    """A refusal that a reconnect cannot change is a typed error with the edge's own words."""
    script = Script(answer(status, {"title": "No", "detail": "because"}, Location="/login"))
    async with script.serve() as api:
        with pytest.raises(error, match=f"{status}: because"):
            await collect(api)


async def test_a_page_is_not_a_stream() -> None:
    """A proxy's HTML page, and frames of another protocol, are said to be what they are."""

    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<h1>Welcome</h1>", content_type="text/html")

    async with Script(page, stream(b"data: hello\n\n"), stream(b"id: x\ndata: {}\n\n")).serve() as api:
        for _ in range(3):
            with pytest.raises(NotAStream):
                await collect(api, FEED_PATH)


async def test_leaving_early_closes_the_connection() -> None:
    """A follower that stops leaves no connection behind."""
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(OPEN + event(1))
        try:
            while True:
                await response.write(b": hb\n")
                await asyncio.sleep(0.001)
        finally:
            gone.set()

    async with Script(endless).serve() as api:
        async with contextlib.aclosing(api.follow(PATH)) as events:
            async for _ in events:
                break
        async with asyncio.timeout(5):
            await gone.wait()


# --- commands --------------------------------------------------------------------------------------------------------


async def test_commands_send_what_the_contract_says() -> None:
    """Each command is one request; what was not given is not sent; executes carry an idempotency key."""
    accepted = {"executionId": "ex_1", "state": "queued", "streamUrl": PATH}
    script = Script(answer(202, accepted), answer(202, {}), answer(202, {}), answer(200, {"status": "running"}))
    async with script.serve() as api:
        assert await api.execute("do it", agent="analyst", params={"pace": 0}) == accepted
        await api.cancel("ex_1", "enough")
        await api.answer("ex_1", "in_1", True)
        assert await api.get("ex_1") == {"status": "running"}
    assert script.bodies == [
        {"task": "do it", "agent": "analyst", "params": {"pace": 0}},
        {"reason": "enough"},
        {"inputId": "in_1", "value": True},
    ]
    assert len(script.headers[0]["Idempotency-Key"]) == 32


async def test_a_command_s_refusal_is_typed() -> None:
    """The second answer is a `Conflict` that carries the edge's problem; an edge that is away is `EdgeUnreachable`."""
    async with Script(answer(409, {"detail": "bob was first", "by": "bob"})).serve() as api:
        with pytest.raises(Conflict) as caught:
            await api.answer("ex_1", "in_1", True)
    assert caught.value.problem["by"] == "bob"
    with reserved_ports(1) as (port,):
        async with EdgeClient(f"http://127.0.0.1:{port}") as api:
            with pytest.raises(EdgeUnreachable):
                await api.get("ex_1")


async def test_an_edge_is_reached_through_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the token in its place: nothing of a `.netrc` goes along."""
    script = Script(answer(200, {"executions": []}))
    async with script.serve() as proxy:
        monkeypatch.setenv("http_proxy", proxy.base_url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with EdgeClient("http://edge.example.test", "tok") as api:
            await api.get("ex_1")
    assert script.headers[0]["Host"] == "edge.example.test"
    assert script.headers[0]["Authorization"] == "Bearer tok"
