"""The output items of one response: those that are open, and those that are done. Pure.

Each has the next `output_index`. An item is added, changes and is done; after that nothing is said of it.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from typing import Any, Literal

import msgspec

from broker.protocols.responses.frames import Frames, encode
from broker.protocols.responses.ids import item_id

Json = dict[str, Any]
Kind = Literal["message", "reasoning"]
Status = Literal["completed", "incomplete"]
MAX_OPEN = 200
MAX_CALLS = 200
MAX_ARGUMENT_CHARS = 4_096
"""Of a call, for a response in which it ends and did not begin."""
KEPT_BYTES = 256 * 1024
"""Of the output, for the end of a stream."""
MAX_CALL_CHARS = 128 * 1024
"""Of the ids and arguments of all calls that are open."""
SERVER = "runcast"
"""`server_label` of the agent's own tools."""
_PREFIX: dict[Kind, str] = {"message": "msg", "reasoning": "rs"}
_DELTA: dict[Kind, bytes] = {
    "message": b"response.output_text.delta",
    "reasoning": b"response.reasoning_summary_text.delta",
}
_DELTA_END: dict[Kind, bytes] = {"message": b',"logprobs":[]', "reasoning": b""}


class Written:
    """A text that is being written."""

    __slots__ = ("chars", "id", "index", "kind", "pieces", "place", "speaker")

    def __init__(self, kind: Kind, id_: str, index: int, speaker: str | None) -> None:
        self.kind = kind
        self.id = id_
        self.index = index
        self.speaker = speaker
        self.pieces: list[str] = []
        self.chars = 0
        part = b"content_index" if kind == "message" else b"summary_index"
        self.place = b'"item_id":"%b","output_index":%d,"%b":0' % (id_.encode(), index, part)

    @property
    def part(self) -> Json:
        """What is written of it, or its beginning."""
        text = "".join(self.pieces)
        return _part(self.kind, text) | ({"truncated": True} if len(text) < self.chars else {})

    def fork(self) -> Written:
        other = copy(self)
        other.pieces = list(self.pieces)
        return other


class Call(msgspec.Struct):
    """A call of one of the agent's tools. `index`: of its item, or None where it began before this response.
    `is_clients`: of a function that its client runs."""

    id: str
    name: str
    arguments: str
    index: int | None
    is_clients: bool = False


