"""A listening socket with a limit of connections; above it, a new connection replaces the least needed one.

Accepting is our own loop and not `create_server`: asyncio uses `backlog` both as the length of the queue and as the
number of connections that it accepts at a time. So one of several processes on a socket would take all that wait, and a
process without descriptors would fail that many times in a row, each time with a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import msgspec
from prometheus_client import Counter, Gauge

from broker.base.logging import Seldom
from broker.base.problem import Problem
from broker.http.errors import RESPONSE_HEADERS
from broker.http.open_connections import SPARED_SECONDS, OpenConnections
from broker.http.shares import Shares
from emitter import tasks
from emitter.errors import InvalidSetting

BACKLOG = 4096
ACCEPTS = 16
"""Connections accepted in one turn; then other processes on the socket and other work of the loop have theirs."""
LEAVE_SECONDS = 0.01
"""How long a process leaves new connections to a sibling that has fewer. One that is idle takes them at once; one that
is busy for longer had better not get them."""
UNEVEN = 10
"""By a tenth of its connections a process may have more than the least full one."""
FULL_SECONDS = 0.1
"""How long a full process leaves new connections to its siblings."""
SCARCE_SECONDS = 0.01
"""Pause between turns while room is scarce, or many streams open: a flood costs a part of a core."""
RETRY_SECONDS = 1.0
"""Pause when the system has no descriptor left."""
SETTLE_SECONDS = 0.5
"""How long a closing listener waits for the requests of connections that it took last."""
TURNS = 3
"""Of the loop, until a connection that was taken is known, and what it has sent is read."""
# How many bytes the kernel holds unsent: a low limit shows early that a reader has stopped. And how long (ms) sent
# bytes may stay unacknowledged before a vanished peer is dropped.
NOTSENT_LOWAT_BYTES = 128 * 1024
USER_TIMEOUT_MS = 90_000
OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
HOST_ERRORS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL})


def _refusal() -> bytes:
    problem = Problem(503, "capacity", "this process takes no more connections now")
    body = msgspec.json.encode(problem.body("none"))
    fields = {
        **RESPONSE_HEADERS,
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Retry-After": "2",
        "Connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\n".encode() + body


REFUSAL = _refusal()


class _Socket(socket.socket):
    """A connection's socket that reports its close, also after a viewer has taken over the connection."""

    __slots__ = ("_listener",)

    def __init__(self, accepted: socket.socket, listener: Listener) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._listener = listener

    def close(self) -> None:
        was_open = self.fileno() >= 0
        super().close()
        if was_open:
            self._listener.count(-1)


class Counts(NamedTuple):
    """Metrics of a listener: connections that are open, and refused ones."""

    open: Gauge
    refused: Counter


