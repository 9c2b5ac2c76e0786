"""The subscription to a Redis Cluster, on three real primaries: slots move, primaries die or fall silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from broker.log import cluster_subscription
from broker.log.cluster_subscription import ShardedSubscription, slot_of, subscription
from emitter.store.connection import connect
from tests.broker.heard import Heard
from tests.clusters import Cluster, Node, cluster

OWN = "rc:edge:test"


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@contextlib.asynccontextmanager
async def subscribed(made: Cluster) -> AsyncIterator[tuple[ShardedSubscription, Heard, Any]]:
    """A subscription, what it told, and another client."""
    heard, listening, client = Heard(), connect(made.url), connect(made.url)
    async with client, listening:
        made_of = subscription(listening, [OWN], heard.on_message, heard.on_lost)
        assert isinstance(made_of, ShardedSubscription)
        async with made_of as held:
            yield held, heard, client


async def publish(client: Any, channel: str, data: bytes) -> int:
    """How many heard it."""
    return int(await client.execute_command("SPUBLISH", channel, data))


async def until_heard(client: Any, heard: Heard, channel: str) -> None:
    """Messages of the channel arrive (again)."""
    async with asyncio.timeout(20):
        while (channel, b"again") not in heard.messages:
            with contextlib.suppress(Exception):  # a Cluster that fails over refuses for a while
                await publish(client, channel, b"again")
            await asyncio.sleep(0.05)


def channel_of(made: Cluster, node: Node, name: str = "c") -> str:
    return next(each for each in map(f"{name}{{}}".format, range(999)) if made.primary_of(slot_of(each)) is node)


def shard_channels(node: Node) -> set[str]:
    return {line.decode() for line in node.ask("PUBSUB", "SHARDCHANNELS").split(b"\r\n")[2::2]}


async def test_channels_are_heard_from_the_node_that_has_their_slot_and_from_no_other(shared: Cluster) -> None:
    """A message stays with one node, however many there are; permanent channels are everybody's."""
    channels = [channel_of(shared, node) for node in shared.primaries]
    async with subscribed(shared) as (held, heard, client):
        for channel in channels:
            await held.subscribe(channel)
        assert held.channels == 4
        assert [shard_channels(node) for node in shared.primaries] == [{each} for each in channels]
        for channel in channels:
            assert await publish(client, channel, b"one") == 1
        await client.publish(OWN, b"beat")
        await heard.until(lambda: len(heard.messages) == 4)
        assert sorted(heard.messages) == sorted([*((each, b"one") for each in channels), (OWN, b"beat")])
        assert not heard.lost


async def test_a_thousand_channels_at_once(shared: Cluster) -> None:
    """A wave of joins is confirmed, every one by its node; and let go of, whereupon nobody listens."""
    names = [f"many{number}" for number in range(1000)]
    async with subscribed(shared) as (held, heard, client):
        async with asyncio.timeout(10):
            await asyncio.gather(*(held.subscribe(name) for name in names))
        assert held.channels == 1001
        for name in names[::50]:
            assert await publish(client, name, b"x") == 1
        await heard.until(lambda: len(heard.messages) == 20)
        for name in names:
            held.unsubscribe(name)
        async with asyncio.timeout(10):
            while any(shard_channels(node) for node in shared.primaries):
                await asyncio.sleep(0.02)
        assert held.channels == 1


async def test_channels_follow_their_slot(shared: Cluster) -> None:
    """A slot that moves takes its channels along: they are heard from its new node, and what was missed is asked for.
    Others stay as they are. A channel subscribed to by what an old topology says is found as well."""
    first, second, third = shared.primaries
    moving, staying = channel_of(shared, second, "move"), channel_of(shared, second, "stay")
    async with subscribed(shared) as (held, heard, client), subscribed(shared) as (late, later, _):
        for channel in (moving, staying):
            await held.subscribe(channel)
        shared.move(slot_of(moving), first)
        try:
            await heard.until(lambda: heard.lost[moving] == 1)
            await until_heard(client, heard, moving)
            assert shard_channels(first) == {moving}
            await late.subscribe(moving)
            await until_heard(client, later, moving)
            assert set(heard.lost) == {moving}
            assert await publish(client, staying, b"x") == 1
            assert not shard_channels(third)
        finally:
            for node in shared.primaries:
                node.ask("CLUSTER", "SETSLOT", str(slot_of(moving)), "NODE", second.id)
        await heard.until(lambda: heard.lost[moving] >= 2)
        assert held.channels == 3


async def test_a_channel_whose_slot_goes_and_comes_back_is_asked_for_again(shared: Cluster) -> None:
    """A node drops the channels of a slot that it gives away, though the topology says the same before and after."""
    first, second, _ = shared.primaries
    channel = channel_of(shared, second)
    async with subscribed(shared) as (held, heard, client):
        await held.subscribe(channel)
        for owner in (first, second):
            second.ask("CLUSTER", "SETSLOT", str(slot_of(channel)), "NODE", owner.id)
        await heard.until(lambda: heard.lost[channel] == 1)
        await until_heard(client, heard, channel)
        assert shard_channels(second) == {channel}


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_channels_of_a_primary_that_is_gone_are_heard_from_its_successor(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Killed, or silent with its connections open: its channels are held at the promoted replica, and each is told."""
    monkeypatch.setattr(cluster_subscription, "PING_SECONDS", 0.3)
    with cluster() as made:
        first, second, _ = made.primaries
        channels = [channel_of(made, first, name) for name in "abc"]
        other = channel_of(made, second)
        async with subscribed(made) as (held, heard, client):
            for channel in (*channels, other):
                await held.subscribe(channel)
            getattr(first, fault)()
            for channel in channels:
                await until_heard(client, heard, channel)
                assert heard.lost[channel]
            assert shard_channels(made.replica) == set(channels)
            assert other not in heard.lost
