"""The Redis users of deploy/redis: with them a real edge, worker and publisher do all of their work and no more."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from broker.cli.doctor.findings import as_text
from broker.cli.doctor.redis import list_live, look_at_redis
from emitter import AgentEmitter, InputExpired
from emitter.wire.ids import now_ms
from emitter.wire.keys import ABANDONED, AGENTS_KNOWN, EDGES, REVOCATIONS, Owner, jobs_key, ticket_key
from tests.deploy.acl_server import SERVERS, AclServer, Usage, acl_server, granted, users
from tests.edges import ALL_SCOPES, EdgeProcess, Follower, call, edge, eventually, stream_path, token_for, under_load
from tests.http_workers import HttpWorker
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
LIMITED = ("edge", "worker", "publisher")
ADMIN = token_for("root", scopes=ALL_SCOPES)
EXECUTE = "/api/agent/execute"
WORKER = {"lease_seconds": 1, "grace_seconds": 0, "admin_port": 0}
# Granted, though the story below has no need of it: whoever comes first loads the script; appends look at the feed's
# last entry when the clock stepped back, and those of the version before at a record's length; they set answers once.
# Edges keep a subscription for a while; AG-UI asks whether a log is gone, A2A waits for one's end; who has too many
# executions waiting is counted again. Workers look for the job of an execution that waits again. The doctor counts
# edges over a connection that ends at once, so whose it was may stay unknown.
APPEND = {"script|load", "xrevrange", "hlen", "hsetnx"}
SELDOM = {"edge": {"unsubscribe", "exists", "zcount", "zscore"}, "worker": {"xrange"}, "publisher": set[str]()}
# Sent while a connection is made, before anybody can be asked whose it is.
CONNECTING = {"select", "client", "ping"}


class Stand(NamedTuple):
    server: AclServer
    edge: EdgeProcess
    worker: WorkerProcess
    usage: Usage

    @property
    def port(self) -> int:
        return self.edge.port


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[AclServer]:
    binary = SERVERS[request.param]
    if binary is None:
        pytest.skip("needs redis-server (tests/run installs it as root)")
    with acl_server(binary) as started:
        yield started


@pytest.fixture(scope="module")
def stand(server: AclServer) -> Iterator[Stand]:
    """An edge and a worker, each with the URL of its own user."""
    limits = {"heartbeat_seconds": 1, "executes_per_minute": 1000, "connects_per_minute": 1000}
    with Usage(server) as usage, edge(server.url("edge"), **limits) as started:
        worker = WorkerProcess(server.url("worker"), "acl_agents:agents", HERE, **WORKER)
        try:
            yield Stand(server, started, worker, usage)
        finally:
            worker.close()


async def execute(stand: Stand, agent: str, user: str, **fields: Any) -> str:
    headers = {"Idempotency-Key": f"{agent}-{user}"}
    body = {"task": "t", "agent": agent, **fields}
    async with asyncio.timeout(under_load(15)):  # until the worker has announced its agents
        while (answer := await call(stand.port, "POST", EXECUTE, token_for(user), body, headers=headers)).status == 422:
            await asyncio.sleep(0.05)
    assert answer.status == 202, answer
    return str(answer.body["executionId"])


def watch(stand: Stand, execution_id: str, user: str, query: str = "") -> Follower:
    return Follower([stand.edge], stream_path(execution_id, query), token_for(user))


def types(viewer: Follower) -> list[str]:
    return [event.type for event in viewer.events]


# --- all of their work -----------------------------------------------------------------------------------------------


async def test_executions_run_are_watched_listed_and_read(stand: Stand) -> None:
    """From execute to complete over a stream; then the listing, the state, the log and the feed. What is over can be
    deleted."""
    token = token_for("ann")
    execution_id = await execute(stand, "counter", "ann", conversationId="c_1")
    assert await execute(stand, "counter", "ann", conversationId="c_1") == execution_id  # the same key: the same
    async with watch(stand, execution_id, "ann") as viewer:
        await viewer.until_done()
    assert types(viewer)[-1] == "execution:complete"
    listing = await call(stand.port, "GET", "/api/agent/executions", token)
    assert [each["executionId"] for each in listing.body["executions"]] == [execution_id]
    assert (await call(stand.port, "GET", f"/api/agent/executions/{execution_id}/events", token)).status == 200
    async with Follower([stand.edge], "/api/agent/stream?from=start", token) as feed:
        await feed.until("the end", lambda feed: "execution:complete" in [event.type for event in feed.events])
    assert (await call(stand.port, "DELETE", f"/v1/responses/resp_{execution_id}_0", token)).status == 200


async def test_people_answer_and_cancel(stand: Stand) -> None:
    """An answer reaches the agent that asked, and a cancel the one that runs; once nobody watches, it is cancelled."""
    asked = await execute(stand, "asker", "bob", onDisconnect={"cancelAfterSeconds": 60})
    async with watch(stand, asked, "bob") as viewer:
        await viewer.until("a question", lambda viewer: "input:required" in types(viewer))
        question = json.loads(next(event.data for event in viewer.events if event.type == "input:required"))
        body = {"inputId": question["data"]["inputId"], "value": "blue"}
        path = f"/api/agent/executions/{asked}/input"
        assert (await call(stand.port, "POST", path, token_for("bob"), body)).status == 202
        await viewer.until_done()
    assert json.loads(viewer.events[-1].data)["data"]["result"] == "blue"
    slept = await execute(stand, "sleeper", "bob")
    async with watch(stand, slept, "bob") as viewer:
        await viewer.until("it runs", lambda viewer: "thinking" in types(viewer))
        path = f"/api/agent/executions/{slept}/cancel"
        assert (await call(stand.port, "POST", path, token_for("bob"), {})).status == 202
        await viewer.until_done()
    assert types(viewer)[-1] == "execution:cancelled"
    left = await execute(stand, "sleeper", "cyd", onDisconnect={"cancelAfterSeconds": 1})
    async with watch(stand, left, "cyd") as viewer:
        await viewer.until("it runs", lambda viewer: "thinking" in types(viewer))
    async with asyncio.timeout(under_load(15)):
        while (await call(stand.port, "GET", f"/api/agent/executions/{left}", token_for("cyd"))).body["status"] != (
            "cancelled"
        ):
            await asyncio.sleep(0.1)


async def test_agents_start_others(stand: Stand) -> None:
    """A parent gets the result of its child; the one that it left ends with it; the edge shows the tree."""
    parent, token = await execute(stand, "parent", "fay"), token_for("fay")
    async with watch(stand, parent, "fay") as viewer:
        await viewer.until_done()
    assert json.loads(viewer.events[-1].data)["data"]["result"] == 3
    path = f"/api/agent/executions/{parent}?tree=true"
    async with asyncio.timeout(under_load(15)):
        while (tree := await call(stand.port, "GET", path, token)).body["children"][0]["state"] != "cancelled":
            await asyncio.sleep(0.1)
    assert [child["state"] for child in tree.body["children"]] == ["cancelled", "completed"]
    assert len((await call(stand.port, "GET", f"/api/agent/executions?parent={parent}", token)).body["executions"]) == 2


async def test_what_waits_for_its_time_can_be_cancelled(stand: Stand) -> None:
    """An execution planned for later is accepted, and is taken back before its time."""
    planned = await execute(stand, "counter", "eve", notBefore=int(time.time() * 1000) + 3_600_000)
    path = f"/api/agent/executions/{planned}"
    assert (await call(stand.port, "POST", f"{path}/cancel", token_for("eve"), {})).status == 202
    assert (await call(stand.port, "GET", path, token_for("eve"))).body["status"] == "cancelled"


async def test_schedules_start_executions(stand: Stand) -> None:
    """The worker starts what is due every second."""
    async with Follower([stand.edge], "/api/agent/stream?from=start", token_for("ops")) as feed:
        await feed.until("two of them", lambda feed: types(feed).count("execution:complete") >= 2)


async def test_what_a_lost_worker_ran_is_taken_over(stand: Stand) -> None:
    """A worker that dies is noticed by another, which runs its execution again; one that stops retires."""
    ran = await execute(stand, "sleeper", "dan")
    async with watch(stand, ran, "dan") as viewer:
        await viewer.until("it runs", lambda viewer: "thinking" in types(viewer))
        stand.worker.kill()
        other = WorkerProcess(stand.server.url("worker"), "acl_agents:agents", HERE, **WORKER)
        try:
            await viewer.until("it runs again", lambda viewer: types(viewer).count("thinking") == 2)
            assert "execution:superseded" in types(viewer)
            assert await other.stop() == 0
        finally:
            other.close()


async def test_tickets_open_streams_and_revocations_close_them(stand: Stand) -> None:
    """A ticket is minted and spent; a revoked user is put out of every stream; the overview shows Redis."""
    token = token_for("fay")
    ticket = await call(stand.port, "POST", "/api/agent/stream-tickets", token, {})
    assert ticket.status == 201
    async with Follower([stand.edge], f"/api/agent/stream?ticket={ticket.body['ticket']}", "") as feed:
        await feed.until_live()
    async with Follower([stand.edge], "/api/agent/stream", token) as feed:
        await feed.until_live()
        revoked = await call(stand.port, "POST", "/api/admin/revocations", ADMIN, {"user": "fay"})
        assert revoked.status == 202
        await feed.until("the end", lambda feed: "revoked" in feed.ends)


async def test_the_overview_shows_redis(stand: Stand) -> None:
    """An edge may ask Redis how it is (`INFO`), and see edges, workers and what waits."""
    async with Follower([stand.edge], "/api/ops/stream", ADMIN) as ops:
        await ops.until("a snapshot", lambda ops: bool(ops.named("ops")))
    snapshot = ops.named("ops")[0].data
    assert snapshot["redis"]["up"]
    assert snapshot["redis"]["usedMemoryBytes"] > 0
    assert snapshot["redis"]["evictionPolicy"] == "noeviction"
    assert len(snapshot["edges"]) == 1


async def test_events_are_published_over_http(stand: Stand) -> None:
    """Whoever publishes through an edge needs no user of Redis: the edge's is enough."""
    path = "/api/agent/executions/ex_http/events"
    headers = {"Producer-Id": "p1", "Producer-Seq": "1"}
    body = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}
    for _ in range(2):
        answer = await call(stand.port, "POST", path, token_for("gil", scopes=ALL_SCOPES), body, headers=headers)
        assert answer.status in (200, 201, 202), answer


