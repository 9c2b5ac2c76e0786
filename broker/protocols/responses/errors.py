"""An error as OpenAI's clients read it: `{"error": {message, type, param, code}}` (Open Responses, "Errors"). Pure."""

from __future__ import annotations

import msgspec
from aiohttp import web

from broker.base.problem import Problem

_TYPES = {400: "invalid_request", 404: "not_found", 429: "too_many_requests"}
_CODES = {
    "unknown-agent": ("model_not_found", "model"),
    "unknown-execution": ("response_not_found", None),
    "too-many-requests": ("rate_limit_exceeded", None),
}
"""What a kind of problem is called here, and the parameter that it is about."""
_STATUS = {"unknown-agent": 404}
INVALID = 422
"""A request that does not fit is 400 here."""


def error_response(problem: Problem, request_id: str) -> web.Response:
    """A problem in this form, whatever it is about. `code` is its kind; `param` is where in the body it is."""
    status = _STATUS.get(problem.slug, 400 if problem.status == INVALID else problem.status)
    code, param = _CODES.get(problem.slug, (problem.slug.replace("-", "_"), None))
    path = problem.extensions.get("path")
    if param is None and isinstance(path, str):
        param = path.removeprefix("$").removeprefix(".") or None
    message = problem.detail or problem.title
    known = problem.extensions.get("known")
    if problem.slug == "unknown-agent" and known:
        message = f"{message}; there are: {', '.join(known)}"[:2000]
    error = {"message": message, "type": _type(problem.status, status), "param": param, "code": code}
    return web.Response(
        status=status,
        body=msgspec.json.encode({"error": {**error, "request_id": request_id}}),
        content_type="application/json",
        headers={**problem.headers, "Cache-Control": "no-store"},
    )


def _type(status: int, shown: int) -> str:
    return _TYPES.get(shown) or ("server_error" if status >= 500 else "invalid_request")
