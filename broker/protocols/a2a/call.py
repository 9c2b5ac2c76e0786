"""One request, whatever its version and binding."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from aiohttp import web

from broker.base.identity import Identity
from broker.protocols.a2a.codec import Codec
from broker.protocols.a2a.errors import INVALID_PARAMS, A2AError
from broker.protocols.a2a.model import PushConfig
from broker.protocols.a2a.renderer import JSON_HEADERS, Wrap
from emitter.wire.webhooks import Webhook


class Call(msgspec.Struct, frozen=True):
    """Who asks, and how it is answered. `agent` is the one whom it is about, by its path or as its tenant."""

    request: web.Request
    identity: Identity
    codec: Codec
    wrap: Wrap
    agent: str | None = None

    def respond(self, value: Any) -> web.Response:
        return web.Response(body=self.wrap(value), headers=JSON_HEADERS)


def agent_of(request: web.Request, params: dict[str, Any]) -> str | None:
    """The agent whom a request is about: its path says it, or `tenant` (1.0). Raises `A2AError`."""
    tenant = params.get("tenant")
    if not isinstance(tenant, str | None):
        raise A2AError(INVALID_PARAMS, "tenant is text")
    return request.match_info.get("agent") or tenant or None


class Pushes(Protocol):
    """Where notifications of tasks go (`push.Push`)."""

    def hooks(self, call: Call, config: PushConfig | None) -> dict[str, Webhook]: ...

    async def add(self, call: Call, task_id: str, hooks: Mapping[str, Webhook]) -> None: ...


Operation = Callable[[Call, dict[str, Any]], Awaitable[web.StreamResponse]]
"""What is done for a call, with its parameters."""
