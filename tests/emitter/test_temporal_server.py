"""The integration with a real Temporal server: what a viewer sees at an edge is what the server has done, each thing
once, in order, with one end.

Collected only where `temporal` is in PATH, or the environment variable `RUNCAST_TEMPORAL` names it; so `tests/run` goes
without. It is one program, which Go builds in about five minutes:

    go install github.com/temporalio/cli/cmd/temporal@latest
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from redis.asyncio import Redis
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, Interceptor, WithStartWorkflowOperation, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy, WorkflowIDConflictPolicy
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.exceptions import CancelledError as TemporalCancelled
from temporalio.worker import Replayer, Worker

from broker.cli.embedded import EmbeddedRedis
from emitter.events import TERMINAL_STATE_OF
from emitter.integrations.temporal import RuncastPlugin, close_poller, execution_id_of, for_execution
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from tests.edges import ROOT, EdgeProcess, Follower, Received, assert_dense, call, read_log, stream_path, token_for
from tests.emitter import temporal_agents as agents
from tests.emitter import temporal_stories as stories
from tests.emitter.temporal_server import temporal_server
from tests.faults.outages import redis_stopped

pytestmark = pytest.mark.usefixtures("garbage_kept")

USER = "alice"
OWNER = Owner(USER)
TOKEN = token_for(USER)
Story = list[tuple[str, dict[str, Any]]]
"""Types and data of events."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with temporal_server() as found:
        yield found


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    """A task queue that no other test has; the executions of a test begin with it, or are it."""
    return re.sub("[^a-z0-9_]+", "-", request.node.name.lower()).strip("-")[:40]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers look for ends that nobody tells several times a second."""
    monkeypatch.setattr(close_poller, "POLL_SECONDS", 0.3)
    monkeypatch.setattr(close_poller, "SETTLE_SECONDS", 0.1)


@contextlib.asynccontextmanager
async def working(
    address: str, plugin: RuncastPlugin, queue: str, *, interceptors: Sequence[Interceptor] = (), **options: Any
) -> AsyncIterator[Client]:
    """A worker that runs, and the client it was made from."""
    client = await Client.connect(address, plugins=[plugin], interceptors=interceptors)
    with ThreadPoolExecutor(4) as threads:
        worker = Worker(
            client,
            task_queue=queue,
            workflows=stories.WORKFLOWS,
            activities=stories.ACTIVITIES,
            activity_executor=threads,
            **options,
        )
        async with worker:
            yield client


async def begin(client: Client, execution: str, workflow: Any, *args: Any, queue: str, **options: Any) -> Any:
    with for_execution(USER, execution):
        return await client.start_workflow(workflow, args=args, id=execution, task_queue=queue, **options)


class Viewer:
    """Somebody who watches an execution at all edges in turn."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    async def sees(self, type_: str, count: int = 1) -> dict[str, Any]:
        """The data of the `count`-th event of a type, once it is there."""
        found: list[Received] = []

        def is_there(follower: Follower) -> bool:
            found[:] = [event for event in follower.events if event.type == type_]
            return len(found) >= count

        await self._follower.until(f"{count} of {type_}", is_there, 20)
        data: dict[str, Any] = json.loads(found[count - 1].data)["data"]
        return data

    async def story(self) -> Story:
        """All of it, once it has come to its end: no gap, one end, nothing after it."""
        await self._follower.until_done(30)
        return story_of(self._follower.events)


def story_of(events: list[Received]) -> Story:
    assert_dense(events)
    ends = [event.type in TERMINAL_STATE_OF for event in events]
    assert ends == [False] * (len(events) - 1) + [True], "one end, and it is the last"
    return [(event.type, json.loads(event.data)["data"]) for event in events]


@contextlib.asynccontextmanager
async def watching(edges: list[EdgeProcess], execution: str) -> AsyncIterator[Viewer]:
    async with Follower(edges, stream_path(execution), TOKEN) as follower:
        yield Viewer(follower)


