"""A collector of spans: it takes what OTLP exporters send over HTTP, and decodes it with the protocol's own types."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Any, NamedTuple

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.edges import eventually, under_load

SERVER, CONSUMER, INTERNAL = 2, 5, 1
UNSET, ERROR = 0, 2


class Received(NamedTuple):
    """A span as it arrived. Ids are hex, times nanoseconds; `parent` is empty for the first of a trace."""

    service: str
    instance: str
    scope: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    state: str
    began: int
    ended: int
    status: int
    facts: dict[str, Any]
    raw: str


class Collector:
    """`with collecting() as collector:` listens on a port of its own."""

    def __init__(self) -> None:
        self.port = 0
        self.spans: list[Received] = []

    @property
    def environ(self) -> dict[str, str]:
        """What sends the spans of a process here, and soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}

    async def take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        sent = ExportTraceServiceRequest.FromString(gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body)
        for resource in sent.resource_spans:
            who = _facts(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_received(who, scope.scope.name, span) for span in scope.spans]
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )

    def of(self, trace: str, name: str | None = None) -> list[Received]:
        """The spans of a trace, in the order of their beginning."""
        found = [span for span in self.spans if span.trace == trace and name in (None, span.name)]
        return sorted(found, key=lambda span: span.began)

    async def one(self, trace: str, name: str) -> Received:
        """The one span of a trace with this name, when it has arrived."""
        await eventually(f"a span {name!r} of {trace}", lambda: bool(self.of(trace, name)))
        [span] = self.of(trace, name)
        return span


def _received(who: dict[str, Any], scope: str, span: Any) -> Received:
    return Received(
        service=who["service.name"],
        instance=who.get("service.instance.id", ""),
        scope=scope,
        name=span.name,
        kind=span.kind,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        state=span.trace_state,
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        status=span.status.code,
        facts=_facts(span.attributes),
        raw=str(span),
    )


def _facts(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector with a thread and a loop of its own, for longer than one test."""
    collector, loop = Collector(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="collector")
    thread.start()
    serving = _serving(collector)
    try:
        asyncio.run_coroutine_threadsafe(anext(serving), loop).result(under_load(10))
        yield collector
    finally:
        asyncio.run_coroutine_threadsafe(serving.aclose(), loop).result(under_load(10))
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _serving(collector: Collector) -> AsyncGenerator[None]:
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        collector.port = runner.addresses[0][1]
        yield
    finally:
        await runner.cleanup()
