"""The subscription of an edge to a Redis Cluster: sharded pub/sub (Redis 7.0), one connection to each primary.

A Cluster forwards an ordinary message to every node, so that more nodes do not carry more messages. A message of
`SPUBLISH` stays with the node that owns the channel's slot, where the log is as well. So a log's channel is held at the
node that the topology names, and moves with its slot: a node sends `sunsubscribe` when a slot has left it, or is gone
itself.

redis-py's `ClusterPubSub` polls its nodes in turns, and reconnects without a sign as `PubSub` does
(`broker.log.subscription`). So this module has a connection of its own to each primary.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any

from redis.asyncio import RedisCluster
from redis.crc import key_slot
from redis.exceptions import MovedError, RedisError

from broker.base.logging import get_logger
from broker.log.subscription import CONFIRM_SECONDS, Subscription
from emitter import tasks
from emitter.errors import RedisUnavailable
from emitter.store.connection import GONE, channels_of

COMPARE_SECONDS = 2.0
"""How often the node of every channel is compared with the topology."""
REFRESH_PAUSE_SECONDS = 0.1
PING_SECONDS = 3.0
"""The connection to a node that answered nothing between two pings is given up."""


def slot_of(channel: str) -> int:
    return key_slot(channel.encode())


class NodeSubscription(Subscription):
    """Shard channels over one connection after another to one node. `on_moved()`: the topology may have changed."""

    SUBSCRIBE, UNSUBSCRIBE = "SSUBSCRIBE", "SUNSUBSCRIBE"

    def __init__(
        self,
        node: Any,
        on_message: Callable[[str, bytes], None],
        on_lost: Callable[[str], None],
        on_reconnect: Callable[[], None],
        on_read: Callable[[], None],
        on_moved: Callable[[], None],
    ) -> None:
        super().__init__(node, [], on_message, on_lost, on_reconnect, on_read)
        self._on_moved = on_moved
        self._has_answered = True
        self._connections = self._counted = 0
        self._refused: set[int] = set()
        """Slots that this node has reported as moved."""
        self._task = asyncio.create_task(self._run(), name="shard-subscription")

    def adopt(self, channel: str) -> None:
        """Hold a channel that another node held: its confirmation calls `on_lost`, as messages may be missing."""
        self._confirmed.add(channel)
        self._wanted.add(channel)
        self._changed.set()

    def abandon(self, channel: str) -> None:
        """Release a channel. A caller that waits for it goes on, and finds its new node."""
        self.unsubscribe(channel)
        waiter = self._waiters.pop(channel, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def retry(self) -> None:
        """Subscribe again to what the node had refused, or unsubscribed."""
        if self._refused:
            self._sent = {channel for channel in self._sent if slot_of(channel) not in self._refused}
            self._refused.clear()
            self._changed.set()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        node = self._redis
        connection = node.connection_class(**node.connection_kwargs)
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await connection.connect()
            self._has_answered = True
            self._connections += 1
            pings = asyncio.create_task(self._ping(connection), name="shard-ping")
            try:
                yield connection
            finally:
                await tasks.end([pings])
        finally:
            if not tasks.told_to_stop():
                self._on_moved()
            with contextlib.suppress(RedisError, *GONE):
                await connection.disconnect()

    async def _ping(self, connection: Any) -> None:
        """Notice a node that is cut off without an error."""
        while not tasks.told_to_stop():
            await asyncio.sleep(PING_SECONDS)
            if not self._has_answered:
                await asyncio.sleep(0.1)  # a busy loop may not have read an answer that has arrived
            if not self._has_answered:
                self.reconnect()
                return
            self._has_answered = False
            with contextlib.suppress(RedisError, *GONE):  # the reader meets it too
                await connection.send_command("PING", check_health=False)

    async def _send(self, connection: Any, verb: str, channels: set[str]) -> None:
        """A command may name channels of one slot only; so each has one of its own, and all go in one write."""
        await connection.send_packed_command(
            connection.pack_commands([(verb, channel) for channel in channels]), check_health=False
        )

    def _on_reply(self, reply: Any) -> None:
        if isinstance(reply, MovedError):
            self._refuse(reply.slot_id)
        else:
            super()._on_reply(reply)

    def _handle(self, reply: Any) -> None:
        self._has_answered = True
        match reply:
            case [b"smessage", channel, data]:
                self._on_message(channel.decode(), data)
            case [b"ssubscribe", channel, _]:
                self._on_confirmation(channel.decode())
            case [b"sunsubscribe", bytes(channel), _] if channel.decode() in self._sent:
                self._refuse(slot_of(channel.decode()))  # not requested: the slot has moved

    def _on_confirmation(self, channel: str) -> None:
        if self._connections > max(1, self._counted) and channel in self._confirmed:
            self._counted = self._connections
            self._reconnected()
        super()._on_confirmation(channel)

    def _refuse(self, slot: int) -> None:
        self._refused.add(slot)
        self._on_moved()


class ShardedSubscription:
    """Like `Subscription`, for a Cluster: `permanent` channels by ordinary pub/sub, all others by `SSUBSCRIBE`."""

    def __init__(
        self,
        redis: RedisCluster,
        permanent: list[str],
        on_message: Callable[[str, bytes], None],
        on_lost: Callable[[str], None],
        on_reconnect: Callable[[], None] = lambda: None,
        on_read: Callable[[], None] = lambda: None,
    ) -> None:
        self._redis: Any = redis
        self._callbacks = (on_message, on_lost, on_reconnect, on_read)
        self._common = Subscription(redis, permanent, *self._callbacks)  # type: ignore[arg-type]
        self._nodes: dict[str, NodeSubscription] = {}
        self._channels: dict[int, set[str]] = {}
        self._node_by_slot: dict[int, NodeSubscription] = {}
        """Channels by slot, and the node that holds those of a slot."""
        self._is_stale = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._log = get_logger()

    async def __aenter__(self) -> ShardedSubscription:
        await self._common.__aenter__()
        self._task = asyncio.create_task(self._follow(), name="shards")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._task is not None:
            await tasks.end([self._task])
        for part in (*self._nodes.values(), self._common):
            await part.__aexit__(kind, error, tb)

    @property
    def channels(self) -> int:
        return sum(part.channels for part in (self._common, *self._nodes.values()))

    async def subscribe(self, channel: str) -> None:
        """Hold a channel and wait until its node confirmed it. Raises `RedisUnavailable`."""
        slot = slot_of(channel)
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                while True:
                    node = self._node_by_slot.get(slot) or self._node_by_slot.setdefault(slot, self._node_of(slot))
                    self._channels.setdefault(slot, set()).add(channel)
                    await node.subscribe(channel)
                    if self._node_by_slot.get(slot) is node:
                        return
        except (RedisError, *GONE) as error:
            raise RedisUnavailable(f"no confirmation of a subscription within {CONFIRM_SECONDS:g} s") from error

    def holds(self, channel: str) -> bool:
        """Whether the channel's node has confirmed it, which is held from here on."""
        slot = slot_of(channel)
        node = self._node_by_slot.get(slot)
        return node is not None and channel in self._channels.get(slot, ()) and node.holds(channel)

    def unsubscribe(self, channel: str) -> None:
        slot = slot_of(channel)
        held = self._channels.get(slot, set())
        if channel in held:
            held.discard(channel)
            self._node_by_slot[slot].unsubscribe(channel)
        if not held:
            self._channels.pop(slot, None)
            self._node_by_slot.pop(slot, None)

    def reconnect(self) -> None:
        """Give every connection up for a new one, on which every channel is confirmed again."""
        for part in (self._common, *self._nodes.values()):
            part.reconnect()

    # --- nodes of channels ------------------------------------------------------------------------------------------

    def _node_of(self, slot: int) -> NodeSubscription:
        """Raises `SlotNotCoveredError`."""
        node = self._redis.nodes_manager.get_node_from_slot(slot)
        if node.name not in self._nodes:
            self._nodes[node.name] = NodeSubscription(node, *self._callbacks, self._is_stale.set)
        return self._nodes[node.name]

    async def _follow(self) -> None:
        """Keep every channel at the node of its slot. Read the topology again when it may have changed."""
        while not tasks.told_to_stop():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COMPARE_SECONDS):
                    await self._is_stale.wait()
            try:
                if self._is_stale.is_set():
                    self._is_stale.clear()
                    await asyncio.sleep(REFRESH_PAUSE_SECONDS)  # one read for all reports of a moment, and no hot loop
                    async with asyncio.timeout(CONFIRM_SECONDS):
                        await self._redis.nodes_manager.initialize()
                await self._move()
            except (RedisError, *GONE) as error:
                self._log.warning("cluster_unreachable", error=type(error).__name__)
                self._is_stale.set()
            except Exception:  # the last resort of this task: without it channels would not follow their slots
                self._log.exception("cluster_not_followed")
                self._is_stale.set()

    async def _move(self) -> None:
        """Move the channels of slots that have moved. Raises `SlotNotCoveredError`."""
        for slot, before in self._node_by_slot.items():
            here = self._node_of(slot)
            if here is before:
                continue
            self._node_by_slot[slot] = here
            for channel in self._channels[slot]:
                here.adopt(channel)
                before.abandon(channel)
        for node in self._nodes.values():
            node.retry()
        for name, node in list(self._nodes.items()):
            if node not in self._node_by_slot.values():  # checked again: the end of a node lets other tasks run
                del self._nodes[name]
                await node.__aexit__(None, None, None)


AnySubscription = Subscription | ShardedSubscription


def subscription(
    redis: Any,
    permanent: list[str],
    on_message: Callable[[str, bytes], None],
    on_lost: Callable[[str], None],
    on_reconnect: Callable[[], None] = lambda: None,
    on_read: Callable[[], None] = lambda: None,
) -> AnySubscription:
    """The subscription for a client of `emitter.store.connection.connect`."""
    if isinstance(redis, RedisCluster):
        return ShardedSubscription(redis, permanent, on_message, on_lost, on_reconnect, on_read)
    suffix = channels_of(redis).suffix
    return Subscription(redis, permanent, on_message, on_lost, on_reconnect, on_read, suffix=suffix)