def calls(story: Story) -> list[tuple[str, str, str]]:
    """How each call came to its end: id, name, and type of the event; every call has one beginning and one end."""
    began = [data["callId"] for type_, data in story if type_ == "tool:start"]
    ends = [
        (data["callId"], data["toolName"], type_) for type_, data in story if type_ in ("tool:complete", "tool:error")
    ]
    assert sorted(began) == sorted(call_id for call_id, _, _ in ends)
    assert len(set(began)) == len(began)
    return ends


def types(story: Story) -> list[str]:
    return [type_ for type_, _ in story]


def said(story: Story) -> list[tuple[str, str]]:
    return [(data["status"], data["message"]) for type_, data in story if type_ == "status"]


async def replayed(handle: WorkflowHandle[Any, Any], plugin: RuncastPlugin) -> None:
    """Temporal's own check of the history that the server has: raises if the interceptors do not do the same again."""
    history = await handle.fetch_history()
    await Replayer(workflows=stories.WORKFLOWS, plugins=[plugin]).replay_workflow(history)
    bare = {"interceptors": plugin.interceptors, "workflow_runner": plugin.workflow_runner(None)}  # type: ignore[operator,misc]
    await Replayer(workflows=stories.WORKFLOWS, **bare).replay_workflow(history)  # type: ignore[arg-type]


# --- what goes well --------------------------------------------------------------------------------------------------


async def test_a_workflow_as_a_viewer_sees_it(
    address: str, queue: str, redis_url: str, redis: Redis, two_edges: list[EdgeProcess]
) -> None:
    """From the client's call to the end: calls, text, progress and phases, in the order in which they happen. A replay
    of the server's own history fits, and tells nothing."""
    plugin = RuncastPlugin(redis_url=redis_url)
    async with working(address, plugin, queue) as client, watching(two_edges, queue) as viewer:
        handle = await begin(client, queue, agents.Research.run, "cats", queue=queue)
        result = await handle.result()
        story = await viewer.story()
        await replayed(handle, plugin)
    assert types(story) == [
        "execution:started", "plan:created",
        "phase:start", "tool:start", "tool:progress", "tool:complete", "phase:complete", "progress",
        "phase:start", "tool:start", "thinking", "message:delta", "message:complete", "tool:complete", "phase:complete",
        "execution:complete",
    ]  # fmt: skip
    assert story[-1][1]["result"] == result == {"title": "CATS", "found": 3}
    assert [name for _, name, _ in calls(story)] == ["search", "write"]
    assert len(await read_log(redis, OWNER.execution(queue).log)) == len(story)


@pytest.mark.parametrize("cached", [0, 1000])
async def test_signals_and_updates(
    address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess], cached: int
) -> None:
    """What handlers say is said once, also where each task replays all of those before it: by one worker of two."""
    plugins = [RuncastPlugin(redis_url=redis_url) for _ in range(2)]
    options: dict[str, Any] = {"max_cached_workflows": cached}
    async with (
        working(address, plugins[0], queue, **options) as client,
        working(address, plugins[1], queue, **options),
        watching(two_edges, queue) as viewer,
    ):
        with for_execution(USER, queue):
            start = WithStartWorkflowOperation(
                agents.Steps.run, id=queue, task_queue=queue, id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING
            )
            await client.execute_update_with_start_workflow(agents.Steps.add, "one", start_workflow_operation=start)
        handle = client.get_workflow_handle_for(agents.Steps.run, queue)
        await handle.signal(agents.Steps.say, "two")
        await viewer.sees("status", 5)
        await handle.execute_update(agents.Steps.add, "done")
        assert await handle.result() == ["one", "two", "done"]
        story = await viewer.story()
        await replayed(handle, plugins[0])
    assert sorted(said(story)) == sorted(
        [("begun", ""), *((what, word) for word in ("one", "two", "done") for what in ("heard", "step"))]
    )
    assert types(story)[0] == "execution:started"


