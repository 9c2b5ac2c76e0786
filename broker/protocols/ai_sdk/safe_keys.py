"""Names of object members that the SDK's clients refuse: one of them in any value, and their stream is over
(`secureJsonParse` of `@ai-sdk/provider-utils` 3 to 5). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from broker.protocols.ai_sdk.parts import encode

SUSPECT = b"proto"
"""In JSON with such a name: logs have no escapes of letters."""


def with_safe_keys(frames: Iterable[bytes]) -> list[bytes]:
    """The same JSON; but `__proto__`, and `constructor` of an object with a `prototype`, is `(__proto__)`."""
    return [_safe(frame) if SUSPECT in frame else frame for frame in frames]


def _safe(json: bytes) -> bytes:
    value = msgspec.json.decode(json)
    return encode(_renamed(value)) if _any_unsafe(value) else json


def _any_unsafe(root: Any) -> bool:
    return any(_is_unsafe(name, value) for node in _objects(root) for name, value in node.items())


def _objects(root: Any) -> list[dict[str, Any]]:
    """All in a value, which may be deep."""
    found, rest = [], [root]
    while rest:
        node = rest.pop()
        if isinstance(node, dict):
            found.append(node)
            rest += node.values()
        elif isinstance(node, list):
            rest += node
    return found


def _renamed(root: Any) -> Any:
    for node in _objects(root):
        members = [(f"({name})" if _is_unsafe(name, value) else name, value) for name, value in node.items()]
        node.clear()
        node.update(members)
    return root


def _is_unsafe(name: str, value: Any) -> bool:
    return name == "__proto__" or (name == "constructor" and isinstance(value, dict) and "prototype" in value)
