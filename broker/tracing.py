"""The traces that requests are part of, and the deliveries that are shown in the traces of executions."""

from __future__ import annotations

import time
from collections.abc import Sequence

from aiohttp import web

from broker.hub import Delivery
from emitter.tracing import Allowance, Trace, Tracer, read_trace
from emitter.wire import Entry, read_traced

TRACE = web.RequestKey("trace", Trace)
SPANS_AT_ONCE, SPANS_PER_SECOND = 50.0, 10.0
"""Of how many deliveries of one edge traces tell: a busy one makes thousands a second."""


def trace_of(request: web.Request) -> Trace | None:
    """Where in a trace a request stands: in the span that was made for it, else in that of its `traceparent`."""
    made: Trace | None = request.get(TRACE)
    if made is not None:
        return made
    parents = request.headers.getall("traceparent", ())
    return read_trace(parents, request.headers.getall("tracestate", ())) if parents else None


class Deliveries:
    """Shows some deliveries, each from its append to the sockets, as children of the run that emitted the events."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._allowance = Allowance(SPANS_AT_ONCE, SPANS_PER_SECOND)

    def show(self, entries: Sequence[Entry], delivery: Delivery) -> None:
        """`entries` of one log are with its viewers now."""
        last = entries[-1]
        traced = read_traced(last.json)
        trace = None if traced is None else read_trace([traced[1]])
        if traced is None or trace is None or not trace.is_sampled or not self._allowance.take(time.monotonic()):
            return
        seconds = max(0.0, time.time() - last.ms / 1000)
        about = {"viewers": delivery.viewers, "events": delivery.events, "bytes": delivery.bytes}
        self._tracer.record("deliver", trace, seconds, execution=traced[0], **about)
