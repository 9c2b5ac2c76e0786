"""The inbox of one attempt: the messages of people, as an agent gets them.

A message that was taken is the agent's, even if the call that took it was cancelled meanwhile: then the next call gets
it. So takes run in tasks of their own, and what they take waits in `_kept`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

import msgspec

from emitter.errors import ExecutionEnded, Interrupted, RuncastError
from emitter.events import UserMessage
from emitter.wire.user_messages import TAKEN_AT_ONCE, Message

RECHECK_SECONDS = 2.0
"""How often the record is read without a message on the control channel."""
RECHECK_INTERRUPTIBLE_SECONDS = 0.75
EXIT_SECONDS = 1.0
"""How long the end of an interruptible block waits for a take that has begun."""
ALL, INTERRUPTS, OTHERS = "", "i", "q"


class Source(Protocol):
    """Where messages come from."""

    async def take(self, name: str, most: int, kinds: str) -> list[Message]:
        """Take what waits (`kinds` as in `emitter.store.messages`); repeated under the same name, it is one take."""
        ...

    def waking(self, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """`wake` is called when a message may have come."""
        ...


class Inbox:
    """The messages of one emitter. `is_over`: whether the agent was told to stop."""

    def __init__(self, source: Source, is_over: Callable[[], bool]) -> None:
        self._source = source
        self._is_over = is_over
        self._lock = asyncio.Lock()
        self._kept: deque[Message] = deque()
        self._seen: set[str] = set()
        """Ids of all that was taken: a failover of Redis may lose a take, but the agent hears no message twice."""
        self._names = itertools.count(1)
        self._prefix = secrets.token_urlsafe(6)
        self._name = ""
        """The name of a take whose reply is not known."""
        self._fetching: asyncio.Task[None] | None = None
        self._blocks: list[Interruptible] = []

    async def next(self, timeout: float | None = None) -> Message | None:
        """The next message; None if none comes within `timeout` seconds, or the agent must stop."""
        if timeout is not None and timeout <= 0:
            return await self._one()
        try:
            async with asyncio.timeout(timeout) as limit:
                return await self._wait_for_one()
        except TimeoutError:
            if not limit.expired():
                raise
        return None

    async def _wait_for_one(self) -> Message | None:
        wake = asyncio.Event()
        with self._source.waking(wake.set):
            while not self._is_over():
                wake.clear()
                if (message := await self._one()) is not None:
                    return message
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECHECK_SECONDS):
                        await wake.wait()
        return None

    async def next_or_end(self) -> Message | None:
        """As `next`; None also if the execution has ended."""
        with contextlib.suppress(ExecutionEnded):
            return await self.next()
        return None

    async def all(self) -> list[Message]:
        """What waits now, in order."""
        found: list[Message] = []
        async with self._lock:
            if self._fetching is not None and not self._fetching.done():
                await self._fetch(1, self._kinds)  # one that was begun for less
            await self._fetch(TAKEN_AT_ONCE, self._kinds)
            while (message := self._next_kept()) is not None:
                found.append(message)
        return found

    def interruptible(self) -> Interruptible:
        return Interruptible(self)

    async def _one(self) -> Message | None:
        async with self._lock:
            if (message := self._next_kept()) is None:
                await self._fetch(1, self._kinds)
                message = self._next_kept()
            return message

    def _next_kept(self) -> Message | None:
        message = next((each for each in self._kept if not (self._blocks and each.interrupts)), None)
        if message is not None:
            self._kept.remove(message)
        return message

    @property
    def _kinds(self) -> str:
        """While a block is interruptible, it gets what interrupts."""
        return OTHERS if self._blocks else ALL

    async def _fetch(self, most: int, kinds: str) -> None:
        """Take into `_kept`. Whoever calls has the lock."""
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._take(most, kinds), name="inbox")
            self._fetching.add_done_callback(_mark_seen)
        await asyncio.shield(self._fetching)

    async def _take(self, most: int, kinds: str) -> None:
        self._name = self._name or f"{self._prefix}.{next(self._names)}"
        taken = await self._source.take(self._name, most, kinds)
        self._kept.extend(message for message in taken if message.message_id not in self._seen)
        self._seen.update(message.message_id for message in taken)
        self._name = ""


def _mark_seen(task: asyncio.Task[None]) -> None:
    """Whoever waited for it may be gone."""
    if not task.cancelled():
        task.exception()


class Interruptible:
    """`async with`: a message that interrupts raises `Interrupted` at the next `await` in the block. Of several blocks
    that are open, the one that was entered last is interrupted."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._message: Message | None = None
        self._is_open = False
        self._is_leaving = False
        self._has_cancelled = False
        self._wake = asyncio.Event()

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._is_open = True
        self._inbox._blocks.append(self)
        self._watching = asyncio.create_task(self._watch(), name="interruptible")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._leave(is_waiting=kind is None)
        if self._has_cancelled and self._task.uncancel() > self._cancelling:  # by somebody else, too
            self._give_back()
        elif self._message is not None and (kind is None or issubclass(kind, asyncio.CancelledError)):
            raise Interrupted(self._message) from None
        else:
            self._give_back()

    async def _leave(self, *, is_waiting: bool) -> None:
        """Close the block. A take that has begun may still interrupt one that is left normally."""
        self._is_open, self._is_leaving = False, is_waiting and self._message is None
        self._inbox._blocks.remove(self)
        for block in self._inbox._blocks:
            block._wake.set()
        self._wake.set()
        if self._is_leaving:
            try:
                await asyncio.wait((self._watching,), timeout=EXIT_SECONDS)
            except asyncio.CancelledError:
                self._give_back()
                raise
            finally:
                self._is_leaving = False

    def _give_back(self) -> None:
        """The next call for a message gets it."""
        if self._message is not None:
            self._inbox._kept.appendleft(self._message)
            self._message = None

    async def _watch(self) -> None:
        inbox = self._inbox
        with inbox._source.waking(self._wake.set):
            while self._is_open:
                self._wake.clear()
                if inbox._blocks[-1] is self and not await self._look():
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECHECK_INTERRUPTIBLE_SECONDS):
                        await self._wake.wait()

    async def _look(self) -> bool:
        """Take what interrupts, one at a time; false if the watch is over."""
        inbox = self._inbox
        async with inbox._lock:
            if not self._is_open:
                return False
            try:
                await inbox._fetch(1, INTERRUPTS)
            except RuncastError:
                return False  # the agent's next call raises it
            message = next((each for each in inbox._kept if each.interrupts), None)
            if message is None or not (self._is_open or self._is_leaving):
                return self._is_open
            inbox._kept.remove(message)
            self._message = message
            if self._is_open:
                self._has_cancelled = True
                self._task.cancel()
            return False


