"""The connections that a listener may close, in the order in which it closes them. No I/O, except reading how many
bytes a connection has not sent."""

from __future__ import annotations

from typing import Any

from broker.base.unsent import unsent_bytes

SPARED_SECONDS = 0.1
"""How long a silent connection is kept although another silent one wants its place."""
STALLED_SECONDS = 5.0
"""How long a connection may accept no byte of its response before a new one takes its place."""
FIRST_REQUEST_SECONDS = 15.0
"""How long a new connection may take to send its first request's head."""


class OpenConnections:
    """A connection is silent until the head of its first request has arrived, then busy, and idle between requests.
    Busy ones are not listed, unless they are stalled: their transport is full."""

    def __init__(self) -> None:
        # In the order in which they entered the state.
        self.silent: dict[Any, float] = {}
        self._idle: dict[Any, float] = {}
        self._stalled: dict[Any, tuple[float, int]] = {}

    def add(self, connection: Any, now: float) -> None:
        self.silent[connection] = now

    def replace(self, connection: Any, successor: Any) -> None:
        """A silent connection has another protocol. Its time goes on: who sends a head in pieces gets no more of it."""
        if (since := self.silent.pop(connection, None)) is not None:
            self.silent[successor] = since

    def mark_busy(self, connection: Any) -> None:
        """A request has arrived."""
        self.silent.pop(connection, None)
        self._idle.pop(connection, None)

    def mark_idle(self, connection: Any, now: float) -> None:
        """All its requests are answered."""
        self._idle[connection] = now

    def mark_stalled(self, connection: Any, now: float) -> None:
        """Its transport is full."""
        self._stalled[connection] = (now, unsent_bytes(connection.transport))

    def clear_stalled(self, connection: Any) -> None:
        self._stalled.pop(connection, None)

    def remove(self, connection: Any) -> None:
        """It is closed, or a viewer has taken it over."""
        self.mark_busy(connection)
        self.clear_stalled(connection)

    def evictable(self, now: float, *, spared_seconds: float) -> Any | None:
        """The connection to close for a new one: the longest silent, else the longest idle, else a stalled one.
        `now` is loop time."""
        for waiting in (self.silent, self._idle):
            connection, since = next(iter(waiting.items()), (None, now))
            if connection is not None and since <= now - spared_seconds:
                return connection
        stalled = (each for each, (since, _) in self._stalled.items() if since <= now - STALLED_SECONDS)
        return next(stalled, None)

    def overdue(self, now: float) -> list[Any]:
        """Connections that have sent no request for too long."""
        return [connection for connection, since in self.silent.items() if since <= now - FIRST_REQUEST_SECONDS]

    def check_stalled(self, now: float) -> None:
        """Restart the time of stalled connections that accept bytes. Call it every second. Nothing is added to a full
        transport, so a smaller rest means progress."""
        for connection, (_, size) in self._stalled.items():
            left = unsent_bytes(connection.transport)
            if left != size:
                self._stalled[connection] = (now, left)
