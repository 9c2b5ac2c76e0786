"""Where the inbox of an `AgentEmitter` has its messages from: the record of its execution."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from emitter.errors import RedisUnavailable
from emitter.publishing.outbox import Outbox
from emitter.store.append import LogLimits
from emitter.store.connection import GONE
from emitter.store.control import ControlChannel
from emitter.store.messages import WAKE, take_messages
from emitter.tasks import told_to_stop
from emitter.wire.prepared import Redaction
from emitter.wire.user_messages import Message

RETRY_SECONDS = 0.3


class Connected(Protocol):
    """What a source needs of a `Publisher`."""

    @property
    def redis(self) -> Redis: ...

    @property
    def control(self) -> ControlChannel: ...

    @property
    def limits(self) -> LogLimits: ...

    @property
    def redact(self) -> Redaction: ...


class RedisSource:
    """The messages of one emitter's execution. Waits for Redis while it is away."""

    def __init__(self, publisher: Connected, outbox: Outbox, *, is_claimed: bool) -> None:
        self._publisher = publisher
        self._outbox = outbox
        self._is_claimed = is_claimed

    async def take(self, name: str, most: int, kinds: str) -> list[Message]:
        outbox, publisher = self._outbox, self._publisher
        while not told_to_stop():
            outbox.check()
            try:
                await outbox.flush()  # what was emitted before stands before it in the log
                return await take_messages(
                    publisher.redis, outbox.owner, outbox.execution_id, outbox.attempt, take=name, most=most,
                    kinds=kinds, mode=outbox.mode if self._is_claimed else "existing", redact=publisher.redact,
                    limits=publisher.limits,
                )  # fmt: skip
            except (RedisUnavailable, RedisError, *GONE):
                await asyncio.sleep(RETRY_SECONDS)
        raise asyncio.CancelledError

    def waking(self, wake: Callable[[], None]) -> AbstractContextManager[None]:
        control = self._outbox.owner.execution(self._outbox.execution_id).control
        return self._publisher.control.waiting_for(control, WAKE, wake)
