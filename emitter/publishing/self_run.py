"""Executions that no worker runs: their emitter holds the lease, learns of a cancel, and keeps the budget."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec.structs import replace

from emitter.budgets import BudgetState, Meter
from emitter.events import Event, ExecutionStarted
from emitter.publishing.async_methods import AsyncEventMethods
from emitter.publishing.queue import Encode
from emitter.store.holds import Hold, Holds
from emitter.store.lifecycle import overspent
from emitter.wire.ids import now_ms
from emitter.wire.keys import Owner
from emitter.wire.prepared import Prepared
from emitter.wire.record import Cancel


class SelfRunEmitter(AsyncEventMethods):
    """The part of `AgentEmitter` for executions without a worker. Of others the worker keeps lease and budget."""

    owner: Owner
    execution_id: str
    meter: Meter
    _holds: Holds
    _encode: Encode
    _closed = False
    _end: str | None = None
    _hold: Hold | None = None
    _must_stop: Callable[[], bool] | None = None

    @property
    def cancelled(self) -> bool:
        """Whether the execution must stop. Without a worker the agent then has 10 s to emit its terminal event, such as
        `execution_cancelled`; leaving the block emits it. If its budget is over, it has ended already."""
        if self._must_stop is not None:
            return self._must_stop()
        return self._hold is not None and self._hold.cancel is not None

    async def until_cancelled(self) -> None:
        """Wait until the execution is cancelled. Not for agents of a worker, which are interrupted."""
        await self._begin_hold().cancelled.wait()

    def _begin_hold(self) -> Hold:
        if self._hold is None:
            self._hold = self._holds.add(self.owner, self.execution_id)
        return self._hold

    def _with_limits(self, event: Event) -> Event:
        """`execution:started` with the budget, which the record then has."""
        if not isinstance(event, ExecutionStarted) or event.budget is not None or not self.meter.limit:
            return event
        return replace(event, budget=BudgetState(self.meter.limit, self.meter.spent(time.monotonic())))

    def _check_budget(self) -> None:
        """Emit what the budget says now. If a limit is over, the execution has ended: every later call raises
        `ExecutionEnded`."""
        if self._closed or self._end is not None:
            return
        for reached in self.meter.due(time.monotonic()):
            notice, error = overspent(reached)
            self._put(self._encode(replace(notice, action=reached.action), now_ms()))
            if reached.action == "stopping":
                self._put_open_texts()
                self._put(self._encode(error, now_ms()))
                self._end = "failed"
                self._begin_hold().set_cancel(Cancel(reason=reached.message))

    def _put(self, prepared: Prepared) -> None:
        raise NotImplementedError

    def _put_open_texts(self) -> None:
        raise NotImplementedError
