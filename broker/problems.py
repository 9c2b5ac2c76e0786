"""Errors as clients see them: RFC 9457 `application/problem+json`, made in one place from whatever was raised.

`setup(app)` gives every response an `X-Request-ID` and turns every error into a problem.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from redis import exceptions as redis_errors

from broker.tracing import trace_of
from emitter import errors
from emitter.tracing import log_fields

REQUEST_ID = web.RequestKey("request_id", str)
REQUEST_ID_HEADER = "X-Request-ID"
TYPE_PREFIX = "urn:runcast:problem:"
RESPONSE_HEADERS = {
    "Server": "runcast",  # and not which versions of what it is made of
    "X-Content-Type-Options": "nosniff",
}
"""What every response has."""
BODY_CODINGS = ("identity", "gzip", "deflate")
"""What a request's body may be in, and aiohttp unpacks."""
RETRY_AFTER_OUTAGE_SECONDS = 2
RETRY_AFTER_QUEUED_SECONDS = 30

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_PREPARED = web.RequestKey("prepared", web.StreamResponse)
_AT = re.compile(r"at `(\$[^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")
_NAMED = re.compile(r"(executionId|user|org): ")

# Redis is away, starting, failing over or full: nothing the client did, and worth another try.
_REDIS_AWAY = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.ReadOnlyError,
    redis_errors.ClusterDownError,
    redis_errors.RedisClusterException,
    redis_errors.TryAgainError,
    redis_errors.OutOfMemoryError,
    errors.RedisUnavailable,
    errors.QueueFull,
    errors.EventsLost,
    TimeoutError,
)
_REFUSED_FOR_NOW = ("NOREPLICAS ", "MISCONF ", "MASTERDOWN ", "BUSY ")
"""How errors of a Redis begin that answers, but takes no writes for a while, or nothing."""
_NO_RIGHT_IN_SCRIPT = ("The user executing the script ", "ACL failure in script")
"""How Redis and Valkey begin to say that a script's caller lacks a right."""


class Problem(Exception):
    """An answer that is not what the client asked for.

    `slug` names the kind of problem (`unauthorized`) and, after `TYPE_PREFIX`, is its `type`; `title` is the kind in
    words (made from the slug if not given); `detail` is about this one case. `extensions` become members of the body.
    """

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str = "",
        *,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extensions: Any,
    ) -> None:
        super().__init__(detail or slug)
        self.status = status
        self.slug = slug
        self.title = title or slug.replace("-", " ").capitalize()
        self.detail = detail
        self.headers = dict(headers or {})
        self.extensions = extensions

    def body(self, request_id: str) -> dict[str, Any]:
        """The members of the JSON object; the standard ones win over extensions of the same name."""
        standard = {"type": TYPE_PREFIX + self.slug, "title": self.title, "status": self.status}
        if self.detail:
            standard["detail"] = self.detail
        return {**self.extensions, **standard, "requestId": request_id}


def problem_response(problem: Problem, request_id: str) -> web.Response:
    return web.Response(
        status=problem.status,
        body=msgspec.json.encode(problem.body(request_id)),
        content_type="application/problem+json",
        headers={**problem.headers, "Cache-Control": "no-store"},
    )


def unsupported_coding() -> Problem:
    detail = "a body's Content-Encoding is gzip or deflate"
    return Problem(415, "unsupported-coding", detail, headers={"Accept-Encoding": "gzip, deflate"})


