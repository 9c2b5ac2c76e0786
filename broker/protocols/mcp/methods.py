"""The methods of both eras, by name."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from aiohttp import web

from broker.http.gateway import Gateway
from broker.protocols.mcp.caller import Caller, Give, LiveAgents, Method, Result
from broker.protocols.mcp.prompts import ARGUMENTS, prompt_named, prompts_of
from broker.protocols.mcp.resources import TEMPLATES, Resources
from broker.protocols.mcp.resume import derived_id
from broker.protocols.mcp.rpc import (
    INVALID_PARAMS,
    NO_RESOURCE_2025,
    Json,
    McpError,
    object_param,
    text_param,
)
from broker.protocols.mcp.tasks import TaskReader
from broker.protocols.mcp.tools import listed
from broker.protocols.mcp.versions import LEGACY, LEVELS, MODERN, PREFIX, TASKS, Capabilities, new_session
from emitter.errors import ExecutionEnded, UnknownExecution

INSTRUCTIONS = (
    "Each tool run_* starts an agent. An answer may say that the execution still runs: call wait_for_execution with "
    "its id. Questions of an agent are the user's to answer: with answer_input, where you are not asked directly."
)
TTL_MS = 5000
"""How long lists may be kept: agents come and go."""
CANCELLED = "notifications/cancelled"


class Methods:
    """`shared`, `modern` and `legacy` have them by name, but for calls and subscriptions."""

    def __init__(self, gateway: Gateway, agents: LiveAgents, tasks: TaskReader, give: Give, version: str) -> None:
        self._gateway = gateway
        self._agents = agents
        self._tasks = tasks
        self._give = give
        self._resources = Resources(gateway.commands, tasks)
        self._server = {"name": "runcast", "title": "Runcast", "version": version}
        self.shared: Mapping[str, Method] = {
            "tools/list": self._tools,
            "resources/list": self._list_resources,
            "resources/templates/list": self._templates,
            "resources/read": self._read_resource,
            "prompts/list": self._prompts,
            "prompts/get": self._prompt,
            "completion/complete": self._complete,
        }
        self.modern: Mapping[str, Method] = {
            "server/discover": self._discover,
            "tasks/get": self._get_task,
            "tasks/update": self._update_task,
            "tasks/cancel": self._cancel_task,
        }
        self.legacy: Mapping[str, Method] = {
            "initialize": self._initialize,
            "ping": self._nothing,
            "logging/setLevel": self._set_level,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._subscribe,
        }

    # --- who we are --------------------------------------------------------------------------------------------------

    async def _discover(self, caller: Caller) -> Json:  # noqa: ARG002
        capabilities: Json = {"tools": {}, "resources": {}, "prompts": {}, "completions": {}, "extensions": {TASKS: {}}}
        about = {"supportedVersions": [MODERN], "capabilities": capabilities, "instructions": INSTRUCTIONS}
        return {**about, "ttlMs": 60_000, "cacheScope": "public", "_meta": {PREFIX + "serverInfo": self._server}}

    async def _initialize(self, caller: Caller) -> Result:
        """Without a session that an edge would have to keep: the client's own capabilities are in its id."""
        wanted = caller.params.get("protocolVersion")
        version = wanted if wanted in LEGACY else LEGACY[0]
        capabilities: Json = {"tools": {}, "resources": {}, "prompts": {}, "completions": {}, "logging": {}}
        caller.request[SESSION] = new_session(Capabilities.of(object_param(caller.params, "capabilities")))
        about = {"protocolVersion": version, "capabilities": capabilities, "serverInfo": self._server}
        return {**about, "instructions": INSTRUCTIONS}

    async def _nothing(self, caller: Caller) -> Json:  # noqa: ARG002
        return {}

    async def _set_level(self, caller: Caller) -> Json:
        """Messages are sent at level `info`, and to a client that asked for others it would need a session to send
        none; it may ignore them."""
        if caller.params.get("level") not in LEVELS:
            raise McpError(INVALID_PARAMS, f"level is one of {', '.join(LEVELS)}")
        return {}

    async def _subscribe(self, caller: Caller) -> Json:
        """Accepted. There is no stream of this era that an update could be sent on: `resources.subscribe` is not
        declared. Clients of 2026-07-28 have `subscriptions/listen`."""
        text_param(caller.params, "uri")
        return {}

    # --- lists -------------------------------------------------------------------------------------------------------

    async def _tools(self, caller: Caller) -> Json:
        return _kept(caller, {"tools": listed(await self._agents.get())})

    async def _prompts(self, caller: Caller) -> Json:
        prompts = prompts_of(await self._agents.get())
        return _kept(caller, {"prompts": [prompt.listed() for prompt in prompts.values()]})

    async def _prompt(self, caller: Caller) -> Json:
        prompt = prompt_named(await self._agents.get(), text_param(caller.params, "name"))
        given = object_param(caller.params, "arguments") | _responded(caller.params)
        if not (missing := prompt.missing(given)):
            return prompt.filled(given)
        if caller.client.is_modern and caller.client.can.form:
            return {"resultType": "input_required", "inputRequests": {ARGUMENTS: prompt.question(missing)}}
        raise McpError(INVALID_PARAMS, f"arguments.{missing[0]} is missing", missing=missing)

    async def _templates(self, caller: Caller) -> Json:
        return _kept(caller, {"resourceTemplates": TEMPLATES})

    async def _list_resources(self, caller: Caller) -> Json:
        cursor = caller.params.get("cursor")
        if cursor is not None and not isinstance(cursor, str):
            raise McpError(INVALID_PARAMS, "cursor is text")
        async with self._gateway.folding(caller.identity):
            return _kept(caller, await self._resources.page(caller.owner, cursor), ttl_ms=0)

    async def _read_resource(self, caller: Caller) -> Json:
        uri = text_param(caller.params, "uri")
        async with self._gateway.folding(caller.identity):
            contents = await self._resources.read(caller.owner, uri)
        if contents is None:
            kind = INVALID_PARAMS if caller.client.is_modern else NO_RESOURCE_2025
            raise McpError(kind, "Resource not found", uri=uri)
        return _kept(caller, {"contents": [contents]}, ttl_ms=0)

    async def _complete(self, caller: Caller) -> Json:
        """Ids of executions. What stands in a prompt is for the user to say."""
        ref, argument = object_param(caller.params, "ref"), object_param(caller.params, "argument")
        beginning = argument.get("value")
        is_execution = ref.get("type") == "ref/resource" and argument.get("name") == "executionId"
        if not is_execution or not isinstance(beginning, str):
            return {"completion": {"values": [], "hasMore": False}}
        async with self._gateway.folding(caller.identity):
            return {"completion": await self._resources.complete(caller.owner, beginning)}

    # --- tasks -------------------------------------------------------------------------------------------------------

    async def _get_task(self, caller: Caller) -> Json:
        task_id = _task_of(caller)
        async with self._gateway.folding(caller.identity):
            return await self._tasks.task(caller.owner, task_id, caller.asked)

    async def _update_task(self, caller: Caller) -> Json:
        task_id = _task_of(caller)
        caller.require_write()
        await self._give(caller, task_id, object_param(caller.params, "inputResponses"))
        return {}

    async def _cancel_task(self, caller: Caller) -> Json:
        task_id = _task_of(caller)
        caller.require_write()
        with contextlib.suppress(ExecutionEnded):
            await self._gateway.cancel(caller.request, caller.identity, task_id, None)
        return {}

    # --- what clients of the old era send beside requests ------------------------------------------------------------

    async def notified(self, caller: Caller) -> None:
        """`notifications/cancelled` cancels the execution that the named request has started."""
        reason = caller.params.get("reason")
        id_ = caller.params.get("requestId")
        if caller.message.method != CANCELLED or not isinstance(id_, str | int):
            return
        execution_id = derived_id(caller.client.session, id_)
        if execution_id is not None and "executions:write" in caller.identity.scopes:
            why = reason[:1024] if isinstance(reason, str) else None
            with contextlib.suppress(UnknownExecution, ExecutionEnded):
                await self._gateway.cancel(caller.request, caller.identity, execution_id, why)

    async def responded(self, caller: Caller) -> None:
        """A response to a request of ours, whose id says which question it answers. Errors leave that open."""
        execution_id, _, input_id = str(caller.message.id).partition("/")
        if input_id and isinstance(caller.message.result, dict):
            caller.require_write()
            await self._give(caller, execution_id, {input_id: caller.message.result})


SESSION = web.RequestKey("mcp_session", str)
"""The session that a request has begun."""


def _task_of(caller: Caller) -> str:
    caller.client.can.require({"extensions": {TASKS: {}}})
    return text_param(caller.params, "taskId")


def _kept(caller: Caller, result: Json, *, ttl_ms: int = TTL_MS) -> Json:
    """With how long the client may keep it (server/utilities/caching). What is listed depends on who asks."""
    return {**result, "ttlMs": ttl_ms, "cacheScope": "private"} if caller.client.is_modern else result


def _responded(params: Json) -> Json:
    """What the user has filled in."""
    response = object_param(params, "inputResponses").get(ARGUMENTS)
    if not isinstance(response, dict) or response.get("action") != "accept":
        return {}
    content = response.get("content")
    return content if isinstance(content, dict) else {}
