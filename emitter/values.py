"""Which values are allowed, wherever they come in: the emitter's methods, publishing over HTTP, parameters and metadata
of an execution, answers, forms. Allowed values can be stored, shown by every renderer, and read exactly by JSON parsers
of other languages.

Pure: it imports nothing of this project.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import Annotated, Any

import msgspec

MAX_DEPTH = 128
"""How deep a value may be nested: `[]` is 1 deep. Encoders fail at about 1,000."""
MAX_VALUES = 1_000_000
MAX_INTEGER = 2**53 - 1
"""The greatest whole number that every JSON parser reads exactly."""
MAX_MILLIS = 253_402_300_799_999
"""The last millisecond of the year 9999, the last year of ISO dates."""

Millis = Annotated[int, msgspec.Meta(ge=0, le=MAX_MILLIS, description="milliseconds since the epoch")]
Integer = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Ordinal = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
Attempt = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1, description="counts from 1")]

ROUNDING = 1e-6
"""Tolerance of a percentage, because its parts may have been added up."""

SHALLOW_PASSES = 8
_CONTAINERS = (dict, list, tuple, set, frozenset)
_ALL_BUT_MARKS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""Brackets to signed bytes: one deeper, or one less."""


def percentage(value: Any) -> Any:
    """A percentage that is out of range only by rounding is clamped; any other value stays as it is."""
    if not isinstance(value, float | int) or not (-ROUNDING <= value < 0 or 100 < value <= 100 + ROUNDING):
        return value
    return 0.0 if value < 0 else 100.0


def is_heavier(value: Any, most: int) -> bool:
    """Whether a value certainly needs more than `most` bytes of JSON, or has more than `MAX_VALUES` values in it, each
    counted as often as it occurs. Bounded in time, also for a value that contains itself."""
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
    """Whether valid JSON is nested more than `levels` deep. Nearly always the length or two counts decide; for wide but
    shallow values a few passes over the brackets do."""
    if len(encoded) <= 2 * levels or encoded.count(b"[") + encoded.count(b"{") <= levels:
        return False
    brackets = left = _brackets(encoded)
    for _ in range(min(SHALLOW_PASSES, levels // 2)):
        left = left.replace(b"[]", b"").replace(b"{}", b"")  # one level, or two
        if not left:
            return False
    return max(accumulate(array("b", brackets.translate(_STEPS))), default=0) > levels


def _brackets(encoded: bytes) -> bytes:
    """The brackets outside of strings. Backslashes occur only in strings, and a run of them begins with an escape."""
    if b"\\" in encoded:
        encoded = encoded.replace(b"\\\\", b"").replace(b'\\"', b"")
    # An empty string can be removed: what is inside of strings does not change.
    marks = encoded.translate(None, _ALL_BUT_MARKS).replace(b'""', b"")
    return b"".join(marks.split(b'"')[::2])


def check_depth(encoded: bytes) -> None:
    """Raises `ValueError`, with the path of the field, if a value in a JSON object is nested too deep."""
    if not is_json_deeper(encoded, MAX_DEPTH + 1):
        return
    fields = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    deep = next(name for name, value in fields.items() if is_json_deeper(bytes(value), MAX_DEPTH))
    raise ValueError(f"nested more than {MAX_DEPTH} deep - at `$.{deep}`")