async def test_a_worker_over_http_claims_and_runs(stand: Stand) -> None:
    """An edge waits for jobs, claims and renews for a worker without Redis, and takes them back."""
    worker = HttpWorker([stand.edge], ["far"])
    waiting = asyncio.create_task(worker.one())
    execution_id = await execute(stand, "far", "ida")
    job = await waiting
    await worker.start(job)
    assert [each["state"] for each in await worker.renew(job, wait_seconds=0.2)] == ["held"]
    assert (await worker.release(job, error="busy", retryAfterSeconds=0))["state"] == "retrying"
    again = await worker.one()
    assert (again["executionId"], again["attempt"]) == (execution_id, 2)
    assert (await worker.complete(again)).status == 202


@pytest.fixture
async def emitter(stand: Stand) -> AsyncIterator[AgentEmitter]:
    async with AgentEmitter("hal", "ex_own", redis_url=stand.server.url("publisher")) as opened:
        yield opened


async def test_a_publisher_writes_logs_and_asks_people(stand: Stand, emitter: AgentEmitter) -> None:
    """A process with an `AgentEmitter` of its own writes an execution from start to end, and hears an answer."""
    await emitter.execution_started(task="t")
    async with emitter.tool("look", {}) as tool:
        tool.result = 1
    asking = asyncio.create_task(emitter.ask("Go on?", kind="approval"))
    async with watch(stand, "ex_own", "hal") as viewer:
        await viewer.until("a question", lambda viewer: "input:required" in types(viewer))
        question = json.loads(next(event.data for event in viewer.events if event.type == "input:required"))
        body = {"inputId": question["data"]["inputId"], "value": True}
        answer = await call(stand.port, "POST", "/api/agent/executions/ex_own/input", token_for("hal"), body)
        assert answer.status == 202
        async with asyncio.timeout(under_load(10)):
            assert await asking is True
        with pytest.raises(InputExpired):
            await emitter.ask("Quick?", kind="approval", expires_in=0.2)
        assert await emitter.waiting_messages() == []  # from here on it takes some
        hearing = asyncio.create_task(emitter.next_message(10))
        said = await call(
            stand.port, "POST", "/api/agent/executions/ex_own/messages", token_for("hal"), {"text": "Shorter"}
        )
        assert said.status == 202
        message = await hearing
        assert message is not None
        assert message.text == "Shorter"
        await emitter.execution_complete(result={"ok": True})
        await viewer.until_done()


