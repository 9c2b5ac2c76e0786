"""Fan-out: server CPU per delivery when one event goes to many viewers; burst: many events at once."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from figures import Figure, Run, at_least, at_most, median
from load import Load, Window, load
from servers import Edge, edge, nchan, nchan_missing, send_loop

ROUNDS = 3
SECONDS = 5
LATENCY_SAMPLE = 16
JOINED_MAX = 1.05
"""Events per write above which a window says nothing about the cost of one delivery."""

Side = tuple[Any, Load]


def fanout(run: Run) -> list[Figure]:
    """1,000 viewers at 100 events/s and 5,000 at 20/s, or at the first lower rate at which every server keeps up.

    Cost per delivery can only be compared while each event is a write of its own. A server that has fallen behind joins
    events, which an edge does well: at a rate too high for the machine it would look cheaper than the bare send loop.
    """
    figures = []
    for viewers, rates in ((run.size(1000, 200), (100, 50, 20)), (run.size(5000, 500), (20, 10, 5))):
        figures += _fanout(run, viewers, rates)
    return figures


def _fanout(run: Run, viewers: int, rates: Sequence[int]) -> list[Figure]:
    with contextlib.ExitStack() as stack:
        sides = _open(run, stack, viewers)
        for rate in rates:
            windows = _rounds(run, sides, rate)
            if kept_up := all(window.joined <= JOINED_MAX for each in windows.values() for window in each):
                break
    return _compare(f"{viewers:,} viewers, {rate}/s", windows, comparable=kept_up)


def _rounds(run: Run, sides: Sequence[Side], rate: int) -> dict[str, list[Window]]:
    windows: dict[str, list[Window]] = {server.name: [] for server, _ in sides}
    for _ in range(run.size(ROUNDS, 1)):  # interleaved, so that a noisy neighbour disturbs all alike
        for server, client in sides:
            windows[server.name].append(_steady(server, client, rate, rate * run.size(SECONDS, 2)))
    return windows


def _open(run: Run, stack: contextlib.ExitStack, viewers: int) -> list[Side]:
    servers: list[Any] = [stack.enter_context(send_loop(run.binaries)), stack.enter_context(edge())]
    if not (missing := nchan_missing()):
        servers.append(stack.enter_context(nchan()))
    else:
        print(f"  without Nchan: {missing}")
    sides = []
    for server in servers:
        options = {"sample": LATENCY_SAMPLE}
        client = stack.enter_context(load(run.binaries, server.port, server.targets, server.pid, **options))
        client.open(viewers)
        sides.append((server, client))
        if isinstance(server, Edge):
            client.wait(1)  # the replayed first event: every viewer is live
    return sides


def _steady(server: Any, client: Load, rate: float, count: int) -> Window:
    client.zero()
    server.send(rate or 100, 20)  # warm: sockets, caches, allocators
    client.wait(20)
    client.zero()
    client.begin()
    server.send(rate, count)
    client.wait(count)
    return client.end()


def _compare(title: str, windows: dict[str, list[Window]], *, comparable: bool) -> list[Figure]:
    figures = []
    for name, each in windows.items():
        p50, p99 = median([w.p50_ms for w in each]), median([w.p99_ms for w in each])
        joined, client = max(w.joined for w in each), median([w.client_share for w in each])
        note = f"{joined:.2f} events per write; p50 {p50:.1f} ms, p99 {p99:.1f} ms; client {client:.0%} of a core"
        figures.append(Figure(f"{title}: {name}", median([w.cpu_us for w in each]), "µs CPU/delivery", note=note))
    ours = windows["Runcast"]
    for other, limit in (("send loop", 1.6), ("Nchan", 1.0)):
        if other in windows:
            ratios = [a.cpu_us / b.cpu_us for a, b in zip(ours, windows[other], strict=True)]
            figures.append(_ratio(f"{title}: Runcast / {other}", ratios, limit, comparable=comparable))
    return figures


def _ratio(what: str, ratios: Sequence[float], limit: float, *, comparable: bool) -> Figure:
    if not comparable:
        return Figure(what, median(ratios), "x", f"≤ {limit:g}", note="NOT COMPARABLE: somebody fell behind")
    return at_most(what, median(ratios), "x", limit, f"rounds {min(ratios):.2f} to {max(ratios):.2f}")


def burst(run: Run) -> list[Figure]:
    """1,000 events published at once (batches of 100, as the emitter sends them; pipelined POSTs for Nchan)."""
    viewers, events = run.size(1000, 200), 1000
    with contextlib.ExitStack() as stack:
        sides = _open(run, stack, viewers)
        windows: dict[str, list[Window]] = {server.name: [] for server, _ in sides}
        for _ in range(run.size(ROUNDS, 1)):
            for server, client in sides:
                windows[server.name].append(_steady(server, client, 0, events))
    figures = []
    for name, each in windows.items():
        server, client = median([w.server_share for w in each]), median([w.client_share for w in each])
        cost = median([w.cpu_us for w in each])
        note = f"{cost:.2f} µs server CPU/delivery; server {server:.0%}, load client {client:.0%} of core"
        figures.append(Figure(name, median([w.deliveries / w.seconds for w in each]), "deliveries/s", note=note))
    if "Nchan" in windows:
        pairs = list(zip(windows["Runcast"], windows["Nchan"], strict=True))
        rates = median([(a.deliveries / a.seconds) / (b.deliveries / b.seconds) for a, b in pairs])
        figures.append(at_least("Runcast / Nchan, deliveries per second", rates, "x", 10))
        cpu = median([b.cpu_us / a.cpu_us for a, b in pairs])
        figures.append(Figure("Runcast / Nchan, deliveries per second of server CPU", cpu, "x"))
    return figures
