"""What holds for every renderer, of whatever protocol: its work and its output depend on the event and not on what came
before, it keeps little, it goes when its viewer goes, and no event of any log makes it fail."""

from __future__ import annotations

import gc
import itertools
import json
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest

from broker.executions.fold import Fold
from broker.live.rendering import Rendering
from broker.protocols.a2a.codec import Codec, encode
from broker.protocols.a2a.projection import TaskProjection
from broker.protocols.a2a.renderer import SettledTask, TaskStream
from broker.protocols.a2a.simple import Simple
from broker.protocols.a2a.task_view import Opening
from broker.protocols.a2a.v03 import V03
from broker.protocols.a2a.v03_rest import V03Rest
from broker.protocols.a2a.v10 import V10
from broker.protocols.ag_ui.renderer import Known, View
from broker.protocols.ag_ui.renderer import Renderer as AgUi
from broker.protocols.ai_sdk.approvals import ALL_ANSWERED
from broker.protocols.ai_sdk.chunk_items import ChunkItems, Chunks
from broker.protocols.ai_sdk.renderer import Renderer as AiSdk
from broker.protocols.durable_streams.items import EventItems
from broker.protocols.durable_streams.renderer import Renderer as DurableStreams
from broker.protocols.mcp.dialects import Modern
from broker.protocols.mcp.questions import Asked
from broker.protocols.mcp.renderer import CallRenderer, Held
from broker.protocols.mcp.versions import Capabilities
from broker.protocols.responses.held import Held as HeldResponse
from broker.protocols.responses.ids import ResponseId
from broker.protocols.responses.renderer import Renderer as Responses
from broker.protocols.responses.response import About
from broker.protocols.times import timestamp
from emitter import events
from emitter.wire import envelope
from emitter.wire.entries import Entry
from emitter.wire.ids import START
from tests.edges import SseReader
from tests.protocols.made_up import EXECUTION, MadeUp

MEGABYTE = 1024 * 1024
STARTED = events.ExecutionStarted(task="t", started_at=1, attempt=1)
LONG = "x" * 60_000


def task_stream(version: Codec) -> Callable[[], Rendering]:
    return lambda: TaskStream(TaskProjection(Opening(EXECUTION, "c")), version, is_followed=True)


def settled() -> Rendering:
    return SettledTask(TaskProjection(Opening(EXECUTION, "c")), lambda story: encode(V10().sent(story.task())))


def ag_ui() -> Rendering:
    return AgUi(View(execution_id=EXECUTION, thread_id="t", run_id="r", known=Known(seq=10**6)))  # no question ends it


def mcp() -> Rendering:
    held = Held(execution_id=EXECUTION, asked=Asked(Capabilities(), "", is_modern=True), progress_token="p")
    return CallRenderer(held, Modern(1, lambda _: "state"))


STREAMS: dict[str, Callable[[], Rendering]] = {
    "ag_ui": ag_ui,
    "mcp": mcp,
    "durable_streams": lambda: DurableStreams(EventItems(START)),
    "durable_streams chunks": lambda: DurableStreams(ChunkItems(Chunks(EXECUTION), 0)),
    "responses": lambda: Responses(About(id=ResponseId(EXECUTION))),
    "responses after": lambda: Responses(About(id=ResponseId(EXECUTION, 1))),
    "responses held": lambda: HeldResponse(About(id=ResponseId(EXECUTION)), 60),
    "ai_sdk": lambda: AiSdk(EXECUTION),
    "ai_sdk approvals": lambda: AiSdk(EXECUTION, approvals=ALL_ANSWERED),
    "a2a 1.0": task_stream(V10()),
    "a2a 0.3": task_stream(V03()),
    "a2a 0.3 rest": task_stream(V03Rest()),
    "a2a simple": task_stream(Simple()),
}
EVERY = pytest.mark.parametrize("name", STREAMS)
DIFFERENT = pytest.mark.parametrize("name", ["ag_ui", "ai_sdk", "mcp", "responses", "a2a 1.0", "a2a 0.3 rest"])


