"""Budgets: what an execution may spend, what it has spent, and when a limit is nearly or wholly spent. Pure.

Amounts count over all attempts. A tool call is announced before it is made, so a limit of 10 tool calls is over with
the eleventh `tool:start`; tokens, cost and time are known afterwards, so their limit is over as soon as it is reached.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Literal, NamedTuple

import msgspec

LimitName = Literal["totalTokens", "costUsd", "toolCalls", "seconds"]
LIMITS: dict[str, LimitName] = {
    "total_tokens": "totalTokens",
    "cost_usd": "costUsd",
    "tool_calls": "toolCalls",
    "seconds": "seconds",
}
"""Field of `Budget` and `Spent` → its name on the wire."""
WARN_SHARE = 0.8
NANOS = 1_000_000_000
"""Cost is counted in billionths of a US dollar, which add up without rounding."""
MOST = 10**15
"""The largest amount of one report that is counted."""
EXCEEDED = "budget_exceeded"
"""The code of the `execution:error`."""
CALL_MARK = "c"
_UNITS = {"totalTokens": " tokens", "costUsd": " USD", "toolCalls": " tool calls", "seconds": " s"}


class Budget(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What an execution may spend at most, all attempts together; `None`: no limit.

    Args:
        total_tokens: tokens of models, as `usage` reports them.
        cost_usd: their cost in US dollars, as `usage` reports it.
        tool_calls: calls of tools (`tool:start`).
        seconds: time under a worker, waits for people and children included.
    """

    total_tokens: int | None = None
    cost_usd: float | None = None
    tool_calls: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in LIMITS:
            value = getattr(self, name)
            kinds = int if name in ("total_tokens", "tool_calls") else (int, float)
            if value is None or (isinstance(value, kinds) and not isinstance(value, bool) and 0 < value <= MOST):
                continue
            raise ValueError(f"{name} {value!r} is not a number above 0 and up to {MOST:.0e} - at `$.{LIMITS[name]}`")

    def __bool__(self) -> bool:
        """Whether there is any limit."""
        return any(getattr(self, name) is not None for name in LIMITS)


class Remaining(Budget, frozen=True):
    """What is left of a budget; `None`: no limit. Other than a limit, it may be 0."""

    def __post_init__(self) -> None:
        """Nothing is refused."""


