"""Workflows and activities of the tests. The sandbox imports this file anew for every run."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError

from emitter.events import Artifact
from emitter.integrations.temporal import activity_emitter, sync_activity_emitter, workflow_emitter

SOON = timedelta(seconds=30)


# --- activities ------------------------------------------------------------------------------------------------------


@activity.defn
async def search(query: str, limit: int = 3) -> list[str]:
    activity.heartbeat({"progress": 50, "message": "half"})
    return [f"{query} {number}" for number in range(limit)]


@activity.defn
async def write(title: str) -> str:
    emitter = activity_emitter()
    await emitter.thinking("How to begin?")
    for word in ("A ", "page"):
        await emitter.text(word)
    return title.upper()


@activity.defn
async def muse() -> None:
    """Ends with a chunk, which waits for others to join it."""
    await activity_emitter().thinking_delta("hm", "t1")


@activity.defn
def count(up_to: int) -> int:
    """In a thread."""
    emitter = sync_activity_emitter()
    with emitter.phase("counting"):
        for number in range(up_to):
            activity.heartbeat(number)
            emitter.text(f"{number} ")
    return up_to


@activity.defn
async def fail() -> None:
    raise ValueError("no such page")


@activity.defn
async def hang() -> None:
    activity.heartbeat("here")
    await asyncio.Event().wait()


@activity.defn
def hang_in_thread() -> None:
    activity.heartbeat("here")
    while True:
        time.sleep(0.01)


@activity.defn
async def beat(times: int, pause: float | None = None) -> None:
    """In a tight loop, or with a pause after each."""
    for number in range(times):
        activity.heartbeat(f"step {number}")
        if pause is not None:
            await asyncio.sleep(pause)


@activity.defn
async def give_back() -> None:
    activity.raise_complete_async()


@activity.defn
async def ask() -> bool:
    answer: bool = await activity_emitter().ask("Publish?")
    return answer


@activity.defn
async def shout(times: int) -> int:
    emitter = activity_emitter()
    for number in range(times):
        await emitter.status("shouting", str(number))
    await emitter.flush()
    return times


@activity.defn
async def big() -> str:
    return "x" * 100_000


@activity.defn
async def take(data: bytes, secret_token: str, *more: int) -> None:
    pass


ACTIVITIES = [search, write, muse, count, fail, hang, hang_in_thread, beat, give_back, ask, shout, big, take]


# --- workflows -------------------------------------------------------------------------------------------------------


@workflow.defn
class Research:
    """Two activities in a phase each."""

    @workflow.run
    async def run(self, topic: str) -> dict[str, Any]:
        emitter = workflow_emitter()
        emitter.plan_created(topic, [("look", "Look"), ("write", "Write")])
        with emitter.phase("look", "Look"):
            found = await workflow.execute_activity(search, topic, start_to_close_timeout=SOON)
        emitter.progress(50, current_action="writing")
        with emitter.phase("write", "Write"):
            title = await workflow.execute_activity(write, topic, start_to_close_timeout=SOON)
        return {"title": title, "found": len(found)}


@workflow.defn
class Steps:
    """Emits a status, waits for a signal, and so on, as often as it is told; `done` ends it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.handled = 0

    @workflow.run
    async def run(self) -> list[str]:
        workflow_emitter().status("begun", "")
        while "done" not in self.said[: self.handled]:
            await workflow.wait_condition(lambda: len(self.said) > self.handled)
            workflow_emitter().status("step", self.said[self.handled])
            self.handled += 1
        return self.said

    @workflow.signal
    def say(self, word: str) -> None:
        workflow_emitter().status("heard", word)
        self.said.append(word)

    @workflow.update
    async def add(self, word: str) -> str:
        self.say(word)
        return word

    @workflow.query
    def tell(self) -> str:
        workflow_emitter().status("never", "")
        return "never"


@workflow.defn
class Ends:
    """Ends in the way it is told."""

    @workflow.run
    async def run(self, how: str) -> str:
        match how:
            case "fail":
                raise ApplicationError("no more pages", type="OutOfPages")
            case "for good":
                raise ApplicationError("no more pages", type="OutOfPages", non_retryable=True)
            case "activity":
                await workflow.execute_activity(fail, start_to_close_timeout=SOON)
            case "bug":
                raise KeyError("a mistake in the code")
            case "wait":
                await asyncio.sleep(3600)
            case "continue":
                workflow_emitter().status("first run", "")
                workflow.continue_as_new("well")
            case "end it":
                workflow_emitter().execution_complete("too early")
        return "well"


@workflow.defn
class Parent:
    @workflow.run
    async def run(self) -> str:
        child = await workflow.start_child_workflow(Ends.run, "well", id="child")
        await workflow.start_local_activity(search, "x", start_to_close_timeout=SOON)
        return await child


@workflow.defn
class Twice:
    """Has a child, and then another with the same id."""

    @workflow.run
    async def run(self) -> None:
        for _ in range(2):
            await workflow.execute_child_workflow(Ends.run, "well", id="child")


@workflow.defn
class Careless:
    """Emits what no log takes as it is, and changes what it has emitted."""

    @workflow.run
    async def run(self) -> bytes:
        emitter = workflow_emitter()
        emitter.progress(150)
        friends: dict[str, Any] = {"score": float("nan"), "tags": {"new"}}
        friends["self"] = friends
        emitter.tool_complete("c", "lookup", friends, 1.0)
        emitter.message_delta("half \ud83d of an emoji", "m")
        emitter.input_required("i", "Which?", "guess")  # type: ignore[arg-type]
        data = {"n": 1}
        emitter.emit(Artifact(artifact_id="a", media_type="application/json", data=data))
        data["n"] = 2
        emitter.custom("Large!", {"text": "x" * 100_000})
        return b"\0binary"


WORKFLOWS = [Research, Steps, Ends, Parent, Twice, Careless]