async def test_a_person_decides(address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess]) -> None:
    """A question reaches a viewer, an answer given at an edge the workflow."""
    async with (
        working(address, RuncastPlugin(redis_url=redis_url), queue) as client,
        watching(two_edges, queue) as viewer,
    ):
        handle = await begin(client, queue, stories.Asks.run, queue=queue)
        input_id = (await viewer.sees("input:required"))["inputId"]
        answer = {"inputId": input_id, "value": True}
        answered = await call(two_edges[1].port, "POST", f"/api/agent/executions/{queue}/input", TOKEN, answer)
        assert answered.status == 202
        assert await handle.result() == "published"
        story = await viewer.story()
    assert types(story) == [
        "execution:started", "tool:start", "input:required", "input:received", "tool:complete", "execution:complete",
    ]  # fmt: skip


async def test_many_workflows_and_two_workers(
    address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess]
) -> None:
    """Whichever worker does what, each execution has its story."""
    one, other = RuncastPlugin(redis_url=redis_url), RuncastPlugin(redis_url=redis_url)
    names = [f"{queue}-{number}" for number in range(6)]
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(working(address, one, queue, max_cached_workflows=2))
        await stack.enter_async_context(working(address, other, queue, max_cached_workflows=2))
        viewers = [await stack.enter_async_context(watching(two_edges, name)) for name in names]
        await asyncio.gather(*(begin(client, name, agents.Research.run, "cats", queue=queue) for name in names))
        told = await asyncio.gather(*(viewer.story() for viewer in viewers))
    assert {len(story) for story in told} == {16}
    assert all([name for _, name, _ in calls(story)] == ["search", "write"] for story in told)


async def test_one_trace(address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess]) -> None:
    """With Temporal's tracing interceptor all that a viewer sees is in the trace of whoever started the workflow."""
    tracer = TracerProvider().get_tracer("tests")
    plugin, theirs = RuncastPlugin(redis_url=redis_url), [TracingInterceptor(tracer)]
    async with (
        working(address, plugin, queue, interceptors=theirs) as client,
        Follower(two_edges, stream_path(queue), TOKEN) as follower,
    ):
        with tracer.start_as_current_span("page") as page:
            await begin(client, queue, agents.Research.run, "cats", queue=queue)
        await follower.until_done(30)
    parents = [json.loads(event.data)["traceparent"].split("-") for event in follower.events]
    assert {trace_id for _, trace_id, _, _ in parents} == {f"{page.get_span_context().trace_id:032x}"}
    assert len({span_id for _, _, span_id, _ in parents}) == 3, "of the page and of two activities"


# --- ends ------------------------------------------------------------------------------------------------------------


