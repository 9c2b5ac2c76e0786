"""What workflows and activities do is in their executions' logs, each thing once, and Redis never matters to them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from msgspec.structs import replace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis
from temporalio import activity
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.client import Client, WithStartWorkflowOperation, WorkflowHistory
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Replayer, Worker
from temporalio.workflow import NondeterminismError

from broker.cli.embedded import EmbeddedRedis
from broker.executions.fold import fold
from emitter import AgentEmitter, Options, Publisher
from emitter.errors import InvalidEvent
from emitter.events import ExecutionComplete, Status
from emitter.integrations.temporal import (
    Execution,
    RuncastPlugin,
    execution_id_of,
    for_execution,
    relay,
)
from emitter.integrations.temporal.activity_emitters import progress_of
from emitter.integrations.temporal.closing import WorkflowRun
from emitter.integrations.temporal.execution import with_header
from emitter.store.connection import connect
from emitter.wire.entries import parse_stream
from emitter.wire.ids import EXECUTION_ID
from emitter.wire.keys import Owner
from tests.edges import ROOT, eventually
from tests.emitter import temporal_agents as agents
from tests.emitter.temporal_core import (
    Core,
    Service,
    begin_of,
    cancelled,
    child_began,
    child_ended,
    ended,
    evicted,
    payloads,
    queried,
    signalled,
    start_job,
    task,
    updated,
    value,
)
from tests.faults.outages import process_stopped, redis_dead

pytestmark = pytest.mark.usefixtures("garbage_kept")

ALICE = Owner("alice")
EX_1 = Execution("alice", "ex_1")
RUN_1 = WorkflowRun("default", "wf", "run-1")


def of(execution: Execution) -> dict[str, Payload]:
    """The header of something that belongs to this execution."""
    return dict(with_header({}, execution))


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    core = Core()
    core.install(monkeypatch)
    return core


@contextlib.asynccontextmanager
async def working(
    plugin: RuncastPlugin,
    service: Service | None = None,
    activities: Sequence[Callable[..., Any]] = (),
    interceptors: Sequence[ClientInterceptor] = (),
) -> AsyncIterator[Client]:
    """A real client with the plugin, and a worker made from it that runs."""
    service = service or Service()
    client = Client(service, plugins=[plugin], interceptors=interceptors)
    with ThreadPoolExecutor(4) as threads:
        worker = Worker(
            client,
            task_queue="agents",
            workflows=agents.WORKFLOWS,
            activities=[*agents.ACTIVITIES, *activities],
            activity_executor=threads,
            max_concurrent_activities=4,
        )
        assert isinstance(worker._bridge_worker, Core)
        service.core = worker._bridge_worker
        async with worker:
            yield client


async def stored(redis: Redis, execution_id: str = "ex_1", owner: Owner = ALICE) -> list[dict[str, Any]]:
    """The log, decoded; its ordinals are dense or this fails."""
    rows = await redis.xrange(owner.execution(execution_id).log)
    assert [int(id_.split(b"-")[1]) for id_, _ in rows] == list(range(1, len(rows) + 1))
    return [json.loads(next(iter(fields.values()))) for _, fields in rows]


async def story(redis: Redis, execution_id: str = "ex_1") -> list[tuple[str, Any]]:
    """Type and data of every event; durations, which nobody knows before, are left out."""
    events = await stored(redis, execution_id)
    return [
        (event["type"], {name: each for name, each in event["data"].items() if name != "duration"}) for event in events
    ]


async def types(redis: Redis, execution_id: str = "ex_1") -> list[str]:
    return [type_ for type_, _ in await story(redis, execution_id)]


async def until(redis: Redis, type_: str, count: int = 1) -> None:
    """Wait until the log has so many events of a type."""
    async with asyncio.timeout(15):
        last = "0"
        while count > 0:
            for _, entries in await redis.xread({ALICE.execution("ex_1").log: last}, block=1000) or []:
                last = entries[-1][0]
                count -= sum(next(iter(fields)).decode() == type_ for _, fields in entries)


# --- activities ------------------------------------------------------------------------------------------------------


async def test_an_activity_is_a_tool_call(redis: Redis, redis_url: str, core: Core) -> None:
    """Start, heartbeat and result of an attempt are in the log before Temporal has the result."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        result = await core.run(task("search", "cats", 2, headers=of(EX_1)))
        log = await story(redis)
    assert value(result.completed.result) == ["cats 0", "cats 1"]
    call = log[0][1]["callId"]
    assert log == [
        ("tool:start", {"callId": call, "toolName": "search", "params": {"query": "cats", "limit": 2}}),
        ("tool:progress", {"callId": call, "progress": 50.0, "message": "half"}),
        ("tool:complete", {"callId": call, "toolName": "search", "result": ["cats 0", "cats 1"]}),
    ]
    assert core.heartbeats == [[{"progress": 50, "message": "half"}]]


async def test_a_failure_is_an_error(redis: Redis, redis_url: str, core: Core) -> None:
    """An exception ends the call with its type and text, and is Temporal's as ever."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        result = await core.run(task("fail", headers=of(EX_1)))
        log = await story(redis)
    assert result.failed.failure.message == "no such page"
    assert [type_ for type_, _ in log] == ["tool:start", "tool:error"]
    assert log[1][1]["error"] == "ValueError: no such page"
    assert log[1][1]["callId"] == log[0][1]["callId"]


@pytest.mark.parametrize("workers", [1, 3])
async def test_every_attempt_is_a_call(redis: Redis, redis_url: str, core: Core, workers: int) -> None:
    """A retry is a call of its own, and ends nothing that has ended, whichever worker runs it."""
    plugins = [RuncastPlugin(redis_url=redis_url) for _ in range(workers)]
    for attempt in (1, 2, 3):
        async with working(plugins[attempt % workers]):
            await core.run(task("fail", headers=of(EX_1), attempt=attempt))
    log = await story(redis)
    assert [type_ for type_, _ in log] == ["tool:start", "tool:error"] * 3
    assert len({data["callId"] for _, data in log}) == 3
    assert all(data["error"] == "ValueError: no such page" for type_, data in log if type_ == "tool:error")


async def test_an_attempt_that_runs_twice_is_told_once(redis: Redis, redis_url: str, core: Core) -> None:
    """On another worker too; a local activity is even scheduled anew."""
    for seconds in range(2):
        async with working(RuncastPlugin(redis_url=redis_url)):
            for _ in range(2):
                result = await core.run(task("fail", headers=of(EX_1), is_local=True, scheduled=seconds))
                assert result.HasField("failed")
    assert await types(redis) == ["tool:start", "tool:error"]


async def test_a_lost_attempt_is_closed_by_the_next(redis: Redis, redis_url: str, core: Core) -> None:
    """Of an attempt whose worker died, no end comes; what it says of it later is no news."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        lost = core.begin(task("hang", headers=of(EX_1)))
        await until(redis, "tool:progress")
        await core.run(task("fail", headers=of(EX_1), attempt=2))
        core.cancel(lost)
        assert (await core.result(lost)).HasField("cancelled")
        log = await story(redis)
    first, second = log[0][1]["callId"], log[3][1]["callId"]
    assert [(type_, data["callId"]) for type_, data in log] == [
        ("tool:start", first),
        ("tool:progress", first),
        ("tool:error", first),
        ("tool:start", second),
        ("tool:error", second),
    ]
    assert "lost" in log[2][1]["error"]
    assert log[4][1]["error"] == "ValueError: no such page"


