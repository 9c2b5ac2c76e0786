"""Panels that several dashboards have."""

from __future__ import annotations

from panels import BAD, WARN, Panel, Query, Row, Threshold
from queries import ALL, HERE, LATENCY, RATE, quantiles, rate

BY_REASON = Panel(
    "Streams closed, by reason",
    "`finished`: the execution ended. `gone`: the viewer left. `aged` and `draining`: the viewer was sent to another "
    "edge and resumes there. `lost_redis` and `failed` are errors of ours; `slow` is one of the line to the viewer.",
    "ops",
    [Query(rate("runcast_connections_closed_total", "reason", ALL), "{{reason}}")],
    stack=True,
)
REJECTED = Panel(
    "Turned away, by reason",
    "`capacity`: edges are full. `sockets`: they have no room for connections. `user_connections`, `requests` and "
    "the rates: one user wanted too much. `draining`: a proxy sends viewers to an edge that is leaving. `redis`: "
    "nobody could be admitted.",
    "ops",
    [Query(rate("runcast_rejected_total", "reason", ALL), "{{reason}}")],
    stack=True,
)
WAITING = Panel(
    "Executions that wait, by agent",
    "For a worker with a free slot. Back at 0 within seconds is normal; above it for long, there are too few workers.",
    "short",
    [Query(f"max by (agent) (runcast_jobs_waiting{{{ALL}}})", "{{agent}}")],
)
OUTCOMES = Panel(
    "Executions, by how they came out",
    "`handed_over`: the worker stopped and another begins anew. `lost`: the worker was given up meanwhile. "
    "`unwritten`: Redis did not take the end; another worker looks after it.",
    "ops",
    [Query(rate("runcast_worker_executions_total", "outcome", ALL), "{{outcome}}")],
    stack=True,
)
DELIVERY = Panel(
    "From append to socket",
    "How old an event is when it is written to the sockets of its viewers. What an emitter holds back to send events "
    "together (10 ms at most) comes before. The service level is 250 ms.",
    "s",
    quantiles(LATENCY, ALL, (0.5, 0.99, 0.999)),
    thresholds=[Threshold(0.25, BAD)],
)
RESETS = Panel(
    "Streams told that history is lost",
    "Normally none. `trimmed`: they came back too late. `diverged`: Redis lost what they have seen. `unknown`: their "
    "Last-Event-ID is none of ours.",
    "short",
    [Query(f"sum by (reason) (increase(runcast_resets_total{{{ALL}}}{RATE}))", "{{reason}}")],
    stack=True,
)
ALERTS = Panel(
    "Alerts",
    "Those of deploy/prometheus/rules that are pending or fire. Empty is good.",
    "none",
    [
        Query(
            f'max by (alertname, alertstate, instance, agent, node, reason) (ALERTS{{alertname=~"Runcast.*",{ALL}}})',
            "{{alertname}} {{alertstate}} {{instance}}{{agent}}{{node}}{{reason}}",
        )
    ],
    kind="state-timeline",
    width=24,
    height=7,
    base=WARN,
)
UNDER_80 = (Threshold(0.8, WARN), Threshold(0.95, BAD))
MEMORY_RATIO = f"max(node:runcast_redis_memory:ratio{{{ALL}}}) or vector(0)"


def process(job: str) -> Row:
    """What every Python process has."""
    return Row(
        f"Process of {job}",
        [
            Panel(
                "CPU",
                "Cores in use. One process uses one core at most: above 0.8 it is late with everything.",
                "short",
                [Query(rate("process_cpu_seconds_total", "instance"), "{{instance}}")],
                width=6,
                thresholds=[Threshold(0.8, WARN)],
                decimals=2,
            ),
            Panel(
                "Memory",
                "Resident. Some kilobytes for each viewer of an edge; on a worker, what the agents need.",
                "bytes",
                [Query(f"sum by (instance) (process_resident_memory_bytes{{{HERE}}})", "{{instance}}")],
                width=6,
            ),
            Panel(
                "Open files of what is allowed",
                "A stream is a file descriptor, so on an edge the limit should be twice RUNCAST_MAX_CONNECTIONS.",
                "percentunit",
                [Query(f"max by (instance) (process_open_fds{{{HERE}}} / process_max_fds{{{HERE}}})", "{{instance}}")],
                width=6,
                thresholds=UNDER_80,
                most=1,
            ),
            Panel(
                "Garbage collections of the oldest generation",
                "Each stops the process for some milliseconds. A few in a minute at most.",
                "ops",
                [Query(rate("python_gc_collections_total", "instance", HERE + ',generation="2"'), "{{instance}}")],
                width=6,
            ),
        ],
    )
