"""Tool calls as events.

LangGraph's `tools` stream has the start and the end of a call, in order with all other items, but neither its duration
nor its error: `Watch` notes those. Calls of graphs that run at the same time may have the same id.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import ToolMessage, convert_to_messages
from langgraph.types import Command

from emitter.events import Event, ToolComplete, ToolError, ToolProgress, ToolStart
from emitter.integrations.langgraph.recent import Recent
from emitter.integrations.langgraph.values import storable
from emitter.integrations.langgraph.watch import CallKey, Outcome, Watch
from emitter.wire.storable import text

ERROR_CHARS = 4000
NAME_CHARS = 200
DIGITS = 6


class Call(NamedTuple):
    """A call that runs. Its id in the log differs from the model's when a model uses one twice."""

    id: str
    name: str
    started: float


class Calls:
    """Translates items of the `tools` stream into events."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._open: dict[CallKey, Call] = {}
        self._known = Recent()

    def id_of(self, key: CallKey | None) -> str | None:
        """The id that a call which runs has in the log."""
        call = self._open.get(key) if key else None
        return call and call.id

    def take(self, namespace: Sequence[str], data: Mapping[str, Any]) -> list[Event]:
        key = ("|".join(namespace), str(data["tool_call_id"]))
        if data["event"] == "tool-started":
            return self._start(key, data)
        if (call := self._open.get(key)) is None:
            return []
        if data["event"] == "tool-output-delta":
            return [ToolProgress(call_id=call.id, message=text(data["delta"]))]
        del self._open[key]
        self._watch.forget(key)
        outcome = self._watch.outcome(key) or Outcome(time.monotonic() - call.started, None)
        if data["event"] == "tool-error":
            return [_error(call, outcome.error or text(data["message"]), outcome.seconds)]
        return [_ended(call, key[1], data.get("output"), outcome.seconds)]

    def _start(self, key: CallKey, data: Mapping[str, Any]) -> list[Event]:
        if key in self._open:  # it was interrupted, and runs again with the answer
            return []
        call_id, name = self._fresh(text(key[1])), text(data["tool_name"])[:NAME_CHARS]
        call = self._open[key] = Call(call_id, name, time.monotonic())
        given = data.get("input")
        return [ToolStart(call_id=call.id, tool_name=call.name, params={} if given is None else storable(given))]

    def _fresh(self, given: str) -> str:
        call_id, number = given, 1
        while call_id in self._known:
            number += 1
            call_id = f"{given}~{number}"
        self._known.add(call_id)
        return call_id

    def rejected(self, message: ToolMessage) -> list[Event]:
        """A call that never ran, for example of a tool that does not exist: there is only its result."""
        given = text(message.tool_call_id)
        if message.status != "error" or given in self._known or self._watch.saw_unnamed:
            return []
        self._known.add(given)
        call = Call(given, text(message.name or "")[:NAME_CHARS], 0.0)
        return [
            ToolStart(call_id=call.id, tool_name=call.name, params={}),
            _error(call, text(message.text), 0.0),
        ]

    def end(self, reason: str) -> list[Event]:
        """Error events for calls whose end will not come."""
        now = time.monotonic()
        events: list[Event] = [_error(call, reason, now - call.started) for call in self._open.values()]
        self._open.clear()
        return events


def _ended(call: Call, given_id: str, output: Any, seconds: float) -> Event:
    message = _message(output, given_id)
    if message is not None and message.status == "error":
        return _error(call, text(message.text), seconds)
    result = storable(output if message is None else message.content)
    return ToolComplete(call_id=call.id, tool_name=call.name, result=result, duration=round(seconds, DIGITS))


def _error(call: Call, error: str, seconds: float) -> Event:
    return ToolError(call_id=call.id, tool_name=call.name, error=error[:ERROR_CHARS], duration=round(seconds, DIGITS))


def _message(output: Any, call_id: str) -> ToolMessage | None:
    """The message of a tool to the model, also if the tool returned a `Command` or several."""
    messages = [message for each in (output if isinstance(output, list) else [output]) for message in _messages(each)]
    answers = [message for message in messages if message.tool_call_id == call_id]
    return next(iter(answers or messages), None)


def _messages(output: Any) -> list[ToolMessage]:
    if isinstance(output, ToolMessage):
        return [output]
    update = output.update if isinstance(output, Command) else None
    given = update.get("messages", ()) if isinstance(update, Mapping) else ()
    try:  # as the graph reads them: messages, dicts, pairs
        found = convert_to_messages(given if isinstance(given, list | tuple) else [given])
    except (ValueError, NotImplementedError, KeyError, TypeError):
        return []
    return [message for message in found if isinstance(message, ToolMessage)]
