"""An event on its way into a log, encoded and marked, and a batch of such."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class Redaction(Protocol):
    """What takes credentials out of what is stored (`emitter.redact.Redactor`)."""

    def __call__(self, type_: str, data: bytes) -> bytes:
        """The JSON of an event's data without credentials. Raises `InvalidEvent`."""
        ...

    def text(self, text: str) -> str: ...

    def values(self, values: dict[str, Any]) -> dict[str, Any]: ...


class Prepared(NamedTuple):
    """An event ready to be appended: its type and JSON as stored, the append script's mark, extra record fields."""

    type: str
    json: bytes
    mark: str = ""
    fields: Mapping[str, str] = {}

    @property
    def may_be_refused(self) -> bool:
        """Whether the log may refuse this event and take the next: an answer to an input that has one, or a question
        beside too many others."""
        return self.mark.startswith(("r:", "w:"))


DROPPED = Prepared("", b"", "-")
"""In the place of an event that is not stored: its producer's number is spent all the same."""


class Batch(NamedTuple):
    """Events that travel together; `first_seq` is the producer sequence of the first."""

    first_seq: int
    events: list[Prepared]
    size: int
