"""Traces across real processes: an edge, a worker, their exporter, and a collector that decodes what arrives."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import ClientSession
from multidict import CIMultiDict
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from emitter.wire.envelope import decode_envelope
from emitter.wire.keys import Owner
from tests.collector import CONSUMER, ERROR, INTERNAL, SERVER, UNSET, Collector, collecting
from tests.edges import (
    ALL_SCOPES,
    ROOT,
    EdgeProcess,
    Follower,
    call,
    eventually,
    read_log,
    request,
    stream_path,
    token_for,
    under_load,
)
from tests.workers import WorkerProcess

HERE = Path(__file__).parent
USER = "tracy"
TOKEN = token_for(USER, scopes=ALL_SCOPES)
STOP_SECONDS = 12.0
"""For a process of which the spans are not taken. The SDK alone would wait for 30 s."""

_numbers = itertools.count(1)


def new_parent(flags: str = "01") -> tuple[str, str, str]:
    """A trace that no other test has: its `traceparent`, and the ids of trace and span in it."""
    number = next(_numbers)
    trace, span = f"{0xABC000 + number:032x}", f"{0xDEF000 + number:016x}"
    return f"00-{trace}-{span}-{flags}", trace, span


class Stand(NamedTuple):
    edge: EdgeProcess
    worker: WorkerProcess

    async def execute(self, agent: str, headers: Mapping[str, str] = {}) -> str:
        """Start an execution; its id."""
        value = {"task": "t", "agent": agent}
        answer = await call(self.edge.port, "POST", "/api/agent/execute", TOKEN, value, headers=headers)
        assert answer.status == 202, answer
        execution_id: str = answer.body["executionId"]
        return execution_id

    async def see(self, execution_id: str) -> list[dict[str, Any]]:
        """Watch an execution to its end; the events."""
        async with Follower([self.edge], stream_path(execution_id), TOKEN) as viewer:
            await viewer.until_done()
        return [json.loads(event.data) for event in viewer.events]

    async def line(self, event: str, execution_id: str) -> dict[str, Any]:
        """The one log line of a kind about an execution, of either process, when it is written."""

        def lines() -> list[dict[str, Any]]:
            all_lines = [*self.edge.logged(event), *self.worker.logged(event)]
            return [line for line in all_lines if line.get("execution") == execution_id]

        await eventually(f"a line {event}", lambda: bool(lines()))
        [line] = lines()
        return line


@contextlib.contextmanager
def stand(redis_url: str, of_edge: Mapping[str, str], of_worker: Mapping[str, str]) -> Iterator[Stand]:
    """An edge and a worker with these variables of OpenTelemetry."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        for name, value in of_edge.items():
            patch.setenv(name, value)
        edge = EdgeProcess(redis_url, heartbeat_seconds=1)
        stack.callback(edge.close)
        edge.start()
        for name, value in of_worker.items():
            patch.setenv(name, value)
        worker = WorkerProcess(redis_url, "tracing_agents:agents", HERE)
        stack.callback(worker.close)
        edge.wait_ready()
        yield Stand(edge, worker)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture(scope="module")
def own_stand(collector: Collector) -> Iterator[tuple[Stand, str]]:
    with EmbeddedRedis() as server, stand(server.url, collector.environ, collector.environ) as started:
        yield started, server.url


async def worker_is_there(stand: Stand) -> None:
    """Wait until the edge knows the agents."""
    async with asyncio.timeout(under_load(20)):
        while not (await call(stand.edge.port, "GET", "/api/agent/agents", TOKEN)).body["agents"]:
            assert stand.worker.alive, stand.worker.log_text()
            await asyncio.sleep(0.05)


@pytest.fixture
async def traced(own_stand: tuple[Stand, str]) -> Stand:
    """An edge and a worker, over a Redis of their own, whose spans go to the collector."""
    await worker_is_there(own_stand[0])
    return own_stand[0]


