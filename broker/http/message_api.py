"""The native HTTP interface to people's messages: routes, scopes, and the form of responses."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.executions.message_types import MessageRequest, TakeRequest
from broker.executions.takes import Takes
from broker.http.connection import may_have_left
from broker.http.gateway import PUBLISHES, READS, Gateway
from broker.http.json import json_response
from broker.http.paths import execution_of
from broker.http.responses import Waits
from emitter.errors import ExecutionEnded, UnknownMessage
from emitter.wire.ids import INPUT_ID

Fenced = Callable[[web.Request, Identity, str], Awaitable[tuple[Identity, Any, Any]]]


class MessageApi:
    """`fenced`: who takes under the attempt of a request; `value_bytes`: of the body of a message."""

    def __init__(self, gateway: Gateway, takes: Takes, fenced: Fenced, value_bytes: int) -> None:
        self._gateway = gateway
        self._fenced = fenced
        self._takes = takes
        self._messages = gateway.commands.messages
        self._value_bytes = value_bytes
        self._waits = Waits("takes of messages", gateway.resting)

    def routes(self, base: str) -> list[web.RouteDef]:
        return [
            web.post(base + "/{id}/messages", self.send),
            web.get(base + "/{id}/messages", self.list, allow_head=False),
            web.post(base + "/{id}/messages/take", self.take),
            web.delete(base + "/{id}/messages/{messageId}", self.withdraw),
        ]

    async def send(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "executions:write")
        execution_id = execution_of(request)
        body = await self._gateway.read_json(request, MessageRequest, self._value_bytes)
        try:
            answer = await self._gateway.send_message(request, identity, execution_id, body)
        except ExecutionEnded as ended:
            raise _ended(ended) from ended
        return json_response(answer, status=202)

    async def list(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "executions:read", rate=READS)
        async with self._gateway.folding(identity):
            return json_response(await self._messages.list(identity.owner, execution_of(request)))

    async def withdraw(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "executions:write")
        execution_id, message_id = execution_of(request), request.match_info["messageId"]
        if not INPUT_ID.match(message_id):
            raise UnknownMessage(execution_id)
        try:
            answer = await self._gateway.withdraw_message(request, identity, execution_id, message_id)
        except ExecutionEnded as ended:
            raise _ended(ended) from ended
        return json_response(answer)

    async def take(self, request: web.Request) -> web.Response:
        """What waits for a message holds no turn of its user. A worker over HTTP takes those of its attempt."""
        is_worker = "Fence" in request.headers
        identity = await self._gateway.identify(request, "jobs:run" if is_worker else "events:publish", rate=PUBLISHES)
        execution_id, attempt = execution_of(request), attempt_of(request)
        worker = ""
        if is_worker:
            identity, _, under = await self._fenced(request, identity, execution_id)
            worker = under.worker
        body = await self._gateway.read_json(request, TakeRequest)
        try:
            async with self._waits.one(request):
                taken = await self._takes.take(
                    identity.owner, execution_id, body, attempt, lambda: may_have_left(request), worker
                )
        except ExecutionEnded as ended:
            raise _ended(ended) from ended
        return json_response(taken)


def attempt_of(request: web.Request) -> int:
    """The header `Attempt`; 0 if there is none. `Problem` 400."""
    text = request.headers.get("Attempt")
    if text is None:
        return 0
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise Problem(400, "invalid-parameter", "Attempt is a whole number from 1", path="Attempt")
    return int(text)


def _ended(error: ExecutionEnded) -> Problem:
    return Problem(409, "ended", str(error), state=error.state)
