"""What a failover of a Cluster has left without a check is found: real failovers that lose acknowledged writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import RedisError

from emitter.events import ExecutionComplete, ExecutionStarted
from emitter.store import jobs, sweep
from emitter.store.append import LogLimits, append, prepare
from emitter.store.connection import GONE, connect
from emitter.store.jobs import Entry
from emitter.store.lifecycle import Lifecycle, Start
from emitter.store.reaper import Reaper
from emitter.wire.keys import DUE, HISTORIES, WEBHOOKS, Owner, jobs_key, member
from emitter.wire.redact import Redactor
from emitter.wire.webhooks import Webhook
from tests.clusters import SLOTS, cluster
from tests.edges import under_load

REDACT = Redactor()
SECONDS = 20.0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "LOOK_SECONDS", 0.2)


def primary_of(key: str) -> int:
    return key_slot(key.encode()) * 3 // SLOTS


def owner_at(primary: int) -> Owner:
    return next(owner for owner in map(Owner, map("u{}".format, range(99))) if primary_of(owner.feed) == primary)


class Keeper:
    """A reaper, and the client it has."""

    def __init__(self, url: str) -> None:
        self.redis: Any = connect(url)
        self.lifecycle = Lifecycle(self.redis, LogLimits(), REDACT)
        self._reaper = Reaper(self.redis, self.lifecycle, "w1", 2)

    async def until(self, what: str, holds: Callable[[], Any]) -> None:
        """Let it work until something holds. A node that was just promoted answers at the second try."""
        async with asyncio.timeout(under_load(SECONDS)):
            while True:
                try:
                    await self._reaper.step()
                    if await holds():
                        return
                except (RedisError, *GONE):
                    await asyncio.sleep(0.1)

    async def has_swept(self) -> bool:
        return bool(await self.redis.hlen(HISTORIES))


async def test_an_execution_that_lost_its_job() -> None:
    """It was accepted while the node of the jobs lost its last writes: it is offered again. Records that cannot be
    read, of a newer version and of another program, are left alone."""
    failing = primary_of(DUE)
    with cluster(replica_of=failing) as made:
        keeper = Keeper(made.url)
        async with keeper.redis as redis:
            for node in range(3):
                newer, odd = (owner_at(node).execution(name).record for name in ("ex_newer", "ex_odd"))
                await redis.hset(newer, mapping={"format": "99", "state": "running"})
                await redis.hset(odd, mapping={"state": "running", "hold": "soon"})
            await keeper.until("it has seen all nodes", keeper.has_swept)
            async with made.losing_writes():
                start = Start(task="t", agent="counter")
                assert await keeper.lifecycle.accept(owner_at((failing + 1) % 3), "ex_1", start)
                assert await redis.zcard(DUE) == 1
            await keeper.until("it is found", lambda: redis.xlen(jobs_key("counter")))


async def test_an_execution_whose_end_was_lost_and_a_lost_webhook() -> None:
    """The node of one user has an execution running again, after its worker and the jobs were done with it: it is
    taken over. The node of the webhooks, which is the same, has none of an execution that another user started: it is
    due again."""
    failing = primary_of(WEBHOOKS)
    owner, other = owner_at(failing), owner_at((failing + 1) % 3)
    with cluster(replica_of=failing) as made:
        keeper = Keeper(made.url)
        async with keeper.redis as redis:
            await keeper.until("it has seen all nodes", keeper.has_swept)
            await start(keeper, owner)
            await made.replica.has_all_of(made.failing)
            async with made.losing_writes():
                ended = prepare(ExecutionComplete(result=1, duration=1.0), "ex_1", redact=REDACT)
                await append(redis, owner, "ex_1", [ended], attempt=1)
                await jobs.end(redis, member(owner, "ex_1"))
                hooks = {"request": Webhook(url="http://127.0.0.1:9/hook")}
                hooked = Start(task="t", agent="counter", webhooks=hooks)
                assert await keeper.lifecycle.accept(other, "ex_2", hooked)
                assert await redis.zcard(WEBHOOKS) == 1

            async def are_found() -> bool:
                return await redis.hexists(owner.execution("ex_1").record, "lost") and await redis.zcard(WEBHOOKS)

            await keeper.until("both are found", are_found)


async def start(keeper: Keeper, owner: Owner) -> None:
    """An execution that a worker runs."""
    assert await keeper.lifecycle.accept(owner, "ex_1", Start(task="t", agent="counter"))
    ((id_, _),) = await keeper.redis.xrange(jobs_key("counter"))
    entry = Entry("counter", id_, owner, "ex_1")
    job: Any = await jobs.claim(keeper.redis, entry, "w2", 1000, 3)
    await jobs.ack(keeper.redis, entry, job)
    started = prepare(ExecutionStarted(task="t", started_at=1, attempt=1), "ex_1", redact=REDACT)
    await append(keeper.redis, owner, "ex_1", [started], attempt=1)
