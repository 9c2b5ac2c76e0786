"""Work in turns: in order, in slices, and with the loop free in between."""

from __future__ import annotations

import asyncio
import time

import pytest

from broker.base.slices import Turns


async def test_steps_are_done_in_the_order_of_their_coming() -> None:
    """Each gets what its step returned, or what it raised, and nobody else's."""
    turns, done = Turns(), []

    def step(number: int) -> int:
        done.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    results = await asyncio.gather(
        *(turns.take("alice", lambda n=n: step(n)) for n in range(6)), return_exceptions=True
    )
    assert done == list(range(6))
    assert [result for result in results if not isinstance(result, Exception)] == [0, 1, 2, 4, 5]
    assert [str(result) for result in results if isinstance(result, Exception)] == ["three"]


async def test_the_loop_is_free_between_slices() -> None:
    """However many wait, what else is ready on the loop comes round after each slice."""
    turns, rounds = Turns(slice_seconds=0.01), 0
    working = [asyncio.create_task(turns.take("alice", lambda: time.sleep(0.004))) for _ in range(60)]
    while not all(task.done() for task in working):
        rounds += 1
        await asyncio.sleep(0)
    assert rounds >= 60 / 4, "a slice holds about three of these"


async def test_a_step_learns_when_its_round_is_over() -> None:
    """A step that can go on later works for a slice, and the next one has its turn before it does."""
    turns, done = Turns(slice_seconds=0.01), []

    def long(name: str) -> None:
        while not turns.is_over:
            time.sleep(0.001)
        done.append(name)

    async def worker(name: str) -> None:
        for _ in range(3):
            await turns.take("alice", lambda: long(name))

    await asyncio.gather(worker("a"), worker("b"), worker("c"))
    assert done == ["a", "b", "c"] * 3


async def test_who_was_cancelled_has_no_turn() -> None:
    """A step that nobody waits for any more is not done, and holds nobody up."""
    turns, done = Turns(), []
    first, second = (asyncio.create_task(turns.take("alice", lambda n=n: done.append(n))) for n in (1, 2))
    await asyncio.sleep(0)  # both wait
    first.cancel()
    await second
    assert done == [2]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_nobody_waits_for_all_of_another_s_work() -> None:
    """Who comes late, while one user has a hundred steps before him, waits for one of them or two."""
    turns, done = Turns(slice_seconds=0.002), []

    def step(name: str) -> None:
        time.sleep(0.002)
        done.append(name)

    eve = [asyncio.create_task(turns.take("eve", lambda: step("eve"))) for _ in range(50)]
    await asyncio.sleep(0.01)
    before = len(done)
    await turns.take("bob", lambda: step("bob"))
    assert done.index("bob") <= before + 2
    await asyncio.gather(*eve)
    assert len(done) == 51
