"""One method per event type, the same for every emitter."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from emitter import AgentEmitter, SyncAgentEmitter, events
from emitter.errors import InvalidEvent
from emitter.publishing.event_methods import EventMethods
from emitter.testing import RecordingEmitter

# Written by the broker, by who keeps a budget, and by calls that take messages or start children.
NOT_FOR_AGENTS = {
    "execution:queued", "budget", "user:message", "user:message:taken", "user:message:dropped", "child:started",
    "child:ended",
}  # fmt: skip
CALLS: list[tuple[Callable[[Any], Any], events.Event]] = [
    (lambda e: e.plan_created("g", [("p", "P"), events.Phase("q", "Q")]),
     events.PlanCreated(plan=events.Plan("g", [events.Phase("p", "P"), events.Phase("q", "Q")]))),
    (lambda e: e.phase_start("p", "P", phase_index=1), events.PhaseStart(phase_id="p", phase_name="P", phase_index=1)),
    (lambda e: e.phase_complete("p", "P"), events.PhaseComplete(phase_id="p", phase_name="P")),
    (lambda e: e.thinking("t", iteration=2, visible=False), events.Thinking(thought="t", iteration=2, visible=False)),
    (lambda e: e.thinking_delta("d", "m"), events.ThinkingDelta(message_id="m", delta="d")),
    (lambda e: e.message_delta("d", "m"), events.MessageDelta(message_id="m", delta="d")),
    (lambda e: e.message_complete("m", text="t"), events.MessageComplete(message_id="m", text="t")),
    (lambda e: e.tool_start("c", "t", {"a": 1}), events.ToolStart(call_id="c", tool_name="t", params={"a": 1})),
    (lambda e: e.tool_progress("c", progress=5, message="m"),
     events.ToolProgress(call_id="c", progress=5, message="m")),
    (lambda e: e.tool_complete("c", "t", [1], 1.23456789),
     events.ToolComplete(call_id="c", tool_name="t", result=[1], duration=1.234568)),
    (lambda e: e.tool_error("c", "t", "e", 1), events.ToolError(call_id="c", tool_name="t", error="e", duration=1)),
    (lambda e: e.status("s", "m"), events.Status(status="s", message="m")),
    (lambda e: e.progress(5, current_action="a", specialist="s"),
     events.Progress(progress=5, current_action="a", specialist="s")),
    (lambda e: e.specialist_activated("s", task="t", icon="i"),
     events.SpecialistActivated(specialist="s", task="t", icon="i")),
    (lambda e: e.specialist_complete("s", summary="y"), events.SpecialistComplete(specialist="s", summary="y")),
    (lambda e: e.partial_result({"a": 1}, specialist="s"), events.PartialResult(result={"a": 1}, specialist="s")),
    (lambda e: e.synthesis("m", specialists_complete=("a",)),
     events.Synthesis(message="m", specialists_complete=["a"], specialists_pending=[])),
    (lambda e: e.artifact("a", "text/plain", name="n", text="t", append=True, last=True),
     events.Artifact(artifact_id="a", media_type="text/plain", name="n", text="t", append=True, last=True)),
    (lambda e: e.usage(input_tokens=1, output_tokens=2),
     events.UsageTotals(input_tokens=1, output_tokens=2, total_tokens=3)),
    (lambda e: e.input_required("i", "p", "choice", options=("a", "b")),
     events.InputRequired(input_id="i", prompt="p", kind="choice", options=["a", "b"])),
    (lambda e: e.input_received("i", "alice", value=1), events.InputReceived(input_id="i", by="alice", value=1)),
    (lambda e: e.emit(events.ModelCall(call_id="c", model="m", input_tokens=1, output_tokens=2, duration=1.0)),
     events.ModelCall(call_id="c", model="m", input_tokens=1, output_tokens=2, duration=1.0)),
    (lambda e: e.timeout("m", "continuing"), events.Timeout(message="m", action="continuing")),
    (lambda e: e.sandbox_violation("r", "d"), events.SandboxViolation(rule="r", detail="d")),
    (lambda e: e.execution_superseded(3, 2), events.ExecutionSuperseded(from_seq=3, attempt=2)),
    (lambda e: e.custom("x.y", {"a": 1}), events.Custom(name="x.y", data={"a": 1})),
    (lambda e: e.execution_complete({"a": 1}, duration=2.5, tokens_used=3),
     events.ExecutionComplete(result={"a": 1}, duration=2.5, tokens_used=3)),
    (lambda e: e.execution_error("e", code="c", stack="s"), events.ExecutionError(error="e", code="c")),
    (lambda e: e.execution_cancelled(reason="r", by="b"), events.ExecutionCancelled(reason="r", by="b")),
]  # fmt: skip


@pytest.mark.parametrize(("call", "event"), CALLS, ids=[event.type for _, event in CALLS])
async def test_each_method_makes_its_event(call: Callable[[Any], Any], event: events.Event) -> None:
    """Arguments become the catalogue's fields."""
    emitter = RecordingEmitter()
    if isinstance(event, events.InputReceived):
        await emitter.input_required(event.input_id, "?", "text")
    await call(emitter)
    assert emitter.events[-1][1] == event