async def test_every_end(address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess]) -> None:
    """However a workflow ends, and whoever ends it, its execution has that end, once; what is tried again or goes on is
    one execution."""
    second, soon = timedelta(seconds=1), RetryPolicy(initial_interval=timedelta(milliseconds=10))
    again = RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_attempts=2)
    late = RetryPolicy(initial_interval=timedelta(seconds=20))
    given: dict[str, tuple[Any, list[str], dict[str, Any]]] = {
        "fails": (agents.Ends.run, ["fail"], {}),
        "terminated": (agents.Ends.run, ["wait"], {}),
        "cancelled": (agents.Ends.run, ["wait"], {}),
        "out_of_time": (agents.Ends.run, ["wait"], {"execution_timeout": second}),
        "out_of_time_twice": (agents.Ends.run, ["wait"], {"run_timeout": second, "retry_policy": again}),
        "not_tried_again": (stories.Retried.run, [], {"execution_timeout": 3 * second, "retry_policy": late}),
        "tried_again": (stories.Retried.run, [], {"retry_policy": soon}),
        "continued": (agents.Ends.run, ["continue"], {}),
    }
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(working(address, RuncastPlugin(redis_url=redis_url), queue))
        viewers = {name: await stack.enter_async_context(watching(two_edges, f"{queue}-{name}")) for name in given}
        handles = {
            name: await begin(client, f"{queue}-{name}", workflow, *args, queue=queue, **options)
            for name, (workflow, args, options) in given.items()
        }
        for name in ("terminated", "cancelled"):
            await viewers[name].sees("execution:started")
        await handles["terminated"].terminate(reason="enough")
        await handles["cancelled"].cancel(reason="too late")
        told = dict(zip(given, await asyncio.gather(*(viewer.story() for viewer in viewers.values())), strict=True))
    error, failed = "execution:error", {"code": "workflow_failed"}
    timed_out = {"error": "the workflow was out of time", "code": "workflow_timed_out"}
    assert told["fails"][1:] == [(error, {"error": "OutOfPages: no more pages", **failed})]
    assert told["terminated"][1:] == [(error, {"error": "terminated: enough", "code": "workflow_terminated"})]
    assert told["cancelled"][1:] == [("execution:cancelled", {"reason": "too late"})]
    assert told["out_of_time"][1:] == [(error, timed_out)]
    assert types(told["out_of_time_twice"]) == [
        "execution:started", "execution:superseded", "execution:started", error,
    ]  # fmt: skip
    assert told["not_tried_again"][1:] == [(error, {"error": "Again: once more", **failed})]
    kept = [type_ for type_ in types(told["tried_again"]) if type_ != "status"]  # the next attempt may be faster
    assert kept == [
        *["execution:started", "execution:superseded"] * 2, "execution:started", "execution:complete",
    ]  # fmt: skip
    assert types(told["continued"]) == ["execution:started", "status", "execution:complete"]


async def test_an_end_that_the_server_refuses(
    address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess]
) -> None:
    """A signal that comes while a workflow comes to its end keeps it from ending so: the end that is told is the one
    that stands."""
    async with (
        working(address, RuncastPlugin(redis_url=redis_url), queue) as client,
        watching(two_edges, queue) as viewer,
    ):
        handle = await begin(client, queue, stories.Race.run, queue=queue)
        await viewer.sees("execution:started")
        await handle.signal(stories.Race.say, "one")
        await asyncio.sleep(0.25)  # it is busy with that for half a second
        await handle.signal(stories.Race.say, "two")
        assert await handle.result() == ["one", "two"]
        story = await viewer.story()
    assert [(type_, data.get("result")) for type_, data in story] == [
        ("execution:started", None),
        ("execution:complete", ["one", "two"]),
    ]


async def test_children(address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess]) -> None:
    """Each is a call in its parent's execution with the end that the child had, terminated ones too."""
    ends = {"well": "tool:complete", "continue": "tool:complete", "for good": "tool:error", "wait": "tool:error"}
    told: dict[str, Story] = {}
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(working(address, RuncastPlugin(redis_url=redis_url), queue))
        for how in ends:
            execution = f"{queue}-{how.replace(' ', '_')}"
            viewer = await stack.enter_async_context(watching(two_edges, execution))
            handle = await begin(client, execution, stories.Family.run, how, queue=queue)
            if how == "wait":
                await until_started(client, f"{handle.id}-child")
                await client.get_workflow_handle(f"{handle.id}-child").terminate()
            told[how] = await viewer.story()
    assert {how: [end for _, _, end in calls(story)] for how, story in told.items()} == {
        how: [end] for how, end in ends.items()
    }
    assert told["wait"][-1][1]["result"] == "TerminatedError"
    assert types(told["continue"]) == [
        "execution:started", "tool:start", "status", "tool:complete", "execution:complete",
    ]  # fmt: skip


