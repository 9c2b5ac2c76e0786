"""The event catalogue: one frozen struct per event type, snake_case here and camelCase on the wire.

A struct is the `data` of an event; the envelope around it (`type`, `executionId`, `ts`, …) is in `emitter.wire`.
The class attribute `type` is the name on the wire. Fields that default to `None` are optional and left out when unset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec

from emitter.budgets import Budget, BudgetState, LimitName
from emitter.values import Attempt, Integer, Millis, Ordinal

Percent = Annotated[float, msgspec.Meta(ge=0, le=100, description="0 to 100")]
Seconds = Annotated[float, msgspec.Meta(description="seconds")]


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of every event's data."""

    if TYPE_CHECKING:  # in the sandbox of Temporal's workflows msgspec cannot tell a ClassVar, and takes it for a field
        type: ClassVar[str]


class Phase(msgspec.Struct, frozen=True):
    id: str
    name: str


class Plan(msgspec.Struct, frozen=True):
    goal: str
    phases: list[Phase]


class Usage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Tokens and cost of model calls; totals, not increments."""

    input_tokens: Integer
    output_tokens: Integer
    total_tokens: Integer
    cost_usd: float | None = None
    model: str | None = None


class ExecutionQueued(Event, frozen=True):
    """Written by the broker when it accepts the execution."""

    type = "execution:queued"
    task: str
    agent: str
    budget: Budget | None = None


class ExecutionStarted(Event, frozen=True):
    """`budget`: the limits that count from now on, and what earlier attempts have spent."""

    type = "execution:started"
    task: str
    started_at: Millis
    attempt: Attempt
    budget: BudgetState | None = None


class PlanCreated(Event, frozen=True):
    type = "plan:created"
    plan: Plan


class PhaseStart(Event, frozen=True):
    type = "phase:start"
    phase_id: str
    phase_name: str
    phase_index: Integer | None = None


class PhaseComplete(Event, frozen=True):
    type = "phase:complete"
    phase_id: str
    phase_name: str
    duration: Seconds | None = None


class Thinking(Event, frozen=True):
    """One whole thought."""

    type = "thinking"
    thought: str
    iteration: Integer | None = None
    visible: bool = True


class ThinkingDelta(Event, frozen=True):
    """A chunk of streamed reasoning."""

    type = "thinking:delta"
    message_id: str
    delta: str


class MessageDelta(Event, frozen=True):
    """A chunk of text for the reader."""

    type = "message:delta"
    message_id: str
    delta: str


class MessageComplete(Event, frozen=True):
    type = "message:complete"
    message_id: str
    text: str | None = None
    usage: Usage | None = None


class ToolStart(Event, frozen=True):
    type = "tool:start"
    call_id: str
    tool_name: str
    params: Any


class ToolProgress(Event, frozen=True):
    type = "tool:progress"
    call_id: str
    progress: Percent | None = None
    message: str | None = None


class ToolComplete(Event, frozen=True):
    type = "tool:complete"
    call_id: str
    tool_name: str
    result: Any
    duration: Seconds


class ToolError(Event, frozen=True):
    type = "tool:error"
    call_id: str
    tool_name: str
    error: str
    duration: Seconds


class Status(Event, frozen=True):
    type = "status"
    status: str
    message: str


class Progress(Event, frozen=True):
    type = "progress"
    progress: Percent
    current_action: str | None = None
    specialist: str | None = None


class SpecialistActivated(Event, frozen=True):
    type = "specialist:activated"
    specialist: str
    task: str | None = None
    icon: str | None = None


class SpecialistComplete(Event, frozen=True):
    type = "specialist:complete"
    specialist: str
    summary: str | None = None


class PartialResult(Event, frozen=True):
    type = "partial:result"
    result: Any
    specialist: str | None = None


class Synthesis(Event, frozen=True):
    type = "synthesis"
    message: str
    specialists_complete: list[str]
    specialists_pending: list[str]


class Artifact(Event, frozen=True):
    """A file or document the agent made; exactly one of text, data and url. Chunks share an `artifact_id`."""

    type = "artifact"
    artifact_id: str
    media_type: str
    name: str | None = None
    text: str | None = None
    data: Any = None
    url: str | None = None
    append: bool = False
    last: bool = False


class UsageTotals(Usage, Event, frozen=True):
    """Running totals of the execution."""

    type = "usage"


class ModelCall(Event, frozen=True):
    """One call of a model, when it has ended. `prompt` and `answer` are stored only where
    `RUNCAST_RECORD_MODEL_CONTENTS` is 1. `provider` as OpenTelemetry's `gen_ai.provider.name` has it: `openai`,
    `anthropic`, `aws.bedrock`."""

    type = "model:call"
    call_id: str
    model: str
    input_tokens: Integer
    output_tokens: Integer
    duration: Seconds
    provider: str | None = None
    prompt: Any = None
    answer: Any = None
    cost_usd: float | None = None
    first_token_seconds: Seconds | None = None
    error: str | None = None


class InputRequired(Event, frozen=True):
    """The agent waits for a person. `schema` is a JSON Schema, for kind `form`; a `text` whose schema is `{}` may be
    answered by any JSON."""

    type = "input:required"
    input_id: str
    prompt: str
    kind: Literal["approval", "choice", "text", "form"]
    options: list[str] | None = None
    schema: dict[str, Any] | None = None
    expires_at: Millis | None = None


class InputReceived(Event, frozen=True):
    """Exactly one per input: the first answer wins. `declined`: the person does not want to answer; of an approval the
    value is then false."""

    type = "input:received"
    input_id: str
    by: str
    value: Any = None
    declined: bool = False


EXPIRED = "system:expired"
"""`by` of the `input:received` that closes a question which nobody answered in time; no user is shown by that name."""


MessageMode = Literal["queue", "interrupt"]


class UserMessage(Event, frozen=True):
    """A person says something to the running agent. `mode` is `interrupt` if the agent should hear it at once."""

    type = "user:message"
    message_id: str
    by: str
    mode: MessageMode
    text: str | None = None
    data: Any = None


class UserMessageTaken(Event, frozen=True):
    """An attempt of the agent has taken these messages. A later attempt takes them again."""

    type = "user:message:taken"
    message_ids: list[str]
    attempt: Attempt


class UserMessageDropped(Event, frozen=True):
    """No attempt will take this message any more: its sender has withdrawn it, or the execution ends."""

    type = "user:message:dropped"
    message_id: str
    reason: Literal["withdrawn", "ended"]


class ChildStarted(Event, frozen=True):
    """The execution started another one, in a log of its own. `key` is the name that the agent gave it, `detached` one
    that goes on when this execution ends. Exactly one per child, over all attempts."""

    type = "child:started"
    execution_id: str
    agent: str
    task: str
    key: str | None = None
    detached: bool = False


class ChildEnded(Event, frozen=True):
    """A child has ended before this execution. `summary` is the beginning of its result, or why it failed or was
    cancelled; `usage` what it and its own children used. At most one per child, over all attempts."""

    type = "child:ended"
    execution_id: str
    state: Literal["completed", "failed", "cancelled"]
    summary: str | None = None
    usage: Usage | None = None


class Timeout(Event, frozen=True):
    """A slow step was noticed."""

    type = "timeout"
    message: str
    action: Literal["continuing", "stopping"]


class BudgetNotice(Event, frozen=True):
    """80 % of a limit is spent (`continuing`), once for each limit; or all of it (`stopping`), and the execution ends
    with code `budget_exceeded`."""

    type = "budget"
    limit: LimitName
    spent: float
    max: float
    action: Literal["continuing", "stopping"]


class SandboxViolation(Event, frozen=True):
    type = "sandbox:violation"
    rule: str
    detail: str


class ExecutionSuperseded(Event, frozen=True):
    """A retry took over: what the old attempt wrote after `from_seq` is void."""

    type = "execution:superseded"
    from_seq: Ordinal
    attempt: Attempt


class ExecutionComplete(Event, frozen=True):
    """Terminal."""

    type = "execution:complete"
    result: Any
    duration: Seconds
    tokens_used: Integer | None = None


class ExecutionError(Event, frozen=True):
    """Terminal. A stack trace never travels in the event; it is kept in the execution's record."""

    type = "execution:error"
    error: str
    code: str | None = None


