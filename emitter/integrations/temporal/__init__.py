"""Temporal: a plugin that publishes what workflows and activities do into executions (`runcast[temporal]`).

    from emitter.integrations.temporal import RuncastPlugin, activity_emitter, for_execution, workflow_emitter

    client = await Client.connect("localhost:7233", plugins=[RuncastPlugin()])
    with for_execution("alice", "ex_1", task="Create landing page"):
        await client.start_workflow(LandingPage.run, brief, id="landing-1", task_queue="agents")

Workers made from that client publish `execution:started`, one `tool:start` … `tool:complete` or `tool:error` per
attempt of an activity, heartbeats as `tool:progress`, and the workflow's one end. The code of an `async def` activity
has `activity_emitter()`, of a `def` activity in a thread `sync_activity_emitter()`, of a workflow `workflow_emitter()`.
A workflow's file may import them as anything else: the plugin lets the sandbox pass this package through.

**Whose.** A header carries owner and execution id from `for_execution` to the workflow, its activities, its children
and what it continues as. Without one, `default_owner` or `execution_of` decide; without an owner nothing is published,
and everything runs as without the plugin.

**Workflows.** Continuing as new goes on in the same execution. A workflow that Temporal retries, or that is reset to
its beginning, supersedes what it did before. A child is a tool call in its parent's execution, told by its parent, and
what it does stands under that call (`parentId`), unless `execution_of` gives it an execution of its own. Each run of a
cron workflow is an execution, so it is given an owner and no id. A schedule sends no header.

**Ends.** An execution ends as the server's history says, once it says so: not when a worker comes to an end that the
server refuses or tries again. Ends that no worker can tell (terminated, out of time; of a worker that died between the
end and the log) are found by those that run on the task queue, which ask the server twice a minute what has closed.

**Cancelling** an execution at an edge closes its log and, unless the plugin is told `cancels=False`, cancels the
workflow: when it, or an activity of it, next says something or heartbeats, or at once if it waits for an answer.

**Traces.** Events carry the `traceparent` that `for_execution` was given, or that of OpenTelemetry's current span; what
an activity does has that of its attempt, if Temporal's `TracingInterceptor` comes before this plugin:
`Client.connect(…, interceptors=[TracingInterceptor()], plugins=[RuncastPlugin()])`.

**Exactly once, and in which order.** A log takes each sequence of a producer once.

- Activity: the producer is made of workflow run, activity id and time of scheduling, the sequence of attempt and phase.
  So an attempt that runs twice is told once, an attempt that was lost is closed by the next, and what an attempt that
  was given up says of its end is ignored. Its end is in the log before Temporal has the result, so before whatever
  follows from it.
- Workflow: the producer is made of the run id, and events are numbered by a counter that runs at replays too, at which
  nothing is published. So what is executed again after a crash or an eviction has the same numbers.
- Between the events of a workflow and those of its activities the order is that of their arrival; so after a Redis
  that was away for longer than `patience` it may be another. The end waits for what its worker still holds.

**What can be lost or told wrongly.**

- What a worker had not written when it died: of a workflow's events the milliseconds of a round trip. While Redis is
  away a worker holds what is told, within bounds, and logs what it drops; an activity waits for about `patience`, and
  its outcome never depends on it.
- A workflow task that fails and is executed again with other news (a signal that came meanwhile) keeps what it told the
  first time, but for its end.
- What a workflow did after the point that it is reset to stands beside what it does then, unless that is its beginning.
- The end of a run of a cron workflow that is out of time, of a child whose parent's run has ended before it, and of a
  workflow that ended, or whose last worker died, more than an hour before another worker comes.
- What an activity says through its emitter is told as often as it says it: an attempt that runs twice (only local
  activities do) says it twice. Heartbeats are merged, four a second at most; local activities have none.
- An execution takes some 4,000 producers: one per activity, per attempt that speaks or heartbeats, and per run.
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