class SentMessages:
    """Messages without Redis. `on_take` is called with what is taken."""

    def __init__(self, on_take: Callable[[Sequence[Message]], None]) -> None:
        self._on_take = on_take
        self._waiting: list[Message] = []
        self._wakes: list[Callable[[], None]] = []
        self.ids: set[str] = set()

    def add(self, sent: UserMessage, at_ms: int) -> None:
        self.ids.add(sent.message_id)
        data = msgspec.json.decode(msgspec.json.encode(sent.data))
        self._waiting.append(
            Message(message_id=sent.message_id, text=sent.text, data=data, by=sent.by, mode=sent.mode, sent_at=at_ms)
        )
        for wake in self._wakes:
            wake()

    def left(self) -> list[str]:
        """The ids of those that nobody has taken."""
        return [message.message_id for message in self._waiting]

    async def take(self, name: str, most: int, kinds: str) -> list[Message]:  # noqa: ARG002 - no reply is lost here
        wanted = [message for message in self._waiting if not kinds or message.interrupts == (kinds == INTERRUPTS)]
        if taken := wanted[:most]:
            self._on_take(taken)
            self._waiting = [message for message in self._waiting if message not in taken]
        return taken

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        self._wakes.append(wake)
        try:
            yield
        finally:
            self._wakes.remove(wake)
