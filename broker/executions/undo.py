"""Values that can go back to an earlier ordinal of their log: what `execution:superseded` asks of the fold. Each knows
about how many bytes of memory it holds (its weight), so that the fold can give up the oldest."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any, Generic, NamedTuple, Self, TypeVar

MAX_TEXT = 262_144
"""Characters kept of one message, thought or artifact."""
MAX_VERSIONS = 8
CUT_TEXT = 200
"""Characters that are kept of a clipped text."""
MAX_ID = 1024
"""A part with a longer id is dropped as a whole: it has no short form."""

T = TypeVar("T")


def cut(text: str) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= CUT_TEXT else text[: CUT_TEXT - 1] + "…"


class Versions(Generic[T]):
    """A value and those before it, with the ordinals at which they were set and their weights: the first and the last
    few. Going back behind more changes than are kept gives an older value, never a void one."""

    __slots__ = ("_kept", "weight")

    def __init__(self, seq: int, value: T, weight: int) -> None:
        self._kept = [(seq, value, weight)]
        self.weight = weight

    @property
    def value(self) -> T:
        return self._kept[-1][1]

    @property
    def seq(self) -> int:
        """Where the value was set."""
        return self._kept[-1][0]

    def fork(self, of: Callable[[T], T] | None = None) -> Versions[T]:
        """Another one, with what `of` makes of each value."""
        other: Versions[T] = Versions.__new__(Versions)
        kept = self._kept
        other._kept = list(kept) if of is None else [(seq, of(value), weight) for seq, value, weight in kept]
        other.weight = self.weight
        return other

    def set(self, seq: int, value: T, weight: int) -> None:
        self._kept.append((seq, value, weight))
        self.weight += weight
        if len(self._kept) > MAX_VERSIONS:
            self.weight -= self._kept.pop(1)[2]

    def void(self, after: int) -> bool:
        """Forget what was set after this ordinal; whether anything is left."""
        while self._kept and self._kept[-1][0] > after:
            self.weight -= self._kept.pop()[2]
        return bool(self._kept)


class Text:
    """Text that arrives in chunks, up to `MAX_TEXT` characters. It is one piece of memory, with the ordinal and the end
    of each chunk: as objects of their own, small chunks would take several times their size."""

    __slots__ = ("_bytes", "_ends", "_left_out", "_length", "_seqs")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._seqs = array("Q")
        self._ends = array("L")
        self._length = 0
        self._left_out = 0
        """Where the last chunk came that is not in it."""

    @property
    def truncated(self) -> bool:
        return self._length > MAX_TEXT

    @property
    def seq(self) -> int:
        """Where the last chunk came."""
        return max(self._left_out, self._seqs[-1] if self._seqs else 0)

    @property
    def weight(self) -> int:
        return len(self._bytes) + 16 * len(self._seqs)

    def __len__(self) -> int:
        """Characters; one more than the limit stands for any number above it."""
        return self._length

    def add(self, seq: int, chunk: str) -> None:
        if self.truncated:
            self._left_out = seq
        elif chunk:
            # One character over the limit is kept, as the sign that there were more.
            kept = chunk[: MAX_TEXT + 1 - self._length]
            self._bytes += kept.encode("utf-8", "surrogatepass")
            self._seqs.append(seq)
            self._ends.append(len(self._bytes))
            self._length += len(kept)

    def void(self, after: int) -> bool:
        """Forget the chunks after this ordinal; whether there were any."""
        left = bisect_right(self._seqs, after)
        if left == len(self._seqs):
            was_longer, self._left_out = self._left_out > after, min(self._left_out, after)
            return was_longer
        self._left_out = min(self._left_out, after)
        del self._seqs[left:], self._ends[left:]
        del self._bytes[self._ends[-1] if left else 0 :]
        self._length = len(self._decoded())
        return True

    def fork(self) -> Text:
        other = Text()
        other._bytes, other._seqs, other._ends = self._bytes[:], self._seqs[:], self._ends[:]
        other._length, other._left_out = self._length, self._left_out
        return other

    def clip(self) -> None:
        """Give up all but the beginning."""
        if self._length > CUT_TEXT and len(self._seqs):
            kept = str(self)[: CUT_TEXT - 1].encode("utf-8", "surrogatepass")
            self._left_out = self.seq
            last = bisect_left(self._ends, len(kept))  # what is left is void if this chunk is
            self._seqs = self._seqs[last : last + 1]
            self._bytes = bytearray(kept + "…".encode())
            self._ends = array("L", [len(self._bytes)])
            self._length = MAX_TEXT + 1

    def __str__(self) -> str:
        return self._decoded()[:MAX_TEXT]

    def _decoded(self) -> str:
        return self._bytes.decode("utf-8", "surrogatepass")


class Part(NamedTuple):
    """One of many, for the fold to weigh."""

    seq: int
    id: str
    weight: int
    items: Items[Any]


class Items(Generic[T]):
    """Parts by id, in the order they appeared; beyond `limit` the oldest go. `clip` gives the short form of a part.

    `changed`, of those that are `watched`, has the value that each part had when it was last emptied, or None, by id.
    """

    __slots__ = ("_by_id", "_clip", "_limit", "_newest", "changed", "is_short", "is_watched")

    def __init__(self, limit: int, clip: Callable[[T], T], *, is_watched: bool = False) -> None:
        self._by_id: dict[str, Versions[T]] = {}
        self._limit = limit
        self._clip = clip
        self._newest = 0
        self.is_watched = is_watched
        self.is_short = False
        """Whether parts are missing, since there were too many or their ids too long."""
        self.changed: dict[str, T | None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._by_id)

    def get(self, id_: str) -> T | None:
        item = self._by_id.get(id_)
        return None if item is None else item.value

    def values(self) -> list[T]:
        return [item.value for item in self._by_id.values()]

    def fork(self) -> Self:
        """Another one with the same parts."""
        other = copy(self)
        of = self._fork_of()
        other._by_id = {id_: item.fork(of) for id_, item in self._by_id.items()}
        other.changed = dict(self.changed)
        return other

    def _fork_of(self) -> Callable[[T], T] | None:
        """What makes another value of one, if values change."""
        return None

    def set(self, seq: int, id_: str, value: T, weight: int = 0) -> None:
        self._newest = seq
        item = self._by_id.get(id_)
        if self.is_watched and id_ not in self.changed:
            self._note(id_, item)
        if item is not None:
            item.set(seq, value, weight)
            return
        self._by_id[id_] = Versions(seq, value, weight)
        if len(self._by_id) > self._limit:
            self._drop(next(iter(self._by_id)))

    def void(self, after: int) -> dict[str, T]:
        """Forget what was set after this ordinal; the values that went with it, by id."""
        gone: dict[str, T] = {}
        if self._newest <= after:
            return gone
        self._newest = after
        for id_, item in list(self._by_id.items()):
            if item.seq > after:
                gone[id_] = item.value
                if self.is_watched:
                    self._note(id_, item)
                if not item.void(after):
                    del self._by_id[id_]
        return gone

    def heavy(self, least: int, heavy: list[Part]) -> int:
        """Add those above this weight to `heavy`; the weight of all."""
        held = 0
        for id_, item in self._by_id.items():
            weight = len(id_) + item.weight
            held += weight
            if weight > least:
                heavy.append(Part(item.seq, id_, weight, self))
        return held

    def clip(self, id_: str) -> int:
        """Give up what was before a part's value, and most of that; the bytes that are left."""
        item = self._by_id[id_]
        if self.is_watched:
            self._note(id_, item)
        if len(id_) > MAX_ID:
            self._drop(id_)
            return 0
        self._by_id[id_] = Versions(item.seq, self._clip(item.value), 0)
        return len(id_)

    def _drop(self, id_: str) -> None:
        self.is_short = True
        item = self._by_id.pop(id_)
        if self.is_watched:
            self._note(id_, item)

    def _note(self, id_: str, item: Versions[T] | None) -> None:
        if id_ not in self.changed:
            self.changed[id_] = None if item is None else item.value


