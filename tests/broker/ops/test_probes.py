"""Alive, ready, announced: the admin listener of a real edge, and a Redis that stops."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from broker.base.metrics import Metrics
from broker.base.settings import Settings
from broker.cli.doctor.findings import as_text
from broker.cli.doctor.redis import look_at_redis
from broker.cli.embedded import EmbeddedRedis
from broker.edge.edge import Edge
from broker.ops import probes as module
from broker.ops.probes import Loopback, measure_lag, new_edge_id
from emitter.store.connection import connect
from emitter.wire.ids import now_ms
from emitter.wire.keys import EDGES, edge_info_key
from tests.edges import SECRET, Answer, call, request, token_for, under_load


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats ten times as fast as they are."""
    for name in ("BEAT_SECONDS", "FRESH_SECONDS", "DEAF_SECONDS", "ANNOUNCE_SECONDS", "LAG_SECONDS"):
        monkeypatch.setattr(module, name, getattr(module, name) / 10)


@pytest.fixture
async def edge(own_redis: EmbeddedRedis) -> AsyncIterator[Edge]:
    settings = Settings(
        redis_url=own_redis.url,
        host="127.0.0.1",
        port=0,
        admin_host="127.0.0.1",
        admin_port=0,
        jwt_secret=SECRET,
        drain_seconds=0,
    )
    async with Edge(settings) as edge:
        yield edge


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 8) -> None:
    """Readiness tells nobody when it changes, so this one looks until it is so."""
    async with asyncio.timeout(under_load(seconds)):
        while not await condition():
            await asyncio.sleep(0.02)


async def admin(edge: Edge, path: str) -> Answer:
    return await call(edge.admin_port, "GET", path, None)


async def is_ready(edge: Edge) -> bool:
    return (await admin(edge, "/readyz")).status == 200


async def test_an_edge_is_ready_when_it_hears_itself(edge: Edge) -> None:
    """Soon after the start the edge is ready, and says what that is made of."""
    made_of = {"ready": True, "redis": True, "loopback": True, "accepting": True}
    async with asyncio.timeout(under_load(2)):
        while (await admin(edge, "/readyz"))[::2] != (200, made_of):
            await asyncio.sleep(0.02)
    assert (await admin(edge, "/healthz")).body == {"alive": True}


async def test_readiness_follows_redis(edge: Edge, own_redis: EmbeddedRedis) -> None:
    """When Redis stops answering the edge is soon not ready, though alive; when it goes on the edge is ready again."""
    assert own_redis.process is not None
    await until(lambda: is_ready(edge))
    own_redis.process.send_signal(signal.SIGSTOP)
    try:

        async def is_unready() -> bool:
            answer = await admin(edge, "/readyz")
            return answer.status == 503 and not answer.body["redis"] and not answer.body["loopback"]

        await until(is_unready)
        assert (await admin(edge, "/healthz")).status == 200
    finally:
        own_redis.process.send_signal(signal.SIGCONT)
    await until(lambda: is_ready(edge))


async def test_readiness_survives_a_restart_of_redis(edge: Edge, own_redis: EmbeddedRedis) -> None:
    """Redis may be replaced by an empty one: the edge is ready again by itself, and announced again."""
    await until(lambda: is_ready(edge))
    own_redis.stop()

    async def is_unready() -> bool:
        return not await is_ready(edge)

    await until(is_unready)
    own_redis.start()
    await until(lambda: is_ready(edge))
    client = connect(own_redis.url)
    assert await client.zscore(EDGES, edge.id) is not None
    await client.aclose()


async def emptied(edge: Edge) -> float:
    async with request(edge.admin_port, "GET", "/metrics") as response:
        text = (await response.body()).decode()
    [line] = [line for line in text.splitlines() if line.startswith("runcast_redis_emptied_total ")]
    return float(line.split()[1])


