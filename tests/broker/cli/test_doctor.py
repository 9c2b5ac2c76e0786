"""`runcast doctor`: what is judged, and what is seen of a real server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.doctor import servers
from broker.cli.doctor.findings import Finding, as_text, is_well, note, ok, problem
from broker.cli.doctor.network_path import caller_of
from broker.cli.doctor.proxy import (
    Sent,
    judge_cache,
    judge_coding,
    judge_content_types,
    judge_events,
    judge_first_byte,
    judge_headers,
    judge_http2,
    judge_idle,
    judge_large,
    judge_private,
    judge_query,
    judge_resume,
)
from broker.cli.doctor.redis import list_live, look_at_redis
from broker.cli.doctor.servers import Server, Times, judge
from broker.cli.embedded import EmbeddedRedis
from emitter.store import announcements
from emitter.store.announcements import WorkerInfo
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from emitter.worker.agents import Agents
from tests.deploy.acl_server import SERVERS, AclServer, acl_server
from tests.edges import ROOT, token_for, under_load
from tests.ports import reserved_ports

GOOD_INFO: Mapping[str, Any] = {
    "redis_version": "7.2.4",
    "role": "master",
    "used_memory": 100,
    "maxmemory": 1000,
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "connected_clients": 5,
    "maxclients": 10_000,
    "connected_slaves": 1,
}
GOOD_CONFIG = {
    "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    "save": "",
    "min-replicas-to-write": "1",
}


def server(
    *,
    info: Mapping[str, Any] | None = {},
    config: Mapping[str, str] | None = {},
    default_writes: bool | None = True,
    by_cluster: bool = False,
    ping_ms: float = 0.2,
    skew_ms: float = 1.0,
) -> Server:
    return Server(
        name="Redis",
        info=None if info is None else {**GOOD_INFO, **info},
        config=None if config is None else {**GOOD_CONFIG, **config},
        times=Times(ping_ms=ping_ms, skew_ms=skew_ms),
        default_writes=default_writes,
        by_cluster=by_cluster,
    )


def levels(server: Server) -> dict[str, str]:
    return {finding.what.removeprefix("Redis "): finding.level for finding in judge(server)}


def test_a_server_set_up_well_has_nothing_to_change() -> None:
    """Every finding is ok, and says nothing of changes."""
    findings = judge(server())
    assert {finding.level for finding in findings} == {"ok"}
    assert not any(finding.change for finding in findings)


def test_its_advice_is_what_is_shipped() -> None:
    """Whoever does as the doctor says has what deploy/redis/redis.conf has."""
    changes = [
        finding.change
        for wrong in ("pubsub 0 0 0", "pubsub 1048576 0 0")
        for finding in judge(server(config={"client-output-buffer-limit": wrong}))
        if finding.level == "warning"
    ]
    shipped = (ROOT / "deploy" / "redis" / "redis.conf").read_text().splitlines()
    assert len(changes) == 2
    assert all(change.partition(": ")[0] in shipped for change in changes)


@pytest.mark.parametrize(
    ("what", "level", "wrong"),
    [
        ("version", "problem", server(info={"redis_version": "6.2.14"})),
        ("version", "problem", server(info={"valkey_version": "7.1.0"})),
        ("version", "ok", server(info={"valkey_version": "9.1.2", "redis_version": "7.2.4"})),
        ("role", "problem", server(info={"role": "slave"})),
        ("role", "note", server(config={"min-replicas-to-write": "0"})),
        ("eviction policy", "problem", server(info={"maxmemory_policy": "allkeys-lru"})),
        ("eviction policy", "warning", server(info={"maxmemory_policy": "allkeys-lru", "maxmemory": 0})),
        ("memory", "note", server(info={"maxmemory": 0})),
        ("memory", "warning", server(info={"used_memory": 900})),
        ("memory", "problem", server(info={"used_memory": 1001})),
        ("mode", "problem", server(info={"redis_mode": "cluster"})),
        ("mode", "problem", server(info={"redis_mode": "sentinel"})),
        ("INFO", "note", server(info=None)),
        ("pub/sub output buffer", "warning", server(config={"client-output-buffer-limit": "pubsub 0 0 0"})),
        ("pub/sub output buffer", "warning", server(config={"client-output-buffer-limit": "pubsub 1048576 0 0"})),
        ("pub/sub output buffer", "note", server(config=None)),
        ("persistence", "warning", server(info={"aof_enabled": 0, "connected_slaves": 0})),
        ("persistence", "note", server(info={"aof_enabled": 0})),
        ("persistence", "warning", server(config={"appendfsync": "no"})),
        ("persistence", "problem", server(info={"aof_last_write_status": "err"})),
        ("persistence", "problem", server(info={"rdb_last_bgsave_status": "err"}, config={"save": "60 1"})),
        ("persistence", "ok", server(info={"rdb_last_bgsave_status": "err"})),
        ("user default", "problem", server(default_writes=False)),
        ("user default", "note", server(default_writes=None)),
        ("clients", "warning", server(info={"connected_clients": 9_500})),
        ("clock", "warning", server(skew_ms=-300.0)),
        ("clock", "problem", server(skew_ms=5_000.0)),
        ("latency", "warning", server(ping_ms=40.0)),
    ],
)
def test_what_is_wrong_is_said_with_its_change(what: str, level: str, wrong: Server) -> None:
    """One wrong thing changes one finding, and every problem and warning says what to change."""
    found = levels(wrong)
    assert found[what] == level
    assert {other for name, other in found.items() if name != what} <= {"ok", "note"}
    assert all(finding.change for finding in judge(wrong) if finding.level in ("problem", "warning"))


def test_events_that_come_in_heaps_are_held_back() -> None:
    """Differences between events are a problem; a delay that all have may be the distance's, or a proxy's."""
    near = [Sent(at, at + 0.05) for at in (0.0, 0.4, 0.8)]
    far = [Sent(at, at + 0.3) for at in (0.0, 0.4, 0.8)]
    heaped = [Sent(at, 1.2) for at in (0.0, 0.4, 0.8)]
    assert judge_events(near).level == "ok"
    assert judge_events(far).level == "warning"
    assert judge_events(heaped).level == "problem"
    assert judge_events([*far, Sent(1.2, None)]).level == "problem"


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (judge_first_byte(0.01), "ok"),
        (judge_first_byte(4.0), "problem"),
        (judge_first_byte(None), "problem"),
        (judge_large(True), "ok"),
        (judge_large(False), "problem"),
        (judge_coding("", False), "ok"),
        (judge_coding("gzip", True), "ok"),
        (judge_coding("gzip", False), "problem"),
        (judge_coding("br", False), "problem"),
        (judge_headers({"Cache-Control": "no-store"})[0], "warning"),
        (judge_idle(40.0, None, 2, 15.0)[0], "ok"),
        (judge_idle(40.0, None, 0, 15.0)[0], "problem"),
        (judge_idle(5.0, None, 0, 15.0)[0], "note"),
        (judge_idle(10.0, 10.0, 0, 15.0)[0], "problem"),
        (judge_resume("1-2", "1-2"), "ok"),
        (judge_resume("1-1", "1-2"), "problem"),
        (judge_resume(None, "1-2"), "problem"),
        (judge_http2("https", "h2"), "ok"),
        (judge_http2("https", None), "warning"),
        (judge_http2("http", None), "note"),
        (judge_private(False), "ok"),
        (judge_private(True), "problem"),
        (judge_cache(401, 200)[0], "problem"),
        (judge_cache(200, 200)[0], "problem"),
        (judge_content_types(["text/event-stream", "text/html"])[0], "problem"),
        (judge_query(), "problem"),
    ],
)
def test_what_comes_through_is_judged(finding: Finding, level: str) -> None:
    """Each thing that can go wrong on the way has its level."""
    assert finding.level == level


def test_what_is_as_it_should_be_adds_no_line() -> None:
    """One Content-Type, and nothing told to who has no token: nothing to say."""
    assert judge_content_types(["text/event-stream"]) == judge_cache(401, 401) == judge_cache(401, None) == []


def test_a_node_found_as_one_of_a_cluster_is_well() -> None:
    """Only a URL that names it alone is wrong."""
    assert "mode" not in levels(server(info={"redis_mode": "cluster"}, by_cluster=True))


def test_a_report_has_a_line_for_each_and_one_for_each_change() -> None:
    """The mark tells the level; notes do not make it unwell, problems do."""
    findings = [ok("version", "Redis 7.2"), note("memory", "no maxmemory", "set one"), problem("role", "slave", "no")]
    assert as_text(findings).splitlines() == [
        "✓ version: Redis 7.2",
        "· memory: no maxmemory",
        "    → set one",
        "✗ role: slave",
        "    → no",
    ]
    assert is_well(findings[:2])
    assert not is_well(findings)


def test_a_token_names_its_owner() -> None:
    """Whose streams are looked at is read from the token; what is no token is refused."""
    assert caller_of(token_for("alice", org="acme")).owner == Owner("alice", "acme")
    with pytest.raises(ValueError, match="no JWT"):
        caller_of("nonsense")


async def test_a_real_server_is_looked_at(redis_url: str, redis: Redis) -> None:
    """A private server has no problem, can do everything, and keeps nothing for longer than two minutes."""
    findings = await look_at_redis(redis_url)
    assert is_well(findings), as_text(findings)
    seen = {(finding.what, finding.seen) for finding in findings}
    assert {("rights", "can append to a log and read it"), ("rights", "can publish and hear it")} <= seen
    left = {key: await redis.pttl(key) for key in await redis.keys("rc:{*")}
    assert left
    assert all(0 < ttl <= 121_000 for ttl in left.values()), left


async def test_what_a_user_may_not_do_is_named(own_redis: EmbeddedRedis) -> None:
    """A user without the rights to publish or append hears which it lacks."""
    admin = connect(own_redis.url)
    await admin.execute_command(
        "ACL", "SETUSER", "weak", "on", ">pw", "~rc:*", "+ping", "+info", "+time", "+client", "+hello"
    )
    findings = await look_at_redis(own_redis.url.replace("unix://", "unix://weak:pw@", 1))
    await admin.aclose()
    lacking = [finding for finding in findings if finding.what == "rights"]
    assert [finding.level for finding in lacking] == ["problem"] * 3, as_text(findings)
    assert all("users.acl" in finding.change for finding in lacking)
    assert next(finding for finding in findings if "output buffer" in finding.what).level == "note"


@pytest.fixture(scope="module")
def walled() -> Iterator[AclServer]:
    binary = SERVERS["valkey"]
    assert binary is not None
    with acl_server(binary) as server:
        yield server


async def test_a_workers_user_is_looked_at_as_one(walled: AclServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not ask for INFO, nor do what edges do; that is said plainly and is no problem, and nothing is left."""
    monkeypatch.setattr(servers, "PING_WARNING_MS", under_load(servers.PING_WARNING_MS))
    findings = await look_at_redis(walled.url("worker"))
    assert [(each.level, each.what) for each in findings] == [
        ("note", "Redis INFO"),
        ("ok", "Redis clock"),
        ("ok", "Redis latency"),
        ("ok", "rights"),
        ("ok", "rights"),
        ("note", "rights"),
    ], as_text(findings)
    assert "of a worker, not of an edge" in findings[-1].seen
    with walled.client("operator") as operator:
        assert not [key for key in operator.keys("rc:{jobs}:*") if "doctor" in key]


