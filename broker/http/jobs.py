"""The routes of workers over HTTP: claim, renew, release. What they publish goes through `api.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import msgspec
from aiohttp import web
from redis.asyncio import Redis

from broker.auth.permissions import require_agents
from broker.base.identity import Identity
from broker.base.metrics import Metrics
from broker.base.problem import Problem
from broker.executions.attempts import Under, read_under
from broker.http.connection import may_have_left
from broker.http.gateway import PUBLISHES, VALUE_BODY_BYTES, Gateway
from broker.http.json import json_response
from broker.http.responses import Waits
from broker.jobs.claims import Claims, Wanted
from broker.jobs.fences import BadFence, Fenced, Fences, worker_id
from broker.jobs.held import HeldJobs
from broker.jobs.leases import Leases
from broker.jobs.types import (
    ClaimRequest,
    ClaimResponse,
    JobRef,
    ReleaseRequest,
    ReleaseResponse,
    RenewRequest,
    RenewResponse,
)
from emitter.store import jobs
from emitter.wire.keys import Owner

SCOPE = "jobs:run"


class JobsApi:
    """The handlers, over the parts of one edge."""

    def __init__(
        self,
        redis: Redis,
        gateway: Gateway,
        claims: Claims,
        leases: Leases,
        fences: Fences,
        held: HeldJobs,
        metrics: Metrics,
        lease_seconds: float,
    ) -> None:
        self._redis = redis
        self._gateway = gateway
        self._claims = claims
        self._leases = leases
        self._fences = fences
        self._held = held
        self._metrics = metrics
        self._lease_seconds = lease_seconds
        self._waits = Waits("workers", gateway.resting)

    def routes(self) -> list[web.RouteDef]:
        base = "/api/agent/jobs"
        return [
            web.post(base + "/claim", self.claim),
            web.post(base + "/renew", self.renew),
            web.post(base + "/release", self.release),
        ]

    async def claim(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, SCOPE, rate=PUBLISHES)
        body = await self._gateway.read_json(request, ClaimRequest, VALUE_BODY_BYTES)
        agents = body.described
        require_agents(identity, agents)
        principal = identity.principal
        running = None if body.running is None else await self._members(principal, body.running)
        wanted = Wanted(worker_id(principal, body.worker), agents, body.max, running, body.concurrency, body.host)
        async with self._waits.one(request):
            with self._metrics.job_claims.track_inprogress():
                found = await self._claims.claim(wanted, body.wait_seconds, _gone(request))
        if not found:
            return web.Response(status=204, headers={"Cache-Control": "no-store"})
        return json_response(ClaimResponse(jobs=found))

    async def renew(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, SCOPE, rate=PUBLISHES)
        body = await self._gateway.read_json(request, RenewRequest, VALUE_BODY_BYTES)
        async with self._waits.one(request):
            found = await self._leases.renew(identity.principal, body, _gone(request))
        return json_response(RenewResponse(jobs=found, lease_seconds=self._lease_seconds))

    async def release(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, SCOPE, rate=PUBLISHES)
        body = await self._gateway.read_json(request, ReleaseRequest, VALUE_BODY_BYTES)
        found = [await self._leases.release(identity.principal, body.worker, each) for each in body.jobs]
        return json_response(ReleaseResponse(jobs=found))

    # --- for publishing under an attempt ---

    async def attempt_of(
        self, request: web.Request, identity: Identity, execution_id: str
    ) -> tuple[Identity, Fenced, Under]:
        """The attempt that the headers `Attempt` and `Fence` name, and who publishes under it, for the
        execution's owner. Raises `Problem` 400, 403."""
        attempt, fence = request.headers.get("Attempt", ""), request.headers.get("Fence", "")
        if not (attempt and fence):
            raise Problem(400, "invalid-parameter", "Attempt and Fence belong together")
        if not (attempt.isascii() and attempt.isdecimal() and len(attempt) <= 10):
            raise Problem(400, "invalid-parameter", "Attempt is a whole number", path="Attempt")
        principal = identity.principal
        fenced = await self._fences.check(fence, principal=principal, execution_id=execution_id, attempt=int(attempt))
        under = await read_under(self._redis, fenced.owner, execution_id, fenced.attempt, fenced.worker)
        return msgspec.structs.replace(identity, owner=fenced.owner, actor=principal), fenced, under

    async def end(self, fenced: Fenced) -> None:
        """The execution has its terminal event: nobody needs to look after the job any more."""
        await jobs.end(self._redis, fenced.member)
        await self._held.drop(fenced.worker, [fenced.member])

    async def _members(self, principal: Owner, running: Sequence[JobRef]) -> frozenset[str]:
        """The executions that a worker says it has. A fence that is no good names none."""
        found = set()
        for ref in running:
            with contextlib.suppress(BadFence):
                fenced = await self._fences.check(
                    ref.fence, principal=principal, execution_id=ref.execution_id, attempt=ref.attempt
                )
                found.add(fenced.member)
        return frozenset(found)


def _gone(request: web.Request) -> Callable[[], bool]:
    """A client that waits for nothing is answered; one that waits must keep its side of the connection open."""
    return lambda: may_have_left(request)
