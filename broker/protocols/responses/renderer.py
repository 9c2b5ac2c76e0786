"""A log as the stream of one response, and as the response itself. Pure.

Frames are numbered from the response's beginning, lost attempts included, so a number means the same on every edge.
What an attempt has said that a retry replaces stays in the stream, closed as `incomplete`, and is no part of the
response at its end.

There is no event `error`: OpenAI's clients throw at it, and never see the `response.failed` that follows. That one has
the error, and every client reports it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from typing import Any, Literal

import msgspec

from broker.executions.decoding import decode_shown
from broker.live.rendering import SSE_HEADERS
from broker.protocols.kept import Said
from broker.protocols.question_ids import QuestionId
from broker.protocols.responses.frames import Frames, encode
from broker.protocols.responses.items import KEPT_BYTES, SERVER, Items
from broker.protocols.responses.response import LOST_BEFORE, TRUNCATED, About, Json, usage
from emitter import events
from emitter.errors import InvalidEvent
from emitter.wire.ascii_json import ascii_json
from emitter.wire.entries import Entry
from emitter.wire.envelope import Envelope
from emitter.wire.ids import START

BEFORE_ALL = Entry(*START, b"", b"")
ASK_USER = "ask_user"
"""The function by which an agent asks: of every question, if its client has a function of this name; else of those that
are no approvals."""
APPROVAL = "approval"
VOID = "[Interrupted: what stands above is void, the work begins again.]"
CANCELLED = "cancelled"
Status = Literal["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]


class Renderer:
    """A `Rendering` of a response; of its frames those after the number `starting_after`."""

    name = "responses"
    heartbeat = b": hb\n"
    heartbeat_seconds = 10.0
    fill = b""

    def __init__(self, about: About, *, starting_after: int = -1, room: int = KEPT_BYTES) -> None:
        self.is_over = False
        self.about = about
        self._after = about.id.after
        self._frames = Frames(starting_after, is_from_start=not self._after)
        self._items = Items(self._frames, about.id.execution_id, room)
        self._base = about.base()
        self._functions = about.functions
        self._asks_all = ASK_USER in self._functions
        self._status: Status = "queued"
        self._has_begun = False
        self._error: Json | None = None
        self._details: Json | None = None
        self._usage: events.Usage | None = None
        self._usage_before: events.Usage | None = None
        self._ended_ms: int | None = None
        self._said = Said()
        self._entry = BEFORE_ALL
        self._head: Envelope
        self._first = 0
        """The ordinal with which the log began."""
        self._previous = 0
        """The ordinal of the last question before the response."""

    @property
    def headers(self) -> Mapping[str, str]:
        return SSE_HEADERS

    @property
    def state_key(self) -> Hashable:
        return None if self._frames.is_ahead else (self.name, self.about.id, self._first, self._entry.id)

    def fork(self) -> Renderer:
        other = copy(self)
        other._frames = self._frames.fork()
        other._items = self._items.fork(other._frames)
        other._base = dict(self._base)
        other._said = self._said.fork()
        return other

    # --- the rendering -----------------------------------------------------------------------------------------------

    def open(self) -> bytes:
        return b""

    def render(self, entries: Sequence[Entry]) -> bytes:
        for entry in entries:
            if not self.is_over:
                self._take(entry)
        return ascii_json(self._frames.take())

    def response(self) -> bytes:
        """The response as it is now, as JSON."""
        return ascii_json(encode(self._response()))

    def _response(self) -> Json:
        output = self._items.output if self.is_over or self._status == "in_progress" else []
        made = {
            **self._base,
            "status": self._status,
            "completed_at": None if self._ended_ms is None else self._ended_ms // 1000,
            "incomplete_details": self._details,
            "output": output,
            "error": self._error,
            "usage": usage(self._usage, self._usage_before),
        }
        if self._items.is_truncated:
            made["metadata"] = {**made["metadata"], TRUNCATED: "true"}
        return made

    def _take(self, entry: Entry) -> None:
        self._first = self._first or entry.seq
        if entry.seq > self._after and not self._has_begun:
            self._begin(entry)  # at once, or after a head that the log has lost
        self._entry = entry
        self._items.seq = entry.seq
        if entry.type in _SHOWN:
            self._show(entry)
        if entry.seq == self._after:
            self._restart()

    def _show(self, entry: Entry) -> None:
        try:
            self._head, event = decode_shown(entry)
        except InvalidEvent:
            return  # a newer version's
        _HANDLERS[type(event)](self, event)

    def _begin(self, entry: Entry) -> None:
        """The response begins with this event."""
        self._has_begun = True
        if entry.type != b"execution:queued":
            self._status = "in_progress"
        if self._first > self._after + 1:
            self._base["metadata"] = {**self._base["metadata"], LOST_BEFORE: str(self._first)}
        self._base["created_at"] = entry.ms // 1000
        if self._after:
            self._frames.restart()
        created = {**self._response(), "output": []}
        self._frames.put("response.created", response=created)
        self._frames.put("response.queued" if self._status == "queued" else "response.in_progress", response=created)

    def _restart(self) -> None:
        """The response begins after this event."""
        self._items.restart()
        self._usage_before = self._usage
        self._base["previous_response_id"] = str(self.about.id._replace(after=self._previous))
        self._begin(self._entry._replace(type=b""))

    # --- attempts ----------------------------------------------------------------------------------------------------

    def _queued(self, event: events.ExecutionQueued) -> None:
        self._base["model"] = self._base["model"] or event.agent

    def _started(self, _: events.ExecutionStarted) -> None:
        if self._status == "queued":
            self._status = "in_progress"
            self._frames.put("response.in_progress", response={**self._response(), "output": []})

    def _superseded(self, _: events.ExecutionSuperseded) -> None:
        any_text = self._items.any_text
        self._items.close("incomplete")
        if any_text:
            self._items.said("message", "superseded", VOID, None)  # a page that shows only text must see it too
        self._items.forget_attempt()
        self._said.clear()
        self._usage = self._usage_before = None

    # --- thoughts, text ----------------------------------------------------------------------------------------------

    def _thinking(self, event: events.Thinking) -> None:
        if event.visible and event.thought:
            self._items.said("reasoning", f"\0{self._entry.seq}", event.thought, self._head.agent)

    def _thinking_delta(self, event: events.ThinkingDelta) -> None:
        self._items.delta("reasoning", event.message_id, event.delta, self._head.agent)

    @property
    def _kind(self) -> Literal["message", "reasoning"]:
        """What a sub-agent says to the agent that called it is no part of the answer."""
        is_inner = self._head.agent is not None and self._head.parent_id is not None
        return "reasoning" if is_inner else "message"

    def _message_delta(self, event: events.MessageDelta) -> None:
        self._items.delta(self._kind, event.message_id, event.delta, self._head.agent)
        self._said.add(event.message_id, event.delta)

    def _message_complete(self, event: events.MessageComplete) -> None:
        kind = self._kind
        if event.text is not None:
            rest = self._said.rest(event.message_id, event.text)
            if rest is None:  # the completion's text is what counts
                self._items.end(kind, event.message_id, "incomplete")
                rest = event.text
            if rest:
                self._items.delta(kind, event.message_id, rest, self._head.agent)
        self._said.forget(event.message_id)
        self._items.end(kind, event.message_id)

    # --- tools, files ------------------------------------------------------------------------------------------------

    def _tool_start(self, event: events.ToolStart) -> None:
        arguments = encode({} if event.params is None else event.params).decode()
        if event.tool_name in self._functions:
            self._items.clients_call(event.call_id, event.tool_name, arguments)
        else:
            self._items.call(event.call_id, event.tool_name, arguments, self._head.agent)

    def _tool_complete(self, event: events.ToolComplete) -> None:
        self._items.call_ended(event.call_id, event.tool_name, output=_text(event.result))

    def _tool_error(self, event: events.ToolError) -> None:
        self._items.call_ended(event.call_id, event.tool_name, error=event.error)

    def _artifact(self, event: events.Artifact) -> None:
        """An item of our own kind, as the specification lets servers have them ("Extending")."""
        self._items.whole("runcast:artifact", status="completed", **msgspec.to_builtins(event))

    def _usage_totals(self, event: events.UsageTotals) -> None:
        self._usage = event

    # --- questions ---------------------------------------------------------------------------------------------------

    def _input_required(self, event: events.InputRequired) -> None:
        seq = self._entry.seq
        if seq <= self._after:
            self._previous = seq if seq < self._after else self._previous
            return
        id_ = str(QuestionId(self.about.id.execution_id, seq, event.input_id))
        call = self._items.waiting(event.input_id)
        self._items.close("completed")
        told = msgspec.to_builtins(event)
        del told["inputId"]
        asked = encode(told).decode()
        if call is not None:
            self._items.ask(id_, call.name, call.arguments)
        elif event.kind == "approval" and not self._asks_all:
            self._items.whole("mcp_approval_request", id=id_, server_label=SERVER, name=APPROVAL, arguments=asked)
        else:
            self._items.ask(id_, ASK_USER, asked)
        self._end("completed")

    # --- the end -----------------------------------------------------------------------------------------------------

    def _complete(self, event: events.ExecutionComplete) -> None:
        result = event.result
        self._items.close("completed", "the execution is over")
        if result is not None and result != "":
            if not self._items.any_text:
                self._items.said("message", "result", _text(result) or "", None)
            elif not isinstance(result, str):
                self._items.whole("runcast:result", status="completed", result=result)
        self._end("completed")

    def _failed(self, event: events.ExecutionError) -> None:
        self._items.close("incomplete", "the execution failed")
        self._error = {"code": event.code or "server_error", "message": event.error}
        self._end("failed")

    def _cancelled(self, _: events.ExecutionCancelled) -> None:
        self._items.close("incomplete", "the execution was cancelled")
        self._details = {"reason": CANCELLED}
        self._end("cancelled")

    def _end(self, status: Status) -> None:
        """A stream ends with one of three events; a cancelled response is an incomplete one there."""
        self._status = status
        self._ended_ms = self._entry.ms
        self.is_over = True
        self._frames.put("response." + ("incomplete" if status == CANCELLED else status), response=self._response())
        self._frames.done()


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else encode(value).decode()


# In the module, not in each renderer: bound methods would tie every renderer into a circle.
_HANDLERS: dict[type[events.Event], Callable[[Renderer, Any], None]] = {
    events.ExecutionQueued: Renderer._queued,
    events.ExecutionStarted: Renderer._started,
    events.ExecutionSuperseded: Renderer._superseded,
    events.Thinking: Renderer._thinking,
    events.ThinkingDelta: Renderer._thinking_delta,
    events.MessageDelta: Renderer._message_delta,
    events.MessageComplete: Renderer._message_complete,
    events.ToolStart: Renderer._tool_start,
    events.ToolComplete: Renderer._tool_complete,
    events.ToolError: Renderer._tool_error,
    events.Artifact: Renderer._artifact,
    events.UsageTotals: Renderer._usage_totals,
    events.InputRequired: Renderer._input_required,
    events.ExecutionComplete: Renderer._complete,
    events.ExecutionError: Renderer._failed,
    events.ExecutionCancelled: Renderer._cancelled,
}
_SHOWN = frozenset(kind.type.encode() for kind in _HANDLERS)
"""A response has no place for the others. The execution's own stream shows them."""
