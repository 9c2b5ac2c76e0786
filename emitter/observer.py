"""What a worker reports for metrics."""

from __future__ import annotations

from typing import Literal


class Observer:
    """Receives the reports and ignores them. Methods are quick and never raise. Durations in seconds."""

    def beat(self) -> None:
        """The worker's event loop runs; called at least every few seconds."""

    def announced(self) -> None:
        """The worker has renewed its announcement in Redis."""

    def stopping(self) -> None:
        """The worker claims no more executions."""

    def waiting(self, agent: str, jobs: int) -> None:
        """How many jobs of this agent wait, for any worker."""

    def claimed(self, agent: str, waited: float) -> None:
        """An execution of this agent was claimed here after `waited` seconds in the queue."""

    def ended(self, agent: str, outcome: str, seconds: float) -> None:
        """An attempt ended here after `seconds`."""

    def budget_exceeded(self, agent: str, limit: str) -> None:
        """An execution was ended here because this limit of its budget (`totalTokens`, …) was over."""

    def lost_redis(self, loop: str) -> None:
        """A loop of the worker had an error of Redis."""

    def taken_over(self, verdict: str) -> None:
        """The reaper passed the execution of a lost worker to the next attempt (`superseded`) or ended it (`ended`)."""

    def appended(self, batches: int, events: int, seconds: float) -> None:
        """One round trip appended these batches."""

    def append_failed(self) -> None:
        """A round trip failed and will be tried again."""


Outcome = Literal[
    "completed", "failed", "cancelled", "timeout", "budget", "ended", "retried", "handed_over", "lost", "unwritten"
]
"""The outcome of an attempt. `ended`: the log was closed before, by the agent or from elsewhere; `unwritten`: the
terminal event was not written, so the lease must lapse and the reaper take over."""
