"""What `useChat` sends, and the execution that it asks for. Pure.

Bodies are read as the SDK's transport writes them (`{id, messages, trigger, messageId}`) or as apps cut them down
(`{id, message}`); fields that are not known are the app's own, and ignored.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from broker.api_types import CancelResponse, ExecuteRequest
from broker.problems import Problem
from broker.protocols.attachments import Attachment, Found, Unfit, collect, label_of, linked, referred
from broker.protocols.conversations import Turn, check_asked, given, message_metadata
from emitter.wire import EXECUTION_ID, MAX_CONVERSATION_BYTES

Id = Annotated[str, Meta(min_length=1, max_length=512)]


class Part(msgspec.Struct, frozen=True, rename="camel"):
    """A part of any type, with the fields that matter here. Pages send back what they have: what is odd about a part is
    said when it is used."""

    type: str
    text: Any = None
    provider_metadata: Any = None
    url: Any = None
    media_type: Any = None
    filename: Any = None
    provider_reference: Any = None
    id: Any = None
    data: Any = None
    parts: Any = None

    @property
    def is_inner(self) -> bool:
        """Whether a sub-agent said it to the agent that called it, by what the renderer put beside it."""
        given = self.provider_metadata if isinstance(self.provider_metadata, dict) else {}
        about = given.get("runcast")
        return isinstance(about, dict) and about.get("agent") is not None and about.get("parentId") is not None

    @property
    def is_of_app(self) -> bool:
        """Whether it is a part of the app's own making."""
        return self.type.startswith("data-")

    @property
    def is_file(self) -> bool:
        return self.type == "file" and bool(self.url or self.provider_reference)

    @property
    def as_given(self) -> dict[str, Any]:
        """One of the app's own making, as it came."""
        more = {"id": self.id, "data": self.data}
        return {"type": self.type} | {name: value for name, value in more.items() if value is not None}

    def file(self) -> Attachment:
        """Raises `Unfit`."""
        if self.type != "file":
            raise Unfit(f"an agent is not given parts of type {self.type[:64]}", ".type")
        if self.provider_reference is not None:  # which the SDK prefers to the URL, too
            return referred(self.provider_reference, self.media_type, self.filename, field=".providerReference")
        return linked(self.url, self.media_type, self.filename)


class Message(msgspec.Struct, frozen=True):
    """A `UIMessage`; `content` is how older pages send text."""

    role: str
    id: Annotated[str, Meta(max_length=512)] = ""
    parts: list[Part] = []
    content: Any = None

    @property
    def said(self) -> list[tuple[int, Part]]:
        """Its parts with their places. What a retry has voided (before `data-superseded`) does not count, nor what
        sub-agents said to the agent."""
        said: list[tuple[int, Part]] = []
        for index, part in enumerate(self.parts):
            if part.type == "data-superseded":
                said.clear()
            elif not part.is_inner:
                said.append((index, part))
        return said

    @property
    def text(self) -> str:
        """What it says."""
        if not self.parts and isinstance(self.content, str):
            return self.content
        return _text(part for _, part in self.said)

    @property
    def is_empty(self) -> bool:
        """Whether it has neither words nor a file."""
        return not (self.text.strip() or any(part.is_file for part in self.parts))

    def files(self, path: str, *, is_asked: bool) -> list[Found]:
        """What a user's message has besides text; `path` is the message's. Raises `Problem` 422 for a part of what is
        asked now that no agent would have."""
        parts = [(f"{path}.parts[{index}]", part) for index, part in self.said if _is_more(part)]
        return collect(parts, Part.file, is_asked=is_asked)


def _text(parts: Iterable[Part]) -> str:
    return "\n".join(part.text for part in parts if part.type == "text" and isinstance(part.text, str))


def _is_more(part: Part) -> bool:
    return part.type not in ("text", "step-start") and not part.is_of_app


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
    if asked.is_empty:
        raise Problem(422, "invalid", "the user's last message has no text", path=path)
    return asked