class Texts(Items[tuple[T, Text]]):
    """Parts with a text each, which grows without a new version of the part."""

    __slots__ = ()

    def _fork_of(self) -> Callable[[tuple[T, Text]], tuple[T, Text]]:
        known: dict[int, Text] = {}  # versions of one part have one text

        def of(value: tuple[T, Text]) -> tuple[T, Text]:
            part, text = value
            found = known.get(id(text))
            if found is None:
                found = known[id(text)] = text.fork()
            return part, found

        return of

    def add(self, seq: int, id_: str, chunk: str) -> bool:
        """More of a part's text; false if there is no such part."""
        item = self._by_id.get(id_)
        if item is None:
            return False
        self._newest = seq
        item.value[1].add(seq, chunk)
        return True

    def heavy(self, least: int, heavy: list[Part]) -> int:
        held = 0
        for id_, item in self._by_id.items():
            text = item.value[1]
            weight = len(id_) + item.weight + text.weight
            held += weight
            if weight > least:
                heavy.append(Part(max(item.seq, text.seq), id_, weight, self))
        return held

    def clip(self, id_: str) -> int:
        left = super().clip(id_)
        item = self._by_id.get(id_)
        if item is None:
            return 0
        item.value[1].clip()
        return left + item.value[1].weight

    def void_texts(self, after: int, shown: Callable[[T], Any] = lambda _: None) -> list[str]:
        """As `void`. Returns, in order, the ids of the parts that are gone, or whose text or `shown` value has
        changed."""
        if self._newest <= after:
            return []
        ids, changed = list(self._by_id), set()
        for id_, (part, text) in self.void(after).items():
            left = self.get(id_)
            if left is None or left[1] is not text or shown(left[0]) != shown(part):
                changed.add(id_)
        changed |= {id_ for id_, item in self._by_id.items() if item.value[1].void(after)}
        return [id_ for id_ in ids if id_ in changed]
