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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from broker.embedded import find_server
from tests.ports import reserved_ports

START_SECONDS = 15.0
SLOTS = 16384
AT_ONCE = ("--repl-diskless-sync-delay", "0")


def ask(port: int, *words: str) -> bytes:
    """The beginning of a server's answer to one command; empty if there is none."""
    command = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(command)
            return connection.recv(4096)
    except OSError:
        return b""


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "the server is not there in time"
        time.sleep(0.05)


@contextlib.contextmanager
def server(port: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server process on a loopback port."""
    with tempfile.TemporaryDirectory() as directory:
        quiet = ["--save", "", "--loglevel", "warning", "--dir", directory]
        command = [find_server(), *arguments, "--port", str(port), "--bind", "127.0.0.1", *quiet]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            until(lambda: ask(port, "PING").startswith(b"+PONG"))
            yield process
        finally:
            process.kill()
            process.wait()


class Node:
    """One server of several that belong together."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._process = process

    @property
    def id(self) -> str:
        return self.ask("CLUSTER", "MYID").split()[1].decode()

    @property
    def follows(self) -> bool:
        """Whether it is a replica that has all its primary had."""
        return b"master_link_status:up" in self.ask("INFO", "replication")

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

    def clients(self) -> int:
        """How many connections it has, beside those of other servers and the one that asks."""
        lines = self.ask("CLIENT", "LIST").splitlines()
        return sum(b" flags=N " in line and b" name= " in line for line in lines) - 1

    def ask(self, *words: str) -> bytes:
        return ask(self.port, *words)

    def kill(self) -> None:
        self._process.kill()

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)


class Cluster:
    """Primaries that share the slots evenly, and a replica of the first."""

    def __init__(self, primaries: list[Node], replica: Node) -> None:
        self.primaries, self.replica = primaries, replica
        self.url = f"redis+cluster://127.0.0.1:{primaries[-1].port}"

    def primary_of(self, slot: int) -> Node:
        return self.primaries[slot * len(self.primaries) // SLOTS]

    def move(self, slot: int, to: Node) -> None:
        """Give a slot, with all its keys, to another primary."""
        source = self.primary_of(slot)
        assert to.ask("CLUSTER", "SETSLOT", str(slot), "IMPORTING", source.id) == b"+OK\r\n"
        assert source.ask("CLUSTER", "SETSLOT", str(slot), "MIGRATING", to.id) == b"+OK\r\n"
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", str(slot), "100").split(b"\r\n")[2::2]:
            names = [key.decode() for key in keys]
            moved = source.ask("MIGRATE", "127.0.0.1", str(to.port), "", "0", "5000", "KEYS", *names)
            assert moved == b"+OK\r\n", moved
        for node in (to, source, *self.primaries):
            node.ask("CLUSTER", "SETSLOT", str(slot), "NODE", to.id)


@contextlib.contextmanager
def cluster(primaries: int = 3) -> Iterator[Cluster]:
    """A failover takes about a second. Keys of the first primary have a replica."""
    with contextlib.ExitStack() as stack:
        # Each by itself: eight free ones in a row are rare while others make thousands of connections.
        ports = [stack.enter_context(reserved_ports(1))[0] for _ in range(2 * (primaries + 1))]
        nodes = []
        for port, bus in zip(ports[::2], ports[1::2], strict=True):
            own = ["--cluster-port", str(bus), "--cluster-node-timeout", "1000", *AT_ONCE]
            nodes.append(Node(port, stack.enter_context(server(port, "--cluster-enabled", "yes", *own))))
        for index, node in enumerate(nodes[:primaries]):
            first, last = (-(-each * SLOTS // primaries) for each in (index, index + 1))
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last - 1))
        for port, bus in zip(ports[2::2], ports[3::2], strict=True):
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", str(port), str(bus))
        replica = nodes[primaries]
        until(lambda: replica.ask("CLUSTER", "REPLICATE", nodes[0].id) == b"+OK\r\n")
        for node in nodes:
            until(lambda node=node: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"))  # type: ignore[misc]
        until(lambda: replica.follows)
        yield Cluster(nodes[:primaries], replica)


class Sentinels(NamedTuple):
    """A primary, its replica, and the Sentinel that watches over them."""

    primary: Node
    replica: Node
    sentinel: Node
    url: str


@contextlib.contextmanager
def sentinels() -> Iterator[Sentinels]:
    """A failover takes about a second."""
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(reserved_ports(1))[0] for _ in range(3)]
        primary = Node(ports[0], stack.enter_context(server(ports[0], *AT_ONCE)))
        following = ["--replicaof", f"127.0.0.1 {primary.port}", *AT_ONCE]
        replica = Node(ports[1], stack.enter_context(server(ports[1], *following)))
        until(lambda: replica.follows)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "sentinel.conf").write_text(
            f"sentinel monitor mymaster 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds mymaster 1000\n"
            "sentinel failover-timeout mymaster 5000\n"
        )
        watcher = Node(ports[2], stack.enter_context(server(ports[2], str(folder / "sentinel.conf"), "--sentinel")))
        until(lambda: b"num-slaves\r\n$1\r\n1" in watcher.ask("SENTINEL", "MASTER", "mymaster"))
        yield Sentinels(primary, replica, watcher, f"redis+sentinel://127.0.0.1:{watcher.port}/mymaster")
