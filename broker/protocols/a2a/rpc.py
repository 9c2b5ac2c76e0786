"""The JSON-RPC binding: one endpoint, and method names that distinguish the versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from broker.base.identity import Identity
from broker.http.body_shape import check_shape
from broker.http.gateway import READS, Gateway
from broker.live.rendering import SSE_HEADERS
from broker.protocols.a2a.call import Call, Operation, agent_of
from broker.protocols.a2a.codec import Codec, check_type, encode
from broker.protocols.a2a.errors import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE,
    VERSION,
    A2AError,
    Malformed,
    to_a2a,
)
from broker.protocols.a2a.renderer import JSON_HEADERS, rpc_result
from broker.protocols.a2a.v03 import V03
from broker.protocols.a2a.v10 import V10
from broker.protocols.a2a.versions import HEADER, METHODS, NEW, OLD, Family, version_of

CODECS: dict[Family, Codec] = {OLD: V03(), NEW: V10()}

OLD_STREAMS = ("message/stream", "tasks/resubscribe")


class Method(NamedTuple):
    family: Family
    run: Operation


class RpcRequest(NamedTuple):
    id: Any
    method: str
    params: Any


class Rpc:
    """The endpoint."""

    def __init__(self, gateway: Gateway, operations: Mapping[str, Operation]) -> None:
        self._gateway = gateway
        old = {names[0]: Method(OLD, operations[what]) for what, names in METHODS.items() if names[0] is not None}
        self._methods = old | {names[1]: Method(NEW, operations[what]) for what, names in METHODS.items()}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        identity = await self._gateway.identify(request, "executions:read", rate=READS)
        envelope: dict[str, Any] = {}
        try:
            check_type(request)
            body = await self._gateway.read_body(request)
            async with self._gateway.working(request):
                envelope = decode(body)
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
            raise Malformed(METHOD_NOT_FOUND, f"no method {asked.method[:64]!r}")
        if method.family != spoken:
            detail = f"{asked.method} is of version {method.family}; the header {HEADER} says {spoken}"
            raise A2AError(VERSION, detail, supportedVersions=method.family)
        if not isinstance(asked.params, dict):
            raise Malformed(INVALID_PARAMS, "params is an object")
        agent = agent_of(request, asked.params)
        return await method.run(Call(request, identity, CODECS[spoken], rpc_result(asked.id), agent), asked.params)


def decode(body: bytes) -> dict[str, Any]:
    """The request's object. Raises `A2AError`, and `Problem` 413."""
    check_shape(body)
    try:
        envelope = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Malformed(PARSE, f"the body is no JSON: {error}") from error
    if not isinstance(envelope, dict):
        raise Malformed(INVALID_REQUEST, "a request is one object; batches are not taken")
    return envelope


def _request_of(envelope: dict[str, Any]) -> RpcRequest:
    id_, method, params = envelope.get("id"), envelope.get("method"), envelope.get("params")
    if not _is_id(id_):
        raise Malformed(INVALID_REQUEST, "id is text or a number")
    if envelope.get("jsonrpc") != "2.0" or not isinstance(method, str):
        raise Malformed(INVALID_REQUEST, 'jsonrpc is "2.0", and method is text')
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
    # SDKs from before there was a version to say take even the errors of streams as streams only. They send nothing
    # malformed: a client that does so needs no SDK's form, and may not read streams at all.
    is_old = envelope.get("method") in OLD_STREAMS and HEADER not in request.headers
    if is_old and not isinstance(error, Malformed):
        return web.Response(body=b"data: " + body + b"\n\n", headers=SSE_HEADERS)
    return web.Response(body=body, headers=JSON_HEADERS)
