"""`?compact=true` on real edges: a replay in short, of which every id is as good as in a plain one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.executions.fold import Fold
from emitter.events import (
    Event,
    ExecutionComplete,
    ExecutionStarted,
    ExecutionSuperseded,
    MessageComplete,
    MessageDelta,
    PhaseComplete,
    PhaseStart,
    Thinking,
    ThinkingDelta,
    ToolComplete,
    ToolProgress,
    ToolStart,
)
from emitter.wire.entries import Entry
from emitter.wire.envelope import decode_event
from emitter.wire.ids import parse_event_id
from tests.edges import Author, EdgeProcess, Follower, Received, call, edge, writing

GOLDEN = Path(__file__).parents[1] / "golden"
DELTAS = ("message:delta", "thinking:delta")
COMPACT = "?compact=true"
STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)


def chunks(first: int, last: int, message_id: str = "m") -> list[Event]:
    return [MessageDelta(message_id=message_id, delta=f"{number} ") for number in range(first, last + 1)]


def made_up(dice: random.Random, count: int) -> Iterator[Event]:
    """A log of texts, thoughts, tools and phases in several attempts, without its end."""
    attempt, begun = 1, 1
    yield STARTED
    seq, text, call = 1, 0, 0
    while seq < count:
        kind = dice.random()
        events: list[Event]
        if kind < 0.45:
            text += 1
            one, other = f"m{text}", f"m{text - dice.randint(0, 1)}"
            names = [dice.choice([one, one, one, other]) for _ in range(dice.randint(1, 30))]
            events = [MessageDelta(message_id=name, delta=dice.choice(['"a" ', "b\n", "é", "😀"])) for name in names]
        elif kind < 0.7:
            events = [ThinkingDelta(message_id=f"m{text}", delta="hm ") for _ in range(dice.randint(1, 20))]
        elif kind < 0.85:
            call += 1
            events = [
                ToolStart(call_id=f"c{call}", tool_name="t", params={"n": call}),
                MessageDelta(message_id=f"m{text}", delta="while "),
                ToolProgress(call_id=f"c{call}", progress=50, message="half"),
                ToolComplete(call_id=f"c{call}", tool_name="t", result=[1], duration=0.5),
            ]
        elif kind < 0.95:
            name = dice.choice("pq")
            events = [PhaseStart(phase_id=name, phase_name=name), PhaseComplete(phase_id=name, phase_name=name)]
            events.append(MessageComplete(message_id=f"m{text}"))
        else:
            attempt += 1
            events = [
                ExecutionSuperseded(from_seq=begun, attempt=attempt),
                ExecutionStarted(task="t", started_at=1, attempt=attempt),
            ]
            begun = seq + 1
        seq += len(events)
        yield from events


def state_of(events: Sequence[Received]) -> Any:
    fold = Fold("ex_1")
    for event in events:
        fold.apply_entry(Entry(*parse_event_id(event.id), event.type.encode(), event.data.encode()))
    return json.loads(msgspec.json.encode(fold.state()))


def text_of(events: Sequence[Received]) -> list[tuple[str, str, str]]:
    """The log as what was said: for each event its type, its message, and its text or data; chunks letter by letter."""
    said = []
    for event in events:
        head = json.loads(event.data)
        if event.type in DELTAS:
            said += [(event.type, head["data"]["messageId"], letter) for letter in head["data"]["delta"]]
        else:
            said.append((event.type, "", json.dumps(head)))
    return said


def assert_short(short: Sequence[Received], log: Sequence[Received]) -> None:
    """What was received says what the log says, and comes to the same state after each of its events."""
    position = {event.id: number for number, event in enumerate(log, 1)}
    ends = [position[event.id] for event in short]
    assert ends == sorted(set(ends))
    assert text_of(short) == text_of(log)
    for event, (before, end) in zip(short, pairwise([0, *ends]), strict=True):
        if end - before == 1:
            assert event == log[end - 1]
        else:
            assert event.type in DELTAS
            assert {each.type for each in log[before:end]} == {event.type}


async def all_of(edges: Sequence[EdgeProcess], author: Author, query: str, cursor: str | None = None) -> Follower:
    """The rest of an execution that has ended, as a viewer gets it."""
    async with Follower(edges, author.path + query, author.token, cursor=cursor) as viewer:
        await viewer.until_done()
    assert not viewer.resets
    return viewer


async def test_a_long_log_opens_in_few_frames(redis_url: str, author: Author) -> None:
    """10,000 chunks in 40 messages are at most 60 frames, controls included; also for the next reader, and of a log
    that has ended."""
    await author.write(STARTED)
    for message in range(40):
        await author.write(*chunks(1, 250, f"m{message}"))
    with edge(redis_url) as only:
        for _ in range(2):
            async with Follower([only], author.path + COMPACT, author.token) as viewer:
                await viewer.until_live()
            assert len(viewer.events) + len(viewer.controls) <= 60
            assert viewer.controls[-1].data == {"replayed": 10_001}
            assert_short(viewer.events, await author.log())
        await author.end()
        for _ in range(2):
            viewer = await all_of([only], author, COMPACT)
            assert len(viewer.events) + len(viewer.controls) <= 60
            assert_short(viewer.events, await author.log())
            assert viewer.ids[-1] == (await author.log())[-1].id


async def test_ids_are_those_of_the_last(two_edges: list[EdgeProcess], author: Author) -> None:
    """A run of chunks has the id of its last and the time of its first; all else is as it was logged."""
    await author.write(STARTED, *chunks(1, 5), Thinking(thought="x"), *chunks(6, 6), *chunks(7, 9, "n"))
    await author.end()
    log = await author.log()
    viewer = await all_of(two_edges, author, COMPACT)
    assert viewer.ids == [log[at].id for at in (0, 5, 6, 7, 10, 11)]
    run = json.loads(viewer.events[1].data)
    assert run == json.loads(log[1].data) | {"data": {"messageId": "m", "delta": "1 2 3 4 5 "}}
    assert [viewer.events[at] for at in (0, 2, 3, 5)] == [log[at] for at in (0, 6, 7, 11)]


@pytest.mark.parametrize("seed", range(6))
async def test_random_logs_fold_the_same(two_edges: list[EdgeProcess], author: Author, seed: int) -> None:
    """From the start and from any cursor, a compact replay says what the log says, and comes to the same state."""
    dice = random.Random(seed)
    events = list(made_up(dice, 900))
    for at in range(0, len(events), 100):
        await author.write(*events[at : at + 100])
    await author.end()
    log = await author.log()
    for cut in [0, *sorted(dice.sample(range(1, len(log)), 12))]:
        viewer = await all_of(two_edges, author, COMPACT, log[cut - 1].id if cut else None)
        assert_short(viewer.events, log[cut:])
        assert state_of([*log[:cut], *viewer.events]) == state_of(log)
        assert len(viewer.events) < (len(log) - cut) * 0.8 or len(log) - cut < 50


@pytest.mark.parametrize("name", ["every_event", "failed", "cancelled"])
async def test_recorded_logs_fold_the_same(two_edges: list[EdgeProcess], author: Author, name: str) -> None:
    """A recorded log, replayed in short, folds to its state."""
    for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines():
        event = json.loads(line)["event"]
        await author.write(decode_event(event["type"], json.dumps(event["data"]).encode()))
    log = await author.log()
    viewer = await all_of(two_edges, author, COMPACT)
    assert_short(viewer.events, log)
    assert state_of(viewer.events) == state_of(log)


async def test_a_cut_after_any_frame_is_resumed_exactly(two_edges: list[EdgeProcess], author: Author) -> None:
    """Whichever frame was the last, another edge gives the rest, in short or as it was logged."""
    await author.write(*made_up(random.Random(99), 250))
    await author.end()
    log = await author.log()
    short = (await all_of(two_edges[:1], author, COMPACT)).events
    position = {event.id: number for number, event in enumerate(log, 1)}
    for count in range(1, len(short)):
        rest = log[position[short[count - 1].id] :]
        plain = await all_of(two_edges[1:], author, "", short[count - 1].id)
        assert plain.events == rest
        again = await all_of(two_edges[1:], author, COMPACT, short[count - 1].id)
        assert again.events == short[count:]
        assert state_of(short[:count] + plain.events) == state_of(log)


async def test_a_viewer_that_is_cut_again_and_again(two_edges: list[EdgeProcess], author: Author) -> None:
    """Over many reconnects, while the log grows, what a compact viewer gets is the log."""
    await author.write(STARTED)
    dice = random.Random(5)
    async with Follower(two_edges, author.path + COMPACT, author.token) as viewer:
        for number in range(30):
            count = len(viewer.events)
            await author.write(*chunks(1, dice.randint(1, 60), f"m{number // 4}"))
            if dice.random() < 0.5:
                await viewer.until_events(count + 1)
                viewer.hang_up()
        await author.end()
        await viewer.until_done()
    assert viewer.connects > 5
    assert not viewer.resets
    assert_short(viewer.events, await author.log())


async def test_what_is_live_comes_as_it_is_logged(two_edges: list[EdgeProcess], author: Author) -> None:
    """Only the replay is short: each live chunk is an event, and a plain viewer beside gets the same."""
    await author.write(STARTED, *chunks(1, 100))
    async with (
        Follower(two_edges[:1], author.path + COMPACT, author.token) as short,
        Follower(two_edges[:1], author.path, author.token) as plain,
    ):
        await short.until_live()
        await plain.until_live()
        assert len(short.events) == 2
        for number in range(50):
            await author.write(*chunks(number, number))
        await author.write(*chunks(1, 50))
        await author.end()
        await short.until_done()
        await plain.until_done()
    log = await author.log()
    assert plain.events == log
    assert short.events[2:] == log[101:]


async def test_events_that_arrive_while_it_replays(two_edges: list[EdgeProcess], author: Author) -> None:
    """Where the replay meets what is live, nothing is lost and nothing comes twice, whatever the moment."""
    await author.write(STARTED)
    for _ in range(8):
        await author.write(*chunks(1, 400))
    short: list[Follower] = []
    async with writing(author, pause_seconds=0.001):
        for number in range(12):
            viewer = Follower([two_edges[number % 2]], author.path + COMPACT, author.token)
            short.append(viewer)
            async with viewer:
                await viewer.until_live()
                await viewer.until_events(len(viewer.events) + 20)
            await author.write(*chunks(1, 3))
    log = await author.log()
    for viewer in short:
        last = next(at for at, event in enumerate(log, 1) if event.id == viewer.ids[-1])
        assert_short(viewer.events, log[:last])
        assert viewer.connects == 1


async def test_a_filter_comes_first(two_edges: list[EdgeProcess], author: Author) -> None:
    """What the filter leaves out is between no neighbours: chunks on both sides of it are one event, and the id is the
    log's, in every view."""
    for number in range(4):
        await author.write(STARTED if not number else Thinking(thought="x"), *chunks(1, 10))
        await author.write(ToolProgress(call_id="c", message="m"), *chunks(11, 20))
    await author.end()
    log = await author.log()
    wanted = [event for event in log if event.type == "message:delta"]
    viewer = await all_of(two_edges, author, COMPACT + "&types=message:*")
    assert viewer.ids == [wanted[-1].id]
    assert text_of(viewer.events) == text_of(wanted)
    rest = await all_of(two_edges, author, COMPACT + "&types=message:*,execution:*", wanted[29].id)
    assert rest.ids == [wanted[-1].id, log[-1].id]
    assert text_of(rest.events[:1]) == text_of(wanted[30:])
    unnamed = await all_of(two_edges, author, COMPACT + "&named=false")
    assert {event.type for event in unnamed.events} == {"message"}
    named = await all_of(two_edges, author, COMPACT)
    assert [(event.id, event.data) for event in unnamed.events] == [(event.id, event.data) for event in named.events]


