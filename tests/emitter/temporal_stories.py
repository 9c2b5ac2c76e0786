"""Workflows and activities that only a real server brings to their ends. The sandbox imports this file anew for every
run. As a program it is a worker: `python -m tests.emitter.temporal_stories ADDRESS TASK_QUEUE`."""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, ChildWorkflowError
from temporalio.worker import Worker

from emitter.integrations.temporal import RuncastPlugin, activity_emitter
from tests.emitter import temporal_agents as agents

SOON = RetryPolicy(initial_interval=timedelta(milliseconds=20))


@activity.defn
async def flaky(succeeds_at: int) -> str:
    if activity.info().attempt < succeeds_at:
        raise ApplicationError("not yet", type="NotYet")
    return "at last"


@activity.defn
async def slow() -> int:
    """The first attempt never ends by itself; the number of the one that does."""
    attempt = activity.info().attempt
    await activity_emitter().thinking(f"attempt {attempt}")
    step = 0
    while attempt == 1:
        activity.heartbeat({"progress": min(step := step + 1, 100)})
        await asyncio.sleep(0.05)
    return attempt


@workflow.defn
class Flaky:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(flaky, 3, start_to_close_timeout=agents.SOON, retry_policy=SOON)


@workflow.defn
class Slow:
    @workflow.run
    async def run(self) -> int:
        return await workflow.execute_activity(
            slow, start_to_close_timeout=agents.SOON, heartbeat_timeout=timedelta(seconds=1), retry_policy=SOON
        )


@workflow.defn
class Asks:
    @workflow.run
    async def run(self) -> str:
        is_wanted = await workflow.execute_activity(agents.ask, start_to_close_timeout=agents.SOON)
        return "published" if is_wanted else "kept"


@workflow.defn
class Family:
    """How its child has ended."""

    @workflow.run
    async def run(self, how: str) -> str:
        try:
            return await workflow.execute_child_workflow(
                agents.Ends.run, how, id=f"{workflow.info().workflow_id}-child"
            )
        except ChildWorkflowError as error:
            return type(error.cause).__name__


@workflow.defn
class Race:
    """Ends at a word, after a moment in which its worker is busy with just that."""

    def __init__(self) -> None:
        self.words: list[str] = []

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: bool(self.words))
        with workflow.unsafe.sandbox_unrestricted():
            time.sleep(0.5)
        return self.words

    @workflow.signal
    def say(self, word: str) -> None:
        self.words.append(word)


@workflow.defn
class Retried:
    """Succeeds the third time."""

    @workflow.run
    async def run(self) -> str:
        if workflow.info().attempt < 3:
            raise ApplicationError("once more", type="Again")
        return "done"


ACTIVITIES = [*agents.ACTIVITIES, flaky, slow]
WORKFLOWS = [*agents.WORKFLOWS, Flaky, Slow, Asks, Family, Race, Retried]


async def work(address: str, task_queue: str) -> None:
    client = await Client.connect(address, plugins=[RuncastPlugin()])
    with ThreadPoolExecutor(4) as threads:
        await Worker(
            client,
            task_queue=task_queue,
            workflows=WORKFLOWS,
            activities=ACTIVITIES,
            activity_executor=threads,
            max_cached_workflows=0,  # so that the server does not wait for this one, should it die
        ).run()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
