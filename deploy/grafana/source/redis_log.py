"""Redis as it describes itself to the edges, and what the log costs it."""

from __future__ import annotations

from panels import BAD, WARN, Dashboard, Panel, Query, Row, Threshold, Variable
from queries import ALL, NAMESPACE, NODE, RATE, quantile, quantiles, ratio, stat, total
from shared import MEMORY_RATIO, RESETS, UNDER_80


def told(metric: str, where: str = NODE) -> str:
    """What every edge says of Redis: once for each server."""
    return f"max by (node) (runcast_redis_{metric}{{{where}}})"


def told_rate(metric: str) -> str:
    return f"max by (node) (rate(runcast_redis_{metric}{{{NODE}}}{RATE}))"


REDIS = Dashboard(
    "runcast-redis",
    "Runcast: Redis and the log",
    "Redis as it describes itself to the edges every 10 s, and what the log costs it.",
    [NAMESPACE, Variable("node", "Server", f"runcast_redis_memory_used_bytes{{{ALL}}}")],
    [
        Row(
            "Now",
            [
                stat(
                    "Redis answers",
                    "Whether at least one edge got an answer within the last seconds.",
                    "bool_yes_no",
                    f"min(max by (namespace) (runcast_redis_up{{{ALL}}}))",
                    Threshold(1, "green"),
                    base=BAD,
                ),
                stat(
                    "Memory",
                    "Of `maxmemory`, on the fullest server. 0 where there is no limit.",
                    "percentunit",
                    MEMORY_RATIO,
                    *UNDER_80,
                    base="green",
                    kind="gauge",
                    most=1,
                ),
                stat(
                    "Commands", "All servers, those of scripts included.", "ops", f"sum({told_rate('commands_total')})"
                ),
                stat("Clients", "Connections, all servers.", "short", f"sum({told('clients')})"),
                stat("Replicas", "That follow, all servers.", "short", f"sum({told('replicas')})"),
                stat(
                    "Logs thrown away",
                    "Keys evicted in the last hour. Above 0 `maxmemory-policy` is not `noeviction`.",
                    "short",
                    f"sum(max by (node) (increase(runcast_redis_evicted_keys_total{{{NODE}}}[1h])))",
                    Threshold(1, BAD),
                    base="green",
                ),
            ],
        ),
        Row(
            "Memory",
            [
                Panel(
                    "Memory",
                    "What is allocated, with its limit where there is one. Logs end by their TTL: it follows the "
                    "load of the last day, and of the last week for executions without an end.",
                    "bytes",
                    [
                        Query(told("memory_used_bytes"), "{{node}}"),
                        Query(f"max({told('memory_max_bytes')} > 0)", "maxmemory"),
                    ],
                ),
                Panel(
                    "Memory of clients",
                    "Most of it is output that waits. It counts against `maxmemory`.",
                    "bytes",
                    [Query(told("clients_memory_bytes"), "{{node}}")],
                ),
                Panel(
                    "Largest output buffer",
                    "Most that waited for one client lately. By default a subscriber is cut off at 32 MiB, or at 8 MiB "
                    "after a minute; deploy/redis/redis.conf allows 256 MB and 128 MB.",
                    "bytes",
                    [Query(told("largest_output_buffer_bytes"), "{{node}}")],
                    thresholds=[Threshold(8 * 2**20, WARN)],
                ),
            ],
        ),
        Row(
            "Work",
            [
                Panel(
                    "Commands",
                    "Those of scripts included: an append is about ten.",
                    "ops",
                    [Query(told_rate("commands_total"), "{{node}}")],
                ),
                Panel(
                    "Output",
                    "Sent to clients and replicas: each edge with a viewer gets each event once.",
                    "Bps",
                    [Query(told_rate("net_output_bytes_total"), "{{node}}")],
                ),
                Panel(
                    "Evicted keys and cut clients",
                    "Normally none. Servers older than Redis 7.2 do not count the clients they cut off.",
                    "short",
                    [
                        Query(
                            f"max by (node) (increase(runcast_redis_evicted_keys_total{{{NODE}}}{RATE}))",
                            "evicted {{node}}",
                        ),
                        Query(
                            f"max by (node) (increase(runcast_redis_output_buffer_cuts_total{{{NODE}}}{RATE}))",
                            "cut {{node}}",
                        ),
                    ],
                ),
            ],
        ),
        Row(
            "The log",
            [
                Panel(
                    "Events appended and received",
                    "Appended by workers (what is published over HTTP is not among them), and received by edges: each "
                    "that watches a log receives its events.",
                    "ops",
                    [
                        Query(total("runcast_appended_events_total"), "appended"),
                        Query(total("runcast_events_received_total"), "received by edges"),
                        Query(total("runcast_publish_total", ALL + ',result="ok"'), "requests that publish over HTTP"),
                    ],
                ),
                Panel(
                    "Round trips of edges, p99",
                    "By what they were for.",
                    "s",
                    [Query(quantile(0.99, "runcast_redis_command_duration_seconds", ALL, "op"), "{{op}}")],
                    thresholds=[Threshold(0.1, WARN)],
                ),
                Panel(
                    "Appends of workers",
                    "A round trip carries a batch.",
                    "s",
                    quantiles("runcast_append_seconds", ALL),
                    thresholds=[Threshold(0.1, WARN)],
                ),
                Panel(
                    "History reads that reach Redis",
                    "Of all. The rest is answered from memory, or by a read in flight.",
                    "percentunit",
                    [
                        Query(
                            ratio(
                                total("runcast_history_reads_total", ALL + ',source="redis"'),
                                total("runcast_history_reads_total"),
                            ),
                            "from Redis",
                        )
                    ],
                    most=1,
                ),
                RESETS,
                Panel(
                    "Errors and reconnects",
                    "Failed round trips of edges, appends that did not arrive, new subscriptions, lost data.",
                    "short",
                    [
                        Query(f"sum(increase(runcast_redis_errors_total{{{ALL}}}{RATE}))", "edges"),
                        Query(f"sum(increase(runcast_append_failures_total{{{ALL}}}{RATE}))", "workers"),
                        Query(f"sum(increase(runcast_pubsub_reconnects_total{{{ALL}}}{RATE}))", "reconnects"),
                        Query(f"max(increase(runcast_redis_emptied_total{{{ALL}}}{RATE}))", "came back empty"),
                    ],
                ),
            ],
        ),
    ],
)
