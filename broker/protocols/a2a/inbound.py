"""What a client's message is for an execution: its task and parameters, or the answer to a question. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from broker.executions.attachments import Found, Taken, Unfit, as_file, collect, held, label_of, linked
from broker.executions.budgets import budget_in
from broker.executions.conversations import Turn, given, room_for_files
from broker.executions.message_types import MessageRequest, message_of
from broker.executions.spoken import spoken
from broker.executions.types import ExecuteRequest
from broker.protocols.a2a.codec import MAX_CONTEXT_CHARS, encode, is_text, text_of
from broker.protocols.a2a.errors import CONTENT_TYPE, INVALID_PARAMS, A2AError
from broker.protocols.a2a.model import DataPart, FilePart, Message, Part, Send, TextPart
from emitter.events import InputRequired
from emitter.store.answers import misfit
from emitter.wire.ids import EXECUTION_ID, new_execution_id
from emitter.wire.limits import MAX_CONVERSATION_BYTES

OURS = ("agent", "skillId", "cursor", "inputId")
"""Metadata of a request that is meant for us, and not kept."""


# --- a new task ------------------------------------------------------------------------------------------------------


def context_of(message: Message) -> str:
    """The message's context, any text as the specification has it, or a new one. Raises `A2AError`."""
    if message.context_id is None:
        return "ctx_" + new_execution_id().removeprefix("ex_")
    if not 1 <= len(message.context_id) <= MAX_CONTEXT_CHARS:
        raise A2AError(INVALID_PARAMS, f"contextId: 1 to {MAX_CONTEXT_CHARS} characters")
    return message.context_id


