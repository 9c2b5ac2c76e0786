"""What a viewer costs besides deliveries: memory at rest, opening a stream, and a storm of reconnects."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from figures import Figure, Run, at_least, at_most, median
from load import Load, Target, load
from processes import rss_bytes
from servers import Edge, bench_event, edge, embedded_redis, nchan, nchan_missing, viewer

SETTLE_SECONDS = 2.0


def memory(run: Run) -> list[Figure]:
    viewers = run.size(5000, 1000)
    figures = []
    for title, executions in (("100 executions", 100), ("an execution each", viewers)):
        with edge() as server:
            server.create([f"x{number}" for number in range(executions)])
            targets = [viewer(f"x{number % executions}", number) for number in range(viewers)]
            kilobytes = _grown(run, server, targets, viewers)
        figures.append(at_most(f"Runcast, {viewers:,} viewers of {title}", kilobytes, "KB/viewer", 4))
    if missing := nchan_missing():
        print(f"  without Nchan: {missing}")
        return figures
    with nchan() as server:
        kilobytes = _grown(run, server, [Target(f"/sub/x{number}") for number in range(100)], viewers)
    return [*figures, Figure(f"Nchan, {viewers:,} viewers of 100 channels", kilobytes, "KB/viewer")]


def _grown(run: Run, server: Any, targets: list[Target], viewers: int) -> float:
    """KB by which a server grows per viewer, once its first few have made it load what it needs."""
    with load(run.binaries, server.port, targets[:50], server.pid) as client:
        client.open(100)
    time.sleep(0.5)
    before = rss_bytes(server.pid)
    with load(run.binaries, server.port, targets, server.pid) as client:
        client.open(viewers)
        time.sleep(SETTLE_SECONDS)
        return (rss_bytes(server.pid) - before) / viewers / 1024


def connects(run: Run) -> list[Figure]:
    """Every open brings a token of its own, which the edge has never seen."""
    viewers, executions = run.size(4000, 500), 50
    rates, walls, shares = [], [], []
    with edge() as server:
        server.create([f"x{number}" for number in range(executions)])
        for round_ in range(run.size(3, 1)):
            first = round_ * viewers
            targets = [viewer(f"x{number % executions}", first + number) for number in range(viewers)]
            with load(run.binaries, server.port, targets, server.pid) as client:
                client.begin()
                walls.append(viewers / client.open(viewers))
                client.wait(1)
                window = client.end()
                rates.append(viewers / window.server_cpu)
                shares.append(window.client_share)
            time.sleep(1)
    note = f"{median(walls):,.0f}/s by the clock; load client {median(shares):.0%} of a core"
    return [at_least("authenticated opens, replay of 1 event included", median(rates), "/s per core", 3000, note)]


def storm(run: Run) -> list[Figure]:
    """Viewers drop, miss 100 events, and resume: at the edge they had, and at one that has just started."""
    viewers, missed = run.size(5000, 500), 100
    figures = []
    for executions, restart in ((1, False), (100, False), (1, True), (100, True)):
        with embedded_redis() as redis, contextlib.ExitStack() as life:
            first = life.enter_context(edge(redis))
            names = [f"x{number}" for number in range(executions)]
            first.create(names)
            targets = [viewer(f"x{number % executions}", number) for number in range(viewers)]
            with load(run.binaries, first.port, targets, first.pid) as client:
                client.open(viewers)
                client.wait(1)
                client.drop()
                time.sleep(1)
                first.publish([(name, [bench_event(name) for _ in range(missed)]) for name in names])
                title = f"{viewers:,} viewers of {executions}"
                if restart:
                    life.close()
                    first = life.enter_context(edge(redis, first.port))
                    title += ", edge new"
                figures += _resume(first, client, title, viewers, missed)
    return figures


def _resume(server: Edge, client: Load, title: str, viewers: int, missed: int) -> list[Figure]:
    client.watch(server.pid)
    reads, before = server.calls("xrange"), server.calls()
    client.begin()
    opened = client.resume()
    seconds = client.wait(missed)
    window = client.end()
    reads, calls = server.calls("xrange") - reads, server.calls() - before
    note = (
        f"reopened in {opened:.2f} s; edge CPU {window.server_cpu:.2f} s; load client {window.client_share:.0%} of a "
        f"core; {calls / viewers:.2f} Redis commands per viewer"
    )
    limit = viewers / 10
    return [
        at_most(f"{title}: all caught up", seconds, "s", 5, note),
        Figure(f"{title}: XRANGE calls", reads, "", f"≤ {limit:g}", reads <= limit),
    ]
