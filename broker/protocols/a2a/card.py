"""The agent card: who we are and what the live agents can do, in one document for all versions of the protocol."""

from __future__ import annotations

import hashlib
from typing import Any

from aiohttp import web
from redis.asyncio import Redis

from broker.protocols.a2a.model import EVENTS_EXTENSION, PARAMS_EXTENSION
from broker.protocols.a2a.wire import encode
from emitter import workers
from emitter.workers import AgentInfo

PATHS = ("/.well-known/agent-card.json", "/.well-known/agent.json")
MAX_AGE_SECONDS = 10
"""How long a card may be kept: agents come and go."""
MODES = ["text/plain", "application/json"]
DESCRIPTION = "Runs agents; every step of theirs can be followed live, resumed after a lost connection, and answered."
_EVENTS = "Status messages carry the agent's own events (plans, tools, progress) as a data part"
_PARAMS = "The parameters of each agent, as JSON Schema; they come as a data part of a message"


class Cards:
    """Makes cards of what workers announce."""

    def __init__(self, redis: Redis, version: str) -> None:
        self._redis = redis
        self._version = version

    async def public(self, request: web.Request) -> web.Response:
        """The card; 304 for one that the client has."""
        document = encode(await self._card(request, is_extended=False))
        etag = '"' + hashlib.sha256(document).hexdigest()[:32] + '"'
        headers = {
            "ETag": etag,
            "Cache-Control": f"public, max-age={MAX_AGE_SECONDS}",
            "Vary": "Host, X-Forwarded-Proto",
            "Content-Type": "application/json",
        }
        known = [part.strip().removeprefix("W/") for part in request.headers.get("If-None-Match", "").split(",")]
        if etag in known or "*" in known:
            return web.Response(status=304, headers=headers)
        return web.Response(body=document, headers=headers)

    async def extended(self, request: web.Request) -> dict[str, Any]:
        """The card for those who are let in."""
        return await self._card(request, is_extended=True)

    async def _card(self, request: web.Request, *, is_extended: bool) -> dict[str, Any]:
        wanted = request.match_info.get("agent")
        agents = [agent for agent in await workers.live_agents(self._redis) if wanted in (None, agent.name)]
        if wanted is not None and not agents:
            raise web.HTTPNotFound
        base = origin_of(request) + "/a2a"
        rpc = base if wanted is None else f"{base}/{wanted}"
        rest = None if wanted is not None else base
        described = agents[0].description if wanted and agents[0].description else DESCRIPTION
        return {
            "name": wanted or "Runcast",
            "description": described,
            "version": self._version,
            **_where(rpc, rest),
            "capabilities": _capabilities(agents, is_extended=is_extended),
            "defaultInputModes": MODES,
            "defaultOutputModes": MODES,
            "skills": [_skill(agent) for agent in agents],
            **_SECURITY,
            "supportsAuthenticatedExtendedCard": True,
        }


_SECURITY: dict[str, Any] = {
    # One scheme, as 1.0 writes it and as the versions before did.
    "securitySchemes": {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "httpAuthSecurityScheme": {"scheme": "bearer", "bearerFormat": "JWT"},
        }
    },
    "security": [{"bearer": []}],
    "securityRequirements": [{"schemes": {"bearer": {"list": []}}}],
}


def origin_of(request: web.Request) -> str:
    """Scheme and host as the client sees them; a proxy that ends TLS says so."""
    forwarded = request.headers.get("X-Forwarded-Proto", "")
    scheme = "https" if forwarded.split(",")[0].strip() == "https" else request.scheme
    return f"{scheme}://{request.host}"


def _where(rpc: str, rest: str | None) -> dict[str, Any]:
    """The interfaces, the best first: 1.0 lists them by version, the versions before name the one of theirs."""
    interfaces = [{"url": rpc, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]
    old = [{"url": rpc, "transport": "JSONRPC"}]
    if rest is not None:
        interfaces.append({"url": rest, "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"})
        old.append({"url": rest, "transport": "HTTP+JSON"})
    interfaces += [{"url": each["url"], "protocolBinding": each["transport"], "protocolVersion": "0.3"} for each in old]
    return {
        "supportedInterfaces": interfaces,
        "protocolVersion": "0.3.0",
        "url": rpc,
        "preferredTransport": "JSONRPC",
        "additionalInterfaces": old,
    }


def _capabilities(agents: list[AgentInfo], *, is_extended: bool) -> dict[str, Any]:
    extensions: list[dict[str, Any]] = [{"uri": EVENTS_EXTENSION, "description": _EVENTS, "required": False}]
    schemas = {agent.name: agent.input_schema for agent in agents if agent.input_schema}
    if is_extended and schemas:
        about = {"uri": PARAMS_EXTENSION, "description": _PARAMS, "required": False}
        extensions.append({**about, "params": schemas})
    return {
        "streaming": True,
        "pushNotifications": False,
        "stateTransitionHistory": False,
        "extendedAgentCard": True,
        "extensions": extensions,
    }


def _skill(agent: AgentInfo) -> dict[str, Any]:
    return {
        "id": agent.name,
        "name": agent.name,
        "description": agent.description or agent.name,
        "tags": list(agent.tags) or ["agent"],
        "inputModes": MODES,
        "outputModes": MODES,
    }
