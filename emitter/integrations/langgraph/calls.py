"""Tool calls as events.

LangGraph's `tools` stream says, in order with everything else, when a call starts and ends, but neither how long it
took nor what an error was: that is what `Watch` notes, which is called where the tool runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import ToolMessage
from langgraph.config import get_stream_writer
from langgraph.constants import TAG_NOSTREAM
from langgraph.types import Command

from emitter.errors import describe
from emitter.events import Event, ToolComplete, ToolError, ToolProgress, ToolStart
from emitter.integrations.langgraph.messages import Recent
from emitter.integrations.langgraph.values import storable
from emitter.storable import text

ERROR_CHARS = 4000
NAME_CHARS = 200
DIGITS = 6


class Outcome(NamedTuple):
    seconds: float
    error: str | None


class Watch(BaseCallbackHandler):
    """Notes how calls came out, by the id that the `tools` stream gives them; hands custom events on to the stream.

    A plain handler that runs inline: it is called on whichever thread the tool runs on, and only touches dicts.
    """

    run_inline = True

    def __init__(self) -> None:
        self._running: dict[UUID, tuple[str, float]] = {}
        self._outcomes: dict[str, Outcome] = {}
        self.saw_unnamed = False
        """Whether a tool was called without the id that the model gave to the call."""

    def take(self, call_id: str) -> Outcome | None:
        return self._outcomes.pop(call_id, None)

    def on_tool_start(self, *_: Any, run_id: UUID, tags: list[str] | None = None, **more: Any) -> None:
        if TAG_NOSTREAM not in (tags or ()):
            call_id = more.get("tool_call_id")
            self._running[run_id] = (call_id or str(run_id), time.monotonic())
            self.saw_unnamed = self.saw_unnamed or not call_id

    def on_tool_end(self, *_: Any, run_id: UUID, **__: Any) -> None:
        self._ended(run_id, None)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **__: Any) -> None:
        self._ended(run_id, describe(error, ERROR_CHARS))

    def _ended(self, run_id: UUID, error: str | None) -> None:
        if (running := self._running.pop(run_id, None)) is not None:
            call_id, started = running
            self._outcomes[call_id] = Outcome(time.monotonic() - started, error)

    def on_custom_event(self, name: str, data: Any, **_: Any) -> None:
        """`dispatch_custom_event(name, data)` says the same as writing `{"type": name, **data}`."""
        fields = data if isinstance(data, Mapping) else {"data": {"value": data}}
        get_stream_writer()({**fields, "type": name})


class Call(NamedTuple):
    """A call that runs. Its id in the log differs from the model's when a model uses one twice."""

    id: str
    name: str
    started: float


class Calls:
    """Takes what the `tools` stream says; the events that follow from it."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._open: dict[str, Call] = {}
        self._known = Recent()

    def take(self, data: Mapping[str, Any]) -> list[Event]:
        given = text(data["tool_call_id"])
        if data["event"] == "tool-started":
            return self._start(given, data)
        if (call := self._open.get(given)) is None:
            return []
        if data["event"] == "tool-output-delta":
            return [ToolProgress(call_id=call.id, message=text(data["delta"]))]
        del self._open[given]
        outcome = self._watch.take(data["tool_call_id"]) or Outcome(time.monotonic() - call.started, None)
        if data["event"] == "tool-error":
            return [_error(call, outcome.error or text(data["message"]), outcome.seconds)]
        return [_ended(call, data.get("output"), outcome.seconds)]

    def _start(self, given: str, data: Mapping[str, Any]) -> list[Event]:
        if given in self._open:  # it was interrupted to ask somebody, and runs again with the answer
            return []
        call = self._open[given] = Call(self._fresh(given), text(data["tool_name"])[:NAME_CHARS], time.monotonic())
        return [ToolStart(call_id=call.id, tool_name=call.name, params=storable(data.get("input")))]

    def _fresh(self, given: str) -> str:
        call_id, number = given, 1
        while call_id in self._known:
            number += 1
            call_id = f"{given}~{number}"
        self._known.add(call_id)
        return call_id

    def rejected(self, message: ToolMessage) -> list[Event]:
        """A call that never ran, as when a model calls a tool that does not exist: there is only the answer to it."""
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
        """Calls that will never say how they ended."""
        now = time.monotonic()
        events: list[Event] = [_error(call, reason, now - call.started) for call in self._open.values()]
        self._open.clear()
        return events


def _ended(call: Call, output: Any, seconds: float) -> Event:
    message = _message(output)
    if message is not None and message.status == "error":
        return _error(call, text(message.text), seconds)
    result = storable(output if message is None else message.content)
    return ToolComplete(call_id=call.id, tool_name=call.name, result=result, duration=round(seconds, DIGITS))


def _error(call: Call, error: str, seconds: float) -> Event:
    return ToolError(call_id=call.id, tool_name=call.name, error=error[:ERROR_CHARS], duration=round(seconds, DIGITS))


def _message(output: Any) -> ToolMessage | None:
    """What a tool says to the model, also when it steers the graph with a `Command` besides."""
    if isinstance(output, ToolMessage):
        return output
    update = output.update if isinstance(output, Command) else None
    messages = update.get("messages", ()) if isinstance(update, Mapping) else ()
    if isinstance(messages, list | tuple):
        return next((message for message in messages if isinstance(message, ToolMessage)), None)
    return None
