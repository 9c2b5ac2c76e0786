"""One timer for many subjects: order, lateness, coming again, and what a bad tick must not do to the others."""

from __future__ import annotations

import asyncio
import itertools
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from broker.streams.timer_heap import MIN_DROPPED, TimerHeap


class Ticks:
    """Records the ticks; `after` says when to come again."""

    def __init__(self, after: Callable[[Any, float], float | None] = lambda subject, now: None) -> None:
        self.loop = asyncio.get_running_loop()
        self.seen: list[tuple[Any, float]] = []
        self.after = after
        self.timer: TimerHeap[Any] = TimerHeap(self.tick)
        self.ticked = asyncio.Event()

    def tick(self, subject: Any, now: float) -> float | None:
        self.seen.append((subject, now))
        self.ticked.set()
        return self.after(subject, now)

    async def until(self, count: int) -> list[Any]:
        async with asyncio.timeout(5):
            while len(self.seen) < count:
                self.ticked.clear()
                await self.ticked.wait()
        return [subject for subject, _ in self.seen]


async def test_subjects_are_due_in_the_order_of_their_times() -> None:
    """Whatever the order in which they are added, the earliest is first; equal times keep the order of adding."""
    ticks = Ticks()
    now = ticks.loop.time()
    for subject, wait in (("c", 0.06), ("a", 0.02), ("b1", 0.04), ("b2", 0.04), ("b3", 0.04)):
        ticks.timer.add(subject, now + wait)
    assert await ticks.until(5) == ["a", "b1", "b2", "b3", "c"]


async def test_nothing_is_due_early() -> None:
    """A subject is due at its time, never more than the few milliseconds earlier that let ticks go together."""
    ticks = Ticks()
    due = {n: ticks.loop.time() + 0.03 + n * 0.004 for n in range(10)}
    for subject, when in due.items():
        ticks.timer.add(subject, when)
    await ticks.until(10)
    assert all(when >= due[subject] - 0.0051 for subject, when in ticks.seen)


async def test_one_loop_timer_serves_all() -> None:
    """A thousand subjects hold one timer of the loop."""
    ticks = Ticks()
    for n in range(1000):
        ticks.timer.add(n, ticks.loop.time() + 100 - n / 100)
    scheduled = [handle for handle in ticks.loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    assert len([handle for handle in scheduled if handle._callback == ticks.timer._fire]) == 1
    ticks.timer.stop()


async def test_an_earlier_subject_is_not_held_up_by_a_later_one() -> None:
    """A subject added while a later one is waited for is due at its own time."""
    ticks = Ticks()
    ticks.timer.add("late", ticks.loop.time() + 60)
    ticks.timer.add("soon", ticks.loop.time() + 0.01)
    assert await ticks.until(1) == ["soon"]
    ticks.timer.stop()


async def test_a_subject_comes_again_when_it_says() -> None:
    """A tick's answer is the next time; None forgets the subject."""
    again = iter([0.02, 0.02, None])

    def after(subject: Any, now: float) -> float | None:
        wait = next(again)
        return None if wait is None else now + wait

    ticks = Ticks(after)
    ticks.timer.add("x", ticks.loop.time())
    await ticks.until(3)
    times = [now for _, now in ticks.seen]
    assert times[1] - times[0] >= 0.0149
    assert times[2] - times[1] >= 0.0149
    assert ticks.timer._heap == []


async def test_a_subject_that_is_always_late_does_not_hold_the_loop() -> None:
    """A tick that answers with the past comes again a little later, and others get their turn between."""
    ticks = Ticks(lambda subject, now: now - 100)
    ticks.timer.add("late", ticks.loop.time() - 5)
    await ticks.until(3)
    times = [now for _, now in ticks.seen]
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.0149
    ticks.timer.stop()


async def test_a_tick_may_add_subjects() -> None:
    """What is added from within a tick is due like everything else."""
    ticks = Ticks()

    def after(subject: Any, now: float) -> float | None:
        if subject == "parent":
            ticks.timer.add("child", now - 1)
            ticks.timer.add("grandchild", now + 0.01)
        return None

    ticks.after = after
    ticks.timer.add("parent", ticks.loop.time())
    assert await ticks.until(3) == ["parent", "child", "grandchild"]


async def test_a_tick_that_fails_is_reported_and_stops_nobody_else() -> None:
    """An error in one subject's tick reaches the loop's handler; the other subjects are still served."""
    errors: list[Any] = []

    def after(subject: Any, now: float) -> float | None:
        if subject == "bad":
            raise ZeroDivisionError
        return None

    ticks = Ticks(after)
    ticks.loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    for subject, wait in (("bad", 0.0), ("same moment", 0.0), ("later", 0.01)):
        ticks.timer.add(subject, ticks.loop.time() + wait)
    assert await ticks.until(3) == ["bad", "same moment", "later"]
    assert [type(error) for error in errors] == [ZeroDivisionError]


@pytest.mark.parametrize("armed", [True, False])
async def test_a_stopped_timer_ticks_no_more(armed: bool) -> None:
    """After `stop` nothing is due, and stopping is harmless when nothing ever was."""
    ticks = Ticks()
    if armed:
        ticks.timer.add("x", ticks.loop.time() + 0.005)
    ticks.timer.stop()
    ticks.timer.stop()
    await asyncio.sleep(0.03)
    assert ticks.seen == []


async def test_many_that_are_due_together_do_not_hold_the_loop() -> None:
    """After some milliseconds of ticks the loop comes round before the rest."""

    def work(_: Any, __: float) -> None:
        time.sleep(0.002)

    ticks, rounds = Ticks(work), 0
    now = ticks.loop.time()
    for number in range(30):
        ticks.timer.add(number, now)
    while len(ticks.seen) < 30:
        rounds += 1
        await asyncio.sleep(0)
    assert rounds >= 30 / 4


async def test_a_forgotten_subject_is_let_go_at_once() -> None:
    """It is not due any more, and nothing refers to it, long before it would have been due."""

    class Subject:
        pass

    ticks = Ticks()
    subject = Subject()
    gone = weakref.ref(subject)
    entry = ticks.timer.add(subject, ticks.loop.time() + 60)
    ticks.timer.add("other", ticks.loop.time() + 0.01)
    ticks.timer.forget(entry)
    ticks.timer.forget(entry)
    del subject
    assert gone() is None
    assert await ticks.until(1) == ["other"]
    ticks.timer.stop()


async def test_forgotten_subjects_do_not_pile_up() -> None:
    """Thousands that come and leave hold no more than a few entries; those that stay are due in their order."""
    ticks = Ticks()
    now = ticks.loop.time()
    for number in range(5000):
        ticks.timer.forget(ticks.timer.add(number, now + 100 - number / 100))
        assert len(ticks.timer) <= 2 * MIN_DROPPED + 2
    for number in range(3):
        ticks.timer.add(f"stays {number}", now + 0.01 * (3 - number))
    assert await ticks.until(3) == ["stays 2", "stays 1", "stays 0"]
    ticks.timer.stop()


async def test_a_subject_that_its_own_tick_forgets_does_not_come_again() -> None:
    """Whatever the tick returns."""
    entries = {}

    def again(subject: str, now: float) -> float:
        if len(ticks.seen) == 2:
            ticks.timer.forget(entries[subject])
        return now + 0.02

    ticks = Ticks(again)
    entries["a"] = ticks.timer.add("a", ticks.loop.time() + 0.01)
    assert await ticks.until(2) == ["a", "a"]
    await asyncio.sleep(0.1)
    assert len(ticks.seen) == 2
    assert len(ticks.timer) == 0
