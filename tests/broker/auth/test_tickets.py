"""Stream tickets over a real Redis: what they stand for, how long they last, and that each has one stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.auth import tickets as tickets_module
from broker.auth.permissions import act_for
from broker.auth.refusals import Unauthorized
from broker.auth.tickets import FIRST_USE_SECONDS, LIFETIME_SECONDS, MESSAGE, Tickets
from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.base.reasons import CloseReason
from emitter.wire.keys import Owner, edge_channel

ALICE = Owner("alice")


class Stream:
    """A stream that was opened with a ticket."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.ended: CloseReason | None = None

    def close(self, reason: CloseReason) -> None:
        self.ended = reason


def identity(**fields: Any) -> Identity:
    return Identity(**({"owner": ALICE, "scopes": frozenset({"executions:read"})} | fields))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def edge_a(redis: Redis) -> AsyncIterator[Tickets]:
    async with Tickets(redis, "edge-a") as tickets:
        yield tickets


@pytest.fixture
async def edge_b(redis: Redis) -> AsyncIterator[Tickets]:
    async with Tickets(redis, "edge-b") as tickets:
        yield tickets


async def open_on(edge: Tickets, ticket: str) -> Stream:
    stream = Stream(await edge.redeem(ticket))
    edge.opened(stream.identity, stream.close)
    return stream


async def holder(redis: Redis) -> bytes:
    keys = await redis.keys("rc:ticket-holder:*")
    return (await redis.get(keys[0]) or b"") if keys else b""


async def test_redis_never_sees_a_ticket_and_forgets_an_unused_one_in_time(redis: Redis, edge_a: Tickets) -> None:
    """Only a digest is stored, for 30 s; tickets do not repeat."""
    began = time.monotonic()
    ticket, use_by = await edge_a.mint(identity())
    other, _ = await edge_a.mint(identity())
    assert ticket != other
    assert use_by == pytest.approx(time.time() + FIRST_USE_SECONDS, abs=5)
    keys = await redis.keys("*")
    assert len(keys) == 2
    assert not any(ticket.encode() in key for key in keys)
    left = [await redis.pttl(key) / 1000 for key in keys]
    assert FIRST_USE_SECONDS - (time.monotonic() - began) - 0.1 < min(left) <= max(left) <= FIRST_USE_SECONDS


async def test_a_ticket_keeps_all_that_its_token_was(edge_a: Tickets) -> None:
    """Scopes but admin, token id, expiry and the admin behind an identity survive the way through a ticket."""
    admin = identity(scopes=frozenset({"admin", "ops:read"}), token_id="t1", expires_at=time.time() + 10.5)
    acting = act_for(admin, user="bob", org="acme")
    ticket, expires_at = await edge_a.mint(acting)
    assert expires_at == admin.expires_at, "a ticket does not outlive its token"
    redeemed = await edge_a.redeem(ticket)
    assert redeemed.ticket is not None
    assert {**_fields(redeemed), "ticket": None, "ticket_use": 0} == {
        **_fields(acting),
        "scopes": frozenset({"ops:read"}),
    }


def _fields(value: Identity) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


async def test_a_ticket_in_use_lasts_longer_than_a_minute_after_its_stream(redis: Redis, edge_a: Tickets) -> None:
    ticket, _ = await edge_a.mint(identity())
    stream = await open_on(edge_a, ticket)
    edge_a.closed(stream.identity)
    (key,) = await redis.keys("rc:ticket:*")
    assert await redis.pttl(key) > 60_000
    await open_on(edge_a, ticket)


async def test_a_second_stream_of_a_ticket_replaces_the_first_on_one_edge(edge_a: Tickets) -> None:
    ticket, _ = await edge_a.mint(identity())
    first = await open_on(edge_a, ticket)
    second = await open_on(edge_a, ticket)
    assert (first.ended, second.ended) == (CloseReason.REPLACED, None)
    edge_a.closed(first.identity)  # whose end is no end of the second
    third = await open_on(edge_a, ticket)
    assert (second.ended, third.ended) == (CloseReason.REPLACED, None)


async def test_a_second_stream_of_a_ticket_replaces_the_first_on_another_edge(
    redis: Redis, edge_a: Tickets, edge_b: Tickets
) -> None:
    """The edge that has the older stream is told on its own channel, and only that one."""
    ticket, _ = await edge_a.mint(identity())
    first = await open_on(edge_a, ticket)
    async with asyncio.timeout(10):
        while await holder(redis) != b"edge-a 1":
            await asyncio.sleep(0.01)
    client: Any = redis
    async with client.pubsub() as pubsub:
        await pubsub.subscribe(edge_channel("edge-a"), edge_channel("edge-b"))
        second = await open_on(edge_b, ticket)
        async with asyncio.timeout(10):
            while (message := await pubsub.get_message(ignore_subscribe_messages=True, timeout=1)) is None:
                pass
    assert message["channel"] == edge_channel("edge-a").encode()
    assert message["data"].startswith(MESSAGE)
    edge_a.on_message(message["data"])
    assert (first.ended, second.ended) == (CloseReason.REPLACED, None)


