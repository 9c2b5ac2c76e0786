"""What parsers of ProtoJSON (https://protobuf.dev/programming-guides/json) must take besides the usual form: names as
the proto has them, `null` for what is unset, and whole numbers as text or with a point. Pure."""

from __future__ import annotations

import re
from typing import Any

from msgspec import inspect

_WHOLE = re.compile(r"-?[0-9]{1,10}")


def usual(given: Any, type_: type[Any]) -> Any:
    """What was given for a struct, in its usual form. Other values stay unchanged; the reader refuses them."""
    return _usual(given, _info(type_))


_infos: dict[type[Any], inspect.Type] = {}


def _info(type_: type[Any]) -> inspect.Type:
    if type_ not in _infos:
        _infos[type_] = inspect.type_info(type_)
    return _infos[type_]


def _usual(given: Any, info: inspect.Type) -> Any:
    match info:
        case inspect.Metadata(type=inner):
            return _usual(given, inner)
        case inspect.UnionType(types=types):
            for each in types:
                given = _usual(given, each)
            return given
        case inspect.StructType() if isinstance(given, dict):
            return _members(given, info)
        case inspect.ListType(item_type=inner) | inspect.VarTupleType(item_type=inner) if isinstance(given, list):
            return [_usual(each, inner) for each in given]
        case inspect.IntType() if isinstance(given, str) and _WHOLE.fullmatch(given):
            return int(given)
        case inspect.IntType() if isinstance(given, float) and given.is_integer():
            return int(given)
    return given


def _members(given: dict[str, Any], info: inspect.StructType) -> dict[str, Any]:
    found = dict(given)
    for field in info.fields:
        name = field.encode_name
        if field.name in found and field.name != name:
            value = found.pop(field.name)
            found.setdefault(name, value)
        if name not in found:
            continue
        if found[name] is None and not isinstance(field.type, inspect.AnyType):  # of a value null is one
            del found[name]
        else:
            found[name] = _usual(found[name], field.type)
    return found
