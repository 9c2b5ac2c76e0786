"""The REST binding ("HTTP+JSON"): of 1.0 under `/a2a`, of 0.3 under `/a2a/v1`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from broker.auth import Identity
from broker.protocols.a2a.calls import Call, Calls
from broker.protocols.a2a.card import Cards
from broker.protocols.a2a.errors import INVALID_PARAMS, PARSE, A2AError, to_a2a
from broker.protocols.a2a.renderer import JSON_HEADERS
from broker.protocols.a2a.v03_rest import V03Rest
from broker.protocols.a2a.v10 import V10
from broker.protocols.a2a.versions import NEW, OLD, Family, version_of
from broker.protocols.a2a.wire import Wire, encode

WIRES: dict[Family, Wire] = {OLD: V03Rest(), NEW: V10()}
SPOKEN: dict[Family, tuple[str, ...]] = {OLD: ("0.2", "0.3"), NEW: ("1.0",)}
_NUMBERS = ("historyLength", "pageSize")
_FLAGS = ("includeArtifacts",)

Operation = Callable[[Call, dict[str, Any]], Awaitable[web.StreamResponse]]


class Rest:
    """The endpoints. `identify(request, scope)` says who calls; `read(request)` gives the body."""

    def __init__(
        self,
        identify: Callable[[web.Request, str], Awaitable[Identity]],
        read: Callable[[web.Request], Awaitable[bytes]],
        calls: Calls,
        cards: Cards,
    ) -> None:
        self._identify = identify
        self._read = read
        self._calls = calls
        self._cards = cards

    def routes(self) -> list[web.RouteDef]:
        old, new = "/a2a/v1", "/a2a"
        operations: list[tuple[str, str, Operation]] = [
            ("POST", "/message:send", self._send),
            ("POST", "/message:stream", self._stream),
            ("GET", "/tasks", self._list),
            ("GET", "/tasks/{id:[^/:]+}", self._get),
            ("POST", "/tasks/{id:[^/:]+}:cancel", self._cancel),
            ("GET", "/tasks/{id:[^/:]+}:subscribe", self._subscribe),
            ("POST", "/tasks/{id:[^/:]+}:subscribe", self._subscribe),
            ("*", "/tasks/{id:[^/:]+}/pushNotificationConfigs", self._calls.push),
            ("*", "/tasks/{id:[^/:]+}/pushNotificationConfigs/{config:[^/]+}", self._calls.push),
        ]
        table: list[tuple[str, str, Family, Operation]] = [
            *((method, old + path, OLD, run) for method, path, run in operations),
            *((method, new + path, NEW, run) for method, path, run in operations),
            ("GET", old + "/card", OLD, self._card),
            ("GET", new + "/extendedAgentCard", NEW, self._card),
            ("GET", "/agent/authenticatedExtendedCard", OLD, self._card),  # 0.2.5: beside the endpoint's own path
        ]
        return [web.route(method, path, self._handler(family, run)) for method, path, family, run in table]

    def _handler(self, family: Family, run: Operation) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            identity = await self._identify(request, "executions:read")
            try:
                version_of(request, SPOKEN[family])
                call = Call(request, identity, WIRES[family], encode)
                return await run(call, await self._params(request))
            except Exception as error:
                known = to_a2a(error)
                if known is None:
                    raise
                return _refuse(known, family)

        return handle

    async def _params(self, request: web.Request) -> dict[str, Any]:
        """Body, query and path as one: the path counts most."""
        body = await self._read(request) if request.can_read_body else b""
        try:
            given = msgspec.json.decode(body or b"{}")
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise A2AError(PARSE, f"the body is no JSON: {error}") from error
        if not isinstance(given, dict):
            raise A2AError(INVALID_PARAMS, "the body is an object")
        query = {name: _typed(name, text) for name, text in request.query.items()}
        return {**query, **given, **request.match_info}

    # --- operations --------------------------------------------------------------------------------------------------

    async def _send(self, call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await self._calls.send(call, call.wire.read_send(params), streams=False)

    async def _stream(self, call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await self._calls.send(call, call.wire.read_send(params), streams=True)

    async def _get(self, call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await self._calls.get(call, call.wire.read_ask(params))

    async def _list(self, call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await self._calls.list(call, call.wire.read_list(params))

    async def _cancel(self, call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await self._calls.cancel(call, call.wire.read_ask(params))

    async def _subscribe(self, call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await self._calls.subscribe(call, call.wire.read_ask(params))

    async def _card(self, call: Call, _: dict[str, Any]) -> web.StreamResponse:
        return call.respond(await self._cards.extended(call.request))


def _typed(name: str, text: str) -> Any:
    """A query's text as the params have it; what does not fit is refused where they are read."""
    if name in _NUMBERS and text.isdecimal() and len(text) <= 9:
        return int(text)
    if name in _FLAGS and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text


def _refuse(error: A2AError, family: Family) -> web.Response:
    body = error.rest() if family == NEW else error.old_rest()
    headers = {**JSON_HEADERS, "Connection": "keep-alive"}
    return web.Response(status=error.kind.status, body=encode(body), headers=headers)
