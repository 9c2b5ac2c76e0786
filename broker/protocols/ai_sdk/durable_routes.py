"""The endpoints of `@durable-streams/aisdk-transport` (0.0.7): they say where the answer to a turn is to be read, as
chunks of a durable stream. That is read without headers, so that a caller with a token gets a URL with a ticket."""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec
from aiohttp import web

from broker.base.identity import Identity
from broker.executions import conversations
from broker.http.gateway import MAX_BODY_BYTES, READS, Gateway
from broker.protocols.ai_sdk.approvals import OPEN, are_wanted
from broker.protocols.ai_sdk.chat import ChatRequest, StreamUrl, conversation_of
from broker.protocols.ai_sdk.turns import Turns

BASE = "/ds/chat"
CHUNKS = "ai-sdk"


class DurableChats:
    """The handlers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._turns = Turns(gateway)

    def routes(self) -> list[web.RouteDef]:
        return [web.post(BASE, self.chat), web.get(BASE + "/{chatId}/stream", self.resume, allow_head=False)]

    async def chat(self, request: web.Request) -> web.Response:
        """Start what answers the last message, unless that was done, and say where its chunks are."""
        identity = await self._gateway.identify(request, "executions:write", "executions:read")
        chat = await self._gateway.read_json(request, ChatRequest, MAX_BODY_BYTES)
        found = await self._turns.answer(request, identity, chat)
        return await self._stream(request, identity, 201, found.execution_id, found.run_id)

    async def resume(self, request: web.Request) -> web.Response:
        """Where the chunks of what runs in the chat are; 204 if nothing does."""
        identity = await self._gateway.identify(request, "executions:read", rate=READS)
        conversation = conversation_of(request.match_info["chatId"])
        async with self._gateway.folding(identity):
            running = await conversations.recent(
                self._gateway.commands, identity.owner, conversation, limit=1, is_running=True
            )
        if not running:
            return web.Response(status=204, headers={"Cache-Control": "no-store"})
        asked = {"approvals": OPEN} if are_wanted(running[0].metadata) else {}
        execution_id = running[0].execution_id
        return await self._stream(request, identity, 200, execution_id, execution_id, **asked)

    async def _stream(
        self, request: web.Request, identity: Identity, status: int, execution_id: str, named: str, **query: str
    ) -> web.Response:
        """The URL is relative to the request's, whatever a proxy has put before that."""
        query["format"] = CHUNKS
        if "Authorization" in request.headers:
            query["ticket"] = await self._gateway.ticket(identity, execution_id)
        up = "../../" if status == 200 else ""
        url = f"{up}executions/{named}?{urlencode(query)}"
        headers = {"Location": url, "Cache-Control": "no-store"}
        body = msgspec.json.encode(StreamUrl(stream_url=url))
        return web.Response(status=status, body=body, content_type="application/json", headers=headers)