async def test_a_redis_that_came_back_empty_is_noticed(edge: Edge, own_redis: EmbeddedRedis) -> None:
    """A restart that lost the data is counted once, and the doctor says when; a Redis that was only away is not."""
    await until(lambda: is_ready(edge))
    assert own_redis.process is not None
    own_redis.process.send_signal(signal.SIGSTOP)

    async def is_unready() -> bool:
        return not await is_ready(edge)

    await until(is_unready)
    own_redis.process.send_signal(signal.SIGCONT)
    await until(lambda: is_ready(edge))
    assert await emptied(edge) == 0
    assert "came back empty" not in as_text(await look_at_redis(own_redis.url))
    own_redis.stop()
    own_redis.start()

    async def is_noticed() -> bool:
        return await emptied(edge) == 1

    await until(is_noticed)
    await asyncio.sleep(3 * module.BEAT_SECONDS)
    assert await emptied(edge) == 1
    [finding] = [each for each in await look_at_redis(own_redis.url) if each.what == "data"]
    assert finding.level == "problem"
    assert "came back empty" in finding.seen


async def refuse_writes(client: Any, how: str) -> None:
    match how:
        case "READONLY":
            await client.execute_command("REPLICAOF", "127.0.0.1", "1")
        case "NOREPLICAS":
            await client.config_set("min-replicas-to-write", 1)
        case "NOPERM":
            await client.execute_command("ACL", "SETUSER", "default", "-zadd")
        case "OOM":
            await client.config_set("maxmemory", 1)


@pytest.mark.parametrize("how", ["READONLY", "NOREPLICAS", "NOPERM"])
async def test_an_edge_whose_writes_are_refused_is_not_ready(edge: Edge, own_redis: EmbeddedRedis, how: str) -> None:
    """Redis answers, and messages come through, but nothing can be written."""
    await until(lambda: is_ready(edge))
    client = connect(own_redis.url)
    await refuse_writes(client, how)

    async def is_unready() -> bool:
        answer = await admin(edge, "/readyz")
        return answer.status == 503 and not answer.body["redis"] and answer.body["loopback"]

    await until(is_unready)
    await client.aclose()


async def test_an_edge_of_a_full_redis_is_ready(edge: Edge, own_redis: EmbeddedRedis) -> None:
    """What is there can be read and watched, and an alert tells of the memory: no load balancer is to turn all away."""
    await until(lambda: is_ready(edge))
    client = connect(own_redis.url)
    await refuse_writes(client, "OOM")
    with pytest.raises(OutOfMemoryError):
        await client.set("key", "value")
    for _ in range(10):
        await asyncio.sleep(module.BEAT_SECONDS)
        assert await is_ready(edge)
    await client.aclose()


async def test_a_draining_edge_is_not_ready(edge: Edge) -> None:
    """Once it drains, an edge is not ready though everything works, so that nobody new is sent to it."""
    await until(lambda: is_ready(edge))
    await edge.streams.drain(0)

    async def is_draining() -> bool:
        answer = await admin(edge, "/readyz")
        assert (answer.status, answer.body["accepting"]) == (503, False)
        return bool(answer.body["redis"])

    await until(is_draining)


