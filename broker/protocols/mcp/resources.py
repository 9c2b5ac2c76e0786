"""What is read: executions as tasks, as transcripts, and what their agents made."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import unquote

from redis.asyncio import Redis

from broker.executions.commands import Commands
from broker.executions.types import ExecutionState, ExecutionSummary
from broker.protocols.mcp.content import URI, contents
from broker.protocols.mcp.questions import Asked
from broker.protocols.mcp.rpc import Json
from broker.protocols.mcp.tasks import detailed
from broker.protocols.mcp.transcript import MEDIA_TYPE, transcript
from emitter.errors import UnknownExecution
from emitter.wire.ids import EXECUTION_ID, parse_event_id
from emitter.wire.keys import Owner

PAGE = 50
COMPLETED = 20
_URI = re.compile(re.escape(URI) + r"([A-Za-z0-9_-]{1,64})(?:/artifacts/(.{1,256}))?\Z", re.DOTALL)
TEMPLATES: list[Json] = [
    {
        "uriTemplate": URI + "{executionId}",
        "name": "execution",
        "title": "Transcript of an execution",
        "description": "What an agent did and said, up to now.",
        "mimeType": MEDIA_TYPE,
    },
    {
        "uriTemplate": URI + "{executionId}/artifacts/{artifactId}",
        "name": "artifact",
        "title": "What an agent made",
        "description": "A file or document of an execution.",
    },
]


class Named(NamedTuple):
    """What a URI names."""

    execution_id: str
    artifact_id: str | None


def named(uri: str) -> Named | None:
    match = _URI.match(uri)
    return None if match is None else Named(match[1], None if match[2] is None else unquote(match[2]))


class TaskReader:
    """Reads. Raises `UnknownExecution`, and redis errors."""

    def __init__(self, redis: Redis, commands: Commands, ttl_ms: int | None) -> None:
        self._redis: Any = redis
        self._commands = commands
        self.ttl_ms = ttl_ms

    async def task(self, owner: Owner, task_id: str, asked: Asked) -> Json:
        state = await self.state(owner, task_id)
        return detailed(state, asked, created_ms=await self._created_ms(owner, state), ttl_ms=self.ttl_ms)

    async def state(self, owner: Owner, execution_id: str) -> ExecutionState:
        if not EXECUTION_ID.match(execution_id):
            raise UnknownExecution(execution_id[:64])
        return await self._commands.state(owner, execution_id, with_stack=False)

    async def _created_ms(self, owner: Owner, state: ExecutionState) -> int:
        created = await self._redis.zscore(owner.index, state.execution_id)
        return int(created) if created is not None else parse_event_id(state.cursor).ms


class Resources:
    """Reads. Redis errors pass through."""

    def __init__(self, commands: Commands, tasks: TaskReader) -> None:
        self._listing = commands.listing
        self._tasks = tasks

    async def page(self, owner: Owner, cursor: str | None) -> Json:
        """Raises `Problem` 400 for a cursor that is not one of ours."""
        page = await self._listing.page(owner, state=None, limit=PAGE, cursor=cursor)
        listed: Json = {"resources": [_listed(each) for each in page.executions]}
        return listed | ({"nextCursor": page.next_cursor} if page.next_cursor else {})

    async def read(self, owner: Owner, uri: str) -> Json | None:
        """What a resource holds; None if there is none of this URI."""
        found = named(uri)
        if found is None:
            return None
        try:
            state = await self._tasks.state(owner, found.execution_id)
        except UnknownExecution:
            return None
        if found.artifact_id is None:
            return {"uri": uri, "mimeType": MEDIA_TYPE, "text": transcript(state)}
        artifacts = [each for each in state.artifacts if each.artifact_id == found.artifact_id]
        return contents(uri, artifacts[-1]) if artifacts else None

    async def complete(self, owner: Owner, beginning: str) -> Json:
        """The ids of recent executions that begin so."""
        page = await self._listing.page(owner, state=None, limit=PAGE, cursor=None, is_brief=True)
        ids = [each.execution_id for each in page.executions if each.execution_id.startswith(beginning)]
        return {"values": ids[:COMPLETED], "hasMore": len(ids) > COMPLETED}


def _listed(summary: ExecutionSummary) -> Json:
    task = (summary.task or "")[:80]
    return {
        "uri": URI + summary.execution_id,
        "name": summary.execution_id,
        "title": f"{summary.agent or 'execution'}: {task}" if task else summary.execution_id,
        "description": f"{summary.state}: {summary.task or ''}"[:300],
        "mimeType": MEDIA_TYPE,
    }