class Items:
    """What is said of them goes to `frames`. `room`: bytes of output that are kept for the end, the newest."""

    def __init__(self, frames: Frames, execution_id: str, room: int) -> None:
        self._frames = frames
        self._execution_id = execution_id
        self._room = room
        self._texts: dict[tuple[Kind, str], Written] = {}
        self._text_chars = 0
        self._calls: dict[str, Call] = {}
        self._done: deque[tuple[int, bytes]] = deque()
        self._done_bytes = 0
        self._index = 0
        self.seq = 0
        """Of the event that is being shown. It names the items that begin with it."""
        self.is_truncated = False
        self.any_text = False

    def fork(self, frames: Frames) -> Items:
        other = copy(self)
        other._frames = frames
        other._texts = {key: text.fork() for key, text in self._texts.items()}
        other._calls = {id_: copy(call) for id_, call in self._calls.items()}
        other._done = deque(self._done)
        return other

    @property
    def output(self) -> list[Any]:
        """Those that are done, and those that are open, as they are now, in the order in which they began."""
        done = [(index, msgspec.Raw(item)) for index, item in self._done]
        texts = [(text.index, _text_item(text, "in_progress", [text.part])) for text in self._texts.values()]
        calls = [
            (call.index, _call_item(call, "in_progress")) for call in self._calls.values() if call.index is not None
        ]
        return [item for _, item in sorted([*done, *texts, *calls], key=lambda each: each[0])]

    def restart(self) -> None:
        """A response of its own begins here. Calls go on."""
        for call in self._calls.values():
            call.index = None
        self._texts.clear()
        self._text_chars = self._index = 0
        self._forget()

    def forget_attempt(self) -> None:
        """What was said so far is void."""
        self._calls.clear()
        self._forget()

    def _forget(self) -> None:
        self._done.clear()
        self._done_bytes = 0
        self.is_truncated = self.any_text = False

    # --- any item ----------------------------------------------------------------------------------------------------

    def _new(self, kind: str) -> tuple[str, int]:
        """The id of a new item, and its index."""
        self._index += 1
        return item_id(kind, self._execution_id, self.seq), self._index - 1

    def _add(self, index: int, item: Json) -> None:
        self._frames.put("response.output_item.added", output_index=index, item=item)

    def _end(self, index: int, item: Json) -> None:
        made = encode(item)
        self._frames.put("response.output_item.done", output_index=index, item=msgspec.Raw(made))
        self._done.append((index, made))
        self._done_bytes += len(made)
        while self._done_bytes > self._room and len(self._done) > 1:
            self._done_bytes -= len(self._done.popleft()[1])
            self.is_truncated = True

    def whole(self, kind: str, **item: Any) -> None:
        """An item that is done as soon as it is there."""
        id_, index = self._new(_WHOLE.get(kind, "item"))
        made = {"id": id_, "type": kind, **item}
        self._add(index, made)
        self._end(index, made)

    # --- texts -------------------------------------------------------------------------------------------------------

    def delta(self, kind: Kind, id_: str, text: str, speaker: str | None) -> None:
        written = self._texts.get((kind, id_)) or self._begin(kind, id_, speaker)
        self._frames.delta(_DELTA[kind], written.place, text, _DELTA_END[kind])
        if self._text_chars < self._room:
            written.pieces.append(text[: self._room - self._text_chars])
        written.chars += len(text)
        self._text_chars += len(text)

    def _begin(self, kind: Kind, id_: str, speaker: str | None) -> Written:
        self.interrupt(speaker, but=kind)
        if len(self._texts) == MAX_OPEN:
            self.end(*next(iter(self._texts)))
        written = Written(kind, *self._new(_PREFIX[kind]), speaker)
        self._texts[kind, id_] = written
        self.any_text = self.any_text or kind == "message"
        self._add(written.index, _text_item(written, "in_progress", []))
        self._frames.put(_PART[kind] + ".added", **_place(written), part=_part(kind, ""))
        return written

    def end(self, kind: Kind, id_: str, status: Status = "completed") -> None:
        """End a text, if it is open."""
        if (written := self._texts.pop((kind, id_), None)) is None:
            return
        self._text_chars -= written.chars
        part = written.part
        text = part["text"]
        self.is_truncated = self.is_truncated or "truncated" in part
        place = _place(written)
        if kind == "message":
            self._frames.put("response.output_text.done", **place, text=text, logprobs=[])
        else:
            self._frames.put("response.reasoning_summary_text.done", **place, text=text)
        self._frames.put(_PART[kind] + ".done", **place, part=part)
        self._end(written.index, _text_item(written, status, [part]))

    def said(self, kind: Kind, id_: str, text: str, speaker: str | None) -> None:
        """A whole text."""
        self.delta(kind, id_, text, speaker)
        self.end(kind, id_)

    def interrupt(self, speaker: str | None, but: Kind | None = None) -> None:
        """End what a speaker has open, who does something else now."""
        for key in [key for key, text in self._texts.items() if text.speaker == speaker and key[0] != but]:
            self.end(*key)

    # --- calls -------------------------------------------------------------------------------------------------------

    def call(self, call_id: str, name: str, arguments: str, speaker: str | None) -> None:
        """The agent calls a tool of its own."""
        self.interrupt(speaker)
        id_, index = self._new("mcp")
        call = Call(id_, name, arguments, index)
        self._add(index, _call_item(call, "in_progress", arguments=""))
        place = {"item_id": id_, "output_index": index}
        self._frames.put("response.mcp_call.in_progress", **place)
        self._frames.put("response.mcp_call_arguments.delta", **place, delta=arguments)
        self._frames.put("response.mcp_call_arguments.done", **place, arguments=arguments)
        self._keep(call_id, call)

    def clients_call(self, call_id: str, name: str, arguments: str) -> None:
        """The agent calls a function of its client: it is shown when the agent waits for its result."""
        self._keep(call_id, Call("", name, arguments, None, is_clients=True))

    def _keep(self, call_id: str, call: Call) -> None:
        arguments = call.arguments
        if not call.is_clients and len(arguments) > MAX_ARGUMENT_CHARS:
            arguments = '{"clipped":true}'
        self._drop(call_id)
        room = MAX_CALL_CHARS - len(call_id) - len(arguments) - sum(map(_chars, self._calls.items()))
        while self._calls and (room < 0 or len(self._calls) == MAX_CALLS):
            oldest = next(iter(self._calls))
            room += _chars((oldest, self._calls[oldest]))
            self._drop(oldest)
        self._calls[call_id] = msgspec.structs.replace(call, arguments=arguments)

    def _drop(self, call_id: str) -> None:
        """Nothing more is known of this call."""
        call = self._calls.pop(call_id, None)
        if call is not None and call.index is not None:
            self._end(call.index, _call_item(call, "incomplete"))

    def waiting(self, call_id: str) -> Call | None:
        """The call of a client's function of this id."""
        call = self._calls.get(call_id)
        return call if call is not None and call.is_clients else None

    def call_ended(self, call_id: str, name: str, *, output: str | None = None, error: str | None = None) -> None:
        call = self._calls.pop(call_id, None)
        if call is not None and call.is_clients:
            return
        if call is None:  # its start is not in the log
            call = Call("", name, "{}", None)
        if call.index is None:
            id_, index = self._new("mcp")
            call = msgspec.structs.replace(call, id=id_, index=index)
            self._add(index, _call_item(call, "in_progress"))
        assert call.index is not None
        outcome = "completed" if error is None else "failed"
        self._frames.put(f"response.mcp_call.{outcome}", item_id=call.id, output_index=call.index)
        self._end(call.index, _call_item(call, outcome, output=output, error=error))

    def ask(self, call_id: str, name: str, arguments: str) -> None:
        """A call for the client to answer."""
        id_, index = self._new("fc")
        about = {"id": id_, "type": "function_call", "call_id": call_id, "name": name}
        self._add(index, {**about, "arguments": "", "status": "in_progress"})
        place = {"item_id": id_, "output_index": index}
        self._frames.put("response.function_call_arguments.delta", **place, delta=arguments)
        self._frames.put("response.function_call_arguments.done", **place, arguments=arguments, name=name)
        self._end(index, {**about, "arguments": arguments, "status": "completed"})

    # --- the end -----------------------------------------------------------------------------------------------------

    def close(self, status: Status, error: str | None = None) -> None:
        """Leave nothing open: texts have this status, calls failed for this reason, or are incomplete."""
        for key in list(self._texts):
            self.end(*key, status=status)
        for call_id, call in list(self._calls.items()):
            if call.index is not None and error is not None:
                self.call_ended(call_id, call.name, error=error)
            elif call.index is not None:
                self._end(call.index, _call_item(call, "incomplete"))
                call.index = None


def _chars(named: tuple[str, Call]) -> int:
    return len(named[0]) + len(named[1].arguments)


_WHOLE = {"mcp_approval_request": "mcpr"}
_PART: dict[Kind, str] = {"message": "response.content_part", "reasoning": "response.reasoning_summary_part"}


def _place(written: Written) -> Json:
    index = "content_index" if written.kind == "message" else "summary_index"
    return {"item_id": written.id, "output_index": written.index, index: 0}


def _part(kind: Kind, text: str) -> Json:
    if kind == "message":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "summary_text", "text": text}


def _text_item(written: Written, status: str, parts: list[Json]) -> Json:
    if written.kind == "message":
        about: Json = {"id": written.id, "type": "message", "status": status, "role": "assistant", "content": parts}
        return about
    return {"id": written.id, "type": "reasoning", "status": status, "summary": parts}


def _call_item(
    call: Call, status: str, *, arguments: str | None = None, output: str | None = None, error: str | None = None
) -> Json:
    return {
        "id": call.id,
        "type": "mcp_call",
        "status": status,
        "server_label": SERVER,
        "name": call.name,
        "arguments": call.arguments if arguments is None else arguments,
        "approval_request_id": None,
        "output": output,
        "error": error,
    }
