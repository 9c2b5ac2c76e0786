"""The state of a run: the folded log without the parts that are messages. Pure.

It is one member, `execution`, of the state that agent and application share, so that the application's own members are
left alone. A patch is made of what an event changed, and of nothing else: states can be large, and events are many.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from copy import copy
from typing import Any

import msgspec

from broker.executions.clipping import Input
from broker.executions.fold import Fold
from broker.executions.types import Activity, Cancellation, Failure, PhaseState, ProgressState, SpecialistState
from broker.protocols.ag_ui.lists import Listed, Operation, Phases, difference
from emitter import events
from emitter.wire.envelope import Envelope
from emitter.wire.ids import EventId

STATE_MEMBER = "execution"
ROOT = "/" + STATE_MEMBER
MAX_BOARD_BYTES = 1024 * 1024
"""Of the folded state of each viewer; above it, parts that were left alone are given up, as in any folded state."""
FOLDED = frozenset(
    {
        events.ExecutionQueued,
        events.ExecutionStarted,
        events.ExecutionSuperseded,
        events.ExecutionComplete,
        events.ExecutionError,
        events.ExecutionCancelled,
        events.ChildEnded,
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
    }
)
"""What changes the state. Text, thoughts, tools and results are messages and events of their own, and can be large."""


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


OWN = ("status", "task", "agent", "attempt")
FACTS = ("started_at", "activity", "progress", "plan", "synthesis", "usage")


def _paths(*names: str) -> dict[str, str]:
    encoded = dict(zip(RunState.__struct_fields__, RunState.__struct_encode_fields__, strict=True))
    return {name: f"{ROOT}/{encoded[name]}" for name in names}


# Members that are no lists, in the order in which they are sent: before the phases, before the questions, at the end.
FIRST = _paths(
    "status", "task", "agent", "attempt", "started_at", "ended_at", "duration", "activity", "progress", "plan"
)
MIDDLE = _paths("synthesis", "usage")
LAST = _paths("error", "cancelled")
_PATHS = {**FIRST, **MIDDLE, **LAST}


class Board:
    """The state, and what of it was shown last."""

    def __init__(self, execution_id: str) -> None:
        self._shown: dict[str, Any] = {}
        self._own: tuple[Any, ...] = ()
        """The values of `OWN` when a patch was made last."""
        self._watch(Fold(execution_id, max_bytes=MAX_BOARD_BYTES, is_watched=True))

    def _watch(self, fold: Fold) -> None:
        self._fold = fold
        self._phases = Phases(ROOT + "/phases", fold)
        self._specialists: Listed[SpecialistState] = Listed(
            ROOT + "/specialists", fold.specialists, lambda _, part: part is not None, fold.specialists.values
        )
        self._inputs: Listed[Input] = Listed(
            ROOT + "/openInputs", fold.inputs, lambda _, part: not fold.end and _is_open(part), fold.open_inputs
        )

    def fork(self) -> Board:
        """Another one in the same state, of which the same was shown."""
        other = copy(self)
        other._shown = dict(self._shown)
        other._watch(self._fold.fork())
        other._phases.follow(self._phases)
        other._specialists.follow(self._specialists)
        other._inputs.follow(self._inputs)
        return other

    def apply(self, id_: EventId, head: Envelope, event: events.Event) -> bool:
        """Take the next event; whether it is one of those that change the state."""
        if type(event) not in FOLDED:
            return False
        self._fold.apply(id_, head, event)
        return True

    @property
    def changes(self) -> int:
        """Parts that have changed since the state was shown."""
        return sum(len(items.changed) for items in (self._fold.phases, self._fold.specialists, self._fold.inputs))

    def forget_changes(self) -> None:
        """The next that is shown is the whole state."""
        for items in (self._fold.phases, self._fold.specialists, self._fold.inputs):
            items.changed.clear()

    # one thing of it

    @property
    def usage(self) -> events.UsageTotals | None:
        found: events.UsageTotals | None = self._fold.facts.get("usage")
        return found

    @property
    def goal(self) -> str | None:
        """The plan's; None without a plan."""
        plan: events.Plan | None = self._fold.facts.get("plan")
        return None if plan is None else plan.goal

    @property
    def open_inputs(self) -> list[events.InputRequired]:
        return self._fold.open_inputs()

    def is_open(self, input_id: str) -> bool:
        return not self._fold.end and _is_open(self._fold.inputs.get(input_id))

    def plan(self) -> dict[str, Any]:
        """The plan, and how its phases stand."""
        return {"goal": self.goal, "phases": msgspec.to_builtins(self._fold.all_phases())}

    # to show it

    def snapshot(self) -> dict[str, Any]:
        """The state, which is shown by this."""
        fold = self._fold
        self._shown = {name: self._single(name) for name in (*FIRST, *MIDDLE, *LAST)}
        for listed in (self._phases, self._specialists, self._inputs):
            listed.show()
        state = RunState(
            execution_id=fold.execution_id,
            phases=fold.all_phases(),
            specialists=fold.specialists.values(),
            open_inputs=fold.open_inputs(),
            **self._shown,
        )
        found: dict[str, Any] = msgspec.to_builtins(state)
        return found

    def patch(self) -> list[Operation]:
        """What has changed since the state was shown (RFC 6902), which is shown by this."""
        fold = self._fold
        moving = self._moved()
        if not (fold.phases.changed or fold.specialists.changed or fold.inputs.changed or "plan" in moving or fold.end):
            if len(moving) == 1:  # as after most events
                return self._change(*moving)
            return self._changes(_PATHS, moving)
        found = self._changes(FIRST, moving)
        if fold.phases.changed or "plan" in moving:
            found += self._phases.operations()
        if fold.specialists.changed:
            found += self._specialists.operations()
        found += self._changes(MIDDLE, moving)
        if fold.inputs.changed or fold.end:
            found += self._inputs.operations(is_over=bool(fold.end and self._inputs.ids))
        return found + self._changes(LAST, moving) if fold.end else found

    def _moved(self) -> Set[str]:
        """The members, but for the lists, that may have another value than when a patch was made last."""
        fold = self._fold
        moving = {*fold.facts.changed, *fold.end}
        fold.facts.changed.clear()
        own = (fold.status, fold.task, fold.agent, fold.attempt)
        if own != self._own:
            self._own = own
            moving.update(OWN)
        return moving

    def _changes(self, names: Mapping[str, str], moving: Set[str]) -> list[Operation]:
        """Of those that are `moving`."""
        if moving.isdisjoint(names):
            return []
        return [operation for name in names if name in moving for operation in self._change(name)]

    def _change(self, name: str) -> list[Operation]:
        before, after = self._shown[name], self._single(name)
        if before is after:
            return []
        self._shown[name] = after
        return difference(_PATHS[name], before, after)

    def _single(self, name: str) -> Any:
        if name in OWN:
            return getattr(self._fold, name)
        return self._fold.facts.get(name) if name in FACTS else self._fold.end.get(name)


def _is_open(part: Input | None) -> bool:
    return isinstance(part, events.InputRequired)
