"""The values of the snapshots of the operations stream. The API description is made from these types.

Edges announce an `EdgeInfo` of themselves in Redis. All fields but the ids have defaults, so that edges and workers of
different versions can be seen side by side.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import field

from emitter.values import Millis


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of every part of a snapshot."""


class Latency(_Part, frozen=True, kw_only=True):
    """From append to socket write, in milliseconds."""

    p50: float
    p99: float


class EdgeInfo(_Part, frozen=True, kw_only=True):
    """An edge as it announces itself. Rates, latency and lag (the mean) are those of the last seconds; events are those
    that arrived for what is watched there, deliveries those written to viewers."""

    id: str
    version: str = ""
    viewers: int = 0
    logs: int = 0
    draining: bool = False
    events_per_second: float = 0.0
    deliveries_per_second: float = 0.0
    latency_ms: Latency | None = None
    loop_lag_ms: float | None = None
    rss_bytes: int | None = None
    started_at: Millis | None = None
    is_self: bool = field(default=False, name="self")
    """Whether it is the edge that made the snapshot."""


class OpsWorker(_Part, frozen=True, kw_only=True):
    """A worker as it last announced itself; `agents` are names. `waiting` executions wait for a person or a
    child, beside those that run."""

    id: str
    host: str
    pid: int
    agents: list[str]
    running: int
    concurrency: int
    waiting: int = 0
    loop_lag_ms: float | None = None
    rss_bytes: int | None = None
    started_at: Millis | None = None


class OpsAgent(_Part, frozen=True, kw_only=True):
    """An agent's queue: jobs that no worker has taken yet, and for how long the first of them has waited."""

    name: str
    workers: int
    queued: int
    oldest_ms: int | None = None


class OpsTotals(_Part, frozen=True, kw_only=True):
    """Over all edges and workers. An event that two edges watch counts at both."""

    viewers: int = 0
    events_per_second: float = 0.0
    deliveries_per_second: float = 0.0
    running: int = 0
    concurrency: int = 0
    queued: int = 0


class RedisNode(_Part, frozen=True, kw_only=True):
    """One server as it describes itself (INFO); of a cluster the primaries, behind Sentinel the current one."""

    address: str
    server: Literal["redis", "valkey"]
    version: str
    role: Literal["primary", "replica"]
    used_memory_bytes: int
    max_memory_bytes: int
    eviction_policy: str
    connected_clients: int
    ops_per_second: int
    ping_ms: float
    replicas: int
    evicted_keys: int
    uptime_seconds: int


class OpsRedis(_Part, frozen=True, kw_only=True):
    """What is known of Redis: sums over its nodes, the slowest ping. While it is away (`up` is false, `error` says why)
    there are no nodes, and no numbers."""

    up: bool
    error: str | None = None
    mode: Literal["standalone", "sentinel", "cluster"] | None = None
    version: str | None = None
    used_memory_bytes: int | None = None
    max_memory_bytes: int | None = None
    eviction_policy: str | None = None
    connected_clients: int | None = None
    ops_per_second: int | None = None
    ping_ms: float | None = None
    role: Literal["primary", "replica"] | None = None
    nodes: list[RedisNode] = []


class OpsSnapshot(_Part, frozen=True, kw_only=True):
    """How everything is. While Redis is away the others' parts are those of `as_of`, when it was last read."""

    ts: Millis
    as_of: Millis | None = None
    edges: list[EdgeInfo] = []
    workers: list[OpsWorker] = []
    agents: list[OpsAgent] = []
    totals: OpsTotals = OpsTotals()
    redis: OpsRedis
