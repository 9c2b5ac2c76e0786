"""Rates and latencies of the last seconds, from counts."""

from __future__ import annotations

import pytest

from broker.base.metrics import Metrics
from broker.ops.rates import WINDOW_SECONDS, RecentRates, quantile
from broker.ops.types import Latency

INF = float("inf")


def test_rates_are_those_of_the_window() -> None:
    """A rate is what was counted within the window by its length; what is older counts no more."""
    metrics = Metrics()
    vitals = RecentRates(metrics)
    assert vitals.read(100.0)[:2] == (0.0, 0.0)
    metrics.events_received.inc(10)
    metrics.events_delivered.inc(1000)
    pace = vitals.read(102.0)
    assert (pace.events_per_second, pace.deliveries_per_second) == (5.0, 500.0)
    for second in range(103, 108):
        pace = vitals.read(float(second))
    assert (pace.events_per_second, pace.deliveries_per_second) == (0.0, 0.0)


def test_the_window_keeps_its_length() -> None:
    """However often it is asked, the comparison is with the newest reading that is a window old."""
    metrics = Metrics()
    vitals = RecentRates(metrics)
    for tenth in range(200):
        metrics.events_received.inc()
        pace = vitals.read(tenth / 10)
    assert pace.events_per_second == pytest.approx(10, rel=0.05)
    assert len(vitals._readings) <= WINDOW_SECONDS * 10 + 2


def test_two_readings_at_one_time_do_not_divide_by_nothing() -> None:
    """Asked twice at once, it answers."""
    metrics = Metrics()
    vitals = RecentRates(metrics)
    vitals.read(1.0)
    assert vitals.read(1.0).events_per_second == 0


def test_latency_is_that_of_the_window() -> None:
    """Half of the deliveries and all but a hundredth lie below what is told; without any there is nothing to tell."""
    metrics = Metrics()
    vitals = RecentRates(metrics)
    assert vitals.read(0.0).latency is None
    for _ in range(98):
        metrics.observe_delivery(0.002)
    for _ in range(2):
        metrics.observe_delivery(0.4)
    latency = vitals.read(1.0).latency
    assert latency is not None
    assert 1 <= latency.p50 <= 2.5
    assert 250 <= latency.p99 <= 500
    vitals.read(5.5)
    assert vitals.read(6.5).latency is None


def test_lag_is_the_mean_of_the_window() -> None:
    """The loop's lag is told in milliseconds; without a measurement there is none."""
    metrics = Metrics()
    vitals = RecentRates(metrics)
    assert vitals.read(0.0).loop_lag_ms is None
    metrics.event_loop_lag.observe(0.01)
    metrics.event_loop_lag.observe(0.03)
    assert vitals.read(1.0).loop_lag_ms == 20.0


@pytest.mark.parametrize(
    ("q", "counts", "expected"),
    [
        (0.5, [(1.0, 0.0), (2.0, 0.0), (INF, 0.0)], None),
        (0.5, [(1.0, 0.0), (2.0, 10.0), (INF, 10.0)], 1.5),
        (0.99, [(1.0, 0.0), (2.0, 100.0), (INF, 100.0)], 1.99),
        (0.5, [(1.0, 5.0), (2.0, 10.0), (INF, 10.0)], 1.0),
        (0.99, [(1.0, 5.0), (2.0, 5.0), (INF, 10.0)], 2.0),
        (1.0, [(1.0, 1.0), (INF, 1.0)], 1.0),
    ],
)
def test_quantiles(q: float, counts: list[tuple[float, float]], expected: float | None) -> None:
    """Within a bucket values are taken as even; beyond the last bound the bound is told."""
    assert quantile(q, counts) == (None if expected is None else pytest.approx(expected))


def test_a_latency_is_in_milliseconds() -> None:
    """What is observed in seconds is told in milliseconds."""
    metrics = Metrics()
    vitals = RecentRates(metrics)
    vitals.read(0.0)
    metrics.observe_delivery(0.0005)
    assert vitals.read(1.0).latency == Latency(p50=0.5, p99=0.99)
