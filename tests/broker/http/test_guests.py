"""Who is let go first, and who never."""

from __future__ import annotations

from typing import Any

import pytest

from broker.http import guests as module
from broker.http.guests import FIRST_REQUEST_SECONDS, STUCK_SECONDS, Guests


class Named:
    """A connection that holds `unsent` bytes."""

    def __init__(self) -> None:
        self.transport: Any = self
        self.unsent = 0


@pytest.fixture
def guests(monkeypatch: pytest.MonkeyPatch) -> Guests:
    monkeypatch.setattr(module, "unsent_bytes", lambda transport: transport.unsent)
    return Guests()


def test_the_silent_go_before_the_idle_and_the_busy_never(guests: Guests) -> None:
    """Among those who do the same, who has done so longest."""
    old, idle, silent, newer = (Named() for _ in range(4))
    for at, each in enumerate((old, idle, silent, newer)):
        guests.enter(each, at)
    for each in (old, idle):
        guests.busy(each)
    assert guests.least(10, spared_seconds=0) is silent
    guests.leave(silent)
    assert guests.least(10, spared_seconds=0) is newer
    guests.busy(newer)
    assert guests.least(10, spared_seconds=0) is None
    guests.rest(idle, 11)
    guests.rest(old, 12)
    assert guests.least(13, spared_seconds=0) is idle
    guests.busy(idle)
    assert guests.least(13, spared_seconds=0) is old


def test_who_has_just_come_is_spared(guests: Guests) -> None:
    """For as long as is asked for."""
    new = Named()
    guests.enter(new, 10.0)
    assert guests.least(10.05, spared_seconds=0.1) is None
    assert guests.least(10.15, spared_seconds=0.1) is new


def test_who_never_asks_is_overdue(guests: Guests) -> None:
    """From the moment of connecting."""
    silent, asked = Named(), Named()
    for each in (silent, asked):
        guests.enter(each, 0)
    guests.busy(asked)
    guests.rest(asked, 1)
    assert guests.overdue(FIRST_REQUEST_SECONDS - 1) == []
    assert guests.overdue(FIRST_REQUEST_SECONDS) == [silent]


def test_who_takes_nothing_of_an_answer_may_go_and_a_slow_reader_may_not(guests: Guests) -> None:
    """Any byte that is taken counts; and who has taken all is busy as before."""
    deaf, slow, quick = Named(), Named(), Named()
    for each in (deaf, slow, quick):
        each.unsent = 1000
        guests.stuck(each, 0)
    guests.unstuck(quick)
    for second in range(1, int(STUCK_SECONDS) + 1):
        slow.unsent -= 1
        guests.look(second)
    assert guests.least(STUCK_SECONDS, spared_seconds=0) is deaf
    guests.leave(deaf)
    assert guests.least(STUCK_SECONDS, spared_seconds=0) is None
