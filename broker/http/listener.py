"""Who may connect: a listening socket with a limit of connections, and whom it lets go when room is scarce.

Accepting is our own loop and not `create_server`: asyncio takes `backlog` both for the queue's length and for how many
connections it accepts at a time, so that one of several processes on a socket takes all that wait, and a process out of
descriptors fails as many times in a row, with a traceback each.
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
from broker.http.guests import SPARED_SECONDS, Guests
from emitter import tasks
from emitter.errors import InvalidSetting

BACKLOG = 4096
ACCEPTS = 16
"""Connections taken in one turn: other processes on the socket, and the loop's other work, come between."""
LEAVE_SECONDS = 0.02
"""How long a process that is nearly full leaves new connections to its siblings; a half full one, half as long."""
FULL_SECONDS = 0.1
"""How long one that is full does."""
SCARCE_SECONDS = 0.01
"""Pause between turns while room is scarce: a flood costs a part of a core."""
RETRY_SECONDS = 1.0
"""Pause when the system has no descriptor left."""
SETTLE_SECONDS = 0.5
"""How long a closing listener waits for the requests of connections that it took last."""
# Bytes that the kernel holds unsent, so that a reader that stopped is noticed by its socket's buffer and not by
# megabytes later; and for how long sent bytes may stay unacknowledged before a vanished peer is given up (ms).
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
    """A connection's socket that says when it is closed, whoever speaks on it by then."""

    __slots__ = ("_closed_callback",)

    def __init__(self, accepted: socket.socket, closed: Callable[[], None]) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._closed_callback = closed

    def close(self) -> None:
        was_open = self.fileno() >= 0
        super().close()
        if was_open:
            self._closed_callback()


class Counts(NamedTuple):
    """Where a listener counts: open connections now, and refused ones."""

    open: Gauge
    refused: Counter


class Listener:
    """Takes connections from a socket, `limit` of them at most, and gives each to a protocol that `factory` makes.

    Protocols tell `guests` what they are doing. Where other processes accept from the same socket, `shared` is the
    number of connections with which this one is full: the least full takes the next.
    """

    def __init__(self, sock: socket.socket, limit: int, counts: Counts, *, shared: int = 0) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._limit = limit
        self._counts = counts
        self._shared = shared
        self._opening: set[asyncio.Task[Any]] = set()
        self._turn: asyncio.TimerHandle | None = None
        self._refused = Seldom("connections_refused")
        self._failed = Seldom("accept_failed")
        self.guests = Guests()
        self.open = 0
        self.draining = False
        """Whether each answer is to be its connection's last."""
        self.port: int = sock.getsockname()[1]

    @contextlib.asynccontextmanager
    async def listening(self, factory: Callable[[], asyncio.Protocol], settle_seconds: float) -> AsyncIterator[None]:
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock, self._wake)
        watch = asyncio.create_task(self._watch(), name="doorman")
        try:
            yield
        finally:
            self.draining = True
            await self._close(settle_seconds)
            await tasks.end([watch, *self._opening])

    async def _close(self, settle_seconds: float) -> None:
        """Stop listening. What waits was connected by the kernel, and may have sent a request: it is answered."""
        for _ in range(BACKLOG):
            if not self._take():
                break
        if self._turn is not None:
            self._turn.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        if self._opening:
            await asyncio.wait(self._opening, timeout=settle_seconds)
        if self.guests.silent:
            await asyncio.sleep(settle_seconds)

    # --- accepting ---------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        pause = self._patience()
        if pause < 0.001:
            self._take()
        else:
            self._pause(pause)

    def _patience(self) -> float:
        """How long to leave what waits to others: to siblings that have more room, and to the loop's other work."""
        if not self._shared:
            return SCARCE_SECONDS if self.open >= self._limit else 0.0
        return FULL_SECONDS if self.open >= self._shared else LEAVE_SECONDS * self.open / self._shared

    def _turn_size(self) -> int:
        """How many to accept: beside siblings, a fiftieth of what fits in, and no more than still does."""
        if not self._shared or self.open >= self._shared:
            return ACCEPTS
        return max(1, min(ACCEPTS, self._shared // 50, self._shared - self.open))

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        if self._turn is not None:
            self._turn.cancel()
        self._turn = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._turn = None
        self._loop.add_reader(self._sock, self._wake)
        self._take()

    def _take(self) -> bool:
        """Accept some of what waits; whether there may be more."""
        for _ in range(self._turn_size()):
            try:
                accepted, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError as error:
                self._failed.say(error=errno.errorcode.get(error.errno or 0), open=self.open)
                if error.errno in OUT_OF_RESOURCES:
                    self._pause(RETRY_SECONDS)
                return False  # any other error is the one connection's
            self._let_in(accepted)
        return True

    def _let_in(self, accepted: socket.socket) -> None:
        if self.open >= self._limit and not self._make_room(SPARED_SECONDS if is_silent(accepted) else 0.0):
            self._refuse(accepted)
            return
        self._count(1)
        task = self._loop.create_task(self._open(_Socket(accepted, lambda: self._count(-1))))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, sock)
        except OSError:  # the client has gone
            sock.close()

    def _count(self, change: int) -> None:
        self.open += change
        self._counts.open.set(self.open)

    def _refuse(self, accepted: socket.socket) -> None:
        self._counts.refused.inc()
        self._refused.say(open=self.open, limit=self._limit)
        with accepted, contextlib.suppress(OSError):  # nothing has come yet, or the client is gone
            accepted.setblocking(False)
            # Read, for unread bytes would make the close a reset, which takes the answer with it. An `EventSource` gets
            # none: it comes again after a lost connection, and never after an error status.
            asked = accepted.recv(65_536)
            if asked and b"text/event-stream" not in asked:
                accepted.send(REFUSAL)
                accepted.shutdown(socket.SHUT_WR)

    # --- letting go --------------------------------------------------------------------------------------------------

    def _make_room(self, spared_seconds: float) -> bool:
        connection = self.guests.least(self._loop.time(), spared_seconds=spared_seconds)
        if connection is not None:
            self._end(connection)
        return connection is not None

    def _end(self, connection: Any) -> None:
        self.guests.leave(connection)
        if connection.transport is not None:
            connection.transport.abort()

    async def _watch(self) -> None:
        """End connections that never send a request: aiohttp waits for the first head without a bound."""
        while True:
            await asyncio.sleep(1)
            now = self._loop.time()
            for connection in self.guests.overdue(now):
                self._end(connection)
            self.guests.look(now)


def is_silent(accepted: socket.socket) -> bool:
    """Whether nothing has come from a client. Most send their request together with the end of the handshake."""
    try:
        return not accepted.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return True


def listen(host: str, port: int, prefix: str = "RUNCAST_") -> socket.socket:
    """A listening socket whose connections inherit what long-lived streams need. Raises `InvalidSetting`, which
    names the setting whose fault it is: `prefix` and HOST or PORT."""
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
