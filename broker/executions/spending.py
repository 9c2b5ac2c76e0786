"""The budget of an execution as its log has it. Pure.

The record counts exactly, also what others publish and what children spend. The log has what each attempt began with,
its events since, and what the record had at each notice. The usage in `child:ended` is not added: notices have it.
"""

from __future__ import annotations

from msgspec.structs import replace

from emitter import events
from emitter.budgets import LIMITS, MOST, Budget, BudgetState, Spent

_FIELDS = {wire: name for name, wire in LIMITS.items()}


class Spending:
    """The limits, and what is spent: by earlier attempts (`_before`), and by this one since."""

    def __init__(self) -> None:
        self._limit = Budget()
        self._before = Spent()
        self._calls = self._tokens = 0
        self._cost = 0.0
        self._started_ms: int | None = None

    def queued(self, event: events.ExecutionQueued) -> None:
        self._limit = event.budget or self._limit

    def started(self, event: events.ExecutionStarted) -> None:
        if event.budget is not None:
            self._limit, self._before = event.budget.limit, event.budget.spent
            self._calls = self._tokens = 0
            self._cost = 0.0
        self._started_ms = event.started_at

    def called(self) -> None:
        self._calls += 1

    def used(self, event: events.Usage) -> None:
        """Totals of the attempt. Lower ones than before count nothing."""
        self._tokens, self._cost = max(self._tokens, event.total_tokens), max(self._cost, event.cost_usd or 0.0)

    def reached(self, event: events.BudgetNotice) -> None:
        """The notice has what the record had then."""
        name = _FIELDS[event.limit]
        if (missing := event.spent - getattr(self._spent, name)) > 0 and name != "seconds":
            amount = _bounded(getattr(self._before, name) + missing)
            self._before = replace(self._before, **{name: amount if name == "cost_usd" else round(amount)})

    def ended(self, ts: int) -> None:
        """An attempt has ended, or the execution."""
        if self._started_ms is None:
            return
        seconds = _bounded(self._before.seconds + max(0, ts - self._started_ms) / 1000)
        self._before = replace(self._spent, seconds=round(seconds, 3))
        self._calls = self._tokens = 0
        self._cost = 0.0
        self._started_ms = None

    @property
    def _spent(self) -> Spent:
        before = self._before
        return Spent(
            total_tokens=round(_bounded(before.total_tokens + self._tokens)),
            cost_usd=round(_bounded(before.cost_usd + self._cost), 9),
            tool_calls=round(_bounded(before.tool_calls + self._calls)),
            seconds=_bounded(before.seconds),
        )

    @property
    def state(self) -> BudgetState | None:
        return BudgetState(self._limit, self._spent) if self._limit else None


def _bounded(amount: float) -> float:
    """Events may have any numbers."""
    return min(max(amount, -MOST), MOST)
