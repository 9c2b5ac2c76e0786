"""Budgets: limits, amounts, and when a limit is reached."""

from __future__ import annotations

import math

import msgspec
import pytest

from emitter import Budget
from emitter.budgets import MOST, Meter, Reached, Spent, exceeded, read_usage_mark, remaining, smallest, usage_mark


@pytest.mark.parametrize("value", [0, -1, True, "5", math.nan, math.inf, 10**16])
@pytest.mark.parametrize("name", ["total_tokens", "cost_usd", "tool_calls", "seconds"])
def test_a_limit_is_a_number_above_zero(name: str, value: object) -> None:
    """What is none is refused where it is given, and where it is read."""
    with pytest.raises(ValueError, match=name):
        Budget(**{name: value})  # type: ignore[arg-type]


def test_tokens_and_calls_are_whole() -> None:
    with pytest.raises(ValueError, match="tool_calls"):
        Budget(tool_calls=1.5)  # type: ignore[arg-type]


def test_the_smallest_of_each_limit_counts() -> None:
    """Whoever has set it; what nobody has set has no limit."""
    found = smallest(Budget(total_tokens=100, seconds=5), None, Budget(total_tokens=80, cost_usd=1.5), Budget())
    assert found == Budget(total_tokens=80, cost_usd=1.5, seconds=5)
    assert not smallest(None, Budget())


def test_what_remains() -> None:
    """At least nothing; `None` for no limit."""
    left = remaining(Budget(total_tokens=100, tool_calls=2), Spent(total_tokens=30, tool_calls=5, seconds=9))
    assert (left.total_tokens, left.cost_usd, left.tool_calls, left.seconds) == (70, None, 0, None)


@pytest.mark.parametrize(
    ("limit", "under", "over"),
    [
        (Budget(total_tokens=100), Spent(total_tokens=99), Spent(total_tokens=100)),
        (Budget(cost_usd=0.5), Spent(cost_usd=0.49), Spent(cost_usd=0.5)),
        (Budget(tool_calls=10), Spent(tool_calls=10), Spent(tool_calls=11)),
        (Budget(seconds=3), Spent(seconds=2.9), Spent(seconds=3)),
    ],
)
def test_when_a_limit_is_over(limit: Budget, under: Spent, over: Spent) -> None:
    """As soon as it is reached; calls, which are announced, with one more."""
    assert exceeded(limit, under) is None
    assert exceeded(limit, over) is not None
    assert exceeded(limit, over, at_start=True) is not None


def test_ten_calls_leave_nothing_for_another_attempt() -> None:
    assert exceeded(Budget(tool_calls=10), Spent(tool_calls=10), at_start=True) is not None


def test_notices_come_once() -> None:
    """80 % of each limit, once; then the end, once and alone."""
    meter = Meter(Budget(total_tokens=100, tool_calls=5), Spent(total_tokens=10))
    meter.count("u:69 0")
    assert meter.due(0) == []
    meter.count("u:70 0")
    assert meter.due(0) == [Reached("totalTokens", 80, 100, "continuing")]
    for _ in range(4):
        meter.count("c")
    assert meter.due(0) == [Reached("toolCalls", 4, 5, "continuing")]
    meter.count("u:90 0")
    meter.count("c")
    assert meter.due(0) == [Reached("totalTokens", 100, 100, "stopping")]
    meter.count("c")
    assert meter.due(0) == []


def test_totals_that_fall_count_nothing() -> None:
    """A `usage` has running totals."""
    meter = Meter(Budget(total_tokens=100))
    for mark in ("u:50 5", "u:20 9", "u:60 7"):
        meter.count(mark)
    assert meter.spent(0) == Spent(total_tokens=60, cost_usd=9e-9)


def test_time_counts_over_attempts() -> None:
    """That of earlier attempts, and since this one began."""
    meter = Meter(Budget(seconds=10), Spent(seconds=6), since=100.0)
    assert meter.due(101.9) == []
    assert meter.next_at() == pytest.approx(102.0, abs=0.01)
    assert meter.due(102.1) == [Reached("seconds", 8.1, 10, "continuing")]
    assert meter.next_at() == pytest.approx(104.0, abs=0.01)
    assert meter.over(104.1) == Reached("seconds", 10.1, 10, "stopping")


def test_the_next_look_at_the_time_finds_something() -> None:
    """So that a worker does not look twice in vain."""
    for before in (0, 0.0005, 1.234):
        meter = Meter(Budget(seconds=2.0), Spent(seconds=before), since=5.0)
        while (at := meter.next_at()) is not None:
            (found,) = meter.due(at)
            if found.action == "stopping":
                break


def test_what_others_spend_counts() -> None:
    """The record has what all publishers have spent; it may be late."""
    calls: list[int] = []
    meter = Meter(Budget(tool_calls=10), Spent(tool_calls=2), on_change=lambda: calls.append(1))
    meter.count("c")
    meter.learn(Spent(tool_calls=7))
    assert meter.spent(0).tool_calls == 7
    meter.learn(Spent(tool_calls=3))
    assert meter.spent(0).tool_calls == 7
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("tokens", "cost", "read"),
    [
        (5, 0.25, (5, 250_000_000)),
        (-5, -1.0, (0, 0)),
        (10**20, 1e20, (MOST, MOST)),
        (1, math.nan, (1, 0)),
        (1, 1.5e-7, (1, 150)),
        (1, None, (1, 0)),
    ],
)
def test_the_mark_of_usage(tokens: int, cost: float | None, read: tuple[int, int]) -> None:
    """Whole numbers, within what the script can add."""
    assert read_usage_mark(usage_mark(tokens, cost)) == read


def test_on_the_wire() -> None:
    """Names are camelCase, and what has no limit is left out."""
    assert msgspec.json.encode(Budget(total_tokens=5, cost_usd=0.5)) == b'{"totalTokens":5,"costUsd":0.5}'
