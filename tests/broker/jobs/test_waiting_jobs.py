"""Edges report what waits for the agents of workers over HTTP, while such a worker lives."""

from __future__ import annotations

from prometheus_client import generate_latest
from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.jobs.waiting import WaitingJobs
from emitter.store import announcements, jobs
from emitter.store.announcements import AgentInfo, WorkerInfo
from emitter.wire.keys import Owner


def worker(name: str, agent: str, *, over_http: bool) -> WorkerInfo:
    agents = (AgentInfo(name=agent),)
    return WorkerInfo(id=name, host="h", pid=0, concurrency=1, running=0, agents=agents, over_http=over_http)


async def test_what_waits(redis: Redis) -> None:
    metrics = Metrics()
    waiting = WaitingJobs(redis, metrics)
    await announcements.announce(redis, worker("w1", "far", over_http=True))
    await announcements.announce(redis, worker("w2", "near", over_http=False))
    for agent in ("far", "near"):
        await jobs.enqueue(redis, Owner("alice"), f"ex_{agent}", agent)
    await waiting.look()
    found = [line for line in generate_latest(metrics.registry).decode().splitlines() if "jobs_waiting" in line]
    assert found[2:] == ['runcast_jobs_waiting{agent="far"} 1.0']
    await announcements.retire(redis, "w1")
    await waiting.look()
    assert b'agent="far"' not in generate_latest(metrics.registry)