# RFC 8037, appendix A.2.
PUBLISHED = {"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


async def test_an_edge_that_knows_no_key_is_not_ready(own_redis: EmbeddedRedis) -> None:
    """Where published keys could not be fetched yet, nobody can be let in, and nobody is to be sent here; a rollout
    waits. What /readyz says is a metric too."""
    published = asyncio.Event()

    async def keys(_: web.Request) -> web.Response:
        if not published.is_set():
            raise web.HTTPServiceUnavailable
        return web.json_response({"keys": [PUBLISHED]})

    app = web.Application()
    app.router.add_get("/keys", keys)
    async with TestServer(app) as provider:
        url = str(provider.make_url("/keys"))
        settings = Settings(redis_url=own_redis.url, port=0, admin_port=0, jwks_url=url, drain_seconds=0)
        async with Edge(settings) as edge:

            async def is_without_keys() -> bool:
                body = (await admin(edge, "/readyz")).body
                return body == {"ready": False, "redis": True, "loopback": True, "keys": False, "accepting": True}

            await until(is_without_keys)
            assert await ready_metric(edge) == 0
            published.set()
            await until(lambda: is_ready(edge))

            async def is_told() -> bool:
                return await ready_metric(edge) == 1

            await until(is_told)


async def ready_metric(edge: Edge) -> float:
    async with request(edge.admin_port, "GET", "/metrics") as response:
        text = (await response.body()).decode()
    [line] = [line for line in text.splitlines() if line.startswith("runcast_ready ")]
    return float(line.split()[1])


async def test_the_admin_pages_are_on_their_own_listener(edge: Edge) -> None:
    """Metrics and probes are not on the public port, and the public interface is not on the admin port."""
    for path in ("/metrics", "/healthz", "/readyz"):
        assert (await call(edge.port, "GET", path, token_for("alice"))).status == 404
    async with request(edge.admin_port, "GET", "/api/agent/executions", token_for("alice")) as response:
        assert response.status == 404
    async with request(edge.admin_port, "GET", "/metrics") as response:
        assert response.headers["content-type"].startswith("text/plain; version=")
        assert b"runcast_" in await response.body()


# --- the heartbeat ---------------------------------------------------------------------------------------------------


class Deaf:
    """A subscription on which nothing ever comes back."""

    def __init__(self) -> None:
        self.reconnects = asyncio.Queue[float]()

    def reconnect(self) -> None:
        self.reconnects.put_nowait(time.monotonic())


async def test_a_deaf_subscription_is_made_anew(redis: Redis) -> None:
    """When Redis answers but the edge's own message does not come back, the subscription is given up, and again when
    that did not help, with time for it to work between."""
    deaf: Any = Deaf()
    loopback = Loopback("e1", redis, lambda: deaf, dict)
    beating = asyncio.create_task(loopback.run())
    async with asyncio.timeout(5):
        first = await deaf.reconnects.get()
        second = await deaf.reconnects.get()
    assert second - first >= (module.DEAF_SECONDS - module.FRESH_SECONDS) * 0.9
    assert loopback.ready() == {"redis": True, "loopback": False}
    loopback.hear()
    assert loopback.ready() == {"redis": True, "loopback": True}
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)


async def test_an_edge_announces_itself_and_leaves(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A live edge is in Redis with a time at which that ends; one that leaves takes itself out."""
    monkeypatch.setattr(module, "ANNOUNCE_SECONDS", 10.0)  # it must not end while it is looked at
    loopback = Loopback("e1", redis, lambda: None, lambda: {"viewers": 3})  # type: ignore[arg-type, return-value]
    beating = asyncio.create_task(loopback.run())

    async def announced() -> bool:
        return await redis.zscore(EDGES, "e1") is not None

    await until(announced)
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    left_ms = await redis.zscore(EDGES, "e1") - now_ms()
    assert 0 < left_ms <= module.ANNOUNCE_SECONDS * 1000
    stored: Any = await redis.get(edge_info_key("e1"))
    assert json.loads(stored) == {"viewers": 3}
    await loopback.leave()
    assert (await redis.zcard(EDGES), await redis.exists(edge_info_key("e1"))) == (0, 0)


async def test_leaving_takes_no_longer_than_it_may(own_redis: EmbeddedRedis) -> None:
    """With Redis away, or frozen, an edge that stops does not wait for it."""
    assert own_redis.process is not None
    client = connect(own_redis.url)
    loopback = Loopback("e1", client, lambda: None, dict)  # type: ignore[arg-type, return-value]
    own_redis.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    await loopback.leave()
    own_redis.process.send_signal(signal.SIGCONT)
    own_redis.stop()
    await loopback.leave()
    assert time.monotonic() - began < under_load(3)
    await client.aclose()


async def test_a_loop_that_is_late_is_measured() -> None:
    """When something holds the loop, the lag is observed."""
    metrics = Metrics("0")
    measuring = asyncio.create_task(measure_lag(metrics))
    await asyncio.sleep(0)
    time.sleep(module.LAG_SECONDS + 0.1)  # what must never happen
    async with asyncio.timeout(under_load(2)):
        while not metrics.event_loop_lag._sum.get():
            await asyncio.sleep(0.01)
    assert metrics.event_loop_lag._sum.get() >= 0.09
    measuring.cancel()
    await asyncio.gather(measuring, return_exceptions=True)


def test_edge_ids_are_unique_and_fit_a_key() -> None:
    """No two ids are alike, and none needs escaping."""
    ids = {new_edge_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(id_.replace("-", "").replace("_", "").isalnum() and id_.isascii() for id_ in ids)
