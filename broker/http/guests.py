"""The connections of a listener by what they are doing: who could be let go, and who first. Pure but for a look at how
much of an answer a connection still holds."""

from __future__ import annotations

from typing import Any

from broker.base.unsent import unsent_bytes

SPARED_SECONDS = 0.1
"""How long a connection has to send a request before one that has not sent any either takes its room."""
STUCK_SECONDS = 5.0
"""How long a connection may take none of its answer before a new one takes its room."""
FIRST_REQUEST_SECONDS = 15.0
"""How long a new connection may take to send its first request's head."""


class Guests:
    """A connection is silent until its first request's head is there, then busy, and idle between requests. Busy ones
    are not kept here, except those that are stuck: they were sent more than they take."""

    def __init__(self) -> None:
        # In the order in which they became so.
        self.silent: dict[Any, float] = {}
        self._idle: dict[Any, float] = {}
        self._stuck: dict[Any, tuple[float, int]] = {}

    def enter(self, connection: Any, now: float) -> None:
        """It is new."""
        self.silent[connection] = now

    def busy(self, connection: Any) -> None:
        """It has asked something."""
        self.silent.pop(connection, None)
        self._idle.pop(connection, None)

    def rest(self, connection: Any, now: float) -> None:
        """It has all answers."""
        self._idle[connection] = now

    def stuck(self, connection: Any, now: float) -> None:
        """It takes no more just now."""
        self._stuck[connection] = (now, unsent_bytes(connection.transport))

    def unstuck(self, connection: Any) -> None:
        self._stuck.pop(connection, None)

    def leave(self, connection: Any) -> None:
        """It is gone, or a viewer's."""
        self.busy(connection)
        self.unstuck(connection)

    def least(self, now: float, *, spared_seconds: float) -> Any | None:
        """Whom to let go for somebody else: who has been silent longest, or else idle longest, or else somebody who
        does not take an answer."""
        for waiting in (self.silent, self._idle):
            connection, since = next(iter(waiting.items()), (None, now))
            if connection is not None and since <= now - spared_seconds:
                return connection
        stuck = (each for each, (since, _) in self._stuck.items() if since <= now - STUCK_SECONDS)
        return next(stuck, None)

    def overdue(self, now: float) -> list[Any]:
        """Who has never sent a request, for too long."""
        return [connection for connection, since in self.silent.items() if since <= now - FIRST_REQUEST_SECONDS]

    def look(self, now: float) -> None:
        """See who takes an answer after all. Call it every second. While a transport is full nothing is added to it, so
        any byte that is taken shows."""
        for connection, (_, size) in self._stuck.items():
            left = unsent_bytes(connection.transport)
            if left != size:
                self._stuck[connection] = (now, left)
