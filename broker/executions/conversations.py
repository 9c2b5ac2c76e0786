"""The executions of a conversation, all that were started with its id, and what was said in it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from broker.executions.attachments import Attachment, fitting, size
from broker.executions.commands import Commands
from broker.executions.types import ExecutionState, ExecutionSummary
from emitter.errors import UnknownExecution
from emitter.events import TERMINAL_STATES
from emitter.wire.keys import Owner
from emitter.wire.limits import MAX_CONVERSATION_BYTES

PAGE = 50
MAX_EXECUTIONS = 10
"""The text of a conversation is read from the logs of at most so many executions."""
MAX_TURNS = 50
MAX_TURN_CHARS = 32_768
"""Of the conversation that an agent is given: turns, and characters of all of them together. The newest are kept."""

BESIDE_BYTES = 160
"""Of a turn with files or data, for the names around them and the mark of those for which there is no room."""


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody said in a conversation, as agents are given it: words, the files that came with them, and what else
    an app's page put into the message (parts `data-…`, as they are)."""

    role: Literal["user", "assistant"]
    content: str
    attachments: list[Attachment] = []
    data: list[dict[str, Any]] = []


class Past(NamedTuple):
    """What was said in a conversation, and how many turns of it at least are left out already."""

    turns: Sequence[Turn] = ()
    omitted: int = 0


def last_turns(turns: Sequence[Turn]) -> list[Turn]:
    """The newest of them, within the limits."""
    kept: list[Turn] = []
    chars = 0
    for turn in reversed(turns[-MAX_TURNS:]):
        chars += len(turn.content)
        if chars > MAX_TURN_CHARS:
            break
        kept.append(turn)
    return kept[::-1]


def given(
    before: Sequence[Turn], asked: Turn, max_bytes: int = MAX_CONVERSATION_BYTES, omitted: int = 0
) -> dict[str, Any]:
    """The parameters by which an agent has the conversation: `messages`, the newest turns and what is asked now; and
    `messagesOmitted`, how many older ones are left out at least, if any are (`omitted` before this).

    All in `max_bytes` (0: however much there is), of which what is asked has what it needs; then come the words before
    it, the newest first, and then the files that came with those: each that does not fit is marked."""
    room = (max_bytes or sys.maxsize) - size([asked])
    kept: list[Turn] = []
    for turn in reversed(last_turns(before)):
        room -= size(Turn(turn.role, turn.content)) + (BESIDE_BYTES if turn.attachments or turn.data else 0)
        if room < 0:
            break
        kept.append(turn)
    shown = _with_files(kept, room)[::-1]
    omitted += len(before) - len(kept)
    return {"messages": msgspec.to_builtins([*shown, asked])} | ({"messagesOmitted": omitted} if omitted else {})


def _with_files(turns: Sequence[Turn], room: int) -> list[Turn]:
    """The turns, given newest first, with what of their files and data there is room for."""
    shown = []
    for turn in turns:
        attachments, room = fitting(turn.attachments, room)
        data: list[dict[str, Any]] = []
        for part in turn.data:
            fit, bytes_ = part, size(part)
            if bytes_ > room:
                fit = {"type": part.get("type"), "omitted": "there is no room for it"}
                bytes_ = size(fit)
            if bytes_ <= room:
                room -= bytes_
                data.append(fit)
        if len(data) < len(turn.data):
            data.append({"omitted": f"{len(turn.data) - len(data)} parts: there is no room for them"})
        shown.append(msgspec.structs.replace(turn, attachments=attachments, data=data))
    return shown


def room_for_files(text: str, data: Sequence[dict[str, Any]], max_bytes: int) -> int:
    """How many bytes the files of what is asked may hold, as JSON, beside its words and data."""
    return max(0, (max_bytes or sys.maxsize) - size([Turn("user", text, [], list(data))]) - BESIDE_BYTES)


async def recent(
    commands: Commands, owner: Owner, conversation_id: str, *, limit: int, is_running: bool = False
) -> list[ExecutionSummary]:
    """Up to `limit` executions of a conversation, newest first; of those that have not ended only, if `is_running`."""
    found: list[ExecutionSummary] = []
    cursor: str | None = None
    while len(found) < limit:
        count = PAGE if is_running else limit - len(found)
        page = await commands.listing.page(
            owner, state=None, limit=count, cursor=cursor, conversation_id=conversation_id
        )
        found += [each for each in page.executions if not (is_running and each.state in TERMINAL_STATES)]
        cursor = page.next_cursor
        if cursor is None:
            break
    return found[:limit]


