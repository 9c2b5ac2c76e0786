"""Looks after every execution that is due: starts what was delayed, offers again what lost its job, takes over what
lost its worker, ends what no worker has the agent for any more, and cancels what nobody watches. So none stays
`queued` or `running` with nobody working on it.

It also ends what a process ran that is no worker and has fallen silent, and closes questions whose time is over.

Every worker runs one, and every edge while no worker lives; a lock in Redis lets one at a time do the work. Nothing
breaks if two do for a moment: each step is decided by the execution's record.

A lease that ended while Redis was away says nothing about its worker, which could not renew it, nor does one that ended
because the clock of Redis was put forward. So after either a reaper gives all workers one lease time before it takes
anything from them.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from emitter.errors import AppendRefused, InvalidEvent, RuncastError
from emitter.observer import Observer
from emitter.store import announcements, jobs, watch_leases
from emitter.store.connection import GONE
from emitter.store.lifecycle import Lifecycle
from emitter.wire.keys import DUE, EXPIRIES, REAPER, Owner, parse_member
from emitter.wire.record import ExecutionRecord, Field, Selection

log = structlog.get_logger("emitter.reaper")

TICK_SECONDS = 0.5
"""How often the one that has the lock looks, and how much later than planned a delayed start may be; a quarter of the
lease where that is shorter."""
LOCK_SECONDS = 3.0
BATCH = 100
EXPIRED_MS = 2_000
"""How long after its time a question may be closed by whoever asked it."""
GRACE_MS = int(jobs.CANCEL_GRACE_SECONDS * 1000)
FAILURES = 3
"""Executions that cannot be looked at, one after the other, before it is Redis that is away and not a part of it."""
HOLD_SCRIPT = """
local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {0, now} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, now}
"""
LET_GO_SCRIPT = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
# Who works on an execution.
_WORKING = Selection(
    Field.STATE, Field.OWNER, Field.AGENT, Field.CANCEL, Field.LEASE, Field.NOT_BEFORE, Field.CREATED_AT,
    Field.CANCEL_AT, Field.HOLD, Field.SEEN, Field.MS, Field.ATTEMPT,
)  # fmt: skip


class Reaper:
    """`step` again and again; then `let_go`. `lease_seconds` is the lease of the workers here."""

    def __init__(
        self,
        redis: Redis,
        lifecycle: Lifecycle,
        worker: str,
        lease_seconds: float,
        observer: Observer = Observer(),  # noqa: B008 - it keeps nothing
    ) -> None:
        self._redis: Any = redis
        self._observer = observer
        self._lifecycle = lifecycle
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._tick_seconds = min(TICK_SECONDS, lease_seconds / 4)
        self._lock_ms = int(min(LOCK_SECONDS, max(lease_seconds, 0.1)) * 1000)
        self._heard_at = self._steady_since = time.monotonic()
        self._clock_ms = 0

    async def step(self) -> None:
        """Look at what is due now, if nobody else does; then wait a tick. Raises redis errors."""
        more = False
        if await self._hold():
            more = await self._look_around()
            await self._close_expired(self._clock_ms)
            for owner, execution_id, name in await watch_leases.abandoned(self._redis, BATCH):
                await self._cancel_abandoned(owner, execution_id)
                await watch_leases.forget(self._redis, name)
        if not more:
            await asyncio.sleep(self._tick_seconds)

    async def _hold(self) -> bool:
        """Take or keep the lock."""
        held, clock = await self._redis.eval(HOLD_SCRIPT, 1, REAPER, self._worker, self._lock_ms)
        now, clock_ms, most = time.monotonic(), int(clock), self._lease_seconds / 2
        leapt = self._clock_ms and (clock_ms - self._clock_ms) / 1000 - (now - self._heard_at) > most
        if leapt or now - self._heard_at > most:
            self._steady_since = now
        self._heard_at, self._clock_ms = now, clock_ms
        return bool(held)

    def _patience_seconds(self) -> float:
        """How long every worker still has to renew its lease."""
        return max(0.0, self._steady_since + self._lease_seconds - time.monotonic())

    async def let_go(self) -> None:
        """Leave the lock to another worker at once."""
        await self._redis.eval(LET_GO_SCRIPT, 1, REAPER, self._worker)

    async def _look_around(self) -> bool:
        """One batch; whether there may be more."""
        now = self._clock_ms
        names: list[bytes] = await self._redis.zrange(DUE, 0, now, byscore=True, offset=0, num=BATCH)
        failures: int = 0
        last: Exception | None = None
        for name in names:
            try:
                await self._look(name, now)
                failures = 0
            except GONE as error:  # perhaps only the node of a cluster that this execution is on
                failures, last = failures + 1, error
                if failures == FAILURES:
                    raise
        if last is not None:
            raise last
        return len(names) == BATCH

    async def _look(self, raw: bytes, now: int) -> None:
        try:
            name = raw.decode()
            owner, execution_id = parse_member(name)
        except (InvalidEvent, UnicodeDecodeError):
            await self._redis.zrem(DUE, raw)
            return
        try:
            await self._look_after(owner, execution_id, name, now)
        except (ValueError, ResponseError, RuncastError) as error:
            # A record that somebody else has written in must not stand before all others.
            log.error("record_unreadable", execution=execution_id, error=str(error)[:200])
            await jobs.look_at(self._redis, {name: now + jobs.QUEUED_LOOK_MS})

    async def _look_after(self, owner: Owner, execution_id: str, name: str, now: int) -> None:
        found = await self._find(owner, execution_id)
        if not found.exists or found.has_ended:
            await jobs.end(self._redis, name, found.agent, planned_by=now)
        elif found.owner:
            await self._look_at_lease(owner, execution_id, name, found, now)
        elif found.state != "queued" or (found.hold_ms and not found.agent):
            await self._look_at_process(owner, execution_id, name, found, now)
        elif found.cancel is not None and await self._lifecycle.carry_out_cancel(owner, execution_id):
            await jobs.end(self._redis, name, found.agent, planned_by=now)
        elif found.not_before_ms > now:
            await jobs.look_at(self._redis, {name: found.not_before_ms})
        elif await self._is_forsaken(found, now):
            await self._lifecycle.give_up(owner, execution_id, found.agent)
        else:
            await self._offer(owner, execution_id, name, found.agent)

    async def _is_forsaken(self, found: ExecutionRecord, now: int) -> bool:
        """Whether it waits for an agent that no worker has had for a day, and has waited for as long."""
        waited = now - max(found.created_ms, found.not_before_ms)
        return waited > announcements.KNOWN_MS and not await announcements.is_known(self._redis, found.agent)

    async def _offer(self, owner: Owner, execution_id: str, name: str, agent: str) -> None:
        await jobs.enqueue(self._redis, owner, execution_id, agent)
        now = await self._find(owner, execution_id)
        if now.owner:  # claimed meanwhile: its lease is what counts
            await jobs.look_at(self._redis, {name: now.lease_ms})

    async def _look_at_lease(
        self, owner: Owner, execution_id: str, name: str, found: ExecutionRecord, now: int
    ) -> None:
        if found.lease_ms > now:
            await jobs.look_at(self._redis, {name: found.lease_ms})
        elif (seconds := self._patience_seconds()) > 0:
            await jobs.look_at(self._redis, {name: now + int(seconds * 1000)})
        elif (verdict := await self._lifecycle.lose(owner, execution_id)) == "kept":
            await jobs.look_at(self._redis, {name: now + 1000})
        else:
            self._observer.taken_over(verdict)

    async def _look_at_process(
        self, owner: Owner, execution_id: str, name: str, found: ExecutionRecord, now: int
    ) -> None:
        """Somebody runs it who is no worker: a script, or a client over HTTP."""
        if not found.hold_ms:
            await jobs.end(self._redis, name, found.agent, planned_by=now)
        elif found.cancel is not None and found.cancel_ms + GRACE_MS <= now:
            await self._lifecycle.finish_cancel(owner, execution_id, found.cancel)
            await jobs.end(self._redis, name, found.agent)
        elif (ends := self._ends(found, now)) > now:
            await jobs.look_at(self._redis, {name: ends})
        elif (seconds := self._patience_seconds()) > 0:
            await jobs.look_at(self._redis, {name: now + int(seconds * 1000)})
        elif await self._lifecycle.lose_producer(owner, execution_id, found.attempt):
            self._observer.taken_over("ended")
        else:
            await jobs.look_at(self._redis, {name: now + 1000})

    def _ends(self, found: ExecutionRecord, now: int) -> int:
        """When to look at what a process runs. One that says nothing but what it publishes, over HTTP, has nothing to
        say while a person is asked."""
        if found.cancel is not None:
            return found.cancel_ms + GRACE_MS
        if found.state == "waiting_input" and not found.lease_ms:
            return now + jobs.QUEUED_LOOK_MS
        return max(found.lease_ms, found.seen_ms, found.ms + found.hold_ms)

    async def _close_expired(self, now: int) -> None:
        """Close questions whose time is over. Whoever asked them does so first, if it is there."""
        names = await self._redis.zrange(EXPIRIES, 0, now - EXPIRED_MS, byscore=True, offset=0, num=BATCH)
        for raw in names:
            try:
                name, _, input_id = raw.decode().rpartition(" ")
                await self._lifecycle.expire(*parse_member(name), input_id)
            except (ValueError, ResponseError, RuncastError) as error:  # as in `_look`
                log.error("expiry_unreadable", member=raw[:300].decode("utf-8", "replace"), error=str(error)[:200])
            await self._redis.zrem(EXPIRIES, raw)

    async def _find(self, owner: Owner, execution_id: str) -> ExecutionRecord:
        return _WORKING.read(await self._redis.hmget(owner.execution(execution_id).record, *_WORKING.names))

    async def _cancel_abandoned(self, owner: Owner, execution_id: str) -> None:
        try:
            await self._lifecycle.cancel(owner, execution_id, reason="nobody is watching", by=watch_leases.NOBODY)
            log.info("abandoned_cancelled", execution=execution_id, user=owner.user, org=owner.org)
        except AppendRefused as refusal:  # it is gone, or has ended
            log.info("abandoned_gone", execution=execution_id, error=str(refusal))
