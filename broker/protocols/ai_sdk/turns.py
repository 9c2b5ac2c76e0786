"""What answers a turn of a chat: the agent at work, which is given a message, or a new execution."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.executions import conversations
from broker.executions.conversations import Past
from broker.executions.message_types import message_id_of
from broker.executions.types import ExecutionSummary, InputRequest
from broker.http.gateway import Gateway
from broker.protocols.ai_sdk.approvals import Approvals, Response, are_wanted
from broker.protocols.ai_sdk.chat import (
    ChatRequest,
    conversation_of,
    execution_of,
    question,
    request_of,
    said_of,
    turns_before,
)
from broker.protocols.ai_sdk.continuation import followed
from broker.protocols.ai_sdk.runs import Found
from emitter.errors import (
    AlreadyAnswered,
    ExecutionEnded,
    ExecutionExists,
    NotSteerable,
    UnknownExecution,
    UnknownInput,
)


class Turns:
    """Starts what answers, and finds what was started."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def answer(self, request: web.Request, identity: Identity, chat: ChatRequest) -> Found:
        """Hand the last message to the agent at work, or start the execution that answers it, unless that was done.
        Raises what `Gateway` does."""
        found = await self._steer(request, identity, chat)
        if found is not None:
            return found
        async with self._gateway.starting(identity):
            return await self._start(request, identity, chat)

    async def _steer(self, request: web.Request, identity: Identity, chat: ChatRequest) -> Found | None:
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
                return Found(execution_id, approvals, message_id_of(asked.id))  # a repeat
            if wanted not in (None, newest.agent) or not await messages.is_steerable(identity.owner, execution_id):
                return None
            said = said_of(chat, max_bytes=self._gateway.max_conversation_bytes)
            answer = await self._gateway.send_message(request, identity, execution_id, said)
        except (ExecutionEnded, NotSteerable, UnknownExecution):
            return None  # it was faster
        return Found(execution_id, approvals, answer.message_id)

    async def _newest(self, identity: Identity, chat_id: str) -> ExecutionSummary | None:
        async with self._gateway.folding(identity):
            found = await conversations.recent(
                self._gateway.commands, identity.owner, conversation_of(chat_id), limit=1
            )
        return found[0] if found else None

    async def _start(self, request: web.Request, identity: Identity, chat: ChatRequest) -> Found:
        if responses := chat.responses:
            return await self._respond(request, identity, responses, chat.last_id)
        before, omitted = await self._before(identity, chat)
        most = self._gateway.max_conversation_bytes
        wanted = request_of(chat, request.query.get("agent"), before, max_bytes=most, omitted=omitted)
        try:
            answer, _ = await self._gateway.execute(request, identity, wanted)
        except ExecutionExists as known:
            self._gateway.accepted(request, identity, known.execution_id, is_new=False)
            summary = await self._gateway.commands.listing.summary(identity.owner, known.execution_id)
            is_so = summary is not None and are_wanted(summary.metadata)
            return Found(known.execution_id, Approvals() if is_so else None)
        return Found(answer.execution_id, Approvals() if chat.tool_approvals else None)

    async def _respond(
        self, request: web.Request, identity: Identity, responses: Sequence[Response], message_id: str | None
    ) -> Found:
        """Answer what was asked; what was answered before, or by others, stays as it is. What follows the newest of
        these approvals is shown, as more of the message that has them. Raises `UnknownExecution`."""
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
        after = followed(execution_id, message_id)
        if after is not None and not await self._gateway.commands.messages.has(identity.owner, execution_id, after):
            after = None
        return Found(execution_id, Approvals(max(response.id.seq for response in responses)), after)

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
