"""What goes wrong, as A2A says it: JSON-RPC codes, HTTP statuses and reasons (specification 1.0, section 5.4), and the
usual messages (specification 0.3, sections 8.1 and 8.2), which some clients look for."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from broker.base.problem import Problem
from emitter import errors

ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
DOMAIN = "a2a-protocol.org"


class Kind(NamedTuple):
    """A kind of error. `rpc_status` is the canonical name of `google.rpc.Code`; `usual` is how its message begins."""

    name: str
    code: int
    status: int
    rpc_status: str
    reason: str
    usual: str


TASK_NOT_FOUND = Kind("TaskNotFoundError", -32001, 404, "NOT_FOUND", "TASK_NOT_FOUND", "Task not found")
TASK_NOT_CANCELABLE = Kind(
    "TaskNotCancelableError", -32002, 400, "FAILED_PRECONDITION", "TASK_NOT_CANCELABLE", "Task cannot be canceled"
)
PUSH_NOT_SUPPORTED = Kind(
    "PushNotificationNotSupportedError",
    -32003,
    400,
    "FAILED_PRECONDITION",
    "PUSH_NOTIFICATION_NOT_SUPPORTED",
    "Push Notification is not supported",
)
UNSUPPORTED = Kind(
    "UnsupportedOperationError",
    -32004,
    400,
    "FAILED_PRECONDITION",
    "UNSUPPORTED_OPERATION",
    "This operation is not supported",
)
CONTENT_TYPE = Kind(
    "ContentTypeNotSupportedError",
    -32005,
    400,
    "INVALID_ARGUMENT",
    "CONTENT_TYPE_NOT_SUPPORTED",
    "Incompatible content types",
)
MEDIA_TYPE = CONTENT_TYPE._replace(status=415)
"""Of the request itself, not of what is in it (RFC 9110, section 15.5.16)."""
VERSION = Kind(
    "VersionNotSupportedError", -32009, 400, "FAILED_PRECONDITION", "VERSION_NOT_SUPPORTED", "Version not supported"
)
PARSE = Kind("JSONParseError", -32700, 400, "INVALID_ARGUMENT", "JSON_PARSE_ERROR", "Invalid JSON payload")
INVALID_REQUEST = Kind(
    "InvalidRequestError", -32600, 400, "INVALID_ARGUMENT", "INVALID_REQUEST", "Invalid JSON-RPC Request"
)
METHOD_NOT_FOUND = Kind("MethodNotFoundError", -32601, 404, "NOT_FOUND", "METHOD_NOT_FOUND", "Method not found")
INVALID_PARAMS = Kind(
    "InvalidParamsError", -32602, 400, "INVALID_ARGUMENT", "INVALID_PARAMS", "Invalid method parameters"
)
INTERNAL = Kind("InternalError", -32603, 500, "INTERNAL", "INTERNAL_ERROR", "Internal server error")


class A2AError(Problem):
    """`detail` is about this one case, and `data` has what else is to be said, as text by name. Where the protocol has
    no say, it is a problem like any."""

    def __init__(self, kind: Kind, detail: str = "", /, **data: str) -> None:
        super().__init__(kind.status, kind.reason.lower().replace("_", "-"), detail or kind.usual)
        self.kind = kind
        self.message = f"{kind.usual}: {detail}" if detail else kind.usual
        self.data = {name: _encodable(value) for name, value in data.items()}

    def info(self) -> dict[str, Any]:
        """A `google.rpc.ErrorInfo`."""
        info: dict[str, Any] = {"@type": ERROR_INFO, "reason": self.kind.reason, "domain": DOMAIN}
        return info | {"metadata": self.data} if self.data else info

    def rpc(self, *, typed: bool) -> dict[str, Any]:
        """The `error` of a JSON-RPC response; its data is a list of typed objects since 1.0."""
        error: dict[str, Any] = {"code": self.kind.code, "message": self.message}
        if typed:
            return error | {"data": [self.info()]}
        return error | {"data": self.data} if self.data else error

    def rest(self) -> dict[str, Any]:
        """The body of a 1.0 REST response: a `google.rpc.Status`."""
        kind = self.kind
        status = {"code": kind.status, "status": kind.rpc_status, "message": self.message, "details": [self.info()]}
        return {"error": status}

    def old_rest(self) -> dict[str, Any]:
        """The body of a 0.3 REST response, where one client reads `code` and the other `type`."""
        return {"code": self.kind.code, "type": self.kind.name, "message": self.message, "data": self.data}


class Malformed(A2AError):
    """A request that is none of the protocol's, as its JSON, its method or the shape of its parameters tells."""


def to_a2a(error: Exception) -> A2AError | None:
    """What the protocol has a word for; None for what its transport must say (who calls, how often, an outage)."""
    match error:
        case A2AError():
            return error
        case errors.UnknownExecution():
            return A2AError(TASK_NOT_FOUND)
        case errors.AlreadyAnswered():
            return A2AError(UNSUPPORTED, "the task's question was answered already")
        case errors.ExecutionEnded(state=state):
            return A2AError(UNSUPPORTED, f"the task has ended: {state}", state=str(state))
        case errors.UnknownInput():
            return A2AError(INVALID_PARAMS, "the task has not asked that")
        case errors.PayloadTooLarge() | errors.InvalidEvent() | msgspec.MsgspecError():
            return A2AError(INVALID_PARAMS, str(error))
        case Problem(status=409):
            return A2AError(UNSUPPORTED, error.detail)
        case Problem(status=400 | 413 | 422):
            return A2AError(INVALID_PARAMS, error.detail or error.title, **_text(error.extensions))
    return None


def _encodable(text: str) -> str:
    """Without what no encoding of Unicode has: a header may hold any bytes, which are surrogates here."""
    return text.encode(errors="replace").decode()


def _text(extensions: dict[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in extensions.items()
    }
