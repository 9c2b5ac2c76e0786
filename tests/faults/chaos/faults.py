"""The faults: each breaks something, and waits until that is whole again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

import redis

from tests.clusters import Node
from tests.edges import EdgeProcess
from tests.faults.chaos.hosts import HostNode
from tests.faults.chaos.stand import LEASE_SECONDS, Stand
from tests.faults.chaos.topology import (
    HEAL_SECONDS,
    NODE_TIMEOUT_MS,
    ClusterTopology,
    bus_port,
    slots_of,
    wait_until,
)

Do = Callable[[Stand, int], Awaitable[None]]


class Kind(NamedTuple):
    """`on`: topologies that have it. `promotes`: how many replicas become primaries. `loses`: acknowledged writes may
    be lost. `what` it is and what a viewer `sees`: for people."""

    do: Do
    on: frozenset[str]
    promotes: int
    loses: bool
    what: str
    sees: str


KINDS: dict[str, Kind] = {}
PAUSE = "heartbeats, then what it missed"
NEXT = "`execution:superseded`, then the next attempt"
RESET = "`stream:reset`, then the log as it is"
FAILOVER_SECONDS = 7.0
"""A server gives a `CLUSTER FAILOVER` up after five, if the machine is too busy for it: then it is asked for again."""


def fault(what: str, sees: str, *on: str, promotes: int = 0, loses: bool = False) -> Callable[[Do], Do]:
    def register(do: Do) -> Do:
        KINDS[do.__name__] = Kind(do, frozenset(on or ("sentinel", "cluster")), promotes, loses, what, sees)
        return do

    return register


def kinds_of(topology: Any) -> list[str]:
    """Those that can be carried out there."""
    is_cluster = isinstance(topology, ClusterTopology)
    found = [name for name, kind in KINDS.items() if ("cluster" if is_cluster else "sentinel") in kind.on]
    if not (is_cluster and topology.can_move_at_once()):
        found = [name for name in found if name != "move_slots_at_once"]
    return found


@fault("(nothing: what the machine does to viewers at the same time)", "events")
async def nothing(stand: Stand, target: int) -> None:
    """Tells what of the other rows is the fault's doing."""
    await asyncio.sleep(2)


# --- edges and workers -----------------------------------------------------------------------------------------------


@fault("an edge is stopped (SIGTERM), another process takes its place", "its stream ends, it reconnects")
async def drain_an_edge(stand: Stand, target: int) -> None:
    edge = stand.edges[target % len(stand.edges)]
    await asyncio.to_thread(edge.stop, HEAL_SECONDS)
    await _start(edge)


@fault("an edge is killed (SIGKILL), another process takes its place", "its connection breaks, it reconnects")
async def kill_an_edge(stand: Stand, target: int) -> None:
    edge = stand.edges[target % len(stand.edges)]
    edge.kill()
    await asyncio.sleep(target % 10 / 10)
    await _start(edge)


async def _start(edge: EdgeProcess) -> None:
    edge.start()
    await wait_until("the edge is ready", lambda: edge.admin_status("/readyz") == 200)


@fault("a worker is stopped (SIGTERM), another takes its place", NEXT)
async def stop_a_worker(stand: Stand, target: int) -> None:
    number = target % len(stand.workers)
    await stand.workers[number].stop(HEAL_SECONDS)
    stand.replace_worker(number)


@fault(f"a worker is killed (SIGKILL; lease {LEASE_SECONDS} s)", NEXT)
async def kill_a_worker(stand: Stand, target: int) -> None:
    number = target % len(stand.workers)
    stand.workers[number].kill()
    stand.replace_worker(number)
    await asyncio.sleep(LEASE_SECONDS)  # until its executions are taken over


@fault(f"a worker stands still for longer than its lease ({LEASE_SECONDS} s)", NEXT)
async def freeze_a_worker(stand: Stand, target: int) -> None:
    worker = stand.workers[target % len(stand.workers)]
    os.kill(worker.pid, signal.SIGSTOP)
    await asyncio.sleep(LEASE_SECONDS + 2)
    os.kill(worker.pid, signal.SIGCONT)


# --- connections -----------------------------------------------------------------------------------------------------


@fault("a primary closes the subscriptions of all edges", PAUSE)
async def cut_subscriptions(stand: Stand, target: int) -> None:
    await asyncio.to_thread(_choose(stand, target).cut, "P")


@fault("a primary closes all other connections", PAUSE)
async def cut_connections(stand: Stand, target: int) -> None:
    await asyncio.to_thread(_choose(stand, target).cut, "N")


def _choose(stand: Stand, target: int) -> Node:
    primaries = stand.topology.primaries
    return primaries[target % len(primaries)]


# --- primaries -------------------------------------------------------------------------------------------------------


@fault("a primary stands still for 1.5 s and is not replaced", PAUSE)
async def freeze_a_primary(stand: Stand, target: int) -> None:
    node = _choose(stand, target)
    node.freeze()
    await asyncio.sleep(1.5)
    node.thaw()


