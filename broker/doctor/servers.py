"""What a Redis or Valkey server must be for Runcast, judged by what it says of itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from broker.doctor.findings import Finding, note, ok, problem, warning

REDIS_LEAST, VALKEY_LEAST = (7, 0), (7, 2)
SKEW_WARNING_MS, SKEW_PROBLEM_MS = 100.0, 2_000.0
PING_WARNING_MS = 5.0
MEMORY_WARNING, CLIENTS_WARNING = 0.8, 0.8
PUBSUB_HARD_BYTES, PUBSUB_SOFT_BYTES = 32 * 1024**2, 8 * 1024**2
"""Redis's own defaults: an edge that falls behind further than this is cut off, and reads what it missed."""
MIB = 1024**2


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What one server said. `info` is INFO's fields; `config` CONFIG GET's, or `None` where that is not allowed;
    `ping_ms` the median of several; `skew_ms` its clock minus ours."""

    name: str
    info: Mapping[str, Any]
    config: Mapping[str, str] | None
    ping_ms: float
    skew_ms: float


def judge(server: Server) -> list[Finding]:
    """Everything there is to say of one server."""
    findings = [_version(server), _role(server), *_memory(server), _output_buffer(server), _persistence(server)]
    findings += [_clients(server), _clock(server), _latency(server)]
    return [msgspec.structs.replace(finding, what=f"{server.name} {finding.what}") for finding in findings]


def _version(server: Server) -> Finding:
    info = server.info
    name, least = ("Valkey", VALKEY_LEAST) if "valkey_version" in info else ("Redis", REDIS_LEAST)
    text = str(info.get("valkey_version") or info.get("redis_version", "?"))
    parts = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if parts < least:
        return problem("version", f"{name} {text}", f"run {name} {'.'.join(map(str, least))} or newer")
    return ok("version", f"{name} {text}")


def _role(server: Server) -> Finding:
    role = str(server.info.get("role", "?"))
    if role not in ("master", "primary"):
        return problem("role", role, "name the primary, or Sentinel (redis+sentinel://…): a replica takes no writes")
    replicas = int(server.info.get("connected_slaves", 0))
    if replicas and server.config is not None and server.config.get("min-replicas-to-write") == "0":
        change = "min-replicas-to-write 1 bounds what a failover can lose (viewers are told: stream:reset diverged)"
        return note("role", f"primary with {replicas} replicas", change)
    return ok("role", f"primary with {replicas} replicas")


def _memory(server: Server) -> list[Finding]:
    info = server.info
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    policy = str(info.get("maxmemory_policy", "?"))
    keep = "maxmemory-policy noeviction: logs expire by themselves, and an evicted log is a lost log"
    found = []
    if policy in ("noeviction", "?"):
        found.append(ok("eviction policy", policy))
    elif limit:
        found.append(problem("eviction policy", policy, keep))
    else:
        found.append(warning("eviction policy", f"{policy}, though without maxmemory it never evicts", keep))
    if not limit:
        change = "set maxmemory below what the machine has: a server that is killed for memory loses everything"
        found.append(note("memory", f"{used / MIB:.0f} MiB used, no maxmemory", change))
    elif used > MEMORY_WARNING * limit:
        change = "raise maxmemory, or keep less: RUNCAST_LOG_MAXLEN, RUNCAST_LOG_TTL_SECONDS"
        found.append(warning("memory", f"{used / limit:.0%} of {limit / MIB:.0f} MiB used", change))
    else:
        found.append(ok("memory", f"{used / limit:.0%} of {limit / MIB:.0f} MiB used"))
    return found


def _output_buffer(server: Server) -> Finding:
    what = "pub/sub output buffer"
    if server.config is None:
        return note(what, "CONFIG GET is not allowed here", "see that client-output-buffer-limit pubsub is 32mb 8mb 60")
    words = server.config.get("client-output-buffer-limit", "").split()
    if "pubsub" not in words:
        return note(what, "unknown")
    hard, soft, seconds = (int(word) for word in words[words.index("pubsub") + 1 :][:3])
    seen = f"hard {hard / MIB:g} MiB, soft {soft / MIB:g} MiB for {seconds} s"
    if hard == 0:
        change = "client-output-buffer-limit pubsub 32mb 8mb 60: without a limit one stuck edge can fill the memory"
        return warning(what, seen, change)
    if hard < PUBSUB_HARD_BYTES or (soft and soft < PUBSUB_SOFT_BYTES):
        change = "client-output-buffer-limit pubsub 32mb 8mb 60: a burst cuts edges off, and each cut is read again"
        return warning(what, seen, change)
    return ok(what, seen)


def _persistence(server: Server) -> Finding:
    info = server.info
    if int(info.get("aof_enabled", 0)):
        return ok("persistence", "append-only file")
    saves = server.config is not None and server.config.get("save")
    replicas = int(info.get("connected_slaves", 0))
    seen = f"snapshots only ({server.config['save']})" if saves and server.config is not None else "no append-only file"
    if replicas:
        return note("persistence", f"{seen}, {replicas} replicas", "appendonly yes also survives the loss of all")
    change = "appendonly yes (appendfsync everysec): a restart loses what was not saved, and running executions with it"
    return warning("persistence", seen, change)


def _clients(server: Server) -> Finding:
    connected, most = int(server.info.get("connected_clients", 0)), int(server.info.get("maxclients", 0))
    if most and connected > CLIENTS_WARNING * most:
        return warning("clients", f"{connected} of {most}", "raise maxclients, and the server's limit of open files")
    return ok("clients", f"{connected} of {most or '?'}")


def _clock(server: Server) -> Finding:
    seen = f"{server.skew_ms:+.0f} ms against this machine"
    change = "keep time with NTP or chrony on both: ids are Redis's time, and delivery latency is measured across both"
    if abs(server.skew_ms) > SKEW_PROBLEM_MS:
        return problem("clock", seen, change)
    return warning("clock", seen, change) if abs(server.skew_ms) > SKEW_WARNING_MS else ok("clock", seen)


def _latency(server: Server) -> Finding:
    seen = f"{server.ping_ms:.2f} ms a round trip"
    if server.ping_ms > PING_WARNING_MS:
        return warning("latency", seen, "put edges and workers near Redis: every append and every replay waits for it")
    return ok("latency", seen)
