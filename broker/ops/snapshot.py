"""Builds the operations snapshot: announced edges and workers, the queues of agents, and the health of Redis."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from broker.ops import redis_info
from broker.ops.types import EdgeInfo, OpsAgent, OpsRedis, OpsSnapshot, OpsTotals, OpsWorker
from emitter.store import announcements
from emitter.store.announcements import WorkerInfo
from emitter.store.connection import GONE
from emitter.wire import keys
from emitter.wire.ids import now_ms

REDIS_SECONDS = 3.0
"""Time limit of all calls to Redis for one snapshot."""
MAX_EDGES = 200
MAX_WORKERS = 500
MAX_AGENTS = 200


class OpsSnapshotBuilder:
    """`await collect()` gives a snapshot within about `REDIS_SECONDS`, even without Redis."""

    def __init__(self, redis: Redis, describe: Callable[[], EdgeInfo]) -> None:
        self._redis = redis
        self._describe = describe
        self._last = OpsSnapshot(ts=0, redis=OpsRedis(up=False))

    async def collect(self) -> OpsSnapshot:
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                self._last = await self._read()
        except (RedisError, *GONE) as error:
            self._last = self._without_redis(error)
        return self._last

    def _without_redis(self, error: Exception) -> OpsSnapshot:
        """The other edges as they were known before, and this edge as it is now."""
        me = self._describe()
        others = [edge for edge in self._last.edges if edge.id != me.id]
        edges = with_me(others, me)
        away = OpsRedis(up=False, error=type(error).__name__)
        totals = totals_of(edges, self._last.workers, self._last.totals.queued)
        return msgspec.structs.replace(self._last, ts=_now_ms(), edges=edges, totals=totals, redis=away)

    async def _read(self) -> OpsSnapshot:
        health = await self._health()
        edges = with_me(await self._edges(), self._describe())
        live = await announcements.live_workers(self._redis)
        agents, queued = await self._queues(live)
        shown = [worker_of(info) for info in live[:MAX_WORKERS]]
        now = _now_ms()
        return OpsSnapshot(
            ts=now,
            as_of=now,
            edges=edges,
            workers=sorted(shown, key=lambda worker: worker.id),
            agents=agents,
            totals=totals_of(edges, shown, queued),
            redis=health,
        )

    async def _health(self) -> OpsRedis:
        try:
            return await redis_info.read(self._redis)
        except ResponseError as error:  # a Redis user without INFO can still read the announcements
            return OpsRedis(up=True, error=type(error).__name__)

    async def _edges(self) -> list[EdgeInfo]:
        """The edges with a current announcement."""
        redis: Any = self._redis
        ids = await redis.zrangebyscore(keys.EDGES, now_ms(), "+inf", start=0, num=MAX_EDGES)
        # One GET each: in a cluster the keys are on different nodes.
        pipe = redis.pipeline(transaction=False)
        for id_ in ids:
            pipe.get(keys.edge_info_key(id_.decode()))
        stored = await pipe.execute() if ids else []
        return [info for text in stored if text is not None and (info := edge_of(text)) is not None]

    async def _queues(self, live: Sequence[WorkerInfo]) -> tuple[list[OpsAgent], int]:
        """The queue of every known agent, and how many executions wait for a worker in total."""
        redis: Any = self._redis
        counts = Counter(agent.name for worker in live for agent in worker.agents)
        names = sorted(await announcements.known_agents(self._redis) | set(counts))[:MAX_AGENTS]
        pipe = redis.pipeline(transaction=False)
        pipe.hlen(keys.QUEUED)
        for name in names:
            pipe.xlen(keys.jobs_key(name))
            pipe.xrange(keys.jobs_key(name), count=1)
        queued, *found = await pipe.execute()
        now = _now_ms()
        agents = [
            OpsAgent(name=name, workers=counts[name], queued=length, oldest_ms=waiting_ms(first, now))
            for name, length, first in zip(names, found[::2], found[1::2], strict=True)
        ]
        return agents, queued


def _now_ms() -> int:
    return int(time.time() * 1000)


def waiting_ms(first: list[Any], now: int) -> int | None:
    """Age of the first entry of a stream."""
    return max(0, now - int(first[0][0].partition(b"-")[0])) if first else None


def with_me(edges: Sequence[EdgeInfo], me: EdgeInfo) -> list[EdgeInfo]:
    """All edges by id, with this one as it is now instead of its announcement."""
    others = [edge for edge in edges if edge.id != me.id]
    return sorted([*others, msgspec.structs.replace(me, is_self=True)], key=lambda edge: edge.id)


def edge_of(text: bytes) -> EdgeInfo | None:
    try:
        return msgspec.json.decode(text, type=EdgeInfo)
    except msgspec.MsgspecError:
        return None  # an edge of another version must not hide the others


def worker_of(info: WorkerInfo) -> OpsWorker:
    return OpsWorker(
        id=info.id,
        host=info.host,
        pid=info.pid,
        agents=[agent.name for agent in info.agents],
        running=info.running,
        concurrency=info.concurrency,
        waiting=info.waiting,
        loop_lag_ms=info.loop_lag_ms,
        rss_bytes=info.rss_bytes,
        started_at=info.started_at,
    )


def totals_of(edges: Sequence[EdgeInfo], live: Sequence[OpsWorker], queued: int) -> OpsTotals:
    return OpsTotals(
        viewers=sum(edge.viewers for edge in edges),
        events_per_second=round(sum(edge.events_per_second for edge in edges), 1),
        deliveries_per_second=round(sum(edge.deliveries_per_second for edge in edges), 1),
        running=sum(worker.running for worker in live),
        concurrency=sum(worker.concurrency for worker in live),
        queued=queued,
    )
