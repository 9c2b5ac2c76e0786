"""Events reach their logs exactly once and in order, whatever the connection does."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import json
import os
import signal
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter import AgentEmitter, errors
from emitter.errors import (
    EmitterClosed,
    EventsLost,
    ExecutionEnded,
    InvalidSetting,
    RedisUnavailable,
    RuncastError,
    Superseded,
    UnknownInput,
)
from emitter.events import ToolProgress
from emitter.observer import Observer
from emitter.publishing import publisher
from emitter.publishing.outbox import LONG_ONES, Outbox, PublisherOptions
from emitter.publishing.pace import FREE
from emitter.publishing.publisher import Publisher
from emitter.store import holds
from emitter.store.append import LogLimits, PackedAppend, append_command, limits_from
from emitter.store.connection import connect, pack
from emitter.store.plain import BATCHES_MAX
from emitter.wire.keys import Owner
from emitter.wire.limits import MAX_EVENT_BYTES
from emitter.wire.prepared import Prepared
from tests.edges import under_load
from tests.emitter.lossy import Proxy, lossy

OWNER = Owner("alice")


@pytest.fixture
async def road(redis_server: EmbeddedRedis, redis: Redis, tmp_path: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before Redis that loses things, and its URL."""
    async with lossy(str(redis_server.socket_path), tmp_path) as found:
        yield found


async def stored(redis: Redis, execution_id: str = "ex_1") -> list[dict[str, Any]]:
    """The log, decoded; its ordinals are dense or this fails."""
    rows = await redis.xrange(OWNER.execution(execution_id).log)
    assert [int(id_.split(b"-")[1]) for id_, _ in rows] == list(range(1, len(rows) + 1))
    return [json.loads(next(iter(fields.values()))) for _, fields in rows]


async def statuses(redis: Redis, execution_id: str = "ex_1") -> list[str]:
    return [event["data"]["status"] for event in await stored(redis, execution_id) if event["type"] == "status"]


async def texts(redis: Redis, execution_id: str = "ex_1") -> str:
    return "".join(event["data"].get("delta", "") for event in await stored(redis, execution_id))


@pytest.fixture
def no_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are not renewed while the test counts calls of scripts, of which a renewal is one."""
    monkeypatch.setattr(holds, "FIRST_SECONDS", 600.0)


class Counted(Observer):
    """How many batches each round trip had."""

    def __init__(self) -> None:
        self.trips: list[int] = []

    def appended(self, batches: int, events: int, seconds: float) -> None:
        self.trips.append(batches)


# --- exactly once ----------------------------------------------------------------------------------------------------


async def test_a_lost_reply_appends_nothing_twice(redis: Redis, road: tuple[Proxy, str]) -> None:
    """The connection is cut after Redis ran the append and before its reply: the retry adds what is new only."""
    proxy, url = road
    async with AgentEmitter("alice", "ex_1", redis_url=url) as emitter:
        await emitter.status("0", "")
        await emitter.flush()
        proxy.lose_replies = 3
        for number in range(1, 6):
            await emitter.status(str(number), "")
            await emitter.flush()
    assert proxy.lose_replies == 0
    assert await statuses(redis) == list("012345")


async def test_a_lost_request_is_sent_again(redis: Redis, road: tuple[Proxy, str]) -> None:
    """What Redis never had, it gets."""
    proxy, url = road
    proxy.lose_requests = 3
    async with AgentEmitter("alice", "ex_1", redis_url=url) as emitter:
        await emitter.status("1", "")
        await emitter.text("hello")
    assert proxy.lose_requests == 0
    assert await statuses(redis) == ["1"]


async def test_a_lost_reply_to_the_end_is_no_error(redis: Redis, road: tuple[Proxy, str]) -> None:
    """The terminal event is written once, and its caller learns that it was."""
    proxy, url = road
    async with AgentEmitter("alice", "ex_1", redis_url=url) as emitter:
        await emitter.execution_started("t")
        await emitter.flush()
        proxy.lose_replies = 2
        await emitter.execution_complete(1)
    assert [event["type"] for event in await stored(redis)] == ["execution:started", "execution:complete"]


async def test_many_lanes_over_a_bad_road(redis: Redis, road: tuple[Proxy, str]) -> None:
    """A third of all lots is lost before or after Redis ran them: every log has its events once and in order."""
    proxy, url = road
    proxy.loss_rate = 0.33

    async def agent(shared: Publisher, number: int) -> None:
        async with AgentEmitter("alice", f"ex_{number}", publisher=shared) as emitter:
            for step in range(60):
                if step % 3:
                    await emitter.text(f"{step} ")
                else:
                    await emitter.status(str(step), "")
                if step % 10 == number:
                    await emitter.flush()
                else:
                    await asyncio.sleep(0)

    async with Publisher(redis_url=url) as shared:
        await asyncio.gather(*(agent(shared, number) for number in range(8)))
    assert proxy.lost > 3
    for number in range(8):
        assert await statuses(redis, f"ex_{number}") == [str(step) for step in range(0, 60, 3)]
        assert await texts(redis, f"ex_{number}") == "".join(f"{step} " for step in range(60) if step % 3)


async def test_connections_killed_by_the_server(redis: Redis, redis_url: str) -> None:
    """CLIENT KILL at any moment costs time, not events."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        for number in range(60):
            await emitter.status(str(number), "")
            if not number % 10:
                await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0)
    assert await statuses(redis) == [str(number) for number in range(60)]


