"""What an agent says and does, as the messages, reasoning, steps, subagents and tool calls of a run. Pure."""

from __future__ import annotations

from copy import copy
from typing import Any

import msgspec

from broker.protocols.ag_ui.frames import CALL, REASONING, SPAN, STEP, SUBAGENT, TEXT, Event, Frames, event_of
from broker.protocols.kept import Kept, Shown
from emitter import events
from emitter.wire import ascii_json
from emitter.wire.envelope import Envelope
from emitter.wire.ids import EventId

MAX_FOLLOWED = 500
"""Messages, speakers and calls that are followed at a time; beyond it the oldest are forgotten."""

SPEAKING = frozenset(
    {
        events.Thinking,
        events.ThinkingDelta,
        events.MessageDelta,
        events.MessageComplete,
        events.ToolStart,
        events.PhaseStart,
        events.PhaseComplete,
        events.PartialResult,
        events.Artifact,
        events.InputRequired,
    }
)
"""After one of these from the same speaker, its open thought has ended; the log has no event for it."""


class Ids:
    """Mints ids: the same on every edge, other ones for each attempt."""

    def __init__(self, execution_id: str) -> None:
        self._execution_id = self._prefix = execution_id

    def turn(self, attempt: int) -> None:
        """What comes is of this attempt; before the first call, of the first."""
        self._prefix = self._execution_id if attempt == 1 else f"{self._execution_id}.{attempt}"

    def of(self, kind: str, id_: str) -> str:
        return f"{self._prefix}:{kind}:{id_}"


class Speech:
    """Text, thoughts, steps, and who of several specialists they are by."""

    def __init__(self, frames: Frames, ids: Ids) -> None:
        self._frames = frames
        self._ids = ids
        self._written: Kept[Shown] = Kept(MAX_FOLLOWED)
        self._thinking: Kept[str] = Kept(MAX_FOLLOWED)
        self._steps: Kept[str] = Kept(MAX_FOLLOWED)
        self._subagents: Kept[str] = Kept(MAX_FOLLOWED)
        self.first_thought: str | None = None
        self.has_spoken = False
        """Whether anything was said that is part of the conversation."""

    def fork(self, frames: Frames, ids: Ids) -> Speech:
        """Another one in the same state."""
        other = copy(self)
        other._frames, other._ids = frames, ids
        other._written = self._written.fork(Shown.fork)
        other._thinking, other._steps = self._thinking.fork(), self._steps.fork()
        other._subagents = self._subagents.fork()
        return other

    def reset(self) -> None:
        """Forget a lost attempt. What it left open is ended by then."""
        self._written.clear()
        for followed in (self._thinking, self._steps, self._subagents):
            followed.clear()
        self.first_thought = None
        self.has_spoken = False

    # --- text ---

    def say(self, head: Envelope, event: events.MessageDelta) -> None:
        message_id = self._ids.of("message", event.message_id)
        self._begin_text(message_id, head)
        if event.delta:
            self._frames.add({"type": "TEXT_MESSAGE_CONTENT", "messageId": message_id, "delta": event.delta})
        written = self._written.get(event.message_id)
        if written is None:
            written = Shown()
            self._written.set(event.message_id, written)
        written.add(event.delta)

    def complete(self, head: Envelope, event: events.MessageComplete) -> None:
        message_id = self._ids.of("message", event.message_id)
        written = self._written.pop(event.message_id)
        rest = event.text or "" if written is None else written.rest(event.text) if event.text is not None else ""
        metadata: dict[str, Any] = {} if event.usage is None else {"usage": msgspec.to_builtins(event.usage)}
        if rest is None:  # the whole text counts instead of its chunks, which cannot be taken back
            self._frames.finish((TEXT, message_id), metadata={"replacedBy": message_id + ":final"})
            message_id, rest = message_id + ":final", event.text
        if not rest and not self._frames.is_open((TEXT, message_id)):
            return
        self._begin_text(message_id, head)
        if rest:
            self._frames.put("TEXT_MESSAGE_CONTENT", messageId=message_id, delta=rest)
        self._frames.finish((TEXT, message_id), **({"metadata": metadata} if metadata else {}))

    def _begin_text(self, message_id: str, head: Envelope) -> None:
        if self._frames.is_open((TEXT, message_id)):
            return
        self.has_spoken = self.has_spoken or _in_call(head) is None
        who = self.subagent(head)
        beginning = event_of(
            "TEXT_MESSAGE_START", messageId=message_id, role="assistant", subagentRunId=who, metadata=_in_call(head)
        )
        self._frames.start((TEXT, message_id), beginning, event_of("TEXT_MESSAGE_END", messageId=message_id))

    # --- thoughts ---

    def turn(self, head: Envelope, event: events.Event) -> None:
        """Any other event of the speaker, of those that are `SPEAKING`, ends its open thought."""
        written = self._thinking.get(head.agent or "") if self._thinking else None
        if written is not None:
            if isinstance(event, events.ThinkingDelta) and event.message_id == written:
                return
            self._thinking.pop(head.agent or "")
            self._finish_thought(self._ids.of("thought", written))

    def think(self, head: Envelope, event: events.ThinkingDelta) -> None:
        message_id = self._ids.of("thought", event.message_id)
        self._begin_thought(message_id, head)
        if event.delta:
            self._frames.add({"type": "REASONING_MESSAGE_CONTENT", "messageId": message_id, "delta": event.delta})
        self._thinking.set(head.agent or "", event.message_id, len(event.message_id))

    def thought(self, id_: EventId, head: Envelope, event: events.Thinking) -> None:
        """A whole one."""
        message_id = self._ids.of("thought", f"#{id_.seq}")
        self._begin_thought(message_id, head, event.iteration)
        if event.thought:
            self._frames.put("REASONING_MESSAGE_CONTENT", messageId=message_id, delta=event.thought)
        self._finish_thought(message_id)

    def _begin_thought(self, message_id: str, head: Envelope, iteration: int | None = None) -> None:
        self.first_thought = self.first_thought or message_id
        fields: dict[str, Any] = {"messageId": message_id, "subagentRunId": self.subagent(head)}
        self._frames.start(
            (SPAN, message_id),
            event_of("REASONING_START", **fields),
            event_of("REASONING_END", messageId=message_id),
        )
        metadata = None if iteration is None else {"iteration": iteration}
        self._frames.start(
            (REASONING, message_id),
            event_of("REASONING_MESSAGE_START", role="reasoning", metadata=metadata, **fields),
            event_of("REASONING_MESSAGE_END", messageId=message_id),
        )

    def _finish_thought(self, message_id: str) -> None:
        self._frames.finish((REASONING, message_id))
        self._frames.finish((SPAN, message_id))

    # --- steps ---

    def start_step(self, event: events.PhaseStart) -> None:
        """A phase's name is its step's, made unique among those that are open: a client takes no two of one name."""
        if self._steps.get(event.phase_id) is not None:
            return
        name = event.phase_name
        while self._frames.is_open((STEP, name)):
            name = f"{name} ({event.phase_id})"
        metadata = {"phaseId": event.phase_id}
        beginning = event_of("STEP_STARTED", stepName=name, metadata=metadata)
        self._frames.start((STEP, name), beginning, event_of("STEP_FINISHED", stepName=name, metadata=metadata))
        self._steps.set(event.phase_id, name, len(name))

    def finish_step(self, event: events.PhaseComplete) -> None:
        name = self._steps.pop(event.phase_id)
        if name is not None:
            self._frames.finish((STEP, name))

    # --- specialists ---

    def subagent(self, head: Envelope) -> str | None:
        """The specialist at work who says this."""
        return None if head.agent is None else self._subagents.get(head.agent)

    def activate(self, id_: EventId, event: events.SpecialistActivated) -> None:
        if event.specialist in self._subagents:
            return
        run_id = self._ids.of("specialist", f"#{id_.seq}")
        beginning = event_of("SUBAGENT_STARTED", subagentRunId=run_id, name=event.specialist, description=event.task)
        self._frames.start((SUBAGENT, run_id), beginning, event_of("SUBAGENT_FINISHED", subagentRunId=run_id))
        self._subagents.set(event.specialist, run_id)

    def deactivate(self, event: events.SpecialistComplete) -> None:
        run_id = self._subagents.pop(event.specialist)
        if run_id is not None:
            self._frames.finish((SUBAGENT, run_id), **event_fields(result=event.summary))


