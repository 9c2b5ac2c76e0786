"""Python values in the form that JSON can hold, and cut to a size. Pure."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import pathlib
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec
from langchain_core.messages import BaseMessage
from pydantic import BaseModel

from emitter.errors import describe
from emitter.wire import ascii_json

DEPTH_MAX = 32
REPR_CHARS = 500
ITEMS_MAX = 1024
CUT_CHARS_MIN = 8

_AS_TEXT = (uuid.UUID, decimal.Decimal, pathlib.PurePath)
_AS_LIST = (list, tuple, set, frozenset, deque)


def text(value: object) -> str:
    """As UTF-8 can hold it: a model may cut an emoji in two."""
    return str(value).encode("utf-8", "replace").decode()


def storable(value: Any, depth: int = 0) -> Any:
    """Of what has no JSON form the nearest thing that says what it is: fields of models, messages and dataclasses,
    `Type: message` of exceptions, else a short `repr`."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return text(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if depth >= DEPTH_MAX:
        return short_repr(value)
    if isinstance(value, Mapping):
        return {text(key): storable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, _AS_LIST):
        return [storable(item, depth + 1) for item in value]
    return _converted(value, depth)


def _converted(value: Any, depth: int) -> Any:
    if isinstance(value, enum.Enum):
        return storable(value.value, depth + 1)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, _AS_TEXT):
        return text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, BaseException):
        return describe(value)
    if (named := _named_fields(value)) is not None:
        return storable(named, depth + 1)
    return short_repr(value)


def _named_fields(value: Any) -> dict[str, Any] | None:
    """The fields of a model, message, dataclass or struct."""
    try:
        if isinstance(value, BaseMessage):
            return _message_fields(value)
        if isinstance(value, BaseModel):
            return value.model_dump()
        if isinstance(value, msgspec.Struct):
            return msgspec.structs.asdict(value)
        if is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in fields(value)}
    except Exception:  # a model's own serialiser may raise anything
        return None
    return None


def _message_fields(message: BaseMessage) -> dict[str, Any]:
    """The flat form that LangGraph's own server sends, without what is empty."""
    dumped = message.model_dump()
    return {name: item for name, item in dumped.items() if name == "content" or item not in (None, "", [], {}, False)}


def short_repr(value: object) -> str:
    try:
        shown = repr(value)
    except Exception:  # a `__repr__` may raise anything, and a deep value too deep
        shown = f"<{type(value).__name__}>"
    return text(shown[:REPR_CHARS])


# --- cut to a size ---------------------------------------------------------------------------------------------------


def encoded_bytes(value: Any) -> int:
    """What a storable value takes in an event."""
    return len(ascii_json(msgspec.json.encode(value)))


def clip(value: Any, max_bytes: int) -> Any:
    """A storable value that fits: the same, or one in which long texts and lists end with a mark that says how much was
    cut. A text stays a text."""
    size = encoded_bytes(value)
    chars, items, clipped = max_bytes, ITEMS_MAX, value
    while size > max_bytes and chars >= CUT_CHARS_MIN:
        clipped = _cut(value, chars, items)
        size = encoded_bytes(clipped)
        chars, items = chars // 2, max(4, items // 2)
    if size <= max_bytes:
        return clipped
    return "" if isinstance(value, str) else {"clipped": True}


def _cut(value: Any, chars: int, items: int) -> Any:
    if isinstance(value, str) and len(value) > chars:
        return f"{value[:chars]}… [clipped: {len(value)} characters]"
    if isinstance(value, list):
        kept = [_cut(item, chars, items) for item in value[:items]]
        return kept if len(value) <= items else [*kept, f"… [clipped: {len(value)} items]"]
    if isinstance(value, dict):
        kept_keys = {_cut(key, chars, items): _cut(item, chars, items) for key, item in list(value.items())[:items]}
        return kept_keys if len(value) <= items else kept_keys | {"…": f"[clipped: {len(value)} keys]"}
    return value
