"""What a request carries with it: its id, and the trace that it is part of."""

from __future__ import annotations

import random
import re

from aiohttp import web

from emitter.tracing.trace import Trace, read_trace

REQUEST_ID = web.RequestKey("request_id", str)
REQUEST_ID_HEADER = "X-Request-ID"

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


def request_id_of(request: web.Request) -> str:
    """The client's `X-Request-ID` when it is sane, else one made here; the same for all of the request's life."""
    known = request.get(REQUEST_ID)
    if known is None:
        given = request.headers.get(REQUEST_ID_HEADER, "")
        outcome = getattr(request.protocol, "outcome", None)  # of `broker.http.connection`
        made = new_request_id() if outcome is None else outcome.request_id
        known = request[REQUEST_ID] = given if _SANE_REQUEST_ID.match(given) else made
    return known


def new_request_id() -> str:
    """16 hexadecimal digits, unlikely to be those of another request. It is no secret."""
    return f"{random.getrandbits(64):016x}"


TRACE = web.RequestKey("trace", Trace)


def trace_of(request: web.Request) -> Trace | None:
    """Where in a trace a request stands: in the span that was made for it, else in that of its `traceparent`."""
    made: Trace | None = request.get(TRACE)
    if made is not None:
        return made
    parents = request.headers.getall("traceparent", ())
    return read_trace(parents, request.headers.getall("tracestate", ())) if parents else None
