"""The AI SDK's endpoints: a turn of a chat is an execution, and the chat's id its conversation.

A POST to a chat whose agent is at work and takes messages is a message to it, and shows what follows the message as an
answer of its own. A POST that is sent again starts nothing new, and shows the same execution. Closing it stops nothing:
`stop` does.
Questions (`data-input`) are answered at the execution's own input endpoint.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from broker.base.identity import Identity
from broker.executions import conversations
from broker.executions.types import CancelRequest, CancelResponse, ExecutionSummary
from broker.http.gateway import MAX_BODY_BYTES, READS, Gateway
from broker.protocols.ai_sdk.chat import (
    ChatRequest,
    StopResponse,
    conversation_of,
)
from broker.protocols.ai_sdk.conversation import Conversations
from broker.protocols.ai_sdk.counted_routes import CountedChats
from broker.protocols.ai_sdk.renderer import Renderer
from broker.protocols.ai_sdk.runs import current
from broker.protocols.ai_sdk.turns import Turns
from emitter.errors import (
    ExecutionEnded,
    UnknownExecution,
)

MAX_STOPPED = 20


class AiSdk:
    """The handlers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._turns = Turns(gateway)
        self._counted = CountedChats(gateway)
        self._conversations = Conversations(gateway)

    def routes(self) -> list[web.RouteDef]:
        base = "/api/agent/chat"
        return [
            web.post(base, self.chat),
            web.get(base + "/{chatId}", self._conversations.get, allow_head=False),
            web.get(base + "/{chatId}/stream", self.resume, allow_head=False),
            web.post(base + "/{chatId}/stop", self.stop),
        ]

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Hand the last message to the agent at work, or start the execution that answers it, unless that was done; and
        show the answer."""
        identity = await self._gateway.identify(request, "executions:write", "executions:read")
        async with self._gateway.slot(request, identity) as slot:
            chat = await self._gateway.read_json(request, ChatRequest, MAX_BODY_BYTES)
            answer = await self._turns.answer(request, identity, chat)
            # From the first attempt on, however often it was tried: chunks are counted from here.
            rendering = Renderer(answer.execution_id, approvals=answer.approvals, after=answer.after)
            return await self._gateway.show(request, identity, rendering.execution_id, rendering, slot=slot)

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """What runs in a chat, from its first event on; 204 if nothing does. Another answer to who counts chunks:
        `CountedChats`."""
        if "startIndex" in request.query:
            return await self._counted.resume(request)
        identity = await self._gateway.identify(request, "executions:read", rate=READS)
        running = await self._running(identity, request, limit=1)
        if not running:
            return web.Response(status=204)
        execution_id, attempt = running[0].execution_id, running[0].attempt or 1
        approvals = await current(self._gateway.commands, identity.owner, running[0])
        return await self._gateway.show(request, identity, execution_id, Renderer(execution_id, attempt, approvals))

    async def stop(self, request: web.Request) -> web.Response:
        """Cancel what runs in the chat. A repeat changes nothing."""
        identity = await self._gateway.identify(request, "executions:write")
        body = await self._gateway.read_json(request, CancelRequest)
        stopped: list[CancelResponse] = []
        for summary in await self._running(identity, request, limit=MAX_STOPPED):
            try:
                stopped.append(await self._gateway.cancel(request, identity, summary.execution_id, body.reason))
            except (ExecutionEnded, UnknownExecution):
                continue  # it was faster
        return web.json_response(body=msgspec.json.encode(StopResponse(stopped)), status=202)

    async def _running(self, identity: Identity, request: web.Request, *, limit: int) -> list[ExecutionSummary]:
        conversation = conversation_of(request.match_info["chatId"])
        async with self._gateway.folding(identity):
            return await conversations.recent(
                self._gateway.commands, identity.owner, conversation, limit=limit, is_running=True
            )
