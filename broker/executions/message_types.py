"""What requests and responses about people's messages hold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from broker.executions.types import MAX_TASK, ExecutionId, UserMessageState, _Request, _Response
from emitter.events import MessageMode
from emitter.values import MAX_DEPTH, Millis, is_deeper

MESSAGE_ID = "^[A-Za-z0-9_.-]{1,64}$"
MessageId = Annotated[str, Meta(pattern=MESSAGE_ID, description="id of a message, unique in its execution")]


class MessageRequest(_Request, frozen=True):
    """What a person says to the running agent: a text, or data, or both."""

    text: Annotated[str, Meta(max_length=MAX_TASK)] | None = None
    data: Any = None
    message_id: MessageId | None = None
    mode: MessageMode = "queue"

    def __post_init__(self) -> None:
        if not self.text and self.data is None:
            raise ValueError("a message has text or data - at `$.text`")
        if is_deeper(self.data):
            raise ValueError(f"nested more than {MAX_DEPTH} deep - at `$.data`")


class TakeRequest(_Request, frozen=True):
    """A take with the same `takeId` as the last one gets the same messages again."""

    take_id: MessageId | None = None
    max: Annotated[int, Meta(ge=1, le=200, description="messages at most")] = 50
    wait_seconds: Annotated[float, Meta(ge=0, le=50, description="how long to wait for the first message")] = 0


class MessageResponse(_Response, frozen=True):
    execution_id: ExecutionId
    message_id: str
    state: Literal["queued", "dropped"]


class MessageList(_Response, frozen=True):
    """In the order in which they were sent. `accepts_messages`: whether one more would be accepted now."""

    messages: list[UserMessageState]
    accepts_messages: bool


class TakenMessage(_Response, frozen=True):
    message_id: str
    by: str
    mode: MessageMode
    sent_at: Millis
    text: str | None = None
    data: Any = None


class TakeResponse(_Response, frozen=True):
    """In the order in which they were sent; empty if none came in time."""

    execution_id: ExecutionId
    messages: list[TakenMessage]


def message_id_of(given: str) -> str:
    """The id of another protocol's message as one of ours: itself, or a digest if it does not match `MESSAGE_ID`."""
    if re.fullmatch(MESSAGE_ID, given):
        return given
    return "msg_" + hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def message_of(
    given_id: str, text: str, data: dict[str, Any], attachments: Sequence[msgspec.Struct], *, interrupts: bool = False
) -> MessageRequest:
    """The message of another protocol's client: its files are `attachments` in the data. Raises
    `msgspec.ValidationError`."""
    files = {"attachments": msgspec.to_builtins(list(attachments))} if attachments else {}
    found: dict[str, Any] = {"messageId": message_id_of(given_id), "mode": "interrupt" if interrupts else "queue"}
    found |= ({"text": text} if text else {}) | ({"data": data | files} if data or files else {})
    return msgspec.convert(found, MessageRequest)