async def test_a_message_about_an_earlier_stream_ends_no_later_one(edge_a: Tickets) -> None:
    """A message that was under way while the ticket opened a stream here again is about the one before."""
    ticket, _ = await edge_a.mint(identity())
    first = await open_on(edge_a, ticket)
    second = await open_on(edge_a, ticket)
    edge_a.on_message(MESSAGE + f"{first.identity.ticket} 1".encode())
    assert second.ended is None
    for odd in (b"ticket ", b"ticket x", b"ticket \xff \xff", f"ticket {second.identity.ticket}".encode()):
        edge_a.on_message(odd)
    assert second.ended is None


async def test_tickets_of_open_streams_are_renewed_and_written_again_when_lost(
    redis: Redis, edge_a: Tickets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream may be open for long, over a Redis that comes back empty: its ticket opens it again all the same."""
    monkeypatch.setattr(tickets_module, "RENEW_SECONDS", 0.05)
    ticket, _ = await edge_a.mint(identity(scopes=frozenset({"ops:read"})))
    stream = await open_on(edge_a, ticket)
    await edge_a._renew()
    (key,) = await redis.keys("rc:ticket:*")
    assert await redis.pttl(key) > 1000 * LIFETIME_SECONDS - 5000
    await redis.flushall()
    await edge_a._renew()
    assert {**_fields(await edge_a.redeem(ticket)), "ticket_use": 1} == _fields(stream.identity)


async def test_nothing_is_kept_of_streams_that_ended(edge_a: Tickets) -> None:
    for _ in range(20):
        ticket, _ = await edge_a.mint(identity())
        stream = await open_on(edge_a, ticket)
        edge_a.closed(stream.identity)
    await until(lambda: not edge_a._unclaimed)
    assert not edge_a._open


async def test_a_stream_without_a_ticket_is_none_of_its_business(edge_a: Tickets) -> None:
    stream = Stream(identity())
    edge_a.opened(stream.identity, stream.close)
    edge_a.closed(stream.identity)
    assert not edge_a._open


async def test_an_expired_identity_is_refused_however_fresh_the_ticket(redis: Redis) -> None:
    tickets = Tickets(redis, "edge-a", clock=lambda: time.time() + 3600)
    ticket, _ = await Tickets(redis, "edge-a").mint(identity(expires_at=time.time() + 60))
    with pytest.raises(Unauthorized, match="expired"):
        await tickets.redeem(ticket)


async def test_an_admins_ticket_is_for_the_user_it_was_made_for(edge_a: Tickets) -> None:
    """Whoever holds it cannot turn it to somebody else by `?user=`."""
    admin = identity(scopes=frozenset({"admin", "executions:read"}))
    ticket, _ = await edge_a.mint(act_for(admin, user="bob", org=None))
    redeemed = await edge_a.redeem(ticket)
    assert act_for(redeemed, user="bob", org=None).owner == Owner("bob")
    with pytest.raises(Problem, match="needs scope admin"):
        act_for(redeemed, user="carol", org=None)


async def test_a_ticket_with_org_read_is_for_the_user_it_was_made_for(edge_a: Tickets) -> None:
    """Also one for one's own streams: it opens nobody else's."""
    reader = identity(scopes=frozenset({"org:read", "executions:read"}))
    for user in (None, "bob"):
        acting = act_for(reader, user=user, org=None)
        ticket, _ = await edge_a.mint(acting)
        redeemed = await edge_a.redeem(ticket)
        assert act_for(redeemed, user=user, org=None).owner == acting.owner
        with pytest.raises(Problem, match="needs scope admin"):
            act_for(redeemed, user="carol", org=None)


async def test_a_claim_that_comes_late_ends_the_older_stream(redis: Redis, edge_a: Tickets, edge_b: Tickets) -> None:
    """The older stream's edge says last that it has the ticket: its own stream ends, and the newer one stays."""
    ticket, _ = await edge_a.mint(identity())
    first = await edge_a.redeem(ticket)
    newer = await open_on(edge_b, ticket)
    async with asyncio.timeout(10):
        while await holder(redis) != b"edge-b 2":
            await asyncio.sleep(0.01)
    older = Stream(first)
    edge_a.opened(older.identity, older.close)
    await until(lambda: older.ended is CloseReason.REPLACED)
    assert newer.ended is None
    assert await holder(redis) == b"edge-b 2"


async def test_tickets_that_are_none_leave_nothing_in_redis(redis: Redis, edge_a: Tickets) -> None:
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await edge_a.redeem("x" * 22)
    assert await redis.dbsize() == 0
