"""The output of language models as events: text and reasoning exactly once, media, calls of the provider's tools, and
token usage. Pure.

LangGraph's `messages` stream has chunks of models that stream, whole messages of those that do not, and whole messages
that nodes return. A node that returns its model's streamed message repeats it; so the text of a task is remembered as a
digest until the task ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, UsageMetadata
from langchain_core.messages.ai import add_usage
from msgspec.structs import asdict, replace

from emitter.events import (
    Artifact,
    Event,
    MessageComplete,
    MessageDelta,
    Thinking,
    ThinkingDelta,
    Usage,
    UsageTotals,
)
from emitter.integrations.langgraph.blocks import Media, Part, Piece, pieces
from emitter.integrations.langgraph.recent import Recent
from emitter.integrations.langgraph.server_calls import ServerCalls
from emitter.publishing.event_methods import EventMethods
from emitter.publishing.spending import plus
from emitter.wire.storable import text

NAME_CHARS = 200


class RunningUsage:
    """Tokens of all models so far. Pass the same object to several runs of an execution to count all of them."""

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


class EmitterUsage(RunningUsage):
    """The running totals of an emitter: all that it has reported counts, also of several runs at a time."""

    def __init__(self, emitter: EventMethods[Any]) -> None:
        super().__init__()
        self._emitter = emitter

    def add(self, usage: Usage) -> UsageTotals:
        model = super().add(usage).model
        total = self._emitter._spent = plus(self._emitter._spent, usage)
        return UsageTotals(**asdict(replace(total, model=model)))


class Stream:
    """A message that comes in chunks."""

    def __init__(self, task_id: str, model: str | None) -> None:
        self.task_id = task_id
        self.model = model
        self.is_heard = False
        self.usage: UsageMetadata | None = None
        self._digest = Digest()
        self._halves: dict[str, str] = {}

    def add(self, part: Part) -> str:
        """The text that can be emitted so far: half of a surrogate pair waits for its other half."""
        self.is_heard = True
        said = self._halves.pop(part.kind, "") + part.text
        if "\ud800" <= said[-1] <= "\udbff":
            self._halves[part.kind] = said[-1]
            said = said[:-1]
        return self._told(part.kind, text(said))

    def rest(self) -> list[Part]:
        """Halves whose other half did not come."""
        halves, self._halves = self._halves, {}
        return [Part(kind, self._told(kind, text(half))) for kind, half in halves.items()]  # type: ignore[arg-type]

    def _told(self, kind: str, said: str) -> str:
        if kind == "text":
            self._digest.add(said)
        return said

    @property
    def digest(self) -> bytes:
        return self._digest.value


class Digest:
    """A digest of a text without its blanks, because a node may strip its model's text."""

    def __init__(self, said: str = "") -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.add(said)

    def add(self, said: str) -> None:
        self._hash.update("".join(said.split()).encode())

    @property
    def value(self) -> bytes:
        return self._hash.digest()


class Messages:
    """Translates items of the `messages` stream into events."""

    def __init__(self, usage: RunningUsage) -> None:
        self._totals = usage
        self._open: dict[str, Stream] = {}
        self._said: dict[str, set[bytes]] = {}
        self._whole = Recent()
        self._made = Recent()
        self._calls = ServerCalls()

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
        for piece in pieces(chunk):
            events += self._take_other(message_id, piece)
            if isinstance(piece, Part) and (said := stream.add(piece)):
                events.append(_delta(message_id, piece.kind, said))
        if chunk.usage_metadata:
            stream.usage = _joined(stream.usage, chunk.usage_metadata)
        return events + (self._complete(message_id) if chunk.chunk_position == "last" else [])

    def _take_whole(self, message: AIMessage, message_id: str, task_id: str, model: str | None) -> list[Event]:
        found = list(pieces(message))
        said = text("".join(piece.text for piece in found if isinstance(piece, Part) and piece.kind == "text"))
        digest = Digest(said).value
        is_known = message_id in self._whole or (said != "" and self._is_known(task_id, digest))
        events: list[Event] = []
        for piece in found:
            events += self._take_other(message_id, piece)
            if isinstance(piece, Part) and piece.kind == "reasoning" and not is_known:
                events.append(Thinking(thought=text(piece.text)))
        events += self._calls.start(message_id)
        if is_known:
            return events
        self._remember(message_id, task_id, digest)
        usage = _usage(message.usage_metadata, model)
        if said:
            events.append(MessageComplete(message_id=message_id, text=said, usage=usage))
        return events if usage is None else [*events, self._totals.add(usage)]

    def _take_other(self, message_id: str, piece: Piece) -> list[Event]:
        """Calls of the provider's tools; media, once."""
        events = self._calls.take(message_id, piece)
        if isinstance(piece, Media):
            artifact = _artifact(piece)
            if artifact.artifact_id not in self._made:
                self._made.add(artifact.artifact_id)
                events.append(artifact)
        return events

    def _is_known(self, task_id: str, digest: bytes) -> bool:
        streams = (stream for stream in self._open.values() if stream.task_id == task_id)
        return digest in self._said.get(task_id, ()) or any(stream.digest == digest for stream in streams)

    def _remember(self, message_id: str, task_id: str, digest: bytes) -> None:
        self._whole.add(message_id)
        self._said.setdefault(task_id, set()).add(digest)

    def _complete(self, message_id: str) -> list[Event]:
        stream = self._open.pop(message_id)
        events: list[Event] = [_delta(message_id, part.kind, part.text) for part in stream.rest()]
        events += self._calls.start(message_id)
        self._remember(message_id, stream.task_id, stream.digest)
        usage = _usage(stream.usage, stream.model)
        if stream.is_heard:
            events.append(MessageComplete(message_id=message_id, usage=usage))
        return events if usage is None else [*events, self._totals.add(usage)]

    def end_task(self, task_id: str, parent_id: str) -> list[Event]:
        """Complete the open messages of a task. Its texts then count as texts of its parent task."""
        events = [event for key in self._left_open(task_id) for event in self._complete(key)]
        said = self._said.pop(task_id, None)
        if said and parent_id:
            self._said.setdefault(parent_id, set()).update(said)
        return events

    def _left_open(self, task_id: str) -> list[str]:
        return [message_id for message_id, stream in self._open.items() if stream.task_id == task_id]

    def end(self, reason: str) -> list[Event]:
        """Complete all open messages. `reason` is the error of open calls."""
        return [event for message_id in list(self._open) for event in self._complete(message_id)] + self._calls.end(
            reason
        )


def _delta(message_id: str, kind: str, said: str) -> Event:
    return (MessageDelta if kind == "text" else ThinkingDelta)(message_id=message_id, delta=said)


def _artifact(media: Media) -> Artifact:
    """The id is derived from the content, so that a node that returns its model's image makes no second artifact."""
    digest = hashlib.blake2b(media.url.encode("utf-8", "replace"), digest_size=8).hexdigest()
    kind = text(media.media_type)[:NAME_CHARS]
    name = None if media.name is None else text(media.name)[:NAME_CHARS]
    artifact_id = f"{kind.partition('/')[0]}_{digest}"
    return Artifact(artifact_id=artifact_id, media_type=kind, name=name, url=text(media.url), last=True)


def _joined(before: UsageMetadata | None, given: UsageMetadata) -> UsageMetadata:
    """The usage of a message so far. Most models report the usage of each chunk, some the total so far with each chunk:
    those repeat the tokens of the prompt, which count once."""
    if before is not None and given["input_tokens"] >= before["input_tokens"] > 0:
        return given if given["output_tokens"] >= before["output_tokens"] else add_usage(before, given)
    return add_usage(before, given)


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