async def test_an_id_may_be_given_again(redis: Redis, redis_url: str, core: Core) -> None:
    """Of two activities with the same id in one run, each is told."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        for seconds in (1, 2):
            await core.run(task("fail", headers=of(EX_1), activity_id="mine", scheduled=seconds))
    calls = [data["callId"] for _, data in await story(redis)]
    assert len(calls) == 4
    assert len(set(calls)) == 2


async def test_an_activity_in_a_thread(redis: Redis, redis_url: str, core: Core) -> None:
    """It heartbeats and speaks from its thread, and all is between its start and its end."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        result = await core.run(task("count", 3, headers=of(EX_1)))
        events = await stored(redis)
    assert value(result.completed.result) == 3
    call = events[0]["data"]["callId"]
    assert [events[0]["type"], events[-1]["type"]] == ["tool:start", "tool:complete"]
    spoken = [event for event in events if event.get("parentId") == call]
    assert [event["type"] for event in spoken if event["type"] != "message:delta"] == [
        "phase:start", "phase:complete", "message:complete",
    ]  # fmt: skip
    assert "".join(event["data"].get("delta", "") for event in spoken) == "0 1 2 "
    beats = [event["data"] for event in events if event["type"] == "tool:progress"]
    assert beats[0] == {"callId": call, "progress": 0.0}
    assert beats[-1] == {"callId": call, "progress": 2.0}


@pytest.mark.parametrize("name", ["hang", "hang_in_thread"])
@pytest.mark.parametrize(
    ("why", "text"), [({}, "cancelled"), ({"is_timed_out": True}, "cancelled: timed out")], ids=["asked", "timed out"]
)
async def test_a_cancelled_activity(
    redis: Redis, redis_url: str, core: Core, name: str, why: dict[str, bool], text: str
) -> None:
    """Cancellation ends the call as an error that says so."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        token = core.begin(task(name, headers=of(EX_1)))
        await until(redis, "tool:progress")
        core.cancel(token, **why)
        await core.result(token)
        log = await story(redis)
    assert [type_ for type_, _ in log] == ["tool:start", "tool:progress", "tool:error"]
    assert log[2][1]["error"] == text


async def test_an_activity_that_is_completed_from_elsewhere(redis: Redis, redis_url: str, core: Core) -> None:
    """Its call stays open: it has neither failed nor come to its end."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        result = await core.run(task("give_back", headers=of(EX_1)))
        assert result.HasField("will_complete_async")
        assert await types(redis) == ["tool:start"]


async def test_many_heartbeats_are_few_events(redis: Redis, redis_url: str, core: Core) -> None:
    """A tight loop of heartbeats costs the log no more than the first and the last of them."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.run(task("beat", 5000, headers=of(EX_1)))
        said = [data["message"] for type_, data in await story(redis) if type_ == "tool:progress"]
    assert said == ["step 4999"]  # it never let the loop send one before


async def test_heartbeats_are_merged(redis: Redis, redis_url: str, core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is said at once, then the latest now and then, and the last one before the end."""
    monkeypatch.setattr("emitter.integrations.temporal.activity_emitters.HEARTBEAT_SECONDS", 60)
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.run(task("beat", 500, 0, headers=of(EX_1)))
        monkeypatch.setattr("emitter.integrations.temporal.activity_emitters.HEARTBEAT_SECONDS", 0.01)
        await core.run(task("beat", 4, 0.05, headers=of(EX_1), activity_id="2"))
        log = await story(redis)
    calls = [data["callId"] for type_, data in log if type_ == "tool:start"]
    said = [
        [each["message"] for type_, each in log if type_ == "tool:progress" and each["callId"] == call]
        for call in calls
    ]
    assert said == [["step 0", "step 499"], ["step 0", "step 1", "step 2", "step 3"]]


async def test_a_heartbeat_after_the_end_is_no_progress(redis: Redis, redis_url: str, core: Core) -> None:
    """What an activity leaves running may heartbeat on; its call has ended."""
    contexts: list[contextvars.Context] = []

    @activity.defn
    async def leave() -> None:
        contexts.append(contextvars.copy_context())

    async with working(RuncastPlugin(redis_url=redis_url), activities=[leave]):
        await core.run(task("leave", headers=of(EX_1)))
        contexts[0].run(activity.heartbeat, "late")
    assert await types(redis) == ["tool:start", "tool:complete"]


@pytest.mark.parametrize(
    ("details", "said"),
    [
        ((), None),
        ((40,), (40.0, None)),
        ((12.5, "reading"), (12.5, "reading")),
        (({"progress": 7, "message": "a", "other": 1},), (7.0, "a")),
        ((50_000,), (None, "50000")),
        ((True,), None),
        (([1, 2],), None),
        ((None,), None),
        ((Execution("alice"),), None),
    ],
)
def test_what_a_heartbeat_says(details: tuple[Any, ...], said: tuple[float | None, str | None] | None) -> None:
    """A number from 0 to 100 is progress, another number or a text the message; a dict may name both."""
    progress = progress_of("c", details)
    assert (None if progress is None else (progress.progress, progress.message)) == said


async def test_what_activities_say(redis: Redis, redis_url: str, core: Core) -> None:
    """It stands under their call, in messages that are nobody else's."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        for number in ("1", "2"):
            await core.run(task("write", "a page", headers=of(EX_1), activity_id=number))
        events = await stored(redis)
    calls = [event["data"]["callId"] for event in events if event["type"] == "tool:start"]
    said = ["thinking", "message:delta", "message:complete"]
    assert [event["type"] for event in events] == ["tool:start", *said, "tool:complete"] * 2
    assert [event.get("parentId") for event in events] == [None, *[calls[0]] * 3, None, None, *[calls[1]] * 3, None]
    assert len({event["data"]["messageId"] for event in events if event["type"] == "message:delta"}) == 2


async def test_the_last_word_comes_before_the_end(redis: Redis, redis_url: str, core: Core) -> None:
    """Also a chunk of text, which waits a moment for others."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.run(task("muse", headers=of(EX_1)))
    assert await types(redis) == ["tool:start", "thinking:delta", "tool:complete"]


async def test_a_question_is_the_activitys_own(redis: Redis, redis_url: str, core: Core) -> None:
    """The next attempt finds the answer that the last one got; another activity that asks the same does not."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        token = core.begin(task("ask", headers=of(EX_1)))
        await until(redis, "input:required")
        asked = (await stored(redis))[-1]["data"]["inputId"]
        async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as person:
            await person.input_received(asked, by="alice", value=True)
        assert value((await core.result(token)).completed.result) is True
        again = await core.run(task("ask", headers=of(EX_1), attempt=2))
        assert value(again.completed.result) is True
        other = core.begin(task("ask", headers=of(EX_1), activity_id="2"))
        await until(redis, "input:required", count=2)
        core.cancel(other)
        await core.result(other)
        ids = [data["inputId"] for type_, data in await story(redis) if type_ == "input:required"]
    assert ids[0] == asked
    assert len(set(ids)) == 2


async def test_values_that_have_no_place_in_a_log(redis: Redis, redis_url: str, core: Core) -> None:
    """What is too large or no JSON is named, what is secret is not shown, and the activity has it all the same."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        result = await core.run(task("big", headers=of(EX_1)))
        assert len(value(result.completed.result)) == 100_000
        await core.run(task("take", b"\0\1", "hunter2", 8, 9, headers=of(EX_1), activity_id="2"))
        log = await story(redis)
    assert log[1][1]["result"] == {"omitted": "100002 bytes of json/plain"}
    assert log[2][1]["params"] == {
        "data": {"omitted": "2 bytes of binary/plain"},
        "secret_token": "[redacted]",
        "2": 8,
        "3": 9,
    }
    assert log[3][1]["result"] is None


