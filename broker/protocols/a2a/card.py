"""The agent card: who we are and what the live agents can do, in one document for all versions of the protocol."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from email.utils import formatdate
from typing import Any

from aiohttp import web
from redis.asyncio import Redis

from broker.base.problem import Problem
from broker.http.addresses import origin_of
from broker.protocols.a2a.codec import encode
from broker.protocols.a2a.errors import INVALID_PARAMS, A2AError
from broker.protocols.a2a.model import EVENTS_EXTENSION, PARAMS_EXTENSION, Part
from broker.protocols.a2a.modes import check_modes
from emitter.store import announcements
from emitter.store.announcements import MODES, AgentInfo

PATHS = ("/.well-known/agent-card.json", "/.well-known/agent.json")
MAX_AGE_SECONDS = 10
"""How long a card may be kept: agents come and go."""
FRESH_SECONDS = 1.0
MAX_SEEN = 1000
"""Cards of which it is known since when they are as they are."""
NOBODY = "no live agent has this name"
DESCRIPTION = "Runs agents; every step of theirs can be followed live, resumed after a lost connection, and answered."
_EVENTS = "Status messages carry the agent's own events (plans, tools, progress) as a data part"
_PARAMS = "The parameters of each agent, as JSON Schema; they come as a data part of a message"


class Cards:
    """Makes cards of what workers announce. `pushes`: whether there are push notifications."""

    def __init__(self, redis: Redis, version: str, public_url: str | None, *, pushes: bool = False) -> None:
        self._redis = redis
        self._pushes = pushes
        self._version = version
        self._public_url = public_url
        self._asked_at = float("-inf")
        self._agents: list[AgentInfo] | None = None
        self._seen: dict[str, tuple[str, str]] = {}

    async def public(self, request: web.Request) -> web.Response:
        """The card; 304 for one that the client has. Raises `Problem` 404."""
        card = self._card(request, await self._live(), request.match_info.get("agent"), is_extended=False)
        if card is None:
            raise Problem(404, "unknown-agent", NOBODY)
        document = encode(card)
        etag = '"' + hashlib.sha256(document).hexdigest()[:32] + '"'
        headers = {
            "ETag": etag,
            "Last-Modified": self._changed_at(request, etag),
            "Cache-Control": f"public, max-age={MAX_AGE_SECONDS}",
            "Content-Type": "application/json",
        }
        if self._public_url is None:
            headers["Vary"] = "Host"
        known = [part.strip().removeprefix("W/") for part in request.headers.get("If-None-Match", "").split(",")]
        if etag in known or "*" in known:
            return web.Response(status=304, headers=headers)
        return web.Response(body=document, headers=headers)

    def _changed_at(self, request: web.Request, etag: str) -> str:
        """When this edge first had this card. Each edge has its own time, so only the tag tells whether one is new."""
        path = request.path
        known = self._seen.get(path)
        if known is None or known[0] != etag:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            known = self._seen[path] = (etag, formatdate(usegmt=True))
        return known[1]

    async def check_modes(self, parts: Iterable[Part], name: Any) -> None:
        """Raises `A2AError` if the agent of this name, or without one the only agent, does not take one of the parts.
        Of an agent without a live worker nothing is known."""
        if any(part.media_type for part in parts):
            agents = [agent for agent in await self._live() if name in (None, agent.name)]
            if len(agents) == 1:
                check_modes(parts, agents[0].input_modes)

    async def _live(self) -> list[AgentInfo]:
        """The live agents, as they were within the last second: anybody may ask, as often as he likes."""
        if self._agents is None or time.monotonic() - self._asked_at > FRESH_SECONDS:
            self._asked_at = time.monotonic()  # of those who ask at once, one reads
            try:
                self._agents = await announcements.live_agents(self._redis)
            except Exception:
                self._agents = None
                raise
        return self._agents

    async def extended(self, request: web.Request, agent: str | None, *, is_new: bool) -> dict[str, Any]:
        """The card for those who are let in, for clients of 1.0 (`is_new`) without what only those before it read.
        Raises `A2AError`."""
        card = self._card(request, await announcements.live_agents(self._redis), agent, is_extended=True)
        if card is None:
            raise A2AError(INVALID_PARAMS, NOBODY)
        return _of_new(card) if is_new else card

    def _card(
        self, request: web.Request, live: list[AgentInfo], wanted: str | None, *, is_extended: bool
    ) -> dict[str, Any] | None:
        """None where no live agent has the name that is wanted."""
        agents = [agent for agent in live if wanted in (None, agent.name)]
        if wanted is not None and not agents:
            return None
        url = (self._public_url or origin_of(request)).rstrip("/") + "/a2a"
        about = _ours() if wanted is None else _of_one(agents[0])
        return {
            **about,
            "version": self._version,
            **_where(url, wanted),
            "capabilities": _capabilities(agents, is_extended=is_extended) | {"pushNotifications": self._pushes},
            "skills": [_skill(agent) for agent in agents],
            **_SECURITY,
            "supportsAuthenticatedExtendedCard": True,
        }


_OLD = {
    "protocolVersion", "url", "preferredTransport", "additionalInterfaces", "security",
    "supportsAuthenticatedExtendedCard",
}  # fmt: skip
"""Members of a card that 1.0 does not have."""


def _of_new(card: dict[str, Any]) -> dict[str, Any]:
    schemes = {
        name: {"httpAuthSecurityScheme": scheme["httpAuthSecurityScheme"]}
        for name, scheme in card["securitySchemes"].items()
    }
    can = {name: value for name, value in card["capabilities"].items() if name != "stateTransitionHistory"}
    rest = {name: value for name, value in card.items() if name not in _OLD}
    return {**rest, "securitySchemes": schemes, "capabilities": can}


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


def _ours() -> dict[str, Any]:
    modes = {"defaultInputModes": list(MODES), "defaultOutputModes": list(MODES)}
    return {"name": "Runcast", "description": DESCRIPTION, **modes}


def _of_one(agent: AgentInfo) -> dict[str, Any]:
    modes = {"defaultInputModes": list(agent.input_modes), "defaultOutputModes": list(agent.output_modes)}
    return {"name": agent.name, "description": agent.description or DESCRIPTION, **modes}


def _where(url: str, agent: str | None) -> dict[str, Any]:
    """The interfaces, the best first: 1.0 lists them by version, the versions before name the one of theirs. An agent
    has an endpoint of its own in JSON-RPC, and is a tenant in REST, which only 1.0 knows."""
    rpc = url if agent is None else f"{url}/{agent}"
    tenant = {} if agent is None else {"tenant": agent}
    old = [{"url": rpc, "transport": "JSONRPC"}]
    if agent is None:
        old.append({"url": url, "transport": "HTTP+JSON"})
    return {
        "supportedInterfaces": [
            {"url": rpc, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
            {"url": url, "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0", **tenant},
            *({"url": each["url"], "protocolBinding": each["transport"], "protocolVersion": "0.3"} for each in old),
        ],
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
        "inputModes": list(agent.input_modes),
        "outputModes": list(agent.output_modes),
        **({"examples": [each.task for each in agent.examples]} if agent.examples else {}),
    }
