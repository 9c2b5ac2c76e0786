"""What every HTTP interface of an edge does for its callers, whatever protocol it speaks: let them in, read what they
send, and start, cancel, answer and show executions. Counted and logged here, so that it is the same for all."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from broker.access import Access
from broker.admission import Admission
from broker.api_types import CancelResponse, ExecuteRequest, ExecuteResponse, InputRequest, InputResponse
from broker.auth import Identity, Unauthorized, act_for, require, require_execution
from broker.commands import Commands
from broker.logs import get_logger
from broker.metrics import Metrics, Protocol
from broker.problems import Problem, request_id_of, to_problem
from broker.protocols.rendering import Rendering
from broker.request import Target
from broker.seats import Seat
from broker.settings import Settings
from broker.stream import Streams
from broker.tracing import TRACE, trace_of
from emitter.tracing import Fact, Span, Tracer, log_fields

BODY_SECONDS = 30.0

B = TypeVar("B")


class Front:
    """The front of one edge as one protocol needs it; `speaking` gives that of another. `commands` are for reading."""

    def __init__(
        self,
        settings: Settings,
        access: Access,
        admission: Admission,
        streams: Streams,
        commands: Commands,
        metrics: Metrics,
        tracer: Tracer,
    ) -> None:
        self.commands = commands
        self._settings = settings
        self._access = access
        self._admission = admission
        self._streams = streams
        self._metrics = metrics
        self._tracer = tracer
        self._protocol = Protocol.NATIVE
        self._log = get_logger()

    def speaking(self, protocol: Protocol) -> Front:
        other = copy.copy(self)
        other._protocol = protocol
        return other

    # --- who, and what they send -------------------------------------------------------------------------------------

    async def identify(self, request: web.Request, *scopes: str, ticket: bool = False) -> Identity:
        """Who calls. Raises `Problem` 401, 403 (one of `scopes` is missing), 422, 503; `ticket` as in `Access`."""
        try:
            identity = await self._access.authenticate(request, ticket=ticket)
            for scope in scopes:
                require(identity, scope)
            return act_for(identity, user=request.query.get("user"), org=request.query.get("org"))
        except Problem as problem:
            self._refused(request, problem)
            raise

    def _refused(self, request: web.Request, problem: Problem) -> None:
        reason = str(problem.reason) if isinstance(problem, Unauthorized) else problem.slug
        label = {"foreign-origin": "origin", "forbidden": "scope"}.get(reason, reason)
        counters = self._metrics.auth_failures
        counters.get(label, counters["invalid"]).inc()
        about = {"path": request.path, "request_id": request_id_of(request), **log_fields(trace_of(request))}
        self._log.warning("access_refused", reason=reason, **about)

    async def read_json(self, request: web.Request, type_: type[B]) -> B:
        """The JSON body. Raises `Problem` 400, 408, 413 and msgspec's errors (400, 422)."""
        body = await self.read_body(request) or b"{}"
        try:
            return msgspec.json.decode(body, type=type_)
        except (UnicodeDecodeError, RecursionError) as error:  # which msgspec does not make its own
            raise Problem(400, "malformed", f"the body is no usable JSON: {error}") from error

    async def read_body(self, request: web.Request) -> bytes:
        """The body, within limits of size and time; a second time at once."""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await request.read()
        except TimeoutError:
            raise Problem(408, "request-timeout", f"the body did not arrive within {BODY_SECONDS:g} s") from None
        except web.RequestPayloadError as error:
            raise Problem(400, "malformed", "the body's coding is broken") from error

    @contextlib.contextmanager
    def span(self, request: web.Request, name: str, **facts: Fact) -> Iterator[Span]:
        """Around what a request does: a span in the trace that its headers name, or in a new one. From here on the
        request stands in it."""
        about: dict[str, Fact] = {"protocol": self._protocol, "request_id": request_id_of(request), **facts}
        with self._tracer.start(name, "server", trace_of(request), **about) as span:
            if span.trace is not None:
                request[TRACE] = span.trace
            try:
                yield span
            except Exception as error:
                problem = to_problem(error)
                if problem is not None and problem.status < 500:
                    span.refuse(problem.slug)
                raise

    # --- start -------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def starting(self, identity: Identity) -> AsyncIterator[None]:
        """Around all that starting an execution takes: holds the caller's rate (`Problem` 429), and counts what was
        refused in it."""
        try:
            await self._within_rate(identity)
            yield
        except Exception as error:
            self._metrics.executes[_refusal(error)].inc()
            raise

    async def _within_rate(self, identity: Identity) -> None:
        try:
            await self._admission.rate(identity.principal, "execute", self._settings.executes_per_minute)
        except Problem as problem:
            if problem.status == 429:
                self._metrics.rejected["execute_rate"].inc()
            raise

    async def execute(
        self, request: web.Request, identity: Identity, wanted: ExecuteRequest, *, idempotency_key: str | None = None
    ) -> tuple[ExecuteResponse, bool]:
        """Accept an execution; whether it was new. Errors of `Commands.execute`."""
        request_id = request_id_of(request)
        with self.span(request, "execute", agent=wanted.agent) as span:
            answer, is_new = await self.commands.execute(
                identity, wanted, request_id=request_id, idempotency_key=idempotency_key, trace=span.trace
            )
            span.note(execution=answer.execution_id, repeated=not is_new)
        self.accepted(request, identity, answer.execution_id, is_new=is_new)
        return answer, is_new

    def accepted(self, request: web.Request, identity: Identity, execution_id: str, *, is_new: bool) -> None:
        """Count and log a start; or a repeat, which a protocol may know by signs of its own."""
        self._metrics.executes["accepted" if is_new else "repeated"].inc()
        self.audit(request, identity, "execution_accepted", execution=execution_id, repeated=not is_new)

    # --- steer -------------------------------------------------------------------------------------------------------

    async def cancel(
        self, request: web.Request, identity: Identity, execution_id: str, reason: str | None
    ) -> CancelResponse:
        """Errors of `Commands.cancel`."""
        answer = await self.commands.cancel(identity, execution_id, reason, request_id_of(request))
        self.audit(request, identity, "cancel_requested", execution=execution_id, state=answer.state)
        return answer

    async def answer(
        self, request: web.Request, identity: Identity, execution_id: str, given: InputRequest
    ) -> InputResponse:
        """Errors of `Commands.answer`."""
        answer = await self.commands.answer(identity, execution_id, given, request_id_of(request))
        self.audit(request, identity, "input_answered", execution=execution_id, input=given.input_id)
        return answer

    def audit(self, request: web.Request, identity: Identity, event: str, **fields: Any) -> None:
        """The log line of something that was done."""
        who = identity.principal
        about = {"user": who.user, "org": who.org, "protocol": self._protocol, **log_fields(trace_of(request))}
        self._log.info(event, request_id=request_id_of(request), **about, **fields)

    # --- show --------------------------------------------------------------------------------------------------------

    async def open(self, request: web.Request, identity: Identity, execution_id: str | None) -> web.StreamResponse:
        """The native stream of an execution, or of all the caller's (None). Errors of `Streams.open`, and `Problem` 403
        for a ticket that is for another."""
        require_execution(identity, execution_id)
        owner = identity.owner
        target = Target.feed(owner) if execution_id is None else Target.execution(owner, execution_id)
        return await self._streams.open(request, target, identity, request_id_of(request))

    @contextlib.asynccontextmanager
    async def seat(self, request: web.Request, identity: Identity) -> AsyncIterator[Seat]:
        """Room for one stream, to be had before anything is started that is to be shown on it. Raises what
        `Streams.seat` does."""
        await self.read_body(request)  # who sends slowly holds no room
        async with self._streams.seat(identity) as seat:
            yield seat

    async def show(
        self,
        request: web.Request,
        identity: Identity,
        execution_id: str,
        rendering: Rendering,
        *,
        seat: Seat | None = None,
        is_event_source: bool = False,
    ) -> web.StreamResponse:
        """An execution in another protocol. Errors of `Streams.open_rendered`, and `Problem` 403 as for `open`."""
        require_execution(identity, execution_id)
        target = Target.execution(identity.owner, execution_id)
        request_id = request_id_of(request)
        return await self._streams.open_rendered(
            request, target, identity, request_id, rendering, seat=seat, wants_sse=is_event_source
        )


def idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
        raise Problem(400, "invalid-parameter", "Idempotency-Key is 1 to 255 printable characters")
    return key


def _refusal(error: Exception) -> str:
    """Which `ExecuteResult` it is."""
    problem = to_problem(error)
    if problem is None or problem.status >= 500:
        return "error"
    if problem.slug == "unknown-agent":
        return "unknown_agent"
    return "invalid" if problem.status in (400, 408, 413, 422) else "refused"