async def test_arguments_that_are_too_large_together(redis: Redis, redis_url: str, core: Core) -> None:
    """The start is told with as much of them as there is room for, and the call still has its end."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.run(task("search", "x" * 65_450, 0, headers=of(EX_1)))
        log = await story(redis)
    assert [type_ for type_, _ in log] == ["tool:start", "tool:progress", "tool:complete"]
    query = log[0][1]["params"]["query"]
    assert query.startswith("xxx")
    assert "…" in query


async def test_without_values(redis: Redis, redis_url: str, core: Core) -> None:
    """`values=False` tells that activities and workflows ran, and nothing of what they were given or returned."""
    async with working(RuncastPlugin(redis_url=redis_url, values=False)):
        await core.run(task("search", "cats", headers=of(EX_1)))
        await core.activate("run-1", start_job("Ends", "well", headers=of(EX_1)))
        await until(redis, "execution:complete")
        text = json.dumps(await stored(redis))
    assert "cats" not in text
    assert "well" not in text


# --- Redis away, logs closed -----------------------------------------------------------------------------------------


async def test_redis_away_costs_little_and_loses_nothing(own_redis: EmbeddedRedis, core: Core) -> None:
    """Activities run while Redis stands still, and what they did is in the log when it is back."""
    client = connect(own_redis.url)
    async with working(RuncastPlugin(redis_url=own_redis.url, patience=1.0)):
        await core.run(task("search", "cats", headers=of(EX_1), activity_id="0"))
        assert own_redis.process is not None
        with process_stopped(own_redis.process.pid):
            async with asyncio.timeout(6):  # all of them together wait for one patience, not each
                results = [
                    await core.run(task(name, *args, headers=of(EX_1), activity_id=name))
                    for name, args in (("search", ["cats"]), ("write", ["page"]), ("count", [2]), ("fail", []))
                ]
        assert [result.WhichOneof("status") for result in results] == ["completed"] * 3 + ["failed"]
    log = await story(client)
    await client.aclose()
    named = [(type_, data["toolName"]) for type_, data in log if "toolName" in data]
    for name, end in (("search", "complete"), ("write", "complete"), ("count", "complete"), ("fail", "error")):
        assert named.count(("tool:start", name)) == named.count((f"tool:{end}", name)) == 1 + (name == "search")


async def test_redis_gone_for_good(own_redis: EmbeddedRedis, core: Core) -> None:
    """No activity waits for more than its patience, and the worker stops."""
    plugin = RuncastPlugin(
        make_publisher=lambda: Publisher(
            redis_url=own_redis.url, options=Options(close_timeout=0.2, max_queue_events=10, overflow_timeout=0.1)
        ),
        patience=0.1,
    )
    async with working(plugin):
        with redis_dead(own_redis):
            result = await core.run(task("shout", 1000, headers=of(EX_1)))
            assert value(result.completed.result) == 1000
            result = await core.run(task("count", 50, headers=of(EX_1), activity_id="2"))
            assert value(result.completed.result) == 50


async def test_what_waits_is_bounded(own_redis: EmbeddedRedis, core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Redis is away only so many logs may wait; further activities run unpublished."""
    monkeypatch.setattr(relay, "OUTBOXES_MAX", 6)
    client = connect(own_redis.url)
    async with working(RuncastPlugin(redis_url=own_redis.url, patience=0.05)):
        assert own_redis.process is not None
        with process_stopped(own_redis.process.pid):
            for number in range(10):
                result = await core.run(task("search", "cats", headers=of(EX_1), activity_id=str(number)))
                assert result.HasField("completed")
    started = (await types(client)).count("tool:start")
    await client.aclose()
    assert 3 <= started <= 6


@pytest.fixture
async def pausing(redis: Redis) -> AsyncIterator[tuple[Callable[..., Any], asyncio.Event]]:
    """An activity that holds back all writing to Redis for some ms and returns, and the event that it has done so."""
    paused = asyncio.Event()

    @activity.defn
    async def pause(ms: int) -> str:
        await redis.execute_command("CLIENT", "PAUSE", ms, "WRITE")
        paused.set()
        return "paused"

    yield pause, paused
    await redis.execute_command("CLIENT", "UNPAUSE")


async def test_the_end_is_in_the_log_before_temporal_has_the_result(
    redis: Redis, redis_url: str, core: Core, pausing: Any
) -> None:
    """So whatever follows in the workflow comes after it, on whichever worker."""
    async with working(RuncastPlugin(redis_url=redis_url, patience=60), activities=pausing[:1]):
        await core.run(task("pause", 500, headers=of(EX_1)))
        assert await types(redis) == ["tool:start", "tool:complete"]


async def test_a_cancellation_after_the_end_changes_nothing(
    redis: Redis, redis_url: str, core: Core, pausing: Any
) -> None:
    """An activity that has its result keeps it, also while the log is waited for."""
    async with working(RuncastPlugin(redis_url=redis_url, patience=60), activities=pausing[:1]):
        token = core.begin(task("pause", 30_000, headers=of(EX_1)))
        await pausing[1].wait()
        core.cancel(token)
        result = await core.result(token)
        assert await types(redis) == ["tool:start"]
        await redis.execute_command("CLIENT", "UNPAUSE")
    assert value(result.completed.result) == "paused"
    assert await types(redis) == ["tool:start", "tool:complete"]


async def test_an_attempt_that_runs_twice_while_redis_is_away(own_redis: EmbeddedRedis, core: Core) -> None:
    """What waits for Redis already is not queued again."""
    client = connect(own_redis.url)
    async with working(RuncastPlugin(redis_url=own_redis.url, patience=0.05)):
        assert own_redis.process is not None
        with process_stopped(own_redis.process.pid):
            for attempt in (1, 1, 2, 2):
                await core.run(task("fail", headers=of(EX_1), is_local=True, attempt=attempt))
    assert await types(client) == ["tool:start", "tool:error"] * 2
    await client.aclose()


async def test_a_log_that_waits_for_redis_is_bounded(own_redis: EmbeddedRedis) -> None:
    """What a workflow tells beyond a full queue is dropped, but for its end."""
    client = connect(own_redis.url)
    counter = relay.EventRelay(lambda: Publisher(redis_url=own_redis.url, options=Options(max_queue_events=3)), 1.0)
    async with counter.open():
        outbox = counter.outbox(EX_1, "workflow")
        assert outbox is not None
        assert own_redis.process is not None
        with process_stopped(own_redis.process.pid):
            for seq in range(1, 10):
                outbox.put(seq, Status(status=str(seq), message=""), EX_1)
            outbox.put(10, ExecutionComplete(result=None, duration=0), EX_1)
    assert [data.get("status") for _, data in await story(client)] == ["1", "2", "3", None]
    await client.aclose()


async def test_a_closed_log_harms_nobody(redis: Redis, redis_url: str, core: Core) -> None:
    """An execution that was cancelled meanwhile takes nothing, and its activities go on."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as other:
        await other.execution_cancelled(by="alice")
    async with working(RuncastPlugin(redis_url=redis_url)):
        for name, args in (("search", ["cats"]), ("write", ["page"]), ("count", [3]), ("shout", [100])):
            assert (await core.run(task(name, *args, headers=of(EX_1), activity_id=name))).HasField("completed")
        await core.play("run-1", start_job("Research", "cats", headers=of(EX_1)))
    assert await types(redis) == ["execution:cancelled"]


@pytest.mark.parametrize("cancels", [True, False])
async def test_a_cancelled_execution_cancels_its_workflow(
    redis: Redis, redis_url: str, core: Core, cancels: bool
) -> None:
    """The server is asked to, once a run, by the first thing that the log does not take; unless that is not wanted. An
    activity that waits for an answer is not tried again: there will be none."""
    service = Service()
    async with working(RuncastPlugin(redis_url=redis_url, cancels=cancels), service):
        token = core.begin(task("ask", headers=of(EX_1)))
        await until(redis, "input:required")
        async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as other:
            await other.execution_cancelled(by="alice")
        failed = (await core.result(token)).failed.failure
        await core.run(task("count", 3, headers=of(EX_1), activity_id="2"))
        await core.activate("run-2", start_job("Steps", headers=of(EX_1)))
        if cancels:
            await eventually("both are asked for", lambda: len(service.cancelled) == 2)
    assert failed.application_failure_info.type == "ExecutionEnded"
    assert failed.application_failure_info.non_retryable
    asked = [each.workflow_execution.run_id for each in service.cancelled]
    assert sorted(asked) == (["run-1", "run-2"] if cancels else [])


async def test_an_execution_that_has_ended_otherwise_cancels_nothing(redis: Redis, redis_url: str, core: Core) -> None:
    """What comes after a completion or a failure is told nowhere, and goes on."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as other:
        await other.execution_error("it broke")
    service = Service()
    async with working(RuncastPlugin(redis_url=redis_url), service):
        await core.run(task("count", 3, headers=of(EX_1)))
        await core.activate("run-1", start_job("Steps", headers=of(EX_1)))
    assert service.cancelled == []


