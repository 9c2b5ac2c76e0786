"""Redis servers on loopback ports: alone, with a replica that a Sentinel promotes, or as a Cluster that fails over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Self

import redis

from broker.cli.embedded import find_server
from tests.edges import under_load
from tests.ports import reserved_ports

START_SECONDS = 15.0
SLOTS = 16384
AT_ONCE = ("--repl-diskless-sync-delay", "0")


def ask(port: int, *words: str, host: str = "127.0.0.1") -> bytes:
    """The beginning of a server's answer to one command; empty if there is none."""
    command = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words)
    try:
        with socket.create_connection((host, port), timeout=under_load(2)) as connection:
            connection.sendall(command)
            return connection.recv(4096)
    except OSError:
        return b""


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + under_load(START_SECONDS)
    while not holds():
        assert time.monotonic() < deadline, "the server is not there in time"
        time.sleep(0.05)


class Node:
    """`with Node(port, …) as node:` one server of several that belong together, on a loopback port. `server`: the
    binary."""

    host = "127.0.0.1"

    def __init__(self, port: int, *arguments: str, server: str | None = None) -> None:
        self.port = port
        self._arguments = arguments
        self._server = server
        self._folder = tempfile.TemporaryDirectory(prefix="runcast-node-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self, *more: str) -> None:
        quiet = ["--save", "", "--loglevel", "warning", "--dir", self._folder.name]
        server = self._server or find_server()
        self._launch([server, *self._arguments, *more, "--port", str(self.port), "--bind", self.host, *quiet])
        until(lambda: self.ask("PING").startswith(b"+PONG"))

    def _launch(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """0 if it is dead."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def ask(self, *words: str) -> bytes:
        return ask(self.port, *words, host=self.host)

    @property
    def id(self) -> str:
        return self.ask("CLUSTER", "MYID").split()[1].decode()

    def follows(self, primary: Node) -> bool:
        """Whether it is a replica that has all this primary had when it came."""
        state = self.ask("INFO", "replication")
        return f"master_port:{primary.port}\r\nmaster_link_status:up".encode() in state

    @property
    def offset(self) -> int:
        """How far its copy of the data goes."""
        found = re.search(rb"master_repl_offset:(\d+)", self.ask("INFO", "replication"))
        assert found is not None
        return int(found[1])

    async def has_all_of(self, primary: Node) -> None:
        """Wait until this replica has what its primary has now. (WAIT tells only of writes of the same connection.)"""
        wanted = primary.offset
        await asyncio.to_thread(until, lambda: self.offset >= wanted)

    def clients(self, flags: str = "N") -> list[int]:
        """Ids of the connections it has, beside those of other servers and the one that asks. `flags`: N for ordinary
        ones, P for subscriptions."""
        with redis.Redis(self.host, self.port) as client:
            own = client.client_id()
            listed = [each for each in client.client_list() if not each["name"] and each["flags"] == flags]
        return [int(each["id"]) for each in listed if int(each["id"]) != own]

    def cut(self, flags: str) -> None:
        """Kill these connections, and not Sentinel's: it would take the server for dead."""
        with redis.Redis(self.host, self.port) as client:
            for number in self.clients(flags):
                client.client_kill_filter(_id=str(number))


class Cluster:
    """Primaries that share the slots evenly, and a replica of one of them (`failing`)."""

    def __init__(self, primaries: list[Node], replica: Node, failing: Node) -> None:
        self.primaries, self.replica, self.failing = primaries, replica, failing
        self.url = f"redis+cluster://127.0.0.1:{primaries[-1].port}"

    def primary_of(self, slot: int) -> Node:
        return self.primaries[slot * len(self.primaries) // SLOTS]

    @contextlib.asynccontextmanager
    async def losing_writes(self) -> AsyncIterator[None]:
        """What the primary with the replica acknowledges in the block dies with it; then its replica takes over."""
        self.replica.freeze()
        self.failing.ask("CLIENT", "KILL", "TYPE", "replica")  # or the replica would find it in its socket
        yield
        self.failing.kill()
        self.replica.thaw()
        await asyncio.to_thread(until, lambda: b"role:master" in self.replica.ask("INFO", "replication"))

    def begin_move(self, slot: int, to: Node) -> None:
        """From here on its primary sends clients that ask for keys it has not to the other (ASK)."""
        source = self.primary_of(slot)
        assert to.ask("CLUSTER", "SETSLOT", str(slot), "IMPORTING", source.id) == b"+OK\r\n"
        assert source.ask("CLUSTER", "SETSLOT", str(slot), "MIGRATING", to.id) == b"+OK\r\n"

    def move(self, slot: int, to: Node) -> None:
        """Give a slot, with all its keys, to another primary."""
        self.begin_move(slot, to)
        self.move_rest(slot, to)

    def move_rest(self, slot: int, to: Node) -> None:
        source = self.primary_of(slot)
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", str(slot), "100").split(b"\r\n")[2::2]:
            names = [key.decode() for key in keys]
            moved = source.ask("MIGRATE", "127.0.0.1", str(to.port), "", "0", "5000", "KEYS", *names)
            assert moved == b"+OK\r\n", moved
        for node in (to, source, *self.primaries):
            node.ask("CLUSTER", "SETSLOT", str(slot), "NODE", to.id)


@contextlib.contextmanager
def cluster(primaries: int = 3, *, replica_of: int = 0) -> Iterator[Cluster]:
    """A failover takes about a second. Keys of one primary have a replica."""
    with contextlib.ExitStack() as stack:
        ports = stack.enter_context(reserved_ports(2 * (primaries + 1)))
        nodes = []
        for port, bus in zip(ports[::2], ports[1::2], strict=True):
            own = ["--cluster-port", str(bus), "--cluster-node-timeout", "1000", *AT_ONCE]
            nodes.append(stack.enter_context(Node(port, "--cluster-enabled", "yes", *own)))
        for index, node in enumerate(nodes[:primaries]):
            first, last = (-(-each * SLOTS // primaries) for each in (index, index + 1))
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last - 1))
        until(lambda: _have_met(nodes[0], dict(zip(ports[2::2], ports[3::2], strict=True))))
        replica, failing = nodes[primaries], nodes[replica_of]
        until(lambda: replica.ask("CLUSTER", "REPLICATE", failing.id) == b"+OK\r\n")
        for node in nodes:
            until(lambda node=node: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"))  # type: ignore[misc]
        until(lambda: replica.follows(failing))
        yield Cluster(nodes[:primaries], replica, failing)


def _have_met(node: Node, others: dict[int, int]) -> bool:
    """Whether a node knows those at these ports (with their buses). One that does not answer a MEET within the node
    timeout is forgotten, so it is said again."""
    known = node.ask("CLUSTER", "NODES")
    for port, bus in others.items():
        if b":%d@" % port not in known:
            node.ask("CLUSTER", "MEET", "127.0.0.1", str(port), str(bus))
    return all(b":%d@" % port in known for port in others) and b"handshake" not in known


class Sentinels:
    """A primary with its replicas, and the Sentinel that watches over them."""

    def __init__(self, nodes: list[Node], sentinel: Node) -> None:
        self.nodes, self.sentinel = nodes, sentinel
        self.url = f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster"

    @property
    def primary(self) -> Node:
        """The one that the Sentinel names."""
        port = int(self.sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster").split(b"\r\n")[4])
        return next(node for node in self.nodes if node.port == port)

    @property
    def replicas(self) -> list[Node]:
        primary = self.primary
        return [node for node in self.nodes if node is not primary]

    def is_whole(self) -> bool:
        """Whether all the others follow the primary, and the Sentinel knows."""
        primary = self.primary
        known = self.sentinel.ask("SENTINEL", "MASTER", "mymaster")
        is_known = f"num-slaves\r\n$1\r\n{len(self.nodes) - 1}".encode() in known and b"\r\nmaster\r\n" in known
        return is_known and all(node.follows(primary) for node in self.nodes if node is not primary)


@contextlib.contextmanager
def sentinels(replicas: int = 1, down_after_ms: int = 1000) -> Iterator[Sentinels]:
    """A primary that is silent for so long is replaced, which takes another second."""
    with contextlib.ExitStack() as stack:
        first, *others, watching = stack.enter_context(reserved_ports(2 + replicas))
        primary = stack.enter_context(Node(first, *AT_ONCE))
        nodes = [primary]
        for port in others:
            nodes.append(stack.enter_context(Node(port, *AT_ONCE)))
            nodes[-1].ask("REPLICAOF", "127.0.0.1", str(first))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "sentinel.conf").write_text(
            f"sentinel monitor mymaster 127.0.0.1 {first} 1\n"
            f"sentinel down-after-milliseconds mymaster {down_after_ms}\n"
            "sentinel failover-timeout mymaster 5000\n"
        )
        sentinel = stack.enter_context(Node(watching, str(folder / "sentinel.conf"), "--sentinel"))
        made = Sentinels(nodes, sentinel)
        until(made.is_whole)
        yield made


@contextlib.contextmanager
def primary_and_replica() -> Iterator[tuple[Node, Node]]:
    """Two servers whose roles can be changed: see `hand_over`."""
    with contextlib.ExitStack() as stack:
        ports = stack.enter_context(reserved_ports(2))
        primary, replica = (stack.enter_context(Node(port, *AT_ONCE)) for port in ports)
        replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
        until(lambda: replica.follows(primary))
        yield primary, replica


def hand_over(primary: Node, replica: Node) -> None:
    """Make the replica the primary of its primary, as `FAILOVER` does: nothing is lost."""
    assert primary.ask("FAILOVER") == b"+OK\r\n"
    until(lambda: primary.follows(replica))
