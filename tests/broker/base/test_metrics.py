from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from broker.base.metrics import Metrics
from broker.base.reasons import CloseReason, RedisOp, StreamProtocol

NAMES = [
    "connections",
    "connections_limit",
    "ready",
    "connections_opened",
    "connections_closed",
    "rejected",
    "events_delivered",
    "events_unwanted",
    "event_bytes",
    "delivery_latency_seconds",
    "clock_skew",
    "slow_viewers",
    "replays",
    "replayed_events",
    "replay_duration_seconds",
    "history_reads",
    "pubsub_messages",
    "pubsub_reconnects",
    "subscribed_channels",
    "redis_command_duration_seconds",
    "redis_errors",
    "event_loop_lag_seconds",
    "auth_failures",
    "publish",
    "executes",
    "resets",
    "build_info",
]


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample of the rendered text by its name and labels."""
    text = metrics.render()[0].decode()
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_everything_is_there_from_the_start() -> None:
    """Every family and every label value is exposed before anything has happened, at zero."""
    families = {family.name for family in text_string_to_metric_families(Metrics().render()[0].decode())}
    assert {"runcast_" + name for name in NAMES} <= families
    found = samples(Metrics("1.2.3"))
    assert all(found[f"runcast_connections_closed_total{{reason={reason}}}"] == 0 for reason in CloseReason)
    assert all(found[f"runcast_connections_opened_total{{protocol={name}}}"] == 0 for name in StreamProtocol)
    assert found["runcast_build_info{version=1.2.3}"] == 1
    assert found["process_resident_memory_bytes"] > 0


def test_close_reasons() -> None:
    """The close reasons are the contract's nine, that of a ticket used again, and that of our own faults."""
    expected = "finished gone slow expired revoked aged draining refused replaced lost_redis failed"
    assert " ".join(CloseReason) == expected


def test_counting() -> None:
    """What is counted is rendered."""
    metrics = Metrics()
    metrics.connections.inc()
    metrics.events_delivered.inc(1000)
    metrics.connections_closed[CloseReason.SLOW].inc()
    metrics.executes["accepted"].inc()
    found = samples(metrics)
    assert found["runcast_connections"] == 1
    assert found["runcast_events_delivered_total"] == 1000
    assert found["runcast_connections_closed_total{reason=slow}"] == 1
    assert found["runcast_executes_total{result=accepted}"] == 1


def test_labels_are_closed_sets() -> None:
    """A label value that was not declared is an error, not a new series."""
    with pytest.raises(KeyError):
        Metrics().rejected["alice"].inc()


def test_registries_are_apart() -> None:
    """Two edges of one process share nothing, and neither touches the library's global registry."""
    one, other = Metrics(), Metrics()
    one.clock_skew.inc()
    assert samples(other)["runcast_clock_skew_total"] == 0
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("runcast_")]


def test_delivery_before_its_append() -> None:
    """A negative latency counts as clock skew and as zero latency."""
    metrics = Metrics()
    metrics.observe_delivery(-5)
    metrics.observe_delivery(0.004)
    found = samples(metrics)
    assert found["runcast_clock_skew_total"] == 1
    assert found["runcast_delivery_latency_seconds_count"] == 2
    assert found["runcast_delivery_latency_seconds_sum"] == pytest.approx(0.004)
    assert found["runcast_delivery_latency_seconds_bucket{le=0.001}"] == 1


def test_redis_calls() -> None:
    """A Redis call is timed when it succeeds, counted when it fails, and neither when it is cancelled."""
    metrics = Metrics()
    with metrics.redis_call(RedisOp.HISTORY):
        pass
    with pytest.raises(ConnectionError), metrics.redis_call(RedisOp.HISTORY):
        raise ConnectionError
    with pytest.raises(asyncio.CancelledError), metrics.redis_call(RedisOp.HISTORY):
        raise asyncio.CancelledError
    found = samples(metrics)
    assert found["runcast_redis_command_duration_seconds_count{op=history}"] == 1
    assert found["runcast_redis_errors_total"] == 1


def test_content_type() -> None:
    """The content type is the Prometheus text format's."""
    assert Metrics().render()[1].startswith("text/plain; version=")
