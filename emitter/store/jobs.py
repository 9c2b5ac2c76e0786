"""The Redis contract of jobs: how an execution reaches a worker, stays with it and leaves it.

A job is an entry {org, user, execution} in its agent's stream. It only says where to look: whether the execution still
waits is decided by its record, under `claim.lua`, so an entry read twice runs once. Leases end by the clock of Redis.

Every execution under the workers' care stands in `DUE` from before it is accepted until after it has ended, with the
time to look at it next. So whatever step is lost on the way, somebody comes by (`emitter.store.reaper`).
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
from emitter.store.connection import repeated
from emitter.tracing.trace import Trace, read_trace
from emitter.wire.ids import check_execution_id
from emitter.wire.keys import DUE, JOBS_GROUP, QUEUED, Owner, jobs_key, member, waiting_key
from emitter.wire.record import FORMAT, Cancel, ExecutionRecord, Field, Selection, read_cancel, read_object

log = structlog.get_logger("emitter.jobs")

CLAIM_SCRIPT = Path(__file__).with_name("claim.lua").read_text()
RENEW_SCRIPT = Path(__file__).with_name("renew.lua").read_text()
ENQUEUE_SCRIPT = Path(__file__).with_name("enqueue.lua").read_text()
# KEYS 1 due  2 its owner's that wait   ARGV 1 member  2 look in (ms)  3 how many may wait (0: no limit)
# Reply 1, or 0 if too many wait. Of those that have been there for the longest it lets go which nobody looks after.
# Where the ACL is of a version that knew no limit (no ZSCORE), there is none.
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
# KEYS 1 due  2 queued  3 the agent's jobs  4 its owner's that wait   ARGV 1 member  2 planned by (ms; -1: whenever)
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
QUEUED_LOOK_MS = 60_000
"""How often an execution that waits for a worker is looked at: whether its job is still there."""
APART_LOOK_MS = 1_000
"""How soon a suspect is offered again that found no worker without another one."""
APART_SECONDS = 5.0
NEWER_LOOK_MS = 5_000
"""How soon an execution is offered again that only a newer version's worker can run."""
ACCEPT_LOOK_MS = 10_000
"""How long accepting an execution may take before somebody looks what became of it."""


CANCEL_GRACE_SECONDS = 10.0
"""How long a process that no worker is may go on after its execution was asked to stop."""


class Entry(NamedTuple):
    """A job as it was read: where it stands in its stream, and the execution it is about."""

    agent: str
    id: bytes
    owner: Owner
    execution_id: str


class Given(msgspec.Struct, frozen=True):
    """What an execution was started with, credentials included: the record has it for the agent until the end."""

    task: str
    params: dict[str, Any]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed execution. `from_seq` is the log's ordinal before this attempt; `lease_ms` is when the lease ends
    (Redis time), `waited_ms` how long it waited for a worker; `apart_seconds`: its worker was lost, and for so long no
    other execution like that may run beside it; `lost` and `failed` count the attempts before this one that lost their
    worker, or failed and were to be tried again; `cancel` was asked for before it started; `trace` is where it was
    accepted."""

    owner: Owner
    execution_id: str
    agent: str
    attempt: int
    from_seq: int
    lease_ms: int
    waited_ms: int = 0
    apart_seconds: float = 0.0
    lost: int = 0
    failed: int = 0
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


class Renewal(NamedTuple):
    """`ended`: the log is closed; `lost`: another worker or attempt has the execution; `away`: Redis had an error."""

    verdict: Literal["ok", "ended", "lost", "away"]
    lease_ms: int = 0
    cancel: Cancel | None = None


class UnreadableJob(Exception):
    """The record holds what no agent can be given. The attempt was taken."""

    def __init__(self, attempt: int, detail: str) -> None:
        super().__init__(detail)
        self.attempt = attempt
        self.detail = detail


class Apart(NamedTuple):
    """A claim got nothing because the execution is for another worker: this one runs another suspect, or is too old for
    its record. `look_ms` is when to offer the job again."""

    look_ms: int


Refused = Literal["stale", "owned", "lapsed"]
"""Why a claim got nothing: the execution waits for nobody, a live worker is just about to start it, or a worker took it
and was lost before it started it."""


# --- the queue -------------------------------------------------------------------------------------------------------


async def enqueue(redis: Redis, owner: Owner, execution_id: str, agent: str) -> None:
    """Offer a queued execution to the workers of an agent, unless it is on offer already. Its record must say `queued`
    before this is called."""
    name = member(owner, check_execution_id(execution_id))
    keys = (jobs_key(agent), QUEUED, DUE)
    await _eval(redis, ENQUEUE_SCRIPT, keys, name, owner.org, owner.user, execution_id, QUEUED_LOOK_MS)


async def admit(redis: Redis, owner: Owner, execution_id: str, ms: int, most: int) -> bool:
    """Have an execution looked at in `ms` milliseconds, unless that is planned for some other time; False if `most` of
    its owner's wait for a worker already."""
    name = member(owner, execution_id)
    return bool(await _eval(redis, ADMIT_SCRIPT, (DUE, waiting_key(name)), name, ms, most))


async def look_now(redis: Redis, owner: Owner, execution_id: str) -> None:
    """Have an execution looked at as soon as possible."""
    await redis.zadd(DUE, {member(owner, execution_id): await redis_ms(redis)})


async def look_at(redis: Redis, times: Mapping[str, int]) -> None:
    """When to look next at executions: `member` → time in ms."""
    if times:
        await redis.zadd(DUE, dict(times))


