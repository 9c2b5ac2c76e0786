"""The shapes of version 1.0: ProtoJSON of its `a2a.proto` (camelCase, enums by name), for JSON-RPC and REST."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from broker.protocols.a2a.codec import MAX_PAGE, MAX_PARTS, Params, artifact_object, compact, milliseconds, read
from broker.protocols.a2a.errors import INVALID_PARAMS, A2AError
from broker.protocols.a2a.model import (
    DataPart,
    FilePart,
    ListTasks,
    Message,
    Part,
    PushConfig,
    Send,
    Status,
    StatusUpdate,
    Task,
    TaskPage,
    TaskQuery,
    TaskState,
    TextPart,
    Update,
)
from broker.protocols.a2a.protojson import usual
from broker.protocols.times import timestamp

STATES: dict[TaskState, str] = {
    "unknown": "TASK_STATE_UNSPECIFIED",
    "submitted": "TASK_STATE_SUBMITTED",
    "working": "TASK_STATE_WORKING",
    "completed": "TASK_STATE_COMPLETED",
    "failed": "TASK_STATE_FAILED",
    "canceled": "TASK_STATE_CANCELED",
    "input-required": "TASK_STATE_INPUT_REQUIRED",
    "rejected": "TASK_STATE_REJECTED",
    "auth-required": "TASK_STATE_AUTH_REQUIRED",
}
"""In the order of their numbers in the proto."""
ROLE_USER = 1
_BY_NAME = {name: state for state, name in STATES.items()}

MAX_COUNT = 2**31 - 1
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Text = Annotated[str, Meta(min_length=1)]


class _Part(Params, frozen=True):
    text: str | UnsetType = UNSET
    data: Any = UNSET
    raw: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    media_type: str | None = None
    filename: str | None = None


class _Message(Params, frozen=True):
    message_id: Text
    role: str | int
    parts: Annotated[list[_Part], Meta(min_length=1, max_length=MAX_PARTS)]
    context_id: str | None = None
    task_id: str | None = None
    metadata: dict[str, Any] | None = None
    extensions: tuple[str, ...] = ()
    reference_task_ids: tuple[str, ...] = ()


class _Authentication(Params, frozen=True):
    scheme: str | None = None
    credentials: str | None = None


class _Push(Params, frozen=True):
    url: Text
    id: str | None = None
    task_id: str | None = None
    token: str | None = None
    authentication: _Authentication | None = None


class _AskPush(Params, frozen=True):
    task_id: Text
    id: str | None = None


class _Configuration(Params, frozen=True):
    history_length: Count | None = None
    return_immediately: bool = False
    task_push_notification_config: _Push | None = None


class _Send(Params, frozen=True):
    message: _Message
    configuration: _Configuration = _Configuration()
    metadata: dict[str, Any] | None = None


class _Ask(Params, frozen=True):
    id: Text
    history_length: Count | None = None
    metadata: dict[str, Any] | None = None


class _List(Params, frozen=True):
    context_id: str | None = None
    status: str | int | None = None
    page_size: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 50
    page_token: str | None = None
    history_length: Count | None = None
    status_timestamp_after: str | None = None
    include_artifacts: bool = False


class V10:
    """See `Wire`."""

    is_typed = True
    takes_whole = False

    def read_send(self, params: Any) -> Send:
        given = read(usual(params, _Send), _Send)
        wanted = given.configuration
        return Send(
            message=_message_from(given.message),
            blocking=not wanted.return_immediately,
            history_length=wanted.history_length,
            push=_push_from(asked) if (asked := wanted.task_push_notification_config) is not None else None,
            metadata=given.metadata or {},
        )

    def read_query(self, params: Any) -> TaskQuery:
        given = read(usual(params, _Ask), _Ask)
        return TaskQuery(task_id=given.id, history_length=given.history_length, metadata=given.metadata or {})

    def read_list(self, params: Any) -> ListTasks:
        given = read(usual(params, _List), _List)
        state = _state_from(given.status) if given.status else None
        return ListTasks(
            context_id=given.context_id or None,
            state=None if state == "unknown" else state,
            page_size=given.page_size,
            page_token=given.page_token or None,
            history_length=given.history_length,
            since=milliseconds(given.status_timestamp_after) if given.status_timestamp_after else None,
            with_artifacts=given.include_artifacts,
        )

    def read_push(self, params: Any) -> tuple[str, PushConfig]:
        given = read(usual(params, _Push), _Push)
        if not given.task_id:
            raise A2AError(INVALID_PARAMS, "taskId is missing")
        return given.task_id, _push_from(given)

    def read_push_query(self, params: Any) -> tuple[str, str | None]:
        given = read(usual(params, _AskPush), _AskPush)
        return given.task_id, given.id or None

    def push(self, task_id: str, config: PushConfig) -> Any:
        return {"taskId": task_id, "id": config.config_id, "url": config.url}

    def pushes(self, task_id: str, configs: Sequence[PushConfig]) -> Any:
        return {"configs": [self.push(task_id, config) for config in configs], "nextPageToken": ""}

    def no_push(self) -> Any:
        return {}

    def task(self, task: Task) -> dict[str, Any]:
        return compact(
            id=task.task_id,
            contextId=task.context_id,
            status=_status(task.status),
            history=[message(each) for each in task.history],
            artifacts=[artifact_object(each, _part) for each in task.artifacts],
            metadata=task.metadata,
        )

    def sent(self, task: Task) -> dict[str, Any]:
        return {"task": self.task(task)}

    def page(self, page: TaskPage) -> dict[str, Any]:
        return {
            "tasks": [self.task(task) for task in page.tasks],
            "nextPageToken": page.next_token,
            "pageSize": page.page_size,
            "totalSize": page.total,
        }

    def shown(self, task: Task) -> dict[str, Any]:
        return {"task": self.task(task)}

    def update(self, update: Update) -> dict[str, Any]:
        shape: dict[str, Any] = {"taskId": update.task_id, "contextId": update.context_id}
        if isinstance(update, StatusUpdate):
            shape["status"] = _status(update.status)
        else:
            shape["artifact"] = artifact_object(update.artifact, _part)
            shape["append"], shape["lastChunk"] = update.append, update.last
        shape["metadata"] = update.metadata
        return {"statusUpdate" if isinstance(update, StatusUpdate) else "artifactUpdate": shape}


def _push_from(given: _Push) -> PushConfig:
    about = given.authentication or _Authentication()
    return PushConfig(
        url=given.url,
        config_id=given.id or None,
        token=given.token or None,
        scheme=about.scheme or None,
        credentials=about.credentials or None,
    )


def _status(status: Status) -> dict[str, Any]:
    said = None if status.message is None else message(status.message)
    return compact(state=STATES[status.state], message=said, timestamp=timestamp(status.at))


def message(said: Message) -> dict[str, Any]:
    return compact(
        messageId=said.message_id,
        contextId=said.context_id,
        taskId=said.task_id,
        role="ROLE_USER" if said.role == "user" else "ROLE_AGENT",
        parts=[_part(part) for part in said.parts],
        metadata=said.metadata,
        extensions=list(said.extensions),
        referenceTaskIds=list(said.reference_task_ids),
    )


def _part(part: Part) -> dict[str, Any]:
    content: dict[str, Any]
    match part:
        case TextPart(text=text):
            content = {"text": text}
        case DataPart(data=data):
            content = {"data": data}
        case FilePart(url=url, raw=raw):
            content = {"url": url} if url is not None else {"raw": raw}
    if part.filename is None and part.media_type is None:
        return content
    return content | compact(filename=part.filename, mediaType=part.media_type)


def _state_from(given: str | int) -> TaskState:
    """By its name, or its number in the proto."""
    if isinstance(given, int) and 0 <= given < len(STATES):
        return list(STATES)[given]
    if given not in _BY_NAME:
        raise A2AError(INVALID_PARAMS, f"status: {str(given)[:64]!r} is not a task's state")
    return _BY_NAME[str(given)]


def _message_from(given: _Message) -> Message:
    if given.role not in ("ROLE_USER", "user", ROLE_USER):
        raise A2AError(INVALID_PARAMS, "message.role: clients send ROLE_USER")
    return Message(
        role="user",
        message_id=given.message_id,
        parts=tuple(_part_from(part) for part in given.parts),
        task_id=given.task_id or None,
        context_id=given.context_id or None,
        metadata=given.metadata,
        extensions=given.extensions,
        reference_task_ids=given.reference_task_ids,
    )


def _part_from(given: _Part) -> Part:
    about = {"media_type": given.media_type, "filename": given.filename}
    held = [name for name in ("text", "data", "raw", "url") if getattr(given, name) is not UNSET]
    if len(held) != 1:
        raise A2AError(INVALID_PARAMS, "message.parts: a part has one of text, data, raw and url")
    match held[0]:
        case "text":
            return TextPart(text=given.text, **about)  # type: ignore[arg-type]  # it is set
        case "data":
            return DataPart(data=given.data, **about)
    return FilePart(**{held[0]: getattr(given, held[0])}, **about)
