"""An execution as A2A tells it: order and shape of updates, the task at every place, the same for every version."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from broker.live.rendering import RenderedView
from broker.protocols.a2a import bounds, renderer
from broker.protocols.a2a.bounds import MAX_HISTORY
from broker.protocols.a2a.codec import Codec, encode
from broker.protocols.a2a.model import Artifact, ArtifactUpdate, StatusUpdate, Task, TextPart, Update
from broker.protocols.a2a.projection import TaskProjection
from broker.protocols.a2a.renderer import PLAIN, SettledTask, TaskStream, rpc_result
from broker.protocols.a2a.simple import Simple
from broker.protocols.a2a.task_view import Opening
from broker.protocols.a2a.v03 import V03
from broker.protocols.a2a.v03_rest import V03Rest
from broker.protocols.a2a.v10 import V10
from emitter import events
from emitter.events import (
    EXPIRED,
    Event,
    ExecutionCancelled,
    ExecutionComplete,
    ExecutionError,
    ExecutionQueued,
    ExecutionStarted,
    ExecutionSuperseded,
    InputReceived,
    InputRequired,
    MessageComplete,
    MessageDelta,
    PartialResult,
    Progress,
    Status,
    Thinking,
)
from emitter.wire import envelope
from emitter.wire.entries import Entry
from tests.broker.executions.test_state import recorded
from tests.edges import SseReader
from tests.protocols.made_up import MadeUp

GOLDEN = Path(__file__).parents[1] / "golden"
TASK = "ex_1"
OPENING = Opening(TASK, "ctx_1")
QUEUED = ExecutionQueued(task="t", agent="a")
STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
DONE = ExecutionComplete(result=None, duration=1.0)
CODECS: dict[str, Codec] = {"0.3": V03(), "1.0": V10(), "0.3_rest": V03Rest(), "simple": Simple()}


def entries(*told: Event, first: int = 1) -> list[Entry]:
    found = []
    for seq, event in enumerate(told, first):
        type_ = envelope.event_type(event)
        json_ = envelope.envelope(type_, TASK, envelope.encode_data(event), ts=seq)
        found.append(Entry(1_000 + seq, seq, type_.encode(), json_))
    return found


def tell(story: TaskProjection, log: list[Entry]) -> list[Update]:
    return [update for entry in log for update in story.take(entry)]


def shown(data: bytes) -> list[Any]:
    return [json.loads(frame.data) for frame in SseReader().feed(data) if frame.data is not None]


def merged(updates: list[Update], artifacts: dict[str, Artifact] | None = None) -> dict[str, list[Any]]:
    """What a client that follows the rules has of the artifacts; it refuses what they forbid."""
    found = {id_: list(artifact.parts) for id_, artifact in (artifacts or {}).items()}
    for update in updates:
        if isinstance(update, ArtifactUpdate):
            id_ = update.artifact.artifact_id
            assert update.artifact.parts, "an artifact has parts"
            assert not update.append or id_ in found, "nothing is added to what is not there"
            found[id_] = [*(found[id_] if update.append else []), *update.artifact.parts]
    return {id_: _joined(parts) for id_, parts in found.items()}


def _joined(parts: list[Any]) -> list[Any]:
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    others = [part for part in parts if not isinstance(part, TextPart)]
    return ["".join(texts), *others] if texts else others


def artifacts_of(task: Task) -> dict[str, list[Any]]:
    return {artifact.artifact_id: _joined(list(artifact.parts)) for artifact in task.artifacts}


def without_void(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {id_: parts for id_, parts in found.items() if parts != [""]}


# --- whole logs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
def test_golden(name: str) -> None:
    """A log with every event type is shown in exactly these bytes."""
    wrap = rpc_result("r-1") if name in ("0.3", "1.0") else PLAIN
    stream = TaskStream(TaskProjection(OPENING), CODECS[name], wrap, is_followed=True)
    data = RenderedView(stream, chunked=False).render_all(recorded("every_event.jsonl"))
    assert data.decode("ascii") == (GOLDEN / f"a2a_{name}.txt").read_text()
    assert stream.is_over
    assert b"\r" not in data


@pytest.mark.parametrize("name", CODECS)
def test_pieces(name: str) -> None:
    """However the log is cut into deliveries, the bytes are the same."""
    log = recorded("every_event.jsonl")
    whole = TaskStream(TaskProjection(OPENING), CODECS[name], is_followed=True).render(log)
    single = TaskStream(TaskProjection(OPENING), CODECS[name], is_followed=True)
    assert b"".join(single.render([entry]) for entry in log) == whole


def test_updates_come_to_the_task() -> None:
    """At every place, the task as it stands has the artifacts, state and question that its updates come to."""
    story, updates = TaskProjection(OPENING), []
    for entry in recorded("every_event.jsonl"):
        updates += story.take(entry)
        task = story.task()
        assert without_void(merged(updates)) == artifacts_of(task)
        last = next(update for update in reversed(updates) if isinstance(update, StatusUpdate))
        assert last.status.state == task.status.state
        if task.status.state == "input-required":
            assert last.status.message == task.status.message
    assert story.task().status.state == "completed"


def test_from_every_place() -> None:
    """A client that takes the task at any place and then what follows has in the end what one has that saw it all."""
    log = recorded("every_event.jsonl")
    whole = TaskProjection(OPENING)
    tell(whole, log)
    for place in range(1, len(log)):
        story = TaskProjection(OPENING)
        tell(story, log[:place])
        had = {artifact.artifact_id: artifact for artifact in story.task().artifacts}
        rest = tell(story, log)  # what it was told already it does not tell again
        assert [update.metadata["generation"] for update in rest] == sorted(
            update.metadata["generation"] for update in rest
        )
        assert all(update.metadata["generation"] > place for update in rest)
        assert without_void(merged(rest, had)) == artifacts_of(whole.task())


@pytest.mark.parametrize("first", range(2, 47))
def test_a_trimmed_head(first: int) -> None:
    """A log whose head is gone is told from where it begins: the task first, one end at the end."""
    log = recorded("every_event.jsonl")[first - 1 :]
    stream = TaskStream(TaskProjection(Opening(TASK, "c", text="what was asked")), V10(), is_followed=True)
    found = shown(stream.render(log))
    assert list(found[0]) == ["task"]
    assert all("task" not in each for each in found[1:])
    assert found[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


# --- the stream's order ----------------------------------------------------------------------------------------------


def test_the_task_comes_first() -> None:
    """The first frame is the task with the user's message; its id is the client's own."""
    stream = TaskStream(TaskProjection(OPENING._replace(message_id="m-1")), V10())
    first, second = shown(stream.render(entries(QUEUED, STARTED)))
    history = first["task"]["history"]
    assert [(said["messageId"], said["role"], said["parts"]) for said in history] == [
        ("m-1", "ROLE_USER", [{"text": "t"}])
    ]
    assert first["task"]["status"]["state"] == "TASK_STATE_SUBMITTED"
    assert second["statusUpdate"]["status"]["state"] == "TASK_STATE_WORKING"


@pytest.mark.parametrize(
    ("end", "state"),
    [(DONE, "completed"), (ExecutionError(error="it broke"), "failed"), (ExecutionCancelled(reason="no"), "canceled")],
)
def test_the_end(end: Event, state: str) -> None:
    """The last update is final and says why; nothing follows it."""
    stream = TaskStream(TaskProjection(OPENING), V03())
    found = shown(stream.render([*entries(QUEUED, STARTED, end), *entries(Thinking(thought="late"), first=4)]))
    assert [each.get("final") for each in found] == [None, False, True]
    assert found[-1]["status"]["state"] == state
    assert stream.is_over
    said = found[-1]["status"].get("message", {}).get("parts", [{}])[0].get("text")
    assert said == {"completed": None, "failed": "it broke", "canceled": "no"}[state]


def test_an_end_alone() -> None:
    """A log of which only the end is left still gives a task and its final update."""
    stream = TaskStream(TaskProjection(OPENING), V03())
    task, last = shown(stream.render(entries(DONE, first=9)))
    assert task["kind"] == "task"
    assert last["final"]
    assert stream.is_over


def test_a_question_ends_the_stream() -> None:
    """A question is the stream's final update; nothing after it is shown."""
    stream = TaskStream(TaskProjection(OPENING), V03())
    question = InputRequired(input_id="i", prompt="Go on?", kind="approval")
    found = shown(stream.render(entries(QUEUED, STARTED, question, Thinking(thought="meanwhile"))))
    assert [each.get("final") for each in found] == [None, False, True]
    assert found[-1]["status"]["message"]["parts"][0]["text"] == "Go on?"
    assert stream.is_over


