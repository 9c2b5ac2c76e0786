"""Users get a scarce thing one after the other, and slices of work give the loop back."""

from __future__ import annotations

import asyncio
import random

import pytest

from broker.base.fairness import WAITING_PER_USER, FairSemaphore, Slices
from broker.base.problem import Problem
from emitter.wire.keys import Owner

EVE, BOB, CAROL = Owner("eve"), Owner("bob"), Owner("carol")


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_at_once_and_so_many_of_one_user() -> None:
    """Who has to wait gets the next turn."""
    turns = FairSemaphore("things", 3, 2)
    for user in (EVE, EVE, BOB):
        await turns.take(user)
    waiting = [asyncio.create_task(turns.take(user)) for user in (EVE, CAROL)]
    await settle()
    assert [task.done() for task in waiting] == [False, False]
    turns.give_back(BOB)
    await settle()
    assert [task.done() for task in waiting] == [False, True]
    turns.give_back(EVE)
    await settle()
    assert waiting[0].done()


async def test_users_take_turns_however_many_requests_each_has() -> None:
    """A user's second request comes after everybody's first."""
    turns, order = FairSemaphore("things", 1, 0), []
    await turns.take(EVE)

    async def one(user: Owner) -> None:
        async with turns.turn(user):
            order.append(user.user)

    tasks = [asyncio.create_task(one(user)) for user in [EVE] * 5 + [BOB] * 2 + [CAROL]]
    await settle()
    turns.give_back(EVE)
    await asyncio.gather(*tasks)
    assert order == ["eve", "bob", "carol", "eve", "bob", "eve", "eve", "eve"]


async def test_the_wait_is_bounded() -> None:
    """429 where the user's own requests are in the way, 503 where others' are, both with a time to return; who is
    patient waits on."""
    turns = FairSemaphore("things", 2, 1, wait_seconds=0.01)
    await turns.take(EVE)
    await turns.take(BOB)
    for user, status in ((EVE, 429), (CAROL, 503)):
        with pytest.raises(Problem) as caught:
            await turns.take(user)
        assert (caught.value.status, "Retry-After" in caught.value.headers) == (status, True)
    patient = asyncio.create_task(turns.take(EVE, is_patient=True))
    await asyncio.sleep(0.05)
    turns.give_back(EVE)
    await patient


async def test_so_many_may_wait() -> None:
    """The next is refused at once."""
    turns = FairSemaphore("things", 0, 1)
    await turns.take(EVE)
    waiting = [asyncio.create_task(turns.take(EVE)) for _ in range(WAITING_PER_USER)]
    await settle()
    with pytest.raises(Problem) as caught:
        await turns.take(EVE)
    assert caught.value.status == 429
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    turns.give_back(EVE)
    assert not turns._waiting
    assert not turns._taken_by


@pytest.mark.parametrize("seed", range(20))
async def test_nothing_is_lost_when_those_who_wait_leave(seed: int) -> None:
    """Whenever they leave: there are never more turns than the limits allow, and in the end all are free."""
    dice, turns, taken = random.Random(seed), FairSemaphore("things", 3, 2), []

    async def one(user: Owner) -> None:
        async with turns.turn(user):
            taken.append(user)
            assert len(taken) <= 3
            assert taken.count(user) <= 2
            try:
                for _ in range(dice.randint(0, 3)):
                    await asyncio.sleep(0)
            finally:
                taken.remove(user)

    tasks = [asyncio.create_task(one(dice.choice((EVE, BOB, CAROL)))) for _ in range(60)]
    for task in dice.sample(tasks, 20):
        await asyncio.sleep(0)
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in found} <= {type(None), asyncio.CancelledError}
    assert (turns._taken, turns._taken_by, turns._waiting) == (0, {}, {})


async def test_a_slice_ends_when_its_time_is_up() -> None:
    """Not sooner: most work is shorter than a slice."""
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    slices = Slices(3600)
    for _ in range(100):
        await slices.pause()
    assert rounds == 0
    slices = Slices(0)
    for _ in range(100):
        await slices.pause()
    assert rounds == 100
    counting.cancel()
