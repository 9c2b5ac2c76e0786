"""The A2A endpoints. The public card needs no authentication; everything else does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from redis.asyncio import Redis

from broker.auth import Identity
from broker.commands import Commands
from broker.history import History
from broker.protocols.a2a.calls import Calls
from broker.protocols.a2a.card import PATHS, Cards
from broker.protocols.a2a.reading import Tasks
from broker.protocols.a2a.rest import Rest
from broker.protocols.a2a.rpc import Rpc
from broker.protocols.a2a.watching import Watching
from broker.stream import Streams


class A2A:
    """The handlers. `identify(request, scope)` says who calls, `admit(identity)` holds the rate of executions,
    `read(request)` gives the body within limits; all three raise `Problem`."""

    def __init__(
        self,
        identify: Callable[[web.Request, str], Awaitable[Identity]],
        admit: Callable[[Identity], Awaitable[None]],
        read: Callable[[web.Request], Awaitable[bytes]],
        redis: Redis,
        history: History,
        commands: Commands,
        streams: Streams,
        version: str,
    ) -> None:
        tasks = Tasks(redis, history, commands)
        calls = Calls(commands, streams, tasks, admit)
        self._cards = Cards(redis, version)
        self._rpc = Rpc(identify, read, calls, self._cards)
        self._rest = Rest(identify, read, calls, self._cards)
        self._watching = Watching(identify, tasks, streams)

    def routes(self) -> list[web.RouteDef]:
        return [
            *(web.get(path, self._cards.public) for path in PATHS),
            *(web.get("/a2a/{agent:[^/:]+}" + path, self._cards.public) for path in PATHS),
            web.post("/a2a", self._rpc.handle),
            web.get("/a2a/stream", self._watching.stream, allow_head=False),
            *self._rest.routes(),
            web.post("/a2a/{agent:[^/:]+}", self._rpc.handle),
        ]
