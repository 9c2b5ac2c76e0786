"""The AI SDK's endpoints: a turn of a chat is an execution, and the chat's id its conversation.

A POST that is sent again starts nothing new, and shows the same execution. Closing it stops nothing: `stop` does.
Questions (`data-input`) are answered at the execution's own input endpoint.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec
from aiohttp import web

from broker.api_types import CancelRequest, CancelResponse, ExecutionSummary
from broker.auth import Identity, require
from broker.commands import Commands
from broker.problems import request_id_of
from broker.protocols import conversations
from broker.protocols.ai_sdk.chat import (
    ChatRequest,
    StopResponse,
    conversation_of,
    question,
    request_of,
    turns_before,
    turns_known,
)
from broker.protocols.ai_sdk.renderer import Renderer
from broker.protocols.conversations import Turn
from broker.request import Target
from broker.stream import Streams
from emitter.errors import ExecutionEnded, ExecutionExists, UnknownExecution

MAX_STOPPED = 20

B = TypeVar("B")


class ReadBody(Protocol):
    """The JSON body as one of our types; `Problem` and msgspec's errors for what is none."""

    async def __call__(self, request: web.Request, type_: type[B]) -> B: ...


class AiSdk:
    """The handlers. `identify(request, scope)` says who calls; `admit(identity)` holds the rate of executions."""

    def __init__(
        self,
        identify: Callable[[web.Request, str], Awaitable[Identity]],
        admit: Callable[[Identity], Awaitable[None]],
        read_body: ReadBody,
        commands: Commands,
        streams: Streams,
    ) -> None:
        self._identify = identify
        self._admit = admit
        self._read_body = read_body
        self._commands = commands
        self._streams = streams

    def routes(self) -> list[web.RouteDef]:
        base = "/api/agent/chat"
        return [
            web.post(base, self.chat),
            web.get(base + "/{chatId}/stream", self.resume, allow_head=False),
            web.post(base + "/{chatId}/stop", self.stop),
        ]

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Start the execution that answers the last message, unless that was done, and show it."""
        identity = await self._identify(request, "executions:write")
        require(identity, "executions:read")
        await self._admit(identity)
        body = await self._read_body(request, ChatRequest)
        execution_id, attempt = await self._start(request, identity, body)
        return await self._show(request, identity, execution_id, attempt)

    async def _start(self, request: web.Request, identity: Identity, chat: ChatRequest) -> tuple[str, int]:
        """The execution's id, and the attempt it has reached."""
        wanted = request_of(chat, request.query.get("agent"), await self._before(identity, chat))
        try:
            answer, _ = await self._commands.execute(
                identity, wanted, request_id=request_id_of(request), idempotency_key=None
            )
        except ExecutionExists as known:
            state = await self._commands.state(identity.owner, known.execution_id, with_stack=False)
            return known.execution_id, state.attempt
        return answer.execution_id, 1

    async def _before(self, identity: Identity, chat: ChatRequest) -> list[Turn]:
        """What was said in the chat before its last message: as the page sends it, or as the executions have it."""
        asked = question(chat)
        before = turns_before(chat, asked)
        if before is not None:
            return before
        said = await conversations.turns(self._commands, identity.owner, conversation_of(chat.id))
        return turns_known(chat, asked, said)

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """The chat's running execution from its first event on; 204 if none runs."""
        identity = await self._identify(request, "executions:read")
        running = await self._running(identity, request, limit=1)
        if not running:
            return web.Response(status=204)
        return await self._show(request, identity, running[0].execution_id, running[0].attempt or 1)

    async def stop(self, request: web.Request) -> web.Response:
        """Cancel what runs in the chat. A repeat changes nothing."""
        identity = await self._identify(request, "executions:write")
        body = await self._read_body(request, CancelRequest)
        stopped: list[CancelResponse] = []
        for summary in await self._running(identity, request, limit=MAX_STOPPED):
            try:
                answer = await self._commands.cancel(
                    identity, summary.execution_id, body.reason, request_id_of(request)
                )
            except (ExecutionEnded, UnknownExecution):
                continue  # it was faster
            stopped.append(answer)
        return web.json_response(body=msgspec.json.encode(StopResponse(stopped)), status=202)

    async def _running(self, identity: Identity, request: web.Request, *, limit: int) -> list[ExecutionSummary]:
        conversation = conversation_of(request.match_info["chatId"])
        return await conversations.recent(self._commands, identity.owner, conversation, limit=limit, is_running=True)

    async def _show(
        self, request: web.Request, identity: Identity, execution_id: str, attempt: int
    ) -> web.StreamResponse:
        target = Target.execution(identity.owner, execution_id)
        rendering = Renderer(execution_id, attempt)
        return await self._streams.open_rendered(request, target, identity, request_id_of(request), rendering)
