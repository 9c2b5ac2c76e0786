"""Executions that others started: what parent and child know of each other.

A child has its own log and record, which names its parent and the root of the tree. The parent has the ids of its
children in a sorted set, and in its log `child:started` and `child:ended`. Both events have one producer per child, so
the append script stores each once, whoever writes it: `child:ended` is written by the process that ends the child, by a
parent that waits for it, and, if neither could, by the parent's process before the parent's end, or by the reaper.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from emitter.errors import (
    AppendRefused,
    ExecutionEnded,
    InvalidEvent,
    NewerRecord,
    Superseded,
    TooManyChildren,
    UnknownExecution,
)
from emitter.events import (
    ChildEnded,
    ChildStarted,
    Event,
    ExecutionCancelled,
    ExecutionComplete,
    ExecutionError,
    Usage,
    UsageTotals,
)
from emitter.store.append import LogLimits, append, prepare
from emitter.store.connection import channels_of, repeated
from emitter.wire.envelope import decode_envelope, encode_value
from emitter.wire.keys import Owner
from emitter.wire.prepared import Redaction
from emitter.wire.record import ExecutionRecord, Field, Selection
from emitter.wire.record import producer as producer_field
from emitter.wire.usage import add_usage

ADOPT_SCRIPT = Path(__file__).with_name("adopt.lua").read_text()
# Not after the record has expired.
NOTE_SCRIPT = """
if redis.call('HGET', KEYS[1], 'state') then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 0
"""
DETACH = "detach"
PARENT = "system:parent"
"""`by` of the cancel of a child whose parent has ended; no user is shown by that name."""
PRODUCER = "child:"
STARTED, ENDED = 1, 2
"""Numbers of the two events of a child's producer."""
SUMMARY_CHARS = 500
TASK_CHARS = 1_000
USAGE_PAGE = 200
USAGE_PAGES = 20
"""How far back the usage of an ended child is looked for in its log."""
ROWS_AT_ONCE = 100
_ABOVE = Selection(Field.STATE, Field.ROOT, Field.DEPTH)
_ENDED = Selection(Field.STATE, Field.END, Field.PARENT, Field.CHILDREN, Field.USAGE)
_OPEN = Selection(Field.STATE, Field.PARENT, Field.ON_PARENT_END)
_STATE = Selection(Field.STATE)


class Parentage(NamedTuple):
    """Where a child stands in its tree."""

    parent: str
    root: str
    depth: int
    on_parent_end: str = ""
    key: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """Of the child's record."""
        found = {Field.PARENT: self.parent, Field.ROOT: self.root, Field.DEPTH: str(self.depth)}
        if self.on_parent_end == DETACH:
            found[Field.ON_PARENT_END] = DETACH
        if self.key:
            found[Field.CHILD_KEY] = self.key
        return found


