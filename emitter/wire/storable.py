"""Any Python value in a form that JSON can hold, and cut to a size. Pure; it imports no third-party type.

    storable(value, max_values=…, max_depth=…, max_bytes=…)

never raises and takes time in proportion to what it keeps. Subclasses of `str`, `int`, `float`, `dict` and `list` are
what they are; models, dataclasses and the like are their fields; NaN is null. What is left out is marked in its place
by `{"clipped": true, …}`: the way back into a value that holds itself, what is nested too deep, and what is too much.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import pathlib
import types
import uuid
from collections import deque
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, Set, ValuesView
from dataclasses import fields, is_dataclass
from itertools import accumulate, islice, takewhile
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

import msgspec

from emitter.errors import describe

VALUES_MAX = 20_000
"""As many values as fit an event of the usual size, with room to spare."""
DEPTH_MAX = 32
REPR_CHARS = 500
KEY_CHARS = 500
INTEGER_BITS = 4096
"""Python refuses to write integers of more than 4,300 digits."""

Fields = Callable[[Any], Any]

_AS_TEXT = (uuid.UUID, decimal.Decimal, pathlib.PurePath)
_SEQUENCES = (list, tuple, deque, KeysView, ValuesView, ItemsView)
_BYTES = (bytes, bytearray, memoryview)


def text(value: object) -> str:
    """As UTF-8 can hold it: the halves of a surrogate pair are joined, and one alone is U+FFFD."""
    plain = str.__str__(value) if isinstance(value, str) else str(value)
    return plain if plain.isascii() else plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def short_repr(value: object) -> str:
    try:
        shown = repr(value)
    except Exception:  # a `__repr__` may raise anything
        shown = f"<{type(value).__name__}>"
    return text(shown[:REPR_CHARS])


def named_fields(value: Any) -> Any:
    """What a model (pydantic, attrs, msgspec), dataclass or namespace is made of; None of anything else."""
    kind = type(value)
    if hasattr(kind, "__pydantic_fields__") and hasattr(kind, "model_dump"):
        return _model_fields(value)
    if hasattr(kind, "__attrs_attrs__"):
        return {each.name: getattr(value, each.name) for each in kind.__attrs_attrs__}
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return vars(value) if isinstance(value, types.SimpleNamespace) else None


def _model_fields(model: Any) -> Any:
    """What pydantic's `model_dump` has of the model itself. One that has serialisers of its own is asked; of others the
    fields are read, since a dump walks everything below them, however often it comes to the same value."""
    kind = type(model)
    own = kind.__pydantic_decorators__
    if own.field_serializers or own.model_serializers or own.computed_fields or kind.__pydantic_root_model__:
        return model.model_dump()
    known = {name: getattr(model, name) for name, info in kind.__pydantic_fields__.items() if not info.exclude}
    return known | (model.__pydantic_extra__ or {})


def storable(
    value: Any,
    *,
    max_values: int = VALUES_MAX,
    max_depth: int = DEPTH_MAX,
    max_bytes: int | None = None,
    fields_of: Fields = named_fields,
) -> Any:
    """The nearest thing that JSON can hold.

    Args:
        max_values: how many values are kept in all, containers included.
        max_depth: how deep they may be nested.
        max_bytes: how long the result may be as ASCII JSON, as by `clip`.
        fields_of: what a value of a type that is not known here is made of; None: it is shown by a short `repr`.
    """
    found = _Walk(max_values, max_depth, fields_of).plain(value, 0)
    return found if max_bytes is None else clip(found, max_bytes)


class _Walk:
    """One conversion: what may still be taken, and the containers on the path to where it is."""

    def __init__(self, values: int, depth: int, fields_of: Fields) -> None:
        self._left = values
        self._depth = depth
        self._fields_of = fields_of
        self._path: set[int] = set()

    def plain(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if value is None or value is True or value is False:
            return value
        try:
            return self._plain(value, depth)
        except Exception:  # foreign properties, serialisers and iterators may raise anything
            return f"<{type(value).__name__}>"

    def _plain(self, value: Any, depth: int) -> Any:
        if isinstance(value, enum.Enum):
            value = value.value
        if isinstance(value, str):
            return text(value)
        if isinstance(value, int):
            return _integer(int.__int__(value))
        if isinstance(value, float):
            return _finite(float.__float__(value))
        known = None if isinstance(value, dict | list) else _scalar(value)
        return self._entered(value, depth) if known is None else known

    def _entered(self, value: Any, depth: int) -> Any:
        """What is made of other values, unless it is on the path already."""
        if id(value) in self._path:
            return _mark("cycle")
        if depth >= self._depth:
            return _mark("too deep")
        self._path.add(id(value))
        try:
            return self._converted(value, depth)
        finally:
            self._path.discard(id(value))

    def _converted(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, _SEQUENCES):
            return self._items(value, len(value), depth)
        if isinstance(value, Set):  # in an order that is the same in every process
            items = self._items(value, len(value), depth)
            return sorted(items, key=msgspec.json.encode)
        if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "dtype"):
            return self._array(value, depth)
        made_of = None if isinstance(value, type) else self._fields_of(value)
        return short_repr(value) if made_of is None else self.plain(made_of, depth)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in list(islice(value.items(), self._left + 1)):  # another thread may change it meanwhile
            if self._left <= 0:
                found["…"] = {"clipped": True, "keys": len(value)}
                break
            found[self._key(key, depth)] = self.plain(item, depth + 1)
        return found

    def _items(self, values: Iterable[Any], count: int, depth: int) -> list[Any]:
        found: list[Any] = []
        for item in values:
            if self._left <= 0:
                return [*found, {"clipped": True, "items": count}]
            found.append(self.plain(item, depth + 1))
        return found

    def _key(self, key: Any, depth: int) -> str:
        """As the standard library writes keys."""
        plain = key if type(key) in (str, int) else self.plain(key, depth)
        if isinstance(plain, list | dict):
            return short_repr(key)
        if plain is None or isinstance(plain, bool):
            return "null" if plain is None else str(plain).lower()
        name = text(str(plain))
        return name if len(name) <= KEY_CHARS else cut_text(name[:KEY_CHARS], len(name))

    def _array(self, value: Any, depth: int) -> Any:
        """A scalar or array of numpy. Times are written as numpy writes them: as items they may become bare numbers."""
        if value.dtype.kind in "mM":
            value = value.astype(str)
        if value.ndim == 0:
            item = value.item()
            return _long(item) if type(item) is type(value) else self.plain(item, depth + 1)
        if value.size <= self._left:
            return self.plain(value.tolist(), depth + 1)
        return self._items(value, len(value), depth)


def _scalar(value: Any) -> Any:
    """The form of what is not made of other values; None of what is."""
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, _AS_TEXT):
        return text(value)
    if isinstance(value, _BYTES):
        size = value.nbytes if isinstance(value, memoryview) else len(value)
        return f"<{size} bytes>"
    return describe(value) if isinstance(value, BaseException) else None


def _long(value: Any) -> Any:
    """A number of numpy that no type of Python holds."""
    try:
        return _finite(float(value))
    except TypeError:
        return short_repr(value)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _integer(number: int) -> int | str:
    bits = number.bit_length()
    return number if bits <= INTEGER_BITS else f"<integer of {bits} bits>"


def _mark(reason: str) -> dict[str, Any]:
    return {"clipped": True, "reason": reason}


# --- cut to a size ---------------------------------------------------------------------------------------------------

MARK_BYTES = 48
"""What a mark takes at most in a list or an object."""
WORTH_BYTES = 16
"""Less than this of a value says nothing: fewer values are kept instead."""


class _Sized(NamedTuple):
    """A storable value, what it takes as ASCII JSON, and its parts: a list's items or an object's values, which count
    what their keys take besides."""

    value: Any
    size: int
    key: int = 0
    parts: tuple[_Sized, ...] = ()

    @property
    def least(self) -> int:
        """The room without which nothing can be told of this part."""
        return self.key + min(self.size, WORTH_BYTES) + 1


def encoded_bytes(value: Any) -> int:
    """What a storable value takes in an event, or a little more."""
    return _sized(value).size


def clip(value: Any, max_bytes: int) -> Any:
    """A storable value that fits: the same; or one in which long texts, lists and objects end with a mark that says
    how much there was. What is small is kept, what is large gives up the rest. A text stays a text."""
    return _cut(_sized(value), max_bytes)


def cut_text(kept: str, of: int) -> str:
    return f"{kept}… [clipped: {of} characters]"


def _sized(value: Any, key: str | None = None) -> _Sized:
    key_bytes = 0 if key is None else len(encode_basestring_ascii(key)) + 1
    if isinstance(value, str):
        return _Sized(value, len(encode_basestring_ascii(value)), key_bytes)
    if isinstance(value, dict):
        parts = tuple(_sized(item, name) for name, item in value.items())
    elif isinstance(value, list):
        parts = tuple(_sized(item) for item in value)
    else:
        return _Sized(value, len(msgspec.json.encode(value)), key_bytes)
    return _Sized(value, 2 + sum(part.key + part.size + 1 for part in parts), key_bytes, parts)


def _cut(sized: _Sized, room: int) -> Any:
    value = sized.value
    if sized.size <= room:
        return value
    if isinstance(value, str):
        return _cut_text(value, room)
    if not isinstance(value, dict | list) or room < MARK_BYTES:
        return {"clipped": True}
    kept = _fitting(sized.parts, room - 2)
    is_whole = len(kept) == len(sized.parts)
    shares = _shares(kept, room - 2 - (0 if is_whole else MARK_BYTES))
    items = [_cut(part, share) for part, share in zip(kept, shares, strict=True)]
    if isinstance(value, list):
        return items if is_whole else [*items, {"clipped": True, "items": len(value)}]
    found = dict(zip(value, items, strict=False))
    return found if is_whole else found | {"…": {"clipped": True, "keys": len(value)}}


def _cut_text(value: str, room: int) -> str:
    """As much of a text as fits with its mark."""
    room -= len(encode_basestring_ascii(cut_text("", len(value))))
    if room < 0:
        return ""
    kept = value[:room]
    while (over := len(encode_basestring_ascii(kept)) - 2 - room) > 0:
        kept = kept[: -max(1, over // 12)]  # a character takes twelve bytes at most
    return cut_text(kept, len(value))


def _fitting(parts: tuple[_Sized, ...], room: int) -> tuple[_Sized, ...]:
    """As many of the first as something can be told of."""
    if sum(part.least for part in parts) <= room:
        return parts
    ends = accumulate(part.least for part in parts)
    return parts[: sum(1 for _ in takewhile(lambda end: end <= room - MARK_BYTES, ends))]


def _shares(parts: tuple[_Sized, ...], room: int) -> list[int]:
    """What each value may take: the small ones all of theirs, the others alike."""
    shares = [0] * len(parts)
    left = room - sum(part.key + 1 for part in parts)
    ascending = sorted(range(len(parts)), key=lambda index: parts[index].size)
    for done, index in enumerate(ascending):
        shares[index] = min(parts[index].size, left // (len(parts) - done))
        left -= shares[index]
    return shares
