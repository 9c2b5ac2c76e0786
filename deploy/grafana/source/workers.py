"""What workers run, what waits for them, and how it ends."""

from __future__ import annotations

from panels import BAD, WARN, Dashboard, Panel, Query, Row, Threshold, Variable
from queries import ALL, HERE, RATE, WORK, chosen, quantile, quantiles, rate, ratio
from shared import OUTCOMES, WAITING, process

WORKERS = Dashboard(
    "runcast-workers",
    "Runcast: workers",
    "What workers run, what waits for them, and how it ends.",
    [*chosen("runcast_worker_running"), Variable("agent", "Agent", f"runcast_jobs_waiting{{{ALL}}}")],
    [
        Row(
            "Load",
            [
                Panel(
                    "Executions that run",
                    "By worker, with what all of them may run at once.",
                    "short",
                    [
                        Query(f"sum by (instance) (runcast_worker_running{{{HERE}}})", "{{instance}}"),
                        Query(f"sum(runcast_worker_concurrency{{{HERE}}})", "slots"),
                    ],
                    stack=True,
                ),
                Panel(
                    "Executions that wait",
                    "For a person or a child, by worker. They need no slot.",
                    "short",
                    [Query(f"sum by (instance) (runcast_worker_waiting{{{HERE}}})", "{{instance}}")],
                    stack=True,
                ),
                WAITING._replace(queries=[Query(f"max by (agent) (runcast_jobs_waiting{{{WORK}}})", "{{agent}}")]),
                Panel(
                    "Time in the queue, p90",
                    "From accepted to claimed. With free slots some milliseconds.",
                    "s",
                    [Query(quantile(0.9, "runcast_worker_queue_seconds", WORK, "agent"), "{{agent}}")],
                    thresholds=[Threshold(60, BAD)],
                ),
            ],
        ),
        Row(
            "Executions",
            [
                OUTCOMES._replace(
                    queries=[Query(rate("runcast_worker_executions_total", "outcome", WORK), "{{outcome}}")]
                ),
                Panel(
                    "Executions that failed, by agent",
                    "Of those that came out. Also those that took too long.",
                    "percentunit",
                    [
                        Query(
                            ratio(
                                rate("runcast_worker_executions_total", "agent", WORK + ',outcome=~"failed|timeout"'),
                                rate("runcast_worker_executions_total", "agent", WORK),
                            ),
                            "{{agent}}",
                        )
                    ],
                    most=1,
                    thresholds=[Threshold(0.25, WARN)],
                ),
                Panel(
                    "Taken from lost workers",
                    "`superseded`: begun anew by another. `ended`: without an attempt left, failed with `worker_lost`.",
                    "short",
                    [
                        Query(
                            f"sum by (verdict) (increase(runcast_worker_taken_over_total{{{HERE}}}{RATE}))",
                            "{{verdict}}",
                        )
                    ],
                    stack=True,
                ),
                Panel(
                    "Over their budget",
                    "Executions that were ended because a limit of their budget was over, by limit.",
                    "short",
                    [
                        Query(
                            f"sum by (limit) (increase(runcast_budget_exceeded_total{{{HERE}}}{RATE}))",
                            "{{limit}}",
                        )
                    ],
                    stack=True,
                ),
                Panel(
                    "How long they run, p50",
                    "From claimed to ended, by agent.",
                    "s",
                    [Query(quantile(0.5, "runcast_worker_run_seconds", WORK, "agent"), "{{agent}}")],
                ),
                Panel(
                    "How long they run, p99",
                    "From claimed to ended, by agent.",
                    "s",
                    [Query(quantile(0.99, "runcast_worker_run_seconds", WORK, "agent"), "{{agent}}")],
                ),
                Panel(
                    "Executions begun",
                    "How many a second are taken by a worker, by agent.",
                    "ops",
                    [Query(rate("runcast_worker_queue_seconds_count", "agent", WORK), "{{agent}}")],
                    stack=True,
                ),
            ],
        ),
        Row(
            "Workers over HTTP, as edges see them",
            [
                Panel(
                    "Jobs, by what became of them",
                    "`lost`: the worker heard that it has the job no longer. `cut`: an edge has ended it, as it was"
                    " over a limit or did not follow a cancel.",
                    "ops",
                    [Query(rate("runcast_jobs_total", "step", ALL), "{{step}}")],
                    width=12,
                    stack=True,
                ),
                Panel(
                    "Claims that wait",
                    "Workers with room for a job, by edge.",
                    "short",
                    [Query(f"sum by (instance) (runcast_job_claims{{{ALL}}})", "{{instance}}")],
                    width=12,
                    stack=True,
                ),
            ],
        ),
        Row(
            "What they write",
            [
                Panel(
                    "Events appended",
                    "To logs, by worker.",
                    "ops",
                    [Query(rate("runcast_appended_events_total", "instance"), "{{instance}}")],
                    width=6,
                    stack=True,
                ),
                Panel(
                    "Events in a batch",
                    "Mean. Larger batches cost Redis less for each event.",
                    "short",
                    [
                        Query(
                            ratio(
                                rate("runcast_appended_events_total", "instance"),
                                rate("runcast_appended_batches_total", "instance"),
                            ),
                            "{{instance}}",
                        )
                    ],
                    width=6,
                    decimals=1,
                ),
                Panel(
                    "Appends",
                    "Round trips to Redis.",
                    "s",
                    quantiles("runcast_append_seconds"),
                    width=6,
                    thresholds=[Threshold(0.1, WARN)],
                ),
                Panel(
                    "Trouble with Redis",
                    "Appends that did not reach it, and errors of a worker's loops. Normally none.",
                    "short",
                    [
                        Query(f"sum(increase(runcast_append_failures_total{{{HERE}}}{RATE}))", "append"),
                        Query(
                            f"sum by (loop) (increase(runcast_worker_redis_errors_total{{{HERE}}}{RATE}))", "{{loop}}"
                        ),
                    ],
                    width=6,
                ),
            ],
        ),
        Row(
            "Event loop",
            [
                Panel(
                    "Since the event loop last ran",
                    "Up to 5 s is normal. More: an agent blocks it; after 60 s others get its executions.",
                    "s",
                    [Query(f"max by (instance) (runcast_worker_silent_seconds{{{HERE}}})", "{{instance}}")],
                    width=24,
                    height=6,
                    thresholds=[Threshold(15, WARN), Threshold(60, BAD)],
                )
            ],
        ),
        process("a worker"),
    ],
)