async def test_nothing_of_their_work_was_refused(stand: Stand) -> None:
    """After all of the above the server's own log of refusals is empty, and the edge is ready."""
    assert stand.server.refusals() == []
    await eventually("ready", lambda: stand.edge.admin_status("/readyz") == 200)


async def test_the_doctor_needs_no_other_user(stand: Stand) -> None:
    """With the edge's user `runcast doctor` looks at everything but the configuration, and has nothing to say against
    a server that is set as deploy/redis has it."""
    url = stand.server.url("edge")
    findings = await look_at_redis(url) + await list_live(url)
    assert {"rights", "edges", "workers"} <= {finding.what for finding in findings}
    # A busy machine answers late, and seems to have another time; the last worker has stopped by now; and nobody but an
    # operator may read the configuration and the rights of others.
    unsure = ("latency", "clock", "workers", "output buffer", "user default")
    others = [each for each in findings if not each.what.endswith(unsure)]
    assert {each.level for each in others} == {"ok"}, as_text(findings)


@pytest.mark.parametrize("user", LIMITED)
async def test_every_right_is_used(stand: Stand, user: str) -> None:
    """No user has a command that its work does not need."""
    used = stand.usage.commands[user]
    words = {right: right.partition("|")[0] for right in granted(user)}
    unused = {right for right, word in words.items() if word not in used}
    assert unused - CONNECTING - APPEND - SELDOM[user] == set()