# --- whose -----------------------------------------------------------------------------------------------------------


async def test_without_an_owner_nothing_is_published(redis: Redis, redis_url: str, core: Core) -> None:
    """And everything runs as without the plugin; what code says is said to nobody."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        for name, args in (("search", ["cats"]), ("write", ["page"]), ("count", [3]), ("shout", [3])):
            assert (await core.run(task(name, *args, activity_id=name))).HasField("completed")
        end = await core.play("run-1", start_job("Research", "cats"))
        assert (await core.run(task("ask"))).failed.failure.message
    assert end.HasField("complete_workflow_execution")
    assert await redis.keys("rc:{*") == []


async def test_a_default_owner(redis: Redis, redis_url: str, core: Core) -> None:
    """What comes without a header is that owner's, in an execution made of workflow id and first run id."""
    async with working(RuncastPlugin(redis_url=redis_url, default_owner=Owner("bob", "acme"))):
        job = start_job("Research", "cats", workflow_id="a page/1", first_run_id="first-run")
        await core.play("run-1", job)
        await core.run(task("search", "cats", run_id="other-run"))
    execution_id = execution_id_of("a page/1", "first-run")
    types_ = [event["type"] for event in await stored(redis, execution_id, Owner("bob", "acme"))]
    assert (types_[0], types_[-1], types_.count("tool:start")) == ("execution:started", "execution:complete", 2)
    alone = await stored(redis, execution_id_of("wf", "other-run"), Owner("bob", "acme"))
    assert [event["type"] for event in alone] == ["tool:start", "tool:progress", "tool:complete"]


async def test_a_rule_of_ones_own(redis: Redis, redis_url: str, core: Core) -> None:
    """`execution_of` has the last word, for workflows and activities; one that fails publishes nothing."""

    def execution_of(info: Any, carried: Execution | None) -> Execution | None:
        if carried is not None:
            return carried
        if info.workflow_id == "nobody":
            raise LookupError(info.workflow_id)
        if info.workflow_id == "nonsense":
            return "alice"  # type: ignore[return-value]
        return Execution("alice", "ex_1", task=f"{type(info).__module__}")

    async with working(RuncastPlugin(redis_url=redis_url, execution_of=execution_of)):
        for workflow_id in ("nobody", "nonsense"):
            await core.play(f"run-{workflow_id}", start_job("Ends", "well", workflow_id=workflow_id))
        assert await redis.keys("rc:{*") == []
        await core.play("run-1", start_job("Research", "cats"))
    log = await story(redis)
    assert log[0][1]["task"].startswith("temporalio.workflow")
    assert [type_ for type_, _ in log].count("tool:complete") == 2


@pytest.mark.parametrize("workflow_id", ["wf", "w" * 27, "w" * 28, "w" * 1000, "a b/ü{:}", ""])
def test_an_execution_id_can_always_be_made(workflow_id: str) -> None:
    """It is an execution id, the same for the same run, and another for another run or workflow."""
    run_id = "01234567-89ab-cdef-0123-456789abcdef"
    made = execution_id_of(workflow_id, run_id)
    assert EXECUTION_ID.match(made)
    assert made == execution_id_of(workflow_id, run_id)
    assert len({made, execution_id_of(workflow_id, run_id[::-1]), execution_id_of(workflow_id + "?", run_id)}) == 3


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b'{"user":"a b "}', b'{"user":"a","executionId":"{}"}', b"[1]"])
async def test_a_header_of_somebody_else(redis: Redis, redis_url: str, core: Core, data: bytes) -> None:
    """A header that is not understood is none."""
    headers = {"runcast": Payload(metadata={"encoding": b"json/plain"}, data=data)}
    async with working(RuncastPlugin(redis_url=redis_url)):
        assert (await core.run(task("search", "cats", headers=headers))).HasField("completed")
        end = await core.activate("run-1", start_job("Ends", "well", headers=headers))
    assert end[0].HasField("complete_workflow_execution")
    assert await redis.keys("rc:{*") == []


def test_who_cannot_be_an_owner() -> None:
    """Is refused where the workflow is to be started, not where nobody looks."""
    with pytest.raises(InvalidEvent, match="user"), for_execution("a b "):
        pass
    with pytest.raises(InvalidEvent, match="executionId"), for_execution("alice", "a:b"):
        pass


async def test_a_client_outside_of_a_block_sends_no_header(core: Core) -> None:
    """Only what is started inside of `for_execution` belongs to it."""
    service = Service()
    client = Client(service, plugins=[RuncastPlugin()])
    with for_execution("alice", "ex_1"):
        await client.start_workflow("Ends", "well", id="wf-1", task_queue="agents")
    await client.start_workflow("Ends", "well", id="wf-2", task_queue="agents")
    headers = [dict(request.header.fields) for request in service.started]
    assert headers == [of(EX_1), {}]


async def test_everything_that_a_client_starts(core: Core) -> None:
    """Workflows by signal or update and activities of their own belong to the execution too."""
    service = Service()
    client = Client(service, plugins=[RuncastPlugin()])
    options: dict[str, Any] = {"id": "wf", "task_queue": "agents"}
    with for_execution("alice", "ex_1"):
        await client.start_workflow(agents.Steps.run, start_signal="say", start_signal_args=["done"], **options)
        await client.start_activity(agents.search, "cats", start_to_close_timeout=agents.SOON, **options)
        start = WithStartWorkflowOperation(
            agents.Steps.run, id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING, **options
        )
        with pytest.raises(ValueError, match="run_id"):  # our server knows no answer to it
            await client.execute_update_with_start_workflow(agents.Steps.add, "done", start_workflow_operation=start)
    by_signal, lone, by_update = service.started
    started = by_update.operations[0].start_workflow
    assert [dict(request.header.fields) for request in (by_signal, lone, started)] == [of(EX_1)] * 3


async def test_an_activity_without_a_workflow(redis: Redis, redis_url: str, core: Core) -> None:
    """It is published like any other; without an id, in an execution of its own."""
    start = task("search", "cats", headers=of(Execution("alice")), activity_id="alone")
    start.workflow_execution.Clear()
    start.run_id = "activity-run"
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.run(start)
    execution_id = execution_id_of("alone", "activity-run")
    assert await types(redis, execution_id) == ["tool:start", "tool:progress", "tool:complete"]


# --- workflows -------------------------------------------------------------------------------------------------------


async def test_a_workflow_is_an_execution(redis: Redis, redis_url: str, core: Core) -> None:
    """From the client's call to the end: whole log, of workflow and activities."""
    service = Service()
    async with working(RuncastPlugin(redis_url=redis_url), service) as client:
        with for_execution("alice", "ex_1", task="All about cats"):
            await client.start_workflow(agents.Research.run, "cats", id="wf", task_queue="agents")
        headers = dict(service.started[0].header.fields)
        end = await core.play("run-1", start_job("Research", "cats", headers=headers))
        await until(redis, "execution:complete")
    result = {"title": "CATS", "found": 3}
    assert value(end.complete_workflow_execution.result) == result
    log = await story(redis)
    look, write = (data["callId"] for type_, data in log if type_ == "tool:start")
    message = next(data["messageId"] for type_, data in log if type_ == "message:delta")
    found = ["cats 0", "cats 1", "cats 2"]
    phases = [{"id": "look", "name": "Look"}, {"id": "write", "name": "Write"}]
    assert log == [
        ("execution:started", {"task": "All about cats", "startedAt": 1_700_000_000_000, "attempt": 1}),
        ("plan:created", {"plan": {"goal": "cats", "phases": phases}}),
        ("phase:start", {"phaseId": "look", "phaseName": "Look"}),
        ("tool:start", {"callId": look, "toolName": "search", "params": {"query": "cats"}}),
        ("tool:progress", {"callId": look, "progress": 50.0, "message": "half"}),
        ("tool:complete", {"callId": look, "toolName": "search", "result": found}),
        ("phase:complete", {"phaseId": "look", "phaseName": "Look"}),
        ("progress", {"progress": 50.0, "currentAction": "writing"}),
        ("phase:start", {"phaseId": "write", "phaseName": "Write"}),
        ("tool:start", {"callId": write, "toolName": "write", "params": {"title": "cats"}}),
        ("thinking", {"thought": "How to begin?"}),
        ("message:delta", {"messageId": message, "delta": "A page"}),
        ("message:complete", {"messageId": message}),
        ("tool:complete", {"callId": write, "toolName": "write", "result": "CATS"}),
        ("phase:complete", {"phaseId": "write", "phaseName": "Write"}),
        ("execution:complete", {"result": result}),
    ]
    durations = [event["data"].get("duration") for event in await stored(redis) if event["type"] != "tool:complete"]
    assert [each for each in durations if each is not None] == [1.0, 1.0, 3.0]  # of the workflow's time


