"""What a worker tells of its work to whoever counts or traces it."""

from __future__ import annotations

from typing import Literal


class Observer:
    """Hears what a worker does; this one takes no note. Methods are quick and never raise. Durations in seconds."""

    def beat(self) -> None:
        """The worker's event loop runs; said at least every few seconds."""

    def announced(self) -> None:
        """The worker said in Redis that it is there."""

    def stopping(self) -> None:
        """The worker takes no more executions."""

    def waiting(self, agent: str, jobs: int) -> None:
        """So many jobs of this agent wait for a worker, here or elsewhere."""

    def claimed(self, agent: str, waited: float) -> None:
        """An execution of this agent is started here, after it waited so long in the queue."""

    def ended(self, agent: str, outcome: str, seconds: float) -> None:
        """It ran here for so long, and came out so (`emitter.observer.Outcome`)."""

    def lost_redis(self, loop: str) -> None:
        """A loop of the worker met an error of Redis."""

    def taken_over(self, verdict: str) -> None:
        """An execution whose worker was lost is given to another (`superseded`), or was ended (`ended`)."""

    def appended(self, batches: int, events: int, seconds: float) -> None:
        """A round trip carried so many batches into their logs."""

    def append_failed(self) -> None:
        """A round trip did not reach Redis, and will be tried again."""


Outcome = Literal["completed", "failed", "cancelled", "timeout", "ended", "retried", "handed_over", "lost", "unwritten"]
"""How a run came out. `ended`: the log was closed already, by the agent itself or by somebody else; `unwritten`: Redis
did not take the end, so the lease must lapse and another worker look after it."""
