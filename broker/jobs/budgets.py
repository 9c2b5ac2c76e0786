"""The budgets of workers over HTTP: an edge keeps them, at each publish, renewal and claim."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.executions.budgets import BUDGET
from broker.executions.overspending import keep_budget
from broker.jobs.fences import Fenced
from emitter.budgets import WARN_SHARE, BudgetState, Reached, exceeded
from emitter.errors import AppendRefused
from emitter.store.jobs import Job
from emitter.store.lifecycle import Lifecycle, overspent
from emitter.wire.record import ExecutionRecord

CHECK_SECONDS = 0.01
"""How much later than a limit of time ends it is looked at."""


class Budgets:
    """Reads and keeps the budgets of claimed jobs. Redis errors pass through."""

    def __init__(self, redis: Redis, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._redis: Any = redis
        self._lifecycle = lifecycle
        self._metrics = metrics

    async def end_if_used_up(self, job: Job) -> bool:
        """End an execution of whose budget nothing is left for this attempt; whether there was nothing."""
        return await self.end_over(job, exceeded(job.budget, job.spent, at_start=True))

    async def end_over(self, job: Job, reached: Reached | None) -> bool:
        """End a claimed execution because of that limit, if any; false without one."""
        if reached is None:
            return False
        with contextlib.suppress(AppendRefused):
            await self._lifecycle.end(job, *overspent(reached))
            self._metrics.budget_exceeded[reached.limit].inc()
        return True

    async def keep(self, fenced: Fenced, now: int, due: Callable[[float], None]) -> bool:
        """Warn of a limit of a running job, or end it; whether it was ended. Others may have spent, such as its
        children. `now`: ms by the clock of Redis; `due` gets the seconds until its time is to be looked at again."""
        record = BUDGET.read(await self._redis.hmget(fenced.record, *BUDGET.names))
        if not record.budget:
            return False
        spent = record.spent_until(now)
        if record.budget.seconds is not None:
            for share in (WARN_SHARE, 1.0):
                if (left := share * record.budget.seconds - spent.seconds) > 0:
                    due(left + CHECK_SECONDS)
        limit = await keep_budget(
            self._lifecycle, fenced.owner, fenced.execution_id, record.budget, spent, fenced.attempt
        )
        if limit is not None:
            self._metrics.budget_exceeded[limit].inc()
        return limit is not None


def used_up(record: ExecutionRecord, now: int) -> Reached | None:
    """The limit of which nothing is left for another attempt, if any."""
    return exceeded(record.budget, record.spent_until(now), at_start=True)


def state_of(job: Job) -> BudgetState | None:
    """The budget with which an attempt begins."""
    return BudgetState(job.budget, job.spent) if job.budget else None
