"""The short forms of the parts of a state, and how much memory a part takes: what a fold needs to stay within bounds.
Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from broker.executions.types import ArtifactState
from broker.executions.undo import MAX_ID, Text, cut
from emitter import events
from emitter.wire.envelope import Envelope

CLIPPED: Mapping[str, Any] = {"clipped": True}

PART_BYTES = 300
"""What any part takes besides its content."""
NODE_BYTES = 64
"""What a value inside a list or an object takes besides its text, and a comma, `[` or `{` of JSON stands for."""

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
Written = tuple[T, Text]
"""A part and its text, which is put into it when the state is asked for."""
Input = events.InputRequired | events.InputReceived
"""A question that is open, or what closed it (without the answer)."""

_IDS = frozenset({"id", "call_id", "message_id", "parent_id", "artifact_id", "specialist"})


def as_it_is(value: Any) -> Any:
    return value


def short(part: S) -> S:
    """Without what is long; ids stay, up to a limit."""
    names = [name for name in part.__struct_fields__ if name not in _IDS or len(getattr(part, name) or "") > MAX_ID]
    return replace(part, **{name: _short_value(getattr(part, name)) for name in names})


def _short_value(value: Any) -> Any:
    if isinstance(value, str):
        return cut(value)
    return CLIPPED if isinstance(value, dict | list) else value


def short_written(item: Written[S]) -> Written[S]:
    return short(item[0]), item[1]


def short_artifact(item: Written[ArtifactState]) -> Written[ArtifactState]:
    """A part of a link leads nowhere: it goes as a whole."""
    artifact, text = item
    cut_ = short(artifact)
    url = artifact.url if cut_.url == artifact.url else None
    is_whole = (url, cut_.data) == (artifact.url, artifact.data)
    return replace(cut_, url=url, truncated=artifact.truncated or not is_whole), text


def short_question(question: events.InputRequired) -> events.InputRequired:
    """Still a question that can be answered; what the record of the execution has of it is whole."""
    schema = None if question.schema is None else dict(CLIPPED)
    return replace(question, prompt=cut(question.prompt), options=None, schema=schema)


def short_input(part: Input) -> Input:
    return short_question(part) if isinstance(part, events.InputRequired) else part


_TEXTS = frozenset({events.Thinking, events.ThinkingDelta, events.MessageDelta, events.MessageComplete})
"""What these hold besides text is little."""


def weight(head: Envelope, event: events.Event) -> int:
    """Bytes of memory, about, that an event's data take; without its text, which is weighed where it is kept."""
    if type(event) in _TEXTS or (isinstance(event, events.Artifact) and event.text is not None):
        return PART_BYTES + len(head.parent_id or "")
    data = bytes(head.data)
    return PART_BYTES + len(data) + NODE_BYTES * (data.count(b",") + data.count(b"[") + data.count(b"{"))
