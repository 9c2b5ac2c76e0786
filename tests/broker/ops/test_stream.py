"""The operations stream: who may see it, what it costs, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import jsonschema
import pytest
from redis.asyncio import Redis

from broker.auth.tokens import mint
from broker.base.settings import Settings
from broker.cli.embedded import EmbeddedRedis
from broker.edge.edge import Edge
from broker.edge.openapi import build_openapi
from broker.ops import snapshot
from broker.ops import stream as ops
from emitter.store import announcements
from emitter.store.announcements import AgentInfo, WorkerInfo
from emitter.wire import ids, keys
from tests.edges import (
    ALL_SCOPES,
    SECRET,
    SSE,
    Author,
    Connection,
    Frame,
    call,
    request,
    stream_path,
    token_for,
    under_load,
)

PATH = "/api/ops/stream"
TOKEN = token_for("olga", scopes=["ops:read"])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots twenty times as often as they are."""
    monkeypatch.setattr(ops, "EVERY_SECONDS", 0.1)


@contextlib.asynccontextmanager
async def edge_on(redis_url: str, **settings: Any) -> AsyncIterator[Edge]:
    given: dict[str, Any] = {"heartbeat_seconds": 15, "connects_per_minute": 0, "drain_seconds": 0, **settings}
    everything = Settings(
        redis_url=redis_url, host="127.0.0.1", port=0, admin_host="127.0.0.1", admin_port=0, jwt_secret=SECRET, **given
    )  # fmt: skip
    async with Edge(everything) as edge:
        yield edge


@pytest.fixture
async def edge(redis: Redis, redis_url: str) -> AsyncIterator[Edge]:
    async with edge_on(redis_url) as edge:
        yield edge


class Watching:
    """Somebody at a dashboard: reads the stream on from where it stands."""

    def __init__(self, connection: Connection) -> None:
        self.status = connection.status
        self.headers = connection.headers
        self.connection = connection
        self._frames = connection.frames()

    async def until(self, condition: Callable[[Frame], bool]) -> list[Frame]:
        """What comes, up to the frame that is waited for."""
        found = []
        async with asyncio.timeout(10):
            async for frame in self._frames:
                if frame.data is not None:
                    found.append(frame)
                    if condition(frame):
                        return found
        raise AssertionError(f"the stream ended before; it had {found}")

    async def told(self, condition: Callable[[Any], bool] = lambda _: True) -> Any:
        """The first snapshot for which something holds."""
        found = await self.until(lambda frame: frame.event == "ops" and condition(json.loads(frame.data or "")))
        return json.loads(found[-1].data or "")

    async def end(self) -> str:
        """The reason with which it ends, which is the last that is said."""
        found = await self.until(lambda frame: frame.event == "stream:end")
        async with asyncio.timeout(5):
            assert [frame async for frame in self._frames] == []
        assert self.connection.whole
        reason: str = json.loads(found[-1].data or "")["reason"]
        return reason


@contextlib.asynccontextmanager
async def watching(edge: Edge, token: str = TOKEN, **given: Any) -> AsyncIterator[Watching]:
    async with request(edge.port, "GET", PATH, token, headers=SSE, **given) as connection:
        yield Watching(connection)