async def test_one_trace_from_the_request_to_the_viewer(traced: Stand, collector: Collector) -> None:
    """An execution is one trace: accepted on the edge, waiting, run and appended on the worker, the agent's own spans
    and those of its specialists inside the run, and delivered by the edge; and the logs and events say which."""
    parent, trace, caller = new_parent()
    execution_id = await traced.execute("researcher", {"traceparent": parent, "tracestate": "acme=1,b=2"})
    viewers_parent, viewers_trace, _ = new_parent()
    headers = {"traceparent": viewers_parent}
    async with Follower([traced.edge], stream_path(execution_id), TOKEN, headers=headers) as viewer:
        await viewer.until_live()
        await viewer.until("asked", lambda viewer: viewer.events[-1].type == "input:required")
        path = f"/api/agent/executions/{execution_id}/input"
        await post(traced, path, None, {"inputId": "go", "value": True})
        await viewer.until_done()
    events = [json.loads(event.data) for event in viewer.events]

    execute, queue, run = [await collector.one(trace, name) for name in ("execute", "queue", "run")]
    assert (execute.service, execute.kind, execute.parent) == ("runcast-edge", SERVER, caller)
    assert execute.facts["runcast.execution"] == execution_id
    assert (queue.service, queue.kind, queue.parent) == ("runcast-worker", INTERNAL, execute.id)
    assert (run.service, run.kind, run.parent, run.status) == ("runcast-worker", CONSUMER, execute.id, UNSET)
    assert run.facts == {
        "runcast.execution": execution_id,
        "runcast.agent": "researcher",
        "runcast.attempt": 1,
        "runcast.outcome": "completed",
    }
    assert {execute.state, queue.state, run.state} == {"acme=1,b=2"}

    await eventually("the delivery of the end", lambda: bool(collector.of(trace, "deliver")))
    research = await collector.one(trace, "research")
    assert (research.scope, research.parent) == ("agents", run.id)
    for name in ("reader", "writer"):
        specialist = await collector.one(trace, name)
        assert specialist.parent == research.id
        assert (await collector.one(trace, f"{name} looks")).parent == specialist.id
    appends, deliveries = collector.of(trace, "append"), collector.of(trace, "deliver")
    assert {(span.service, span.parent) for span in appends} == {("runcast-worker", run.id)}
    assert sum(span.facts["runcast.events"] for span in appends) == len(events) - 2, "all but the edge's own"
    assert {(span.service, span.parent) for span in deliveries} <= {
        ("runcast-edge", run.id),
        ("runcast-edge", execute.id),
    }
    assert all(span.facts["runcast.viewers"] == 1 and span.began <= span.ended for span in deliveries)
    assert {span.name for span in collector.of(trace)} == {
        *("execute", "queue", "run", "append", "deliver"),
        *("research", "reader", "writer", "reader looks", "writer looks"),
    }

    ours = {event["type"]: event.get("traceparent", "") for event in events}
    assert ours.pop("input:received") == "", "an answer is a request of its own"
    assert ours.pop("execution:queued") == f"00-{trace}-{execute.id}-{parent[-2:]}"
    assert {text[:52] for text in ours.values()} == {f"00-{trace}-{run.id}"}
    for event in ("execution_accepted", "job_claimed", "execution_ended", "researched"):
        assert (await traced.line(event, execution_id))["trace_id"] == trace
    assert (await traced.line("stream_opened", execution_id))["trace_id"] == viewers_trace


