"""When a client is to reconnect: after the end of a stream, and after a refusal.

An `EventSource` gives up for ever on any status but 200 (WHATWG HTML, section 9.2.3). So on its routes a temporary
refusal is an empty stream with the time to reconnect, and an error status means: never. A proxy, however, tries another
edge only after an error status: one that does so and says it (`RETRY_ON`) gets 503 where another edge may take the
stream, and makes a 200 of the last.
"""

from __future__ import annotations

import random

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from broker.base.error_mapping import to_problem
from broker.base.problem import Problem
from broker.base.reasons import CloseReason
from broker.base.request_context import request_id_of
from broker.live.sse import control_frame

STREAM_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}
RETRY_ON = "X-Runcast-Retry-On"
"""Request header of a proxy that asks another edge after this status: `503`."""
OF_THIS_EDGE = ("draining", "capacity")
"""Refusals that say nothing about other edges."""
PAUSE_SECONDS = (2.0, 10.0)
"""The least and, if the refusal names no time, the longest wait. Spread, since many are refused at once."""
DRAINING_PAUSE_SECONDS = (1.0, 3.0)
"""As above, at an edge that drains: by then the load balancer has noticed."""
MAX_PAUSE_SECONDS = 120.0
_RETRY_MS = {
    CloseReason.AGED: (100, 2000),
    CloseReason.DRAINING: (100, 2000),
    CloseReason.FAILED: (30_000, 45_000),
    CloseReason.REPLACED: (20_000, 30_000),
}
"""When a client is to reconnect. One that was replaced would replace its successor, so it waits."""


def end_frames(reason: CloseReason, retry_ms: int | None = None, **about: object) -> bytes:
    """The last frame of a stream: `stream:end` with its reason and what is `about` it, and the time to reconnect."""
    if retry_ms is None and reason in _RETRY_MS:
        retry_ms = random.randint(*_RETRY_MS[reason])
    return control_frame("stream:end", {"reason": reason, **about}, retry_ms=retry_ms)


def for_event_source(handler: Handler) -> Handler:
    """A handler of a stream that an `EventSource` may open."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ConnectionResetError:
            raise  # the client left
        except Exception as error:
            if (postponed := _postponed(request, error)) is None:
                raise
            return postponed

    return answer


def _postponed(request: web.Request, error: Exception) -> web.Response | None:
    """A stream with nothing but the time to reconnect, where that can help, with the status that its proxy needs. In a
    frame of its own: one that is in the error's traceback, and holds the problem, is a cycle."""
    foreseen = to_problem(error)
    problem = foreseen or Problem(500, "internal-error")
    if not wants_event_stream(request) or not will_pass(problem):
        return None
    about = {"path": request.path, "request_id": request_id_of(request), "problem": problem.slug}
    structlog.get_logger("broker.reconnect").info("stream_postponed", **about, exc_info=foreseen is None)
    goes_on = problem.slug in OF_THIS_EDGE and request.headers.get(RETRY_ON) == str(problem.status)
    status = problem.status if goes_on else 200
    return web.Response(status=status, body=_later(problem, request_id_of(request)), headers=STREAM_HEADERS)


def wants_event_stream(request: web.Request) -> bool:
    return "text/event-stream" in request.headers.get("Accept", "")


def will_pass(problem: Problem) -> bool:
    """Whether the same request may be answered with a stream some time later."""
    return problem.status == 429 or problem.status >= 500


def _later(problem: Problem, request_id: str) -> bytes:
    named = float(problem.headers.get("Retry-After", 0))
    least, most = DRAINING_PAUSE_SECONDS if problem.slug == "draining" else PAUSE_SECONDS
    seconds = random.uniform(max(least, named), max(most, 1.5 * named))
    retry_ms = int(1000 * min(seconds, MAX_PAUSE_SECONDS))
    return end_frames(CloseReason.REFUSED, retry_ms, problem=problem.body(request_id))
