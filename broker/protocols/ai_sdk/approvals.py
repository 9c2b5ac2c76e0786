"""Approvals as the SDK's own (`ai` 6, 7): a call of a tool `approval` that waits for `addToolApprovalResponse`. Pure.

The SDK sends an answer when the stream has ended. So a stream ends where its agent asks, and the answer's POST is shown
what follows: a view of the same execution after that place. An approval's id has all that the next request must know.
Version 5 does not know these chunks: an execution has them if the page that started it said `toolApprovals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from broker.protocols.ai_sdk.parts import Chunk
from broker.protocols.question_ids import SEQ, QuestionId
from emitter.events import EXPIRED, InputReceived, InputRequired
from emitter.wire.ids import EXECUTION_ID

TOOL = "approval"


class Response(NamedTuple):
    """What a person said to an approval."""

    id: QuestionId
    approved: bool


class Approvals(NamedTuple):
    """Which approvals end a stream: the first one after the ordinal `after`, from where on it is shown; but none that
    was answered when the stream was opened. That is what is `known`: up to an ordinal, all but those in `open`."""

    after: int = 0
    known: int = 0
    open: frozenset[str] = frozenset()

    def end_at(self, seq: int, input_id: str) -> bool:
        return seq > self.after and (seq > self.known or input_id in self.open)


OPEN = "open"
"""Of a parameter `approvals`: those that were answered by now end no stream."""
ALL_ANSWERED = Approvals(known=10**15)


def run_id(execution_id: str, approvals: Approvals | None) -> str:
    """What names the view of an execution after an answer."""
    return f"{execution_id}.{approvals.after}" if approvals is not None and approvals.after else execution_id


def parse_run_id(text: str) -> tuple[str, int] | None:
    """The execution, and the ordinal after which it is shown."""
    execution_id, _, seq = text.partition(".")
    if not EXECUTION_ID.match(execution_id) or not (seq == "" or SEQ.fullmatch(seq)):
        return None
    return execution_id, int(seq or 0)


def are_wanted(metadata: Mapping[str, Any] | None) -> bool:
    """Whether the page that started an execution wants them."""
    about = (metadata or {}).get("chat")
    return isinstance(about, dict) and about.get("toolApprovals") is True


def call(event: InputRequired, execution_id: str, approval: QuestionId) -> list[Chunk]:
    id_ = str(approval)
    asked = {"executionId": execution_id, **msgspec.to_builtins(event)}
    return [
        {"type": "tool-input-available", "toolCallId": id_, "toolName": TOOL, "input": asked, "title": event.prompt},
        {"type": "tool-approval-request", "toolCallId": id_, "approvalId": id_},
    ]


def outcome(event: InputReceived, id_: str) -> Chunk:
    if event.by == EXPIRED:
        return {"type": "tool-output-error", "toolCallId": id_, "errorText": "nobody answered in time"}
    if event.value is not True:
        return {"type": "tool-output-denied", "toolCallId": id_}
    return {"type": "tool-output-available", "toolCallId": id_, "output": {"approved": True, "by": event.by}}
