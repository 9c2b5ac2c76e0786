"""The places of receivers and users."""

from __future__ import annotations

import asyncio

from broker.webhooks import lanes
from broker.webhooks.lanes import FAILURES, MAX_LANES, PLACES, Lanes


async def test_a_lane_has_a_few_places(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Who finds none waits a moment, and then comes again later: the more there are, the later."""
    monkeypatch.setattr(lanes, "PATIENCE_SECONDS", 0.05)
    lane = Lanes().of("user at receiver", "a")
    assert [await lane.enter(0.0) for _ in range(PLACES["user at receiver"])] == [0.0] * PLACES["user at receiver"]
    waiting = [await asyncio.gather(*(lane.enter(0.0) for _ in range(100)))]
    later = sorted(waiting[0])
    assert later[0] > 0
    assert later[-1] > later[10]
    assert len(set(later)) > 50


async def test_a_place_that_is_given_back_goes_to_the_next() -> None:
    lane = Lanes().of("user at receiver", "a")
    for _ in range(PLACES["user at receiver"]):
        await lane.enter(0.0)
    next_one = asyncio.create_task(lane.enter(0.0))
    await asyncio.sleep(0)
    lane.leave(0.2)
    assert await next_one == 0.0


def test_a_receiver_that_is_away_is_left_alone() -> None:
    """After a few failures in a row; one at a time tries it for all, and its answer opens the lane."""
    lane = Lanes().of("user at receiver", "a")
    for _ in range(FAILURES - 1):
        lane.note(10.0, is_away=True)
    assert lane.closed_for(10.0) == 0
    lane.note(10.0, is_away=True)
    assert lane.closed_for(10.5) > 0
    assert [lane.closed_for(12.0) > 0 for _ in range(3)] == [False, True, True]
    for _ in range(20):
        lane.note(12.0, is_away=True)
    assert lane.closed_for(12.0) < 4, "what failed together counts once"
    for second in range(100, 2000, 100):
        assert lane.closed_for(second) == 0
        lane.note(second, is_away=True)
    assert 59 < lane.closed_for(1900.0) <= 61
    lane.note(1901.0, is_away=False)
    assert lane.closed_for(1901.0) == 0


async def test_lanes_are_forgotten() -> None:
    """But not one that somebody is in; those of receivers that are away, too, which users may name without an end."""
    many = Lanes()
    used = many.of("receiver", "used")
    await used.enter(0.0)
    for number in range(MAX_LANES + 500):
        many.of("user at receiver", str(number)).note(0.0, is_away=True)
    assert len(many) <= MAX_LANES + 1
    assert many.of("receiver", "used") is used