async def test_a_replay_is_told_nowhere(redis: Redis, redis_url: str, core: Core) -> None:
    """After an eviction everything is executed again, on this worker or another, and told once."""
    begin = start_job("Steps", headers=of(EX_1))
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.activate("run-1", begin)
        await core.activate("run-1", signalled("say", "one"))
        await core.activate("run-1", evicted())
        await until(redis, "status", 3)
        log = await story(redis)
        await core.activate("run-1", begin, replay=True)
        await core.activate("run-1", signalled("say", "one"), replay=True)
        await core.activate("run-1", signalled("say", "two"))
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.activate("run-1", begin, replay=True)
        for word in ("one", "two"):
            await core.activate("run-1", signalled("say", word), replay=True)
        [end] = await core.activate("run-1", signalled("say", "done"))
    assert value(end.complete_workflow_execution.result) == ["one", "two", "done"]
    assert [(type_, data.get("status"), data.get("message")) for type_, data in await story(redis)] == [
        ("execution:started", None, None),
        ("status", "begun", ""),
        *(("status", what, word) for word in ("one", "two", "done") for what in ("heard", "step")),
        ("execution:complete", None, None),
    ]
    assert (await story(redis))[: len(log)] == log


async def test_a_task_that_is_executed_again_is_told_once(redis: Redis, redis_url: str, core: Core) -> None:
    """A worker that dies before the server has its answer: the next one executes the same, which is no replay."""
    begin = start_job("Steps", headers=of(EX_1))
    for _ in range(3):
        async with working(RuncastPlugin(redis_url=redis_url)):
            await core.activate("run-1", begin)
            await core.activate("run-1", signalled("say", "one"))
    async with working(RuncastPlugin(redis_url=redis_url)):
        for _ in range(2):
            await core.activate("run-1", begin)
            await core.activate("run-1", signalled("say", "one"))
            await core.activate("run-1", signalled("say", "done"))
            await core.activate("run-1", evicted())
    assert await types(redis) == ["execution:started", *["status"] * 5, "execution:complete"]


async def test_a_signal_before_the_beginning(redis: Redis, redis_url: str, core: Core) -> None:
    """A handler may speak before the main function does, and after the start."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.activate("run-1", signalled("say", "done"), start_job("Steps", headers=of(EX_1)))
        await until(redis, "execution:complete")
    assert [(type_, data.get("status")) for type_, data in await story(redis)] == [
        ("execution:started", None),
        *[("status", each) for each in ("heard", "begun", "step")],
        ("execution:complete", None),
    ]


async def test_an_update_speaks(redis: Redis, redis_url: str, core: Core) -> None:
    """Its handler runs in a task of its own, and has the workflow's emitter all the same."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.activate("run-1", start_job("Steps", headers=of(EX_1)))
        await core.activate("run-1", updated("add", "done"))
        await until(redis, "execution:complete")
    assert [data.get("status") for _, data in await story(redis)] == [None, "begun", "heard", "step", None]


async def test_a_query_has_nothing_to_emit(redis: Redis, redis_url: str, core: Core) -> None:
    """It may be asked any number of times: speaking in one is an error, and nothing is told."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.activate("run-1", start_job("Steps", headers=of(EX_1)))
        [answer] = await core.activate("run-1", queried("tell"))
    assert "nothing to emit" in answer.respond_to_query.failed.message
    assert await types(redis) == ["execution:started", "status"]


@pytest.mark.parametrize(
    ("how", "error"),
    [("fail", "OutOfPages: no more pages"), ("activity", "ValueError: no such page")],
)
async def test_a_workflow_that_fails(redis: Redis, redis_url: str, core: Core, how: str, error: str) -> None:
    """Its one end is the error, by what caused it."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        end = await core.play("run-1", start_job("Ends", how, headers=of(EX_1)))
        await until(redis, "execution:error")
    assert end.HasField("fail_workflow_execution")
    assert (await story(redis))[-1] == ("execution:error", {"error": error, "code": "workflow_failed"})


async def test_a_bug_is_no_end(redis: Redis, redis_url: str, core: Core) -> None:
    """What fails only the workflow task is tried again by Temporal, and told by nothing."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        completion = await core.attempt("run-1", start_job("Ends", "bug", headers=of(EX_1)))
        assert completion.HasField("failed")
        completion = await core.attempt("run-2", start_job("Ends", "end it", headers=of(EX_1)))
        assert "ends by returning" in completion.failed.failure.message
        await until(redis, "execution:started", 2)
    assert await types(redis) == ["execution:started"] * 2


async def test_a_cancelled_workflow(redis: Redis, redis_url: str, core: Core) -> None:
    """Its one end says why."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.activate("run-1", start_job("Ends", "wait", headers=of(EX_1)))
        commands = await core.activate("run-1", cancelled("no longer needed"))
        assert commands[-1].HasField("cancel_workflow_execution")
        await until(redis, "execution:cancelled")
    assert (await story(redis))[-1] == ("execution:cancelled", {"reason": "no longer needed"})


async def test_an_evicted_workflow_has_not_ended(redis: Redis, redis_url: str, core: Core) -> None:
    """That its tasks are cancelled to make room is told nowhere."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.activate("run-1", start_job("Ends", "wait", headers=of(EX_1)))
        await core.activate("run-1", evicted())
    assert await types(redis) == ["execution:started"]


async def test_a_workflow_that_is_retried(redis: Redis, redis_url: str, core: Core) -> None:
    """A failed attempt is no end while the server has another; the next supersedes it, the last one ends."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        for attempt in (1, 2, 3):
            core.tries_again = attempt < 3
            await core.activate(f"run-{attempt}", start_job("Ends", "fail", headers=of(EX_1), attempt=attempt))
            if core.tries_again:
                await until(redis, "status", attempt)
        await until(redis, "execution:error")
    log = await story(redis)
    assert [(type_, data.get("attempt", data.get("status"))) for type_, data in log] == [
        ("execution:started", 1),
        ("status", "retrying"),
        ("execution:superseded", 2),
        ("execution:started", 2),
        ("status", "retrying"),
        ("execution:superseded", 3),
        ("execution:started", 3),
        ("execution:error", None),
    ]
    assert fold(parse_stream(await redis.xrange(ALICE.execution("ex_1").log))).status == "failed"


