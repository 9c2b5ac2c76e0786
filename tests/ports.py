"""Ports of the loopback for the servers of tests, so that two test processes never want the same one."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

LOCAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
TRIES = 1000


def _span() -> range:
    """The ports below those that the kernel gives to connections and to whoever binds port 0: what is picked here
    cannot become the near end of somebody's connection before its server starts, or while that is restarted."""
    try:
        first = int(LOCAL_PORTS.read_text().split()[0])
    except OSError:  # not Linux
        first = 49152
    return range(12_000, first) if first > 16_000 else range(32_000, 60_000)


@contextlib.contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """TCP ports in a row on which nobody listens, for servers to listen on until the block ends. What keeps other test
    processes away, if they ask here too, is a UDP socket on each: it is in no TCP server's way, there can be only one,
    and it ends with its process."""
    span = _span()
    for _ in range(TRIES):
        first = random.randrange(span.start, span.stop - count)
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(_bound(socket.SOCK_DGRAM, port))
                    _bound(socket.SOCK_STREAM, port).close()
            except OSError:
                continue
            yield list(range(first, first + count))
            return
    raise AssertionError(f"no {count} free ports in a row")


def _bound(kind: socket.SocketKind, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    try:
        if kind is socket.SOCK_STREAM:  # connections that a server left behind are in nobody's way
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock
