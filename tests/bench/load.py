"""The load client, from Python: viewers of a server and what they received."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from processes import BenchFailed, Dialogue, cpu_seconds, dialogue


class Target(NamedTuple):
    """What one connection asks for."""

    path: str
    header: str = ""
    more: tuple[str, ...] = ()
    """Further headers."""

    def __str__(self) -> str:
        return "\t".join([self.path, *filter(None, (self.header, *self.more))])


class Window(NamedTuple):
    """What happened between two looks. CPU in seconds, latencies in milliseconds."""

    seconds: float
    deliveries: int
    bytes: int
    reads: int
    server_cpu: float
    client_cpu: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    samples: int

    @property
    def cpu_us(self) -> float:
        """Server CPU per delivery in microseconds."""
        return self.server_cpu / max(1, self.deliveries) * 1e6

    @property
    def joined(self) -> float:
        """Events per read of the load client: 1 when each was a write of its own, more when a server (or the client)
        fell behind and several travelled as one."""
        return self.deliveries / max(1, self.reads)

    @property
    def server_share(self) -> float:
        return self.server_cpu / self.seconds

    @property
    def client_share(self) -> float:
        return self.client_cpu / self.seconds


class Load:
    """Viewers. Every method that waits is bounded."""

    def __init__(self, client: Dialogue, server_pid: int) -> None:
        self._client = client
        self._server_pid = server_pid
        self._since: dict[str, float] = {}

    def open(self, count: int) -> float:
        """Open `count` more viewers; seconds until all have their response head."""
        answer = self._client.ask(f"open {count}")
        if answer["failed"]:
            raise BenchFailed(f"{answer['failed']} of {count} streams were refused")
        return float(answer["seconds"])

    def read(self, events: int) -> tuple[float, float]:
        """Open one more viewer: seconds until it has its response head, and until it has `events`, as all have."""
        answer = self._client.ask(f"open 1 {events}")
        if answer.get("failed") or answer["least"] != events or answer["most"] != events:
            raise BenchFailed(f"a viewer could not read {events} events: {answer}")
        return float(answer["heads"]), float(answer["seconds"])

    def pace(self, at_a_time: int) -> None:
        """At most so many viewers are being opened at a time."""
        self._client.ask(f"pace {at_a_time}")

    def watch(self, server_pid: int) -> None:
        """Another process is the server now."""
        self._server_pid = server_pid

    def begin(self) -> None:
        """Start a window."""
        self._since = self._look()

    def end(self) -> Window:
        """What happened since `begin`."""
        a, b = self._since, self._look()
        if b["closed"] != a["closed"]:
            raise BenchFailed(f"the server closed {b['closed'] - a['closed']:g} streams")
        return Window(
            seconds=b["wall"] - a["wall"],
            deliveries=int(b["events"] - a["events"]),
            bytes=int(b["bytes"] - a["bytes"]),
            reads=int(b["reads"] - a["reads"]),
            server_cpu=b["server"] - a["server"],
            client_cpu=b["cpu"] - a["cpu"],
            p50_ms=b["p50_us"] / 1000,
            p99_ms=b["p99_us"] / 1000,
            p999_ms=b["p999_us"] / 1000,
            max_ms=b["max_us"] / 1000,
            samples=int(b["samples"]),
        )

    def _look(self) -> dict[str, float]:
        return {**self._client.ask("snap"), "server": cpu_seconds(self._server_pid)}

    def zero(self) -> None:
        """Event counts start again at 0, and with them the clock of `wait`."""
        self._client.ask("zero")

    def wait(self, events: int, seconds: float = 60.0) -> float:
        """Wait until every viewer has exactly `events` since `zero` or `resume`, numbered ones in order; the seconds
        that took."""
        answer = self._client.ask(f"await {events} {seconds}")
        if answer["least"] != events or answer["most"] != events:
            raise BenchFailed(f"viewers got {answer['least']} to {answer['most']} of {events} events in {seconds:g} s")
        if answer["errors"]:
            raise BenchFailed(f"{answer['errors']} events were not the ones after those before them")
        return float(answer["seconds"])

    def drop(self) -> None:
        self._client.ask("drop")

    def resume(self) -> float:
        """Reopen every viewer with its Last-Event-ID; seconds until all have their response head."""
        answer = self._client.ask("resume")
        if answer["failed"]:
            raise BenchFailed(f"{answer['failed']} streams could not be resumed")
        return float(answer["seconds"])


@contextlib.contextmanager
def load(
    binaries: Path, port: int, targets: Sequence[Target], server_pid: int, *, sample: int = 1, marks: bool = False
) -> Iterator[Load]:
    """A load client whose connection i asks for `targets[i % len(targets)]`. Every `sample`-th measures latency. With
    `marks` these are the events, of which one frame may have several."""
    with tempfile.NamedTemporaryFile("w", prefix="targets-") as file:
        file.write("".join(f"{target}\n" for target in targets))
        file.flush()
        options = [str(sample), *(["marks"] if marks else [])]
        with dialogue([binaries / "load_client", str(port), file.name, *options]) as client:
            yield Load(client, server_pid)


def paced(rate: float, count: int) -> Iterator[int]:
    """0 … count-1, at `rate` per second on an absolute schedule, so that a late step does not delay those after it."""
    began = time.monotonic()
    for number in range(count):
        left = began + number / rate - time.monotonic()
        if left > 0:
            time.sleep(left)
        yield number
