"""Holds: the leases of executions that no worker runs, but a script, a Celery task or an HTTP client.

The lease begins with `execution:started`. It lasts until the time of the newest event plus the record's field `hold`
(ms). An open emitter also renews it every few seconds (`lease`). When the lease ends, the reaper ends the execution as
lost. The renewal also reports a cancel; the emitter then has `CANCEL_GRACE_SECONDS` to emit a terminal event.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import time
import weakref
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)

from emitter import tasks
from emitter.errors import RuncastError
from emitter.store.connection import GONE, each_reply
from emitter.store.jobs import CANCEL_GRACE_SECONDS
from emitter.store.lifecycle import Lifecycle
from emitter.wire.ids import now_ms
from emitter.wire.keys import DUE, WEBHOOKS, Owner, member
from emitter.wire.record import Cancel, Field, read_cancel
from emitter.wire.webhooks import FOR_ALL, Name, start_fields

log = structlog.get_logger("emitter")

HOLD_SCRIPT = Path(__file__).with_name("hold.lua").read_text()
HOLD_SHA = hashlib.sha1(HOLD_SCRIPT.encode(), usedforsecurity=False).hexdigest()
TICK_SECONDS = 2.0
"""How often an emitter renews, and so how soon it learns of a cancel; a quarter of the lease if that is shorter."""
FIRST_SECONDS = 0.1
"""How soon after its first event a hold is renewed, together with the holds that begin meanwhile."""
HOOKED_MS = 10_000
"""How long the edges have to hear of an event by its message, before they look by themselves."""
HOOKED_MAX = 10_000
"""Webhooks that are remembered while Redis is away."""
RECORDS_MAX = 32
"""Records of one call: while it runs, Redis does nothing else."""
_OF_SERVER = (BusyLoadingError, ClusterDownError, OutOfMemoryError, ReadOnlyError)
_OF_SERVER_NOW = ("BUSY ", "MISCONF ", "NOREPLICAS ")
"""How errors begin that concern all records."""
SETTLE_SECONDS = 5.0
PLANNED_MS_MAX = 7 * 86_400_000
"""How far ahead a check may be planned."""


class Hold:
    """The lease of one emitter's execution. `cancel` is the request to cancel, if there was one."""

    def __init__(self, owner: Owner, execution_id: str) -> None:
        self.owner = owner
        self.execution_id = execution_id
        self.record = owner.execution(execution_id).record
        self.cancel: Cancel | None = None
        self.cancelled = asyncio.Event()
        self.cancelled_at = 0.0

    @property
    def member(self) -> str:
        return member(self.owner, self.execution_id)

    def set_cancel(self, cancel: Cancel) -> None:
        """Note the first request to cancel, and wake those who wait for one."""
        if self.cancel is None:
            self.cancel, self.cancelled_at = cancel, time.monotonic()
            self.cancelled.set()


class Holds:
    """Renews the leases of one publisher's emitters until they are closed or garbage-collected. `lease_seconds` is the
    lease of executions that begin here; 0: none. `has_webhook`: their ends and questions are delivered."""

    def __init__(self, redis: Redis, lifecycle: Lifecycle, lease_seconds: float, *, has_webhook: bool = False) -> None:
        self._redis: Any = redis
        self._lifecycle = lifecycle
        self.lease_seconds = lease_seconds
        self._has_webhook = has_webhook
        self._hooked: set[Name] = set()
        self._tick_seconds = min(TICK_SECONDS, lease_seconds / 4) or TICK_SECONDS
        self._holds: weakref.WeakSet[Hold] = weakref.WeakSet()
        self._begun: set[str] = set()
        """Those that the reaper does not know yet, by `member`."""
        self._added = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._context = contextvars.copy_context()  # not that of the emitter which comes first

    def fields(self, owner: Owner, execution_id: str) -> dict[str, str]:
        """The record's fields for the lease of an execution that begins here, and for its webhook."""
        hold = {Field.HOLD: str(int(self.lease_seconds * 1000))} if self.lease_seconds else {}
        return hold | start_fields(owner, execution_id, {}, has_one_for_all=self._has_webhook)

    def add(self, owner: Owner, execution_id: str) -> Hold:
        hold = Hold(owner, execution_id)
        if self._has_webhook:
            self._hooked.add(Name(owner, execution_id, FOR_ALL))
        if self.lease_seconds:
            self._holds.add(hold)
            self._begun.add(hold.member)
        if self.lease_seconds or self._has_webhook:
            self._added.set()
            if self._task is None or self._task.done():
                loop = asyncio.get_running_loop()
                self._task = loop.create_task(self._run(), name="holds", context=self._context)
        return hold

    def drop(self, hold: Hold) -> None:
        self._holds.discard(hold)

    async def settle(self, owner: Owner, execution_id: str) -> bool:
        """What follows from the end of an execution (`Lifecycle.settle`); false if Redis did not answer or allow it, so
        that the reaper has to do it."""
        with contextlib.suppress(RedisError, TimeoutError, RuncastError, *GONE):
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._lifecycle.settle(owner, execution_id)
                return True
        return False

    async def aclose(self) -> None:
        if self._task is not None:
            await tasks.end([self._task])
        with contextlib.suppress(RedisError, *GONE):
            await self._plan_begun()
            await self._schedule()

    async def _schedule(self) -> None:
        """Have the webhooks of what has begun here checked. The edges hear of them as well, if they hear anything."""
        hooked, self._hooked = self._hooked, set()
        if not hooked:
            return
        try:
            await self._redis.zadd(WEBHOOKS, {name.member: now_ms() + HOOKED_MS for name in hooked}, nx=True)
        except NoPermissionError as error:  # by an older ACL
            log.debug("webhooks_not_scheduled", error=str(error)[:200])
        except (RedisError, *GONE):
            self._hooked |= hooked if len(self._hooked) < HOOKED_MAX else set()
            raise

    async def _run(self) -> None:
        while (len(self._holds) or self._begun or self._hooked) and not tasks.told_to_stop():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tick_seconds):
                    await self._added.wait()
            try:
                if self._added.is_set():
                    self._added.clear()
                    await self._plan_begun()
                    await asyncio.sleep(FIRST_SECONDS)
                await self._schedule()
                await self._step(list(self._holds))
            except (RedisError, *GONE) as error:
                log.debug("hold_failed", error=type(error).__name__)
            except Exception:  # last resort: the next renewal may succeed
                log.exception("hold_crashed")

    async def _plan_begun(self) -> None:
        """Have the reaper check what begins here, at the same time as it begins: its process may be killed before the
        first renewal, which plans the check by the clock of Redis."""
        begun, self._begun = self._begun, set()
        ends = now_ms() + int(self.lease_seconds * 1000)
        await plan(self._redis, DUE, dict.fromkeys(begun, ends))

    async def _step(self, holds: Sequence[Hold]) -> None:
        groups: dict[str, list[Hold]] = {}  # thousands of emitters may write to one execution
        for hold in holds:
            groups.setdefault(hold.record, []).append(hold)
        renewals = await renew_holds(self._redis, list(groups))
        renewed = list(zip(groups.values(), renewals, strict=True))
        await plan(self._redis, DUE, {group[0].member: ends for group, (ends, _) in renewed if ends > 0})
        for group, (ends, words) in renewed:
            if ends < 0:
                for hold in group:
                    self.drop(hold)
            elif words and (cancel := read_cancel(words)) is not None:
                for hold in group:
                    await self._cancel(hold, cancel)

    async def _cancel(self, hold: Hold, cancel: Cancel) -> None:
        """Report the cancel to the emitter; end the execution if the grace time is over."""
        hold.set_cancel(cancel)
        if time.monotonic() - hold.cancelled_at > CANCEL_GRACE_SECONDS:
            await self._lifecycle.finish_cancel(hold.owner, hold.execution_id, cancel)


