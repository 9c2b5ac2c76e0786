"""Fences are good for one attempt of one execution by one worker, and can be made by edges only."""

from __future__ import annotations

import base64

import pytest
from redis.asyncio import Redis

from broker.jobs.fences import BadFence, Fenced, Fences, worker_id
from emitter.wire.keys import FENCE_SECRET, Owner

OPERATOR = Owner("operator")
ALICE = Owner("alice", "acme")
FENCED = Fenced(ALICE, "ex_1", 2, worker_id(OPERATOR, "w1"))
GIVEN = {"principal": OPERATOR, "execution_id": "ex_1", "attempt": 2}


@pytest.fixture
async def fences(redis: Redis) -> Fences:
    found = Fences(redis)
    await found.load()
    return found


async def test_what_was_fenced_is_read_by_every_edge(fences: Fences, redis: Redis) -> None:
    """Another edge, which has not read the secret yet, knows what a fence is good for; it is the same each time."""
    fence = fences.make(FENCED)
    assert await Fences(redis).check(fence, **GIVEN) == FENCED
    assert fences.make(FENCED) == fence


@pytest.mark.parametrize(
    "other",
    [{"principal": Owner("operator", "acme")}, {"principal": Owner("oper")}, {"execution_id": "ex_2"}, {"attempt": 1}],
)
async def test_it_is_good_for_nothing_else(fences: Fences, other: dict[str, object]) -> None:
    with pytest.raises(BadFence):
        await fences.check(fences.make(FENCED), **{**GIVEN, **other})  # type: ignore[arg-type]


async def test_it_cannot_be_made_or_changed(fences: Fences) -> None:
    """Not a byte of it may differ, and what is no fence at all is refused in the same way."""
    fence = fences.make(FENCED)
    told, _, mac = fence.partition(".")
    other = base64.urlsafe_b64encode(b'["acme","alice","ex_1",2,"default:operator:w2"]').decode()
    changed = [fence[:at] + ("A" if fence[at] != "A" else "B") + fence[at + 1 :] for at in range(len(fence) - 1)]
    for bad in (*changed, f"{other}.{mac}", told, f"{told}.", f".{mac}", "", ".", "é.é", "a.b.c", "bnVsbA.AAAA"):
        with pytest.raises(BadFence):
            await fences.check(bad, **GIVEN)


async def test_the_secret_is_lost(fences: Fences, redis: Redis) -> None:
    """When Redis has lost the secret, an edge makes another one, and the others read it for the next fence."""
    other = Fences(redis)
    await other.load()
    await redis.delete(FENCE_SECRET)
    await other.load()
    fence = other.make(FENCED)
    assert await fences.check(fence, **GIVEN) == FENCED


async def test_an_edge_that_has_just_started_takes_no_forged_fence(redis: Redis) -> None:
    """Before it has read the secret it checks nothing without: a fence that was signed with no secret is none."""
    fenced = Fenced(Owner("alice"), "ex_1", 1, worker_id(Owner("mallory"), "w"))
    forged = Fences(redis).make(fenced)
    with pytest.raises(BadFence):
        await Fences(redis).check(forged, principal=Owner("mallory"), execution_id="ex_1", attempt=1)


async def test_many_that_do_not_fit_cost_redis_nothing(fences: Fences, redis: Redis) -> None:
    """The secret is read again for the first of them."""

    async def reads() -> int:
        return int((await redis.info("commandstats")).get("cmdstat_set", {"calls": 0})["calls"])

    told = fences.make(FENCED).partition(".")[0]
    before = await reads()
    for _ in range(50):
        with pytest.raises(BadFence):
            await fences.check(f"{told}.AAAA", **GIVEN)
    assert await reads() == before + 1
