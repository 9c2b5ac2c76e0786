"""Spans by OpenTelemetry. Importing this imports its API; making a provider of our own, its SDK and the exporter.

Spans wait in a bounded queue (`OTEL_BSP_*`) and leave in batches by a thread of the SDK; what does not fit is dropped.
So a collector that is slow or away costs spans, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import structlog
from opentelemetry import context as contexts
from opentelemetry import trace as api

from emitter.tracing.trace import OURS, Fact, Kind, Span, Trace, Tracer, read_trace

log = structlog.get_logger("emitter.tracing")

SCOPE = "runcast"
CLOSE_SECONDS = 3.0
"""How long a process that stops waits for its last spans. The SDK alone would wait for half a minute."""
KINDS = {"server": api.SpanKind.SERVER, "consumer": api.SpanKind.CONSUMER}


def tracer_of_others() -> Tracer:
    """A tracer with the provider that the process has set up itself, and which it also shuts down."""
    return OpenTelemetry(api.get_tracer_provider())


def tracer_of_our_own(service: str) -> Tracer:
    """Set up the SDK as `OTEL_*` variables say, for what this tracer makes; and, if it is the first of the process, for
    what agents trace themselves. Raises what the SDK does about values of variables."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": service}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # `close` does it, in bounded time
    setattr(provider, OURS, True)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    if isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        api.set_tracer_provider(provider)
    return OpenTelemetry(provider, provider.shutdown)


class OpenTelemetry(Tracer):
    """Makes spans with a provider; `shutdown` is how it ends, if that is ours to do."""

    is_on = True

    def __init__(self, provider: api.TracerProvider, shutdown: Callable[[], Any] | None = None) -> None:
        self._tracer = provider.get_tracer(SCOPE)
        self._shutdown = shutdown

    def start(self, name: str, kind: Kind, trace: Trace | None, **facts: Fact) -> Span:
        span = self._tracer.start_span(name, _context(trace), KINDS[kind], _attributes(facts))
        return Made(span)

    def record(self, name: str, trace: Trace, seconds: float, **facts: Fact) -> None:
        now = time.time_ns()
        began = now - max(0, int(seconds * 1e9))
        span = self._tracer.start_span(name, _context(trace), attributes=_attributes(facts), start_time=began)
        span.end(now)

    async def close(self) -> None:
        shutdown, self._shutdown = self._shutdown, None
        if shutdown is None:
            return
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            shutdown()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(closed.set)

        # A daemon thread: at exit Python would wait for the threads of a pool.
        threading.Thread(target=close, name="tracing-close", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await closed.wait()
        except TimeoutError:
            log.warning("spans_left", seconds=CLOSE_SECONDS)


class Made(Span):
    """A span of OpenTelemetry. One that is never entered is never sent."""

    __slots__ = ("_is_settled", "_span", "_token")

    def __init__(self, span: api.Span) -> None:
        super().__init__(_trace_of(span))
        self._span = span
        self._is_settled = False
        self._token: contextvars.Token[contexts.Context] | None = None

    def __enter__(self) -> Span:
        self._token = contexts.attach(api.set_span_in_context(self._span))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, Exception) and not self._is_settled:
            self.fail(type(error).__name__)  # only the type: its text may be confidential
        if self._token is not None:
            contexts.detach(self._token)
        self._span.end()

    def note(self, **facts: Fact) -> None:
        self._span.set_attributes(_attributes(facts))

    def refuse(self, reason: str) -> None:
        self._is_settled = True
        self.note(refused=reason)

    def fail(self, reason: str) -> None:
        self._is_settled = True
        self._span.set_attribute("error.type", reason)
        self._span.set_status(api.StatusCode.ERROR)


def _context(trace: Trace | None) -> contexts.Context:
    """A context in which the next span is a child of `trace`, whatever the current one is."""
    if trace is None:
        return contexts.Context()
    state = api.TraceState.from_header([trace.state]) if trace.state else None
    parent = api.SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), True, api.TraceFlags(trace.flags), state)
    return api.set_span_in_context(api.NonRecordingSpan(parent), contexts.Context())


def _trace_of(span: api.Span) -> Trace | None:
    """Where what happens in a span stands. None if it has no parent, and a disabled provider has made it."""
    context = span.get_span_context()
    flags = int(context.trace_flags)
    parent = Trace(api.format_trace_id(context.trace_id), api.format_span_id(context.span_id), flags).parent
    return read_trace([parent], [context.trace_state.to_header()])


def _attributes(facts: dict[str, Fact]) -> dict[str, str | int | float | bool]:
    return {f"runcast.{name}": value for name, value in facts.items() if value is not None}
