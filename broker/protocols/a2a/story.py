"""An execution as A2A tells it: the log's entries in order come in, updates and the task as it stands come out. Pure.

Everything is made from the log, ids included, so two edges tell the same in the same bytes. What a lost attempt made is
taken back, as far as the protocol can: its artifacts are replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from broker.api_types import ExecutionState
from broker.protocols.a2a import artifacts, wording
from broker.protocols.a2a.model import (
    STATES,
    TERMINAL,
    Artifact,
    ArtifactUpdate,
    Message,
    Status,
    StatusUpdate,
    Task,
    TaskState,
    TextPart,
    Update,
)
from broker.state import Fold
from broker.versions import Items
from emitter import events
from emitter.errors import InvalidEvent
from emitter.wire import START, Entry, Envelope, EventId, decode_envelope

MAX_HISTORY = 200
MAX_PARTIALS = 200
MAX_KNOWN = 4096
"""Artifacts whose first chunk is remembered, and questions that were answered; beyond it the oldest are forgotten."""


class Opening(NamedTuple):
    """What the record knows of a task from its beginning. `message_id` is the client's, of the message that began it;
    `text` counts where the log no longer has it."""

    task_id: str
    context_id: str
    message_id: str | None = None
    text: str | None = None
    metadata: dict[str, Any] | None = None


class _Moment(NamedTuple):
    """An event with its place. `before` are the artifacts before it, where it may change what was said of them."""

    id: EventId
    head: Envelope
    event: Any
    before: dict[str, Artifact]


class Story:
    """`take` each entry; `task()` may be asked at any time."""

    def __init__(self, opening: Opening) -> None:
        self.task_id, self.context_id = opening.task_id, opening.context_id
        self.last = START
        self._opening = opening
        self._fold = Fold(opening.task_id)
        self._state: TaskState = "submitted"
        self._open: list[events.InputRequired] = []
        self._history: list[Message] = []
        self._answered: dict[str, None] = {}
        self._partials: Items[Artifact] = Items(MAX_PARTIALS)
        self._known: dict[str, None] = {}
        self._tellers = self._teller_table()

    @property
    def state(self) -> TaskState:
        return self._state

    @property
    def is_terminal(self) -> bool:
        return self._state in TERMINAL

    @property
    def is_settled(self) -> bool:
        """Whether nothing more comes unless somebody answers."""
        return self.is_terminal or self._state == "input-required"

    @property
    def answered(self) -> frozenset[str]:
        """Ids of the questions that have an answer, or whose time is over."""
        return frozenset(self._answered)

    def take(self, entry: Entry) -> list[Update]:
        """What this entry changes. Nothing for one that was taken before, or is not understood (a newer version's)."""
        if entry.seq <= self.last.seq:
            return []
        self.last = id_ = entry.id
        try:
            head, event = decode_envelope(entry.json)
        except InvalidEvent:
            return []
        before = self._before(event)
        if not self._history:
            self._begin(event)
        self._fold.apply(id_, head, event)
        if self._state == "submitted":
            self._sync()  # whatever this log begins with: it may not say that it was queued or started
        return self._tellers.get(type(event), self._say)(_Moment(id_, head, event, before))

    def _before(self, event: events.Event) -> dict[str, Artifact]:
        """The artifacts that this event may change although they were told, as they are before it."""
        if isinstance(event, events.MessageComplete):
            message = self._fold.message(event.message_id)
            said = [] if message is None else [artifacts.text(message)]
        elif isinstance(event, events.ExecutionSuperseded):
            said = self._artifacts(self._fold.state())
        else:
            said = []
        return {artifact.artifact_id: artifact for artifact in said}

    def recall(self, state: TaskState, last: EventId) -> None:
        """How a task stands of whose log nothing is left."""
        self._state, self.last = state, last
        self._begin(None)

    # --- the task as it stands ---

    def task(self, *, history_length: int | None = None, with_artifacts: bool = True) -> Task:
        """With the latest `history_length` messages, or all."""
        state = self._fold.state()
        skipped = 0 if history_length is None else max(0, len(self._history) - history_length)
        return Task(
            task_id=self.task_id,
            context_id=self.context_id,
            status=Status(state=self._state, at=self.last.ms, message=self._status_message(state)),
            history=tuple(self._history[skipped:]),
            artifacts=tuple(self._artifacts(state)) if with_artifacts else (),
            metadata=self._task_metadata(state),
        )

    def artifacts(self) -> list[ArtifactUpdate]:
        """Those of the task as it stands, for a client that has the task without them."""
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
            for artifact in self._artifacts(self._fold.state())
        ]

    def _task_metadata(self, state: ExecutionState) -> dict[str, Any]:
        metadata = {**(self._opening.metadata or {}), "generation": self.last.seq, "cursor": str(self.last)}
        found = {"agent": state.agent, "usage": state.usage, "progress": state.progress, "duration": state.duration}
        metadata |= {name: msgspec.to_builtins(value) for name, value in found.items() if value is not None}
        return metadata | {"attempt": state.attempt}

    def _status_message(self, state: ExecutionState) -> Message | None:
        if self._state == "input-required":
            return self._prompt()
        if state.error is not None:
            return self._text("end", state.error.error)
        if state.cancelled is not None:
            return self._text("end", state.cancelled.reason or "")
        if state.activity is not None and not self.is_terminal:
            return self._text("activity", state.activity.message)
        return None

    def _text(self, id_: str, text: str) -> Message | None:
        if not text:
            return None
        message_id = f"{self.task_id}.{id_}"
        parts = (TextPart(text=text),)
        return Message(
            role="agent", message_id=message_id, task_id=self.task_id, context_id=self.context_id, parts=parts
        )

    def _prompt(self) -> Message | None:
        """The oldest open question: it is the one that an answer without an id is for."""
        return wording.prompt(self.task_id, self.context_id, self._open[0]) if self._open else None

    def _artifacts(self, state: ExecutionState) -> list[Artifact]:
        found = [artifacts.text(message) for message in state.messages]
        found += self._partials.values()
        if state.synthesis is not None:
            found.append(artifacts.synthesis(state.synthesis))
        found += [artifacts.made(artifact) for artifact in state.artifacts]
        if result := artifacts.result(state):
            found.append(result)
        return found

    # --- updates ---

    def _teller_table(self) -> dict[type[events.Event], Callable[[_Moment], list[Update]]]:
        return {
            events.ExecutionQueued: self._started,
            events.ExecutionStarted: self._started,
            events.ExecutionSuperseded: self._superseded,
            events.ThinkingDelta: lambda _: [],
            events.UsageTotals: lambda _: [],  # in the task's metadata, and with the end
            events.MessageDelta: self._message_delta,
            events.MessageComplete: self._message_complete,
            events.PartialResult: self._partial,
            events.Synthesis: self._synthesis,
            events.Artifact: self._artifact,
            events.InputRequired: self._input_required,
            events.InputReceived: self._input_received,
            events.ExecutionComplete: self._complete,
            events.ExecutionError: self._ended,
            events.ExecutionCancelled: self._ended,
        }

    def _begin(self, event: events.Event | None) -> None:
        """The first message. The event's text counts, since what looked secret was taken out of it."""
        text = event.task if isinstance(event, events.ExecutionQueued | events.ExecutionStarted) else self._opening.text
        said = self._text("task", text or "")
        if said is not None:
            self._history.append(replace(said, role="user", message_id=self._opening.message_id or said.message_id))

    def _sync(self) -> ExecutionState:
        state = self._fold.state()
        self._state, self._open = STATES[state.status], state.open_inputs
        return state

    def _started(self, moment: _Moment) -> list[Update]:
        self._sync()
        return [self._status(moment)]

    def _say(self, moment: _Moment) -> list[Update]:
        """An event that A2A has no word for."""
        message = wording.message(self.task_id, self.context_id, str(moment.id), moment.head, moment.event)
        if message is None:
            return []
        if self._state == "input-required":  # whose message is the question
            return [self._status(moment, self._prompt(), data=moment.head.data)]
        return [self._status(moment, message)]

    def _superseded(self, moment: _Moment) -> list[Update]:
        self._partials.void(moment.event.from_seq)
        left = {artifact.artifact_id: artifact for artifact in self._artifacts(self._sync())}
        updates: list[Update] = []
        for id_, artifact in moment.before.items():
            if left.get(id_) != artifact:
                updates.append(self._chunk(moment, left.get(id_) or artifacts.void(id_), last=True))
            if id_ not in left:
                self._known.pop(id_, None)  # what comes under this id is new
        usage = msgspec.to_builtins(self._sync().usage)  # null takes back what clients have merged
        facts = {"attempt": moment.event.attempt, "fromSeq": moment.event.from_seq, "usage": usage}
        return [*updates, self._status(moment, **facts)]

    def _message_delta(self, moment: _Moment) -> list[Update]:
        id_ = artifacts.message_id(moment.event.message_id)
        artifact = Artifact(artifact_id=id_, parts=(TextPart(text=moment.event.delta),))
        return [self._chunk(moment, artifact, append=True)]

    def _message_complete(self, moment: _Moment) -> list[Update]:
        """The whole text, unless all of it was streamed."""
        id_ = artifacts.message_id(moment.event.message_id)
        said = moment.before.get(id_)
        text = moment.event.text
        if said is not None and (text is None or said.parts == (TextPart(text=text),)):
            end = replace(said, parts=(TextPart(text=""),))
            return [self._chunk(moment, end, append=True, last=True, whole=said)]
        return [self._chunk(moment, Artifact(artifact_id=id_, parts=(TextPart(text=text or ""),)), last=True)]

    def _partial(self, moment: _Moment) -> list[Update]:
        artifact = artifacts.partial(str(moment.id), moment.event)
        self._partials.set(moment.id.seq, artifact.artifact_id, artifact)
        return [self._chunk(moment, artifact, last=True)]

    def _synthesis(self, moment: _Moment) -> list[Update]:
        last = not moment.event.specialists_pending
        return [self._chunk(moment, artifacts.synthesis(moment.event), last=last)]

    def _artifact(self, moment: _Moment) -> list[Update]:
        event = moment.event
        id_ = artifacts.agents_id(event.artifact_id)
        artifact = Artifact(artifact_id=id_, name=event.name, parts=artifacts.parts_of(event))
        known = self._fold.artifact(event.artifact_id) if event.append and event.last else None
        whole = None if known is None else artifacts.made(known)
        return [self._chunk(moment, artifact, append=event.append, last=event.last, whole=whole)]

    def _input_required(self, moment: _Moment) -> list[Update]:
        self._sync()
        final = self._state == "input-required"
        message = wording.prompt(self.task_id, self.context_id, moment.event) if final else None
        return [self._status(moment, message, final=final, inputId=moment.event.input_id)]

    def _input_received(self, moment: _Moment) -> list[Update]:
        """Question and answer are history now."""
        _keep(self._answered, moment.event.input_id)
        asked = next((each for each in self._open if each.input_id == moment.event.input_id), None)
        if asked is not None:
            self._remember(wording.prompt(self.task_id, self.context_id, asked))
        if moment.event.by != events.EXPIRED:
            self._remember(wording.answer(self.task_id, self.context_id, str(moment.id), moment.event))
        self._sync()
        message = self._prompt() if self._state == "input-required" else None
        return [self._status(moment, message, inputId=moment.event.input_id, by=moment.event.by)]

    def _remember(self, message: Message) -> None:
        self._history.append(message)
        if len(self._history) > MAX_HISTORY:
            del self._history[1]  # the first is what it is all about

    def _complete(self, moment: _Moment) -> list[Update]:
        state = self._sync()
        result = artifacts.result(state)
        updates: list[Update] = [] if result is None else [self._chunk(moment, result, last=True)]
        return [*updates, *self._ended(moment)]

    def _ended(self, moment: _Moment) -> list[Update]:
        state = self._sync()
        event = moment.event
        facts = {
            "usage": state.usage,
            "duration": state.duration,
            "tokensUsed": getattr(event, "tokens_used", None),
            "code": getattr(event, "code", None),
            "by": getattr(event, "by", None),
        }
        found = {name: msgspec.to_builtins(value) for name, value in facts.items() if value is not None}
        return [self._status(moment, self._status_message(state), final=True, **found)]

    # --- one update ---

    def _status(
        self, moment: _Moment, message: Message | None = None, *, final: bool = False, **more: Any
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
        moment: _Moment,
        artifact: Artifact,
        *,
        append: bool = False,
        last: bool = False,
        whole: Artifact | None = None,
    ) -> ArtifactUpdate:
        """The first chunk of an artifact never says that it is added to something: clients take that for an error."""
        append = append and artifact.artifact_id in self._known
        _keep(self._known, artifact.artifact_id)
        return ArtifactUpdate(
            task_id=self.task_id,
            context_id=self.context_id,
            artifact=artifact,
            append=append,
            last=last,
            metadata=_metadata(moment),
            whole=whole,
        )


def _keep(names: dict[str, None], name: str) -> None:
    names[name] = None
    if len(names) > MAX_KNOWN:
        del names[next(iter(names))]


def _metadata(moment: _Moment) -> dict[str, Any]:
    """The place in the log, so that a client can tell whether it missed something, and go on from there. `generation`
    is the name that version 1.1 of the protocol is to have for it."""
    head = moment.head
    metadata: dict[str, Any] = {"generation": moment.id.seq, "cursor": str(moment.id), "event": head.type}
    if head.agent is not None:
        metadata["agent"] = head.agent
    if head.parent_id is not None:
        metadata["parentId"] = head.parent_id
    return metadata
