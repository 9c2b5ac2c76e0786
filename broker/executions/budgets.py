"""The budget of an execution as its record has it."""

from __future__ import annotations

from typing import Any

from emitter.budgets import LIMITS, BudgetState
from emitter.wire.ids import now_ms
from emitter.wire.record import ExecutionRecord, Field, Selection

BUDGET = Selection(
    Field.BUDGET, Field.SPENT_TOKENS, Field.SPENT_NANOS, Field.SPENT_CALLS, Field.SPENT_MS, Field.OWNER,
    Field.CLAIMED_AT,
)  # fmt: skip


def budget_of(record: ExecutionRecord) -> BudgetState | None:
    """The limits and what is spent now; `None` without a limit."""
    return BudgetState(record.budget, record.spent_until(now_ms())) if record.budget else None


def budget_in(value: Any) -> dict[str, Any] | None:
    """The budget among what a client sends under a name that an application may use for something else; `None` if it is
    no object of limits."""
    return value if isinstance(value, dict) and value and value.keys() <= set(LIMITS.values()) else None