async def test_every_way_in_is_traced(traced: Stand, collector: Collector) -> None:
    """What comes by the AI SDK, AG-UI or A2A, from a blocking agent, over HTTP, or fails, is in its caller's trace."""
    parent, chat, _ = new_parent()
    message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Say it"}]}
    await post(traced, "/api/agent/chat", parent, {"id": "c1", "messages": [message], "agent": "talker"})
    parent, ag_ui, _ = new_parent()
    asked = {"threadId": "t1", "runId": "r1", "messages": [{"id": "m", "role": "user", "content": "Say it"}]}
    await post(traced, "/ag-ui/talker", parent, asked | {"tools": [], "context": [], "state": {}, "forwardedProps": {}})
    parent, a2a, _ = new_parent()
    sent = {"messageId": "m", "role": "user", "kind": "message", "parts": [{"kind": "text", "text": "Say it"}]}
    params = {"message": sent | {"metadata": {"agent": "talker"}}, "metadata": {"agent": "talker"}}
    rpc = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": params}
    await post(traced, "/a2a", parent, rpc)
    for trace, protocol in ((chat, "ai_sdk"), (ag_ui, "ag_ui"), (a2a, "a2a")):
        execute, run = await collector.one(trace, "execute"), await collector.one(trace, "run")
        assert execute.facts["runcast.protocol"] == protocol
        assert (run.parent, run.facts["runcast.agent"]) == (execute.id, "talker")

    parent, blocking, _ = new_parent()
    await traced.see(await traced.execute("blocking", {"traceparent": parent}))
    run = await collector.one(blocking, "run")
    assert (await collector.one(blocking, "block")).parent == run.id, "in a thread of its own"

    parent, failing, _ = new_parent()
    await traced.see(await traced.execute("failing", {"traceparent": parent}))
    run = await collector.one(failing, "run")
    assert (run.status, run.facts["error.type"], run.facts["runcast.outcome"]) == (ERROR, "failed", "failed")
    assert "hunter2" not in "".join(span.raw for span in collector.spans)

    parent, unknown, _ = new_parent()
    refused = await post(traced, "/api/agent/execute", parent, {"task": "t", "agent": "nobody"}, status=422)
    execute = await collector.one(unknown, "execute")
    assert (execute.status, execute.facts["runcast.refused"]) == (UNSET, "unknown-agent"), refused


async def test_what_is_published_over_http_is_traced(
    traced: Stand, collector: Collector, own_stand: tuple[Stand, str]
) -> None:
    """A traceparent at publish makes a span, and goes with the events; without one there is a trace of its own."""
    path = "/api/agent/executions/ex_http/events"
    started = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}
    parent, trace, caller = new_parent()
    await post(traced, path, parent, started)
    publish = await collector.one(trace, "publish")
    assert (publish.service, publish.kind, publish.parent) == ("runcast-edge", SERVER, caller)
    await post(traced, path, None, {"type": "thinking", "data": {"thought": "hm"}})
    async with connect(own_stand[1]) as redis:
        logged = await read_log(redis, Owner(USER).execution("ex_http").log)
    first, second = [decode_envelope(event.data.encode())[0].traceparent or "" for event in logged]
    assert first[:52] == f"00-{trace}-{publish.id}"
    own = await collector.one(second[3:35], "publish")
    assert (own.parent, own.id) == ("", second[36:52])


async def test_what_is_no_traceparent_is_ignored(traced: Stand, collector: Collector) -> None:
    """A request whose header is not valid is served, in a trace of its own; one whose caller does not sample makes no
    spans, and its trace goes on."""
    _, wrong, _ = new_parent()
    for header in (f"00-{wrong}-{'0' * 16}-01", "garbage", f"00-{wrong.upper()}-00f067aa0ba902b7-01"):
        execution_id = await traced.execute("talker", {"traceparent": header, "tracestate": "a=1"})
        [queued, *_] = await traced.see(execution_id)
        trace = queued["traceparent"][3:35]
        assert trace != wrong
        execute = await collector.one(trace, "execute")
        assert (execute.parent, execute.state) == ("", "")
        assert (await traced.line("execution_accepted", execution_id))["trace_id"] == trace
        await collector.one(trace, "run")

    parent, unsampled, _ = new_parent("00")
    events = await traced.see(await traced.execute("talker", {"traceparent": parent}))
    assert {event["traceparent"][:35] for event in events} == {f"00-{unsampled}"}
    assert {event["traceparent"][-1] for event in events} == {"0"}
    # Its spans would have arrived before those of what came later.
    parent, later, _ = new_parent()
    await traced.see(await traced.execute("talker", {"traceparent": parent}))
    await collector.one(later, "run")
    assert collector.of(wrong) == collector.of(unsampled) == []


