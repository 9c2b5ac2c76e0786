"""How an attempt ends: by its agent, or by what stopped it."""

from __future__ import annotations

from typing import Any

import msgspec

from emitter.budgets import Reached
from emitter.observer import Outcome
from emitter.wire.record import Cancel
from emitter.worker.deadlines import Limit


class Returned(msgspec.Struct, frozen=True):
    """The agent returned its result."""

    value: Any


class Raised(msgspec.Struct, frozen=True):
    """The agent raised: `Type: message`, and the stack trace for those who may debug."""

    error: str
    stack: str


class Retried(msgspec.Struct, frozen=True):
    """The agent raised, and is to be tried again in `after` seconds."""

    after: float
    failure: Raised


class Refused(msgspec.Struct, frozen=True):
    """The agent did not catch `ExecutionEnded` of its emitter: the log is closed."""


class TimedOut(msgspec.Struct, frozen=True):
    """The agent exceeded this limit."""

    limit: Limit

    @property
    def message(self) -> str:
        return f"over its {self.limit}"


class Overspent(msgspec.Struct, frozen=True):
    """A limit of the budget is over. `failure`: the agent failed, and nothing is left for another attempt."""

    reached: Reached
    failure: Raised | None = None

    @property
    def message(self) -> str:
        said = "" if self.failure is None else f", and the last attempt failed: {self.failure.error}"
        return self.reached.message + said


class HandedOver(msgspec.Struct, frozen=True):
    """The worker stops: another worker takes over."""


class LeaseLost(msgspec.Struct, frozen=True):
    """Another worker or attempt has the execution, or it was ended elsewhere: nothing more may be written."""


Cause = Cancel | TimedOut | Overspent | HandedOver | LeaseLost
Ending = Returned | Raised | Retried | Refused | Cause


def outcome_of(ending: Ending) -> Outcome:
    outcomes: dict[type, Outcome] = {
        Returned: "completed",
        Raised: "failed",
        Retried: "retried",
        Refused: "ended",
        TimedOut: "timeout",
        Overspent: "budget",
        Cancel: "cancelled",
        HandedOver: "handed_over",
        LeaseLost: "lost",
    }
    return outcomes[type(ending)]
