"""What one ordinary user does with answers that are no streams costs the others nothing: an attacker and a bystander on
the same edge, with bounds on the bystander's delay and on the edge's memory. The bounds are generous: without the walls
that are tested here, each was missed by a factor."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.base.settings import Settings
from broker.edge.edge import Edge
from broker.executions import inputs
from broker.executions.forms import Forms
from emitter import tasks
from emitter.events import InputRequired, MessageComplete
from tests.edges import (
    SECRET,
    SSE,
    Author,
    Connection,
    EdgeProcess,
    Frame,
    call,
    edge,
    eventually,
    request,
    token_for,
    under_load,
)

MB = 2**20
BASE = "/api/agent/executions"
NDJSON = {"Content-Type": "application/x-ndjson"}
EXPORT = {"Accept": "application/x-ndjson"}
P99_SECONDS = 1.0
HEALTHZ_SECONDS = 2.0
LEAST_SEEN = 20
CUT_SECONDS, CUT_SECONDS_MAX = 2.0, 6.0


class Bystander:
    """Bob watches an execution of his own, in which something happens every few milliseconds; and somebody asks whether
    the edge is alive."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.health: list[float] = []

    def assert_unharmed(self) -> None:
        assert len(self.delays) > LEAST_SEEN, "the bystander saw too little to tell"
        p99 = sorted(self.delays)[int(len(self.delays) * 0.99)]
        assert p99 < under_load(P99_SECONDS), f"an event of a bystander came after {p99:.2f} s"
        assert max(self.health, default=0) < under_load(HEALTHZ_SECONDS)

    async def watch(self, frames: AsyncIterator[Frame], author: Author) -> None:
        async def one() -> None:
            async for frame in frames:
                if frame.event == "thinking":
                    return

        while True:
            sent = time.perf_counter()
            await author.say()
            await one()
            self.delays.append(time.perf_counter() - sent)
            await asyncio.sleep(0.02)

    async def ask(self, port: int) -> None:
        while True:
            asked = time.perf_counter()
            assert (await call(port, "GET", "/healthz", None)).status == 200
            self.health.append(time.perf_counter() - asked)
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def bystander(redis: Redis, edge: EdgeProcess | Edge) -> AsyncIterator[Bystander]:
    port = edge.port
    admin_port = edge.admin_ports[0] if isinstance(edge, EdgeProcess) else edge.admin_port
    author, bob = Author(redis, user="bob"), Bystander()
    await author.begin()
    async with request(port, "GET", author.path, author.token, headers=SSE) as stream:
        frames = stream.frames()
        async for frame in frames:
            if frame.event == "stream:live":
                break
        at_it = [asyncio.create_task(bob.watch(frames, author)), asyncio.create_task(bob.ask(admin_port))]
        try:
            yield bob
            # On a busy machine an attack may be over before he has seen much: he watches on until he has.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(under_load(30)):
                    while len(bob.delays) <= LEAST_SEEN and not any(task.done() for task in at_it):
                        await asyncio.sleep(0.02)
            assert not any(task.done() for task in at_it), [task.exception() for task in at_it if task.done()]
        finally:
            await tasks.end(at_it)


async def large_state(author: Author, megabytes: int) -> None:
    await author.begin()
    for number in range(megabytes * 16):
        await author.write(MessageComplete(message_id=f"m{number}", text="x" * 63_000))


@contextlib.asynccontextmanager
async def unread(
    edge: EdgeProcess, path: str, token: str, count: int, headers: Mapping[str, str] = {}
) -> AsyncIterator[list[Connection]]:
    """Requests whose answers nobody reads. Those whose answer has no head within some seconds are not in the list."""
    async with contextlib.AsyncExitStack() as stack:

        async def one() -> Connection | None:
            asked = request(edge.port, "GET", path, token, headers=headers, receive_buffer=4096, seconds=8)
            with contextlib.suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError):
                return await stack.enter_async_context(asked)
            return None

        found = await asyncio.gather(*(one() for _ in range(count)))
        yield [connection for connection in found if connection is not None]


@pytest.mark.parametrize(
    ("count", "megabytes"), [(30, 6), pytest.param(60, 12, marks=pytest.mark.abuse_long)], ids=["short", "long"]
)
async def test_unread_states(redis: Redis, redis_url: str, count: int, megabytes: int) -> None:
    """They hold a bounded number of bytes, are cut off after the write timeout, and other requests are answered."""
    eve = Author(redis, user="eve")
    await large_state(eve, megabytes)
    cut_seconds = cut_after()
    with edge(redis_url, write_timeout_seconds=cut_seconds, max_buffered_bytes_per_user=24 * MB) as each:
        before = each.rss_bytes()
        async with bystander(redis, each) as bob, unread(each, f"{BASE}/ex_1", eve.token, count) as connections:
            statuses = Counter(connection.status for connection in connections)
            assert statuses.keys() <= {200, 429}
            assert statuses[200] <= 24 // megabytes + 2 * count // 10 + 2
            assert each.rss_bytes() - before < (200 + 15 * megabytes) * MB
            assert (await call(each.port, "GET", BASE, token_for("bob"))).status == 200
            async with asyncio.timeout(under_load(20)):
                while not each.logged("answer_cut"):
                    await asyncio.sleep(0.1)
        bob.assert_unharmed()
        assert {line["reason"] for line in each.logged("answer_cut")} == {"slow"}


