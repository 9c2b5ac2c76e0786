"""Tasks and lists of tasks, made from the record and the log of executions."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import msgspec
import structlog
from redis.asyncio import Redis

from broker.executions import conversations
from broker.executions.attachments import Attachment, bytes_of
from broker.executions.commands import Commands
from broker.executions.decoding import decode_entry
from broker.executions.state import MAX_STATE_BYTES
from broker.executions.types import LISTED, ExecutionSummary
from broker.log.history import History
from broker.protocols.a2a.errors import INVALID_PARAMS, A2AError
from broker.protocols.a2a.inbound import conversation_of
from broker.protocols.a2a.model import STATES, DataPart, FilePart, ListTasks, Part, Status, Task, TaskPage, TaskState
from broker.protocols.a2a.projection import TaskProjection
from broker.protocols.a2a.task_view import Opening
from emitter.errors import InvalidEvent, UnknownExecution
from emitter.events import InputReceived
from emitter.wire.entries import Entry, parse_stream
from emitter.wire.ids import EXECUTION_ID, START, EventId, parse_event_id
from emitter.wire.keys import Owner
from emitter.wire.record import Field, Selection, read_object

log = structlog.get_logger("broker")

MAX_LISTED = 2_000
"""Of how many of the owner's executions, the newest, a list is made."""
LIST_PAGE = 200
DIGEST = re.compile(r"context_[0-9a-f]{32}\Z")
"""The conversation of a context whose id is not a valid one of ours."""
PAGE_BYTES = 4 * 1024 * 1024
"""Above which a page of tasks ends, whatever size was asked for."""
_OPENING = Selection(Field.STATE, Field.CONVERSATION_ID, Field.TASK, Field.METADATA, Field.PARAMS)
_STANDING = Selection(Field.STATE, Field.MS, Field.SEQ, Field.END)


class Reached(NamedTuple):
    """A task at a cursor, and which of its questions have been answered up to now. `lost`: what the cursor is a place
    of is gone, and the task is as it stands now."""

    then: TaskProjection
    answered: frozenset[str]
    lost: bool = False


