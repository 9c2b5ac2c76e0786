"""Streams of model APIs as an agent's text, reasoning and usage: OpenAI (chat completions and responses), Anthropic,
LiteLLM and what is compatible with them.

    stream = await client.chat.completions.create(…, stream=True, stream_options={"include_usage": True})
    answer = await relay(context.emitter, stream)
    for call in answer.tool_calls:
        async with context.emitter.tool(call.name, call.arguments, call_id=call.id) as tool:
            tool.result = await tools[call.name](**call.arguments)

Known by their fields: no package of theirs is imported.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterable, Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from emitter.errors import describe
from emitter.events import Usage
from emitter.publishing.agent_emitter import AgentEmitter
from emitter.publishing.spending import NOTHING_SPENT, field, usage_of
from emitter.publishing.sync_emitter import SyncAgentEmitter
from emitter.testing import RecordingEmitter
from emitter.wire.storable import text as whole

Kind = Literal["text", "reasoning"]
Said = tuple[Kind, str]


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call that the model requests. `arguments` is a text if it is no JSON object."""

    id: str
    name: str
    arguments: Any


class Answer(msgspec.Struct, frozen=True):
    """The output of a model in one call. `usage` is that of this call alone."""

    text: str
    reasoning: str
    tool_calls: list[ToolCall]
    usage: Usage
    stop_reason: str | None = None


async def relay(
    emitter: AgentEmitter | RecordingEmitter,
    stream: AsyncIterable[Any],
    *,
    model: str = "",
    provider: str | None = None,
    prompt: Any = None,
) -> Answer:
    """Emit a stream's text and reasoning as they come, then `model:call` and the usage. Raises what the stream raises.

    Args:
        model, provider: where the stream does not name them.
        prompt: what the model was asked; stored only with `RUNCAST_RECORD_MODEL_CONTENTS=1`.
    """
    call = _Call(emitter.new_id("call"), model, provider, prompt)
    try:
        async for chunk in stream:
            for kind, text in call.take(chunk):
                if kind == "text":
                    await emitter.text(text)
                else:
                    await emitter.thinking_delta(text, call.id)
        call.reading.check()
    except Exception as error:
        await emitter.model_call(call.id, **call.facts(describe(error)))
        raise
    await emitter.end_text()
    await emitter.model_call(call.id, **call.facts())
    return call.reading.answer()


def relay_sync(
    emitter: SyncAgentEmitter,
    stream: Iterable[Any],
    *,
    model: str = "",
    provider: str | None = None,
    prompt: Any = None,
) -> Answer:
    """The blocking form of `relay`."""
    call = _Call(emitter.new_id("call"), model, provider, prompt)
    try:
        for chunk in stream:
            for kind, text in call.take(chunk):
                if kind == "text":
                    emitter.text(text)
                else:
                    emitter.thinking_delta(text, call.id)
        call.reading.check()
    except Exception as error:
        emitter.model_call(call.id, **call.facts(describe(error)))
        raise
    emitter.end_text()
    emitter.model_call(call.id, **call.facts())
    return call.reading.answer()


class ModelFailed(Exception):
    """The stream reported that the call failed."""


class _Call:
    """One running call."""

    def __init__(self, call_id: str, model: str, provider: str | None, prompt: Any) -> None:
        self.id = call_id
        self.reading = Reading(model, provider)
        self._prompt = prompt
        self._began = time.monotonic()
        self._first: float | None = None

    def take(self, chunk: Any) -> list[Said]:
        said = self.reading.take(chunk)
        if said and self._first is None:
            self._first = time.monotonic() - self._began
        return said

    def facts(self, error: str | None = None) -> dict[str, Any]:
        reading = self.reading
        return {
            "model": reading.model,
            "provider": reading.provider,
            "prompt": self._prompt,
            "answer": msgspec.to_builtins(reading.answer(), str_keys=True),
            "input_tokens": reading.usage.input_tokens,
            "output_tokens": reading.usage.output_tokens,
            "cost_usd": reading.usage.cost_usd,
            "duration": time.monotonic() - self._began,
            "first_token_seconds": self._first,
            "error": error,
        }


class _Parts(NamedTuple):
    """A tool call in pieces."""

    id: list[str]
    name: list[str]
    arguments: list[str]


