"""Questions to people as AG-UI's interrupts. Pure.

A run ends where its agent asks, and another run goes on from that place. So an interrupt's id has all that the next run
must know: the execution, the place, and the question.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from broker.protocols.times import timestamp
from emitter.events import InputRequired
from emitter.wire.ids import EXECUTION_ID, INPUT_ID, EventId, parse_event_id


class InterruptId(NamedTuple):
    """`<execution>:<ms>-<seq>:<input>`; the place is that of the log's entry with which the run ended."""

    execution_id: str
    place: EventId
    input_id: str

    def __str__(self) -> str:
        return f"{self.execution_id}:{self.place}:{self.input_id}"

    @classmethod
    def parse(cls, text: str) -> InterruptId:
        """Raises `ValueError`."""
        execution_id, _, rest = text.partition(":")
        place, _, input_id = rest.partition(":")
        if not EXECUTION_ID.match(execution_id) or not INPUT_ID.match(input_id):
            raise ValueError(f"not an interrupt of ours: {text[:80]!r}")
        return cls(execution_id, parse_event_id(place), input_id)


def interrupt(question: InputRequired, execution_id: str, place: EventId) -> dict[str, Any]:
    """An input as an interrupt."""
    interrupt: dict[str, Any] = {
        "id": str(InterruptId(execution_id, place, question.input_id)),
        "reason": question.kind,
        "message": question.prompt,
        "responseSchema": response_schema(question),
        "metadata": {"executionId": execution_id, "inputId": question.input_id},
    }
    if question.expires_at is not None:
        interrupt["expiresAt"] = timestamp(question.expires_at)
    return interrupt


def response_schema(question: InputRequired) -> dict[str, Any]:
    """The JSON Schema of an answer."""
    match question.kind:
        case "approval":
            return {"type": "boolean"}
        case "choice" if question.options:
            return {"type": "string", "enum": question.options}
        case "form":
            return question.schema or {"type": "object"}
        case "text" if question.schema is not None:
            return question.schema  # such as {}: any JSON
    return {"type": "string"}
