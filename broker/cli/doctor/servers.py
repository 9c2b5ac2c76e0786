"""What Runcast needs of a Redis or Valkey server, judged by the state that the server reports. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from broker.cli.doctor.findings import Finding, note, ok, problem, warning

REDIS_LEAST, VALKEY_LEAST = (7, 0), (7, 2)
SKEW_WARNING_MS, SKEW_PROBLEM_MS = 100.0, 2_000.0
PING_WARNING_MS = 5.0
MEMORY_WARNING, CLIENTS_WARNING = 0.8, 0.8
PUBSUB_HARD_BYTES, PUBSUB_SOFT_BYTES = 32 * 1024**2, 8 * 1024**2
"""Redis's own defaults. An edge that falls further behind is cut off, and then reads the missed events from the log."""
PUBSUB_LIMIT = "client-output-buffer-limit pubsub 256mb 128mb 60"
"""As deploy/redis/redis.conf has it."""
MIB = 1024**2


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of several: a round trip, and the server's clock minus ours."""

    ping_ms: float
    skew_ms: float


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What one server said. `info` is INFO's fields, `config` CONFIG GET's, `times` from TIME, `default_writes` whether
    its user `default` has the rights to write; `None` where that is not allowed. `by_cluster`: it was found as one of a
    Cluster, not by its own address."""

    name: str
    info: Mapping[str, Any] | None
    config: Mapping[str, str] | None
    times: Times | None
    default_writes: bool | None = None
    by_cluster: bool = False

    @property
    def is_sentinel(self) -> bool:
        return self.info is not None and self.info.get("redis_mode") == "sentinel"


def judge(server: Server) -> list[Finding]:
    """All findings about one server."""
    findings = _of_info(server, server.info) if server.info is not None else [_untold()]
    if server.times is not None and not server.is_sentinel:
        findings += [_clock(server.times), _latency(server.times)]
    return [msgspec.structs.replace(finding, what=f"{server.name} {finding.what}") for finding in findings]


def _untold() -> Finding:
    change = "use a user that may run it (+info, like the user `edge` of deploy/redis/users.acl)"
    return note("INFO", "is not allowed: version, role, memory and persistence are not checked", change)


def _of_info(server: Server, info: Mapping[str, Any]) -> list[Finding]:
    if server.is_sentinel:
        change = "ask Sentinels for the primary: redis+sentinel://host:26379,host:26379/NAME in RUNCAST_REDIS_URL"
        return [problem("mode", "a Sentinel, which holds no data", change)]
    findings = [_version(info), _role(server, info), *_memory(info), _output_buffer(server.config)]
    findings += [_persistence(server.config or {}, info), *_replay(server.default_writes, info), _clients(info)]
    if info.get("redis_mode") == "cluster" and not server.by_cluster:
        change = "redis+cluster://host:port in RUNCAST_REDIS_URL: as a single server it refuses the keys of other nodes"
        findings.insert(1, problem("mode", "a node of a Cluster, addressed as a single server", change))
    return findings


def _version(info: Mapping[str, Any]) -> Finding:
    name, least = ("Valkey", VALKEY_LEAST) if "valkey_version" in info else ("Redis", REDIS_LEAST)
    text = str(info.get("valkey_version") or info.get("redis_version", "?"))
    parts = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if parts < least:
        return problem("version", f"{name} {text}", f"run {name} {'.'.join(map(str, least))} or newer")
    return ok("version", f"{name} {text}")


def _role(server: Server, info: Mapping[str, Any]) -> Finding:
    role = str(info.get("role", "?"))
    if role not in ("master", "primary"):
        return problem("role", role, "name the primary, or Sentinel (redis+sentinel://…): a replica takes no writes")
    replicas = int(info.get("connected_slaves", 0))
    if replicas and server.config is not None and server.config.get("min-replicas-to-write") == "0":
        change = "min-replicas-to-write 1 limits what a failover can lose (viewers get stream:reset diverged)"
        return note("role", f"primary with {replicas} replicas", change)
    return ok("role", f"primary with {replicas} replicas")


def _memory(info: Mapping[str, Any]) -> list[Finding]:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    policy = str(info.get("maxmemory_policy", "?"))
    keep = "maxmemory-policy noeviction: logs expire on their own, and an evicted log is a lost log"
    found = []
    if policy in ("noeviction", "?"):
        found.append(ok("eviction policy", policy))
    elif limit:
        found.append(problem("eviction policy", policy, keep))
    else:
        found.append(warning("eviction policy", f"{policy}, although without maxmemory it never evicts", keep))
    if not limit:
        change = "set maxmemory below the memory of the machine: a server that is killed for memory loses everything"
        found.append(note("memory", f"{used / MIB:.0f} MiB used, no maxmemory", change))
    else:
        found.append(_fill(used, limit))
    return found


def _fill(used: int, limit: int) -> Finding:
    seen = f"{used / limit:.0%} of {limit / MIB:.0f} MiB used"
    change = "raise maxmemory, or keep less: RUNCAST_LOG_MAXLEN, RUNCAST_LOG_TTL_SECONDS"
    if used >= limit:
        return problem("memory", f"{seen}: every event is refused", change)
    return warning("memory", seen, change) if used > MEMORY_WARNING * limit else ok("memory", seen)


def _output_buffer(config: Mapping[str, str] | None) -> Finding:
    what = "pub/sub output buffer"
    if config is None:
        return note(what, "CONFIG GET is not allowed", f"{PUBSUB_LIMIT}, or at least 32mb 8mb 60")
    words = config.get("client-output-buffer-limit", "").split()
    if "pubsub" not in words:
        return note(what, "unknown")
    hard, soft, seconds = (int(word) for word in words[words.index("pubsub") + 1 :][:3])
    seen = f"hard {hard / MIB:g} MiB, soft {soft / MIB:g} MiB for {seconds} s"
    if hard == 0:
        change = f"{PUBSUB_LIMIT}: without a limit one stuck edge can fill the memory"
        return warning(what, seen, change)
    if hard < PUBSUB_HARD_BYTES or (soft and soft < PUBSUB_SOFT_BYTES):
        change = f"{PUBSUB_LIMIT}: a burst cuts edges off, and logs are read again"
        return warning(what, seen, change)
    return ok(what, seen)


def _persistence(config: Mapping[str, str], info: Mapping[str, Any]) -> Finding:
    snapshot_fails = info.get("rdb_last_bgsave_status") == "err" and config.get("save") != ""
    if snapshot_fails or info.get("aof_last_write_status") == "err":
        change = "check its log and its disk: a server that cannot save refuses every event (MISCONF)"
        return problem("persistence", "the last write to disk failed", change)
    if int(info.get("aof_enabled", 0)):
        if config.get("appendfsync") == "no":
            change = "appendfsync everysec: an event that was acknowledged is on disk within a second"
            return warning("persistence", "append-only file, written when the system decides", change)
        return ok("persistence", "append-only file")
    replicas = int(info.get("connected_slaves", 0))
    saves = config.get("save")
    seen = f"snapshots only ({saves})" if saves else "no append-only file"
    if replicas:
        return note("persistence", f"{seen}, {replicas} replicas", "appendonly yes also survives if all stop")
    change = "appendonly yes (appendfsync everysec): a restart loses unsaved writes, and with them running executions"
    return warning("persistence", seen, change)


def _replay(default_writes: bool | None, info: Mapping[str, Any]) -> list[Finding]:
    """Whether a restart keeps what scripts wrote. A server that loads an append-only file runs its transactions as the
    user `default`; several versions of Redis and Valkey drop those that this user has no rights for."""
    if not int(info.get("aof_enabled", 0)):
        return []
    what, change = (
        "user default",
        "ACL SETUSER default off ~* &* +@all, and the same in its ACL file (no login with it)",
    )
    if default_writes:
        return [ok(what, "has the rights to load the append-only file")]
    refused = (info.get("errorstat_NOPERM") or {}).get("count", 0)
    seen = f"; NOPERM since the server's start: {refused}"
    if default_writes is None:
        look = "as an operator, ACL GETUSER default must show +@all and ~*; if not, a restart can lose every log: "
        return [note(what, f"its rights cannot be read with this user{seen}", look + change)]
    return [problem(what, f"lacks rights: a restart can lose every log{seen}", f"before any restart: {change}")]


def _clients(info: Mapping[str, Any]) -> Finding:
    connected, most = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    if most and connected > CLIENTS_WARNING * most:
        return warning("clients", f"{connected} of {most}", "raise maxclients, and the server's limit of open files")
    return ok("clients", f"{connected} of {most or '?'}")


def _clock(times: Times) -> Finding:
    seen = f"{times.skew_ms:+.0f} ms against this machine"
    change = "keep time with NTP or chrony on both: ids have Redis's time, and delivery latency is measured across both"
    if abs(times.skew_ms) > SKEW_PROBLEM_MS:
        return problem("clock", seen, change)
    return warning("clock", seen, change) if abs(times.skew_ms) > SKEW_WARNING_MS else ok("clock", seen)


def _latency(times: Times) -> Finding:
    seen = f"{times.ping_ms:.2f} ms a round trip"
    if times.ping_ms > PING_WARNING_MS:
        return warning("latency", seen, "put edges and workers near Redis: every append and every replay waits for it")
    return ok("latency", seen)
