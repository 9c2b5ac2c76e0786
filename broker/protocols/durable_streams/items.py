"""A log as the items of a stream: its events."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from aiohttp import web

from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.http.paths import known_form
from broker.live.view import TypeFilter
from broker.log.history import PAGE_EVENTS, History, Page
from broker.protocols.durable_streams.offsets import offset_of, place_of
from broker.protocols.item_streams import Form, ItemPage, Items
from broker.streams.request import is_compact
from emitter.errors import UnknownExecution
from emitter.events import TERMINAL_STATES, TERMINAL_TYPES
from emitter.wire.deltas import merged
from emitter.wire.entries import Entry
from emitter.wire.ids import START, EventId
from emitter.wire.keys import Owner


class EventItems:
    """`Items` of events: an item is an event's envelope, as in the `data` of the native stream."""

    is_over = False

    def __init__(self, place: EventId, types: TypeFilter | None = None) -> None:
        self.offset = offset_of(place)
        self._types = types

    @property
    def state_key(self) -> Hashable:
        return self.offset, self._types.text if self._types else ""

    def fork(self) -> EventItems:
        other = EventItems(START, self._types)
        other.offset = self.offset
        return other

    def open(self) -> Sequence[bytes]:
        return ()

    def add(self, entries: Sequence[Entry]) -> Sequence[bytes]:
        if entries:
            self.offset = offset_of(entries[-1].id)
            self.is_over = entries[-1].type in TERMINAL_TYPES
        return wanted(entries, self._types)


def wanted(entries: Sequence[Entry], types: TypeFilter | None) -> list[bytes]:
    return [entry.json for entry in entries if types is None or entry.type in types]


class EventForm:
    """The `Form` of events. `types` are those of the native stream; what is left out moves the offset. With
    `compact_bytes`, an event's most bytes (0: no limit), neighbours on a page that are chunks of one text are one."""

    def __init__(
        self, history: History, owner: Owner, execution_id: str, types: TypeFilter | None, compact_bytes: int | None
    ) -> None:
        self.execution_id = execution_id
        self._history = history
        self._keys = owner.execution(execution_id)
        self._types = types
        self._compact_bytes = compact_bytes

    async def page(self, offset: str, *, is_fresh: bool) -> ItemPage:
        keys = self._keys
        page = await self._history.read(
            keys.log, place_of(offset), record=keys.record, limit=PAGE_EVENTS, shared=not is_fresh
        )
        if page.reset is not None:
            raise gone(page)
        closed = page.closed or (page.end and bool(page.entries) and page.entries[-1].type in TERMINAL_TYPES)
        entries = page.entries if self._compact_bytes is None else merged(page.entries, self._compact_bytes)
        return ItemPage(wanted(entries, self._types), offset_of(page.cursor), page.cursor, page.end, closed)

    async def tail(self) -> ItemPage:
        head = await self._history.head(self._keys.record)
        if head is None:
            raise UnknownExecution(self.execution_id)
        return ItemPage((), offset_of(head.last), head.last, True, head.state in TERMINAL_STATES)

    def items(self, offset: str) -> tuple[Items, EventId]:
        place = place_of(offset)
        return EventItems(place, self._types), place


def gone(page: Page) -> Problem:
    """The place is before what is kept, or in a log that was lost. `earliestOffset` is where what is left begins."""
    assert page.reset is not None
    detail = "the events at this offset are gone; what is left begins at earliestOffset"
    if page.reset.reason != "trimmed":
        detail = "this offset is of no event of this log, or of one that was lost; the log begins at earliestOffset"
    first = page.entries[0] if page.entries else None
    earliest = page.cursor if first is None else EventId(first.ms, first.seq - 1)
    return Problem(410, page.reset.reason, detail, path="offset", earliestOffset=offset_of(earliest))


class EventForms:
    """Events, which is what there is without a `format`."""

    def __init__(self, history: History, max_event_bytes: int) -> None:
        self._history = history
        self._max_event_bytes = max_event_bytes

    def execution_of(self, named: str) -> str:
        return known_form(named)

    async def find(self, request: web.Request, identity: Identity, named: str) -> Form:
        given = request.query.get("types")
        try:
            types = None if given is None else TypeFilter(given)
        except ValueError as error:
            raise Problem(400, "invalid-parameter", str(error), path="types") from error
        owner = identity.owner
        if await self._history.head(owner.execution(named).record) is None:
            raise UnknownExecution(named)
        return EventForm(self._history, owner, named, types, self._max_event_bytes if is_compact(request) else None)
