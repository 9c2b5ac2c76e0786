"""The state of a run: the folded log without what is told in messages. Pure.

It is one member, `execution`, of the state that agent and application share, so that the application's own members are
left alone. A patch only replaces what is there, which may be done twice without harm.
"""

from __future__ import annotations

from typing import Any

import msgspec

from broker.api_types import (
    Activity,
    Cancellation,
    Failure,
    PhaseState,
    ProgressState,
    SpecialistState,
)
from broker.state import Fold
from emitter import events
from emitter.wire import Envelope, EventId

STATE_MEMBER = "execution"
FOLDED = frozenset(
    event.type
    for event in (
        events.ExecutionQueued,
        events.ExecutionStarted,
        events.ExecutionSuperseded,
        events.ExecutionComplete,
        events.ExecutionError,
        events.ExecutionCancelled,
        events.PlanCreated,
        events.PhaseStart,
        events.PhaseComplete,
        events.Status,
        events.Progress,
        events.SpecialistActivated,
        events.SpecialistComplete,
        events.Synthesis,
        events.UsageTotals,
        events.InputRequired,
        events.InputReceived,
    )
)
"""What changes the state. Text, thoughts, tools and results are messages and events of their own, and can be large."""

Operation = dict[str, Any]


class RunState(msgspec.Struct, frozen=True, rename="camel"):
    """The part of an `ExecutionState` that is shown as state. Every member is always there."""

    execution_id: str
    status: events.State
    task: str | None
    agent: str | None
    attempt: int
    started_at: int | None
    ended_at: int | None
    duration: float | None
    activity: Activity | None
    progress: ProgressState | None
    plan: events.Plan | None
    phases: list[PhaseState]
    specialists: list[SpecialistState]
    synthesis: events.Synthesis | None
    usage: events.UsageTotals | None
    open_inputs: list[events.InputRequired]
    error: Failure | None
    cancelled: Cancellation | None


class Board:
    """The state as it is, and as it was last shown."""

    def __init__(self, execution_id: str) -> None:
        self._fold = Fold(execution_id)
        self._shown: dict[str, Any] = {}
        self._state: RunState | None = None

    def apply(self, id_: EventId, head: Envelope, event: events.Event) -> bool:
        """Take the next event; whether it is one of those that change the state."""
        if event.type not in FOLDED:
            return False
        self._fold.apply(id_, head, event)
        self._state = None
        return True

    @property
    def state(self) -> RunState:
        if self._state is None:
            whole = self._fold.state()
            self._state = RunState(*(getattr(whole, name) for name in RunState.__struct_fields__))
        return self._state

    def snapshot(self) -> dict[str, Any]:
        """The state, which is shown by this."""
        self._shown = msgspec.to_builtins(self.state)
        return self._shown

    def patch(self) -> list[Operation]:
        """What has changed since the state was shown (RFC 6902), which is shown by this."""
        before = self._shown
        return difference(f"/{STATE_MEMBER}", before, self.snapshot())


def difference(path: str, before: Any, after: Any) -> list[Operation]:
    """The `replace` operations that make `after` of `before`, as small as they can be where both have one shape."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        pairs = [(_escaped(name), before[name], value) for name, value in after.items() if before[name] != value]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = [(str(index), *pair) for index, pair in enumerate(zip(before, after, strict=True))]
    else:
        return [{"op": "replace", "path": path, "value": after}]
    return [found for name, *pair in pairs for found in difference(f"{path}/{name}", *pair)]


def _escaped(name: str) -> str:
    """A member's name in a JSON Pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
