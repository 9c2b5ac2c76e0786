"""A log as the events of an AG-UI run (https://ag-ui.com/spec/1.0). Pure.

The first run of an execution shows it from its beginning, up to an input or its end. A resume shows what follows in a
new run. The ids of messages and calls begin with the execution's id and change with its attempts, so nothing of one
attempt is appended to another.

When a retry takes over, a snapshot of the messages before the execution removes those of the lost attempt, if the
client had sent them. A client that attaches after that does not see the lost attempts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from typing import Any

import msgspec

from broker.executions.decoding import decode_shown
from broker.live.rendering import SSE_HEADERS
from broker.protocols.ag_ui.frames import Frames, Place, event_of, frame
from broker.protocols.ag_ui.interrupts import interrupt
from broker.protocols.ag_ui.lists import Operation
from broker.protocols.ag_ui.messages import SPEAKING, Ids, Speech, ToolCalls, event_fields
from broker.protocols.ag_ui.requests import Message
from broker.protocols.ag_ui.state import ROOT, STATE_MEMBER, Board
from emitter import events
from emitter.errors import InvalidEvent
from emitter.wire import envelope
from emitter.wire.entries import Entry
from emitter.wire.envelope import Envelope
from emitter.wire.ids import START

PROTOCOL_VERSION = "1.0"
MAX_ACTIVITIES = 200
MAX_HISTORY_BYTES = 256 * 1024
"""Of a longer conversation, the text of a lost attempt is not removed, only marked as void."""


MAX_TAKEN_BACK = 20
"""Attempts that are taken back, each with the whole conversation: above it they are only marked as void."""


MAX_CHANGES = 50
"""Parts of the state that a lost attempt has changed and that are still to be sent."""


class Known(msgspec.Struct, frozen=True):
    """How far an execution had come when its viewer came: the log's last ordinal, the attempt, and the questions that
    nobody had answered."""

    seq: int = 0
    attempt: int = 1
    open: frozenset[str] = frozenset()


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks to be shown. `after` is how far it has come, in this run or (`is_resumed`) in the one before;
    `rewinds`: it may have parts of this execution, which are taken back before all is shown again."""

    execution_id: str
    thread_id: str
    run_id: str
    after: Place | None = None
    known: Known = Known()
    rewinds: bool = False
    is_resumed: bool = False


