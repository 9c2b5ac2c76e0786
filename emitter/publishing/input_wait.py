"""One input, from the request to its answer or its expiry.

The execution's record has the first answer, from any person and for any attempt. An expired input is closed in the log
like an answered one, by `EXPIRED`; the append script decides which came first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from emitter.errors import (
    AlreadyAnswered,
    Declined,
    ExecutionEnded,
    InputExpired,
    RedisUnavailable,
    Superseded,
    UnknownExecution,
    UnknownInput,
)
from emitter.events import EXPIRED, Event, InputReceived, InputRequired
from emitter.publishing.outbox import Outbox
from emitter.store.connection import GONE
from emitter.store.control import ControlChannel
from emitter.store.holds import plan
from emitter.tasks import told_to_stop
from emitter.wire.ids import now_ms
from emitter.wire.keys import EXPIRIES, member
from emitter.wire.record import Field, Selection
from emitter.wire.record import answer as answer_field
from emitter.wire.record import open_input as input_field

RECHECK_SECONDS = 2.0
"""How often the record is read without a message on the control channel."""
RETRY_SECONDS = 0.5
CLOSE_SECONDS = 2.0
"""How long an expired input may wait for Redis to decide which came first."""


class Connected(Protocol):
    """A connection to Redis, as `Publisher` has it."""

    @property
    def redis(self) -> Redis: ...

    @property
    def control(self) -> ControlChannel: ...


class Emits(Protocol):
    """What an emitter does for its inputs."""

    async def emit(self, event: Event) -> None: ...

    def notice(self, event: Event) -> None:
        """Queue an event even if the queue is full."""


class InputState(NamedTuple):
    """An input in the record: its answer, and whether it is open."""

    answer: bytes | None
    is_open: bool


class InputWait:
    """`await InputWait(…).answer(seconds)` is the value of the answer. `begin` is called when it has to be waited
    for."""

    def __init__(
        self, request: InputRequired, publisher: Connected, outbox: Outbox, emitter: Emits, begin: Callable[[], None]
    ) -> None:
        self._request = request
        self._id = request.input_id
        self._publisher = publisher
        self._outbox = outbox
        self._emitter = emitter
        self._begin = begin
        self._keys = outbox.owner.execution(outbox.execution_id)
        self._selection = Selection(answer_field(self._id), input_field(self._id), Field.STATE, Field.ATTEMPT)
        self._is_requested = False

    async def answer(self, seconds: float | None) -> Any:
        """The first answer's value. Raises `InputExpired` if there is none within `seconds`, `Declined` if somebody
        gives none, `ExecutionEnded` or `Superseded` if none can come any more, and what `emit` raises."""
        try:
            answer: bytes | str | None
            async with asyncio.timeout(seconds) as time:
                answer = await self._first()
        except TimeoutError:
            if not time.expired():
                raise
            answer = await self._close()
        if self._is_requested and seconds is not None:
            await self._forget_expiry()
        return self._value(answer)

    def _value(self, answer: bytes | str | None) -> Any:
        given = {"by": EXPIRED} if answer is None else msgspec.json.decode(answer)
        if given.get("by") == EXPIRED:
            raise InputExpired(self._id)
        if given.get("declined") is True and self._request.kind != "approval":
            raise Declined(self._id)
        return given.get("value")

    async def _first(self) -> bytes:
        """The answer that an earlier attempt got, or the first one that comes."""
        state = await self._wait_for_state()
        if state.answer is not None:
            return state.answer
        await self._request_input()
        self._begin()
        wake = asyncio.Event()
        with self._publisher.control.waiting_for(self._keys.control, b"answer " + self._id.encode(), wake.set):
            while (state := await self._wait_for_state()).answer is None:
                if not state.is_open:
                    await self._request_again()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECHECK_SECONDS):
                        await wake.wait()
                wake.clear()
        return state.answer

    async def _request_again(self) -> None:
        """A failover of Redis has lost the request, or an answer has just closed it."""
        self._outbox.confirm()
        await self._flush()
        await self._plan_expiry()
        state = await self._wait_for_state()
        if not state.is_open and state.answer is None:
            await self._request_input()

    async def _request_input(self) -> None:
        """The reaper closes the question at its time if this process is gone by then, or no longer waits."""
        self._is_requested = True
        await self._plan_expiry()  # before: whatever happens after the question is in the log
        await self._emitter.emit(self._request)
        await self._flush()
        await self._plan_expiry()  # and after: perhaps Redis was away

    async def _flush(self) -> None:
        """Wait for Redis as long as it takes."""
        while True:
            with contextlib.suppress(RedisUnavailable):
                return await self._outbox.flush()

    async def _plan_expiry(self) -> None:
        """Plan the expiry, if there is one, by the clock of Redis, as the reaper does."""
        if self._request.expires_at is None:
            return
        left_ms, redis = self._request.expires_at - now_ms(), self._publisher.redis
        with contextlib.suppress(RedisError, *GONE):
            seconds, microseconds = await redis.time()
            await plan(redis, EXPIRIES, {self._expiry: seconds * 1000 + microseconds // 1000 + left_ms})

    async def _forget_expiry(self) -> None:
        with contextlib.suppress(RedisError, *GONE):
            await self._publisher.redis.zrem(EXPIRIES, self._expiry)

    @property
    def _expiry(self) -> str:
        """Its member of `EXPIRIES`."""
        return f"{member(self._outbox.owner, self._outbox.execution_id)} {self._id}"

    async def _close(self) -> bytes | str | None:
        """Close the input in the log; the answer, if one came before. While Redis is away that is not known: the input
        is closed later, and the agent goes on without an answer."""
        if not self._is_requested:
            return None
        try:
            self._emitter.notice(InputReceived(input_id=self._id, by=EXPIRED))
            await self._outbox.flush(CLOSE_SECONDS)
        except AlreadyAnswered as first:
            return first.answer
        except (RedisUnavailable, UnknownInput):
            pass
        return None

    async def _wait_for_state(self) -> InputState:
        """Read the record; waits for Redis. Raises if no answer can come."""
        while not told_to_stop():
            self._outbox.check()
            try:
                state = await self._read()
            except (RedisError, *GONE):
                await asyncio.sleep(RETRY_SECONDS)
            else:
                if not told_to_stop():
                    return state
        raise asyncio.CancelledError

    async def _read(self) -> InputState:
        client: Any = self._publisher.redis
        found = self._selection.read(await client.hmget(self._keys.record, *self._selection.names))
        execution_id, own = self._outbox.execution_id, self._outbox.attempt
        answer = found.answers.get(self._id)
        if answer is None and found.has_ended:
            raise ExecutionEnded(execution_id, found.state or "")
        if answer is None and 0 < own < found.attempt:
            raise Superseded(execution_id, found.attempt)
        if not found.exists and self._is_requested:
            raise UnknownExecution(execution_id)
        return InputState(answer, self._id in found.inputs)
