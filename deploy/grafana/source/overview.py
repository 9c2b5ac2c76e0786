"""Is all well, and how much is going on."""

from __future__ import annotations

from panels import BAD, WARN, Dashboard, Panel, Query, Row, Threshold
from queries import ALL, BUDGET, LATENCY, NAMESPACE, quantile, rate, stat, total
from shared import ALERTS, BY_REASON, DELIVERY, MEMORY_RATIO, OUTCOMES, REJECTED, RESETS, UNDER_80, WAITING

OVERVIEW = Dashboard(
    "runcast-overview",
    "Runcast: overview",
    "Is all well, and how much is going on.",
    [NAMESPACE],
    [
        Row(
            "Now",
            [
                stat("Viewers", "Streams that are open.", "short", f"sum(runcast_connections{{{ALL}}})"),
                stat(
                    "Events delivered",
                    "Events written to viewers, each viewer counted.",
                    "ops",
                    total("runcast_events_delivered_total"),
                ),
                stat(
                    "Latency p99",
                    "From append to socket, for 99 of 100 deliveries.",
                    "s",
                    quantile(0.99, LATENCY, ALL),
                    Threshold(0.1, WARN),
                    Threshold(0.25, BAD),
                    base="green",
                ),
                stat("Running", "Executions that run now.", "short", f"sum(runcast_worker_running{{{ALL}}})"),
                stat(
                    "Waiting",
                    "Executions that wait for a worker.",
                    "short",
                    f"sum(max by (namespace, agent) (runcast_jobs_waiting{{{ALL}}}))",
                    Threshold(1, WARN),
                    Threshold(100, BAD),
                    base="green",
                ),
                stat(
                    "Redis memory",
                    "Of `maxmemory`, on the fullest server. 0 where there is no limit.",
                    "percentunit",
                    MEMORY_RATIO,
                    *UNDER_80,
                    base="green",
                    kind="gauge",
                    most=1,
                ),
                stat(
                    "Edges that are ready",
                    "Processes that Prometheus reaches, and that say of themselves that they take viewers.",
                    "short",
                    f'sum(runcast_ready{{job=~"(.*/)?runcast-edge",{ALL}}}) or vector(0)',
                    Threshold(1, WARN),
                    Threshold(2, "green"),
                    base=BAD,
                ),
                stat(
                    "Workers that are ready",
                    "Processes that Prometheus reaches, and that say of themselves that they take executions.",
                    "short",
                    f'sum(runcast_ready{{job=~"(.*/)?runcast-worker",{ALL}}}) or vector(0)',
                    Threshold(1, WARN),
                    Threshold(2, "green"),
                    base=BAD,
                ),
                stat(
                    "Slots in use",
                    "Of all that workers may run at once.",
                    "percentunit",
                    f"sum(runcast_worker_running{{{ALL}}}) / sum(runcast_worker_concurrency{{{ALL}}})",
                    *UNDER_80,
                    base="green",
                ),
                stat(
                    "Viewers of the limit",
                    "On the fullest edge, with long polls that wait, of RUNCAST_MAX_CONNECTIONS.",
                    "percentunit",
                    f"max((runcast_connections{{{ALL}}} + (runcast_waits{{{ALL}}} or 0 * runcast_connections{{{ALL}}}))"
                    f" / (runcast_connections_limit{{{ALL}}} > 0))",
                    *UNDER_80,
                    base="green",
                ),
                stat(
                    "Deliveries in time",
                    "Within 250 ms, of the last hour. The service level is 99.9 %.",
                    "percentunit",
                    f"1 - max(runcast:deliveries_late:ratio_rate1h{{{ALL}}})",
                    Threshold(1 - 14.4 * BUDGET, WARN),
                    Threshold(1 - BUDGET, "green"),
                    base=BAD,
                    decimals=3,
                    least=None,
                ),
                stat(
                    "Streams without an error",
                    "Neither refused nor ended by an error of ours, of the last hour. The service level is 99.9 %.",
                    "percentunit",
                    f"1 - max(runcast:streams_failed:ratio_rate1h{{{ALL}}})",
                    Threshold(1 - 14.4 * BUDGET, WARN),
                    Threshold(1 - BUDGET, "green"),
                    base=BAD,
                    decimals=3,
                    least=None,
                ),
            ],
        ),
        Row(
            "Viewers",
            [
                Panel(
                    "Viewers, by edge",
                    "Even within 15 minutes of a scale-out: streams move once in RUNCAST_MAX_STREAM_AGE_SECONDS.",
                    "short",
                    [Query(f"sum by (instance) (runcast_connections{{{ALL}}})", "{{instance}}")],
                    stack=True,
                ),
                Panel(
                    "Events delivered, by edge",
                    "Events written to viewers, each viewer counted.",
                    "ops",
                    [Query(rate("runcast_events_delivered_total", "instance", ALL), "{{instance}}")],
                    stack=True,
                ),
                DELIVERY,
                BY_REASON,
                REJECTED,
                RESETS,
            ],
        ),
        Row(
            "Executions",
            [
                Panel(
                    "Requests to execute, by result",
                    "`repeated`: an Idempotency-Key was seen before. `refused`: for who asked, or a rate limit.",
                    "ops",
                    [Query(rate("runcast_executes_total", "result", ALL), "{{result}}")],
                    stack=True,
                ),
                WAITING,
                OUTCOMES,
            ],
        ),
        Row(
            "Processes",
            [
                Panel(
                    "Versions",
                    "How many processes run which. Two of a job at a time: a rollout goes on, or got stuck.",
                    "short",
                    [Query(f"sum by (job, version) (runcast_build_info{{{ALL}}})", "{{job}} {{version}}")],
                    width=12,
                    stack=True,
                ),
                Panel(
                    "CPU",
                    "Cores in use. An edge uses one at most.",
                    "short",
                    [
                        Query(
                            rate("process_cpu_seconds_total", "instance", f'{ALL},job=~"(.*/)?runcast-(edge|worker)"'),
                            "{{instance}}",
                        )
                    ],
                    width=12,
                    decimals=2,
                ),
            ],
        ),
        Row("Trouble", [ALERTS]),
    ],
)