class Renderer:
    """A `Rendering` of one execution. `history` is the conversation before it, if it is known; `shared`, the members of
    the client's state, which stay as they are."""

    name = "ag_ui"
    headers = SSE_HEADERS
    heartbeat = b": hb\n"
    heartbeat_seconds = 10.0
    fill = b""

    def __init__(
        self, view: View, history: Sequence[Message] | None = None, shared: Mapping[str, Any] | None = None
    ) -> None:
        self.is_over = False
        self.execution_id = view.execution_id
        self._view = view
        self._history = None if history is None else [msgspec.Raw(msgspec.json.encode(each)) for each in history]
        self._history_key: bytes | None = None
        self._shared = shared or {}
        self._frames = Frames(view.after, self._on_return)
        self._board = Board(view.execution_id)
        self._ids = Ids(view.execution_id)
        self._speech = Speech(self._frames, self._ids)
        self._calls = ToolCalls(self._frames, self._ids)
        self._taken_back = 0
        self._activities: dict[str, str] = {}
        self._goal: str | None = None
        self._plan_patch: list[Operation] | None = None
        """What has changed since the plan was shown; None before."""
        self._pending = set(view.known.open)
        self._is_void = False
        self._has_state = False
        self._spent: events.UsageTotals | None = None
        self._head: Envelope
        self._id = START
        self._first = 0
        """The ordinal with which the log began."""
        self._hidden = 1
        """The attempts before this one are not shown."""

    @property
    def state_key(self) -> Hashable:
        """With all that depends on when and how the viewer came; the rest is made of the log alone."""
        view = self._view
        if self._frames.is_muted or self._is_void or self._id.seq < view.known.seq:
            return None  # it has not come yet to where others are live
        whose = (self.name, view.execution_id, view.thread_id, view.run_id)
        given = (self._history_key, msgspec.json.encode(self._shared) if self._shared else b"")
        shown = (self._goal, msgspec.json.encode(self._plan_patch), self._spent)
        return (*whose, *given, *shown, self._hidden, self._first, self._id)

    def fork(self) -> Renderer:
        other = copy(self)
        other._frames = frames = self._frames.fork(other._on_return)
        other._board = self._board.fork()
        other._ids = ids = copy(self._ids)
        other._speech, other._calls = self._speech.fork(frames, ids), self._calls.fork(frames, ids)
        other._activities = dict(self._activities)
        other._plan_patch = None if self._plan_patch is None else list(self._plan_patch)
        other._pending = set(self._pending)
        return other

    def open(self) -> bytes:
        view = self._view
        started = event_of(
            "RUN_STARTED",
            threadId=view.thread_id,
            runId=view.run_id,
            protocolVersion=PROTOCOL_VERSION,
            metadata={"executionId": view.execution_id},
        )
        history, self._history = self._history, _small(self._history)
        if self._history is not None:
            self._history_key = hashlib.sha256(b",".join(map(bytes, self._history))).digest()
        if history is None or not view.rewinds:
            return frame(started)
        return frame(started) + frame(event_of("MESSAGES_SNAPSHOT", messages=history))

    def render(self, entries: Sequence[Entry]) -> bytes:
        if len(entries) == 1:  # as most that are live
            return self._render(entries[0])
        return b"".join([self._render(entry) for entry in entries])

    def _render(self, entry: Entry) -> bytes:
        if self.is_over:
            return b""
        id_, next_ = entry.id, self._id.seq + 1
        if not self._first:
            # Only where the beginning of the present attempt is sure to come: of a trimmed log it may be gone.
            self._is_void = self._view.known.attempt > 1 and self._view.after is None and entry.seq == 1
            self._hidden = self._view.known.attempt if self._is_void else 1
            self._first = entry.seq
        self._id = id_
        try:
            self._head, event = decode_shown(entry)
        except InvalidEvent:
            return self._raw(entry)
        self._frames.begin(id_, self._head.ts)
        self._take(event, next_)
        return self._frames.end()

    def _raw(self, entry: Entry) -> bytes:
        """What a newer version has written."""
        self._frames.begin(entry.id, entry.ms)
        self._frames.put("RAW", event=msgspec.Raw(entry.json), source="runcast")
        return self._frames.end()

    def _take(self, event: events.Event, next_: int) -> None:
        """`next_` is the ordinal that comes after the last one."""
        changes_state = self._board.apply(self._id, self._head, event)
        if self._is_void and not self._reaches(event):
            if self._board.changes > MAX_CHANGES:
                self._has_state = False  # it is sent whole, with the first part
                self._board.forget_changes()
            return
        if changes_state or not self._has_state:
            self._show_state()  # always the first of an entry: a client that resumes within it gets it as a snapshot
        if next_ < self._id.seq:
            self._custom("stream:reset", {"reason": "trimmed", "lostFrom": next_, "lostTo": self._id.seq - 1})
        if type(event) in SPEAKING:
            self._speech.turn(self._head, event)
        _HANDLERS.get(type(event), Renderer._other)(self, event)

    def _reaches(self, event: events.Event) -> bool:
        """Whether this is shown: it is not of a hidden lost attempt."""
        match event:
            case events.ExecutionSuperseded(attempt=attempt) | events.ExecutionStarted(attempt=attempt):
                self._is_void = attempt < self._view.known.attempt
                self._ids.turn(attempt)
                return not self._is_void and isinstance(event, events.ExecutionStarted)
            case events.ExecutionQueued():
                return True
        self._is_void = event.type not in events.TERMINAL_STATE_OF
        return not self._is_void

    # --- state, plan and results -------------------------------------------------------------------------------------

    def _show_state(self) -> None:
        if not self._has_state:
            self._has_state = True
            self._frames.put("STATE_SNAPSHOT", snapshot=self._whole_state())
            if self._view.after is None and not self._is_void:
                self._shared = {}  # from here on there are patches only
        elif patch := self._board.patch():
            self._frames.add({"type": "STATE_DELTA", "delta": patch})
            if self._plan_patch is not None:
                self._plan_patch += _of_phases(patch)

    def _whole_state(self) -> dict[str, Any]:
        return {**self._shared, STATE_MEMBER: self._board.snapshot()}

    def _on_return(self) -> None:
        """For a client that resumes: the state, the plan, and the open parts."""
        if self._view.is_resumed:
            self._spent = self._board.usage
        if self._has_state:
            self._frames.put_known("STATE_SNAPSHOT", snapshot=self._whole_state())
            self._shared = {}  # from here on there are patches only
        if self._plan_patch is not None:
            self._frames.put_known("ACTIVITY_SNAPSHOT", **self._whole_plan())
        self._frames.begin_again()

    def _activity_id(self, name: str) -> str:
        return f"{self._view.execution_id}:{name}"

    def _show_plan(self) -> None:
        """The plan and how its phases stand, as one activity that changes."""
        if self._board.goal is None:
            return
        if self._plan_patch is None:
            self._remember_activity("plan", "PLAN")
            self._frames.put("ACTIVITY_SNAPSHOT", **self._whole_plan())
            return
        goal = self._board.goal
        patch = [] if goal == self._goal else [{"op": "replace", "path": "/goal", "value": goal}]
        patch += self._plan_patch
        if not patch:
            return
        if self._frames.is_next_had:
            self._frames.pass_over()
        elif self._frames.is_muted:  # the client resumes here and gets the whole plan: a patch would repeat it
            self._frames.put("ACTIVITY_SNAPSHOT", **self._whole_plan())
        else:
            self._frames.put("ACTIVITY_DELTA", messageId=self._activity_id("plan"), activityType="PLAN", patch=patch)
        self._goal, self._plan_patch = goal, []

    def _whole_plan(self) -> dict[str, Any]:
        """The plan as it is, which is shown by this."""
        self._goal, self._plan_patch = self._board.goal, []
        return {"messageId": self._activity_id("plan"), "activityType": "PLAN", "content": self._board.plan()}

    def _activity(self, name: str, type_: str, content: dict[str, Any]) -> None:
        self._remember_activity(name, type_)
        self._frames.put("ACTIVITY_SNAPSHOT", messageId=self._activity_id(name), activityType=type_, content=content)

    def _remember_activity(self, name: str, type_: str) -> None:
        if len(self._activities) < MAX_ACTIVITIES:
            self._activities[name] = type_

    def _phase_start(self, event: events.PhaseStart) -> None:
        self._show_plan()
        self._speech.start_step(event)

    def _phase_complete(self, event: events.PhaseComplete) -> None:
        self._show_plan()
        self._speech.finish_step(event)

    def _partial_result(self, event: events.PartialResult) -> None:
        """Each stands, as in the folded log."""
        self._activity(f"result:#{self._id.seq}", "PARTIAL_RESULT", msgspec.to_builtins(event))

    def _nothing(self, event: events.Event) -> None:
        """The state shows it."""

    def _custom(self, name: str, value: Any) -> None:
        self._frames.add({"type": "CUSTOM", "name": name, "value": value})

    def _other(self, event: events.Event) -> None:
        """What the protocol has no word for, under its own name and as it is."""
        self._custom(envelope.event_type(event), self._head.data)

    def _thinking(self, event: events.Thinking) -> None:
        if event.visible:
            self._speech.thought(self._id, self._head, event)
        else:
            self._other(event)

    def _tool_progress(self, event: events.ToolProgress) -> None:
        self._custom(event.type, {**msgspec.to_builtins(event), "toolCallId": self._calls.id_of(event.call_id)})

    # --- the life of the execution -----------------------------------------------------------------------------------

    def _started(self, event: events.ExecutionStarted) -> None:
        self._ids.turn(event.attempt)

    def _superseded(self, event: events.ExecutionSuperseded) -> None:
        void = f"void: attempt {event.attempt} takes over"
        self._taken_back += 1
        is_taken_back = self._history is not None and self._taken_back <= MAX_TAKEN_BACK
        self._calls.give_up()  # a client waits for their results, even of those that are taken back
        self._frames.finish_all(type="SUBAGENT_ERROR", message=void)
        if self._history is not None and is_taken_back:
            self._take_back(self._history, void)
        for name, type_ in list(self._activities.items()):
            self._activity(name, type_, {})
        self._activities.clear()
        self._plan_patch = None
        self._speech.reset()
        self._calls.reset()
        self._ids.turn(event.attempt)
        self._other(event)

    def _take_back(self, history: list[msgspec.Raw], void: str) -> None:
        """All messages but these. A client gives up its reasoning only for a snapshot that has some."""
        thought = self._speech.first_thought
        void_thoughts = [] if thought is None else [{"id": thought, "role": "reasoning", "content": void}]
        self._frames.put("MESSAGES_SNAPSHOT", messages=[*history, *void_thoughts])

    def _input_required(self, event: events.InputRequired) -> None:
        if self._interrupts(event):
            self._frames.finish_all(outcome={"type": "suspended"})
            self._finish({"type": "interrupt", "interrupts": self._asked()})
        else:
            self._other(event)

    def _interrupts(self, event: events.InputRequired) -> bool:
        """Whether the run ends here. What was asked before the viewer came may have been answered since; of what was
        not, the last question is where the run ends."""
        if self._id.seq > self._view.known.seq:
            return self._board.is_open(event.input_id)
        was_open = event.input_id in self._pending
        self._pending.discard(event.input_id)
        return was_open and not self._pending

    def _asked(self) -> list[dict[str, Any]]:
        """The questions that wait for an answer."""
        known, execution_id = self._view.known, self._view.execution_id
        is_old = self._id.seq <= known.seq
        return [
            interrupt(question, execution_id, self._id)
            for question in self._board.open_inputs
            if not is_old or question.input_id in known.open
        ]

    def _complete(self, event: events.ExecutionComplete) -> None:
        self._show_plan()
        self._calls.give_up()
        if isinstance(event.result, str) and event.result and not self._speech.has_spoken:
            # Or an application that shows messages shows nothing of an agent that returns its answer.
            self._speech.complete(self._head, events.MessageComplete(message_id="result", text=event.result))
        self._frames.finish_all()
        self._finish({"type": "success"}, event.result, {"duration": event.duration})

    def _cancelled(self, event: events.ExecutionCancelled) -> None:
        self._show_plan()
        self._calls.give_up()
        self._frames.finish_all(type="SUBAGENT_ERROR", message="cancelled")
        self._finish({"type": "cancelled"}, metadata=event_fields(reason=event.reason, by=event.by) or None)

    def _finish(self, outcome: dict[str, Any], result: Any = None, metadata: dict[str, Any] | None = None) -> None:
        self._frames.show()
        self._frames.put(
            "RUN_FINISHED",
            threadId=self._view.thread_id,
            runId=self._view.run_id,
            result=result,
            outcome=outcome,
            usage=self._usage(),
            metadata=metadata,
        )
        self.is_over = True

    def _error(self, event: events.ExecutionError) -> None:
        self._show_plan()
        self._calls.give_up()
        self._frames.finish_all(type="SUBAGENT_ERROR", message=event.error)
        self._frames.show()
        self._frames.put("RUN_ERROR", message=event.error, code=event.code, usage=self._usage())
        self.is_over = True

    def _usage(self) -> list[dict[str, Any]] | None:
        """What this run has used: of a run that went on from another one, only its own part."""
        total, spent = self._board.usage, self._spent
        if total is None:
            return None
        counts = {
            "inputTokens": total.input_tokens - (spent.input_tokens if spent else 0),
            "outputTokens": total.output_tokens - (spent.output_tokens if spent else 0),
            "totalTokens": total.total_tokens - (spent.total_tokens if spent else 0),
        }
        return [event_fields(model=total.model) | {name: max(0, count) for name, count in counts.items()}]


