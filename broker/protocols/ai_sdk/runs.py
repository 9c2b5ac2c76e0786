"""What is shown of a chat: executions, or views of them, by the ids that `X-Workflow-Run-Id` has."""

from __future__ import annotations

from typing import NamedTuple

from broker.executions.commands import Commands
from broker.executions.types import ExecutionSummary
from broker.protocols.ai_sdk.approvals import Approvals, are_wanted, parse_run_id, run_id
from broker.protocols.ai_sdk.continuation import AFTER
from emitter.wire.ids import INPUT_ID
from emitter.wire.keys import Owner


class Found(NamedTuple):
    """What is shown: an execution, or of it what follows a message to its agent (`after`)."""

    execution_id: str
    approvals: Approvals | None
    after: str | None = None

    @property
    def run_id(self) -> str:
        """Names this view, so that it can be asked for again."""
        return run_id(self.execution_id, self.approvals) + ("" if self.after is None else AFTER + self.after)


async def found_run(commands: Commands, owner: Owner, named: str) -> Found | None:
    """The execution of this id of a run, in the view that a POST of it had."""
    name, _, after = named.partition(AFTER)
    if after and not INPUT_ID.match(after):  # it becomes a part of a header
        return None
    if (run := parse_run_id(name)) is None or (summary := await commands.listing.summary(owner, run[0])) is None:
        return None
    return Found(run[0], Approvals(run[1]) if are_wanted(summary.metadata) else None, after or None)


async def current(commands: Commands, owner: Owner, summary: ExecutionSummary) -> Approvals | None:
    """For a stream from the first event on, which ends at what is open now."""
    if not are_wanted(summary.metadata):
        return None
    found = await commands.open_inputs(owner, summary.execution_id)
    return Approvals(known=found.last.seq, open=frozenset(() if found.has_ended else found.open_inputs))