async def settled(condition: Callable[[], bool]) -> None:
    """Wait for a fact of an edge in this process, which tells nobody."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


# --- who, and what ---------------------------------------------------------------------------------------------------


async def test_it_takes_the_scope(edge: Edge) -> None:
    """Only who has ops:read sees it: others get 403, and who shows nothing 401."""
    for scopes in (["executions:read"], ["admin", "executions:debug"]):
        async with request(edge.port, "GET", PATH, token_for("olga", scopes=scopes)) as response:
            assert (response.status, (await response.json())["type"]) == (403, "urn:runcast:problem:forbidden")
    async with request(edge.port, "GET", PATH) as response:
        assert response.status == 401
    async with watching(edge) as response:
        assert response.status == 200


async def test_a_ticket_opens_it(edge: Edge) -> None:
    """`EventSource` can open it with a ticket, but not with one that is for an execution."""
    token = token_for("olga", scopes=ALL_SCOPES)
    for body, status in (({}, 200), ({"executionId": "ex_1"}, 403)):
        made = await call(edge.port, "POST", "/api/agent/stream-tickets", token, body)
        async with request(edge.port, "GET", f"{PATH}?ticket={made.body['ticket']}", headers=SSE) as response:
            assert response.status == status


async def test_what_it_says(edge: Edge, redis: Redis) -> None:
    """It opens like every stream; then each snapshot is what the API description says, and tells of this edge, its
    viewers, the workers, what waits, and Redis."""
    info = WorkerInfo(id="w1", host="h", pid=1, concurrency=4, running=1, agents=(AgentInfo(name="poet"),))
    await announcements.announce(redis, info)
    await redis.hset(keys.QUEUED, "default:alice:ex_1", "1-1")  # type: ignore[misc]
    async with watching(edge) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache, no-transform"
        first, second = await response.until(lambda frame: frame.event == "ops")
        assert response.connection.sse.retries
        assert json.loads(first.data or "") == {
            "state": "live",
            "retryMs": response.connection.sse.retries[0],
            "heartbeatSeconds": 15.0,
        }
        assert second.id is None
    assert first.event == "stream:open"
    found = json.loads(second.data or "")
    description = build_openapi("1")
    jsonschema.validate(found, {"$ref": "#/components/schemas/OpsSnapshot", "components": description["components"]})
    (me,) = found["edges"]
    assert (me["id"], me["self"], me["viewers"], me["draining"]) == (edge.id, True, 0, False)
    assert me["rssBytes"] > 10_000_000
    assert abs(me["startedAt"] - time.time() * 1000) < 60_000
    assert [(each["id"], each["agents"]) for each in found["workers"]] == [("w1", ["poet"])]
    assert (found["totals"]["queued"], found["totals"]["running"]) == (1, 1)
    assert (found["redis"]["up"], found["redis"]["role"]) == (True, "primary")


async def test_the_description_knows_it(redis: Redis, redis_url: str) -> None:
    """Every event of the stream is one of those that the API description names."""
    (stream,) = (build_openapi("1")["paths"][PATH]["get"]["responses"]["200"]["content"]).values()
    async with edge_on(redis_url, heartbeat_seconds=0.2) as edge, watching(edge, short_lived()) as response:
        found = await response.until(lambda frame: frame.event == "stream:end")
    assert {frame.event for frame in found} == set(stream["x-sse-events"])


async def test_it_shows_traffic(edge: Edge, redis: Redis) -> None:
    """Viewers of executions, events that arrive and are delivered, and how long that takes, are seen as they happen."""
    author = Author(redis, "alice")
    await author.begin()
    path = stream_path(author.execution_id)
    async with watching(edge) as operator, request(edge.port, "GET", path, author.token, headers=SSE) as viewer:
        await Watching(viewer).until(lambda frame: frame.event == "stream:live")
        for _ in range(10):
            await author.say(2)
        found = await operator.told(lambda told: told["totals"]["deliveriesPerSecond"] > 0)
        (me,) = found["edges"]
        assert (me["viewers"], me["logs"]) == (1, 1)
        assert me["eventsPerSecond"] > 0
        assert 0 < me["latencyMs"]["p50"] <= me["latencyMs"]["p99"] <= 10_000


async def test_edges_tell_of_each_other(edge: Edge, redis_url: str) -> None:
    """Two edges show the same two, each itself as itself, with the totals of both; one that stops is soon gone."""
    async with watching(edge) as here:
        async with edge_on(redis_url) as second, watching(second) as there:
            for connection, me in ((here, edge), (there, second)):
                found = await connection.told(lambda told: len(told["edges"]) == 2)
                assert {each["id"] for each in found["edges"]} == {edge.id, second.id}
                assert [each["id"] for each in found["edges"] if each["self"]] == [me.id]
            others = next(each for each in found["edges"] if each["id"] == edge.id)
            assert others["startedAt"] is not None
        await here.told(lambda told: [each["id"] for each in told["edges"]] == [edge.id])


# --- what it costs ---------------------------------------------------------------------------------------------------


async def asked(redis: Redis) -> int:
    """How often Redis was asked for INFO, which only a snapshot does (and this)."""
    stats: Any = await redis.info("commandstats")
    calls: int = stats.get("cmdstat_info", {"calls": 0})["calls"]
    return calls


async def test_nobody_asks_while_nobody_watches(edge: Edge, redis: Redis) -> None:
    """The collector runs while there are viewers; after the last one it rests, and with the next it works again."""
    assert edge.ops._collecting is None
    async with watching(edge) as response:
        await response.told()
        assert edge.ops._collecting is not None
    await settled(lambda: len(edge.ops) == 0 and edge.ops._collecting is None)
    before = await asked(redis)
    await asyncio.sleep(0.3)  # three times as long as it would take
    assert await asked(redis) == before + 1
    async with watching(edge) as response:
        await response.told()


async def test_all_viewers_share_one_snapshot(edge: Edge, redis: Redis) -> None:
    """Ten viewers get the very same bytes, and Redis is asked once for all of them."""
    async with contextlib.AsyncExitStack() as stack:
        viewers = [await stack.enter_async_context(watching(edge)) for _ in range(10)]
        start = await asked(redis)
        seen = [(await viewers[0].told())["ts"] for _ in range(6)]
        assert await asked(redis) - start <= len(seen) + 3
        same = f'"ts":{seen[-1]},'
        last = [(await viewer.until(lambda frame: same in (frame.data or "")))[-1] for viewer in viewers[1:]]
        assert len({frame.data for frame in last}) == 1


async def test_who_comes_later_need_not_wait(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A viewer that joins others has the last snapshot at once."""
    monkeypatch.setattr(ops, "EVERY_SECONDS", 30)
    async with watching(edge) as first:
        one = await first.told()
        async with watching(edge) as second:
            assert await second.told() == one