def _in_call(head: Envelope) -> dict[str, Any] | None:
    """Which sub-agent speaks in which call: what it says there is no part of the conversation (`requests`)."""
    if head.agent is None or head.parent_id is None:
        return None
    return {"agent": head.agent, "parentId": head.parent_id}


class ToolCalls:
    """Tool calls and their results. A call's parameters are known at once, so its end follows its beginning."""

    def __init__(self, frames: Frames, ids: Ids) -> None:
        self._frames = frames
        self._ids = ids
        self._unanswered: Kept[None] = Kept(MAX_FOLLOWED)

    def fork(self, frames: Frames, ids: Ids) -> ToolCalls:
        """Another one in the same state."""
        other = ToolCalls(frames, ids)
        other._unanswered = self._unanswered.fork()
        return other

    def reset(self) -> None:
        self._unanswered.clear()

    def id_of(self, call_id: str) -> str:
        return self._ids.of("call", call_id)

    def start(self, event: events.ToolStart, who: str | None) -> None:
        call_id = self.id_of(event.call_id)
        beginning = event_of("TOOL_CALL_START", toolCallId=call_id, toolCallName=event.tool_name, subagentRunId=who)
        self._frames.start((CALL, call_id), beginning, event_of("TOOL_CALL_END", toolCallId=call_id))
        params = {} if event.params is None else event.params
        self._frames.add({"type": "TOOL_CALL_ARGS", "toolCallId": call_id, "delta": _json(params)})
        self._frames.finish((CALL, call_id))
        self._unanswered.set(event.call_id, None)

    def complete(self, event: events.ToolComplete, who: str | None) -> None:
        content = event.result if isinstance(event.result, str) else _json(event.result)
        self._result(event.call_id, content, who, {"duration": event.duration})

    def fail(self, event: events.ToolError, who: str | None) -> None:
        self._result(event.call_id, event.error, who, {"isError": True, "duration": event.duration})

    def give_up(self) -> None:
        """Say of what has no result that none will come: a client would think that it is asked for one."""
        for call_id in list(self._unanswered):
            self._result(call_id, "", None, {"isError": True})

    def _result(self, call_id: str, content: str, who: str | None, metadata: Event) -> None:
        self._unanswered.pop(call_id)
        self._frames.put(
            "TOOL_CALL_RESULT",
            messageId=self._ids.of("result", call_id),
            toolCallId=self.id_of(call_id),
            content=content,
            role="tool",
            subagentRunId=who,
            metadata=metadata,
        )


def event_fields(**fields: Any) -> Event:
    return {name: value for name, value in fields.items() if value is not None}


def _json(value: Any) -> str:
    return ascii_json.ascii_json(msgspec.json.encode(value)).decode()
