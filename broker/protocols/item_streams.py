"""A log that is read item by item, from any item on: the interfaces between a protocol that reads so, and the forms in
which it shows executions. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple, Protocol

from aiohttp import web

from broker.base.identity import Identity
from emitter.wire.entries import Entry
from emitter.wire.ids import EventId


class ItemPage(NamedTuple):
    """Items after an offset. `offset`: the place after them. `place`: up to where in the log they were read. `is_end`:
    nothing more was there. `is_closed`: nothing will ever follow."""

    items: Sequence[bytes]
    offset: str
    place: EventId
    is_end: bool
    is_closed: bool


class Items(Protocol):
    """Turns the log into items for one reader, who may stand at any of them. `offset`: the place after the last one
    that was returned. The other members are those of `broker.live.rendering.Rendering`."""

    @property
    def offset(self) -> str: ...

    @property
    def is_over(self) -> bool: ...

    @property
    def state_key(self) -> Hashable: ...

    def fork(self) -> Items: ...

    def open(self) -> Sequence[bytes]:
        """The items before any event."""

    def add(self, entries: Sequence[Entry]) -> Sequence[bytes]:
        """The items of these events."""


class Form(Protocol):
    """One execution in one form, for one request."""

    execution_id: str

    async def page(self, offset: str, *, is_fresh: bool) -> ItemPage:
        """What follows the offset, as much as one answer may have. `is_fresh`: with all that was logged before the
        call. Raises `Problem` 400 (not an offset of this form) and 410 (its place is gone)."""

    async def tail(self) -> ItemPage:
        """The present end."""

    def items(self, offset: str) -> tuple[Items, EventId]:
        """What follows the offset, and from which place on the log is needed for that. Errors of `page`."""


class Forms(Protocol):
    """What `format` names. The methods raise `UnknownExecution`, and `find` also `Problem` 400."""

    def execution_of(self, named: str) -> str:
        """The id of the execution that the path names."""

    async def find(self, request: web.Request, identity: Identity, named: str) -> Form: ...
