"""What an execution was started with, as its record has it: without credentials, and only for its owner."""

from __future__ import annotations

from typing import Any

import msgspec
from redis.asyncio import Redis

from broker.executions.clipping import CLIPPED
from broker.executions.types import ExecutionId, OnDisconnect, _Response
from emitter.budgets import Budget
from emitter.errors import UnknownExecution
from emitter.events import State
from emitter.values import Millis
from emitter.wire.keys import Owner
from emitter.wire.record import ExecutionRecord, Field, Selection, read_object

MAX_STATE_PARAMS_BYTES = 512 * 1024
"""Bytes of JSON of `params` in a folded state; above, its largest members are clipped. `AcceptedRequest` has all."""
_ACCEPTED = Selection(
    Field.STATE, Field.TASK, Field.AGENT, Field.PARAMS, Field.METADATA, Field.CONVERSATION_ID, Field.NOT_BEFORE,
    Field.CANCEL_AFTER, Field.BUDGET, Field.CREATED_AT, Field.BY, Field.ATTEMPT, Field.PARENT, Field.ROOT,
    Field.ON_PARENT_END, Field.CHILD_KEY,
)  # fmt: skip


class AcceptedRequest(_Response, frozen=True):
    """The request that started an execution. Credentials in it are `"[redacted]"`. `by`: who sent it; an execution that
    another started has a `parent` instead. `budget`: the smallest of the limits that were given and those of the
    settings. An execution that was never requested, but published, has only its id, state and owner."""

    execution_id: ExecutionId
    state: State
    user: str
    org: str
    by: str | None = None
    task: str | None = None
    agent: str | None = None
    params: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    conversation_id: str | None = None
    not_before: Millis | None = None
    on_disconnect: OnDisconnect | None = None
    budget: Budget | None = None
    created_at: Millis | None = None
    attempt: int | None = None
    parent: str | None = None
    root: str | None = None
    on_parent_end: str | None = None
    key: str | None = None

    @property
    def shared(self) -> AcceptedRequest:
        """What a share link shows of it: nothing of other executions, nor the application's own data."""
        return AcceptedRequest(
            execution_id=self.execution_id,
            state=self.state,
            user=self.user,
            org=self.org,
            task=self.task,
            agent=self.agent,
            params=self.params,
            budget=self.budget,
            created_at=self.created_at,
            attempt=self.attempt,
        )


async def accepted(redis: Redis, owner: Owner, execution_id: str) -> AcceptedRequest:
    """Raises `UnknownExecution`."""
    client: Any = redis
    record = _ACCEPTED.read(await client.hmget(owner.execution(execution_id).record, *_ACCEPTED.names))
    if record.state is None:
        raise UnknownExecution(execution_id)
    wait_ms = record.cancel_after_ms
    return AcceptedRequest(
        execution_id=execution_id,
        state=record.state,
        user=owner.user,
        org=owner.org,
        by=record.by or None,
        task=record.task,
        agent=record.agent or None,
        params=params_of(record),
        metadata=_object(record.metadata) or None,
        conversation_id=record.conversation_id or None,
        not_before=record.not_before_ms or None,
        on_disconnect=OnDisconnect(cancel_after_seconds=wait_ms / 1000) if wait_ms else None,
        budget=record.budget or None,
        created_at=record.created_ms or None,
        attempt=record.attempt or None,
        parent=record.parent or None,
        root=record.root or None,
        on_parent_end=record.on_parent_end or None,
        key=record.child_key or None,
    )


def params_of(record: ExecutionRecord) -> dict[str, Any] | None:
    """`None` for an execution that was not started by a request."""
    return _object(record.params) if record.created_ms else None


def shown_params(record: ExecutionRecord, max_bytes: int = MAX_STATE_PARAMS_BYTES) -> dict[str, Any] | None:
    """The same with at most this many bytes of values: the largest are `{"clipped": true}`."""
    params = params_of(record)
    if params is None or len(record.params) <= max_bytes:
        return params
    sizes = {name: len(msgspec.json.encode(value)) for name, value in params.items()}
    total = sum(sizes.values())
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if total <= max_bytes:
            break
        params[name] = dict(CLIPPED)
        total -= sizes[name]
    return params


def _object(encoded: bytes) -> dict[str, Any]:
    """Another program may have written something else: that counts as empty."""
    try:
        return read_object(encoded)
    except ValueError:
        return {}
