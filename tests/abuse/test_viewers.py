"""What viewers of one user, and events that they cannot be shown, cost others on the same edge: nothing but a share of
its time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import time
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.base.settings import Settings
from broker.cli.embedded import EmbeddedRedis
from broker.edge.edge import Edge
from broker.live import sse, view
from broker.live.topic import EVENTS_AT_ONCE
from emitter.events import Custom, Phase, PhaseStart, Plan, PlanCreated, Thinking
from emitter.store.append import append
from emitter.wire.entries import Entry
from emitter.wire.envelope import envelope
from emitter.wire.ids import now_ms
from emitter.wire.prepared import Prepared
from tests.abuse.bystander import Report, bystander
from tests.edges import (
    ALL_SCOPES,
    SECRET,
    SSE,
    Author,
    Connection,
    EdgeProcess,
    Follower,
    SseReader,
    assert_dense,
    call,
    edge,
    eventually,
    request,
    token_for,
    under_load,
)

CLOSED = "runcast_connections_closed_total"
MEGABYTE = 1024 * 1024
DRAIN_BYTES = 64 * 1024


def assert_undisturbed(bob: Report) -> None:
    """Within what a loaded machine does to anybody; without walls and slices each of these was 20 s and more."""
    assert bob.is_whole, "exactly what he wrote"
    assert bob.events.count > 20, "the bystander saw too little to tell"
    assert bob.events.p99 < under_load(1.0), bob
    assert bob.health.max < under_load(3.0), bob


@contextlib.asynccontextmanager
async def reading(edge: EdgeProcess, path: str, token: str, count: int) -> AsyncIterator[list[asyncio.Task[int]]]:
    """So many who read as fast as they can; each a task that ends, with the bytes it got besides heartbeats, when its
    stream does."""

    async def read() -> int:
        async with request(edge.port, "GET", path, token, seconds=60) as stream:
            return sum([len(piece) for piece in [piece async for piece in stream.pieces()] if piece != b": hb\n"])

    tasks = [asyncio.create_task(read()) for _ in range(count)]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- an event that cannot be shown -----------------------------------------------------------------------------------

QUESTION = {"inputId": "q", "prompt": "p", "kind": "approval", "expiresAt": 100_000_000_000_000_000}
DEEP = {"result": json.loads("[" * 900 + "]" * 900), "duration": 1}


@pytest.mark.parametrize(
    ("type_", "data", "path"),
    [("input:required", QUESTION, "$.expiresAt"), ("execution:complete", DEEP, "$.result")],
    ids=["a far moment", "a deep value"],
)
async def test_what_no_renderer_can_show_is_refused_at_the_door(
    two_edges: list[EdgeProcess], author: Author, type_: str, data: dict[str, Any], path: str
) -> None:
    """422 with the path of the field, and nothing is stored."""
    await author.begin()
    token = token_for(author.user, scopes=ALL_SCOPES)
    address = f"/api/agent/executions/{author.execution_id}/events"
    answer = await call(two_edges[0].port, "POST", address, token, {"type": type_, "data": data})
    assert (answer.status, answer.body["path"]) == (422, path)
    assert len(await author.log()) == 1


async def write_unchecked(author: Author, type_: str, data: dict[str, Any]) -> None:
    """As an emitter of an older version would, which checked less."""
    encoded = json.dumps(data, separators=(",", ":")).encode()
    body = envelope(type_, author.execution_id, encoded, ts=now_ms())
    mark = f"w:{data['inputId']} {encoded.decode()}" if type_ == "input:required" else "s:completed"
    await append(author.redis, author.owner, author.execution_id, [Prepared(type_, body, mark)])


@pytest.mark.parametrize("path", ["/ag-ui/{}", "/a2a/stream?taskId={}"])
async def test_what_is_in_a_log_already_costs_nobody_an_event(
    two_edges: list[EdgeProcess], author: Author, redis: Redis, path: str
) -> None:
    """Beside viewers in other protocols, a native viewer who came after them gets every ordinal at once; so does
    another user whose event came in the same moment."""
    bob = Author(redis, user=author.user + "-bob")
    await author.begin()
    await bob.begin()
    only = two_edges[:1]
    async with (
        reading(only[0], path.format(author.execution_id), author.token, 3),
        Follower(only, author.path, author.token) as native,
        Follower(only, bob.path, bob.token) as his,
    ):
        await native.until_live()
        await his.until_live()
        for _ in range(3):
            await write_unchecked(author, "input:required", QUESTION)
            await asyncio.gather(author.say(), bob.say())
        await write_unchecked(author, "execution:complete", DEEP)
        await bob.say()
        await native.until_done()
        await his.until_events(5, seconds=5)
    assert native.events == await author.log()
    assert_dense(native.events)
    assert (native.connects, native.ends) == (1, ["finished"])


class Plain:
    """A rendering as simple as can be, which fails at an event of its own."""

    name = "ag_ui"
    headers: Mapping[str, str] = {"Content-Type": "text/event-stream"}
    heartbeat = b": hb\n"
    heartbeat_seconds = 10.0
    fill = b""
    state_key = None
    is_over = False
    asked = 0

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def open(self) -> bytes:
        return b": open\n\n"

    def render(self, entries: Sequence[Entry]) -> bytes:
        Plain.asked += 1
        if any(entry.type == b"custom:bang" for entry in entries):
            raise ValueError("year 3170843 is out of range")
        return b"".join(b"data: %d\n\n" % entry.seq for entry in entries)


@pytest.fixture
async def own_edge(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Edge]:
    """An edge in this process, whose AG-UI shows what `Plain` does."""
    monkeypatch.setattr("broker.protocols.ag_ui.routes.Renderer", Plain)
    ports = {"host": "127.0.0.1", "admin_host": "127.0.0.1", "port": 0, "admin_port": 0}
    async with Edge(Settings(redis_url=redis_url, jwt_secret=SECRET, drain_seconds=0, **ports)) as edge:  # type: ignore[arg-type]
        yield edge


def closed(edge: Edge, reason: str) -> float:
    return float(edge.metrics.connections_closed[reason]._value.get())


async def until_ended(stream: Connection) -> list[str]:
    """The data of its frames up to its end, which is a cut: to such a client a clean end would mean success."""
    reader = SseReader()
    async with asyncio.timeout(under_load(10)):
        frames = [frame async for piece in stream.pieces() for frame in reader.feed(piece)]
    assert not stream.whole
    return [frame.data for frame in frames if frame.data is not None]


async def test_a_renderer_that_fails_costs_its_own_viewer_alone(own_edge: Edge, author: Author, redis: Redis) -> None:
    """It is cut off, counted as `failed` and logged; every other viewer, whenever it came, gets every event at once."""
    bob = Author(redis, user=author.user + "-bob")
    await author.begin()
    await bob.begin()
    ports = [own_edge.port]
    path = f"/ag-ui/{author.execution_id}"
    async with (
        Follower(ports, author.path, author.token) as before,
        request(own_edge.port, "GET", path, author.token) as failing,
        Follower(ports, bob.path, bob.token) as his,
    ):
        await before.until_live()
        await eventually("live", lambda: own_edge.metrics.replays["ok"]._value.get() == 3)
        shown = failing.frames()
        assert (await anext(shown)).data == "1"
        async with Follower(ports, author.path, author.token) as after:
            await after.until_live()
            await author.say()
            assert (await anext(shown)).data == "2"  # or the two would be shown at once, and fail as one
            await asyncio.gather(author.write(Custom(name="bang", data={})), bob.say())
            await author.say()
            for each in (before, after):
                await each.until_events(4)
                assert each.events == await author.log()
                assert each.connects == 1
        await his.until_events(2)
        assert [frame async for frame in shown] == [], "nothing comes after"
        assert not failing.whole
    assert closed(own_edge, "failed") == 1


async def test_who_failed_does_not_come_back_at_once(
    own_edge: Edge, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For half a minute the edge does not try again, whoever asks; then it does, and a replay that fails is `failed` as
    well. The native stream is shown all the while."""
    await author.begin()
    await author.write(Custom(name="bang", data={}))
    path = f"/ag-ui/{author.execution_id}"
    async with request(own_edge.port, "GET", path, author.token) as failing:
        await until_ended(failing)
    assert (closed(own_edge, "failed"), closed(own_edge, "lost_redis")) == (1, 0)
    asked = Plain.asked
    for _ in range(20):
        answer = await call(own_edge.port, "GET", path, author.token)
        assert (answer.status, answer.body["type"]) == (500, "urn:runcast:problem:cannot-be-shown")
        assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert Plain.asked == asked
    async with Follower([own_edge.port], author.path, author.token) as native:
        await native.until_events(2)
    clock = own_edge.streams._failures
    later = clock._clock() + 31
    monkeypatch.setattr(clock, "_clock", lambda: later)
    async with request(own_edge.port, "GET", path, author.token) as failing:
        await until_ended(failing)
    assert closed(own_edge, "failed") == 2


