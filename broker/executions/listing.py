"""Lists of executions, newest first. A page reads no more records than it shows, and few at a time.

What is in an index is not always an execution's id, nor is a record always what the scripts write, if somebody else
writes to Redis as well: such a row is left out and logged, and the others are shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar, get_args

import structlog
from redis.asyncio import Redis

from broker.base.problem import Problem
from broker.executions.budgets import BUDGET, budget_of
from broker.executions.search import Search, Sought
from broker.executions.types import LISTED, ExecutionList, ExecutionSummary
from emitter.errors import NewerRecord
from emitter.events import State
from emitter.wire.ids import EXECUTION_ID
from emitter.wire.keys import Owner
from emitter.wire.record import ExecutionRecord, Field, Selection, read_object

log = structlog.get_logger("broker")

LIST_ROUNDS = 20
LIST_PAGE = 200
LIST_READ = 20
"""Tasks and metadata of so many executions are read at once for a list."""
MAX_UNREADABLE = 1000
"""Unreadable records that are logged, each once."""
LIST_BYTES = 1024 * 1024
"""A page of a list ends when the tasks and metadata on it reach this."""


class _Listed(NamedTuple):
    """A row of an index. What is no id of an execution may be in one as well, if somebody else writes to Redis."""

    created_ms: int
    execution_id: str

    @property
    def is_usable(self) -> bool:
        return 0 <= self.created_ms < 10**15 and EXECUTION_ID.match(self.execution_id) is not None

    @property
    def cursor(self) -> str:
        return f"{self.created_ms}.{self.execution_id}"


R = TypeVar("R")

_Row = list[bytes | None]
_FITTING = Selection(Field.CONVERSATION_ID)
_BRIEF = Selection(
    Field.STATE, Field.AGENT, Field.ATTEMPT, Field.MS, Field.SEQ, Field.CONVERSATION_ID, Field.PARENT, Field.ROOT
)
_SUMMARY = Selection(*_BRIEF.names, Field.TASK, Field.METADATA, *BUDGET.names)


class Listing:
    """The lists of one edge."""

    def __init__(self, redis: Redis, ended_ttl_seconds: int) -> None:
        """`ended_ttl_seconds`: how long the record of an ended execution stays."""
        self._redis: Any = redis
        self._search = Search(redis, ended_ttl_seconds)
        self._unreadable: set[str] = set()

    async def page(
        self,
        owner: Owner,
        *,
        state: str | None,
        limit: int,
        cursor: str | None,
        conversation_id: str | None = None,
        parent: str | None = None,
        is_brief: bool = False,
        sought: Sought | None = None,
    ) -> ExecutionList:
        """Newest first, of one conversation, of one parent or of all; without tasks and metadata, if `is_brief`. A
        record of a newer format is left out; of a conversation, where all counts, it raises `NewerRecord`.
        `cursor` is a former answer's. A page may be short, or empty, and still continue: if little is found, or if
        metadata is large."""
        sought = Sought(state=state) if sought is None and state is not None else sought
        after, reached = _listed(cursor), None
        if sought is not None and sought.until is not None and (after is None or after.created_ms >= sought.until):
            after = _Listed(sought.until, "")  # sorts before all ids of its millisecond
        index = owner.index if conversation_id is None else owner.conversation(conversation_id)
        index = index if parent is None else owner.execution(parent).children
        selection = _BRIEF if is_brief else _SUMMARY
        found: list[ExecutionSummary] = []
        size = 0
        for _ in range(LIST_ROUNDS):
            page, is_last = await self._index_page(index, after)
            if sought is not None and sought.since is not None and page and page[-1].created_ms < sought.since:
                page, is_last = [listed for listed in page if listed.created_ms >= sought.since], True
            after = page[-1] if page else after
            usable = [listed for listed in page if listed.is_usable]
            reached = usable[-1] if usable else reached
            rest = usable if conversation_id is None else await self._fitting(owner, usable, conversation_id)
            rest = rest if sought is None else await self._found(owner, rest, sought)
            while rest:
                count = min(LIST_PAGE if is_brief else LIST_READ, limit - len(found))
                part, rest = rest[:count], rest[count:]
                rows = await self._read_each(owner, part, selection)
                for listed, row in zip(part, rows, strict=True):
                    summary = self._summary(listed, selection, row, needs_all=conversation_id is not None)
                    if summary is not None and _fits(summary, sought, conversation_id):
                        found.append(summary)
                        size += sum(len(value or b"") for value in row)
                    if len(found) == limit or size >= LIST_BYTES:
                        return ExecutionList(executions=found, next_cursor=listed.cursor)
            if is_last:
                return ExecutionList(executions=found)
        return ExecutionList(executions=found, next_cursor=reached.cursor if reached else None)

    async def _index_page(self, index: str, after: _Listed | None) -> tuple[list[_Listed], bool]:
        """The next executions, and whether they are the last. The first rows may be those of the cursor's millisecond
        that were listed before; a page is longer than what Redis can append in one."""
        highest = "(+inf" if after is None else str(after.created_ms)
        rows = await self._redis.zrange(
            index, highest, "(-inf", desc=True, byscore=True, offset=0, num=LIST_PAGE, withscores=True
        )
        page = [_Listed(int(score), member.decode("latin-1")) for member, score in rows]  # in Redis' order of bytes
        return [listed for listed in page if after is None or listed < after], len(rows) < LIST_PAGE

    async def summary(self, owner: Owner, execution_id: str) -> ExecutionSummary | None:
        """One execution as lists have it (its `created_at` is unknown, and 0); `None` if it does not exist. Raises
        `NewerRecord`."""
        listed = _Listed(0, execution_id)
        (row,) = await self._read_each(owner, [listed], _SUMMARY)
        return self._summary(listed, _SUMMARY, row, needs_all=True)

    async def _found(self, owner: Owner, page: list[_Listed], sought: Sought) -> list[_Listed]:
        fitting = await self._search.found(owner, page, sought)
        return [listed for listed, is_found in zip(page, fitting, strict=True) if is_found]

    async def _fitting(self, owner: Owner, page: list[_Listed], conversation_id: str) -> list[_Listed]:
        """Those of this conversation: all others are not read."""
        rows = await self._read_each(owner, page, _FITTING)
        return [
            listed
            for listed, row in zip(page, rows, strict=True)
            if (found := self._readable(listed, partial(_FITTING.read, row), needs_all=True)) is not None
            and found.conversation_id == conversation_id
        ]

    async def _read_each(self, owner: Owner, page: list[_Listed], selection: Selection) -> list[_Row]:
        pipe = self._redis.pipeline(transaction=False)
        for listed in page:
            pipe.hmget(owner.execution(listed.execution_id).record, *selection.names)
        rows: list[_Row] = await pipe.execute()
        return rows

    def _summary(
        self, listed: _Listed, selection: Selection, row: _Row, *, needs_all: bool = False
    ) -> ExecutionSummary | None:
        """`None` where there is no record any more, or one that this version cannot read."""
        return self._readable(listed, lambda: _summary(listed, selection.read(row)), needs_all=needs_all)

    def _readable(self, listed: _Listed, read: Callable[[], R], *, needs_all: bool) -> R | None:
        try:
            return read()
        except ValueError as error:
            if needs_all and isinstance(error, NewerRecord):
                raise
            if listed.execution_id not in self._unreadable and len(self._unreadable) < MAX_UNREADABLE:
                self._unreadable.add(listed.execution_id)
                log.error("record_unreadable", execution=listed.execution_id, error=str(error)[:200])
            return None


def _listed(cursor: str | None) -> _Listed | None:
    if cursor is None:
        return None
    match = re.fullmatch(LISTED, cursor)
    if match is None:
        raise Problem(400, "invalid-parameter", "cursor is not one of ours", path="cursor")
    return _Listed(int(match[1]), match[2])


def _fits(summary: ExecutionSummary, sought: Sought | None, conversation_id: str | None) -> bool:
    """An id may have been used again, in another conversation, since it was put into an index; and an execution may
    have gone on since it was found."""
    is_found = sought is None or sought.state in (None, summary.state)
    return is_found and conversation_id in (None, summary.conversation_id)


def _summary(listed: _Listed, record: ExecutionRecord) -> ExecutionSummary | None:
    """Raises `ValueError` for what no edge writes."""
    if record.state is None:
        return None  # its record expired before the index did
    if record.state not in get_args(State):
        raise ValueError(f"state is {record.state[:40]!r}")
    return ExecutionSummary(
        execution_id=listed.execution_id,
        state=record.state,
        task=record.task,
        agent=record.agent or None,
        attempt=record.attempt or None,
        created_at=listed.created_ms,
        updated_at=record.ms,
        conversation_id=record.conversation_id or None,
        metadata=read_object(record.metadata) or None,
        cursor=str(record.last),
        parent=record.parent or None,
        root=record.root or None,
        budget=budget_of(record),
    )
