"""How often round trips leave."""

from __future__ import annotations

from emitter.publishing.pace import FREE, Pace


def waits(pace: Pace, *moments: float) -> list[float]:
    """How long a round trip that is due at each moment waits; it leaves then."""
    found = []
    for moment in moments:
        found.append(pace.wait(moment))
        pace.count(moment + found[-1])
    return found


def test_who_sends_seldom_never_waits() -> None:
    """One round trip in each period, for ever."""
    assert not any(waits(Pace(1.0), *range(1000)))


def test_a_burst_leaves_at_once_and_what_follows_keeps_the_distance() -> None:
    """After the free ones, one in each period, however many are due."""
    pace = Pace(1.0)
    assert not any(waits(pace, *[100.0] * (FREE + 1)))
    assert waits(pace, 100.0, 101.0, 102.0) == [1.0, 1.0, 1.0]


def test_after_a_quiet_time_a_burst_is_free_again() -> None:
    """Those that left too early are forgotten."""
    pace = Pace(1.0)
    waits(pace, *[0.0] * (FREE + 5))
    assert not any(waits(pace, *[1000.0] * (FREE + 1)))


def test_those_that_do_not_wait_delay_others_by_no_more_than_the_distance() -> None:
    """A caller that waits for its events is let through; however often that was, the next waits one period."""
    pace = Pace(1.0)
    for _ in range(1000):
        pace.count(0.0)
    assert pace.wait(0.0) == 1.0


def test_without_a_distance_nothing_waits() -> None:
    assert not any(waits(Pace(0.0), *[0.0] * 1000))
