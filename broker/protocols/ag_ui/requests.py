"""What an AG-UI client sends, and the execution it asks for. Pure.

Fields that are not known are dropped, as the protocol wants it. Of what goes to the agent, the conversation is cut to
its newest turns; the rest is refused when it is too large, since half of a state or of a tool is of no use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from broker.base.problem import Problem
from broker.executions.attachments import Found, Taken, Unfit, collect, held, label_of, linked, referred, size
from broker.executions.budgets import budget_in
from broker.executions.conversations import MAX_TURNS, Turn, given, room_for_files
from broker.executions.message_types import MessageRequest, message_of
from broker.executions.types import ExecuteRequest
from broker.protocols.ag_ui.interrupts import InterruptId
from broker.protocols.ag_ui.state import STATE_MEMBER
from emitter.errors import PayloadTooLarge
from emitter.wire.ids import EXECUTION_ID
from emitter.wire.limits import MAX_CONVERSATION_BYTES

MEDIA = ("image", "audio", "video", "document")
"""Types of the parts of a message that are files; before 1.0 they were `binary` all."""
MAX_GIVEN_BYTES = 64 * 1024
"""Of each of what a run is given besides its messages: state, tools, context and forwarded properties."""

Id = Annotated[str, Meta(min_length=1, max_length=512)]
Role = Literal["developer", "system", "assistant", "user", "tool", "activity", "reasoning"]


class _Given(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of what a client sends. What it left out is left out when it is sent back: null would be an error there."""


class Message(_Given, frozen=True):
    """A message of any role. `content` is text or a list of parts; an activity's is an object. What is null was left
    out: so some clients write it."""

    id: Id
    role: Role
    content: Any = UNSET
    name: str | UnsetType | None = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType | None = UNSET
    tool_call_id: str | UnsetType | None = UNSET
    error: str | UnsetType | None = UNSET
    activity_type: str | UnsetType | None = UNSET
    encrypted_value: str | UnsetType | None = UNSET
    subagent_run_id: str | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) is None:
                msgspec.structs.force_setattr(self, name, UNSET)

    @property
    def is_inner(self) -> bool:
        """Whether a sub-agent said it in a call, by what the renderer put beside it."""
        about = self.metadata if isinstance(self.metadata, dict) else {}
        return self.role == "assistant" and bool(about.get("agent")) and bool(about.get("parentId"))

    @property
    def text(self) -> str:
        """What it says in words."""
        if isinstance(self.content, str):
            return self.content
        parts = self.content if isinstance(self.content, list) else []
        texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
        return "\n".join(text for text in texts if isinstance(text, str))

    def files(self, path: str, most: int | None) -> list[Found]:
        """What a message has besides text; `path` is the message's. Of what is asked now it holds `most` bytes: raises
        `Problem` as `collect`."""
        parts = self.content if isinstance(self.content, list) else []
        more = [(place, part) for place, part in enumerate(parts) if not _is_text(part)]
        return collect(more, _file, path + ".content", most)


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _file(part: Any) -> Taken:
    """A part that is a file. Raises `Unfit`."""
    type_ = part.get("type") if isinstance(part, dict) else None
    if type_ == "binary":
        return _binary(part)
    if type_ not in MEDIA:
        raise Unfit(f"a part of a message is of type text, {', '.join(MEDIA)} or binary", ".type")
    source = part.get("source")
    if not isinstance(source, dict):
        raise Unfit(f"a part of type {type_} has a source", ".source")
    kind, value, media_type, name = source.get("type"), source.get("value"), source.get("mimeType"), _name(part)
    match kind:
        case "url":
            return linked(value, media_type, name, field=".source.value")
        case "data":
            return held(value, media_type, name, field=".source.value")
        case "file":
            provider = source.get("provider", "")
            if not isinstance(provider, str | None):
                raise Unfit("a provider is a name", ".source.provider")
            return referred({provider or "": value}, media_type, name, field=".source.value")
    raise Unfit("a source is of type url, data or file", ".source.type")


