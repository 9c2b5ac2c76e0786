"""Who is let go first, and who never."""

from __future__ import annotations

from typing import Any

import pytest

from broker.http import open_connections as module
from broker.http.open_connections import FIRST_REQUEST_SECONDS, STALLED_SECONDS, OpenConnections


class Named:
    """A connection that holds `unsent` bytes."""

    def __init__(self) -> None:
        self.transport: Any = self
        self.unsent = 0


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> OpenConnections:
    monkeypatch.setattr(module, "unsent_bytes", lambda transport: transport.unsent)
    return OpenConnections()


def test_the_silent_go_before_the_idle_and_the_busy_never(connections: OpenConnections) -> None:
    """Among those who do the same, who has done so longest."""
    old, idle, silent, newer = (Named() for _ in range(4))
    for at, each in enumerate((old, idle, silent, newer)):
        connections.add(each, at)
    for each in (old, idle):
        connections.mark_busy(each)
    assert connections.evictable(10, spared_seconds=0) is silent
    connections.remove(silent)
    assert connections.evictable(10, spared_seconds=0) is newer
    connections.mark_busy(newer)
    assert connections.evictable(10, spared_seconds=0) is None
    connections.mark_idle(idle, 11)
    connections.mark_idle(old, 12)
    assert connections.evictable(13, spared_seconds=0) is idle
    connections.mark_busy(idle)
    assert connections.evictable(13, spared_seconds=0) is old


def test_who_has_just_come_is_spared(connections: OpenConnections) -> None:
    """For as long as is asked for."""
    new = Named()
    connections.add(new, 10.0)
    assert connections.evictable(10.05, spared_seconds=0.1) is None
    assert connections.evictable(10.15, spared_seconds=0.1) is new


def test_who_never_asks_is_overdue(connections: OpenConnections) -> None:
    """From the moment of connecting."""
    silent, asked = Named(), Named()
    for each in (silent, asked):
        connections.add(each, 0)
    connections.mark_busy(asked)
    connections.mark_idle(asked, 1)
    assert connections.overdue(FIRST_REQUEST_SECONDS - 1) == []
    assert connections.overdue(FIRST_REQUEST_SECONDS) == [silent]


def test_who_takes_nothing_of_an_answer_may_go_and_a_slow_reader_may_not(connections: OpenConnections) -> None:
    """Any byte that is taken counts; and who has taken all is busy as before."""
    deaf, slow, quick = Named(), Named(), Named()
    for each in (deaf, slow, quick):
        each.unsent = 1000
        connections.mark_stalled(each, 0)
    connections.clear_stalled(quick)
    for second in range(1, int(STALLED_SECONDS) + 1):
        slow.unsent -= 1
        connections.check_stalled(second)
    assert connections.evictable(STALLED_SECONDS, spared_seconds=0) is deaf
    connections.remove(deaf)
    assert connections.evictable(STALLED_SECONDS, spared_seconds=0) is None


def test_another_protocol_gives_a_connection_no_more_time(connections: OpenConnections) -> None:
    """Of one whose first bytes were no whole request; one that was busy is not silent for it."""
    first, second, busy, after = (Named() for _ in range(4))
    connections.add(first, 0)
    connections.add(second, 10)
    connections.replace(first, second)
    assert connections.overdue(FIRST_REQUEST_SECONDS) == [second]
    connections.add(busy, 0)
    connections.mark_busy(busy)
    connections.replace(busy, after)
    assert connections.overdue(FIRST_REQUEST_SECONDS) == [second]