def conversation_of(context_id: str) -> str:
    """The conversation of a context: its id, or a digest of it if it does not match `EXECUTION_ID`."""
    if EXECUTION_ID.match(context_id):
        return context_id
    return "context_" + hashlib.sha256(context_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def request_of(
    send: Send,
    context_id: str,
    agent: str | None,
    before: Sequence[Turn],
    task_id: str | None = None,
    *,
    max_bytes: int = MAX_CONVERSATION_BYTES,
    omitted: int = 0,
) -> ExecuteRequest:
    """The execution that the message starts: its text is the task, its data parts are parameters, and the conversation
    before it and its own files come as `params.messages`. Raises `A2AError`, `Problem` 413, 422,
    `msgspec.ValidationError`."""
    text, data = text_in(send.message), _params(send.message)
    files = files_in(send.message, room_for_files(text, [], max_bytes))
    if not (text or data or files):
        raise A2AError(INVALID_PARAMS, "message.parts: there is neither text nor data nor a file")
    params = data
    if before or omitted or files:
        turn = Turn("user", text, [found.attachment for found in files])
        if files and "messages" in data:
            raise A2AError(INVALID_PARAMS, "message.parts: files come as the parameter messages, which a data part has")
        params = given(before, turn, max_bytes, omitted) | data
    wanted = {
        "task": text or (encode(data).decode() if data else label_of(files)),
        "agent": agent_for(send, agent),
        "params": params or None,
        "metadata": _kept(send, context_id, has_text=bool(text)),
        "executionId": task_id,
        "conversationId": conversation_of(context_id),
        "budget": budget_in(_named(send, "budget")),
    }
    return msgspec.convert(wanted, ExecuteRequest)


def agent_for(send: Send, agent: str | None) -> Any:
    """The agent that a message starts: of its path or tenant (`agent`), or the one that it names."""
    return agent or _named(send, "agent") or _named(send, "skillId")


def _named(send: Send, name: str) -> Any:
    return send.metadata.get(name) or (send.message.metadata or {}).get(name)


def _params(message: Message) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for part in message.parts:
        if isinstance(part, DataPart):
            if not isinstance(part.data, dict):
                raise A2AError(INVALID_PARAMS, "message.parts: a data part is an object, the agent's parameters")
            params |= part.data
    return params


def _kept(send: Send, context_id: str, *, has_text: bool) -> dict[str, Any]:
    """The metadata of the message that the execution keeps. `text`: false if the message had no text."""
    message = send.message
    about: dict[str, Any] = {"messageId": message.message_id} | ({} if has_text else {"text": False})
    if conversation_of(context_id) != context_id:
        about["contextId"] = context_id
    if message.reference_task_ids:
        about["referenceTaskIds"] = list(message.reference_task_ids)
    given = {**(message.metadata or {}), **send.metadata}
    if budget_in(given.get("budget")) is not None:
        del given["budget"]
    return {name: value for name, value in given.items() if name not in OURS} | {"a2a": about}


def text_in(message: Message) -> str:
    """All its text, with that of text files. Raises `A2AError` for a text file that is no text."""
    texts = []
    for part in message.parts:
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif isinstance(part, FilePart) and is_text(part):
            texts.append(text_of(part.raw))
    return "\n".join(text for text in texts if text)


def files_in(message: Message, most: int) -> list[Found]:
    """Its files, and the texts that are named as files, which hold `most` bytes. Raises `Problem` 413, 422."""
    parts = enumerate(message.parts)
    files = [(place, part) for place, part in parts if isinstance(part, FilePart) or _is_named(part)]
    return collect(files, _file, "message.parts", most)


def _is_named(part: Part) -> bool:
    return isinstance(part, TextPart) and bool(part.filename)


def _file(part: Part) -> Taken:
    """Raises `Unfit`."""
    match part:
        case FilePart(raw=str(raw)):
            return held(raw, part.media_type, part.filename)
        case FilePart(url=url):
            return linked(url, part.media_type, part.filename, field="")
        case TextPart(text=text):
            return as_file(text, part.media_type, part.filename)
    raise Unfit("a data part is no file")


# --- a message to the agent at work ----------------------------------------------------------------------------------


def said_of(send: Send, *, max_bytes: int = MAX_CONVERSATION_BYTES) -> MessageRequest:
    """What the message says to the agent: its text, and as data its data parts and files. With `metadata.mode`
    `interrupt` it interrupts. Raises `A2AError`, `Problem` 413, 422, `msgspec.ValidationError`."""
    text = text_in(send.message)
    files = [found.attachment for found in files_in(send.message, room_for_files(text, [], max_bytes))]
    interrupts = _named(send, "mode") == "interrupt"
    return message_of(send.message.message_id, text, _params(send.message), files, interrupts=interrupts)


# --- an answer -------------------------------------------------------------------------------------------------------


def question_for(open_inputs: Sequence[InputRequired], send: Send) -> InputRequired | None:
    """The question that a message answers: the one it names (`metadata.inputId`), or the oldest; None if none is open.
    Raises `A2AError`."""
    wanted = _named(send, "inputId")
    for question in open_inputs:
        if wanted in (None, question.input_id):
            return question
    if wanted is not None:
        raise A2AError(INVALID_PARAMS, "the task waits for no such input", inputId=str(wanted))
    return None


def declines(message: Message) -> bool:
    """Whether its data is `{"declined": true}`: the user does not want to answer."""
    return any(isinstance(part, DataPart) and part.data == {"declined": True} for part in message.parts)


def answer_of(question: InputRequired, message: Message) -> Any:
    """The value for the question: what a data part has (alone, or as `value`), or what the text means. Raises
    `A2AError` for what cannot be its answer."""
    if any(isinstance(part, FilePart) and not is_text(part) for part in message.parts):
        raise A2AError(CONTENT_TYPE, "an answer is text or data: files are not taken with it")
    data = next((part.data for part in message.parts if isinstance(part, DataPart)), None)
    value = spoken(question, text_in(message)) if data is None else _given(question, data)
    if (allowed := misfit(question, value)) is not None:
        options = {"options": encode(question.options).decode()} if question.options else {}
        message_ = f"the answer to this {question.kind} is {allowed}"
        raise A2AError(INVALID_PARAMS, message_, inputId=question.input_id, kind=question.kind, **options)
    return value


def _given(question: InputRequired, data: Any) -> Any:
    is_wrapped = isinstance(data, dict) and "value" in data and data.keys() <= {"value", "inputId"}
    if is_wrapped and not (question.kind == "form" and not isinstance(data["value"], dict)):
        return data["value"]
    return data
