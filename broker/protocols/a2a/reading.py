"""Tasks as they stand: the record and the log of an execution, told as a story; and lists of them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from broker.api_types import LISTED, ExecutionSummary
from broker.commands import Commands
from broker.history import History
from broker.protocols.a2a.errors import INVALID_PARAMS, A2AError
from broker.protocols.a2a.model import STATES, ListTasks, Status, Task, TaskPage
from broker.protocols.a2a.story import Opening, Story
from emitter.errors import UnknownExecution
from emitter.wire import EXECUTION_ID, START, Entry, EventId, Owner, parse_stream

MAX_LISTED = 2_000
"""Of how many of the owner's executions, the newest, a list is made."""
LIST_PAGE = 200
PAGE_BYTES = 4 * 1024 * 1024
"""Above which a page of tasks ends, whatever size was asked for."""


class Reached(NamedTuple):
    """A task at a cursor, and as it stands now. `lost`: what the cursor is a place of is gone, and both are now."""

    then: Story
    now: Story
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
        names = ("state", "conversationId", "metadata", "task")
        record = await self._redis.hmget(owner.execution(task_id).record, *names)
        state, context, metadata, text = [
            None if value is None else value.decode("utf-8", "replace") for value in record
        ]
        if state is None:
            raise UnknownExecution(task_id)
        given = _object(metadata)
        about = given.pop("a2a", None)
        message_id = about.get("messageId") if isinstance(about, dict) else None
        # An execution that was started without a conversation is the only one of its context.
        return Opening(task_id, context or task_id, message_id, text, given or None)

    async def read(self, owner: Owner, task_id: str, until: Callable[[Story], bool] = lambda _: False) -> Story:
        """The task up to now, or up to the entry that `until` says is enough. Raises `UnknownExecution`."""
        story = Story(await self.opening(owner, task_id))
        keys = owner.execution(task_id)
        after = START
        while True:
            page = await self._history.read(keys.log, after, record=keys.record, alone=True)
            for entry in page.entries:
                story.take(entry)
                if until(story):
                    return story
            if page.end or not page.entries:
                break
            after = page.cursor
        if story.last == START:
            await self._recall(owner, task_id, story)
        return story

    async def _recall(self, owner: Owner, task_id: str, story: Story) -> None:
        """Where the log is gone, the record still has its last event, or at least how the execution stands."""
        row = await self._redis.hmget(owner.execution(task_id).record, "state", "ms", "seq", "end")
        state, ms, seq, end = row
        if end is not None:
            story.take(Entry(int(ms), int(seq), b"", end))
        elif state is not None:
            story.recall(STATES[state.decode()], EventId(int(ms or 0), int(seq or 0)))

    async def reach(self, owner: Owner, task_id: str, cursor: EventId) -> Reached:
        """Raises `UnknownExecution`, and `A2AError` for a cursor that is none of this task's."""
        now = await self.read(owner, task_id)
        then = await self.read(owner, task_id, lambda story: story.last.seq >= cursor.seq)
        if then.last == cursor:
            return Reached(then, now)
        if cursor.seq > now.last.seq or cursor.ms > now.last.ms or then.last.seq == cursor.seq:
            raise A2AError(INVALID_PARAMS, "the cursor is no place in this task's log", cursor=str(cursor))
        return Reached(now, now, lost=True)

    async def until_ended(self, owner: Owner, story: Story, seconds: float) -> None:
        """Tell the story on until the task has ended, for so long at most."""
        log, deadline = owner.execution(story.task_id).log, time.monotonic() + seconds
        while not story.is_terminal and (left := deadline - time.monotonic()) > 0:
            found = await self._redis.xread({log: str(story.last)}, block=max(1, int(left * 1000)))
            for _, rows in found:
                for entry in parse_stream(rows):
                    story.take(entry)

    # --- lists ---

    async def page(self, owner: Owner, wanted: ListTasks) -> TaskPage:
        """The tasks that were last active come first; a page of large ones is short. Raises `A2AError` for a token that
        is none of ours."""
        after = _parse_token(wanted.page_token)
        listed = await self._listed(owner, wanted.context_id)
        found = sorted((each for each in listed if _fits(each, wanted)), key=_place, reverse=True)
        rest = [each for each in found if after is None or _place(each) < after]
        tasks, size = [], 0
        for summary in rest[: wanted.page_size]:
            tasks.append(await self._task(owner, summary, wanted))
            size += len(msgspec.json.encode(tasks[-1]))
            if size > PAGE_BYTES:
                break
        token = "" if len(rest) == len(tasks) else "{}.{}".format(*_place(rest[len(tasks) - 1]))
        return TaskPage(tasks=tuple(tasks), next_token=token, page_size=wanted.page_size, total=len(found))

    async def _listed(self, owner: Owner, context_id: str | None) -> list[ExecutionSummary]:
        if context_id is None:
            return await self._newest(owner, None)
        if not EXECUTION_ID.match(context_id):
            return []
        # An execution that was started without a conversation is the only one of its context.
        alone = await self._commands.summary(owner, context_id)
        found = await self._newest(owner, context_id)
        return found if alone is None or alone.conversation_id else [alone, *found]

    async def _newest(self, owner: Owner, conversation_id: str | None) -> list[ExecutionSummary]:
        found: list[ExecutionSummary] = []
        cursor: str | None = None
        while len(found) < MAX_LISTED:
            page = await self._commands.listing(
                owner, state=None, limit=LIST_PAGE, cursor=cursor, conversation_id=conversation_id, is_brief=True
            )
            found += page.executions
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    async def _task(self, owner: Owner, summary: ExecutionSummary, wanted: ListTasks) -> Task:
        """Without its history, unless that is asked for: then, and for artifacts, its log is read."""
        if wanted.with_artifacts or wanted.history_length:
            try:
                story = await self.read(owner, summary.execution_id)
                return story.task(history_length=wanted.history_length or 0, with_artifacts=wanted.with_artifacts)
            except UnknownExecution:
                pass  # it expired just now
        return Task(
            task_id=summary.execution_id,
            context_id=_context(summary),
            status=Status(state=STATES[summary.state], at=summary.updated_at or 0),
            metadata={"agent": summary.agent} if summary.agent else None,
        )


def _object(metadata: str | None) -> dict[str, Any]:
    """Somebody else may have written in the record."""
    try:
        return msgspec.json.decode(metadata or "{}", type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def _context(summary: ExecutionSummary) -> str:
    return summary.conversation_id or summary.execution_id


def _place(summary: ExecutionSummary) -> tuple[int, str]:
    return summary.updated_at or 0, summary.execution_id


def _fits(summary: ExecutionSummary, wanted: ListTasks) -> bool:
    return (
        (wanted.agent is None or summary.agent == wanted.agent)
        and (wanted.state is None or STATES[summary.state] == wanted.state)
        and (wanted.since is None or (summary.updated_at or 0) >= wanted.since)
    )


def _parse_token(token: str | None) -> tuple[int, str] | None:
    if token is None:
        return None
    match = re.fullmatch(LISTED, token)
    if match is None:
        raise A2AError(INVALID_PARAMS, "pageToken is not one of ours")
    return int(match[1]), match[2]
