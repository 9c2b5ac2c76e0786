from __future__ import annotations

import gc
import json
import random
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from broker.executions.fold import Fold, fold
from broker.executions.state import MAX_STATE_BYTES, MAX_THOUGHTS, MAX_TOOLS
from broker.executions.types import ExecutionState
from broker.executions.undo import MAX_TEXT, Text
from emitter import events
from emitter.wire import envelope, ids
from emitter.wire.entries import Entry

GOLDEN = Path(__file__).parents[2] / "golden"
STARTED = events.ExecutionStarted(task="t", started_at=1, attempt=1)


class Recorded(msgspec.Struct):
    """One line of a recorded log."""

    id: str
    event: msgspec.Raw


def recorded(name: str) -> list[Entry]:
    entries = []
    for line in (GOLDEN / name).read_bytes().splitlines():
        entry = msgspec.json.decode(line, type=Recorded)
        type_ = msgspec.json.decode(entry.event)["type"]
        entries.append(Entry(*ids.parse_event_id(entry.id), type_.encode(), bytes(entry.event)))
    return entries


def log(*happened: events.Event, start: int = 1) -> list[Entry]:
    """The entries of a log of these events."""
    entries = []
    for seq, event in enumerate(happened, start):
        type_ = envelope.event_type(event)
        json_ = envelope.envelope(type_, "ex_1", envelope.encode_data(event), ts=1000 + seq)
        entries.append(Entry(1000 + seq, seq, type_.encode(), json_))
    return entries


def delta(text: str, message_id: str = "m") -> events.Event:
    return events.MessageDelta(message_id=message_id, delta=text)


def encoded(state: ExecutionState) -> str:
    return json.dumps(json.loads(msgspec.json.encode(state)), indent=2) + "\n"


@pytest.mark.parametrize("name", ["every_event", "failed", "cancelled"])
def test_recorded_logs(name: str) -> None:
    """A recorded log folds to its recorded state, character for character."""
    assert encoded(fold(recorded(f"{name}.jsonl"))) == (GOLDEN / f"state_{name}.json").read_text()


def test_recordings_hold_every_type() -> None:
    """The log of every event has each type of the catalogue but the ends that it does not come to, and one of a
    plug-in; the ordinals of every log are dense."""
    logs = [recorded(f"{name}.jsonl") for name in ("every_event", "failed", "cancelled")]
    types = {entry.type.decode() for entry in logs[0]}
    assert set(events.BY_TYPE) - types == {"execution:error", "execution:cancelled"}
    assert any(type_.startswith("custom:") for type_ in types)
    assert all([entry.seq for entry in entries] == list(range(1, len(entries) + 1)) for entries in logs)


@pytest.mark.parametrize("seed", range(20))
def test_chunking_does_not_matter(seed: int) -> None:
    """Asking for the state in between, and receiving entries again, changes nothing of the end."""
    dice = random.Random(seed)
    entries = recorded("every_event.jsonl")
    folding, taken = Fold(), 0
    while taken < len(entries):
        size = dice.randint(1, 7)
        for entry in entries[max(0, taken - dice.randint(0, 3)) : taken + size]:
            folding.apply_entry(entry)
        taken += size
        folding.state()
    assert folding.state() == fold(entries)


@pytest.mark.parametrize("cut", range(2, 52))
def test_every_prefix_can_be_superseded(cut: int) -> None:
    """Wherever a log is cut, a retry that voids everything after the first event leaves what that event alone gives."""
    entries = recorded("every_event.jsonl")[:cut]
    entries += log(events.ExecutionSuperseded(from_seq=1, attempt=3), STARTED, start=cut + 1)
    expected = fold([entries[0], *entries[-1:]])
    assert msgspec.structs.replace(fold(entries), user_messages=[]) == expected


@pytest.mark.parametrize("cut", range(8, 52))
def test_going_back_within_an_attempt(cut: int) -> None:
    """A retry that keeps the old attempt up to an ordinal leaves exactly what the log up to there gives; but what has
    been answered since is not open again."""
    entries = recorded("every_event.jsonl")
    first, void, kept = entries[6:cut], entries[cut:51], entries[cut - 1].seq
    superseded = log(events.ExecutionSuperseded(from_seq=kept, attempt=9), start=52)
    state, expected = fold(first + void + superseded), fold(first)
    for name in ExecutionState.__struct_fields__:
        if name not in {"execution_id", "cursor", "attempt", "status", "open_inputs", "user_messages"}:
            assert getattr(state, name) == getattr(expected, name), name
    taken_back = [envelope.decode_envelope(entry.json)[1] for entry in void]
    answered = {event.input_id for event in taken_back if isinstance(event, events.InputReceived)}
    assert state.open_inputs == [each for each in expected.open_inputs if each.input_id not in answered]


