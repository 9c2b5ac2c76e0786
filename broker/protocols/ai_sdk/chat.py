"""What `useChat` sends, and the execution that it asks for. Pure.

Bodies are read as the SDK's transport writes them (`{id, messages, trigger, messageId}`) or as apps cut them down
(`{id, message}`); fields that are not known are the app's own, and ignored.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from broker.base.problem import Problem
from broker.executions.attachments import MAX_FILES, Found, Taken, Unfit, collect, label_of, linked, referred, too_many
from broker.executions.conversations import MAX_TURNS, Turn, given, message_metadata, room_for_files
from broker.executions.message_types import MessageRequest, message_of
from broker.executions.types import BudgetRequest, CancelResponse, ExecuteRequest
from broker.protocols.ai_sdk.approvals import Response
from broker.protocols.question_ids import QuestionId
from emitter.wire.ids import EXECUTION_ID, new_execution_id
from emitter.wire.limits import MAX_CONVERSATION_BYTES

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
    state: Any = None
    approval: Any = None

    @property
    def response(self) -> Response | None:
        """What its reader said to an approval of ours, if that is what it is."""
        if self.state != "approval-responded" or not isinstance(self.approval, dict):
            return None
        id_, approved = QuestionId.parse(self.approval.get("id")), self.approval.get("approved")
        return None if id_ is None or not isinstance(approved, bool) else Response(id_, approved)

    @property
    def is_inner(self) -> bool:
        """Whether a sub-agent said it to the agent that called it, by what the renderer put beside it."""
        if not isinstance(self.provider_metadata, dict):
            return False
        about = self.provider_metadata.get("runcast")
        return isinstance(about, dict) and about.get("agent") is not None and about.get("parentId") is not None

    @property
    def is_text(self) -> bool:
        """Whether it is text, or nothing to say, or of the app's own making, which comes as it is."""
        return self.type in ("text", "step-start") or self.type[:5] == "data-"

    @property
    def is_file(self) -> bool:
        return self.type == "file" and bool(self.url or self.provider_reference)

    @property
    def as_given(self) -> dict[str, Any]:
        """One of the app's own making, as it came."""
        more = {"id": self.id, "data": self.data}
        return {"type": self.type} | {name: value for name, value in more.items() if value is not None}

    def file(self) -> Taken:
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
    def said(self) -> list[Part]:
        """What it has to say. Of an answer what a retry has voided (before `data-superseded`) does not count, nor what
        sub-agents said to the agent."""
        if self.role == "user":
            return self.parts
        said: list[Part] = []
        for part in self.parts:
            if part.type == "data-superseded":
                said.clear()
            elif not part.is_inner:
                said.append(part)
        return said

    @property
    def text(self) -> str:
        """What it says."""
        if not self.parts and isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.said if part.type == "text" and isinstance(part.text, str))

    @property
    def is_empty(self) -> bool:
        """Whether it has neither words nor a file."""
        return not (any(part.is_file for part in self.parts) or self.text.strip())

    def files(self, path: str, most: int | None) -> list[Found]:
        """What a user's message has besides text and the app's own data; `path` is the message's. Of what is asked now
        it holds `most` bytes: raises `Problem` as `collect`."""
        more = [(place, part) for place, part in enumerate(self.parts) if not part.is_text]
        return collect(more, Part.file, path + ".parts", most)

    def own(self, path: str, *, is_asked: bool) -> list[dict[str, Any]]:
        """The parts of the app's own making, as they came. Raises `Problem` 422 for too many of what is asked now."""
        places = [place for place, part in enumerate(self.parts) if part.type[:5] == "data-"]
        more = len(places) - MAX_FILES
        if is_asked and more > 0:
            raise too_many(f"{path}.parts[{places[MAX_FILES]}]", "data parts")
        omitted = [{"omitted": f"{more} parts: a message has at most {MAX_FILES}"}] if more > 0 else []
        return [self.parts[place].as_given for place in places[:MAX_FILES]] + omitted


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A turn of a chat; without an `id`, of one of its own. `agent`, `params`, `metadata` and `budget` are those of an
    execute request. `toolApprovals`: approvals are the SDK's own, too (`ai` 6 and 7). `steer`: false to start an
    execution even if the chat's agent is at work and takes messages, `interrupt` for a message that interrupts it."""

    id: Id | None = None
    messages: list[Message] | None = None
    message: Message | None = None
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: str | None = None
    agent: str | None = None
    params: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    tool_approvals: bool = False
    steer: Any = None
    budget: BudgetRequest | None = None

    @property
    def responses(self) -> list[Response]:
        """To approvals, of which the page wants to see what follows; none where it asks something."""
        given = self.messages or [] if self.message is None else [self.message]
        if not given or given[-1].role != "assistant":
            return []
        found = [response for part in given[-1].parts if (response := part.response) is not None]
        return [response for response in found if response.id.execution_id == found[-1].id.execution_id]

    @property
    def last_id(self) -> str | None:
        """Of the last message."""
        given = self.messages or [] if self.message is None else [self.message]
        return given[-1].id if given else None

    @property
    def may_steer(self) -> bool:
        """Whether the last message may be for an agent at work."""
        return self.id is not None and self.steer is not False and self.trigger == "submit-message"


class StopResponse(msgspec.Struct, frozen=True):
    """The executions that were asked to stop, with the state each is in; none if nothing ran."""

    executions: list[CancelResponse]


