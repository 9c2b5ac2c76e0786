"""The JSON-RPC binding: one endpoint, and methods whose names tell the versions apart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from broker.auth import Identity
from broker.protocols.a2a.calls import Call, Calls
from broker.protocols.a2a.card import Cards
from broker.protocols.a2a.errors import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE,
    VERSION,
    A2AError,
    to_a2a,
)
from broker.protocols.a2a.renderer import JSON_HEADERS, STREAM_HEADERS, rpc_result
from broker.protocols.a2a.v03 import V03
from broker.protocols.a2a.v10 import V10
from broker.protocols.a2a.versions import HEADER, NEW, OLD, Family, version_of
from broker.protocols.a2a.wire import Wire, encode

WIRES: dict[Family, Wire] = {OLD: V03(), NEW: V10()}

OLD_STREAMS = ("message/stream", "tasks/resubscribe")

Operation = Callable[[Call, Any], Awaitable[web.StreamResponse]]


class Method(NamedTuple):
    family: Family
    run: Operation


class RpcRequest(NamedTuple):
    id: Any
    method: str
    params: Any


class Rpc:
    """The endpoint. `identify(request, scope)` says who calls; `read(request)` gives the body."""

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
        self._methods = self._table()

    def _table(self) -> dict[str, Method]:
        both: list[tuple[str, str, Operation]] = [
            ("message/send", "SendMessage", self._send),
            ("message/stream", "SendStreamingMessage", self._stream),
            ("tasks/get", "GetTask", self._get),
            ("tasks/cancel", "CancelTask", self._cancel),
            ("tasks/resubscribe", "SubscribeToTask", self._subscribe),
            ("tasks/pushNotificationConfig/set", "CreateTaskPushNotificationConfig", self._calls.push),
            ("tasks/pushNotificationConfig/get", "GetTaskPushNotificationConfig", self._calls.push),
            ("tasks/pushNotificationConfig/list", "ListTaskPushNotificationConfigs", self._calls.push),
            ("tasks/pushNotificationConfig/delete", "DeleteTaskPushNotificationConfig", self._calls.push),
            ("agent/getAuthenticatedExtendedCard", "GetExtendedAgentCard", self._card),
        ]
        old = {name: Method(OLD, run) for name, _, run in both}
        new = {name: Method(NEW, run) for _, name, run in both}
        return {**old, **new, "ListTasks": Method(NEW, self._list)}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        identity = await self._identify(request, "executions:read")
        envelope: dict[str, Any] = {}
        try:
            envelope = decode(await self._read(request))
            return await self._dispatch(request, identity, _request_of(envelope))
        except Exception as error:
            known = to_a2a(error)
            if known is None:
                raise
            return _refuse(request, envelope, known)

    async def _dispatch(self, request: web.Request, identity: Identity, asked: RpcRequest) -> web.StreamResponse:
        spoken = version_of(request)
        method = self._methods.get(asked.method)
        if method is None:
            raise A2AError(METHOD_NOT_FOUND, f"no method {asked.method[:64]!r}")
        if method.family != spoken:
            detail = f"{asked.method} is of version {method.family}; the header {HEADER} says {spoken}"
            raise A2AError(VERSION, detail, supportedVersions=method.family)
        if not isinstance(asked.params, dict):
            raise A2AError(INVALID_PARAMS, "params is an object")
        agent = request.match_info.get("agent")
        call = Call(request, identity, WIRES[spoken], rpc_result(asked.id), agent)
        return await method.run(call, asked.params)

    # --- operations --------------------------------------------------------------------------------------------------

    async def _send(self, call: Call, params: Any) -> web.StreamResponse:
        return await self._calls.send(call, call.wire.read_send(params), streams=False)

    async def _stream(self, call: Call, params: Any) -> web.StreamResponse:
        return await self._calls.send(call, call.wire.read_send(params), streams=True)

    async def _get(self, call: Call, params: Any) -> web.StreamResponse:
        return await self._calls.get(call, call.wire.read_ask(params))

    async def _list(self, call: Call, params: Any) -> web.StreamResponse:
        return await self._calls.list(call, call.wire.read_list(params))

    async def _cancel(self, call: Call, params: Any) -> web.StreamResponse:
        return await self._calls.cancel(call, call.wire.read_ask(params))

    async def _subscribe(self, call: Call, params: Any) -> web.StreamResponse:
        return await self._calls.subscribe(call, call.wire.read_ask(params))

    async def _card(self, call: Call, _: Any) -> web.StreamResponse:
        return call.respond(await self._cards.extended(call.request))


def decode(body: bytes) -> dict[str, Any]:
    """The request's object. Raises `A2AError`."""
    try:
        envelope = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise A2AError(PARSE, f"the body is no JSON: {error}") from error
    if not isinstance(envelope, dict):
        raise A2AError(INVALID_REQUEST, "a request is one object; batches are not taken")
    return envelope


def _request_of(envelope: dict[str, Any]) -> RpcRequest:
    id_, method, params = envelope.get("id"), envelope.get("method"), envelope.get("params")
    if not _is_id(id_):
        raise A2AError(INVALID_REQUEST, "id is text or a number")
    if envelope.get("jsonrpc") != "2.0" or not isinstance(method, str):
        raise A2AError(INVALID_REQUEST, 'jsonrpc is "2.0", and method is text')
    return RpcRequest(id_, method, {} if params is None else params)


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int | float | None) and not isinstance(value, bool)


def _is_new(request: web.Request) -> bool:
    """Whether the client knows typed errors; a version that is not spoken gets them."""
    try:
        return version_of(request) == NEW
    except A2AError:
        return True


def _refuse(request: web.Request, envelope: dict[str, Any], error: A2AError) -> web.Response:
    id_ = envelope.get("id")
    refusal = {"jsonrpc": "2.0", "id": id_ if _is_id(id_) else None, "error": error.rpc(typed=_is_new(request))}
    body = encode(refusal)
    # Clients from before there was a version to say take even the errors of streams as streams only.
    if envelope.get("method") in OLD_STREAMS and HEADER not in request.headers:
        return web.Response(body=b"data: " + body + b"\n\n", headers={**STREAM_HEADERS, "Connection": "keep-alive"})
    return web.Response(body=body, headers={**JSON_HEADERS, "Connection": "keep-alive"})
