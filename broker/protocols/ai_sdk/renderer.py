"""A log as the UI message stream of the AI SDK (https://ai-sdk.dev, `ai` 5, 6 and 7). Pure.

One execution is one assistant message with the execution's id, and what follows a message to the agent at work may be
another one (`after`). Only the chunk types of `ai` 5 are used, but for `approvals`: a client ends the stream at an
unknown type, and no client sends its version. An event without a part in the SDK is a data part. Parts that change keep
their id, so that a client replaces them.

Sent parts cannot be removed. When a retry takes over, the calls of the lost attempt become errors, its data parts
become `{"superseded": true}`, and a `data-superseded` part follows its void text. A stream that opens after that
(`attempt`) does not show the lost attempts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from typing import Any

import msgspec

from broker.executions.decoding import decode_shown
from broker.live.rendering import SSE_HEADERS
from broker.protocols.ai_sdk import continuation
from broker.protocols.ai_sdk.approvals import Approvals, call, outcome, run_id
from broker.protocols.ai_sdk.parts import MAX_AGAIN, Chunk, Parts, encode, metadata, short
from broker.protocols.ai_sdk.safe_keys import with_safe_keys
from broker.protocols.kept import Kept, Said
from broker.protocols.question_ids import QuestionId
from emitter import events
from emitter.errors import InvalidEvent
from emitter.wire.ascii_json import ascii_json
from emitter.wire.entries import Entry
from emitter.wire.envelope import Envelope
from emitter.wire.ids import START

HEADERS: Mapping[str, str] = {
    **SSE_HEADERS,
    "X-Vercel-AI-UI-Message-Stream": "v1",
}
RUN_ID = "X-Workflow-Run-Id"
"""The header that names what `WorkflowChatTransport` asks for when its stream was cut."""
DONE = b"[DONE]"
BEFORE_ALL = Entry(*START, b"", b"")
VOID = "[Interrupted: what stands above is void, the work begins again.]"
MAX_CALLS = 1000
MAX_DATA = 1000
MAX_KNOWN = 200


class Renderer:
    """A `Rendering` of one execution. `attempt` is the one that it has reached by now; with `approvals` these are the
    SDK's own. With `after`, the id of a message to the agent at work, it is of what follows this message, as an
    assistant message of its own."""

    name = "ai_sdk"
    heartbeat = b": hb\n"
    heartbeat_seconds = 10.0
    fill = b""

    def __init__(
        self, execution_id: str, attempt: int = 1, approvals: Approvals | None = None, *, after: str | None = None
    ) -> None:
        self.is_over = False
        self.execution_id = execution_id
        self._approvals = approvals
        self._message_id = execution_id if after is None else continuation.named(execution_id, after)
        self._run_id = run_id(execution_id, approvals) + ("" if after is None else continuation.AFTER + after)
        self._before = None if after is None else continuation.Before(after)
        self._attempt = attempt
        self._is_void = attempt > 1
        self._frames: list[bytes] = []
        """What is to be sent, as JSON."""
        self._parts = Parts(self._frames)
        self._said = Said()
        self._calls: Kept[bool] = Kept(MAX_CALLS)
        self._data_shown: Kept[None] = Kept(MAX_DATA)
        """`<name> <id>` of each data part."""
        self._known: Kept[Chunk] = Kept(MAX_KNOWN)
        """The same → what is known of it."""
        self._asked: Kept[str] = Kept(MAX_KNOWN)
        """Inputs → the calls by which they ask for an approval."""
        self._metadata_shown: set[str] = set()
        self._head: Envelope
        self._entry = BEFORE_ALL
        self._first = 0
        """The ordinal with which the log began."""

    @property
    def headers(self) -> Mapping[str, str]:
        return {**HEADERS, RUN_ID: self._run_id}

    @property
    def state_key(self) -> Hashable:
        about = (self._message_id, self._attempt, self._approvals)
        return None if self._is_void else (self.name, about, self._first, self._entry.id)

    def fork(self) -> Renderer:
        other = copy(self)
        other._frames = []
        other._parts = self._parts.fork(other._frames)
        other._before = self._before and self._before.fork()
        other._said = self._said.fork()
        other._calls, other._data_shown, other._known = self._calls.fork(), self._data_shown.fork(), self._known.fork()
        other._asked = self._asked.fork()
        other._metadata_shown = set(self._metadata_shown)
        return other

    # --- the rendering -----------------------------------------------------------------------------------------------

    def open(self) -> bytes:
        about = {"executionId": self.execution_id}
        self._put({"type": "start", "messageId": self._message_id, "messageMetadata": about})
        return self._shown()

    def render(self, entries: Sequence[Entry]) -> bytes:
        for entry in entries:
            if not self.is_over:
                self._take(entry)
        return self._shown()

    def _shown(self) -> bytes:
        if not self._frames:
            return b""
        shown = b"data: %b\n\n" % ascii_json(b"\n\ndata: ".join(with_safe_keys(self._frames)))
        self._frames.clear()
        return shown

    def _take(self, entry: Entry) -> None:
        if not self._first and entry.seq > 1:
            self._is_void = False  # the attempt's beginning may be gone, too: what is left is shown
            self._metadata(lostBefore=entry.seq)
        self._first = self._first or entry.seq
        self._entry = entry
        try:
            self._head, event = decode_shown(entry)
        except InvalidEvent:
            return  # a newer version's
        is_before = self._before is not None and self._is_before(self._before, event)
        if (self._is_void and not self._reaches(event)) or is_before:
            return
        _HANDLERS.get(type(event), Renderer._other)(self, event)
        if self._approvals is not None and entry.seq <= self._approvals.after and not self.is_over:
            self._frames.clear()  # the client has it from the stream before

    def _is_before(self, before: continuation.Before, event: events.Event) -> bool:
        is_before = before.covers(event, self._said)
        if before.is_over:
            self._before = None
            if before.approvals and self._approvals is not None:
                self._ask(before.approvals, self._approvals)
        return is_before

    def _reaches(self, event: events.Event) -> bool:
        """Whether this is shown: it is not of a hidden lost attempt."""
        match event:
            case events.ExecutionQueued():
                return True
            case events.ExecutionSuperseded(attempt=attempt):
                self._is_void = attempt < self._attempt
                return False
            case events.ExecutionStarted(attempt=attempt):
                self._is_void = attempt < self._attempt
            case _:
                self._is_void = event.type not in events.TERMINAL_STATE_OF
        return not self._is_void

    def _put(self, chunk: Chunk) -> None:
        self._frames.append(encode(chunk))

    def _metadata(self, **values: Any) -> None:
        self._metadata_shown.update(values)
        self._put({"type": "message-metadata", "messageMetadata": values})

    def _data(self, name: str, id_: str, data: Any) -> None:
        """A data part, or the new state of one that was shown."""
        shown = f"{name} {id_}"
        if shown not in self._data_shown:
            self._data_shown.set(shown, None)
        self._frames.append(encode({"type": "data-" + name, "id": id_, "data": data}))

    def _changed(self, name: str, id_: str, changes: Chunk) -> None:
        """A data part of which more is known than before; what is unset changes nothing."""
        changes = {name: value for name, value in changes.items() if value is not None}
        shown = (self._known.pop(f"{name} {id_}") or {}) | changes
        kept = {
            name: value if type(value) is str and len(value) <= MAX_AGAIN else short(value)
            for name, value in shown.items()
        }
        self._known.set(f"{name} {id_}", kept, sum(len(value) for value in kept.values() if isinstance(value, str)))
        self._data(name, id_, shown)

    def _other(self, event: events.Event) -> None:
        """A data part of its own, named after the type: `a:b` is `data-a-b`."""
        self._data(event.type.replace(":", "-"), str(self._entry.id), event)

    # --- attempts ----------------------------------------------------------------------------------------------------

    def _started(self, event: events.ExecutionStarted) -> None:
        self._metadata(startedAt=event.started_at, attempt=event.attempt)

    def _superseded(self, event: events.ExecutionSuperseded) -> None:
        """Mark what was shown of the lost attempt."""
        self._parts.close()
        for call_id in self._calls:
            self._fail_call(call_id, f"superseded by attempt {event.attempt}")
        children = [(shown, known) for shown, known in self._known.items() if shown.startswith("child ")]
        for shown in self._data_shown:
            name, _, id_ = shown.partition(" ")
            if name == "child":  # they belong to all attempts
                continue
            self._put({"type": "data-" + name, "id": id_, "data": {"superseded": True}})
        if self._parts.any_shown:  # a page that shows only text must see it too
            self._parts.whole("text", f"superseded-{event.attempt}", VOID, None)
            self._parts.close()
        if stale := sorted(self._metadata_shown & _OF_ATTEMPT):
            self._metadata(**dict.fromkeys(stale))  # clients merge metadata, and null takes the place of what was there
        data = {"attempt": event.attempt, "fromSeq": event.from_seq}
        self._put({"type": "data-superseded", "id": f"superseded-{event.attempt}", "data": data})
        self._parts.any_shown = self._parts.any_text = False
        for memory in (self._calls, self._asked, self._data_shown, self._known, self._said, self._metadata_shown):
            memory.clear()
        for shown, known in children:
            self._known.set(shown, known)
            self._data_shown.set(shown, None)

    # --- plan, thoughts, text ----------------------------------------------------------------------------------------

    def _phase_start(self, event: events.PhaseStart) -> None:
        self._parts.boundary()
        self._phase(event, {"state": "running", "index": event.phase_index})

    def _phase_complete(self, event: events.PhaseComplete) -> None:
        self._parts.boundary()
        self._phase(event, {"state": "complete", "duration": event.duration})

    def _phase(self, event: events.PhaseStart | events.PhaseComplete, changes: Chunk) -> None:
        self._changed("phase", event.phase_id, {"id": event.phase_id, "name": event.phase_name, **changes})

    def _thinking(self, event: events.Thinking) -> None:
        if event.visible:
            self._parts.whole("reasoning", f"thought-{self._entry.seq}", event.thought, self._head.agent)

    def _thinking_delta(self, event: events.ThinkingDelta) -> None:
        self._parts.delta("reasoning", event.message_id, event.delta, self._head.agent)

    def _message_delta(self, event: events.MessageDelta) -> None:
        self._parts.delta("text", event.message_id, event.delta, self._head.agent, self._call_of_speaker)
        self._said.add(event.message_id, event.delta)

    def _message_complete(self, event: events.MessageComplete) -> None:
        rest = self._rest(event)
        if rest is None:  # the completion's text is what counts
            self._data("message", event.message_id, {"messageId": event.message_id, "text": event.text})
        elif rest:
            self._parts.delta("text", event.message_id, rest, self._head.agent, self._call_of_speaker)
        self._parts.end("text", event.message_id)
        if event.usage is not None:
            self._metadata(messages={event.message_id: {"usage": event.usage}})

    @property
    def _call_of_speaker(self) -> str | None:
        """In which call a sub-agent speaks: what it says there is no part of the answer."""
        return self._head.parent_id if self._head.agent is not None else None

    def _rest(self, event: events.MessageComplete) -> str | None:
        if event.text is not None:
            return self._said.rest(event.message_id, event.text)
        self._said.forget(event.message_id)
        return ""

    # --- tools -------------------------------------------------------------------------------------------------------

    def _tool_start(self, event: events.ToolStart) -> None:
        self._call(event.call_id, event.tool_name, event.params)

    def _call(self, call_id: str, tool_name: str, params: Any) -> None:
        params = {} if params is None else params  # model APIs refuse null when the history goes back to them
        self._parts.interrupt(self._head.agent)
        self._parts.step()
        self._calls.set(call_id, True)
        chunk = {"type": "tool-input-available", "toolCallId": call_id, "toolName": tool_name, "input": params}
        self._put({**chunk, **_TOOL, **metadata(self._head.agent, self._head.parent_id)})

    def _tool_complete(self, event: events.ToolComplete) -> None:
        self._ended(event)
        self._put({"type": "tool-output-available", "toolCallId": event.call_id, "output": event.result} | _TOOL)

    def _tool_error(self, event: events.ToolError) -> None:
        self._ended(event)
        self._fail_call(event.call_id, event.error)

    def _ended(self, event: events.ToolComplete | events.ToolError) -> None:
        if event.call_id not in self._calls:  # its start was trimmed from the log
            self._call(event.call_id, event.tool_name, None)
        self._calls.set(event.call_id, False)
        self._metadata(tools={event.call_id: {"duration": event.duration}})

    def _fail_call(self, call_id: str, error: str) -> None:
        self._put({"type": "tool-output-error", "toolCallId": call_id, "errorText": error} | _TOOL)

    # --- specialists, artifacts, people ------------------------------------------------------------------------------

    def _specialist_activated(self, event: events.SpecialistActivated) -> None:
        changes = {"specialist": event.specialist, "state": "active", "task": event.task, "icon": event.icon}
        self._changed("specialist", event.specialist, changes)

    def _specialist_complete(self, event: events.SpecialistComplete) -> None:
        changes = {"specialist": event.specialist, "state": "complete", "summary": event.summary}
        self._changed("specialist", event.specialist, changes)

    def _child_started(self, event: events.ChildStarted) -> None:
        state = "detached" if event.detached else "running"
        self._changed("child", event.execution_id, {**msgspec.to_builtins(event), "state": state})

    def _child_ended(self, event: events.ChildEnded) -> None:
        self._changed("child", event.execution_id, msgspec.to_builtins(event))

    def _progress(self, event: events.Progress) -> None:
        """The execution's own, or a specialist's."""
        self._data("progress", f"progress:{event.specialist}" if event.specialist else "progress", event)

    def _artifact(self, event: events.Artifact) -> None:
        """Each chunk is a part; those of one `artifactId` belong together, in order."""
        self._parts.interrupt(self._head.agent)
        self._data("artifact", f"{event.artifact_id}+{self._entry.seq}" if event.append else event.artifact_id, event)

    def _input_required(self, event: events.InputRequired) -> None:
        if (self._known.get(f"input {event.input_id}") or {}).get("state") in ("received", "expired"):
            return  # the answer to the lost attempt's question came before the retry asked
        self._parts.interrupt(self._head.agent)
        if self._approvals is not None and event.kind == "approval":
            self._ask([event], self._approvals)
        else:
            self._input(event.input_id, "required", msgspec.to_builtins(event))

    def _ask(self, inputs: Sequence[events.InputRequired], asked: Approvals) -> None:
        """In a step of their own: clients answer when no call of the last step is open but approvals."""
        seq = self._entry.seq
        for event in inputs:
            self._input(event.input_id, "required", msgspec.to_builtins(event))
        self._parts.close()
        self._parts.step()
        for event in inputs:
            id_ = QuestionId(self.execution_id, seq, event.input_id)
            self._asked.set(event.input_id, str(id_))
            self._calls.set(str(id_), True)
            called, request = call(event, self.execution_id, id_)
            self._frames += [encode(called | _TOOL), encode(request)]
        self._parts.close()
        if any(asked.end_at(seq, event.input_id) for event in inputs):
            self._end("tool-calls")
        elif seq <= asked.after:
            self._frames.clear()  # the client has it from the stream before

    def _input_received(self, event: events.InputReceived) -> None:
        if (call_id := self._asked.pop(event.input_id)) is not None:
            self._calls.set(call_id, False)
            self._put(outcome(event, call_id))
        state = "expired" if event.by == events.EXPIRED else "received"
        self._input(event.input_id, state, msgspec.to_builtins(event))

    def _input(self, input_id: str, state: str, changes: Chunk) -> None:
        self._changed("input", input_id, {"executionId": self.execution_id, "state": state, **changes})

    # --- the end -----------------------------------------------------------------------------------------------------

    def _complete(self, event: events.ExecutionComplete) -> None:
        if isinstance(event.result, str) and event.result and not self._parts.any_text:
            self._parts.whole("text", "result", event.result, None)  # or a page that shows text shows nothing
        self._close("the execution is over")
        self._end("stop", messageMetadata=event)

    def _error(self, event: events.ExecutionError) -> None:
        self._close("the execution failed")
        self._metadata(error={"message": event.error} | ({} if event.code is None else {"code": event.code}))
        self._put({"type": "error", "errorText": event.error})
        self._end("error")

    def _cancelled(self, event: events.ExecutionCancelled) -> None:
        self._close("the execution was cancelled")
        self._metadata(cancelled=event)
        self._put({"type": "abort"})
        self._end("other")

    def _close(self, why: str) -> None:
        """Leave no call, phase, specialist, question or part open."""
        for call_id, is_open in self._calls.items():
            if is_open:
                self._fail_call(call_id, why)
        for shown, known in self._known.items():
            name, _, id_ = shown.partition(" ")
            if state := _CLOSED.get((name, known["state"])):
                self._changed(name, id_, {"state": state})
        self._parts.close()

    def _end(self, reason: str, **more: Any) -> None:
        """`finish` is the last chunk of every stream: clients that count chunks ask for more until they have it."""
        self._put({"type": "finish", "finishReason": reason, **more})
        self._frames.append(DONE)
        self.is_over = True


# In the module, not in each renderer: bound methods would tie every renderer into a circle, and keep it until the next
# full collection.
_HANDLERS: dict[type[events.Event], Callable[[Renderer, Any], None]] = {
    events.ExecutionQueued: lambda self, event: self._metadata(agent=event.agent),
    events.ExecutionStarted: Renderer._started,
    events.ExecutionSuperseded: Renderer._superseded,
    events.PlanCreated: lambda self, event: self._data("plan", "plan", event.plan),
    events.PhaseStart: Renderer._phase_start,
    events.PhaseComplete: Renderer._phase_complete,
    events.Thinking: Renderer._thinking,
    events.ThinkingDelta: Renderer._thinking_delta,
    events.MessageDelta: Renderer._message_delta,
    events.MessageComplete: Renderer._message_complete,
    events.ToolStart: Renderer._tool_start,
    events.ToolProgress: lambda self, event: self._data("tool-progress", event.call_id, event),
    events.ToolComplete: Renderer._tool_complete,
    events.ToolError: Renderer._tool_error,
    events.Status: lambda self, event: self._data("status", "status", event),
    events.Progress: Renderer._progress,
    events.ChildStarted: Renderer._child_started,
    events.ChildEnded: Renderer._child_ended,
    events.SpecialistActivated: Renderer._specialist_activated,
    events.SpecialistComplete: Renderer._specialist_complete,
    events.Synthesis: lambda self, event: self._data("synthesis", "synthesis", event),
    events.Artifact: Renderer._artifact,
    events.UsageTotals: lambda self, event: self._metadata(usage=event),
    events.ModelCall: lambda self, event: self._data("model-call", event.call_id, event),
    events.InputRequired: Renderer._input_required,
    events.InputReceived: Renderer._input_received,
    events.Custom: lambda self, event: self._data(
        "custom", str(self._entry.id), {"name": event.name, "data": event.data}
    ),
    events.ExecutionComplete: Renderer._complete,
    events.ExecutionError: Renderer._error,
    events.ExecutionCancelled: Renderer._cancelled,
}

_CLOSED = {
    ("phase", "running"): "interrupted",
    ("specialist", "active"): "interrupted",
    ("child", "running"): "interrupted",
    ("input", "required"): "closed",
}
"""A data part and its state, which goes on → the state that the end leaves it in."""
_OF_ATTEMPT = {"usage", "tools", "messages"}
"""Metadata of what one attempt did."""
# `dynamic`: of a kind that the page need not know; `providerExecuted`: it is not for the page to run it.
_TOOL: Chunk = {"dynamic": True, "providerExecuted": True}