async def test_an_event_source_is_told_when_to_come_back(
    own_edge: Edge, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets an empty stream with a long `retry`, since an error status would end it for ever."""
    monkeypatch.setattr("broker.protocols.a2a.event_source.TaskStream", Plain)
    await author.begin()
    await author.write(Custom(name="bang", data={}))
    path = f"/a2a/stream?taskId={author.execution_id}"
    async with request(own_edge.port, "GET", path, author.token, headers=SSE) as failing:
        await until_ended(failing)
    async with request(own_edge.port, "GET", path, author.token, headers=SSE) as again:
        assert again.status == 200
        assert [frame.event async for frame in again.frames()] == ["stream:end"]
    (retry,) = again.sse.retries
    assert 25_000 <= retry <= 60_000


@pytest.mark.parametrize("seed", range(2))
async def test_who_comes_while_much_is_to_be_shown_gets_each_event_once(
    own_edge: Edge, author: Author, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Replays in slices, joins, bursts that put live viewers behind, and readers who are slow: each viewer is shown
    exactly the log, in order."""
    rng = random.Random(seed)

    class Slow(Plain):
        """It takes its time for each event, and ends with the log."""

        def render(self, entries: Sequence[Entry]) -> bytes:
            time.sleep(0.0005 * len(entries))
            self.is_over = any(entry.type == b"execution:complete" for entry in entries)
            return super().render(entries)

    monkeypatch.setattr("broker.protocols.ag_ui.routes.Renderer", Slow)
    await author.begin()
    path = f"/ag-ui/{author.execution_id}"

    async def watch(after_seconds: float, is_slow: bool) -> list[int]:
        await asyncio.sleep(after_seconds)
        buffer = 4096 if is_slow else None
        async with request(own_edge.port, "GET", path, author.token, receive_buffer=buffer, seconds=30) as stream:
            reader, seen = SseReader(), []
            async for piece in stream.pieces():
                seen += [int(frame.data) for frame in reader.feed(piece) if frame.data is not None]
            assert stream.whole
        return seen

    async with Follower([own_edge.port], author.path, author.token) as native:
        viewers = [asyncio.create_task(watch(rng.random() * 1.5, rng.random() < 0.3)) for _ in range(25)]
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            await author.say(rng.choice([1, 1, 2, 5, EVENTS_AT_ONCE + 1, 60]))
            await asyncio.sleep(rng.random() * 0.05)
        last = await author.end()
        async with asyncio.timeout(under_load(40)):
            shown = await asyncio.gather(*viewers)
        await native.until_done()
    assert native.events == await author.log()
    for seen in shown:
        assert seen == list(range(1, last.seq + 1))
    assert closed(own_edge, "finished") == 26


async def test_who_left_is_let_go_at_once(own_edge: Edge, author: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a viewer was shown is freed when its connection ends, not when the garbage collector comes by."""
    renderings: list[weakref.ref[Plain]] = []

    class Seen(Plain):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            renderings.append(weakref.ref(self))

    monkeypatch.setattr("broker.protocols.ag_ui.routes.Renderer", Seen)
    await author.begin()
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            async with request(own_edge.port, "GET", f"/ag-ui/{author.execution_id}", author.token) as stream:
                await anext(stream.pieces())
        await eventually("freed", lambda: len(own_edge.streams) == 0 and not any(each() for each in renderings), 5)
    finally:
        gc.enable()
    assert len(renderings) == 5


# --- what costs much to show -----------------------------------------------------------------------------------------


async def large_plan(author: Author, phases: int = 2200, starts: int = 600) -> None:
    await author.begin()
    await author.write(PlanCreated(plan=Plan("g", [Phase(f"p{n}", "n") for n in range(phases)])))
    for first in range(0, starts, 100):
        await author.write(*(PhaseStart(phase_id=f"p{n}", phase_name="n") for n in range(first, first + 100)))


@pytest.fixture(scope="module")
def plain(redis_server: EmbeddedRedis) -> Iterator[EdgeProcess]:
    """An edge as it comes."""
    with edge(redis_server.url) as started:
        yield started


async def test_forty_viewers_of_a_large_plan(plain: EdgeProcess, redis_url: str, author: Author) -> None:
    """However long their replays take, another user's live events go through all the while."""
    await large_plan(author)
    attack = reading(plain, f"/ag-ui/{author.execution_id}", author.token, 40)
    async with bystander(plain, redis_url) as bob, attack:
        await eventually("all there", lambda: plain.metric("runcast_connections") == 41)
        await asyncio.sleep(4)  # of a replay that may be over by then
        report = await bob.report()
    assert_undisturbed(report)


async def test_bursts_for_twenty_live_viewers_of_a_large_plan(
    plain: EdgeProcess, redis_url: str, author: Author
) -> None:
    """What they are all to be shown at once, each in its own way, is shown in turns; all get all of it."""
    await large_plan(author, phases=1000, starts=0)
    before = plain.metric("runcast_replays_total", result="ok")
    attack = reading(plain, f"/ag-ui/{author.execution_id}", author.token, 20)
    async with bystander(plain, redis_url) as bob, attack as viewers:
        await eventually("all live", lambda: plain.metric("runcast_replays_total", result="ok") == before + 21, 30)
        for first in (0, 20):
            starts = [PhaseStart(phase_id=f"p{n}", phase_name="n") for n in range(first, first + 20)]
            await author.write(*starts)
        await author.end()
        async with asyncio.timeout(45):
            sizes = await asyncio.gather(*viewers)
        report = await bob.report()
    assert_undisturbed(report)
    assert len(set(sizes)) == 1, "each the same, to the end"


async def test_many_lines_at_once_for_many_filtered_viewers(plain: EdgeProcess, redis_url: str, author: Author) -> None:
    """A thousand events in one message, for viewers each of whom wants something else."""
    await author.begin()
    async with bystander(plain, redis_url) as bob, contextlib.AsyncExitStack() as stack:
        paths = [f"{author.path}?types=*,x{number}" for number in range(25)]
        followers = [await stack.enter_async_context(Follower([plain], path, author.token)) for path in paths]
        for follower in followers:
            await follower.until_live()
        for _ in range(2):
            await author.write(*(Thinking(thought="x" * 2000) for _ in range(1000)))
        for follower in followers:
            await follower.until_events(2001, seconds=40)
        report = await bob.report()
    assert_undisturbed(report)
    log = await author.log()
    assert all(follower.events == log and follower.connects == 1 for follower in followers)


async def test_many_viewers_of_a_log_that_ends_are_closed_in_turns(
    own_edge: Edge, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are: the loop comes round in between, and each has all of the log."""
    monkeypatch.setattr("broker.streams.log_source.CLOSED_AT_ONCE", 5)
    close, at = own_edge.streams.close, []

    def slow_close(*arguments: Any) -> None:
        time.sleep(0.002)
        at.append(rounds)
        close(*arguments)

    monkeypatch.setattr(own_edge.streams._logs, "_close", slow_close)
    rounds = 0
    await author.begin()
    async with contextlib.AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(Follower([own_edge.port], author.path, author.token)) for _ in range(30)
        ]
        for follower in followers:
            await follower.until_live()
        await author.end()
        while len(at) < 30:
            rounds += 1
            await asyncio.sleep(0)
        for follower in followers:
            await follower.until_done()
    assert len(set(at)) > 5
    log = await author.log()
    assert all(follower.events == log and follower.ends == ["finished"] for follower in followers)


# --- memory ----------------------------------------------------------------------------------------------------------


async def test_a_message_larger_than_a_buffer_is_held_by_nobody(redis_url: str, author: Author) -> None:
    """An event message of many megabytes is not put into the buffers of viewers who do not read."""
    await author.begin()
    with edge(redis_url) as only:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(30):
                stalled = request(only.port, "GET", author.path, author.token, headers=SSE, receive_buffer=4096)
                await stack.enter_async_context(stalled)
            await eventually("all live", lambda: only.metric("runcast_replays_total", result="ok") == 30)
            before = only.rss_bytes()
            await author.say(350, size=16_000)
            await eventually("all lag", lambda: only.metric("runcast_slow_viewers_total") == 30)
            held = only.rss_bytes() - before
    # Up to a page above the limit of a buffer each, and the message itself some times over; 5.6 MB each would be 168.
    assert held < 75 * MEGABYTE, f"{held / MEGABYTE:.0f} MB"


async def test_made_up_filters_leave_nothing_behind(redis_url: str, author: Author) -> None:
    """Who comes again and again with another filter makes a quiet log no heavier."""
    await author.begin()
    await author.say(12, size=20_000)
    with edge(redis_url) as only:
        async with Follower([only], author.path, author.token) as staying:
            await staying.until_live()

            async def come(number: int) -> None:
                path = f"{author.path}?types=*,x{number}&lastEventId=0-0"
                async with request(only.port, "GET", path, author.token, headers=SSE) as stream:
                    async for frame in stream.frames():
                        if frame.event == "stream:live":
                            return

            for number in range(40):
                await come(number)
            before = only.rss_bytes()
            for number in range(40, 240):
                await come(number)
            grown = only.rss_bytes() - before
    assert grown < 16 * MEGABYTE, f"{grown / MEGABYTE:.1f} MB for 200 filters; 48 when each leaves its bytes"


# --- slow, but reading -----------------------------------------------------------------------------------------------


async def test_who_reads_slowly_gets_all_to_the_end(redis_url: str, author: Author) -> None:
    """The last bytes of a stream that has ended may take as long as they take, as long as some are taken: in every
    protocol."""
    await author.begin()
    await author.say(25, size=10_000)
    paths = [author.path, f"/ag-ui/{author.execution_id}", f"/a2a/stream?taskId={author.execution_id}"]
    loop = asyncio.get_running_loop()

    async def read(port: int, path: str) -> tuple[str, float, int]:
        async with request(port, "GET", path, author.token, headers=SSE, receive_buffer=4096) as slow:
            opened.append(path)
            began, size = loop.time(), 0
            async for piece in slow.pieces():
                size += len(piece)
                await asyncio.sleep(len(piece) / 40_000)
            assert slow.whole, path
        return path, loop.time() - began, size

    opened: list[str] = []
    # Of a piece of 64 KiB a reader takes nothing for nearly two seconds, and may be held up besides.
    with edge(redis_url, write_timeout_seconds=4, heartbeat_seconds=1) as only:
        readers = [asyncio.create_task(read(only.port, path)) for path in paths]
        await eventually("opened", lambda: len(opened) == 3)
        await author.end()
        for path, seconds, size in await asyncio.gather(*readers):
            assert size > 250_000, path
            assert seconds > 6, f"{path}: longer than any fixed time to say farewell"
        assert only.metric(CLOSED, reason="finished") == 3


async def test_who_stops_reading_at_the_end_is_cut_and_holds_its_seat_until_then(
    redis_url: str, author: Author, redis: Redis
) -> None:
    """The rest of an ended stream that nobody takes is dropped after the write timeout; the connection counts as its
    user's until then, or ended streams would be memory without a limit."""
    await author.begin()
    await author.say(300, size=10_000)
    await author.end()
    other = Author(redis, user=author.user, execution_id="other")
    await other.begin()
    settings = {"viewer_buffer_bytes": 16 * MEGABYTE, "heartbeat_seconds": 1, "max_connections_per_user": 1}
    with edge(redis_url, write_timeout_seconds=6, **settings) as only:
        async with request(only.port, "GET", author.path, author.token, headers=SSE, receive_buffer=4096):
            await eventually("ended", lambda: only.metric(CLOSED, reason="finished") == 1)
            refused = await call(only.port, "GET", other.path, author.token)
            assert refused.status == 429
            async with asyncio.timeout(under_load(20)):
                while (await status_of(only, other)) == 429:
                    await asyncio.sleep(0.2)


async def test_who_is_revoked_does_not_get_the_rest(redis_url: str, author: Author) -> None:
    """What waits in a buffer for a slow reader is dropped with its stream."""
    await author.begin()
    await author.say(300, size=10_000)
    admin = token_for("root", scopes=ALL_SCOPES)
    with edge(redis_url, viewer_buffer_bytes=16 * MEGABYTE) as only:
        async with request(only.port, "GET", author.path, author.token, headers=SSE, receive_buffer=4096) as slow:
            await eventually("live", lambda: only.metric("runcast_replays_total", result="ok") == 1)
            answer = await call(only.port, "POST", "/api/admin/revocations", admin, {"user": author.user})
            assert answer.status == 202
            await eventually("closed", lambda: only.metric(CLOSED, reason="revoked") == 1)
            async with asyncio.timeout(under_load(20)):
                size = sum([len(piece) async for piece in slow.pieces()])
    assert not slow.whole
    assert size < 3_000_000, "all that was written to it"


async def status_of(edge: EdgeProcess, author: Author) -> int:
    async with request(edge.port, "GET", author.path, author.token) as stream:
        return stream.status


async def test_an_edge_that_stops_waits_a_little_for_the_last_bytes(redis_url: str, author: Author) -> None:
    """Who still reads the end of a stream gets it; who does not keeps the edge for some seconds at most."""
    await author.begin()
    await author.say(100, size=10_000)
    await author.end()
    loop = asyncio.get_running_loop()
    with edge(redis_url, viewer_buffer_bytes=16 * MEGABYTE) as only:
        async with (
            request(only.port, "GET", author.path, author.token, headers=SSE, receive_buffer=4096) as slow,
            request(only.port, "GET", author.path, author.token, headers=SSE, receive_buffer=4096),
        ):
            await eventually("ended", lambda: only.metric(CLOSED, reason="finished") == 2)
            began = loop.time()
            stopped = loop.run_in_executor(None, only.stop, under_load(15))
            size = 0
            async for piece in slow.pieces():
                size += len(piece)
                await asyncio.sleep(len(piece) / 800_000)
            assert slow.whole
            assert size > 1_000_000
            assert await stopped == 0
            assert loop.time() - began < under_load(14)


def test_a_closed_viewer_sees_through_nothing() -> None:
    """The view that takes the place of a closed viewer's shows nothing of anybody's."""
    assert view.CLOSED.filter is None
    assert view.CLOSED.heartbeat == sse.HEARTBEAT
