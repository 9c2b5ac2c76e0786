"""The Redis contract of jobs: how an execution reaches a worker, stays with it and leaves it; and who works at all.

A job is an entry {org, user, execution} in its agent's stream. It only says where to look: whether the execution still
waits is decided by its record, under `claim.lua`, so an entry read twice runs once. Leases end by the clock of Redis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from emitter.errors import InvalidEvent
from emitter.wire import AGENTS_KNOWN, JOBS_GROUP, LEASES, WORKER_INFO, WORKERS, Owner, check_execution_id, jobs_key

log = structlog.get_logger("emitter.jobs")

CLAIM_SCRIPT = Path(__file__).with_name("claim.lua").read_text()
RENEW_SCRIPT = Path(__file__).with_name("renew.lua").read_text()
RELEASE_SCRIPT = Path(__file__).with_name("release.lua").read_text()
TIME_SCRIPT = "local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000)"

ANNOUNCE_TTL_MS = 15_000
KNOWN_MS = 24 * 3_600_000
CONSUMER_IDLE_MS = 3_600_000


class Entry(NamedTuple):
    """A job as it was read: where it stands in its stream, and the execution it is about."""

    agent: str
    id: bytes
    owner: Owner
    execution_id: str


class Cancel(msgspec.Struct, frozen=True):
    """A request to cancel, as the record keeps it."""

    reason: str | None = None
    by: str | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed execution. `lease_ms` is when the lease ends (Redis time); `cancel` was asked for before it started."""

    owner: Owner
    execution_id: str
    agent: str
    attempt: int
    lease_ms: int
    task: str
    params: dict[str, Any]
    metadata: dict[str, Any]
    request_id: str | None
    conversation_id: str | None
    cancel: Cancel | None

    @property
    def record(self) -> str:
        return self.owner.execution(self.execution_id).record

    @property
    def control(self) -> str:
        return self.owner.execution(self.execution_id).control

    @property
    def member(self) -> str:
        """Its name in `LEASES`."""
        return _member(self.owner, self.execution_id)


class Renewal(NamedTuple):
    """`ended`: the log is closed; `lost`: another worker or attempt has the execution; `away`: Redis had an error."""

    verdict: Literal["ok", "ended", "lost", "away"]
    lease_ms: int = 0
    cancel: Cancel | None = None


Refused = Literal["stale", "owned"]
"""Why a claim got nothing: the execution waits for nobody, or a live worker is just about to start it."""


# --- the queue -------------------------------------------------------------------------------------------------------


def _member(owner: Owner, execution_id: str) -> str:
    return f"{owner.org}:{owner.user}:{execution_id}"


def _fields(owner: Owner, execution_id: str) -> dict[Any, Any]:
    return {"org": owner.org, "user": owner.user, "execution": execution_id}


async def enqueue(redis: Redis, owner: Owner, execution_id: str, agent: str) -> None:
    """Offer a queued execution to the workers of an agent. Its record must say `queued` before this is called."""
    await redis.xadd(jobs_key(agent), _fields(owner, check_execution_id(execution_id)))


