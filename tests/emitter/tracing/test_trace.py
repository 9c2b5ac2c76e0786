"""The trace context of the W3C, and what the tracer makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import re

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.events import Thinking
from emitter.publishing.agent_emitter import AgentEmitter
from emitter.publishing.outbox import SPANS_AT_ONCE
from emitter.publishing.publisher import Publisher
from emitter.store.append import LogLimits, prepare
from emitter.store.connection import connect
from emitter.store.jobs import claim, ensure_group, read
from emitter.store.lifecycle import Lifecycle, Start
from emitter.tracing.otel import OpenTelemetry
from emitter.tracing.trace import Allowance, Span, Trace, Tracer, log_fields, read_trace
from emitter.wire.envelope import decode_envelope, envelope, read_traced
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from emitter.worker.agents import Agents, Context
from emitter.worker.worker import Worker, WorkerSettings
from tests.edges import eventually, read_log
from tests.faults.outages import redis_stopped

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
SAMPLED = Trace(TRACE_ID, SPAN_ID, 1)
ALICE = Owner("alice")


# --- the headers ---


def test_a_traceparent_is_read_and_written_alike() -> None:
    """What version 00 says is kept to the letter, flags that are not known included."""
    for flags, is_sampled in (("00", False), ("01", True), ("02", False), ("ff", True)):
        text = f"00-{TRACE_ID}-{SPAN_ID}-{flags}"
        trace = read_trace([text])
        assert trace is not None
        assert (trace.parent, trace.trace_id, trace.span_id) == (text, TRACE_ID, SPAN_ID)
        assert trace.is_sampled is is_sampled


@pytest.mark.parametrize("rest", ["", "-", "-what-the-future-holds", "-." + "x" * 400])
@pytest.mark.parametrize("flags", ["00", "01", "0b", "fe"])
def test_later_versions_are_understood_as_far_as_they_go(flags: str, rest: str) -> None:
    """Of a version to come the ids and the sampled bit count; what goes on is version 00."""
    trace = read_trace([f"cc-{TRACE_ID}-{SPAN_ID}-{flags}{rest}"])
    assert trace == Trace(TRACE_ID, SPAN_ID, int(flags, 16) & 1)
    assert trace.parent == f"00-{TRACE_ID}-{SPAN_ID}-0{int(flags, 16) & 1}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        PARENT + "-",
        PARENT + "-more",
        PARENT + " ",
        " " + PARENT,
        PARENT + "\n",
        PARENT[:-1],
        PARENT + "0",
        PARENT.upper(),
        "ff" + PARENT[2:],
        "0" + PARENT[2:],
        "0x" + PARENT[2:],
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
        f"00-{TRACE_ID[:-1]}g-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}0-01",
        f"00-{TRACE_ID}-{SPAN_ID}-0g",
        f"00_{TRACE_ID}_{SPAN_ID}_01",
        f"00-{TRACE_ID}-{SPAN_ID}-١٢",
        f"01-{TRACE_ID}-{SPAN_ID}-01.more",
        f"01-{TRACE_ID}-{SPAN_ID}-0",
        f"01-{TRACE_ID}-{SPAN_ID}-01-" + "x" * 500,
    ],
)
def test_what_is_no_traceparent_is_none(text: str) -> None:
    """A header that is not exactly as the specification has it counts for nothing."""
    assert read_trace([text], ["a=1"]) is None


def test_one_traceparent_counts_and_two_do_not() -> None:
    """Two headers name no trace, even if they agree."""
    assert read_trace([]) is None
    assert read_trace([PARENT, PARENT]) is None


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ([], ""),
        ([""], ""),
        (["a=1"], "a=1"),
        (["a=1 , b=2,\t,", "c@d=x y"], "a=1,b=2,c@d=x y"),
        (["0tenant@sys=1,a_b-c*d/e=~!"], "0tenant@sys=1,a_b-c*d/e=~!"),
        ([",".join(f"k{n}=1" for n in range(32))], ",".join(f"k{n}=1" for n in range(32))),
        ([",".join(f"k{n}=1" for n in range(33))], ""),
        (["a=" + "x" * 256], "a=" + "x" * 256),
        (["a=" + "x" * 257], ""),
        (["a=" + "x" * 250 + ",b=" + "x" * 250 + ",c=12345678"], ""),
        (["a=1,b"], ""),
        (["a=1,B=2"], ""),
        (["a=1,0b=2"], ""),
        (["a=1=2"], ""),
        (["a="], ""),
        (["a=é"], ""),
        (["a=1\nb: 2"], ""),
    ],
)
def test_a_tracestate_is_kept_whole_or_not_at_all(states: list[str], state: str) -> None:
    """Members of all headers make one list; if one of them cannot be read, all are left out and the trace goes on."""
    assert read_trace([PARENT], states) == SAMPLED._replace(state=state)


# --- in the envelope ---


def test_a_stored_event_tells_its_trace_undecoded() -> None:
    """The traceparent is found at its place in the envelope, and nowhere in what an agent says."""
    redact = Redactor()
    event = Thinking(thought=f'","traceparent":"{PARENT}"')
    traced = prepare(event, "ex_1", redact=redact, request_id="r", agent="a", traceparent=PARENT).json
    assert read_traced(traced) == ("ex_1", PARENT)
    assert decode_envelope(traced)[0].traceparent == PARENT
    plain = prepare(event, "ex_1", redact=redact, request_id=f'x","traceparent":"{PARENT}').json
    assert decode_envelope(plain)[0].traceparent is None
    assert read_traced(plain) is None
    assert read_traced(envelope("custom:a", "ex_1", b'{"traceparent":"%b"}' % PARENT.encode(), ts=1)) is None
    assert read_traced(b"") is None


def test_without_a_trace_nothing_is_added() -> None:
    """An event that is part of no trace is stored as ever."""
    assert prepare(Thinking(thought="hm"), "ex_1", redact=Redactor(), ts=1).json == (
        b'{"type":"thinking","executionId":"ex_1","ts":1,"data":{"thought":"hm"}}'
    )


async def test_an_emitter_ignores_what_is_no_traceparent(redis: Redis, redis_url: str) -> None:
    """A traceparent that is given to an emitter stands in its events; one that is not valid does not."""
    for number, (given, stored) in enumerate([(PARENT, PARENT), ("nonsense", None), (None, None)]):
        async with AgentEmitter("alice", f"ex_{number}", redis_url=redis_url, traceparent=given) as emitter:
            await emitter.thinking("hm")
        [event] = await read_log(redis, ALICE.execution(f"ex_{number}").log)
        assert decode_envelope(event.data.encode())[0].traceparent == stored


# --- in the job ---


async def accepted(redis: Redis, trace: Trace | None) -> Trace | None:
    """The trace that a worker finds in the job of an execution accepted in `trace`."""
    await ensure_group(redis, "agent")
    lifecycle = Lifecycle(redis, LogLimits(), Redactor())
    await lifecycle.accept(ALICE, "ex_1", Start(task="t", agent="agent", trace=trace))
    [entry] = await read(redis, ["agent"], "w1", count=1, block_ms=1000)
    job = await claim(redis, entry, "w1", 15_000, 3)
    assert not isinstance(job, str)
    assert await lifecycle.hand_over(job)
    return job.trace


async def test_a_job_carries_its_trace(redis: Redis) -> None:
    """The worker is told where the execution was accepted, tracestate included, and the lifecycle's events say it."""
    trace = SAMPLED._replace(state="a=1,b=2")
    assert await accepted(redis, trace) == trace
    events = [decode_envelope(event.data.encode())[0] for event in await read_log(redis, ALICE.execution("ex_1").log)]
    assert [(head.type, head.traceparent) for head in events] == [
        ("execution:queued", PARENT),
        ("execution:superseded", PARENT),
    ]


