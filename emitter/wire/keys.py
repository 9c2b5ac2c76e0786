"""The only place that spells a Redis key or the name of a channel."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import msgspec

from emitter.errors import InvalidEvent
from emitter.wire.ids import EXECUTION_ID, check_execution_id

# Subjects of real identity providers look like `auth0|abc`, `alice@example.com`, `a+b=c`; what could break a key, a
# glob pattern or a hash tag (braces, colons, stars, brackets, blanks, control characters) is not in it.
OWNER_ID = re.compile(r"[A-Za-z0-9_.@|+=~-]{1,128}\Z")

PREFIX = os.environ.get("RUNCAST_REDIS_PREFIX", "").strip() or "rc"
"""The prefix of every key and channel of this deployment. Fixed when the process starts, because keys are made in many
places. `emitter.store.connection.connect` refuses a prefix that does not match `PREFIX_FORM`."""
PREFIX_FORM = re.compile(r"[A-Za-z0-9_-]{1,32}\Z")
PREFIX_ALLOWED = "1 to 32 of A-Z a-z 0-9 _ -"


def channel_suffix(database: int) -> str:
    """What follows a key in the name of its pub/sub channel. A server's databases share one set of channels, so in any
    but database 0 a channel names its database: `rc:{org:user}:feed@1`."""
    return f"@{database}" if database else ""


class ExecutionKeys(NamedTuple):
    """The keys of one execution. `log` and `control` also name pub/sub channels (with `channel_suffix`). `children` is
    a sorted set: the executions that it started by the time (ms) of that, no two at the same."""

    record: str
    log: str
    control: str
    children: str


class Owner(msgspec.Struct, frozen=True):
    """The owner of an execution (org and user). All keys of one owner share a hash tag, so every script touches one
    slot."""

    user: str
    org: str = "default"

    def __post_init__(self) -> None:
        for name, value in (("user", self.user), ("org", self.org)):
            if not (isinstance(value, str) and OWNER_ID.match(value)):
                raise InvalidEvent(f"{name}: {str(value)[:64]!r} is not 1 to 128 of A-Z a-z 0-9 _ . @ | + = ~ -")

    @property
    def prefix(self) -> str:
        return f"{PREFIX}:{{{self.org}:{self.user}}}:"

    @property
    def feed(self) -> str:
        """Stream and channel with the events of all executions of this owner, with its own ids."""
        return self.prefix + "feed"

    @property
    def feed_seq(self) -> str:
        """Counter: the feed's last ordinal."""
        return self.prefix + "feed:seq"

    @property
    def index(self) -> str:
        """Sorted set of execution ids by creation time (ms)."""
        return self.prefix + "index"

    def conversation(self, conversation_id: str) -> str:
        """Sorted set of the executions of one conversation by creation time (ms): the newest 1,000."""
        if not EXECUTION_ID.match(conversation_id):
            raise InvalidEvent(f"conversationId: {conversation_id[:80]!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
        return self.prefix + "conversation:" + conversation_id

    def found(self, day: int) -> str:
        """Hash: id of an ended execution that was created on this day (since 1970) → what a search reads of it
        (`broker.executions.search`)."""
        return self.prefix + f"found:{day}"

    def idempotency(self, digest: str) -> str:
        return self.prefix + "idem:" + digest

    def rate(self, what: str) -> str:
        return self.prefix + "rate:" + what

    @property
    def connections(self) -> str:
        """Hash: edge id → `<count> <expires ms>`, this owner's open streams on each edge."""
        return self.prefix + "connections"

    def shares(self, execution_id: str) -> str:
        """Hash: id of a share link of this execution → what its owner is shown of it (JSON)."""
        return self.prefix + "shares:" + check_execution_id(execution_id)

    def execution(self, execution_id: str) -> ExecutionKeys:
        record = self.prefix + "x:" + check_execution_id(execution_id)
        return ExecutionKeys(record, record + ":log", record + ":control", record + ":children")


# Keys without an owner. The workers' queues share one slot, so that one read can wait for jobs of every agent.
JOBS = PREFIX + ":{jobs}:"
WORKERS = JOBS + "workers"
"""Sorted set: worker id by the time (ms) its announcement ends."""
WORKER_INFO = JOBS + "worker-info"
"""Hash: worker id → JSON of its announcement."""
AGENTS_KNOWN = JOBS + "agents"
"""Sorted set: names of agents by the time (ms) a worker last announced them."""
AGENTS_STEERABLE = JOBS + "agents:steerable"
"""Sorted set: names of those agents that take messages, as `AGENTS_KNOWN`."""
DUE = JOBS + "due"
"""Sorted set: `member` of every execution for workers by the time (ms) of its next check: when its lease ends, when it
may start, or when its job should have been claimed."""
QUEUED = JOBS + "queued"
"""Hash: `member` of an execution that waits for a worker → the id of its job in the agent's stream."""
REAPER = JOBS + "reaper"
"""String: the worker that holds the reaper's lock; it expires with the worker."""
ABANDONED = JOBS + "abandoned"
"""Sorted set: `member` of an execution with `onDisconnect` by the time (ms) of its cancel, unless it is watched."""
ABANDONED_ASKED = JOBS + "abandoned:asked"
"""Hash: the last query for abandoned executions (`at`, ms), and since when there was no gap (`since`)."""
EXPIRIES = JOBS + "expiries"
"""Sorted set: `member` of an execution, a blank and the id of an input by the time (ms) at which it expires."""
SCHEDULES = JOBS + "schedules"
"""Hash: name of a schedule → how far it has come (JSON of `emitter.worker.scheduler.Mark`)."""
FENCE_SECRET = JOBS + "fence-secret"
"""String: what edges sign the fences of workers over HTTP with."""
HISTORIES = JOBS + "histories"
"""Hash: replication id of a primary of a Cluster → when (ms) all records were swept (`emitter.store.sweep`)."""
JOBS_GROUP = "workers"
# Webhooks have a slot of their own as well.
WEBHOOKS = PREFIX + ":{webhooks}:due"
"""Sorted set: `hook_member` of every webhook that may have something to deliver by the time (ms) of its next check. Of
one that an edge holds that is the end of its lease."""
WEBHOOKS_HELD = PREFIX + ":{webhooks}:held"
"""Hash: `hook_member` of a webhook → the edge that holds it, or `-` if it waits until its next check."""
WEBHOOKS_WAKE = PREFIX + ":{webhooks}:wake"
"""Channel: `member` of an execution whose log has an event for its webhooks, a blank, and their ids."""
EDGES = PREFIX + ":edges"
"""Sorted set: edge id by the time (ms) its announcement ends."""
DATASET = PREFIX + ":dataset"
"""Hash: `mark` is a random name of the data in this Redis. Another one, or none, means that the data was lost."""
DATASET_LOST = PREFIX + ":dataset-lost"
"""String: when (ms) an edge last noticed that; kept for a day."""
REVOCATIONS = PREFIX + ":revocations"
"""Sorted set and channel: `jti:<id>` or `user:<org>:<user>` by a score (`broker.auth.revocations`)."""
REVOCATIONS_TAKEN_BACK = PREFIX + ":revocations:taken-back"
"""Sorted set: the same members by the time (ms) at which their revocation was taken back."""


def jobs_key(agent: str) -> str:
    """Stream of the jobs waiting for one agent; its consumer group is `JOBS_GROUP`."""
    return JOBS + "q:" + agent


def held_jobs_key(worker: str) -> str:
    """Hash: `member` of each execution that a worker over HTTP has → JSON of `broker.jobs.held.HeldJob`."""
    return JOBS + "held:" + worker


MCP_KEY = PREFIX + ":mcp:key"
"""String: the key with which edges sign what MCP clients keep for them."""


def member(owner: Owner, execution_id: str) -> str:
    """An execution's name in sets with executions of all owners."""
    return f"{owner.org}:{owner.user}:{execution_id}"


def member_of_log(key: str) -> str:
    """The `member` of the execution whose log this is."""
    owner, _, rest = key.partition("{")[2].partition("}:x:")
    return f"{owner}:{rest.removesuffix(':log')}"


def parse_member(name: str) -> tuple[Owner, str]:
    """Owner and execution id of a `member`. Raises `InvalidEvent`."""
    parts = name.split(":")
    if len(parts) != 3:
        raise InvalidEvent(f"{name[:300]!r} is not <org>:<user>:<execution>")
    return Owner(parts[1], parts[0]), check_execution_id(parts[2])


def parse_record(key: str) -> tuple[Owner, str]:
    """Owner and execution id of a record's key. Raises `InvalidEvent` for another key."""
    owner, _, execution_id = key.partition("{")[2].partition("}:x:")
    return parse_member(f"{owner}:{execution_id}")


def hook_member(owner: Owner, execution_id: str, hook_id: str) -> str:
    """A webhook's name in `WEBHOOKS`."""
    return f"{member(owner, execution_id)}:{hook_id}"


def waiting_key(name: str) -> str:
    """Sorted set: executions of one owner (that of this `member`) which no worker has taken yet, by the time (ms) at
    which they were accepted."""
    return JOBS + "waiting:" + name.rpartition(":")[0]


def viewers_key(name: str) -> str:
    """Sorted set: edges with viewers of an execution (by its `member`) by the end (ms) of their watch leases."""
    return JOBS + "viewers:" + name


def ticket_key(digest: str) -> str:
    """The stream that a ticket opens (JSON)."""
    return PREFIX + ":ticket:" + digest


def share_key(digest: str) -> str:
    """Whom a share link stands for (JSON)."""
    return PREFIX + ":share:" + digest


def ticket_holder_key(digest: str) -> str:
    """Which edge has a ticket's stream, of which use: `<edge> <use>`."""
    return PREFIX + ":ticket-holder:" + digest


def ticket_uses_key(digest: str) -> str:
    """How often a ticket was used: which of two uses is the newer one."""
    return PREFIX + ":ticket-uses:" + digest


def edge_info_key(edge_id: str) -> str:
    """The announcement of an edge (JSON); it expires if the edge does not renew it."""
    return PREFIX + ":edge-info:" + edge_id


def edge_channel(edge_id: str) -> str:
    """The channel on which an edge hears its own heartbeat (readiness)."""
    return PREFIX + ":edge:" + edge_id