async def test_heartbeats_come_between(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where snapshots are rarer than heartbeats, heartbeats keep the stream alive."""
    monkeypatch.setattr(ops, "EVERY_SECONDS", 30)
    async with edge_on(redis_url, heartbeat_seconds=0.1) as edge, watching(edge) as response:
        read = b""
        async with asyncio.timeout(5):
            async for piece in response.connection.pieces():
                read += piece
                if read.partition(b"event: ops\n")[2].count(b": hb\n") >= 3:
                    break
        assert read.count(b"event: ops\n") == 1


async def test_http_1_0(edge: Edge) -> None:
    """A client of HTTP/1.0 gets the stream without chunks."""
    async with watching(edge, version="1.0") as response:
        assert "transfer-encoding" not in response.headers
        await response.told()


async def test_a_viewer_that_reads_nothing_is_closed(redis: Redis, redis_url: str) -> None:
    """Who takes nothing for the write timeout is cut off as slow, and until then not sent what it cannot take."""
    async with edge_on(redis_url, write_timeout_seconds=0.3, viewer_buffer_bytes=4096, heartbeat_seconds=0.2) as edge:
        # Large snapshots, so that it soon holds all that it can.
        for number in range(200):
            await redis.zadd(keys.EDGES, {f"e{number}": ids.now_ms() + 60_000})
            await redis.set(keys.edge_info_key(f"e{number}"), json.dumps({"id": f"e{number}", "version": "v" * 2000}))
        async with watching(edge, receive_buffer=1024):
            await settled(lambda: len(edge.ops) == 1)
            (viewer,) = edge.ops.topic.live()
            await settled(lambda: viewer.paused)
            held = viewer.transport.get_write_buffer_size()
            await asyncio.sleep(0.15)
            assert viewer.transport.get_write_buffer_size() <= held
            async with asyncio.timeout(5):
                while edge.metrics.connections_closed["slow"]._value.get() == 0:
                    await asyncio.sleep(0.02)
        assert len(edge.ops) == 0


# --- how it ends -----------------------------------------------------------------------------------------------------


def short_lived() -> str:
    return token_for("olga", scopes=["ops:read"], ttl=2)


async def test_a_token_runs_out(redis: Redis, redis_url: str) -> None:
    """It is told at once that its token expires soon, not with some heartbeat, and ends as expired when it does."""
    async with edge_on(redis_url, heartbeat_seconds=60) as edge, watching(edge, short_lived()) as response:
        await response.until(lambda frame: frame.event == "stream:token_expiring")
        assert await response.end() == "expired"


async def test_a_revoked_user_sees_no_more(edge: Edge, redis_url: str) -> None:
    """A revocation ends the stream on every edge."""
    admin = token_for("root", scopes=["admin"])
    async with edge_on(redis_url) as second, watching(edge) as here, watching(second) as there:
        await there.told()
        assert (await call(edge.port, "POST", "/api/admin/revocations", admin, {"user": "olga"})).status == 202
        assert [await here.end(), await there.end()] == ["revoked", "revoked"]


async def test_a_draining_edge_sends_them_elsewhere(redis: Redis, redis_url: str) -> None:
    """An edge that stops says so, with a short time to come back, and ends cleanly; it takes nobody new."""
    async with edge_on(redis_url) as edge:
        async with watching(edge) as response:
            await response.told()
            edge.ops.drain()
            assert await response.end() == "draining"
            assert len(response.connection.sse.retries) == 2
            assert response.connection.sse.retries[-1] <= 2000
        await edge.streams.drain(0)
        async with request(edge.port, "GET", PATH, TOKEN) as refused:
            assert (refused.status, int(refused.headers["retry-after"]) > 0) == (503, True)
        async with watching(edge) as again:
            assert (again.status, await again.end()) == (200, "refused")


async def test_a_stopping_edge_waits_for_nobody(redis: Redis, redis_url: str) -> None:
    """However many watch, an edge stops at once, and their streams end."""
    async with contextlib.AsyncExitStack() as stack:
        async with edge_on(redis_url) as edge:
            viewers = [await stack.enter_async_context(watching(edge)) for _ in range(5)]
            await viewers[-1].told()
            began = time.monotonic()
        assert time.monotonic() - began < under_load(3)
        assert [await viewer.end() for viewer in viewers] == ["draining"] * 5


async def test_operators_leave_a_draining_edge_first(redis: Redis, redis_url: str) -> None:
    """They are told at once, and not when the last of the other streams has been closed."""
    alice = token_for("alice")
    async with contextlib.AsyncExitStack() as stack:
        async with edge_on(redis_url, drain_seconds=4) as edge:
            for _ in range(2):
                await stack.enter_async_context(request(edge.port, "GET", "/api/agent/stream", alice, headers=SSE))
            operator = await stack.enter_async_context(watching(edge))
            await operator.told()
            ended = asyncio.create_task(operator.end())
            ended.add_done_callback(lambda _: left.append(len(edge.streams)))
            left: list[int] = []
        assert await ended == "draining"
        assert left == [1]


async def test_a_stream_grows_old(redis: Redis, redis_url: str) -> None:
    """It is ended at the age limit, to be opened again."""
    async with edge_on(redis_url, max_stream_age_seconds=0.5) as edge, watching(edge) as response:
        assert await response.end() == "aged"


async def test_there_is_room_for_so_many(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit of an edge it says when to come back, and one who leaves makes room."""
    monkeypatch.setattr(ops, "MAX_VIEWERS", 2)
    async with watching(edge), watching(edge) as second:
        async with request(edge.port, "GET", PATH, TOKEN) as third:
            assert (third.status, int(third.headers["retry-after"]) >= 5) == (503, True)
        async with watching(edge) as source:
            assert (source.status, await source.end()) == (200, "refused")
        second.connection.close()
        await settled(lambda: len(edge.ops) == 1)
        async with watching(edge) as fourth:
            await fourth.told()


async def test_one_user_leaves_room_for_others(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many dashboards one has open."""
    monkeypatch.setattr(ops, "MAX_VIEWERS_PER_USER", 1)
    other = token_for("other", scopes={"ops:read"})
    async with watching(edge), watching(edge, other) as second:
        assert second.status == 200
        for token in (TOKEN, other):
            async with request(edge.port, "GET", PATH, token) as refused:
                assert (refused.status, int(refused.headers["retry-after"]) >= 5) == (429, True)


async def test_it_counts_as_one_of_the_users_streams(redis: Redis, redis_url: str) -> None:
    """The per-user limit holds, over all kinds of stream, and a stream that ended is counted out."""
    both = mint(SECRET, "olga", scopes=["ops:read", "executions:read"], ttl=60, now=time.time())
    async with edge_on(redis_url, max_connections_per_user=2) as edge:
        async with watching(edge, both), request(edge.port, "GET", "/api/agent/stream", both, headers=SSE) as feed:
            assert feed.status == 200
            async with request(edge.port, "GET", PATH, both) as third:
                assert (third.status, third.headers["retry-after"]) == (429, "5")
        await settled(lambda: len(edge.ops) == 0 and len(edge.streams) == 0)
        async with watching(edge, both) as one, watching(edge, both) as two:
            assert (one.status, two.status) == (200, 200)


async def test_it_takes_a_slot_of_the_edge(redis: Redis, redis_url: str) -> None:
    """It has a descriptor like any other stream: while it is open the edge has room for one stream less."""
    alice = token_for("alice")
    async with edge_on(redis_url, max_connections=1) as edge:
        async with watching(edge) as operator:
            await operator.told()
            async with request(edge.port, "GET", "/api/agent/stream", alice) as feed:
                assert (feed.status, (await feed.json())["type"]) == (503, "urn:runcast:problem:capacity")
        await settled(lambda: len(edge.ops) == 0)
        async with request(edge.port, "GET", "/api/agent/stream", alice, headers=SSE) as feed:
            assert feed.status == 200


async def test_what_is_counted(edge: Edge) -> None:
    """A stream is counted as opened under its protocol, and as closed under its reason."""
    async with watching(edge) as response:
        await response.told()
        assert edge.metrics.connections_opened["ops"]._value.get() == 1
    await settled(lambda: edge.metrics.connections_closed["gone"]._value.get() == 1)
    assert len(edge.ops) == 0


# --- when Redis is away ----------------------------------------------------------------------------------------------


async def test_a_lost_redis_shows(own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Redis is away the stream goes on and says so; when it is back, so are the numbers."""
    monkeypatch.setattr(snapshot, "REDIS_SECONDS", 0.3)
    async with edge_on(own_redis.url) as edge, watching(edge) as response:
        await response.told(lambda told: told["redis"]["up"])
        assert own_redis.process is not None
        own_redis.process.send_signal(signal.SIGSTOP)
        try:
            away = await response.told(lambda told: not told["redis"]["up"])
        finally:
            own_redis.process.send_signal(signal.SIGCONT)
        assert [each["id"] for each in away["edges"]] == [edge.id]
        assert away["asOf"] < away["ts"]
        await response.told(lambda told: told["redis"]["up"])


async def test_a_defect_of_the_collector_ends_the_streams(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a snapshot fail for another reason, viewers are told rather than left with an old one; the next one who
    comes starts anew."""

    async def fail() -> None:
        raise ValueError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(edge.ops._builder, "collect", fail)
        async with watching(edge) as response:
            assert await response.end() == "lost_redis"
    async with watching(edge) as response:
        await response.told()
