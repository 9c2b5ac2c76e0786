"""What requests and responses of the HTTP interface hold. The API description is made from these types.

Requests refuse fields that they do not know; field names are camelCase on the wire.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from emitter import events
from emitter.budgets import MOST, Budget, BudgetState
from emitter.events import MessageMode, State
from emitter.values import MAX_DEPTH, Millis, is_deeper

MAX_TASK = 65_536
EVENT_ID = "^[0-9]{1,15}-[0-9]{1,15}$"
LISTED = "^([0-9]{1,15})[.]([A-Za-z0-9_-]{1,64})$"
"""A place in a list of executions: a time in milliseconds, and the execution."""

ExecutionId = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$", description="id of an execution, unique per user")]
EventIdText = Annotated[str, Meta(pattern=EVENT_ID, description="`<ms>-<seq>`: a place in a log")]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Reason = Annotated[str, Meta(max_length=1024)]
UserId = Annotated[str, Meta(min_length=1, max_length=2048, description="the `sub` (or organisation) of tokens")]
Metadata = Annotated[dict[str, Any], Meta(max_length=64)]


# --- requests --------------------------------------------------------------------------------------------------------


class _Request(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of what a caller sends."""


class OnDisconnect(_Request, frozen=True):
    """Cancel after this time without a viewer."""

    cancel_after_seconds: Annotated[float, Meta(ge=1, le=86_400)]


class WebhookRequest(_Request, frozen=True):
    """Where events of the execution are posted to, signed by Standard Webhooks. `events`: their types, by default the
    three ends and `input:required`. `headers` are sent with each message."""

    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    events: Annotated[list[Annotated[str, Meta(max_length=80)]], Meta(min_length=1, max_length=64)] | None = None
    headers: dict[str, str] | None = None


class BudgetRequest(_Request, frozen=True):
    """What the execution may spend at most, all attempts together. Of its agent's limits and those of the settings, the
    smallest counts."""

    total_tokens: Annotated[int, Meta(ge=1, le=MOST)] | None = None
    cost_usd: Annotated[float, Meta(gt=0, le=MOST)] | None = None
    tool_calls: Annotated[int, Meta(ge=1, le=MOST)] | None = None
    seconds: Annotated[float, Meta(gt=0, le=MOST, description="time under a worker, waits included")] | None = None

    @property
    def limits(self) -> Budget:
        return Budget(**msgspec.structs.asdict(self))


class ExecuteRequest(_Request, frozen=True):
    task: Annotated[str, Meta(min_length=1, max_length=MAX_TASK, description="what the agent is asked to do")]
    agent: Name | None = None
    params: dict[str, Any] | None = None
    metadata: Metadata | None = None
    execution_id: ExecutionId | None = None
    conversation_id: ExecutionId | None = None
    not_before: Annotated[int, Meta(ge=0, description="start no earlier, milliseconds since the epoch")] | None = None
    on_disconnect: OnDisconnect | None = None
    webhook: WebhookRequest | None = None
    parent_execution_id: ExecutionId | None = None
    on_parent_end: Literal["cancel", "detach"] | None = None
    budget: BudgetRequest | None = None

    def __post_init__(self) -> None:
        for name, value in (("params", self.params), ("metadata", self.metadata)):
            if is_deeper(value):
                raise ValueError(f"nested more than {MAX_DEPTH} deep - at `$.{name}`")


class CancelRequest(_Request, frozen=True):
    reason: Reason | None = None


class InputRequest(_Request, frozen=True):
    """The answer to an `input:required`: its value, or that the person declines to give one."""

    input_id: Name
    value: Any | msgspec.UnsetType = msgspec.UNSET
    declined: bool = False

    def __post_init__(self) -> None:
        if (self.value is msgspec.UNSET) != self.declined:
            raise ValueError("one of value and declined is needed, not both - at `$.value`")


class TicketRequest(_Request, frozen=True):
    """Without an execution the ticket opens the feed."""

    execution_id: ExecutionId | None = None


class RevocationRequest(_Request, frozen=True):
    """Either a token (`jti`) or all that a user was issued until now, of the caller's org unless `org` says another.
    `expiresAt` is the token's `exp`: it need not be remembered for longer."""

    jti: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    user: UserId | None = None
    org: UserId | None = None
    expires_at: Annotated[int, Meta(ge=0, le=32_503_680_000_000, description="milliseconds since the epoch")] | None = (
        None
    )

    def __post_init__(self) -> None:
        if (self.jti is None) == (self.user is None):
            raise ValueError("one of jti and user is needed, not both")
        if self.user is not None and self.expires_at is not None:
            raise ValueError("expiresAt is of one token, and goes with jti")