async def test_a_process_that_stops_sends_what_it_has(redis: Redis, redis_url: str, collector: Collector) -> None:
    """Spans that wait for a batch to fill leave before an edge or a worker ends."""
    environ = collector.environ | {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
    with stand(redis_url, environ, environ) as two:
        await worker_is_there(two)
        parent, trace, _ = new_parent()
        await two.see(await two.execute("talker", {"traceparent": parent}))
        assert collector.of(trace) == []
        stopped = await asyncio.gather(asyncio.to_thread(two.edge.stop, STOP_SECONDS), two.worker.stop(STOP_SECONDS))
    assert stopped == [0, 0]
    assert {"execute", "queue", "run", "append"} <= {span.name for span in collector.of(trace)}


SEVERAL = """
import asyncio, os
from opentelemetry import trace
from emitter.tracing.setup import tracer_from

async def main():
    first, second = tracer_from(os.environ, "first"), tracer_from(os.environ, "second")
    for tracer in (first, second):
        with tracer.start("before", "server", None), trace.get_tracer("agents").start_as_current_span("their own"):
            pass
    await first.close()
    with second.start("after", "server", None):
        pass
    third = tracer_from(os.environ, "third")
    with third.start("after", "server", None):
        pass
    await second.close()
    await third.close()

asyncio.run(main())
"""


async def test_edges_of_one_process_do_not_end_each_others_traces() -> None:
    """Each has a provider of its own: that one is closed takes no span from another, nor from one that comes later.
    What agents trace themselves goes by the first."""
    with collecting() as collector:
        given = {"PATH": "/usr/bin:/bin", **collector.environ}
        run = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", SEVERAL],
            cwd=ROOT,
            env=given,
            capture_output=True,
            text=True,
            timeout=50,
        )
    assert (run.returncode, run.stderr) == (0, "")
    assert sorted((span.service, span.name) for span in collector.spans) == [
        ("first", "before"),
        ("first", "their own"),
        ("first", "their own"),
        ("second", "after"),
        ("second", "before"),
        ("third", "after"),
    ]