def test_a_question_that_was_answered_does_not() -> None:
    """On the way through the past, questions that have their answers end nothing and are not final; others do."""
    log = entries(
        QUEUED,
        InputRequired(input_id="i", prompt="?", kind="text"),
        InputReceived(input_id="i", by="alice", value="x"),
        InputRequired(input_id="j", prompt="?", kind="text"),
    )
    stream = TaskStream(TaskProjection(OPENING), V03(), answered=frozenset({"i"}))
    assert [each.get("final") for each in shown(stream.render(log))] == [None, False, False, True]


def test_a_followed_task_goes_on() -> None:
    """A stream that is followed to the end is not ended by questions, and says so."""
    stream = TaskStream(TaskProjection(OPENING), V03(), is_followed=True)
    log = entries(QUEUED, InputRequired(input_id="i", prompt="?", kind="text"), Thinking(thought="meanwhile"))
    assert [each.get("final") for each in shown(stream.render(log))] == [None, False, False]
    assert not stream.is_over


def test_a_stream_that_begins_later() -> None:
    """A story that was told before begins with the task as it stood there, at once, and goes on with what follows."""
    log = entries(QUEUED, STARTED, Thinking(thought="one"), Thinking(thought="two"))
    story = TaskProjection(OPENING)
    tell(story, log[:3])
    stream = TaskStream(story, V10())
    (task,) = shown(stream.open())
    assert task["task"]["metadata"]["generation"] == 3
    (after,) = shown(stream.render(log))
    assert after["statusUpdate"]["metadata"]["generation"] == 4


