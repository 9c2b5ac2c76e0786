"""What `useChat` sends, and the execution that it asks for. Pure.

Bodies are read as the SDK's transport writes them (`{id, messages, trigger, messageId}`) or as apps cut them down
(`{id, message}`); fields that are not known are the app's own, and ignored.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from broker.api_types import CancelResponse, ExecuteRequest
from broker.problems import Problem
from broker.protocols.conversations import Turn, given, message_metadata
from emitter.wire import EXECUTION_ID

Id = Annotated[str, Meta(min_length=1, max_length=512)]


class Part(msgspec.Struct, frozen=True, rename="camel"):
    type: str
    text: Any = None
    provider_metadata: Any = None

    @property
    def is_inner(self) -> bool:
        """Whether a sub-agent said it to the agent that called it, by what the renderer put beside it."""
        given = self.provider_metadata if isinstance(self.provider_metadata, dict) else {}
        about = given.get("runcast")
        return isinstance(about, dict) and about.get("agent") is not None and about.get("parentId") is not None


class Message(msgspec.Struct, frozen=True):
    """A `UIMessage`; `content` is how older pages send text."""

    role: str
    id: Annotated[str, Meta(max_length=512)] = ""
    parts: list[Part] = []
    content: Any = None

    @property
    def text(self) -> str:
        """What it says. Text that a retry has voided (before `data-superseded`) does not count, nor what sub-agents
        said to the agent."""
        pieces: list[str] = []
        for part in self.parts:
            if part.type == "data-superseded":
                pieces.clear()
            elif part.type == "text" and isinstance(part.text, str) and not part.is_inner:
                pieces.append(part.text)
        if not self.parts and isinstance(self.content, str):
            return self.content
        return "\n".join(pieces)


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A turn of a chat. `agent`, `params` and `metadata` are those of an execute request."""

    id: Id
    messages: list[Message] | None = None
    message: Message | None = None
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: str | None = None
    agent: str | None = None
    params: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class StopResponse(msgspec.Struct, frozen=True):
    """The executions that were asked to stop, with the state each is in; none if nothing ran."""

    executions: list[CancelResponse]


def conversation_of(chat_id: str) -> str:
    """The conversation of a chat: its id, or where that is none of ours (`EXECUTION_ID`), a digest of it."""
    return chat_id if EXECUTION_ID.match(chat_id) else "chat_" + _digest(chat_id)


def question(chat: ChatRequest) -> Message:
    """The user's message that is to be answered. Raises `Problem` 422."""
    given = [chat.message] if chat.message is not None else chat.messages or []
    asked = next((message for message in reversed(given) if message.role == "user"), None)
    path = "$.messages" if chat.message is None else "$.message"
    if asked is None:
        raise Problem(422, "invalid", "there is no message of the user", path=path)
    if not asked.text.strip():
        raise Problem(422, "invalid", "the user's last message has no text", path=path)
    return asked


def turns_before(chat: ChatRequest, asked: Message) -> list[Turn] | None:
    """What was said before that; None if the page did not send it."""
    if chat.messages is None:
        return None
    before = itertools.takewhile(lambda message: not _is_same(message, asked), chat.messages)
    return [turn for message in before if (turn := _turn(message))]


def _is_same(message: Message, asked: Message) -> bool:
    return message is asked or (message.role == "user" and message.id == asked.id != "")


def _turn(message: Message) -> Turn | None:
    """Instructions (`system`) are the agent's own, not for a page to give."""
    text = message.text
    if not text or message.role not in ("user", "assistant"):
        return None
    return Turn("user" if message.role == "user" else "assistant", text)


def request_of(chat: ChatRequest, agent: str | None, before: Sequence[Turn]) -> ExecuteRequest:
    """The execution that answers the chat's last message. Its `params.messages` is the conversation, that message last.
    Raises `msgspec.ValidationError`, `Problem` 422."""
    asked = question(chat)
    wanted = {
        "task": asked.text,
        "agent": chat.agent or agent,
        "params": (chat.params or {}) | given(before, Turn("user", asked.text)),
        "metadata": {**(chat.metadata or {}), **(message_metadata(asked.id) if asked.id else {})} or None,
        "executionId": execution_of(chat, asked, agent),
        "conversationId": conversation_of(chat.id),
    }
    return msgspec.convert(wanted, ExecuteRequest)


def execution_of(chat: ChatRequest, asked: Message, agent: str | None) -> str | None:
    """The id of the execution that answers this message: the same for a request that is sent again, another for a
    message whose text was edited. A page that wants another answer and does not say instead of which gets a new one
    each time.
    """
    if not asked.id or (chat.trigger == "regenerate-message" and chat.message_id in (None, "", asked.id)):
        return None
    who = chat.agent or agent or ""
    return "chat_" + _digest(chat.id, chat.trigger, asked.id, chat.message_id or "", who, asked.text)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
