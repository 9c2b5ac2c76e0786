"""What the versions of the protocol have in common on the wire, and what each must say for itself."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import msgspec
from aiohttp import web

from broker.executions.attachments import padded
from broker.protocols.a2a.errors import INVALID_PARAMS, MEDIA_TYPE, A2AError, Malformed
from broker.protocols.a2a.model import (
    Artifact,
    FilePart,
    ListTasks,
    Part,
    PushConfig,
    Send,
    Task,
    TaskPage,
    TaskQuery,
    Update,
)
from emitter.wire.ascii_json import ascii_json

MAX_PAGE = 100
MAX_PARTS = 64
MAX_CONTEXT_CHARS = 8192
"""As long as it may be in the URL of a list. Every update repeats it."""

P = TypeVar("P")
_EMPTY: tuple[Any, ...] = ((), [], {})
_encoder = msgspec.json.Encoder()


class Codec(Protocol):
    """One version's shapes: `read_*` take params (of JSON-RPC, or REST's body, path and query together) and raise
    `A2AError`; the others give what is to be encoded."""

    @property
    def is_typed(self) -> bool:
        """Whether errors carry typed details (since 1.0)."""

    @property
    def takes_whole(self) -> bool:
        """Whether it shows `ArtifactUpdate.whole`."""

    def read_send(self, params: Any) -> Send: ...

    def read_query(self, params: Any) -> TaskQuery: ...

    def read_list(self, params: Any) -> ListTasks: ...

    def read_push(self, params: Any) -> tuple[str, PushConfig]:
        """A task and a configuration for it. Of REST the path's task is `taskId`, and its configuration `id`."""

    def read_push_query(self, params: Any) -> tuple[str, str | None]:
        """A task, and the id of a configuration, if there is one."""

    def push(self, task_id: str, config: PushConfig) -> Any: ...

    def pushes(self, task_id: str, configs: Sequence[PushConfig]) -> Any: ...

    def no_push(self) -> Any:
        """What a deletion is answered with."""

    def task(self, task: Task) -> dict[str, Any]:
        """What gets and cancels are answered with."""

    def sent(self, task: Task) -> dict[str, Any]:
        """What a message is answered with."""

    def page(self, page: TaskPage) -> dict[str, Any]: ...

    def shown(self, task: Task) -> dict[str, Any]:
        """A task as a stream has it."""

    def update(self, update: Update) -> dict[str, Any]: ...


def check_type(request: web.Request) -> None:
    """Raises `A2AError` for a body that says that it is no JSON."""
    said = request.headers.get("Content-Type")
    if said is not None and not re.fullmatch(r"[\w.-]+/([\w.-]+\+)?json", request.content_type):
        raise Malformed(MEDIA_TYPE, f"a request is application/json, not {said[:64]!r}")


class Params(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of what is read. Unknown fields are left alone: the next version may have them."""


def read(params: Any, type_: type[P]) -> P:
    """Raises `A2AError` with the field that does not fit."""
    try:
        return msgspec.convert(params, type_, strict=True)
    except (msgspec.ValidationError, ValueError) as error:
        raise Malformed(INVALID_PARAMS, str(error)) from error


def encode(value: Any) -> bytes:
    """ASCII JSON on one line."""
    return ascii_json(_encoder.encode(value))


def compact(**fields: Any) -> dict[str, Any]:
    """An object without what is unset or empty."""
    return {name: value for name, value in fields.items() if value or not (value is None or value in _EMPTY)}


def artifact_object(artifact: Artifact, part_object: Callable[[Part], dict[str, Any]]) -> dict[str, Any]:
    """What all versions make of an artifact, but for its parts. Not by `compact`, for it comes with each update."""
    made: dict[str, Any] = {"artifactId": artifact.artifact_id}
    if artifact.name is not None:
        made["name"] = artifact.name
    made["parts"] = [part_object(part) for part in artifact.parts]
    if artifact.metadata:
        made["metadata"] = artifact.metadata
    return made


def milliseconds(text: str) -> int:
    """Raises `A2AError` for what is no RFC 3339 time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise A2AError(INVALID_PARAMS, f"{text[:64]!r} is not a time (RFC 3339)") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def is_text(part: FilePart) -> bool:
    """Whether it is a text file that came with its bytes."""
    return part.raw is not None and (part.media_type or "").startswith("text/")


def text_of(raw: str | None) -> str:
    """The text of a text file's bytes. Raises `A2AError`."""
    try:
        return base64.b64decode(padded(raw or ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise A2AError(INVALID_PARAMS, f"the file's bytes are no text: {error}") from error