@fault("a primary is killed, its replica takes over and has all of it", PAUSE, promotes=1)
async def kill_a_primary(stand: Stand, target: int) -> None:
    primary = _choose(stand, target)
    primary.ask("CLIENT", "PAUSE", "5000", "WRITE")
    for replica in stand.topology.replicas_of(primary):
        await replica.has_all_of(primary)
    primary.kill()
    await stand.topology.replaced(primary)
    await cast("Any", stand.topology).come_back(primary)


@fault(
    "a primary is killed before its replica has the last writes",
    RESET,
    "cluster",
    promotes=1,
    loses=True,
)
async def lose_writes(stand: Stand, target: int) -> None:
    primary = _choose(stand, target)
    replicas = stand.topology.replicas_of(primary)
    for replica in replicas:
        replica.freeze()
    with contextlib.suppress(redis.RedisError, OSError):
        cast("ClusterTopology", stand.topology).ask(primary, "CLIENT KILL TYPE", "replica")
    await asyncio.sleep(0.4)  # what is acknowledged from here on is lost
    primary.kill()
    for replica in replicas:
        replica.thaw()
    await stand.topology.replaced(primary)
    await cast("Any", stand.topology).come_back(primary)


@fault(
    "`CLUSTER FAILOVER`: a replica and its primary change places",
    PAUSE,
    "cluster",
    promotes=1,
)
async def fail_over(stand: Stand, target: int) -> None:
    primary = _choose(stand, target)
    replicas = stand.topology.replicas_of(primary)
    assert replicas, "a primary of a whole cluster has a replica"
    asked_at = -math.inf

    def is_done() -> bool:
        nonlocal asked_at
        if stand.topology.is_replaced(primary):
            return True
        if (now := time.monotonic()) - asked_at > FAILOVER_SECONDS:
            asked_at = now
            answer = replicas[0].ask("CLUSTER", "FAILOVER")
            assert answer == b"+OK\r\n" or stand.topology.is_replaced(primary), answer
        return False

    await wait_until("they change places", is_done)


@fault(
    "a primary is cut off from the other nodes, not from clients, until it is replaced",
    RESET,
    "cluster",
    promotes=1,
    loses=True,
)
async def cut_a_primary_off(stand: Stand, target: int) -> None:
    """Until it notices (the node time-out) it takes writes that are lost. Without hosts of their own servers can only
    stand still."""
    primary = _choose(stand, target)
    others = [node for node in stand.topology.nodes if node is not primary]
    if isinstance(primary, HostNode):
        await asyncio.to_thread(primary.cut_from, others)
    else:
        primary.freeze()
    try:
        await stand.topology.replaced(primary)
        await asyncio.sleep(NODE_TIMEOUT_MS / 1000)
    finally:
        if isinstance(primary, HostNode):
            await asyncio.to_thread(primary.join, others)
        else:
            primary.thaw()


# --- slots -----------------------------------------------------------------------------------------------------------


@fault("a slot moves to another primary, key by key", PAUSE, "cluster")
async def move_a_slot(stand: Stand, target: int) -> None:
    topology, slot, to = _move(stand, target)
    await topology.move(slot, to)


@fault(
    "slots move to another primary at once (`CLUSTER MIGRATESLOTS` of Valkey 9)",
    PAUSE,
    "cluster",
)
async def move_slots_at_once(stand: Stand, target: int) -> None:
    topology, slot, to = _move(stand, target)
    await topology.move_at_once(slot, slot, to)


def _move(stand: Stand, target: int) -> tuple[ClusterTopology, int, Node]:
    topology = cast("ClusterTopology", stand.topology)
    slots = slots_of(stand.users)
    slot = slots[target % len(slots)]
    others = [node for node in topology.primaries if node is not topology.owner(slot)]
    return topology, slot, others[target // len(slots) % len(others)]


@fault("a node is added, gets slots, gives them back and is removed", PAUSE, "cluster")
async def add_and_remove_a_node(stand: Stand, target: int) -> None:
    topology = cast("ClusterTopology", stand.topology)
    spare, slots = topology.spare, slots_of(stand.users)
    await asyncio.to_thread(spare.start)
    spare.ask("CLUSTER", "RESET", "HARD")
    first = topology.nodes[0]
    first.ask("CLUSTER", "MEET", spare.host, str(spare.port), str(bus_port(spare)))
    id_ = spare.id
    await wait_until("all know it", lambda: all(id_ in _known(node) for node in topology.nodes))
    await wait_until("it knows all", lambda: b"cluster_state:ok" in spare.ask("CLUSTER", "INFO"))
    moved = [slots[(target + number) % len(slots)] for number in range(2)]
    for slot in moved:
        await topology.move(slot, spare)
    await asyncio.sleep(1)
    for number, slot in enumerate(moved):
        others = [node for node in topology.primaries if node is not spare]
        await topology.move(slot, others[(target + number) % len(others)])
    for node in topology.nodes:
        node.ask("CLUSTER", "FORGET", id_)
    spare.ask("CLUSTER", "RESET", "HARD")
    spare.kill()


def _known(node: Node) -> str:
    with redis.Redis(node.host, node.port, socket_timeout=2, retry=None, protocol=2) as client:
        client.set_response_callback("CLUSTER NODES", lambda text, **_: text)
        return cast("bytes", client.execute_command("CLUSTER NODES")).decode()
