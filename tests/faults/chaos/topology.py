"""The Redis that is broken: a primary with replicas under a Sentinel, or a Cluster of three primaries and three
replicas (and one more, at times). What is asked of one here may fail; `whole` says when it has recovered."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import redis
from redis.crc import key_slot

from emitter.wire import keys
from tests.clusters import SLOTS, Node, Sentinels, sentinels, until
from tests.faults.chaos.hosts import HostNode
from tests.ports import reserved_ports

HEAL_SECONDS = 90.0
ASK_SECONDS = 0.2
NODE_TIMEOUT_MS = 3000
"""A busy machine must not pass for a dead primary: one that is replaced while it lives takes writes that are lost."""
SHARDS = 3


async def wait_until(what: str, holds: Callable[[], bool], seconds: float = HEAL_SECONDS) -> None:
    """A server that does not answer does not hold it."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(_is_so, holds):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(ASK_SECONDS)


def _is_so(holds: Callable[[], bool]) -> bool:
    with contextlib.suppress(redis.RedisError, OSError, StopIteration, KeyError):
        return holds()
    return False


class Topology:
    """`primaries` are those that serve clients now."""

    url: str
    nodes: list[Node]

    @property
    def primaries(self) -> list[Node]:
        raise NotImplementedError

    def replicas_of(self, primary: Node) -> list[Node]:
        raise NotImplementedError

    def is_whole(self) -> bool:
        raise NotImplementedError

    def histories(self) -> set[str]:
        """The replication ids of the primaries: each promotion makes another. More of them than a fault is meant to
        make are failovers that nobody planned, which may lose writes."""
        found = set()
        for node in self.primaries:
            with redis.Redis(node.host, node.port, socket_timeout=6, retry=None) as client:
                found.add(str(client.info("replication")["master_replid"]))
        return found

    def servers(self) -> dict[str, int]:
        """Name → process id, of those that are alive."""
        return {f"server {number}": pid for number, node in enumerate(self.nodes) if (pid := node.pid)}

    async def whole(self) -> None:
        await wait_until("Redis is whole again", self.is_whole)

    def is_replaced(self, primary: Node) -> bool:
        """Whether another node has taken the place of this one."""
        return primary not in self.primaries

    async def replaced(self, primary: Node) -> None:
        """Wait for it. A server that is started again before, empty, is the primary still: its replica takes over
        that it has nothing."""
        await wait_until("another is promoted", lambda: self.is_replaced(primary))


class SentinelTopology(Topology):
    def __init__(self, made: Sentinels) -> None:
        self._made = made
        self.url, self.nodes = made.url, made.nodes

    @property
    def primaries(self) -> list[Node]:
        return [self._made.primary]

    def replicas_of(self, primary: Node) -> list[Node]:
        return [node for node in self.nodes if node is not primary]

    def is_whole(self) -> bool:
        return self._made.is_whole()

    async def come_back(self, node: Node) -> None:
        promoted = self._made.primary
        others = [each for each in self.nodes if each not in (promoted, node)]
        await wait_until("they follow it", lambda: all(each.follows(promoted) for each in others))
        await asyncio.to_thread(node.start, "--replicaof", f"127.0.0.1 {promoted.port}")


class Member(NamedTuple):
    """A line of `CLUSTER NODES`. `primary`: the id of the node that it follows. `slots`: ranges of those it serves."""

    id: str
    flags: frozenset[str]
    primary: str | None
    slots: list[tuple[int, int]]


