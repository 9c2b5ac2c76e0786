"""The native HTTP interface: routes, their scopes and limits, and the form of responses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import msgspec
from aiohttp import HttpVersion11, web
from redis.asyncio import Redis

from broker.auth.authenticator import Authenticator
from broker.auth.permissions import require_execution
from broker.auth.revocation_store import Revoked
from broker.auth.revocations import HOLD_MS, moment_of
from broker.base.error_mapping import to_problem
from broker.base.fairness import FairSemaphore
from broker.base.identity import Identity
from broker.base.metrics import Metrics
from broker.base.reasons import RedisOp
from broker.base.request_context import request_id_of
from broker.base.settings import Settings
from broker.executions import hooked
from broker.executions.accepted import accepted
from broker.executions.overspending import keep_budget
from broker.executions.publish import (
    Gate,
    OnSpent,
    edge_hooks,
    exists,
    may_begin,
    publish,
    publish_under,
    read_events,
    read_producer,
)
from broker.executions.takes import Takes
from broker.executions.trees import Trees
from broker.executions.types import (
    AgentInfo,
    AgentList,
    CancelRequest,
    ExecuteRequest,
    InputRequest,
    RevocationRequest,
    RevocationResponse,
    TicketRequest,
    TicketResponse,
)
from broker.http.connection import outcome_of
from broker.http.gateway import (
    MAX_BODY_BYTES,
    PUBLISHES,
    READS,
    SMALL_BODY_BYTES,
    TICKETS,
    VALUE_BODY_BYTES,
    Gateway,
    idempotency_key,
)
from broker.http.jobs import SCOPE, JobsApi
from broker.http.json import json_response
from broker.http.message_api import MessageApi
from broker.http.paths import execution_of, known_form
from broker.http.query import after_in, is_tree, sought_in, whole_number
from broker.http.share_api import ShareApi
from broker.ops.stream import Ops
from broker.streams.reconnect import for_event_source
from broker.streams.request import is_compact
from broker.streams.service import Streams
from emitter.budgets import Budget
from emitter.errors import UnknownExecution
from emitter.events import TERMINAL_STATE_OF
from emitter.store import announcements
from emitter.store.append import Appended, limits_of
from emitter.store.lifecycle import Lifecycle
from emitter.tracing.trace import Trace
from emitter.wire.prepared import DROPPED
from emitter.wire.redact import Redactor

MAX_LIST = 200
PREPARED_AT_ONCE = 4
"""Large publishes that are read at a time, of different users: each adds a slice to a round of the loop."""


class Api:
    """The handlers, over the parts of one edge."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        authenticator: Authenticator,
        streams: Streams,
        ops: Ops,
        gateway: Gateway,
        jobs: JobsApi,
        metrics: Metrics,
        openapi: bytes,
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._authenticator = authenticator
        self._streams = streams
        self._ops = ops
        self._gateway = gateway
        self._commands = gateway.commands
        self._jobs = jobs
        self._trees = Trees(redis, limits_of(settings), Redactor(settings.redact_keys))
        self._metrics = metrics
        self._redact = Redactor(settings.redact_keys)
        self._hooks = edge_hooks(settings)
        self._limits = limits_of(settings)
        self._lifecycle = Lifecycle(redis, self._limits, self._redact)
        self._value_bytes = max(VALUE_BODY_BYTES, 2 * settings.max_event_bytes)
        self._start_bytes = start_body_bytes(settings)
        self._preparations = FairSemaphore("large publishes", PREPARED_AT_ONCE, 1)
        self._takes = Takes(redis, self._limits, self._redact)
        self._openapi = openapi

    async def aclose(self) -> None:
        """End what waits."""
        await self._takes.aclose()

    def routes(self) -> list[web.RouteDef]:
        base = "/api/agent/executions"
        return [
            web.get(base + "/{id}/stream", for_event_source(self.stream_execution), allow_head=False),
            web.get("/api/agent/stream", for_event_source(self.stream_feed), allow_head=False),
            web.get("/api/ops/stream", for_event_source(self.stream_ops), allow_head=False),
            web.post("/api/agent/execute", self.execute),
            web.get(base, self.list_executions),
            web.get(base + "/{id}", self.get_execution),
            web.get(base + "/{id}/request", self.get_request),
            web.get(base + "/{id}/events", self.get_events, allow_head=False),
            web.post(base + "/{id}/events", self.post_events),
            web.get(base + "/{id}/webhooks", self.list_webhooks),
            web.post(base + "/{id}/cancel", self.cancel),
            web.post(base + "/{id}/input", self.answer),
            *ShareApi(self._gateway, self._redis, self._authenticator.shares, self._settings).routes(base),
            *MessageApi(self._gateway, self._takes, self._jobs.attempt_of, self._value_bytes).routes(base),
            web.post("/api/agent/stream-tickets", self.mint_ticket),
            web.get("/api/agent/agents", self.list_agents),
            web.post("/api/admin/revocations", self.revoke),
            web.delete("/api/admin/revocations", self.take_back),
            web.get("/openapi.json", self.openapi),
            *self._jobs.routes(),
        ]

    # --- streams -----------------------------------------------------------------------------------------------------

    async def stream_execution(self, request: web.Request) -> web.StreamResponse:
        if (made := outcome_of(request)) is not None:
            return made
        return await self.open_stream(request, execution_of(request))

    async def stream_feed(self, request: web.Request) -> web.StreamResponse:
        if (made := outcome_of(request)) is not None:
            return made
        return await self.open_stream(request, None)

    async def open_stream(self, request: web.Request, execution_id: str | None) -> web.StreamResponse:
        """The native stream of an execution, or the feed (None). Errors of `Gateway.identify` and `Gateway.open`."""
        identity = await self._gateway.identify(request, "executions:read", ticket=True, shared=execution_id)
        return await self._gateway.open(request, identity, execution_id)

    async def stream_ops(self, request: web.Request) -> web.StreamResponse:
        identity = await self._gateway.identify(request, "ops:read", ticket=True)
        require_execution(identity, None)
        return await self._ops.open(request, identity, request_id_of(request))

    async def mint_ticket(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "executions:read", rate=TICKETS)
        body = await self._gateway.read_json(request, TicketRequest)
        ticket, expires_at = await self._authenticator.tickets.mint(identity, body.execution_id)
        return json_response(TicketResponse(ticket=ticket, expires_at=int(expires_at * 1000)), status=201)

    # --- executions --------------------------------------------------------------------------------------------------

    async def execute(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "executions:write")
        async with self._gateway.starting(identity):
            wanted = await self._gateway.read_json(request, ExecuteRequest, self._start_bytes)
            key = idempotency_key(request)
            answer, _ = await self._gateway.execute(request, identity, wanted, idempotency_key=key)
        return json_response(answer, status=202)

    async def list_executions(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "executions:read", rate=READS)
        sought = sought_in(request)
        limit = whole_number(request, "limit", default=50, most=MAX_LIST)
        cursor, parent = request.query.get("cursor"), request.query.get("parent")
        async with self._gateway.folding(identity):
            if parent is not None and not await exists(self._redis, identity.owner, known_form(parent)):
                raise UnknownExecution(parent[:64])
            page = self._commands.listing.page(
                identity.owner, state=None, limit=limit, cursor=cursor, parent=parent, sought=sought
            )
            return json_response(await page)

    async def get_execution(self, request: web.Request) -> web.Response:
        shared = None if "tree" in request.query else request.match_info["id"]
        identity = await self._gateway.identify(request, "executions:read", rate=READS, shared=shared)
        with_stack = "executions:debug" in identity.scopes
        async with self._gateway.folding(identity):
            execution_id = execution_of(request)
            if is_tree(request):
                return json_response(await self._trees.of(identity.owner, execution_id))
            return json_response(await self._commands.state(identity.owner, execution_id, with_stack=with_stack))

    async def get_request(self, request: web.Request) -> web.Response:
        shared = request.match_info["id"]
        identity = await self._gateway.identify(request, "executions:read", rate=READS, shared=shared)
        async with self._gateway.folding(identity):
            found = await accepted(self._redis, identity.owner, execution_of(request))
            return json_response(found.shared if identity.is_share else found)

    async def list_webhooks(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "executions:read", rate=READS)
        return json_response(await hooked.listed(self._redis, identity.owner, execution_of(request)))

    async def get_events(self, request: web.Request) -> web.StreamResponse:
        shared = request.match_info["id"]
        identity = await self._gateway.identify(request, "executions:read", rate=READS, shared=shared)
        execution_id, after = execution_of(request), after_in(request)
        limit = whole_number(request, "limit", default=200, most=200)
        if "application/x-ndjson" in request.headers.get("Accept", ""):
            async with self._gateway.exporting(request, identity):
                return await self._export(request, identity, self._commands.export(identity.owner, execution_id, after))
        async with self._gateway.folding(identity):
            page = self._commands.events(
                identity.owner, execution_id, after=after, limit=limit, is_compact=is_compact(request)
            )
            return json_response(await page)

    async def _export(
        self, request: web.Request, identity: Identity, pages: AsyncIterator[bytes]
    ) -> web.StreamResponse:
        """Holds one page, and what the kernel takes. A reader that takes nothing is cut off by `Responses`."""
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        if request.version < HttpVersion11:
            response.force_close()  # no chunks: only the end of the connection marks the end of the body
        page = await self._next(identity, pages)  # before anything is sent: there may be no such execution
        await response.prepare(request)
        while page is not None:
            await response.write(page)
            page = await self._next(identity, pages)
        await response.write_eof()
        return response

    async def _next(self, identity: Identity, pages: AsyncIterator[bytes]) -> bytes | None:
        async with self._gateway.folding(identity, is_patient=True):
            return await anext(pages, None)

    async def post_events(self, request: web.Request) -> web.Response:
        is_worker = "Attempt" in request.headers or "Fence" in request.headers
        identity = await self._gateway.identify(request, SCOPE if is_worker else "events:publish", rate=PUBLISHES)
        execution_id = execution_of(request)
        with self._gateway.span(request, "publish", execution=execution_id) as span:
            return await self._publish(request, identity, execution_id, span.trace, is_worker=is_worker)

    async def _publish(
        self, request: web.Request, identity: Identity, execution_id: str, trace: Trace | None, *, is_worker: bool
    ) -> web.Response:
        fenced = under = None
        try:
            if is_worker:
                identity, fenced, under = await self._jobs.attempt_of(request, identity, execution_id)
            owner, max_bytes = identity.owner, self._limits.max_event_bytes
            budget = self._limits.budget if under is None else Budget()  # the attempt's record has it
            gate = Gate(
                identity, execution_id, request_id_of(request), self._hooks, self._redact, max_bytes, trace, under,
                budget,
            )  # fmt: skip
            producer = read_producer(request.headers)
            ndjson = request.content_type == "application/x-ndjson"
            body = await self._gateway.read_body(request, MAX_BODY_BYTES if ndjson else self._value_bytes)
            async with self._preparing(request, identity, body):
                events = await read_events(body, gate, ndjson=ndjson)
            is_new = under is None and may_begin(events) and not await exists(self._redis, owner, execution_id)
            if is_new:
                await self._gateway.count_start(identity)
            keep = self._keeper(gate)
            with self._metrics.redis_call(RedisOp.APPEND):
                if under is None:
                    answer = await publish(
                        self._redis, owner, execution_id, events, producer, self._limits, is_new=is_new, on_spent=keep
                    )
                else:
                    answer = await publish_under(self._redis, under, gate, events, producer, self._limits, keep)
        except Exception as error:
            self._metrics.publishes[_publish_result(error)].inc()
            raise
        if any(event.type in TERMINAL_STATE_OF for event in events):
            await self._commands.settle(owner, execution_id)
            if fenced is not None:  # last: until then the reaper does what this edge leaves undone
                await self._jobs.end(fenced)
        is_repeat = any(event is not DROPPED for event in events) and not answer.appended
        self._metrics.publishes["repeated" if is_repeat else "ok"].inc()
        return json_response(answer, status=202)

    def _keeper(self, gate: Gate) -> OnSpent:
        """What keeps the budget of an execution that is published."""
        attempt = None if gate.under is None else gate.under.attempt

        async def keep(appended: Appended) -> None:
            limit = await keep_budget(
                self._lifecycle, gate.identity.owner, gate.execution_id, appended.budget, appended.spent, attempt
            )
            if limit is not None:
                self._metrics.budget_exceeded[limit].inc()

        return keep

    def _preparing(self, request: web.Request, identity: Identity, body: bytes) -> AbstractAsyncContextManager[None]:
        """Large bodies of one user are processed one after the other, in slices between the small ones."""
        if len(body) <= SMALL_BODY_BYTES:
            return self._gateway.working(request)
        return self._preparations.turn(identity.principal)

    async def cancel(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "executions:write")
        execution_id, body = execution_of(request), await self._gateway.read_json(request, CancelRequest)
        return json_response(await self._gateway.cancel(request, identity, execution_id, body.reason), status=202)

    async def answer(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "executions:write")
        execution_id, body = (
            execution_of(request),
            await self._gateway.read_json(request, InputRequest, self._value_bytes),
        )
        return json_response(await self._gateway.answer(request, identity, execution_id, body), status=202)

    # --- the rest ----------------------------------------------------------------------------------------------------

    async def list_agents(self, request: web.Request) -> web.Response:
        await self._gateway.identify(request, "executions:read", rate=READS)
        live = await announcements.live_agents(self._redis)
        agents = [
            AgentInfo(
                name=agent.name,
                description=agent.description,
                tags=list(agent.tags),
                input_schema=agent.input_schema,
                input_modes=list(agent.input_modes),
                output_modes=list(agent.output_modes),
                accepts_messages=agent.accepts_messages,
                examples=[example.task for example in agent.examples],
                budget=agent.budget,
            )
            for agent in live
        ]
        return json_response(AgentList(agents=agents))

    async def revoke(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "admin")
        body = await self._gateway.read_json(request, RevocationRequest)
        org = body.org or identity.principal.org
        revoked = await self._authenticator.revocations.revoke(
            jti=body.jti, user=body.user, org=org, expires_at_ms=body.expires_at
        )
        self._gateway.audit(request, identity, "access_revoked", member=revoked.member, stored=revoked.is_stored)
        return json_response(_revocation(revoked), status=202)

    async def take_back(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "admin")
        body = await self._gateway.read_json(request, RevocationRequest) if request.can_read_body else _named(request)
        org = body.org or identity.principal.org
        member = await self._authenticator.revocations.take_back(jti=body.jti, user=body.user, org=org)
        self._gateway.audit(request, identity, "revocation_taken_back", member=member)
        return web.Response(status=204, headers={"Cache-Control": "no-store"})

    async def openapi(self, _: web.Request) -> web.Response:
        return web.Response(body=self._openapi, content_type="application/json")