def entries(told: Sequence[events.Event], first: int = 1) -> list[Entry]:
    found = []
    for seq, event in enumerate(told, first):
        name = envelope.event_type(event)
        json_ = envelope.envelope(name, EXECUTION, envelope.encode_data(event), ts=seq, max_bytes=0)
        found.append(Entry(1_000 + seq, seq, name.encode(), json_))
    return found


# --- work and output -------------------------------------------------------------------------------------------------


def plan(phases: int) -> list[events.Event]:
    named = [events.Phase(id=f"p{number}", name="n") for number in range(phases)]
    return [events.PlanCreated(plan=events.Plan(goal="g", phases=named))]


def begins(names: Iterator[str]) -> list[events.Event]:
    return [events.PhaseStart(phase_id=name, phase_name="n") for name in itertools.islice(names, 600)]


def texts(count: int) -> list[events.Event]:
    return [events.MessageDelta(message_id=f"m{number}", delta=LONG) for number in range(count)]


def question(number: int) -> events.Event:
    return events.InputRequired(input_id=f"q{number}", prompt="p" * 100, kind="approval")


def specialists(count: int) -> list[events.Event]:
    return [events.SpecialistActivated(specialist=f"s{number}", task=LONG[:5_000]) for number in range(count)]


LAST = 100_000
"""An ordinal after all: a takeover from there on takes nothing back."""
HEAVY: dict[str, tuple[list[events.Event], list[events.Event]]] = {
    "phases of a long plan": (plan(2_200), begins(f"p{number}" for number in range(2_200))),
    "phases beside a long plan": (plan(2_200), begins(f"x{number}" for number in range(2_200))),
    "takeovers after many messages": (
        texts(200),
        [events.ExecutionSuperseded(from_seq=LAST, attempt=number) for number in range(2, 302)],
    ),
    "completions of a long message": (
        [events.MessageDelta(message_id="m", delta=LONG)] * 4,
        [events.MessageComplete(message_id="m")] * 300,
    ),
    "ends of a long artifact": (
        [events.Artifact(artifact_id="a", media_type="t", text=LONG, append=True)] * 4,
        [events.Artifact(artifact_id="a", media_type="t", text="x", append=True, last=True)] * 300,
    ),
    "questions": ([], [question(number) for number in range(2_000)]),
    "questions and answers": (
        [question(number) for number in range(199)],
        [events.InputReceived(input_id=f"q{number}", by="b") for number in range(199)],
    ),
    "takeovers that leave most of a message": (
        [events.MessageDelta(message_id="m", delta=LONG)],
        [
            events.MessageDelta(message_id="m", delta="x")
            if number % 2
            else events.ExecutionSuperseded(from_seq=2, attempt=2 + number)
            for number in range(1, 601)
        ],
    ),
    "what is said while a long question waits": (
        [events.InputRequired(input_id="q", prompt=LONG, kind="text")],
        [events.Status(status="s", message=str(number)) for number in range(600)],
    ),
    "changes of a specialist with a long task": (
        [events.SpecialistActivated(specialist="s", task=LONG)],
        [events.SpecialistComplete(specialist="s", summary=str(number)) for number in range(300)],
    ),
    "specialists beside many": (
        specialists(199),
        [events.SpecialistActivated(specialist=f"t{number}") for number in range(600)],
    ),
}
CASES = pytest.mark.parametrize("case", HEAVY)


@CASES
@EVERY
def test_what_is_said_of_an_event_is_about_the_event(name: str, case: str) -> None:
    """However much came before, what is sent of an event is in proportion to it."""
    before, told = HEAVY[case]
    log = entries([STARTED, *before, *told])
    renderer = STREAMS[name]()
    first = len(log) - len(told)
    renderer.open()
    for entry in log[: first + 1]:  # with the first of them, since it may close what came before
        renderer.render([entry])
    said = sum(len(renderer.render([entry])) for entry in log[first + 1 :])
    assert said <= 5 * sum(len(entry.json) for entry in log[first:]) + 2_000 * len(told) + 3 * MEGABYTE


