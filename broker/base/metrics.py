"""What an edge counts, in a registry of its own.

Label values are closed sets, and every child exists from the start: a rate over a counter that has not moved yet is
0, not missing, and the hot path never looks a label up. No user or execution id is ever a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from redis.exceptions import RedisError

from broker.base.reasons import (
    AuthFailure,
    BudgetLimit,
    CloseReason,
    ExecuteResult,
    HistorySource,
    JobStep,
    PublishResult,
    RedisOp,
    RejectReason,
    ReplayResult,
    ResetReason,
    StreamProtocol,
    WebhookResult,
)
from emitter.errors import RedisUnavailable

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """One per edge process, given to every part that counts. Attributes are ready to `inc`, `set` or `observe`;
    labelled ones are mappings from the label's value to such a child. Durations are in seconds."""

    def __init__(self, version: str = "unknown") -> None:
        self.registry = CollectorRegistry()
        self._streams()
        self._history()
        self._redis()
        self._requests()
        self._webhooks()
        Info("runcast_build", "What runs here", registry=self.registry).info({"version": version})
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _streams(self) -> None:
        self.connections = self._gauge("connections", "Open streams")
        self.connections_limit = self._gauge("connections_limit", "Streams that may be open at once")
        self.waits = self._gauge("waits", "Requests that hold a stream slot and wait for a log to go on")
        self.sockets = self._gauge("sockets", "Open connections of the public port")
        self.sockets_limit = self._gauge("sockets_limit", "Connections that the public port may have")
        self.admin_sockets = self._gauge("admin_sockets", "Open connections of the admin port")
        self.ready = self._gauge("ready", "Whether /readyz says that this process takes work")
        self.connections_opened = self._counters("connections_opened", "Streams opened", "protocol", StreamProtocol)
        self.connections_closed = self._counters("connections_closed", "Streams closed", "reason", CloseReason)
        self.events_delivered = self._counter("events_delivered", "Events written to viewers")
        self.events_unwanted = self._counter(
            "events_unwanted", "Events of which every live viewer of the log wants none"
        )
        self.event_bytes = self._counter("event_bytes", "Bytes of events written to viewers")
        self.event_bytes_saved = self._counter("event_bytes_saved", "Bytes of live events that compression saved")
        self.delivery_latency = self._histogram("delivery_latency_seconds", "From append to socket write")
        self.clock_skew = self._counter("clock_skew", "Deliveries that seemed to precede their append: clocks disagree")
        self.slow_viewers = self._counter("slow_viewers", "Times a full buffer took a viewer off the live path")

    def _history(self) -> None:
        self.replays = self._counters("replays", "Joins and resumes by what they found", "result", ReplayResult)
        self.replayed_events = self._counter("replayed_events", "Events delivered from history")
        self.replay_duration = self._histogram("replay_duration_seconds", "From joining to live")
        self.history_reads = self._counters("history_reads", "History reads by who answered", "source", HistorySource)
        self.resets = self._counters("resets", "Streams that got stream:reset", "reason", ResetReason)

    def _redis(self) -> None:
        self.pubsub_messages = self._counter("pubsub_messages", "Messages received on the one subscription")
        self.events_received = self._counter("events_received", "Events in those messages")
        self.pubsub_reconnects = self._counter("pubsub_reconnects", "Times the subscription was made again")
        self.subscribed_channels = self._gauge("subscribed_channels", "Logs and feeds this edge listens to")
        name, help_ = "redis_command_duration_seconds", "Redis round trips"
        histogram = Histogram("runcast_" + name, help_, ["op"], buckets=SECONDS, registry=self.registry)
        self.redis_command_duration: Mapping[str, Histogram] = {op: histogram.labels(op) for op in RedisOp}
        self.redis_errors = self._counter("redis_errors", "Redis round trips that failed")
        self.redis_emptied = self._counter("redis_emptied", "Times Redis came back without the data it had")
        self.event_loop_lag = self._histogram("event_loop_lag_seconds", "How late the loop runs a timer")

    def _requests(self) -> None:
        self.rejected = self._counters("rejected", "Requests turned away by a limit", "reason", RejectReason)
        self.unreadable = self._counter("unreadable_requests", "Requests that are no valid HTTP")
        self.auth_failures = self._counters("auth_failures", "Requests refused for who asked", "reason", AuthFailure)
        self.publishes = self._counters("publish", "Publishes over HTTP", "result", PublishResult)
        what = "Executions that publish over HTTP, ended because a limit of their budget was over"
        self.budget_exceeded = self._counters("budget_exceeded", what, "limit", BudgetLimit)
        self.executes = self._counters("executes", "Requests to execute", "result", ExecuteResult)
        self.jobs = self._counters("jobs", "Jobs of workers over HTTP by what became of them", "step", JobStep)
        self.job_claims = self._gauge("job_claims", "Workers over HTTP that wait for a job here")

    def _webhooks(self) -> None:
        self.webhooks = self._counters("webhooks", "Events for webhooks and their fates", "result", WebhookResult)
        self.webhooks_held = self._gauge("webhooks_held", "Webhooks that this process looks after just now")
        self.webhook_duration = self._histogram("webhook_duration_seconds", "Requests to receivers of webhooks")
        self.webhook_delay = self._histogram("webhook_delay_seconds", "From append to when a receiver took the event")

    def _gauge(self, name: str, help_: str) -> Gauge:
        return Gauge("runcast_" + name, help_, registry=self.registry)

    def _counter(self, name: str, help_: str) -> Counter:
        return Counter(f"runcast_{name}_total", help_, registry=self.registry)

    def _counters(self, name: str, help_: str, label: str, values: type[StrEnum]) -> Mapping[str, Counter]:
        counter = Counter(f"runcast_{name}_total", help_, [label], registry=self.registry)
        return {value: counter.labels(value) for value in values}

    def _histogram(self, name: str, help_: str) -> Histogram:
        return Histogram("runcast_" + name, help_, buckets=SECONDS, registry=self.registry)

    def observe_delivery(self, seconds: float) -> None:
        """Count a batch's way from its append (Redis clock) to the sockets (this clock). The clocks may disagree."""
        if seconds < 0:
            self.clock_skew.inc()
            seconds = 0.0
        self.delivery_latency.observe(seconds)

    @contextmanager
    def redis_call(self, op: RedisOp) -> Iterator[None]:
        """Time one Redis round trip, or count it as failed. What Redis answered with a refusal, or was cancelled, is
        neither."""
        started = perf_counter()
        try:
            yield
        except (RedisError, RedisUnavailable, OSError):
            self.redis_errors.inc()
            raise
        self.redis_command_duration[op].observe(perf_counter() - started)

    def render(self) -> tuple[bytes, str]:
        """The body and content type of `/metrics`."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
