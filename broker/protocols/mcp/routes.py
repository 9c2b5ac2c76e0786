"""The endpoint `/mcp` of both eras (basic/transports/streamable-http), and where its tokens come from (RFC 9728)."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from redis.asyncio import Redis

from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.base.settings import Settings
from broker.http.body_shape import check_shape
from broker.http.gateway import READS, Gateway
from broker.log.history import History
from broker.protocols.live_agents import LiveAgents
from broker.protocols.mcp.caller import Caller, Method, base_of
from broker.protocols.mcp.calls import Answers, Calls
from broker.protocols.mcp.methods import SESSION, Listening, Methods
from broker.protocols.mcp.resources import TaskReader
from broker.protocols.mcp.resume import read_id
from broker.protocols.mcp.rpc import (
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE,
    Json,
    McpError,
    Message,
    encode,
    error_response,
    id_of,
    read_message,
    response,
    to_mcp,
)
from broker.protocols.mcp.versions import METADATA, is_modern, legacy_client, modern_client

SCOPES = ("executions:read", "executions:write")
LOCAL = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?\Z", re.ASCII)


class Mcp:
    """The handlers."""

    def __init__(self, gateway: Gateway, redis: Redis, history: History, version: str, settings: Settings) -> None:
        self._gateway = gateway
        self._public_url = settings.public_url
        self._issuer = settings.jwt_issuer
        self._origins = _origins(settings)
        ttl_ms = int(settings.log_ttl_seconds * 1000) or None
        agents, tasks = LiveAgents(redis), TaskReader(redis, gateway.commands, ttl_ms)
        answers = Answers(gateway, redis, tasks)
        self._calls = Calls(
            gateway, redis, history, agents, tasks, answers.give, answers.give_ahead, settings.mcp_hold_seconds
        )
        self._methods = methods = Methods(gateway, agents, tasks, answers.give, version)
        shared: dict[str, Method] = {**methods.shared, "tools/call": self._calls.call}
        listening = Listening(gateway, redis, tasks)
        self._modern = {**shared, **methods.modern, "subscriptions/listen": listening.listen}
        self._legacy = {**shared, **methods.legacy}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/mcp", self.post),
            web.get("/mcp", self.resume, allow_head=False),
            web.get(METADATA, self.metadata),
            web.get(METADATA + "/mcp", self.metadata),
        ]

    async def metadata(self, request: web.Request) -> web.Response:
        """What a client needs to get a token. Anybody may ask."""
        servers = [self._issuer] if self._issuer and self._issuer.startswith("https://") else []
        about = {
            "resource": base_of(request, self._public_url) + "/mcp",
            **({"authorization_servers": servers} if servers else {}),
            "scopes_supported": list(SCOPES),
            "bearer_methods_supported": ["header"],
            "resource_name": "Runcast",
        }
        return _json(about)

    # --- the endpoint ------------------------------------------------------------------------------------------------

    async def post(self, request: web.Request) -> web.StreamResponse:
        """One message. Raises `Problem` for what JSON-RPC has no word for."""
        identity = await self._identify(request)
        envelope: Any = None
        is_new = True
        try:
            body = await self._gateway.read_body(request)
            async with self._gateway.working(request):
                envelope = _decode(body)
            message = read_message(envelope)
            is_new = is_modern(message, request.headers)
            return await self._dispatch(request, identity, message, is_new=is_new)
        except Exception as error:
            known = to_mcp(error)
            if known is None or isinstance(error, web.HTTPException):
                raise
            # Clients of the old era take an error with another status for a broken transport.
            status = known.kind.status if is_new or known.kind in (PARSE, INVALID_REQUEST) else 200
            return _json(error_response(id_of(envelope), known.error()), status=status)

    async def _dispatch(
        self, request: web.Request, identity: Identity, message: Message, *, is_new: bool
    ) -> web.StreamResponse:
        client = modern_client(message, request.headers) if is_new and message.id is not None else None
        if client is None:
            client = legacy_client(request.headers)
        caller = Caller(request, identity, client, message, base_of(request, self._public_url))
        if message.id is None or message.method is None:
            return await self._accept(caller, is_new=is_new)
        method = (self._modern if is_new else self._legacy).get(message.method)
        if method is None:
            raise McpError(METHOD_NOT_FOUND, f"there is no method {message.method[:64]!r}")
        result = await method(caller)
        if isinstance(result, web.StreamResponse):
            return result
        shown = {"resultType": "complete", **result} if is_new else result
        return _json(response(message.id, shown), session=request.get(SESSION))

    async def _accept(self, caller: Caller, *, is_new: bool) -> web.Response:
        """A notification, or a response to a request of ours: nothing is answered."""
        if not is_new and caller.message.method is None:
            await self._methods.responded(caller)
        elif not is_new:
            await self._methods.notified(caller)
        return web.Response(status=202)

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """Continue a stream of the old era, on whatever edge. There is no stream but those of calls."""
        identity = await self._identify(request)
        last = request.headers.get("Last-Event-ID")
        if not last:
            raise web.HTTPMethodNotAllowed("GET", ["POST"])
        client = legacy_client(request.headers)
        caller = Caller(request, identity, client, Message(None, None, {}), base_of(request, self._public_url))
        return await self._calls.resume(caller, read_id(last))

    # --- who may -----------------------------------------------------------------------------------------------------

    async def _identify(self, request: web.Request) -> Identity:
        """Raises `Problem` 401 and 403, with where a token is to be had."""
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._origins and not LOCAL.match(origin):
            raise Problem(403, "foreign-origin", "this page may not call: RUNCAST_CORS_ORIGINS names those that may")
        try:
            return await self._gateway.identify(request, "executions:read", rate=READS)
        except Problem as problem:
            if (challenge := problem.headers.get("WWW-Authenticate")) is not None:
                where = f'resource_metadata="{base_of(request, self._public_url)}{METADATA}/mcp"'
                scope = "" if "scope=" in challenge else f', scope="{" ".join(SCOPES)}"'
                problem.headers["WWW-Authenticate"] = f"{challenge}, {where}{scope}"
            raise


def _origins(settings: Settings) -> Collection[str]:
    """Pages that may call: those of the settings, and our own."""
    own = urlsplit(settings.public_url or "")
    return {*settings.cors_origins, *([f"{own.scheme}://{own.netloc}"] if own.netloc else [])}


def _decode(body: bytes) -> Any:
    """Raises `McpError`, and `Problem` 413."""
    check_shape(body)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise McpError(PARSE, f"the body is no JSON: {error}") from error


def _json(value: Json, *, status: int = 200, session: str | None = None) -> web.Response:
    headers = {"Cache-Control": "no-store"} | ({"Mcp-Session-Id": session} if session else {})
    body = encode(value)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
