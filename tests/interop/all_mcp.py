"""A client of MCP 2026-07-28, unmodified, for `test_all_clients.py`: `all_mcp.py '{"urls", "token", "jobs"}'`.

Each job follows an execution as a task: the client listens to its resource, and looks at the task (`tasks/get`)
whenever that has changed. There is no replay: when the connection is lost it listens at the next of the URLs, and looks
again.
"""

import asyncio
import json
import sys
from typing import Any, Literal

import httpx2
import mcp_types as types
from mcp.client.client import Client
from mcp.client.extension import ClientExtension
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost

GIVEN = json.loads(sys.argv[1])
ENDED = ("completed", "failed", "cancelled")


class Tasks(ClientExtension):
    identifier = "io.modelcontextprotocol/tasks"


class GetTaskParams(types.RequestParams):
    task_id: str


class GetTask(types.Request[GetTaskParams, Literal["tasks/get"]]):
    name_param = "taskId"
    method: Literal["tasks/get"] = "tasks/get"
    params: GetTaskParams


class Task(types.Result):
    status: str
    status_message: str | None = None
    input_requests: dict[str, Any] | None = None
    result: dict[str, Any] | None = None


async def never(_context, params):
    """A client says that it can ask a person; those of a task are in the task."""
    raise AssertionError(params)


def say(**facts):
    print(json.dumps(facts), flush=True)


class Follower:
    """What a client has of one task."""

    def __init__(self, job):
        self.execution = job["execution"]
        self.uri = f"runcast://executions/{self.execution}"
        self.task = None
        self.statuses = []
        self.prompts = []

    async def look(self, client):
        """Whether it has ended."""
        request = GetTask(params=GetTaskParams(task_id=self.execution))
        self.task = await client.session.send_request(request, Task)
        if self.statuses[-1:] != [self.task.status]:
            self.statuses.append(self.task.status)
        for asked in (self.task.input_requests or {}).values():
            if asked["params"]["message"] not in self.prompts:
                self.prompts.append(asked["params"]["message"])
                say(at="asked", prompt=self.prompts[-1])
        return self.task.status in ENDED

    async def follow(self, client):
        async with client.listen(resource_subscriptions=[self.uri]) as changes:
            if await self.look(client):
                return
            say(at="watching")
            async for _ in changes:
                if await self.look(client):
                    return

    async def outcome(self, client):
        result = self.task.result
        page = (await client.read_resource(self.uri)).contents[0].text
        texts = [block["text"] for block in result["content"] if block["type"] == "text"]
        return {
            "status": self.task.status,
            "texts": texts,
            "structured": result["structuredContent"],
            "prompts": self.prompts,
            "statuses": self.statuses,
            "page": page,
        }


async def connected(url, work):
    """What `work` gives with a client at this URL."""
    headers = {"Authorization": f"Bearer {GIVEN['token']}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(url + "/mcp", http_client=http)
        async with Client(transport, mode="auto", extensions=[Tasks()], elicitation_callback=never) as client:
            return await work(client)


async def run(job):
    urls = iter(GIVEN["urls"])
    url, follower = next(urls), Follower(job)

    async def follow(client):
        try:
            await follower.follow(client)
        except SubscriptionLost as lost:
            say(at="lost", how=str(lost))
            return None
        return await follower.outcome(client)

    while True:
        try:
            found = await connected(url, follow)
        except ExceptionGroup as broken:  # in the middle of a look
            if broken.subgroup(httpx2.TransportError) is None:
                raise
            say(at="lost", how=repr(broken))
            found = None
        if found is not None:
            return found
        url = next(urls, url)


async def main():
    say(outcomes=[await run(job) for job in GIVEN["jobs"]])


asyncio.run(main())
