"""What a renderer keeps of what it has shown, for as long as its viewer stays. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any, Generic, TypeVar

V = TypeVar("V")

MAX_KEPT_CHARS = 128 * 1024
MAX_SAID = 1000
"""Messages that are not complete."""

SHORT_TEXT = 200
"""Characters of a text up to which it is kept as it is; of a longer one, only its digest."""


class Shown:
    """What was shown of a message: enough to know what its completion adds."""

    __slots__ = ("_digest", "_length", "_text")

    def __init__(self) -> None:
        self._text = ""
        self._length = 0
        self._digest: Any = None

    def fork(self) -> Shown:
        other = copy(self)
        other._digest = self._digest and self._digest.copy()
        return other

    def add(self, text: str) -> None:
        self._length += len(text)
        if self._digest is not None:
            self._digest.update(text.encode("utf-8", "surrogatepass"))
            return
        self._text += text
        if self._length > SHORT_TEXT:
            self._digest, self._text = _digest(self._text), ""

    def rest(self, whole: str) -> str | None:
        """What `whole` has after it; None if it begins otherwise."""
        begun = whole[: self._length]
        is_same = begun == self._text if self._digest is None else _digest(begun).digest() == self._digest.digest()
        return whole[self._length :] if is_same else None


def _digest(text: str) -> Any:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"))


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
        by_id = self._by_id
        known = by_id.get(id_)
        chars += len(id_)
        by_id[id_] = (value, chars)
        self._chars += chars if known is None else chars - known[1]
        while self._chars > self._room or len(by_id) > self._most:
            self.pop(next(iter(by_id)))

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


class Said:
    """The shown text of each incomplete message: enough to know what its completion adds."""

    def __init__(self) -> None:
        self._messages: Kept[Shown] = Kept(MAX_SAID)

    def fork(self) -> Said:
        other = Said()
        other._messages = self._messages.fork(Shown.fork)
        return other

    def add(self, message_id: str, delta: str) -> None:
        shown = self._messages.get(message_id)
        if shown is None:
            shown = Shown()
            self._messages.set(message_id, shown)
        shown.add(delta)

    def rest(self, message_id: str, text: str) -> str | None:
        """What of the complete text was not shown yet; None if what was shown is not its beginning."""
        shown = self._messages.pop(message_id)
        return text if shown is None else shown.rest(text)

    def forget(self, message_id: str) -> None:
        self._messages.pop(message_id)

    def clear(self) -> None:
        self._messages.clear()
