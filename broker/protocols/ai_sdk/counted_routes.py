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
from broker.protocols.ai_sdk.runs import Found, current, found_run

START_INDEX = re.compile(r"-?[0-9]{1,9}")
PAUSE_SECONDS = (1.0, 2.0)
PAUSED_AT_ONCE = 256
"""Who cannot be let in may be anybody, and holds a connection."""


class CountedChats:
    """The handler."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._pauses = asyncio.Semaphore(PAUSED_AT_ONCE)

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """Raises `Problem` 400, 401, 403, and 410 where the log has lost its head."""
        try:
            return await self._resume(request)
        except Exception as error:
            problem = to_problem(error)
            if problem is None or problem.status not in (429, 503):
                raise
        if not self._pauses.locked():
            async with self._pauses:
                await asyncio.sleep(random.uniform(*PAUSE_SECONDS))
        return web.Response(body=LATER, headers={**HEADERS, "Connection": "close"})  # the next may reach another edge

    async def _resume(self, request: web.Request) -> web.StreamResponse:
        start = _start_index(request)
        identity = await self._gateway.identify(request, "executions:read", rate=READS)
        async with self._gateway.folding(identity):
            found = await self._find(identity, request.match_info["chatId"])
            place = None if found is None else await self._place(identity, found, start)
        if found is None or place is None:
            return web.Response(body=NOTHING, headers=HEADERS)
        rendering = Counted(found.execution_id, place, found.approvals, after=found.after)
        return await self._gateway.show(request, identity, found.execution_id, rendering, resumes=True)

    async def _find(self, identity: Identity, named: str) -> Found | None:
        """The execution of this id, in the view that a POST of it had; or the newest of the chat, whether or not it
        runs: while no other begins, a client that asks again by its chat's id gets the same one."""
        commands, owner = self._gateway.commands, identity.owner
        if (found := await found_run(commands, owner, named)) is not None:
            return found
        newest = await conversations.recent(commands, owner, conversation_of(named), limit=1)
        return Found(newest[0].execution_id, await current(commands, owner, newest[0])) if newest else None

    async def _place(self, identity: Identity, found: Found, start: int) -> Place:
        commands, owner, execution_id = self._gateway.commands, identity.owner, found.execution_id
        if start > 0 and not await commands.has_head(owner, execution_id):
            detail = "the oldest events of this execution are gone, and with them the count of its chunks"
            raise Problem(410, "trimmed", detail, path="startIndex")
        if start >= 0:
            return Place(start)
        if start < -MAX_FROM_END:
            return Place.back_to(0, -start)
        counting = Counting(execution_id, -start, found.approvals, after=found.after)
        async for entries in commands.pages(owner, execution_id):
            counting.add(entries)
        return counting.place


def _start_index(request: web.Request) -> int:
    given = request.query["startIndex"]
    if START_INDEX.fullmatch(given) is None:
        detail = "startIndex is the number of a chunk, from 0 on, or less than 0: so many of the last ones"
        raise Problem(400, "invalid-parameter", detail, path="startIndex")
    return int(given)
