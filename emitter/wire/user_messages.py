"""What people say to a running agent: the message as an agent gets it, and the marks by which the append script keeps
and counts messages. Pure.

Marks: `m:<messageId> <waiting at most> <i|q> <data>` keeps a message (i: it interrupts); `y:<attempt> <take>
<messageId> …` says which of them an attempt takes, in a take of this name; `x:<messageId> <reason>` drops one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from emitter.errors import InvalidEvent
from emitter.events import Event, MessageMode, UserMessage, UserMessageDropped, UserMessageTaken
from emitter.wire.ids import INPUT_ID, parse_event_id
from emitter.wire.limits import MAX_ATTEMPT, MAX_WAITING_MESSAGES

KEPT_MESSAGES = 1_000
"""Messages of one execution in all: later attempts take them again. `append.lua` has the number too."""
KEPT_BYTES = 4 * 1024 * 1024
"""Bytes of all of them."""
TAKE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
NO_NAME = "-"
"""The name of a take that nobody repeats."""


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


def message_mark(event: Event, data: bytes, most: int = MAX_WAITING_MESSAGES, take: str = NO_NAME) -> str:
    """The append script's mark of an event about a message. Raises `InvalidEvent`."""
    match event:
        case UserMessage():
            kind = "i" if event.mode == "interrupt" else "q"
            return f"m:{check_message_id(event.message_id)} {most} {kind} {data.decode()}"
        case UserMessageTaken():
            if not 1 <= event.attempt <= MAX_ATTEMPT:
                raise InvalidEvent(f"attempt: {event.attempt} is not from 1 to {MAX_ATTEMPT}")
            return f"y:{event.attempt} {take} {_listed(event.message_ids)}"
        case UserMessageDropped():
            return f"x:{check_message_id(event.message_id)} {event.reason}"
    raise InvalidEvent(f"{event.type} is not about a message")


def _listed(message_ids: Sequence[str]) -> str:
    if not 1 <= len(message_ids) <= KEPT_MESSAGES:
        raise InvalidEvent(f"messageIds: {len(message_ids)} are not 1 to {KEPT_MESSAGES}")
    return " ".join(map(check_message_id, message_ids))


def check_message_id(message_id: str) -> str:
    if not INPUT_ID.match(message_id):
        raise InvalidEvent(f"messageId: {message_id[:80]!r} is not 1 to 64 of A-Z a-z 0-9 _ . -")
    return message_id
