"""What could not be shown a moment ago."""

from __future__ import annotations

from broker.live.failures import MAX_REMEMBERED, PAUSE_SECONDS, Failures
from broker.live.view import StreamView
from tests.broker.live.viewers import Alone


def test_a_failure_is_remembered_for_a_while() -> None:
    """For its log and protocol alone; in that time another one is no news, and makes the time begin again."""
    now = 100.0
    failures = Failures(lambda: now)
    alone, native = Alone(), StreamView()
    assert failures.seconds_left("a", alone) == 0
    assert failures.note("a", alone)
    assert failures.seconds_left("a", Alone()) == PAUSE_SECONDS
    assert (failures.seconds_left("b", alone), failures.seconds_left("a", native)) == (0, 0)
    now += PAUSE_SECONDS - 1
    assert not failures.note("a", alone)
    now += 1.5
    assert failures.seconds_left("a", alone) == PAUSE_SECONDS - 1.5
    now += PAUSE_SECONDS
    assert failures.seconds_left("a", alone) == 0
    assert failures.note("a", alone)


def test_what_is_remembered_is_bounded() -> None:
    """The oldest are forgotten."""
    failures, view = Failures(lambda: 1.0), Alone()
    for number in range(2 * MAX_REMEMBERED):
        failures.note(str(number), view)
    assert len(failures._until) == MAX_REMEMBERED
    assert failures.seconds_left("0", view) == 0
    assert failures.seconds_left(str(2 * MAX_REMEMBERED - 1), view) == PAUSE_SECONDS
