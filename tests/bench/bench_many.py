"""The whole road, emitter to socket: many executions with one viewer each, and the latency of an ordinary edge."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from figures import Figure, Run, at_least, at_most
from load import Load, Window, load
from processes import HERE, ROOT, Dialogue, cpu_seconds, dialogue
from servers import Edge, edge, redis_pid, viewer

TARGET_RATE = 25_000


@contextlib.contextmanager
def traffic(server: Any, executions: int, rate: float, seconds: float, kind: str, road: str = "") -> Iterator[Dialogue]:
    """The publishers' process, which has published one event to each stream. A line starts the rest; its answer tells
    `sent`, `seconds` and `cpu`."""
    command = [sys.executable, HERE / "traffic.py", road or server.road, server.address]
    command += [str(executions), str(rate), str(seconds), kind]
    with dialogue(command, env={"PYTHONPATH": f"{ROOT}:{HERE}"}) as publishers:
        publishers.hear()
        yield publishers


@contextlib.contextmanager
def watched(run: Run, executions: int, viewers: int, sample: int) -> Iterator[tuple[Edge, Load]]:
    """An edge with `viewers` live viewers spread over executions x0, x1, …"""
    with edge() as server:
        server.create([f"x{number}" for number in range(executions)])
        targets = [viewer(f"x{number % executions}") for number in range(viewers)]
        with load(run.binaries, server.port, targets, server.pid, sample=sample) as client:
            client.open(viewers)
            client.wait(1)
            yield server, client


def measure(
    server: Edge, client: Load, executions: int, rate: float, seconds: float, kind: str, road: str = "emitter"
) -> tuple[Window, str]:
    """One window of traffic. The remark says where the rest of the machine's time went."""
    client.zero()
    with traffic(server, executions, rate, seconds, kind, road) as publishers:
        client.wait(1)
        client.zero()
        redis = cpu_seconds(redis_pid(server.redis))
        client.begin()
        agents = publishers.ask("go")
        client.wait(int(agents["sent"]) // executions)
        window = client.end()
        redis = cpu_seconds(redis_pid(server.redis)) - redis
    sent = agents["sent"]
    note = (
        f"{sent / agents['seconds']:,.0f} events/s; CPU per event: agents {agents['cpu'] / sent * 1e6:.1f} µs, "
        f"Redis {redis / sent * 1e6:.1f} µs, edge {window.server_cpu / sent * 1e6:.1f} µs; "
        f"{window.joined:.2f} events per write; load client {window.client_share:.0%} of a core"
    )
    return window, note


def many(run: Run) -> list[Figure]:
    """One viewer an execution: nothing is shared, every event is a message of its own. The agents, Redis and the load
    client share the other cores, so the edge is judged by its CPU: events per second of it."""
    executions = run.size(2000, 200)
    figures = []
    with watched(run, executions, executions, sample=4) as (server, client):
        for road, name, share in (("script", "append script", 0.5), ("emitter", "emitter", 0.2)):
            rate = executions * (TARGET_RATE * share // executions)
            window, note = measure(server, client, executions, rate, run.size(6, 2), "event", road)
            title = f"{rate:,.0f} events/s by {name}"
            per_core = window.deliveries / window.server_cpu
            figures += [
                at_least(f"{title}: per edge core", per_core, "events/s", TARGET_RATE, note),
                at_most(f"{title}: p99 emit to receive", window.p99_ms, "ms", 50, f"p50 {window.p50_ms:.1f} ms"),
            ]
    return figures


def latency(run: Run) -> list[Figure]:
    """1,000 viewers over 100 executions, 1,000 events/s in total; events sent at once, and chunks of text."""
    viewers, executions, rate = run.size(1000, 200), 100, 1000
    with watched(run, executions, viewers, sample=1) as (server, client):
        figures = []
        for kind, name in (("event", "events"), ("delta", "chunks of text")):
            window, note = measure(server, client, executions, rate, run.size(8, 2), kind)
            figures += [
                at_most(f"{name}: p50 emit to receive", window.p50_ms, "ms", 5, note),
                at_most(f"{name}: p99 emit to receive", window.p99_ms, "ms", 25),
            ]
    return figures