async def test_each_process_of_a_supervisor_has_an_exporter_of_its_own(
    redis: Redis, redis_url: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`serve --workers 2`: the spans of both arrive, and tell the processes apart."""
    for name, value in collector.environ.items():
        monkeypatch.setenv(name, value)
    edge = EdgeProcess(redis_url, "--workers", "2", executes_per_minute=0)  # of which it may take many
    try:
        edge.start()
        for port in edge.admin_ports:
            await asyncio.to_thread(edge.wait_ready, port)
        parent, trace, caller = new_parent()
        asked = json.dumps({"task": "t", "agent": "nobody"}).encode()
        headers = {"Content-Type": "application/json", "traceparent": parent, "Connection": "close"}
        async with asyncio.timeout(under_load(30)):  # which of the two takes a connection is up to the kernel
            while len({span.instance for span in collector.of(trace)}) < 2:
                path = "/api/agent/execute"
                async with request(edge.port, "POST", path, TOKEN, headers=headers, body=asked) as response:
                    assert response.status == 422
                await asyncio.sleep(0.01)
        assert {(span.service, span.name, span.parent) for span in collector.of(trace)} == {
            ("runcast-edge", "execute", caller)
        }
        assert await asyncio.to_thread(edge.stop, STOP_SECONDS) == 0
    finally:
        edge.close()


HOSTILE = {
    "tracestate": [("tracestate", ",".join(f"k{n}=v" for n in range(40)))],
    "tracestate of one line": [("tracestate", "k=" + "v" * 7000)],
    "many lines of tracestate": [("tracestate", "a=" + "b" * 200)] * 30,
    "baggage": [("baggage", "runcast.execution=stolen,user=root;p=1," + "x" * 4000), ("tracestate", "a=\x80")],
}


async def test_headers_made_to_do_harm_do_none(traced: Stand, collector: Collector) -> None:
    """States that are too many or too long are not handed on, baggage is nobody's business, and each request is served
    in its trace with what it may have."""
    for name, headers in HOSTILE.items():
        parent, trace, caller = new_parent()
        body = json.dumps({"task": "t", "agent": "talker"}).encode()
        ours = [("Content-Type", "application/json"), ("Authorization", f"Bearer {TOKEN}"), ("traceparent", parent)]
        async with ClientSession() as session:
            url = f"http://127.0.0.1:{traced.edge.port}/api/agent/execute"
            async with session.post(url, data=body, headers=CIMultiDict([*ours, *headers])) as answer:
                assert answer.status == 202, (name, await answer.text())
                execution_id = (await answer.json())["executionId"]
        events = await traced.see(execution_id)
        run = await collector.one(trace, "run")
        execute = await collector.one(trace, "execute")
        assert (execute.parent, execute.state, run.state) == (caller, "", ""), name
        assert "stolen" not in execute.raw + run.raw + json.dumps(events), name


async def post(stand: Stand, path: str, parent: str | None, value: Any, status: int | None = None) -> bytes:
    """A request as part of a trace; the answer's body, read to its end."""
    headers = {"Content-Type": "application/json", "Connection": "close"}
    headers |= {} if parent is None else {"traceparent": parent}
    body = json.dumps(value).encode()
    async with request(stand.edge.port, "POST", path, TOKEN, headers=headers, body=body) as response:
        async with asyncio.timeout(under_load(15)):
            text = await response.body()
    assert response.status in ((200, 202) if status is None else (status,)), text
    return text


# --- no collector ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def bound(*, is_listening: bool) -> Iterator[dict[str, str]]:
    """Variables that name a port which takes connections and never answers, or one on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        if is_listening:
            sock.listen(64)
        small = {
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_BSP_MAX_QUEUE_SIZE": "32",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8",
        }
        yield small | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sock.getsockname()[1]}"}


async def test_a_collector_that_is_away_costs_nothing(redis: Redis, redis_url: str) -> None:
    """With nobody to take the spans (the worker's collector is silent, the edge's refuses) executions run to their end
    with every event, and both processes stop in order, after no more than the seconds for the last spans."""
    with (
        bound(is_listening=True) as silent,
        bound(is_listening=False) as refused,
        stand(redis_url, refused, silent) as two,
    ):
        await worker_is_there(two)
        ids = await asyncio.gather(*(two.execute("talker") for _ in range(10)))
        for events in await asyncio.gather(*(two.see(execution_id) for execution_id in ids)):
            assert [event["type"] for event in events].count("thinking") == 50
            assert events[-1]["type"] == "execution:complete"
        stopped = await asyncio.gather(asyncio.to_thread(two.edge.stop, STOP_SECONDS), two.worker.stop(STOP_SECONDS))
        assert stopped == [0, 0]
        assert two.worker.logged("spans_left"), "it did wait for them"


# --- no configuration ------------------------------------------------------------------------------------------------

LOADED = """
import asyncio, os, sys
from broker.edge.edge import Edge
from broker.base.settings import Settings
from emitter import Agents
from emitter.store import announcements
from emitter.store.connection import connect
from emitter.tracing.setup import tracer_from
from emitter.worker.worker import Worker, WorkerSettings

url = os.environ["RUNCAST_REDIS_URL"]
agents = Agents()

@agents.agent("one")
async def one(context):
    return 1

async def main():
    settings = Settings(redis_url=url, jwt_secret="x" * 32, host="127.0.0.1", admin_host="127.0.0.1", port=0,
                        admin_port=0, drain_seconds=0)
    worker = Worker(agents, WorkerSettings(redis_url=url, block_ms=100), tracer=tracer_from(os.environ, "w"))
    async with Edge(settings), connect(url) as redis:
        working = asyncio.create_task(worker.run())
        while not await announcements.live_agents(redis):
            await asyncio.sleep(0.01)
        worker.stop()
        await working
    print(*sorted(sys.modules))

asyncio.run(main())
"""


async def test_without_configuration_nothing_is_loaded(redis: Redis, redis_url: str) -> None:
    """An edge and a worker that are not told where to send spans import nothing that makes or sends any, though it is
    installed. (redis-py loads OpenTelemetry's metrics for itself.)"""
    given = {"PATH": "/usr/bin:/bin", "RUNCAST_REDIS_URL": redis_url, "OTEL_EXPORTER_OTLP_ENDPOINT": ""}
    given |= {"OTEL_SERVICE_NAME": "mine", "OTEL_TRACES_SAMPLER": "always_on"}
    command = [sys.executable, "-c", LOADED]
    run = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=50
    )
    loaded = run.stdout.splitlines()[-1].split() if run.stdout else []
    assert "emitter.tracing.trace" in loaded, run.stderr
    ours = ("emitter.tracing.otel", "opentelemetry.sdk.trace", "opentelemetry.exporter", "google.protobuf", "requests")
    assert [name for name in loaded if name.startswith(ours)] == []