async def ensure_group(redis: Redis, agent: str) -> None:
    """Make an agent's stream and consumer group, which sees every job that is in the stream already."""
    try:
        await redis.xgroup_create(jobs_key(agent), JOBS_GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


async def read(redis: Redis, agents: Sequence[str], worker: str, *, count: int, block_ms: int) -> list[Entry]:
    """New jobs, at most `count` of each agent.

    Waits up to `block_ms`, which must be below the client's socket timeout.
    """
    streams: dict[Any, Any] = {jobs_key(agent): ">" for agent in agents}
    reply = await redis.xreadgroup(JOBS_GROUP, worker, streams, count=count, block=block_ms)
    names = {jobs_key(agent).encode(): agent for agent in agents}
    rows: Any = reply or []
    return [entry for key, found in rows for entry in await _entries(redis, names[key], found)]


async def recover(redis: Redis, agent: str, worker: str, *, idle_ms: int, count: int) -> list[Entry]:
    """Jobs that a worker read at least `idle_ms` ago and never settled: it died in between."""
    reply: Any = await redis.xautoclaim(jobs_key(agent), JOBS_GROUP, worker, min_idle_time=idle_ms, count=count)
    return await _entries(redis, agent, reply[1])


async def _entries(redis: Redis, agent: str, rows: Iterable[tuple[bytes, dict[bytes, bytes] | None]]) -> list[Entry]:
    """Rows of a stream as entries; what is not a job is logged and dropped, or every recovery would meet it again."""
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


async def claim(redis: Redis, entry: Entry, worker: str, lease_ms: int) -> Job | Refused:
    """Take the execution if it still waits. Asking twice, after a lost reply, gives the same attempt."""
    record = entry.owner.execution(entry.execution_id).record
    reply: Any = await _eval(redis, CLAIM_SCRIPT, record, worker, lease_ms)
    if reply[0] != b"ok":
        return "owned" if reply[0] == b"owned" else "stale"
    task, params, metadata, request_id, conversation_id, cancel = reply[3:9]
    return Job(
        owner=entry.owner,
        execution_id=entry.execution_id,
        agent=entry.agent,
        attempt=reply[1],
        lease_ms=int(reply[2]),
        task=task.decode(),
        params=_object(params),
        metadata=_object(metadata),
        request_id=request_id.decode() or None,
        conversation_id=conversation_id.decode() or None,
        cancel=_cancel(cancel),
    )


async def settle(redis: Redis, entry: Entry, job: Job | None) -> None:
    """Take an entry out of its stream: claimed as `job`, whose lease is from here on known to those who look for lost
    workers; or, without a job, stale."""
    async with redis.pipeline(transaction=True) as pipe:
        if job is not None:
            pipe.zadd(LEASES, {job.member: job.lease_ms})
        pipe.xack(jobs_key(entry.agent), JOBS_GROUP, entry.id)
        pipe.xdel(jobs_key(entry.agent), entry.id)
        await pipe.execute()


async def put_back(redis: Redis, entry: Entry) -> None:
    """Offer an entry again that was read and not claimed."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.xadd(jobs_key(entry.agent), _fields(entry.owner, entry.execution_id))
        pipe.xack(jobs_key(entry.agent), JOBS_GROUP, entry.id)
        pipe.xdel(jobs_key(entry.agent), entry.id)
        await pipe.execute()


async def forget_consumers(redis: Redis, agent: str, worker: str) -> None:
    """Remove this worker's consumer, and those silent for an hour. One with unsettled entries stays: they would be lost
    with it."""
    consumers: Any = await redis.xinfo_consumers(jobs_key(agent), JOBS_GROUP)
    for consumer in consumers:
        gone = consumer["name"] == worker.encode() or consumer["idle"] > CONSUMER_IDLE_MS
        if gone and consumer["pending"] == 0:
            await redis.xgroup_delconsumer(jobs_key(agent), JOBS_GROUP, consumer["name"])


# --- leases ----------------------------------------------------------------------------------------------------------


async def renew(redis: Redis, jobs: Sequence[Job], worker: str, lease_ms: int) -> list[Renewal]:
    """Prolong the leases of all running executions in one round trip; the answers are in the order of `jobs`."""
    async with redis.pipeline(transaction=False) as pipe:
        client: Any = pipe
        for job in jobs:
            client.eval(RENEW_SCRIPT, 1, job.record, worker, job.attempt, lease_ms)
        replies = await pipe.execute(raise_on_error=False)
    return [_renewal(reply) for reply in replies]


def _renewal(reply: Any) -> Renewal:
    if isinstance(reply, Exception):
        log.warning("renewal_failed", error=str(reply)[:200])
        return Renewal("away")
    verdict: Any = reply[0].decode()
    return Renewal(verdict, int(reply[1]), _cancel(reply[2]))


async def note_leases(redis: Redis, leases: Mapping[str, int]) -> None:
    """Tell those who look for lost workers when to look next: `Job.member` → time in ms."""
    if leases:
        await redis.zadd(LEASES, dict(leases))


async def end(redis: Redis, job: Job) -> None:
    """Nobody needs to look after this execution any more."""
    await redis.zrem(LEASES, job.member)


async def release(redis: Redis, job: Job, worker: str) -> bool:
    """Hand a running execution back to the queue; false if it is no longer this worker's to give.

    A crash between the two steps leaves it queued without a job, and its lease in `LEASES` says where to look.
    """
    if not await _eval(redis, RELEASE_SCRIPT, job.record, worker, job.attempt):
        return False
    async with redis.pipeline(transaction=True) as pipe:
        pipe.xadd(jobs_key(job.agent), _fields(job.owner, job.execution_id))
        pipe.zrem(LEASES, job.member)
        await pipe.execute()
    return True


# --- announcements ---------------------------------------------------------------------------------------------------


class AgentInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a worker announces of one agent. `time_limit` in seconds."""

    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    input_schema: dict[str, Any] | None = None
    max_attempts: int = 3
    time_limit: float | None = None


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a worker announces of itself."""

    id: str
    host: str
    pid: int
    concurrency: int
    running: int
    agents: tuple[AgentInfo, ...]


async def announce(redis: Redis, info: WorkerInfo) -> None:
    """Say that a worker lives, for the next 15 s."""
    now = await redis_ms(redis)
    silent = await redis.zrangebyscore(WORKERS, 0, now - ANNOUNCE_TTL_MS)
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hset(WORKER_INFO, info.id, msgspec.json.encode(info))
        pipe.zadd(WORKERS, {info.id: now + ANNOUNCE_TTL_MS})
        pipe.zadd(AGENTS_KNOWN, {agent.name: now for agent in info.agents})
        pipe.zremrangebyscore(AGENTS_KNOWN, 0, now - KNOWN_MS)
        if silent:
            pipe.zrem(WORKERS, *silent)
            pipe.hdel(WORKER_INFO, *silent)
        await pipe.execute()


async def retire(redis: Redis, worker: str) -> None:
    """Take a worker's announcement back."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zrem(WORKERS, worker)
        pipe.hdel(WORKER_INFO, worker)
        await pipe.execute()


async def live_workers(redis: Redis) -> list[WorkerInfo]:
    """The workers that announced themselves within 15 s."""
    ids = await redis.zrangebyscore(WORKERS, await redis_ms(redis), "+inf")
    if not ids:
        return []
    client: Any = redis
    stored: list[bytes | None] = await client.hmget(WORKER_INFO, ids)
    return [info for text in stored if text is not None and (info := _worker_info(text)) is not None]


def _worker_info(text: bytes) -> WorkerInfo | None:
    try:
        return msgspec.json.decode(text, type=WorkerInfo)
    except msgspec.MsgspecError:
        return None  # a worker of another version must not blind us to the others


async def live_agents(redis: Redis) -> list[AgentInfo]:
    """The agents of live workers by name, each once."""
    found = {agent.name: agent for worker in await live_workers(redis) for agent in worker.agents}
    return [found[name] for name in sorted(found)]


async def known_agents(redis: Redis) -> set[str]:
    """Names of the agents that any worker announced within the last 24 h."""
    names: Any = await redis.zrangebyscore(AGENTS_KNOWN, await redis_ms(redis) - KNOWN_MS, "+inf")
    return {name.decode() for name in names}


async def redis_ms(redis: Redis) -> int:
    """The clock of Redis in ms. Hosts may disagree about the time by more than an announcement lives."""
    return int(await _eval(redis, TIME_SCRIPT, WORKERS))


# --- values ----------------------------------------------------------------------------------------------------------


async def _eval(redis: Redis, script: str, key: str, *arguments: str | int) -> Any:
    """EVAL rather than EVALSHA: these scripts are short and rare, and it needs no answer to a forgotten script."""
    client: Any = redis
    return await client.eval(script, 1, key, *arguments)


def _object(encoded: bytes) -> dict[str, Any]:
    value = msgspec.json.decode(encoded) if encoded else {}
    return value if isinstance(value, dict) else {}


def _cancel(encoded: bytes) -> Cancel | None:
    if not encoded:
        return None
    try:
        return msgspec.json.decode(encoded, type=Cancel)
    except msgspec.MsgspecError:
        return Cancel()  # that somebody asked counts more than how it was written down