async def test_a_server_that_stands_still(tmp_path: Path) -> None:
    """Redis stops answering for longer than a reply is waited for; what it took meanwhile is not taken twice."""
    with EmbeddedRedis() as server:
        assert server.process is not None
        client = connect(server.url, timeout=0.3)
        async with Publisher(redis=client) as shared, AgentEmitter("alice", "ex_1", publisher=shared) as emitter:
            await emitter.status("0", "")
            await emitter.flush()
            os.kill(server.process.pid, signal.SIGSTOP)
            try:
                for number in range(1, 4):
                    await emitter.status(str(number), "")
                with pytest.raises(RedisUnavailable):
                    await emitter.flush(timeout=1.2)
            finally:
                os.kill(server.process.pid, signal.SIGCONT)
            await emitter.status("4", "")
            await emitter.flush()
        await client.aclose()
        async with connect(server.url) as reader:  # with a longer timeout
            assert await statuses(reader) == list("01234")


@pytest.mark.parametrize(
    "answer",
    [
        b"-NOSCRIPT No matching script. Please use EVAL.\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
        b"-BUSY Redis is busy running a script.\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-NOPERM this user has no permissions\r\n",
        b"-ERR something else\r\n",
    ],
    ids=lambda answer: answer[1:].split()[0].decode(),
)
async def test_error_replies_are_retried(redis: Redis, road: tuple[Proxy, str], answer: bytes) -> None:
    """Redis that cannot append just now is asked again until it can."""
    proxy, url = road
    proxy.answers = [answer] * 3
    async with AgentEmitter("alice", "ex_1", redis_url=url) as emitter:
        await emitter.status("1", "")
        await emitter.text("x")
        await emitter.flush()
    assert proxy.answers == []
    assert [event["type"] for event in await stored(redis)] == ["status", "message:delta"]


async def test_scripts_that_were_flushed_are_loaded_again(redis: Redis, redis_url: str) -> None:
    """In a lot of many outboxes too."""
    async with Publisher(redis_url=redis_url) as shared:
        emitters = [AgentEmitter("alice", f"ex_{number}", publisher=shared) for number in range(3)]
        for _ in range(2):
            await redis.script_flush()
            for emitter in emitters:
                await emitter.status("1", "")
            await asyncio.gather(*(emitter.flush() for emitter in emitters))
        for emitter in emitters:
            assert await statuses(redis, emitter.execution_id) == ["1", "1"]
            await emitter.close()


async def test_one_broken_log_holds_up_no_other(redis: Redis, redis_url: str) -> None:
    """A log that Redis cannot append to is retried by itself, and its error is told to who waits for it."""
    await redis.set(OWNER.execution("broken").log, "not a stream")
    async with Publisher(redis_url=redis_url) as shared:
        broken = AgentEmitter("alice", "broken", publisher=shared)
        await broken.status("0", "")
        async with AgentEmitter("alice", "ex_1", publisher=shared) as emitter:
            async with asyncio.timeout(under_load(2)):
                for number in range(50):
                    await emitter.status(str(number), "")
                    await emitter.flush()
        with pytest.raises(RedisUnavailable, match="WRONGTYPE"):
            await broken.flush(timeout=0.3)
        await redis.delete(OWNER.execution("broken").log)
        await broken.close()
    assert await statuses(redis, "broken") == ["0"]


async def test_a_pause_after_an_error_is_one(redis: Redis, redis_url: str) -> None:
    """What is emitted while the batch is on its way does not send it again at once, nor is there a second timer."""
    await redis.set(OWNER.execution("broken").log, "not a stream")
    async with Publisher(redis_url=redis_url) as shared:
        async with AgentEmitter("alice", "ex_1", publisher=shared) as emitter:  # connects, and loads the script
            await emitter.status("0", "")
        broken = AgentEmitter("alice", "broken", publisher=shared)
        await broken.status("0", "")
        for number in range(1, 6):
            while not shared._sending:
                await asyncio.sleep(0)
            await broken.status(str(number), "")
            while shared._sending:
                await asyncio.sleep(0)
            assert [*shared._resting] == [broken._outbox]
            assert [*shared._due] == [*shared._waiting] == []
        await redis.delete(OWNER.execution("broken").log)
        await broken.close()
    assert await statuses(redis, "broken") == list("012345")


@contextlib.contextmanager
def a_bug(place: Any, name: str, found: Callable[[Any], bool] = lambda _: True) -> Iterator[None]:
    """A function that fails where its first argument is `found`."""
    original = getattr(place, name)

    def fails(first: Any, *more: Any) -> Any:
        if found(first):
            raise TypeError("a bug")
        return original(first, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, fails)
        yield


@pytest.mark.parametrize("name", ["packed", "is_plain", "take"])
async def test_a_batch_that_cannot_be_made_is_told_as_lost(redis: Redis, redis_url: str, name: str) -> None:
    """Whatever the reason: the others of its round trip leave, and its agent hears of it at its next call."""
    async with Publisher(redis_url=redis_url) as shared:
        emitters = [AgentEmitter("alice", f"ex_{number}", publisher=shared) for number in range(3)]
        with a_bug(Outbox, name, lambda outbox: outbox is emitters[1]._outbox):
            for emitter in emitters:
                await emitter.status("1", "")
            await all_arrive([emitters[0], emitters[2]])
            with pytest.raises(EventsLost, match="1 events could not be written because of a TypeError") as caught:
                await emitters[1].status("2", "")
        assert caught.value.count == 1
        assert isinstance(caught.value.__cause__, TypeError)
        for emitter in emitters:
            await emitter.close()
    assert [await statuses(redis, f"ex_{number}") for number in range(3)] == [["1"], [], ["1"]]