def test_ids() -> None:
    """Of an entry's frames only the last has its id, so that nobody who resumes misses one of them."""
    log = entries(QUEUED, ExecutionComplete(result={"a": 1}, duration=1.0))
    frames = SseReader().feed(TaskStream(TaskProjection(OPENING), V10()).render(log))
    assert [(frame.id, next(iter(json.loads(frame.data or "")))) for frame in frames] == [
        ("1001-1", "task"),
        (None, "artifactUpdate"),
        ("1002-2", "statusUpdate"),
    ]


@pytest.mark.parametrize("id_", [1, "a", None, 1.5, "\u2028"])
def test_rpc_ids(id_: Any) -> None:
    """The request's id comes back as it was, type and all."""
    assert json.loads(rpc_result(id_)({"x": 1})) == {"jsonrpc": "2.0", "id": id_, "result": {"x": 1}}


# --- what is told ----------------------------------------------------------------------------------------------------


def test_streamed_text() -> None:
    """Text comes in chunks of one artifact: the first takes its place, the rest are added, the last says so."""
    log = entries(STARTED, MessageDelta(message_id="m", delta="a"), MessageDelta(message_id="m", delta="b"),
                  MessageComplete(message_id="m"))  # fmt: skip
    _, first, second, end = tell(TaskProjection(OPENING), log)
    chunks = [(each.artifact.parts, each.append, each.last) for each in (first, second, end)]
    assert chunks == [((TextPart(text="a"),), False, False), ((TextPart(text="b"),), True, False),
                      ((TextPart(text=""),), True, True)]  # fmt: skip


