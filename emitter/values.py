"""What a value may be, for every door through which values come in: the emitter's methods, publishing over HTTP, the
parameters and metadata of an execution, answers, forms. What passes can be shown by every renderer, stored, and read
exactly by readers of JSON in other languages.

Pure: it imports nothing of this project.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Annotated, Any

import msgspec

MAX_DEPTH = 128
"""How deep a value may be nested: `[]` is 1 deep. Encoders of other languages, and our own, give up at about 1,000."""
MAX_INTEGER = 2**53 - 1
"""The greatest whole number that every reader of JSON holds exactly."""
MAX_MILLIS = 253_402_300_799_999
"""The last millisecond of the year 9999, which is the last year that dates are written with."""

Millis = Annotated[int, msgspec.Meta(ge=0, le=MAX_MILLIS, description="milliseconds since the epoch")]
Integer = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Ordinal = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
Attempt = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1, description="counts from 1")]

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_ALL_BUT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS = [0] * 256
for _open, _close in (b"[]", b"{}"):
    _STEPS[_open], _STEPS[_close] = 1, -1


def is_deeper(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Whether a decoded value is nested more than `levels` deep."""
    if not isinstance(value, dict | list | tuple):
        return False
    if levels == 0:
        return True
    inner = value.values() if isinstance(value, dict) else value
    return any(is_deeper(each, levels - 1) for each in inner if isinstance(each, dict | list | tuple))


def is_json_deeper(encoded: bytes, levels: int) -> bool:
    """Whether valid JSON is nested more than `levels` deep. Of nearly all, its length or two counts tell."""
    if len(encoded) <= 2 * levels or encoded.count(b"[") + encoded.count(b"{") <= levels:
        return False
    brackets = _STRING.sub(b"", encoded).translate(None, _ALL_BUT_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > levels


def check_depth(encoded: bytes) -> None:
    """Of an object, as JSON: `ValueError`, with the path of the field, if the value of one is nested too deep."""
    if not is_json_deeper(encoded, MAX_DEPTH + 1):
        return
    fields = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    deep = next(name for name, value in fields.items() if is_json_deeper(bytes(value), MAX_DEPTH))
    raise ValueError(f"nested more than {MAX_DEPTH} deep - at `$.{deep}`")
