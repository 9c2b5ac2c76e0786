"""Agents of `test_all_clients.py`, run by real worker processes: one that uses everything an agent can do, one whose
worker dies, and the demo agents as they are. They write nothing of any protocol."""

from __future__ import annotations

import asyncio
from typing import Any

from emitter import Agents, Context, events
from emitter.demo import agents as demo_agents
from emitter.events import Event
from emitter.store.connection import connect

GATE_SECONDS = 100  # longer than any test waits
HALFWAY = "halfway-through-the-execution"
PIECES = ("Sum", ": 3 \u2028", "\xe9 \U0001f600.")

agents = Agents()
for agent in demo_agents:
    agents.add(agent)


class Gate:
    """Where the agent waits for the test."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._redis: Any = connect(params["redis"], timeout=GATE_SECONDS + 5)
        self._key = params["gate"]

    async def passed(self, name: str) -> None:
        if await self._redis.blpop([f"{self._key}:{name}"], timeout=GATE_SECONDS) is None:
            raise TimeoutError(f"nobody opened {name}")

    async def close(self) -> None:
        await self._redis.aclose()


@agents.agent("everything", description="Uses every kind of event there is")
async def everything(context: Context) -> dict[str, Any]:
    gate = Gate(context.params)
    try:
        return await use_everything(context, gate)
    finally:
        await gate.close()


async def use_everything(context: Context, gate: Gate) -> dict[str, Any]:
    emitter = context.emitter
    await emitter.status("ready", "Everybody is here")
    await gate.passed("begin")
    await emitter.plan_created("Use everything", [("look", "Look"), ("say", "Say")])
    async with emitter.phase("look", name="Look", index=0):
        await emitter.thinking("Where to begin?")
        for piece in ("First ", "things ", "first."):
            await emitter.thinking_delta(piece, "r1")
        await emitter.specialist_activated("scout", task="Look around", icon="eye")
        async with emitter.tool("add", {"a": 1, "b": [2.5, None, "\u2029"]}, call_id="c1") as call:
            await call.progress(50, "half of it")
            call.result = {"sum": 3}
        await emitter.tool_start("c2", "divide", {"by": 0})
        await emitter.tool_error("c2", "divide", "by zero", 0.1)
        await emitter.text("Before it. ")
        # Everybody's connection is lost while this is on its way.
        await emitter.custom("acme.seen", {"mark": HALFWAY})
        await gate.passed("lost")
        await emitter.text("After it.")
        await emitter.end_text()
        await emitter.partial_result({"half": True}, specialist="scout")
        await emitter.specialist_complete("scout", summary="Seen")
        await emitter.synthesis("All is seen", specialists_complete=["scout"], specialists_pending=[])
        await emitter.progress(50, current_action="Looking")
    approved = await context.ask("Go on?", kind="approval", expires_in=60)
    await gate.passed("answered")
    async with emitter.phase("say", name="Say", index=1):
        async with emitter.tool("tell", "plain text", call_id="c3") as call:
            call.result = "plain text too"
        for piece in PIECES:
            await emitter.text(piece)
        await emitter.end_text()
        await emitter.artifact("a1", "text/plain", name="a.txt", text="one, ")
        await emitter.artifact("a1", "text/plain", text="two", append=True, last=True)
        await emitter.timeout("It takes long", "continuing")
        await emitter.usage(input_tokens=10, output_tokens=5)
        await emitter.progress(100)
    return {"approved": approved, "sum": 3}


# --- one whose worker dies -------------------------------------------------------------------------------------------

mortals = Agents()
LOST: list[Event] = [
    events.PlanCreated(plan=events.Plan(goal="lost", phases=[events.Phase(id="p", name="Lost")])),
    events.PhaseStart(phase_id="p", phase_name="Lost"),
    events.PhaseComplete(phase_id="p", phase_name="Lost"),
    events.SpecialistActivated(specialist="lost"),
    events.SpecialistComplete(specialist="lost"),
    events.Thinking(thought="Lost thought"),
    events.MessageDelta(message_id="m", delta="Lost text"),
    events.ToolStart(call_id="c1", tool_name="lose", params={}),
    events.ToolComplete(call_id="c1", tool_name="lose", result="lost", duration=0.1),
    events.ToolStart(call_id="c2", tool_name="lose", params={}),
    events.PartialResult(result={"lost": True}),
    events.Artifact(artifact_id="a1", media_type="text/plain", text="lost", last=True),
    events.Artifact(artifact_id="a2", media_type="text/plain", text="lost for ever", last=True),
    events.Custom(name="acme.lost", data={}),
    events.UsageTotals(input_tokens=9, output_tokens=9, total_tokens=18),
    events.Progress(progress=90),
]
FOUND: list[Event] = [
    events.PlanCreated(plan=events.Plan(goal="found", phases=[events.Phase(id="p", name="Found")])),
    events.PhaseStart(phase_id="p", phase_name="Found"),
    events.Thinking(thought="Second thought"),
    events.ToolStart(call_id="c1", tool_name="find", params={"at": 1}),
    events.ToolComplete(call_id="c1", tool_name="find", result={"found": 1}, duration=0.1),
    events.MessageDelta(message_id="m", delta="Found text"),
    events.MessageComplete(message_id="m"),
    events.PartialResult(result={"found": True}),
    events.Artifact(artifact_id="a1", media_type="text/plain", text="found", last=True),
    events.Custom(name="acme.found", data={}),
    events.PhaseComplete(phase_id="p", phase_name="Found"),
    events.Progress(progress=100),
]


@mortals.agent("mortal", description="Its first attempt never comes to an end", max_attempts=2)
async def mortal(context: Context) -> dict[str, Any]:
    is_first = context.attempt == 1
    for event in LOST if is_first else FOUND:
        await context.emitter.emit(event)
    if is_first:
        await asyncio.sleep(GATE_SECONDS)
    return {"found": True}