def retry_after(seconds: float) -> dict[str, str]:
    """The header, in whole seconds rounded up, at least one."""
    return {"Retry-After": str(max(1, -int(-seconds // 1)))}


# --- from exceptions -------------------------------------------------------------------------------------------------


def is_away(error: Exception) -> bool:
    """Whether Redis cannot do just now what it was asked, or may not: an operator gives the edge's user its rights."""
    is_refusal = isinstance(error, redis_errors.ResponseError) and str(error).startswith(_REFUSED_FOR_NOW)
    return is_refusal or isinstance(error, _REDIS_AWAY) or lacks_right(error)


def lacks_right(error: Exception) -> bool:
    """Whether the edge's user in Redis may not do what it was asked."""
    is_script = isinstance(error, redis_errors.ResponseError) and str(error).startswith(_NO_RIGHT_IN_SCRIPT)
    return is_script or isinstance(error, redis_errors.NoPermissionError)


def to_problem(error: Exception) -> Problem | None:
    """The problem an exception stands for, or None for one that nobody foresaw."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, web.HTTPException):
        return _from_http(error)
    if is_away(error):
        headers = retry_after(RETRY_AFTER_OUTAGE_SECONDS)
        how = "refuses this edge" if lacks_right(error) else "does not answer"
        return Problem(503, "unavailable", f"the event store {how}; try again", headers=headers)
    return _from_input(error) or _from_refusal(error)


def _from_http(error: web.HTTPException) -> Problem:
    """aiohttp's own errors: no route, wrong method, body too large. Its headers (`Allow`) stay."""
    headers = {name: value for name, value in error.headers.items() if name.lower() != "content-type"}
    default = f"{error.status}: {error.reason}"
    detail = error.text if error.status < 500 and error.text and error.text != default else ""
    title = error.reason or "Error"
    return Problem(error.status, title.lower().replace(" ", "-"), detail, title=title, headers=headers)


def _from_input(error: Exception) -> Problem | None:
    """What the client sent cannot be used."""
    match error:
        case errors.InvalidEvent(detail=detail):
            return Problem(422, "invalid", detail, **_path(detail))
        case errors.PayloadTooLarge(size=size, limit=limit):
            return Problem(413, "payload-too-large", str(error), size=size, limit=limit)
        case msgspec.ValidationError():
            return Problem(422, "invalid", str(error), **_path(str(error)))
        case msgspec.DecodeError():
            return Problem(400, "malformed", str(error))
        case RecursionError():  # of what was just shallow enough to be decoded
            return Problem(400, "malformed", "the body is nested too deeply")
    return None


def _path(detail: str) -> dict[str, Any]:
    """Where in the body the error is, as msgspec and our own checks say it: `$.plan.phases[0].id`."""
    if named := _NAMED.match(detail):
        return {"path": "$." + named[1]}
    at, missing = _AT.search(detail), _MISSING.search(detail)
    path = (at[1] if at else "$") + ("." + missing[1] if missing else "")
    return {"path": path} if at or missing else {}


def _from_refusal(error: Exception) -> Problem | None:
    """The log did not take what was asked."""
    match error:
        case errors.UnknownExecution():
            return Problem(404, "unknown-execution", "there is no such execution")
        case errors.UnknownInput():
            return Problem(404, "unknown-input", str(error))
        case errors.ExecutionEnded(state=state):
            return Problem(409, "execution-ended", str(error), state=state)
        case errors.ExecutionExists(state=state):
            return Problem(409, "execution-exists", str(error), state=state)
        case errors.AlreadyAnswered(answer=answer):
            return Problem(409, "already-answered", str(error), **_answerer(answer))
        case errors.Superseded(attempt=attempt):
            return Problem(409, "superseded", str(error), attempt=attempt)
        case errors.InputExpired():
            return Problem(409, "input-expired", str(error))
        case errors.ExecutionOwned():
            return Problem(409, "execution-owned", "a worker runs this execution")
        case errors.TooManyQueued(limit=limit):
            headers = retry_after(RETRY_AFTER_QUEUED_SECONDS)
            return Problem(429, "too-many-queued", str(error), limit=limit, headers=headers)
        case errors.TooManyInputs(limit=limit):
            return Problem(409, "too-many-inputs", str(error), limit=limit)
    return None


def _answerer(answer: str) -> dict[str, Any]:
    """Who gave the answer that counts, and when (ms), from its stored JSON."""
    try:
        stored = msgspec.json.decode(answer, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
    return {"answeredBy": stored.get("by"), "answeredAt": stored.get("at")}


# --- in an application -----------------------------------------------------------------------------------------------


def setup(app: web.Application) -> None:
    app.middlewares.append(problems)
    app.on_response_prepare.append(_name_response)


async def _name_response(request: web.Request, response: web.StreamResponse) -> None:
    # A signal, not the middleware: a stream's head is sent long before its handler returns.
    response.headers[REQUEST_ID_HEADER] = request_id_of(request)
    response.headers.update(RESPONSE_HEADERS)
    request[_PREPARED] = response


def request_id_of(request: web.Request) -> str:
    """The client's `X-Request-ID` when it is sane, else one made here; the same for all of the request's life."""
    known = request.get(REQUEST_ID)
    if known is None:
        given = request.headers.get(REQUEST_ID_HEADER, "")
        known = request[REQUEST_ID] = given if _SANE_REQUEST_ID.match(given) else secrets.token_hex(8)
    return known


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    request_id = request_id_of(request)
    try:
        if (request.headers.get("Content-Encoding") or "identity").lower() not in BODY_CODINGS:
            raise unsupported_coding()
        return await handler(request)
    except ConnectionResetError:
        raise  # the client left; there is nobody to tell
    except Exception as error:  # the last place before aiohttp's own plain text error
        if isinstance(error, web.HTTPException) and error.status < 400:
            raise
        problem = to_problem(error)
        log = structlog.get_logger("broker.problems")
        if lacks_right(error):
            log.error("redis_right_missing", error=str(error)[:200], request_id=request_id)
        if problem is None:
            about = {"method": request.method, "path": request.path, **log_fields(trace_of(request))}
            log.exception("request_failed", request_id=request_id, **about)
            problem = Problem(500, "internal-error", "the server failed; its log has more under this requestId")
        return _answer(request, problem, request_id)


def _answer(request: web.Request, problem: Problem, request_id: str) -> web.StreamResponse:
    started: web.StreamResponse | None = request.get(_PREPARED)
    if started is None:
        return problem_response(problem, request_id)
    # The head is out. Ending the body cleanly would pass for success, so the connection is cut instead.
    if request.transport is not None:
        request.transport.abort()
    return started
