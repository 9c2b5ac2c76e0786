"""The AI SDK's endpoints: a turn of a chat is an execution, and the chat's id its conversation.

A POST to a chat whose agent is at work and takes messages is a message to it, and shows what follows the message as an
answer of its own. A POST that is sent again starts nothing new, and shows the same execution. Closing it stops nothing:
`stop` does.
Questions (`data-input`) are answered at the execution's own input endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.executions import conversations
from broker.executions.conversations import Past
from broker.executions.message_types import message_id_of
from broker.executions.types import CancelRequest, CancelResponse, ExecutionSummary, InputRequest
from broker.http.gateway import MAX_BODY_BYTES, READS, Gateway
from broker.protocols.ai_sdk.approvals import Approvals, Response, are_wanted
from broker.protocols.ai_sdk.chat import (
    ChatRequest,
    StopResponse,
    conversation_of,
    execution_of,
    question,
    request_of,
    said_of,
    turns_before,
)
from broker.protocols.ai_sdk.conversation import Conversations
from broker.protocols.ai_sdk.counted_routes import CountedChats, current
from broker.protocols.ai_sdk.renderer import Renderer
from emitter.errors import (
    AlreadyAnswered,
    ExecutionEnded,
    ExecutionExists,
    NotSteerable,
    UnknownExecution,
    UnknownInput,
)

MAX_STOPPED = 20


class AiSdk:
    """The handlers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
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
            rendering = await self._steer(request, identity, chat)
            if rendering is None:
                async with self._gateway.starting(identity):
                    execution_id, approvals = await self._start(request, identity, chat)
                # From the first attempt on, however often it was tried: chunks are counted from here.
                rendering = Renderer(execution_id, approvals=approvals)
            return await self._gateway.show(request, identity, rendering.execution_id, rendering, slot=slot)

    async def _steer(self, request: web.Request, identity: Identity, chat: ChatRequest) -> Renderer | None:
        """What follows the message to the agent at work; None if the message is not for it."""
        if chat.responses or chat.id is None or not chat.may_steer:
            return None
        messages = self._gateway.commands.messages
        try:
            asked = question(chat)
        except Problem:
            return None  # it is refused as a start, and counted
        newest = await self._newest(identity, chat.id)
        wanted = chat.agent or request.query.get("agent")
        if newest is None or newest.execution_id == execution_of(chat, asked, wanted):
            return None
        execution_id = newest.execution_id
        approvals = Approvals() if are_wanted(newest.metadata) else None
        try:
            if asked.id and await messages.has(identity.owner, execution_id, message_id_of(asked.id)):
                return Renderer(execution_id, approvals=approvals, after=message_id_of(asked.id))  # a repeat
            if wanted not in (None, newest.agent) or not await messages.is_steerable(identity.owner, execution_id):
                return None
            said = said_of(chat, max_bytes=self._gateway.max_conversation_bytes)
            answer = await self._gateway.send_message(request, identity, execution_id, said)
        except (ExecutionEnded, NotSteerable, UnknownExecution):
            return None  # it was faster
        return Renderer(execution_id, approvals=approvals, after=answer.message_id)

    async def _newest(self, identity: Identity, chat_id: str) -> ExecutionSummary | None:
        async with self._gateway.folding(identity):
            found = await conversations.recent(
                self._gateway.commands, identity.owner, conversation_of(chat_id), limit=1
            )
        return found[0] if found else None

    async def _start(self, request: web.Request, identity: Identity, chat: ChatRequest) -> tuple[str, Approvals | None]:
        """The execution's id, and how its approvals are shown."""
        if responses := chat.responses:
            return await self._respond(request, identity, responses)
        before, omitted = await self._before(identity, chat)
        most = self._gateway.max_conversation_bytes
        wanted = request_of(chat, request.query.get("agent"), before, max_bytes=most, omitted=omitted)
        try:
            answer, _ = await self._gateway.execute(request, identity, wanted)
        except ExecutionExists as known:
            self._gateway.accepted(request, identity, known.execution_id, is_new=False)
            summary = await self._gateway.commands.listing.summary(identity.owner, known.execution_id)
            is_so = summary is not None and are_wanted(summary.metadata)
            return known.execution_id, Approvals() if is_so else None
        return answer.execution_id, Approvals() if chat.tool_approvals else None

    async def _respond(
        self, request: web.Request, identity: Identity, responses: Sequence[Response]
    ) -> tuple[str, Approvals]:
        """Answer what was asked; what was answered before, or by others, stays as it is. What follows the newest of
        these approvals is shown. Raises `UnknownExecution`."""
        execution_id = responses[-1].id.execution_id
        for response in responses:
            given = InputRequest(input_id=response.id.input_id, value=response.approved)
            try:
                await self._gateway.answer(request, identity, execution_id, given)
            except (AlreadyAnswered, UnknownInput, ExecutionEnded):
                continue
            except Problem as problem:
                if problem.status != 409:  # its time is over
                    raise
        return execution_id, Approvals(max(response.id.seq for response in responses))

    async def _before(self, identity: Identity, chat: ChatRequest) -> Past:
        """What was said in the chat before its last message: as the page sends it, or as the executions have it."""
        asked = question(chat)
        before = turns_before(chat, asked)
        if before is not None or chat.id is None:
            return Past(before or ())
        conversation_id = conversation_of(chat.id)
        async with self._gateway.folding(identity):
            return await conversations.past(
                self._gateway.commands, identity.owner, conversation_id, instead_of=asked.id or None
            )

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