class Reading:
    """The result of the chunks of one stream. Pure."""

    def __init__(self, model: str = "", provider: str | None = None) -> None:
        self.model = model
        self.provider = provider
        self.usage = NOTHING_SPENT
        self._said: dict[Kind, list[str]] = {"text": [], "reasoning": []}
        self._calls: dict[Any, _Parts] = {}
        self._stop_reason: str | None = None
        self._error: str | None = None
        self._input: Any = None

    def take(self, chunk: Any) -> list[Said]:
        """The content of a chunk, in order."""
        type_ = field(chunk, "type")
        if isinstance(type_, str) and type_.startswith("response."):
            said = self._of_response(type_, chunk)
        elif isinstance(type_, str):
            said = self._of_message(type_, chunk)
        else:
            said = self._of_completion(chunk)
        found = [(kind, text) for kind, text in said if isinstance(text, str) and text]
        for kind, text in found:
            self._said[kind].append(text)
        return found

    def check(self) -> None:
        """Raises `ModelFailed`."""
        if self._error is not None:
            raise ModelFailed(self._error)

    def answer(self) -> Answer:
        return Answer(
            text=whole("".join(self._said["text"])),
            reasoning=whole("".join(self._said["reasoning"])),
            tool_calls=[_tool_call(parts) for parts in self._calls.values()],
            usage=self.usage,
            stop_reason=self._stop_reason,
        )

    # --- OpenAI's chat completions, LiteLLM --------------------------------------------------------------------------

    def _of_completion(self, chunk: Any) -> list[tuple[Kind, Any]]:
        self._named(chunk)
        if (usage := field(chunk, "usage")) is not None:
            self.usage = usage_of(usage)
        said: list[tuple[Kind, Any]] = []
        for choice in _list(field(chunk, "choices"))[:1]:
            delta = field(choice, "delta")
            thought = field(delta, "reasoning_content") or field(delta, "reasoning")
            said += [("reasoning", thought), ("text", field(delta, "content")), ("text", field(delta, "refusal"))]
            for call in _list(field(delta, "tool_calls")):
                function = field(call, "function")
                self._piece(
                    field(call, "index"), field(call, "id"), field(function, "name"), field(function, "arguments")
                )
            self._stop_reason = field(choice, "finish_reason") or self._stop_reason
        return said

    # --- OpenAI's responses ------------------------------------------------------------------------------------------

    def _of_response(self, type_: str, event: Any) -> list[tuple[Kind, Any]]:
        if type_ in ("response.output_text.delta", "response.refusal.delta"):
            return [("text", field(event, "delta"))]
        if type_ in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            return [("reasoning", field(event, "delta"))]
        item, response = field(event, "item"), field(event, "response")
        if type_ == "response.output_item.done" and field(item, "type") == "function_call":
            self._piece(field(item, "call_id"), field(item, "call_id"), field(item, "name"), field(item, "arguments"))
        if response is not None:
            self._named(response)
            if (usage := field(response, "usage")) is not None:
                self.usage = usage_of(usage)
            self._stop_reason = field(response, "status") or self._stop_reason
        if type_ == "response.failed":
            self._failed(field(response, "error"))
        return []

    # --- Anthropic's messages ----------------------------------------------------------------------------------------

    def _of_message(self, type_: str, event: Any) -> list[tuple[Kind, Any]]:
        if type_ == "message_start":
            message = field(event, "message")
            self._named(message)
            self._input = field(message, "usage")
            self.usage = usage_of(self._input)
        elif type_ == "content_block_start":
            return self._block(field(event, "index"), field(event, "content_block"))
        elif type_ == "content_block_delta":
            return self._block_delta(field(event, "index"), field(event, "delta"))
        elif type_ == "message_delta":
            self._stop_reason = field(field(event, "delta"), "stop_reason") or self._stop_reason
            self._totals(field(event, "usage"))
        elif type_ == "error":
            self._failed(field(event, "error") or event)
        return []

    def _block(self, index: Any, block: Any) -> list[tuple[Kind, Any]]:
        if field(block, "type") == "tool_use":
            self._piece(index, field(block, "id"), field(block, "name"), None)
        return [("text", field(block, "text")), ("reasoning", field(block, "thinking"))]

    def _block_delta(self, index: Any, delta: Any) -> list[tuple[Kind, Any]]:
        if index in self._calls:
            self._piece(index, None, None, field(delta, "partial_json"))
        return [("text", field(delta, "text")), ("reasoning", field(delta, "thinking"))]

    def _totals(self, usage: Any) -> None:
        """The usage at the end of a message: all output, and the input if the API repeats it."""
        later = usage_of(usage)
        given = later.input_tokens or self.usage.input_tokens
        made = later.output_tokens or self.usage.output_tokens
        self.usage = Usage(input_tokens=given, output_tokens=made, total_tokens=given + made)

    # --- of all ------------------------------------------------------------------------------------------------------

    def _named(self, said: Any) -> None:
        model = field(said, "model")
        self.model = model if isinstance(model, str) and model else self.model

    def _failed(self, error: Any) -> None:
        self._error = str(field(error, "message") or error)

    def _piece(self, key: Any, id_: Any, name: Any, arguments: Any) -> None:
        parts = self._calls.setdefault(key, _Parts([], [], []))
        for texts, piece in zip(parts, (id_ if not parts.id else None, name, arguments), strict=True):
            if isinstance(piece, str):
                texts.append(piece)


def _tool_call(parts: _Parts) -> ToolCall:
    written = "".join(parts.arguments)
    try:
        arguments = json.loads(written) if written.strip() else {}
    except (ValueError, RecursionError):
        arguments = written
    return ToolCall("".join(parts.id), "".join(parts.name), arguments)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