class PublishRequest(_Request, frozen=True):
    """One event to append; `data` is what the catalogue has for its `type`."""

    type: Annotated[str, Meta(max_length=80)]
    data: msgspec.Raw
    ts: Millis | None = None
    request_id: Name | None = None
    agent: Name | None = None
    parent_id: Name | None = None


# --- responses -------------------------------------------------------------------------------------------------------


class _Response(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of what an edge answers; what is unset is left out."""


class ProblemBody(_Response, frozen=True):
    """RFC 9457. `path` is where in the request the error is; some kinds have members of their own besides."""

    type: str
    title: str
    status: int
    request_id: str
    detail: str | None = None
    path: str | None = None


class ExecuteResponse(_Response, frozen=True):
    execution_id: ExecutionId
    state: State
    stream_url: str


class ExecutionSummary(_Response, frozen=True):
    execution_id: ExecutionId
    state: State
    task: str | None = None
    agent: str | None = None
    attempt: int | None = None
    created_at: Millis | None = None
    updated_at: Millis | None = None
    conversation_id: str | None = None
    metadata: dict[str, Any] | None = None
    cursor: EventIdText | None = None
    parent: str | None = None
    root: str | None = None
    budget: BudgetState | None = None


class ExecutionList(_Response, frozen=True):
    """Newest first. `next_cursor` continues the list; without it this is the last page."""

    executions: list[ExecutionSummary]
    next_cursor: str | None = None


class LoggedEvent(_Response, frozen=True):
    """One entry of a log."""

    id: EventIdText
    event: msgspec.Raw


class EventPage(_Response, frozen=True):
    """Events after the cursor that was asked for; `next_after` continues, if there are more. `first_seq` above what was
    asked for means that the log was trimmed."""

    events: list[LoggedEvent]
    state: State
    next_after: EventIdText | None = None
    first_seq: int | None = None


class CancelResponse(_Response, frozen=True):
    execution_id: ExecutionId
    state: State


class InputResponse(_Response, frozen=True):
    execution_id: ExecutionId
    input_id: str


class PublishResponse(_Response, frozen=True):
    """`cursor` is the log's last id; `appended` leaves out what an earlier try had already appended."""

    execution_id: ExecutionId
    cursor: EventIdText
    appended: int


class TicketResponse(_Response, frozen=True):
    ticket: str
    expires_at: Millis


class RevocationResponse(_Response, frozen=True):
    """A token is refused until `revokedUntil`; without it, until that is taken back. A user's tokens are refused if
    they were issued before `issuedBefore`, or do not say when. `warning` is there when Redis takes no writes: the
    revocation is in effect on every edge that runs, and is stored as soon as that is possible."""

    revoked_until: Millis | None = None
    issued_before: Millis | None = None
    warning: str | None = None


class AgentInfo(_Response, frozen=True):
    """An agent as its workers announce it. `input_schema` is a JSON Schema of `params`; modes are media types; examples
    are tasks, in which braces are for the user to fill in."""

    name: str
    description: str = ""
    tags: list[str] = []
    input_schema: dict[str, Any] | None = None
    input_modes: list[str] = []
    output_modes: list[str] = []
    accepts_messages: bool = False
    examples: list[str] = []
    budget: Budget | None = None


class AgentList(_Response, frozen=True):
    agents: list[AgentInfo]


# --- the folded state ------------------------------------------------------------------------------------------------


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    """Base of the state's parts; what is unset is null, so that a page can rely on the shape."""


class PhaseState(_Part, frozen=True):
    """`interrupted`: the execution ended while it ran. One that never began stays `pending`."""

    id: str
    name: str
    status: Literal["pending", "running", "complete", "interrupted"]
    index: int | None = None
    duration: events.Seconds | None = None


class ToolState(_Part, frozen=True):
    """One call. `progress` and `message` are those of the last `tool:progress`. `interrupted`: the execution ended
    before the call, and its outcome is unknown."""

    call_id: str
    tool_name: str
    params: Any = None
    status: Literal["running", "complete", "error", "interrupted"] = "running"
    result: Any = None
    error: str | None = None
    duration: events.Seconds | None = None
    progress: events.Percent | None = None
    message: str | None = None


class ThoughtState(_Part, frozen=True):
    """A whole thought, or a streamed one, which has a `message_id`."""

    thought: str = ""
    message_id: str | None = None
    iteration: int | None = None
    visible: bool = True
    truncated: bool = False


class MessageState(_Part, frozen=True):
    """What was said. `interrupted`: the execution failed or was cancelled before the message was complete. `parent_id`
    is the call in which a sub-agent said it: that is no part of the state's `text`."""

    message_id: str
    text: str = ""
    complete: bool = False
    interrupted: bool = False
    usage: events.Usage | None = None
    truncated: bool = False
    parent_id: str | None = None


class Activity(_Part, frozen=True):
    """The last `status` event."""

    status: str
    message: str


class ProgressState(_Part, frozen=True):
    progress: events.Percent
    current_action: str | None = None
    specialist: str | None = None


class SpecialistState(_Part, frozen=True):
    """`interrupted`: the execution ended while it worked."""

    specialist: str
    status: Literal["active", "complete", "interrupted"] = "active"
    task: str | None = None
    icon: str | None = None
    summary: str | None = None
    progress: events.Percent | None = None
    current_action: str | None = None


class ChildState(_Part, frozen=True):
    """A child. `interrupted`: this execution ended, so it is being cancelled; `detached`: it goes on after that."""

    execution_id: str
    status: Literal["running", "completed", "failed", "cancelled", "interrupted", "detached"] = "running"
    agent: str | None = None
    task: str | None = None
    key: str | None = None
    detached: bool = False
    summary: str | None = None
    usage: events.Usage | None = None


class PartialState(_Part, frozen=True):
    result: Any
    specialist: str | None = None


class ArtifactState(_Part, frozen=True):
    """An artifact put together: the text of its chunks is joined, of `data` and `url` the last counts. `interrupted`:
    the execution failed or was cancelled before the agent said that it is whole."""

    artifact_id: str
    media_type: str
    name: str | None = None
    text: str | None = None
    data: Any = None
    url: str | None = None
    complete: bool = False
    interrupted: bool = False
    truncated: bool = False


class UserMessageState(_Part, frozen=True, kw_only=True):
    """A person's message. `taken`: by the attempt that runs now; the next one has it `queued` again. `reason`: why it
    was dropped."""

    message_id: str
    by: str
    mode: MessageMode
    text: str | None = None
    data: Any = None
    sent_at: Millis | None = None
    state: Literal["queued", "taken", "dropped"] = "queued"
    reason: Literal["withdrawn", "ended"] | None = None


class Failure(_Part, frozen=True):
    """`stack` comes from the execution's record, and only for those who may see it."""

    error: str
    code: str | None = None
    stack: str | None = None


class Cancellation(_Part, frozen=True):
    reason: str | None = None
    by: str | None = None


class ExecutionState(_Part, frozen=True):
    """An execution according to its log up to `cursor`. `text` is every message joined, in order of their beginning.

    It is bounded: of very many parts the newest are there; of more than some megabytes, those parts that were left
    alone for longest have only the beginning of their texts (with an ellipsis, or `truncated`), and `{"clipped": true}`
    in the place of values. The log has all. `params` comes from the execution's record: what it was started with,
    without credentials; of very large ones the largest members are clipped, and `GET …/request` has all."""

    execution_id: str
    status: State
    cursor: str
    task: str | None = None
    agent: str | None = None
    params: dict[str, Any] | None = None
    attempt: int = 1
    started_at: Millis | None = None
    ended_at: Millis | None = None
    duration: events.Seconds | None = None
    activity: Activity | None = None
    progress: ProgressState | None = None
    plan: events.Plan | None = None
    phases: list[PhaseState] = []
    tools: list[ToolState] = []
    thinking: list[ThoughtState] = []
    messages: list[MessageState] = []
    text: str = ""
    specialists: list[SpecialistState] = []
    synthesis: events.Synthesis | None = None
    partial_results: list[PartialState] = []
    artifacts: list[ArtifactState] = []
    children: list[ChildState] = []
    usage: events.UsageTotals | None = None
    budget: BudgetState | None = None
    open_inputs: list[events.InputRequired] = []
    user_messages: list[UserMessageState] = []
    result: Any = None
    error: Failure | None = None
    cancelled: Cancellation | None = None
