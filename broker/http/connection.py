"""aiohttp's HTTP connection with two changes that no middleware can make: how it answers a request that it cannot
parse, and how it treats a client that has closed its sending side.

aiohttp has no hook for this, so its `RequestHandler` is subclassed; `web.Server` makes its own in the same way.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, ContentEncodingError, HttpProcessingError, LineTooLong
from aiohttp.streams import StreamReader

from broker.base.cycles import end_cycle_of
from broker.base.error_mapping import to_problem
from broker.base.logging import Seldom
from broker.base.problem import Problem, problem_response, unsupported_coding
from broker.base.request_context import REQUEST_ID_HEADER, new_request_id, request_id_of
from broker.http.errors import RESPONSE_HEADERS
from broker.http.open_connections import OpenConnections

KEEPALIVE_SECONDS = 75.0
MAX_LINE_BYTES = 8190
"""Of the request's line, and of each header."""
MAX_HEADERS = 128


class Acceptor(Protocol):
    """What a connection needs of its `Listener`. `draining`: each response is the last of its connection."""

    @property
    def connections(self) -> OpenConnections: ...
    @property
    def draining(self) -> bool: ...


class Unreadable:
    """Counts requests that cannot be parsed, and logs one of them a second at most."""

    def __init__(self, counter: Any) -> None:
        self._counter = counter
        self._log = Seldom("request_unreadable", level="info")

    def note(self, problem: Problem, remote: str | None) -> None:
        self._counter.inc()
        self._log.say(status=problem.status, detail=problem.detail, remote=remote)


class Outcome(NamedTuple):
    """What came of a request before it got here: its id, and the response or the error."""

    request_id: str
    result: web.StreamResponse | Exception


class Connection(web.RequestHandler):
    """One connection, until it ends or a viewer takes it over."""

    __slots__ = ("_acceptor", "_answered", "_body", "_unreadable", "has_ended", "outcome")

    def __init__(self, server: web.Server, acceptor: Acceptor, unreadable: Unreadable) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # as `AppRunner` is told that there is none
            keepalive_timeout=KEEPALIVE_SECONDS,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
        )
        self._acceptor = acceptor
        self._unreadable = unreadable
        self._answered = 0
        self._body: StreamReader | None = None
        self.has_ended = False
        """Whether the client has closed its sending side."""
        self.outcome: Outcome | None = None
        """Of its first request."""

    # --- its state for the listener ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._acceptor.connections.add(self, self._loop.time())

    def connection_lost(self, exc: BaseException | None) -> None:
        self._acceptor.connections.remove(self)
        end_cycle_of(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._body = self._messages[-1][1]
        if self._is_asked:
            self._acceptor.connections.mark_busy(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._acceptor.connections.mark_stalled(self, self._loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._acceptor.connections.clear_stalled(self)

    @property
    def _is_asked(self) -> bool:
        """Whether a request, read to the end of its head, has no answer yet."""
        return self._request_count > self._answered

    # --- a half-closed connection ------------------------------------------------------------------------------------

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio lets a protocol keep the connection open
        """The client may still wait for its response, as `nc -N` does. Only a write shows whether it has left."""
        self.has_ended = True
        return self._is_asked and (self._body is None or self._body.is_eof())

    @property
    def is_last(self) -> bool:
        """Whether the next response is the last of this connection."""
        return self._acceptor.draining or (self.has_ended and not self._messages)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException) and resp.status >= 400:  # raised before our middlewares: `Expect`
            problem = to_problem(resp)
            assert problem is not None
            assert isinstance(request, web.Request)
            resp = problem_response(problem, request_id_of(request))
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._answered += 1
            self.outcome = None
            if not self._is_asked and self.transport is not None:
                self._acceptor.connections.mark_idle(self, self._loop.time())

    # --- errors before any handler -----------------------------------------------------------------------------------

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        request_id = new_request_id()
        if isinstance(exc, ConnectionError):
            raise exc  # the client has left
        if isinstance(exc, HttpProcessingError):
            problem = unreadable(exc)
            self._unreadable.note(problem, request.remote)
        else:
            log = structlog.get_logger("broker.connection")
            log.error("request_failed", request_id=request_id, status=status, exc_info=exc)
            problem = Problem(status, "internal-error", "the server failed; its log has more under this requestId")
        if request.writer.output_size > 0:
            raise ConnectionError("a response has begun; a second one is not possible")
        response = problem_response(problem, request_id)
        response.headers.update({**RESPONSE_HEADERS, REQUEST_ID_HEADER: request_id})
        response.force_close()
        return response


def outcome_of(request: web.Request) -> web.StreamResponse | None:
    """The response that was made before, or its error raised; None for a request that is yet to be answered."""
    outcome: Outcome | None = getattr(request.protocol, "outcome", None)
    result = None if outcome is None else outcome.result
    try:
        if isinstance(result, Exception):
            raise result
        return result
    finally:
        del outcome, result  # or this frame, in the error's traceback, would hold the error


def may_have_left(request: web.Request) -> bool:
    """Whether the client has closed its sending side at least: it is gone, or still reads the answer."""
    transport = request.transport
    return transport is None or transport.is_closing() or bool(getattr(request.protocol, "has_ended", False))


async def announce_end(request: web.Request, response: web.StreamResponse) -> None:
    """A signal for `on_response_prepare`: `Connection: close` keeps clients from sending another request."""
    if isinstance(request.protocol, Connection) and request.protocol.is_last:
        response.force_close()
        response.headers["Connection"] = "close"  # aiohttp has chosen the header already


def unreadable(error: HttpProcessingError) -> Problem:
    """Why aiohttp's parser refused a request. The text repeats nothing of the request."""
    if isinstance(error, ContentEncodingError):
        return unsupported_coding()
    if isinstance(error, LineTooLong) or error.message.startswith("Too many headers"):
        detail = f"at most {MAX_HEADERS} headers of at most {MAX_LINE_BYTES} bytes each, and a request line of as many"
        return Problem(431, "headers-too-large", detail, title=HTTPStatus(431).phrase)
    if isinstance(error, BadHttpMethod):
        return Problem(400, "malformed", "this is no HTTP request")
    first = error.message.partition("\n")[0].partition(": b'")[0]
    return Problem(400, "malformed", f"the request is no valid HTTP: {first.rstrip(':')[:100]}")
