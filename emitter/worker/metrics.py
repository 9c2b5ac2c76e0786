"""What a worker counts for Prometheus. Needs prometheus-client: `pip install 'runcast[metrics]'`.

Labels are closed sets, except the agent's name, which is bounded by what the worker registers. No user or execution id
is ever a label.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from emitter.budgets import LIMITS
from emitter.observer import Observer, Outcome

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
LOOPS = ("fetch", "renew", "announce", "reap", "orphans", "schedule")
TAKEN_OVER = ("superseded", "ended")
STALLED_SECONDS = 60.0
"""An event loop that has run no step for this long is not expected to recover: restart the process."""
ANNOUNCED_SECONDS = 15.0
"""How long an announcement is valid."""


class Metrics(Observer):
    """Counts in a registry of its own, in which every series of a closed set exists from the start. Written by the
    worker's loop, read by the thread of its probes."""

    def __init__(
        self, agents: Sequence[str], version: str = "unknown", *, stalled_seconds: float = STALLED_SECONDS
    ) -> None:
        self._stalled_seconds = stalled_seconds
        self._beaten_at, self._announced_at, self._is_stopping = time.monotonic(), -1e9, False
        self.registry = registry = CollectorRegistry()
        self._running = Gauge("runcast_worker_running", "Executions that run here and do not wait", registry=registry)
        self._apart = Gauge(
            "runcast_worker_waiting", "Executions that wait for a person or a child, without a slot", registry=registry
        )
        # Read by the thread of the probes, so it grows while an agent blocks the event loop.
        silent = Gauge("runcast_worker_silent_seconds", "Since the event loop last ran the worker", registry=registry)
        silent.set_function(lambda: time.monotonic() - self._beaten_at)
        ready = Gauge("runcast_ready", "Whether /readyz says that this process takes work", registry=registry)
        ready.set_function(lambda: self.is_ready)
        self._slots = Gauge("runcast_worker_concurrency", "Executions that may run here at once", registry=registry)
        self._waiting = Gauge(
            "runcast_jobs_waiting", "Jobs that wait for a worker, by agent (the same on every worker)", ["agent"],
            registry=registry,
        )  # fmt: skip
        outcomes = Counter(
            "runcast_worker_executions", "Executions that ran here, by how they came out", ["agent", "outcome"],
            registry=registry,
        )  # fmt: skip
        queue = Histogram(
            "runcast_worker_queue_seconds", "From queued to claimed", ["agent"], buckets=LONG_SECONDS, registry=registry
        )
        run = Histogram(
            "runcast_worker_run_seconds", "From claimed to ended", ["agent"], buckets=LONG_SECONDS, registry=registry
        )
        lost = Counter("runcast_worker_redis_errors", "Errors of Redis, by loop", ["loop"], registry=registry)
        taken = Counter(
            "runcast_worker_taken_over", "Executions of lost workers that this worker's reaper dealt with", ["verdict"],
            registry=registry,
        )  # fmt: skip
        over = Counter(
            "runcast_budget_exceeded", "Executions ended here because a limit of their budget was over",
            ["agent", "limit"], registry=registry,
        )  # fmt: skip
        self._over = {(a, str(limit)): over.labels(a, limit) for a in agents for limit in LIMITS.values()}
        self._outcomes = {(a, o): outcomes.labels(a, o) for a in agents for o in get_args(Outcome)}
        self._queue = {agent: queue.labels(agent) for agent in agents}
        self._run = {agent: run.labels(agent) for agent in agents}
        self._lost = {loop: lost.labels(loop) for loop in LOOPS}
        self._taken = {verdict: taken.labels(verdict) for verdict in TAKEN_OVER}
        self._events = Counter("runcast_appended_events", "Events appended to logs", registry=registry)
        self._batches = Counter("runcast_appended_batches", "Batches appended to logs", registry=registry)
        self._append = Histogram(
            "runcast_append_seconds", "Round trips that append", buckets=SECONDS, registry=registry
        )
        self._failed = Counter("runcast_append_failures", "Round trips that did not reach Redis", registry=registry)
        for agent in agents:
            self._waiting.labels(agent)
        Info("runcast_build", "What runs here", registry=registry).info({"version": version})
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def watch(self, running: Callable[[], int], waiting: Callable[[], int], concurrency: int) -> None:
        """Read the numbers of running and of waiting executions at each scrape."""
        self._running.set_function(running)
        self._apart.set_function(waiting)
        self._slots.set(concurrency)

    @property
    def is_alive(self) -> bool:
        return time.monotonic() - self._beaten_at < self._stalled_seconds

    @property
    def is_ready(self) -> bool:
        announced = time.monotonic() - self._announced_at < ANNOUNCED_SECONDS
        return self.is_alive and announced and not self._is_stopping

    def beat(self) -> None:
        self._beaten_at = time.monotonic()

    def announced(self) -> None:
        self._announced_at = time.monotonic()

    def stopping(self) -> None:
        self._is_stopping = True

    def waiting(self, agent: str, jobs: int) -> None:
        self._waiting.labels(agent).set(jobs)

    def claimed(self, agent: str, waited: float) -> None:
        self._queue[agent].observe(waited)

    def ended(self, agent: str, outcome: str, seconds: float) -> None:
        self._outcomes[agent, outcome].inc()
        self._run[agent].observe(seconds)

    def budget_exceeded(self, agent: str, limit: str) -> None:
        self._over[agent, limit].inc()

    def lost_redis(self, loop: str) -> None:
        self._lost[loop].inc()

    def taken_over(self, verdict: str) -> None:
        if verdict in self._taken:
            self._taken[verdict].inc()

    def appended(self, batches: int, events: int, seconds: float) -> None:
        self._batches.inc(batches)
        self._events.inc(events)
        self._append.observe(seconds)

    def append_failed(self) -> None:
        self._failed.inc()