async def until_started(client: Client, workflow_id: str) -> None:
    """Wait until the server has a workflow, and a worker has executed its first task."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(Exception):
                if (await client.get_workflow_handle(workflow_id).describe()).history_length >= 4:
                    return
            await asyncio.sleep(0.05)


async def test_a_reset(address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess]) -> None:
    """A workflow that is set back to its beginning goes on in its execution, and what came before is void; the end of
    the run that it was is not the execution's."""
    async with (
        working(address, RuncastPlugin(redis_url=redis_url), queue) as client,
        watching(two_edges, queue) as viewer,
    ):
        handle = await begin(client, queue, agents.Steps.run, queue=queue)
        await viewer.sees("status")
        await client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace="default",
                workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=handle.first_execution_run_id or ""),
                workflow_task_finish_event_id=4,
                request_id="once",
            )
        )
        await viewer.sees("execution:superseded")
        await viewer.sees("status", 2)
        await asyncio.sleep(1)  # three rounds, in which nothing is to be found
        await client.get_workflow_handle_for(agents.Steps.run, handle.id).signal(agents.Steps.say, "done")
        story = await viewer.story()
    started = ["execution:started", "status"]
    assert types(story) == [*started, "execution:superseded", *started, "status", "status", "execution:complete"]


async def test_a_cron_workflow(address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess]) -> None:
    """Each of its runs is an execution with an end."""
    async with working(address, RuncastPlugin(redis_url=redis_url), queue) as client:
        with for_execution(USER):
            first = await client.start_workflow(
                agents.Ends.run, "well", id="cron", task_queue=queue, cron_schedule="@every 1s"
            )
        async with watching(two_edges, execution_id_of("cron", first.first_execution_run_id or "")) as viewer:
            assert types(await viewer.story()) == ["execution:started", "execution:complete"]
        await client.get_workflow_handle("cron").terminate()


# --- cancelled -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", [stories.Slow, stories.Asks])
async def test_cancelled_at_an_edge(
    address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess], workflow: Any
) -> None:
    """The log is closed at once, and the workflow is cancelled, while its activity heartbeats or waits for a person."""
    async with (
        working(address, RuncastPlugin(redis_url=redis_url), queue) as client,
        watching(two_edges, queue) as viewer,
    ):
        handle = await begin(client, queue, workflow.run, queue=queue)
        await viewer.sees("thinking" if workflow is stories.Slow else "input:required")
        path = f"/api/agent/executions/{queue}/cancel"
        assert (await call(two_edges[0].port, "POST", path, TOKEN, {"reason": "no"})).status == 202
        with pytest.raises(WorkflowFailureError) as failed:
            await asyncio.wait_for(handle.result(), 20)
        story = await viewer.story()
    assert isinstance(failed.value.cause, TemporalCancelled)
    assert story[-1] == ("execution:cancelled", {"reason": "no", "by": USER})


async def test_cancelled_at_temporal(address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess]) -> None:
    """The activity hears of it, and the execution is cancelled."""
    async with (
        working(address, RuncastPlugin(redis_url=redis_url), queue) as client,
        watching(two_edges, queue) as viewer,
    ):
        handle = await begin(client, queue, stories.Slow.run, queue=queue)
        await viewer.sees("thinking")
        await handle.cancel(reason="no")
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        story = await viewer.story()
    assert story[-1] == ("execution:cancelled", {"reason": "no"})


# --- attempts, workers, Redis ----------------------------------------------------------------------------------------


async def test_an_activity_that_fails_twice(
    address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess]
) -> None:
    """Each attempt is a call with its own end."""
    async with (
        working(address, RuncastPlugin(redis_url=redis_url), queue) as client,
        watching(two_edges, queue) as viewer,
    ):
        await begin(client, queue, stories.Flaky.run, queue=queue)
        story = await viewer.story()
    assert [end for _, _, end in calls(story)] == ["tool:error", "tool:error", "tool:complete"]
    assert types(story)[1:7] == ["tool:start", "tool:error"] * 2 + ["tool:start", "tool:complete"]


