"""When an agent is over a limit, by moments that are given."""

from __future__ import annotations

import pytest

from emitter.worker.deadlines import Deadlines, Limit, Notice

TIME, IDLE = Limit("time", 60), Limit("idle", 10)


def said(deadlines: Deadlines, now: float, active_at: float = 100) -> list[tuple[str, str]]:
    return [(notice.limit.kind, notice.action) for notice in deadlines.due(now, active_at)]


def test_half_of_a_limit_is_said_once_and_then_its_end() -> None:
    """Nothing before the half, one `continuing` from there on, `stopping` at the end."""
    deadlines = Deadlines(100, time_limit=60)
    assert said(deadlines, 129.9) == []
    assert said(deadlines, 130) == [("time", "continuing")]
    assert said(deadlines, 159.9) == []
    assert said(deadlines, 160) == [("time", "stopping")]


def test_the_time_limit_knows_no_activity() -> None:
    """An agent that is active all the time is over its time limit just the same."""
    deadlines = Deadlines(100, time_limit=60)
    assert said(deadlines, 130, 130) == [("time", "continuing")]
    assert said(deadlines, 160, 160) == [("time", "stopping")]


def test_activity_begins_a_silence_anew() -> None:
    """Each silence has its own half, said once, and only one that lasts to its end stops."""
    deadlines = Deadlines(100, idle_limit=10)
    assert said(deadlines, 105, 100) == [("idle", "continuing")]
    assert said(deadlines, 109, 100) == []
    assert said(deadlines, 111, 108) == []
    assert said(deadlines, 113, 108) == [("idle", "continuing")]
    assert said(deadlines, 117.9, 108) == []
    assert said(deadlines, 118, 108) == [("idle", "stopping")]


def test_the_limit_that_ends_first_decides() -> None:
    """Of two limits that are both over, seen late, the one whose end came first stops; it alone is spoken of."""
    assert said(Deadlines(100, time_limit=60, idle_limit=10), 200, 145) == [("idle", "stopping")]
    assert said(Deadlines(100, time_limit=60, idle_limit=10), 200, 155) == [("time", "stopping")]
    assert said(Deadlines(100, time_limit=60, idle_limit=10), 160, 155) == [("time", "stopping")]


def test_the_halves_of_both_limits_are_said() -> None:
    """Each limit speaks for itself until one is over."""
    deadlines = Deadlines(100, time_limit=60, idle_limit=40)
    assert said(deadlines, 120) == [("idle", "continuing")]
    assert said(deadlines, 130) == [("time", "continuing")]
    assert said(Deadlines(100, time_limit=60, idle_limit=60), 130) == [("time", "continuing"), ("idle", "continuing")]


def test_the_next_moment_is_the_next_half_or_end() -> None:
    """There is always exactly one moment to wait for, and none without a limit."""
    deadlines = Deadlines(100, time_limit=60, idle_limit=50)
    assert deadlines.next_at(100) == 125
    deadlines.due(125, 100)
    assert deadlines.next_at(100) == 130
    deadlines.due(130, 100)
    assert deadlines.next_at(100) == 150
    assert deadlines.next_at(128) == 153
    assert deadlines.next_at(140) == 160
    assert Deadlines(100).next_at(100) is None
    assert Deadlines(100).due(10_000, 100) == []


@pytest.mark.parametrize(
    ("notice", "message"),
    [
        (Notice(TIME, "continuing"), "running for 30 s; stopped at 60 s"),
        (Notice(TIME, "stopping"), "running for 60 s; stopped"),
        (Notice(IDLE, "continuing"), "no event for 5 s; stopped at 10 s"),
        (Notice(IDLE, "stopping"), "no event for 10 s; stopped"),
        (Notice(Limit("time", 2_592_000), "continuing"), "running for 1296000 s; stopped at 2592000 s"),
        (Notice(Limit("idle", 0.5), "continuing"), "no event for 0.25 s; stopped at 0.5 s"),
    ],
)
def test_a_notice_says_what_and_how_long(notice: Notice, message: str) -> None:
    """Seconds as a person writes them."""
    assert notice.message == message


def test_a_limit_is_named_with_its_seconds() -> None:
    """As it stands in the execution's error."""
    assert (str(TIME), str(IDLE)) == ("time limit of 60 s", "idle limit of 10 s")