@CASES
@DIFFERENT
def test_an_event_costs_what_it_changes(name: str, case: str) -> None:
    """However much came before, an event takes no more than a few times as long to render as with nothing before it."""
    before, told = HEAVY[case]
    alone, after = ([STARTED, *others, *told] for others in ([], before))
    ratios = [seconds(name, after, len(told)) / seconds(name, alone, len(told)) for _ in range(2)]
    assert min(ratios) < 20, "each of some hundred events looked at all that came before"


def seconds(name: str, told: Sequence[events.Event], count: int) -> float:
    """CPU seconds for the last `count` events; of the fastest of a few, since others use this machine."""
    log = entries(told)
    best = float("inf")
    for _ in range(2):
        renderer = STREAMS[name]()
        renderer.render(log[:-count])
        began = time.process_time()
        for entry in log[-count:]:
            renderer.render([entry])
        best = min(best, time.process_time() - began)
    return best


# --- memory ----------------------------------------------------------------------------------------------------------


def greedy() -> Iterator[events.Event]:
    """What would be kept, each time under another name."""
    for number in itertools.count():
        long = f"{number}-{LONG}"
        yield from (
            events.MessageDelta(message_id=f"m{number}", delta=LONG),
            events.MessageDelta(message_id=long, delta="x"),
            events.ThinkingDelta(message_id=long, delta="x"),
            events.ToolStart(call_id=f"c{number}", tool_name="t", params=[[]] * 15_000),
            events.ToolStart(call_id=long, tool_name="t", params=None),
            events.ToolProgress(call_id=f"c{number}", message=LONG),
            events.PhaseStart(phase_id=long, phase_name="n"),
            events.PhaseStart(phase_id=f"p{number}", phase_name=long),
            events.SpecialistActivated(specialist=f"s{number}", task=LONG),
            events.SpecialistActivated(specialist=long),
            events.PartialResult(result={"a": [{}] * 15_000}),
            events.Artifact(artifact_id=f"a{number}", media_type="t", text=LONG),
            events.Artifact(artifact_id=long, media_type="t", text="x"),
            events.InputRequired(input_id=f"q{number % 90}", prompt=LONG, kind="form", schema={"a": 1}),
            events.Status(status="s", message=LONG),
            events.Progress(progress=1, current_action=LONG),
        )


@pytest.mark.parametrize("name", ["ag_ui", "ai_sdk", "responses", "a2a 1.0", "a2a 0.3 rest", "a2a settled"])
def test_a_viewer_keeps_little(name: str) -> None:
    """Of a log of tens of megabytes a viewer keeps about as much as a socket's buffer or two."""
    told = itertools.islice(greedy(), 16 * 30)
    ends = events.InputRequired if name == "responses" else ()
    log = entries([STARTED, *(event for event in told if not isinstance(event, ends))])
    assert sum(len(entry.json) for entry in log) > 20 * MEGABYTE
    make = settled if name == "a2a settled" else STREAMS[name]
    make().render(log[:17])  # what is loaded once
    gc.collect()
    tracemalloc.start()
    try:
        renderer = make()
        for entry in log:
            renderer.render([entry])
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < (2.5 if name in ("ag_ui", "a2a settled") else 1) * MEGABYTE, f"{kept / MEGABYTE:.1f} MiB"


@pytest.mark.parametrize("name", [*STREAMS, "a2a settled", "fold"])
def test_what_a_viewer_kept_goes_with_it(name: str) -> None:
    """Nothing waits for the collector: a renderer is in no circle."""
    log = MadeUp(3).log(200, end=False)
    gc.collect()
    gc.disable()
    try:
        kept = weakref.ref(used(name, log))
        assert kept() is None
    finally:
        gc.enable()


