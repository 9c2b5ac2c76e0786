"""Rates of one edge: a minute's worth at once, then a steady pace, for each user and kind alone."""

from __future__ import annotations

import pytest

from broker.base.rates import Rates
from emitter.wire.keys import Owner

EVE, BOB = Owner("eve"), Owner("bob")


@pytest.mark.parametrize("per_minute", [1, 7, 600, 60_000])
def test_a_minutes_worth_at_once_and_then_a_steady_pace(per_minute: int) -> None:
    """Exactly as many as the limit says; the next when it says."""
    rates, now = Rates(), 1000.0
    assert not any(rates.count(EVE, "reads", per_minute, now) for _ in range(per_minute))
    wait = rates.count(EVE, "reads", per_minute, now)
    assert wait == pytest.approx(60 / per_minute, rel=0.01)
    assert rates.count(EVE, "reads", per_minute, now + wait / 2) > 0
    assert rates.count(EVE, "reads", per_minute, now + wait) == 0
    assert not any(rates.count(EVE, "reads", per_minute, now + 120 + wait) for _ in range(per_minute))


def test_users_and_kinds_are_apart() -> None:
    """Whoever uses up one rate has the others."""
    rates = Rates()
    assert rates.count(EVE, "reads", 1, 0.0) == 0
    assert rates.count(EVE, "reads", 1, 0.0) > 0
    assert rates.count(EVE, "publishes", 1, 0.0) == rates.count(BOB, "reads", 1, 0.0) == 0


def test_memory_is_bounded() -> None:
    """Who was not seen for longest is forgotten first."""
    rates = Rates(remembered=3)
    for user in "abcd":
        rates.count(Owner(user), "reads", 1, 0.0)
    assert rates.count(Owner("d"), "reads", 1, 0.0) > 0
    assert rates.count(Owner("a"), "reads", 1, 0.0) == 0
    assert len(rates._paid_off) == 3
