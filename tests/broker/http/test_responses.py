"""Answers that are no streams have bounds: in number, rate, bytes and time. A slow reader that reads gets all."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from broker.base.settings import Settings
from broker.edge.edge import Edge
from broker.edge.serving import owned
from broker.http.responses import Responses
from emitter.events import InputRequired, MessageComplete
from emitter.wire import ids, keys
from tests.edges import ALL_SCOPES, SECRET, SSE, Author, Connection, call, request, token_for

BASE = "/api/agent/executions"
STATE, EVENTS, STREAM = f"{BASE}/ex_1", f"{BASE}/ex_1/events", f"{BASE}/ex_1/stream"
EXPORT = {"Accept": "application/x-ndjson"}
NDJSON = {"Content-Type": "application/x-ndjson"}
STARTED = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}
STATUS = {"type": "status", "data": {"status": "s", "message": "m"}}
_users = itertools.count(1)


@contextlib.asynccontextmanager
async def serving(redis: Redis, redis_url: str, **settings: Any) -> AsyncIterator[Edge]:
    """An edge of this process that knows the agent `a`, which no worker runs."""
    await redis.zadd(keys.AGENTS_KNOWN, {"a": ids.now_ms()})
    addresses = {"host": "127.0.0.1", "port": 0, "admin_host": "127.0.0.1", "admin_port": 0}
    async with Edge(Settings(redis_url=redis_url, jwt_secret=SECRET, drain_seconds=0, **addresses, **settings)) as edge:
        yield edge


@pytest.fixture
async def eve(redis: Redis) -> Author:
    """Has an execution of a megabyte and a half."""
    author = Author(redis, user=f"eve-{next(_users)}")
    await author.begin()
    for number in range(24):
        await author.write(MessageComplete(message_id=f"m{number}", text="x" * 63_000))
    return author


def slowly(edge: Edge, path: str, token: str, headers: Mapping[str, str] = {}) -> Any:
    """A request by a client that holds little, and reads only what it is asked to."""
    return request(edge.port, "GET", path, token, headers=headers, receive_buffer=4096)


async def read_in_pieces(connection: Connection, pause_seconds: float) -> int:
    """How many bytes of body came until its end; a pause after each 64 KB."""
    size, due = 0, 65_536
    async for piece in raw_pieces(connection):
        size += len(piece)
        if size >= due:
            due += 65_536
            await asyncio.sleep(pause_seconds)
    return size


async def raw_pieces(connection: Connection) -> AsyncIterator[bytes]:
    with contextlib.suppress(ConnectionError):
        while piece := await connection._reader.read(16_384):
            yield piece


# --- how long --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "headers"), [(STATE, {}), (EVENTS, EXPORT)], ids=["state", "export"])
async def test_slow_but_reading_gets_all(
    redis: Redis, redis_url: str, eve: Author, path: str, headers: dict[str, str]
) -> None:
    """The write timeout is about bytes that leave, not about answers that end."""
    async with serving(redis, redis_url, write_timeout_seconds=2) as edge:
        async with request(edge.port, "GET", path, eve.token, headers=headers) as fast:
            whole = len(await fast.body())
        began = asyncio.get_running_loop().time()
        async with slowly(edge, path, eve.token, headers | {"Connection": "close"}) as connection:
            size = await read_in_pieces(connection, 0.2)
        assert size >= whole > 1_500_000  # chunk headers are counted as well
        assert asyncio.get_running_loop().time() - began > 3


@pytest.mark.parametrize(("path", "headers"), [(STATE, {}), (EVENTS, EXPORT)], ids=["state", "export"])
async def test_an_answer_that_nobody_reads_is_cut(
    redis: Redis, redis_url: str, eve: Author, path: str, headers: dict[str, str]
) -> None:
    """And what it held is free again."""
    async with serving(redis, redis_url, write_timeout_seconds=0.5) as edge:
        async with slowly(edge, path, eve.token, headers) as connection:
            assert connection.status == 200
            assert len(edge._responses) == 1
            async with asyncio.timeout(10):
                while len(edge._responses):
                    await asyncio.sleep(0.05)
        assert (edge._responses._bytes, edge._responses._bytes_of) == (0, {})


async def test_what_anybody_may_have_is_cut_as_well() -> None:
    """Such as the description or the console, for which nobody needs to be known."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 10_000_000)

    responses = Responses(Settings(write_timeout_seconds=0.5), lambda _: False)
    app = web.Application(middlewares=[responses.middleware])
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with owned(responses.run(), "watch"):
        async with request(port, "GET", "/") as whole:
            assert len(await whole.body()) == 10_000_000
        async with request(port, "GET", "/", receive_buffer=4096) as connection:
            assert len(responses) == 1
            async with asyncio.timeout(10):
                while len(responses):
                    await asyncio.sleep(0.05)
            assert sum([len(piece) async for piece in raw_pieces(connection)]) < 10_000_000
    await runner.cleanup()


