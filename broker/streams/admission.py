"""How many streams a user may have open over all edges, and how often a user may open one, start or cancel an
execution, answer an input or get a ticket: counts and rates in Redis, decided by `admission.lua`.

Each edge writes how many streams a user has on it, never an increment: a lost or wrong count is corrected by the next
write, and the count of a dead edge expires.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from broker.base.outage import is_away
from broker.base.problem import Problem, retry_after
from emitter.errors import RedisUnavailable
from emitter.wire.ids import now_ms
from emitter.wire.keys import EDGES, Owner

FLUSH_SECONDS = 0.05
RETRY_SECONDS = 1.0
REFRESH_SECONDS = 30.0
LIFETIME_SECONDS = 90.0
CLOSE_SECONDS = 5.0
MAX_BATCH = 500
APPLIED_AT_ONCE = 32
"""Calls whose streams open in one turn of the loop."""
TOO_MANY = "too-many-connections"
TOO_MANY_RETRY_SECONDS = 5

SCRIPT = Path(__file__).with_name("admission.lua").read_text()
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


def too_many(limit: int) -> Problem:
    detail = f"{limit} streams of this user are open; close one first"
    return Problem(429, TOO_MANY, detail, headers=retry_after(TOO_MANY_RETRY_SECONDS), limit=limit)


def rate_limited(what: str, per_minute: int, seconds: float) -> Problem:
    detail = f"more than {per_minute} {what} per minute"
    return Problem(429, "rate-limited", detail, headers=retry_after(seconds), limit=per_minute)


class _Call(NamedTuple):
    """One call of the script: an owner's streams that are open here, and those that wait for admission."""

    owner: Owner
    open: int
    waiters: list[asyncio.Future[Exception | None]]


