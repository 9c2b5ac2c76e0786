"""What every protocol of an edge has in common: authenticate callers, read bodies, and start, cancel, answer and show
executions. Counted and logged here, so that it is the same for all protocols."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from broker.auth.authenticator import Authenticator
from broker.auth.permissions import act_for, require, require_account, require_execution
from broker.auth.refusals import Unauthorized
from broker.base.error_mapping import to_problem
from broker.base.fairness import FairSemaphore, Slices
from broker.base.identity import Identity
from broker.base.logging import get_logger
from broker.base.metrics import Metrics
from broker.base.problem import Problem
from broker.base.rates import Rates
from broker.base.reasons import RejectReason, StreamProtocol
from broker.base.request_context import TRACE, request_id_of, trace_of
from broker.base.settings import Settings
from broker.executions.commands import Commands
from broker.executions.message_types import MessageRequest, MessageResponse
from broker.executions.types import CancelResponse, ExecuteRequest, ExecuteResponse, InputRequest, InputResponse
from broker.http.body_shape import check_shape
from broker.http.connection import may_have_left
from broker.http.responses import EXCHANGE, Responses
from broker.live.rendering import Rendering
from broker.streams.admission import Admission, rate_limited
from broker.streams.request import Target
from broker.streams.service import Streams
from broker.streams.slots import StreamSlot
from broker.webhooks.policy import Policy
from emitter.tracing.trace import Fact, Span, Tracer, log_fields
from emitter.wire.ids import EventId
from emitter.wire.webhooks import OF_REQUEST, Webhook

BODY_SECONDS = 30.0
MAX_BODY_BYTES = 8 * 1024 * 1024
"""Of conversations that clients send whole, and of many events at once."""
SMALL_BODY_BYTES = 64 * 1024
VALUE_BODY_BYTES = 512 * 1024
"""Of a task with its parameters, or an answer: what is stored of it is less, but JSON may need six bytes a letter."""
SLICE_SECONDS = 0.004
WORK_SECONDS = 0.001

_BODY = web.RequestKey("body", bytes)

B = TypeVar("B")


class Rate(NamedTuple):
    """A rate of one user: what is counted, by which setting, and how its refusals are counted. `is_of_edge`: each edge
    counts for itself, since asking Redis would cost as much as the request."""

    what: str
    setting: str
    reason: RejectReason
    is_of_edge: bool = False


EXECUTES = Rate("execute", "executes_per_minute", RejectReason.EXECUTE_RATE)
PUBLISHES = Rate("publishes", "publishes_per_minute", RejectReason.PUBLISH_RATE, is_of_edge=True)
READS = Rate("reads", "reads_per_minute", RejectReason.READ_RATE, is_of_edge=True)
ANSWERS = Rate("answers", "answers_per_minute", RejectReason.ANSWER_RATE)
CANCELS = Rate("cancels", "cancels_per_minute", RejectReason.CANCEL_RATE)
TICKETS = Rate("tickets", "tickets_per_minute", RejectReason.TICKET_RATE)
SHARES = Rate("shares", "tickets_per_minute", RejectReason.TICKET_RATE)

FOLDS, FOLDS_PER_USER = 32, 4


class Gateway:
    """What one protocol needs of an edge; `for_protocol` makes it for another one. `commands` is for reading only."""

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator,
        admission: Admission,
        streams: Streams,
        commands: Commands,
        metrics: Metrics,
        tracer: Tracer,
        responses: Responses,
        webhooks: Policy,
    ) -> None:
        self.commands = commands
        self.webhooks = webhooks
        self._settings = settings
        self._authenticator = authenticator
        self._admission = admission
        self._streams = streams
        self._metrics = metrics
        self._tracer = tracer
        self._responses = responses
        self._rates = Rates()
        self._work = FairSemaphore("bodies", 0, 1)
        self._folds = FairSemaphore("reads of logs and lists", FOLDS, FOLDS_PER_USER)
        self._protocol = StreamProtocol.NATIVE
        self._log = get_logger()

    @property
    def max_conversation_bytes(self) -> int:
        """Of the conversation that an execution is given; 0 for no limit."""
        return self._settings.max_conversation_bytes

    @property
    def draining(self) -> bool:
        """Whether the edge stops: what goes on for long ends now."""
        return self._streams.draining

    def for_protocol(self, protocol: StreamProtocol) -> Gateway:
        other = copy.copy(self)
        other._protocol = protocol
        return other

    # --- who, and what they send -------------------------------------------------------------------------------------

    async def identify(
        self,
        request: web.Request,
        *scopes: str,
        ticket: bool = False,
        rate: Rate | None = None,
        shared: str | None = None,
    ) -> Identity:
        """The caller, within `rate` and after waiting for a turn. Raises `Problem` 401, 403 (one of `scopes` is
        missing), 422, 429, 503; `ticket` as in `Authenticator`: such a request opens a stream, which has limits of its
        own. `shared`: the execution that is read, where a share link may do that."""
        try:
            identity = await self._authenticator.authenticate(request, ticket=ticket)
            require_account(identity, shared)
            identity = act_for(identity, user=request.query.get("user"), org=request.query.get("org"))
            for scope in scopes:  # of those that are left when it acts for another
                require(identity, scope)
        except Problem as problem:
            self._refused(request, problem)
            raise
        if rate is not None:
            await self._within(identity, rate)
        if not ticket:
            await self.take_turn(request, identity)
        return identity

    async def _within(self, identity: Identity, rate: Rate) -> None:
        per_minute = getattr(self._settings, rate.setting)
        try:
            if rate.is_of_edge:
                now = asyncio.get_running_loop().time()
                if per_minute and (wait := self._rates.count(identity.principal, rate.what, per_minute, now)):
                    raise rate_limited(rate.what, per_minute, wait)
            else:
                await self._admission.rate(identity.principal, rate.what, per_minute)
        except Problem as problem:
            if problem.status == 429:
                self._metrics.rejected[rate.reason].inc()
            raise

    async def take_turn(self, request: web.Request, identity: Identity) -> None:
        """Wait for a turn, as `identify` does: of a request with a ticket that opens no stream. `Problem` 429, 503."""
        try:
            await self._responses.enter(request, identity)
        except Problem as problem:
            self._metrics.rejected["requests" if problem.status == 429 else "capacity"].inc()
            raise

    def _refused(self, request: web.Request, problem: Problem) -> None:
        reason = str(problem.reason) if isinstance(problem, Unauthorized) else problem.slug
        label = {"foreign-origin": "origin", "forbidden": "scope"}.get(reason, reason)
        counters = self._metrics.auth_failures
        counters.get(label, counters["invalid"]).inc()
        about = {"path": request.path, "request_id": request_id_of(request), **log_fields(trace_of(request))}
        self._log.warning("access_refused", reason=reason, **about)

    async def read_json(self, request: web.Request, type_: type[B], max_bytes: int = SMALL_BODY_BYTES) -> B:
        """The JSON body. Raises `Problem` 400, 408, 413, 429 and msgspec's errors (400, 422)."""
        body = await self.read_body(request, max_bytes) or b"{}"
        async with self.working(request):
            check_shape(body)
            try:
                return msgspec.json.decode(body, type=type_)
            except (UnicodeDecodeError, RecursionError) as error:  # which msgspec does not make its own
                raise Problem(400, "malformed", f"the body is no usable JSON: {error}") from error

    @contextlib.asynccontextmanager
    async def working(self, request: web.Request) -> AsyncIterator[None]:
        """Around the synchronous work on a body. Bodies of one user are processed one after the other, and the loop
        runs between those that take long."""
        async with self._work.turn(request[EXCHANGE].user, is_patient=True):
            slices = Slices(WORK_SECONDS)
            try:
                yield
            finally:
                await slices.pause()

    async def read_body(self, request: web.Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
        """The body, within limits of size and time; a second call returns it at once."""
        if _BODY not in request:
            if (request.content_length or 0) > max_bytes:
                raise _body_too_large(max_bytes)
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    request[_BODY] = await self._receive(request, max_bytes)
            except TimeoutError:
                raise Problem(408, "request-timeout", f"the body did not arrive within {BODY_SECONDS:g} s") from None
            except web.RequestPayloadError as error:
                raise Problem(400, "malformed", "the body's coding is broken") from error
        return request[_BODY]

    async def _receive(self, request: web.Request, max_bytes: int) -> bytes:
        """Not `request.read`, which inflates a compressed body in one step."""
        body, slices = bytearray(), Slices(SLICE_SECONDS)
        while piece := await request.content.readany():
            body += piece
            if len(body) > max_bytes:
                raise _body_too_large(max_bytes)
            self._responses.hold(request, len(piece))
            await slices.pause()
        return bytes(body)

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
        """Around all steps of a start: checks the caller's rate (`Problem` 429), and counts refused starts."""
        try:
            await self._within(identity, EXECUTES)
            yield
        except Exception as error:
            self._metrics.executes[_refusal(error)].inc()
            raise

    async def count_start(self, identity: Identity) -> None:
        """An execution that begins without having been accepted counts as one that was. `Problem` 429."""
        await self._within(identity, EXECUTES)

    async def count_share(self, identity: Identity) -> None:
        """A share link is about to be made. `Problem` 429."""
        await self._within(identity, SHARES)

    async def execute(
        self,
        request: web.Request,
        identity: Identity,
        wanted: ExecuteRequest,
        *,
        idempotency_key: str | None = None,
        webhooks: Mapping[str, Webhook] = {},
    ) -> tuple[ExecuteResponse, bool]:
        """Accept an execution, with `webhooks` of a protocol; whether it was new. Errors of `Commands.execute` and
        `Policy.of_request`."""
        if wanted.webhook is not None:
            webhooks = {**webhooks, OF_REQUEST: self.webhooks.of_request(wanted.webhook)}
        request_id = request_id_of(request)
        with self.span(request, "execute", agent=wanted.agent) as span:
            answer, is_new = await self.commands.execute(
                identity,
                wanted,
                request_id=request_id,
                idempotency_key=idempotency_key,
                trace=span.trace,
                webhooks=webhooks,
            )
            span.note(execution=answer.execution_id, repeated=not is_new)
        self.accepted(request, identity, answer.execution_id, is_new=is_new)
        return answer, is_new

    def accepted(self, request: web.Request, identity: Identity, execution_id: str, *, is_new: bool) -> None:
        """Count and log a start, or a repeat that a protocol has recognised itself."""
        self._metrics.executes["accepted" if is_new else "repeated"].inc()
        self.audit(request, identity, "execution_accepted", execution=execution_id, repeated=not is_new)

    # --- change ------------------------------------------------------------------------------------------------------

    async def cancel(
        self, request: web.Request, identity: Identity, execution_id: str, reason: str | None
    ) -> CancelResponse:
        """Errors of `Commands.cancel`, and `Problem` 429."""
        await self._within(identity, CANCELS)
        answer = await self.commands.cancel(identity, execution_id, reason, request_id_of(request))
        self.audit(request, identity, "cancel_requested", execution=execution_id, state=answer.state)
        return answer

    async def forget(self, request: web.Request, identity: Identity, execution_id: str) -> None:
        """Errors of `Commands.forget`, and `Problem` 429."""
        await self._within(identity, CANCELS)
        await self.commands.forget(identity.owner, execution_id)
        self.audit(request, identity, "execution_deleted", execution=execution_id)

    async def answer(
        self, request: web.Request, identity: Identity, execution_id: str, given: InputRequest
    ) -> InputResponse:
        """Errors of `Answers.give`, and `Problem` 429."""
        await self._within(identity, ANSWERS)
        answer = await self.commands.answers.give(identity, execution_id, given, request_id_of(request))
        self.audit(request, identity, "input_answered", execution=execution_id, input=given.input_id)
        return answer

    async def send_message(
        self, request: web.Request, identity: Identity, execution_id: str, given: MessageRequest
    ) -> MessageResponse:
        """Send a message to a running agent. Errors of `Messages.send`, and `Problem` 429."""
        await self._within(identity, ANSWERS)
        answer = await self.commands.messages.send(identity, execution_id, given, request_id_of(request))
        self.audit(request, identity, "message_sent", execution=execution_id, message=answer.message_id)
        return answer

    async def withdraw_message(
        self, request: web.Request, identity: Identity, execution_id: str, message_id: str
    ) -> MessageResponse:
        """Errors of `Messages.withdraw`, and `Problem` 429."""
        await self._within(identity, ANSWERS)
        answer = await self.commands.messages.withdraw(identity, execution_id, message_id, request_id_of(request))
        self.audit(request, identity, "message_withdrawn", execution=execution_id, message=message_id)
        return answer

    async def ticket(self, identity: Identity, execution_id: str) -> str:
        """A ticket for the streams of an execution. Raises `Problem` 429, and redis errors."""
        await self._within(identity, TICKETS)
        return (await self._authenticator.tickets.mint(identity, execution_id))[0]

    def resting(self, request: web.Request) -> AbstractAsyncContextManager[None]:
        """Around a long wait for something to come: the request holds no turn meanwhile. `Problem` 429, 503."""
        return self._responses.resting(request)

    def audit(self, request: web.Request, identity: Identity, event: str, **fields: Any) -> None:
        """Write the audit line of an action."""
        who = identity.principal
        about = {"user": who.user, "org": who.org, "protocol": self._protocol, **log_fields(trace_of(request))}
        if identity.subject is not None:
            about["subject"] = identity.subject
        self._log.info(event, request_id=request_id_of(request), **about, **fields)

    # --- show --------------------------------------------------------------------------------------------------------

    async def open(self, request: web.Request, identity: Identity, execution_id: str | None) -> web.StreamResponse:
        """The native stream of an execution, or of all the caller's (None). Errors of `Streams.open`, and `Problem` 403
        for a ticket that is for another."""
        require_execution(identity, execution_id)
        owner = identity.owner
        target = Target.feed(owner) if execution_id is None else Target.execution(owner, execution_id)
        return await self._streams.open(request, target, identity, request_id_of(request))

    def folding(self, identity: Identity, *, is_patient: bool = False) -> AbstractAsyncContextManager[None]:
        """Around reading a log or a list, and encoding it: only a few run at once, because they need much memory.
        `Problem` 429, 503, except for a response that has begun (`is_patient`)."""
        return self._folds.turn(identity.principal, is_patient=is_patient)

    @contextlib.asynccontextmanager
    async def exporting(self, request: web.Request, identity: Identity) -> AsyncIterator[None]:
        """Around a response as long as a log: it takes a stream slot, and ends with its token. Errors of `slot`."""
        async with self.slot(request, identity):
            self._responses.end_with_token(request)
            yield

    @contextlib.asynccontextmanager
    async def slot(self, request: web.Request, identity: Identity) -> AsyncIterator[StreamSlot]:
        """A stream slot, taken before the execution is started that the stream shows. Errors of `Streams.slot`."""
        await self.read_body(request)  # a slow sender holds no slot
        async with self._streams.slot(identity) as slot:
            yield slot

    async def show(
        self,
        request: web.Request,
        identity: Identity,
        execution_id: str,
        rendering: Rendering,
        *,
        slot: StreamSlot | None = None,
        resumes: bool = False,
        after: EventId | None = None,
    ) -> web.StreamResponse:
        """An execution in another protocol. Errors of `Streams.open_rendered`, and `Problem` 403 as for `open`."""
        require_execution(identity, execution_id)
        target = Target.execution(identity.owner, execution_id)
        request_id = request_id_of(request)
        return await self._streams.open_rendered(
            request, target, identity, request_id, rendering, slot=slot, resumes=resumes, after=after
        )

    async def wait(
        self,
        request: web.Request,
        identity: Identity,
        execution_id: str,
        after: EventId,
        seconds: float,
        *,
        gather_seconds: float = 0.0,
    ) -> bool:
        """Whether the log has more after this place, or has ended, at last `seconds` from now. If so, it waits on for
        `gather_seconds`, for what comes with it. The request holds no turn meanwhile, but a stream slot. Errors of
        `Streams.wait`."""
        target = Target.execution(identity.owner, execution_id)
        async with self.resting(request):
            has_more = await self._streams.wait(target, identity, after, seconds, lambda: may_have_left(request))
            if has_more:
                await asyncio.sleep(gather_seconds)
            return has_more


def _body_too_large(limit: int) -> Problem:
    return Problem(413, "request-entity-too-large", f"the body is larger than {limit} bytes", limit=limit)


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
