"""The stream for clients that count chunks: one number is one chunk, whenever and wherever it is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from broker.protocols.ai_sdk.counted import TAIL_INDEX, Counted, Counting, LogTrimmed, Place
from broker.protocols.ai_sdk.renderer import RUN_ID, Renderer
from emitter.events import Event, ExecutionComplete, PhaseStart, Thinking, ToolComplete, ToolStart
from emitter.wire.entries import Entry
from tests.broker.executions.test_state import recorded
from tests.protocols.made_up import EXECUTION, MadeUp
from tests.protocols.test_ai_sdk import chunks, delta, entry

LOGS = {
    **{name: recorded(f"{name}.jsonl") for name in ("every_event", "failed", "cancelled")},
    **{f"made up {seed}": MadeUp(seed).log(40) for seed in range(3)},
}
DONE = ExecutionComplete(result=None, duration=1.0)


def whole(log: Sequence[Entry]) -> list[Any]:
    renderer = Renderer(EXECUTION)
    return chunks(renderer.open() + renderer.render(log))


def rest(log: Sequence[Entry], place: Place, size: int = 1) -> list[Any]:
    """What is shown from a place on, of a log that arrives in batches of this size."""
    renderer = Counted(EXECUTION, place)
    data = renderer.open()
    for at in range(0, len(log), size):
        data += renderer.render(log[at : at + size])
    assert data.endswith(b"data: [DONE]\n\n") == renderer.is_over
    return chunks(data) if data else []


def place_of_last(log: Sequence[Entry], last: int) -> Place:
    counting = Counting(EXECUTION, last)
    counting.add(log)
    return counting.place


def log_of(*events: Event) -> list[Entry]:
    return [entry(number, event) for number, event in enumerate(events, 1)]


@pytest.mark.parametrize("name", LOGS)
def test_the_rest_after_any_number(name: str) -> None:
    """From any number on, the stream is the end of the whole one, however the log arrives."""
    log = LOGS[name]
    expected = whole(log)
    for start in range(len(expected)):
        assert rest(log, Place(start), size=1 + start % 9) == expected[start:]


def test_past_the_end() -> None:
    """Who has counted as far as the end, or too far, gets the end; of a log that goes on he gets what comes."""
    log = LOGS["every_event"]
    expected = whole(log)
    for start in (len(expected), len(expected) + 1, 10**8):
        assert rest(log, Place(start)) == expected[-1:]
    assert expected[-1]["type"] == "finish"
    before = len(whole(log[:-1]))
    assert rest(log[:-1], Place(before)) == []
    assert rest(log, Place(before)) == expected[before:]


def test_lost_attempts_count() -> None:
    """A number means the same chunk after a retry as before it."""
    log = LOGS["every_event"]
    places = [number for number, each in enumerate(log) if each.type == b"execution:superseded"]
    seen = whole(log[: places[0]])
    assert whole(log)[: len(seen)] == seen
    assert rest(log, Place(2)) == whole(log)[2:]


@pytest.mark.parametrize("name", LOGS)
def test_the_last_ones(name: str) -> None:
    """Who asks for the last chunks gets at least these, from the beginning of a step on; a place that he counts on from
    is the one that he has reached."""
    log = LOGS[name]
    for until in (len(log) // 2, len(log)):
        expected = whole(log[:until])
        for last in (1, 2, 5, 20, len(expected), 10**6):
            start, tail = place_of_last(log[:until], last)
            assert start <= max(0, len(expected) - last)
            assert expected[start]["type"] in ("start", "start-step")
            assert tail is not None
            assert max(0, tail + 1 - last) == start


def test_a_step_is_no_beginning_while_a_call_is_open() -> None:
    """The end of a call would be refused by a client that has not seen its beginning."""
    phase = PhaseStart(phase_id="p", phase_name="P")
    called = ToolStart(call_id="c", tool_name="t", params={})
    ended = ToolComplete(call_id="c", tool_name="t", result=1, duration=0.1)
    log = log_of(delta("a"), phase, called, phase, Thinking(thought="t"), ended, phase, delta("b"), DONE)
    expected = whole(log)
    steps = [number for number, chunk in enumerate(expected) if chunk["type"] == "start-step"]
    assert len(steps) == 4
    found = {place_of_last(log, last).start for last in range(1, len(expected) + 1)}
    assert found == {0, steps[0], steps[1], steps[3]}


def test_few_places_are_kept() -> None:
    """What counting keeps depends on how many chunks are wanted, not on the log."""
    counting = Counting(EXECUTION, 50)
    for number in range(2_000):
        counting.add(log_of(PhaseStart(phase_id="p", phase_name="P"), delta("x", f"m{number}")))
    assert len(counting._steps) < 50


def test_a_log_without_its_head() -> None:
    """There the numbers mean nothing: only who begins is shown it."""
    log = LOGS["every_event"][5:]
    with pytest.raises(LogTrimmed):
        rest(log, Place(3))
    expected = whole(log)
    assert rest(log, Place(0)) == expected
    assert "lostBefore" in expected[1]["messageMetadata"]
    assert rest(log, place_of_last(log, 4))[-4:] == expected[-4:]


def test_headers() -> None:
    """Every stream says which execution it is of; one of the last chunks also where it begins."""
    assert Renderer(EXECUTION).headers[RUN_ID] == Counted(EXECUTION, Place(3)).headers[RUN_ID] == EXECUTION
    assert TAIL_INDEX not in Counted(EXECUTION, Place(3)).headers
    assert Counted(EXECUTION, Place.back_to(3, 5)).headers[TAIL_INDEX] == "7"


def test_sharing() -> None:
    """A stream shares its work when it has come to the chunk from which it is shown, with those that show all."""
    log = LOGS["every_event"]
    plain, counted = Renderer(EXECUTION), Counted(EXECUTION, Place(4))
    for each in (plain, counted):
        each.open()
        each.render(log[:1])
    assert counted.state_key is None
    for each in (plain, counted):
        each.render(log[1:9])
    assert counted.state_key == plain.state_key
    assert counted.fork().render(log[9:]) == plain.fork().render(log[9:])
    assert json.loads(plain.render(log[9:10]).split(b"\n")[0][6:])