class Tasks:
    """Reads. Redis errors pass through."""

    def __init__(self, redis: Redis, history: History, commands: Commands) -> None:
        self._redis: Any = redis
        self._history = history
        self._commands = commands

    async def opening(self, owner: Owner, task_id: str) -> Opening:
        """Raises `UnknownExecution`."""
        if not EXECUTION_ID.match(task_id):
            raise UnknownExecution(task_id[:64])
        record = _OPENING.read(await self._redis.hmget(owner.execution(task_id).record, *_OPENING.names))
        if not record.exists:
            raise UnknownExecution(task_id)
        given = _object(task_id, record.metadata)
        about = given.pop("a2a", None)
        known = about if isinstance(about, dict) else {}
        return Opening(
            task_id,
            _context(task_id, record.conversation_id, known),
            message_id=known.get("messageId"),
            text=record.task,
            metadata=given or None,
            parts=parts_of(_object(task_id, record.params), is_ours=bool(known)),
            has_text=known.get("text") is not False,
            state=record.state or "",
        )

    async def read(
        self,
        owner: Owner,
        task_id: str,
        until: Callable[[TaskProjection], bool] = lambda _: False,
        *,
        max_bytes: int = MAX_STATE_BYTES,
    ) -> TaskProjection:
        """The task up to now, or up to the entry that `until` says is enough. Raises `UnknownExecution`."""
        projection = TaskProjection(await self.opening(owner, task_id), max_bytes=max_bytes)
        async for entry in self._entries(owner, task_id):
            projection.take(entry)
            if until(projection):
                return projection
        if projection.last == START:
            await self._recall(owner, task_id, projection)
        return projection

    async def _entries(self, owner: Owner, task_id: str) -> AsyncIterator[Entry]:
        keys, after = owner.execution(task_id), START
        while True:
            page = await self._history.read(keys.log, after, record=keys.record, shared=False)
            for entry in page.entries:
                yield entry
            if page.end or not page.entries:
                return
            after = page.cursor

    async def _recall(self, owner: Owner, task_id: str, projection: TaskProjection) -> None:
        """Where the log is gone, the record still has its last event, or at least how the execution stands."""
        record = _STANDING.read(await self._redis.hmget(owner.execution(task_id).record, *_STANDING.names))
        if (end := record.terminal_event) is not None:
            projection.take(end)
        elif record.state is not None:
            projection.recall(state_of(record.state), record.last)

    async def reach(self, owner: Owner, task_id: str, cursor: EventId) -> Reached:
        """Raises `UnknownExecution`, and `A2AError` for a cursor that is not of this task."""
        projection, answered = TaskProjection(await self.opening(owner, task_id)), set()
        is_gone, is_foreign = True, False
        async for entry in self._entries(owner, task_id):
            is_gone = False
            if projection.last != cursor:
                projection.take(entry)
                is_foreign = is_foreign or (entry.seq == cursor.seq and entry.ms != cursor.ms)
            elif entry.type == InputReceived.type.encode():
                answered.add(_answered(entry))
        if is_gone:
            await self._recall(owner, task_id, projection)
        if projection.last == cursor:
            return Reached(projection, projection.answered | answered)
        if is_foreign or cursor.seq >= projection.last.seq or cursor.ms > projection.last.ms:
            raise A2AError(INVALID_PARAMS, "the cursor is no place in this task's log", cursor=str(cursor))
        return Reached(projection, projection.answered, lost=True)

    async def until_ended(self, owner: Owner, projection: TaskProjection, seconds: float) -> None:
        """Follow the log until the task has ended, for at most `seconds`."""
        log, deadline = owner.execution(projection.task_id).log, time.monotonic() + seconds
        while not projection.is_terminal and (left := deadline - time.monotonic()) > 0:
            found = await self._redis.xread({log: str(projection.last)}, block=max(1, int(left * 1000)))
            for _, rows in found:
                for entry in parse_stream(rows):
                    projection.take(entry)

    # --- lists ---

    async def page(self, owner: Owner, wanted: ListTasks) -> TaskPage:
        """The tasks that were last active come first; a page of large ones is short. Raises `A2AError` for a token that
        is none of ours."""
        after = _parse_token(wanted.page_token)
        listed = await self._listed(owner, wanted.context_id)
        found = sorted((each for each in listed if _fits(each, wanted)), key=_place, reverse=True)
        rest = [each for each in found if after is None or _place(each) < after]
        shown = rest[: wanted.page_size]
        token = "" if len(rest) == len(shown) else "{}.{}".format(*_place(shown[-1]))
        share = MAX_STATE_BYTES // max(1, len(shown))
        tasks = [await self._task(owner, summary, wanted, share) for summary in shown]
        return TaskPage(tasks=tuple(tasks), next_token=token, page_size=wanted.page_size, total=len(found))

    async def _listed(self, owner: Owner, context_id: str | None) -> list[ExecutionSummary]:
        if context_id is None:
            return await self._newest(owner, None)
        found = await self._newest(owner, conversation_of(context_id))
        if not EXECUTION_ID.match(context_id):
            return found
        # An execution that was started without a conversation is the only one of its context.
        alone = await self._commands.listing.summary(owner, context_id)
        return found if alone is None or alone.conversation_id else [alone, *found]

    async def _newest(self, owner: Owner, conversation_id: str | None) -> list[ExecutionSummary]:
        found: list[ExecutionSummary] = []
        cursor: str | None = None
        while len(found) < MAX_LISTED:
            page = await self._commands.listing.page(
                owner, state=None, limit=LIST_PAGE, cursor=cursor, conversation_id=conversation_id, is_brief=True
            )
            found += page.executions
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    async def _task(self, owner: Owner, summary: ExecutionSummary, wanted: ListTasks, max_bytes: int) -> Task:
        """Without its history, unless that is asked for: then, and for artifacts, its log is read, up to where it was
        when the task was found: it may not fit any more. What is too much for `max_bytes` says that it is truncated,
        and is whole where the task alone is asked for."""
        if wanted.with_artifacts or wanted.history_length:
            found_at = parse_event_id(summary.cursor or str(START)).seq
            try:
                projection = await self.read(
                    owner, summary.execution_id, lambda read: read.last.seq >= found_at, max_bytes=max_bytes
                )
                return projection.task(history_length=wanted.history_length or 0, with_artifacts=wanted.with_artifacts)
            except UnknownExecution:
                pass  # it expired just now
        return Task(
            task_id=summary.execution_id,
            context_id=await self._context_of(owner, summary),
            status=Status(state=state_of(summary.state), at=summary.updated_at or 0),
            metadata={"agent": summary.agent} if summary.agent else None,
        )

    async def _context_of(self, owner: Owner, summary: ExecutionSummary) -> str:
        """Of a digest the context that it is of is in the metadata, which is not read for a list."""
        conversation = summary.conversation_id or summary.execution_id
        if not DIGEST.match(conversation):
            return conversation
        try:
            return (await self.opening(owner, summary.execution_id)).context_id
        except UnknownExecution:
            return conversation  # it expired just now


