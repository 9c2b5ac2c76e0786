"""A Temporal worker whose workflow people can watch.

    pip install 'runcast[temporal]'
    temporal server start-dev                                          # a Temporal server, or yours
    RUNCAST_REDIS_URL=redis://localhost:6379/0 python deploy/examples/temporal_worker.py worker
    RUNCAST_REDIS_URL=redis://localhost:6379/0 python deploy/examples/temporal_worker.py start alice "solar sails"

`start` prints the execution's id; `runcast tail` or a browser shows what it does. `TEMPORAL_ADDRESS` names another
server than localhost:7233.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

from emitter.integrations.temporal import RuncastPlugin, activity_emitter, for_execution, workflow_emitter
from emitter.wire.ids import new_execution_id

TASK_QUEUE = "runcast-example"
LIMIT = timedelta(minutes=1)


@activity.defn
async def find_pages(topic: str) -> list[str]:
    """The call and its result are published by themselves, and so is the heartbeat, as progress."""
    pages = []
    for number in range(1, 4):
        await asyncio.sleep(0.1)
        pages.append(f"Page {number} on {topic}")
        activity.heartbeat({"progress": number / 3 * 100, "message": pages[-1]})
    return pages


@activity.defn
async def write_summary(topic: str, pages: list[str]) -> str:
    """What else there is to say goes through the emitter: here the text as it is written."""
    emitter = activity_emitter()
    await emitter.thinking(f"{len(pages)} pages should do.")
    text = f"What {len(pages)} pages say about {topic}: " + "; ".join(pages) + "."
    for word in text.split(" "):
        await emitter.text(word + " ")
    return text


@workflow.defn
class Summarise:
    @workflow.run
    async def run(self, topic: str) -> str:
        emitter = workflow_emitter()
        emitter.plan_created(f"A summary of {topic}", [("find", "Find pages"), ("write", "Write")])
        with emitter.phase("find", "Find pages"):
            pages = await workflow.execute_activity(find_pages, topic, start_to_close_timeout=LIMIT)
        emitter.progress(50, current_action="writing")
        with emitter.phase("write", "Write"):
            return await workflow.execute_activity(write_summary, args=[topic, pages], start_to_close_timeout=LIMIT)


async def connect() -> Client:
    address = os.environ.get("TEMPORAL_ADDRESS", "localhost:7233")
    return await Client.connect(address, plugins=[RuncastPlugin()])


async def work() -> None:
    client = await connect()
    worker = Worker(client, task_queue=TASK_QUEUE, workflows=[Summarise], activities=[find_pages, write_summary])
    await worker.run()


async def start(user: str, topic: str) -> None:
    client = await connect()
    with for_execution(user, new_execution_id(), task=f"Summarise {topic}") as execution:
        await client.start_workflow(Summarise.run, topic, id=f"summary-{execution.execution_id}", task_queue=TASK_QUEUE)
    sys.stdout.write(f"{execution.execution_id}\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["worker"]:
            asyncio.run(work())
        case ["start", user, topic]:
            asyncio.run(start(user, topic))
        case _:
            sys.exit("usage: temporal_worker.py worker | start USER TOPIC")
