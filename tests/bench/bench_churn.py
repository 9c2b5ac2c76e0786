"""Whether what comes and goes leaves anything: viewers at an edge, executions at a worker, events in a page."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench_control import worker
from figures import Figure, Run, at_most
from load import Target, load
from processes import HERE, BenchFailed, dialogue, rss_bytes, wait_until
from redis.asyncio import Redis
from servers import OWNER, Edge, edge, token

from emitter.events import (
    Event,
    ExecutionStarted,
    MessageComplete,
    MessageDelta,
    Status,
    Thinking,
    ToolComplete,
    ToolStart,
)
from emitter.store.append import LogLimits, append, prepare
from emitter.store.connection import connect
from emitter.store.lifecycle import Lifecycle, Start
from emitter.wire.redact import Redactor

MB = 1024 * 1024
EXECUTIONS = 100
WAYS = (
    "/api/agent/executions/{id}/stream", "/api/agent/executions/{id}/stream?compact=true", "/ag-ui/{id}",
    "/api/agent/executions/{id}/stream?types=tool:*&heartbeat=event", "/a2a/stream?taskId={id}", "/api/agent/stream",
)  # fmt: skip
"""How viewers ask: each round has all of them."""


def _grown(what: str, sizes: Sequence[float], early: int, note: str) -> Figure:
    """The last of some sizes as a multiple of an early one. A few around each: what a moment leaves is no growth."""
    first, last = min(sizes[early - 2 : early + 1]), min(sizes[-3:])
    made_of = f"{first / MB:.1f} MB after {early}, {last / MB:.1f} after {len(sizes)}; {note}"
    return at_most(what, last / first, "x", 1.1, made_of)


def _each(sizes: Sequence[float], step: int) -> str:
    return ", ".join(f"{size / MB:.1f}" for size in sizes[::step])


# --- an edge ----------------------------------------------------------------------------------------------------------


def churn(run: Run) -> list[Figure]:
    """Viewers with tokens that the edge has never seen open streams in several protocols, and leave, round by round."""
    rounds, viewers = run.size(50, 20), run.size(2000, 300)
    with edge() as server:
        server.create([f"x{number}" for number in range(EXECUTIONS)])
        sizes = [_round(run, server, number * viewers, viewers) for number in range(rounds)]
    note = f"rounds of {viewers:,} viewers, each with a token of its own; {_each(sizes, 5)}"
    return [_grown(f"an edge after {rounds} rounds of viewers, over itself after 5", sizes, 5, note)]


def _round(run: Run, server: Edge, first: int, viewers: int) -> int:
    targets = [_target(first + number) for number in range(viewers)]
    with load(run.binaries, server.port, targets, server.pid) as client:
        client.open(viewers)
        client.drop()
    wait_until("all have left", lambda: server.streams(0) == 0, 30)
    return rss_bytes(server.pid)


def _target(number: int) -> Target:
    path = WAYS[number % len(WAYS)].replace("{id}", f"x{number % EXECUTIONS}")
    return Target(path, f"Authorization: Bearer {token(number)}")


# --- a worker ---------------------------------------------------------------------------------------------------------


def attempts(run: Run) -> list[Figure]:
    """Short executions, each with a text, a call of a tool, and a result."""
    steps, each = 20, run.size(1000, 100)
    with edge() as server, worker(server, 50) as child:
        sizes = asyncio.run(_attempts(server, steps, each, lambda: rss_bytes(child.pid)))
    note = f"steps of {each:,} executions; {_each(sizes, 4)}"
    return [_grown(f"a worker after {steps * each:,} executions, over itself after {2 * each:,}", sizes, 2, note)]


async def _attempts(server: Edge, steps: int, each: int, measure: Callable[[], int]) -> list[int]:
    sizes = []
    async with connect(server.redis.url) as redis:
        lifecycle = Lifecycle(redis, LogLimits(max_queued_per_user=0), Redactor())
        for step in range(steps):
            names = [f"brief-{step}-{number}" for number in range(each)]
            for name in names:
                await lifecycle.accept(OWNER, name, Start(task="t", agent="brief", params={"size": 2000}))
            await _ended(redis, names)
            sizes.append(measure())
    return sizes


async def _ended(redis: Redis, names: Sequence[str]) -> None:
    ends_at, left = time.monotonic() + 120, list(names)
    while left:
        if time.monotonic() > ends_at:
            raise BenchFailed(f"{len(left)} of {len(names)} executions have not ended")
        pipe = redis.pipeline(transaction=False)
        for name in left:
            pipe.hget(OWNER.execution(name).record, "state")
        states = await pipe.execute()
        left = [name for name, state in zip(left, states, strict=True) if state != b"completed"]
        await asyncio.sleep(0.05)


# --- a page -----------------------------------------------------------------------------------------------------------


def day(run: Run) -> list[Figure]:
    """What the browser client holds, in Node, with the feed, the list and the watch of an execution: after a day with
    an event a second, over a fifth of it: by then all that is bounded is full."""
    if (node := shutil.which("node")) is None:
        print("  without node: nothing to measure")
        return []
    steps, each = 20, run.size(4320, 1800)
    with edge() as server:
        server.create(["day"])
        arguments = [f"http://127.0.0.1:{server.port}", token(), "day"]
        with dialogue([node, "--expose-gc", HERE / "day_client.mjs", *arguments]) as page:
            page.hear()  # it is live
            sizes, events = asyncio.run(_day(server, steps, each, lambda: page.ask("look")))
    note = f"heap after a collection; {events:,} events; {_each(sizes, 4)}"
    return [_grown(f"the browser client after {steps * each:,} events, over itself after a fifth", sizes, 4, note)]


async def _day(server: Edge, steps: int, each: int, look: Callable[[], dict[str, Any]]) -> tuple[list[float], int]:
    sizes, events = [], 0
    async with connect(server.redis.url) as redis:
        await append(redis, OWNER, "day", [_prepared("day", ExecutionStarted(task="t", started_at=1, attempt=1))])
        sent = 2
        for step in range(steps):
            for number in range(0, each, 60):
                batch = [event for place in range(number, number + 60, 6) for event in _events(step * each + place)]
                await append(redis, OWNER, "day", [_prepared("day", event) for event in batch])
                sent += len(batch)
                await _others(redis, step * each + number)
            seen = await _received(look, sent)
            sizes.append(float(seen["heap"]))
            events = seen["events"]
    return sizes, events


def _events(number: int) -> list[Event]:
    call = f"c{number}"
    return [
        Thinking(thought=f"thought {number} " + "x" * 100),
        ToolStart(call_id=call, tool_name="search", params={"q": f"query {number}"}),
        ToolComplete(call_id=call, tool_name="search", result="y" * 200, duration=0.1),
        MessageDelta(message_id=f"m{number}", delta=f"an answer {number} " + "z" * 100),
        MessageComplete(message_id=f"m{number}", text=f"an answer {number} " + "z" * 100),
        Status(status="working", message=f"{number}"),
    ]


async def _others(redis: Redis, number: int) -> None:
    """Another execution begins, for the list and the feed."""
    started = ExecutionStarted(task=f"task {number}", started_at=1, attempt=1)
    await append(redis, OWNER, f"other-{number}", [_prepared(f"other-{number}", started)])


def _prepared(execution_id: str, event: Event) -> Any:
    return prepare(event, execution_id, redact=Redactor())


async def _received(look: Callable[[], dict[str, Any]], events: int) -> dict[str, Any]:
    """What the page says once it has all events."""
    ends_at = time.monotonic() + 60
    while (seen := look())["events"] < events:
        if time.monotonic() > ends_at:
            raise BenchFailed(f"the page has {seen['events']} of {events} events")
        await asyncio.sleep(0.05)
    return seen
