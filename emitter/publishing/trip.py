"""The commands of one round trip, and what each of them appends. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from emitter.store.plain import Part, PlainProducer, Script, plain_call
from emitter.wire.prepared import Batch


class Lane(Protocol):
    """What a trip needs of an outbox."""

    plain: PlainProducer


L = TypeVar("L", bound=Lane)


class Trip(Generic[L]):
    """Batches in the order in which they are added, as far as they are of one execution. Plain ones are gathered into
    calls of `most` at most; where one of them is refused, no later one of its execution is in the trip that the server
    would append."""

    def __init__(self, plain: Script, most: int) -> None:
        self.commands: list[Any] = []
        self.batches: list[tuple[L, Batch]] = []
        self._script = plain
        self._most = most
        self._sizes: list[int] = []
        """How many plain batches each command has; 0: one batch that is not plain."""
        self._gathered: list[tuple[L, Batch]] = []
        self._parts: list[Part] = []
        """Those, packed."""
        self._called: set[bytes] = set()
        """Keys of the executions that have a plain batch in a call that was made."""

    def must_wait(self, outbox: L, *, is_plain: bool) -> bool:
        """Whether the next batch of this outbox must leave with a later trip: if an earlier plain one of its execution
        is refused, this one would overtake it. (A call refuses all that follows in it by itself.)"""
        keys = outbox.plain.keys
        return keys in self._called or (not is_plain and any(part.keys == keys for part in self._parts))

    def add(self, outbox: L, batch: Batch, command: Any) -> None:
        """A batch that is not plain, with its command."""
        self.commands.append(command)
        self.batches.append((outbox, batch))
        self._sizes.append(0)

    def add_plain(self, outbox: L, batch: Batch) -> None:
        self._parts.append(outbox.plain.part(batch))
        self._gathered.append((outbox, batch))
        if len(self._gathered) >= self._most:
            self.close()

    def close(self) -> None:
        """Make the call of the plain batches that were gathered."""
        if self._parts:
            self.commands.append(plain_call(self._script, self._parts))
            self.batches += self._gathered
            self._sizes.append(len(self._parts))
            self._called.update([part.keys for part in self._parts])
            self._gathered, self._parts = [], []

    def replies(self, found: Sequence[Any]) -> Iterator[Any]:
        """The reply to each batch, of those to the commands. That to a plain one is a number, or the error of its
        call as a `PlainError`."""
        for size, reply in zip(self._sizes, found, strict=True):
            if size == 0:
                yield reply
            elif isinstance(reply, Exception):
                yield from [PlainError(reply, size)] * size
            else:
                yield from reply


class PlainError(Exception):
    """Redis answered a call of `size` plain batches with an error: one of them caused it."""

    def __init__(self, error: Exception, size: int) -> None:
        super().__init__(error, size)
        self.error = error
        self.size = size