async def test_no_block_is_larger_than_the_limit(redis_url: str, author: Author) -> None:
    """Merged events keep to `RUNCAST_MAX_EVENT_BYTES`, and the text goes on in the next one."""
    await author.write(STARTED, *chunks(1, 2000))
    await author.end()
    for limit, most in ((1024, 30), (65_536, 4)):
        with edge(redis_url, max_event_bytes=limit) as only:
            viewer = await all_of([only], author, COMPACT)
        blocks = [f"id: {event.id}\nevent: {event.type}\ndata: {event.data}\n\n" for event in viewer.events]
        assert max(map(len, blocks)) <= limit
        assert len(blocks) <= most
        assert_short(viewer.events, await author.log())


async def test_a_trimmed_log_is_said_to_be(two_edges: list[EdgeProcess], author: Author) -> None:
    """A reset names the same ordinals as in a plain replay, and the first event that there is."""
    await author.write(STARTED, *chunks(1, 100))
    await author.end()
    log = await author.log()
    await author.redis.xtrim(author.keys.log, minid=log[40].id, approximate=False)
    async with Follower(two_edges, author.path + COMPACT, author.token) as viewer:
        await viewer.until_done()
    (reset,) = viewer.resets
    assert reset.data == {"reason": "trimmed", "lostFrom": 1, "lostTo": 40, "resumedAt": log[40].id}
    assert_short(viewer.events, log[40:])


async def test_a_feed_takes_the_parameter(two_edges: list[EdgeProcess], author: Author) -> None:
    """The feed has no chunks: it is the same with it."""
    await author.write(STARTED, *chunks(1, 3), Thinking(thought="x"))
    async with Follower(two_edges, "/api/agent/stream?from=start&compact=true", author.token) as viewer:
        await viewer.until_live()
        await author.end()
        await viewer.until("the end", lambda v: v.events[-1].type == "execution:complete")
    assert [event.type for event in viewer.events] == ["execution:started", "thinking", "execution:complete"]


async def test_a_bad_value_is_refused(two_edges: list[EdgeProcess], author: Author) -> None:
    """What is neither `true` nor `false` is refused like any other parameter; `false` is a plain replay."""
    await author.write(STARTED, *chunks(1, 3), ExecutionComplete(result=None, duration=1.0))
    for value in ("", "1", "yes", "True"):
        answer = await call(two_edges[0].port, "GET", f"{author.path}?compact={value}", author.token)
        assert (answer.status, answer.body["path"]) == (400, "compact")
    viewer = await all_of(two_edges, author, "?compact=false")
    assert viewer.events == await author.log()