async def ensure_group(redis: Redis, agent: str) -> None:
    """Make an agent's stream and consumer group, which sees every job that is in the stream already."""
    try:
        await redis.xgroup_create(jobs_key(agent), JOBS_GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


async def waiting(redis: Redis, agents: Sequence[str]) -> dict[str, int]:
    """How many jobs of each agent wait for a worker, those included that one has just read."""
    async with redis.pipeline(transaction=False) as pipe:
        for agent in agents:
            pipe.xlen(jobs_key(agent))
        return dict(zip(agents, await pipe.execute(), strict=True))


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


async def claim(
    redis: Redis, entry: Entry, worker: str, lease_ms: int, max_attempts: int, *, has_suspect: bool = False
) -> Job | Refused | Apart:
    """Take the execution if it still waits. Asking twice, after a lost reply, gives the same attempt. `has_suspect`:
    this worker runs an execution that may have been the end of another worker. Raises `UnreadableJob` for what can
    never run."""
    key = entry.owner.execution(entry.execution_id).record
    reply: Any = await _eval(redis, CLAIM_SCRIPT, (key,), worker, lease_ms, max_attempts, int(has_suspect))
    if reply[0] == b"apart":
        return Apart(reply[1] + APART_LOOK_MS)
    if reply[0] == b"newer":
        log.warning("record_newer", execution=entry.execution_id, format=reply[2], known=FORMAT)
        return Apart(reply[1] + NEWER_LOOK_MS)
    if reply[0] != b"ok":
        refused: Any = reply[0].decode()
        return refused  # type: ignore[no-any-return]
    try:
        record = _CLAIMED.read([None, *reply[5:17]])  # the script has looked at the format
        given = _given(record)
        return Job(
            owner=entry.owner,
            execution_id=entry.execution_id,
            agent=entry.agent,
            attempt=reply[1],
            from_seq=reply[2],
            lease_ms=int(reply[3]),
            waited_ms=max(0, reply[4]),
            task=given.task,
            params=given.params,
            lost=record.lost,
            failed=record.failed,
            apart_seconds=_apart_seconds(record.lost, max_attempts, record.lost_after_ms / 1000),
            metadata=read_object(record.metadata),
            request_id=record.request_id or None,
            conversation_id=record.conversation_id or None,
            cancel=record.cancel,
            trace=read_trace([record.traceparent], [record.tracestate]),
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise UnreadableJob(reply[1], f"{type(error).__name__}: {error}") from error


# What `claim.lua` hands out of the record, in its order.
_CLAIMED = Selection(
    Field.TASK, Field.PARAMS, Field.METADATA, Field.REQUEST_ID, Field.CONVERSATION_ID, Field.CANCEL, Field.TRACEPARENT,
    Field.TRACESTATE, Field.GIVEN, Field.LOST, Field.LOST_AFTER, Field.FAILED,
)  # fmt: skip


def _given(record: ExecutionRecord) -> Given:
    if record.given:
        return msgspec.json.decode(record.given, type=Given)
    return Given(record.task or "", read_object(record.params))


def _apart_seconds(lost: int, max_attempts: int, lasted: float) -> float:
    """How long an execution whose workers were lost so many times is kept apart from others like it. What crashes its
    worker usually does so soon. On its last chance it is kept apart for as long as the lost attempt `lasted`, so that
    it fails for no fault but its own; before that not for long: a machine that was lost may have had a hundred."""
    if not lost:
        return 0.0
    return lasted if lost + 1 >= max_attempts else min(lasted, APART_SECONDS)


async def settle(redis: Redis, entry: Entry, job: Job | None, *, look_ms: int | None = None) -> None:
    """Take an entry out of its stream: claimed as `job`, whose lease is from here on known to those who look for lost
    workers; or, without a job, stale, or to be offered again at `look_ms`."""
    async with redis.pipeline(transaction=True) as pipe:
        if (look := look_ms if job is None else job.lease_ms) is not None:
            pipe.zadd(DUE, {member(entry.owner, entry.execution_id): look})
        pipe.xack(jobs_key(entry.agent), JOBS_GROUP, entry.id)
        pipe.xdel(jobs_key(entry.agent), entry.id)
        name = member(entry.owner, entry.execution_id)
        pipe.hdel(QUEUED, name)
        pipe.zrem(waiting_key(name), name)
        await pipe.execute()


async def put_back(redis: Redis, entry: Entry) -> None:
    """Offer an entry again that was read and not claimed."""
    await settle(redis, entry, None)
    await enqueue(redis, entry.owner, entry.execution_id, entry.agent)


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
    return Renewal(verdict, int(reply[1]), read_cancel(reply[2]))


async def end(redis: Redis, name: str, agent: str = "", *, planned_by: int | None = None) -> None:
    """Nobody needs to look after this execution (by its `member`) any more; its job goes too, if its agent is named. A
    look planned for later than `planned_by` (ms) stays: somebody has planned it since."""
    keys = (DUE, QUEUED, jobs_key(agent), waiting_key(name))
    await _eval(redis, END_SCRIPT, keys, name, -1 if planned_by is None else planned_by)


async def redis_ms(redis: Redis) -> int:
    """The clock of Redis in ms. Hosts may disagree about the time by more than an announcement lives."""
    return int(await _eval(redis, TIME_SCRIPT, (DUE,)))


# --- scripts ---------------------------------------------------------------------------------------------------------


async def _eval(redis: Redis, script: str, keys: Sequence[str], *arguments: str | int) -> Any:
    """EVAL rather than EVALSHA: these scripts are short and rare, and it needs no answer to a forgotten script. Each of
    them may run twice."""
    client: Any = redis
    return await repeated(lambda: client.eval(script, len(keys), *keys, *arguments))
