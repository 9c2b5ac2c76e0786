"""The A2A endpoints. The public card needs no authentication; everything else does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from aiohttp import web
from redis.asyncio import Redis

from broker.http.gateway import Gateway
from broker.log.history import History
from broker.protocols.a2a.card import PATHS, Cards
from broker.protocols.a2a.event_source import Watching
from broker.protocols.a2a.handlers import Handlers, operations
from broker.protocols.a2a.push import Push
from broker.protocols.a2a.renderer import MAX_TASK_BYTES
from broker.protocols.a2a.rest import Rest
from broker.protocols.a2a.rpc import Rpc
from broker.protocols.a2a.tasks import Tasks
from broker.streams.reconnect import for_event_source
from broker.webhooks.delivery import Make
from emitter.wire.webhooks import Form


class A2A:
    """The handlers. `public_url` is where clients find this edge, if that was said. `webhook_forms`: the bodies of
    notifications."""

    def __init__(self, gateway: Gateway, redis: Redis, history: History, version: str, public_url: str | None) -> None:
        tasks = Tasks(redis, history, gateway.commands)
        push = Push(redis, gateway.webhooks, tasks.opening, partial(tasks.read, max_bytes=MAX_TASK_BYTES))
        self.webhook_forms: Mapping[Form, Make] = {"a2a-0.3": push.old_body, "a2a-1.0": push.new_body}
        self._cards = Cards(redis, version, public_url, pushes=gateway.webhooks.is_on)
        table = operations(Handlers(gateway, tasks, self._cards, push), self._cards, push.operations())
        self._rpc = Rpc(gateway, table)
        self._rest = Rest(gateway, table)
        self._watching = Watching(gateway, tasks)

    def routes(self) -> list[web.RouteDef]:
        return [
            *(web.get(path, self._cards.public) for path in PATHS),
            *(web.get("/a2a/{agent:[^/:]+}" + path, self._cards.public) for path in PATHS),
            web.post("/a2a", self._rpc.handle),
            web.post("/a2a/", self._rpc.handle),  # as clients have it that join a base and an empty path
            web.get("/a2a/stream", for_event_source(self._watching.stream), allow_head=False),
            *self._rest.routes(),
            web.post("/a2a/{agent:[^/:]+}", self._rpc.handle),
            web.post("/a2a/{agent:[^/:]+}/", self._rpc.handle),
        ]