async def test_a_job_without_a_trace_has_none(redis: Redis) -> None:
    """Where no trace is, the record does not grow."""
    assert await accepted(redis, None) is None
    assert await redis.hmget(ALICE.execution("ex_1").record, "traceparent", "tracestate") == [None, None]


async def test_a_broken_record_stops_no_worker(redis: Redis) -> None:
    """A trace that cannot be read from the record is none; its execution runs, and can be lost, all the same."""
    await ensure_group(redis, "agent")
    record = ALICE.execution("ex_1").record
    lifecycle = Lifecycle(redis, LogLimits(), Redactor())
    await lifecycle.accept(ALICE, "ex_1", Start(task="t", agent="agent"))
    await redis.hset(record, mapping={"traceparent": b"\xff\xfe", "tracestate": b"\xff"})
    [entry] = await read(redis, ["agent"], "w1", count=1, block_ms=1000)
    job = await claim(redis, entry, "w1", 1, 3)
    assert not isinstance(job, str)
    assert job.trace is None
    async with asyncio.timeout(10):
        while await lifecycle.lose(ALICE, "ex_1") != "superseded":
            await asyncio.sleep(0.01)


# --- no spans ---


async def test_the_tracer_that_makes_no_spans_hands_the_trace_on() -> None:
    """What happens in a span that is not made stands where the span would."""
    tracer = Tracer()
    assert not tracer.is_on
    with tracer.start("run", "consumer", SAMPLED, agent="a") as span:
        assert span.trace == SAMPLED
        span.note(outcome="completed")
        span.refuse("no")
        span.fail("no")
    tracer.record("queue", SAMPLED, 1.0)
    await tracer.close()
    assert Span(None).trace is None


