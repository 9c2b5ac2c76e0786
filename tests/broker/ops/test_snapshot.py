"""One snapshot of everything, whatever Redis does."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from broker.ops import snapshot as module
from broker.ops.snapshot import OpsSnapshotBuilder
from broker.ops.types import EdgeInfo, Latency
from emitter.store import announcements, jobs
from emitter.store.announcements import AgentInfo, WorkerInfo
from emitter.store.connection import connect
from emitter.wire import ids, keys
from emitter.wire.keys import Owner

LATENCY = Latency(p50=1.0, p99=9.0)


def me() -> EdgeInfo:
    return EdgeInfo(id="me", viewers=3, events_per_second=1.5, deliveries_per_second=4.5)


async def announce(redis: Redis, info: EdgeInfo | bytes, id_: str = "", *, for_ms: int = 10_000) -> None:
    """As an edge does; `info` may be what no edge of this version would say."""
    id_ = id_ or (info.id if isinstance(info, EdgeInfo) else "")
    client: Any = redis
    await client.zadd(keys.EDGES, {id_: ids.now_ms() + for_ms})
    await client.set(keys.edge_info_key(id_), info if isinstance(info, bytes) else msgspec.json.encode(info))


def worker(id_: str, *agents: str, running: int = 1) -> WorkerInfo:
    infos = tuple(AgentInfo(name=name) for name in agents)
    return WorkerInfo(id=id_, host="h", pid=7, concurrency=10, running=running, agents=infos, loop_lag_ms=0.5)


async def test_edges_see_each_other(redis: Redis) -> None:
    """Every announced edge is there once, this one as it is now and marked; the totals add up."""
    await announce(redis, EdgeInfo(id="other", viewers=2, events_per_second=2.0, latency_ms=LATENCY, version="9"))
    await announce(redis, EdgeInfo(id="me", viewers=99))
    snapshot = await OpsSnapshotBuilder(redis, me).collect()
    assert [(edge.id, edge.viewers, edge.is_self) for edge in snapshot.edges] == [("me", 3, True), ("other", 2, False)]
    assert (snapshot.edges[1].latency_ms, snapshot.edges[1].version) == (LATENCY, "9")
    totals = snapshot.totals
    assert (totals.viewers, totals.events_per_second, totals.deliveries_per_second) == (5, 3.5, 4.5)
    assert snapshot.as_of == snapshot.ts
    assert abs(snapshot.ts - time.time() * 1000) < 5000


async def test_the_dead_and_the_strange_are_left_out(redis: Redis) -> None:
    """An edge whose announcement is over, or cannot be read, is not there; one of another version is."""
    await announce(redis, EdgeInfo(id="dead"), for_ms=-1)
    await announce(redis, b"{not json", "broken")
    await announce(redis, b'{"id":"old","viewers":4,"soon":{}}', "old")
    await redis.zadd(keys.EDGES, {"silent": ids.now_ms() + 10_000})
    snapshot = await OpsSnapshotBuilder(redis, me).collect()
    assert [(edge.id, edge.viewers) for edge in snapshot.edges] == [("me", 3), ("old", 4)]


async def test_workers_and_their_agents(redis: Redis) -> None:
    """Live workers are there with what they do; agents with who works for them."""
    await announcements.announce(redis, worker("w2", "poet"))
    await announcements.announce(redis, worker("w1", "poet", "clerk", running=4))
    snapshot = await OpsSnapshotBuilder(redis, me).collect()
    assert [(each.id, each.agents, each.running) for each in snapshot.workers] == [
        ("w1", ["poet", "clerk"], 4),
        ("w2", ["poet"], 1),
    ]
    assert snapshot.workers[0].loop_lag_ms == 0.5
    assert [(each.name, each.workers, each.queued) for each in snapshot.agents] == [("clerk", 1, 0), ("poet", 2, 0)]
    assert (snapshot.totals.running, snapshot.totals.concurrency, snapshot.totals.queued) == (5, 20, 0)


async def test_the_backlog(redis: Redis) -> None:
    """What waits for an agent is counted, and how long the first has waited, also when no worker is left."""
    await announcements.announce(redis, worker("w1", "poet", "clerk"))
    await announcements.retire(redis, "w1")
    for number in range(3):
        await jobs.enqueue(redis, Owner("alice"), f"ex_{number}", "poet")
    await asyncio.sleep(0.02)
    snapshot = await OpsSnapshotBuilder(redis, me).collect()
    clerk, poet = snapshot.agents
    assert (poet.name, poet.workers, poet.queued) == ("poet", 0, 3)
    assert poet.oldest_ms is not None
    assert 15 <= poet.oldest_ms < 10_000
    assert (clerk.queued, clerk.oldest_ms) == (0, None)
    assert (snapshot.workers, snapshot.totals.queued) == ([], 3)


async def test_all_of_it_is_bounded(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many edges, workers and agents there are, so many are shown."""
    for name, most in (("MAX_EDGES", 2), ("MAX_WORKERS", 2), ("MAX_AGENTS", 2)):
        monkeypatch.setattr(module, name, most)
    for number in range(4):
        await announce(redis, EdgeInfo(id=f"e{number}"))
        await announcements.announce(redis, worker(f"w{number}", f"agent-{number}"))
    snapshot = await OpsSnapshotBuilder(redis, me).collect()
    assert (len(snapshot.edges), len(snapshot.workers), len(snapshot.agents)) == (3, 2, 2)


