"""Publishing over HTTP under an attempt, as the worker that has claimed the execution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from broker.executions.budgets import BUDGET
from emitter.budgets import BudgetState
from emitter.errors import UnknownExecution
from emitter.events import Event, ExecutionCancelled, ExecutionStarted
from emitter.store.append import LogLimits, append, claimed_by, prepare
from emitter.wire.ids import now_ms
from emitter.wire.keys import Owner
from emitter.wire.prepared import DROPPED, Prepared, Redaction
from emitter.wire.record import Cancel, Field, Selection

STARTED_PRODUCER = "http-start"
_UNDER = Selection(Field.STATE, Field.AGENT, Field.TASK, Field.CANCEL, *BUDGET.names)


class Under(NamedTuple):
    """The attempt, its worker, and what the record knows of the execution. `is_waiting`: the attempt has not begun.
    `budget`: its limits, and what was spent before; `None` without a limit."""

    attempt: int
    worker: str
    agent: str
    task: str
    is_waiting: bool
    cancel: Cancel | None
    budget: BudgetState | None = None


async def read_under(redis: Redis, owner: Owner, execution_id: str, attempt: int, worker: str) -> Under:
    """Raises `UnknownExecution`. Whether the attempt is still the newest is for the append to decide."""
    client: Any = redis
    record = _UNDER.read(await client.hmget(owner.execution(execution_id).record, *_UNDER.names))
    if not record.exists:
        raise UnknownExecution(execution_id)
    budget = BudgetState(record.budget, record.spent) if record.budget else None
    return Under(attempt, worker, record.agent, record.task or "", record.state == "queued", record.cancel, budget)


def as_attempt(event: Event, under: Under) -> Event:
    """The event with what only the record knows: number and budget of the attempt, and who asked for the cancel."""
    if isinstance(event, ExecutionStarted):
        return msgspec.structs.replace(event, attempt=under.attempt, budget=under.budget)
    if isinstance(event, ExecutionCancelled):
        asked = under.cancel or Cancel()
        return msgspec.structs.replace(event, by=asked.by, reason=event.reason or asked.reason)
    return event


async def begin(
    redis: Redis,
    owner: Owner,
    execution_id: str,
    under: Under,
    events: Sequence[Prepared],
    limits: LogLimits,
    redact: Redaction,
) -> None:
    """Write the `execution:started` of an attempt that begins with another event. Raises the `AppendRefused` family."""
    first = next((event for event in events if event is not DROPPED), None)
    if not under.is_waiting or first is None or first.type == ExecutionStarted.type:
        return
    event = ExecutionStarted(task=under.task, started_at=now_ms(), attempt=under.attempt, budget=under.budget)
    started = prepare(event, execution_id, redact=redact, agent=under.agent or None, max_bytes=limits.max_event_bytes)
    await append(
        redis, owner, execution_id, [started], producer=STARTED_PRODUCER, first_seq=under.attempt,
        attempt=under.attempt, mode=claimed_by(under.worker), limits=limits,
    )  # fmt: skip
