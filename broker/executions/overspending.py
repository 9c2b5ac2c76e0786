"""The budget of executions that are published over HTTP: nobody but the edge keeps it."""

from __future__ import annotations

from msgspec.structs import replace

from emitter.budgets import Budget, BudgetState, LimitName, Spent, exceeded, smallest, warned
from emitter.events import ExecutionStarted
from emitter.store.lifecycle import Lifecycle
from emitter.wire.keys import Owner


def limited(event: ExecutionStarted, settings: Budget) -> ExecutionStarted:
    """An `execution:started` with its own limits and those of the settings; of each the smallest."""
    limit = smallest(settings, None if event.budget is None else event.budget.limit)
    if not limit:
        return event
    return replace(event, budget=BudgetState(limit, Spent() if event.budget is None else event.budget.spent))


async def keep_budget(
    lifecycle: Lifecycle,
    owner: Owner,
    execution_id: str,
    limit: Budget,
    spent: Spent | None,
    attempt: int | None = None,
) -> LimitName | None:
    """Warn of a limit of which most is spent, or end the execution. Returns the limit because of which it was ended.
    `attempt`: that of a worker over HTTP which published; without it, an execution that a worker runs is its worker's
    to end."""
    if spent is None or not limit:
        return None
    if (reached := exceeded(limit, spent)) is not None:
        return reached.limit if await lifecycle.overspend(owner, execution_id, reached, attempt) else None
    for each in warned(limit, spent):
        await lifecycle.warn(owner, execution_id, each)
    return None