async def test_an_export_ends_with_its_token(redis: Redis, redis_url: str, eve: Author) -> None:
    """By expiry, and within a second or two by revocation; not as if it were whole."""
    async with serving(redis, redis_url, viewer_buffer_bytes=4096) as edge:
        short = token_for(eve.user, ttl=3)
        async with slowly(edge, EVENTS, short, EXPORT) as connection, asyncio.timeout(20):
            assert connection.status == 200
            assert await read_in_pieces(connection, 0.4) < 1_500_000
        revoked = token_for(eve.user)
        async with slowly(edge, EVENTS, revoked, EXPORT) as connection, asyncio.timeout(20):
            admin = token_for("root", scopes=ALL_SCOPES)
            assert (await call(edge.port, "POST", "/api/admin/revocations", admin, {"user": eve.user})).status == 202
            assert await read_in_pieces(connection, 0.4) < 1_500_000


async def test_an_export_over_http_1_0_ends(redis: Redis, redis_url: str, eve: Author) -> None:
    """With the connection, whatever the client asks for: there is no other sign."""
    async with serving(redis, redis_url) as edge:
        keep = EXPORT | {"Connection": "keep-alive"}
        async with request(edge.port, "GET", EVENTS, eve.token, headers=keep, version="1.0") as connection:
            async with asyncio.timeout(10):
                lines = (await connection.body()).splitlines()
        assert len(lines) == 25
        assert json.loads(lines[-1])["event"]["type"] == "message:complete"


# --- how many --------------------------------------------------------------------------------------------------------


async def test_an_export_takes_the_room_of_a_stream(redis: Redis, redis_url: str, eve: Author) -> None:
    """Of its user, and of the edge; and gives it back."""
    async with serving(redis, redis_url, max_connections_per_user=1, max_connections=2) as edge:
        async with slowly(edge, EVENTS, eve.token, EXPORT) as first:
            assert first.status == 200
            assert (await call(edge.port, "GET", EVENTS, eve.token, headers=EXPORT)).status == 429
            bob, carol = Author(redis, user="bob"), Author(redis, user="carol")
            for author in (bob, carol):
                await author.begin()
            async with request(edge.port, "GET", STREAM, bob.token, headers=SSE) as stream:
                assert stream.status == 200
                full = await call(edge.port, "GET", EVENTS, carol.token, headers=EXPORT)
                assert (full.status, "retry-after" in full.headers) == (503, True)
        async with asyncio.timeout(10):
            while (await call(edge.port, "GET", EVENTS, carol.token, headers=EXPORT)).status == 503:
                await asyncio.sleep(0.05)


async def test_an_export_counts_as_a_connect(redis: Redis, redis_url: str, author: Author) -> None:
    """It is limited by the rate of streams."""
    await author.begin()
    async with serving(redis, redis_url, connects_per_minute=2) as edge:
        statuses = []
        for _ in range(3):
            async with request(edge.port, "GET", EVENTS, author.token, headers=EXPORT) as connection:
                statuses.append(connection.status)
                await connection.body()
        assert statuses == [200, 200, 429]


