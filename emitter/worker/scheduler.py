"""Starts executions at the ticks of schedules: each tick once, on however many workers.

Every worker checks its schedules. Redis has one mark per schedule: the last tick that was dealt with. The worker that
moves the mark to a due tick has claimed the tick, and starts its execution; the others see that it is claimed. If that
worker dies, the next check completes the claim: the execution's id follows from the tick, and accepting an execution
twice has no effect.

- Moments are those of the clock of Redis. A start is late by a fraction of a second, or until a worker is back.
- Of the ticks in a time without workers only the latest is started; none before the schedule was first seen, and none
  if Redis has lost the mark.
- A changed schedule goes on from its mark. While workers with the old and the new form run side by side, the ticks of
  both are started; a common tick is started once, in either form. A removed schedule runs until the last worker that
  has it stops. Its mark stays, so if the name returns, the latest tick is started.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis

from emitter.errors import InvalidEvent, RuncastError, describe
from emitter.store.connection import AWAY
from emitter.store.lifecycle import Lifecycle, Start
from emitter.wire.keys import SCHEDULES, member, parse_member
from emitter.wire.limits import TOMBSTONE_TTL_SECONDS
from emitter.wire.record import Field, Selection
from emitter.worker.schedule import Schedule

log = structlog.get_logger("emitter.scheduler")

_STATE = Selection(Field.STATE)
LOOK_SECONDS = 5.0
"""The longest pause between two checks: the clock may be set, and claims of other workers may be incomplete."""
JITTER_SECONDS = 0.1
KEPT_MS = TOMBSTONE_TTL_SECONDS * 1000
"""How long after its claim an accepted execution certainly has a record, so that a claim can be completed safely."""

LOOK_SCRIPT = """
local time = redis.call('TIME')
return {time[1] * 1000 + math.floor(time[2] / 1000), redis.call('HMGET', KEYS[1], unpack(ARGV))}
"""
# KEYS 1 schedules   ARGV 1 name  2 the mark as it was read (empty: none)  3 the new mark
MOVE_SCRIPT = """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


class Mark(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How far a schedule has come. `tick`: the last tick that was dealt with (ms); `execution`: `member` of the last
    execution (empty: none), claimed at `claimed_at` (ms); `accepted`: whether it is known to be accepted."""

    tick: int
    execution: str = ""
    claimed_at: int = 0
    accepted: bool = True


class Scheduler:
    """Call `step` repeatedly."""

    def __init__(self, redis: Redis, lifecycle: Lifecycle, schedules: Sequence[Schedule]) -> None:
        self._redis: Any = redis
        self._lifecycle = lifecycle
        self._schedules = tuple(schedules)

    async def step(self) -> None:
        """Start what is due; then wait for the next tick."""
        looked = time.monotonic()
        now = await self.start_due()
        await asyncio.sleep(self._pause_seconds(now, time.monotonic() - looked))

    async def start_due(self) -> int:
        """Start what is due; the time (ms) by which it was due. Raises `AWAY` errors of Redis."""
        now, marks = await self._look()
        found = list(zip(self._schedules, marks, strict=True))
        random.shuffle(found)  # if a node of a Redis Cluster is away, the schedules on others get their turn
        for schedule, stored in found:
            await self._try(schedule, stored or b"", now)
        return now

    async def _look(self) -> tuple[int, list[bytes | None]]:
        """The time in ms, and the stored mark of each schedule."""
        names = [schedule.name for schedule in self._schedules]
        now, marks = await self._redis.eval(LOOK_SCRIPT, 1, SCHEDULES, *names)
        return now, marks

    def _pause_seconds(self, now: int, spent: float) -> float:
        following = [schedule.ticks.following(now) for schedule in self._schedules]
        first = min(((tick - now) / 1000 for tick in following if tick is not None), default=LOOK_SECONDS)
        return min(LOOK_SECONDS, max(0.0, first - spent)) + random.uniform(0, JITTER_SECONDS)

    async def _try(self, schedule: Schedule, stored: bytes, now: int) -> None:
        try:
            await self._advance(schedule, stored, now)
        except AWAY:
            raise
        except Exception:  # last resort: one schedule must not block the others, or the worker
            log.exception("schedule_failed", schedule=schedule.name)

    async def _advance(self, schedule: Schedule, stored: bytes, now: int) -> None:
        mark, tick = read_mark(stored), schedule.ticks.latest(now) or 0
        if mark is None:
            await self._move(schedule, stored, Mark(tick=tick))
        elif not mark.accepted and now < mark.claimed_at + KEPT_MS:
            await self._accept(schedule, stored, mark)
        elif mark.tick > now:
            # The clock was ahead and was set back. Started executions do not start again, because their ids exist.
            await self._move(schedule, stored, msgspec.structs.replace(mark, tick=tick))
        elif tick > mark.tick:
            await self._claim(schedule, stored, mark, tick, now)

    async def _claim(self, schedule: Schedule, stored: bytes, mark: Mark, tick: int, now: int) -> None:
        if not schedule.overlap and await self._goes_on(mark):
            if await self._move(schedule, stored, msgspec.structs.replace(mark, tick=tick)):
                log.info("tick_skipped", schedule=schedule.name, tick=tick, running=mark.execution)
            return
        name = member(schedule.owner, schedule.execution_id(tick))
        claimed = Mark(tick=tick, execution=name, claimed_at=now, accepted=False)
        if await self._move(schedule, stored, claimed):
            await self._accept(schedule, msgspec.json.encode(claimed), claimed)

    async def _accept(self, schedule: Schedule, stored: bytes, mark: Mark) -> None:
        """Start the execution of a claimed tick, unless it was started; then note that in the mark."""
        owner, execution_id = parse_member(mark.execution)
        try:
            is_new = await self._lifecycle.accept(owner, execution_id, _start(schedule, mark.tick))
        except RuncastError as error:  # another try would not help
            log.error("schedule_failed", schedule=schedule.name, tick=mark.tick, error=describe(error, 200))
        else:
            if is_new:
                log.info("tick_started", schedule=schedule.name, tick=mark.tick, execution=execution_id)
        await self._move(schedule, stored, msgspec.structs.replace(mark, accepted=True))

    async def _goes_on(self, mark: Mark) -> bool:
        """Whether the last execution has not ended."""
        if not mark.execution:
            return False
        owner, execution_id = parse_member(mark.execution)
        record = _STATE.read(await self._redis.hmget(owner.execution(execution_id).record, *_STATE.names))
        return record.exists and not record.has_ended

    async def _move(self, schedule: Schedule, stored: bytes, mark: Mark) -> bool:
        """Replace a mark, unless another worker was faster."""
        moved = await self._redis.eval(MOVE_SCRIPT, 1, SCHEDULES, schedule.name, stored, msgspec.json.encode(mark))
        return bool(moved)


def _start(schedule: Schedule, tick: int) -> Start:
    return Start(
        task=schedule.task,
        agent=schedule.agent,
        params=schedule.params,
        metadata={"schedule": schedule.name, "tick": tick},
    )


def read_mark(stored: bytes) -> Mark | None:
    """A stored mark; `None` if it is empty or cannot be read: then the schedule begins again."""
    if not stored:
        return None
    try:
        mark = msgspec.json.decode(stored, type=Mark)
        if mark.execution:
            parse_member(mark.execution)
        return mark
    except (msgspec.MsgspecError, InvalidEvent):
        return None
