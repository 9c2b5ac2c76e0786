"""One state of an execution: `stream:open` of a real edge, the record, the edge's fold and the client's agree."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.executions.fold import fold
from emitter import events
from emitter.errors import AppendRefused
from emitter.wire import entries as wire
from tests.edges import SSE, Author, EdgeProcess, Follower, edges, request
from tests.web.browser import NODE
from tests.web.client.viewers import node

STARTED = events.ExecutionStarted(task="t", started_at=1, attempt=1)
SEQUENCES = 25
STEPS = 16


def question(input_id: str) -> events.InputRequired:
    return events.InputRequired(input_id=input_id, prompt="?", kind="text")


def answer(input_id: str) -> events.InputReceived:
    return events.InputReceived(input_id=input_id, value=1, by="alice")


def superseded(attempt: int) -> events.ExecutionSuperseded:
    """As workers say it: what came after the first event is void."""
    return events.ExecutionSuperseded(from_seq=1, attempt=attempt)


async def opened(edge: EdgeProcess, author: Author) -> str:
    """The state in the `stream:open` of a viewer that comes now."""
    async with request(edge.port, "GET", author.path, author.token, headers=SSE) as response:
        frame = await anext(aiter(response.frames()))
    assert frame.event == "stream:open"
    return str(json.loads(frame.data)["state"])


async def recorded(author: Author) -> str:
    return str((await author.redis.hget(author.keys.record, "state")).decode())


async def entries(author: Author) -> list[wire.Entry]:
    return wire.parse_stream(await author.redis.xrange(author.keys.log))


@asynccontextmanager
async def watched(edge: EdgeProcess, author: Author) -> AsyncIterator[Follower]:
    """With a viewer on the edge, so that it follows the log."""
    async with Follower([edge], author.path, author.token) as viewer:
        await viewer.until_live()
        yield viewer


@pytest.mark.parametrize(
    ("happened", "state"),
    [
        ([question("a"), question("b"), answer("a")], "waiting_input"),
        ([question("a"), question("b"), answer("a"), answer("b")], "running"),
        ([superseded(2)], "queued"),
        ([question("a"), superseded(2), answer("a")], "queued"),
        ([question("a"), superseded(2), STARTED, answer("a")], "running"),
        ([answer("a"), question("a")], "running"),
        ([events.Custom(name="x", data={}), events.Status(status="s", message="m")], "running"),
    ],
    ids=["one-of-two", "both", "superseded", "answer-in-between", "answer-late", "asked-again", "nothing"],
)
async def test_a_stream_opens_with_the_state_of_the_record(
    two_edges: list[EdgeProcess], author: Author, happened: Sequence[events.Event], state: str
) -> None:
    """An edge that saw every event live says what the record says, as does one that sees the log for the first time."""
    await author.begin()
    async with watched(two_edges[0], author) as viewer:
        assert await opened(two_edges[0], author) == "running"
        if isinstance(happened[0], events.InputReceived):  # there must be something to answer
            happened = [question("a"), *happened]
        await author.write(*happened)
        await viewer.until_events(1 + len(happened))
        assert await recorded(author) == state
        assert [await opened(edge, author) for edge in two_edges] == [state, state]


async def test_who_returns_to_a_log_that_waits_costs_no_reading(redis_url: str, author: Author) -> None:
    """The record is read anew only after an event that can have changed the state; the end needs no record."""
    await author.begin()
    with edges(redis_url) as (edge,):  # whose readings are of no other test
        await costs_no_reading(edge, author)


async def costs_no_reading(edge: EdgeProcess, author: Author) -> None:
    def readings() -> float:
        return edge.metric("runcast_redis_command_duration_seconds_count", op="record")

    async with watched(edge, author) as viewer:
        before = readings()
        for _ in range(5):
            await author.say(3)
        await viewer.until_events(16)
        assert [await opened(edge, author) for _ in range(10)] == ["running"] * 10
        assert readings() == before
        await author.write(question("a"))
        await viewer.until_events(17)
        assert [await opened(edge, author) for _ in range(10)] == ["waiting_input"] * 10
        assert readings() == before + 1
        await author.end()
        await viewer.until_done()
        assert [await opened(edge, author) for _ in range(3)] == ["completed"] * 3
        assert readings() == before + 1


def step(dice: random.Random, attempt: int) -> events.Event:
    name = dice.choice("abcd")
    kinds = [question(name)] * 4 + [answer(name)] * 5 + [superseded(attempt + 1)]
    return dice.choice(
        [*kinds, STARTED, STARTED, events.ExecutionQueued(task="t", agent="a"), events.Thinking(thought="x")]
    )


async def test_states_agree(two_edges: list[EdgeProcess], redis: Redis) -> None:
    """After each step of random questions, answers and takeovers the record, `stream:open` and both folds agree."""
    dice = random.Random(7)
    seen: list[tuple[list[wire.Entry], list[tuple[int, str]]]] = []
    for number in range(SEQUENCES):
        author = Author(redis, user=f"states-{number}")
        await author.write(STARTED)
        attempt, states = 1, []
        async with watched(two_edges[0], author) as viewer:
            for _ in range(STEPS):
                event = step(dice, attempt)
                try:
                    last = await author.write(event)
                except AppendRefused:  # answered before, or never asked
                    continue
                attempt += isinstance(event, events.ExecutionSuperseded)
                await viewer.until_events(last.seq)
                state = await recorded(author)
                assert await opened(two_edges[0], author) == state
                assert fold(await entries(author)).status == state, [e.type for e in await entries(author)]
                states.append((last.seq, state))
        seen.append((await entries(author), states))
    assert {state for _, states in seen for _, state in states} == {"queued", "running", "waiting_input"}
    if NODE is not None:
        assert await states_in_javascript(seen) == [[state for _, state in states] for _, states in seen]


async def states_in_javascript(seen: Sequence[tuple[list[wire.Entry], list[tuple[int, str]]]]) -> list[list[Any]]:
    lines = [
        json.dumps(
            {
                "entries": [{"id": str(entry.id), "event": json.loads(entry.json)} for entry in log],
                "at": [count for count, _ in states],
            }
        )
        for log, states in seen
    ]
    printed = await node("fold.mjs", given="\n".join(lines).encode())
    return [[state["status"] for state in json.loads(line)] for line in printed.splitlines()]
