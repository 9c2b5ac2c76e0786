"""Webhooks in Redis: who wakes whom, who holds what, and what executions without any pay."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter import events
from emitter.errors import UnknownExecution
from emitter.events import Event
from emitter.store import webhooks
from emitter.store.append import append, prepare
from emitter.store.connection import channels_of, connect
from emitter.store.webhooks import TooManyWebhooks
from emitter.wire.keys import WEBHOOKS, WEBHOOKS_HELD, WEBHOOKS_WAKE, Owner
from emitter.wire.record import Field, webhook
from emitter.wire.redact import Redactor
from emitter.wire.webhooks import FOR_ALL, Delivery, Name, Wake, Webhook, start_fields, woken
from tests.clusters import cluster

ALICE = Owner("alice", "acme")
REDACT = Redactor()
HOOK = Webhook(url="https://a.example/")
STARTED = events.ExecutionStarted(task="t", started_at=1, attempt=1)
ENDED = events.ExecutionComplete(result=1, duration=1)
DELTA = events.MessageDelta(message_id="m", delta="x")
ASKED = events.InputRequired(input_id="i", prompt="?", kind="text")


async def write(redis: Redis, execution_id: str, *said: Event, hooks: dict[str, Webhook] | None = None) -> None:
    prepared = [prepare(event, execution_id, redact=REDACT) for event in said]
    fields = start_fields(ALICE, execution_id, hooks or {}, has_one_for_all=False)
    await append(redis, ALICE, execution_id, prepared, fields=fields)


async def heard(redis: Redis, url: str, steps: Any) -> list[list[Name]]:
    """What comes on the channel meanwhile."""
    listener = connect(url)
    try:
        pubsub = listener.pubsub()
        await pubsub.subscribe(WEBHOOKS_WAKE + channels_of(redis).suffix)
        await pubsub.get_message(timeout=5)
        await steps
        await redis.publish(WEBHOOKS_WAKE + channels_of(redis).suffix, "end")
        found = []
        async with asyncio.timeout(5):
            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1)
                if message is not None and message["data"] == b"end":
                    return found
                if message is not None:
                    found.append(woken(message["data"]))
    finally:
        await pubsub.aclose()
        await listener.aclose()


# --- messages --------------------------------------------------------------------------------------------------------


async def test_an_event_that_is_asked_for_wakes(redis: Redis, redis_url: str) -> None:
    """One that is not does not; several in a batch wake once; the first batch as well."""

    async def steps() -> None:
        await write(redis, "ex_1", STARTED, hooks={"request": HOOK})
        await write(redis, "ex_1", DELTA, events.Thinking(thought="…"))
        await write(redis, "ex_1", ASKED, ENDED)
        await write(redis, "ex_2", STARTED, ENDED, hooks={"request": HOOK, "other": HOOK})
        await write(redis, "ex_3", STARTED, ENDED)

    first, both = Name(ALICE, "ex_1", "request"), [Name(ALICE, "ex_2", "request"), Name(ALICE, "ex_2", "other")]
    assert await heard(redis, redis_url, steps()) == [[first], both]


async def test_custom_events_are_asked_for_by_name(redis: Redis, redis_url: str) -> None:
    """And no other whose name begins so."""
    hook = Webhook(url="https://a.example/", events=("custom:sold",))

    async def steps() -> None:
        await write(redis, "ex_1", STARTED, hooks={"request": hook})
        await write(redis, "ex_1", events.Custom(name="sold.out", data={}), events.Custom(name="resold", data={}))
        await write(redis, "ex_1", events.Custom(name="sold", data={}))

    assert len(await heard(redis, redis_url, steps())) == 1


async def test_others_do_not_pay(redis: Redis) -> None:
    """An append to an execution without webhooks makes as many calls in Redis as before there were any."""
    await write(redis, "ex_1", STARTED)

    async def calls() -> dict[str, int]:
        stats: Any = await redis.info("commandstats")
        return {name: row["calls"] for name, row in stats.items()}

    await redis.config_resetstat()
    await write(redis, "ex_1", events.Thinking(thought="…"))
    made = await calls()
    inside = {"cmdstat_" + name: 1 for name in ("hmget", "hget", "hset", "incrby", "time")}
    for name in ("cmdstat_info", "cmdstat_config|resetstat", "cmdstat_evalsha"):
        made.pop(name, None)
    assert made == {**inside, "cmdstat_xadd": 2, "cmdstat_publish": 2}


async def test_what_an_execution_began_with_stays(redis: Redis) -> None:
    """Another process that begins it again, with the webhook of its own settings, takes nothing away."""
    await write(redis, "ex_1", STARTED, hooks={"request": HOOK})
    fields = start_fields(ALICE, "ex_1", {}, has_one_for_all=True)
    await append(redis, ALICE, "ex_1", [prepare(STARTED, "ex_1", redact=REDACT)], fields=fields)
    assert Wake.parse((await webhooks.listed(redis, ALICE, "ex_1")).wake).ids == ("request",)


def test_a_message_that_is_none() -> None:
    for message in (b"", b"\xff", b"a:b request", b"acme:alice:ex_1", b"acme:alice:ex_1 a b,c:d"):
        assert woken(message) == []


# --- the set ---------------------------------------------------------------------------------------------------------

NAME = Name(ALICE, "ex_1", "request")
MEMBER = NAME.member


async def test_one_edge_has_it(redis: Redis) -> None:
    """Of edges that are woken one takes it; a lease that ends makes it due, for any edge."""
    await webhooks.schedule(redis, [NAME])
    assert await webhooks.take(redis, "a", 60_000, [MEMBER]) == [MEMBER]
    assert await webhooks.take(redis, "b", 60_000, [MEMBER]) == []
    assert await webhooks.take_due(redis, "b", 60_000, 10) == []
    assert await webhooks.renew(redis, "a", 1, [MEMBER]) == []
    await asyncio.sleep(0.01)
    assert await webhooks.take_due(redis, "b", 60_000, 10) == [MEMBER]
    assert await webhooks.renew(redis, "a", 60_000, [MEMBER]) == [MEMBER], "a is told that it lost it"
    assert await webhooks.renew(redis, "b", 60_000, [MEMBER]) == []
    await webhooks.release(redis, "a", MEMBER, 0)
    await webhooks.forget(redis, "a", MEMBER)
    assert await redis.hget(WEBHOOKS_HELD, MEMBER) == b"b", "and changes nothing any more"
    await webhooks.forget(redis, "b", MEMBER)
    assert (await redis.zcard(WEBHOOKS), await redis.hlen(WEBHOOKS_HELD)) == (0, 0)


async def test_after_a_failure_it_waits(redis: Redis) -> None:
    """No message makes it sooner."""
    await webhooks.take(redis, "a", 60_000, [MEMBER])
    await webhooks.release(redis, "a", MEMBER, 3000, waits=True)
    await webhooks.schedule(redis, [NAME], 0, sooner=True)
    assert await webhooks.take(redis, "a", 1000, [MEMBER]) == []
    assert await webhooks.take_due(redis, "a", 1000, 10) == []
    await asyncio.sleep(3.1)
    assert await webhooks.take_due(redis, "a", 1000, 10) == [MEMBER]


async def test_a_second_schedule_changes_nothing(redis: Redis) -> None:
    """Unless it is sooner, and meant to be."""
    await webhooks.schedule(redis, [NAME], 60_000)
    await webhooks.schedule(redis, [NAME], 0)
    assert await webhooks.take_due(redis, "a", 1000, 10) == []
    await webhooks.schedule(redis, [NAME], 0, sooner=True)
    assert await webhooks.take_due(redis, "a", 1000, 10) == [MEMBER]


# --- the record ------------------------------------------------------------------------------------------------------


async def test_a_webhook_comes_later(redis: Redis) -> None:
    """It gets what is logged from then on; of an execution that has ended its end."""
    await write(redis, "ex_1", STARTED)
    for _ in range(2):
        await webhooks.add(redis, NAME, HOOK)
    found = await webhooks.listed(redis, ALICE, "ex_1")
    assert Wake.parse(found.wake) == Wake(("request",), HOOK.events)
    assert f'"cursor":"{found.ms}-1"'.encode() in found.deliveries["request"]
    await write(redis, "ex_1", ENDED)
    late = NAME._replace(hook_id="late")
    await webhooks.add(redis, late, HOOK)
    found = await webhooks.listed(redis, ALICE, "ex_1")
    assert found.deliveries["late"] == b'{"from_seq":2}'
    assert await webhooks.remove(redis, late)
    assert not await webhooks.remove(redis, late)
    assert Wake.parse((await webhooks.listed(redis, ALICE, "ex_1")).wake).ids == ("request",)
    assert await redis.zrange(WEBHOOKS, 0, -1) == [MEMBER.encode()]


async def test_there_are_not_too_many(redis: Redis) -> None:
    await write(redis, "ex_1", STARTED)
    for number in range(16):
        await webhooks.add(redis, NAME._replace(hook_id=f"h{number}"), HOOK)
    with pytest.raises(TooManyWebhooks):
        await webhooks.add(redis, NAME, HOOK)
    await webhooks.add(redis, NAME._replace(hook_id="h3"), HOOK)


async def test_an_execution_that_is_gone(redis: Redis) -> None:
    """Nothing is written for one: it would never expire."""
    with pytest.raises(UnknownExecution):
        await webhooks.add(redis, NAME, HOOK)
    with pytest.raises(UnknownExecution):
        await webhooks.remove(redis, NAME)
    await webhooks.save(redis, NAME, Delivery())
    assert await redis.dbsize() == 0


def test_what_begins_with_webhooks() -> None:
    """The field names ids and types; a webhook for all has no URL in the record."""
    assert start_fields(ALICE, "ex_1", {}, has_one_for_all=False) == {}
    hook = Webhook(url="https://a.example/", events=("artifact",))
    fields = start_fields(ALICE, "ex_1", {"request": hook}, has_one_for_all=True)
    assert Wake.parse(fields[Field.HOOKS]) == Wake(("request", FOR_ALL), ("artifact", *HOOK.events))
    assert set(fields) == {Field.HOOKS, webhook("request")}


# --- Cluster ---------------------------------------------------------------------------------------------------------


async def test_in_a_cluster_every_node_hears_it() -> None:
    """The record and the set are in different slots, and the message reaches whoever listens at any node."""
    with cluster(3) as nodes:
        redis = connect(nodes.url)
        listeners = [connect(f"redis://127.0.0.1:{node.port}") for node in nodes.primaries]
        try:
            subscriptions = [listener.pubsub() for listener in listeners]
            for each in subscriptions:
                await each.subscribe(WEBHOOKS_WAKE)
                await each.get_message(timeout=5)
            await webhooks.schedule(redis, [NAME])
            await write(redis, "ex_1", STARTED, ENDED, hooks={"request": HOOK})
            for each in subscriptions:
                message = await each.get_message(ignore_subscribe_messages=True, timeout=5)
                assert message is not None
                assert woken(message["data"]) == [NAME]
                await each.aclose()
            assert await webhooks.take(redis, "a", 1000, [MEMBER]) == [MEMBER]
        finally:
            for client in (redis, *listeners):
                await client.aclose()
