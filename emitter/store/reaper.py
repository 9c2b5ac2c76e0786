"""Checks every execution that is due, so that none stays `queued` or `running` with nobody working on it.

- A delayed execution is started, and one that lost its job is offered again.
- An execution whose worker was lost is taken over; one whose agent no worker has for a day is ended.
- An execution without a worker whose lease has ended is ended.
- An execution that nobody watches is cancelled, if it was started that way; so is one that waits for a worker and whose
  parent has ended.
- Expired inputs are closed.

Every worker runs a reaper, and every edge while no worker lives. A lock in Redis lets one at a time do the work. Two at
a time do no harm, because the execution's record decides each step.

A lease that ended while Redis was away, or because its clock was set forward, does not prove that the worker is lost.
So in both cases the reaper gives all workers one lease time before it takes over anything.
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
"""How often the holder of the lock checks, and so how late a delayed start may be; a quarter of the lease if that is
shorter."""
LOCK_SECONDS = 3.0
BATCH = 100
EXPIRED_MS = 2_000
"""How long after its expiry an input is left to its agent to close."""
GRACE_MS = int(jobs.CANCEL_GRACE_SECONDS * 1000)
FAILURES = 3
"""After so many failures in a row the whole Redis counts as away, not only a node of a cluster."""
ACQUIRE_SCRIPT = """
local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {0, now} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, now}
"""
RELEASE_SCRIPT = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
# Who runs an execution, and since when.
_WORKING = Selection(
    Field.STATE, Field.OWNER, Field.AGENT, Field.CANCEL, Field.LEASE, Field.NOT_BEFORE, Field.CREATED_AT,
    Field.CANCEL_AT, Field.HOLD, Field.SEEN, Field.MS, Field.ATTEMPT, Field.PARENT, Field.ON_PARENT_END,
)  # fmt: skip


class Reaper:
    """Call `step` repeatedly, then `release_lock`. `lease_seconds` is the lease of the workers here."""

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
        self._answered_at = self._steady_since = time.monotonic()
        self._clock_ms = 0

    async def step(self) -> None:
        """If this reaper gets the lock, check what is due; then wait a tick. Raises redis errors."""
        more = False
        if await self._acquire_lock():
            more = await self._check_batch()
            await self._close_expired(self._clock_ms)
            for owner, execution_id, name in await watch_leases.abandoned(self._redis, BATCH):
                await self._cancel_abandoned(owner, execution_id)
                await watch_leases.forget(self._redis, name)
        if not more:
            await asyncio.sleep(self._tick_seconds)

    async def _acquire_lock(self) -> bool:
        """Take or keep the lock; false if another reaper has it."""
        held, clock = await self._redis.eval(ACQUIRE_SCRIPT, 1, REAPER, self._worker, self._lock_ms)
        now, clock_ms, most = time.monotonic(), int(clock), self._lease_seconds / 2
        leapt = self._clock_ms and (clock_ms - self._clock_ms) / 1000 - (now - self._answered_at) > most
        if leapt or now - self._answered_at > most:
            self._steady_since = now
        self._answered_at, self._clock_ms = now, clock_ms
        return bool(held)

    def _patience_seconds(self) -> float:
        """How long workers still have to renew their leases after an outage."""
        return max(0.0, self._steady_since + self._lease_seconds - time.monotonic())

    async def release_lock(self) -> None:
        """Let another reaper take the lock at once."""
        await self._redis.eval(RELEASE_SCRIPT, 1, REAPER, self._worker)

    async def _check_batch(self) -> bool:
        """Check one batch of due executions; whether there may be more."""
        now = self._clock_ms
        names: list[bytes] = await self._redis.zrange(DUE, 0, now, byscore=True, offset=0, num=BATCH)
        failures: int = 0
        last: Exception | None = None
        for name in names:
            try:
                await self._check(name, now)
                failures = 0
            except GONE as error:  # perhaps only one node of a cluster is away
                failures, last = failures + 1, error
                if failures == FAILURES:
                    raise
        if last is not None:
            raise last
        return len(names) == BATCH

    async def _check(self, raw: bytes, now: int) -> None:
        try:
            name = raw.decode()
            owner, execution_id = parse_member(name)
        except (InvalidEvent, UnicodeDecodeError):
            await self._redis.zrem(DUE, raw)
            return
        try:
            await self._resolve(owner, execution_id, name, now)
        except (ValueError, ResponseError, RuncastError) as error:
            # A record that a foreign program has changed must not block the others.
            log.error("record_unreadable", execution=execution_id, error=str(error)[:200])
            await jobs.schedule_checks(self._redis, {name: now + jobs.QUEUED_CHECK_MS})

    async def _resolve(self, owner: Owner, execution_id: str, name: str, now: int) -> None:
        found = await self._find(owner, execution_id)
        if not found.exists or found.has_ended:
            await self._lifecycle.settle(owner, execution_id)  # the process that ended it may have been killed
            await jobs.end(self._redis, name, found.agent, planned_by=now)
        elif found.cancel is None and await self._lifecycle.children.is_orphan(owner, found):
            await self._lifecycle.cancel_orphan(owner, execution_id)  # the next check finds its end, or the request
        elif found.owner:
            await self._check_lease(owner, execution_id, name, found, now)
        elif found.state != "queued" or (found.hold_ms and not found.agent):
            await self._check_process(owner, execution_id, name, found, now)
        elif found.cancel is not None and await self._lifecycle.apply_pending_cancel(owner, execution_id):
            await jobs.end(self._redis, name, found.agent, planned_by=now)
        elif found.not_before_ms > now:
            await jobs.schedule_checks(self._redis, {name: found.not_before_ms})
        elif await self._has_no_worker(found, now):
            await self._lifecycle.give_up(owner, execution_id, found.agent)
        else:
            await self._offer(owner, execution_id, name, found.agent)

    async def _has_no_worker(self, found: ExecutionRecord, now: int) -> bool:
        """Whether it has waited for a day, and no worker has had its agent for a day."""
        waited = now - max(found.created_ms, found.not_before_ms)
        return waited > announcements.KNOWN_MS and not await announcements.is_known(self._redis, found.agent)

    async def _offer(self, owner: Owner, execution_id: str, name: str, agent: str) -> None:
        await jobs.enqueue(self._redis, owner, execution_id, agent)
        now = await self._find(owner, execution_id)
        if now.owner:  # claimed meanwhile: the next check is at the end of its lease
            await jobs.schedule_checks(self._redis, {name: now.lease_ms})

    async def _check_lease(self, owner: Owner, execution_id: str, name: str, found: ExecutionRecord, now: int) -> None:
        if found.lease_ms > now:
            await jobs.schedule_checks(self._redis, {name: found.lease_ms})
        elif (seconds := self._patience_seconds()) > 0:
            await jobs.schedule_checks(self._redis, {name: now + int(seconds * 1000)})
        elif (verdict := await self._lifecycle.lose(owner, execution_id)) == "kept":
            await jobs.schedule_checks(self._redis, {name: now + 1000})
        else:
            self._observer.taken_over(verdict)

    async def _check_process(
        self, owner: Owner, execution_id: str, name: str, found: ExecutionRecord, now: int
    ) -> None:
        """An execution that a script or an HTTP client runs."""
        if not found.hold_ms:
            await jobs.end(self._redis, name, found.agent, planned_by=now)
        elif found.cancel is not None and found.cancel_ms + GRACE_MS <= now:
            await self._lifecycle.finish_cancel(owner, execution_id, found.cancel)
            await jobs.end(self._redis, name, found.agent)
        elif (ends := self._lease_end(found, now)) > now:
            await jobs.schedule_checks(self._redis, {name: ends})
        elif (seconds := self._patience_seconds()) > 0:
            await jobs.schedule_checks(self._redis, {name: now + int(seconds * 1000)})
        elif await self._lifecycle.lose_producer(owner, execution_id, found.attempt):
            self._observer.taken_over("ended")
        else:
            await jobs.schedule_checks(self._redis, {name: now + 1000})

    def _lease_end(self, found: ExecutionRecord, now: int) -> int:
        """When the lease of an execution without a worker ends. Not while an input is open, because an HTTP client then
        publishes nothing."""
        if found.cancel is not None:
            return found.cancel_ms + GRACE_MS
        if found.state == "waiting_input" and not found.lease_ms:
            return now + jobs.QUEUED_CHECK_MS
        return max(found.lease_ms, found.seen_ms, found.ms + found.hold_ms)

    async def _close_expired(self, now: int) -> None:
        """Close expired inputs that their agents have not closed."""
        names = await self._redis.zrange(EXPIRIES, 0, now - EXPIRED_MS, byscore=True, offset=0, num=BATCH)
        for raw in names:
            try:
                name, _, input_id = raw.decode().rpartition(" ")
                await self._lifecycle.expire(*parse_member(name), input_id)
            except (ValueError, ResponseError, RuncastError) as error:  # as in `_check`
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