@pytest.mark.parametrize("streamed", [["wrong"], []])
def test_text_that_was_not_streamed(streamed: list[str]) -> None:
    """A completion whose text is another than the chunks', or that had none, takes their place."""
    deltas = [MessageDelta(message_id="m", delta=delta) for delta in streamed]
    updates = tell(TaskProjection(OPENING), entries(STARTED, *deltas, MessageComplete(message_id="m", text="right")))
    assert merged(updates) == {"message:m": ["right"]}
    assert not updates[-1].append
    assert updates[-1].last


def test_a_lost_attempt() -> None:
    """What a lost attempt made is taken back, and what comes again under the same id begins anew."""
    lost = entries(QUEUED, STARTED, MessageDelta(message_id="m", delta="old"), PartialResult(result=1))
    over = entries(ExecutionSuperseded(from_seq=1, attempt=2), first=5)
    story = TaskProjection(OPENING)
    updates = tell(story, lost + over)
    assert set(merged(updates)) == {"message:m", "partial:1004-4"}
    assert without_void(merged(updates)) == {}
    assert story.task().artifacts == ()
    assert updates[-1].status.state == "submitted"
    again = tell(story, entries(MessageDelta(message_id="m", delta="new"), first=6))
    assert not again[0].append
    assert without_void(merged(updates + again)) == {"message:m": ["new"]}


def test_what_stays_of_a_lost_attempt() -> None:
    """What was before the void part stays, in full."""
    log = entries(STARTED, MessageDelta(message_id="m", delta="kept"), MessageDelta(message_id="m", delta=" lost"),
                  ExecutionSuperseded(from_seq=2, attempt=2))  # fmt: skip
    story = TaskProjection(OPENING)
    assert merged(tell(story, log)) == {"message:m": ["kept"]}
    assert artifacts_of(story.task()) == {"message:m": ["kept"]}


def test_while_it_waits() -> None:
    """What an agent says while it waits does not hide the question."""
    question = InputRequired(input_id="i", prompt="Go on?", kind="text")
    updates = tell(TaskProjection(OPENING), entries(STARTED, question, Status(status="busy", message="Looking")))
    waiting, meanwhile = updates[1], updates[2]
    assert meanwhile.status.state == "input-required"
    assert meanwhile.status.message == waiting.status.message
    assert json.loads(encode(meanwhile.metadata["data"])) == {"status": "busy", "message": "Looking"}


def test_history() -> None:
    """Questions and answers are history once they were answered; an expired question has no answer; the latest count
    for a limit."""
    story = TaskProjection(OPENING)
    ask = [InputRequired(input_id=name, prompt=name + "?", kind="text") for name in "ij"]
    tell(story, entries(QUEUED, ask[0], ask[1], InputReceived(input_id="i", by="alice", value="x"),
                        InputReceived(input_id="j", by=EXPIRED)))  # fmt: skip
    said = [(message.role, message.parts[0].text) for message in story.task().history]  # type: ignore[union-attr]
    assert said == [("user", "t"), ("agent", "i?"), ("user", "x"), ("agent", "j?")]
    assert [len(story.task(history_length=length).history) for length in (0, 1, 4, 9)] == [0, 1, 4, 4]
    assert story.task(history_length=1).history == story.task().history[-1:]
    assert story.answered == {"i", "j"}
    assert story.task().status.state == "working"


def test_history_is_bounded() -> None:
    """A task that asks for ever keeps its first message and the latest."""
    asked = itertools.chain.from_iterable(
        (InputRequired(input_id=f"i{n}", prompt="?", kind="text"), InputReceived(input_id=f"i{n}", by="a", value="x"))
        for n in range(MAX_HISTORY)
    )
    story = TaskProjection(OPENING)
    tell(story, entries(QUEUED, *asked))
    history = story.task().history
    assert len(history) == MAX_HISTORY
    assert history[0].role == "user"
    assert history[0].parts == (TextPart(text="t"),)


