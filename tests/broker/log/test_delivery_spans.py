"""What an edge makes of the traces that its requests are part of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict
from structlog.testing import capture_logs

from broker.base.request_context import TRACE, trace_of
from broker.base.settings import Settings
from broker.edge.edge import Edge
from broker.edge.openapi import build_openapi
from broker.live.fanout import Delivery
from broker.log.delivery_spans import SPANS_AT_ONCE, Deliveries
from emitter.events import Thinking
from emitter.store.append import prepare
from emitter.tracing.trace import Fact, Trace, Tracer
from emitter.wire.entries import Entry
from emitter.wire.ids import now_ms
from emitter.wire.redact import Redactor
from tests.edges import ALL_SCOPES, SECRET, token_for

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
SAMPLED = Trace(TRACE_ID, SPAN_ID, 1)


def asked(*headers: tuple[str, str]) -> Any:
    return make_mocked_request("POST", "/", headers=CIMultiDict(headers))


def test_a_request_stands_where_its_headers_say() -> None:
    """All headers of either name count; without a valid one there is no trace."""
    assert trace_of(asked()) is None
    assert trace_of(asked(("TraceParent", PARENT))) == SAMPLED
    states = (("tracestate", "a=1"), ("tracestate", "b=2"))
    assert trace_of(asked(("traceparent", PARENT), *states)) == SAMPLED._replace(state="a=1,b=2")
    assert trace_of(asked(("traceparent", PARENT), ("traceparent", PARENT))) is None
    assert trace_of(asked(("traceparent", "nonsense"))) is None


def test_a_request_stands_in_the_span_that_was_made_for_it() -> None:
    """What happens after a span began is a part of it."""
    request = asked(("traceparent", PARENT))
    inner = Trace(TRACE_ID, "1" * 16, 1)
    request[TRACE] = inner
    assert trace_of(request) == inner


# --- deliveries ---


class Noting(Tracer):
    """A tracer that keeps what it is told."""

    is_on = True

    def __init__(self) -> None:
        self.told: list[tuple[str, Trace, float, dict[str, Fact]]] = []

    def record(self, name: str, trace: Trace, seconds: float, **facts: Fact) -> None:
        self.told.append((name, trace, seconds, facts))


def entry(traceparent: str | None, *, age_ms: int = 0, seq: int = 1) -> Entry:
    event = prepare(Thinking(thought="hm"), "ex_1", redact=Redactor(), request_id="r", traceparent=traceparent)
    return Entry(now_ms() - age_ms, seq, b"thinking", event.json)


DELIVERY = Delivery(viewers=3, events=6, bytes=600)


def test_a_delivery_is_shown_from_its_append_on() -> None:
    """The span is a child of the run that its last event is of, and as long as the way took."""
    tracer = Noting()
    Deliveries(tracer).show([entry(None), entry(PARENT, age_ms=2000, seq=2)], DELIVERY)
    [(name, trace, seconds, facts)] = tracer.told
    assert (name, trace) == ("deliver", SAMPLED)
    assert 2.0 <= seconds < 12.0
    assert facts == {"execution": "ex_1", "viewers": 3, "events": 6, "bytes": 600}


def test_a_clock_that_is_behind_makes_no_negative_span() -> None:
    """The clock of Redis may be ahead of the edge's."""
    tracer = Noting()
    Deliveries(tracer).show([entry(PARENT, age_ms=-60_000)], DELIVERY)
    assert tracer.told[0][2] == 0


def test_only_some_deliveries_are_shown() -> None:
    """A burst is shown, then a few a second; what is in no trace, or in one that is not sampled, costs nothing of
    that."""
    tracer = Noting()
    deliveries = Deliveries(tracer)
    for _ in range(1000):
        deliveries.show([entry(None)], DELIVERY)
        deliveries.show([entry(PARENT[:-1] + "0")], DELIVERY)
    assert tracer.told == []
    for _ in range(int(SPANS_AT_ONCE) * 4):
        deliveries.show([entry(PARENT)], DELIVERY)
    assert SPANS_AT_ONCE <= len(tracer.told) < SPANS_AT_ONCE * 2


# --- lines and description ---


@pytest.fixture
async def edge(redis_url: str) -> AsyncIterator[Edge]:
    addresses = {"host": "127.0.0.1", "admin_host": "127.0.0.1", "port": 0, "admin_port": 0}
    async with Edge(Settings(redis_url=redis_url, jwt_secret=SECRET, drain_seconds=0, **addresses)) as started:  # type: ignore[arg-type]
        yield started


async def test_lines_about_a_request_have_its_trace(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is refused, what is done and what fails is logged with the trace's id, where the request has one."""

    async def broken(*_: object, **__: object) -> None:
        raise LookupError("nobody foresaw this")

    monkeypatch.setattr(edge.streams, "open", broken)
    url, allowed = f"http://127.0.0.1:{edge.port}", {"Authorization": f"Bearer {token_for('a', scopes=ALL_SCOPES)}"}
    for headers, trace_id in (({"traceparent": PARENT}, TRACE_ID), ({"traceparent": "nonsense"}, None), ({}, None)):
        with capture_logs() as lines:
            async with ClientSession(url) as session:
                await session.get("/api/agent/agents", headers=headers)
                await session.get("/api/agent/stream", headers={**allowed, **headers})
                body = {"jti": "j1"}
                await session.post("/api/admin/revocations", json=body, headers={**allowed, **headers})
        found = {line["event"]: line.get("trace_id") for line in lines}
        assert found == dict.fromkeys(("access_refused", "request_failed", "access_revoked"), trace_id)


async def test_strangers_begin_no_span(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their `traceparent` says; a caller who is let in continues a trace."""
    begun: list[Trace | None] = []
    start = Tracer.start

    def noting(self: Tracer, name: str, kind: Any, trace: Trace | None, **facts: Fact) -> Any:
        begun.append(trace)
        return start(self, name, kind, trace, **facts)

    monkeypatch.setattr(Tracer, "start", noting)
    expired = token_for("a", ttl=-60)
    async with ClientSession(f"http://127.0.0.1:{edge.port}") as session:
        for token in ("x.y.z", expired, token_for("a", scopes=["executions:read"])):
            headers = {"traceparent": PARENT, "Authorization": f"Bearer {token}"}
            for path in ("/api/agent/execute", "/api/agent/executions/ex_1/events", "/ag-ui", "/api/agent/chat"):
                async with session.post(path, json={"task": "t"}, headers=headers) as response:
                    assert response.status in (401, 403)
        assert begun == []
        headers["Authorization"] = f"Bearer {token_for('a')}"
        await session.post("/api/agent/execute", json={"task": "t"}, headers=headers)
    assert begun == [SAMPLED]


def test_the_description_names_the_headers() -> None:
    """Whoever reads the description learns that a trace is taken where an execution is started, or published to; and
    that events may say theirs."""
    described = build_openapi("1")
    for path in ("/api/agent/execute", "/api/agent/executions/{id}/events"):
        parameters = described["paths"][path]["post"]["parameters"]
        refs = {each.get("$ref", "").rpartition("/")[2] for each in parameters}
        assert {"traceparent", "tracestate"} <= refs
    assert described["components"]["parameters"]["traceparent"]["in"] == "header"
    assert "traceparent" in described["components"]["schemas"]["ThinkingEvent"]["properties"]
