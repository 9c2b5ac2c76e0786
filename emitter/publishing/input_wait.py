"""One question to a person, from the asking to its answer or its end.

The record of the execution has the truth: the first answer, whoever gave it and while whichever attempt ran. A question
whose time is over is closed in the log like an answered one, by `EXPIRED`; the append script decides which came first.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, NamedTuple, Protocol

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from emitter.errors import (
    AlreadyAnswered,
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
from emitter.wire.record import question as question_field

RECHECK_SECONDS = 2.0
"""How often the record is looked at, whatever the control channel says."""
TRY_AGAIN_SECONDS = 0.5
CLOSE_SECONDS = 2.0
"""How long a question whose time is over may wait for Redis to say who was first."""


class Connected(Protocol):
    """What has the way to Redis: a `Publisher`."""

    @property
    def redis(self) -> Redis: ...

    @property
    def listener(self) -> ControlChannel: ...


class Voice(Protocol):
    """What an emitter does for its questions."""

    async def emit(self, event: Event) -> None: ...

    def notice(self, event: Event) -> None:
        """Queue an event whether or not there is room."""


class Look(NamedTuple):
    """What the record says of a question: its answer, and whether it is there to be answered."""

    answer: bytes | None
    is_asked: bool


class InputRequest:
    """`await Asking(…).answer(seconds)` is the value of the answer."""

    def __init__(self, question: InputRequired, publisher: Connected, lane: Outbox, voice: Voice) -> None:
        self._question = question
        self._id = question.input_id
        self._publisher = publisher
        self._lane = lane
        self._voice = voice
        self._keys = lane.owner.execution(lane.execution_id)
        self._looked_at = Selection(answer_field(self._id), question_field(self._id), Field.STATE, Field.ATTEMPT)
        self._is_asked = False

    async def answer(self, seconds: float | None) -> Any:
        """The first answer's value. Raises `InputExpired` when there is none within `seconds`, `ExecutionEnded` or
        `Superseded` when none will be of use, and what emitting raises."""
        try:
            answer: bytes | str | None
            async with asyncio.timeout(seconds) as time:
                answer = await self._first()
        except TimeoutError:
            if not time.expired():
                raise
            answer = await self._close()
        if self._is_asked and seconds is not None:
            await self._forget_expiry()
        return self._value(answer)

    def _value(self, answer: bytes | str | None) -> Any:
        given = {"by": EXPIRED} if answer is None else msgspec.json.decode(answer)
        if given.get("by") == EXPIRED:
            raise InputExpired(self._id)
        return given.get("value")

    async def _first(self) -> bytes:
        """The answer that an earlier attempt got, or the one that will be given."""
        look = await self._look()
        if look.answer is not None:
            return look.answer
        await self._ask()
        news = asyncio.Event()
        with self._publisher.listener.calling(self._keys.control, b"answer " + self._id.encode(), news.set):
            while (look := await self._look()).answer is None:
                if not look.is_asked:
                    await self._ask()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECHECK_SECONDS):
                        await news.wait()
                news.clear()
        return look.answer

    async def _ask(self) -> None:
        """Into the log, for the first time or because a failover of Redis lost it."""
        self._is_asked = True
        await self._voice.emit(self._question)
        while True:
            with contextlib.suppress(RedisUnavailable):
                await self._lane.flush()
                break
        if self._question.expires_at is not None:  # somebody closes it, should this wait not last so long
            await self._plan_expiry(self._question.expires_at - now_ms())

    async def _plan_expiry(self, left_ms: int) -> None:
        """By the clock of Redis, which the reaper goes by."""
        redis = self._publisher.redis
        with contextlib.suppress(RedisError, *GONE):
            seconds, microseconds = await redis.time()
            await plan(redis, EXPIRIES, {self._expiry: seconds * 1000 + microseconds // 1000 + left_ms})

    async def _forget_expiry(self) -> None:
        with contextlib.suppress(RedisError, *GONE):
            await self._publisher.redis.zrem(EXPIRIES, self._expiry)

    @property
    def _expiry(self) -> str:
        """What stands for the question in `EXPIRIES`."""
        return f"{member(self._lane.owner, self._lane.execution_id)} {self._id}"

    async def _close(self) -> bytes | str | None:
        """Close the question in the log; the answer that came before that, if one did. While Redis is away that cannot
        be known: the log gets it later, and the agent goes on without an answer."""
        if not self._is_asked:
            return None
        try:
            self._voice.notice(InputReceived(input_id=self._id, by=EXPIRED))
            await self._lane.flush(CLOSE_SECONDS)
        except AlreadyAnswered as first:
            return first.answer
        except (RedisUnavailable, UnknownInput):
            pass
        return None

    async def _look(self) -> Look:
        """At the record; waits for Redis. Raises why there will be no answer."""
        while not told_to_stop():
            self._lane.check()
            try:
                look = await self._read()
            except (RedisError, *GONE):
                await asyncio.sleep(TRY_AGAIN_SECONDS)
            else:
                if not told_to_stop():
                    return look
        raise asyncio.CancelledError

    async def _read(self) -> Look:
        client: Any = self._publisher.redis
        found = self._looked_at.read(await client.hmget(self._keys.record, *self._looked_at.names))
        execution_id, own = self._lane.execution_id, self._lane.attempt
        answer = found.answers.get(self._id)
        if answer is None and found.has_ended:
            raise ExecutionEnded(execution_id, found.state or "")
        if answer is None and 0 < own < found.attempt:
            raise Superseded(execution_id, found.attempt)
        if not found.exists and self._is_asked:
            raise UnknownExecution(execution_id)
        return Look(answer, self._id in found.questions)