def start_body_bytes(settings: Settings) -> int:
    """The body that starts an execution must have room for all that the limits of its parts allow."""
    parts = (settings.max_event_bytes, settings.max_params_bytes, settings.max_conversation_bytes)
    return min(MAX_BODY_BYTES, max(VALUE_BODY_BYTES, 2 * sum(parts))) if all(parts) else MAX_BODY_BYTES


def _revocation(revoked: Revoked) -> RevocationResponse:
    is_user = revoked.member.startswith("user:")
    is_endless = revoked.score >= HOLD_MS
    return RevocationResponse(
        revoked_until=None if is_endless else revoked.score,
        issued_before=moment_of(revoked.score) if is_user else None,
        warning=None if revoked.is_stored else "not stored yet: an edge that starts now may not know of it",
    )


def _named(request: web.Request) -> RevocationRequest:
    """The same from the query, for clients that send no body with DELETE."""
    named = {name: request.query[name] for name in ("jti", "user", "org") if name in request.query}
    return msgspec.convert(named, RevocationRequest)


def _publish_result(error: Exception) -> str:
    problem = to_problem(error)
    if problem is None or problem.status >= 500:
        return "error"
    if problem.status == 413:
        return "too_large"
    return "invalid" if problem.status in (400, 408, 422) else "refused"
