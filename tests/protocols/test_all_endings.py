"""Streams that an edge must end before their protocol has said its last word: they are cut off, so that nobody takes
them for finished, and what follows is to be had elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from shows import JSON, NATIVE, NEW, SHOWS, SUBSCRIBE, WATCHED, Show, Turn, after, begin, blocks, known

from broker.cli.embedded import EmbeddedRedis
from emitter import tasks
from emitter.events import Event, ExecutionStarted, InputRequired, MessageDelta, ToolStart
from tests.edges import (
    ALL_SCOPES,
    Author,
    Connection,
    EdgeProcess,
    call,
    edge,
    eventually,
    request,
    token_for,
    under_load,
)
from tests.faults.outages import redis_stopped, restart_empty

CLOSED = "runcast_connections_closed_total"
FIRST: list[Event] = [
    ExecutionStarted(task="t", started_at=1, attempt=1),
    ToolStart(call_id="c", tool_name="look", params={}),
    MessageDelta(message_id="m", delta="The first of it. "),
]
SECOND: list[Event] = [MessageDelta(message_id="m", delta="The second of it. ")]
SEND = Show("a2a send", "POST", "/a2a", b'"result"', NEW)
"""An answer that comes when a task has ended: blanks until then."""


@pytest.fixture(autouse=True)
async def agents(redis: Redis, two_edges: list[EdgeProcess]) -> None:
    await known(redis, two_edges)


class Viewer:
    """One who reads all the while."""

    def __init__(self, show: Show, response: Connection) -> None:
        self.show = show
        self.response = response
        self.body = b""
        self._news = asyncio.Event()
        self.reading = asyncio.create_task(self._read(), name=f"viewer-{show.name}")

    async def _read(self) -> None:
        async for piece in self.response.pieces():
            self.body += piece
            self._news.set()
        self._news.set()

    async def until(self, text: bytes) -> None:
        async with asyncio.timeout(15):
            while text not in self.body:
                assert not self.reading.done(), (self.show.name, "ended before", text)
                self._news.clear()
                await self._news.wait()

    async def cut(self) -> None:
        """It is cut off, and did not look as if it had ended. A native viewer is told why and ends, since it knows that
        this is no end of the execution."""
        async with asyncio.timeout(15):
            await self.reading
        assert self.show.end not in self.body, self.show.name
        assert self.response.whole == (self.show.is_placed or b"event: stream:end" in self.body), self.show.name
        if self.show is not NATIVE and not self.show.is_placed:
            assert not self.response.whole, self.show.name

    async def answered(self) -> None:
        """It ended, with the task as it is: its client would not know what it had started."""
        async with asyncio.timeout(15):
            await self.reading
        assert self.response.whole
        assert json.loads(self.body)["result"]["task"]["status"]["state"] == "TASK_STATE_SUBMITTED"

    @property
    def kept(self) -> bytes:
        """What it has, up to the last place from which it can go on."""
        body = self.body[: self.body.rfind(b"\n\n") + 2]
        found = blocks(self.show.plain(body))
        while found and not found[-1].startswith(b"id: "):
            found.pop()
        return b"".join(found)

    @property
    def cursor(self) -> str | None:
        last = blocks(self.kept)[-1:]
        return last[0].split(b"\n")[0][4:].decode() if last and self.show.resumes else None


@contextlib.asynccontextmanager
async def viewers(
    at: EdgeProcess, turn: Turn, *, cursors: Mapping[str, str | None] = {}, token: str | None = None, **options: Any
) -> AsyncIterator[list[Viewer]]:
    """One for each protocol, binding and version."""
    opened: list[Viewer] = []
    async with contextlib.AsyncExitStack() as stack:
        try:
            for show in SHOWS:
                stream = show.stream(at, turn, cursor=cursors.get(show.name), token=token, **options)
                opened.append(Viewer(show, await stack.enter_async_context(stream)))
            yield opened
        finally:
            await tasks.end([viewer.reading for viewer in opened])


async def all_see(watching: Sequence[Viewer], text: bytes = b"The first of it. ") -> None:
    for viewer in watching:
        await viewer.until(text)


@contextlib.asynccontextmanager
async def waiting(at: EdgeProcess, author: Author, token: str | None = None) -> AsyncIterator[Viewer]:
    """A client that waits for the end of a task of its own, over A2A."""
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "t"}]}
    params = {"message": message, "metadata": {"agent": "manual"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}).encode()
    used = token or author.token
    async with request(at.port, "POST", "/a2a", used, headers=JSON | NEW, body=body) as response:
        viewer = Viewer(SEND, response)
        try:
            yield viewer
        finally:
            await tasks.end([viewer.reading])


async def goes_on(at: EdgeProcess, turn: Turn, left: Sequence[Viewer]) -> None:
    """At another edge each of them gets what it lacks, and has then what the whole stream is."""
    cursors = {viewer.show.name: viewer.cursor for viewer in left}
    async with viewers(at, turn, cursors=cursors) as back:
        await turn.author.write(*SECOND)
        await turn.author.end()
        for viewer in back:
            async with asyncio.timeout(15):
                await viewer.reading
            assert viewer.response.whole, viewer.show.name
    of_chat = await next(show for show in SHOWS if show.name == "ai_sdk post").whole(at, turn)
    for before, now in zip(left, back, strict=True):
        show, rest = before.show, before.show.plain(now.body)
        whole = of_chat if show.name == "ai_sdk resume" else await show.whole(at, turn)
        assert whole.count(show.end) == 1, show.name
        if before.cursor is None:
            assert rest == whole, show.name
            continue
        assert whole.startswith(before.kept), show.name
        assert rest.endswith(after(whole, before.cursor)), show.name


@pytest.fixture(scope="module")
def hasty(redis_of_edges: EmbeddedRedis) -> Iterator[EdgeProcess]:
    """An edge with little patience, whom no test breaks."""
    with edge(redis_of_edges.url, write_timeout_seconds=1, viewer_buffer_bytes=65536, heartbeat_seconds=1) as started:
        yield started


@pytest.fixture
async def turn(two_edges: list[EdgeProcess], author: Author) -> Turn:
    begun = await begin(two_edges[0], author)
    await begun.author.write(*FIRST)
    return begun


async def test_an_edge_that_stops(two_edges: list[EdgeProcess], redis_url: str, redis: Redis, turn: Turn) -> None:
    """SIGTERM cuts every stream off, answers who waits, and the edge is gone at once; elsewhere each goes on."""
    with edge(redis_url) as leaving:
        await known(redis, [leaving])
        async with viewers(leaving, turn) as watching, waiting(leaving, turn.author) as asked:
            await all_see(watching)
            leaving.send_signal(signal.SIGTERM)
            for viewer in watching:
                await viewer.cut()
            await asked.answered()
            assert leaving.wait() == 0
            await goes_on(two_edges[1], turn, watching)


async def test_a_stream_that_is_old(two_edges: list[EdgeProcess], redis_url: str, turn: Turn) -> None:
    """A stream that has reached its age is cut off; elsewhere it goes on."""
    with edge(redis_url, max_stream_age_seconds=1.5) as only:
        async with viewers(only, turn) as watching, waiting(only, turn.author) as asked:
            await all_see(watching)
            for viewer in watching:
                await viewer.cut()
            await asked.answered()
            assert only.metric(CLOSED, reason="aged") == len(watching) + 1
            await goes_on(two_edges[1], turn, watching)


async def test_a_token_that_expires(two_edges: list[EdgeProcess], hasty: EdgeProcess, turn: Turn) -> None:
    """With its token a stream is over, and cut off; with a new one it goes on."""
    before = hasty.metric(CLOSED, reason="expired")
    token = token_for(turn.author.user, ttl=min(8, under_load(2)))  # time to open them all
    async with viewers(hasty, turn, token=token) as watching, waiting(hasty, turn.author, token) as asked:
        await all_see(watching)
        for viewer in watching:
            await viewer.cut()
        await asked.answered()
        assert hasty.metric(CLOSED, reason="expired") == before + len(watching) + 1
        await goes_on(two_edges[1], turn, watching)


async def test_a_user_who_is_sent_away(two_edges: list[EdgeProcess], hasty: EdgeProcess, turn: Turn) -> None:
    """A revocation, at whichever edge, cuts the user's streams off in every protocol; no token of before opens a new
    one; who logs in again is let in."""
    before, token = hasty.metric(CLOSED, reason="revoked"), turn.author.token
    admin = token_for("root", scopes=ALL_SCOPES)
    async with viewers(hasty, turn, token=token) as watching, waiting(hasty, turn.author, token) as answered:
        await all_see(watching)
        who = {"user": turn.author.user, "org": "default"}
        assert (await call(two_edges[0].port, "POST", "/api/admin/revocations", admin, who)).status == 202
        for viewer in [*watching, answered]:
            await viewer.cut()
        assert hasty.metric(CLOSED, reason="revoked") == before + len(watching) + 1
    async with asyncio.timeout(under_load(15)):  # the other edge may hear of it later
        while (await call(two_edges[1].port, "GET", "/api/agent/executions", token)).status == 200:
            await asyncio.sleep(0.02)
    for show in SHOWS:
        async with show.open(two_edges[1], turn, token=token) as response:
            assert response.status == 401, show.name
        async with show.open(two_edges[1], turn) as response:
            assert response.status == 200, show.name


async def test_a_viewer_that_reads_nothing(two_edges: list[EdgeProcess], hasty: EdgeProcess, turn: Turn) -> None:
    """Who takes nothing for the write timeout is cut off, in whatever protocol, with a bounded buffer spent on him; he
    may come back, and then has it all."""
    before = hasty.metric(CLOSED, reason="slow")
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            (show, await stack.enter_async_context(show.stream(hasty, turn, receive_buffer=4096))) for show in SHOWS
        ]
        held = hasty.rss_bytes()
        for number in range(40):
            await turn.author.write(*(MessageDelta(message_id=f"m{number}", delta="x" * 30_000) for _ in range(2)))
        await eventually("all cut off", lambda: hasty.metric(CLOSED, reason="slow") == before + len(opened))
        assert hasty.rss_bytes() - held < 40 * 1024 * 1024, "what nobody reads is not kept"
        left = [Viewer(show, response) for show, response in opened]
        for viewer in left:
            await viewer.cut()
        await goes_on(two_edges[1], turn, left)


async def test_a_redis_that_is_lost(own_redis: EmbeddedRedis, own_author: Author) -> None:
    """While Redis stands still streams stay open, alive and unfinished; if it comes back with another history, those
    who were shown the old one are cut off."""
    with edge(own_redis.url, heartbeat_seconds=1) as only:
        await known(own_author.redis, [only])
        turn = await begin(only, own_author)
        await turn.author.write(*FIRST)
        async with viewers(only, turn) as watching:
            await all_see(watching)
            signs = [viewer.body.count(b": hb\n") for viewer in watching]
            with redis_stopped(own_redis):
                await eventually(
                    "a sign of life in each",
                    lambda: all(v.body.count(b": hb\n") > n for v, n in zip(watching, signs, strict=True)),
                )
            assert not any(viewer.reading.done() for viewer in watching)
            await turn.author.write(*SECOND)
            await all_see(watching, b"The second of it. ")
            restart_empty(own_redis)
            for viewer in watching:
                if viewer.show is NATIVE:
                    await viewer.until(b"event: stream:reset\n")
                else:
                    await viewer.cut()


# --- what is no ending -----------------------------------------------------------------------------------------------


async def test_signs_of_life(redis_url: str, redis: Redis, turn: Turn) -> None:
    """Where an edge's own heartbeats are 15 s apart, who speaks A2A hears from it well within the 5 s after which one
    of its clients gives up, on streams and where the answer is a document."""
    with edge(redis_url) as usual:
        await known(redis, [usual])
        async with viewers(usual, turn) as watching, waiting(usual, turn.author) as answered:
            patient = [viewer for viewer in watching if viewer.show in SUBSCRIBE + WATCHED]
            for number in (1, 2):
                async with asyncio.timeout(under_load(4)):
                    for viewer in patient:
                        while viewer.body.count(b": hb\n") < number:
                            await asyncio.sleep(0.02)
                    while len(answered.body) < number:
                        await asyncio.sleep(0.02)
            assert answered.body.strip() == b""
            assert not any(b"\n: hb\n\n" in viewer.body for viewer in watching), "a blank line would make it an event"


async def test_a_log_that_is_gone(two_edges: list[EdgeProcess], redis: Redis, turn: Turn) -> None:
    """Of an execution whose log has expired every protocol tells how it ended, at once and to the last word: nobody is
    cut off again and again."""
    await turn.author.end()
    last = (await turn.author.log())[-1].id
    await redis.delete(turn.author.keys.log)
    for show in SHOWS:
        async with show.open(two_edges[1], turn) as response, asyncio.timeout(10):
            body = await response.body()
        assert response.whole, show.name
        if show in SUBSCRIBE:
            assert b"the task has ended: completed" in body
        elif show is NATIVE:
            assert b"event: stream:reset" in body
            assert b"event: stream:end" in body
        elif show.name == "ai_sdk resume":
            assert response.status == 204
        elif show.is_placed:  # final, and says from where on it can be read
            assert (response.status, b"earliestOffset" in body) == (410, show.name == "durable_streams")
        else:
            assert show.end in body, show.name
        if show in WATCHED:
            async with show.open(two_edges[0], turn, cursor=last) as response:
                assert response.status == 204, "an EventSource does not come back"


async def test_an_answer_between_others_doings(two_edges: list[EdgeProcess], turn: Turn) -> None:
    """While a task waits for a person its agent may go on. A client that answers over A2A and says where it stands is
    shown what came in between; one whose cursor is of another log is refused, and nothing is answered."""
    author = turn.author
    await author.write(InputRequired(input_id="i", prompt="Go on?", kind="approval"))
    cursor = (await author.log())[-1].id
    await author.think("Meanwhile")
    for place, wanted in (("1-99", []), (cursor, ["thinking", "input:received", "execution:complete"])):
        message = {"messageId": "a", "role": "ROLE_USER", "taskId": turn.id, "parts": [{"text": "yes"}]}
        params = {"message": message, "metadata": {"cursor": place}}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": params}
        body = json.dumps(asked).encode()
        async with request(two_edges[1].port, "POST", "/a2a", author.token, headers=JSON | NEW, body=body) as response:
            if not wanted:
                assert (await response.json())["error"]["code"] == -32602
                assert [event.type for event in await author.log()].count("input:received") == 0
                continue
            async with asyncio.timeout(10):
                frames = response.frames()
                found = [json.loads((await anext(frames)).data or "")["result"] for _ in range(3)]
                await author.end()
                found += [json.loads(frame.data or "")["result"] async for frame in frames]
        assert found[0]["task"]["metadata"]["cursor"] == cursor
        updates = [next(iter(each.values()))["metadata"]["event"] for each in found[1:]]
        assert [each for number, each in enumerate(updates) if each not in updates[:number]] == wanted