def test_two_open_questions() -> None:
    """With one of two answered the task still waits, and shows the other."""
    ask = [InputRequired(input_id=name, prompt=name + "?", kind="text") for name in "ij"]
    story = TaskProjection(OPENING)
    tell(story, entries(QUEUED, *ask, InputReceived(input_id="i", by="alice", value="x")))
    status = story.task().status
    assert status.state == "input-required"
    assert status.message is not None
    assert status.message.message_id == f"{TASK}.j"


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Thinking(thought="x", visible=False), 0),
        (events.ThinkingDelta(message_id="m", delta="x"), 0),
        (events.UsageTotals(input_tokens=1, output_tokens=1, total_tokens=2), 0),
        (Progress(progress=5), 1),
        (events.Custom(name="acme.x", data={"a": 1}), 1),
    ],
)
def test_what_is_left_out(event: Event, expected: int) -> None:
    """Hidden and streamed thoughts are not told, usage comes with the end; every other event is."""
    assert len(tell(TaskProjection(OPENING), entries(STARTED, event))) == 1 + expected


def test_usage_comes_with_the_end() -> None:
    """The final update and the task have the totals and the duration."""
    story = TaskProjection(OPENING)
    usage = events.UsageTotals(input_tokens=1, output_tokens=2, total_tokens=3)
    *_, last = tell(story, entries(STARTED, usage, ExecutionComplete(result=None, duration=1.5, tokens_used=3)))
    assert last.metadata["usage"]["totalTokens"] == 3
    assert (last.metadata["duration"], last.metadata["tokensUsed"]) == (1.5, 3)
    assert (story.task().metadata or {})["usage"]["totalTokens"] == 3


@pytest.mark.parametrize(
    ("result", "found"), [(None, False), ("hello", False), ("bye", True), ({"a": 1}, True), ([1], True), (0, True)]
)
def test_the_result(result: Any, found: bool) -> None:
    """The result is an artifact, unless there is none or its text was streamed."""
    story = TaskProjection(OPENING)
    done = ExecutionComplete(result=result, duration=1.0)
    updates = tell(story, entries(STARTED, MessageDelta(message_id="m", delta="hello"), done))
    assert ("runcast:result" in merged(updates)) is found
    assert ("runcast:result" in artifacts_of(story.task())) is found


def test_names_of_artifacts() -> None:
    """An agent's artifact can never be taken for one of ours."""
    names = ["runcast:result", "page", "message:m"]
    made = [events.Artifact(artifact_id=name, media_type="text/plain", text=name) for name in names]
    updates = tell(TaskProjection(OPENING), entries(STARTED, *made, MessageDelta(message_id="m", delta="x")))
    assert set(merged(updates)) == {"artifact:runcast:result", "page", "artifact:message:m", "message:m"}


def test_the_whole_of_an_artifact() -> None:
    """For clients of 0.3 over REST, some of which cannot add, the last chunk has all of it."""
    log = entries(
        STARTED,
        MessageDelta(message_id="m", delta="ab"),
        MessageDelta(message_id="m", delta="cd"),
        MessageComplete(message_id="m"),
        events.Artifact(artifact_id="p", media_type="text/plain", text="x"),
        events.Artifact(artifact_id="p", media_type="text/plain", text="y", append=True, last=True),
    )
    wire_ = V03Rest()
    found: dict[str, str] = {}
    for update in tell(TaskProjection(OPENING), log)[1:]:
        chunk = wire_.update(update)["artifactUpdate"]
        found[chunk["artifact"]["artifactId"]] = chunk["artifact"]["parts"][0]["text"]  # as if `append` were not there
    assert found == {"message:m": "abcd", "p": "xy"}


