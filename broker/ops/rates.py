"""Event rates and latencies of the last seconds, from the metrics of an edge."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from prometheus_client.metrics import MetricWrapperBase

from broker.base.metrics import Metrics
from broker.ops.types import Latency

WINDOW_SECONDS = 5.0


class Reading(NamedTuple):
    """The counts at one time. `latencies` are cumulative, by upper bound in seconds."""

    at: float
    events: float
    deliveries: float
    latencies: Mapping[float, float]
    lag_seconds: float
    lags: float


class Pace(NamedTuple):
    """Rates between two readings. None if nothing happened between them."""

    events_per_second: float
    deliveries_per_second: float
    latency: Latency | None
    loop_lag_ms: float | None


class RecentRates:
    """`read(now)` compares with what the counts were up to `WINDOW_SECONDS` ago. Call it every second or so."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._readings: deque[Reading] = deque()

    def read(self, now: float) -> Pace:
        """`now` is a clock that never goes back, in seconds."""
        readings = self._readings
        readings.append(read_counts(self._metrics, now))
        # The first one is the last that is as old as the window, or older.
        while len(readings) > 1 and readings[1].at <= now - WINDOW_SECONDS:
            readings.popleft()
        return between(readings[0], readings[-1])


def read_counts(metrics: Metrics, now: float) -> Reading:
    lag = _samples(metrics.event_loop_lag)
    buckets = _samples(metrics.delivery_latency)
    return Reading(
        now,
        _samples(metrics.events_received)["_total", ""],
        _samples(metrics.events_delivered)["_total", ""],
        {float(bound): count for (name, bound), count in buckets.items() if name == "_bucket"},
        lag["_sum", ""],
        lag["_count", ""],
    )


def _samples(metric: MetricWrapperBase) -> dict[tuple[str, str], float]:
    """Value by the sample's suffix and its bucket's bound."""
    (family,) = metric.collect()
    return {
        (sample.name.removeprefix(family.name), sample.labels.get("le", "")): sample.value for sample in family.samples
    }


def between(before: Reading, after: Reading) -> Pace:
    seconds = max(after.at - before.at, 1e-3)
    counts = [(bound, after.latencies[bound] - before.latencies[bound]) for bound in sorted(after.latencies)]
    p50, p99 = quantile(0.5, counts), quantile(0.99, counts)
    lags = after.lags - before.lags
    return Pace(
        round((after.events - before.events) / seconds, 1),
        round((after.deliveries - before.deliveries) / seconds, 1),
        None if p50 is None or p99 is None else Latency(p50=round(p50 * 1000, 2), p99=round(p99 * 1000, 2)),
        round((after.lag_seconds - before.lag_seconds) / lags * 1000, 2) if lags else None,
    )


def quantile(q: float, counts: Sequence[tuple[float, float]]) -> float | None:
    """The value below which a share of `q` lies, by (upper bound, cumulative count): linear within a bucket, like
    Prometheus's `histogram_quantile`. A value above the last finite bound counts as that bound."""
    total = counts[-1][1]
    if not total:
        return None
    rank = q * total
    for (low, below), (high, upto) in pairwise([(0.0, 0.0), *counts]):
        if upto >= rank:
            return low if high == float("inf") else low + (high - low) * (rank - below) / (upto - below)
    return None