async def test_an_end_that_the_server_does_not_take(redis: Redis, redis_url: str, core: Core) -> None:
    """A signal that comes while a workflow's last task is executed keeps it open: only the end that stands is told,
    and what else was told stands once."""
    begin = start_job("Steps", headers=of(EX_1))
    async with working(RuncastPlugin(redis_url=redis_url)):
        core.takes_ends = False
        [end] = await core.activate("run-1", begin, signalled("say", "done"))
        assert value(end.complete_workflow_execution.result) == ["done"]
        await core.activate("run-1", evicted())
        await until(redis, "status", 3)
        core.takes_ends = True
        [end] = await core.activate("run-1", begin, signalled("say", "done"), signalled("say", "too"))
        await until(redis, "execution:complete")
    log = [(type_, data.get("message"), data.get("result")) for type_, data in await story(redis)]
    assert log == [
        ("execution:started", None, None),
        ("status", "done", None),
        ("status", "", None),
        ("status", "done", None),
        ("status", "done", None),
        ("execution:complete", None, ["done", "too"]),
    ]


async def test_an_end_that_another_worker_comes_to(redis: Redis, redis_url: str, core: Core) -> None:
    """Where the server's end is not the one that was proposed here, it is told by the history."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        core.takes_ends = False
        await core.activate("run-1", start_job("Ends", "well", headers=of(EX_1)))
        result = Payloads(payloads=payloads("better"))
        core.close("run-1", ended("completed", result=result, workflow_task_completed_event_id=99))
        await until(redis, "execution:complete")
    assert (await story(redis))[-1] == ("execution:complete", {"result": "better"})


async def test_what_is_left_running_at_the_end(redis: Redis, redis_url: str, core: Core) -> None:
    """Says nothing more, and does not undo the end."""
    counter = relay.EventRelay(lambda: Publisher(redis_url=redis_url), 1.0)
    service = Service()
    service.core = core
    async with counter.open(Client(service)):
        counter.publish(relay.RunEvent(EX_1, "workflow", 1, ExecutionComplete(result=1, duration=0), 1, RUN_1, 10))
        counter.publish(relay.RunEvent(EX_1, "workflow", 2, Status(status="late", message=""), 1, RUN_1, 10))
        await asyncio.sleep(0)
        core.close("run-1", ended("completed", workflow_task_completed_event_id=11))
    assert await story(redis) == [("execution:complete", {"result": 1})]


async def test_a_worker_that_stops_leaves_open_what_the_server_has_not_ended(
    redis: Redis, redis_url: str, core: Core
) -> None:
    """An end that the server has not taken by then is not told; the worker stops all the same."""
    async with working(RuncastPlugin(redis_url=redis_url, patience=0.1)):
        core.takes_ends = False
        await core.activate("run-1", start_job("Ends", "well", headers=of(EX_1)))
    assert await types(redis) == ["execution:started"]


async def test_continuing_as_new_is_no_end(redis: Redis, redis_url: str, core: Core) -> None:
    """The next run goes on in the same execution, whose duration counts from the first."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        [command] = await core.activate("run-1", start_job("Ends", "continue", headers=of(EX_1)))
        headers = dict(command.continue_as_new_workflow_execution.headers)
        await core.activate("run-2", start_job("Ends", "well", headers=headers))
        await until(redis, "execution:complete")
    events = await stored(redis)
    assert [event["type"] for event in events] == ["execution:started", "status", "execution:complete"]
    assert events[-1]["data"]["duration"] == 2.0


async def test_a_child_is_a_call(redis: Redis, redis_url: str, core: Core) -> None:
    """A child workflow stands in its parent's execution as a tool call, which its parent tells, and what it does under
    it, whichever of its runs does it."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        commands = await core.activate("run-1", start_job("Parent", headers=of(EX_1)))
        child = next(each for each in commands if each.HasField("start_child_workflow_execution"))
        command = child.start_child_workflow_execution
        given = {"headers": dict(command.headers), "workflow_id": "child", "parent": "wf", "first_run_id": "run-c1"}
        await core.activate("run-1", child_began(command.seq))
        [end] = await core.activate("run-c1", start_job("Ends", "continue", **given))
        given["headers"] = dict(end.continue_as_new_workflow_execution.headers)
        await core.activate("run-c2", start_job("Ends", "activity", **given, attempt=2))
        await until(redis, "status")
        await core.activate("run-1", child_ended(command.seq, "well"))
        await until(redis, "tool:complete")
    events = await stored(redis)
    call = events[1]["data"]["callId"]
    assert [(event["type"], event.get("parentId")) for event in events] == [
        ("execution:started", None),
        ("tool:start", None),
        ("status", call),
        ("tool:complete", None),
    ]
    assert events[3]["data"] == {"callId": call, "toolName": "Ends", "result": "well", "duration": 4.0}


async def test_a_child_that_ends_badly(redis: Redis, redis_url: str, core: Core) -> None:
    """However it does, its call has an error: the parent is told by the server."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        for number in (1, 2):
            commands = await core.activate(f"run-{number}", start_job("Parent", headers=of(EX_1)))
            [seq] = [
                each.start_child_workflow_execution.seq
                for each in commands
                if each.HasField("start_child_workflow_execution")
            ]
            await core.activate(f"run-{number}", child_began(seq))
            failure = Failure(message="enough")
            failure.terminated_failure_info.SetInParent()
            await core.activate(f"run-{number}", child_ended(seq, failure=failure))
        await until(redis, "tool:error", 2)
    log = await story(redis)
    calls = [data["callId"] for type_, data in log if type_ == "tool:start"]
    errors = [(data["callId"], data["error"]) for type_, data in log if type_ == "tool:error"]
    assert errors == [(call, "TerminatedError: enough") for call in calls]
    assert len(set(calls)) == 2


@pytest.mark.parametrize(
    ("how", "attributes", "end"),
    [
        ("terminated", {"reason": "enough"}, {"error": "terminated: enough", "code": "workflow_terminated"}),
        ("timed_out", {}, {"error": "the workflow was out of time", "code": "workflow_timed_out"}),
        ("completed", {"result": Payloads(payloads=payloads("well"))}, {"result": "well"}),
        ("canceled", {}, {}),
    ],
)
async def test_an_end_that_no_worker_tells(
    redis: Redis, redis_url: str, core: Core, how: str, attributes: dict[str, Any], end: dict[str, Any]
) -> None:
    """What the server ended, or a worker that died told nobody, is found by whichever worker looks, and told once. What
    goes on, has ended, or was never told of, is left as it is."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.activate("run-1", start_job("Ends", "wait", headers=of(EX_1)))
        await core.activate("run-2", start_job("Ends", "wait", headers=of(Execution("alice", "goes_on"))))
        await core.activate("run-3", start_job("Ends", "well", headers=of(Execution("alice", "over"))))
    silent = start_job("Ends", "wait", headers=of(Execution("alice", "silent")))
    core.begun["run-4"] = begin_of("run-4", silent.initialize_workflow)
    core.latest = "run-1"
    core.close("run-1", ended(how, **attributes))
    core.close("run-2", ended("timed_out", new_execution_run_id="run-5"))
    core.close("run-4", ended("terminated"))
    for _ in range(2):
        service = Service()
        service.listed = ["run-1", "run-2", "run-3", "run-4"]
        async with working(RuncastPlugin(redis_url=redis_url), service):
            await until(redis, f"execution:{END_TYPES[how]}")
    log = await story(redis)
    assert [type_ for type_, _ in log] == ["execution:started", f"execution:{END_TYPES[how]}"]
    assert log[-1][1] == end
    assert await types(redis, "goes_on") == ["execution:started"]
    assert await types(redis, "over") == ["execution:started", "execution:complete"]
    assert await types(redis, "silent") == []


END_TYPES = {"terminated": "error", "timed_out": "error", "completed": "complete", "canceled": "cancelled"}


async def test_a_workflow_that_was_started_again_has_not_ended(redis: Redis, redis_url: str, core: Core) -> None:
    """A run that was terminated to let another go on in the same execution, as a reset does, is not its end."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        await core.activate("run-1", start_job("Ends", "wait", headers=of(EX_1)))
        await core.activate("run-2", start_job("Steps", headers=of(EX_1)))
    core.close("run-1", ended("terminated"))
    service = Service()
    service.listed = ["run-1"]
    async with working(RuncastPlugin(redis_url=redis_url), service):
        async with asyncio.timeout(15):
            await service.described.wait()
        await core.activate("run-2", start_job("Steps", headers=of(EX_1)), signalled("say", "done"))
        await until(redis, "execution:complete")
    assert "execution:error" not in await types(redis)