def test_every_type_has_its_method() -> None:
    """A type `a:b` is emitted by a method `a_b`."""
    for event in events.CATALOGUE:
        if event.type not in NOT_FOR_AGENTS:
            assert callable(getattr(EventMethods, event.type.replace(":", "_"))), event.type


def test_every_method_is_tried() -> None:
    """The list above has all types that agents emit, but for the start, which reads the clock."""
    tried = {event.type for _, event in CALLS} | {"execution:started"} | NOT_FOR_AGENTS
    assert tried == {*events.BY_TYPE, "custom"}


async def test_the_start_tells_time_and_attempt() -> None:
    """The attempt counts from 1, and the duration of the end is that since the start."""
    emitter = RecordingEmitter()
    await emitter.execution_started("t")
    (started,) = emitter.of("execution:started")
    assert (started.task, started.attempt) == ("t", 1)
    emitter._started_ms = started.started_at - 1500
    await emitter.execution_complete()
    assert 1.5 <= emitter.of("execution:complete")[0].duration < 10


FOR_THE_RUNTIME = {
    "waits",
    "accepts_messages",
    "notice",
    "disown",
    "waiting",
    "max_event_bytes",
    "stops_when",
    "count_with",
}


def public(cls: type) -> set[str]:
    """What agents use."""
    return {name for name in dir(cls) if not name.startswith("_")} - FOR_THE_RUNTIME


def test_all_emitters_have_the_same_names() -> None:
    """What an agent calls on one emitter it can call on the others."""
    attributes = {"owner", "execution_id", "ended"}  # of instances; here properties, there set at birth
    of_agents = public(AgentEmitter) | attributes
    assert public(SyncAgentEmitter) - {"over"} == of_agents
    assert (
        public(RecordingEmitter) - {"types", "of", "text_emitted", "events", "envelopes", "send_message"} | attributes
        == of_agents
    )


METHODS = sorted(name for name in public(AgentEmitter) if inspect.isfunction(getattr(AgentEmitter, name)))


@pytest.mark.parametrize("name", METHODS)
def test_all_emitters_take_the_same_arguments(name: str) -> None:
    """And with the same arguments; the blocking one may take them as they come."""
    parameters = list(inspect.signature(getattr(AgentEmitter, name)).parameters)
    assert list(inspect.signature(getattr(RecordingEmitter, name)).parameters) == parameters
    blocking = list(inspect.signature(getattr(SyncAgentEmitter, name)).parameters)
    assert blocking in (parameters, ["self", "prompt", "options"])


async def test_what_the_contract_does_not_allow_raises_at_the_call() -> None:
    """What may not be mended is told where it was given, not when a batch leaves; `strict`: everything is."""
    emitter, strict = RecordingEmitter(), RecordingEmitter(strict=True)
    for call in (
        lambda: emitter.input_required("a b", "p", "text"),
        lambda: emitter.emit("thinking"),  # type: ignore[arg-type]
        lambda: strict.progress(101),
        lambda: strict.thinking(None),  # type: ignore[arg-type]
        lambda: strict.custom("No", {}),
        lambda: strict.text(b"x"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidEvent):
            await call()
    assert emitter.events == strict.events == []
