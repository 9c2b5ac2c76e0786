"""What a viewer costs besides deliveries: memory at rest, opening a stream, and a storm of reconnects."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from figures import Figure, Run, at_least, at_most, median
from load import Load, Target, load
from processes import forget_peak, peak_bytes, rss_bytes
from servers import Edge, bench_event, edge, embedded_redis, nchan, nchan_missing, viewer

SETTLE_SECONDS = 2.0
AT_REST_SECONDS = 5.0


def memory(run: Run) -> list[Figure]:
    """Of viewers that come one after the other, and of viewers that come all at once, and again."""
    return [*_paced(run), *_unpaced(run)]


def _paced(run: Run) -> list[Figure]:
    viewers = run.size(5000, 1000)
    figures = []
    for title, executions, limit in (("100 executions", 100, 4), ("an execution each", viewers, 5)):
        with edge() as server:
            server.create([f"x{number}" for number in range(executions)])
            targets = [viewer(f"x{number % executions}", number) for number in range(viewers)]
            kilobytes = _grown(run, server, targets, viewers)
        figures.append(at_most(f"Runcast, {viewers:,} viewers of {title}", kilobytes, "KB/viewer", limit))
    if missing := nchan_missing():
        print(f"  without Nchan: {missing}")
        return figures
    with nchan() as server:
        kilobytes = _grown(run, server, [Target(f"/sub/x{number}") for number in range(100)], viewers)
    return [*figures, Figure(f"Nchan, {viewers:,} viewers of 100 channels", kilobytes, "KB/viewer")]


def _grown(run: Run, server: Any, targets: list[Target], viewers: int) -> float:
    """KB by which a server grows per viewer, once its first few have made it load what it needs."""
    before = _warmed(run, server, targets)
    with load(run.binaries, server.port, targets, server.pid) as client:
        client.open(viewers)
        time.sleep(SETTLE_SECONDS)
        return (rss_bytes(server.pid) - before) / viewers / 1024


def _warmed(run: Run, server: Any, targets: list[Target]) -> int:
    """The resident set of a server that has had a few viewers."""
    with load(run.binaries, server.port, targets[:50], server.pid) as client:
        client.open(100)
    time.sleep(0.5)
    return rss_bytes(server.pid)


def _unpaced(run: Run) -> list[Figure]:
    """Viewers that all connect at once, three times, each time after all have left."""
    viewers = run.size(5000, 1000)
    figures = []
    for title, executions, limit in (("100 executions", 100, 4), ("an execution each", viewers, 5)):
        with edge() as server:
            server.create([f"x{number}" for number in range(executions)])
            targets = [viewer(f"x{number % executions}", number) for number in range(viewers)]
            before = _warmed(run, server, targets)
            rounds = [_crowd(run, server, targets, before) for _ in range(3)]
        rests, peaks = [rest for rest, _ in rounds], [peak for _, peak in rounds]
        title = f"{viewers:,} viewers of {title} at once"
        note = f"{AT_REST_SECONDS:g} s after; rounds {', '.join(f'{rest:.1f}' for rest in rests)}"
        figures += [
            at_most(f"{title}: at rest", max(rests), "KB/viewer", limit, note),
            at_most(f"{title}: peak", max(peaks), "KB/viewer", 8, ", ".join(f"{peak:.1f}" for peak in peaks)),
            at_most(f"{title}: third round / first", rests[-1] / rests[0], "x", 1.1),
        ]
    return figures


def _crowd(run: Run, server: Edge, targets: list[Target], before: int) -> tuple[float, float]:
    """KB per viewer above `before`: at rest, and at the most."""
    forget_peak(server.pid)
    with load(run.binaries, server.port, targets, server.pid) as client:
        client.pace(len(targets))
        client.open(len(targets))
        client.wait(1)
        time.sleep(AT_REST_SECONDS)
        grown = rss_bytes(server.pid) - before, peak_bytes(server.pid) - before
    time.sleep(1)  # all have left
    return grown[0] / len(targets) / 1024, grown[1] / len(targets) / 1024


def connects(run: Run) -> list[Figure]:
    """Opens with tokens that the edge has never seen, each its own, and again with the same; then logs of 300 events
    that one viewer after the other reads."""
    viewers, executions = run.size(4000, 500), 50
    rates: dict[str, list[float]] = {"a new token": [], "a known token": []}
    notes: dict[str, str] = {}
    with edge() as server:
        server.create([f"x{number}" for number in range(executions)])
        for round_ in range(run.size(3, 1)):
            first = round_ * viewers
            targets = [viewer(f"x{number % executions}", first + number) for number in range(viewers)]
            with load(run.binaries, server.port, targets, server.pid) as client:
                for which, measured in rates.items():
                    client.begin()
                    wall = viewers / client.open(viewers)
                    client.wait(1)
                    window = client.end()
                    measured.append(viewers / window.server_cpu)
                    notes[which] = f"{wall:,.0f}/s by the clock; load client {window.client_share:.0%} of a core"
                    client.drop()
                    time.sleep(1)
        figures = [
            at_least(f"authenticated opens, {which}", median(rates[which]), "/s per core", limit, notes[which])
            for which, limit in (("a new token", 5000), ("a known token", 8000))
        ]
        return [*figures, *_reads(run, server)]


def _reads(run: Run, server: Edge) -> list[Figure]:
    events, opens = 300, run.size(200, 20)
    server.publish([("read", [bench_event("read") for _ in range(100)]) for _ in range(events // 100)])
    with load(run.binaries, server.port, [viewer("read")], server.pid) as client:
        client.begin()
        times = [client.read(events) for _ in range(opens)]
        cpu = client.end().server_cpu
    note = f"{opens} opens one after the other; edge CPU {cpu / opens * 1000:.2f} ms each"
    figures = []
    for place, what in enumerate(("first byte", f"all {events} events")):
        millis = sorted(each[place] * 1000 for each in times)
        p99 = millis[int(len(millis) * 0.99)]
        figures.append(Figure(f"open to {what}, p50", median(millis), "ms", note=f"p99 {p99:.2f} ms; {note}"))
    return figures


def workers(run: Run) -> list[Figure]:
    """`serve --workers`: opens by the clock of one and of two processes, and how even the streams spread over two. The
    load client and Redis take their shares of the same cores."""
    viewers = run.size(4000, 500)
    rates: dict[int, list[float]] = {1: [], 2: []}
    spreads: dict[int, list[float]] = {20: [], 200: [], viewers: []}
    with edge(workers=1) as one, edge(workers=2) as two:
        for server in (one, two):
            server.create([f"x{number}" for number in range(50)])
        targets = [viewer(f"x{number % 50}", number) for number in range(viewers)]
        for _ in range(run.size(3, 1)):
            for processes, server in ((1, one), (2, two)):
                with load(run.binaries, server.port, targets, server.pid) as client:
                    rates[processes].append(viewers / client.open(viewers))
                time.sleep(1)
            for count, measured in spreads.items():
                with load(run.binaries, two.port, targets, two.pid) as client:
                    client.open(count)
                    client.wait(1)
                    measured.append(max(two.streams(0), two.streams(1)) / count)
                time.sleep(1)
    gain = [both / single for single, both in zip(rates[1], rates[2], strict=True)]
    return [
        *(Figure(f"opens, {count} worker{'s' * (count > 1)}", median(each), "/s") for count, each in rates.items()),
        Figure("2 workers / 1 worker", median(gain), "x", note=f"rounds {min(gain):.2f} to {max(gain):.2f}"),
        *(
            Figure(f"{count:,} streams: share of the fuller worker", median(each), "", note=f"worst {max(each):.3f}")
            for count, each in spreads.items()
        ),
    ]


def storm(run: Run) -> list[Figure]:
    """Viewers drop, miss 100 events, and resume: at the edge they had, and at one that has just started; a few at a
    time, and all at once."""
    viewers, missed = run.size(5000, 500), 100
    figures = []
    for executions, restart, paced in (
        (1, False, True),
        (100, False, True),
        (1, True, True),
        (100, True, True),
        (100, False, False),
    ):
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
                if not paced:
                    client.pace(viewers)
                    title += ", at once"
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