def _binary(part: dict[str, Any]) -> Taken:
    """A file as it was before 1.0: with one of `data`, `url` and `id`."""
    media_type, name = part.get("mimeType"), part.get("filename")
    if part.get("data"):
        return held(part["data"], media_type, name, field=".data")
    if part.get("url"):
        return linked(part["url"], media_type, name)
    return referred({"": part.get("id")}, media_type, name, field=".id")


def _name(part: dict[str, Any]) -> Any:
    """The protocol has no name for a file; clients put it into the part's metadata."""
    about = part.get("metadata")
    return (about.get("filename") or about.get("name")) if isinstance(about, dict) else None


class Resume(_Given, frozen=True):
    """The answer to an interrupt, or that there will be none."""

    interrupt_id: str
    status: Literal["resolved", "cancelled"]
    payload: Any = UNSET


class RunAgentInput(_Given, frozen=True):
    """The body of a run. The members of `forwarded_props` are parameters of the agent, but for `budget` (limits, as of
    an execute request) and `cursor`: the id of the last frame that the client has of this run."""

    thread_id: Id
    run_id: Id
    messages: list[Message]
    parent_run_id: str | None = None
    state: Any = None
    tools: list[dict[str, Any]] | None = None
    context: list[dict[str, Any]] | None = None
    forwarded_props: Any = None
    resume: list[Resume] | None = None


def execution_of(run_id: str) -> str:
    """The execution of a run: its id, or where that cannot be one, a digest of it."""
    return run_id if EXECUTION_ID.match(run_id) else "run_" + _digest(run_id)


def conversation_of(thread_id: str) -> str:
    return thread_id if EXECUTION_ID.match(thread_id) else "thread_" + _digest(thread_id)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def request_of(run: RunAgentInput, agent: str | None, max_bytes: int = MAX_CONVERSATION_BYTES) -> ExecuteRequest:
    """The execution that a run starts; its metadata has the id of the message that it answers. Raises `Problem` 422
    without a user's message or for a part of it that no agent would have, 413 for files beyond `max_bytes`,
    `PayloadTooLarge`, and `msgspec.ValidationError`."""
    wanted = {
        "task": task_of(run.messages),
        "agent": agent,
        "params": params_of(run, max_bytes),
        "executionId": execution_of(run.run_id),
        "conversationId": conversation_of(run.thread_id),
        "metadata": {"agUi": {"threadId": run.thread_id, "runId": run.run_id, "messageId": asked_id(run)}},
        "budget": budget_of(run),
    }
    return msgspec.convert(wanted, ExecuteRequest)


def asked_id(run: RunAgentInput) -> str | None:
    """The id of the user's last message."""
    return next((message.id for message in reversed(run.messages) if message.role == "user"), None)


def said_of(run: RunAgentInput, max_bytes: int = MAX_CONVERSATION_BYTES) -> MessageRequest:
    """The user's last message as one to the agent at work; its files are `attachments` in the data. Raises `Problem`
    413, 422 as `request_of`, and `msgspec.ValidationError`."""
    place, asked = _asked(run.messages)
    files = asked.files(f"$.messages[{place}]", room_for_files(asked.text, [], max_bytes))
    attachments = [found.attachment for found in files]
    return message_of(asked.id, asked.text, {}, attachments, interrupts=_steer(run) == "interrupt")


def may_steer(run: RunAgentInput) -> bool:
    """Whether the last message may be for an agent at work: unless `forwardedProps.steer` is false."""
    return _steer(run) is not False


def _steer(run: RunAgentInput) -> Any:
    return run.forwarded_props.get("steer") if isinstance(run.forwarded_props, dict) else None


def budget_of(run: RunAgentInput) -> dict[str, Any] | None:
    """`forwardedProps.budget`, if it is an object of limits; anything else under this name is a parameter."""
    return budget_in(run.forwarded_props.get("budget")) if isinstance(run.forwarded_props, dict) else None


def task_of(messages: Sequence[Message]) -> str:
    """The text of the user's last message, or the names of its files."""
    place, asked = _asked(messages)
    if asked.text.strip():
        return asked.text
    files = asked.files(f"$.messages[{place}]", None)
    if not files:
        raise Problem(422, "invalid", "the user's last message has no text", path="$.messages")
    return label_of(files)