def turns_before(chat: ChatRequest, asked: Message) -> list[Turn] | None:
    """What was said before that; None if the page did not send it."""
    if chat.messages is None:
        return None
    before = itertools.takewhile(lambda message: not _is_same(message, asked), chat.messages)
    return [turn for message in before for turn in _turns(message)]


def _is_same(message: Message, asked: Message) -> bool:
    return message is asked or (message.role == "user" and message.id == asked.id != "")


def _turns(message: Message) -> list[Turn]:
    """Instructions (`system`) are the agent's own, not for a page to give. A message that a user sent into an answer
    (`steering-message`) stands between what was said before it and after it."""
    if message.role == "user":
        files = [found.attachment for found in message.files("", is_asked=False)]
        return _spoken("user", message.text, files, _data(message))
    if message.role != "assistant":
        return []
    if not message.parts:
        return _spoken("assistant", message.text)
    turns: list[Turn] = []
    for is_steering, group in itertools.groupby(message.said, lambda said: said[1].type == "steering-message"):
        parts = [part for _, part in group]
        turns += [turn for part in parts for turn in _steered(part)] if is_steering else _answered(parts)
    return turns


def _answered(parts: Sequence[Part]) -> list[Turn]:
    """Of an agent's own message, the text and the files that it gave. The rest is how it came to them."""
    files = collect([("", part) for part in parts if part.type == "file"], Part.file, is_asked=False)
    return _spoken("assistant", _text(parts), [found.attachment for found in files])


def _steered(part: Part) -> list[Turn]:
    try:
        parts = msgspec.convert(part.parts, list[Part])
    except msgspec.ValidationError:
        return []  # it says nothing
    return _turns(Message("user", parts=parts))


def _spoken(
    role: Literal["user", "assistant"],
    text: str,
    attachments: Sequence[Attachment] = (),
    data: Sequence[dict[str, Any]] = (),
) -> list[Turn]:
    return [Turn(role, text, list(attachments), list(data))] if text or attachments or data else []


def _data(message: Message) -> list[dict[str, Any]]:
    """The parts of the app's own making in a user's message, as they came."""
    return [part.as_given for _, part in message.said if part.is_of_app]


def _path(chat: ChatRequest, asked: Message) -> str:
    if chat.message is not None:
        return "$.message"
    return f"$.messages[{next(index for index, each in enumerate(chat.messages or []) if each is asked)}]"


def request_of(
    chat: ChatRequest, agent: str | None, before: Sequence[Turn], max_bytes: int = MAX_CONVERSATION_BYTES
) -> ExecuteRequest:
    """The execution that answers the chat's last message. Its `params.messages` is the conversation, that message last,
    in `max_bytes`. A message of files alone has their names as its task. Raises `msgspec.ValidationError`, `Problem`
    413, 422."""
    asked = question(chat)
    files = asked.files(_path(chat, asked), is_asked=True)
    turn = Turn("user", asked.text, [found.attachment for found in files], _data(asked))
    check_asked(turn, files, max_bytes)
    wanted = {
        "task": asked.text if asked.text.strip() else label_of(files),
        "agent": chat.agent or agent,
        "params": (chat.params or {}) | given(before, turn, max_bytes),
        "metadata": {**(chat.metadata or {}), **(message_metadata(asked.id) if asked.id else {})} or None,
        "executionId": execution_of(chat, asked, agent),
        "conversationId": conversation_of(chat.id),
    }
    return msgspec.convert(wanted, ExecuteRequest)


def execution_of(chat: ChatRequest, asked: Message, agent: str | None) -> str | None:
    """The id of the execution that answers this message: the same for a request that is sent again, another for a
    message that was edited. A page that wants another answer and does not say instead of which gets a new one each
    time.
    """
    if not asked.id or (chat.trigger == "regenerate-message" and chat.message_id in (None, "", asked.id)):
        return None
    who = chat.agent or agent or ""
    more = [part for _, part in asked.said if part.type != "text"]
    files = [msgspec.json.encode(part).decode() for part in more]
    return "chat_" + _digest(chat.id, chat.trigger, asked.id, chat.message_id or "", who, asked.text, *files)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
