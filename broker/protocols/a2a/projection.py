"""An execution as A2A updates: takes the log's entries in order, and gives the updates that each one causes. Pure.

Everything is made from the log, ids included, so two edges send the same bytes. Artifacts of a lost attempt are
replaced, as far as the protocol can.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import copy
from typing import Any

import msgspec
from msgspec.structs import replace

from broker.executions.clipping import short_question
from broker.executions.decoding import decode_shown
from broker.executions.state import MAX_STATE_BYTES
from broker.protocols.a2a import artifacts, texts
from broker.protocols.a2a.bounds import Repeats
from broker.protocols.a2a.codec import encode
from broker.protocols.a2a.model import (
    STATES,
    Artifact,
    ArtifactUpdate,
    Message,
    Status,
    StatusUpdate,
    TextPart,
    Update,
)
from broker.protocols.a2a.task_view import Opening, TaskView
from broker.protocols.kept import Kept
from emitter import events
from emitter.errors import InvalidEvent
from emitter.wire.entries import Entry
from emitter.wire.envelope import Envelope
from emitter.wire.ids import EventId

MAX_KNOWN = 4096
"""Artifacts whose first chunk is remembered, and answered inputs; above it the oldest are forgotten."""
MAX_SHOWN_BYTES = 256 * 1024
"""Of the folded state, after the task was shown. Updates after a lost attempt are made from it."""

FOLDED = frozenset(
    {
        events.ExecutionQueued,
        events.ExecutionStarted,
        events.ExecutionSuperseded,
        events.ExecutionComplete,
        events.ExecutionError,
        events.ExecutionCancelled,
        events.MessageDelta,
        events.MessageComplete,
        events.Status,
        events.Progress,
        events.SpecialistActivated,
        events.SpecialistComplete,
        events.PartialResult,
        events.Synthesis,
        events.Artifact,
        events.UsageTotals,
        events.InputRequired,
        events.InputReceived,
    }
)
"""The events that a task is made of. The others only cause updates."""
OF_UPDATES = FOLDED - {events.Status, events.Progress, events.SpecialistActivated, events.SpecialistComplete}
"""Those on which updates depend, once the task was shown."""


class Moment(msgspec.Struct, frozen=True):
    """The event that the projection has reached. `was_streamed`: it completes a message whose whole text was sent
    before."""

    id: EventId
    head: Envelope
    event: Any
    was_streamed: bool = False


class TaskProjection(TaskView):
    """`take` each entry; call `task()` at any time before `forget`. `max_bytes` limits what is kept."""

    def __init__(self, opening: Opening, *, max_bytes: int = MAX_STATE_BYTES) -> None:
        super().__init__(opening, max_bytes=max_bytes)
        self._answered: dict[str, None] = {}
        self._reminded: tuple[events.InputRequired, Message, Message, int] | None = None
        self._repeats = Repeats()
        self._forgotten_at = 0
        self._folded: frozenset[type[Any]] = FOLDED
        self.with_whole = True
        """Whether the last chunk of an artifact comes with all of it."""
        self._known: Kept[bool] = Kept(MAX_KNOWN)
        """Artifacts that were sent, and whether their last chunk was."""
        self._unfinished: Kept[None] = Kept(MAX_KNOWN)
        """Artifacts of text to which more may be added."""

    @property
    def state_key(self) -> tuple[Hashable, ...]:
        """Projections of one log with equal keys give the same updates from here on, once their tasks were shown."""
        cut = self._forgotten_at if self._fold.was_clipped else 0
        return (self.task_id, self.context_id, self.first, self.last, cut)

    def fork(self) -> TaskProjection:
        """Another one in the same state, after its task was shown."""
        assert self._history is None
        other = copy(self)
        other._fold = self._fold.fork()
        other._answered = dict(self._answered)
        other._repeats = self._repeats.fork()
        other._known, other._unfinished = self._known.fork(), self._unfinished.fork()
        return other

    @property
    def answered(self) -> frozenset[str]:
        """Ids of the inputs that were answered or have expired."""
        return frozenset(self._answered)

    def take(self, entry: Entry) -> list[Update]:
        """The updates of this entry. None for one that was taken before, or is unknown (of a newer version)."""
        moment = self.advance(entry)
        return [] if moment is None else self.updates_for(moment)

    def advance(self, entry: Entry) -> Moment | None:
        """Take an entry, for `updates_for`; None if it changes nothing."""
        if entry.seq <= self.last.seq:
            return None
        self.last = id_ = entry.id
        if not self.first:
            self.first = entry.seq
        try:
            head, event = decode_shown(entry)
        except InvalidEvent:
            return None
        kind = type(event)
        was_streamed = kind is events.MessageComplete and self._was_streamed(event)
        if isinstance(event, events.UserMessage):
            self.last_said = event.message_id
        if self._history is not None:
            self._remember(id_, event, self._history)
        # Whatever a log begins with counts: it may not say that it began.
        if kind in self._folded or self._state == "submitted":
            self._fold.apply(id_, head, event)
            self._state = STATES[self._fold.status]
        return Moment(id_, head, event, was_streamed)

    def updates_for(self, moment: Moment) -> list[Update]:
        return _HANDLERS.get(type(moment.event), TaskProjection._other)(self, moment)

    def has_sent(self, message_id: str) -> bool:
        """Whether a part of this message's text was sent, so that more is appended."""
        return artifacts.message_id(message_id) in self._known

    def forget(self) -> None:
        """The task was shown: keep only what updates need."""
        if self._history is not None:
            self._forgotten_at = self.last.seq
        self._history = None
        self._folded = OF_UPDATES
        self._opening = self._opening._replace(parts=())
        self._fold.shrink(MAX_SHOWN_BYTES)

    def _was_streamed(self, event: Any) -> bool:
        """Whether the completion of this message adds nothing to the text that was sent."""
        if event.text is None:
            return self.has_sent(event.message_id)
        return self._fold.has_said(event.message_id, event.text)

    # --- updates ---

    def _started(self, moment: Moment) -> list[Update]:
        return [self._status(moment)]

    def other_text(self, event: Any) -> str | None:
        """The text of an event without a form in the protocol, for `text_update`; None for other events."""
        return None if type(event) in _HANDLERS or self._state == "input-required" else texts.text(event)

    def text_update(self, moment: Moment, text: str) -> StatusUpdate:
        return self._status(moment, texts.message(self.task_id, self.context_id, str(moment.id), moment.head, text))

    def _other(self, moment: Moment) -> list[Update]:
        text = texts.text(moment.event)
        if text is None:
            return []
        if self._state == "input-required":  # its message is the input
            return [self._status(moment, self._reminder(), data=moment.head.data)]
        return [self.text_update(moment, text)]

    def _nothing(self, _: Moment) -> list[Update]:
        return []

    def _superseded(self, moment: Moment) -> list[Update]:
        """Replaces the artifacts of the lost attempt that were sent."""
        fold, voided = self._fold, self._fold.voided
        changed: list[tuple[str, Artifact | None]] = [
            (artifacts.message_id(id_), None if (left := fold.message(id_)) is None else artifacts.text(left))
            for id_ in voided.messages
        ]
        changed += [(artifacts.partial_id(id_), None) for id_ in voided.partials]
        if voided.synthesis:
            left = fold.facts.get("synthesis")
            changed.append((artifacts.SYNTHESIS, None if left is None else artifacts.synthesis(left)))
        changed += [
            (artifacts.agents_id(id_), None if (made := fold.artifact(id_)) is None else artifacts.made(made))
            for id_ in voided.artifacts
        ]
        updates: list[Update] = []
        for id_, artifact in changed:
            shown = artifacts.void(id_) if artifact is None else self._left(artifact)
            updates.append(self._chunk(moment, shown, last=True))
            if artifact is None:
                self._known.pop(id_)  # what comes under this id is new
        usage = msgspec.to_builtins(fold.facts.get("usage"))  # null takes back what clients have merged
        facts = {"attempt": moment.event.attempt, "fromSeq": moment.event.from_seq, "usage": usage}
        return [*updates, self._status(moment, **facts)]

    def _message_delta(self, moment: Moment) -> list[Update]:
        event = moment.event
        id_ = artifacts.message_id(event.message_id)
        append = self.note_text(id_)
        return [self.chunk(moment, artifacts.chunk(id_, event.delta), append=append, last=False)]

    def note_text(self, artifact_id: str, *, append: bool = True, last: bool = False) -> bool:
        """A chunk of an artifact of text is sent; whether it is appended to others."""
        return self._note(artifact_id, is_text=True, append=append, last=last)

    def note_piece(self, artifact_id: str, *, is_text: bool, append: bool, last: bool) -> bool:
        """As `note_text`, for any artifact. `is_text`: its last part is text."""
        return self._note(artifact_id, is_text=is_text, append=append, last=last)

    def chunk(self, moment: Moment, artifact: Artifact, *, append: bool, last: bool) -> ArtifactUpdate:
        """A chunk that was noted."""
        return self._update(moment, artifact, append=append, last=last)

    def _message_complete(self, moment: Moment) -> list[Update]:
        """The whole text, unless all of it was streamed."""
        id_ = artifacts.message_id(moment.event.message_id)
        if not moment.was_streamed:
            return [self._chunk(moment, artifacts.chunk(id_, moment.event.text or ""), last=True)]
        end = artifacts.chunk(id_, "")
        return [self._chunk(moment, end, append=True, last=True, whole=self._whole(id_))]

    def _partial(self, moment: Moment) -> list[Update]:
        return [self._chunk(moment, artifacts.partial(str(moment.id), moment.event), last=True)]

    def _synthesis(self, moment: Moment) -> list[Update]:
        last = not moment.event.specialists_pending
        return [self._chunk(moment, artifacts.synthesis(moment.event), last=last)]

    def _artifact(self, moment: Moment) -> list[Update]:
        event = moment.event
        id_ = artifacts.agents_id(event.artifact_id)
        artifact = Artifact(artifact_id=id_, name=event.name, parts=artifacts.parts_of(event))
        whole = self._whole(id_) if event.append and event.last else None
        return [self._chunk(moment, artifact, append=event.append, last=event.last, whole=whole)]

    def _input_required(self, moment: Moment) -> list[Update]:
        final = self._state == "input-required"
        message = texts.prompt(self.task_id, self.context_id, moment.event) if final else None
        return [self._status(moment, message, final=final, inputId=moment.event.input_id)]

    def _input_received(self, moment: Moment) -> list[Update]:
        """The input and its answer become history."""
        self._answered[moment.event.input_id] = None
        if len(self._answered) > MAX_KNOWN:
            del self._answered[next(iter(self._answered))]
        message = self._reminder() if self._state == "input-required" else None
        return [self._status(moment, message, inputId=moment.event.input_id, by=moment.event.by)]

    def _complete(self, moment: Moment) -> list[Update]:
        updates = self._last_chunks(moment)
        if not self._fold.is_result_shown():
            updates.append(self._chunk(moment, artifacts.result(moment.event.result), last=True))
        return [*updates, self._end(moment)]

    def _interrupted(self, moment: Moment) -> list[Update]:
        cut = [
            replace(update, metadata=(update.metadata or {}) | {"interrupted": True})
            for update in self._last_chunks(moment)
        ]
        return [*cut, self._end(moment)]

    def _last_chunks(self, moment: Moment) -> list[Update]:
        """The last chunks of unfinished texts. Other artifacts are always sent whole, and stay unchanged."""
        updates: list[Update] = []
        for id_ in list(self._unfinished):
            end = artifacts.chunk(id_, "")
            updates.append(self._chunk(moment, end, append=True, last=True, whole=self._whole(id_)))
        synthesis = self._fold.facts.get("synthesis")
        if synthesis is not None and self._known.get(artifacts.SYNTHESIS) is False:
            updates.append(self._chunk(moment, artifacts.synthesis(synthesis), last=True))
        return updates

    def _whole(self, id_: str) -> Artifact | None:
        """The whole text, if this is its first last chunk; None if it is not known, or not wanted."""
        if not self.with_whole or self._known.get(id_) is not False:
            return None
        if (message_id := artifacts.message_of(id_)) is not None:
            other_text = self._fold.message(message_id)
            return None if other_text is None or other_text.truncated else artifacts.text(other_text)
        made = self._fold.artifact(artifacts.agents_own(id_))
        return None if made is None or made.truncated else artifacts.made(made)

    def _end(self, moment: Moment) -> StatusUpdate:
        event = moment.event
        facts = {
            "usage": self._fold.facts.get("usage"),
            "duration": self._fold.end.get("duration"),
            "tokensUsed": getattr(event, "tokens_used", None),
            "code": getattr(event, "code", None),
            "by": getattr(event, "by", None),
        }
        found = {name: msgspec.to_builtins(value) for name, value in facts.items() if value is not None}
        return self._status(moment, self._status_message(), final=True, **found)

    def _reminder(self) -> Message | None:
        """The input again, with an update of something else: a client that replaces the last update still has it. A
        long one is repeated a limited number of times, and then only its beginning."""
        question = self._fold.oldest_input()
        if question is None:
            return None
        if self._reminded is None or self._reminded[0] is not question:
            whole = texts.prompt(self.task_id, self.context_id, question)
            brief = texts.prompt(self.task_id, self.context_id, short_question(question))
            self._reminded = question, whole, brief, len(encode(question))
        _, whole, brief, size = self._reminded
        return whole if self._repeats.allow(size) else brief

    def _left(self, artifact: Artifact) -> Artifact:
        """The rest of an artifact. A long one is sent a limited number of times, and then only marked as shorter."""
        if self._repeats.allow(len(encode(artifact.parts))):
            return artifact
        return replace(artifact, parts=(TextPart(text=""),), metadata=artifacts.TRUNCATED)

    # --- one update ---

    def _status(
        self, moment: Moment, message: Message | None = None, *, final: bool = False, **more: Any
    ) -> StatusUpdate:
        return StatusUpdate(
            task_id=self.task_id,
            context_id=self.context_id,
            status=Status(state=self._state, at=moment.id.ms, message=message),
            final=final,
            metadata=_metadata(moment) | more,
        )

    def _chunk(
        self,
        moment: Moment,
        artifact: Artifact,
        *,
        append: bool = False,
        last: bool = False,
        whole: Artifact | None = None,
    ) -> ArtifactUpdate:
        is_text = isinstance(artifact.parts[-1], TextPart)
        append = self._note(artifact.artifact_id, is_text=is_text, append=append, last=last)
        return self._update(moment, artifact, append=append, last=last, whole=whole)

    def _note(self, id_: str, *, is_text: bool, append: bool, last: bool) -> bool:
        """A chunk of an artifact is sent. Returns `append`, which the first never has: clients treat that as an
        error."""
        known = self._known.get(id_)
        append = append and known is not None
        if known is not False or last or not append:
            self._known.set(id_, last or (append and bool(known)))
        if last:
            self._unfinished.pop(id_)
        elif is_text and id_ not in self._unfinished:
            self._unfinished.set(id_, None)
        return append

    def _update(
        self, moment: Moment, artifact: Artifact, *, append: bool, last: bool = False, whole: Artifact | None = None
    ) -> ArtifactUpdate:
        return ArtifactUpdate(
            task_id=self.task_id,
            context_id=self.context_id,
            artifact=artifact,
            append=append,
            last=last,
            metadata=_metadata(moment),
            whole=whole,
        )


