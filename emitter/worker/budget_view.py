"""`context.budget`: the budget of an execution, as its agent sees it."""

from __future__ import annotations

import time

from emitter.budgets import Budget, Meter, Spent, remaining


class BudgetView:
    """The budget of an execution, as its agent sees it. It counts what this attempt has emitted at once, and what
    other attempts and publishers have spent as soon as the worker learns of it."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    @property
    def limit(self) -> Budget:
        """Each limit; `None`: no limit."""
        return self._meter.limit

    @property
    def spent(self) -> Spent:
        return self._meter.spent(time.monotonic())

    @property
    def remaining(self) -> Budget:
        """What is left of each limit, at least 0; `None`: no limit."""
        return remaining(self.limit, self.spent)