@pytest.fixture
async def own_client(own_redis: EmbeddedRedis) -> AsyncIterator[Redis]:
    client = connect(own_redis.url)
    yield client
    await client.aclose()


async def test_a_frozen_redis_shows(
    own_redis: EmbeddedRedis, own_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis does not answer the snapshot says so in bounded time, with the others as they were last seen, since
    when, and this edge as it is; when Redis is back, so is the rest."""
    viewers = iter(range(100))
    collector = OpsSnapshotBuilder(own_client, lambda: EdgeInfo(id="me", viewers=next(viewers)))
    await announce(own_client, EdgeInfo(id="other", viewers=2))
    await announcements.announce(own_client, worker("w1", "poet"))
    before = await collector.collect()
    assert own_redis.process is not None
    own_redis.process.send_signal(signal.SIGSTOP)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(module, "REDIS_SECONDS", 0.3)
            async with asyncio.timeout(5):
                away = await collector.collect()
    finally:
        own_redis.process.send_signal(signal.SIGCONT)
    assert (away.redis.up, away.redis.error, away.redis.nodes) == (False, "TimeoutError", [])
    assert away.as_of == before.ts
    assert away.ts > before.ts
    assert [(edge.id, edge.viewers) for edge in away.edges] == [("me", 1), ("other", 2)]
    assert [each.id for each in away.workers] == ["w1"]
    assert away.totals.viewers == 3
    back = await collector.collect()
    assert (back.redis.up, back.as_of) == (True, back.ts)


async def test_a_redis_that_is_gone_from_the_start(own_redis: EmbeddedRedis, own_client: Redis) -> None:
    """Without anything ever read, there is this edge, and what is wrong."""
    own_redis.stop()
    snapshot = await OpsSnapshotBuilder(own_client, me).collect()
    assert not snapshot.redis.up
    assert snapshot.redis.error == "ConnectionError"
    assert ([edge.id for edge in snapshot.edges], snapshot.as_of) == (["me"], None)


async def test_a_user_who_may_not_ask_for_info(own_client: Redis) -> None:
    """Without the right to INFO nothing is known of Redis itself, but of the others everything."""
    await announce(own_client, EdgeInfo(id="other"))
    await own_client.execute_command("ACL", "SETUSER", "default", "-info")
    snapshot = await OpsSnapshotBuilder(own_client, me).collect()
    assert (snapshot.redis.up, snapshot.redis.error) == (True, "NoPermissionError")
    assert [edge.id for edge in snapshot.edges] == ["me", "other"]