def state_of(execution_state: str) -> TaskState:
    return STATES.get(execution_state, "unknown")  # others write records too


def _object(task_id: str, json: bytes) -> dict[str, Any]:
    """What a record's JSON has. Others write records too: what is no object is left out."""
    try:
        return read_object(json)
    except ValueError:
        log.warning("record_unreadable", execution=task_id, error="metadata is no object")
        return {}


def parts_of(params: dict[str, Any], *, is_ours: bool) -> tuple[Part, ...]:
    """What the message that began a task had besides text, as parts again: its data, where that `is_ours` and not
    another protocol's parameters, and its files."""
    data = conversations.without_conversation(params)
    files = [_part(attachment) for attachment in conversations.attached(params)]
    return (*((DataPart(data=data),) if data and is_ours else ()), *files)


def _part(attachment: Attachment) -> Part:
    """The attachment as a part. One that is neither a link nor bytes is shown as data."""
    about: dict[str, Any] = {"media_type": attachment.media_type, "filename": attachment.name}
    if (raw := bytes_of(attachment)) is not None:
        return FilePart(raw=raw, **about)
    return FilePart(url=attachment.url, **about) if attachment.url else DataPart(data=msgspec.to_builtins(attachment))


def _answered(entry: Entry) -> str:
    """The question that this entry answers; empty where that is not understood."""
    try:
        _, event = decode_entry(entry)
    except InvalidEvent:
        return ""
    return event.input_id if isinstance(event, InputReceived) else ""


def _context(task_id: str, conversation_id: str | None, about: dict[str, Any]) -> str:
    """The context as its client calls it. An execution that was started without a conversation is the only one of its
    context."""
    given = about.get("contextId")
    if isinstance(given, str) and conversation_of(given) == conversation_id:
        return given
    return conversation_id or task_id


def _place(summary: ExecutionSummary) -> tuple[int, str]:
    return summary.updated_at or 0, summary.execution_id


def _fits(summary: ExecutionSummary, wanted: ListTasks) -> bool:
    return (
        (wanted.agent is None or summary.agent == wanted.agent)
        and (wanted.state is None or state_of(summary.state) == wanted.state)
        and (wanted.since is None or (summary.updated_at or 0) >= wanted.since)
    )


def _parse_token(token: str | None) -> tuple[int, str] | None:
    if token is None:
        return None
    match = re.fullmatch(LISTED, token)
    if match is None:
        raise A2AError(INVALID_PARAMS, "pageToken is not one of ours")
    return int(match[1]), match[2]
