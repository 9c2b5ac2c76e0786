"""The deliveries that are shown in the traces of executions."""

from __future__ import annotations

import time
from collections.abc import Sequence

from broker.live.fanout import Delivery
from emitter.tracing.trace import Allowance, Tracer, read_trace
from emitter.wire.entries import Entry
from emitter.wire.envelope import read_traced

SPANS_AT_ONCE, SPANS_PER_SECOND = 50.0, 10.0
"""Spans of one edge: a burst, and a rate. A busy edge makes thousands of deliveries a second."""


class Deliveries:
    """Shows some deliveries, each from its append to the sockets, as children of the run that emitted the events."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._allowance = Allowance(SPANS_AT_ONCE, SPANS_PER_SECOND)

    def show(self, entries: Sequence[Entry], delivery: Delivery) -> None:
        """`entries` of one log were written to its viewers."""
        last = entries[-1]
        traced = read_traced(last.json)
        trace = None if traced is None else read_trace([traced[1]])
        if traced is None or trace is None or not trace.is_sampled or not self._allowance.take(time.monotonic()):
            return
        seconds = max(0.0, time.time() - last.ms / 1000)
        about = {"viewers": delivery.viewers, "events": delivery.events, "bytes": delivery.bytes}
        self._tracer.record("deliver", trace, seconds, execution=traced[0], **about)
