"""What edges do, one by one or together."""

from __future__ import annotations

from panels import WARN, Dashboard, Panel, Query, Row, Threshold
from queries import HERE, LATENCY, RATE, chosen, quantile, quantiles, rate, ratio, total
from shared import BY_REASON, DELIVERY, REJECTED, RESETS, process

EDGE = Dashboard(
    "runcast-edge",
    "Runcast: edges",
    "What edges do, one by one or together.",
    chosen("runcast_connections"),
    [
        Row(
            "Viewers",
            [
                Panel(
                    "Open streams",
                    "By edge, with what one may hold; `waits` are long polls, which take room as well.",
                    "short",
                    [
                        Query(f"sum by (instance) (runcast_connections{{{HERE}}})", "{{instance}}"),
                        Query(f"sum by (instance) (runcast_waits{{{HERE}}})", "{{instance}} waits"),
                        Query(f"max(runcast_connections_limit{{{HERE}}} > 0)", "limit"),
                    ],
                ),
                Panel(
                    "Connections",
                    "Streams included, by edge, with what one may have; `admin` are those of the port of probes.",
                    "short",
                    [
                        Query(f"sum by (instance) (runcast_sockets{{{HERE}}})", "{{instance}}"),
                        Query(f"max(runcast_sockets_limit{{{HERE}}})", "limit"),
                        Query(f"max(runcast_admin_sockets{{{HERE}}})", "admin"),
                    ],
                ),
                Panel(
                    "Requests that are no HTTP",
                    "Scanners, and clients that are broken. They are answered with 400, 415 or 431.",
                    "ops",
                    [Query(rate("runcast_unreadable_requests_total", "instance"), "{{instance}}")],
                ),
                Panel(
                    "Streams opened, by protocol",
                    "`native` and `feed` are Server-Sent Events of the log; a rush is a reconnect storm.",
                    "ops",
                    [Query(rate("runcast_connections_opened_total", "protocol"), "{{protocol}}")],
                    stack=True,
                ),
                BY_REASON._replace(
                    queries=[Query(rate("runcast_connections_closed_total", "reason"), "{{reason}}")],
                ),
                REJECTED._replace(queries=[Query(rate("runcast_rejected_total", "reason"), "{{reason}}")]),
                Panel(
                    "Not believed or not allowed, by reason",
                    "A rush of `expired` or `invalid`: keys were rotated, or clocks disagree. `origin`: that of a page "
                    "is not in RUNCAST_CORS_ORIGINS.",
                    "ops",
                    [Query(rate("runcast_auth_failures_total", "reason"), "{{reason}}")],
                    stack=True,
                ),
                Panel(
                    "Viewers that fell behind",
                    "Times that a full buffer took one off the live path; it is then fed from the log at its own pace.",
                    "ops",
                    [Query(rate("runcast_slow_viewers_total", "instance"), "{{instance}}")],
                ),
            ],
        ),
        Row(
            "Delivery",
            [
                Panel(
                    "Events delivered",
                    "Written to viewers, each viewer counted.",
                    "ops",
                    [Query(rate("runcast_events_delivered_total", "instance"), "{{instance}}")],
                    stack=True,
                ),
                Panel(
                    "Bytes delivered",
                    "Of live events, as they were sent; and how many bytes more it would be without compression.",
                    "Bps",
                    [
                        Query(rate("runcast_event_bytes_total", "instance"), "{{instance}}"),
                        Query(rate("runcast_event_bytes_saved_total", "instance"), "{{instance}} saved"),
                    ],
                    stack=True,
                ),
                Panel(
                    "Fan-out",
                    "Deliveries for each event that was received: how many watch the same.",
                    "short",
                    [
                        Query(
                            ratio(
                                total("runcast_events_delivered_total", HERE),
                                total("runcast_events_received_total", HERE),
                            ),
                            "viewers for an event",
                        )
                    ],
                    decimals=1,
                ),
                DELIVERY._replace(queries=quantiles(LATENCY, HERE, (0.5, 0.99, 0.999))),
                Panel(
                    "From append to socket, all of it",
                    "How many deliveries took how long.",
                    "short",
                    [Query(rate(f"{LATENCY}_bucket", "le"), "{{le}}")],
                    kind="heatmap",
                ),
                Panel(
                    "Deliveries before their append",
                    "Above 0 the clocks of Redis and of the edge disagree, and latencies are too small to be true.",
                    "ops",
                    [Query(rate("runcast_clock_skew_total", "instance"), "{{instance}}")],
                ),
            ],
        ),
        Row(
            "History",
            [
                Panel(
                    "Joins and resumes, by what they found",
                    "`ok`: the log goes on at the cursor. `gap`: a part was trimmed. `reset`: another history.",
                    "ops",
                    [Query(rate("runcast_replays_total", "result"), "{{result}}")],
                    stack=True,
                ),
                Panel(
                    "History reads, by who answered",
                    "`tail`: recent events in memory. `shared`: the read of another viewer. Only `redis` costs Redis.",
                    "ops",
                    [Query(rate("runcast_history_reads_total", "source"), "{{source}}")],
                    stack=True,
                ),
                Panel(
                    "Events from history",
                    "Delivered to viewers that join, resume or are slow.",
                    "ops",
                    [Query(rate("runcast_replayed_events_total", "instance"), "{{instance}}")],
                    stack=True,
                ),
                Panel(
                    "From joining to live",
                    "How long it takes to catch up with the log; a slow line makes it long.",
                    "s",
                    quantiles("runcast_replay_duration_seconds"),
                ),
                RESETS._replace(
                    queries=[Query(f"sum by (reason) (increase(runcast_resets_total{{{HERE}}}{RATE}))", "{{reason}}")]
                ),
                Panel(
                    "Requests over HTTP, by result",
                    "Executions asked for, and events published.",
                    "ops",
                    [
                        Query(rate("runcast_executes_total", "result"), "execute {{result}}"),
                        Query(rate("runcast_publish_total", "result"), "publish {{result}}"),
                    ],
                    stack=True,
                ),
            ],
        ),
        Row(
            "Webhooks",
            [
                Panel(
                    "Events for webhooks, by result",
                    "`retried` while a receiver is away. `failed` was given up: see `webhook_failed` in the log.",
                    "ops",
                    [Query(rate("runcast_webhooks_total", "result"), "{{result}}")],
                    stack=True,
                ),
                Panel(
                    "From append to receiver, p99",
                    "Some ten milliseconds, and the receiver's own time; longer after it was away.",
                    "s",
                    [
                        Query(quantile(0.99, "runcast_webhook_delay_seconds", HERE), "in all"),
                        Query(quantile(0.99, "runcast_webhook_duration_seconds", HERE), "the receiver's own time"),
                    ],
                ),
                Panel(
                    "Webhooks looked after",
                    "At 256 an edge takes no more at a time.",
                    "short",
                    [Query(f"sum by (instance) (runcast_webhooks_held{{{HERE}}})", "{{instance}}")],
                ),
            ],
        ),
        Row(
            "Redis, as edges see it",
            [
                Panel(
                    "Events received",
                    "On the one subscription of each edge; and of those, what all viewers of their log filter out.",
                    "ops",
                    [
                        Query(rate("runcast_events_received_total", "instance"), "{{instance}}"),
                        Query(total("runcast_events_unwanted_total", HERE), "unwanted, on all"),
                    ],
                ),
                Panel(
                    "Events in a message",
                    "Mean. Emitters send events of the same moment together, which costs everybody less.",
                    "short",
                    [
                        Query(
                            ratio(
                                rate("runcast_events_received_total", "instance"),
                                rate("runcast_pubsub_messages_total", "instance"),
                            ),
                            "{{instance}}",
                        )
                    ],
                    decimals=1,
                ),
                Panel(
                    "Logs and feeds listened to",
                    "One channel for each that has a viewer here, and for 15 s after.",
                    "short",
                    [Query(f"sum by (instance) (runcast_subscribed_channels{{{HERE}}})", "{{instance}}")],
                ),
                Panel(
                    "Round trips, p99",
                    "By what they were for. Some milliseconds are normal.",
                    "s",
                    [Query(quantile(0.99, "runcast_redis_command_duration_seconds", HERE, "op"), "{{op}}")],
                    thresholds=[Threshold(0.1, WARN)],
                ),
                Panel(
                    "Round trips that failed",
                    "Each is tried again, or answered with 503. Normally none.",
                    "short",
                    [
                        Query(
                            f"sum by (instance) (increase(runcast_redis_errors_total{{{HERE}}}{RATE}))", "{{instance}}"
                        )
                    ],
                    stack=True,
                ),
                Panel(
                    "Subscriptions made again",
                    "Normally none. Each time every log that is watched is read again; nothing is lost.",
                    "short",
                    [
                        Query(
                            f"sum by (instance) (increase(runcast_pubsub_reconnects_total{{{HERE}}}{RATE}))",
                            "{{instance}}",
                        )
                    ],
                    stack=True,
                ),
            ],
        ),
        Row(
            "Event loop",
            [
                Panel(
                    "Lag, p99",
                    "How late a timer runs, and with it everything. Above 100 ms the edge is short of CPU.",
                    "s",
                    [Query(quantile(0.99, "runcast_event_loop_lag_seconds", HERE, "instance"), "{{instance}}")],
                    width=12,
                    thresholds=[Threshold(0.1, WARN)],
                ),
                Panel(
                    "Lag, mean",
                    "A mean that rises with load says that edges are near their limit.",
                    "s",
                    [
                        Query(
                            ratio(
                                rate("runcast_event_loop_lag_seconds_sum", "instance"),
                                rate("runcast_event_loop_lag_seconds_count", "instance"),
                            ),
                            "{{instance}}",
                        )
                    ],
                    width=12,
                ),
            ],
        ),
        process("an edge"),
    ],
)
