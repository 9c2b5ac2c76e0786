"""The fold: a log's events, in order, change the state (`broker.executions.state`). Pure, and bounded in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import asdict, replace

from broker.executions.clipping import as_it_is
from broker.executions.decoding import decode_entry
from broker.executions.state import FoldedState, Voided
from broker.executions.types import (
    Activity,
    ArtifactState,
    Cancellation,
    ChildState,
    ExecutionState,
    Failure,
    MessageState,
    PartialState,
    PhaseState,
    ProgressState,
    SpecialistState,
    ThoughtState,
    ToolState,
    UserMessageState,
)
from broker.executions.undo import Text
from emitter import events
from emitter.errors import InvalidEvent
from emitter.wire.entries import Entry
from emitter.wire.envelope import Envelope
from emitter.wire.ids import EventId
from emitter.wire.usage import add_usage


class Fold(FoldedState):
    """`apply` takes a log's events in order; `state()` may be called after any of them."""

    def apply(self, id_: EventId, head: Envelope, event: events.Event) -> None:
        """Take the next event. One that was taken already changes nothing."""
        if id_.seq <= self._last.seq:
            return
        self._last = id_
        self.execution_id = head.execution_id
        if not self._is_begun:
            self._is_begun = True
            self.status = "running"  # as the append script has it for a log that begins without execution:queued
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            self._event = head, event
            self._call = head.parent_id if head.agent is not None else None
            self._bytes += len(head.data)
            handler(self, id_.seq, event)
            if self._bytes > self._max_bytes:
                self._clip()
        elif event.type in events.TERMINAL_STATE_OF:
            self._finish(head, event)

    def apply_entry(self, entry: Entry) -> None:
        """Take a log entry as it is stored. One that is not understood (a newer version's) only moves the cursor."""
        try:
            head, event = decode_entry(entry)
        except InvalidEvent:
            self._last = max(self._last, entry.id, key=lambda id_: id_.seq)
            return
        self.apply(entry.id, head, event)

    # the execution as a whole

    def _queued(self, _seq: int, event: events.ExecutionQueued) -> None:
        self.status, self.task, self.agent = "queued", event.task, event.agent
        self.spending.queued(event)

    def _started(self, seq: int, event: events.ExecutionStarted) -> None:
        self.status, self.task, self.attempt = "running", event.task, event.attempt
        self._set(self.facts, seq, "started_at", event.started_at)
        self.spending.started(event)

    def _superseded(self, seq: int, event: events.ExecutionSuperseded) -> None:
        after = event.from_seq
        self.attempt = event.attempt
        self.spending.ended(self._event[0].ts)
        for items in (self.phases, self._tools, self.specialists):
            items.void(after)
        for input_id, each in self.inputs.void(after).items():
            if isinstance(each, events.InputReceived):  # an answer stays, for the attempt that asks again
                self.inputs.set(seq, input_id, each)
        for message in self.user_messages.values():
            if message.state == "taken":  # the next attempt takes it again
                self._change(self.user_messages, seq, message.message_id, replace(message, state="queued"))
        self._thoughts.void_texts(after)
        synthesis = self.facts.void(after).get("synthesis")
        self.voided = Voided(
            messages=self._messages.void_texts(after),
            partials=list(self.partials.void(after)),
            artifacts=self._artifacts.void_texts(after, as_it_is),
            synthesis=synthesis is not None and synthesis != self.facts.get("synthesis"),
        )
        self._own_usage.void(after)
        if self._children_usage is not None:
            self._total(seq)
        self.status = "queued"  # until a worker starts the next attempt

    def _finish(self, head: Envelope, event: events.Event) -> None:
        self.status = events.TERMINAL_STATE_OF[event.type]
        self.end = {"ended_at": head.ts}
        self.spending.ended(head.ts)
        if isinstance(event, events.ExecutionComplete):
            self.end |= {"result": event.result, "duration": event.duration}
        elif isinstance(event, events.ExecutionError):
            self.end["error"] = Failure(error=event.error, code=event.code)
        elif isinstance(event, events.ExecutionCancelled):
            self.end["cancelled"] = Cancellation(reason=event.reason, by=event.by)
        self._close(self._last.seq)

    def _close(self, seq: int) -> None:
        """Parts that are open at the end of the execution are interrupted."""
        for phase in self.phases.values():
            if phase.status == "running":
                self._change(self.phases, seq, phase.id, replace(phase, status="interrupted"))
        for tool in self._tools.values():
            if tool.status == "running":
                self._change(self._tools, seq, tool.call_id, replace(tool, status="interrupted"))
        for specialist in self.specialists.values():
            if specialist.status == "active":
                self._change(self.specialists, seq, specialist.specialist, replace(specialist, status="interrupted"))
        for message in self.user_messages.values():
            if message.state == "queued":  # of a version that does not say so
                ended = replace(message, state="dropped", reason="ended")
                self._change(self.user_messages, seq, message.message_id, ended)
        for child in self.children.values():
            if child.status == "running":
                status: Any = "detached" if child.detached else "interrupted"
                self._change(self.children, seq, child.execution_id, replace(child, status=status))
        self._close_texts(seq)

    def _close_texts(self, seq: int) -> None:
        """If the execution completed, open texts are complete as well; otherwise they are interrupted."""
        outcome = {"complete": True} if self.status == "completed" else {"interrupted": True}
        for message, text in self._messages.values():
            if not message.complete:
                self._change(self._messages, seq, message.message_id, (replace(message, **outcome), text))
        for artifact, text in self._artifacts.values():
            if not artifact.complete:
                self._change(self._artifacts, seq, artifact.artifact_id, (replace(artifact, **outcome), text))

    # plan and phases

    def _phase_start(self, seq: int, event: events.PhaseStart) -> None:
        phase = PhaseState(id=event.phase_id, name=event.phase_name, index=event.phase_index, status="running")
        self._set(self.phases, seq, event.phase_id, phase)

    def _phase_complete(self, seq: int, event: events.PhaseComplete) -> None:
        started = self.phases.get(event.phase_id)
        index = started.index if started else None
        phase = PhaseState(
            id=event.phase_id, name=event.phase_name, index=index, status="complete", duration=event.duration
        )
        self._set(self.phases, seq, event.phase_id, phase)

    # thinking and text

    def _thinking(self, seq: int, event: events.Thinking) -> None:
        text = Text()
        text.add(seq, event.thought)
        thought = ThoughtState(iteration=event.iteration, visible=event.visible)
        self._set(self._thoughts, seq, f"#{seq}", (thought, text))

    def _thinking_delta(self, seq: int, event: events.ThinkingDelta) -> None:
        if not self._thoughts.add(seq, event.message_id, event.delta):
            self._set(self._thoughts, seq, event.message_id, (ThoughtState(message_id=event.message_id), Text()))
            self._thoughts.add(seq, event.message_id, event.delta)

    def _message_delta(self, seq: int, event: events.MessageDelta) -> None:
        if not self._messages.add(seq, event.message_id, event.delta):
            message = MessageState(message_id=event.message_id, parent_id=self._call)
            self._set(self._messages, seq, event.message_id, (message, Text()))
            self._messages.add(seq, event.message_id, event.delta)

    def _message_complete(self, seq: int, event: events.MessageComplete) -> None:
        """The text of the completion, when there is one, counts instead of the chunks'."""
        _, text = self._messages.get(event.message_id) or (None, Text())
        if event.text is not None and not self.has_said(event.message_id, event.text):
            text = Text()
            text.add(seq, event.text)
        message = MessageState(message_id=event.message_id, complete=True, usage=event.usage, parent_id=self._call)
        self._set(self._messages, seq, event.message_id, (message, text))

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
        self._set(self._artifacts, seq, event.artifact_id, (artifact, text))

    # tools

    def _tool_start(self, seq: int, event: events.ToolStart) -> None:
        self.spending.called()
        tool = ToolState(call_id=event.call_id, tool_name=event.tool_name, params=event.params)
        self._set(self._tools, seq, event.call_id, tool)

    def _tool_progress(self, seq: int, event: events.ToolProgress) -> None:
        if tool := self._tools.get(event.call_id):
            progress = tool.progress if event.progress is None else event.progress
            message = event.message or tool.message
            self._set(self._tools, seq, event.call_id, replace(tool, progress=progress, message=message))

    def _tool_complete(self, seq: int, event: events.ToolComplete) -> None:
        tool = replace(self._begun(event), status="complete", result=event.result, duration=event.duration)
        self._set(self._tools, seq, event.call_id, tool)

    def _tool_error(self, seq: int, event: events.ToolError) -> None:
        tool = replace(self._begun(event), status="error", error=event.error, duration=event.duration)
        self._set(self._tools, seq, event.call_id, tool)

    def _begun(self, event: events.ToolComplete | events.ToolError) -> ToolState:
        """The call that ends; its start may have been trimmed from the log."""
        return self._tools.get(event.call_id) or ToolState(call_id=event.call_id, tool_name=event.tool_name)

    # the rest

    def _activity(self, seq: int, event: events.Status) -> None:
        self._set(self.facts, seq, "activity", Activity(status=event.status, message=event.message))

    def _progress(self, seq: int, event: events.Progress) -> None:
        """Progress with a known specialist belongs to it; all other progress belongs to the execution."""
        if event.specialist is not None and (known := self.specialists.get(event.specialist)):
            known = replace(known, progress=event.progress, current_action=event.current_action)
            self._set(self.specialists, seq, event.specialist, known)
            return
        progress = ProgressState(
            progress=event.progress, current_action=event.current_action, specialist=event.specialist
        )
        self._set(self.facts, seq, "progress", progress)

    def _specialist_activated(self, seq: int, event: events.SpecialistActivated) -> None:
        specialist = SpecialistState(specialist=event.specialist, task=event.task, icon=event.icon)
        self._set(self.specialists, seq, event.specialist, specialist)

    def _specialist_complete(self, seq: int, event: events.SpecialistComplete) -> None:
        begun = self.specialists.get(event.specialist) or SpecialistState(specialist=event.specialist)
        self._set(self.specialists, seq, event.specialist, replace(begun, status="complete", summary=event.summary))

    def _partial_result(self, seq: int, event: events.PartialResult) -> None:
        partial = PartialState(result=event.result, specialist=event.specialist)
        self._set(self.partials, seq, str(self._last), partial)

    def _input_required(self, seq: int, event: events.InputRequired) -> None:
        if isinstance(self.inputs.get(event.input_id), events.InputReceived):
            return  # a retry asked while the answer to the lost attempt's question came in
        self._set(self.inputs, seq, event.input_id, event)
        self.status = "waiting_input"

    def _input_received(self, seq: int, event: events.InputReceived) -> None:
        self._set(self.inputs, seq, event.input_id, replace(event, value=None))
        if self.status == "waiting_input" and not any(
            isinstance(each, events.InputRequired) for each in self.inputs.values()
        ):
            self.status = "running"

    def _user_message(self, seq: int, event: events.UserMessage) -> None:
        message = UserMessageState(
            message_id=event.message_id,
            by=event.by,
            mode=event.mode,
            text=event.text,
            data=event.data,
            sent_at=self._event[0].ts,
        )
        self._set(self.user_messages, seq, event.message_id, message)

    def _user_messages_taken(self, seq: int, event: events.UserMessageTaken) -> None:
        for message_id in event.message_ids:
            if message := self.user_messages.get(message_id):
                self._change(self.user_messages, seq, message_id, replace(message, state="taken"))

    def _user_message_dropped(self, seq: int, event: events.UserMessageDropped) -> None:
        if message := self.user_messages.get(event.message_id):
            dropped = replace(message, state="dropped", reason=event.reason)
            self._change(self.user_messages, seq, event.message_id, dropped)

    def _plan(self, seq: int, event: events.PlanCreated) -> None:
        self._set(self.facts, seq, "plan", event.plan)

    def _synthesis(self, seq: int, event: events.Synthesis) -> None:
        self._set(self.facts, seq, "synthesis", event)

    def _usage(self, seq: int, event: events.UsageTotals) -> None:
        self._set(self._own_usage, seq, "usage", event)
        self._total(seq)
        self.spending.used(event)

    def _budget(self, _seq: int, event: events.BudgetNotice) -> None:
        self.spending.reached(event)

    # children, which no attempt of this execution voids

    def _child_started(self, seq: int, event: events.ChildStarted) -> None:
        if self.children.get(event.execution_id) is None:
            child = ChildState(
                execution_id=event.execution_id,
                agent=event.agent,
                task=event.task,
                key=event.key,
                detached=event.detached,
            )
            self._set(self.children, seq, event.execution_id, child)

    def _child_ended(self, seq: int, event: events.ChildEnded) -> None:
        known = self.children.get(event.execution_id) or ChildState(execution_id=event.execution_id)
        if known.status != "running":
            return
        ended = replace(known, status=event.state, summary=event.summary, usage=event.usage)
        self._set(self.children, seq, event.execution_id, ended)
        if event.usage is not None:
            self._children_usage = add_usage(self._children_usage, event.usage)
            self._total(seq)

    def _total(self, seq: int) -> None:
        """Set the usage of the execution and its children."""
        own, of_children = self._own_usage.get("usage"), self._children_usage
        if of_children is None:
            total: events.Usage | None = own
        else:
            total = add_usage(None if own is None else events.Usage(**asdict(own)), of_children)
        if total is not None:
            usage = total if isinstance(total, events.UsageTotals) else events.UsageTotals(**asdict(total))
            self._change(self.facts, seq, "usage", usage)


