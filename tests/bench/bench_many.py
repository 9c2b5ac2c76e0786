"""The whole road, emitter to socket: many executions with one viewer each, and the latency of an ordinary edge."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

from figures import Figure, Run, at_least, at_most
from load import Load, Window, load
from processes import HERE, ROOT, cpu_seconds
from servers import Edge, edge, viewer

TARGET_RATE = 25_000


def emit(server: Edge, executions: int, rate: float, seconds: float, kind: str) -> dict[str, float]:
    """Run the agents' process to its end. It needs the project and this folder on its path."""
    command = [sys.executable, str(HERE / "traffic.py"), server.redis.url]
    command += [str(executions), str(rate), str(seconds), kind]
    environment = {"PYTHONPATH": f"{ROOT}:{HERE}"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=seconds * 4 + 30, env=environment)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


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


def measure(server: Edge, client: Load, executions: int, rate: float, seconds: float, kind: str) -> tuple[Window, str]:
    """One window of traffic. The remark says where the rest of the machine's time went."""
    assert server.redis.process is not None
    client.zero()
    emit(server, executions, executions, 1, kind)  # warm: one event each
    client.wait(1)
    client.zero()
    redis = cpu_seconds(server.redis.process.pid)
    client.begin()
    agents = emit(server, executions, rate, seconds, kind)
    client.wait(int(agents["sent"]) // executions)
    window = client.end()
    redis = cpu_seconds(server.redis.process.pid) - redis
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
        for kind, road, share in (("script", "append script", 0.5), ("event", "emitter", 0.2)):
            rate = executions * (TARGET_RATE * share // executions)
            window, note = measure(server, client, executions, rate, run.size(6, 2), kind)
            title = f"{rate:,.0f} events/s by {road}"
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
        for kind, name in (("event", "events"), ("delta", "chunks of text (10 ms window)")):
            window, note = measure(server, client, executions, rate, run.size(8, 2), kind)
            figures += [
                at_most(f"{name}: p50 emit to receive", window.p50_ms, "ms", 5, note),
                at_most(f"{name}: p99 emit to receive", window.p99_ms, "ms", 25),
            ]
    return figures
