"""Taking people's messages over HTTP, for what runs an execution there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis

from broker.executions.message_types import TakenMessage, TakeRequest, TakeResponse
from emitter.errors import ExecutionOwned
from emitter.store.append import LogLimits, Mode, claimed_by
from emitter.store.control import ControlChannel
from emitter.store.holds import renew_holds
from emitter.store.messages import WAKE, take_messages
from emitter.wire.keys import Owner
from emitter.wire.prepared import Redaction
from emitter.wire.record import Field, Selection
from emitter.wire.user_messages import Message

RECHECK_SECONDS = 2.0
"""How often a waiting take looks, if it is not woken."""
LIVE_SECONDS = 10.0
"""How often it renews the lease of who waits."""
AT_ONCE = 32
"""Takes that ask Redis at a time, on a connection each: a message wakes all that wait for one."""
_RUNS = Selection(Field.STATE, Field.OWNER)


class Takes:
    """The takes of one edge's callers."""

    def __init__(self, redis: Redis, limits: LogLimits, redact: Redaction) -> None:
        self._redis: Any = redis
        self._limits = limits
        self._redact = redact
        self._control = ControlChannel(redis)
        self._asking = asyncio.Semaphore(AT_ONCE)
        self._is_closed = False

    async def aclose(self) -> None:
        """End the waits for messages."""
        self._is_closed = True
        await self._control.aclose()

    async def take(
        self,
        owner: Owner,
        execution_id: str,
        request: TakeRequest,
        attempt: int,
        has_left: Callable[[], bool],
        worker: str = "",
    ) -> TakeResponse:
        """Take the messages that wait for this attempt (0: the newest), as the `worker` that has claimed it; none after
        `waitSeconds` without one, or when the caller `has_left`. Raises `UnknownExecution`, `ExecutionEnded`,
        `Superseded`, and `ExecutionOwned` if a worker runs it, or is waited for, and no attempt is named."""
        keys = owner.execution(execution_id)
        async with self._asking:
            record = _RUNS.read(await self._redis.hmget(keys.record, *_RUNS.names))
        if not attempt and (record.owner or record.state == "queued"):
            raise ExecutionOwned(execution_id, record.owner or "to come")
        mode: Mode = claimed_by(worker) if worker else "claimed" if record.owner else "existing"
        wake = asyncio.Event()
        loop = asyncio.get_running_loop()
        until, renewed = loop.time() + request.wait_seconds, -LIVE_SECONDS
        with self._control.waiting_for(keys.control, WAKE, wake.set) if request.wait_seconds else _nothing():
            while not (has_left() or self._is_closed):
                wake.clear()
                async with self._asking:
                    if not record.owner and loop.time() - renewed >= LIVE_SECONDS:
                        renewed = loop.time()
                        await renew_holds(self._redis, [keys.record], Field.SEEN)
                    taken = await take_messages(
                        self._redis, owner, execution_id, attempt, take=request.take_id or "", most=request.max,
                        mode=mode, redact=self._redact, limits=self._limits,
                    )  # fmt: skip
                if taken or (left := until - loop.time()) <= 0:
                    return TakeResponse(execution_id=execution_id, messages=[_taken(each) for each in taken])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, RECHECK_SECONDS)):
                        await wake.wait()
        return TakeResponse(execution_id=execution_id, messages=[])


def _nothing() -> contextlib.nullcontext[None]:
    return contextlib.nullcontext()


def _taken(message: Message) -> TakenMessage:
    return TakenMessage(
        message_id=message.message_id,
        text=message.text,
        data=message.data,
        by=message.by,
        mode=message.mode,
        sent_at=message.sent_at,
    )
