"""Credentials in structured values: under keys that name them, in lists of pairs, in command lines. Pure."""

from __future__ import annotations

import re
from typing import Any

from emitter.wire.redact.forms import is_path, is_placeholder
from emitter.wire.redact.keys import kind_of
from emitter.wire.redact.texts import REDACTED, replace, spans

Extra = frozenset[str]
_NAME_FIELDS = ("name", "key", "header", "field", "Name", "Key")
_VALUE_FIELDS = ("value", "val", "content", "Value")
_FORM_VALUES = ("default", "const", "example", "examples", "enum")
_WEAK_LENGTH = 5
_FILE = re.compile(r"data:([\w.+*-]+/[\w.+*-]+)?(;[\w.+*-]+=[\w.+*-]+)*;base64,[A-Za-z0-9+/]{1024,}={0,2}", re.ASCII)
"""A file in base 64 that is too long for a credential. To look through it would take 0.2 µs a byte."""


def clean(value: Any, extra: Extra = frozenset(), *, keys: bool = True) -> Any:
    """A decoded JSON value without credentials. `keys`: whether its keys are somebody's own, and name secrets."""
    if isinstance(value, str):
        if value[:5] == "data:" and _FILE.fullmatch(value):
            return value
        return replace(value, spans(value))
    if isinstance(value, dict):
        return _object(value, extra) if keys else {_key(name): clean(item, keys=False) for name, item in value.items()}
    if isinstance(value, list):
        return _list(value, extra) if keys else [clean(item, keys=False) for item in value]
    return value


def clean_schema(schema: Any, extra: Extra = frozenset()) -> Any:
    """A form's JSON Schema without the suggested values of secret fields. Field names themselves are no secrets."""
    if isinstance(schema, list):
        return [clean_schema(item, extra) for item in schema]
    if not isinstance(schema, dict):
        return clean(schema, keys=False)
    cleaned = {_key(name): clean_schema(item, extra) for name, item in schema.items()}
    fields = cleaned.get("properties")
    if isinstance(fields, dict):
        cleaned["properties"] = {name: _form_field(name, field, extra) for name, field in fields.items()}
    return cleaned


def _form_field(name: str, field: Any, extra: Extra) -> Any:
    if not isinstance(field, dict) or kind_of(name, extra) != "secret":
        return field
    return {key: _hidden(name, item) if key in _FORM_VALUES else item for key, item in field.items()}


def _key(name: str) -> str:
    return replace(name, spans(name)) if len(name) >= 12 else name


def _object(value: dict[str, Any], extra: Extra) -> dict[str, Any]:
    cleaned = {_key(name): _member(name, item, extra) for name, item in value.items()}
    named = next((value[field] for field in _NAME_FIELDS if isinstance(value.get(field), str)), "")
    if named and kind_of(named, extra) == "secret":  # {"name": "password", "value": …}
        cleaned |= {field: _hidden(named, value[field]) for field in _VALUE_FIELDS if field in value}
    return cleaned


def _member(name: str, item: Any, extra: Extra) -> Any:
    kind = kind_of(name, extra)
    if kind == "secret":
        hidden = _hidden(name, item)
        return hidden if hidden is REDACTED else clean(item, extra)
    return _weak(item, extra) if kind else clean(item, extra)


def _hidden(name: str, item: Any) -> Any:
    """What stands for the value of a secret: itself, if it tells nothing."""
    if item is None or isinstance(item, bool) or item == "":
        return item
    low = name.lower()
    # A number of tokens counts something; a text is one.
    if "token" in low and not _has_text(item):
        return item
    return item if low.endswith("pwd") and isinstance(item, str) and is_path(item) else REDACTED


def _has_text(item: Any) -> bool:
    if isinstance(item, dict | list):
        return any(map(_has_text, item.values() if isinstance(item, dict) else item))
    return isinstance(item, str)


def _weak(item: Any, extra: Extra) -> Any:
    """A value under a key that has other meanings as well: only one word that may be a credential goes."""
    if isinstance(item, list):
        return [_weak(one, extra) for one in item]
    if not isinstance(item, str):
        return clean(item, extra)
    is_word = len(item) >= _WEAK_LENGTH and not any(letter.isspace() or letter in "(){}" for letter in item)
    return REDACTED if is_word and not is_placeholder(item) and not is_path(item) else clean(item, extra)


def _list(value: list[Any], extra: Extra) -> list[Any]:
    cleaned = [clean(item, extra) for item in value]
    if all(isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) for item in value):
        return [_pair(item, new, extra) for item, new in zip(value, cleaned, strict=True)]
    for at in range(1, len(value)):
        if _is_argument(value, at, extra):
            cleaned[at] = REDACTED
    return cleaned


def _pair(item: list[Any], cleaned: list[Any], extra: Extra) -> list[Any]:
    """One of `[["Authorization", "…"], …]`."""
    if kind_of(item[0], extra) != "secret" or (isinstance(item[1], str) and is_placeholder(item[1])):
        return cleaned
    return [cleaned[0], _hidden(item[0], item[1])]


def _is_argument(value: list[Any], at: int, extra: Extra) -> bool:
    """Whether this is what follows an option like `--password` in a command line."""
    option, item = value[at - 1], value[at]
    if not (isinstance(option, str) and isinstance(item, str) and option.startswith("-")) or item.startswith("-"):
        return False
    if option in ("-u", "--user", "--proxy-user") and ":" in item:
        return any(isinstance(word, str) and word.endswith(("curl", "wget")) for word in value[:at])
    return "=" not in option and kind_of(option, extra) != "" and not is_placeholder(item)