async def test_a_childs_id_may_be_given_again(redis: Redis, redis_url: str, core: Core) -> None:
    """Of two children with one id each is a call."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        commands = await core.activate("run-1", start_job("Twice", headers=of(EX_1)))
        for _ in range(2):
            seq = commands[0].start_child_workflow_execution.seq
            await core.activate("run-1", child_began(seq))
            commands = await core.activate("run-1", child_ended(seq, "well"))
        await until(redis, "execution:complete")
    log = await story(redis)
    calls = [data["callId"] for type_, data in log if type_ == "tool:start"]
    assert [data["callId"] for type_, data in log if type_ == "tool:complete"] == calls
    assert len(set(calls)) == 2


async def test_every_run_of_a_cron_workflow_is_an_execution(redis: Redis, redis_url: str, core: Core) -> None:
    """Given an owner and no id."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        for run_id in ("run-1", "run-2"):
            await core.activate(run_id, start_job("Ends", "well", headers=of(Execution("alice")), cron="* * * * *"))
    for run_id in ("run-1", "run-2"):
        assert await types(redis, execution_id_of("wf", run_id)) == ["execution:started", "execution:complete"]


async def test_what_a_workflow_may_emit(redis: Redis, redis_url: str, core: Core) -> None:
    """What is only shown is mended, and is as it was when it was emitted; a question that nobody could answer is said
    to be dropped; the workflow is unharmed."""
    async with working(RuncastPlugin(redis_url=redis_url)):
        [command] = await core.activate("run-1", start_job("Careless", headers=of(EX_1)))
        await until(redis, "execution:complete")
    assert command.HasField("complete_workflow_execution")
    log = (await story(redis))[1:]
    assert log[0] == ("progress", {"progress": 100.0})
    assert log[1][1]["result"] == {"score": None, "tags": ["new"], "self": {"clipped": True, "reason": "cycle"}}
    assert log[2] == ("message:delta", {"messageId": "m", "delta": "half \ufffd of an emoji"})
    assert (log[3][0], log[3][1]["status"]) == ("status", "dropped")
    assert log[3][1]["message"].startswith("input:required: Invalid")
    assert log[4][1]["data"] == {"n": 1}
    assert log[5][0] == "custom:large_"
    assert log[5][1]["text"].startswith("xxx")
    assert "…" in log[5][1]["text"]
    assert log[6] == ("execution:complete", {"result": {"omitted": "7 bytes of binary/plain"}})


