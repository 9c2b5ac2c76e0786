"""Chunks by their numbers, without an edge: who comes back is shown what follows, and no more is read for it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.base.problem import Problem
from broker.log.history import History, Page
from broker.protocols.ai_sdk.approvals import Approvals
from broker.protocols.ai_sdk.chunk_items import MAX_KEPT, ChunkForm, KeptItems
from broker.protocols.ai_sdk.runs import Found
from emitter.events import ExecutionComplete, InputReceived, InputRequired, MessageDelta
from emitter.wire.ids import START, EventId
from tests.edges import Author

DONE = ExecutionComplete(result=None, duration=1.0)


class Reads(History):
    """Knows from where it was read."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, Metrics("0"))
        self.cursors: list[EventId] = []

    async def read(self, log: str, cursor: EventId, **options: Any) -> Page:
        self.cursors.append(cursor)
        return await super().read(log, cursor, **options)


@pytest.fixture
async def history(redis: Redis) -> AsyncIterator[Reads]:
    made = Reads(redis)
    yield made
    await made.close()


@pytest.fixture
async def author(author: Author) -> Author:
    await author.begin()
    return author


class Reader:
    """Asks for pages, each time anew."""

    def __init__(self, history: History, author: Author, kept: KeptItems | None = None) -> None:
        self._history = history
        self._author = author
        self._kept = kept
        self.approvals: Approvals | None = None

    async def page(self, offset: str) -> Any:
        found = Found(self._author.execution_id, self.approvals)
        kept = KeptItems() if self._kept is None else self._kept
        form = ChunkForm(self._history, self._author.owner, found, kept)
        try:
            return await form.page(offset, is_fresh=True)
        except Problem as problem:
            return problem.status, problem.slug


async def test_a_poll_reads_what_is_new(history: Reads, author: Author) -> None:
    """However long the log is. What comes before is neither read nor rendered again."""
    reader = Reader(history, author, KeptItems())
    page = await reader.page("-1")
    history.cursors.clear()
    for number in range(20):
        await author.write(MessageDelta(message_id="m", delta=str(number)))
        place = page.place
        page = await reader.page(page.offset)
        assert history.cursors.pop(0) == place
    assert START not in history.cursors


@pytest.mark.parametrize("seed", range(5))
async def test_what_is_kept_changes_no_page(history: Reads, author: Author, seed: int) -> None:
    """From any number on readers get what they get of an edge that knows nothing, whatever others have asked for."""
    chance = random.Random(seed)
    knows, plain = Reader(history, author, KeptItems()), Reader(history, author)
    offsets = ["-1"]
    for number in range(40):
        if chance.random() < 0.6:
            await author.write(MessageDelta(message_id=f"m{number // 3}", delta="x" * chance.choice([1, 10, 60_000])))
        if chance.random() < 0.1:
            asked = InputRequired(input_id=f"i{number}", prompt="Go on?", kind="approval")
            await author.write(asked, InputReceived(input_id=f"i{number}", by="u", value=True))
        offset = chance.choice(offsets)
        known = len(await author.log())
        for of in (None, Approvals(), Approvals(known=known)):
            knows.approvals = plain.approvals = of
            page = await knows.page(offset)
            assert page == await plain.page(offset)
            if of is None:
                offsets.append(page.offset)
    await author.write(DONE)
    for offset in offsets:
        assert await knows.page(offset) == await plain.page(offset)


async def test_a_question_that_is_open_ends_what_goes_on(history: Reads, author: Author) -> None:
    """A reader that goes on is shown the end at what is asked now, with what is known by now."""
    reader = Reader(history, author, KeptItems())
    reader.approvals = Approvals(known=1)
    first = await reader.page("-1")
    await author.write(InputRequired(input_id="i", prompt="Go on?", kind="approval"))
    reader.approvals = Approvals(known=2, open=frozenset({"i"}))
    asked = await reader.page(first.offset)
    assert asked.is_closed
    await author.write(InputReceived(input_id="i", by="u", value=True))
    reader.approvals = Approvals(known=3)
    passed = await reader.page(first.offset)
    assert not passed.is_closed


async def test_a_log_that_is_another_one(history: Reads, author: Author, redis: Redis) -> None:
    """What was kept of a log that has gone is not shown as the beginning of the next one."""
    reader = Reader(history, author, KeptItems())
    await author.write(MessageDelta(message_id="m", delta="old"))
    page = await reader.page("-1")
    await redis.delete(author.keys.log, author.keys.record)
    assert await reader.page(page.offset) == (410, "diverged")


async def test_the_oldest_go(history: Reads, author: Author) -> None:
    """There is an end to what is kept."""
    kept = KeptItems()
    reader = Reader(history, author, kept)
    first = await reader.page("-1")
    for number in range(MAX_KEPT):
        await author.write(MessageDelta(message_id="m", delta=str(number)))
        await reader.page("-1")
    assert len(kept) == MAX_KEPT
    history.cursors.clear()
    await reader.page(first.offset)
    assert history.cursors[0] == START
