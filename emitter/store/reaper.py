"""Checks every execution that is due, so that none stays `queued` or `running` with nobody working on it.

- A delayed execution is started, and one that lost its job is offered again.
- An execution whose worker was lost is taken over; one whose agent no worker has for a day is ended.
- An execution without a worker whose lease has ended is ended.
- An execution that nobody watches is cancelled, if it was started that way; so is one that waits for a worker and whose
  parent has ended.
- Expired inputs are closed.
- After a failover of a Cluster, what has lost its check is found (`emitter.store.sweep`).

Every worker runs a reaper, and every edge while no worker lives. A lock in Redis lets one at a time do the work. Two at
a time do no harm, because the execution's record decides each step.

A lease that ended while Redis was away, or because its clock was set forward, does not prove that the worker is lost.
So in both cases the reaper gives all workers one lease time before it takes over anything. If one node of a Cluster is
away, that holds for the executions there; they stay due, and are passed over until the others were checked.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisClusterException, ResponseError

from emitter.errors import AppendRefused, InvalidEvent, RuncastError
from emitter.observer import Observer
from emitter.store import announcements, jobs, watch_leases
from emitter.store.connection import AWAY, GONE
from emitter.store.lifecycle import Lifecycle
from emitter.store.sweep import Sweep
from emitter.wire.keys import ABANDONED, DUE, EXPIRIES, REAPER, Owner, parse_member
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
"""After so many failures in a row a node counts as away. A batch asks it once more; what it has besides waits."""
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
        self._answered_at = self._steady_since = self._clock_read_at = time.monotonic()
        self._clock_ms = 0
        self._sweep = Sweep(redis)
        self._passed_over: Counter[str] = Counter()
        """How many names at the beginning of each list could not be handled, since its beginning was read."""
        self._unreached: set[bytes] = set()
        """Those of `DUE` whose node was away. Their workers have a lease time when it answers again."""
        self._failures: Counter[str] = Counter()
        """Failures in a row, by node."""
        self._error: Exception | None = None

    async def step(self) -> None:
        """If this reaper gets the lock, check what is due; then wait a tick. Raises redis errors, when the rest of the
        step is done."""
        more, self._error = False, None
        if await self._acquire_lock():
            more = await self._check_batch()
            await self._close_expired(self._clock_ms)
            await self._cancel_abandoned()
            await self._sweep.step()
            self._heard()
        if self._error is not None:
            raise self._error
        if not more:
            await asyncio.sleep(self._tick_seconds)

    async def _acquire_lock(self) -> bool:
        """Take or keep the lock; false if another reaper has it."""
        held, clock = await self._redis.eval(ACQUIRE_SCRIPT, 1, REAPER, self._worker, self._lock_ms)
        self._heard()
        now, clock_ms = self._answered_at, int(clock)
        leapt_seconds = (clock_ms - self._clock_ms) / 1000 - (now - self._clock_read_at)
        if self._clock_ms and leapt_seconds > self._lease_seconds / 2:
            self._steady_since = now
        self._clock_read_at, self._clock_ms = now, clock_ms
        return bool(held)

    def _heard(self) -> None:
        """Redis has answered. It was away if that is the first answer for half a lease: a step may take much longer,
        with many answers."""
        now = time.monotonic()
        if now - self._answered_at > self._lease_seconds / 2:
            self._steady_since = now
        self._answered_at = now

    def _patience_seconds(self, name: str) -> float:
        """How long the worker of this execution still has to renew its lease after an outage."""
        if name.encode() in self._unreached:
            return self._lease_seconds
        return max(0.0, self._steady_since + self._lease_seconds - time.monotonic())

    async def release_lock(self) -> None:
        """Let another reaper take the lock at once."""
        await self._redis.eval(RELEASE_SCRIPT, 1, REAPER, self._worker)

    async def _check_batch(self) -> bool:
        """Check one batch of due executions; whether there may be more."""
        now, is_first = self._clock_ms, not self._passed_over[DUE]
        names = await self._read(DUE, now)
        if is_first and len(names) < BATCH:
            self._unreached.intersection_update(names)

        async def check(raw: bytes) -> None:
            try:
                await self._check(raw, now)
            except AWAY:
                self._unreached.add(raw)
                raise
            self._unreached.discard(raw)

        self._unreached.update(await self._handle(DUE, names, check))
        return len(names) == BATCH

    async def _read(self, key: str, now: int) -> list[bytes]:
        """The next batch of a list by time (ms), without those that were passed over."""
        offset = self._passed_over[key]
        names: list[bytes] = await self._redis.zrange(key, 0, now, byscore=True, offset=offset, num=BATCH)
        return names

    async def _handle(
        self, key: str, names: Sequence[bytes], handle: Callable[[bytes], Awaitable[None]]
    ) -> Sequence[bytes]:
        """Handle a batch of a list. What is away stays listed, and is passed over until the end of the list was
        reached, so that it keeps nothing else waiting. Returns what was not even tried."""
        tried_enough: set[str] = set()
        failed, skipped = 0, []
        for name in random.sample(names, len(names)):  # or the same would be the first in each batch
            node, began = self._node_of(name), time.monotonic()
            if node in tried_enough:
                skipped.append(name)
                continue
            try:
                await handle(name)
            except AWAY as error:
                self._error, failed = error, failed + 1
                if isinstance(error, GONE) and self._has_failed(node, time.monotonic() - began):
                    tried_enough.add(node)
            else:
                self._failures.pop(node, None)
                self._heard()
        is_last = len(names) < BATCH
        self._passed_over[key] = 0 if is_last else self._passed_over[key] + failed + len(skipped)
        return skipped

    def _has_failed(self, node: str, seconds: float) -> bool:
        """Note that a node did not answer for so long; whether it counts as away."""
        if node and self._failures[node] >= FAILURES:
            self._answered_at += seconds  # its silence is known, and says nothing of the others
        self._failures[node] += 1
        return self._failures[node] >= FAILURES

    def _node_of(self, name: bytes) -> str:
        """Which node has an execution; without a Cluster there is one, which is ""."""
        if not isinstance(self._redis, RedisCluster):
            return ""
        try:
            owner, _ = parse_member(name.decode().partition(" ")[0])
            node = self._redis.get_node_from_key(owner.feed)
        except (InvalidEvent, UnicodeDecodeError, RedisClusterException):
            return ""
        return "" if node is None else node.name

    async def _check(self, raw: bytes, now: int) -> None:
        try:
            name = raw.decode()
            owner, execution_id = parse_member(name)
        except (InvalidEvent, UnicodeDecodeError):
            await self._redis.zrem(DUE, raw)
            return
        try:
            await self._resolve(owner, execution_id, name, now)
        except AWAY:
            raise
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
        elif (seconds := self._patience_seconds(name)) > 0:
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
        elif (seconds := self._patience_seconds(name)) > 0:
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
        await self._handle(EXPIRIES, await self._read(EXPIRIES, now - EXPIRED_MS), self._expire)

    async def _expire(self, raw: bytes) -> None:
        try:
            name, _, input_id = raw.decode().rpartition(" ")
            await self._lifecycle.expire(*parse_member(name), input_id)
        except AWAY:
            raise
        except (ValueError, ResponseError, RuncastError) as error:  # as in `_check`
            log.error("expiry_unreadable", member=raw[:300].decode("utf-8", "replace"), error=str(error)[:200])
        await self._redis.zrem(EXPIRIES, raw)

    async def _find(self, owner: Owner, execution_id: str) -> ExecutionRecord:
        return _WORKING.read(await self._redis.hmget(owner.execution(execution_id).record, *_WORKING.names))

    async def _cancel_abandoned(self) -> None:
        """Cancel executions that nobody watches."""
        found = await watch_leases.abandoned(self._redis, BATCH, offset=self._passed_over[ABANDONED])
        await self._handle(ABANDONED, [name.encode() for _, _, name in found], self._cancel)

    async def _cancel(self, raw: bytes) -> None:
        owner, execution_id = parse_member(name := raw.decode())
        try:
            await self._lifecycle.cancel(owner, execution_id, reason="nobody is watching", by=watch_leases.NOBODY)
            log.info("abandoned_cancelled", execution=execution_id, user=owner.user, org=owner.org)
        except AppendRefused as refusal:  # it is gone, or has ended
            log.info("abandoned_gone", execution=execution_id, error=str(refusal))
        await watch_leases.forget(self._redis, name)
