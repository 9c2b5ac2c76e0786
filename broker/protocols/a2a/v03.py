"""The shapes of versions 0.2.5 and 0.3 over JSON-RPC: objects distinguished by `kind`. For REST see `v03_rest`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta

from broker.protocols.a2a.codec import MAX_PARTS, Params, artifact_object, compact, read
from broker.protocols.a2a.errors import INVALID_PARAMS, METHOD_NOT_FOUND, A2AError
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
    TextPart,
    Update,
)
from broker.protocols.times import timestamp

Count = Annotated[int, Meta(ge=0)]
Text = Annotated[str, Meta(min_length=1)]


class _File(Params, frozen=True):
    uri: str | None = None
    bytes: str | None = None
    name: str | None = None
    mime_type: str | None = None


class _Part(Params, frozen=True):
    kind: Literal["text", "data", "file"]
    text: str | None = None
    data: dict[str, Any] | None = None
    file: _File | None = None


class _Message(Params, frozen=True):
    message_id: Text
    role: Literal["user"]
    parts: Annotated[list[_Part], Meta(min_length=1, max_length=MAX_PARTS)]
    context_id: str | None = None
    task_id: str | None = None
    metadata: dict[str, Any] | None = None
    extensions: list[str] | None = None
    reference_task_ids: list[str] | None = None


class _Authentication(Params, frozen=True):
    schemes: tuple[str, ...] = ()
    credentials: str | None = None


class _Push(Params, frozen=True):
    url: Text
    id: str | None = None
    token: str | None = None
    authentication: _Authentication | None = None


class _TaskPush(Params, frozen=True):
    task_id: Text
    push_notification_config: _Push


class _AskPush(Params, frozen=True):
    id: Text
    push_notification_config_id: str | None = None


class _Configuration(Params, frozen=True):
    history_length: Count | None = None
    blocking: bool | None = None
    push_notification_config: _Push | None = None


class _Send(Params, frozen=True):
    message: _Message
    configuration: _Configuration | None = None
    metadata: dict[str, Any] | None = None


class _Ask(Params, frozen=True):
    id: Text
    history_length: Count | None = None
    metadata: dict[str, Any] | None = None


class V03:
    """See `Wire`."""

    is_typed = False
    takes_whole = False

    def read_send(self, params: Any) -> Send:
        given = read(params, _Send)
        wanted = given.configuration or _Configuration()
        return Send(
            message=_message_from(given.message),
            blocking=wanted.blocking is not False,
            history_length=wanted.history_length,
            push=None if wanted.push_notification_config is None else _push_from(wanted.push_notification_config),
            metadata=given.metadata or {},
        )

    def read_query(self, params: Any) -> TaskQuery:
        given = read(params, _Ask)
        return TaskQuery(task_id=given.id, history_length=given.history_length, metadata=given.metadata or {})

    def read_list(self, params: Any) -> ListTasks:  # noqa: ARG002
        raise A2AError(METHOD_NOT_FOUND, "tasks are listed since version 1.0")

    def read_push(self, params: Any) -> tuple[str, PushConfig]:
        given = read(params, _TaskPush)
        return given.task_id, _push_from(given.push_notification_config)

    def read_push_query(self, params: Any) -> tuple[str, str | None]:
        given = read(params, _AskPush)
        return given.id, given.push_notification_config_id or None

    def push(self, task_id: str, config: PushConfig) -> Any:
        return {"taskId": task_id, "pushNotificationConfig": {"id": config.config_id, "url": config.url}}

    def pushes(self, task_id: str, configs: Sequence[PushConfig]) -> Any:
        return [self.push(task_id, config) for config in configs]

    def no_push(self) -> Any:
        return None

    def task(self, task: Task) -> dict[str, Any]:
        return compact(
            id=task.task_id,
            contextId=task.context_id,
            status=_status(task.status),
            history=[message(each) for each in task.history],
            artifacts=[artifact_object(each, _part) for each in task.artifacts],
            metadata=task.metadata,
            kind="task",
        )

    def sent(self, task: Task) -> dict[str, Any]:
        return self.task(task)

    def page(self, page: TaskPage) -> dict[str, Any]:
        raise NotImplementedError  # `read_list` refuses

    def shown(self, task: Task) -> dict[str, Any]:
        return self.task(task)

    def update(self, update: Update) -> dict[str, Any]:
        about = {"taskId": update.task_id, "contextId": update.context_id, "metadata": update.metadata}
        if isinstance(update, StatusUpdate):
            return {**about, "kind": "status-update", "status": _status(update.status), "final": update.final}
        chunk = {"artifact": artifact_object(update.artifact, _part), "append": update.append, "lastChunk": update.last}
        return {**about, "kind": "artifact-update", **chunk}


def _push_from(given: _Push) -> PushConfig:
    """Of several schemes the first: there is one text of credentials."""
    about = given.authentication or _Authentication()
    scheme = about.schemes[0] if about.schemes else None
    return PushConfig(
        url=given.url,
        config_id=given.id or None,
        token=given.token or None,
        scheme=scheme,
        credentials=about.credentials or None,
    )


def _status(status: Status) -> dict[str, Any]:
    said = None if status.message is None else message(status.message)
    return compact(state=status.state, message=said, timestamp=timestamp(status.at))


def message(said: Message) -> dict[str, Any]:
    return compact(
        kind="message",
        role=said.role,
        messageId=said.message_id,
        contextId=said.context_id,
        taskId=said.task_id,
        parts=[_part(part) for part in said.parts],
        metadata=said.metadata,
        extensions=list(said.extensions),
        referenceTaskIds=list(said.reference_task_ids),
    )


def _part(part: Part) -> dict[str, Any]:
    """Text and data parts have no room for a media type: it goes into their metadata."""
    about = compact(mediaType=part.media_type, filename=part.filename)
    metadata = {"metadata": about} if about else {}
    match part:
        case TextPart(text=text):
            return {"kind": "text", "text": text} | metadata
        case DataPart(data=data):
            return {"kind": "data", "data": data} | metadata
    return {
        "kind": "file",
        "file": compact(uri=part.url, bytes=part.raw, name=part.filename, mimeType=part.media_type),
    }


def _message_from(given: _Message) -> Message:
    return Message(
        role="user",
        message_id=given.message_id,
        parts=tuple(_part_from(part) for part in given.parts),
        task_id=given.task_id or None,
        context_id=given.context_id or None,
        metadata=given.metadata,
        extensions=tuple(given.extensions or ()),
        reference_task_ids=tuple(given.reference_task_ids or ()),
    )


def _part_from(given: _Part) -> Part:
    match given:
        case _Part(kind="text", text=str(text)):
            return TextPart(text=text)
        case _Part(kind="data", data=dict(data)):
            return DataPart(data=data)
        case _Part(kind="file", file=_File() as file):
            return FilePart(url=file.uri, raw=file.bytes, media_type=file.mime_type, filename=file.name)
    raise A2AError(INVALID_PARAMS, f"message.parts: a {given.kind} part has no {given.kind}")
