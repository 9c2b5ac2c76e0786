"""One item of a graph's stream in, events out. Pure but for the clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage

from emitter.events import Event
from emitter.integrations.langgraph.calls import Calls, Watch
from emitter.integrations.langgraph.messages import Messages, RunningUsage, task_of
from emitter.integrations.langgraph.payloads import to_event
from emitter.integrations.langgraph.phases import Asked, Phases

INTERRUPT = "__interrupt__"
NO_RESULT = "it ended without a result"
MODES = ("values", "updates", "messages", "custom", "debug", "tools")
"""What is streamed: `debug` rather than `tasks`, because it knows the step a task belongs to."""


class Translation:
    """Remembers what is open between items. `output` is the graph's latest, as `ainvoke` would return it."""

    def __init__(self, watch: Watch, usage: RunningUsage) -> None:
        self._phases = Phases()
        self._messages = Messages(usage)
        self._calls = Calls(watch)
        self.output: Any = None
        self.is_at_breakpoint = False
        """Whether the graph was told (`interrupt_before`, `interrupt_after`) to stop here."""

    @property
    def asked(self) -> list[Asked]:
        """What must be answered before the graph can go on."""
        return list(self._phases.asked.values())

    def begin_round(self) -> None:
        self._phases.begin_round()
        self.is_at_breakpoint = False

    def take(self, namespace: Sequence[str], mode: str, data: Any) -> list[Event]:
        match mode:
            case "debug":
                return self._take_task(namespace, data)
            case "messages":
                return self._take_message(*data)
            case "tools":
                return self._calls.take(data)
            case "custom":
                return [to_event(data)]
            case "values" if not namespace and not (isinstance(data, dict) and INTERRUPT in data):
                self.output = data
            case "updates" if not namespace and data.get(INTERRUPT) == ():
                self.is_at_breakpoint = True
        return []

    def _take_task(self, namespace: Sequence[str], data: Mapping[str, Any]) -> list[Event]:
        task = data["payload"]
        if data["type"] == "task":
            return self._phases.start(namespace, data["step"], task)
        if data["type"] != "task_result":
            return []
        said = [] if task["interrupts"] else self._messages.end_task(task["id"], task_of("|".join(namespace)))
        return said + self._phases.end(task)

    def _take_message(self, message: Any, metadata: Mapping[str, Any]) -> list[Event]:
        if isinstance(message, AIMessage):
            return self._messages.take(message, metadata)
        return self._calls.rejected(message) if isinstance(message, ToolMessage) else []

    def finish(self) -> list[Event]:
        """The graph has ended well: what nobody said the end of ends too."""
        return [*self.abandon(NO_RESULT), *self._phases.finish()]

    def abandon(self, reason: str) -> list[Event]:
        """Nothing follows. `reason` is why the calls that are open have no result."""
        return [*self._calls.end(reason), *self._messages.end()]