def said(message_id: str) -> events.Event:
    return events.UserMessage(message_id=message_id, by="alice", mode="queue", text=message_id)


def test_what_people_say_belongs_to_no_attempt() -> None:
    """It is taken again by the next one, unless it was dropped; at the end nothing waits."""
    happened: list[events.Event] = [
        STARTED, said("a"), said("b"), said("c"),
        events.UserMessageTaken(message_ids=["a", "b", "unknown"], attempt=1),
        events.UserMessageDropped(message_id="c", reason="withdrawn"),
    ]  # fmt: skip
    states = [message.state for message in fold(log(*happened)).user_messages]
    assert states == ["taken", "taken", "dropped"]
    happened += [events.ExecutionSuperseded(from_seq=1, attempt=2), said("d")]
    assert [message.state for message in fold(log(*happened)).user_messages] == [
        "queued",
        "queued",
        "dropped",
        "queued",
    ]
    happened += [events.UserMessageTaken(message_ids=["a"], attempt=2), events.ExecutionError(error="e")]
    ended = [(message.state, message.reason) for message in fold(log(*happened)).user_messages]
    assert ended == [("taken", None), ("dropped", "ended"), ("dropped", "withdrawn"), ("dropped", "ended")]


def test_status_follows_the_log() -> None:
    """The status is what the append script writes into the record for the same events."""
    ask = events.InputRequired(input_id="i", prompt="?", kind="text")
    steps: list[tuple[events.Event, str]] = [
        (events.ExecutionQueued(task="t", agent="a"), "queued"),
        (STARTED, "running"),
        (ask, "waiting_input"),
        (events.InputRequired(input_id="j", prompt="?", kind="text"), "waiting_input"),
        (delta("x"), "waiting_input"),
        (events.InputReceived(input_id="i", by="alice"), "waiting_input"),
        (events.InputReceived(input_id="j", by="alice"), "running"),
        (events.InputRequired(input_id="k", prompt="?", kind="text"), "waiting_input"),
        (events.ExecutionSuperseded(from_seq=1, attempt=2), "queued"),
        (events.ExecutionComplete(result=None, duration=1), "completed"),
    ]
    folding = Fold()
    for entry, (_, expected) in zip(log(*(event for event, _ in steps)), steps, strict=True):
        folding.apply_entry(entry)
        assert folding.state().status == expected
    assert fold(log(delta("x"))).status == "running"


def test_a_question_that_has_its_answer_is_not_open_again() -> None:
    """The answer to the question of a lost attempt may come in between the retry's look for it and its question."""
    question = events.InputRequired(input_id="i", prompt="?", kind="text")
    answered = events.InputReceived(input_id="i", by="alice")
    superseded = events.ExecutionSuperseded(from_seq=2, attempt=2)
    started = events.ExecutionStarted(task="t", started_at=1, attempt=2)
    state = fold(log(STARTED, delta("x"), question, superseded, started, answered, question))
    assert (state.status, state.open_inputs) == ("running", [])
    state = fold(log(STARTED, delta("x"), question, answered, superseded, started, question))
    assert (state.status, state.open_inputs) == ("running", [])
    state = fold(log(STARTED, delta("x"), question, superseded, started, question))
    assert (state.status, state.open_inputs) == ("waiting_input", [question])


