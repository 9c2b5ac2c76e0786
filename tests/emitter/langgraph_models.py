"""Models that say what they are told, and what graphs have said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from emitter.events import Event


class Whole(BaseChatModel):
    """Answers with whole messages, one a call."""

    script: list[Any]
    calls: int = 0
    model: str | None = None

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def next(self) -> Any:
        self.calls += 1
        return self.script[self.calls - 1]

    def _generate(self, messages: list[BaseMessage], *arguments: Any, **more: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.next())])


class Chunked(Whole):
    """Streams: the script holds a list of chunks for each call."""

    pause_seconds: float = 0.0

    def _stream(self, messages: list[BaseMessage], *arguments: Any, **more: Any) -> Iterator[ChatGenerationChunk]:
        for chunk in self.next():
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self, messages: list[BaseMessage], *arguments: Any, **more: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self.next():
            await asyncio.sleep(self.pause_seconds)
            yield ChatGenerationChunk(message=chunk)


def usage(given: int, taken: int) -> UsageMetadata:
    return {"input_tokens": given, "output_tokens": taken, "total_tokens": given + taken}


def spoken(*texts: str, tokens: tuple[int, int] | None = None) -> list[AIMessageChunk]:
    """The chunks of an answer; a last one with the tokens it took."""
    last = [] if tokens is None else [AIMessageChunk("", usage_metadata=usage(*tokens))]
    return [AIMessageChunk(text) for text in texts] + last


def calling(*calls: tuple[str, dict[str, Any], str], **fields: Any) -> AIMessage:
    """A message that calls tools: (name, arguments, id)."""
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": id_} for name, args, id_ in calls], **fields)


# --- what was said ---------------------------------------------------------------------------------------------------

_KEYS = {
    "phase:start": ("phase_name", "phase_index"),
    "phase:complete": ("phase_name",),
    "thinking": ("thought",),
    "thinking:delta": ("delta",),
    "message:delta": ("delta",),
    "message:complete": ("text",),
    "tool:start": ("call_id", "tool_name", "params"),
    "tool:progress": ("call_id", "message"),
    "tool:complete": ("call_id", "tool_name", "result"),
    "tool:error": ("call_id", "tool_name", "error"),
    "status": ("status", "message"),
    "usage": ("input_tokens", "output_tokens", "total_tokens"),
    "progress": ("progress",),
    "input:required": ("prompt", "kind"),
    "input:received": ("by", "value"),
}


def story(events: Sequence[tuple[str, Event]]) -> list[tuple[Any, ...]]:
    """A whole log as (type, the fields that are the same in every run)."""
    assert_paired(events)
    return [(type_, *(getattr(event, key) for key in _KEYS.get(type_, ()))) for type_, event in events]


def assert_paired(events: Sequence[tuple[str, Any]]) -> None:
    """Ids are unique, and what ends has begun: phases, calls, and messages that came in chunks."""
    begun: dict[str, set[str]] = {"phase": set(), "tool": set(), "message": set()}
    ended: dict[str, set[str]] = {"phase": set(), "tool": set(), "message": set()}
    for type_, event in events:
        kind = type_.partition(":")[0]
        if type_ in ("phase:start", "tool:start"):
            id_ = event.phase_id if kind == "phase" else event.call_id
            assert id_ not in begun[kind], f"{type_} {id_} twice"
            begun[kind].add(id_)
        elif type_ in ("phase:complete", "tool:complete", "tool:error"):
            id_ = event.phase_id if kind == "phase" else event.call_id
            assert id_ in begun[kind] - ended[kind], f"{type_} {id_}"
            assert 0 <= (0 if type_ == "phase:complete" else event.duration) < 30
            ended[kind].add(id_)
        elif type_ == "message:complete":
            assert event.message_id not in ended["message"], f"{event.message_id} completed twice"
            ended["message"].add(event.message_id)
        elif type_.endswith(":delta"):
            assert event.message_id not in ended["message"], f"a chunk after {event.message_id} was complete"
            begun["message"].add(event.message_id)
    assert begun["message"] <= ended["message"], "a message was left open"
