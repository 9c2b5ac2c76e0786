"""What the thread that renews the leases does about an execution that blocks the event loop."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from emitter.events import Event, ExecutionCancelled
from emitter.observer import Observer
from emitter.wire.record import Cancel
from emitter.worker.blockers import Blocker
from emitter.worker.leases import Leases, LeaseSettings

JOB: Any = SimpleNamespace(record="record", execution_id="ex_1", agent="agent")
SETTINGS = LeaseSettings(lease_ms=15_000, tick_seconds=1.0, blocked_seconds=60.0, cancel_grace_seconds=0.0)


class Flaky:
    """A lifecycle whose first end meets an error of Redis."""

    def __init__(self) -> None:
        self.tried: list[Event] = []

    async def end(self, job: object, *events: Event) -> None:
        self.tried += events
        if len(self.tried) == 1:
            raise ConnectionError


def leases_of(*attempts: Any) -> Leases:
    never: Any = None
    running = {attempt.job.record: attempt for attempt in attempts}
    return Leases(
        "w1", SETTINGS, open_redis=never, open_lifecycle=never, attempts=running, apply=never, observer=Observer()
    )


async def test_an_end_that_redis_did_not_take_is_tried_again() -> None:
    """An agent that blocks does not go on because Redis failed over at the moment at which it was to be ended."""
    attempt: Any = SimpleNamespace(job=JOB, is_closed=False, cancel_requested=lambda before: Cancel(by="alice"))
    lifecycle: Any = Flaky()
    leases = leases_of(attempt)
    with pytest.raises(ConnectionError):
        await leases._end_blocker(lifecycle, JOB)
    for _ in range(2):
        await leases._end_blocker(lifecycle, JOB)
    assert lifecycle.tried == [ExecutionCancelled(by="alice")] * 2


def test_who_runs_next_is_not_who_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that meets another agent at the end of the block changes nothing: the one that blocked is named, and only
    the other one's time is excused. One that is met again and again blocks in its turn."""
    other: Any = SimpleNamespace(record="other", execution_id="ex_2", agent="agent")
    excused: list[str] = []
    attempts = [SimpleNamespace(job=job, excuse=lambda _, job=job: excused.append(job.record)) for job in (JOB, other)]
    leases = leases_of(*attempts)
    seen = iter([JOB, other, JOB, other, JOB, other, other])
    monkeypatch.setattr("emitter.worker.leases.find_blocker", lambda *_: Blocker(next(seen), "here"))
    leases._loop, leases._loop_thread = None, 0  # type: ignore[assignment]
    with structlog.testing.capture_logs() as lines:
        for looks in (2, 2):
            leases._beat_at = time.monotonic() - 5
            for _ in range(looks):
                leases._check_loop()
            leases._beat()
        leases._beat_at = time.monotonic() - 5
        leases._check_loop()
        leases._check_loop()
        monkeypatch.setattr("emitter.worker.leases.NAMED_SECONDS", 0.0)
        leases._check_loop()
    assert [(line["event"], line["execution"]) for line in lines] == [
        *[("loop_blocked", "ex_1"), ("loop_unblocked", "ex_1")] * 2,
        *[("loop_blocked", "ex_1"), ("loop_blocked", "ex_2")],
    ]
    assert excused == ["other"] * 2