class ExecutionCancelled(Event, frozen=True):
    """Terminal."""

    type = "execution:cancelled"
    reason: str | None = None
    by: str | None = None


class Custom(Event, frozen=True):
    """An event of a plug-in: type `custom:<name>`, and any object as its data."""

    type = "custom"
    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9_.-]{1,64}$")]
    data: dict[str, Any]


CATALOGUE: tuple[type[Event], ...] = (
    ExecutionQueued, ExecutionStarted, PlanCreated, PhaseStart, PhaseComplete, Thinking, ThinkingDelta, MessageDelta,
    MessageComplete, ToolStart, ToolProgress, ToolComplete, ToolError, Status, Progress, SpecialistActivated,
    SpecialistComplete, PartialResult, Synthesis, Artifact, UsageTotals, ModelCall, InputRequired, InputReceived,
    UserMessage, UserMessageTaken, UserMessageDropped, ChildStarted, ChildEnded, Timeout, BudgetNotice,
    SandboxViolation, ExecutionSuperseded, ExecutionComplete, ExecutionError, ExecutionCancelled,
)  # fmt: skip
"""Every type with a fixed name, in the order of the documentation; `Custom` stands beside it."""

BY_TYPE: dict[str, type[Event]] = {event.type: event for event in CATALOGUE}
DELTAS = frozenset({ThinkingDelta.type, MessageDelta.type})
State = Literal["queued", "running", "waiting_input", "completed", "failed", "cancelled"]

TERMINAL_STATE_OF: dict[str, State] = {
    ExecutionComplete.type: "completed",
    ExecutionError.type: "failed",
    ExecutionCancelled.type: "cancelled",
}
"""Terminal event type → the state it leaves."""
TERMINAL_STATES = frozenset(TERMINAL_STATE_OF.values())
TERMINAL_TYPES = frozenset(type_.encode() for type_ in TERMINAL_STATE_OF)
"""The terminal types as entries of a log have them."""
