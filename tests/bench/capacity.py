"""How much of what a number of viewers needs, computed from RESULTS.md: the table of docs/run/sizing.md.

python tests/bench/capacity.py
python tests/bench/capacity.py --viewers 50000 --events 2000 --hours 24
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).with_name("RESULTS.md")
FLAGS = re.DOTALL | re.MULTILINE

EVENTS_PER_VIEWER = 1.0
"""A second and viewer, of an execution of its own: one in five has a running agent, which says five things a second."""
UTILISATION = 0.6
"""Share of a core that may be planned with; a failover and the peak of the minute take the rest."""
VIEWERS_PER_EDGE = 5_000
KERNEL_BYTES = 7_000
"""Of an idle TCP connection, beside what the edge's process has."""
EDGE_BYTES = 90e6
"""Resident set of an edge without viewers."""
SURGE, DRAIN_SECONDS = 0.25, 60
"""Of a rolling update: the part of the edges that goes at a time, and how long it takes to close its streams."""
CPU_HOUR, EGRESS_GB = 0.04, 0.05
"""Prices in $ of a core for an hour, and of a GB to the internet."""
FRAME_BYTES = 400
"""Of an event on the wire: frame, chunk, TLS and TCP."""


class Measured(NamedTuple):
    """Costs of one event in seconds of CPU, of memory in bytes."""

    edge: float
    redis: float
    further_viewer: float
    agent: float
    open: float
    viewer_bytes: float
    event_bytes: float
    execution_bytes: float


def measured(results: str) -> Measured:
    """Raises `LookupError` for a figure that RESULTS.md does not have."""
    many = _row(results, "many", "4,000 events/s by emitter: per edge core")
    costs = {name: _number(many, rf"{name} ([\d.]+) µs") * 1e-6 for name in ("agents", "Redis", "edge")}
    return Measured(
        edge=costs["edge"],
        redis=costs["Redis"],
        agent=costs["agents"],
        further_viewer=_value(results, "fanout", r"1,000 viewers, \d+/s: Runcast ") * 1e-6,
        open=1 / _value(results, "connects", "authenticated opens"),
        viewer_bytes=_value(results, "memory", "Runcast, 5,000 viewers of an execution each") * 1000,
        event_bytes=_value(results, "logs", "each further event"),
        execution_bytes=_value(results, "logs", "an execution that has begun") * 1000,
    )


def _row(results: str, section: str, what: str) -> str:
    """The first row that begins with `what`, a pattern."""
    found = re.search(rf"<!-- figures: {section} -->.*?(^\| {what}[^|]*\|.*?$)", results, FLAGS)
    if found is None:
        raise LookupError(f"RESULTS.md has no {what!r} in {section}")
    return found[1]


def _value(results: str, section: str, what: str) -> float:
    return _number(_row(results, section, what), r"^\|[^|]*\|\s*([\d.,]+)")


def _number(row: str, pattern: str) -> float:
    found = re.search(pattern, row)
    if found is None:
        raise LookupError(f"no {pattern} in {row!r}")
    return float(found[1].replace(",", ""))


# --- what follows from it --------------------------------------------------------------------------------------------


def sizes(viewers: int, cost: Measured, given_events: float | None = None, hours: float = 1) -> list[str]:
    """`given_events`: a second, over all executions; each viewer has its share. `hours`: how long logs are kept."""
    events = viewers * EVENTS_PER_VIEWER if given_events is None else given_events
    edge_cores, redis_cores = events * cost.edge, events * cost.redis
    edges = max(2, math.ceil(viewers / VIEWERS_PER_EDGE), math.ceil(edge_cores / UTILISATION))
    memory = edges * EDGE_BYTES + viewers * (cost.viewer_bytes + KERNEL_BYTES)
    running = viewers / 5
    kept = events * 3600 * hours * cost.event_bytes + running * cost.execution_bytes
    reconnects = max(1, edges * SURGE) * viewers / edges / DRAIN_SECONDS
    return [
        f"{viewers:,}",
        f"{events:,.0f}",
        f"{edges:,}",
        f"{edge_cores:.2g}",
        f"{memory / 1e9:.1f} GB",
        f"{redis_cores:.2g}",
        f"{max(1, math.ceil(redis_cores / UTILISATION)):,}",
        f"{kept / 1e9:,.1f} GB",
        f"{reconnects:,.0f}",
        f"{reconnects * cost.open:.2g}",
    ]


def table(rows: Sequence[Sequence[str]], hours: float = 1) -> str:
    heads = (
        "viewers", "events/s", "edges", "their CPU", "their memory", "Redis CPU", "primaries",
        "log, per hour kept" if hours == 1 else f"log, {hours:g} hours kept",
        "reconnects/s in a rollout", "CPU for them",
    )  # fmt: skip
    return _markdown([heads, ["---"] * len(heads), *rows])


def prices(cost: Measured) -> str:
    """$ for a million deliveries: each with its own execution, and to a thousand viewers of one."""
    egress = FRAME_BYTES / 1000 * EGRESS_GB
    own, shared = cost.edge + cost.redis, cost.further_viewer + (cost.edge + cost.redis) / 1000
    rows = [["a million deliveries", "CPU", "$ of CPU", "$ of egress"], ["---"] * 4]
    for what, seconds in (("each of an execution of its own", own), ("of one execution to a thousand viewers", shared)):
        rows.append([what, f"{seconds * 1e6:.0f} s", _dollars(seconds * 1e6 * CPU_HOUR / 3600), _dollars(egress)])
    return _markdown(rows)


def _dollars(value: float) -> str:
    return f"{value:.{1 - math.floor(math.log10(value))}f}"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What a number of viewers needs, from the measured benches.")
    parser.add_argument("--viewers", type=int, help="one row, for so many; without it the table of the docs")
    parser.add_argument(
        "--events", type=float, help="events a second over all executions (default: one for each viewer)"
    )
    parser.add_argument("--hours", type=float, default=1, help="how long logs are kept (default 1)")
    given = parser.parse_args(arguments)
    cost = measured(RESULTS.read_text())
    if given.viewers is None:
        if given.events is not None or given.hours != 1:
            parser.error("--events and --hours need --viewers")
        print(table([sizes(10**power, cost) for power in (3, 4, 5, 6)]), prices(cost), sep="\n\n")
    else:
        print(table([sizes(given.viewers, cost, given.events, given.hours)], given.hours))


if __name__ == "__main__":
    main()
