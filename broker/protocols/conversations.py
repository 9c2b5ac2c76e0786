"""The executions of a conversation, all that were started with its id, and what was said in it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from broker.api_types import ExecutionState, ExecutionSummary
from broker.commands import Commands
from emitter.errors import UnknownExecution
from emitter.events import TERMINAL_STATES
from emitter.wire import Owner

PAGE = 50
MAX_EXECUTIONS = 10
"""Of how many executions the log is read to tell what was said."""
MAX_TURNS = 50
MAX_TURN_CHARS = 32_768
"""Of the conversation that an agent is given: turns, and characters of all of them together. The newest are kept."""


class Turn(msgspec.Struct, frozen=True):
    """What somebody said in a conversation, as agents are given it."""

    role: Literal["user", "assistant"]
    content: str


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


def given(before: Sequence[Turn], asked: Turn) -> dict[str, Any]:
    """The parameters by which an agent has the conversation: `messages`, the newest turns and what is asked now; and
    `messagesOmitted`, how many older ones are left out at least, if any are."""
    kept = last_turns(before)
    omitted = {"messagesOmitted": len(before) - len(kept)} if len(kept) < len(before) else {}
    return {"messages": msgspec.to_builtins([*kept, asked]), **omitted}


async def recent(
    commands: Commands, owner: Owner, conversation_id: str, *, limit: int, is_running: bool = False
) -> list[ExecutionSummary]:
    """Up to `limit` executions of a conversation, newest first; of those that have not ended only, if `is_running`."""
    found: list[ExecutionSummary] = []
    cursor: str | None = None
    while len(found) < limit:
        count = PAGE if is_running else limit - len(found)
        page = await commands.listing(owner, state=None, limit=count, cursor=cursor, conversation_id=conversation_id)
        found += [each for each in page.executions if not (is_running and each.state in TERMINAL_STATES)]
        cursor = page.next_cursor
        if cursor is None:
            break
    return found[:limit]


async def turns(commands: Commands, owner: Owner, conversation_id: str, *, instead_of: str | None = None) -> list[Turn]:
    """What was said in a conversation: each execution's task, and what its agent answered. The newest are read first,
    and no more than an agent is given.

    Where a message was answered again (it was edited, or another answer was wanted), its last answer counts, and what
    came between is no part of the conversation any more. `instead_of` is a message that is to be answered again now.
    """
    valid: list[ExecutionSummary] = []
    for summary in reversed(await recent(commands, owner, conversation_id, limit=MAX_EXECUTIONS)):
        valid = [*_before(valid, _message_of(summary)), summary]
    said: list[Turn] = []
    for summary in reversed(_before(valid, instead_of)):
        try:
            state = await commands.state(owner, summary.execution_id, with_stack=False)
        except UnknownExecution:
            continue  # it expired meanwhile
        said = [*_turns(state), *said]
        if sum(len(turn.content) for turn in said) > MAX_TURN_CHARS:
            break
    return said


def message_metadata(message_id: str) -> dict[str, Any]:
    """What an execution's metadata has of the message that it answers."""
    return {"chat": {"messageId": message_id}}


def _message_of(summary: ExecutionSummary) -> str | None:
    about = (summary.metadata or {}).get("chat")
    found = about.get("messageId") if isinstance(about, dict) else None
    return found if isinstance(found, str) else None


def _before(said: list[ExecutionSummary], message_id: str | None) -> list[ExecutionSummary]:
    """What was said before a message; all of it, for none."""
    return [*itertools.takewhile(lambda each: message_id is None or _message_of(each) != message_id, said)]


def _turns(state: ExecutionState) -> list[Turn]:
    answer = state.text or (state.result if isinstance(state.result, str) else "")
    asked = [Turn("user", state.task)] if state.task else []
    return [*asked, Turn("assistant", answer)] if answer else asked