class Listener:
    """Accepts at most `limit` connections from a socket, and gives each to a protocol that `factory` makes.

    Protocols report their state to `connections`. If other processes accept from the same socket, `shares` knows them:
    the least full process accepts the next. `full` is the number of connections at which this one does so only when
    no other does.
    """

    def __init__(
        self, sock: socket.socket, limit: int, counts: Counts, *, shares: Shares | None = None, full: int = 0
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._limit = limit
        self._counts = counts
        self._shares = shares
        self._full = full or limit
        self._left_to: int | None = None
        self._opening: set[asyncio.Task[Any]] = set()
        self._turn: asyncio.TimerHandle | None = None
        self._refused = Seldom("connections_refused")
        self._failed = Seldom("accept_failed")
        self.connections = OpenConnections()
        self.open = 0
        self.draining = False
        """Whether each response is the last of its connection."""
        self.is_crowded: Callable[[], bool] = lambda: False
        """Whether many of the accepted connections wait for something. All of a crowd at once would take several times
        the memory, most of which stays with the process."""
        self.port: int = sock.getsockname()[1]

    @contextlib.asynccontextmanager
    async def listening(self, factory: Callable[[], asyncio.Protocol], settle_seconds: float) -> AsyncIterator[None]:
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._report()
        # Of asyncio's own loops: what `connect_accepted_socket` does with a task and a future besides.
        self._make_transport = getattr(self._loop, "_make_socket_transport", None)
        self._loop.add_reader(self._sock, self._wake)
        watch = asyncio.create_task(self._watch(), name="connection-limits")
        try:
            yield
        finally:
            self.draining = True
            self._report()
            await self._close(settle_seconds)
            for connection in list(self.connections.silent):  # what they may ask for now, nobody would wait for
                self._end(connection)
            await tasks.end([watch, *self._opening])

    async def _close(self, settle_seconds: float) -> None:
        """Stop listening. Connections in the kernel's queue may have sent a request: they are answered."""
        for _ in range(BACKLOG):
            if not self._take(ACCEPTS):
                break
        if self._turn is not None:
            self._turn.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        if self._opening:
            await asyncio.wait(self._opening, timeout=settle_seconds)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if self.connections.silent:
            await asyncio.sleep(settle_seconds)

    # --- accepting ---------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        pause = self._patience()
        if pause:
            self._pause(pause)
        else:
            self._take(self._turn_size())

    def _patience(self) -> float:
        """How long to leave new connections to siblings with more room, or to give the loop time for other work."""
        self._report()
        self._left_to = None
        least = self._least()
        if least is None:
            return SCARCE_SECONDS if self.open >= self._limit or self.is_crowded() else 0.0
        if self.draining or self.open >= self._full:
            return FULL_SECONDS
        if self.open > least + self.open // UNEVEN:
            self._left_to = least
            return LEAVE_SECONDS
        return SCARCE_SECONDS if self.is_crowded() else 0.0

    def _turn_size(self) -> int:
        """How many to accept: with siblings no more than the least full one has."""
        least = self._least()
        if least is None:
            return ACCEPTS
        return max(1, min(ACCEPTS, self._full - self.open, least + 1 + self.open // UNEVEN - self.open))

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        if self._turn is not None:
            self._turn.cancel()
        self._turn = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._turn = None
        self._loop.add_reader(self._sock, self._wake)
        if self._left_to is None:
            self._take(ACCEPTS if self.open >= self._full else self._turn_size())
        elif self._least() == self._left_to:  # it took nothing of what was left to it: it hangs, or is busy
            self._take(max(1, min(ACCEPTS, self.open // 4)))

    def _least(self) -> int | None:
        return None if self._shares is None else self._shares.least()

    def _report(self) -> None:
        if self._shares is None:
            return
        if self.draining:
            self._shares.leave()
        else:
            self._shares.report(self.open)

    def _take(self, most: int) -> bool:
        """Accept some of the queue; returns whether more may wait."""
        for _ in range(most):
            try:
                accepted, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError as error:
                self._failed.say(error=errno.errorcode.get(error.errno or 0), open=self.open)
                if error.errno in OUT_OF_RESOURCES:
                    self._pause(RETRY_SECONDS)
                return False  # any other error concerns this connection only
            self._let_in(accepted)
        return True

    def _let_in(self, accepted: socket.socket) -> None:
        if self.open >= self._limit and not self._make_room(SPARED_SECONDS if is_silent(accepted) else 0.0):
            self._refuse(accepted)
            return
        self.count(1)
        sock = _Socket(accepted, self)
        if self._make_transport is not None:
            sock.setblocking(False)
            try:
                self._make_transport(sock, self._factory())
            except OSError:  # the client has left
                sock.close()
            return
        task = self._loop.create_task(self._open(sock))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, sock)
        except OSError:  # the client has left
            sock.close()

    def count(self, change: int) -> None:
        self.open += change
        self._counts.open.set(self.open)
        self._report()

    def _refuse(self, accepted: socket.socket) -> None:
        self._counts.refused.inc()
        self._refused.say(open=self.open, limit=self._limit)
        with accepted, contextlib.suppress(OSError):  # nothing has arrived yet, or the client has left
            accepted.setblocking(False)
            # Unread bytes would make the close a reset, which discards the response. An `EventSource` gets no response:
            # it reconnects after a lost connection, but never after an error status.
            asked = accepted.recv(65_536)
            if asked and b"text/event-stream" not in asked:
                accepted.send(REFUSAL)
                accepted.shutdown(socket.SHUT_WR)

    # --- closing -----------------------------------------------------------------------------------------------------

    def _make_room(self, spared_seconds: float) -> bool:
        connection = self.connections.evictable(self._loop.time(), spared_seconds=spared_seconds)
        if connection is not None:
            self._end(connection)
        return connection is not None

    def _end(self, connection: Any) -> None:
        self.connections.remove(connection)
        if connection.transport is not None:
            connection.transport.abort()

    async def _watch(self) -> None:
        """Close connections that never send a request: aiohttp waits for the first head without a limit."""
        while True:
            await asyncio.sleep(1)
            now = self._loop.time()
            for connection in self.connections.overdue(now):
                self._end(connection)
            self.connections.check_stalled(now)


def is_silent(accepted: socket.socket) -> bool:
    """Whether a client has sent nothing yet. Most send their request with the end of the handshake."""
    try:
        return not accepted.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return True


def listen(host: str, port: int, prefix: str = "RUNCAST_") -> socket.socket:
    """A listening socket; its connections inherit the options that long-lived streams need. Raises `InvalidSetting`
    with the name of the wrong setting: `prefix` and HOST or PORT."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_NOTSENT_LOWAT", NOTSENT_LOWAT_BYTES), ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS)):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        sock.setblocking(False)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        sock.close()
        raise _unusable(host, port, prefix, error) from error
    return sock


def _unusable(host: str, port: int, prefix: str, error: Exception) -> InvalidSetting:
    is_host = isinstance(error, socket.gaierror | UnicodeError) or getattr(error, "errno", None) in HOST_ERRORS
    reason = getattr(error, "strerror", None) or str(error)
    if is_host:
        allowed = f"an address of this machine, such as 0.0.0.0, 127.0.0.1 or :: ({reason})"
        return InvalidSetting(f"{prefix}HOST", host, allowed)
    return InvalidSetting(f"{prefix}PORT", f"{host}:{port}", f"an address that can be bound ({reason})")
