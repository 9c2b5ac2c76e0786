"""One item of a graph's stream in, events out. Pure but for the clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage

from emitter.events import Event, MessageComplete, PhaseComplete, ToolComplete, ToolError, UsageTotals
from emitter.integrations.langgraph.calls import Calls
from emitter.integrations.langgraph.messages import Messages, RunningUsage, task_of
from emitter.integrations.langgraph.payloads import to_event
from emitter.integrations.langgraph.phases import Asked, Phases
from emitter.integrations.langgraph.watch import Watch, Work, namespace_of

INTERRUPT = "__interrupt__"
NO_RESULT = "it ended without a result"
MODES = ("values", "updates", "messages", "custom", "debug", "tools")
"""What is streamed: `debug` rather than `tasks`, because it knows the step a task belongs to."""


Speaker = dict[str, str]
"""The envelope keys `agent` and `parent_id` of what a sub-agent does; none for the graph's own."""


class Translation:
    """Remembers what is open between items. `output` is the graph's latest, as `ainvoke` would return it."""

    def __init__(self, watch: Watch, usage: RunningUsage) -> None:
        self._watch = watch
        self._speakers: dict[str, Speaker] = {}
        self._phases = Phases()
        self._messages = Messages(usage)
        self._calls = Calls(watch)
        self._speaking: Speaker = {}
        self.output: Any = None
        self.is_at_breakpoint = False
        """Whether the graph stopped at a breakpoint (`interrupt_before`, `interrupt_after`)."""

    @property
    def asked(self) -> list[Asked]:
        """What must be answered before the graph can go on."""
        return list(self._phases.asked.values())

    def begin_round(self) -> None:
        self._phases.begin_round()
        self.is_at_breakpoint = False

    def take(self, namespace: Sequence[str], mode: str, data: Any) -> list[Event]:
        """The events of an item. `speaker` has their envelope keys until the next item."""
        self._speaking = self._speaker(self._work(namespace, mode, data))
        events = self._taken(namespace, mode, data)
        if self._speaking:
            for id_ in filter(None, map(_id, events)):
                self._speakers.setdefault(id_, self._speaking)
        return events

    def speaker(self, event: Event) -> Speaker:
        """The envelope keys of an event: those with which what it belongs to began."""
        if isinstance(event, UsageTotals):
            return {}
        ends = isinstance(event, PhaseComplete | MessageComplete | ToolComplete | ToolError)
        id_ = _id(event)
        known = None if id_ is None else self._speakers.get(id_)
        if ends and id_ is not None:
            self._speakers.pop(id_, None)
        return self._speaking if known is None else known

    def _work(self, namespace: Sequence[str], mode: str, data: Any) -> Work | None:
        graph = "|".join(namespace)
        if mode == "messages":
            return self._watch.in_task(namespace_of(data[1]))
        if mode == "tools":
            return self._watch.caller((graph, str(data["tool_call_id"])))
        return self._watch.in_graph(graph) if mode in ("debug", "custom") else None

    def _speaker(self, work: Work | None) -> Speaker:
        if work is None:
            return {}
        call_id = self._calls.id_of(work.call)
        return {"agent": work.agent} | ({} if call_id is None else {"parent_id": call_id})

    def _taken(self, namespace: Sequence[str], mode: str, data: Any) -> list[Event]:
        match mode:
            case "debug":
                return self._take_task(namespace, data)
            case "messages":
                return self._take_message(*data)
            case "tools":
                return self._calls.take(namespace, data)
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
        """The graph has ended well: close what is still open."""
        self._speaking = {}
        return [*self.abandon(NO_RESULT), *self._phases.finish()]

    def abandon(self, reason: str) -> list[Event]:
        """Nothing follows. `reason` is why the calls that are open have no result."""
        self._speaking = {}
        return [*self._calls.end(reason), *self._messages.end(reason)]


def _id(event: Event) -> str | None:
    """What the events of one message, call or phase have in common."""
    for name in ("message_id", "call_id", "phase_id"):
        if (id_ := getattr(event, name, None)) is not None:
            return f"{name} {id_}"
    return None