@pytest.mark.parametrize("place", ["reply", "plain", "observer"])
async def test_a_bug_at_one_reply_strands_no_batch(redis: Redis, redis_url: str, place: str) -> None:
    """Those that come after it in the round trip are settled; the one itself is sent again, which appends nothing
    twice."""
    observer = Counted()
    async with Publisher(redis_url=redis_url, observer=observer) as shared:
        emitters = [AgentEmitter("alice", f"ex_{number}", publisher=shared) for number in range(3)]

        async def say() -> None:
            for emitter in emitters:
                await (emitter.tool_progress("c") if place == "plain" else emitter.status("1", ""))
            await all_arrive(emitters)

        await say()
        bugs = iter([False, True])
        where = (observer, "appended") if place == "observer" else (Outbox, "arrived")
        with a_bug(*where, lambda _: next(bugs, False) or place == "observer"):
            await say()
        assert next(bugs, None) is None or place == "observer"
        await say()
        for emitter in emitters:
            await emitter.close()
    assert [len(await stored(redis, f"ex_{number}")) for number in range(3)] == [3, 3, 3]


async def test_a_round_trip_of_nothing_strands_no_other(redis: Redis, redis_url: str, monkeypatch: Any) -> None:
    """Where the batches for which there was room cannot be made, the rest leaves next."""
    monkeypatch.setattr(publisher, "ROUND_TRIP_BYTES", 1)
    async with Publisher(redis_url=redis_url) as shared:
        bad, good = (AgentEmitter("alice", f"ex_{number}", publisher=shared) for number in range(2))
        with a_bug(Outbox, "packed", lambda outbox: outbox is bad._outbox):
            for emitter in (bad, good):
                await emitter.status("1", "")
            await all_arrive([good])
        with pytest.raises(EventsLost):
            await bad.close()
        await good.close()
    assert await statuses(redis, "ex_1") == ["1"]


async def all_arrive(emitters: Sequence[AgentEmitter]) -> None:
    """Without a `flush`, which would send again what was forgotten."""
    async with asyncio.timeout(5):
        while any(len(emitter._outbox.queue) for emitter in emitters):
            await asyncio.sleep(0.01)


async def test_redis_away_at_the_start(redis: Redis, road: tuple[Proxy, str]) -> None:
    """Emitting works while nobody answers; everything arrives when somebody does."""
    proxy, url = road
    with proxy.gone():
        emitter = AgentEmitter("alice", "ex_1", redis_url=url)
        await emitter.__aenter__()
        for number in range(20):
            await emitter.status(str(number), "")
        with pytest.raises(RedisUnavailable, match="20 events"):
            await emitter.flush(timeout=0.1)
    await emitter.close()
    assert await statuses(redis) == [str(number) for number in range(20)]


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_renewal")
async def test_one_round_trip_for_many_lanes(redis: Redis, road: tuple[Proxy, str]) -> None:
    """What waits in all outboxes at one moment leaves together."""
    proxy, url = road
    async with Publisher(redis_url=url) as shared:
        emitters = [AgentEmitter("alice", f"ex_{number}", publisher=shared) for number in range(50)]
        await emitters[0].status("warm", "")
        await emitters[0].flush()
        before = proxy.lots
        for emitter in emitters:
            await emitter.status("1", "")
            await emitter.status("2", "")
        await asyncio.gather(*(emitter.flush() for emitter in emitters))
        assert proxy.lots == before + 1
        for emitter in emitters:
            await emitter.close()
    assert await statuses(redis, "ex_49") == ["1", "2"]


async def test_a_lot_too_large_for_one_round_trip(redis: Redis, redis_url: str, monkeypatch: Any) -> None:
    """The outboxes beyond the bound follow with the next."""
    monkeypatch.setattr(publisher, "ROUND_TRIP_BYTES", 1000)
    async with Publisher(redis_url=redis_url) as shared:
        emitters = [AgentEmitter("alice", f"ex_{number}", publisher=shared) for number in range(20)]
        for emitter in emitters:
            await emitter.status("1", "x" * 300)
        await asyncio.gather(*(emitter.flush() for emitter in emitters))
        for emitter in emitters:
            assert await statuses(redis, emitter.execution_id) == ["1"]


async def test_a_chunk_of_a_quiet_execution_leaves_at_once(redis: Redis, redis_url: str) -> None:
    """Nothing is awaited if nothing of it was sent for `max_wait`."""
    options = PublisherOptions(max_wait=30)
    async with (
        AgentEmitter("alice", "ex_1", redis_url=redis_url, options=options) as emitter,
        redis.pubsub() as channel,
    ):
        await channel.subscribe(OWNER.execution("ex_1").log)
        await channel.get_message(timeout=5)
        await emitter.text("a")
        assert await channel.get_message(timeout=5) is not None


async def test_chunks_that_follow_soon_wait_and_other_events_do_not(redis: Redis, redis_url: str) -> None:
    """Within `max_wait` of the last batch a chunk waits for more; a whole event leaves and takes the chunks along."""
    options = PublisherOptions(max_wait=30)
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, options=options) as emitter:
        await emitter.status("0", "")
        await emitter.flush()
        async with redis.pubsub() as channel:
            await channel.subscribe(OWNER.execution("ex_1").log)
            await channel.get_message(timeout=5)
            await emitter.text("a")
            await emitter.text("b")
            assert await channel.get_message(timeout=0.1) is None
            await emitter.status("1", "")
            message = await channel.get_message(timeout=5)
            assert message is not None
            assert message["data"].count(b"\n") == 2
    assert await texts(redis) == "ab"


async def test_chunks_leave_after_max_wait(redis: Redis, redis_url: str) -> None:
    """Without anything else they leave as one event."""
    options = PublisherOptions(max_wait=0.3)
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, options=options) as emitter:
        await emitter.status("0", "")
        await emitter.flush()
        async with redis.pubsub() as channel:
            await channel.subscribe(OWNER.execution("ex_1").log)
            await channel.get_message(timeout=5)
            for word in "abc":
                await emitter.text(word)
            assert await channel.get_message(timeout=5) is not None
        assert [event["data"]["delta"] for event in await stored(redis) if "delta" in event["type"]] == ["abc"]