class Admission:
    """`async with Admission(…) as admission:`, then `await admission.admit(owner)` before a stream opens and
    `admission.release(owner)` when it ends. A limit of 0 is off; with both per-user limits off Redis is not asked.

    One task sends all calls in batches, one pipeline each and one at a time. What came up since the last batch goes
    together, since a call in a pipeline costs a quarter of a call alone; and a count never overtakes a newer one.
    """

    def __init__(
        self,
        redis: Redis,
        edge_id: str,
        *,
        max_connections_per_user: int = 0,
        connects_per_minute: int = 0,
        refresh_seconds: float = REFRESH_SECONDS,
        lifetime_seconds: float = LIFETIME_SECONDS,
    ) -> None:
        self._redis = redis
        self._edge_id = edge_id
        self._per_user = max_connections_per_user
        self._per_minute = connects_per_minute
        self._refresh_seconds = refresh_seconds
        self._lifetime_ms = int(lifetime_seconds * 1000)
        self._open: dict[Owner, int] = {}
        self._waiting: dict[Owner, list[asyncio.Future[Exception | None]]] = {}
        self._stale: dict[Owner, None] = {}  # an ordered set: owners whose count Redis does not have yet
        self._flush_due = False
        self._flush_timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._failing = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # --- for streams -------------------------------------------------------------------------------------------------

    def open_for(self, owner: Owner) -> int:
        """Streams of this owner open on this edge."""
        return self._open.get(owner, 0)

    async def admit(self, owner: Owner) -> None:
        """Count one more stream of `owner`, to be released later; or raise `Problem` 429 with Retry-After, or
        `RedisUnavailable`, and count nothing."""
        try:
            await self._admit(owner)
        except Problem as problem:
            if problem.slug != TOO_MANY or not await self._forget_dead_edges(owner):
                raise
            await self._admit(owner)

    async def _forget_dead_edges(self, owner: Owner) -> bool:
        """Delete the counts of edges that no longer announce themselves. Returns whether there were any. They would
        expire, but the viewers of a dead edge return at once."""
        counts: Any = await self._redis.hgetall(owner.connections)
        live = await self._redis.zrangebyscore(EDGES, now_ms(), "+inf")
        dead = counts.keys() - set(live) - {self._edge_id.encode()}
        return bool(dead) and bool(await self._redis.hdel(owner.connections, *dead))

    async def _admit(self, owner: Owner) -> None:
        if not self._per_user and not self._per_minute:
            self._count(owner)
            return
        if self._per_user and self.open_for(owner) >= self._per_user:
            raise too_many(self._per_user)
        if self._task is None or self._closing:
            raise RedisUnavailable("admission is closed")
        waiter: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, []).append(waiter)
        self._wake.set()
        try:
            refusal = await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.result() is None:
                self.release(owner)  # admitted at the moment when its client left
            raise
        if refusal is not None:
            raise refusal

    def release(self, owner: Owner) -> None:
        """A stream that was admitted has ended."""
        left = self.open_for(owner) - 1
        if left > 0:
            self._open[owner] = left
        else:
            self._open.pop(owner, None)
        self._mark_stale([owner], FLUSH_SECONDS)

    def _count(self, owner: Owner) -> None:
        self._open[owner] = self.open_for(owner) + 1

    # --- for other rates ---------------------------------------------------------------------------------------------

    async def rate(self, owner: Owner, what: str, per_minute: int) -> None:
        """Count one of `what` (`executes`). Raises `Problem` 429 with Retry-After when the owner's rate is used up."""
        if per_minute <= 0:
            return
        keys_and_values = (2, owner.rate(what), owner.connections, self._edge_id, 0, 1, 0, per_minute, 0)
        try:
            reply: Any = await self._redis.evalsha(SCRIPT_SHA, *keys_and_values)
        except NoScriptError:
            reply = await self._redis.eval(SCRIPT, *keys_and_values)
        granted, _, retry_ms = reply
        if not granted:
            raise rate_limited(what, per_minute, retry_ms / 1000)

    # --- life --------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Admission:
        self._task = asyncio.create_task(self._run(), name="admission")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Deletes this edge's counts from Redis, for a few seconds at most. Counts that are left expire."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._closing = True
        for waiters in self._waiting.values():
            self._refuse(waiters, RedisUnavailable("admission is closed"))
        self._waiting.clear()
        self._wake.set()
        if self._task is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._task, CLOSE_SECONDS)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        refresh_at = loop.time() + self._refresh_seconds
        while not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(refresh_at):
                    await self._wake.wait()
            self._wake.clear()
            if loop.time() >= refresh_at:
                refresh_at = loop.time() + self._refresh_seconds
                self._mark_stale(self._open, 0)
            await self._send_batch()
        await self._delete_counts()

    async def _delete_counts(self) -> None:
        if self._per_user:
            self._stale |= dict.fromkeys(self._open)
        self._open.clear()
        while self._stale and await self._send_batch():
            pass  # until the first failure

    def _mark_stale(self, owners: Sequence[Owner] | dict[Owner, int], delay: float) -> None:
        """Write these owners' counts in `delay` seconds, or earlier with others."""
        if not self._per_user:
            return
        self._stale |= dict.fromkeys(owners)
        if self._stale and self._flush_timer is None and not self._flush_due and not self._closing:
            self._flush_timer = asyncio.get_running_loop().call_later(delay, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        self._flush_due = True
        self._wake.set()

    # --- batches ------------------------------------------------------------------------------------------------------

    async def _send_batch(self) -> bool:
        """Make the calls that are due, for at most `MAX_BATCH` owners. False if Redis failed."""
        calls = self._take()
        if not calls:
            return True
        try:
            replies = await self._call(calls)
        except Exception as error:  # the last resort of a task: the waiters must get the error
            replies = [error] * len(calls)
        except asyncio.CancelledError:
            for call in calls:
                self._refuse(call.waiters, RedisUnavailable("admission is closed"))
            raise
        failure = next((reply for reply in replies if isinstance(reply, Exception)), None)
        self._note(failure)
        await self._apply_each(calls, replies)
        return failure is None

    async def _apply_each(self, calls: Sequence[_Call], replies: Sequence[Any]) -> None:
        """A few at a time: the streams that one call admits open in the next turn of the loop."""
        applied = 0
        try:
            for call, reply in zip(calls, replies, strict=True):
                if applied % APPLIED_AT_ONCE == APPLIED_AT_ONCE - 1:
                    await asyncio.sleep(0)
                self._apply(call, reply)
                applied += 1
        finally:
            for call in calls[applied:]:
                self._refuse(call.waiters, RedisUnavailable("admission is closed"))

    def _note(self, failure: Exception | None) -> None:
        if failure is not None:
            self._flush_due = False  # or counts that cannot be written would be retried in a busy loop
            if not self._failing:
                structlog.get_logger("broker.admission").warning("admission_failed", error=str(failure))
        self._failing = failure is not None

    def _take(self) -> list[_Call]:
        owners = dict.fromkeys(islice(self._waiting, MAX_BATCH))
        if self._flush_due or self._closing:
            owners |= dict.fromkeys(islice(self._stale, max(0, MAX_BATCH - len(owners))))
        calls = []
        for owner in owners:
            self._stale.pop(owner, None)
            waiters = [waiter for waiter in self._waiting.pop(owner, ()) if not waiter.done()]
            calls.append(_Call(owner, self.open_for(owner), waiters))
        self._flush_due = self._flush_due and bool(self._stale)
        if self._waiting or self._flush_due:
            self._wake.set()  # more than one batch holds
        return calls

    async def _call(self, calls: Sequence[_Call]) -> list[Any]:
        """The script's reply, or the exception, for each call."""
        replies = await self._pipeline("EVALSHA", SCRIPT_SHA, calls)
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:  # a new server, or one that was flushed: EVAL also teaches it the script
            again = await self._pipeline("EVAL", SCRIPT, [calls[at] for at in unknown])
            for at, reply in zip(unknown, again, strict=True):
                replies[at] = reply
        return replies

    async def _pipeline(self, command: str, script: str, calls: Sequence[_Call]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        limits = (self._per_user, self._per_minute, self._lifetime_ms)
        for owner, open_, waiters in calls:
            keys = (owner.rate("connects"), owner.connections)
            # Not `pipe.evalsha`: a cluster's pipeline refuses that name, though not the command.
            pipe.execute_command(command, script, 2, *keys, self._edge_id, open_, len(waiters), *limits)
        replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies

    def _apply(self, call: _Call, reply: Any) -> None:
        if isinstance(reply, Exception):
            refusal = RedisUnavailable(str(reply)) if is_away(reply) else reply
            self._refuse(call.waiters, refusal)
            self._mark_stale([call.owner], RETRY_SECONDS)  # the script may have run: write the true count
            return
        granted, reason, retry_ms = reply
        admitted = [waiter for waiter in call.waiters if not waiter.done()][:granted]
        for waiter in admitted:
            self._count(call.owner)
            waiter.set_result(None)
        if len(admitted) < granted:
            self._mark_stale([call.owner], FLUSH_SECONDS)  # a client left while Redis counted it
        for waiter in call.waiters:
            if not waiter.done():
                waiter.set_result(self._refusal(reason, retry_ms))

    def _refusal(self, reason: bytes, retry_ms: int) -> Problem:
        if reason == b"connections":
            return too_many(self._per_user)
        return rate_limited("connects", self._per_minute, retry_ms / 1000)

    def _refuse(self, waiters: Sequence[asyncio.Future[Exception | None]], refusal: Exception) -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(refusal)
