"""The publishing side: what appends and logs cost Redis, the emitter's CPU, the caller's wait; an edge's start."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from figures import Figure, Run, at_most, median
from redis.asyncio import Redis
from servers import OWNER, bench_event, edge, embedded_redis

from emitter import AgentEmitter
from emitter.publishing.publisher import Publisher
from emitter.store import append as log
from emitter.store.connection import connect

EXECUTIONS = 50
DEPTH = 40
"""Script calls on their way at a time: the reading and writing of the socket is shared, as under load."""


# --- append ----------------------------------------------------------------------------------------------------------


def append(run: Run) -> list[Figure]:
    with embedded_redis() as server:
        return asyncio.run(_append(server.url, run.size(7, 2)))


async def _append(url: str, rounds: int) -> list[Figure]:
    cases = (
        ("alone", 1, "tool:progress", 12),
        ("in batches of 20", 20, "tool:progress", 4),
        ("alone, feed too", 1, "status", None),
        ("in batches of 20, feed too", 20, "status", None),
    )
    measured: dict[str, list[tuple[float, float]]] = {case[0]: [] for case in cases}
    async with connect(url, timeout=30) as redis:
        await redis.script_load(log.APPEND_SCRIPT)
        for round_ in range(rounds + 1):
            for title, size, type_, _ in cases:
                costs = await _append_cost(redis, size, type_, 2000 if size == 1 else 400, f"{title}-{round_}")
                if round_:  # the first made the logs
                    measured[title].append(costs)
    figures = []
    for title, _, _, limit in cases:
        cpu, script = median([c[0] for c in measured[title]]), median([c[1] for c in measured[title]])
        note = f"script alone {script:.1f} µs; least of {rounds} rounds {min(c[0] for c in measured[title]):.1f} µs"
        what = f"event {title}"
        figures.append(
            Figure(what, cpu, "µs Redis CPU", note=note)
            if limit is None
            else at_most(what, cpu, "µs Redis CPU", limit, note)
        )
    return figures


async def _append_cost(redis: Redis, size: int, type_: str, calls: int, producer: str) -> tuple[float, float]:
    """Redis CPU (all of the process) and script time of one event, in microseconds."""
    mark = "f" if type_ == "status" else ""
    commands = []
    for number in range(calls):
        name = f"x{number % EXECUTIONS}"
        events = [bench_event(name, type_)._replace(mark=mark) for _ in range(size)]
        options: dict[str, Any] = {"producer": producer, "first_seq": number // EXECUTIONS * size + 1}
        commands.append(log.append_command(OWNER, name, events, **options))
    await redis.config_resetstat()
    before = await _redis_cpu(redis)
    for start in range(0, calls, DEPTH):
        pipe = redis.pipeline(transaction=False)
        for command in commands[start : start + DEPTH]:
            pipe.execute_command(*command)
        for reply in await pipe.execute():
            log.read_reply("x", reply)
    cpu = await _redis_cpu(redis) - before
    script = (await redis.info("commandstats"))["cmdstat_evalsha"]["usec"]
    return cpu * 1e6 / (calls * size), script / (calls * size)


async def _redis_cpu(redis: Redis) -> float:
    info = await redis.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


# --- logs ------------------------------------------------------------------------------------------------------------


def logs(run: Run) -> list[Figure]:
    with embedded_redis() as server:
        return asyncio.run(_logs(server.url, run.size(2000, 200)))


async def _logs(url: str, executions: int) -> list[Figure]:
    """Growth of Redis' used memory: of executions that have begun, and of what each event adds."""
    async with connect(url, timeout=30) as redis:
        await redis.script_load(log.APPEND_SCRIPT)
        await _append_each(redis, 50, 1, first_seq=1, names="warm")
        empty = await _used_memory(redis)
        await _append_each(redis, executions, 1, first_seq=1)
        begun = await _used_memory(redis)
        for batch in range(10):
            await _append_each(redis, executions, 20, first_seq=2 + 20 * batch)
        full = await _used_memory(redis)
    return [
        Figure("an execution that has begun", (begun - empty) / executions / 1000, "KB", note="1 event"),
        Figure("each further event", (full - begun) / executions / 200, "bytes", note="frames of 270 bytes"),
    ]


async def _append_each(redis: Redis, executions: int, size: int, *, first_seq: int, names: str = "log") -> None:
    for start in range(0, executions, DEPTH):
        pipe = redis.pipeline(transaction=False)
        for number in range(start, min(start + DEPTH, executions)):
            name = f"{names}{number}"
            events = [bench_event(name)] * size
            pipe.execute_command(*log.append_command(OWNER, name, events, producer="p", first_seq=first_seq))
        for reply in await pipe.execute():
            log.read_reply("x", reply)


async def _used_memory(redis: Redis) -> int:
    return int((await redis.info("memory"))["used_memory"])


# --- emitter ---------------------------------------------------------------------------------------------------------


def emitter(run: Run) -> list[Figure]:
    with embedded_redis() as server:
        return asyncio.run(_emitter(server.url, run.size(20_000, 4000)))


async def _emitter(url: str, events: int) -> list[Figure]:
    async with Publisher(redis_url=url) as shared, AgentEmitter(OWNER.user, "overhead", publisher=shared) as agent:
        await _together(agent, 2000)  # warm
        together = median([await _together(agent, events) for _ in range(3)])
        alone = median([await _alone(agent, events // 20) for _ in range(3)])
        waits = sorted(await _waits(agent, events // 100))
    middle, late = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    return [
        at_most("event in batches", together, "µs CPU", 12),
        at_most("event alone, confirmed before the next", alone, "µs CPU", 80),
        at_most("the caller's await, p50", middle, "µs", 20, f"p99 {late:.1f} µs"),
    ]


async def _together(agent: AgentEmitter, events: int) -> float:
    """The agent does nothing but emit: batches are full."""
    cpu = time.process_time()
    for number in range(events):
        await agent.tool_progress("c1", message=f"step {number} of {events}: reading the next of many files")
    await agent.flush()
    return (time.process_time() - cpu) / events * 1e6


async def _alone(agent: AgentEmitter, events: int) -> float:
    cpu = time.process_time()
    for number in range(events):
        await agent.tool_progress("c1", message=f"step {number} of {events}: reading the next of many files")
        await agent.flush()
    return (time.process_time() - cpu) / events * 1e6


async def _waits(agent: AgentEmitter, rounds: int) -> list[float]:
    """Microseconds from call to return, with room in the queue."""
    waits = []
    for _ in range(rounds):
        for number in range(50):
            began = time.perf_counter()
            await agent.status("working", f"step {number}: reading the next of many files")
            waits.append((time.perf_counter() - began) * 1e6)
        await agent.flush()
    return waits


# --- start -----------------------------------------------------------------------------------------------------------


def start(run: Run) -> list[Figure]:
    seconds = []
    for _ in range(run.size(5, 2)):
        with edge() as server:
            seconds.append(server.start_seconds)
    return [at_most("edge, from exec to ready", median(seconds), "s", 1, f"slowest {max(seconds):.2f} s")]