def test_log_lines_say_the_trace_only_where_there_is_one() -> None:
    """A line outside of any trace has no field for it."""
    assert log_fields(SAMPLED) == {"trace_id": TRACE_ID}
    assert log_fields(None) == {}


def test_an_allowance_is_a_burst_and_then_a_rate() -> None:
    """So many at once, then so many a second, and never more saved up than the burst."""
    allowance = Allowance(3, 2)
    assert [allowance.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not allowance.take(100.4)
    assert [allowance.take(100.5), allowance.take(100.5)] == [True, False]
    assert [allowance.take(1000.0) for _ in range(4)] == [True, True, True, False]


# --- spans ---


class Kept:
    """A tracer whose spans stay in memory."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = OpenTelemetry(self.provider)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        [span] = self.spans
        return span


def test_a_span_is_a_child_of_the_trace_it_is_given() -> None:
    """Its trace and tracestate go on, its id is new, and it is current for what runs inside."""
    kept = Kept()
    with kept.tracer.start("run", "consumer", SAMPLED._replace(state="a=1"), agent="x", none=None) as span:
        with kept.provider.get_tracer("agent").start_as_current_span("own"):
            pass
        assert span.trace is not None
    own, run = kept.spans
    assert own.parent is not None
    assert own.parent == run.context
    assert run.parent is not None
    assert (f"{run.context.trace_id:032x}", f"{run.parent.span_id:016x}") == (TRACE_ID, SPAN_ID)
    assert span.trace == Trace(TRACE_ID, f"{run.context.span_id:016x}", span.trace.flags, "a=1")
    assert span.trace.is_sampled
    assert (run.name, run.kind, dict(run.attributes or {})) == ("run", api.SpanKind.CONSUMER, {"runcast.agent": "x"})
    assert not api.get_current_span().get_span_context().is_valid, "the context is left as it was"


def test_without_a_trace_a_new_one_begins() -> None:
    """Whatever span is current: an execution that nobody traced is no part of it."""
    kept = Kept()
    with kept.tracer.start("execute", "server", None), kept.tracer.start("run", "consumer", None):
        pass
    run, execute = kept.spans
    assert run.parent is execute.parent is None
    assert run.context.trace_id != execute.context.trace_id


def test_a_trace_that_is_not_sampled_is_handed_on() -> None:
    """Nothing is sent, and what comes next knows that it is not to be sampled either."""
    kept = Kept()
    with kept.tracer.start("run", "consumer", SAMPLED._replace(flags=0)) as span:
        assert span.trace is not None
        assert (span.trace.trace_id, span.trace.is_sampled) == (TRACE_ID, False)
    assert kept.spans == []


def test_a_failure_is_told_by_its_kind_alone() -> None:
    """An exception marks the span, and its text stays here; what was refused, or cancelled, is no failure."""
    kept = Kept()
    for error, reason in ((ValueError, None), (ValueError, "unknown-agent"), (asyncio.CancelledError, None)):
        with contextlib.suppress(error), kept.tracer.start("execute", "server", None) as span:
            if reason is not None:
                span.refuse(reason)
            raise error("a password")
    with kept.tracer.start("run", "consumer", None) as span:
        span.note(outcome="timeout")
        span.fail("timeout")
    failed, refused, _, timeout = kept.spans
    bad, unset = api.StatusCode.ERROR, api.StatusCode.UNSET
    assert [each.status.status_code for each in kept.spans] == [bad, unset, unset, bad]
    assert dict(failed.attributes or {}) == {"error.type": "ValueError"}
    assert dict(refused.attributes or {}) == {"runcast.refused": "unknown-agent"}
    assert dict(timeout.attributes or {}) == {"error.type": "timeout", "runcast.outcome": "timeout"}
    assert not re.search("password", "".join(span.to_json() for span in kept.spans))
    assert [span.events for span in kept.spans] == [(), (), (), ()]


def test_a_span_of_the_past_ends_now() -> None:
    """What took so long began so long ago; a clock that disagrees makes no span of negative length."""
    kept = Kept()
    kept.tracer.record("queue", SAMPLED, 1.5, agent="x")
    kept.tracer.record("queue", SAMPLED, -1.0)
    [long, none] = [(span.end_time or 0) - (span.start_time or 0) for span in kept.spans]
    assert (long, none) == (1_500_000_000, 0)


def test_a_disabled_provider_hands_the_trace_on() -> None:
    """Where somebody else's provider makes nothing, the trace still goes on."""
    tracer = OpenTelemetry(api.NoOpTracerProvider())
    with tracer.start("run", "consumer", SAMPLED) as span:
        assert span.trace == SAMPLED
    with tracer.start("run", "consumer", None) as span:
        assert span.trace is None


# --- appends ---


async def test_appends_are_shown_up_to_a_rate(redis: Redis, redis_url: str) -> None:
    """A talkative agent's appends are shown at first, and then now and then; all of its events are in the log. In a
    trace that is not sampled none are."""
    kept = Kept(ALWAYS_ON)
    async with (
        Publisher(redis_url=redis_url, tracer=kept.tracer) as publisher,
        AgentEmitter("alice", "ex_1", publisher=publisher, traceparent=PARENT) as emitter,
        AgentEmitter("alice", "ex_2", publisher=publisher, traceparent=PARENT[:-1] + "0") as unsampled,
        AgentEmitter("alice", "ex_3", publisher=publisher) as untraced,
    ):
        for _ in range(int(SPANS_AT_ONCE) + 20):
            await emitter.thinking("hm")
            await emitter.flush()
        await unsampled.thinking("hm")
        await untraced.thinking("hm")
    assert len(await read_log(redis, ALICE.execution("ex_1").log)) == SPANS_AT_ONCE + 20
    assert SPANS_AT_ONCE <= len(kept.spans) < SPANS_AT_ONCE + 10
    for span in kept.spans:
        assert span.name == "append"
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == SPAN_ID
        assert dict(span.attributes or {}) == {"runcast.execution": "ex_1", "runcast.events": 1}


async def test_an_append_that_was_late_shows_how_late(own_redis: EmbeddedRedis) -> None:
    """The tries that failed are a part of the span of the one that did not."""
    kept = Kept()
    client = connect(own_redis.url, timeout=2.0)
    async with (
        Publisher(redis=client, tracer=kept.tracer) as publisher,
        AgentEmitter("alice", "ex_1", publisher=publisher, traceparent=PARENT) as emitter,
    ):
        await emitter.thinking("before")
        await emitter.flush()
        with redis_stopped(own_redis):
            await emitter.thinking("during")
            await eventually("a try failed", lambda: emitter._outbox.late_since is not None)
        await emitter.flush()
        await emitter.thinking("after")
        await emitter.flush()
    await client.aclose()
    before, during, after = [(span.end_time or 0) - (span.start_time or 0) for span in kept.spans]
    assert during > 2_000_000_000
    assert max(before, after) < during


# --- runs ---


async def test_every_attempt_is_a_child_of_the_request(redis: Redis, redis_url: str) -> None:
    """An execution that is handed over has a run for each attempt, side by side, each with its wait and its outcome;
    and each attempt's events say which run they are of."""
    kept, agents, running = Kept(), Agents(), asyncio.Event()

    @agents.agent("agent")
    async def agent(context: Context) -> None:
        running.set()
        await asyncio.sleep(0 if context.attempt > 1 else 3600)

    await Lifecycle(redis, LogLimits(), Redactor()).accept(ALICE, "ex_1", Start(task="t", agent="agent", trace=SAMPLED))
    for grace_seconds in (0.2, 20.0):  # the second attempt ends in it
        running.clear()
        settings = WorkerSettings(
            redis_url=redis_url, grace_seconds=grace_seconds, cancel_grace_seconds=0.2, block_ms=100
        )
        worker = Worker(agents, settings, tracer=kept.tracer)
        task = asyncio.create_task(worker.run())
        async with asyncio.timeout(20):
            await running.wait()
            worker.stop()
            await task

    runs = {(span.attributes or {})["runcast.attempt"]: span for span in kept.spans if span.name == "run"}
    waits = [(span.attributes or {})["runcast.attempt"] for span in kept.spans if span.name == "queue"]
    assert waits == [1, 2]
    assert {number: (span.attributes or {})["runcast.outcome"] for number, span in runs.items()} == {
        1: "handed_over",
        2: "completed",
    }
    assert {span.parent.span_id for span in kept.spans if span.name in ("run", "queue") and span.parent} == {
        int(SPAN_ID, 16)
    }
    heads = [decode_envelope(event.data.encode())[0] for event in await read_log(redis, ALICE.execution("ex_1").log)]
    spans = [(head.type, (head.traceparent or "")[36:52]) for head in heads]
    first, second = (f"{runs[number].context.span_id:016x}" for number in (1, 2))
    assert spans == [
        ("execution:queued", SPAN_ID),
        ("execution:started", first),
        ("execution:superseded", SPAN_ID),
        ("execution:started", second),
        ("execution:complete", second),
    ]


async def test_a_run_that_nobody_traced_begins_a_trace(redis: Redis, redis_url: str) -> None:
    """Of an execution without a trace, such as a schedule's, the run is the first span; its events are in it."""
    kept, agents = Kept(), Agents()

    @agents.agent("agent")
    async def agent(context: Context) -> None:
        pass

    await Lifecycle(redis, LogLimits(), Redactor()).accept(ALICE, "ex_1", Start(task="t", agent="agent"))
    worker = Worker(agents, WorkerSettings(redis_url=redis_url, block_ms=100), tracer=kept.tracer)
    task = asyncio.create_task(worker.run())
    await eventually("the run", lambda: "run" in {span.name for span in kept.spans})
    worker.stop()
    async with asyncio.timeout(20):
        await task
    [run] = [span for span in kept.spans if span.name == "run"]
    assert run.parent is None
    assert {span.context.trace_id for span in kept.spans} == {run.context.trace_id}
    heads = [decode_envelope(event.data.encode())[0] for event in await read_log(redis, ALICE.execution("ex_1").log)]
    assert [(head.traceparent or "")[3:35] for head in heads] == ["", *[f"{run.context.trace_id:032x}"] * 2]