@contextlib.contextmanager
def program(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_a_worker_that_is_killed(address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess]) -> None:
    """The attempt that it had is closed by the next one, on another worker, once its heartbeats are missed."""
    command = ("-m", "tests.emitter.temporal_stories", address, queue)
    client = await Client.connect(address, plugins=[RuncastPlugin(redis_url=redis_url)])
    async with watching(two_edges, queue) as viewer:
        with program(*command, RUNCAST_REDIS_URL=redis_url) as worker:
            handle = await begin(client, queue, stories.Slow.run, queue=queue)
            await viewer.sees("tool:progress", 2)
            worker.kill()
            worker.wait()
        async with working(address, RuncastPlugin(redis_url=redis_url), queue):
            assert await handle.result() == 2
            story = await viewer.story()
    assert [end for _, _, end in calls(story)] == ["tool:error", "tool:complete"]
    assert "lost" in next(data["error"] for type_, data in story if type_ == "tool:error")
    thoughts = [data["thought"] for type_, data in story if type_ == "thinking"]
    assert thoughts == ["attempt 1", "attempt 2"]


async def test_a_worker_that_is_stopped(address: str, queue: str, redis_url: str, two_edges: list[EdgeProcess]) -> None:
    """It cancels what it has not finished within its grace, and says so; another worker goes on."""
    grace = {"graceful_shutdown_timeout": timedelta(milliseconds=100)}
    async with watching(two_edges, queue) as viewer:
        async with working(address, RuncastPlugin(redis_url=redis_url), queue, **grace) as client:
            handle = await begin(client, queue, stories.Slow.run, queue=queue)
            await viewer.sees("tool:progress")
        assert (await viewer.sees("tool:error"))["error"] == "cancelled: worker shutdown"
        async with working(address, RuncastPlugin(redis_url=redis_url), queue):
            assert await handle.result() == 2
            story = await viewer.story()
    assert [end for _, _, end in calls(story)] == ["tool:error", "tool:complete"]


async def test_redis_away_for_a_while(address: str, queue: str, own_redis: EmbeddedRedis) -> None:
    """Workflows go on and come to their ends meanwhile; afterwards each thing is in the log once, before the end."""
    plugin = RuncastPlugin(redis_url=own_redis.url, patience=0.5)
    names = [f"{queue}-{number}" for number in range(3)]
    async with working(address, plugin, queue) as client, connect(own_redis.url) as redis:
        running = await begin(client, f"{queue}-running", stories.Asks.run, queue=queue)
        await until_started(client, running.id)
        with redis_stopped(own_redis):
            handles = [await begin(client, name, agents.Research.run, "cats", queue=queue) for name in names]
            for handle in handles:
                assert (await handle.result())["title"] == "CATS"
        for name in names:
            async with asyncio.timeout(20):
                while (await redis.hget(OWNER.execution(name).record, "state")) != b"completed":  # type: ignore[misc]
                    await asyncio.sleep(0.05)
            story = story_of(await read_log(redis, OWNER.execution(name).log))
            assert sorted(name for _, name, _ in calls(story)) == ["search", "write"]
            assert len(story) == 16
        await running.terminate()


# --- the example -----------------------------------------------------------------------------------------------------


async def test_the_example(address: str, redis_url: str, two_edges: list[EdgeProcess]) -> None:
    """`deploy/examples/temporal_worker.py` does with a real server what its first lines say."""
    environ: Mapping[str, str] = {"RUNCAST_REDIS_URL": redis_url, "TEMPORAL_ADDRESS": address}
    example = str(ROOT / "deploy/examples/temporal_worker.py")
    with program(example, "worker", **environ) as worker:
        with program(example, "start", USER, "solar sails", **environ) as starter:
            printed, _ = await asyncio.to_thread(starter.communicate, timeout=30)
        async with watching(two_edges, printed.decode().strip()) as viewer:
            story = await viewer.story()
        worker.send_signal(signal.SIGINT)
        await asyncio.to_thread(worker.wait, 30)
    assert story[0][1]["task"] == "Summarise solar sails"
    assert [name for _, name, _ in calls(story)] == ["find_pages", "write_summary"]
    text = "".join(data["delta"] for type_, data in story if type_ == "message:delta")
    assert text.strip() == story[-1][1]["result"]