async def test_what_comes_while_an_answer_is_awaited_leaves_together(redis: Redis, redis_url: str) -> None:
    """Chunks of one execution as one event, batches of all executions in one round trip."""
    counted = Counted()
    async with Publisher(redis_url=redis_url, options=PublisherOptions(max_wait=0), observer=counted) as shared:
        emitters = [AgentEmitter("alice", f"ex_{number}", publisher=shared) for number in range(3)]
        for emitter in emitters:
            await emitter.text("a")
            await emitter.flush()
        counted.trips.clear()
        await emitters[0].text("b")
        while not shared._sending:
            await asyncio.sleep(0)
        for emitter in emitters:
            for word in "cde":
                await emitter.text(word)
        await asyncio.gather(*(emitter.flush() for emitter in emitters))
        assert counted.trips == [1, 3]
    for emitter in emitters:
        await emitter.close()
    deltas = [event["data"]["delta"] for event in await stored(redis, "ex_0")]
    assert (deltas, await texts(redis, "ex_2")) == (["a", "b", "cde"], "acde")


async def test_round_trips_keep_a_distance_only_under_load(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ones leave at once; then events of all executions wait for the next, unless a caller waits for them."""
    monkeypatch.setattr(publisher, "ROUND_TRIP_SECONDS", 30.0)
    counted = Counted()
    async with Publisher(redis_url=redis_url, options=PublisherOptions(max_wait=60), observer=counted) as shared:
        one, other = (AgentEmitter("alice", f"ex_{number}", publisher=shared) for number in range(2))
        async with asyncio.timeout(10):
            for number in range(FREE + 1):
                await one.status(str(number), "")
                while len(counted.trips) <= number:
                    await asyncio.sleep(0)
        await one.status("late", "")
        await other.status("late", "")
        await asyncio.sleep(0.1)
        assert len(counted.trips) == FREE + 1
        await other.flush()
        assert counted.trips[FREE + 1 :] == [2]
        await one.close()
        await other.close()
    assert (await statuses(redis, "ex_0"))[-1] == "late"


async def test_a_full_batch_does_not_wait_for_its_turn(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is more than a batch goes on as fast as Redis answers."""
    monkeypatch.setattr(publisher, "ROUND_TRIP_SECONDS", 30.0)
    options = PublisherOptions(max_wait=60, max_batch=10)
    counted = Counted()
    async with Publisher(redis_url=redis_url, options=options, observer=counted) as shared:
        emitter = AgentEmitter("alice", "ex_1", publisher=shared)
        async with asyncio.timeout(10):
            for number in range(10 * (FREE + 30)):
                await emitter.status(str(number), "")
            while len(counted.trips) < FREE + 29:
                await asyncio.sleep(0)
        await emitter.close()
    assert len(await statuses(redis)) == 10 * (FREE + 30)


@pytest.mark.usefixtures("no_renewal")
async def test_plain_events_of_many_lanes_are_one_call(redis: Redis, redis_url: str) -> None:
    """Of as many as a call takes; events that the feed takes too are a call each."""
    async with Publisher(redis_url=redis_url) as shared:
        emitters = [AgentEmitter(f"u{number}", f"ex_{number}", publisher=shared) for number in range(BATCHES_MAX)]
        for emitter in emitters:
            await emitter.status("1", "")
        await asyncio.gather(*(emitter.flush() for emitter in emitters))
        before = await calls(redis)
        for emitter in emitters:
            await emitter.tool_progress("c", message="half")
        await asyncio.gather(*(emitter.flush() for emitter in emitters))
        assert await calls(redis) == before + 1
        for emitter in emitters:
            await emitter.close()
    assert await redis.xlen(Owner("u3").execution("ex_3").log) == 2


@pytest.mark.parametrize("is_on_the_way", [False, True])
async def test_two_emitters_of_one_execution_keep_the_order_of_their_calls(
    redis: Redis, redis_url: str, is_on_the_way: bool
) -> None:
    """Plain or not, also while a batch of the first is on its way."""
    async with Publisher(redis_url=redis_url) as shared:
        one, two = (AgentEmitter("alice", "ex_1", publisher=shared) for _ in range(2))
        for emitter in (one, two):
            await emitter.tool_progress("c", message="0")
            await emitter.flush()
        if is_on_the_way:
            await one.tool_progress("c", message="0")
            while not shared._sending:
                await asyncio.sleep(0)
        await one.tool_progress("c", message="1")
        await two.status("2", "2")
        await one.status("3", "3")
        await two.tool_progress("c", message="4")
        await asyncio.gather(one.flush(), two.flush())
        await one.close()
        await two.close()
    messages = [event["data"]["message"] for event in await stored(redis)]
    # What an emitter has waiting leaves as one batch, at the place of its first event.
    assert [message for message in messages if message != "0"] == ["1", "3", "2", "4"]


@pytest.mark.parametrize("meanwhile", [False, True], ids=["together", "meanwhile"])
@pytest.mark.parametrize("loss", ["refusal", "request", "script"])
async def test_what_is_sent_again_is_not_overtaken_in_its_execution(
    redis: Redis, road: tuple[Proxy, str], loss: str, meanwhile: bool
) -> None:
    """A batch that the short script refuses, or that was lost, is in the log before the end that another emitter says
    after it, in the same round trip or while it is on its way."""
    proxy, url = road
    async with Publisher(redis_url=url) as shared:
        one, two = (AgentEmitter("alice", "ex_1", publisher=shared) for _ in range(2))
        for emitter in (one, two):
            await emitter.tool_progress("c", message="0")
            await emitter.flush()
        if loss == "refusal":
            await redis.hset(OWNER.execution("ex_1").record, "fresh", "1")
        elif loss == "request":
            proxy.lose_requests = 1
        else:
            await redis.script_flush()
        await one.tool_progress("c", message="1")
        while meanwhile and not shared._sending:
            await asyncio.sleep(0)
        await two.execution_complete(1)
        await one.close()
        await two.close()
    assert [event["type"] for event in await stored(redis)] == ["tool:progress"] * 3 + ["execution:complete"]


async def test_plain_batches_of_one_execution_keep_their_order_across_calls(redis: Redis, redis_url: str) -> None:
    """More emitters than a call takes batches; only that of the first is refused."""
    async with Publisher(redis_url=redis_url) as shared:
        emitters = [AgentEmitter("alice", "ex_1", publisher=shared) for _ in range(BATCHES_MAX + 3)]
        for emitter in emitters:
            await emitter.tool_progress("c", message="first")
        await asyncio.gather(*(emitter.flush() for emitter in emitters))
        record = OWNER.execution("ex_1").record
        await redis.hset(record, "producers", 4000)  # so many that the record forgets one
        await redis.hdel(record, f"p:{emitters[0]._outbox.producer}")
        for number, emitter in enumerate(emitters):
            await emitter.tool_progress("c", message=str(number))
        await asyncio.gather(*(emitter.flush() for emitter in emitters))
        for emitter in emitters:
            await emitter.close()
    messages = [event["data"]["message"] for event in await stored(redis)][len(emitters) :]
    assert messages == [str(number) for number in range(len(emitters))]


async def calls(redis: Redis) -> int:
    """Calls of scripts so far."""
    stats = await redis.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


async def test_one_broken_log_holds_up_no_other_of_its_call(redis: Redis, redis_url: str) -> None:
    """Each of them is then appended by itself."""
    async with Publisher(redis_url=redis_url) as shared:
        emitters = [AgentEmitter("alice", f"ex_{number}", publisher=shared) for number in range(3)]
        for emitter in emitters:
            await emitter.status("1", "")
            await emitter.flush()
        await redis.delete(OWNER.execution("ex_0").log)
        await redis.set(OWNER.execution("ex_0").log, "not a stream")
        for emitter in emitters:
            await emitter.tool_progress("c", message="half")
        await asyncio.gather(*(emitter.flush() for emitter in emitters[1:]))
        with pytest.raises(RedisUnavailable, match="WRONGTYPE"):
            await emitters[0].flush(timeout=0.3)
        for emitter in emitters:
            with contextlib.suppress(EventsLost):
                await emitter.close(timeout=0.1)
    for number in (1, 2):
        assert [event["type"] for event in await stored(redis, f"ex_{number}")] == ["status", "tool:progress"]


@pytest.mark.usefixtures("no_renewal")
async def test_a_proxy_that_splits_no_call_gets_one_for_each_batch(redis: Redis, road: tuple[Proxy, str]) -> None:
    """Once it has said so, as one does that has several servers behind it."""
    proxy, url = road
    async with Publisher(redis_url=url) as shared:
        emitters = [AgentEmitter("alice", f"ex_{number}", publisher=shared) for number in range(3)]

        async def say(word: str) -> None:
            for emitter in emitters:
                await emitter.text(word)
            await asyncio.gather(*(emitter.flush() for emitter in emitters))

        for word in "01":
            await say(word)
        proxy.answers = [b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"]
        await say("2")
        before = await calls(redis)
        await say("3")
        assert await calls(redis) == before + len(emitters)
        for emitter in emitters:
            await emitter.close()
    assert await texts(redis, "ex_2") == "0123"


@pytest.mark.parametrize("loss", ["lose_replies", "lose_requests"])
async def test_plain_events_arrive_once_over_a_bad_road(redis: Redis, road: tuple[Proxy, str], loss: str) -> None:
    """Whether Redis had run the call or not: what it has, the long script skips."""
    proxy, url = road
    async with Publisher(redis_url=url) as shared:
        emitters = [AgentEmitter("alice", f"ex_{number}", publisher=shared) for number in range(4)]
        for emitter in emitters:
            await emitter.text("0")
            await emitter.flush()
        for word in "123456":
            setattr(proxy, loss, 1)
            for emitter in emitters:
                await emitter.text(word)
            await asyncio.gather(*(emitter.flush() for emitter in emitters))
        for emitter in emitters:
            await emitter.close()
    assert proxy.lost == 6
    assert [await texts(redis, f"ex_{number}") for number in range(4)] == ["0123456"] * 4


async def test_the_script_for_plain_events_is_loaded_again(redis: Redis, redis_url: str) -> None:
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        for word in "ab":
            await emitter.text(word)
            await emitter.flush()
        await redis.script_flush()
        await emitter.text("c")
        await emitter.flush()
    assert await texts(redis) == "abc"


@pytest.mark.usefixtures("no_renewal")
async def test_an_execution_without_a_claim_is_one_call_a_batch(redis: Redis, redis_url: str) -> None:
    """Its record has no attempt: the short script does all the same."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, attempt=1) as emitter:
        await emitter.text("0")
        await emitter.flush()
        before = await calls(redis)
        for word in "1234":
            await emitter.text(word)
            await emitter.flush()
        assert await calls(redis) == before + 4
        assert await redis.hget(OWNER.execution("ex_1").record, "attempt") is None


async def test_a_producer_with_a_name_is_one_call_a_batch(redis: Redis, redis_url: str) -> None:
    """As Temporal's, whose workers take over from each other."""
    temporal = pytest.importorskip("emitter.integrations.temporal.sequenced_outbox")
    execution = temporal.Execution("alice", "ex_1")
    async with Publisher(redis_url=redis_url) as shared:
        outbox = temporal.SequencedOutbox(shared, execution, "workflow", lambda error: None)
        outbox.put(1, ToolProgress(call_id="c"), execution)
        await outbox.flush()
        before = await calls(redis)
        for number in range(2, 6):
            outbox.put(number, ToolProgress(call_id="c"), execution)
            await outbox.flush()
        assert await calls(redis) == before + 4
        await outbox.close()
    assert await redis.hget(OWNER.execution("ex_1").record, "p:workflow") == b"5"


async def test_of_a_log_that_is_never_usual_batches_cost_one_call(redis: Redis, redis_url: str) -> None:
    """Each batch ends a part of this log: after two refusals the short script is left alone for many batches, and tried
    again after those."""
    shared = Publisher(redis_url=redis_url, limits=LogLimits(log_max_bytes=16, unheld_lease_seconds=0))
    await redis.script_load(shared._plain.text)
    async with shared, AgentEmitter("alice", "ex_1", publisher=shared) as emitter:

        async def say(batches: int) -> int:
            before = await calls(redis)
            for _ in range(batches):
                await emitter.text("x")
                await emitter.flush()
            return await calls(redis) - before

        await emitter.text("x")
        await emitter.flush()
        assert await say(2) == 4
        assert await say(LONG_ONES - 1) == LONG_ONES - 1
        assert await say(2) == 3


async def test_batches_are_no_larger_than_max_batch(redis: Redis, redis_url: str) -> None:
    """A full queue leaves in pieces, in order."""
    options = PublisherOptions(max_batch=7)
    sizes = []
    async with (
        AgentEmitter("alice", "ex_1", redis_url=redis_url, options=options) as emitter,
        redis.pubsub() as channel,
    ):
        await channel.subscribe(OWNER.execution("ex_1").log)
        await channel.get_message(timeout=5)
        for number in range(50):
            await emitter.status(str(number), "")
        await emitter.flush()
        while sum(sizes) < 50 and (message := await channel.get_message(timeout=5)) is not None:
            sizes.append(message["data"].count(b"\n"))
    assert sum(sizes) == 50
    assert max(sizes) <= 7
    assert await statuses(redis) == [str(number) for number in range(50)]


async def test_an_agent_that_never_waits_still_publishes(redis: Redis, redis_url: str) -> None:
    """A loop that does nothing but emit lets batches leave while it runs."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        for number in range(3000):
            await emitter.text("x")
            if number == 1500:
                await emitter.status("half", "")
        assert len(emitter._outbox.queue) < 1000
    assert len(await texts(redis)) == 3000


def test_the_packed_command_is_the_command() -> None:
    """What is sent is, byte for byte, `append_command` in the Redis protocol."""
    events = [Prepared("status", b"{}", "f"), Prepared("x", b"{}", "w:i \u00e9", {"stack": "a\r\nb", "n": "1"})]
    options: dict[str, Any] = {"producer": "p", "attempt": 3, "limits": LogLimits(log_maxlen=5)}
    packed = PackedAppend(append_command(OWNER, "ex_1", (), first_seq=1, **options))(events, 42)
    whole = append_command(OWNER, "ex_1", events, first_seq=42, **options)
    assert packed == b"*%d\r\n" % len(whole) + pack(whole)


# --- refusals --------------------------------------------------------------------------------------------------------


async def test_an_ended_log_is_told_at_the_next_call(redis: Redis, redis_url: str) -> None:
    """What the log refused raises at the next call and at each one after; closing does not say it again."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as other:
        await other.execution_cancelled(reason="enough")
    emitter = AgentEmitter("alice", "ex_1", redis_url=redis_url)
    async with emitter:
        await emitter.thinking("unaware")
        for _ in range(2):
            with pytest.raises(ExecutionEnded) as caught:
                await emitter.flush()
            assert caught.value.state == "cancelled"
        for call in (emitter.thinking, emitter.text, emitter.execution_complete):
            with pytest.raises(ExecutionEnded):
                await call("x")
    assert len(await stored(redis)) == 1


async def test_closing_tells_a_refusal_that_no_call_has_told(redis: Redis, redis_url: str) -> None:
    """Nobody loses events without hearing of it."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as other:
        await other.execution_complete(1)
    emitter = AgentEmitter("alice", "ex_1", redis_url=redis_url)
    await emitter.__aenter__()
    await emitter.thinking("unaware")
    with pytest.raises(ExecutionEnded):
        await emitter.close()
    await emitter.close()


async def test_an_older_attempt_is_told(redis: Redis, redis_url: str) -> None:
    """`Superseded` names the attempt that has taken over."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, attempt=1) as emitter:
        await emitter.thinking("mine")
        await emitter.flush()
        await redis.hset(OWNER.execution("ex_1").record, "attempt", 2)
        await emitter.thinking("late")
        with pytest.raises(Superseded) as caught:
            await emitter.flush()
        assert caught.value.attempt == 2
        with pytest.raises(Superseded):
            await emitter.thinking("later")


async def test_a_refused_answer_ends_nothing(redis: Redis, redis_url: str) -> None:
    """An answer to what was not asked, or is answered, raises to who gave it; the events around it are stored."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await emitter.status("0", "")
        with pytest.raises(UnknownInput):
            await emitter.input_received("never-asked", "alice")
        await emitter.input_required("in_1", "Go?", "approval")
        await emitter.input_received("in_1", "alice", value=True)
        await emitter.status("1", "")
        with pytest.raises(errors.AlreadyAnswered):
            await emitter.input_received("in_1", "bob", value=False)
        await emitter.execution_complete(1)
    assert [event["type"] for event in await stored(redis)] == [
        "status", "input:required", "input:received", "status", "execution:complete",
    ]  # fmt: skip
    answer = json.loads(await redis.hget(OWNER.execution("ex_1").record, "a:in_1"))
    assert (answer["value"], answer["by"]) == (True, "alice")
    assert answer["at"] > 1_700_000_000_000


async def test_a_refusal_ends_one_lane_only(redis: Redis, redis_url: str) -> None:
    """Lanes that share a round trip do not share what is refused."""
    async with Publisher(redis_url=redis_url) as shared:
        ended = AgentEmitter("alice", "ex_1", publisher=shared)
        await ended.execution_complete(1)
        again = AgentEmitter("alice", "ex_1", publisher=shared)
        other = AgentEmitter("alice", "ex_2", publisher=shared)
        await again.status("1", "")
        await other.status("1", "")
        await other.flush()
        with pytest.raises(ExecutionEnded):
            await again.flush()
        for emitter in (ended, again, other):
            await emitter.close()
    assert await statuses(redis, "ex_2") == ["1"]


# --- life ------------------------------------------------------------------------------------------------------------


async def test_a_publisher_forgets_lanes(redis: Redis, redis_url: str) -> None:
    """Nothing of an emitter remains once it is idle or closed, also when it was closed in vain."""
    async with Publisher(redis_url=redis_url) as shared:
        idle = AgentEmitter("alice", "ex_1", publisher=shared)
        await idle.status("1", "")
        await idle.flush()
        closed = AgentEmitter("alice", "ex_2", publisher=shared)
        await closed.text("x")
        await closed.close()
        traces = [weakref.ref(idle), weakref.ref(closed), weakref.ref(idle._outbox), weakref.ref(closed._outbox)]
        del idle, closed
        async with asyncio.timeout(10):
            while any(trace() for trace in traces):
                await asyncio.sleep(0.02)
                gc.collect()
            while [*shared._due, *shared._waiting, *shared._resting, *shared._sending]:
                await asyncio.sleep(0.02)


class Kept:
    """What an agent has in its context."""


CONTEXT: contextvars.ContextVar[Kept | None] = contextvars.ContextVar("of-an-agent", default=None)


class InContext(Observer):
    """In whose context the publisher works."""

    def __init__(self) -> None:
        self.found: set[Kept | None] = set()

    def appended(self, batches: int, events: int, seconds: float) -> None:
        self.found.add(CONTEXT.get())

    def append_failed(self) -> None:
        self.found.add(CONTEXT.get())


async def test_a_publisher_works_in_no_agents_context(redis: Redis, road: tuple[Proxy, str]) -> None:
    """What it logs and traces is not that of the agent which emitted first; and it keeps no agent's context alive, not
    by its connections, leases and waits for answers either."""
    proxy, url = road
    observer = InContext()

    async def agent(number: int) -> tuple[AgentEmitter, weakref.ref[Kept]]:
        kept = Kept()
        CONTEXT.set(kept)
        emitter = AgentEmitter("alice", f"ex_{number}", publisher=shared)
        await emitter.execution_started("Work")
        if number == 1:
            proxy.lose_requests = 1
        await emitter.text("x")
        await emitter.text("y")
        await emitter.flush()
        waits.enter_context(shared.control.waiting_for("answers", b"x", lambda: None))
        return emitter, weakref.ref(kept)

    async with Publisher(redis_url=url, observer=observer, options=PublisherOptions(flush_timeout=5)) as shared:
        waits = contextlib.ExitStack()
        made = [await asyncio.create_task(agent(number)) for number in range(2)]
        async with asyncio.timeout(10):
            while any(kept() for _, kept in made):  # the timers of `flush` are there until their time
                await asyncio.sleep(0.1)
                gc.collect()
        assert observer.found == {None}
        for emitter, _ in made:
            await emitter.execution_complete(1)
        waits.close()


async def test_what_was_reported_lost_stays_lost(redis: Redis, road: tuple[Proxy, str]) -> None:
    """An outbox that was closed while Redis was away is not sent later, behind its owner's back."""
    proxy, url = road
    async with Publisher(redis_url=url) as shared:
        with proxy.gone():
            emitter = AgentEmitter("alice", "ex_1", publisher=shared)
            for number in range(3):
                await emitter.status(str(number), "")
            with pytest.raises(EventsLost) as caught:
                await emitter.close(timeout=0.1)
            assert caught.value.count == 3
            async with asyncio.timeout(5):
                while shared._sending:  # what is on its way at that moment may still arrive
                    await asyncio.sleep(0.01)
        async with AgentEmitter("alice", "ex_2", publisher=shared) as other:
            await other.status("1", "")
    assert await stored(redis) == []
    assert await statuses(redis, "ex_2") == ["1"]


async def test_closing_a_publisher_flushes_what_was_left_behind(redis: Redis, redis_url: str) -> None:
    """Emitters that nobody closed lose nothing either, and take nothing more."""
    async with Publisher(redis_url=redis_url, options=PublisherOptions(max_wait=30)) as shared:
        emitter = AgentEmitter("alice", "ex_1", publisher=shared)
        await emitter.text("left behind")
    assert await texts(redis) == "left behind"
    with pytest.raises(EmitterClosed):
        await emitter.text("x")
    await emitter.close()


async def test_closing_a_publisher_tells_what_is_lost(redis: Redis, road: tuple[Proxy, str]) -> None:
    """The count is that of all its emitters."""
    proxy, url = road
    options = PublisherOptions(close_timeout=0.1)

    async def agents() -> None:
        async with Publisher(redis_url=url, options=options) as shared:
            for number in range(3):
                await AgentEmitter("alice", f"ex_{number}", publisher=shared).status("1", "")

    with proxy.gone(), pytest.raises(EventsLost) as caught:
        await agents()
    assert caught.value.count == 3


async def test_a_publisher_that_is_not_open_says_so() -> None:
    """Before it is opened and after it is closed, and it opens once."""
    shared = Publisher()
    emitter = AgentEmitter("alice", "ex_1", publisher=shared)
    with pytest.raises(EmitterClosed, match="async with"):
        await emitter.status("1", "")
    async with shared:
        with pytest.raises(EmitterClosed):
            await shared.__aenter__()
    with pytest.raises(EmitterClosed, match="closed"):
        await emitter.status("1", "")
    await emitter.close()
    with pytest.raises(EmitterClosed):
        await shared.__aenter__()


async def test_an_error_that_is_ignored_does_not_grow(redis: Redis, redis_url: str) -> None:
    """The same refusal, raised to an agent that does not listen, does not gather tracebacks."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as other:
        await other.execution_complete(1)
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await emitter.status("1", "")
        for _ in range(50):
            with pytest.raises(ExecutionEnded) as caught:
                await emitter.flush()
        assert len(caught.traceback) < 10


# --- limits ----------------------------------------------------------------------------------------------------------


def test_limits_of_an_empty_environment() -> None:
    """Nothing set, or set to nothing, is the default."""
    assert limits_from({}) == (LogLimits(), ())
    assert limits_from({"RUNCAST_LOG_MAXLEN": " ", "RUNCAST_REDACT_KEYS": ""}) == (LogLimits(), ())


def test_limits_of_the_environment() -> None:
    """Each variable has its field."""
    limits, keys = limits_from(
        {
            "RUNCAST_LOG_MAXLEN": "0",
            "RUNCAST_FEED_MAXLEN": "50",
            "RUNCAST_LOG_TTL_SECONDS": " 60 ",
            "RUNCAST_LOG_FINISHED_TTL_SECONDS": "30",
            "RUNCAST_MAX_EVENT_BYTES": "2048",
            "RUNCAST_REDACT_KEYS": "iban, x-pin",
        }
    )
    expected = LogLimits(log_maxlen=0, feed_maxlen=50, ttl_seconds=60, finished_ttl_seconds=30, max_event_bytes=2048)
    assert (limits, keys) == (expected, ("iban", "x-pin"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RUNCAST_LOG_MAXLEN", "-1"),
        ("RUNCAST_LOG_MAXLEN", "many"),
        ("RUNCAST_LOG_MAXLEN", "1.5"),
        ("RUNCAST_LOG_MAXLEN", "\u0661"),
        ("RUNCAST_LOG_MAXLEN", "9" * 5000),
        ("RUNCAST_FEED_MAXLEN", "0"),
        ("RUNCAST_LOG_FINISHED_TTL_SECONDS", "0"),
        ("RUNCAST_MAX_EVENT_BYTES", "1023"),
        ("RUNCAST_MAX_EVENT_BYTES", "16777217"),
        ("RUNCAST_MAX_OPEN_INPUTS", "1001"),
        ("RUNCAST_MAX_PARAMS_BYTES", "64K"),
        ("RUNCAST_REDACT_KEYS", "a,,b"),
    ],
)
def test_limits_that_are_not_allowed(name: str, value: str) -> None:
    """The error has the variable's name, its value and what is allowed."""
    with pytest.raises(InvalidSetting) as caught:
        limits_from({name: value})
    assert isinstance(caught.value, RuncastError)
    assert caught.value.name == name
    assert value.startswith(caught.value.value)
    assert caught.value.allowed in str(caught.value)


async def test_plain_emitters_honour_the_environment(redis: Redis, redis_url: str, monkeypatch: Any) -> None:
    """Address, limits and keys to redact are found there unless they are given."""
    monkeypatch.setenv("RUNCAST_REDIS_URL", redis_url)
    monkeypatch.setenv("RUNCAST_MAX_EVENT_BYTES", "1024")
    monkeypatch.setenv("RUNCAST_REDACT_KEYS", "iban")
    monkeypatch.setenv("RUNCAST_LOG_TTL_SECONDS", "60")
    async with AgentEmitter("alice", "ex_1", strict=True) as emitter:
        await emitter.partial_result({"iban": "DE00"})
        with pytest.raises(errors.PayloadTooLarge, match="1024"):
            await emitter.status("s", "x" * 1024)
    (event,) = await stored(redis)
    assert event["data"]["result"] == {"iban": "[redacted]"}
    assert 0 < await redis.ttl(OWNER.execution("ex_1").log) <= 60
    assert Publisher(limits=LogLimits(), redact_keys=()).limits.max_event_bytes == MAX_EVENT_BYTES


async def test_a_close_that_is_cancelled_leaves_no_connection(redis_url: str) -> None:
    """Whatever of it was under way, its connections are closed."""
    shared = await Publisher(redis_url=redis_url).__aenter__()
    await append_one(shared)
    link = shared._link
    assert link is not None
    assert link._connection.is_connected

    async def closed_too_slowly() -> None:
        await asyncio.sleep(60)

    shared.holds.aclose = closed_too_slowly  # type: ignore[method-assign]
    closing = asyncio.create_task(shared.__aexit__(None, None, None))
    await asyncio.sleep(0.1)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not link._connection.is_connected


async def append_one(shared: Publisher) -> None:
    async with AgentEmitter("alice", "ex_1", publisher=shared) as emitter:
        await emitter.execution_started("t")
