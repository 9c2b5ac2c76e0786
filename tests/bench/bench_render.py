"""Rendering: what it costs to show an event in each protocol, as a multiple of a native frame in the same run.

A native frame is made once for all viewers of a log. So is what is rendered, for all viewers who are at one place and
have seen the same: what one viewer alone costs is what all of them cost, and then there is the part that is each
viewer's own, such as the id of its request. `json.loads` of the same events says how fast the machine was. Nothing here
does I/O.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from figures import Figure, Run, at_most, median

from broker.live.rendering import RenderedView, Rendering, Shared
from broker.live.view import StreamView
from broker.protocols.a2a.projection import TaskProjection
from broker.protocols.a2a.renderer import TaskStream, rpc_result
from broker.protocols.a2a.simple import Simple
from broker.protocols.a2a.task_view import Opening
from broker.protocols.a2a.v03 import V03
from broker.protocols.a2a.v10 import V10
from broker.protocols.ag_ui.renderer import Renderer as AgUi
from broker.protocols.ag_ui.renderer import View
from broker.protocols.ai_sdk.renderer import Renderer as AiSdk
from broker.protocols.durable_streams.items import EventItems
from broker.protocols.durable_streams.renderer import Renderer as DurableStreams
from broker.protocols.mcp.dialects import Modern
from broker.protocols.mcp.questions import Asked
from broker.protocols.mcp.renderer import CallRenderer, Held
from broker.protocols.mcp.versions import Capabilities
from broker.protocols.responses.ids import ResponseId
from broker.protocols.responses.renderer import Renderer as Responses
from broker.protocols.responses.response import About
from emitter import events
from emitter.wire import envelope
from emitter.wire.entries import Entry
from emitter.wire.ids import START

RECORDED = Path(__file__).parents[1] / "golden" / "every_event.jsonl"
TASK = "ex_1"
CHUNKS = ("the agent says what ", "it found in the ", "files, and why it ", "matters for the next ", "step. ")
ENDS = (
    events.ExecutionQueued,
    events.ExecutionStarted,
    events.ExecutionSuperseded,
    events.ExecutionComplete,
    events.InputRequired,
    events.InputReceived,
)
Take = Callable[[Entry], Any]


# --- what is shown ---------------------------------------------------------------------------------------------------


def numbered(told: Sequence[events.Event]) -> list[Entry]:
    found = []
    for seq, event in enumerate(told, 1):
        type_ = envelope.event_type(event)
        json_ = envelope.envelope(type_, TASK, envelope.encode_data(event), ts=1_763_682_345_000 + seq)
        found.append(Entry(1_763_682_345_000 + seq, seq, type_.encode(), json_))
    return found


def begun() -> list[events.Event]:
    return [events.ExecutionQueued(task="t", agent="a"), events.ExecutionStarted(task="t", started_at=1, attempt=1)]


def text(count: int) -> list[Entry]:
    """Mostly chunks of text, 40 to a message, as an emitter merges a model's tokens; a call between messages."""
    chunks = itertools.cycle(CHUNKS)
    told = begun()
    for number in itertools.count():
        told += [events.MessageDelta(message_id=f"m{number}", delta=next(chunks)) for _ in range(40)]
        told.append(events.MessageComplete(message_id=f"m{number}"))
        told.append(events.ToolStart(call_id=f"c{number}", tool_name="read", params={"path": f"src/{number}.py"}))
        told.append(events.ToolComplete(call_id=f"c{number}", tool_name="read", result={"lines": 90}, duration=0.1))
        if len(told) >= count:
            return numbered(told[:count])
    raise AssertionError


def every(count: int) -> list[Entry]:
    """Every type of event over and over, but for those that end an attempt, wait for a person, or end it all."""
    lines = [json.loads(line)["event"] for line in RECORDED.read_text().splitlines()]
    recorded = [envelope.decode_envelope(json.dumps(line).encode())[1] for line in lines]
    return numbered([*begun(), *_rounds([event for event in recorded if not isinstance(event, ENDS)], count)])