@pytest.mark.parametrize(
    "ending",
    [
        events.ExecutionComplete(result=None, duration=1),
        events.ExecutionError(error="boom"),
        events.ExecutionCancelled(reason="enough", by="alice"),
    ],
    ids=lambda ending: ending.type,
)
def test_every_ending_closes_what_is_open(ending: events.Event) -> None:
    """Of an execution that is over nothing runs, works or asks any more; what had ended, or never began, stays so."""
    plan = events.Plan(goal="g", phases=[events.Phase(id=id_, name=id_) for id_ in ("done", "open", "never")])
    state = fold(
        log(
            STARTED,
            events.PlanCreated(plan=plan),
            events.PhaseStart(phase_id="done", phase_name="done"),
            events.PhaseComplete(phase_id="done", phase_name="done", duration=1),
            events.PhaseStart(phase_id="open", phase_name="open"),
            events.ToolStart(call_id="done", tool_name="t", params=None),
            events.ToolComplete(call_id="done", tool_name="t", result=1, duration=1),
            events.ToolStart(call_id="failed", tool_name="t", params=None),
            events.ToolError(call_id="failed", tool_name="t", error="no", duration=1),
            events.ToolStart(call_id="open", tool_name="t", params={"a": 1}),
            events.ToolProgress(call_id="open", progress=40),
            events.SpecialistActivated(specialist="done"),
            events.SpecialistComplete(specialist="done"),
            events.SpecialistActivated(specialist="open"),
            events.InputRequired(input_id="open", prompt="?", kind="text"),
            ending,
        )
    )
    assert [phase.status for phase in state.phases] == ["complete", "interrupted", "pending"]
    assert [tool.status for tool in state.tools] == ["complete", "error", "interrupted"]
    assert (state.tools[2].params, state.tools[2].progress) == ({"a": 1}, 40)
    assert [specialist.status for specialist in state.specialists] == ["complete", "interrupted"]
    assert (state.status, state.open_inputs) == (events.TERMINAL_STATE_OF[ending.type], [])


def test_nothing_yet() -> None:
    """An execution without events is queued, at the cursor before the first."""
    state = fold([], "ex_1")
    assert (state.execution_id, state.status, state.cursor) == ("ex_1", "queued", "0-0")


def test_the_beginning_is_trimmed() -> None:
    """Completions whose beginnings are gone from the log still show."""
    state = fold(
        log(
            events.ToolComplete(call_id="c", tool_name="grep", result=1, duration=1),
            events.ToolProgress(call_id="gone", progress=1),
            events.PhaseComplete(phase_id="p", phase_name="P"),
            events.SpecialistComplete(specialist="s"),
            events.MessageComplete(message_id="m", text="whole"),
            events.InputReceived(input_id="i", by="alice"),
            start=500,
        )
    )
    assert [tool.status for tool in state.tools] == ["complete"]
    assert [phase.status for phase in state.phases] == ["complete"]
    assert [specialist.status for specialist in state.specialists] == ["complete"]
    assert (state.text, state.open_inputs) == ("whole", [])


def test_the_completion_has_the_last_word() -> None:
    """A message's text is its completion's, if that differs from its chunks."""
    state = fold(log(delta("helo"), delta("other", "n"), events.MessageComplete(message_id="m", text="hello ")))
    assert state.text == "hello other"
    assert [(message.text, message.complete) for message in state.messages] == [("hello ", True), ("other", False)]


def test_artifact_without_append_replaces() -> None:
    """A chunk that does not append begins its artifact anew."""

    def chunk(text: str, *, append: bool) -> events.Event:
        return events.Artifact(artifact_id="a", media_type="text/plain", text=text, append=append)

    state = fold(log(chunk("old", append=False), chunk("new", append=False), chunk("er", append=True)))
    assert [artifact.text for artifact in state.artifacts] == ["newer"]


def test_many_events_stay_bounded() -> None:
    """Of very many parts the newest are kept, and of a very long text the beginning, which says so."""
    many: list[events.Event] = [events.Thinking(thought=str(i)) for i in range(MAX_THOUGHTS + 5)]
    many += [events.ToolStart(call_id=str(i), tool_name="t", params=None) for i in range(MAX_TOOLS + 5)]
    many += [delta("x" * 60_000) for _ in range(8)]
    many += [events.Progress(progress=i % 100) for i in range(1000)]
    state = fold(log(*many))
    assert [thought.thought for thought in state.thinking] == [str(i) for i in range(5, MAX_THOUGHTS + 5)]
    assert (len(state.tools), state.tools[0].call_id) == (MAX_TOOLS, "5")
    assert (len(state.text), state.messages[0].truncated) == (MAX_TEXT, True)
    assert state.progress is not None
    assert state.progress.progress == 99


