"""The deliveries of an edge, over a real Redis and to real receivers: what happens to logs, leases and messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.base.targets import Target
from broker.log.history import History
from broker.webhooks import delivery, lanes
from broker.webhooks.delivery import Deliveries
from broker.webhooks.sender import Sender
from emitter import events
from emitter.store import webhooks
from emitter.store.append import append, prepare
from emitter.wire.keys import WEBHOOKS, WEBHOOKS_HELD, Owner
from emitter.wire.redact import Redactor
from emitter.wire.webhooks import Delivery, Name, Webhook, start_fields
from tests.edges import LONGEST_SECONDS, eventually, under_load
from tests.receivers import SECRET, receiver

ALICE = Owner("alice")
REDACT = Redactor()
STARTED = events.ExecutionStarted(task="t", started_at=1, attempt=1)
ENDED = events.ExecutionComplete(result=1, duration=1)
TYPES = ("thinking", "execution:complete")


@contextlib.asynccontextmanager
async def delivering(redis: Redis, edge: str = "e1", **more: Any) -> AsyncIterator[tuple[Deliveries, Metrics]]:
    metrics = Metrics()
    history = History(redis, metrics)
    options: dict[str, Any] = {"url": "", "retry_hours": 24.0, "forms": {}, **more}
    async with (
        Sender(SECRET, ["127.0.0.1"], "r") as sender,
        Deliveries(redis, history, sender, metrics, edge, **options) as deliveries,
    ):
        yield deliveries, metrics
    await history.close()


async def begin(redis: Redis, execution_id: str, url: str, *said: events.Event, owner: Owner = ALICE) -> Name:
    """An execution with a webhook, whose next check is now: what is checked before it begins is forgotten."""
    name = Name(owner, execution_id, "request")
    fields = start_fields(owner, execution_id, {"request": Webhook(url=url, events=TYPES)}, has_one_for_all=False)
    prepared = [prepare(event, execution_id, redact=REDACT) for event in (STARTED, *said)]
    await append(redis, owner, execution_id, prepared, fields=fields)
    await webhooks.schedule(redis, [name], 0)
    return name


async def say(redis: Redis, execution_id: str, *said: events.Event) -> None:
    await append(redis, ALICE, execution_id, [prepare(event, execution_id, redact=REDACT) for event in said])


def thoughts(count: int) -> list[events.Event]:
    return [events.Thinking(thought=str(number)) for number in range(count)]


def count_of(metrics: Metrics, result: str) -> float:
    return metrics.registry.get_sample_value("runcast_webhooks_total", {"result": result}) or 0.0


async def progress(redis: Redis, name: Name) -> Delivery:
    found = await webhooks.read(redis, name.owner, name.execution_id, [name.hook_id])
    encoded = found.deliveries.get(name.hook_id, b"{}")
    return Delivery(**json.loads(encoded))


async def until_empty(redis: Redis) -> None:
    """Nothing waits for a delivery."""
    async with asyncio.timeout(20):
        while await redis.zcard(WEBHOOKS) or await redis.hlen(WEBHOOKS_HELD):
            await asyncio.sleep(0.02)


async def test_who_waits_for_a_turn_of_their_own_takes_none_of_a_receiver(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deliveries of a user whose others hang everywhere keep none of those places that all users share."""
    monkeypatch.setattr(lanes, "PATIENCE_SECONDS", LONGEST_SECONDS)
    async with delivering(redis) as (deliveries, _):
        target = Target("a.example", 443, is_named=False)
        mine = deliveries._lanes_of(ALICE, target)
        user = deliveries._lanes.of("user", "default:alice")
        at_receiver = deliveries._lanes.of("receiver", target.origin)
        for _ in range(lanes.PLACES["user"]):
            assert await user.enter(0.0) == 0.0
        waiting = [asyncio.create_task(delivery._enter(mine)) for _ in range(lanes.PLACES["user at receiver"])]
        await eventually("they wait", lambda: user._waiting == len(waiting))
        assert at_receiver.is_idle
        for _ in waiting:
            user.leave()
        assert await asyncio.gather(*waiting) == [0.0] * len(waiting)
        assert not at_receiver.is_idle


