"""What nodes write with `get_stream_writer()`, as events. Pure.

By convention a payload is a mapping whose `type` names an event of the catalogue, spelled as `plan:created`,
`plan_created` or `planCreated`, beside the event's fields in snake_case or camelCase. Everything else becomes
`custom:langgraph`. What belongs to the runtime, `execution:*` and `input:*`, cannot be written this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from emitter.errors import InvalidEvent
from emitter.events import BY_TYPE, Custom, Event, PlanCreated
from emitter.integrations.langgraph.values import storable
from emitter.wire.envelope import encode_data

NAME = "langgraph"
RUNTIME = ("execution:", "input:")
CUSTOM = "custom:"
ROUNDING = 0.01
"""How far over or under a percentage may be by adding up its parts."""


def _bare(name: str) -> str:
    return "".join(character for character in name if character.isalnum()).lower()


_TYPES = {_bare(name): event for name, event in BY_TYPE.items() if not name.startswith(RUNTIME)}
_FIELDS = {
    event: {_bare(field.name): field.encode_name for field in msgspec.structs.fields(event)}
    for event in _TYPES.values()
}


def to_event(payload: Any) -> Event:
    """The event of a payload; a payload without a known type, or with wrong fields, becomes a custom event."""
    event = _meant(payload)
    return event if event is not None and _is_valid(event) else _custom(NAME, payload)


def _meant(payload: Any) -> Event | None:
    if isinstance(payload, Event):
        return None if payload.type.startswith(RUNTIME) else payload
    type_ = payload.get("type") if isinstance(payload, Mapping) else None
    if not isinstance(type_, str):
        return None
    given = {key: value for key, value in payload.items() if key != "type"}
    if type_.startswith(CUSTOM):
        return _custom(type_.removeprefix(CUSTOM), given.get("data", given))
    return _of_catalogue(_TYPES.get(_bare(type_)), given)


def _of_catalogue(event: type[Event] | None, given: Mapping[Any, Any]) -> Event | None:
    if event is None:
        return None
    if event is PlanCreated and "plan" not in given:
        given = {"plan": given}
    named = {_FIELDS[event].get(_bare(str(key)), str(key)): storable(value) for key, value in given.items()}
    if isinstance(percent := named.get("progress"), float) and abs(percent - 50) < 50 + ROUNDING:
        named["progress"] = min(max(percent, 0.0), 100.0)
    try:
        return msgspec.convert(named, event)
    except msgspec.ValidationError:
        return None


def _custom(name: str, data: Any) -> Custom:
    plain = storable(data)
    return Custom(name=name, data=plain if isinstance(plain, dict) else {"value": plain})


def _is_valid(event: Event) -> bool:
    try:
        encode_data(event)
    except InvalidEvent:
        return False
    return True
