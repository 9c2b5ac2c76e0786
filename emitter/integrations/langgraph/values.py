"""LangChain's values in the form that JSON can hold. Pure."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import BaseMessage

from emitter.wire import storable as values


def storable(value: Any) -> Any:
    """`emitter.wire.storable`; messages are in the flat form that LangGraph's own server sends."""
    return values.storable(value, fields_of=_fields_of)


def _fields_of(value: Any) -> Any:
    fields = values.named_fields(value)
    if not isinstance(value, BaseMessage):
        return fields
    return {name: item for name, item in fields.items() if name == "content" or not _is_empty(item)}


def _is_empty(item: Any) -> bool:
    return item is None or item is False or (isinstance(item, str | list | dict) and not item)
