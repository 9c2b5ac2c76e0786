"""What an execution looks like at one event of its log: its parts, bounded in number and in bytes. Pure.

`execution:superseded` voids what came after an ordinal, so each part remembers at which ordinal it took its value, and
can go back (`broker.executions.undo`).

When the parts become too many bytes, those that did not change for longest are clipped: texts keep their beginning
(`truncated`, or an ellipsis), values become `{"clipped": true}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple, Self, TypeVar

from msgspec.structs import replace

from broker.executions.clipping import (
    PART_BYTES,
    Input,
    Written,
    as_it_is,
    short,
    short_artifact,
    short_input,
    short_written,
    weight,
)
from broker.executions.spending import Spending
from broker.executions.types import (
    ArtifactState,
    ChildState,
    ExecutionState,
    MessageState,
    PartialState,
    PhaseState,
    SpecialistState,
    ThoughtState,
    ToolState,
    UserMessageState,
)
from broker.executions.undo import Items, Part, Texts
from emitter import events
from emitter.wire import ids
from emitter.wire.envelope import Envelope

MAX_THOUGHTS = 200
MAX_TOOLS = 500
MAX_MESSAGES = 200
MAX_OTHERS = 200
MAX_STATE_BYTES = 4 * 1024 * 1024
"""Bytes of memory, about, above which parts are clipped; as JSON they are fewer."""
SMALL_PART_BYTES = 600
"""Parts up to this size are not clipped; their number is limited."""
T = TypeVar("T")
W = TypeVar("W", MessageState, ArtifactState)


_ITEMS = (
    "facts", "phases", "specialists", "inputs", "partials", "user_messages", "children", "_own_usage", "_tools",
    "_thoughts", "_messages", "_artifacts",
)  # fmt: skip


def _age(part: Part) -> tuple[int, str]:
    return part.seq, part.id


class Voided(NamedTuple):
    """What `execution:superseded` removed or changed: ids in order, and whether the synthesis is among it."""

    messages: Sequence[str] = ()
    partials: Sequence[str] = ()
    artifacts: Sequence[str] = ()
    synthesis: bool = False


class FoldedState:
    """The parts of an execution; `Fold` changes them. A renderer reads single parts, `state()` makes the whole.

    `is_watched`: `facts`, `phases`, `specialists` and `inputs` record what changed (`Items.changed`).
    """

    def __init__(self, execution_id: str = "", *, max_bytes: int = MAX_STATE_BYTES, is_watched: bool = False) -> None:
        self.execution_id = execution_id
        self._last = ids.START
        self._max_bytes = max_bytes
        self._bytes = 0
        self.was_clipped = False
        self._call: str | None = None
        """The call of the sub-agent that emitted the current event. An event with a parent but no agent has none."""
        self._event: tuple[Envelope, events.Event]
        self.status: events.State = "queued"
        self._is_begun = False
        self.task: str | None = None
        self.agent: str | None = None
        self.attempt = 1
        self.end: dict[str, Any] = {}
        self.voided = Voided()
        self.spending = Spending()
        self.facts: Items[Any] = Items(MAX_OTHERS, as_it_is, is_watched=is_watched)
        self.phases: Items[PhaseState] = Items(MAX_OTHERS, short, is_watched=is_watched)
        self.specialists: Items[SpecialistState] = Items(MAX_OTHERS, short, is_watched=is_watched)
        self.inputs: Items[Input] = Items(MAX_OTHERS, short_input, is_watched=is_watched)
        self.partials: Items[PartialState] = Items(MAX_OTHERS, short)
        self.user_messages: Items[UserMessageState] = Items(MAX_OTHERS, short)
        self.children: Items[ChildState] = Items(MAX_OTHERS, short)
        self._children_usage: events.Usage | None = None
        self._own_usage: Items[events.UsageTotals] = Items(1, as_it_is)
        self._tools: Items[ToolState] = Items(MAX_TOOLS, short)
        self._thoughts: Texts[ThoughtState] = Texts(MAX_THOUGHTS, short_written)
        self._messages: Texts[MessageState] = Texts(MAX_MESSAGES, short_written)
        self._artifacts: Texts[ArtifactState] = Texts(MAX_OTHERS, short_artifact)

    def fork(self) -> Self:
        """Another one in the same state."""
        other = copy(self)
        other.end = dict(self.end)
        other.spending = copy(self.spending)
        for name in _ITEMS:
            setattr(other, name, getattr(self, name).fork())
        return other

    def state(self) -> ExecutionState:
        messages = self.messages()
        return ExecutionState(
            execution_id=self.execution_id,
            status=self.status,
            cursor=str(self._last),
            task=self.task,
            agent=self.agent,
            attempt=self.attempt,
            started_at=self.facts.get("started_at"),
            activity=self.facts.get("activity"),
            progress=self.facts.get("progress"),
            plan=self.facts.get("plan"),
            phases=self.all_phases(),
            tools=self._tools.values(),
            thinking=[
                replace(item, thought=str(text), truncated=text.truncated) for item, text in self._thoughts.values()
            ],
            messages=messages,
            text="".join([message.text for message in messages if message.parent_id is None]),
            specialists=self.specialists.values(),
            synthesis=self.facts.get("synthesis"),
            partial_results=self.partials.values(),
            artifacts=self.artifacts(),
            children=self.children.values(),
            usage=self.facts.get("usage"),
            budget=self.spending.state,
            open_inputs=self.open_inputs(),
            user_messages=self.user_messages.values(),
            **self.end,
        )

    # one thing of the state

    def message(self, message_id: str) -> MessageState | None:
        """One of the state's messages."""
        item = self._messages.get(message_id)
        return None if item is None else _written(item)

    def messages(self) -> list[MessageState]:
        return [_written(item) for item in self._messages.values()]

    def has_said(self, message_id: str, text: str) -> bool:
        """Whether this is the whole text of a message."""
        item = self._messages.get(message_id)
        return item is not None and len(item[1]) == len(text) and str(item[1]) == text

    def artifact(self, artifact_id: str) -> ArtifactState | None:
        """One of the state's artifacts."""
        item = self._artifacts.get(artifact_id)
        return None if item is None else _artifact_of(item)

    def artifacts(self) -> list[ArtifactState]:
        return [_artifact_of(item) for item in self._artifacts.values()]

    @property
    def is_short_of_texts(self) -> bool:
        """Whether messages, partial results or artifacts are missing because there were too many."""
        return self._messages.is_short or self._artifacts.is_short or self.partials.is_short

    def is_result_shown(self) -> bool:
        """Whether there is no result, or the texts together are the result."""
        result = self.end.get("result")
        texts = [text for message, text in self._messages.values() if message.parent_id is None]
        if not isinstance(result, str) or sum(map(len, texts)) != len(result):
            return result is None
        return "".join(map(str, texts)) == result

    def open_inputs(self) -> list[events.InputRequired]:
        return [] if self.end else [each for each in self.inputs.values() if isinstance(each, events.InputRequired)]

    def oldest_input(self) -> events.InputRequired | None:
        """Of the open ones."""
        return next(iter(self.open_inputs()), None)

    def all_phases(self) -> list[PhaseState]:
        """The plan's phases in its order, begun or not, then those that no plan named."""
        return laid_out(self.facts.get("plan"), {phase.id: phase for phase in self.phases.values()})

    # memory

    def shrink(self, max_bytes: int) -> None:
        """Keep at most this many bytes from now on."""
        self._max_bytes = max_bytes
        if self._bytes > max_bytes:
            self._clip()

    def _clip(self) -> None:
        """Clip the parts that did not change for longest, down to half of the limit, so that it happens seldom."""
        self.was_clipped = True
        collections: tuple[Items[Any], ...] = tuple(getattr(self, name) for name in _ITEMS)
        heavy: list[Part] = []
        held = sum(items.heavy(SMALL_PART_BYTES, heavy) for items in collections)
        enough = self._max_bytes // 2
        if held > self._max_bytes:
            for part in sorted(heavy, key=_age):  # those of one event stay in the order of their collections
                held += part.items.clip(part.id) - part.weight
                if held <= enough:
                    break
        self._bytes = min(held, enough)

    # what one event sets

    def _set(self, items: Items[T], seq: int, id_: str, value: T) -> None:
        head, event = self._event
        held = weight(head, event)
        self._bytes += max(0, held - len(head.data))  # as JSON it was counted
        items.set(seq, id_, value, held)

    def _change(self, items: Items[T], seq: int, id_: str, value: T) -> None:
        """Set a part that the end changes; the terminal event does not name it."""
        self._bytes += PART_BYTES
        items.set(seq, id_, value, PART_BYTES)


def _written(item: Written[W]) -> W:
    part, text = item
    return replace(part, text=str(text), truncated=part.truncated or text.truncated)


def _artifact_of(item: Written[ArtifactState]) -> ArtifactState:
    return item[0] if item[0].text is None else _written(item)


def laid_out(plan: events.Plan | None, begun: dict[str, PhaseState]) -> list[PhaseState]:
    """The phases of a plan, and then those of `begun` that it does not name."""
    rest = dict(begun)
    planned = []
    for index, phase in enumerate(plan.phases if plan else []):
        planned.append(rest.pop(phase.id) if phase.id in rest else pending(phase, index))
    return planned + list(rest.values())


def pending(phase: events.Phase, index: int) -> PhaseState:
    return PhaseState(id=phase.id, name=phase.name, index=index, status="pending")
