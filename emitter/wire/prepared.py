"""An event in its stored form with its mark, and a batch of such events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class Redaction(Protocol):
    """Removes credentials before anything is stored (`emitter.wire.redact.Redactor`)."""

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
        """Whether the log may refuse this event and accept the next one: a second answer, an input beyond the
        limit, or what concerns a person's message."""
        return self.mark.startswith(("r:", "w:", "m:", "y:", "x:"))


DROPPED = Prepared("", b"", "-")
"""Takes the place of an event that is not stored: its producer sequence is used up."""


class Batch(NamedTuple):
    """Events that are appended together; `first_seq` is the producer sequence of the first."""

    first_seq: int
    events: list[Prepared]
    size: int
    is_plain: bool = False
    """Whether only the log takes these events (`append_plain.lua`)."""