async def past(commands: Commands, owner: Owner, conversation_id: str, *, instead_of: str | None = None) -> Past:
    """What was said in a conversation: each execution's task, and what its agent answered. The newest are read first,
    and no more than an agent is given.

    Where a message was answered again (it was edited, or another answer was wanted), its last answer counts, and what
    came between is no part of the conversation any more. `instead_of` is a message that is to be answered again now.
    """
    valid, omitted = await answered(commands, owner, conversation_id, MAX_EXECUTIONS)
    return await said_in(commands, owner, _before(valid, instead_of)[::-1], omitted)


async def said_in(commands: Commands, owner: Owner, executions: Sequence[ExecutionSummary], omitted: int = 0) -> Past:
    """What was said in these executions, given newest first; no more of it than an agent is given."""
    said: list[Turn] = []
    for summary in executions:
        try:
            state = await commands.state(owner, summary.execution_id, with_stack=False)
        except UnknownExecution:
            omitted += 1  # it has expired
            continue
        said = [*_turns(state, summary, await commands.params(owner, summary.execution_id)), *said]
        if sum(len(turn.content) for turn in said) > MAX_TURN_CHARS:
            break
    return Past(said, omitted)


async def answered(
    commands: Commands, owner: Owner, conversation_id: str, most: int
) -> tuple[list[ExecutionSummary], int]:
    """The executions whose answers are part of a conversation, oldest first, of its newest `most`; and how many older
    ones there are at least."""
    valid: list[ExecutionSummary] = []
    found = await recent(commands, owner, conversation_id, limit=most + 1)
    for summary in reversed(found[:most]):
        valid = [*_before(valid, message_of(summary)), summary]
    return valid, len(found[most:])


def message_metadata(message_id: str) -> dict[str, Any]:
    """What an execution's metadata has of the message that it answers."""
    return {"chat": {"messageId": message_id}}


def message_of(summary: ExecutionSummary) -> str | None:
    """The id of the message that an execution answers."""
    about = (summary.metadata or {}).get("chat")
    found = about.get("messageId") if isinstance(about, dict) else None
    return found if isinstance(found, str) else None


def _before(said: list[ExecutionSummary], message_id: str | None) -> list[ExecutionSummary]:
    """What was said before a message; all of it, for none."""
    return [*itertools.takewhile(lambda each: message_id is None or message_of(each) != message_id, said)]


def _turns(state: ExecutionState, summary: ExecutionSummary, params: dict[str, Any]) -> list[Turn]:
    answer = state.text or (state.result if isinstance(state.result, str) else "")
    question = [asked(state.task, summary.metadata or {}, params)] if state.task else []
    question += [Turn("user", said.text) for said in state.user_messages if said.text and said.state != "dropped"]
    return [*question, Turn("assistant", answer)] if answer else question


def asked(task: str, metadata: dict[str, Any], params: dict[str, Any]) -> Turn:
    """What an execution was asked: its task, with what came beside it. A message of files alone has no words, whatever
    its task is called; one of data alone has it as its words."""
    said, about = _last(params), metadata.get("a2a")
    turn = Turn("user", task)
    if said is not None and (said.attachments or said.data):
        turn = msgspec.structs.replace(said, content=task if said.content else "")
    data = without_conversation(params) if isinstance(about, dict) and about.get("text") is not False else {}
    return msgspec.structs.replace(turn, data=[{"type": "data", "data": data}]) if data else turn


def without_conversation(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters but for those that `given` makes."""
    return {name: value for name, value in params.items() if name not in ("messages", "messagesOmitted")}


def attached(params: dict[str, Any]) -> list[Attachment]:
    """The files of the message that an execution with these parameters answers."""
    said = _last(params)
    return [] if said is None else said.attachments


def _last(params: dict[str, Any]) -> Turn | None:
    """The message that was asked, as `given` gave it. Agents may have a parameter of their own by that name."""
    messages = params.get("messages")
    found = [each for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []
    try:
        return msgspec.convert(next(each for each in reversed(found) if each.get("role") == "user"), Turn)
    except (msgspec.ValidationError, StopIteration):
        return None
