"""`GET /a2a/stream?taskId=`: a task for an `EventSource`, which comes back with `Last-Event-ID` by itself."""

from __future__ import annotations

from aiohttp import web

from broker.auth.permissions import require_execution
from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.http.gateway import Gateway
from broker.protocols.a2a.codec import Codec
from broker.protocols.a2a.errors import A2AError
from broker.protocols.a2a.projection import TaskProjection
from broker.protocols.a2a.renderer import TaskStream
from broker.protocols.a2a.simple import Simple
from broker.protocols.a2a.tasks import Tasks
from broker.protocols.a2a.v03 import V03
from broker.protocols.a2a.v10 import V10
from broker.protocols.a2a.versions import OLD, version_of
from emitter.wire.ids import EventId, parse_event_id


class Watching:
    """The endpoint."""

    def __init__(self, gateway: Gateway, tasks: Tasks) -> None:
        self._gateway = gateway
        self._tasks = tasks

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The task and all its updates to its end; after a cursor, only what follows; 204 if nothing ever will."""
        identity = await self._gateway.identify(request, "executions:read", ticket=True)
        task_id = request.query.get("taskId")
        if not task_id:
            raise Problem(400, "invalid-parameter", "taskId names the task", path="taskId")
        require_execution(identity, task_id)  # before anything is read: a response would reveal what exists
        async with self._gateway.folding(identity):
            projection = await self._projection(request, identity, task_id)
        codec = _codec(request)
        if projection.is_terminal:
            return web.Response(status=204)
        rendering = TaskStream(projection, codec, is_followed=True, is_introduced=projection.last.seq > 0)
        return await self._gateway.show(request, identity, task_id, rendering)

    async def _projection(self, request: web.Request, identity: Identity, task_id: str) -> TaskProjection:
        """Told up to the client's cursor. Where that is no place of this log, from the beginning."""
        opening = await self._tasks.opening(identity.owner, task_id)
        cursor = _cursor(request)
        if cursor is None:
            return TaskProjection(opening)
        try:
            reached = await self._tasks.reach(identity.owner, task_id, cursor)
        except A2AError:
            return TaskProjection(opening)
        return TaskProjection(opening) if reached.lost else reached.then


def _codec(request: web.Request) -> Codec:
    form = request.query.get("format")
    if form not in (None, "simple"):
        raise Problem(400, "invalid-parameter", "format is simple, or left out", path="format")
    if form == "simple":
        return Simple()
    return V03() if version_of(request) == OLD else V10()


def _cursor(request: web.Request) -> EventId | None:
    text = request.headers.get("Last-Event-ID") or request.query.get("lastEventId")
    try:
        return parse_event_id(text) if text else None
    except ValueError:
        return None  # an `EventSource` that gets an error never comes back: it begins again
