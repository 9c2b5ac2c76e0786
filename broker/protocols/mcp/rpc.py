"""JSON-RPC as MCP has it: messages, results, and errors with their HTTP statuses. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from broker.base.problem import Problem
from emitter import errors
from emitter.wire.ascii_json import ascii_json

RequestId = str | int
Json = dict[str, Any]
MAX_TEXT = 300
_encoder = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """JSON on one line whatever its reader takes for the end of a line."""
    return ascii_json(_encoder.encode(value))


class Kind(NamedTuple):
    """A kind of error: its code, and the HTTP status of a 2026-07-28 response."""

    code: int
    status: int


PARSE = Kind(-32700, 400)
INVALID_REQUEST = Kind(-32600, 400)
METHOD_NOT_FOUND = Kind(-32601, 404)
INVALID_PARAMS = Kind(-32602, 400)
INTERNAL = Kind(-32603, 500)
HEADER_MISMATCH = Kind(-32020, 400)
MISSING_CAPABILITY = Kind(-32021, 400)
VERSION = Kind(-32022, 400)
NO_RESOURCE_2025 = Kind(-32002, 400)
"""A resource that is not there, up to 2025-11-25."""
CANCELLED = Kind(-32000, 200)


class McpError(Problem):
    """`data` is what else there is to say."""

    def __init__(self, kind: Kind, message: str, **data: Any) -> None:
        super().__init__(kind.status, f"mcp{kind.code}", message)
        self.kind = kind
        self.message = message
        self.data = data

    def error(self) -> Json:
        """The `error` of a response."""
        return {"code": self.kind.code, "message": self.message} | ({"data": self.data} if self.data else {})


class Message(NamedTuple):
    """A request (`method` and `id`), a notification (`method`), or a response to a request of ours (`id`)."""

    id: RequestId | None
    method: str | None
    params: Json
    result: Any = None

    @property
    def meta(self) -> Json:
        found = self.params.get("_meta")
        return found if isinstance(found, dict) else {}


def read_message(envelope: Any) -> Message:
    """Raises `McpError`."""
    if not isinstance(envelope, dict) or envelope.get("jsonrpc") != "2.0":
        raise McpError(INVALID_REQUEST, 'a message is one object whose jsonrpc is "2.0"; batches are not taken')
    id_, method = envelope.get("id"), envelope.get("method")
    if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, str | int)):
        raise McpError(INVALID_REQUEST, "id is text or a whole number")
    if method is None and id_ is not None and ("result" in envelope or "error" in envelope):
        return Message(id_, None, {}, envelope.get("result"))
    if not isinstance(method, str):
        raise McpError(INVALID_REQUEST, "method is text")
    params = envelope.get("params")
    if params is not None and not isinstance(params, dict):
        raise McpError(INVALID_PARAMS, "params is an object")
    return Message(id_, method, params or {})


def id_of(envelope: Any) -> RequestId | None:
    """The id to answer with, of a message that may be no good."""
    id_ = envelope.get("id") if isinstance(envelope, dict) else None
    return id_ if isinstance(id_, str | int) and not isinstance(id_, bool) else None


def response(id_: RequestId | None, result: Json) -> Json:
    return {"jsonrpc": "2.0", "id": id_, "result": result}


def error_response(id_: RequestId | None, error: Json) -> Json:
    return {"jsonrpc": "2.0", "id": id_, "error": error}


def notification(method: str, params: Json) -> Json:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def text_param(params: Json, name: str) -> str:
    """Raises `McpError`."""
    value = params.get(name)
    if not isinstance(value, str) or not value:
        raise McpError(INVALID_PARAMS, f"params.{name} is text")
    return value


def object_param(params: Json, name: str) -> Json:
    """Raises `McpError`."""
    value = params.get(name)
    if value is not None and not isinstance(value, dict):
        raise McpError(INVALID_PARAMS, f"params.{name} is an object")
    return value or {}


def to_mcp(error: Exception) -> McpError | None:
    """What the protocol has a word for; None for what its transport must say (who calls, how often, an outage)."""
    match error:
        case McpError():
            return error
        case errors.UnknownExecution():
            return McpError(INVALID_PARAMS, "there is no such execution")
        case errors.NotSteerable() | errors.TooManyMessages():
            return McpError(INVALID_PARAMS, str(error)[:MAX_TEXT])
        case errors.UnknownInput() | errors.AlreadyAnswered() | errors.ExecutionEnded() | errors.ExecutionExists():
            return McpError(INVALID_PARAMS, str(error)[:MAX_TEXT])
        case errors.PayloadTooLarge() | errors.InvalidEvent() | msgspec.MsgspecError():
            return McpError(INVALID_PARAMS, str(error)[:MAX_TEXT])
        case Problem(status=400 | 404 | 409 | 413 | 422):
            return McpError(INVALID_PARAMS, (error.detail or error.title)[:MAX_TEXT], **error.extensions)
    return None
