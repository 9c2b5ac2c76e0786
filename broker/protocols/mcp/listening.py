"""`subscriptions/listen`: tasks as they change, and resources that have changed, on one stream (2026-07-28)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web
from redis.asyncio import Redis

from broker.base.fairness import FairSemaphore
from broker.http.gateway import Gateway
from broker.protocols.mcp.caller import Caller
from broker.protocols.mcp.dialects import STREAM_HEADERS
from broker.protocols.mcp.renderer import HEARTBEAT_SECONDS
from broker.protocols.mcp.resources import named
from broker.protocols.mcp.rpc import INVALID_PARAMS, Json, McpError, encode, notification, object_param, response
from broker.protocols.mcp.tasks import STATES, TaskReader
from broker.protocols.mcp.versions import PREFIX, TASKS
from emitter.errors import UnknownExecution

LISTENING_AT_ONCE, LISTENING_PER_USER = 128, 16
"""Streams of one edge: each waits on a Redis connection of its own."""
MAX_SUBJECTS = 64
BLOCK_MS = 2000
SETTLE_SECONDS = 0.1
"""Events that come together make one notification."""


class Listening:
    """The method."""

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

    async def _ends(self, places: dict[str, str]) -> dict[str, str]:
        """Where the logs end now. What is shown next is read after that."""
        ends = {}
        for log in places:
            newest = await self._redis.xrevrange(log, count=1)
            ends[log] = newest[0][0].decode() if newest else "0-0"
        return ends

    async def _changed(self, logs: dict[str, str], places: dict[str, str]) -> set[str]:
        """The executions that have new events, waited for up to two seconds."""
        if not places:
            await asyncio.sleep(BLOCK_MS / 1000)
            return set()
        if not (found := await self._redis.xread(places, block=BLOCK_MS, count=1000)):
            return set()
        for log, rows in found:
            places[log.decode()] = rows[-1][0].decode()
        await asyncio.sleep(SETTLE_SECONDS)
        return {logs[log.decode()] for log, _ in found}

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
        self._response = web.StreamResponse(headers=STREAM_HEADERS)
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
