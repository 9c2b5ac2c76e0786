"""What a caller does to executions: start, look, cancel. Answers are in `inputs`; HTTP is in `broker.http.api`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.executions.accepted import params_of, shown_params
from broker.executions.budgets import BUDGET, budget_of
from broker.executions.fold import Fold
from broker.executions.inputs import Answers, open_inputs
from broker.executions.listing import Listing
from broker.executions.messages import Messages
from broker.executions.search import day_key
from broker.executions.types import (
    CancelResponse,
    EventPage,
    ExecuteRequest,
    ExecuteResponse,
    ExecutionState,
    Failure,
    LoggedEvent,
)
from broker.log.history import History
from emitter.budgets import Budget
from emitter.errors import (
    ExecutionEnded,
    ExecutionExists,
    UnknownExecution,
)
from emitter.events import InputRequired
from emitter.store import announcements
from emitter.store.append import LogLimits
from emitter.store.lifecycle import Lifecycle, Start, check_size
from emitter.tracing.trace import Trace
from emitter.wire.deltas import merged
from emitter.wire.entries import Entry
from emitter.wire.ids import START, EventId, new_execution_id, now_ms
from emitter.wire.keys import Owner
from emitter.wire.prepared import Redaction
from emitter.wire.record import ExecutionRecord, Field, Selection
from emitter.wire.record import open_input as input_field
from emitter.wire.webhooks import Webhook

IDEMPOTENCY_SECONDS = 86_400
STANDING_TRIES = 10
"""An agent may ask and close all the time."""
AGENTS_FRESH_SECONDS = 1.0
MAX_DELAY_SECONDS = 365 * 86_400
"""How late an execution may start where logs do not expire."""
_LATER = ExecuteRequest.__struct_encode_fields__[ExecuteRequest.__struct_fields__.index("on_disconnect") + 1 :]
"""Members of a request that 0.2 did not have. A key outlives an update, so they count only where they are set."""
_KEY = Selection(Field.KEY)
_PARAMS = Selection(Field.PARAMS, Field.CREATED_AT)
_ENDED = Selection(Field.STATE, Field.CONVERSATION_ID)
_STATE = Selection(
    Field.STATE, Field.TASK, Field.AGENT, Field.MS, Field.SEQ, Field.END, Field.OPEN, *_PARAMS.names, *BUDGET.names
)
_STATE_AND_STACK = Selection(*_STATE.names, Field.STACK)


class _Key:
    """An `Idempotency-Key` of one owner, and the request it came with."""

    def __init__(self, owner: Owner, key: str, request: ExecuteRequest) -> None:
        self.digest = hashlib.sha256(key.encode()).hexdigest()[:32]
        self.name = owner.idempotency(self.digest)
        self.body = hashlib.sha256(_canonical(request)).hexdigest()[:32]

    def execution_id(self, stored: bytes) -> str:
        """What was stored with the first request. Raises `Problem` 422 if that was another one."""
        execution_id, body = stored.decode().split(" ")
        if body != self.body:
            raise Problem(422, "idempotency-key-reused", "this Idempotency-Key came with another request before")
        return execution_id


def _canonical(request: ExecuteRequest) -> bytes:
    """The same for the same request, whatever members later versions have added."""
    encoded = msgspec.json.encode(request, order="deterministic")
    for name in reversed(_LATER):
        if encoded.endswith(unset := b',"%b":null}' % name.encode()):
            encoded = encoded.removesuffix(unset) + b"}"
    return encoded


class Commands:
    """The commands of one edge."""

    def __init__(self, redis: Redis, history: History, limits: LogLimits, redact: Redaction) -> None:
        self._redis: Any = redis
        self._history = history
        self._limits = limits
        self._lifecycle = Lifecycle(redis, limits, redact)
        self.answers = Answers(redis, limits, redact)
        self.messages = Messages(redis, limits, redact)
        self._agents: tuple[float, frozenset[str]] = (float("-inf"), frozenset())
        self.listing = Listing(redis, limits.finished_ttl_seconds + limits.tombstone_ttl_seconds)

    # --- start -------------------------------------------------------------------------------------------------------

    async def execute(
        self,
        identity: Identity,
        request: ExecuteRequest,
        *,
        request_id: str,
        idempotency_key: str | None,
        trace: Trace | None = None,
        webhooks: Mapping[str, Webhook] = {},
    ) -> tuple[ExecuteResponse, bool]:
        """Accept an execution, as part of `trace`, and queue its job; whether it was new. Raises `Problem` 422 (unknown
        agent, a key used for another request), `ExecutionExists`, `PayloadTooLarge`, `TooManyQueued`."""
        owner = identity.owner
        key = None if idempotency_key is None else _Key(owner, idempotency_key, request)
        execution_id = None if key is None else await self._first_answer(key)
        if key is not None and execution_id is not None and await self._is_first(key, owner, execution_id):
            await self._lifecycle.offer(owner, execution_id)
            return _accepted(execution_id), False  # even if no worker knows the agent any more
        start = self._start(request, await self._agent(request.agent), request_id, key, trace, webhooks, identity.name)
        execution_id = execution_id or request.execution_id or new_execution_id()
        if key is not None:
            execution_id = await self._reserve(key, execution_id)
        is_new = await self._accept(owner, execution_id, start, request)
        if not is_new and (key is None or not await self._is_first(key, owner, execution_id)):
            head = await self._history.head(owner.execution(execution_id).record)
            raise ExecutionExists(execution_id, head.state if head else "unknown")
        return _accepted(execution_id), is_new

    async def _accept(self, owner: Owner, execution_id: str, start: Start, request: ExecuteRequest) -> bool:
        """Accept an execution, perhaps one that another starts; whether it is new."""
        if request.parent_execution_id is None:
            return await self._lifecycle.accept(owner, execution_id, start)
        try:
            above = await self._lifecycle.children.parentage(
                owner, request.parent_execution_id, on_parent_end=request.on_parent_end or ""
            )
        except UnknownExecution:
            what = "there is no such execution to be its parent"
            raise Problem(404, "unknown-execution", what, path="$.parentExecutionId") from None
        start = msgspec.structs.replace(start, above=above)
        return await self._lifecycle.start_child(owner, execution_id, start)

    async def settle(self, owner: Owner, execution_id: str) -> None:
        """What follows from the end of an execution that was published."""
        await self._lifecycle.settle(owner, execution_id)

    async def _is_first(self, key: _Key, owner: Owner, execution_id: str) -> bool:
        """Whether this key's first request began the execution; another may have had the same id."""
        record = _KEY.read(await self._redis.hmget(owner.execution(execution_id).record, *_KEY.names))
        return record.key == key.digest

    def _start(
        self,
        request: ExecuteRequest,
        agent: str,
        request_id: str,
        key: _Key | None,
        trace: Trace | None,
        webhooks: Mapping[str, Webhook],
        by: str,
    ) -> Start:
        latest = now_ms() + (self._limits.ttl_seconds or MAX_DELAY_SECONDS) * 900
        if request.not_before is not None and request.not_before > latest:
            # By then its log would have expired, or be about to.
            raise Problem(422, "invalid", f"notBefore is at most {latest}", path="$.notBefore", latest=latest)
        start = Start(
            task=request.task,
            agent=agent,
            params=request.params,
            metadata=request.metadata,
            request_id=request_id,
            conversation_id=request.conversation_id,
            not_before=request.not_before,
            cancel_after_seconds=request.on_disconnect.cancel_after_seconds if request.on_disconnect else None,
            key="" if key is None else key.digest,
            budget=Budget() if request.budget is None else request.budget.limits,
            trace=trace,
            webhooks=dict(webhooks),
            by=by,
        )
        check_size(start, self._limits)  # before anything is kept of the request
        return start

    async def _agent(self, name: str | None) -> str:
        asked, known = self._agents
        if time.monotonic() - asked > AGENTS_FRESH_SECONDS:
            known = await self._known_agents()
        if (found := _one_of(known, name)) is None:
            known = await self._known_agents()  # it may be new
            found = _one_of(known, name)
        if found is None:
            what = "name an agent" if name is None else f"no worker knows an agent {name[:80]!r}"
            raise Problem(422, "unknown-agent", what, path="$.agent", known=sorted(known))
        return found

    async def _known_agents(self) -> frozenset[str]:
        known = frozenset(await announcements.known_agents(self._redis))
        self._agents = (time.monotonic(), known)
        return known

    async def _first_answer(self, key: _Key) -> str | None:
        """The execution id that the first request with this key got, if there was one."""
        stored = await self._redis.get(key.name)
        return None if stored is None else key.execution_id(stored)

    async def _reserve(self, key: _Key, execution_id: str) -> str:
        """The execution id for this key: the one proposed, unless another request came first."""
        stored = await self._redis.set(
            key.name, f"{execution_id} {key.body}", nx=True, get=True, ex=IDEMPOTENCY_SECONDS
        )
        return execution_id if stored is None else key.execution_id(stored)

    # --- look --------------------------------------------------------------------------------------------------------

    async def state(self, owner: Owner, execution_id: str, *, with_stack: bool) -> ExecutionState:
        """The log, folded up to where it was when its record was read: both say the same. Where the log is trimmed or
        gone, the record fills in what it knows."""
        record, waits_for = await self._standing(owner, execution_id, with_stack=with_stack)
        fold = Fold(execution_id)
        async for entry in self._entries(owner, execution_id, START):
            if entry.seq > record.last.seq:
                break
            fold.apply_entry(entry)
        state = fold.state()
        if state.cursor in ("", "0-0") and (end := record.terminal_event) is not None:
            fold.apply_entry(end)
            state = fold.state()
        return _completed(state, record, waits_for)

    async def params(self, owner: Owner, execution_id: str) -> dict[str, Any]:
        """What an execution was started with, without credentials. A value that is no object counts as empty."""
        record = _PARAMS.read(await self._redis.hmget(owner.execution(execution_id).record, *_PARAMS.names))
        return params_of(record) or {}

    async def _record(self, owner: Owner, execution_id: str, *, with_stack: bool) -> ExecutionRecord:
        selection = _STATE_AND_STACK if with_stack else _STATE
        record = selection.read(await self._redis.hmget(owner.execution(execution_id).record, *selection.names))
        if not record.exists:
            raise UnknownExecution(execution_id)
        return record

    async def _standing(
        self, owner: Owner, execution_id: str, *, with_stack: bool = False
    ) -> tuple[ExecutionRecord, list[InputRequired]]:
        """The record, and what the execution waits for. If that has changed between the two reads, both are repeated, a
        few times: an execution that waits, but for nothing, there never was. Raises `UnknownExecution`."""
        for _ in range(STANDING_TRIES):
            record = await self._record(owner, execution_id, with_stack=with_stack)
            if not record.open_inputs or record.has_ended:
                return record, []
            asked = Selection(Field.OPEN, *map(input_field, record.open_inputs))
            found = asked.read(await self._redis.hmget(owner.execution(execution_id).record, *asked.names))
            if found.open_inputs == record.open_inputs:
                break
        return record, open_inputs(found.inputs.values())

    async def _entries(self, owner: Owner, execution_id: str, after: EventId) -> AsyncIterator[Entry]:
        async for page in self.pages(owner, execution_id, after):
            for entry in page:
                yield entry

    async def pages(self, owner: Owner, execution_id: str, after: EventId = START) -> AsyncIterator[Sequence[Entry]]:
        """The log as it is now."""
        keys = owner.execution(execution_id)
        while True:
            page = await self._history.read(keys.log, after, record=keys.record, shared=False)
            yield page.entries
            if page.end or not page.entries:
                return
            after = page.cursor

    async def open_inputs(self, owner: Owner, execution_id: str) -> ExecutionRecord:
        """The ids of its open inputs, and where its log ends. Raises `UnknownExecution`."""
        return await self._record(owner, execution_id, with_stack=False)

    async def questions(self, owner: Owner, execution_id: str) -> list[InputRequired]:
        """What it waits for. Raises `UnknownExecution`."""
        return (await self._standing(owner, execution_id))[1]

    async def terminal_event(self, owner: Owner, execution_id: str) -> Entry | None:
        """How an execution ended whose log has gone."""
        keys = owner.execution(execution_id)
        return await self._history.terminal_event(keys.log, keys.record)

    async def has_head(self, owner: Owner, execution_id: str) -> bool:
        """Whether the log has its first event, or nothing was written yet."""
        keys = owner.execution(execution_id)
        page = await self._history.read(keys.log, START, record=keys.record, limit=1, shared=False)
        return page.reset is None

    async def events(
        self, owner: Owner, execution_id: str, *, after: EventId, limit: int, is_compact: bool = False
    ) -> EventPage:
        """One page of the log as it was when its state was read: up to `limit` events, of which neighbours that are
        chunks of one text may be one."""
        keys = owner.execution(execution_id)
        head = await self._history.head(keys.record)
        if head is None:
            raise UnknownExecution(execution_id)
        page = await self._history.read(keys.log, after, record=keys.record, limit=limit, shared=False)
        entries = [entry for entry in page.entries if entry.seq <= head.last.seq]
        shown = merged(entries, self._limits.max_event_bytes) if is_compact else entries
        more = not page.end or len(entries) < len(page.entries)
        return EventPage(
            events=[LoggedEvent(id=str(entry.id), event=msgspec.Raw(entry.json)) for entry in shown],
            state=head.state,
            next_after=str(entries[-1].id) if entries and more else None,
            first_seq=entries[0].seq if page.reset and entries else None,
        )

    async def export(self, owner: Owner, execution_id: str, after: EventId) -> AsyncIterator[bytes]:
        """The log as NDJSON lines `{"id":…,"event":…}`, as many at a time as a read has. Raises `UnknownExecution`."""
        if await self._history.head(owner.execution(execution_id).record) is None:
            raise UnknownExecution(execution_id)
        async for page in self.pages(owner, execution_id, after):
            yield b"".join(b'{"id":"%d-%d","event":%b}\n' % (entry.ms, entry.seq, entry.json) for entry in page)

    # --- steer -------------------------------------------------------------------------------------------------------

    async def cancel(
        self, identity: Identity, execution_id: str, reason: str | None, request_id: str
    ) -> CancelResponse:
        """Cancel, or ask the worker to. A repeat changes nothing. Raises `UnknownExecution`, `ExecutionEnded`."""
        state = await self._lifecycle.cancel(
            identity.owner, execution_id, reason=reason, by=identity.name, request_id=request_id
        )
        if state in ("completed", "failed"):
            raise ExecutionEnded(execution_id, state)
        return CancelResponse(execution_id=execution_id, state=state)

    async def forget(self, owner: Owner, execution_id: str) -> None:
        """Delete the log and the record of an execution that has ended, and what is found and shared of it, as their
        time to live will do. What the owner's feed has of it stays until the feed is trimmed. Raises
        `UnknownExecution`, and `Problem` 409 if it has not ended."""
        keys = owner.execution(execution_id)
        record = _ENDED.read(await self._redis.hmget(keys.record, *_ENDED.names))
        if not record.exists:
            raise UnknownExecution(execution_id)
        if not record.has_ended:
            raise Problem(409, "execution-running", "it has not ended; cancel it first", state=record.state)
        created = await self._redis.zscore(owner.index, execution_id)
        async with self._redis.pipeline(transaction=True) as together:
            together.delete(keys.log, keys.record, keys.children, owner.shares(execution_id))
            if created is not None:
                together.hdel(day_key(owner, int(created)), execution_id)
            together.zrem(owner.index, execution_id)
            if record.conversation_id:
                together.zrem(owner.conversation(record.conversation_id), execution_id)
            await together.execute()


def _one_of(known: frozenset[str], name: str | None) -> str | None:
    """The agent of this name; without one, the only agent."""
    if name is None:
        return next(iter(known)) if len(known) == 1 else None
    return name if name in known else None


def _accepted(execution_id: str) -> ExecuteResponse:
    return ExecuteResponse(
        execution_id=execution_id, state="queued", stream_url=f"/api/agent/executions/{execution_id}/stream"
    )


def _completed(state: ExecutionState, record: ExecutionRecord, waits_for: list[InputRequired]) -> ExecutionState:
    changes: dict[str, Any] = {"status": record.state, "cursor": str(record.last), "params": shown_params(record)}
    if state.task is None:
        changes["task"] = record.task
    if state.agent is None:
        changes["agent"] = record.agent or None
    if not record.has_ended:
        changes["open_inputs"] = waits_for
    if (budget := budget_of(record)) is not None:
        changes["budget"] = budget
    if record.stack is not None and state.error is not None:
        changes["error"] = Failure(error=state.error.error, code=state.error.code, stack=record.stack)
    return msgspec.structs.replace(state, **changes)