async def test_a_server_that_would_forget_its_logs_is_found(walled: AclServer) -> None:
    """Where `default` is off and has no rights either, a restart can lose what scripts wrote: a problem for those who
    may look, with its cure; others are told how to look."""
    with walled.client("operator") as operator:
        operator.execute_command("ACL", "SETUSER", "default", "reset")
        findings = await look_at_redis(walled.url("operator"))
        [lost] = [each for each in findings if each.what == "Redis user default"]
        assert (lost.level, is_well(findings)) == ("problem", False)
        cure = lost.change.partition("ACL SETUSER ")[2].partition(",")[0].split()
        [untold] = [each for each in await look_at_redis(walled.url("edge")) if each.what == "Redis user default"]
        assert untold.level == "note"
        assert "NOPERM" in untold.seen
        operator.execute_command("ACL", "SETUSER", *cure)
    findings = await look_at_redis(walled.url("operator"))
    assert [each.level for each in findings if each.what == "Redis user default"] == ["ok"]


async def test_users_are_told_by_what_they_may_do(walled: AclServer) -> None:
    """The edge's user has no fault; one that is neither an edge's nor a worker's lacks what it lacks; credentials and a
    database that are wrong are named."""
    assert is_well(findings := await look_at_redis(walled.url("edge"))), as_text(findings)
    publisher = await look_at_redis(walled.url("publisher"))
    assert [each.level for each in publisher if each.what == "rights"] == ["problem"] * 3
    [stranger] = await look_at_redis(walled.url("edge").replace("change-me", "wrong"))
    assert "credentials" in stranger.seen
    [lost] = await look_at_redis(walled.url("operator").replace("/0", "/99"))
    assert "out of range" in lost.seen
    assert "database" in lost.change


async def test_a_server_that_is_away_is_one_finding() -> None:
    """Nothing is raised, and the variable to check is named."""
    with reserved_ports(1) as (port,):
        (found,) = await look_at_redis(f"redis://127.0.0.1:{port}/0")
        assert found.level == "problem"
        assert "RUNCAST_REDIS_URL" in found.change
        assert await list_live(f"redis://127.0.0.1:{port}/0") == []


async def test_list_live_is_told(redis_url: str, redis: Redis) -> None:
    """Workers are counted with their agents; that none is there is a note, no problem."""
    assert [finding.level for finding in await list_live(redis_url)] == ["note", "note"]
    agents = Agents()

    @agents.agent("poet")
    async def poet(_: object) -> None: ...

    info = WorkerInfo(id="w", host="h", pid=1, concurrency=1, running=0, agents=(agents["poet"].info,))
    await announcements.announce(redis, info)
    assert (await list_live(redis_url))[1].seen == "1 live, for poet"
