"""What a value may be, for every door through which values come in: the emitter's methods, publishing over HTTP, the
parameters and metadata of an execution, answers, forms. What passes can be shown by every renderer, stored, and read
exactly by readers of JSON in other languages.

Pure: it imports nothing of this project.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import Annotated, Any

import msgspec

MAX_DEPTH = 128
"""How deep a value may be nested: `[]` is 1 deep. Encoders of other languages, and our own, give up at about 1,000."""
MAX_VALUES = 1_000_000
MAX_INTEGER = 2**53 - 1
"""The greatest whole number that every reader of JSON holds exactly."""
MAX_MILLIS = 253_402_300_799_999
"""The last millisecond of the year 9999, which is the last year that dates are written with."""

Millis = Annotated[int, msgspec.Meta(ge=0, le=MAX_MILLIS, description="milliseconds since the epoch")]
Integer = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Ordinal = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
Attempt = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1, description="counts from 1")]

ROUNDING = 1e-6
"""By so much a percentage may be over or under, because its parts were added up."""

SHALLOW_PASSES = 8
_CONTAINERS = (dict, list, tuple, set, frozenset)
_ALL_BUT_MARKS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""Brackets to signed bytes: one deeper, or one less."""


def percentage(value: Any) -> Any:
    """A percentage that is over or under by rounding is the nearest; any other value is left as it is."""
    if not isinstance(value, float | int) or not (-ROUNDING <= value < 0 or 100 < value <= 100 + ROUNDING):
        return value
    return 0.0 if value < 0 else 100.0


def is_heavier(value: Any, most: int) -> bool:
    """Whether a value surely takes more than `most` bytes of JSON, or holds more than `MAX_VALUES` others: what it
    holds several times counts as often. Bounded in time, also for a value that holds itself."""
    if type(value) is str:
        return len(value) > most
    waiting, seen, left = [value] if isinstance(value, _CONTAINERS) else [], 0, most
    for each in waiting:  # which grows meanwhile
        seen += len(each) + 1
        if seen > MAX_VALUES or (left := left - len(each)) < 0:
            return True
        for item in tuple(each.values() if isinstance(each, dict) else each):  # another thread may change it
            if type(item) is str:
                left -= len(item)
            elif isinstance(item, _CONTAINERS):
                waiting.append(item)
    return left < 0


def is_deeper(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Whether a decoded value is nested more than `levels` deep."""
    if not isinstance(value, dict | list | tuple):
        return False
    if levels == 0:
        return True
    inner = value.values() if isinstance(value, dict) else value
    return any(is_deeper(each, levels - 1) for each in inner if isinstance(each, dict | list | tuple))


def is_json_deeper(encoded: bytes, levels: int) -> bool:
    """Whether valid JSON is nested more than `levels` deep. Of nearly all, its length or two counts tell; of what is
    wide but not deep, a few passes over its brackets."""
    if len(encoded) <= 2 * levels or encoded.count(b"[") + encoded.count(b"{") <= levels:
        return False
    brackets = left = _brackets(encoded)
    for _ in range(min(SHALLOW_PASSES, levels // 2)):
        left = left.replace(b"[]", b"").replace(b"{}", b"")  # one level, or two
        if not left:
            return False
    return max(accumulate(array("b", brackets.translate(_STEPS))), default=0) > levels


def _brackets(encoded: bytes) -> bytes:
    """Those outside of strings. A run of backslashes begins with an escape, and stands in strings alone."""
    if b"\\" in encoded:
        encoded = encoded.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes with nothing in between: what is left says as before what is inside and what is not.
    marks = encoded.translate(None, _ALL_BUT_MARKS).replace(b'""', b"")
    return b"".join(marks.split(b'"')[::2])


def check_depth(encoded: bytes) -> None:
    """Of an object, as JSON: `ValueError`, with the path of the field, if the value of one is nested too deep."""
    if not is_json_deeper(encoded, MAX_DEPTH + 1):
        return
    fields = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    deep = next(name for name, value in fields.items() if is_json_deeper(bytes(value), MAX_DEPTH))
    raise ValueError(f"nested more than {MAX_DEPTH} deep - at `$.{deep}`")
