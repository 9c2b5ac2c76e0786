"""UI message chunks as the items of a stream that is read by offsets: an offset is the number of chunks before it, as
`counted.py` counts them. It satisfies the interfaces of such streams, which are not imported here."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import cast

from aiohttp import web

from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.executions.commands import Commands
from broker.http.paths import known_form
from broker.log.history import History
from broker.protocols.ai_sdk.approvals import OPEN, Approvals, parse_run_id
from broker.protocols.ai_sdk.continuation import AFTER
from broker.protocols.ai_sdk.renderer import DONE, Renderer
from broker.protocols.ai_sdk.runs import Found, current, found_run
from broker.protocols.ai_sdk.safe_keys import with_safe_keys
from broker.protocols.item_streams import ItemPage
from emitter.errors import UnknownExecution
from emitter.wire.entries import Entry
from emitter.wire.ids import START, EventId
from emitter.wire.keys import Owner

PAGE_BYTES = 256 * 1024
"""A page ends after the event that reaches this."""
MAX_KEPT = 64
MAX_NUMBER = 10**10 - 1
_OFFSET = re.compile(r"\d{10}\Z", re.ASCII)


class Chunks(Renderer):
    """Keeps its chunks, for `take`."""

    def _shown(self) -> bytes:
        return b""

    @property
    def place(self) -> EventId:
        return self._entry.id

    def further(self, approvals: Approvals | None) -> Chunks:
        """Another one in the same state, for who asks with these."""
        other = cast(Chunks, self.fork())
        other._approvals = approvals
        return other

    def take(self) -> list[bytes]:
        frames = with_safe_keys(frame for frame in self._frames if frame is not DONE)
        self._frames.clear()
        return frames


class ChunkItems:
    """The chunks of one execution from number `skip` on."""

    def __init__(self, chunks: Chunks, skip: int) -> None:
        self._chunks = chunks
        self.skip = skip
        self.count = 0
        """How many chunks there are up to here."""

    @property
    def offset(self) -> str:
        return _offset_of(max(self.count, self.skip))

    @property
    def place(self) -> EventId:
        """The last event that is in them."""
        return self._chunks.place

    @property
    def is_over(self) -> bool:
        return self._chunks.is_over

    @property
    def state_key(self) -> Hashable:
        return None if self.count < self.skip else self._chunks.state_key

    def fork(self) -> ChunkItems:
        return self._with(cast(Chunks, self._chunks.fork()), self.skip)

    def further(self, skip: int, approvals: Approvals | None) -> ChunkItems:
        """Another one in the same state, for who has `skip` chunks and asks with these `approvals`."""
        return self._with(self._chunks.further(approvals), skip)

    def _with(self, chunks: Chunks, skip: int) -> ChunkItems:
        other = ChunkItems(chunks, skip)
        other.count = self.count
        return other

    def open(self) -> Sequence[bytes]:
        self._chunks.open()
        return self._new()

    def add(self, entries: Sequence[Entry]) -> Sequence[bytes]:
        self._chunks.render(entries)
        return self._new()

    def _new(self) -> list[bytes]:
        taken = self._chunks.take()
        left_out = max(0, self.skip - self.count)
        self.count += len(taken)
        return taken[left_out:]


class KeptItems:
    """How far readers have come: chunks depend on all events before, and each answer to a long poll is a request of its
    own. Of those that are kept nothing changes."""

    def __init__(self) -> None:
        self._items: OrderedDict[tuple[Hashable, int], ChunkItems] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, view: Hashable, items: ChunkItems) -> None:
        """The one that was used longest ago goes."""
        self._items[view, items.count] = items
        self._items.move_to_end((view, items.count))
        if len(self._items) > MAX_KEPT:
            self._items.popitem(last=False)

    def last(self, view: Hashable, most: int) -> ChunkItems | None:
        """Those with the most chunks, `most` at most."""
        counts = [count for of, count in self._items if of == view and count <= most]
        if not counts:
            return None
        self._items.move_to_end((view, max(counts)))
        return self._items[view, max(counts)]


class ChunkForm:
    """One execution, or a view of it."""

    def __init__(self, history: History, owner: Owner, found: Found, kept: KeptItems) -> None:
        self.execution_id = found.execution_id
        self._history = history
        self._keys = owner.execution(found.execution_id)
        self._found = found
        self._kept = kept
        asked = found.approvals
        # What a reader has passed was answered by then, and so it is for all who come later, whatever they know.
        view = None if asked is None else (asked.after, asked.known > 0)
        self._view = owner, found._replace(approvals=None), view

    def items(self, offset: str) -> tuple[ChunkItems, EventId]:
        """The chunks depend on all events, so the log is read from its start."""
        found = self._found
        chunks = Chunks(found.execution_id, approvals=found.approvals, after=found.after)
        return ChunkItems(chunks, _number_of(offset)), START

    async def page(self, offset: str, *, is_fresh: bool) -> ItemPage:  # noqa: ARG002 - it always is
        return await self._read(_number_of(offset), PAGE_BYTES)

    async def tail(self) -> ItemPage:
        return (await self._read(MAX_NUMBER, None))._replace(items=())

    async def _read(self, skip: int, most: int | None) -> ItemPage:
        """From chunk `skip` on, `most` bytes or a little more; None: all are counted, and none is kept."""
        kept = self._kept.last(self._view, skip)
        if kept is not None:
            items = kept.further(skip, self._found.approvals)
            if (page := await self._go_on(items, [], most)) is not None:
                return page
        items, _ = self.items(_offset_of(skip))
        page = await self._go_on(items, list(items.open()), most)
        if page is None:
            raise _trimmed()
        return page

    async def _go_on(self, items: ChunkItems, shown: list[bytes], most: int | None) -> ItemPage | None:
        """From where these stand. None if that is no part of the log any more."""
        size, is_end = 0, False
        while not (is_end or items.is_over):
            page = await self._history.read(self._keys.log, items.place, record=self._keys.record, shared=False)
            if page.reset is not None:
                return None
            is_end = page.end or not page.entries
            for entry in page.entries:
                new = items.add((entry,))
                if most is not None:
                    shown += new
                    size += sum(map(len, new))
                    if size >= most and not items.is_over:
                        self._kept.add(self._view, items)
                        return ItemPage(shown, items.offset, items.place, False, False)
        if most is not None and items.count < items.skip:
            raise Problem(410, "diverged", "this execution has no chunk at this offset", path="offset")
        if not items.is_over:
            self._kept.add(self._view, items)
        return ItemPage(shown, _offset_of(items.count), items.place, True, items.is_over)


class ChunkForms:
    """Finds executions by the ids of their runs (`X-Workflow-Run-Id`)."""

    def __init__(self, commands: Commands, history: History) -> None:
        self._commands = commands
        self._history = history
        self._kept = KeptItems()

    def execution_of(self, named: str) -> str:
        run = parse_run_id(named.partition(AFTER)[0])
        return known_form(named if run is None else run[0])

    async def find(self, request: web.Request, identity: Identity, named: str) -> ChunkForm:
        """With `approvals=open`, what is asked now ends the stream, and nothing that was answered."""
        owner, commands = identity.owner, self._commands
        found = await found_run(commands, owner, named)
        if found is None:
            raise UnknownExecution(self.execution_of(named))
        if (given := request.query.get("approvals")) not in (None, OPEN):
            raise Problem(400, "invalid-parameter", f"approvals is {OPEN}, or left out", path="approvals")
        if given is not None and (summary := await commands.listing.summary(owner, found.execution_id)) is not None:
            found = found._replace(approvals=await current(commands, owner, summary))
        return ChunkForm(self._history, owner, found, self._kept)


def _offset_of(number: int) -> str:
    return f"{number:010d}"


def _number_of(offset: str) -> int:
    if offset != "-1" and not _OFFSET.match(offset):
        raise Problem(400, "malformed-offset", "offset is one that this stream gave, -1, or now", path="offset")
    return max(0, int(offset))


def _trimmed() -> Problem:
    detail = "the oldest events of this execution are gone, and with them the count of its chunks"
    return Problem(410, "trimmed", detail, path="offset")