def _rounds(told: Sequence[events.Event], count: int) -> Iterator[events.Event]:
    """With ids of messages, calls and artifacts that are new in every round."""
    for number in range(count):
        event = told[number % len(told)]
        names = [name for name in ("message_id", "call_id", "artifact_id") if hasattr(event, name)]
        yield _renamed(event, names, number // len(told))


def _renamed(event: Any, names: Sequence[str], round_: int) -> Any:
    return msgspec.structs.replace(event, **{name: f"{getattr(event, name)}-{round_}" for name in names})


# --- who shows it ----------------------------------------------------------------------------------------------------


Make = Callable[[int], Rendering]
"""The rendering of the viewer of this number."""


def a2a(version: Any) -> Make:
    return lambda number: TaskStream(TaskProjection(Opening(TASK, "ctx")), version, rpc_result(f"r{number}"))


def mcp(_: int) -> Rendering:
    """A call: each viewer has one of its own."""
    held = Held(execution_id=TASK, asked=Asked(Capabilities(), "", is_modern=True), progress_token="p")
    return CallRenderer(held, Modern(1, lambda _: "state"))


def alone(make: Make) -> Take:
    """As an edge does it for one viewer."""
    view = RenderedView(make(0), chunked=True)
    view.open()
    return lambda entry: view.encode([entry])


def together(make: Make, first: Entry) -> Take:
    """As an edge does it for many who follow one log."""
    shared: dict[Shared, None] = {}
    views = []
    for number in range(MANY):
        view = RenderedView(make(number), chunked=True)
        view.open()
        view.encode([first])
        views.append(view.meet(shared))
    different = list(dict.fromkeys(views))

    def take(entry: Entry) -> None:
        entries = [entry]
        for view in different:
            view.encode(entries)

    return take


def native() -> Take:
    view = StreamView()
    return lambda entry: view.encode([entry])


NATIVE, BARE = "native frame", "json.loads"
MANY = 100
RENDERINGS: dict[str, Make] = {
    "AI SDK": lambda _: AiSdk(TASK),
    "AG-UI": lambda _: AgUi(View(execution_id=TASK, thread_id="t", run_id="r")),
    "A2A 0.3": a2a(V03()),
    "A2A 1.0": a2a(V10()),
    "A2A simple": a2a(Simple()),
    "Durable Streams": lambda _: DurableStreams(EventItems(START)),
    "Responses": lambda _: Responses(About(id=ResponseId(TASK))),
}
TAKERS: dict[str, Callable[[], Take]] = {
    BARE: lambda: lambda entry: json.loads(entry.json),
    NATIVE: native,
    "MCP": lambda: alone(mcp),
    **{name: lambda make=make: alone(make) for name, make in RENDERINGS.items()},  # type: ignore[misc]
}


# --- the bench -------------------------------------------------------------------------------------------------------


def render(run: Run) -> list[Figure]:
    figures: list[Figure] = []
    for title, entries in (("text", text(run.size(4000, 400))), ("every event", every(run.size(4000, 400)))):
        costs: dict[str, list[float]] = {name: [] for name in TAKERS}
        for _ in range(run.size(15, 2)):
            for name, make in TAKERS.items():  # taking turns: ratios are those of one moment
                costs[name].append(cost(make(), entries))
        figures += [figure(title, name, costs) for name in costs if name != BARE]
    return figures + [shared(name, text(run.size(1000, 100)), run.size(5, 2)) for name in RENDERINGS]


def shared(name: str, entries: Sequence[Entry], rounds: int) -> Figure:
    """What many viewers of text cost, each of them."""
    found, frames = [], []
    for _ in range(rounds):
        found.append(cost(together(RENDERINGS[name], entries[0]), entries[1:]) / MANY)
        frames.append(cost(native(), entries))
    note = f"rounds {min(found):.2g} to {max(found):.2g} µs CPU/event and viewer"
    title = f"text to {MANY} viewers: {name}, each of them / native frame"
    return at_most(title, median([mine / frame for mine, frame in zip(found, frames, strict=True)]), "x", 2, note)


def cost(take: Take, entries: Sequence[Entry]) -> float:
    """Microseconds of CPU for one event, one by one as they come when they are live."""
    began = time.process_time()
    for entry in entries:
        take(entry)
    return (time.process_time() - began) / len(entries) * 1e6


def figure(title: str, name: str, costs: dict[str, list[float]]) -> Figure:
    spent, bare = median(costs[name]), median(ratios(costs, name, BARE))
    if name == NATIVE:
        return Figure(f"{title}: {name}", spent, "µs CPU/event", note=f"{bare:.2g} x json.loads")
    found = ratios(costs, name, NATIVE)
    note = f"rounds {min(found):.2g} to {max(found):.2g}; {spent:.3g} µs CPU/event; {bare:.2g} x json.loads"
    return at_most(f"{title}: {name} / {NATIVE}", median(found), "x", 5 if name == "AI SDK" else 10, note)


def ratios(costs: dict[str, list[float]], name: str, base: str) -> list[float]:
    """Of each round."""
    return [mine / theirs for mine, theirs in zip(costs[name], costs[base], strict=True)]
