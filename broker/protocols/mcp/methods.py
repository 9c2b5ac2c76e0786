"""The methods of both eras, by name."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from redis.asyncio import Redis

from broker.base.fairness import FairSemaphore
from broker.http.gateway import Gateway
from broker.live.rendering import SSE_HEADERS
from broker.protocols.live_agents import LiveAgents
from broker.protocols.mcp.caller import Caller, Give, Method, Result
from broker.protocols.mcp.prompts import ARGUMENTS, prompt_named, prompts_of
from broker.protocols.mcp.renderer import HEARTBEAT_SECONDS
from broker.protocols.mcp.resources import TEMPLATES, Resources, TaskReader, named
from broker.protocols.mcp.resume import derived_id
from broker.protocols.mcp.rpc import (
    INVALID_PARAMS,
    NO_RESOURCE_2025,
    Json,
    McpError,
    encode,
    notification,
    object_param,
    response,
    text_param,
)
from broker.protocols.mcp.tasks import STATES
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
LISTENING_AT_ONCE, LISTENING_PER_USER = 128, 16
"""Streams of one edge: each waits on a Redis connection of its own."""
MAX_SUBJECTS = 64
BLOCK_MS = 2000
SETTLE_SECONDS = 0.1
"""Events that come together make one notification."""


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


# --- subscriptions ----------------------------------------------------------------------------------------------------


class Listening:
    """`subscriptions/listen`: tasks as they change, and resources that have changed, on one stream."""

    def __init__(self, gateway: Gateway, redis: Redis, tasks: TaskReader) -> None:
        self._gateway = gateway
        self._redis: Any = redis
        self._tasks = tasks
        self._turns = FairSemaphore("subscriptions", LISTENING_AT_ONCE, LISTENING_PER_USER)

    async def listen(self, caller: Caller) -> web.StreamResponse:
        """Raises `McpError`, and what `Gateway` does."""
        wanted = object_param(caller.params, "notifications")
        task_ids, uris = _texts(wanted, "taskIds"), _texts(wanted, "resourceSubscriptions")
        if task_ids:
            caller.client.can.require({"extensions": {TASKS: {}}})
        known = {uri: found.execution_id for uri in uris if (found := named(uri)) is not None}
        async with self._gateway.folding(caller.identity):
            for execution_id in {*task_ids, *known.values()}:
                await self._tasks.state(caller.owner, execution_id)
        async with (
            self._turns.turn(caller.identity.principal),
            self._gateway.exporting(caller.request, caller.identity),
        ):
            stream = _Stream(caller)
            await stream.begin({"taskIds": task_ids} if task_ids else {}, list(known))
            return await self._follow(caller, stream, dict.fromkeys(task_ids), known)

    async def _follow(
        self, caller: Caller, stream: _Stream, shown: dict[str, Json | None], known: dict[str, str]
    ) -> web.StreamResponse:
        """`shown` are the tasks as the client has them. Ends when all of them have, or the edge stops."""
        logs = {caller.owner.execution(each).log: each for each in {*shown, *known.values()}}
        places: dict[str, str] = dict.fromkeys(logs, "$")
        if places:
            places = await self._ends(places)
        changed = set(shown)
        while not self._gateway.draining:
            for task_id in [each for each in shown if each in changed]:
                await self._show(caller, stream, shown, task_id)
            for uri in [uri for uri, execution_id in known.items() if execution_id in changed and shown is not None]:
                await stream.write(notification("notifications/resources/updated", {"uri": uri}))
            if shown and not known and all(task and task["status"] in _ENDS for task in shown.values()):
                break
            await stream.beat()
            changed = await self._changed(logs, places)
        return await stream.end()

    async def _ends(self, logs: Iterable[str]) -> dict[str, str]:
        """Where the logs end now. What is shown next is read after that."""
        ends = {}
        for log in logs:
            newest = await self._redis.xrevrange(log, count=1)
            ends[log] = newest[0][0].decode() if newest else "0-0"
        return ends

    async def _changed(self, logs: dict[str, str], places: dict[str, str]) -> set[str]:
        """The executions that have new events, waited for up to two seconds. One event of each is read, however large
        and many they are."""
        if not places:
            await asyncio.sleep(BLOCK_MS / 1000)
            return set()
        if not (found := await self._redis.xread(places, block=BLOCK_MS, count=1)):
            return set()
        await asyncio.sleep(SETTLE_SECONDS)
        changed = [log.decode() for log, _ in found]
        places |= await self._ends(changed)
        return {logs[log] for log in changed}

    async def _show(self, caller: Caller, stream: _Stream, shown: dict[str, Json | None], task_id: str) -> None:
        try:
            async with self._gateway.folding(caller.identity, is_patient=True):
                task = await self._tasks.task(caller.owner, task_id, caller.asked)
        except UnknownExecution:
            del shown[task_id]  # it has expired
            return
        if _content(task) != _content(shown[task_id]):
            await stream.write(notification("notifications/tasks", task))
        shown[task_id] = task


_ENDS = frozenset({*STATES.values(), "failed"})


def _content(task: Json | None) -> Json | None:
    return None if task is None else {name: value for name, value in task.items() if name != "lastUpdatedAt"}


class _Stream:
    """The response, whose messages all say which subscription they belong to."""

    def __init__(self, caller: Caller) -> None:
        self._request = caller.request
        self._id = caller.request_id
        self._meta = {PREFIX + "subscriptionId": caller.request_id}
        self._response = web.StreamResponse(headers=SSE_HEADERS)
        self._written_at = time.monotonic()

    async def begin(self, honoured: Json, uris: list[str]) -> None:
        await self._response.prepare(self._request)
        kept = honoured | ({"resourceSubscriptions": uris} if uris else {})
        await self.write(notification("notifications/subscriptions/acknowledged", {"notifications": kept}))

    async def write(self, message: Json) -> None:
        message["params"] = {**message["params"], "_meta": self._meta}
        await self._send(b"data: %b\n\n" % encode(message))

    async def beat(self) -> None:
        if time.monotonic() - self._written_at > HEARTBEAT_SECONDS:
            await self._send(b": hb\n")

    async def _send(self, data: bytes) -> None:
        await self._response.write(data)
        self._written_at = time.monotonic()

    async def end(self) -> web.StreamResponse:
        result = {"resultType": "complete", "_meta": self._meta}
        await self._send(b"data: %b\n\n" % encode(response(self._id, result)))
        await self._response.write_eof()
        return self._response


def _texts(wanted: Json, name: str) -> list[str]:
    found = wanted.get(name) or []
    if not isinstance(found, list) or len(found) > MAX_SUBJECTS or not all(isinstance(each, str) for each in found):
        raise McpError(INVALID_PARAMS, f"params.notifications.{name} is a list of at most {MAX_SUBJECTS} texts")
    return list(dict.fromkeys(found))