# In the module, not in each renderer: bound methods would tie every renderer into a circle, and keep it until the next
# full collection.
_HANDLERS: dict[type[events.Event], Callable[[Renderer, Any], None]] = {
    events.ExecutionQueued: Renderer._nothing,
    events.ExecutionStarted: Renderer._started,
    events.ExecutionSuperseded: Renderer._superseded,
    events.PlanCreated: lambda self, _: self._show_plan(),
    events.PhaseStart: Renderer._phase_start,
    events.PhaseComplete: Renderer._phase_complete,
    events.Thinking: Renderer._thinking,
    events.ThinkingDelta: lambda self, event: self._speech.think(self._head, event),
    events.MessageDelta: lambda self, event: self._speech.say(self._head, event),
    events.MessageComplete: lambda self, event: self._speech.complete(self._head, event),
    events.ToolStart: lambda self, event: self._calls.start(event, self._speech.subagent(self._head)),
    events.ToolProgress: Renderer._tool_progress,
    events.ToolComplete: lambda self, event: self._calls.complete(event, self._speech.subagent(self._head)),
    events.ToolError: lambda self, event: self._calls.fail(event, self._speech.subagent(self._head)),
    events.Status: Renderer._nothing,
    events.Progress: Renderer._nothing,
    events.SpecialistActivated: lambda self, event: self._speech.activate(self._id, event),
    events.SpecialistComplete: lambda self, event: self._speech.deactivate(event),
    events.PartialResult: Renderer._partial_result,
    events.Synthesis: Renderer._nothing,
    events.UsageTotals: Renderer._nothing,
    events.InputRequired: Renderer._input_required,
    events.ExecutionComplete: Renderer._complete,
    events.ExecutionError: Renderer._error,
    events.ExecutionCancelled: Renderer._cancelled,
}


def _of_phases(patch: list[Operation]) -> list[Operation]:
    """What of the state's patch is said of the plan's phases, as a patch of the plan."""
    inside = len(ROOT)
    return [{**each, "path": each["path"][inside:]} for each in patch if each["path"].startswith(ROOT + "/phases")]


def _small(history: list[msgspec.Raw] | None) -> list[msgspec.Raw] | None:
    """What is kept for as long as the viewer stays."""
    return None if history is None or sum(len(bytes(each)) for each in history) > MAX_HISTORY_BYTES else history