# --- and nothing else ------------------------------------------------------------------------------------------------

SOMEBODY = Owner("somebody", "acme")
EXECUTION = SOMEBODY.execution("ex_1")
FORBIDDEN: dict[str, list[tuple[str, ...]]] = {
    "edge": [
        ("GET", "session:1"),
        ("SET", "sessions", "x"),
        ("PUBLISH", "news", "x"),
        ("SUBSCRIBE", "news"),
        ("EVAL", "return redis.call('GET', 'session:1')", "0"),
        ("EVAL", "return redis.call('GET', KEYS[1])", "1", "session:1"),
        ("XGROUP", "DESTROY", jobs_key("counter"), "workers"),
        ("XTRIM", jobs_key("counter"), "MAXLEN", "0"),
    ],
    "worker": [
        ("GET", "session:1"),
        ("GET", ticket_key("x")),
        ("ZADD", REVOCATIONS, "1", "user:acme:somebody"),
        ("ZADD", EDGES, "1", "x"),
        ("GET", SOMEBODY.rate("execute")),
        ("GET", SOMEBODY.idempotency("x")),
        ("PUBLISH", REVOCATIONS, "user:acme:somebody"),
        ("SUBSCRIBE", REVOCATIONS),
        ("INFO",),
    ],
    "publisher": [
        ("HGET", "session:1", "x"),
        ("XADD", jobs_key("counter"), "*", "org", "acme"),
        ("ZADD", ABANDONED, "1", "x"),
        ("HSET", "rc:{jobs}:queued", "x", "y"),
        ("ZADD", REVOCATIONS, "1", "user:acme:somebody"),
        ("PUBLISH", REVOCATIONS, "user:acme:somebody"),
        ("DEL", EXECUTION.log),
        ("XRANGE", EXECUTION.log, "-", "+"),
        ("INFO",),
    ],
}
FORBIDDEN_TO_ALL: list[tuple[str, ...]] = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("RANDOMKEY",),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "edge", "+@all"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("MONITOR",),
    ("SHUTDOWN", "NOSAVE"),
    ("REPLICAOF", "NO", "ONE"),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "LIST"),
    ("PSUBSCRIBE", "rc:*"),
    ("XTRIM", EXECUTION.log, "MAXLEN", "0"),
]