async def test_one_users_requests_wait_for_each_other(redis: Redis, redis_url: str, eve: Author) -> None:
    """And for nobody else's."""
    one = {"max_requests_per_user": 1, "write_timeout_seconds": 3}
    async with serving(redis, redis_url, **one) as edge, slowly(edge, STATE, eve.token) as connection:
        assert connection.status == 200
        second = asyncio.create_task(call(edge.port, "GET", BASE, eve.token))
        assert (await call(edge.port, "GET", BASE, token_for("bob"))).status == 200
        assert not second.done()
        assert (await second).status == 200  # when the first was cut


@pytest.mark.parametrize(("setting", "status"), [("max_buffered_bytes_per_user", 429), ("max_buffered_bytes", 503)])
async def test_bodies_under_way_are_bounded(
    redis: Redis, redis_url: str, eve: Author, setting: str, status: int
) -> None:
    """Requests and answers together. A single one always fits, and small ones always do."""
    token = token_for(eve.user, scopes=ALL_SCOPES)
    line = json.dumps({"type": "custom:x", "data": {"a": "x" * 60_000}}).encode()
    async with serving(redis, redis_url, **{setting: 1_000_000}) as edge:
        async with slowly(edge, STATE, token) as connection:
            assert connection.status == 200
            body = b"\n".join([line] * 3)
            answer = await call(edge.port, "POST", EVENTS, token, body, headers=NDJSON)
            assert (answer.status, "retry-after" in answer.headers) == (status, True)
            assert (await call(edge.port, "POST", EVENTS, token, line, headers=NDJSON)).status == 202
        async with asyncio.timeout(10):
            while (await call(edge.port, "POST", EVENTS, token, body, headers=NDJSON)).status != 202:
                await asyncio.sleep(0.05)


# --- how often -------------------------------------------------------------------------------------------------------

RATES = {
    "reads": ("GET", BASE, None),
    "publishes": ("POST", EVENTS, STATUS),
    "answers": ("POST", f"{STATE}/input", {"inputId": "i", "value": True}),
    "cancels": ("POST", f"{STATE}/cancel", {}),
    "tickets": ("POST", "/api/agent/stream-tickets", {}),
}


REASONS = {
    "reads": "read_rate",
    "publishes": "publish_rate",
    "answers": "answer_rate",
    "cancels": "cancel_rate",
    "tickets": "ticket_rate",
}


@pytest.mark.parametrize("what", RATES)
async def test_rates(redis: Redis, redis_url: str, author: Author, what: str) -> None:
    """So many a minute and user, and then a 429 that says when; other users and other kinds are not concerned."""
    await author.begin()
    await author.write(InputRequired(input_id="i", prompt="?", kind="approval"))
    token, other = token_for(author.user, scopes=ALL_SCOPES), token_for(author.user + "-2", scopes=ALL_SCOPES)
    async with serving(redis, redis_url, **{f"{what}_per_minute": 2}) as edge:
        answers = [await call(edge.port, *RATES[what][:2], token, RATES[what][2]) for _ in range(3)]
        assert [answer.status == 429 for answer in answers] == [False, False, True]
        assert 1 <= int(answers[2].headers["retry-after"]) <= 30
        assert answers[2].body["type"].endswith("rate-limited")
        assert edge.metrics.rejected[REASONS[what]]._value.get() == 1
        for name, (method, path, body) in RATES.items():
            assert (await call(edge.port, method, path, other, body)).status != 429
            assert name == what or (await call(edge.port, method, path, token, body)).status != 429