class StreamUrl(msgspec.Struct, frozen=True, rename="camel"):
    """Where the chunks of an answer are to be read; it may be relative to the URL of the request."""

    stream_url: str


def conversation_of(chat_id: str) -> str:
    """The conversation of a chat: its id, or a digest of it if it does not match `EXECUTION_ID`."""
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
    """What was said before that; None if the page did not send it. What an agent is not given has no files."""
    if chat.messages is None:
        return None
    before = itertools.takewhile(lambda message: not _is_same(message, asked), chat.messages)
    found: list[Turn] = []
    for said in reversed([said for message in before for said in _split(message)]):
        found += _turn(said, with_more=len(found) < MAX_TURNS)
    return found[::-1]


def _is_same(message: Message, asked: Message) -> bool:
    return message is asked or (message.role == "user" and message.id == asked.id != "")


def _split(message: Message) -> list[Message]:
    """An answer that a user sent messages into (`steering-message`) as what was said, one after the other. Instructions
    (`system`) are the agent's own, not for a page to give."""
    if message.role not in ("user", "assistant"):
        return []
    if message.role == "user" or not any(part.type == "steering-message" for part in message.parts):
        return [message]
    said: list[Message] = []
    for is_steering, group in itertools.groupby(message.said, lambda part: part.type == "steering-message"):
        parts = list(group)
        said += [_steering(part) for part in parts] if is_steering else [Message("assistant", parts=parts)]
    return said


def _steering(part: Part) -> Message:
    try:
        return Message("user", parts=msgspec.convert(part.parts, list[Part]))
    except msgspec.ValidationError:
        return Message("user")  # it says nothing


def _turn(message: Message, *, with_more: bool) -> list[Turn]:
    """One turn, or none where nothing was said. Of an agent's own message the text counts, and the files that it gave;
    the rest is how it came to them."""
    if message.role == "user":
        files = message.files("", None) if with_more else []
        turn = Turn("user", message.text, [found.attachment for found in files])
        if with_more and (data := message.own("", is_asked=False)):
            turn = msgspec.structs.replace(turn, data=data)
    else:
        parts = [(0, part) for part in message.said if part.type == "file"] if with_more else []
        turn = Turn("assistant", message.text, [found.attachment for found in collect(parts, Part.file, "", None)])
    return [turn] if turn.content or turn.attachments or turn.data else []


def _path(chat: ChatRequest, asked: Message) -> str:
    if chat.message is not None:
        return "$.message"
    return f"$.messages[{next(index for index, each in enumerate(chat.messages or []) if each is asked)}]"


def request_of(
    chat: ChatRequest,
    agent: str | None,
    before: Sequence[Turn],
    *,
    max_bytes: int = MAX_CONVERSATION_BYTES,
    omitted: int = 0,
) -> ExecuteRequest:
    """The execution that answers the chat's last message. Its `params.messages` is the conversation, that message last,
    in `max_bytes`. A message of files alone has their names as its task. Raises `msgspec.ValidationError`, `Problem`
    413, 422."""
    asked = question(chat)
    execution_id = execution_of(chat, asked, agent)
    path, text = _path(chat, asked), asked.text
    data = asked.own(path, is_asked=True)
    files = asked.files(path, room_for_files(text, data, max_bytes))
    turn = Turn("user", text, [found.attachment for found in files], data)
    wanted = {
        "task": text if text.strip() else label_of(files),
        "agent": chat.agent or agent,
        "params": (chat.params or {}) | given(before, turn, max_bytes, omitted),
        "metadata": {**(chat.metadata or {}), **_about(chat, asked)} or None,
        "executionId": execution_id,
        "conversationId": execution_id if chat.id is None else conversation_of(chat.id),
    }
    return msgspec.structs.replace(msgspec.convert(wanted, ExecuteRequest), budget=chat.budget)


def _about(chat: ChatRequest, asked: Message) -> dict[str, Any]:
    about = message_metadata(asked.id) if asked.id else {}
    if chat.tool_approvals:
        about = {"chat": {**about.get("chat", {}), "toolApprovals": True}}
    return about


def said_of(chat: ChatRequest, *, max_bytes: int = MAX_CONVERSATION_BYTES) -> MessageRequest:
    """The last message as one to the agent at work. Its files and the app's own parts are `attachments` and `parts` in
    the data. Raises `msgspec.ValidationError`, `Problem` 413, 422."""
    asked = question(chat)
    path, text = _path(chat, asked), asked.text
    own = asked.own(path, is_asked=True)
    files = [found.attachment for found in asked.files(path, room_for_files(text, own, max_bytes))]
    data = {"parts": own} if own else {}
    return message_of(asked.id or secrets.token_hex(12), text, data, files, interrupts=chat.steer == "interrupt")


def execution_of(chat: ChatRequest, asked: Message, agent: str | None) -> str | None:
    """The id of the execution that answers this message: the same for a request that is sent again, another for a
    message that was edited. A page that wants another answer and does not say instead of which gets a new one each
    time, and so does one that names no chat: another one may have the same ids of messages.
    """
    if chat.id is None:
        return new_execution_id()
    if not asked.id or (chat.trigger == "regenerate-message" and chat.message_id in (None, "", asked.id)):
        return None
    who = chat.agent or agent or ""
    more = [part for part in asked.parts if part.type != "text"]
    files = [msgspec.json.encode(part).decode() for part in more]
    return "chat_" + _digest(chat.id, chat.trigger, asked.id, chat.message_id or "", who, asked.text, *files)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
