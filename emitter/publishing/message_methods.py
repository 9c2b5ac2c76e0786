"""How an agent hears what people say to it while it runs: the same methods for every asynchronous emitter."""

from __future__ import annotations

from collections.abc import AsyncIterator

from emitter.publishing.inbox import Inbox, Interruptible
from emitter.publishing.waits import Waits
from emitter.wire.user_messages import Message


class MessageMethods:
    """Each message is taken once per attempt, in the order of the log. A later attempt takes all of them again."""

    _made_inbox: Inbox | None = None
    _made_waits: Waits | None = None
    accepts_messages = False
    """Whether people were told that they may send messages."""

    def _new_inbox(self) -> Inbox:
        raise NotImplementedError(f"{type(self).__name__} takes no messages")

    @property
    def waits(self) -> Waits:
        """The waits of this emitter's calls."""
        if self._made_waits is None:
            self._made_waits = Waits()
        return self._made_waits

    @property
    def waiting(self) -> bool:
        """Whether a call waits for a person, or for room in the queue while Redis is away."""
        return self.waits.any

    @property
    def _inbox(self) -> Inbox:
        if self._made_inbox is None:
            self._made_inbox = self._new_inbox()
        return self._made_inbox

    async def messages(self) -> AsyncIterator[Message]:
        """Every message as it comes: `async for message in emitter.messages():`. Ends when the execution has ended, or
        must stop."""
        while (message := await self._next_or_end()) is not None:
            yield message

    async def _next_or_end(self) -> Message | None:
        with self.waits.one():
            return await self._inbox.next_or_end()

    async def next_message(self, timeout: float | None = None) -> Message | None:
        """Wait for the next message. None if none comes within `timeout` seconds (0: do not wait), or the execution
        must stop. A wait that is cancelled loses no message.

        Raises:
            ExecutionEnded: the execution has ended.
            Superseded: a newer attempt has taken over.
        """
        with self.waits.one():
            return await self._inbox.next(timeout)

    async def waiting_messages(self) -> list[Message]:
        """Take the messages that wait now, in order; does not wait for one."""
        return await self._inbox.all()

    def interruptible(self) -> Interruptible:
        """`async with emitter.interruptible():` a message with mode `interrupt` raises `Interrupted`, which carries it,
        at the next `await` in the block, within a second; outside of a block it waits like any other. In the block
        the other calls get only messages that do not interrupt. One message interrupts a block; of several blocks the
        one that was entered last is interrupted.
        """
        return self._inbox.interruptible()