def _asked(messages: Sequence[Message]) -> tuple[int, Message]:
    """The user's last message, and its place."""
    for place in reversed(range(len(messages))):
        if messages[place].role == "user":
            return place, messages[place]
    raise Problem(422, "invalid", "there is no message of the user", path="$.messages")


def params_of(run: RunAgentInput, max_bytes: int = MAX_CONVERSATION_BYTES) -> dict[str, Any]:
    """What the agent is given: the members of `forwardedProps`, `messages` (role, text and files of each), and of
    `tools`, `context` and `state` what there is. Raises `PayloadTooLarge`, and `Problem` as `request_of`."""
    forwarded = run.forwarded_props if isinstance(run.forwarded_props, dict) else {}
    own = {"tools": run.tools, "context": run.context, "state": shared_of(run)}
    for value in (*own.values(), forwarded):
        _check_size(value)
    ours = {"cursor"} if budget_of(run) is None else {"cursor", "budget"}
    params = {name: value for name, value in forwarded.items() if name not in ours}
    params |= {name: value for name, value in own.items() if value}
    place, asked = _asked(run.messages)
    after = _turns(run.messages[place + 1 :])
    room = room_for_files(asked.text, [], max_bytes) - (size(after[-1]) if after else 0)
    files = asked.files(f"$.messages[{place}]", max(0, room))
    turn = Turn("user", asked.text, [found.attachment for found in files])
    turns = [*_turns(run.messages[:place]), turn, *after]
    return params | given(turns[:-1], turns[-1], max_bytes)


def shared_of(run: RunAgentInput) -> dict[str, Any]:
    """The application's own members of the state that it shares with the agent. Raises `PayloadTooLarge`."""
    state = run.state if isinstance(run.state, dict) else {}
    shared = {name: value for name, value in state.items() if name != STATE_MEMBER}
    _check_size(shared)
    return shared


def _check_size(value: Any) -> None:
    size = len(msgspec.json.encode(value))
    if size > MAX_GIVEN_BYTES:
        raise PayloadTooLarge(size, MAX_GIVEN_BYTES, "state, tools, context or forwardedProps", None)


def _turns(messages: Sequence[Message]) -> list[Turn]:
    """Instructions (`system`, `developer`) are the agent's own, not for a page to give. What sub-agents said to the
    agent is not for the next turn."""
    found: list[Turn] = []
    for message in reversed(messages):
        if message.role in ("user", "assistant") and not message.is_inner:
            files = message.files("", None) if len(found) < MAX_TURNS else []  # older ones are not given
            role: Literal["user", "assistant"] = "user" if message.role == "user" else "assistant"
            turn = Turn(role, message.text, [each.attachment for each in files])
            found += [turn] if turn.content or turn.attachments else []
    return found[::-1]


def cursor_of(run: RunAgentInput) -> Any:
    return run.forwarded_props.get("cursor") if isinstance(run.forwarded_props, dict) else None


def before(messages: Sequence[Message], execution_id: str) -> list[Message]:
    """The conversation without what this execution said in it. A client gives up its own reasoning only for a snapshot
    that has some: one of this execution's stays if there is no other, empty."""
    kept = [message for message in messages if not _is_of(message.id, execution_id)]
    if not any(message.role == "reasoning" for message in kept):
        ours = [message for message in messages if message.role == "reasoning"]
        kept += [msgspec.structs.replace(message, content="") for message in ours[:1]]
    return kept


def _is_of(message_id: str, execution_id: str) -> bool:
    """Whether the id is one that `renderer` mints for this execution."""
    return message_id.startswith((execution_id + ":", execution_id + "."))


def answered(resume: Sequence[Resume]) -> list[tuple[InterruptId, Resume]]:
    """The interrupts that are answered, which are of one execution. Raises `Problem` 422."""
    found = [(_interrupt(index, entry), entry) for index, entry in enumerate(resume)]
    if len({interrupt.execution_id for interrupt, _ in found}) != 1:
        raise Problem(422, "invalid", "resume answers interrupts of one run", path="$.resume")
    return found


def _interrupt(index: int, entry: Resume) -> InterruptId:
    try:
        return InterruptId.parse(entry.interrupt_id)
    except ValueError as error:
        raise Problem(422, "invalid", str(error), path=f"$.resume[{index}].interruptId") from error
