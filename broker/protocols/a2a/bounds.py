"""Limits of a task's history, and of what is sent again. Pure."""

from __future__ import annotations

from broker.protocols.a2a.model import Message

MAX_HISTORY = 200
MAX_HISTORY_BYTES = 1024 * 1024
SMALL_BYTES = 4096
MAX_REPEATED_BYTES = 1024 * 1024


class History:
    """The conversation of a task: what it is all about, and of the rest the latest."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._sizes: list[int] = []
        self.is_cut = False

    def add(self, message: Message, size: int) -> None:
        self.messages.append(message)
        self._sizes.append(size)
        while len(self.messages) > MAX_HISTORY or (sum(self._sizes) > MAX_HISTORY_BYTES and len(self.messages) > 2):
            self.is_cut = True
            del self.messages[1], self._sizes[1]


class Repeats:
    """Limits what is sent again because an update replaces the last one: the open input, and the rest of an artifact.
    Small values are always sent."""

    def __init__(self) -> None:
        self._bytes = 0

    def fork(self) -> Repeats:
        other = Repeats()
        other._bytes = self._bytes
        return other

    def allow(self, size: int) -> bool:
        if size > SMALL_BYTES:
            self._bytes += size
        return size <= SMALL_BYTES or self._bytes <= MAX_REPEATED_BYTES
