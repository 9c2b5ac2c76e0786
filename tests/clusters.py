"""Redis servers on loopback ports, alone or as a Cluster that fails over."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

from broker.embedded import find_server
from tests.ports import reserved_ports

START_SECONDS = 15.0
SLOTS = 16384


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
    """One server of a Cluster."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._process = process
        self.id = self.ask("CLUSTER", "MYID").split()[1].decode()

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
            own = ["--cluster-port", str(bus), "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"]
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
        until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"))
        yield Cluster(nodes[:primaries], replica)
