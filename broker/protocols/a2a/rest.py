"""The REST binding ("HTTP+JSON"): of 1.0 under `/a2a`, and `/a2a/{agent}` for an agent as a tenant; of 0.3 under
`/a2a/v1`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from broker.http.body_shape import check_shape
from broker.http.gateway import READS, Gateway
from broker.protocols.a2a.call import Call, Operation, agent_of
from broker.protocols.a2a.codec import Codec, check_type, encode
from broker.protocols.a2a.errors import INVALID_PARAMS, PARSE, A2AError, to_a2a
from broker.protocols.a2a.renderer import JSON_HEADERS, PLAIN
from broker.protocols.a2a.v03_rest import V03Rest
from broker.protocols.a2a.v10 import V10
from broker.protocols.a2a.versions import NEW, OLD, Family, version_of

CODECS: dict[Family, Codec] = {OLD: V03Rest(), NEW: V10()}
SPOKEN: dict[Family, tuple[str, ...]] = {OLD: ("0.2", "0.3"), NEW: ("1.0",)}
_NUMBERS = ("historyLength", "pageSize")
_FLAGS = ("includeArtifacts", "include_artifacts")

_TASK = "/tasks/{id:[^/:]+}"
_PUSH = _TASK + "/pushNotificationConfigs"
PATHS = (
    ("POST", "/message:send", "send"),
    ("POST", "/message:stream", "stream"),
    ("GET", "/tasks", "list"),
    ("GET", _TASK, "get"),
    ("POST", _TASK + ":cancel", "cancel"),
    ("GET", _TASK + ":subscribe", "subscribe"),  # which verb it is, the specification and its clients disagree about
    ("POST", _TASK + ":subscribe", "subscribe"),
    ("POST", _PUSH, "set_push"),
    ("GET", _PUSH, "list_push"),
    ("GET", _PUSH + "/{config:[^/]+}", "get_push"),
    ("DELETE", _PUSH + "/{config:[^/]+}", "delete_push"),
)
"""Below a base: what is asked, and what is done (`operations`)."""


class Rest:
    """The endpoints."""

    def __init__(self, gateway: Gateway, operations: Mapping[str, Operation]) -> None:
        self._gateway = gateway
        self._operations = operations

    def routes(self) -> list[web.RouteDef]:
        old, new, tenant = "/a2a/v1", "/a2a", "/a2a/{agent:[^/:]+}"
        table: list[tuple[str, str, Family, str]] = [
            *((method, old + path, OLD, what) for method, path, what in PATHS),
            *((method, base + path, NEW, what) for base in (new, tenant) for method, path, what in PATHS),
            ("GET", old + "/card", OLD, "card"),
            *(("GET", base + "/extendedAgentCard", NEW, "card") for base in (new, tenant)),
            ("GET", "/agent/authenticatedExtendedCard", OLD, "card"),  # 0.2.5: beside the endpoint's own path
        ]
        return [
            web.route(method, path, self._handler(family, self._operations[what]))
            for method, path, family, what in table
        ]

    def _handler(self, family: Family, run: Operation) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            identity = await self._gateway.identify(request, "executions:read", rate=READS)
            try:
                version_of(request, SPOKEN[family])
                params = await self._params(request)
                return await run(Call(request, identity, CODECS[family], PLAIN, agent_of(request, params)), params)
            except Exception as error:
                known = to_a2a(error)
                if known is None:
                    raise
                return _refuse(known, family)

        return handle

    async def _params(self, request: web.Request) -> dict[str, Any]:
        """Body, query and path as one: the path counts most."""
        if request.can_read_body:
            check_type(request)
        body = await self._gateway.read_body(request) if request.can_read_body else b""
        async with self._gateway.working(request):
            check_shape(body)
            try:
                given = msgspec.json.decode(body or b"{}")
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                raise A2AError(PARSE, f"the body is no JSON: {error}") from error
        if not isinstance(given, dict):
            raise A2AError(INVALID_PARAMS, "the body is an object")
        query = {name: _typed(name, text) for name, text in request.query.items()}
        path = dict(request.match_info)
        if "/pushNotificationConfigs" in request.path:  # there `id` is the configuration's, as in the other binding
            path["taskId"] = path.pop("id")
            if "config" in path:
                path["id"] = path.pop("config")
        return {**query, **given, **path}


def _typed(name: str, text: str) -> Any:
    """A query's text as the params have it; what does not fit is refused where they are read."""
    if name in _NUMBERS and re.fullmatch("[0-9]{1,10}", text):
        return int(text)
    if name in _FLAGS and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text


def _refuse(error: A2AError, family: Family) -> web.Response:
    body = error.rest() if family == NEW else error.old_rest()
    return web.Response(status=error.kind.status, body=encode(body), headers=JSON_HEADERS)
