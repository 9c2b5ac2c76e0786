"""What people say to a running agent, as the agent gets it. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from emitter.events import MessageMode
from emitter.wire.ids import parse_event_id

KEPT_MESSAGES = 1_000
"""Messages of one execution in all: later attempts take them again. `append.lua` has the number too."""
TAKEN_AT_ONCE = 200
"""Messages of one take: their ids fit an event."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A person's message to the agent. `sent_at` is in ms since the epoch; `mode` is `interrupt` if it should be heard
    at once."""

    message_id: str
    text: str | None = None
    data: Any = None
    by: str = ""
    mode: MessageMode = "queue"
    sent_at: int = 0

    @property
    def interrupts(self) -> bool:
        return self.mode == "interrupt"


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The data of `user:message`, as the record keeps it."""

    message_id: str
    by: str = ""
    mode: MessageMode = "queue"
    text: str | None = None
    data: Any = None


_decoder = msgspec.json.Decoder(StoredMessage)


def read_message(body: bytes, given: bytes = b"") -> Message:
    """A message of the record: `<event id> <i|q> <data>`; `given` is the data before redaction, if that changed it.
    Raises `ValueError`."""
    id_, _, data = body.split(b" ", 2)
    try:
        stored = _decoder.decode(given or data)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    return Message(
        message_id=stored.message_id,
        text=stored.text,
        data=stored.data,
        by=stored.by,
        mode=stored.mode,
        sent_at=parse_event_id(id_.decode()).ms,
    )
