"""`GET /api/agent/chat/{chatId}`: a conversation as UI messages, for a page that is opened again.

The logs have what was answered, and the records what was asked, for as long as they live; an app that wants it for
longer keeps it. The answer that is being written is not here: the page that resumes the chat gets it as a stream, and
would have it twice.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from broker.base.fairness import Slices
from broker.base.identity import Identity
from broker.executions import conversations
from broker.executions.attachments import Attachment
from broker.executions.conversations import Turn
from broker.executions.types import ExecutionSummary
from broker.http.gateway import READS, SLICE_SECONDS, Gateway
from broker.protocols.ai_sdk.approvals import are_wanted
from broker.protocols.ai_sdk.chat import conversation_of
from broker.protocols.ai_sdk.message import MessageBuilder, size
from broker.protocols.ai_sdk.ui_messages import Conversation, UiMessage
from emitter.events import TERMINAL_STATES

MAX_TURNS = 50
MAX_BYTES = 8 * 1024 * 1024
"""Of all messages but the last question and its answer."""


class Conversations:
    """The handler."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def get(self, request: web.Request) -> web.Response:
        """A chat that nobody has heard of has no messages."""
        identity = await self._gateway.identify(request, "executions:read", rate=READS)
        chat_id = request.match_info["chatId"]
        async with self._gateway.folding(identity):
            body = msgspec.json.encode(await self._read(identity, chat_id))
        return web.json_response(body=body)

    async def _read(self, identity: Identity, chat_id: str) -> Conversation:
        """The newest first, as long as there is room."""
        commands, owner = self._gateway.commands, identity.owner
        valid, omitted = await conversations.answered(commands, owner, conversation_of(chat_id), MAX_TURNS)
        messages: list[UiMessage] = []
        room = MAX_BYTES
        for number, summary in reversed([*enumerate(valid)]):
            turn = await self._turn(identity, summary)
            room -= sum(map(size, turn))
            if room < 0 and messages:
                omitted += number + 1
                break
            messages = [*turn, *messages]
        return Conversation(chat_id, messages, omitted)

    async def _turn(self, identity: Identity, summary: ExecutionSummary) -> list[UiMessage]:
        params = await self._gateway.commands.params(identity.owner, summary.execution_id)
        asked = conversations.asked(summary.task or "", summary.metadata or {}, params)
        question = UiMessage(
            conversations.message_of(summary) or f"{summary.execution_id}-asked", "user", parts_of(asked)
        )
        return [question, await self._answer(identity, summary)] if summary.state in TERMINAL_STATES else [question]

    async def _answer(self, identity: Identity, summary: ExecutionSummary) -> UiMessage:
        commands, owner, execution_id = self._gateway.commands, identity.owner, summary.execution_id
        wanted, slices = are_wanted(summary.metadata), Slices(SLICE_SECONDS)
        builder = MessageBuilder(execution_id, summary.attempt or 1, with_approvals=wanted)
        builder.open()
        async for entries in commands.pages(owner, execution_id):
            builder.add(entries)
            await slices.pause()
        if not builder.is_over and (end := await commands.terminal_event(owner, execution_id)):
            builder.add([end])
        return builder.message


def parts_of(turn: Turn) -> list[dict[str, Any]]:
    """What somebody said, in the order in which pages send it: files, words, and the app's own. Never nothing."""
    files, own = [*map(_file, turn.attachments)], [*map(_own, turn.data)]
    words = [{"type": "text", "text": turn.content}] if turn.content or not (files or own) else []
    return [*files, *words, *own]


def _own(part: dict[str, Any]) -> dict[str, Any]:
    """A data part, of another protocol's client too."""
    is_ours = isinstance(type_ := part.get("type"), str) and type_[:5] == "data-"
    return part if is_ours else {"type": "data-other", "data": part.get("data", part)}


def _file(file: Attachment) -> dict[str, Any]:
    """A `file` part; clients want a type, and a URL even where there is only a handle at a provider."""
    part: dict[str, Any] = {"type": "file", "mediaType": file.media_type or "application/octet-stream"}
    part["url"] = file.url or ""
    if file.name is not None:
        part["filename"] = file.name
    if file.references:
        part["providerReference"] = file.references
    return part
