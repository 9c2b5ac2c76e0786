"""The tree below an execution, by the records of those in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec
from redis.asyncio import Redis

from broker.executions.tree_types import ExecutionNode
from emitter.errors import UnknownExecution
from emitter.events import State, Usage
from emitter.store.append import LogLimits
from emitter.store.children import DETACH, Children
from emitter.wire.keys import Owner
from emitter.wire.prepared import Redaction
from emitter.wire.record import ExecutionRecord, Field, Selection
from emitter.wire.usage import add_usage

MAX_NODES = 1_000
"""Executions in one answer; those nearest to the top come first."""
MAX_USAGES = 50
"""Logs that are read for what an execution has used so far."""
_NODE = Selection(
    Field.STATE, Field.AGENT, Field.TASK, Field.PARENT, Field.ROOT, Field.CHILD_KEY, Field.ON_PARENT_END,
    Field.CREATED_AT, Field.MS, Field.USAGE, Field.CHILDREN,
)  # fmt: skip


class Trees:
    """The trees of one edge."""

    def __init__(self, redis: Redis, limits: LogLimits, redact: Redaction) -> None:
        self._redis: Any = redis
        self._children = Children(redis, limits, redact)

    async def of(self, owner: Owner, execution_id: str) -> ExecutionNode:
        """An execution and those below it. Raises `UnknownExecution`."""
        records = dict(await self._read(owner, [execution_id]))
        if execution_id not in records:
            raise UnknownExecution(execution_id)
        below: dict[str, Sequence[str]] = {}
        level = [execution_id]
        while level:
            named = await self._named(owner, [each for each in level if records[each].children])
            room = MAX_NODES - len(records)
            found = dict(await self._read(owner, [child for ids in named.values() for child in ids][: max(0, room)]))
            for parent, ids in named.items():
                below[parent] = [child for child in ids if child in found and child not in records]
            records |= found
            level = [child for parent in named for child in below[parent]]
        usages = await self._usages(owner, records)
        return _node(execution_id, records, below, usages)

    async def _named(self, owner: Owner, parents: Sequence[str]) -> dict[str, list[str]]:
        """Parent → its children, in the order in which they were started."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for parent in parents:
                pipe.zrange(owner.execution(parent).children, 0, MAX_NODES - 1)
            rows = await pipe.execute() if parents else []
        return {parent: [name.decode() for name in row] for parent, row in zip(parents, rows, strict=True)}

    async def _read(self, owner: Owner, ids: Sequence[str]) -> list[tuple[str, ExecutionRecord]]:
        """The records that there are."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for execution_id in ids:
                pipe.hmget(owner.execution(execution_id).record, *_NODE.names)
            rows = await pipe.execute() if ids else []
        found = [(execution_id, _NODE.read(row)) for execution_id, row in zip(ids, rows, strict=True)]
        return [(execution_id, record) for execution_id, record in found if record.state in get_args(State)]

    async def _usages(self, owner: Owner, records: Mapping[str, ExecutionRecord]) -> dict[str, Usage | None]:
        """What each used without its children: of ended children the record has it, of others the log."""
        found: dict[str, Usage | None] = {}
        unknown = []
        for execution_id, record in records.items():
            if record.usage:
                found[execution_id] = _usage(record.usage)
            elif record.state != "queued":
                unknown.append(execution_id)
        for execution_id in unknown[:MAX_USAGES]:
            found[execution_id] = await self._children.own_usage(owner, execution_id)
        return found


def _usage(encoded: bytes) -> Usage | None:
    try:
        return msgspec.json.decode(encoded, type=Usage)
    except msgspec.MsgspecError:  # it used nothing
        return None


def _node(
    execution_id: str,
    records: Mapping[str, ExecutionRecord],
    below: Mapping[str, Sequence[str]],
    usages: Mapping[str, Usage | None],
) -> ExecutionNode:
    record = records[execution_id]
    children = [_node(child, records, below, usages) for child in below.get(execution_id, ())]
    usage = usages.get(execution_id)
    for child in children:
        usage = add_usage(usage, child.usage)
    state: Any = record.state
    return ExecutionNode(
        execution_id=execution_id,
        state=state,
        agent=record.agent or None,
        task=record.task,
        key=record.child_key or None,
        parent=record.parent or None,
        root=record.root or None,
        detached=record.on_parent_end == DETACH,
        created_at=record.created_ms or None,
        updated_at=record.ms,
        usage=usage,
        truncated=len(children) < record.children and len(records) >= MAX_NODES,
        children=children,
    )