@pytest.mark.parametrize("count", [100, pytest.param(300, marks=pytest.mark.abuse_long)])
async def test_unread_exports(redis: Redis, redis_url: str, count: int) -> None:
    """They are streams in all that is counted, and each holds a buffer."""
    eve = Author(redis, user="eve")
    await large_state(eve, 6)
    limits = {"max_connections": 50, "max_connections_per_user": 20, "write_timeout_seconds": cut_after()}
    with edge(redis_url, **limits) as each:
        before = each.rss_bytes()
        path = f"{BASE}/ex_1/events"
        async with bystander(redis, each) as bob, unread(each, path, eve.token, count, EXPORT) as connections:
            assert Counter(connection.status for connection in connections)[200] <= 40
            assert each.rss_bytes() - before < 120 * MB
            async with request(each.port, "GET", Author(redis, "bob").path, token_for("bob"), headers=SSE) as more:
                assert more.status == 200
            async with asyncio.timeout(under_load(20)):
                while not each.logged("answer_cut"):
                    await asyncio.sleep(0.1)
        bob.assert_unharmed()


def cut_after() -> float:
    """After how many seconds an edge cuts who takes nothing. A busy machine takes longer to ask for all: the first must
    not be cut before the last have asked, or these would get their places."""
    return min(under_load(CUT_SECONDS), CUT_SECONDS_MAX)


def many_keys(lines: int, keys: int) -> bytes:
    line = json.dumps({"type": "custom:x", "data": {f"k{number}_1": 1 for number in range(keys)}}).encode()
    return b"\n".join([line] * lines)


@pytest.mark.parametrize("lines", [300, pytest.param(1000, marks=pytest.mark.abuse_long)])
async def test_floods_of_publishing(redis: Redis, redis_url: str, lines: int) -> None:
    """Eight large requests at once, of keys and of text that redaction looks at closely: bob's events go on."""
    eve = Author(redis, user="eve")
    await eve.begin()
    token = token_for("eve", scopes={"events:publish"})
    urls = b"\n".join([b'{"type":"custom:x","data":{"a":"' + b"://a:" * 1300 + b'"}}'] * lines)
    with edge(redis_url) as each:
        before = each.rss_bytes()
        async with bystander(redis, each) as bob:

            async def publish(body: bytes) -> int:
                path = f"{BASE}/ex_1/events"
                async with request(each.port, "POST", path, token, headers=NDJSON, body=body, seconds=50) as answer:
                    return answer.status

            found = await asyncio.gather(*(publish(body) for body in [many_keys(lines, 500), urls] * 4))
        bob.assert_unharmed()
        assert 202 in found
        assert set(found) <= {202, 429}
        assert each.rss_bytes() - before < 150 * MB


async def test_many_bodies_at_once(redis: Redis, redis_url: str) -> None:
    """Sixty bodies that each take long to decode, and are complete in the same moment, again and again."""
    eve = Author(redis, user="eve")
    await eve.begin()
    value = b'{"inputId":"i","value":[' + b",".join([b"{}"] * 80_000) + b"]}"
    event = b'{"type":"custom:x","data":{"a":[' + b",".join([b"{}"] * 20_000) + b"]}}"
    token = token_for("eve", scopes={"events:publish", "executions:write"})
    with edge(redis_url, answers_per_minute=0) as each:
        async with bystander(redis, each) as bob:

            async def send(path: str, body: bytes) -> int:
                path = f"{BASE}/ex_1/{path}"
                async with request(each.port, "POST", path, token, body=body, seconds=50) as answer:
                    return answer.status

            asked = [send("input", value) for _ in range(60)] + [send("events", event) for _ in range(60)]
            assert set(await asyncio.gather(*asked)) <= {404, 413, 422, 429, 202}
        bob.assert_unharmed()


async def test_slow_forms(redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers forms that take for ever to check takes nobody else's turn. A checker that sleeps stands in."""
    checker = tmp_path / "checker.py"
    checker.write_text("import sys, time; time.sleep(60 * ('slow' in sys.stdin.read())); print('{}')")
    command = (sys.executable, "-P", str(checker))
    monkeypatch.setattr(inputs, "Forms", functools.partial(Forms, command, check_seconds=30.0))
    question = InputRequired(input_id="i", prompt="?", kind="form", schema={"type": "object"})
    addresses: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "admin_host": "127.0.0.1", "admin_port": 0}
    async with Edge(Settings(redis_url=redis_url, jwt_secret=SECRET, drain_seconds=0, **addresses)) as here:
        for user in ("eve", "carol"):
            author = Author(redis, user=user)
            await author.begin()
            await author.write(question)

        async def give(user: str, value: Any) -> int:
            body = {"inputId": "i", "value": value}
            return (await call(here.port, "POST", f"{BASE}/ex_1/input", token_for(user), body)).status

        async with bystander(redis, here) as bob:
            slow = [asyncio.create_task(give("eve", {"slow": True})) for _ in range(20)]
            await asyncio.sleep(0.5)
            assert await give("carol", {"name": "Carol"}) == 202
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
        bob.assert_unharmed()


@pytest.mark.parametrize(("signals", "seconds"), [(1, 15.0), (2, 15.0)])
async def test_an_export_that_nobody_reads_holds_up_no_edge_that_stops(
    redis: Redis, redis_url: str, signals: int, seconds: float
) -> None:
    """It has some seconds for its rest; after a second signal none."""
    eve = Author(redis, user="eve")
    await large_state(eve, 6)
    with edge(redis_url, drain_seconds=20 * (signals - 1)) as each:
        async with unread(each, f"{BASE}/ex_1/events", eve.token, 1, EXPORT) as connections:
            assert [connection.status for connection in connections] == [200]
            each.send_signal(signal.SIGTERM)
            if signals == 2:
                await eventually("it drains", lambda: bool(each.logged("edge_draining")))
                each.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(each.wait, under_load(seconds)) == 0
        assert [line["reason"] for line in each.logged("answer_cut")] == ["draining"]