_HANDLERS: dict[type[events.Event], Callable[[TaskProjection, Moment], list[Update]]] = {
    events.ExecutionQueued: TaskProjection._started,
    events.ExecutionStarted: TaskProjection._started,
    events.ExecutionSuperseded: TaskProjection._superseded,
    events.ThinkingDelta: TaskProjection._nothing,
    events.UsageTotals: TaskProjection._nothing,  # in the task's metadata, and with the end
    events.MessageDelta: TaskProjection._message_delta,
    events.MessageComplete: TaskProjection._message_complete,
    events.PartialResult: TaskProjection._partial,
    events.Synthesis: TaskProjection._synthesis,
    events.Artifact: TaskProjection._artifact,
    events.InputRequired: TaskProjection._input_required,
    events.InputReceived: TaskProjection._input_received,
    events.ExecutionComplete: TaskProjection._complete,
    events.ExecutionError: TaskProjection._interrupted,
    events.ExecutionCancelled: TaskProjection._interrupted,
}


def _metadata(moment: Moment) -> dict[str, Any]:
    """The place in the log, so that a client can detect a gap, and resume there. `generation`
    is its name in version 1.1 of the protocol."""
    head = moment.head
    metadata: dict[str, Any] = {"generation": moment.id.seq, "cursor": str(moment.id), "event": head.type}
    if head.agent is not None:
        metadata["agent"] = head.agent
    if head.parent_id is not None:
        metadata["parentId"] = head.parent_id
    return metadata
