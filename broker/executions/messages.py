"""What people say to running agents: send, list, withdraw. `broker.executions.takes` is for those who take it."""

from __future__ import annotations

import secrets
from typing import Any

import structlog
from redis.asyncio import Redis

from broker.base.identity import Identity
from broker.executions.message_types import (
    MessageList,
    MessageRequest,
    MessageResponse,
)
from broker.executions.types import UserMessageState
from emitter.errors import (
    AlreadySent,
    ExecutionEnded,
    NotSteerable,
    UnknownExecution,
    UnknownMessage,
)
from emitter.events import UserMessage, UserMessageDropped
from emitter.store import announcements
from emitter.store.append import LogLimits, append, prepare
from emitter.store.connection import repeated
from emitter.store.messages import prepare_message
from emitter.wire.keys import Owner
from emitter.wire.prepared import Prepared, Redaction
from emitter.wire.record import ExecutionRecord, Field, Selection
from emitter.wire.record import message as message_field
from emitter.wire.user_messages import read_message

log = structlog.get_logger("broker")

_FACTS = Selection(Field.STATE, Field.AGENT, Field.ACCEPTS, Field.ATTEMPT, Field.MESSAGES, Field.INBOX)


class Messages:
    """The messages of one edge's callers."""

    def __init__(self, redis: Redis, limits: LogLimits, redact: Redaction) -> None:
        self._redis: Any = redis
        self._limits = limits
        self._redact = redact

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

    async def has(self, owner: Owner, execution_id: str, message_id: str) -> bool:
        """Whether a message with this id was sent to the execution."""
        return message_id in (await self._read(owner, execution_id, message_id)).message_bodies

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
        number, _, _ = facts.message_counts
        ids: list[str] = []
        if number:
            numbers = Selection(*(f"{Field.ORDER}{place}" for place in range(1, number + 1)))
            ids = list(numbers.read(await self._redis.hmget(key, *numbers.names)).message_order.values())
            # With the facts again: the states of all messages are of one moment.
            each = Selection(*_FACTS.names, *(prefix + id_ for id_ in ids for prefix in (Field.MESSAGE, Field.DROPPED)))
            facts = each.read(await self._redis.hmget(key, *each.names))
        if not facts.exists:
            raise UnknownExecution(execution_id)
        _, _, inbox_of = facts.message_counts
        waiting = set(ids) if facts.attempt > inbox_of else set(facts.inbox)
        return MessageList(
            messages=[
                _shown(facts.message_bodies[id_], _state(id_, id_ in waiting, facts.dropped_messages, facts))
                for id_ in ids
                if id_ in facts.message_bodies
            ],
            accepts_messages=not facts.has_ended and await self._is_steerable(facts),
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