async def test_what_workflows_tell_is_bounded(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told faster than the event loop can queue it is dropped, but for the end."""
    monkeypatch.setattr(relay, "EVENTS_MAX", 5)
    counter = relay.EventRelay(lambda: Publisher(redis_url=redis_url), 1.0)
    events = [*[Status(status="s", message="")] * 20, ExecutionComplete(result=None, duration=0)]
    async with counter.open():
        for seq, event in enumerate(events, 1):
            counter.publish(relay.RunEvent(EX_1, "workflow", seq, event, 1, RUN_1))
    assert await types(redis) == [*["status"] * 5, "execution:complete"]
    counter.publish(relay.RunEvent(EX_1, "workflow", 99, events[0], 1, RUN_1))  # nobody is there any more


async def test_it_is_part_of_its_callers_trace(redis: Redis, redis_url: str, core: Core) -> None:
    """Every event of workflow, activities and children says where it stands; what is no traceparent is left out."""
    parent = f"00-{'a1' * 16}-{'b2' * 8}-01"
    async with working(RuncastPlugin(redis_url=redis_url)):
        for execution_id, given in (("ex_1", parent), ("ex_2", "garbage")):
            headers = of(Execution("alice", execution_id, traceparent=given))
            await core.play(f"run-{execution_id}", start_job("Research", "cats", headers=headers))
        await until(redis, "execution:complete")
    events = await stored(redis)
    assert {event.get("traceparent") for event in events} == {parent}
    assert len({event["type"] for event in events}) > 10
    assert {event.get("traceparent") for event in await stored(redis, "ex_2")} == {None}


async def test_temporals_own_spans(redis: Redis, redis_url: str, core: Core) -> None:
    """With Temporal's tracing interceptor before ours, what an activity does and says stands in the span of its
    attempt, and what the workflow does in the one that it was started in: one trace."""
    provider, spans = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer, service = provider.get_tracer("tests"), Service()
    async with working(
        RuncastPlugin(redis_url=redis_url), service, interceptors=[TracingInterceptor(tracer)]
    ) as client:
        with tracer.start_as_current_span("page"), for_execution("alice", "ex_1"):
            await client.start_workflow(agents.Research.run, "cats", id="wf", task_queue="agents")
        headers = dict(service.started[0].header.fields)
        await core.play("run-1", start_job("Research", "cats", headers=headers))
        await until(redis, "execution:complete")
    made = {span.name: span.context for span in spans.get_finished_spans() if span.context is not None}
    stands = {event["type"]: event["traceparent"].split("-")[2] for event in await stored(redis)}
    run = f"{made['RunActivity:write'].span_id:016x}"
    assert {stands[type_] for type_ in ("thinking", "message:delta", "tool:start", "tool:complete")} == {run}
    assert {stands[type_] for type_ in ("execution:started", "execution:complete")} == {f"{made['page'].span_id:016x}"}
    assert len({context.trace_id for context in made.values()}) == 1


async def test_hooks_see_it_all(redis: Redis, redis_url: str, core: Core) -> None:
    """The publisher's hooks may change or drop what workflows and activities do, but not the end."""

    def hook(event: Any, origin: Any) -> Any:
        assert (origin.user, origin.execution_id) == ("alice", "ex_1")
        if event.type in ("phase:start", "thinking", "tool:progress"):
            return None
        return replace(event, tool_name="a tool") if event.type.startswith("tool:") else event

    make = lambda: Publisher(redis_url=redis_url, hooks=[hook])  # noqa: E731
    async with working(RuncastPlugin(make_publisher=make)):
        await core.play("run-1", start_job("Research", "cats", headers=of(EX_1)))
        await until(redis, "execution:complete")
    log = await story(redis)
    assert not {"phase:start", "thinking", "tool:progress"} & {type_ for type_, _ in log}
    assert {data["toolName"] for type_, data in log if type_ in ("tool:start", "tool:complete")} == {"a tool"}


async def test_a_redis_away_never_stops_a_workflow(own_redis: EmbeddedRedis, core: Core) -> None:
    """Its tasks are answered at once, and its events come when Redis is back."""
    client = connect(own_redis.url)
    async with working(RuncastPlugin(redis_url=own_redis.url)):
        assert own_redis.process is not None
        with process_stopped(own_redis.process.pid):
            await core.activate("run-1", start_job("Steps", headers=of(EX_1)))
            await core.activate("run-1", signalled("say", "done"))
    assert await types(client) == ["execution:started", *["status"] * 3, "execution:complete"]
    await client.aclose()


async def test_the_end_waits_for_what_else_waits(own_redis: EmbeddedRedis, core: Core) -> None:
    """A workflow that ends while Redis is away: what its activities did comes into the log before its end closes it."""
    client = connect(own_redis.url)
    make = lambda: Publisher(redis_url=own_redis.url, options=Options(flush_timeout=0.1))  # noqa: E731
    async with working(RuncastPlugin(make_publisher=make, patience=0.1)):
        assert own_redis.process is not None
        with process_stopped(own_redis.process.pid):
            await core.play("run-1", start_job("Research", "cats", headers=of(EX_1)))
        async with asyncio.timeout(15):
            while await client.hget(ALICE.execution("ex_1").record, "state") != b"completed":  # type: ignore[misc]
                await asyncio.sleep(0.01)
    told = await types(client)
    await client.aclose()
    assert told.count("tool:start") == told.count("tool:complete") == 2
    assert told.count("message:complete") == 1
    assert told[-1] == "execution:complete"


# --- Temporal's own core ---------------------------------------------------------------------------------------------


def history(*words: str, is_open: bool) -> WorkflowHistory:
    """Of a `Steps` that was signalled these words, one workflow task each; an open one ends within the last task."""
    events: list[tuple[str, dict[str, Any]]] = [("WORKFLOW_EXECUTION_STARTED", STARTED)]
    for word in (None, *words):
        if word is not None:
            [said] = payloads(word)
            events.append(
                ("WORKFLOW_EXECUTION_SIGNALED", {"signalName": "say", "input": {"payloads": [dictionary(said)]}})
            )
        scheduled = len(events) + 1
        events.append(("WORKFLOW_TASK_SCHEDULED", {"taskQueue": {"name": "agents"}}))
        events.append(("WORKFLOW_TASK_STARTED", {"scheduledEventId": str(scheduled)}))
        events.append(
            ("WORKFLOW_TASK_COMPLETED", {"scheduledEventId": str(scheduled), "startedEventId": str(scheduled + 1)})
        )
    if is_open:
        events.pop()
    else:
        [result] = payloads(list(words))
        events.append(
            (
                "WORKFLOW_EXECUTION_COMPLETED",
                {"result": {"payloads": [dictionary(result)]}, "workflowTaskCompletedEventId": str(len(events))},
            )
        )
    return WorkflowHistory.from_json("wf", {"events": [_event(*each) for each in enumerate(events, 1)]})


def _event(number: int, event: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    type_, attributes = event
    first, *rest = type_.lower().split("_")
    return {
        "eventId": str(number),
        "eventTime": f"2023-11-14T22:13:{20 + number}Z",
        "eventType": f"EVENT_TYPE_{type_}",
        first + "".join(word.capitalize() for word in rest) + "EventAttributes": attributes,
    }


def dictionary(message: Any) -> dict[str, Any]:
    return MessageToDict(message)


STARTED = {
    "workflowType": {"name": "Steps"},
    "taskQueue": {"name": "agents"},
    "originalExecutionRunId": "run-1",
    "firstExecutionRunId": "run-1",
    "attempt": 1,
    "header": {"fields": {name: dictionary(payload) for name, payload in of(EX_1).items()}},
    "workflowTaskTimeout": "10s",
}


@pytest.fixture
async def replayer(redis: Redis, redis_url: str, core: Core) -> AsyncIterator[Callable[..., Any]]:
    """Replays with a plugin whose worker runs, so that whatever it tells would be published."""
    plugin = RuncastPlugin(redis_url=redis_url)
    async with working(plugin):

        async def replay(history: WorkflowHistory, **options: Any) -> Exception | None:
            options = options or {"interceptors": plugin.interceptors, "workflow_runner": plugin.workflow_runner(None)}
            replayer = Replayer(workflows=agents.WORKFLOWS, **options)
            return (await replayer.replay_workflow(history, raise_on_replay_failure=False)).replay_failure

        yield replay


async def test_temporals_replay_fits_and_is_told_nowhere(redis: Redis, replayer: Any) -> None:
    """Temporal's own core finds a workflow with the interceptors deterministic, and nothing of it is published."""
    assert await replayer(history("one", "done", is_open=False)) is None
    assert await redis.keys("rc:{*") == []


async def test_temporals_last_open_task_is_told(redis: Redis, replayer: Any) -> None:
    """What is no replay any more is published, with the numbers that it had if it was before."""
    assert await replayer(history("one", is_open=True)) is None
    await until(redis, "status", 2)
    assert await replayer(history("one", is_open=True)) is None
    assert await replayer(history("one", "two", is_open=True)) is None
    await until(redis, "status", 4)
    said = [(data["status"], data["message"]) for _, data in await story(redis)]
    assert said == [("heard", "one"), ("step", "one"), ("heard", "two"), ("step", "two")]


async def test_a_replayer_with_the_plugin_publishes_nothing(redis: Redis, redis_url: str, replayer: Any) -> None:
    """Not even of an open history: it is a test of code."""
    assert await replayer(history("one", is_open=True), plugins=[RuncastPlugin(redis_url=redis_url)]) is None
    assert await redis.keys("rc:{*") == []


async def test_a_replay_that_does_not_fit_is_found(replayer: Any) -> None:
    """The replays above do prove something: of a history that this code did not make the replayer complains."""
    assert isinstance(await replayer(history("one", is_open=False)), NondeterminismError)


# --- the plugin ------------------------------------------------------------------------------------------------------


async def test_activities_in_temporals_test_environment(redis: Redis, redis_url: str) -> None:
    """An activity's own test needs no plugin: its emitter says nothing."""
    environment = ActivityEnvironment()
    beats: list[Any] = []
    environment.on_heartbeat = lambda *details: beats.append(details)
    assert await environment.run(agents.write, "page") == "PAGE"
    assert environment.run(agents.count, 2) == 2
    assert beats == [(0,), (1,)]
    assert await redis.keys("rc:{*") == []


async def test_the_interceptors_in_temporals_test_environment(redis: Redis, redis_url: str) -> None:
    """Where a test does want the events, the interceptors work there too."""
    plugin = RuncastPlugin(redis_url=redis_url)
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, activity_type="write")
    [interceptor] = plugin.interceptors or ()

    async def through(title: str) -> Any:
        chain = interceptor.intercept_activity(Bare())  # type: ignore[union-attr]
        return await chain.execute_activity(ExecuteActivityInput(agents.write, [title], None, of(EX_1)))

    assert plugin.run_context is not None
    async with plugin.run_context():
        assert await environment.run(through, "page") == "PAGE"
    assert (await types(redis))[0] == "tool:start"
    assert (await types(redis))[-1] == "tool:complete"


class Bare(ActivityInboundInterceptor):
    """The end of a chain."""

    def __init__(self) -> None:
        pass

    async def execute_activity(self, given: ExecuteActivityInput) -> Any:
        return await given.fn(*given.args)


async def test_workers_share_one_connection(
    redis: Redis, redis_url: str, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One publisher serves all workers of a plugin; it ends with the last, and begins anew with the next."""
    made: list[Publisher] = []

    def make() -> Publisher:
        made.append(Publisher(redis_url=redis_url))
        return made[-1]

    plugin = RuncastPlugin(make_publisher=make)
    async with working(plugin):
        Core().install(monkeypatch)
        async with working(plugin):
            pass
        core.install(monkeypatch)
        await core.run(task("search", "cats", headers=of(EX_1)))
    assert len(made) == 1
    async with working(plugin):
        await core.run(task("search", "cats", headers=of(EX_1), activity_id="2"))
    assert len(made) == 2
    assert (await types(redis)).count("tool:complete") == 2


async def test_a_plugin_on_the_worker_alone(redis: Redis, redis_url: str, core: Core) -> None:
    """Publishes what has an owner, and adds its interceptor once even if the client has the plugin too."""
    plugin = RuncastPlugin(redis_url=redis_url)
    worker = Worker(Client(Service()), task_queue="agents", activities=[agents.search], plugins=[plugin])
    async with worker:
        await core.run(task("search", "cats", headers=of(EX_1)))
    assert await types(redis) == ["tool:start", "tool:progress", "tool:complete"]


def test_the_emitter_does_not_need_temporal() -> None:
    """`import emitter` loads no Temporal."""
    code = "import emitter, sys; print('temporalio' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True, cwd=ROOT)
    assert run.stdout.strip() == "False"


async def test_the_example(redis: Redis, redis_url: str) -> None:
    """`deploy/examples/temporal_worker.py` imports, and its activity runs."""
    spec = importlib.util.spec_from_file_location("temporal_worker", ROOT / "deploy/examples/temporal_worker.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    environment = ActivityEnvironment()
    pages = await environment.run(module.find_pages, "cats")
    assert pages
    assert "cats" in await environment.run(module.write_summary, "cats", pages)
