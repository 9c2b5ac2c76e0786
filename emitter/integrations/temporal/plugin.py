"""`RuncastPlugin`: the plugin for a Temporal client and its workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from temporalio.client import (
    ActivityHandle,
    OutboundInterceptor,
    StartWorkflowInput,
    StartWorkflowUpdateWithStartInput,
    WorkflowHandle,
    WorkflowUpdateHandle,
)
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.client import StartActivityInput as StartLoneActivityInput
from temporalio.plugin import SimplePlugin
from temporalio.worker import (
    ActivityInboundInterceptor,
    ReplayerConfig,
    Worker,
    WorkflowInterceptorClassInput,
    WorkflowRunner,
)
from temporalio.worker import Interceptor as WorkerInterceptor
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from emitter.integrations.temporal.activities import ActivityInbound
from emitter.integrations.temporal.close_poller import ClosePoller
from emitter.integrations.temporal.execution import ExecutionOf, Rules, carried_or, starting, with_header
from emitter.integrations.temporal.relay import EventRelay
from emitter.integrations.temporal.workflows import EXTERN, WorkflowInbound
from emitter.publishing.outbox import PublisherOptions
from emitter.publishing.publisher import Publisher
from emitter.wire.keys import Owner

PATIENCE_SECONDS = 2.0


class RuncastPlugin(SimplePlugin):
    """Publishes what workflows and activities do into executions.

    `Client.connect(…, plugins=[RuncastPlugin()])` serves the client and the workers made from it. A worker with a
    plugin of its own publishes too, but then its client sends no headers.

    Args:
        redis_url: by default `RUNCAST_REDIS_URL`.
        default_owner: the owner of workflows and activities without a header. None: they are not published.
        execution_of: decides instead, from Temporal's info and the header (`ExecutionOf`).
        values: whether arguments and results are published. They are then stored without Temporal's payload codec,
            which may encrypt them.
        patience: seconds that an activity may wait for Redis, once for its start and once for its end.
        cancels: whether a cancel of the execution at an edge cancels its workflow, at the next event of the workflow or
            its activities.
        make_publisher: makes the publisher, instead of `redis_url` and the queue limits of `patience`.
    """

    def __init__(
        self,
        *,
        redis_url: str | None = None,
        default_owner: Owner | None = None,
        execution_of: ExecutionOf | None = None,
        values: bool = True,
        patience: float = PATIENCE_SECONDS,
        cancels: bool = True,
        make_publisher: Callable[[], Publisher] | None = None,
    ) -> None:
        make = make_publisher or (lambda: _publisher(redis_url, patience))
        self._relay = relay = EventRelay(make, patience, values=values, cancels=cancels)
        self._rules = rules = Rules(execution_of or carried_or(default_owner), values)
        super().__init__(
            "runcast.temporal",
            interceptors=[RuncastInterceptor(relay, rules)],
            workflow_runner=_with_emitter,
            run_context=relay.open,
        )

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:  # noqa: A002 - theirs
        poller = ClosePoller(worker.client, worker.task_queue, self._relay, self._rules)
        async with self._relay.open(worker.client), poller.running():
            await next(worker)

    def configure_replayer(self, config: ReplayerConfig) -> ReplayerConfig:
        """A replayer checks code against a history and publishes nothing, not even for the last task of an open
        history, which Temporal does not count as a replay."""
        config = super().configure_replayer(config)
        given = config.get("interceptors", [])
        config["interceptors"] = [each.muted() if isinstance(each, RuncastInterceptor) else each for each in given]
        return config


def _publisher(redis_url: str | None, patience: float) -> Publisher:
    """A publisher whose waits are short and whose queues are small, for the time while Redis is away."""
    return Publisher(
        redis_url=redis_url,
        options=PublisherOptions(
            max_queue_events=2_000,
            max_queue_bytes=1024 * 1024,
            overflow="drop_deltas",
            overflow_timeout=patience,
            flush_timeout=patience,
        ),
    )


def _with_emitter(runner: WorkflowRunner | None) -> WorkflowRunner:
    """Let the sandbox share these packages between workflows: they have no state that changes."""
    runner = runner or SandboxedWorkflowRunner()
    if not isinstance(runner, SandboxedWorkflowRunner):
        return runner
    return dataclasses.replace(runner, restrictions=runner.restrictions.with_passthrough_modules("emitter", "runcast"))


class RuncastInterceptor(ClientInterceptor, WorkerInterceptor):
    def __init__(self, relay: EventRelay, rules: Rules) -> None:
        self._relay = relay
        self._rules = rules

    def muted(self) -> RuncastInterceptor:
        """The same with a relay that never opens."""
        return RuncastInterceptor(EventRelay(Publisher, 0.0), self._rules)

    def intercept_client(self, next_: OutboundInterceptor) -> OutboundInterceptor:
        return ClientOutbound(next_)

    def intercept_activity(self, next_: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return ActivityInbound(next_, self._relay, self._rules)

    def workflow_interceptor_class(self, given: WorkflowInterceptorClassInput) -> type[WorkflowInbound]:
        given.unsafe_extern_functions[EXTERN] = self._relay.publish

        class Inbound(WorkflowInbound):
            rules = self._rules

        return Inbound


class ClientOutbound(OutboundInterceptor):
    """Adds the execution of the surrounding `for_execution` block to the headers of a start."""

    async def start_workflow(self, given: StartWorkflowInput) -> WorkflowHandle[Any, Any]:
        given.headers = with_header(given.headers, starting())
        return await super().start_workflow(given)

    async def start_update_with_start_workflow(
        self,
        given: StartWorkflowUpdateWithStartInput,
    ) -> WorkflowUpdateHandle[Any]:
        start = given.start_workflow_input
        start.headers = with_header(start.headers, starting())
        return await super().start_update_with_start_workflow(given)

    async def start_activity(self, given: StartLoneActivityInput) -> ActivityHandle[Any]:
        given.headers = with_header(given.headers, starting())
        return await super().start_activity(given)
