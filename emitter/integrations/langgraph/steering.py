"""What people say to a graph while it runs: when it may enter the graph's state, and as what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from langchain_core.messages import AIMessage, HumanMessage

from emitter.wire.user_messages import Message

OnMessages = Callable[[Sequence[Message]], Any]
"""Makes an update of the graph's state of messages; None: they are left out of it."""


def as_human_messages(messages: Sequence[Message]) -> dict[str, Any]:
    """The update of a graph with the channel `messages`. An attempt that goes on with the thread of a lost one replaces
    them, by their ids."""
    return {"messages": [HumanMessage(content=_content(message), id=message.message_id) for message in messages]}


def _content(message: Message) -> str:
    data = None if message.data is None else msgspec.json.encode(message.data).decode()
    return "\n".join(part for part in (message.text, data) if part)


def may_enter(namespace: Sequence[str], mode: str, data: Any) -> bool:
    """Whether an item of the graph's stream is the end of a superstep, after which the state may be changed: another
    step follows, and no call of a tool waits for its result."""
    if namespace or mode != "debug" or data["type"] != "checkpoint":
        return False
    payload = data["payload"]
    if not payload["next"] or payload["metadata"].get("source") != "loop":
        return False
    values = payload["values"]
    said = values.get("messages") if isinstance(values, Mapping) else None
    last = said[-1] if isinstance(said, list) and said else None
    return not (isinstance(last, AIMessage) and last.tool_calls)


def has_breakpoints(graph: Any, options: Mapping[str, Any]) -> bool:
    """Whether it stops before or after nodes, for a person to look: then nothing may make it go on but that person."""
    names = ("interrupt_before", "interrupt_after")
    return any(options.get(name) for name in names) or any(getattr(graph, f"{name}_nodes", ()) for name in names)
