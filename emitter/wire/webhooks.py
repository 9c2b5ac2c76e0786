"""The webhooks of an execution as its record has them.

A webhook is a reader of the log with a cursor that lasts: `Delivery` says how far it has come. The record's field
`hooks` (`Wake`) tells `append.lua` which events somebody waits for, so that it wakes the edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from emitter.errors import InvalidEvent
from emitter.wire.ids import EXECUTION_ID, EventId, parse_event_id
from emitter.wire.keys import WEBHOOKS_WAKE, Owner, hook_member, member, parse_member
from emitter.wire.record import Field

DEFAULT_EVENTS = ("execution:complete", "execution:error", "execution:cancelled", "input:required")
OF_REQUEST = "request"
"""Id of the webhook that an execution was started with."""
FOR_ALL = "all"
"""Id of the webhook of `RUNCAST_WEBHOOK_URL`. Its URL is in the settings, not in the record."""
MAX_PER_EXECUTION = 16
Form = Literal["runcast", "a2a-0.3", "a2a-1.0"]
State = Literal["open", "done", "gone", "failed"]


class Webhook(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where events go and which. `headers` are sent with each, and are secrets, as is the path of the URL. `form`: what
    the body is. `name`: what a protocol calls it."""

    url: str
    events: tuple[str, ...] = DEFAULT_EVENTS
    headers: dict[str, str] = {}
    form: Form = "runcast"
    name: str = ""


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a webhook has come.

    Args:
        cursor: the event up to which everything was delivered, or was not asked for.
        state: open; done (the log has ended, and all was delivered); gone (its receiver has answered 410); failed (its
            receiver took nothing for too long).
        from_seq: events with a lower ordinal are not delivered.
        delivered: how many events its receiver has taken.
        since_ms, tries: since when the next event waits for the receiver, and how often it was tried; 0: not yet.
        error: why the last try failed.
    """

    cursor: str = "0-0"
    state: State = "open"
    from_seq: int = 0
    delivered: int = 0
    since_ms: int = 0
    tries: int = 0
    error: str = ""

    @property
    def after(self) -> EventId:
        """Raises `ValueError` for a cursor that another program has written."""
        return parse_event_id(self.cursor)


class Name(NamedTuple):
    """A webhook's place: its execution and its id there."""

    owner: Owner
    execution_id: str
    hook_id: str

    @property
    def member(self) -> str:
        return hook_member(*self)

    @classmethod
    def parse(cls, text: str) -> Name:
        """Raises `InvalidEvent`."""
        execution, _, hook_id = text.rpartition(":")
        if not EXECUTION_ID.match(hook_id):
            raise InvalidEvent(f"{text[:300]!r} is not <org>:<user>:<execution>:<webhook>")
        return cls(*parse_member(execution), hook_id)


class Wake(NamedTuple):
    """The record's field `hooks`: `<channel> <member> <ids with commas> <types, each between blanks>`. The script sends
    the second and the third on the first when it appends an event of one of the types."""

    ids: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    def text(self, owner: Owner, execution_id: str) -> str:
        return f"{WEBHOOKS_WAKE} {member(owner, execution_id)} {','.join(self.ids)} {' '.join(self.types)} "

    @classmethod
    def parse(cls, text: str) -> Wake:
        parts = text.split()
        return cls(tuple(parts[2].split(",")), tuple(parts[3:])) if len(parts) > 3 else cls()

    def having(self, hook_id: str, types: Iterable[str]) -> Wake:
        return Wake(tuple(dict.fromkeys((*self.ids, hook_id))), tuple(dict.fromkeys((*self.types, *types))))

    def without(self, hook_id: str) -> Wake:
        """The types stay: to wake once too often does no harm."""
        return Wake(tuple(id_ for id_ in self.ids if id_ != hook_id), self.types)


def woken(message: bytes) -> list[Name]:
    """The webhooks that a message on `WEBHOOKS_WAKE` names; none for one that is malformed."""
    try:
        execution, _, ids = message.decode().partition(" ")
        return [Name(*parse_member(execution), hook_id) for hook_id in ids.split(",") if EXECUTION_ID.match(hook_id)]
    except (UnicodeDecodeError, InvalidEvent):
        return []


def origin_of(url: str) -> str:
    """What may be shown of a URL: its path and query may be secrets."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0].partition('?')[0].rpartition('@')[2]}"


def start_fields(
    owner: Owner, execution_id: str, hooks: Mapping[str, Webhook], *, has_one_for_all: bool
) -> dict[str, str]:
    """The record's fields of an execution that begins with these webhooks, by their ids, and with that for all."""
    wake = Wake()
    for hook_id, hook in hooks.items():
        wake = wake.having(hook_id, hook.events)
    if has_one_for_all:
        wake = wake.having(FOR_ALL, DEFAULT_EVENTS)
    if not wake.ids:
        return {}
    configured = {Field.WEBHOOK + hook_id: msgspec.json.encode(hook).decode() for hook_id, hook in hooks.items()}
    return {Field.HOOKS: wake.text(owner, execution_id), **configured}