class ClusterTopology(Topology):
    def __init__(self, nodes: list[Node], spare: Node) -> None:
        self.nodes, self.spare = nodes, spare
        """`spare` is no member until it is added."""
        self.url = "redis+cluster://" + ",".join(f"{node.host}:{node.port}" for node in nodes[:SHARDS])

    def ask(self, node: Node, *words: str | int) -> Any:
        """Raises `redis.RedisError`."""
        with redis.Redis(node.host, node.port, socket_timeout=6, retry=None, protocol=2) as client:
            return client.execute_command(*words)

    def members(self) -> dict[str, Member]:
        """Address → member, as the node sees it that knows the newest epoch and most primaries."""
        views = []
        for node in (*self.nodes, self.spare):
            with contextlib.suppress(redis.RedisError, OSError):
                if node.is_alive:
                    found: Any = self.ask(node, "CLUSTER NODES")
                    views.append({name.partition("@")[0]: _member(each) for name, each in found.items()})
        return max(views, key=_how_sound, default={})

    def _node(self, address: str) -> Node | None:
        return next((n for n in (*self.nodes, self.spare) if f"{n.host}:{n.port}" == address), None)

    def member(self, node: Node) -> Member | None:
        return self.members().get(f"{node.host}:{node.port}")

    @property
    def primaries(self) -> list[Node]:
        found = [(self._node(address), each) for address, each in self.members().items()]
        serving = [node for node, each in found if node is not None and each.slots and "fail" not in each.flags]
        return sorted(serving, key=lambda node: (node is self.spare, node.host, node.port))

    def is_replaced(self, primary: Node) -> bool:
        """Not yet when it is known to have failed: its slots are its own until a replica is elected."""
        members = self.members()
        served = sum(_size(each) for each in members.values() if "fail" not in each.flags)
        return served == SLOTS and not members[f"{primary.host}:{primary.port}"].slots

    def replicas_of(self, primary: Node) -> list[Node]:
        members = self.members()
        own = members[f"{primary.host}:{primary.port}"].id
        found = [self._node(address) for address, each in members.items() if each.primary == own]
        return [node for node in found if node is not None and node.is_alive]

    def is_whole(self) -> bool:
        """Every slot has its primary, each primary of the first three shards a replica that follows it, and all nodes
        agree."""
        members = self.members()
        for node in self.nodes:
            if b"cluster_state:ok" not in node.ask("CLUSTER", "INFO") or _has_open_slots(node):
                return False
        served = sum(_size(each) for each in members.values())
        followed = {each.primary for each in members.values() if each.primary}
        owners = {each.id for each in members.values() if each.slots}
        spare = members.get(f"{self.spare.host}:{self.spare.port}")
        links = all(
            b"master_link_status:up" in node.ask("INFO", "replication")
            for node in self.nodes
            if members[f"{node.host}:{node.port}"].primary
        )
        sick = any(flag in each.flags for each in members.values() for flag in ("fail", "fail?", "handshake", "noaddr"))
        return (
            served == SLOTS and len(followed) == SHARDS and owners - {spare.id if spare else ""} == followed and links
        ) and not sick

    def owner(self, slot: int) -> Node:
        for address, each in self.members().items():
            if any(first <= slot <= last for first, last in each.slots):
                found = self._node(address)
                assert found is not None
                return found
        raise StopIteration(f"nobody has slot {slot}")

    async def come_back(self, node: Node) -> None:
        """Its file says who it is; the others tell it whom it follows now."""
        await asyncio.to_thread(node.start)

    # --- slots ---

    async def move(self, slot: int, to: Node, *, seconds: float = 2.0) -> None:
        """Give a slot to another primary, key by key, as `redis-cli --cluster reshard` does; clients are asked to look
        at both meanwhile (ASK, TRYAGAIN)."""
        source = await asyncio.to_thread(self.owner, slot)
        if source is to:
            return
        ids = {node: (await self._insist(node, "CLUSTER MYID")).decode() for node in (source, to)}
        await self._insist(to, "CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
        await self._insist(source, "CLUSTER SETSLOT", slot, "MIGRATING", ids[to])
        size = max(1, await self._insist(source, "CLUSTER COUNTKEYSINSLOT", slot) // 20)
        began = time.monotonic()
        while names := await self._insist(source, "CLUSTER GETKEYSINSLOT", slot, size):
            # Of a MIGRATE that ran out of time both have a copy, and the source's is the one that is used.
            await self._insist(source, "MIGRATE", to.host, to.port, "", 0, 5000, "REPLACE", "KEYS", *names)
            await asyncio.sleep(seconds / 20)
            if time.monotonic() > began + 2 * seconds:
                size = 10_000  # of a busy machine: meanwhile a script that needs two keys may find one of them
        for node in (to, source, *await asyncio.to_thread(lambda: self.primaries)):
            with contextlib.suppress(redis.ResponseError):
                await self._insist(node, "CLUSTER SETSLOT", slot, "NODE", ids[to])

    async def _insist(self, node: Node, *words: str | int) -> Any:
        """Ask until there is an answer: a slot must not stay between two nodes because one of them was slow."""
        deadline = time.monotonic() + HEAL_SECONDS
        while True:
            try:
                return await asyncio.to_thread(self.ask, node, *words)
            except (redis.RedisError, OSError) as error:
                is_late = isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError)
                if time.monotonic() > deadline or not (is_late or "IOERR" in str(error)):
                    raise
                await asyncio.sleep(0.5)

    async def move_at_once(self, first: int, last: int, to: Node) -> None:
        """Valkey 9: give a range of slots of one primary to another in one step, after a copy of it was made."""
        source = await asyncio.to_thread(self.owner, first)
        if source is to:
            return
        target = self.ask(to, "CLUSTER MYID").decode()
        self.ask(source, "CLUSTER MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", target)
        await wait_until("the slots have moved", lambda: self.owner(first) is to and self.owner(last) is to, 30)

    def can_move_at_once(self) -> bool:
        return b"migrateslots" in self.nodes[0].ask("COMMAND", "INFO", "cluster|migrateslots")


def _has_open_slots(node: Node) -> bool:
    """Whether a slot is on its way from this node or to it, which only it knows."""
    return re.search(rb"\[\d+-[<>]-", node.ask("CLUSTER", "NODES")) is not None


def _member(found: Any) -> Member:
    flags = frozenset(found["flags"].split(","))
    primary = None if found["master_id"] == "-" else found["master_id"]
    ranges = [(int(each[0]), int(each[-1])) for each in found["slots"]]
    return Member(found["node_id"], flags, primary, ranges)


def _how_sound(view: dict[str, Member]) -> tuple[int, int]:
    """A node that is cut off sees the others fail."""
    well = [each for each in view.values() if not each.flags & {"fail", "fail?", "noaddr", "handshake"}]
    return len(well), sum(_size(each) for each in well)


def _size(member: Member) -> int:
    return sum(last - first + 1 for first, last in member.slots)


@contextlib.contextmanager
def sentinel_topology() -> Iterator[SentinelTopology]:
    with sentinels(replicas=2, down_after_ms=4000) as made:
        yield SentinelTopology(made)


@contextlib.contextmanager
def cluster_topology(server: str, *, has_hosts: bool) -> Iterator[ClusterTopology]:
    """Three primaries with a replica each, and a server that is no member yet. `server`: the binary."""
    with contextlib.ExitStack() as stack:
        nodes = _hosts(server) if has_hosts else _on_loopback(server, stack.enter_context(reserved_ports(14)))
        for node in nodes[:-1]:
            stack.enter_context(node)
        stack.callback(lambda: nodes[-1].is_alive and nodes[-1].kill())
        made = ClusterTopology(nodes[:-1], nodes[-1])
        _join(made)
        yield made


def _options() -> list[str]:
    quick = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--repl-timeout", "5"]
    lasting = ["--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"]
    return ["--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS), *lasting, *quick]


def _hosts(server: str) -> list[Node]:
    return [HostNode(number, *_options(), "--protected-mode", "no", server=server) for number in range(2 * SHARDS + 1)]


def _on_loopback(server: str, ports: Sequence[int]) -> list[Node]:
    pairs = zip(ports[::2], ports[1::2], strict=True)
    return [Node(port, *_options(), "--cluster-port", str(bus), server=server) for port, bus in pairs]


def bus_port(node: Node) -> int:
    return node.port + 10_000 if isinstance(node, HostNode) else node.port + 1


def _join(made: ClusterTopology) -> None:
    first = made.nodes[0]
    for number, node in enumerate(made.nodes[:SHARDS]):
        begin, end = (-(-each * SLOTS // SHARDS) for each in (number, number + 1))
        node.ask("CLUSTER", "ADDSLOTSRANGE", str(begin), str(end - 1))
    for number, node in enumerate(made.nodes):
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        if node is not first:
            first.ask("CLUSTER", "MEET", node.host, str(node.port), str(bus_port(node)))
    for primary, replica in zip(made.nodes[:SHARDS], made.nodes[SHARDS:], strict=True):
        until(lambda p=primary, r=replica: r.ask("CLUSTER", "REPLICATE", p.id) == b"+OK\r\n")  # type: ignore[misc]
    until(lambda: _is_so(made.is_whole))


def slots_of(users: Sequence[str]) -> list[int]:
    """The slots with something in them: of these users' keys, of the jobs and of the webhooks."""
    own = {key_slot(keys.Owner(user).feed.encode()) for user in users}
    return sorted(own | {key_slot(keys.DUE.encode()), key_slot(keys.WEBHOOKS.encode())})
