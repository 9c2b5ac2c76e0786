"""Mending: events that only show something are brought into a form that the catalogue allows. Pure.

An agent does not control what its models and tools return, and must not fail because of it: a field of the wrong type
becomes one of the right type, a value without a JSON form gets the nearest form (`storable`), a number out of its range
is clamped, and a value that is too long is cut, with a mark. What changes the meaning of an execution is refused
instead: `MEANT`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from emitter.budgets import Budget, BudgetState
from emitter.errors import InvalidEvent, PayloadTooLarge
from emitter.events import BY_TYPE, Artifact, Custom, Event, ExecutionSuperseded, InputReceived, InputRequired
from emitter.values import MAX_DEPTH, MAX_INTEGER
from emitter.wire.envelope import CUSTOM_NAME_MAX, NOT_IN_CUSTOM_NAME, decode_event, encode_data, event_type
from emitter.wire.storable import clip, storable, text

MEANT = frozenset({InputRequired.type, InputReceived.type, ExecutionSuperseded.type})
"""Types that are refused rather than mended: inputs, answers, takeovers."""
_MEANT_FIELDS = frozenset({"attempt", "started_at"})
REDACTED_ROOMS = 64
"""How many times the room is searched for credentials before the cut."""
SHARES = (1.0, 0.7, 0.4, 0.1)
"""Shares of the room to try in turn: redaction may make an event longer than it was measured."""


def may_mend(event: Event) -> bool:
    return event.type not in MEANT and (event.type in BY_TYPE or isinstance(event, Custom))


def valid(event: Event, max_bytes: int) -> Event:
    """The event if the catalogue allows it, at any length; otherwise mended, if that is allowed."""
    try:
        encode_data(event, max_bytes)
    except (InvalidEvent, PayloadTooLarge):
        return mended(event) if may_mend(event) else event
    return event


def mended(event: Event) -> Event:
    """The event with every field in a form that the catalogue allows, at any length."""
    if isinstance(event, Custom):
        return Custom(name=_custom_name(event.name), data=_object(event.data))
    kind = BY_TYPE[event.type]
    fields = {name: (hint, getattr(event, name)) for name, hint in _hints(kind).items()}
    return kind(
        **{name: item if name in _MEANT_FIELDS else _of_type(hint, item) for name, (hint, item) in fields.items()}
    )


@cache
def _hints(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The fields of a struct by name, with their types."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hints[name] for name in kind.__struct_fields__}


# --- one field -------------------------------------------------------------------------------------------------------


def _of_type(hint: Any, value: Any) -> Any:
    if value is None and type(None) in get_args(hint):
        return None
    hint, ranges = _without_none(hint), _ranges(hint)
    if hint is str:
        return words(value)
    if hint is float or hint is int:
        return _number(hint, value, *ranges)
    if get_origin(hint) is Literal:
        return value if isinstance(value, str) and value in get_args(hint) else get_args(hint)[0]
    if get_origin(hint) is list:
        return [_of_type(get_args(hint)[0], each) for each in _items(value)]
    if isinstance(hint, type) and issubclass(hint, Budget | BudgetState):
        return value if isinstance(value, hint) and _is_valid(value) else None
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _struct(hint, value)
    return _truth(value) if hint is bool else plain(value)


def _without_none(hint: Any) -> Any:
    """The type of a field without annotations: `Percent | None` is a float."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if type(None) in get_args(hint) and len(kinds) == 1:
        return _without_none(kinds[0])
    return hint.__origin__ if hasattr(hint, "__metadata__") else hint


def _ranges(hint: Any) -> tuple[float, float]:
    metas = [meta for kind in (hint, *get_args(hint)) for meta in getattr(kind, "__metadata__", ())]
    least = next((meta.ge for meta in metas if meta.ge is not None), -math.inf)
    most = next((meta.le for meta in metas if meta.le is not None), math.inf)
    return least, most


def plain(value: Any) -> Any:
    """Any value as JSON can hold it."""
    return storable(value, max_depth=MAX_DEPTH - 1)  # a mark adds one level


def words(value: Any) -> str:
    """Any value as text: None is "", and a value that is no text is written as JSON."""
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    found = value if isinstance(value, str) else storable(value)
    if isinstance(found, str):
        return text(found)
    return "" if found is None else json.dumps(found, ensure_ascii=False)


def _number(kind: type, value: Any, least: float, most: float) -> float | int:
    """A number within its range; the one nearest to 0 if the value is no number."""
    try:
        number = float(words(value) if isinstance(value, str | bytes) else value)
    except Exception:  # a foreign `__float__` may raise anything
        number = 0.0
    if kind is float:
        return min(max(0.0 if not math.isfinite(number) else number, least), most)
    exact = value if type(value) is int else round(number) if math.isfinite(number) else 0
    return min(max(int(exact), int(max(least, -MAX_INTEGER))), int(min(most, MAX_INTEGER)))


def _truth(value: Any) -> bool:
    try:
        return bool(value)
    except Exception:  # so may `__bool__`, as that of arrays does
        return True


def _items(value: Any) -> Iterable[Any]:
    found = plain(value)
    if isinstance(value, list | tuple) and all(isinstance(each, msgspec.Struct) for each in value):
        return value
    return found if isinstance(found, list) else () if found is None else (found,)


def _struct(kind: type[msgspec.Struct], value: Any) -> msgspec.Struct:
    """A struct that is part of an event. If the value is no such struct, it becomes the text of every text field."""
    hints = _hints(kind)
    if isinstance(value, kind):
        found = {name: getattr(value, name) for name in kind.__struct_fields__}
    else:
        shown = plain(value)
        found = shown if isinstance(shown, dict) and hints.keys() & shown.keys() else dict.fromkeys(hints, shown)
    return kind(**{name: _of_type(hint, found.get(name)) for name, hint in hints.items()})


def _is_valid(value: msgspec.Struct) -> bool:
    try:
        msgspec.convert(msgspec.to_builtins(value), type(value))
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return False
    return True


def _object(value: Any) -> dict[str, Any]:
    found = plain(value)
    return found if isinstance(found, dict) else {"value": found}


def _custom_name(name: Any) -> str:
    return NOT_IN_CUSTOM_NAME.sub("_", words(name).lower())[:CUSTOM_NAME_MAX] or "_"


# --- cut to a size ---------------------------------------------------------------------------------------------------


def shorter(event: Event, room: int, redact: Callable[[str, bytes], bytes]) -> Iterator[Event]:
    """A mended event, cut to `room` bytes of data and less; long texts and lists end with a mark of their size. It is
    redacted first, because half of a credential is not recognised."""
    type_ = event_type(event)
    whole = decode_event(type_, redact(type_, encode_data(_cut(event, REDACTED_ROOMS * room))))
    for share in SHARES:
        yield _cut(whole, int(room * share))


def _cut(event: Event, room: int) -> Event:
    names = event.__struct_fields__
    fields = clip({name: plain(getattr(event, name)) for name in names}, room)
    if isinstance(event, Artifact) and event.url and fields.get("url") != plain(event.url):
        # A part of a link or of an image is useless.
        fields |= {"url": None, "data": fields.get("data") or {"clipped": True, "bytes": len(event.url)}}
    return mended(type(event)(**{name: fields.get(name) for name in names}))
