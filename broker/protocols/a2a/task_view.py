"""An execution as an A2A task: the task as it stands, made from the folded log. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from broker.executions.fold import Fold
from broker.protocols.a2a import artifacts, texts
from broker.protocols.a2a.bounds import History
from broker.protocols.a2a.codec import encode
from broker.protocols.a2a.model import (
    TERMINAL,
    Artifact,
    ArtifactUpdate,
    Message,
    Part,
    Status,
    Task,
    TaskState,
    TextPart,
)
from emitter import events
from emitter.wire.ids import START, EventId


class Opening(NamedTuple):
    """The first message of a task, from the record. `message_id` is the client's; `text` is used if the log no longer
    has it; `parts` are the parts besides text. Without `has_text` the message had no text of its own. `state` is that
    of the execution when the record was read."""

    task_id: str
    context_id: str
    message_id: str | None = None
    text: str | None = None
    metadata: dict[str, Any] | None = None
    parts: tuple[Part, ...] = ()
    has_text: bool = True
    state: str = ""


def within(opening: Opening, max_bytes: int) -> tuple[Opening, bool]:
    """The opening, without its parts if they need more than half of `max_bytes`; and whether they were dropped."""
    if not opening.parts or len(encode(opening.parts)) <= max_bytes // 2:
        return opening, False
    return opening._replace(parts=()), True


class TaskView:
    """A task and its history; `TaskProjection` takes the log's entries into it.

    `max_bytes` bounds what is kept: the state, and the parts of the first message.
    """

    def __init__(self, opening: Opening, *, max_bytes: int) -> None:
        self.task_id, self.context_id = opening.task_id, opening.context_id
        self.first = 0
        """The ordinal with which the log began."""
        self.last = START
        self.last_said: str | None = None
        """The id of the last message that a person sent to the agent at work."""
        self._fold = Fold(opening.task_id, max_bytes=max_bytes)
        self._state: TaskState = "submitted"
        self._history: History | None = History()
        self._opening, self._history.is_cut = within(opening, max_bytes)

    @property
    def state(self) -> TaskState:
        return self._state

    @property
    def is_terminal(self) -> bool:
        return self._state in TERMINAL

    @property
    def is_settled(self) -> bool:
        """Whether nothing more follows without an answer."""
        return self.is_terminal or self._state == "input-required"

    def limit(self, max_bytes: int) -> None:
        """Keep at most this many bytes from now on."""
        self._fold.shrink(max_bytes)

    def recall(self, state: TaskState, last: EventId) -> None:
        """Set the state of a task whose log has expired."""
        self._state, self.last = state, last
        if self._history is not None and not self._history.messages:
            self._begin(None, self._history)

    # --- the task as it stands ---

    def task(self, *, history_length: int | None = None, with_artifacts: bool = True) -> Task:
        """With the latest `history_length` messages, or all."""
        said = [] if self._history is None else self._history.messages
        skipped = 0 if history_length is None else max(0, len(said) - history_length)
        return Task(
            task_id=self.task_id,
            context_id=self.context_id,
            status=Status(state=self._state, at=self.last.ms, message=self._status_message()),
            history=tuple(said[skipped:]),
            artifacts=tuple(self._artifacts()) if with_artifacts else (),
            metadata=self._task_metadata(),
        )

    def artifacts(self) -> list[ArtifactUpdate]:
        """The current artifacts, for a client that got the task without them."""
        place = {"generation": self.last.seq, "cursor": str(self.last)}
        return [
            ArtifactUpdate(
                task_id=self.task_id,
                context_id=self.context_id,
                artifact=artifact,
                append=False,
                last=False,
                metadata=place,
            )
            for artifact in self._artifacts()
        ]

    def _task_metadata(self) -> dict[str, Any]:
        fold = self._fold
        metadata = {**(self._opening.metadata or {}), "generation": self.last.seq, "cursor": str(self.last)}
        found = {
            "agent": fold.agent,
            "usage": fold.facts.get("usage"),
            "progress": fold.facts.get("progress"),
            "duration": fold.end.get("duration"),
        }
        metadata |= {name: msgspec.to_builtins(value) for name, value in found.items() if value is not None}
        if self._history is not None and self._history.is_cut:
            metadata["historyTruncated"] = True
        if fold.is_short_of_texts:
            metadata["artifactsTruncated"] = True
        return metadata | {"attempt": fold.attempt}

    def _status_message(self) -> Message | None:
        end, activity = self._fold.end, self._fold.facts.get("activity")
        if self._state == "input-required":
            return self._prompt()
        if "error" in end:
            return self._text("end", end["error"].error)
        if "cancelled" in end:
            return self._text("end", end["cancelled"].reason or "")
        return self._text("activity", activity.message) if activity is not None and not self.is_terminal else None

    def _text(self, id_: str, text: str) -> Message | None:
        if not text:
            return None
        message_id = f"{self.task_id}.{id_}"
        parts = (TextPart(text=text),)
        return Message(
            role="agent", message_id=message_id, task_id=self.task_id, context_id=self.context_id, parts=parts
        )

    def _prompt(self) -> Message | None:
        """The oldest open input: an answer without an id is for it."""
        question = self._fold.oldest_input()
        return None if question is None else texts.prompt(self.task_id, self.context_id, question)

    def _artifacts(self) -> list[Artifact]:
        fold = self._fold
        found = [artifacts.text(message) for message in fold.messages()]
        found += [artifacts.partial(id_, part) for id_ in fold.partials if (part := fold.partials.get(id_))]
        if (synthesis := fold.facts.get("synthesis")) is not None:
            found.append(artifacts.synthesis(synthesis))
        found += [artifacts.made(artifact) for artifact in fold.artifacts()]
        if not fold.is_result_shown():
            found.append(artifacts.result(fold.end["result"]))
        return found

    # --- history ---

    def _remember(self, id_: EventId, event: events.Event, history: History) -> None:
        """Add the first message, each input with its answer, and each message to the agent at work."""
        if not history.messages:
            self._begin(event, history)
        if isinstance(event, events.UserMessage) and (event.text is not None or event.data is not None):
            history.add(texts.said(self.task_id, self.context_id, event), len(encode(event)))
        if not isinstance(event, events.InputReceived):
            return
        asked = self._fold.inputs.get(event.input_id)
        if isinstance(asked, events.InputRequired):
            said = texts.prompt(self.task_id, self.context_id, asked)
            history.add(said, len(encode(asked)))
        if event.by != events.EXPIRED:
            history.add(texts.answer(self.task_id, self.context_id, str(id_), event), len(encode(event)))

    def _begin(self, event: events.Event | None, history: History) -> None:
        """Add the first message. The event's text is used, because it is redacted."""
        text = event.task if isinstance(event, events.ExecutionQueued | events.ExecutionStarted) else self._opening.text
        opening = self._opening
        words = (TextPart(text=text),) if text and opening.has_text else ()
        if parts := (*words, *opening.parts):
            said = Message(
                role="user",
                message_id=opening.message_id or f"{self.task_id}.task",
                task_id=self.task_id,
                context_id=self.context_id,
                parts=parts,
            )
            history.add(said, len(text or "") + len(encode(opening.parts)))
