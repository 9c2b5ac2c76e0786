"""The Redis contract of jobs: how an execution reaches a worker, stays with it and leaves it.

A job is an entry {org, user, execution} in its agent's stream. It only names the execution: `claim.lua` decides by
the record whether it still waits, so an entry that is read twice runs once. Leases end by the clock of Redis.

Every execution for workers is in `DUE` from before it is accepted until after it has ended, with the time of its next
check. So whatever step is lost on the way, the reaper will check the execution (`emitter.store.reaper`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import structlog
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ResponseError

from emitter.budgets import Budget, Spent, smallest
from emitter.errors import InvalidEvent
from emitter.store.connection import AWAY, GONE, each_reply, repeated
from emitter.tracing.trace import Trace, read_trace
from emitter.wire.ids import check_execution_id
from emitter.wire.keys import DUE, JOBS_GROUP, QUEUED, Owner, jobs_key, member, waiting_key
from emitter.wire.record import FORMAT, Cancel, ExecutionRecord, Field, Selection, read_cancel, read_object, spent_of

log = structlog.get_logger("emitter.jobs")

CLAIM_SCRIPT = Path(__file__).with_name("claim.lua").read_text()
LIMIT_SCRIPT = Path(__file__).with_name("limit.lua").read_text()
RENEW_SCRIPT = Path(__file__).with_name("renew.lua").read_text()
ENQUEUE_SCRIPT = Path(__file__).with_name("enqueue.lua").read_text()
# KEYS 1 due  2 the owner's waiting executions   ARGV 1 member  2 check in (ms)  3 how many may wait (0: no limit)
# Reply 1, or 0 if too many wait. Of the oldest it removes those that are not due any more.
# With an ACL of a version before the limit (no ZSCORE) there is no limit.
ADMIT_SCRIPT = """
local t = redis.call('TIME')
local now, most = t[1] * 1000 + math.floor(t[2] / 1000), tonumber(ARGV[3])
local function is_full() return most > 0 and #redis.call('ZRANGE', KEYS[2], most - 1, most - 1) > 0 end
if is_full() and not redis.pcall('ZSCORE', KEYS[2], ARGV[1]) then
  for _, name in ipairs(redis.call('ZRANGE', KEYS[2], 0, 99)) do
    if not redis.call('ZSCORE', KEYS[1], name) then redis.call('ZREM', KEYS[2], name) end
  end
  if is_full() then return 0 end
end
redis.call('ZADD', KEYS[2], 'NX', now, ARGV[1])
redis.call('ZADD', KEYS[1], 'NX', now + ARGV[2], ARGV[1])
return 1
"""
# KEYS 1 due  2 queued  3 the agent's jobs  4 the owner's waiting executions   ARGV 1 member  2 planned by (ms; -1: any)
END_SCRIPT = """
local planned = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[2] ~= '-1' and planned and tonumber(planned) > tonumber(ARGV[2]) then return 0 end
local job = redis.call('HGET', KEYS[2], ARGV[1])
if job then redis.pcall('XDEL', KEYS[3], job) end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])
"""
TIME_SCRIPT = "local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000)"

CONSUMER_IDLE_MS = 3_600_000
QUEUED_CHECK_MS = 60_000
"""How often the reaper checks whether a waiting execution still has its job."""
APART_CHECK_MS = 1_000
"""How soon a job is offered again that a worker has refused for now."""
APART_SECONDS = 5.0
ALONE_SECONDS = 300.0
"""Longer than most last attempts: two suspects in their last attempts would fail together, whichever crashes."""
SUSPECT_PLACES = 8
"""A worker's places for suspects. What was lost once takes one: most workers are lost for reasons of their own."""
NEWER_CHECK_MS = 5_000
"""How soon an execution is offered again that needs the worker of a newer version."""
ACCEPT_CHECK_MS = 10_000
"""How long accepting an execution may take before the reaper checks it."""
CANCEL_GRACE_SECONDS = 10.0
"""How long a process other than a worker may go on after its execution was cancelled."""


class Entry(NamedTuple):
    """A job as it was read: its place in the stream, and the execution."""

    agent: str
    id: bytes
    owner: Owner
    execution_id: str


