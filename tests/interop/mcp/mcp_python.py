"""The MCP client for Python, unmodified, in one of its modes: `mcp_python.py URL TOKEN MODE WHAT`; prints JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Literal

import httpx2
import mcp_types as types
from mcp.client import ClientRequestContext
from mcp.client.client import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.streamable_http import streamable_http_client

TASKS = "io.modelcontextprotocol/tasks"


async def elicit(context: ClientRequestContext, params: Any) -> types.ElicitResult:
    """Says yes to what is asked."""
    name = next(iter(params.requested_schema["properties"]))
    return types.ElicitResult(action="accept", content={name: True})


class Task(types.Result):
    """What a call of 2026-07-28 may come to, which the client's core does not know."""

    result_type: Literal["task"]
    task_id: str


class GetTaskParams(types.RequestParams):
    task_id: str


class GetTask(types.Request[GetTaskParams, Literal["tasks/get"]]):
    name_param = "taskId"
    method: Literal["tasks/get"] = "tasks/get"
    params: GetTaskParams


class Detailed(types.Result):
    status: str
    result: dict[str, Any] | None = None


class Tasks(ClientExtension):
    """Follows a task to its end by asking, where a person need not be."""

    identifier = TASKS

    def claims(self) -> Any:
        return [ResultClaim(result_type="task", model=Task, resolve=self._resolve)]

    async def _resolve(self, task: Task, context: ClaimContext) -> types.CallToolResult:
        while True:
            request = GetTask(params=GetTaskParams(task_id=task.task_id))
            found = await context.session.send_request(request, Detailed)
            if found.status == "completed":
                return types.CallToolResult.model_validate(found.result)
            await asyncio.sleep(0.1)


async def run(client: Client, what: str) -> Any:
    progress: list[float] = []

    async def on_progress(value: float, _total: float | None, _message: str | None) -> None:
        progress.append(value)

    async def call(name: str, **arguments: Any) -> Any:
        result = await client.call_tool(name, arguments, progress_callback=on_progress)
        return {"texts": [block.text for block in result.content if block.type == "text"], "error": result.is_error,
                "structured": result.structured_content, "progress": progress}  # fmt: skip

    if what == "all":
        tools = [tool.name for tool in (await client.list_tools()).tools]
        told = await call("run_teller", task="tell")
        asked = await call("run_asker", task="ask")
        failed = await call("run_failer", task="fail")
        uri = f"runcast://executions/{told['structured']['executionId']}"
        page = (await client.read_resource(uri)).contents[0].text
        listed = [str(each.uri) for each in (await client.list_resources()).resources]
        return {"version": str(client.protocol_version), "tools": tools, "told": told, "asked": asked,
                "failed": failed, "page": page, "listed": uri in listed}  # fmt: skip
    return await call(what, task="do")


async def main(url: str, token: str, mode: str, what: str) -> None:
    extensions = [Tasks()] if what.startswith("task:") else []
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode, elicitation_callback=elicit, extensions=extensions) as client:
            print(json.dumps(await run(client, what.removeprefix("task:"))))


asyncio.run(main(*sys.argv[1:]))
