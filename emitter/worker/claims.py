"""Claims the executions of jobs that a worker has read."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import NamedTuple

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from emitter.errors import AppendRefused
from emitter.observer import Observer
from emitter.store import jobs
from emitter.store.connection import AWAY
from emitter.store.jobs import Apart, Entry, Job, Refused, UnreadableJob
from emitter.store.lifecycle import Lifecycle
from emitter.tracing.trace import log_fields
from emitter.worker.agents import Agents
from emitter.worker.attempt import Attempt

log = structlog.get_logger("emitter.worker")


class Claims(NamedTuple):
    """What the claims of one worker need. `attempts`: what runs in it, by the key of the record."""

    redis: Redis
    worker: str
    lease_ms: int
    agents: Agents
    attempts: Mapping[str, Attempt]
    lifecycle: Lifecycle
    observer: Observer

    async def take(self, entry: Entry) -> Job | Refused | Apart:
        """Claim an entry's execution, or say why not. Redis errors pass through: the entry is then tried again."""
        record = entry.owner.execution(entry.execution_id).record
        # An attempt here that has lost its lease may take its time to end, and this may be the only worker.
        claim = await jobs.later(self.redis) if record in self.attempts else await self._claim(entry)
        if claim == "lapsed":
            await jobs.check_now(self.redis, entry.owner, entry.execution_id)  # the reaper ends the attempt, or waits
        if isinstance(claim, Job):
            self.observer.claimed(entry.agent, claim.waited_ms / 1000)
            about = {"agent": entry.agent, "attempt": claim.attempt, **log_fields(claim.trace)}
            log.info("job_claimed", execution=entry.execution_id, **about)
        return claim

    async def ack(self, entry: Entry, claim: Job | Refused | Apart) -> None:
        """Acknowledge an entry. If Redis goes away before, a later recovery finds it stale."""
        if isinstance(claim, Job):
            await jobs.ack(self.redis, entry, claim)
        elif isinstance(claim, Apart):
            log.debug("job_put_off", execution=entry.execution_id, agent=entry.agent)
            await jobs.ack(self.redis, entry, None, check_ms=claim.check_ms)
        elif claim != "owned":
            log.info("job_dropped", reason=claim, execution=entry.execution_id, agent=entry.agent)
            await jobs.ack(self.redis, entry, None)
        # "owned": the entry stays unacknowledged, in case its owner dies before it starts the execution.

    async def _claim(self, entry: Entry) -> Job | Refused | Apart:
        max_attempts = self.agents[entry.agent].max_attempts
        try:
            now = time.monotonic()
            suspects = (attempt.job for attempt in self.attempts.values() if attempt.suspect_until > now)
            taken = sum(job.suspect_places for job in suspects)
            return await jobs.claim(self.redis, entry, self.worker, self.lease_ms, max_attempts, taken_places=taken)
        except UnreadableJob as error:
            log.error("job_unreadable", execution=entry.execution_id, agent=entry.agent, error=error.detail[:200])
            with contextlib.suppress(AppendRefused):
                await self.lifecycle.fail(
                    entry.owner, entry.execution_id, error.attempt, error=error.detail[:200], code="invalid_job"
                )
            return "stale"
        except AWAY:
            raise
        except ResponseError as error:
            # A record that cannot be claimed must not block the others; a later recovery tries it again.
            log.error("claim_failed", execution=entry.execution_id, agent=entry.agent, error=str(error)[:200])
            return "owned"
