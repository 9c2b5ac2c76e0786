"""A UI message as clients make it of its stream (`processUIMessageStream` of `ai` 7), for those who did not see that.
Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from broker.protocols.ai_sdk.approvals import ALL_ANSWERED
from broker.protocols.ai_sdk.parts import encode
from broker.protocols.ai_sdk.renderer import DONE, Renderer
from broker.protocols.ai_sdk.safe_keys import with_safe_keys
from broker.protocols.ai_sdk.ui_messages import UiMessage
from emitter.wire.entries import Entry

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""Of a longer message this is given, and `truncated` in its metadata."""

Part = dict[str, Any]


class _Chunk(msgspec.Struct, rename="camel"):
    """What a message is made of, of any chunk. Values are passed on as they are."""

    type: str
    id: str = ""
    delta: str = ""
    data: Raw = Raw(b"null")
    tool_call_id: str = ""
    approval_id: str = ""
    title: str | UnsetType = UNSET
    tool_name: str = ""
    input: Raw = Raw(b"null")
    output: Raw = Raw(b"null")
    error_text: str = ""
    provider_executed: bool | UnsetType = UNSET
    provider_metadata: Raw | UnsetType = UNSET
    message_metadata: dict[str, Any] = {}


_chunks = msgspec.json.Decoder(_Chunk)


class MessageBuilder(Renderer):
    """Takes an execution's log, and has what a client would have of its stream."""

    def __init__(self, execution_id: str, attempt: int = 1, *, with_approvals: bool = False) -> None:
        super().__init__(execution_id, attempt, ALL_ANSWERED if with_approvals else None)
        self._shown_parts: list[Part] = []
        self._texts: dict[str, tuple[Part, list[str]]] = {}
        """Parts that are written, by their ids."""
        self._by_key: dict[str, Part] = {}
        """Data parts, by type and id."""
        self._tools: dict[str, Part] = {}
        """The last part of each call."""
        self._approvals_of: dict[str, str] = {}
        """Calls → their approvals."""
        self._of_step: set[str] = set()
        """Calls of this step."""
        self._about: dict[str, Any] = {}
        self.bytes = 0

    def add(self, entries: Sequence[Entry]) -> None:
        self.render(entries)

    @property
    def message(self) -> UiMessage:
        """It has at least one part, or clients find it invalid. What is open has what was said so far."""
        for part, pieces in self._texts.values():
            part["text"] = "".join(pieces)
        parts = self._shown_parts or [{"type": "step-start"}]
        return UiMessage(self.execution_id, "assistant", parts, self._about or None)

    def _shown(self) -> bytes:
        for frame in with_safe_keys(self._frames):
            if frame != DONE:
                self._add(_chunks.decode(frame), len(frame))
        self._frames.clear()
        return b""

    def _add(self, chunk: _Chunk, size: int) -> None:
        merge(self._about, chunk.message_metadata)
        if self.bytes > MAX_MESSAGE_BYTES:
            self._about["truncated"] = True
            return
        self.bytes += size
        kind, _, what = chunk.type.partition("-")
        if kind in ("text", "reasoning"):
            self._streamed(kind, what, chunk)
        elif kind == "tool":
            self._tool(what, chunk)
        elif kind == "data":
            self._datum(chunk)
        elif chunk.type == "start-step":
            self._of_step.clear()
            self._shown_parts.append({"type": "step-start"})

    def _streamed(self, kind: str, what: str, chunk: _Chunk) -> None:
        if what == "start":
            part = {"type": kind, "text": "", **_about(chunk, "providerMetadata"), "state": "streaming"}
            self._shown_parts.append(part)
            self._texts[chunk.id] = (part, [])
            return
        part, pieces = self._texts[chunk.id]
        pieces.append(chunk.delta)
        if what == "end":
            part |= {"text": "".join(pieces), "state": "done"}
            del self._texts[chunk.id]

    def _tool(self, what: str, chunk: _Chunk) -> None:
        part = self._tools.get(chunk.tool_call_id)
        if what == "input-available":
            about = _about(chunk, "callProviderMetadata")
            called: Part = {"type": "dynamic-tool", "toolName": chunk.tool_name, "toolCallId": chunk.tool_call_id}
            called |= {"state": what, "input": chunk.input, "providerExecuted": chunk.provider_executed, **about}
            if chunk.title is not UNSET:
                called["title"] = chunk.title
            if part is not None and chunk.tool_call_id in self._of_step:
                part.clear()
                part |= called
                return
            self._of_step.add(chunk.tool_call_id)
            self._tools[chunk.tool_call_id] = called
            self._shown_parts.append(called)
        elif what == "approval-request":
            self._approvals_of[chunk.tool_call_id] = chunk.approval_id
        elif part is not None:
            for name in ("output", "errorText"):
                part.pop(name, None)
            part |= {"state": what, **_outcome(what, chunk)}
            if (id_ := self._approvals_of.get(chunk.tool_call_id)) is not None and what != "output-error":
                part["approval"] = {"id": id_, "approved": what == "output-available"}

    def _datum(self, chunk: _Chunk) -> None:
        key = f"{chunk.type} {chunk.id}"
        if (part := self._by_key.get(key)) is not None:
            part["data"] = chunk.data
            return
        part = self._by_key[key] = {"type": chunk.type, "id": chunk.id, "data": chunk.data}
        self._shown_parts.append(part)


def _outcome(what: str, chunk: _Chunk) -> Part:
    match what:
        case "output-available":
            return {"output": chunk.output}
        case "output-error":
            return {"errorText": chunk.error_text}
    return {}


def merge(known: dict[str, Any], more: dict[str, Any]) -> None:
    """As clients merge metadata: objects member by member, all else in place of what was there."""
    for name, value in more.items():
        old = known.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            merge(old, value)
        else:
            known[name] = value


def _about(chunk: _Chunk, name: str) -> Part:
    return {} if chunk.provider_metadata is UNSET else {name: chunk.provider_metadata}


def size(message: UiMessage) -> int:
    return len(encode(message))