def used(name: str, log: Sequence[Entry]) -> Any:
    if name == "fold":
        fold = Fold(EXECUTION, is_watched=True)
        for entry in log:
            fold.apply_entry(entry)
        return fold
    renderer = settled() if name == "a2a settled" else STREAMS[name]()
    renderer.open()
    renderer.render(log)
    return renderer


# --- any event -------------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("seed", range(12))
def test_no_event_makes_a_renderer_fail(name: str, seed: int) -> None:
    """Whatever is in a log, of this version or another, each frame is JSON, and the stream ends where the log does."""
    log = MadeUp(seed, ids=7).log(150)
    renderer = STREAMS[name]()
    data = renderer.open() + b"".join(renderer.render([entry]) for entry in log)
    frames = [frame.data or "" for frame in SseReader().feed(data) if frame.data is not None]
    assert all(json.loads(frame) is not None for frame in frames if frame != "[DONE]")
    assert renderer.is_over
    fold = Fold(EXECUTION)
    for entry in log:
        fold.apply_entry(entry)
    assert json.loads(msgspec.json.encode(fold.state()))["status"] in events.TERMINAL_STATES


@pytest.mark.parametrize("depth", [100, 125, 200, 600, 985])
@EVERY
def test_a_value_that_is_nested_deep(name: str, depth: int) -> None:
    """An old log may have values as deep as a decoder takes them: they are shown, what is too deep is marked, and the
    stream has its end."""
    value = b"[" * depth + b"]" * depth
    datas = [
        ("partial:result", b'{"result":%b}'),
        ("tool:start", b'{"callId":"c","toolName":"t","params":%b}'),
        ("input:required", b'{"inputId":"i","prompt":"p","kind":"form","schema":{"x":%b}}'),
        ("input:received", b'{"inputId":"i","by":"b","value":%b}'),
        ("artifact", b'{"artifactId":"a","mediaType":"t","data":%b,"last":true}'),
        ("custom:x", b'{"x":%b}'),
        ("execution:superseded", b'{"fromSeq":1,"attempt":2,"x":%b}'),
        ("execution:complete", b'{"duration":1,"result":%b}'),
    ]
    log = [
        Entry(seq, seq, type_.encode(), envelope.envelope(type_, EXECUTION, data % value, ts=seq))
        for seq, (type_, data) in enumerate(datas, 1)
    ]
    renderer = STREAMS[name]()
    data = renderer.open() + b"".join(renderer.render([entry]) for entry in log)
    assert renderer.is_over
    unescaped = data.replace(b"\\", b"")  # some values are texts that hold JSON
    is_exempt = name in ("a2a simple", "durable_streams", "responses after")
    assert (b'"clipped":true' in unescaped) is (depth > 125) or is_exempt
    fold = Fold(EXECUTION)
    for entry in log:
        fold.apply_entry(entry)
    assert msgspec.json.encode(fold.state())


@pytest.mark.parametrize("moment", [10**17, -(10**17), 253_402_300_800_000, 2**63 - 1])
@EVERY
def test_times_that_no_calendar_has(name: str, moment: int) -> None:
    """An old log may have any number as a time: what comes after it is shown all the same."""
    asked = b'{"inputId":"q","prompt":"p","kind":"approval","expiresAt":%d}' % moment
    question = Entry(5, 2, b"input:required", envelope.envelope("input:required", EXECUTION, asked, ts=moment))
    log = [*entries([STARTED]), question, *entries([events.ExecutionComplete(result=1, duration=1)], first=3)]
    renderer = AgUi(View(execution_id=EXECUTION, thread_id="t", run_id="r")) if name == "ag_ui" else STREAMS[name]()
    assert renderer.open() + renderer.render(log)
    assert renderer.is_over


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        (10**17, "9999-12-31T23:59:59.999Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (-(10**17), "0001-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_763_682_345_678, "2025-11-20T23:45:45.678Z"),
    ],
)
def test_timestamps(moment: int, shown: str) -> None:
    """What no calendar has is shown as the nearest that it has."""
    assert timestamp(moment) == shown
