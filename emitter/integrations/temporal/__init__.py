"""Temporal: a plugin that publishes what workflows and activities do into executions (`runcast[temporal]`).

    from emitter.integrations.temporal import RuncastPlugin, activity_emitter, for_execution, workflow_emitter

    client = await Client.connect("localhost:7233", plugins=[RuncastPlugin()])
    with for_execution("alice", "ex_1", task="Create landing page"):
        await client.start_workflow(LandingPage.run, brief, id="landing-1", task_queue="agents")

Workers made from that client publish `execution:started`, one `tool:start` … `tool:complete` or `tool:error` per
attempt of an activity, heartbeats as `tool:progress`, and the workflow's one end. The code of an `async def` activity
has `activity_emitter()`, of a `def` activity in a thread `sync_activity_emitter()`, of a workflow `workflow_emitter()`.
A workflow's file may import them as anything else: the plugin lets the sandbox pass this package through.

**Owner.** A header carries owner and execution id from `for_execution` to the workflow, its activities, its children
and what it continues as. Without one, `default_owner` or `execution_of` decide; without an owner nothing is published,
and everything runs as without the plugin.

**Workflows.** A workflow that continues as new stays in the same execution. A workflow that Temporal retries, or that
is reset to its beginning, supersedes its earlier events. A child is a tool call in its parent's execution; the parent
publishes the call, and the child's events are under it (`parentId`), unless `execution_of` gives the child an execution
of its own. Each run of a cron workflow is an execution, so it has an owner and no given id. A schedule sends no header.

**Ends.** An execution ends when the server's history has the end of its workflow, and not when a worker proposes an end
that the server refuses or retries. Some ends no worker can report: terminations, timeouts, and those of a worker that
died between the end and the log. The workers of the task queue find them by a query to the server twice a minute.

**Cancelling** an execution at an edge closes its log and, unless the plugin has `cancels=False`, cancels the workflow:
when the workflow or one of its activities next publishes or heartbeats, or at once if it waits for an answer.

**Traces.** Events carry the `traceparent` given to `for_execution`, or that of OpenTelemetry's current span. Events of
an activity carry that of its attempt, if Temporal's `TracingInterceptor` comes before this plugin: `Client.connect(…,
interceptors=[TracingInterceptor()], plugins=[RuncastPlugin()])`.

**Exactly once, and in which order.** A log takes each sequence of a producer once.

- Activity: the producer is made of workflow run, activity id and time of scheduling, the sequence of attempt and phase.
  So an attempt that runs twice is in the log once, a lost attempt is closed by the next one, and the late end of an
  abandoned attempt is ignored. The end is in the log before Temporal has the result, so before any event that follows.
- Workflow: the producer is made of the run id, and events are numbered by a counter that runs at replays too, at which
  nothing is published. So what is executed again after a crash or an eviction has the same numbers.
- Events of a workflow and of its activities are in the order of their arrival, which may differ after Redis was away
  for longer than `patience`. The end waits for the other events of its worker.

**What can be lost or wrong.**

- Events that a worker had not written when it died; of a workflow's events those of about one round trip. While Redis
  is away a worker holds events, within bounds, and logs what it drops; an activity waits for about `patience`, and its
  outcome never depends on Redis.
- A workflow task that fails and is executed again with other input (a signal that came meanwhile) keeps the events of
  its first execution, except its end.
- After a reset the events behind the reset point remain beside the new ones, unless it is a reset to the beginning.
- The end of a run of a cron workflow that timed out, of a child whose parent's run ended before it, and of a workflow
  that ended, or whose last worker died, more than an hour before another worker starts.
- Events that an activity emits itself are not deduplicated: an attempt that runs twice (only local activities do) emits
  them twice. Heartbeats are merged, four a second at most; local activities have none.
- An execution has room for some 4,000 producers: one per activity, per attempt that emits or heartbeats, and per run.
"""

from emitter.integrations.temporal.activity_emitters import activity_emitter, sync_activity_emitter
from emitter.integrations.temporal.execution import Execution, ExecutionOf, execution_id_of, for_execution
from emitter.integrations.temporal.plugin import RuncastPlugin
from emitter.integrations.temporal.workflows import WorkflowEmitter, workflow_emitter

__all__ = [
    "Execution",
    "ExecutionOf",
    "RuncastPlugin",
    "WorkflowEmitter",
    "activity_emitter",
    "execution_id_of",
    "for_execution",
    "sync_activity_emitter",
    "workflow_emitter",
]
