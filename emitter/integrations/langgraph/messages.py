"""What language models say, as events: text and reasoning exactly once, and the tokens they took. Pure.

LangGraph's `messages` stream has chunks of models that stream, whole messages of those that do not, and whole messages
that nodes return. A node that returns a copy of what its model has streamed repeats it; what was said in a task is
therefore remembered until the task ends, as a digest.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from langchain_core.messages import AIMessage, AIMessageChunk, UsageMetadata
from langchain_core.messages.ai import add_usage

from emitter.events import Event, MessageComplete, MessageDelta, Thinking, ThinkingDelta, Usage, UsageTotals
from emitter.storable import text

IDS_REMEMBERED = 4096


class Recent:
    """The last few thousand keys."""

    def __init__(self, limit: int = IDS_REMEMBERED) -> None:
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._limit = limit

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        self._keys[key] = None
        if len(self._keys) > self._limit:
            self._keys.popitem(last=False)


class RunningUsage:
    """Tokens of all models so far. Give the same one to several runs of an execution, for `usage` to count them all."""

    def __init__(self) -> None:
        self._input = self._output = self._total = 0
        self._models: set[str | None] = set()

    def add(self, usage: Usage) -> UsageTotals:
        self._input += usage.input_tokens
        self._output += usage.output_tokens
        self._total += usage.total_tokens
        self._models.add(usage.model)
        return UsageTotals(
            input_tokens=self._input,
            output_tokens=self._output,
            total_tokens=self._total,
            model=usage.model if len(self._models) == 1 else None,
        )


class Part(NamedTuple):
    kind: Literal["text", "reasoning"]
    text: str


class Stream:
    """A message that comes in chunks."""

    def __init__(self, task_id: str, model: str | None) -> None:
        self.task_id = task_id
        self.model = model
        self.is_heard = False
        self.usage: UsageMetadata | None = None
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, part: Part) -> None:
        self.is_heard = True
        if part.kind == "text":
            self._digest.update(part.text.encode())

    @property
    def digest(self) -> bytes:
        return self._digest.digest()


class Messages:
    """Takes what the `messages` stream brings; the events that follow from it."""

    def __init__(self, usage: RunningUsage) -> None:
        self._totals = usage
        self._open: dict[str, Stream] = {}
        self._said: dict[str, set[bytes]] = {}
        self._whole = Recent()

    def take(self, message: AIMessage, metadata: Mapping[str, Any]) -> list[Event]:
        message_id = text(message.id)
        task_id = task_of(str(metadata.get("langgraph_checkpoint_ns", "")))
        model = metadata.get("ls_model_name")
        name = text(model) if model else None
        if isinstance(message, AIMessageChunk):
            return self._take_chunk(message, message_id, task_id, name)
        return self._take_whole(message, message_id, task_id, name)

    def _take_chunk(self, chunk: AIMessageChunk, message_id: str, task_id: str, model: str | None) -> list[Event]:
        stream = self._open.get(message_id)
        if stream is None:
            stream = self._open[message_id] = Stream(task_id, model)
        events: list[Event] = []
        for part in parts(chunk):
            stream.add(part)
            delta = MessageDelta if part.kind == "text" else ThinkingDelta
            events.append(delta(message_id=message_id, delta=part.text))
        stream.usage = add_usage(stream.usage, chunk.usage_metadata) if chunk.usage_metadata else stream.usage
        return events + (self._complete(message_id) if chunk.chunk_position == "last" else [])

    def _take_whole(self, message: AIMessage, message_id: str, task_id: str, model: str | None) -> list[Event]:
        found = list(parts(message))
        said = "".join(part.text for part in found if part.kind == "text")
        digest = hashlib.blake2b(said.encode(), digest_size=16).digest()
        if message_id in self._whole or (said and self._is_known(task_id, digest)):
            return []
        self._remember(message_id, task_id, digest)
        usage = _usage(message.usage_metadata, model)
        events: list[Event] = [Thinking(thought=part.text) for part in found if part.kind == "reasoning"]
        if said:
            events.append(MessageComplete(message_id=message_id, text=said, usage=usage))
        return events if usage is None else [*events, self._totals.add(usage)]

    def _is_known(self, task_id: str, digest: bytes) -> bool:
        streams = (stream for stream in self._open.values() if stream.task_id == task_id)
        return digest in self._said.get(task_id, ()) or any(stream.digest == digest for stream in streams)

    def _remember(self, message_id: str, task_id: str, digest: bytes) -> None:
        self._whole.add(message_id)
        self._said.setdefault(task_id, set()).add(digest)

    def _complete(self, message_id: str) -> list[Event]:
        stream = self._open.pop(message_id)
        self._remember(message_id, stream.task_id, stream.digest)
        usage = _usage(stream.usage, stream.model)
        events: list[Event] = [MessageComplete(message_id=message_id, usage=usage)] if stream.is_heard else []
        return events if usage is None else [*events, self._totals.add(usage)]

    def end_task(self, task_id: str, parent_id: str) -> list[Event]:
        """Complete what a task's models left open. What was said in it counts as said in the task it belongs to."""
        events = [event for key in self._left_open(task_id) for event in self._complete(key)]
        said = self._said.pop(task_id, None)
        if said and parent_id:
            self._said.setdefault(parent_id, set()).update(said)
        return events

    def _left_open(self, task_id: str) -> list[str]:
        return [message_id for message_id, stream in self._open.items() if stream.task_id == task_id]

    def end(self) -> list[Event]:
        """Complete whatever is open."""
        return [event for message_id in list(self._open) for event in self._complete(message_id)]


def task_of(namespace: str) -> str:
    """The id of the innermost task of a checkpoint namespace, `graph:<id>|node:<id>`; empty outside of tasks. A task's
    second and later subgraphs add a bare number."""
    tasks = [segment for segment in namespace.split("|") if ":" in segment]
    return tasks[-1].rpartition(":")[2] if tasks else ""


def _usage(given: UsageMetadata | None, model: str | None) -> Usage | None:
    if given is None:
        return None
    return Usage(
        input_tokens=given["input_tokens"],
        output_tokens=given["output_tokens"],
        total_tokens=given["total_tokens"],
        model=model,
    )


def parts(message: AIMessage) -> Iterator[Part]:
    """Text and reasoning of a message or chunk, in whichever of the providers' forms it has."""
    reasoning = message.additional_kwargs.get("reasoning_content")  # DeepSeek, Qwen, Groq, Ollama
    if isinstance(reasoning, str) and reasoning:
        yield Part("reasoning", text(reasoning))
    blocks = [message.content] if isinstance(message.content, str) else message.content
    for block in blocks:
        part = Part("text", block) if isinstance(block, str) else _part(block)
        if part is not None and part.text:
            yield Part(part.kind, text(part.text))


def _part(block: Mapping[str, Any]) -> Part | None:
    kind = block.get("type")
    if kind == "text":
        return Part("text", _str(block.get("text")))
    if kind == "thinking":  # Anthropic
        return Part("reasoning", _str(block.get("thinking")))
    if kind == "reasoning_content":  # Bedrock
        content = block.get("reasoning_content")
        return Part("reasoning", _str(content.get("text")) if isinstance(content, Mapping) else _str(content))
    if kind == "reasoning":  # LangChain's own form, and OpenAI's
        summary = [item.get("text") for item in block.get("summary") or () if isinstance(item, Mapping)]
        return Part("reasoning", _str(block.get("reasoning")) or "".join(map(_str, summary)))
    return None


def _str(value: object) -> str:
    return value if isinstance(value, str) else ""