class Children:
    """Reads and writes what parents and children know of each other. Redis errors pass through; every step may be
    repeated."""

    def __init__(self, redis: Redis, limits: LogLimits, redact: Redaction) -> None:
        self._redis: Any = redis
        self._limits = limits
        self._redact = redact

    # --- start ---

    async def parentage(self, owner: Owner, parent: str, *, on_parent_end: str = "", key: str = "") -> Parentage:
        """Where a child of an execution would stand. Raises `UnknownExecution`, `ExecutionEnded`, `TooManyChildren`."""
        found = await self._read(_ABOVE, owner, parent)
        if not found.exists:
            raise UnknownExecution(parent)
        if found.has_ended:
            raise ExecutionEnded(parent, found.state or "")
        depth, most = found.depth + 1, self._limits.max_child_depth
        if most and depth > most:
            raise TooManyChildren(parent, most, "RUNCAST_MAX_CHILD_DEPTH")
        return Parentage(parent, found.root or parent, depth, on_parent_end, key)

    async def adopt(self, owner: Owner, above: Parentage, child: str, attempt: int) -> None:
        """Count a child before it exists. `attempt`: that of the parent, 0 for any. Raises `UnknownExecution`,
        `ExecutionEnded`, `Superseded`, `TooManyChildren`."""
        keys, most = owner.execution(above.parent), self._limits.max_children
        names = (keys.record, keys.children, owner.execution(above.root).record)
        kept = self._limits.ttl_seconds and self._limits.ttl_seconds + self._limits.tombstone_ttl_seconds
        reply = await repeated(
            lambda: self._redis.eval(ADOPT_SCRIPT, len(names), *names, child, attempt, most, kept * 1000)
        )
        verdict, detail = (text.decode() for text in reply)
        if verdict == "unknown":
            raise UnknownExecution(above.parent)
        if verdict == "ended":
            raise ExecutionEnded(above.parent, detail)
        if verdict == "fenced":
            raise Superseded(above.parent, int(detail))
        if verdict == "full":
            raise TooManyChildren(above.parent, most, "RUNCAST_MAX_CHILDREN")

    async def report_start(self, owner: Owner, above: Parentage, child: str, agent: str, task: str, **as_: Any) -> None:
        """Write `child:started` into the parent's log (options: `append_command`). Raises `AppendRefused`."""
        event = ChildStarted(
            execution_id=child,
            agent=agent,
            task=shortened(task, TASK_CHARS),
            key=above.key or None,
            detached=above.on_parent_end == DETACH,
        )
        await self._append(owner, above.parent, child, STARTED, event, **as_)

    # --- end ---

    async def report_end(self, owner: Owner, child: str) -> bool:
        """Write `child:ended` into the parent's log, if the child has ended and the parent has not; whether the child
        has a parent and has ended."""
        found = await self._read(_ENDED, owner, child)
        if not (found.parent and found.has_ended):
            return False
        parent = await self._read(Selection(Field.STATE, producer_field(PRODUCER + child)), owner, found.parent)
        is_due = parent.exists and not parent.has_ended and parent.producers.get(PRODUCER + child, 0) < ENDED
        if is_due or not found.usage:
            own, total = await self._usage(owner, child, found.children)
            await self._note_usage(owner, child, own)
            if is_due:
                event = _ended(child, found, total)
                with contextlib.suppress(AppendRefused):  # the parent has just ended
                    await self._append(owner, found.parent, child, ENDED, event)
        channel = owner.execution(found.parent).control + channels_of(self._redis).suffix
        await self._redis.publish(channel, wake_word(child))
        return True

    async def is_end_reported(self, owner: Owner, parent: str, child: str) -> bool:
        """Whether the parent's log has `child:ended`."""
        written = (await self._read(Selection(producer_field(PRODUCER + child)), owner, parent)).producers
        return written.get(PRODUCER + child, 0) >= ENDED

    async def report_ended(self, owner: Owner, parent: str) -> None:
        """Write `child:ended` for all children that have ended: what a process that was killed left undone."""
        for children in await self._pages(owner, parent):
            rows = await self._read_each(_STATE, owner, children)
            ended = [child for child, found in zip(children, rows, strict=True) if found.has_ended]
            fields = Selection(*(producer_field(PRODUCER + child) for child in ended))
            written = (await self._read(fields, owner, parent)).producers
            for child in ended:
                if written.get(PRODUCER + child, 0) < ENDED:
                    await self.report_end(owner, child)

    async def attached(self, owner: Owner, parent: str) -> list[str]:
        """Children that have not ended, and are to end with their parent."""
        found = []
        for children in await self._pages(owner, parent):
            rows = await self._read_each(_OPEN, owner, children)
            found += [
                child
                for child, row in zip(children, rows, strict=True)
                if row.parent == parent and not row.has_ended and row.on_parent_end != DETACH
            ]
        return found

    async def is_orphan(self, owner: Owner, found: ExecutionRecord) -> bool:
        """Whether an execution is to end because its parent has (`found`: with `parent` and `on_parent_end`)."""
        if not found.parent or found.on_parent_end == DETACH:
            return False
        parent = await self._read(_STATE, owner, found.parent)
        return parent.has_ended or not parent.exists

    async def orphans(self, executions: Sequence[tuple[Owner, str]]) -> list[tuple[Owner, str]]:
        """Of these executions those that are to end because their parents have. Those of a newer format are not."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for owner, execution_id in executions:
                pipe.hmget(owner.execution(execution_id).record, *_OPEN.names)
            rows = await pipe.execute()
        found = []
        for each, row in zip(executions, rows, strict=True):
            with contextlib.suppress(NewerRecord):
                record = _OPEN.read(row)
                if not record.has_ended and await self.is_orphan(each[0], record):
                    found.append(each)
        return found

    async def _pages(self, owner: Owner, parent: str) -> Iterable[list[str]]:
        names = await self._redis.zrange(owner.execution(parent).children, 0, -1)
        ids = [name.decode() for name in names]
        return (ids[at : at + ROWS_AT_ONCE] for at in range(0, len(ids), ROWS_AT_ONCE))

    async def _usage(self, owner: Owner, child: str, children: int) -> tuple[Usage | None, Usage | None]:
        """What a child used, alone and with its own children, by the newest events of its log."""
        own, total, open_ = None, None, children
        log, last = owner.execution(child).log, "+"
        for _ in range(USAGE_PAGES):
            rows = await self._redis.xrevrange(log, last, "-", count=USAGE_PAGE)
            for _, fields in rows:
                ((type_, json),) = fields.items()
                if type_ == b"usage" and own is None:
                    own = _usage_in(json)
                    total = add_usage(total, own)
                elif type_ == b"child:ended":
                    open_ -= 1
                    total = add_usage(total, _usage_in(json))
            if len(rows) < USAGE_PAGE or (own is not None and open_ <= 0):
                break
            last = f"({rows[-1][0].decode()}"
        return own, total

    async def own_usage(self, owner: Owner, execution_id: str) -> Usage | None:
        """What an execution used so far, without its children, if one of the newest events says so."""
        for _, fields in await self._redis.xrevrange(owner.execution(execution_id).log, "+", "-", count=USAGE_PAGE):
            ((type_, json),) = fields.items()
            if type_ == b"usage":
                return _usage_in(json)
        return None

    async def _note_usage(self, owner: Owner, child: str, usage: Usage | None) -> None:
        record, value = owner.execution(child).record, encode_value(usage or {})
        await self._redis.eval(NOTE_SCRIPT, 1, record, Field.USAGE, value)

    async def _append(self, owner: Owner, parent: str, child: str, number: int, event: Event, **options: Any) -> None:
        prepared = prepare(event, parent, redact=self._redact, max_bytes=self._limits.max_event_bytes)
        options = {"mode": "existing", **options, "producer": PRODUCER + child, "first_seq": number}
        await append(self._redis, owner, parent, [prepared], limits=self._limits, **options)

    async def _read(self, selection: Selection, owner: Owner, execution_id: str) -> ExecutionRecord:
        return selection.read(await self._redis.hmget(owner.execution(execution_id).record, *selection.names))

    async def _read_each(self, selection: Selection, owner: Owner, ids: Sequence[str]) -> list[ExecutionRecord]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for execution_id in ids:
                pipe.hmget(owner.execution(execution_id).record, *selection.names)
            return [selection.read(row) for row in await pipe.execute()]


def wake_word(child: str) -> bytes:
    """The message on the parent's control channel when a child has ended."""
    return b"child " + child.encode()


def end_of(record: ExecutionRecord) -> Event | None:
    """The terminal event in a record; None if it cannot be read."""
    try:
        return decode_envelope(record.end)[1] if record.end else None
    except InvalidEvent:
        return None


def _usage_in(json: bytes) -> Usage | None:
    with contextlib.suppress(Exception):  # of another version, or damaged: it does not count
        _, event = decode_envelope(json)
        if isinstance(event, UsageTotals):
            return Usage(**msgspec.structs.asdict(event))
        if isinstance(event, ChildEnded):
            return event.usage
    return None


def _ended(child: str, found: ExecutionRecord, usage: Usage | None) -> ChildEnded:
    state: Any = found.state
    said: Any = None
    match end_of(found):
        case ExecutionComplete(result=result):
            said = result if isinstance(result, str) or result is None else encode_value(result).decode()
        case ExecutionError(error=error):
            said = error
        case ExecutionCancelled(reason=reason):
            said = reason
    return ChildEnded(
        execution_id=child, state=state, summary=shortened(said, SUMMARY_CHARS) if said else None, usage=usage
    )


def shortened(text: str, chars: int) -> str:
    """A text, or its beginning and an ellipsis."""
    return text if len(text) <= chars else text[: chars - 1] + "…"