async def test_a_start_by_publishing_is_a_start(redis: Redis, redis_url: str, author: Author) -> None:
    """It counts as one, where there was no such execution; its repeat and all that follows does not."""
    token = token_for(author.user, scopes={"events:publish"})

    async def publish(execution: str, event: dict[str, Any], **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await call(edge.port, "POST", f"{BASE}/{execution}/events", token, event, headers=named)).status

    async with serving(redis, redis_url, executes_per_minute=2) as edge:
        producer = {"Producer_Id": "p", "Producer_Seq": "1"}
        assert [await publish("one", STARTED, **producer) for _ in range(3)] == [202] * 3
        assert [await publish(name, STARTED) for name in ("two", "three", "one")] == [202, 429, 202]
        assert await publish("two", STATUS) == 202
        assert await publish("three", STATUS) == 404
        queued = {"type": "execution:queued", "data": {"task": "t", "agent": "a"}}
        assert await publish("four", queued) == 403


# --- how large -------------------------------------------------------------------------------------------------------


SIZES = {
    "/api/agent/stream-tickets": 64,
    f"{STATE}/cancel": 64,
    "/api/admin/revocations": 64,
    "/api/agent/execute": 768,
    f"{STATE}/input": 512,
    EVENTS: 512,
    "/api/agent/chat": 8192,
    "/ag-ui/a": 8192,
}


async def post(port: int, path: str, token: str, size: int, *, has_length: bool) -> tuple[str, Any]:
    """Status line and answer; a body whose length is said is not even sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    if has_length:
        writer.write(f"{head}Content-Length: {size}\r\n\r\n".encode())
    else:
        body = b'{"a":"' + b"x" * (size - 8) + b'"}'
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
    answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(answer.lower().partition("content-length: ")[2].partition("\r\n")[0])
    problem = json.loads(await reader.readexactly(length))
    writer.transport.abort()
    return answer.partition("\r\n")[0], problem


@pytest.mark.parametrize("has_length", [True, False], ids=["length", "chunked"])
async def test_every_route_has_its_size(redis: Redis, redis_url: str, author: Author, has_length: bool) -> None:
    """A larger body is a 413 that names the limit: at once where its length is said."""
    token = token_for(author.user, scopes=ALL_SCOPES)
    async with serving(redis, redis_url) as edge:
        for path, kilobytes in SIZES.items():
            async with asyncio.timeout(20):
                size = kilobytes * 1024 + 1
                status, problem = await post(edge.port, path, token, size, has_length=has_length)
            assert (" 413 " in status, problem["limit"]) == (True, kilobytes * 1024), path


def chat(content: str) -> bytes:
    return b'{"id":"c","messages":[{"role":"user","id":"m","parts":[{"type":"text","text":"hi"}],"x":%b}]}' % (
        content.encode()
    )


@pytest.mark.parametrize(
    ("content", "is_refused"),
    [
        ("[" + ",".join(["{}"] * 200_000) + "]", True),
        ("[" + ",".join(["0"] * 600_000) + "]", True),
        ("{" + ",".join(f'"k{number}":1' for number in range(300_000)) + "}", True),
        (json.dumps("text, with [brackets] and {braces}, " * 100_000), False),
        (json.dumps(json.dumps([{"a": "b\\"}] * 100_000)), False),
        ("[" + ",".join(["[1,2]"] * 10_000) + "]", False),
    ],
    ids=["objects", "numbers", "keys", "text", "json in text", "some"],
)
async def test_json_that_takes_long_to_decode(
    redis: Redis, redis_url: str, author: Author, content: str, is_refused: bool
) -> None:
    """What is made of little but braces is refused, since nothing can interrupt its decoding; text may be long."""
    async with serving(redis, redis_url) as edge:
        asked = request(
            edge.port,
            "POST",
            "/api/agent/chat?agent=a",
            author.token,
            headers={"Content-Type": "application/json"},
            body=chat(content),
            seconds=40,
        )
        async with asked as answer:
            assert (answer.status == 413) == is_refused
            assert is_refused or answer.status == 200