async def test_what_no_message_told_is_found(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edge that hears nothing looks by itself."""
    monkeypatch.setattr(webhooks, "CHECK_MS", 200)
    async with receiver() as here, delivering(redis):
        await begin(redis, "ex_1", here.url, *thoughts(2))
        await here.until_count(2)
        await say(redis, "ex_1", *thoughts(1), ENDED)
        await here.until_count(4)
        await until_empty(redis)
        assert [got.body["data"]["data"].get("thought") for got in here.got] == ["0", "1", "0", None]


async def test_a_message_comes_while_it_is_held(redis: Redis) -> None:
    """Between the last read and the release: it is read again at once."""
    async with receiver() as here, delivering(redis) as (deliveries, _):
        here.answers.clear()
        name = await begin(redis, "ex_1", here.url, *thoughts(1))
        wake = f"default:alice:{name.execution_id} request".encode()
        await here.until_count(1)
        await say(redis, "ex_1", ENDED)
        deliveries.on_message(wake)
        here.answers.set()
        await here.until_count(2)


async def test_a_log_that_is_gone(redis: Redis) -> None:
    """The end is in the record. What was before it is counted as lost."""
    async with receiver() as here:
        name = await begin(redis, "ex_1", here.url, *thoughts(3), ENDED)
        await redis.delete(ALICE.execution("ex_1").log)
        async with delivering(redis) as (_, metrics):
            (got,) = await here.until_count(1)
            await until_empty(redis)
            assert (got.type, count_of(metrics, "lost"), count_of(metrics, "delivered")) == ("execution:complete", 1, 1)
        assert (await progress(redis, name)).state == "done"


async def test_a_log_that_was_trimmed(redis: Redis) -> None:
    """What it still has is delivered, in order."""
    async with receiver() as here:
        await begin(redis, "ex_1", here.url, *thoughts(10), ENDED)
        await redis.xtrim(ALICE.execution("ex_1").log, maxlen=4, approximate=False)
        async with delivering(redis) as (_, metrics):
            await here.until_count(4)
            await until_empty(redis)
            assert [got.body["data"]["data"].get("thought") for got in here.got] == ["7", "8", "9", None]
            assert count_of(metrics, "lost") == 1


async def test_a_record_that_is_gone_or_broken(redis: Redis) -> None:
    """It is forgotten, and so is what is no webhook; others are delivered."""
    async with receiver() as here:
        gone = await begin(redis, "ex_gone", here.url, ENDED)
        await redis.delete(ALICE.execution(gone.execution_id).record)
        broken = await begin(redis, "ex_broken", here.url, ENDED)
        await redis.hset(ALICE.execution("ex_broken").record, "w:request", "{")  # type: ignore[misc]
        lost = await begin(redis, "ex_lost", here.url, ENDED)
        await redis.hset(ALICE.execution("ex_lost").record, "d:request", '{"cursor":"x"}')  # type: ignore[misc]
        await redis.zadd(WEBHOOKS, {"nonsense": 1, b"\xff": 1})
        async with delivering(redis):
            (got,) = await here.until_count(1)
            await until_empty(redis)
        assert (got.execution, broken.hook_id, lost.hook_id) == ("ex_lost", "request", "request")


async def test_an_event_that_cannot_be_shown(redis: Redis) -> None:
    """It is tried and given up as one that is not taken; others are delivered meanwhile."""
    async with receiver() as here:
        name = await begin(redis, "ex_1", here.url)
        log = ALICE.execution("ex_1").log
        await redis.xadd(log, {"thinking": "{"}, id=f"{2**42}-2")
        await begin(redis, "ex_2", here.url, ENDED)
        async with delivering(redis):
            (got,) = await here.until_count(1)
            async with asyncio.timeout(5):
                while not (found := await progress(redis, name)).tries:
                    await asyncio.sleep(0.02)
        assert (got.execution, found.error, found.state) == ("ex_2", "it cannot be shown", "open")


async def test_who_has_lost_it_stops(redis: Redis) -> None:
    """An edge whose lease another has got, because it was stopped for a while, posts nothing more."""
    async with receiver() as here, delivering(redis, lease_ms=400) as (deliveries, _):
        here.answers.clear()
        name = await begin(redis, "ex_1", here.url, *thoughts(5), ENDED)
        await here.until_count(1)
        await redis.hset(WEBHOOKS_HELD, name.member, "another")  # type: ignore[misc]
        await redis.zadd(WEBHOOKS, {name.member: 2 * time.time() * 1000})
        async with asyncio.timeout(under_load(5)):
            while deliveries._held:  # its next renewal finds out
                await asyncio.sleep(0.02)
        here.answers.set()
        await asyncio.sleep(0.5)
        assert len(here.got) == 1
        assert await redis.hget(WEBHOOKS_HELD, name.member) == b"another"  # type: ignore[misc]


async def test_it_is_replaced_while_its_receiver_answers(redis: Redis) -> None:
    """What the old receiver says (it wants no more) is not said of the new one, which gets all from then on."""
    async with receiver() as old, receiver() as new, delivering(redis):
        old.answers.clear()
        old.answer = lambda _: web.Response(status=410)
        name = await begin(redis, "ex_1", old.url, *thoughts(1))
        await old.until_count(1)
        await webhooks.add(redis, name, Webhook(url=new.url, events=TYPES))
        await say(redis, "ex_1", ENDED)
        old.answers.set()
        await new.until_count(1)
        await until_empty(redis)
        found = await progress(redis, name)
        assert (len(old.got), new.got[0].type, found.state, found.delivered) == (1, "execution:complete", "done", 1)


async def test_it_is_removed_while_its_receiver_answers(redis: Redis) -> None:
    """It leaves nothing in the record, and no receiver gets more."""
    async with receiver() as here, delivering(redis):
        here.answers.clear()
        name = await begin(redis, "ex_1", here.url, *thoughts(3))
        await here.until_count(1)
        await webhooks.remove(redis, name)
        here.answers.set()
        await asyncio.sleep(0.5)
        record = await redis.hgetall(ALICE.execution("ex_1").record)  # type: ignore[misc]
        assert (len(here.got), [field for field in record if b"request" in field]) == (1, [])


async def test_an_edge_that_stops_gives_back_at_once(redis: Redis) -> None:
    async with receiver() as here:
        here.delay = 5.0
        async with delivering(redis, "e1"):
            await begin(redis, "ex_1", here.url, *thoughts(2), ENDED)
            await here.until_count(1)
        here.delay = 0.0
        begun = time.monotonic()
        async with delivering(redis, "e2"):
            await here.until_count(4)
        assert time.monotonic() - begun < under_load(4)
        first, again, *_ = here.got
        assert (first.id, first.raw) == (again.id, again.raw)


async def test_a_long_backlog_in_order(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 executions whose receiver was away each comes in the order of its log, none is missed, and while it is
    away few connections are tried."""
    monkeypatch.setattr(delivery, "FIRST_RETRY", 0.3)
    monkeypatch.setattr(lanes, "LONGEST_PAUSE", 2.0)
    async with receiver() as here:
        await here.stop()
        names = [await begin(redis, f"ex_{number}", here.url, *thoughts(5), ENDED) for number in range(100)]
        async with delivering(redis) as (_, metrics):
            async with asyncio.timeout(30):
                while count_of(metrics, "retried") < 5:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(3)
            assert count_of(metrics, "retried") < 60, "few try it for all"
            assert await redis.zcard(WEBHOOKS) == 100
            await here.start()
            await here.until_count(100 * 6, 50)
            await until_empty(redis)
            assert count_of(metrics, "delivered") == 600
        for name in names:
            said = [got.body["data"]["data"].get("thought") for got in here.got if got.execution == name.execution_id]
            assert said == ["0", "1", "2", "3", "4", None]


async def test_a_receiver_is_given_up(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is away, whose webhooks only wait: after the time, and not before."""
    monkeypatch.setattr(delivery, "FIRST_RETRY", 0.2)
    async with receiver() as here:
        await here.stop()
        names = [await begin(redis, f"ex_{number}", here.url, ENDED) for number in range(20)]
        begun = time.monotonic()
        async with delivering(redis, retry_hours=2 / 3600) as (_, metrics):
            async with asyncio.timeout(20):
                while count_of(metrics, "failed") == 0:
                    await asyncio.sleep(0.02)
            assert time.monotonic() - begun > 1.99
            await until_empty(redis)
            assert count_of(metrics, "failed") == 20
        for name in names:
            found = await webhooks.read(redis, ALICE, name.execution_id, ["request"])
            assert (await progress(redis, name)).state == "failed"
            assert b"hidden" not in found.webhooks["request"]


async def test_a_user_s_flood_slows_no_other_user(redis: Redis) -> None:
    """Of one receiver that both have: the second user's one message does not wait for the first one's thousand."""
    async with receiver() as here:
        here.delay = 0.2
        for number in range(400):
            await begin(redis, f"ex_{number}", here.url, ENDED)
        async with delivering(redis):
            await here.until_count(30)
            begun = time.monotonic()
            await begin(redis, "ex_of_bob", here.url, ENDED, owner=Owner("bob"))
            await here.until("bob's", lambda got: any(each.execution == "ex_of_bob" for each in got), 30)
            seconds = time.monotonic() - begun
            print(f"{seconds * 1000:.0f} ms beside a flood of which {len(here.got)} came")
            assert seconds < under_load(3)
            assert len(here.got) < 300


async def test_what_hangs_for_one_user_is_closed_for_no_other(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a host that many have, as of a chat: a user whose own address there does not answer is left alone, and another
    user's message comes at once."""
    monkeypatch.setattr(lanes, "FIRST_PAUSE", 30.0)
    async with receiver() as here:
        here.cuts = lambda got: got.execution != "ex_of_bob"
        for number in range(20):
            await begin(redis, f"ex_{number}", here.url, ENDED)
        async with delivering(redis) as (deliveries, metrics):
            async with asyncio.timeout(20):
                while count_of(metrics, "retried") < lanes.FAILURES:
                    await asyncio.sleep(0.02)
            await eventually("those under way are given back", lambda: not deliveries._held)
            tried = len(here.got)
            await begin(redis, "ex_of_bob", here.url, ENDED, owner=Owner("bob"))
            await here.until("bob's", lambda got: got[-1].execution == "ex_of_bob", 10)
            assert len(here.got) == tried + 1


async def test_many_are_woken_together(redis: Redis) -> None:
    """An edge has so many at a time, and forgets none of the others."""
    async with receiver() as here, delivering(redis) as (deliveries, _):
        names = [Name(Owner(f"u{number % 10}"), f"ex_{number}", "request") for number in range(500)]
        await webhooks.schedule(redis, names, 600_000)
        for name in names:
            await begin(redis, name.execution_id, here.url, ENDED, owner=name.owner)
        for name in names:
            deliveries.on_message(f"default:{name.owner.user}:{name.execution_id} request".encode())
        most = 0
        async with asyncio.timeout(under_load(30)):
            while len(here.got) < len(names):
                most = max(most, len(deliveries._held))
                await asyncio.sleep(0)
        assert most <= delivery.AT_ONCE


async def test_what_a_receiver_says_is_not_logged(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """Only its status."""
    async with receiver() as here, delivering(redis):
        here.answer = lambda _: web.Response(status=500, text="a-text-of-the-receiver", reason="a-reason")
        name = await begin(redis, "ex_1", here.url, ENDED)
        await here.until_count(1)
        async with asyncio.timeout(5):
            while not (found := await progress(redis, name)).error:
                await asyncio.sleep(0.02)
        assert (found.error, found.tries) == ("status 500", 1)
        assert "of-the-receiver" not in caplog.text
