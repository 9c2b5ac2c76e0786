"""What an execution made, as artifacts: the text of its answers, what its agent calls so, its results. Pure."""

from __future__ import annotations

from typing import Any

from broker.executions.types import ArtifactState, MessageState, PartialState
from broker.protocols.a2a.model import Artifact, DataPart, FilePart, Part, TextPart, as_object
from emitter import events

SYNTHESIS = "runcast:synthesis"
RESULT = "runcast:result"
# Ids of ours have a colon, and an agent's that has one gets a prefix, so that none is ever taken for another.


MESSAGE, AGENTS = "message:", "artifact:"


def message_id(message: str) -> str:
    return MESSAGE + message


def message_of(id_: str) -> str | None:
    """The message whose text this artifact is; None for any other."""
    return id_.removeprefix(MESSAGE) if id_.startswith(MESSAGE) else None


def agents_id(artifact_id: str) -> str:
    """An agent's own artifact."""
    return AGENTS + artifact_id if ":" in artifact_id else artifact_id


def agents_own(id_: str) -> str:
    """What the agent calls an artifact of this id."""
    return id_.removeprefix(AGENTS)


def partial_id(id_: str) -> str:
    return "partial:" + id_


def value_part(value: Any) -> Part:
    """Text as text, anything else as data."""
    if isinstance(value, str):
        return TextPart(text=value)
    return DataPart(data=as_object(value))


def parts_of(made: events.Artifact | ArtifactState) -> tuple[Part, ...]:
    """Never empty: a part is what makes an artifact."""
    parts: list[Part] = []
    if made.text is not None or (made.data is None and made.url is None):
        parts.append(TextPart(text=made.text or "", media_type=made.media_type, filename=made.name))
    if made.data is not None:
        parts.append(DataPart(data=as_object(made.data), media_type=made.media_type, filename=made.name))
    if made.url is not None:
        parts.append(FilePart(url=made.url, media_type=made.media_type, filename=made.name))
    return tuple(parts)


def void(artifact_id: str) -> Artifact:
    """In place of one that a lost attempt made: the protocol cannot take one back."""
    return Artifact(artifact_id=artifact_id, parts=(TextPart(text=""),), metadata={"void": True})


TRUNCATED = {"truncated": True}
"""Metadata of an artifact that is shorter than what was said."""


def chunk(id_: str, said: str) -> Artifact:
    """A piece of text of this artifact."""
    return Artifact(artifact_id=id_, parts=(TextPart(text=said),))


def text(message: MessageState) -> Artifact:
    metadata = TRUNCATED if message.truncated else None
    id_ = message_id(message.message_id)
    return Artifact(artifact_id=id_, parts=(TextPart(text=message.text),), metadata=metadata)


def made(artifact: ArtifactState) -> Artifact:
    metadata = TRUNCATED if artifact.truncated else None
    id_ = agents_id(artifact.artifact_id)
    return Artifact(artifact_id=id_, name=artifact.name, parts=parts_of(artifact), metadata=metadata)


def partial(id_: str, event: events.PartialResult | PartialState) -> Artifact:
    """`id_` is the event's."""
    metadata = None if event.specialist is None else {"specialist": event.specialist}
    name = f"Partial result of {event.specialist}" if event.specialist else "Partial result"
    return Artifact(artifact_id=partial_id(id_), name=name, parts=(value_part(event.result),), metadata=metadata)


def synthesis(event: events.Synthesis) -> Artifact:
    data = {"specialistsComplete": event.specialists_complete, "specialistsPending": event.specialists_pending}
    return Artifact(artifact_id=SYNTHESIS, name="Synthesis", parts=(TextPart(text=event.message), DataPart(data=data)))


def result(value: Any) -> Artifact:
    return Artifact(artifact_id=RESULT, name="Result", parts=(value_part(value),))