class Spent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an execution has spent, all attempts together."""

    total_tokens: int = 0
    cost_usd: float = 0.0
    tool_calls: int = 0
    seconds: float = 0.0


class BudgetState(msgspec.Struct, frozen=True):
    """The limits of an execution, and what it has spent."""

    limit: Budget
    spent: Spent


class Reached(NamedTuple):
    """A limit of which most is spent (`continuing`), or all (`stopping`)."""

    limit: LimitName
    spent: float
    max: float
    action: Literal["continuing", "stopping"]

    @property
    def message(self) -> str:
        unit = _UNITS[self.limit]
        return f"over its budget ({self.limit}): {self.spent:.12g}{unit} spent of {self.max:.12g}"


def smallest(*budgets: Budget | None) -> Budget:
    """The smallest of each limit."""
    found = {}
    for name in LIMITS:
        given = [value for budget in budgets if budget is not None and (value := getattr(budget, name)) is not None]
        found[name] = min(given, default=None)
    return Budget(**found)


def plus(one: Spent, other: Spent) -> Spent:
    return Spent(**{name: getattr(one, name) + getattr(other, name) for name in LIMITS})


def most(one: Spent, other: Spent) -> Spent:
    """The larger of each amount."""
    return Spent(**{name: max(getattr(one, name), getattr(other, name)) for name in LIMITS})


def remaining(limit: Budget, spent: Spent) -> Remaining:
    """What is left of each limit, at least 0; `None`: no limit."""
    left = {}
    for name in LIMITS:
        value = getattr(limit, name)
        left[name] = None if value is None else max(0, value - getattr(spent, name))
    return Remaining(**left)


def exceeded(limit: Budget, spent: Spent, *, at_start: bool = False) -> Reached | None:
    """The first limit that is over. `at_start`: also one of which nothing is left for another attempt."""
    for name, wire in LIMITS.items():
        value, amount = getattr(limit, name), getattr(spent, name)
        if value is None or amount < value or (amount == value and name == "tool_calls" and not at_start):
            continue
        return Reached(wire, _shown(amount), value, "stopping")
    return None


def warned(limit: Budget, spent: Spent) -> list[Reached]:
    """The limits of which 80 % is spent."""
    found = []
    for name, wire in LIMITS.items():
        value, amount = getattr(limit, name), getattr(spent, name)
        if value is not None and amount >= WARN_SHARE * value:
            found.append(Reached(wire, _shown(amount), value, "continuing"))
    return found


def _shown(amount: float) -> float:
    return amount if isinstance(amount, int) else round(amount, 9)


# --- the append script's marks ---------------------------------------------------------------------------------------


def usage_mark(total_tokens: int, cost_usd: float | None) -> str:
    """The mark of a `usage` event: its totals, as the script counts them."""
    cost = cost_usd if cost_usd is not None and isfinite(cost_usd) else 0.0
    return f"u:{min(max(int(total_tokens), 0), MOST)} {round(min(max(cost, 0.0) * NANOS, MOST))}"


def read_usage_mark(mark: str) -> tuple[int, int]:
    """Tokens, and cost in billionths."""
    tokens, _, nanos = mark[2:].partition(" ")
    return int(tokens), int(nanos)


# --- one attempt -----------------------------------------------------------------------------------------------------


class Meter:
    """Counts what one attempt spends, and says when a limit is reached.

    The record counts the same, for all attempts and all publishers; `learn` takes its counts, which are late by a round
    trip. Moments are in seconds of one monotonic clock.

    Args:
        before: what the record had before this attempt.
        since: the beginning of the attempt; `None`: time does not count.
        on_change: called after each count. The owner of the meter may set it later.
    """

    def __init__(
        self,
        limit: Budget = Budget(),  # noqa: B008 - frozen
        before: Spent = Spent(),  # noqa: B008 - frozen
        *,
        since: float | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self.limit = limit
        self.on_change = on_change
        self._before = self._record = before
        self._since = since
        self._calls = self._tokens = self._nanos = 0
        self._said: set[LimitName] = set()
        self._stopped = False

    def count(self, mark: str) -> None:
        """An event with this mark was emitted. Totals of `usage` that are lower than earlier ones count nothing."""
        if mark == CALL_MARK:
            self._calls += 1
        elif mark.startswith("u:"):
            tokens, nanos = read_usage_mark(mark)
            self._tokens, self._nanos = max(self._tokens, tokens), max(self._nanos, nanos)
        else:
            return
        self._changed()

    def learn(self, record: Spent, limit: Budget | None = None) -> None:
        """What the record has counted, and the limits that it has."""
        self._record = most(self._record, msgspec.structs.replace(record, seconds=0.0))
        if limit:
            self.limit = smallest(self.limit, limit)
        self._changed()

    def _changed(self) -> None:
        if self.limit and self.on_change is not None:
            self.on_change()

    def spent(self, now: float) -> Spent:
        lasted = 0.0 if self._since is None else max(0.0, now - self._since)
        own = Spent(
            total_tokens=self._tokens, cost_usd=self._nanos / NANOS, tool_calls=self._calls, seconds=round(lasted, 3)
        )
        return most(plus(self._before, own), self._record)

    def due(self, now: float) -> list[Reached]:
        """The notices of this moment, each once. `stopping` comes alone."""
        if not self.limit or self._stopped:
            return []
        spent = self.spent(now)
        if (over := exceeded(self.limit, spent)) is not None:
            self._stopped = True
            return [over]
        news = [each for each in warned(self.limit, spent) if each.limit not in self._said]
        self._said.update(each.limit for each in news)
        return news

    def over(self, now: float) -> Reached | None:
        """The limit that is over, if any; this records no notice."""
        return exceeded(self.limit, self.spent(now)) if self.limit else None

    def used_up(self, now: float) -> Reached | None:
        """The limit of which nothing is left for another attempt, if any."""
        return exceeded(self.limit, self.spent(now), at_start=True) if self.limit else None

    def next_at(self) -> float | None:
        """The moment of the next check of the time; `None`: it has no limit."""
        if self._since is None or self.limit.seconds is None:
            return None
        share = 1.0 if "seconds" in self._said else WARN_SHARE
        return self._since + share * self.limit.seconds - self._before.seconds + 0.001  # amounts are rounded to it