class Given(msgspec.Struct, frozen=True):
    """What an execution was started with, credentials included; the record keeps it for the agent until the end."""

    task: str
    params: dict[str, Any]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed execution.

    Args:
        worker: who has claimed it.
        from_seq: the log's ordinal before this attempt.
        lease_ms: when the lease ends, by the clock of Redis.
        waited_ms: how long it waited for a worker.
        suspect_places: how many of a worker's `SUSPECT_PLACES` it takes, for `apart_seconds`; 0 if it is no suspect.
        lost, failed: how many earlier attempts lost their worker, or failed and were tried again.
        budget, spent: what it may spend, and what earlier attempts have spent.
        cancel: a cancel that was requested before the claim.
        trace: the span in which it was accepted.
    """

    owner: Owner
    execution_id: str
    agent: str
    worker: str
    attempt: int
    from_seq: int
    lease_ms: int
    waited_ms: int = 0
    apart_seconds: float = 0.0
    suspect_places: int = 0
    lost: int = 0
    failed: int = 0
    budget: Budget = Budget()
    spent: Spent = Spent()
    task: str
    params: dict[str, Any]
    metadata: dict[str, Any]
    request_id: str | None
    conversation_id: str | None
    cancel: Cancel | None
    trace: Trace | None = None

    @property
    def record(self) -> str:
        return self.owner.execution(self.execution_id).record

    @property
    def control(self) -> str:
        return self.owner.execution(self.execution_id).control

    @property
    def member(self) -> str:
        """Its name in `DUE`."""
        return member(self.owner, self.execution_id)


class Lease(NamedTuple):
    """What is renewed of a job."""

    record: str
    attempt: int


class Renewal(NamedTuple):
    """`ended`: the log is closed; `lost`: another worker or attempt has the execution; `away`: Redis had an error.
    `spent`: what the record has counted, but for the time."""

    verdict: Literal["ok", "ended", "lost", "away"]
    lease_ms: int = 0
    cancel: Cancel | None = None
    spent: Spent = Spent()


class UnreadableJob(Exception):
    """The record cannot be read as a job. The attempt is used up."""

    def __init__(self, attempt: int, detail: str) -> None:
        super().__init__(detail)
        self.attempt = attempt
        self.detail = detail


class Apart(NamedTuple):
    """The claim was refused for now: the execution may not start yet, or its node of a Cluster is away; or this worker
    runs other suspects or an older attempt, or is too old for the record. `check_ms` is when to offer the job again."""

    check_ms: int


Refused = Literal["stale", "owned", "lapsed"]
"""Why a claim was refused: the execution waits for no worker, a live worker is about to start it, or the lease of a
worker that claimed it has ended."""


# --- the queue -------------------------------------------------------------------------------------------------------


async def enqueue(redis: Redis, owner: Owner, execution_id: str, agent: str) -> None:
    """Add a job for a queued execution, unless there is one. The record must say `queued` before this is called."""
    name = member(owner, check_execution_id(execution_id))
    keys = (jobs_key(agent), QUEUED, DUE)
    await _eval(redis, ENQUEUE_SCRIPT, keys, name, owner.org, owner.user, execution_id, QUEUED_CHECK_MS)


async def admit(redis: Redis, owner: Owner, execution_id: str, ms: int, most: int) -> bool:
    """Schedule a check of an execution in `ms` milliseconds, unless it has one; False if `most` executions of its owner
    wait for a worker already."""
    name = member(owner, execution_id)
    return bool(await _eval(redis, ADMIT_SCRIPT, (DUE, waiting_key(name)), name, ms, most))


async def check_now(redis: Redis, owner: Owner, execution_id: str) -> None:
    """Have the reaper check an execution as soon as possible."""
    await redis.zadd(DUE, {member(owner, execution_id): await redis_ms(redis)})


async def schedule_checks(redis: Redis, times: Mapping[str, int], *, only_known: bool = False) -> None:
    """Set the time of the next check of executions: `member` → ms. `only_known`: not of those that `end` removed."""
    if times:
        await redis.zadd(DUE, dict(times), xx=only_known)


async def ensure_group(redis: Redis, agent: str) -> None:
    """Create an agent's stream and consumer group, which also gets the jobs that are in the stream already."""
    try:
        await redis.xgroup_create(jobs_key(agent), JOBS_GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


async def waiting(redis: Redis, agents: Sequence[str]) -> dict[str, int]:
    """How many jobs of each agent wait for a worker, including those that are read and not yet claimed."""
    async with redis.pipeline(transaction=False) as pipe:
        for agent in agents:
            pipe.xlen(jobs_key(agent))
        return dict(zip(agents, await pipe.execute(), strict=True))


async def read(redis: Redis, agents: Sequence[str], worker: str, *, count: int, block_ms: int | None) -> list[Entry]:
    """New jobs, at most `count` of each agent.

    Waits up to `block_ms`, which must be below the client's socket timeout; not at all if it is `None`.
    """
    streams: dict[Any, Any] = {jobs_key(agent): ">" for agent in agents}
    reply = await redis.xreadgroup(JOBS_GROUP, worker, streams, count=count, block=block_ms)
    names = {jobs_key(agent).encode(): agent for agent in agents}
    rows: Any = reply or []
    return [entry for key, found in rows for entry in await _entries(redis, names[key], found)]


async def recover(redis: Redis, agent: str, worker: str, *, idle_ms: int, count: int) -> list[Entry]:
    """Jobs that a worker read at least `idle_ms` ago and never acknowledged, because it died."""
    reply: Any = await redis.xautoclaim(jobs_key(agent), JOBS_GROUP, worker, min_idle_time=idle_ms, count=count)
    return await _entries(redis, agent, reply[1])


async def _entries(redis: Redis, agent: str, rows: Iterable[tuple[bytes, dict[bytes, bytes] | None]]) -> list[Entry]:
    """Rows of a stream as entries. What is not a job is logged and removed, so that no recovery finds it again."""
    entries = []
    for id_, row in rows:
        try:
            fields = {name.decode(): value.decode() for name, value in (row or {}).items()}
            owner = Owner(fields["user"], fields["org"])
            entries.append(Entry(agent, id_, owner, check_execution_id(fields["execution"])))
        except (KeyError, UnicodeDecodeError, InvalidEvent) as error:
            log.warning("job_dropped", reason="malformed", agent=agent, entry=id_.decode(), error=str(error))
            await _discard(redis, agent, id_)
    return entries


async def _discard(redis: Redis, agent: str, entry_id: bytes) -> None:
    async with redis.pipeline(transaction=True) as pipe:
        pipe.xack(jobs_key(agent), JOBS_GROUP, entry_id)
        pipe.xdel(jobs_key(agent), entry_id)
        await pipe.execute()


async def claim(
    redis: Redis, entry: Entry, worker: str, lease_ms: int, max_attempts: int, *, taken_places: int = 0
) -> Job | Refused | Apart:
    """Claim the execution if it still waits. A repeat after a lost reply gets the same attempt. `taken_places`: how
    many of its `SUSPECT_PLACES` this worker has given away. Raises `UnreadableJob` for a record that can never run."""
    key, arguments = entry.owner.execution(entry.execution_id).record, (worker, lease_ms, max_attempts, taken_places)
    try:
        reply: Any = await _eval(redis, CLAIM_SCRIPT, (key,), *arguments, SUSPECT_PLACES)
    except AWAY as error:
        if not isinstance(redis, RedisCluster):
            raise
        # Perhaps only its node is away: the jobs of others do not wait. If that of the queue is away too, this raises.
        log.warning("claim_failed", execution=entry.execution_id, agent=entry.agent, error=type(error).__name__)
        return await later(redis)
    if reply[0] == b"apart":
        return Apart(reply[1] + APART_CHECK_MS)
    if reply[0] == b"newer":
        log.warning("record_newer", execution=entry.execution_id, format=reply[2], known=FORMAT)
        return Apart(reply[1] + NEWER_CHECK_MS)
    if reply[0] != b"ok":
        refused: Any = reply[0].decode()
        return refused  # type: ignore[no-any-return]
    try:
        record = _CLAIMED.read([None, *reply[5:22]])  # the script has checked the format
        given = _given(record)
        return Job(
            owner=entry.owner,
            execution_id=entry.execution_id,
            agent=entry.agent,
            worker=worker,
            attempt=reply[1],
            from_seq=reply[2],
            lease_ms=int(reply[3]),
            waited_ms=max(0, reply[4]),
            task=given.task,
            params=given.params,
            lost=record.lost,
            failed=record.failed,
            budget=record.budget,
            spent=record.spent,
            apart_seconds=_apart_seconds(record, max_attempts),
            suspect_places=reply[22],
            metadata=read_object(record.metadata),
            request_id=record.request_id or None,
            conversation_id=record.conversation_id or None,
            cancel=record.cancel,
            trace=read_trace([record.traceparent], [record.tracestate]),
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise UnreadableJob(reply[1], f"{type(error).__name__}: {error}") from error


async def later(redis: Redis) -> Apart:
    """Refuse a job for now."""
    return Apart(await redis_ms(redis) + APART_CHECK_MS)


async def limit(redis: Redis, job: Job, of_agent: Budget | None) -> Job:
    """A job that was just claimed with the limits of its agent as well, which its record then has."""
    smaller = smallest(job.budget, of_agent)
    if smaller == job.budget:
        return job
    client: Any = redis
    await client.eval(LIMIT_SCRIPT, 1, job.record, job.attempt, msgspec.json.encode(smaller))
    return msgspec.structs.replace(job, budget=smaller)


# The fields of the record that `claim.lua` returns, in its order.
_CLAIMED = Selection(
    Field.TASK, Field.PARAMS, Field.METADATA, Field.REQUEST_ID, Field.CONVERSATION_ID, Field.CANCEL, Field.TRACEPARENT,
    Field.TRACESTATE, Field.GIVEN, Field.LOST, Field.LOST_AFTER, Field.FAILED, Field.BUDGET, Field.SPENT_TOKENS,
    Field.SPENT_NANOS, Field.SPENT_CALLS, Field.SPENT_MS,
)  # fmt: skip


def _given(record: ExecutionRecord) -> Given:
    if record.given:
        return msgspec.json.decode(record.given, type=Given)
    return Given(record.task or "", read_object(record.params))


def _apart_seconds(record: ExecutionRecord, max_attempts: int) -> float:
    """How long a suspect takes its places. An execution that crashes its worker usually does so soon, so the time is
    short: a lost machine may have run a hundred executions. In its last attempt it is alone until its end, but for
    `ALONE_SECONDS` or as long as the lost attempt lasted, so that it cannot fail because of another suspect."""
    if not record.lost:
        return 0.0
    lasted = record.lost_after_ms / 1000
    is_last = record.lost + record.failed + 1 >= max_attempts
    return max(lasted, ALONE_SECONDS) if is_last else min(lasted, APART_SECONDS)


async def ack(redis: Redis, entry: Entry, job: Job | None, *, check_ms: int | None = None) -> None:
    """Acknowledge an entry and remove it from its stream. It was claimed as `job`, whose lease end becomes the time of
    the next check; or, without a job, it is stale, or is offered again at `check_ms`."""
    async with redis.pipeline(transaction=True) as pipe:
        if (check := check_ms if job is None else job.lease_ms) is not None:
            # A claimed execution may have ended by now: then it must not come back.
            pipe.zadd(DUE, {member(entry.owner, entry.execution_id): check}, xx=job is not None)
        pipe.xack(jobs_key(entry.agent), JOBS_GROUP, entry.id)
        pipe.xdel(jobs_key(entry.agent), entry.id)
        name = member(entry.owner, entry.execution_id)
        pipe.hdel(QUEUED, name)
        pipe.zrem(waiting_key(name), name)
        await pipe.execute()


async def requeue(redis: Redis, entry: Entry) -> None:
    """Offer an entry again that was read and not claimed."""
    await ack(redis, entry, None)
    await enqueue(redis, entry.owner, entry.execution_id, entry.agent)


async def forget_consumers(redis: Redis, agent: str, worker: str) -> None:
    """Remove this worker's consumer, and those idle for an hour. A consumer with unacknowledged entries stays;
    otherwise they would be lost."""
    consumers: Any = await redis.xinfo_consumers(jobs_key(agent), JOBS_GROUP)
    for consumer in consumers:
        gone = consumer["name"] == worker.encode() or consumer["idle"] > CONSUMER_IDLE_MS
        if gone and consumer["pending"] == 0:
            await redis.xgroup_delconsumer(jobs_key(agent), JOBS_GROUP, consumer["name"])


# --- leases ----------------------------------------------------------------------------------------------------------


async def renew(redis: Redis, jobs: Sequence[Job | Lease], worker: str, lease_ms: int) -> list[Renewal]:
    """Renew the leases of all running executions in one round trip; the renewals are in the order of `jobs`."""
    calls = [("EVAL", RENEW_SCRIPT, 1, job.record, worker, job.attempt, lease_ms) for job in jobs]
    replies = await each_reply(redis, calls)
    if replies and all(isinstance(reply, GONE) for reply in replies):
        raise replies[0]
    return [_renewal(reply) for reply in replies]


def _renewal(reply: Any) -> Renewal:
    if isinstance(reply, Exception):
        log.warning("renewal_failed", error=str(reply)[:200])
        return Renewal("away")
    verdict: Any = reply[0].decode()
    return Renewal(verdict, int(reply[1]), read_cancel(reply[2]), spent_of(*(int(text or 0) for text in reply[3:6])))


async def end(redis: Redis, name: str, agent: str = "", *, planned_by: int | None = None) -> None:
    """Remove an execution (by its `member`) from `DUE`; also its job, if its agent is given. A check later than
    `planned_by` (ms) stays, because it was scheduled meanwhile."""
    keys = (DUE, QUEUED, jobs_key(agent), waiting_key(name))
    await _eval(redis, END_SCRIPT, keys, name, -1 if planned_by is None else planned_by)


async def redis_ms(redis: Redis) -> int:
    """The clock of Redis in ms. The clocks of hosts may differ by more than an announcement is valid."""
    return int(await _eval(redis, TIME_SCRIPT, (DUE,)))


# --- scripts ---------------------------------------------------------------------------------------------------------


async def _eval(redis: Redis, script: str, keys: Sequence[str], *arguments: str | int) -> Any:
    """EVAL rather than EVALSHA: these scripts are short and rare, and EVAL needs no reload. Each may run twice."""
    client: Any = redis
    return await repeated(lambda: client.eval(script, len(keys), *keys, *arguments))
