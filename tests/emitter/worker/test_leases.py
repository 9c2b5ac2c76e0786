"""What the thread that renews the leases does about an execution that blocks the event loop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from emitter.events import Event, ExecutionCancelled
from emitter.observer import Observer
from emitter.wire.record import Cancel
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


async def test_an_end_that_redis_did_not_take_is_tried_again() -> None:
    """An agent that blocks does not go on because Redis failed over at the moment at which it was to be ended."""
    attempt: Any = SimpleNamespace(job=JOB, is_closed=False, cancel_requested=lambda before: Cancel(by="alice"))
    lifecycle: Any = Flaky()
    never: Any = None
    leases = Leases(
        "w1",
        SETTINGS,
        open_redis=never,
        open_lifecycle=never,
        attempts={JOB.record: attempt},
        apply=never,
        observer=Observer(),
    )
    with pytest.raises(ConnectionError):
        await leases._end_blocker(lifecycle, JOB)
    for _ in range(2):
        await leases._end_blocker(lifecycle, JOB)
    assert lifecycle.tried == [ExecutionCancelled(by="alice")] * 2
