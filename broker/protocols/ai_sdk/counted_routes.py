"""`GET /api/agent/chat/{id}/stream?startIndex=`: an execution from one of its chunks on (`counted.py`).

To this client any status but 200 is final, 204 too, and so is a request that fails. It asks again at once when a stream
ends without a `finish`; three that break are too many. So what will pass is a stream that ends after a while, and there
is no wait for nothing.
"""

from __future__ import annotations

import asyncio
import random
import re

from aiohttp import web

from broker.base.error_mapping import to_problem
from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.executions import conversations
from broker.http.gateway import READS, Gateway
from broker.protocols.ai_sdk.chat import conversation_of
from broker.protocols.ai_sdk.counted import LATER, MAX_FROM_END, NOTHING, Counted, Counting, Place
from broker.protocols.ai_sdk.renderer import HEADERS
from emitter.wire.ids import EXECUTION_ID

START_INDEX = re.compile(r"-?[0-9]{1,9}")
PAUSE_SECONDS = (1.0, 2.0)


class CountedChats:
    """The handler."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """Raises `Problem` 400, 401, 403, and 410 where the log has lost its head."""
        try:
            return await self._resume(request)
        except Exception as error:
            problem = to_problem(error)
            if problem is None or problem.status not in (429, 503):
                raise
        await asyncio.sleep(random.uniform(*PAUSE_SECONDS))
        return web.Response(body=LATER, headers={**HEADERS, "Connection": "close"})  # the next may reach another edge

    async def _resume(self, request: web.Request) -> web.StreamResponse:
        start = _start_index(request)
        identity = await self._gateway.identify(request, "executions:read", rate=READS)
        async with self._gateway.folding(identity):
            execution_id = await self._find(identity, request.match_info["chatId"])
            place = None if execution_id is None else await self._place(identity, execution_id, start)
        if execution_id is None or place is None:
            return web.Response(body=NOTHING, headers=HEADERS)
        rendering = Counted(execution_id, place)
        return await self._gateway.show(request, identity, execution_id, rendering, resumes=True)

    async def _find(self, identity: Identity, named: str) -> str | None:
        """The execution of this id, or the newest of the chat, whether or not it runs: while no other begins, a client
        that asks again by its chat's id gets the same one."""
        commands, owner = self._gateway.commands, identity.owner
        if EXECUTION_ID.match(named) and await commands.listing.summary(owner, named) is not None:
            return named
        newest = await conversations.recent(commands, owner, conversation_of(named), limit=1)
        return newest[0].execution_id if newest else None

    async def _place(self, identity: Identity, execution_id: str, start: int) -> Place:
        commands, owner = self._gateway.commands, identity.owner
        if start > 0 and not await commands.has_head(owner, execution_id):
            detail = "the oldest events of this execution are gone, and with them the count of its chunks"
            raise Problem(410, "trimmed", detail, path="startIndex")
        if start >= 0:
            return Place(start)
        if start < -MAX_FROM_END:
            return Place.back_to(0, -start)
        counting = Counting(execution_id, -start)
        async for entries in commands.pages(owner, execution_id):
            counting.add(entries)
        return counting.place


def _start_index(request: web.Request) -> int:
    given = request.query["startIndex"]
    if START_INDEX.fullmatch(given) is None:
        detail = "startIndex is the number of a chunk, from 0 on, or less than 0: so many of the last ones"
        raise Problem(400, "invalid-parameter", detail, path="startIndex")
    return int(given)