class Renewal(NamedTuple):
    """When the lease ends (ms; 0: there is none, -1: the execution has ended), and a cancel (JSON or empty)."""

    ends: int
    cancel: bytes = b""


async def renew_holds(
    redis: Redis, records: Sequence[str], field: Literal["lease", "seen"] = Field.LEASE
) -> list[Renewal]:
    """Renew the leases of executions. `seen` is the field for a process that cannot be asked to stop, because it
    publishes over HTTP. A record that cannot be renewed is logged, and counts as one without a lease. Raises its error
    if none can be renewed."""
    # Only without a Cluster may one call name records of several owners.
    together = 1 if isinstance(redis, RedisCluster) else RECORDS_MAX
    parts = [records[start : start + together] for start in range(0, len(records), together)]
    replies = await _execute(redis, parts, field)
    if any(isinstance(reply, NoScriptError) for reply in replies):
        await redis.script_load(HOLD_SCRIPT)
        replies = await _execute(redis, parts, field)
    # A record that is none keeps no other from its renewal, nor does a proxy before several servers.
    split = [[record] for part, reply in zip(parts, replies, strict=True) if _is_of_one(part, reply) for record in part]
    again = iter(await _execute(redis, split, field) if split else ())
    found: list[Any] = []
    for part, reply in zip(parts, replies, strict=True):
        if _is_of_one(part, reply):
            found += [each if isinstance(each, Exception) else each[0] for each in islice(again, len(part))]
        else:
            found += [reply] * len(part) if isinstance(reply, Exception) else reply
    failed = [reply for reply in found if isinstance(reply, Exception)]
    if failed and len(failed) == len(found):
        raise failed[0]
    return [_renewal(record, reply) for record, reply in zip(records, found, strict=True)]


def _is_of_one(part: Sequence[str], reply: Any) -> bool:
    """Whether the reply to a call is an error that may concern only one of its records, and not the whole server."""
    if not isinstance(reply, Exception) or len(part) == 1:
        return False
    return not (isinstance(reply, _OF_SERVER) or str(reply).startswith(_OF_SERVER_NOW))


def _renewal(record: str, reply: Any) -> Renewal:
    if isinstance(reply, Exception):
        log.warning("hold_failed", record=record, error=str(reply)[:200])
        return Renewal(0)
    return Renewal(*reply) if isinstance(reply, list) else Renewal(reply)


async def _execute(redis: Redis, parts: Sequence[Sequence[str]], field: str) -> list[Any]:
    return await each_reply(redis, [("EVALSHA", HOLD_SHA, len(part), *part, field) for part in parts])


async def plan(redis: Redis, key: str, times: Mapping[str, int]) -> None:
    """Have the reaper check executions by these times (ms): `DUE` for leases, `EXPIRIES` for inputs. If the ACL is too
    old to allow it, nothing is planned. An input that expires in more than a week is closed only by its agent."""
    times = {name: at for name, at in times.items() if at <= now_ms() + PLANNED_MS_MAX}
    if not times:
        return
    try:
        await redis.zadd(key, times, lt=True)
    except (RedisError, *GONE) as error:
        log.debug("plan_failed", key=key, error=str(error)[:200])