# In the module, not in each fold: bound methods would tie every fold into a circle, and keep it until the next full
# collection.
_HANDLERS: dict[type[events.Event], Callable[[Fold, int, Any], None]] = {
    events.ExecutionQueued: Fold._queued,
    events.ExecutionStarted: Fold._started,
    events.ExecutionSuperseded: Fold._superseded,
    events.PlanCreated: Fold._plan,
    events.PhaseStart: Fold._phase_start,
    events.PhaseComplete: Fold._phase_complete,
    events.Thinking: Fold._thinking,
    events.ThinkingDelta: Fold._thinking_delta,
    events.MessageDelta: Fold._message_delta,
    events.MessageComplete: Fold._message_complete,
    events.ToolStart: Fold._tool_start,
    events.ToolProgress: Fold._tool_progress,
    events.ToolComplete: Fold._tool_complete,
    events.ToolError: Fold._tool_error,
    events.Status: Fold._activity,
    events.Progress: Fold._progress,
    events.SpecialistActivated: Fold._specialist_activated,
    events.SpecialistComplete: Fold._specialist_complete,
    events.PartialResult: Fold._partial_result,
    events.Synthesis: Fold._synthesis,
    events.Artifact: Fold._artifact,
    events.UsageTotals: Fold._usage,
    events.ChildStarted: Fold._child_started,
    events.ChildEnded: Fold._child_ended,
    events.BudgetNotice: Fold._budget,
    events.InputRequired: Fold._input_required,
    events.InputReceived: Fold._input_received,
    events.UserMessage: Fold._user_message,
    events.UserMessageTaken: Fold._user_messages_taken,
    events.UserMessageDropped: Fold._user_message_dropped,
}


def fold(entries: Iterable[Entry], execution_id: str = "") -> ExecutionState:
    """The state that a log's entries come to."""
    folding = Fold(execution_id)
    for entry in entries:
        folding.apply_entry(entry)
    return folding.state()
