"""The fold: a log's events, in order, into what the execution looks like now. Pure, and bounded in memory.

`execution:superseded` voids what came after an ordinal, so what is folded remembers at which ordinal it took its value,
and can go back (`broker.versions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from msgspec.structs import replace

from broker.api_types import (
    Activity,
    ArtifactState,
    Cancellation,
    ExecutionState,
    Failure,
    MessageState,
    PartialState,
    PhaseState,
    ProgressState,
    SpecialistState,
    ThoughtState,
    ToolState,
)
from broker.versions import Items, Text
from emitter import events, wire
from emitter.errors import InvalidEvent
from emitter.wire import Entry, Envelope, EventId

MAX_THOUGHTS = 200
MAX_TOOLS = 500
MAX_MESSAGES = 200
MAX_OTHERS = 200

T = TypeVar("T")
Written = tuple[T, Text]
"""A part and its text, which is put into it when the state is asked for."""


class Fold:
    """Takes a log's events in order with `apply`; `state()` is what they come to, and may be asked at any time."""

    def __init__(self, execution_id: str = "") -> None:
        self._execution_id = execution_id
        self._last = wire.START
        self._status: events.State | None = None
        self._task: str | None = None
        self._agent: str | None = None
        self._attempt = 1
        self._end: dict[str, Any] = {}
        self._facts: Items[Any] = Items(MAX_OTHERS)
        self._phases: Items[PhaseState] = Items(MAX_OTHERS)
        self._tools: Items[ToolState] = Items(MAX_TOOLS)
        self._thoughts: Items[Written[ThoughtState]] = Items(MAX_THOUGHTS)
        self._messages: Items[Written[MessageState]] = Items(MAX_MESSAGES)
        self._specialists: Items[SpecialistState] = Items(MAX_OTHERS)
        self._partials: Items[PartialState] = Items(MAX_OTHERS)
        self._artifacts: Items[Written[ArtifactState]] = Items(MAX_OTHERS)
        self._inputs: Items[events.InputRequired | events.InputReceived] = Items(MAX_OTHERS)
        self._handlers = self._handler_table()

    def apply(self, id_: EventId, head: Envelope, event: events.Event) -> None:
        """Take the next event. One that was taken already changes nothing."""
        if id_.seq <= self._last.seq:
            return
        self._last = id_
        self._execution_id = head.execution_id
        if self._status is None:
            self._status = "running"  # as the append script has it for a log that begins without execution:queued
        if event.type in events.TERMINAL_STATES:
            self._finish(head, event)
        elif handler := self._handlers.get(type(event)):
            handler(id_.seq, event)

    def apply_entry(self, entry: Entry) -> None:
        """Take a log entry as it is stored. One that is not understood (a newer version's) only moves the cursor."""
        try:
            head, event = wire.decode_envelope(entry.json)
        except InvalidEvent:
            self._last = max(self._last, entry.id, key=lambda id_: id_.seq)
            return
        self.apply(entry.id, head, event)

    def state(self) -> ExecutionState:
        messages = [_written(item) for item in self._messages.values()]
        return ExecutionState(
            execution_id=self._execution_id,
            status=self._status or "queued",
            cursor=str(self._last),
            task=self._task,
            agent=self._agent,
            attempt=self._attempt,
            started_at=self._facts.get("started_at"),
            activity=self._facts.get("activity"),
            progress=self._facts.get("progress"),
            plan=self._facts.get("plan"),
            phases=self._all_phases(),
            tools=self._tools.values(),
            thinking=[
                replace(item, thought=str(text), truncated=text.truncated) for item, text in self._thoughts.values()
            ],
            messages=messages,
            text="".join([message.text for message in messages]),
            specialists=self._specialists.values(),
            synthesis=self._facts.get("synthesis"),
            partial_results=self._partials.values(),
            artifacts=[_artifact_of(item) for item in self._artifacts.values()],
            usage=self._facts.get("usage"),
            open_inputs=[] if self._end else self._open_inputs(),
            **self._end,
        )

    def message(self, message_id: str) -> MessageState | None:
        """One of the state's messages."""
        item = self._messages.get(message_id)
        return None if item is None else _written(item)

    def artifact(self, artifact_id: str) -> ArtifactState | None:
        """One of the state's artifacts."""
        item = self._artifacts.get(artifact_id)
        return None if item is None else _artifact_of(item)

    def _handler_table(self) -> dict[type[events.Event], Callable[[int, Any], None]]:
        return {
            events.ExecutionQueued: self._queued,
            events.ExecutionStarted: self._started,
            events.ExecutionSuperseded: self._superseded,
            events.PlanCreated: lambda seq, event: self._facts.set(seq, "plan", event.plan),
            events.PhaseStart: self._phase_start,
            events.PhaseComplete: self._phase_complete,
            events.Thinking: self._thinking,
            events.ThinkingDelta: self._thinking_delta,
            events.MessageDelta: self._message_delta,
            events.MessageComplete: self._message_complete,
            events.ToolStart: self._tool_start,
            events.ToolProgress: self._tool_progress,
            events.ToolComplete: self._tool_complete,
            events.ToolError: self._tool_error,
            events.Status: self._activity,
            events.Progress: self._progress,
            events.SpecialistActivated: self._specialist_activated,
            events.SpecialistComplete: self._specialist_complete,
            events.PartialResult: self._partial_result,
            events.Synthesis: lambda seq, event: self._facts.set(seq, "synthesis", event),
            events.Artifact: self._artifact,
            events.UsageTotals: lambda seq, event: self._facts.set(seq, "usage", event),
            events.InputRequired: self._input_required,
            events.InputReceived: self._input_received,
        }

    # the execution as a whole

    def _queued(self, _seq: int, event: events.ExecutionQueued) -> None:
        self._status, self._task, self._agent = "queued", event.task, event.agent

    def _started(self, seq: int, event: events.ExecutionStarted) -> None:
        self._status, self._task, self._attempt = "running", event.task, event.attempt
        self._facts.set(seq, "started_at", event.started_at)

    def _superseded(self, _seq: int, event: events.ExecutionSuperseded) -> None:
        self._attempt = event.attempt
        for items in (self._facts, self._phases, self._tools, self._specialists, self._partials, self._inputs):
            items.void(event.from_seq)
        for written in (self._thoughts, self._messages, self._artifacts):
            written.void(event.from_seq)
            for _, text in written.values():
                text.void(event.from_seq)
        self._status = "queued"  # until a worker starts the next attempt

    def _finish(self, head: Envelope, event: events.Event) -> None:
        self._status = events.TERMINAL_STATES[event.type]  # type: ignore[assignment]
        self._end = {"ended_at": head.ts}
        if isinstance(event, events.ExecutionComplete):
            self._end |= {"result": event.result, "duration": event.duration}
        elif isinstance(event, events.ExecutionError):
            self._end["error"] = Failure(error=event.error, code=event.code)
        elif isinstance(event, events.ExecutionCancelled):
            self._end["cancelled"] = Cancellation(reason=event.reason, by=event.by)
        self._close(self._last.seq)

    def _close(self, seq: int) -> None:
        """Nothing goes on in an execution that is over: what was not told to end was interrupted."""
        for phase in self._phases.values():
            if phase.status == "running":
                self._phases.set(seq, phase.id, replace(phase, status="interrupted"))
        for tool in self._tools.values():
            if tool.status == "running":
                self._tools.set(seq, tool.call_id, replace(tool, status="interrupted"))
        for specialist in self._specialists.values():
            if specialist.status == "active":
                self._specialists.set(seq, specialist.specialist, replace(specialist, status="interrupted"))

    # plan and phases

    def _phase_start(self, seq: int, event: events.PhaseStart) -> None:
        phase = PhaseState(id=event.phase_id, name=event.phase_name, index=event.phase_index, status="running")
        self._phases.set(seq, event.phase_id, phase)

    def _phase_complete(self, seq: int, event: events.PhaseComplete) -> None:
        started = self._phases.get(event.phase_id)
        index = started.index if started else None
        phase = PhaseState(
            id=event.phase_id, name=event.phase_name, index=index, status="complete", duration=event.duration
        )
        self._phases.set(seq, event.phase_id, phase)

    def _all_phases(self) -> list[PhaseState]:
        """The plan's phases in its order, begun or not, then those that no plan named."""
        plan: events.Plan | None = self._facts.get("plan")
        seen = {phase.id: phase for phase in self._phases.values()}
        planned = []
        for index, phase in enumerate(plan.phases if plan else []):
            pending = PhaseState(id=phase.id, name=phase.name, index=index, status="pending")
            planned.append(seen.pop(phase.id, pending))
        return planned + list(seen.values())

    # thinking and text

    def _thinking(self, seq: int, event: events.Thinking) -> None:
        text = Text()
        text.add(seq, event.thought)
        thought = ThoughtState(iteration=event.iteration, visible=event.visible)
        self._thoughts.set(seq, f"#{seq}", (thought, text))

    def _thinking_delta(self, seq: int, event: events.ThinkingDelta) -> None:
        written = self._thoughts.get(event.message_id)
        if written is None:
            written = (ThoughtState(message_id=event.message_id), Text())
            self._thoughts.set(seq, event.message_id, written)
        written[1].add(seq, event.delta)

    def _message_delta(self, seq: int, event: events.MessageDelta) -> None:
        written = self._messages.get(event.message_id)
        if written is None:
            written = (MessageState(message_id=event.message_id), Text())
            self._messages.set(seq, event.message_id, written)
        written[1].add(seq, event.delta)

    def _message_complete(self, seq: int, event: events.MessageComplete) -> None:
        """The text of the completion, when there is one, counts instead of the chunks'."""
        _, text = self._messages.get(event.message_id) or (None, Text())
        if event.text is not None and event.text != str(text):
            text = Text()
            text.add(seq, event.text)
        message = MessageState(message_id=event.message_id, complete=True, usage=event.usage)
        self._messages.set(seq, event.message_id, (message, text))

    def _artifact(self, seq: int, event: events.Artifact) -> None:
        known = self._artifacts.get(event.artifact_id)
        before, text = known if known and event.append else (None, Text())
        text.add(seq, event.text or "")
        artifact = ArtifactState(
            artifact_id=event.artifact_id,
            media_type=event.media_type,
            name=event.name or (before.name if before else None),
            text="" if event.text is not None or (before and before.text is not None) else None,
            data=event.data if event.data is not None or before is None else before.data,
            url=event.url or (before.url if before else None),
            complete=event.last,
        )
        self._artifacts.set(seq, event.artifact_id, (artifact, text))

    # tools

    def _tool_start(self, seq: int, event: events.ToolStart) -> None:
        tool = ToolState(call_id=event.call_id, tool_name=event.tool_name, params=event.params)
        self._tools.set(seq, event.call_id, tool)

    def _tool_progress(self, seq: int, event: events.ToolProgress) -> None:
        if tool := self._tools.get(event.call_id):
            progress = tool.progress if event.progress is None else event.progress
            self._tools.set(seq, event.call_id, replace(tool, progress=progress, message=event.message or tool.message))

    def _tool_complete(self, seq: int, event: events.ToolComplete) -> None:
        tool = replace(self._begun(event), status="complete", result=event.result, duration=event.duration)
        self._tools.set(seq, event.call_id, tool)

    def _tool_error(self, seq: int, event: events.ToolError) -> None:
        tool = replace(self._begun(event), status="error", error=event.error, duration=event.duration)
        self._tools.set(seq, event.call_id, tool)

    def _begun(self, event: events.ToolComplete | events.ToolError) -> ToolState:
        """The call that ends; its start may have been trimmed from the log."""
        return self._tools.get(event.call_id) or ToolState(call_id=event.call_id, tool_name=event.tool_name)

    # the rest

    def _activity(self, seq: int, event: events.Status) -> None:
        self._facts.set(seq, "activity", Activity(status=event.status, message=event.message))

    def _progress(self, seq: int, event: events.Progress) -> None:
        """A specialist's progress is its own; the execution's is what nobody in particular says."""
        if event.specialist is not None and (known := self._specialists.get(event.specialist)):
            known = replace(known, progress=event.progress, current_action=event.current_action)
            self._specialists.set(seq, event.specialist, known)
            return
        progress = ProgressState(
            progress=event.progress, current_action=event.current_action, specialist=event.specialist
        )
        self._facts.set(seq, "progress", progress)

    def _specialist_activated(self, seq: int, event: events.SpecialistActivated) -> None:
        specialist = SpecialistState(specialist=event.specialist, task=event.task, icon=event.icon)
        self._specialists.set(seq, event.specialist, specialist)

    def _specialist_complete(self, seq: int, event: events.SpecialistComplete) -> None:
        begun = self._specialists.get(event.specialist) or SpecialistState(specialist=event.specialist)
        self._specialists.set(seq, event.specialist, replace(begun, status="complete", summary=event.summary))

    def _partial_result(self, seq: int, event: events.PartialResult) -> None:
        self._partials.set(seq, f"#{seq}", PartialState(result=event.result, specialist=event.specialist))

    def _input_required(self, seq: int, event: events.InputRequired) -> None:
        if isinstance(self._inputs.get(event.input_id), events.InputReceived):
            return  # a retry asked while the answer to the lost attempt's question came in
        self._inputs.set(seq, event.input_id, event)
        self._status = "waiting_input"

    def _input_received(self, seq: int, event: events.InputReceived) -> None:
        self._inputs.set(seq, event.input_id, event)
        if self._status == "waiting_input" and not self._open_inputs():
            self._status = "running"

    def _open_inputs(self) -> list[events.InputRequired]:
        return [input_ for input_ in self._inputs.values() if isinstance(input_, events.InputRequired)]


W = TypeVar("W", MessageState, ArtifactState)


def _written(item: Written[W]) -> W:
    part, text = item
    return replace(part, text=str(text), truncated=text.truncated)


def _artifact_of(item: Written[ArtifactState]) -> ArtifactState:
    return item[0] if item[0].text is None else _written(item)


def _thought(item: Written[ThoughtState]) -> ThoughtState:
    thought, text = item
    return replace(thought, thought=str(text), truncated=text.truncated)


def fold(entries: Iterable[Entry], execution_id: str = "") -> ExecutionState:
    """The state that a log's entries come to."""
    folding = Fold(execution_id)
    for entry in entries:
        folding.apply_entry(entry)
    return folding.state()