@pytest.mark.parametrize("user", LIMITED)
def test_what_is_not_theirs_is_refused(server: AclServer, user: str) -> None:
    """Keys, channels and commands beyond the work are refused, in scripts too."""
    with server.client(user) as client:
        for command in (*FORBIDDEN_TO_ALL, *FORBIDDEN[user]):
            with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)no permissions|can't access"):
                client.execute_command(*command)
    with server.client("operator") as client:
        client.acl_log_reset()


@pytest.mark.parametrize("user", LIMITED)
def test_no_dangerous_command_is_left_to_them(server: AclServer, user: str) -> None:
    """Of everything that the server calls administrative or dangerous, an edge has `INFO`, and the others nothing."""
    with server.client("operator") as client:
        dangerous = {*client.acl_cat("dangerous"), *client.acl_cat("admin")}
        assert {"flushall", "keys", "config|set"} <= dangerous
        allowed = {name for name in dangerous if _may(client, user, name)}
    assert allowed == ({"info"} if user == "edge" else set())


def _may(client: Any, user: str, name: str) -> bool:
    """Whether the server would let a user run a command with keys that are the user's own."""
    words = name.split("|")
    (info,) = client.execute_command("COMMAND", "INFO", name).values()
    filling = [EXECUTION.record] * (abs(info["arity"]) - len(words))
    try:
        verdict = client.execute_command("ACL", "DRYRUN", user, *words, *filling)
    except redis.exceptions.ResponseError as error:
        return "no permissions" not in str(error).lower()
    return "no permissions" not in str(verdict).lower()


def test_nobody_gets_in_without_a_password(server: AclServer) -> None:
    """The default user is off, though it has the rights to load the append-only file, and the passwords of the file are
    marked as such."""
    assert users()["default"] == ["off", "~*", "&*", "+@all"]
    for password in (None, "default"):
        anonymous = redis.Redis(port=server.port, protocol=2, retry=Retry(NoBackoff(), 0), password=password)
        with pytest.raises(redis.exceptions.AuthenticationError):
            anonymous.execute_command("GET", "rc:x")
        anonymous.close()
    for user in ("operator", *LIMITED):
        assert f">change-me-{user}" in users()[user]


LOST_AND_GIVEN_BACK = [
    ("-evalsha", "+evalsha"),
    ("-eval", "+eval"),
    ("-hset", "+hset"),
    ("-zadd", "+zadd"),
    ("resetchannels", "&rc:*"),
]


@pytest.mark.parametrize("name", SERVERS)
async def test_an_edge_that_lacks_a_right_says_so(name: str) -> None:
    """Without any one of them an execution is not started, by 503 with a reason, and the edge's log names the right."""
    if (binary := SERVERS[name]) is None:
        pytest.skip("needs redis-server (tests/run installs it as root)")
    with acl_server(binary) as server, edge(server.url("edge")) as started, server.client("operator") as client:
        client.zadd(AGENTS_KNOWN, {"counter": now_ms()})
        for lost, given_back in LOST_AND_GIVEN_BACK:
            client.execute_command("ACL", "SETUSER", "edge", lost)
            body = {"task": "t", "agent": "counter"}
            answer = await call(started.port, "POST", EXECUTE, token_for("ida"), body)
            client.execute_command("ACL", "SETUSER", "edge", given_back)
            assert (answer.status, answer.body["type"]) == (503, "urn:runcast:problem:unavailable"), (lost, answer)
            assert "refuses this edge" in answer.body["detail"], (lost, answer)
        assert len(started.logged("redis_right_missing")) == len(LOST_AND_GIVEN_BACK)
