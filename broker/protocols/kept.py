"""What a renderer keeps of what it has shown, for as long as its viewer stays. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

V = TypeVar("V")

MAX_KEPT_CHARS = 128 * 1024


class Kept(Generic[V]):
    """Values by id, the newest `most` of them, and no more than fit into so many characters of ids and (as far as
    `set` gets) values: an agent chooses how long its ids are."""

    __slots__ = ("_by_id", "_chars", "_most", "_room")

    def __init__(self, most: int, room: int = MAX_KEPT_CHARS) -> None:
        self._by_id: dict[str, tuple[V, int]] = {}
        self._most = most
        self._room = room
        self._chars = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._by_id

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def get(self, id_: str) -> V | None:
        found = self._by_id.get(id_)
        return None if found is None else found[0]

    def items(self) -> list[tuple[str, V]]:
        return [(id_, value) for id_, (value, _) in self._by_id.items()]

    def set(self, id_: str, value: V, chars: int = 0) -> None:
        """Keep this value, in the place of an older one of its id, of which `chars` is the size."""
        known = self._by_id.get(id_)
        chars += len(id_)
        self._by_id[id_] = (value, chars)
        self._chars += chars - (0 if known is None else known[1])
        while len(self._by_id) > self._most or (self._chars > self._room and self._by_id):
            self.pop(next(iter(self._by_id)))

    def fork(self, of: Callable[[V], V] | None = None) -> Kept[V]:
        """Another one with the same values, or what `of` makes of each."""
        other: Kept[V] = Kept(self._most, self._room)
        other._chars = self._chars
        by_id = self._by_id
        other._by_id = dict(by_id) if of is None else {id_: (of(value), chars) for id_, (value, chars) in by_id.items()}
        return other

    def pop(self, id_: str) -> V | None:
        found = self._by_id.pop(id_, None)
        if found is None:
            return None
        self._chars -= found[1]
        return found[0]

    def clear(self) -> None:
        self._by_id.clear()
        self._chars = 0
