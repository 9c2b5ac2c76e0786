"""Tasks, messages and updates as A2A has them in all its versions; `v03` and `v10` know their shapes on the wire."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

TaskState = Literal[
    "submitted", "working", "input-required", "completed", "failed", "canceled", "rejected", "auth-required", "unknown"
]
STATES: dict[str, TaskState] = {
    "queued": "submitted",
    "running": "working",
    "waiting_input": "input-required",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "canceled",
}
"""State of an execution → of its task."""
TERMINAL = frozenset({"completed", "failed", "canceled", "rejected"})
EVENTS_EXTENSION = "urn:runcast:a2a:events"
"""Marks messages whose data part is an event (`{"type", "data"}`) with its agent."""
PARAMS_EXTENSION = "urn:runcast:a2a:params"
"""In the extended card: the JSON Schema of each agent's parameters, which come as a data part."""


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what follows."""


class TextPart(Value, frozen=True):
    text: str
    media_type: str | None = None
    filename: str | None = None


class DataPart(Value, frozen=True):
    """Any JSON value; it may hold `msgspec.Raw`."""

    data: Any
    media_type: str | None = None
    filename: str | None = None


class FilePart(Value, frozen=True):
    """`url`, or `raw` in base 64."""

    url: str | None = None
    raw: str | None = None
    media_type: str | None = None
    filename: str | None = None


Part = TextPart | DataPart | FilePart


def as_object(value: Any) -> Any:
    """The old versions' data parts hold objects only."""
    return value if isinstance(value, dict | msgspec.Raw) else {"value": value}


class Message(Value, frozen=True):
    role: Literal["user", "agent"]
    message_id: str
    parts: tuple[Part, ...]
    task_id: str | None = None
    context_id: str | None = None
    metadata: dict[str, Any] | None = None
    extensions: tuple[str, ...] = ()
    reference_task_ids: tuple[str, ...] = ()


class Status(Value, frozen=True):
    """`at` in milliseconds since the epoch."""

    state: TaskState
    at: int
    message: Message | None = None


class Artifact(Value, frozen=True):
    artifact_id: str
    parts: tuple[Part, ...]
    name: str | None = None
    metadata: dict[str, Any] | None = None


class Task(Value, frozen=True):
    task_id: str
    context_id: str
    status: Status
    history: tuple[Message, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    metadata: dict[str, Any] | None = None


class StatusUpdate(Value, frozen=True):
    """`final`: the stream ends with it."""

    task_id: str
    context_id: str
    status: Status
    final: bool
    metadata: dict[str, Any]


class ArtifactUpdate(Value, frozen=True):
    """A chunk: it is added to what is known of the artifact, or takes its place (`append` false). `whole` is all of it,
    with the last chunk of one that came in several, for clients that cannot add."""

    task_id: str
    context_id: str
    artifact: Artifact
    append: bool
    last: bool
    metadata: dict[str, Any]
    whole: Artifact | None = None


Update = StatusUpdate | ArtifactUpdate


# --- what clients ask ------------------------------------------------------------------------------------------------


class PushConfig(Value, frozen=True):
    """Where a task's notifications go. `scheme` and `credentials` are those of an `Authorization` header."""

    url: str
    config_id: str | None = None
    token: str | None = None
    scheme: str | None = None
    credentials: str | None = None


class Send(Value, frozen=True):
    """A message to start a task with, or to answer one that waits. `blocking`: the answer comes when it has ended or
    waits again."""

    message: Message
    blocking: bool = True
    history_length: int | None = None
    push: PushConfig | None = None
    metadata: dict[str, Any] = {}


class TaskQuery(Value, frozen=True):
    """About one task."""

    task_id: str
    history_length: int | None = None
    metadata: dict[str, Any] = {}


class ListTasks(Value, frozen=True):
    """`since` in milliseconds. `state` is one that no task of ours ever has, if it is not in `STATES`' values. `agent`:
    only its tasks."""

    agent: str | None = None
    context_id: str | None = None
    state: TaskState | None = None
    page_size: int = 50
    page_token: str | None = None
    history_length: int | None = None
    since: int | None = None
    with_artifacts: bool = False


class TaskPage(Value, frozen=True):
    tasks: tuple[Task, ...]
    next_token: str
    page_size: int
    total: int
