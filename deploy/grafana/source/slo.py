"""Two promises, and what is left of their budgets."""

from __future__ import annotations

from panels import BAD, WARN, Dashboard, Panel, Query, Row, Threshold
from queries import ALL, BUDGET, LATENCY, NAMESPACE, ratio, stat, total
from shared import ALERTS, BY_REASON, DELIVERY, REJECTED, RESETS


def burn(name: str, window: str) -> Query:
    return Query(f"max(runcast:{name}:ratio_rate{window}{{{ALL}}}) / {BUDGET}", window)


def level(title: str, name: str, promise: str, bad: str, everything: str) -> Row:
    """A service level: what is left of its budget, how fast it goes, and what went wrong."""
    in_month = f"sum(increase({everything}[30d]))"
    return Row(
        title,
        [
            stat(
                "Last 3 days",
                f"{promise} The service level is 99.9 %.",
                "percentunit",
                f"1 - max(runcast:{name}:ratio_rate3d{{{ALL}}})",
                Threshold(1 - BUDGET, "green"),
                base=BAD,
                decimals=3,
                height=4,
                least=None,
            ),
            stat(
                "Budget left",
                "Of what may go wrong in 30 days, or in as many as Prometheus keeps. Below 0 the promise is broken.",
                "percentunit",
                f"1 - ({bad.replace('[]', '[30d]')}) / ({in_month}) / {BUDGET}",
                Threshold(0, WARN),
                Threshold(0.25, "green"),
                base=BAD,
                decimals=1,
                height=4,
                least=None,
                most=1,
            ),
            Panel(
                "Burn rate, by window",
                "1 spends the budget in just 30 days. It wakes somebody above 14.4 (over 1 h and 5 min) or 6 (over 6 h "
                "and 30 min), and is a ticket above 1 (over 3 days and 6 h).",
                "short",
                [burn(name, window) for window in ("5m", "30m", "1h", "6h", "3d")],
                width=16,
                thresholds=[Threshold(1, WARN), Threshold(6, BAD), Threshold(14.4, BAD)],
                decimals=2,
            ),
        ],
    )


STREAM_FAILED = (
    f'sum(increase(runcast_connections_closed_total{{reason=~"lost_redis|refused",{ALL}}}[])) '
    f'+ sum(increase(runcast_rejected_total{{reason=~"capacity|redis",{ALL}}}[]))'
)
LATE = f'sum(increase({LATENCY}_count{{{ALL}}}[])) - sum(increase({LATENCY}_bucket{{le="0.25",{ALL}}}[]))'


def within(seconds: float) -> Query:
    expr = ratio(total(f"{LATENCY}_bucket", f'{ALL},le="{seconds}"'), total(f"{LATENCY}_count"))
    return Query(expr, f"{seconds * 1000:g} ms")


SLO = Dashboard(
    "runcast-slo",
    "Runcast: service levels",
    "Two promises, each kept for 99.9 % of 30 days: events reach sockets within 250 ms, and streams do not fail.",
    [NAMESPACE],
    [
        level(
            "Events are delivered within 250 ms",
            "deliveries_late",
            "Of deliveries, those that took 250 ms or less from append to socket.",
            LATE,
            f"{LATENCY}_count{{{ALL}}}",
        ),
        level(
            "Streams do not fail",
            "streams_failed",
            "Of streams, those that were neither refused for want of room or Redis nor ended by an error of ours.",
            STREAM_FAILED,
            f"runcast_connections_closed_total{{{ALL}}}",
        ),
        Row(
            "Behind them",
            [
                Panel(
                    "Deliveries within …",
                    "Shares of all deliveries.",
                    "percentunit",
                    [within(seconds) for seconds in (0.01, 0.05, 0.1, 0.25)],
                    most=1,
                    decimals=2,
                ),
                DELIVERY,
                Panel(
                    "Late deliveries and failed streams",
                    "How many a second spend the budgets.",
                    "ops",
                    [
                        Query(f"sum(runcast:deliveries_late:rate5m{{{ALL}}})", "late deliveries"),
                        Query(f"sum(runcast:streams_failed:rate5m{{{ALL}}})", "failed streams"),
                    ],
                ),
                BY_REASON,
                REJECTED,
                RESETS,
            ],
        ),
        Row("Alerts", [ALERTS]),
    ],
)
