"""What people say to running agents: send, list, withdraw; and take, for what runs an execution over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Any

import structlog
from redis.asyncio import Redis

from broker.base.identity import Identity
from broker.executions.message_types import (
    MessageList,
    MessageRequest,
    MessageResponse,
    TakenMessage,
    TakeRequest,
    TakeResponse,
)
from broker.executions.types import UserMessageState
from emitter.errors import (
    AlreadySent,
    ExecutionEnded,
    ExecutionOwned,
    NotSteerable,
    UnknownExecution,
    UnknownMessage,
)
from emitter.events import UserMessage, UserMessageDropped
from emitter.store import announcements
from emitter.store.append import LogLimits, append, prepare
from emitter.store.connection import repeated
from emitter.store.control import ControlChannel
from emitter.store.holds import renew_holds
from emitter.store.messages import WAKE, prepare_message, take_messages
from emitter.wire.keys import Owner
from emitter.wire.prepared import Prepared, Redaction
from emitter.wire.record import ExecutionRecord, Field, Selection
from emitter.wire.record import message as message_field
from emitter.wire.user_messages import read_message

log = structlog.get_logger("broker")

RECHECK_SECONDS = 2.0
"""How often a waiting take looks, if it is not woken."""
LIVE_SECONDS = 10.0
"""How often it renews the lease of who waits."""
_FACTS = Selection(Field.STATE, Field.ATTEMPT, Field.MESSAGES, Field.INBOX)
_RUNS = Selection(Field.STATE, Field.OWNER)


class Messages:
    """The messages of one edge's callers."""

    def __init__(self, redis: Redis, limits: LogLimits, redact: Redaction) -> None:
        self._redis: Any = redis
        self._limits = limits
        self._redact = redact
        self._control = ControlChannel(redis)

    async def aclose(self) -> None:
        """End the waits for messages."""
        await self._control.aclose()

    # --- people ------------------------------------------------------------------------------------------------------

    async def send(
        self, identity: Identity, execution_id: str, request: MessageRequest, request_id: str
    ) -> MessageResponse:
        """Send a message; one whose `messageId` was sent before changes nothing. Raises `UnknownExecution`,
        `ExecutionEnded`, `NotSteerable`, `TooManyMessages`, `PayloadTooLarge`, `InvalidEvent`."""
        message_id = request.message_id or "msg_" + secrets.token_hex(12)
        answer = MessageResponse(execution_id=execution_id, message_id=message_id, state="queued")
        record = await self._read(identity.owner, execution_id, message_id)
        if message_id in record.message_bodies:
            return answer
        if record.has_ended:
            raise ExecutionEnded(execution_id, record.state or "")
        if not await self._is_steerable(record):
            raise NotSteerable(execution_id, record.agent)
        event = UserMessage(
            message_id=message_id, by=identity.name, mode=request.mode, text=request.text, data=request.data
        )
        prepared = prepare_message(event, execution_id, redact=self._redact, request_id=request_id, limits=self._limits)
        try:
            await repeated(lambda: self._append(identity.owner, execution_id, prepared))
        except AlreadySent:
            pass
        except ExecutionEnded:
            if message_id not in (await self._read(identity.owner, execution_id, message_id)).message_bodies:
                raise
        return answer

    async def is_steerable(self, owner: Owner, execution_id: str) -> bool:
        """Whether a message to this execution would be taken: it has not ended, and what runs it takes messages."""
        record = await self._read(owner, execution_id, "-")
        return not record.has_ended and await self._is_steerable(record)

    async def _is_steerable(self, record: ExecutionRecord) -> bool:
        """What has begun says so in the record; of an agent that is waited for, its workers do."""
        return record.accepts or (bool(record.agent) and await announcements.takes_messages(self._redis, record.agent))

    async def withdraw(
        self, identity: Identity, execution_id: str, message_id: str, request_id: str
    ) -> MessageResponse:
        """Withdraw a message that nobody has taken; a repeat changes nothing. Raises `UnknownExecution`,
        `UnknownMessage`, `MessageTaken`, `ExecutionEnded`."""
        answer = MessageResponse(execution_id=execution_id, message_id=message_id, state="dropped")
        record = await self._read(identity.owner, execution_id, message_id)
        if message_id not in record.message_bodies:
            raise UnknownMessage(execution_id)
        if message_id in record.dropped_messages:
            return answer
        event = UserMessageDropped(message_id=message_id, reason="withdrawn")
        prepared = prepare(
            event, execution_id, redact=self._redact, request_id=request_id, max_bytes=self._limits.max_event_bytes
        )
        try:
            await repeated(lambda: self._append(identity.owner, execution_id, prepared))
        except UnknownMessage:  # another request was faster
            if message_id not in (await self._read(identity.owner, execution_id, message_id)).dropped_messages:
                raise
        return answer

    async def list(self, owner: Owner, execution_id: str) -> MessageList:
        """All messages in their order, with their states. Raises `UnknownExecution`."""
        key = owner.execution(execution_id).record
        facts = _FACTS.read(await self._redis.hmget(key, *_FACTS.names))
        if not facts.exists:
            raise UnknownExecution(execution_id)
        number, _, inbox_of = facts.message_counts
        if not number:
            return MessageList(messages=[])
        numbers = Selection(*(f"{Field.ORDER}{place}" for place in range(1, number + 1)))
        ids = list(numbers.read(await self._redis.hmget(key, *numbers.names)).message_order.values())
        each = Selection(*(prefix + id_ for id_ in ids for prefix in (Field.MESSAGE, Field.DROPPED)))
        found = each.read(await self._redis.hmget(key, *each.names))
        waiting = set(ids) if facts.attempt > inbox_of else set(facts.inbox)
        return MessageList(
            messages=[
                _shown(found.message_bodies[id_], _state(id_, id_ in waiting, found.dropped_messages, facts))
                for id_ in ids
                if id_ in found.message_bodies
            ]
        )

    async def _read(self, owner: Owner, execution_id: str, message_id: str) -> ExecutionRecord:
        wanted = Selection(
            Field.STATE, Field.AGENT, Field.ACCEPTS, message_field(message_id), Field.DROPPED + message_id
        )
        record = wanted.read(await self._redis.hmget(owner.execution(execution_id).record, *wanted.names))
        if not record.exists:
            raise UnknownExecution(execution_id)
        return record

    async def _append(self, owner: Owner, execution_id: str, event: Prepared) -> None:
        await append(self._redis, owner, execution_id, [event], mode="existing", limits=self._limits)

    # --- what runs it ------------------------------------------------------------------------------------------------

    async def take(
        self, owner: Owner, execution_id: str, request: TakeRequest, attempt: int, has_left: Callable[[], bool]
    ) -> TakeResponse:
        """Take the messages that wait for this attempt (0: the newest); none after `waitSeconds` without one, or when
        the caller `has_left`. Raises `UnknownExecution`, `ExecutionEnded`, `Superseded`, and `ExecutionOwned` if a
        worker runs it and no attempt is named."""
        keys = owner.execution(execution_id)
        record = _RUNS.read(await self._redis.hmget(keys.record, *_RUNS.names))
        if record.owner and not attempt:
            raise ExecutionOwned(execution_id, record.owner)
        wake = asyncio.Event()
        loop = asyncio.get_running_loop()
        until, renewed = loop.time() + request.wait_seconds, -LIVE_SECONDS
        with self._control.waiting_for(keys.control, WAKE, wake.set) if request.wait_seconds else _nothing():
            while not has_left():
                wake.clear()
                if not record.owner and loop.time() - renewed >= LIVE_SECONDS:
                    renewed = loop.time()
                    await renew_holds(self._redis, [keys.record], Field.SEEN)
                taken = await take_messages(
                    self._redis, owner, execution_id, attempt, take=request.take_id or "", most=request.max,
                    mode="claimed" if record.owner else "existing", redact=self._redact, limits=self._limits,
                )  # fmt: skip
                if taken or (left := until - loop.time()) <= 0:
                    return TakeResponse(execution_id=execution_id, messages=[_taken(each) for each in taken])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, RECHECK_SECONDS)):
                        await wake.wait()
        return TakeResponse(execution_id=execution_id, messages=[])


def _nothing() -> contextlib.nullcontext[None]:
    return contextlib.nullcontext()


def _taken(message: Any) -> TakenMessage:
    return TakenMessage(
        message_id=message.message_id,
        text=message.text,
        data=message.data,
        by=message.by,
        mode=message.mode,
        sent_at=message.sent_at,
    )


def _state(id_: str, is_waiting: bool, dropped: Any, facts: ExecutionRecord) -> tuple[Any, Any]:
    """The state of a message, and why it was dropped."""
    if (reason := dropped.get(id_)) is not None:
        return "dropped", reason
    if is_waiting:
        return ("dropped", "ended") if facts.has_ended else ("queued", None)
    return "taken", None


def _shown(body: bytes, state: tuple[Any, Any]) -> UserMessageState:
    message = read_message(body)
    return UserMessageState(
        message_id=message.message_id,
        text=message.text,
        data=message.data,
        by=message.by,
        mode=message.mode,
        sent_at=message.sent_at,
        state=state[0],
        reason=state[1],
    )