def test_heartbeats() -> None:
    """Between frames there is a comment, between the bytes of a document a blank, well within the 5 s after which the
    default client for Python gives up."""
    stream = TaskStream(TaskProjection(OPENING), V10())
    document = SettledTask(TaskProjection(OPENING), lambda _: b"{}")
    assert (stream.heartbeat, document.heartbeat) == (b": hb\n", b" ")
    assert max(stream.heartbeat_seconds, document.heartbeat_seconds) <= 2.5


# --- frames that are made of patterns --------------------------------------------------------------------------------


class Plain:
    """In the place of patterns: there are none."""

    def __init__(self, *_: Any) -> None: ...

    def frame(self, _: Any) -> bytes:
        return b""


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("seed", range(12))
def test_patterns(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that was made of a pattern is the same as one that was made of its event, whatever the event holds, and
    whatever stands in its ids: percent signs, or what looks like a mark."""
    dice = MadeUp(seed, ids=7, more=["%(text)b", "100 %", "\ue000text\ue000", "8765432109876543"])
    told = dice.log(40) + [
        entry._replace(seq=entry.seq + 100, ms=2_000 + entry.seq) for entry in recorded("every_event.jsonl")
    ]
    told.sort(key=lambda entry: entry.seq)
    for entries_ in (told, dice.log(200)):
        made = TaskStream(TaskProjection(OPENING), CODECS[name], rpc_result(1), is_followed=True)
        with monkeypatch.context() as patch:
            patch.setattr(renderer, "Patterns", Plain)
            plain = TaskStream(TaskProjection(OPENING), CODECS[name], rpc_result(1), is_followed=True)
        assert isinstance(plain._patterns, Plain)
        for entry in entries_:
            assert made.render([entry]) == plain.render([entry]), entry


# --- what is not kept ------------------------------------------------------------------------------------------------


def test_what_was_cut_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that does not have all that was said has marks: on artifacts that are shorter, and where messages of its
    history are missing."""
    long = events.MessageDelta(message_id="m", delta="x" * 60_000)
    made = events.Artifact(artifact_id="a", media_type="t", text="y" * 60_000, append=True)
    log = entries(STARTED, *[long] * 5, *[made] * 5, MessageDelta(message_id="short", delta="z"))
    story = TaskProjection(OPENING)
    tell(story, log)
    marks = {artifact.artifact_id: artifact.metadata for artifact in story.task().artifacts}
    assert marks == {"message:m": {"truncated": True}, "a": {"truncated": True}, "message:short": None}
    monkeypatch.setattr(bounds, "MAX_HISTORY_BYTES", 1_000)
    story = TaskProjection(OPENING)
    asked = InputRequired(input_id="i", prompt="p" * 2_000, kind="text")
    tell(story, entries(QUEUED, asked, InputReceived(input_id="i", by="b", value="v")))
    task = story.task()
    assert (task.metadata or {})["historyTruncated"] is True
    assert [said.role for said in task.history] == ["user", "user"]
    assert "historyTruncated" not in (TaskProjection(OPENING).task().metadata or {})


@pytest.mark.parametrize("kind", ["message", "partial", "artifact"])
def test_a_task_of_too_many_artifacts_says_so(kind: str) -> None:
    """Of more messages, partial results or artifacts than are kept the newest are there, and the task says that there
    were more."""
    make: dict[str, Any] = {
        "message": lambda n: events.MessageComplete(message_id=str(n), text="x"),
        "partial": lambda n: PartialResult(result=n),
        "artifact": lambda n: events.Artifact(artifact_id=str(n), media_type="t", text="x", last=True),
    }
    for count, mark in ((200, None), (201, True)):
        story = TaskProjection(OPENING)
        tell(story, entries(STARTED, *(make[kind](number) for number in range(count)), DONE))
        task = story.task()
        assert (len(task.artifacts), (task.metadata or {}).get("artifactsTruncated")) == (200, mark)


def test_a_task_in_little_room() -> None:
    """A task is told in as little room as it is given: the latest is whole, what is older is marked."""
    made = [events.Artifact(artifact_id=f"a{n}", media_type="t", text=f"{n}" * 5_000, last=True) for n in range(10)]
    values = [PartialResult(result={"a": ["x" * 50] * 200}) for _ in range(3)]
    story = TaskProjection(OPENING, max_bytes=60_000)
    tell(story, entries(STARTED, *values, *made))
    task = story.task()
    assert len(encode(V10().task(task))) < 60_000
    assert task.artifacts[-1].parts == (TextPart(text="9" * 5_000, media_type="t"),)
    assert task.artifacts[-1].metadata is None
    assert [artifact.parts[0].data for artifact in task.artifacts[:3]] == [{"clipped": True}] * 3  # type: ignore[union-attr]
    assert task.artifacts[3].metadata == {"truncated": True}


def test_after_much_else_updates_still_come_to_the_task() -> None:
    """A stream that had to give up what it knew of an artifact sends it again rather than adds to what it does not
    know: its client has what the log says, or a mark."""
    log = entries(
        STARTED,
        MessageDelta(message_id="m", delta="begun "),
        MessageDelta(message_id="kept", delta="lost" * 100),
        *[events.Artifact(artifact_id=f"a{n}", media_type="t", text="x" * 60_000) for n in range(12)],
        MessageDelta(message_id="m", delta="and ended"),
        MessageComplete(message_id="m", text="begun and ended"),
        MessageDelta(message_id="kept", delta="more"),
        ExecutionSuperseded(from_seq=16, attempt=2),
    )
    story = TaskProjection(OPENING)
    updates = tell(story, log[:1])
    story.forget()
    for entry in log[1:]:
        updates += story.take(entry)
    found = merged(updates)
    assert found["message:m"] == ["begun and ended"]
    assert found["message:kept"] == ["lost" * 49 + "los…"]
    marked = [update.artifact for update in updates if isinstance(update, ArtifactUpdate)][-1]
    assert (marked.artifact_id, marked.metadata) == ("message:kept", {"truncated": True})


# --- the task alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [DONE, InputRequired(input_id="i", prompt="?", kind="text")])
def test_a_settled_task(last: Event) -> None:
    """The document comes when the task has ended or asks, once, and is JSON with the blanks before it."""
    rendering = SettledTask(TaskProjection(OPENING), lambda story: encode(V10().sent(story.task())))
    log = entries(QUEUED, STARTED, last)
    data = rendering.open() + rendering.heartbeat + rendering.render(log[:2]) + rendering.heartbeat
    assert not rendering.is_over
    data += rendering.render(log[2:])
    assert rendering.is_over
    assert json.loads(data)["task"]["status"]["state"] in ("TASK_STATE_COMPLETED", "TASK_STATE_INPUT_REQUIRED")


def test_a_task_that_its_edge_waits_for_no_longer() -> None:
    """The document is the task as it is: its client knows at least what it started."""
    rendering = SettledTask(TaskProjection(OPENING), lambda story: encode(V10().sent(story.task())))
    data = rendering.heartbeat + rendering.render(entries(QUEUED, STARTED)) + rendering.farewell()
    assert rendering.is_over
    assert json.loads(data)["task"]["status"]["state"] == "TASK_STATE_WORKING"


def test_an_answered_task_waits_on() -> None:
    """After an answer, the question that it was for does not settle the task again."""
    log = entries(
        QUEUED, InputRequired(input_id="i", prompt="?", kind="text"), InputReceived(input_id="i", by="a", value="x")
    )
    story = TaskProjection(OPENING)
    tell(story, log)
    rendering = SettledTask(story, lambda story: encode(V10().sent(story.task())))
    assert rendering.render(log) == b""
    assert rendering.render(entries(Thinking(thought="x"), first=4)) == b""
    assert rendering.render(entries(DONE, first=5))
