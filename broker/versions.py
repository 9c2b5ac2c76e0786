"""Values that can go back to an earlier ordinal of their log: what `execution:superseded` asks of the fold."""

from __future__ import annotations

from typing import Generic, TypeVar

MAX_TEXT = 262_144
"""Characters kept of one message, thought or artifact."""
MAX_VERSIONS = 8

T = TypeVar("T")


class Versions(Generic[T]):
    """A value and those before it, with the ordinals at which they were set: the first and the last few. Going back
    behind more changes than are kept gives an older value, never a void one."""

    __slots__ = ("_kept",)

    def __init__(self, seq: int, value: T) -> None:
        self._kept = [(seq, value)]

    @property
    def value(self) -> T:
        return self._kept[-1][1]

    def set(self, seq: int, value: T) -> None:
        self._kept.append((seq, value))
        if len(self._kept) > MAX_VERSIONS:
            del self._kept[1]

    def void(self, after: int) -> bool:
        """Forget what was set after this ordinal; whether anything is left."""
        while self._kept and self._kept[-1][0] > after:
            self._kept.pop()
        return bool(self._kept)


class Text:
    """Text that arrives in chunks, up to `MAX_TEXT` characters."""

    __slots__ = ("_chunks", "_length")

    def __init__(self) -> None:
        self._chunks: list[tuple[int, str]] = []
        self._length = 0

    @property
    def truncated(self) -> bool:
        return self._length > MAX_TEXT

    def add(self, seq: int, chunk: str) -> None:
        if chunk and not self.truncated:
            # One character over the limit is kept, as the sign that there were more.
            kept = chunk[: MAX_TEXT + 1 - self._length]
            self._chunks.append((seq, kept))
            self._length += len(kept)

    def void(self, after: int) -> None:
        self._chunks = [(seq, chunk) for seq, chunk in self._chunks if seq <= after]
        self._length = sum(len(chunk) for _, chunk in self._chunks)

    def __str__(self) -> str:
        return "".join([chunk for _, chunk in self._chunks])[:MAX_TEXT]


class Items(Generic[T]):
    """Parts by id, in the order they appeared; beyond `limit` the oldest go."""

    __slots__ = ("_by_id", "_limit")

    def __init__(self, limit: int) -> None:
        self._by_id: dict[str, Versions[T]] = {}
        self._limit = limit

    def get(self, id_: str) -> T | None:
        item = self._by_id.get(id_)
        return None if item is None else item.value

    def set(self, seq: int, id_: str, value: T) -> None:
        item = self._by_id.get(id_)
        if item is not None:
            item.set(seq, value)
            return
        self._by_id[id_] = Versions(seq, value)
        if len(self._by_id) > self._limit:
            del self._by_id[next(iter(self._by_id))]

    def void(self, after: int) -> None:
        self._by_id = {id_: item for id_, item in self._by_id.items() if item.void(after)}

    def values(self) -> list[T]:
        return [item.value for item in self._by_id.values()]
