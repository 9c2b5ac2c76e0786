"""Errors as clients see them: RFC 9457 `application/problem+json`, made in one place from every exception.

`setup(app)` gives every response an `X-Request-ID` and turns every error into a problem.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from broker.base.error_mapping import to_problem
from broker.base.outage import lacks_right
from broker.base.problem import Problem, problem_response, unsupported_coding
from broker.base.request_context import REQUEST_ID_HEADER, request_id_of, trace_of
from emitter.tracing.trace import log_fields

RESPONSE_HEADERS = {
    "Server": "runcast",  # without versions of its libraries
    "X-Content-Type-Options": "nosniff",
}
"""What every response has."""
BODY_CODINGS = ("identity", "gzip", "deflate")
"""Content codings of request bodies that aiohttp decodes."""

_PREPARED = web.RequestKey("prepared", weakref.ReferenceType[web.StreamResponse])
"""A weak reference: the response refers to its request, and the cycle would keep both until a full collection."""


ErrorForm = Callable[[Problem, str], web.Response]
"""Makes the answer of a problem and its request's id."""
_FORMS = web.AppKey("error_forms", Mapping[str, ErrorForm])


def setup(app: web.Application, forms: Mapping[str, ErrorForm] = {}) -> None:
    """`forms`: beginnings of paths below which a protocol says its errors in its own form, all of them."""
    app[_FORMS] = forms
    app.middlewares.append(problems)
    app.on_response_prepare.append(_name_response)


def named_headers(request: web.Request) -> dict[str, str]:
    return {REQUEST_ID_HEADER: request_id_of(request), **RESPONSE_HEADERS}


async def _name_response(request: web.Request, response: web.StreamResponse) -> None:
    # A signal, not the middleware: a long response's head is sent long before its handler returns.
    response.headers.update(named_headers(request))
    request[_PREPARED] = weakref.ref(response)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    request_id = request_id_of(request)
    try:
        if (request.headers.get("Content-Encoding") or "identity").lower() not in BODY_CODINGS:
            raise unsupported_coding()
        return await handler(request)
    except ConnectionResetError:
        raise  # the client has left
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
        try:
            return _answer(request, problem, request_id)
        finally:
            del problem  # which may be the error, whose traceback holds this frame: a cycle


def _answer(request: web.Request, problem: Problem, request_id: str) -> web.StreamResponse:
    if (prepared := request.get(_PREPARED)) is None:
        form = next((form for path, form in request.app[_FORMS].items() if request.path.startswith(path)), None)
        return (form or problem_response)(problem, request_id)
    # The head is out. Ending the body cleanly would pass for success, so the connection is cut instead.
    if request.transport is not None:
        request.transport.abort()
    return prepared() or web.StreamResponse()  # which nobody gets
