"""Two shapes of earnest traffic, the whole road, beside Nchan and what people write by hand: many runs that are each
watched by one, and streamed text. A server and its Redis share the first core."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bench_many import traffic
from figures import Figure, Run, at_most, median
from load import Load, Window, load
from processes import BenchFailed, cpu_seconds
from servers import Edge, edge, embedded_redis, hand_made, nchan, nchan_missing, redis_pid

ROUNDS = 3
SECONDS = 10
LATE_SECONDS = 0.5
"""From the last event published to the last received: later than that, a server has fallen behind."""
PEER_SECONDS = 20
"""How long a peer that has fallen behind is waited for."""


class Shape(NamedTuple):
    """`executions` with `viewers` each, `rate` events a second in all of a `kind` (see `traffic.py`)."""

    executions: int
    viewers: int
    rate: int
    kind: str


class Sample(NamedTuple):
    """One window. CPU in microseconds per event; `lag` in seconds."""

    server: float
    redis: float
    publisher: float
    lag: float
    window: Window

    @property
    def all(self) -> float:
        return self.server + self.redis + self.publisher

    @property
    def millis(self) -> tuple[float, float, float, float]:
        """p50, p99, p99.9 and the maximum from emit to receive."""
        return self.window.p50_ms, self.window.p99_ms, self.window.p999_ms, self.window.max_ms


LATENCIES = ("p50", "p99", "p99.9", "max")
Limits = dict[str, float]


def runs(run: Run) -> list[Figure]:
    """2,000 executions with one viewer each, 4,000 events/s in all."""
    shape = Shape(run.size(2000, 200), 1, run.size(4000, 400), "event")
    return _compare(run, shape, {"all": 45, "Redis": 12, "publisher": 10, "p99": 3, "p99.9": 10})


def tokens(run: Run) -> list[Figure]:
    """200 executions with two viewers each and 25 chunks of text a second, which come one at a time."""
    executions = run.size(200, 40)
    return _compare(run, Shape(executions, 2, executions * 25, "token"), {"p50": 1.5, "p99": 5, "p99.9": 10})


def _compare(run: Run, shape: Shape, limits: Limits) -> list[Figure]:
    samples: dict[str, list[Sample]] = {}
    failures: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        sides = [(server, _open(run, stack, server, shape)) for server in _servers(stack)]
        for _ in range(run.size(ROUNDS, 1)):  # in turns, so that a noisy neighbour disturbs all alike
            for server, client in sides:
                if server.name not in failures:
                    try:
                        samples.setdefault(server.name, []).append(_window(run, server, client, shape))
                    except BenchFailed as problem:
                        if isinstance(server, Edge):
                            raise
                        failures[server.name] = str(problem)
    return _figures(samples, failures, limits)


def _servers(stack: contextlib.ExitStack) -> list[Any]:
    def redis() -> Any:
        return stack.enter_context(embedded_redis(on_server_core=True, durable=True))

    servers: list[Any] = [stack.enter_context(edge(redis())), stack.enter_context(hand_made(redis()))]
    if missing := nchan_missing():
        print(f"  without Nchan: {missing}")
        return servers
    return [*servers, stack.enter_context(nchan())]


def _open(run: Run, stack: contextlib.ExitStack, server: Any, shape: Shape) -> Load:
    names = [f"x{number}" for number in range(shape.executions)]
    targets = [server.watching(name) for name in names]
    client = stack.enter_context(load(run.binaries, server.port, targets, server.pid, marks=True))
    if isinstance(server, Edge):
        server.create(names)
    client.open(shape.executions * shape.viewers)
    if isinstance(server, Edge):
        client.wait(1)  # the replayed first event: every viewer is live
    return client


def _window(run: Run, server: Any, client: Load, shape: Shape) -> Sample:
    patience = {} if isinstance(server, Edge) else {"seconds": PEER_SECONDS}
    seconds = run.size(SECONDS, 2)
    client.zero()
    with traffic(server, shape.executions, shape.rate, seconds, shape.kind) as publishers:
        client.wait(1, **patience)
        client.zero()
        redis = _redis_seconds(server)
        client.begin()
        done = publishers.ask("go")
        sent = int(done["sent"])
        took = client.wait(sent // shape.executions, **patience)
        window = client.end()
        redis = _redis_seconds(server) - redis
    costs = [cost / sent * 1e6 for cost in (window.server_cpu, redis, done["cpu"])]
    return Sample(*costs, max(0.0, took - seconds), window)


def _redis_seconds(server: Any) -> float:
    return cpu_seconds(redis_pid(server.redis)) if server.redis else 0.0


def _figures(samples: dict[str, list[Sample]], failures: dict[str, str], limits: Limits) -> list[Figure]:
    figures = _runcast(samples["Runcast"], limits)
    for name in ("Nchan", "hand-made"):
        if each := samples.get(name):
            note = f"{_costs(each)}; {_millis(each)}; {_remarks(each, failures.get(name, ''))}"
            figures.append(Figure(f"{name}: all", _median(each, lambda s: s.all), "µs CPU/event", note=note))
            pairs = list(zip(samples["Runcast"], each, strict=False))
            figures += [_ratio(name, "all", [a.all / b.all for a, b in pairs])]
            figures += [
                _ratio(name, what, [a.millis[place] / max(b.millis[place], 0.001) for a, b in pairs])
                for place, what in enumerate(LATENCIES[:3])
            ]
        elif name in failures:
            figures.append(Figure(f"{name}: could not do it", 0, note=failures[name]))
    return figures


def _runcast(each: Sequence[Sample], limits: Limits) -> list[Figure]:
    figures = []
    parts: dict[str, Callable[[Sample], float]] = {
        "edge": lambda sample: sample.server,
        "Redis": lambda sample: sample.redis,
        "publisher": lambda sample: sample.publisher,
        "all": lambda sample: sample.all,
    }
    for name, part in parts.items():
        note = _spread([part(sample) for sample in each])
        if name == "all":
            note += f"; {_remarks(each, '')}"
        figures.append(_figure(f"Runcast: {name}", _median(each, part), "µs CPU/event", limits.get(name), note))
    for place, name in enumerate(LATENCIES):
        values = [sample.millis[place] for sample in each]
        title = f"Runcast: {name} emit to receive"
        figures.append(_figure(title, median(values), "ms", limits.get(name), _spread(values)))
    return figures


def _figure(what: str, value: float, unit: str, limit: float | None, note: str) -> Figure:
    return Figure(what, value, unit, note=note) if limit is None else at_most(what, value, unit, limit, note)


def _ratio(peer: str, what: str, ratios: Sequence[float]) -> Figure:
    return Figure(f"Runcast / {peer}: {what}", median(ratios), "x", note=_spread(ratios))


def _spread(values: Sequence[float]) -> str:
    return f"rounds {min(values):.3g} to {max(values):.3g}"


def _median(each: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    return median([value(sample) for sample in each])


def _costs(each: Sequence[Sample]) -> str:
    server, redis, publisher = (_median(each, lambda s, at=at: s[at]) for at in range(3))
    store = f"Redis {redis:.1f}, " if redis else ""
    return f"server {server:.1f}, {store}publisher {publisher:.1f}"


def _millis(each: Sequence[Sample]) -> str:
    values = [median([sample.millis[place] for sample in each]) for place in range(len(LATENCIES))]
    return ", ".join(f"{name} {value:.2f}" for name, value in zip(LATENCIES, values, strict=True)) + " ms"


def _remarks(each: Sequence[Sample], failure: str) -> str:
    """What of the events: whole, joined, late; and whether the load client had room."""
    windows = [sample.window for sample in each]
    size = median([window.bytes / window.deliveries for window in windows])
    remarks = [
        f"{size:.0f} bytes/delivery",
        f"{max(window.joined for window in windows):.2f} events per read",
        f"load client {max(window.client_share for window in windows):.0%} of a core",
    ]
    if (lag := max(sample.lag for sample in each)) > LATE_SECONDS:
        remarks.append(f"FELL BEHIND by {lag:.1f} s")
    return "; ".join([*remarks, *([failure] if failure else [])])