def test_a_text_of_exactly_the_limit() -> None:
    """A text that just fits is whole, and says so."""
    chunks = [delta("x" * (MAX_TEXT // 8)) for _ in range(8)]
    assert not fold(log(*chunks)).messages[0].truncated
    assert fold(log(*chunks, delta("y"))).messages[0].truncated


def test_voiding_many_changes_never_shows_a_void_one() -> None:
    """After more changes than are remembered, going back shows an older value, not one of the void attempt."""
    steps = [events.Progress(progress=i) for i in range(1, 51)]
    state = fold([*log(*steps), *log(events.ExecutionSuperseded(from_seq=10, attempt=2), start=51)])
    assert state.progress is not None
    assert state.progress.progress == 1


# --- bytes -----------------------------------------------------------------------------------------------------------

LONG = "x" * 60_000


def greedy(count: int) -> list[events.Event]:
    """Parts of every kind, each as large as an event may be."""
    told: list[events.Event] = []
    for number in range(count):
        told += [
            delta(LONG, f"m{number}"),
            events.Thinking(thought=LONG),
            events.ToolStart(call_id=f"c{number}", tool_name="t", params={"a": [[]] * 3_000}),
            events.ToolProgress(call_id=f"c{number}", message=LONG),
            events.ToolComplete(call_id=f"c{number}", tool_name="t", result=LONG, duration=1),
            events.PhaseStart(phase_id=f"p{number}", phase_name=LONG),
            events.SpecialistActivated(specialist=f"s{number}", task=LONG),
            events.PartialResult(result=[{}] * 3_000),
            events.Artifact(artifact_id=f"t{number}", media_type="t", text=LONG),
            events.Artifact(artifact_id=f"d{number}", media_type="t", data={"a": LONG}),
            events.Artifact(artifact_id=f"u{number}", media_type="t", url="https://x.example/" + LONG),
            events.MessageComplete(message_id=f"m{number}"),
        ]
    return told


def test_a_state_is_bounded_in_bytes() -> None:
    """Of a log with very much in it, a fold keeps some megabytes of memory, and says of each part whether it is whole:
    the latest are; what was left alone for longest has only its beginning, or a mark."""
    entries = log(*greedy(30))
    assert sum(len(entry.json) for entry in entries) > 3 * MAX_STATE_BYTES
    gc.collect()
    tracemalloc.start()
    try:
        folding = Fold()
        for entry in entries:
            folding.apply_entry(entry)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 1.5 * MAX_STATE_BYTES
    finally:
        tracemalloc.stop()
    state = folding.state()
    assert len(encoded(state)) < 2 * MAX_STATE_BYTES
    assert (len(state.tools), len(state.messages), len(state.artifacts)) == (30, 30, 90), "parts stay"
    assert (state.tools[0].params, state.tools[0].result[-1]) == ({"clipped": True}, "…")
    assert state.partial_results[0].result == {"clipped": True}
    assert (state.messages[0].text, state.messages[0].truncated) == ("x" * 199 + "…", True)
    assert (state.thinking[0].thought, state.thinking[0].truncated) == ("x" * 199 + "…", True)
    assert (state.phases[0].id, state.phases[0].name[-1]) == ("p0", "…")
    text, data, url = state.artifacts[:3]
    assert [each.truncated for each in (text, data, url)] == [True, True, True]
    assert (text.text, data.data, url.url) == ("x" * 199 + "…", {"clipped": True}, None)
    assert (state.tools[-1].result, state.messages[-1].text, state.messages[-1].truncated) == (LONG, LONG, False)


def test_a_wide_value_counts_as_what_it_takes() -> None:
    """A list of many small things takes many times its text, and is counted so."""
    folding = Fold(max_bytes=5_000_000)
    for entry in log(*[events.PartialResult(result=[[]] * 15_000) for _ in range(10)]):
        folding.apply_entry(entry)
    whole = [part for part in folding.state().partial_results if part.result != {"clipped": True}]
    assert 1 <= len(whole) <= 4


def test_an_open_question_is_never_given_up() -> None:
    """However much comes after it, a question stays one, and can be answered."""
    question = events.InputRequired(input_id="q", prompt=LONG, kind="choice", options=["a", "b"])
    entries = log(STARTED, question, *greedy(10))
    folding = Fold(max_bytes=100_000)
    for entry in entries:
        folding.apply_entry(entry)
    (open_,) = folding.state().open_inputs
    assert (open_.input_id, open_.kind, open_.prompt[-1]) == ("q", "choice", "…")
    for entry in log(events.InputReceived(input_id="q", by="b", value=LONG), start=len(entries) + 1):
        folding.apply_entry(entry)
    assert (folding.state().status, folding.state().open_inputs) == ("running", [])


def test_a_part_with_an_endless_name() -> None:
    """Parts that are mostly name are given up as a whole."""
    folding = Fold(max_bytes=500_000)
    for entry in log(*[events.ToolStart(call_id=f"{number}{LONG}", tool_name="t", params=1) for number in range(20)]):
        folding.apply_entry(entry)
    assert 1 <= len(folding.state().tools) <= 5


def test_a_text_of_which_the_end_was_not_kept_goes_back() -> None:
    """What is taken back of a text that was too long, or given up, is known although it was not kept."""
    text = Text()
    for seq in range(1, 8):
        text.add(seq, LONG)
    assert (len(text), text.truncated) == (MAX_TEXT + 1, True)
    assert text.void(6), "the last chunk was told to others"
    assert not text.void(6)
    assert text.truncated
    assert text.void(2)
    assert str(text) == LONG * 2
    text.clip()
    assert (str(text), text.truncated) == ("x" * 199 + "…", True)
    assert text.void(1)
    assert text.truncated
    assert text.void(0)
    assert (str(text), text.truncated) == ("", False)


def test_an_event_of_the_future() -> None:
    """An entry this version does not understand moves the cursor and nothing else."""
    future = Entry(1002, 2, b"hologram", b'{"type":"hologram","executionId":"ex_1","ts":1,"data":{}}')
    state = fold([*log(delta("a")), future])
    assert (state.cursor, state.text) == ("1002-2", "a")


def test_a_snapshot_stays() -> None:
    """A state once given does not change when the fold goes on."""
    folding = Fold()
    entries = recorded("every_event.jsonl")
    for entry in entries[:20]:
        folding.apply_entry(entry)
    state = folding.state()
    before = encoded(state)
    for entry in entries[20:]:
        folding.apply_entry(entry)
    assert encoded(state) == before
    assert folding.state() != state


def spoken(event: events.Event, seq: int, **keys: str) -> Entry:
    """An entry whose envelope says whose the event is."""
    json_ = envelope.envelope(
        event.type, "ex_1", envelope.encode_data(event), ts=1, keys=envelope.envelope_keys(**keys)
    )
    return Entry(1, seq, event.type.encode(), json_)


def test_what_a_sub_agent_says_in_a_call_is_no_part_of_the_text() -> None:
    """It is among the messages, with its call; what only has a parent, as an activity's text, is the execution's."""
    inner = {"agent": "researcher", "parent_id": "c1"}
    state = fold(
        [
            spoken(delta("inner", "a"), 1, **inner),
            spoken(delta("activity's ", "b"), 2, parent_id="c2"),
            spoken(delta("boss's", "c"), 3, agent="boss"),
            spoken(events.MessageComplete(message_id="a"), 4, **inner),
            spoken(events.MessageComplete(message_id="d", text="whole"), 5, **inner),
        ]
    )
    assert state.text == "activity's boss's"
    assert {m.message_id: m.parent_id for m in state.messages} == {"a": "c1", "b": None, "c": None, "d": "c1"}


def test_a_result_is_told_by_the_execution_itself() -> None:
    """What sub-agents say beside it makes no difference."""
    folding = Fold()
    inner = {"agent": "researcher", "parent_id": "c1"}
    end = events.ExecutionComplete(result="It rains.", duration=1.0)
    for entry in (
        spoken(delta("inner", "a"), 1, **inner),
        spoken(delta("It rains.", "b"), 2),
        spoken(end, 3),
    ):
        folding.apply_entry(entry)
    assert folding.is_result_shown()


def test_a_message_that_was_given_up_is_still_the_sub_agents() -> None:
    """Its text goes, its call stays, unless that is what is long."""
    folding = Fold(max_bytes=10_000)
    calls = ["c" * 300, "c" * 5_000]
    for seq in range(1, 5):
        inner = {"agent": "researcher", "parent_id": calls[seq // 3]}
        folding.apply_entry(spoken(delta("x" * 4_000, f"m{seq}"), seq, **inner))
    folding.shrink(1)
    state = folding.state()
    assert state.text == ""
    assert [(m.parent_id, m.truncated) for m in state.messages[:2]] == [(calls[0], True)] * 2
    assert all(0 < len(m.parent_id or "") < 1_000 for m in state.messages)
