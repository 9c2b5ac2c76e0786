"""A Redis with the configuration and the users of deploy/redis is ended and started again: what it had acknowledged is
there, and what ran goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis.exceptions import RedisError

from broker.cli.doctor.redis import look_at_redis
from emitter.events import Thinking
from emitter.store.append import append, prepare
from emitter.store.connection import GONE, connect
from emitter.wire.keys import DATASET_LOST, Owner
from emitter.wire.redact import Redactor
from tests.deploy.acl_server import FOLDER, SERVERS, AclServer, acl_server
from tests.deploy.restart_agents import TICKS
from tests.edges import (
    ALL_SCOPES,
    Answer,
    EdgeProcess,
    Follower,
    call,
    edge,
    eventually,
    stream_path,
    token_for,
    under_load,
)
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
ADMIN = token_for("root", scopes=ALL_SCOPES)
EXECUTE, EXECUTIONS = "/api/agent/execute", "/api/agent/executions"
LOGS = 8
FSYNC_SECONDS = 3.0
"""With `appendfsync everysec` a server may hold back what it writes for two seconds while the disk is busy."""


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[AclServer]:
    binary = SERVERS[request.param]
    if binary is None:
        pytest.skip("needs redis-server (tests/run installs it as root)")
    with acl_server(binary) as started:
        yield started


# --- logs ------------------------------------------------------------------------------------------------------------


class Acknowledged(NamedTuple):
    """A number, and from when until when it was known to be sent and not yet acknowledged."""

    number: int
    sent_at: float
    at: float


class Load:
    """Producers that append numbers to a log each, one after another, as fast as Redis takes them. A number is sent
    again until it is acknowledged."""

    def __init__(self, server: AclServer) -> None:
        self._server = server
        self.owner = Owner("load")
        self.acknowledged: dict[str, list[Acknowledged]] = {f"ex_{number}": [] for number in range(LOGS)}
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Load:
        self._redis = connect(self._server.url("publisher"), timeout=1.0)
        self._tasks = [asyncio.create_task(self._produce(log), name=log) for log in self.acknowledged]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._stop.set()
        async with asyncio.timeout(under_load(20)):
            await asyncio.gather(*self._tasks)
        await self._redis.aclose()

    async def _produce(self, execution_id: str) -> None:
        number = 1
        while not self._stop.is_set():
            event = prepare(Thinking(thought=str(number)), execution_id, redact=Redactor())
            sent_at = time.monotonic()
            with contextlib.suppress(RedisError, *GONE):
                await append(self._redis, self.owner, execution_id, [event], producer="p", first_seq=number)
                self.acknowledged[execution_id].append(Acknowledged(number, sent_at, time.monotonic()))
                number += 1
                continue
            await asyncio.sleep(0.02)

    async def until_each_has(self, more: int) -> None:
        """Wait until every log has so many more acknowledged events."""
        counts = {log: len(numbers) + more for log, numbers in self.acknowledged.items()}
        async with asyncio.timeout(under_load(30)):
            while any(len(self.acknowledged[log]) < count for log, count in counts.items()):
                await asyncio.sleep(0.02)

    def logs(self) -> dict[str, list[int]]:
        with self._server.client("operator") as client:
            entries = {log: client.xrange(self.owner.execution(log).log) for log in self.acknowledged}
        return {
            log: [int(json.loads(fields[type_])["data"]["thought"]) for _, fields in rows for type_ in fields]
            for log, rows in entries.items()
        }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_no_log_forgets_what_was_acknowledged(server: AclServer, number: signal.Signals) -> None:
    """Under load, through two restarts and a rewrite of the file: every log has each acknowledged event once and in
    order. A process that is killed may lose what it acknowledged in its last seconds, and nothing before."""
    ends = []
    async with Load(server) as load:
        for rewrites in (True, False):
            if rewrites:  # then the file begins with a snapshot
                with server.client("operator") as client:
                    client.bgrewriteaof()
            await load.until_each_has(150)
            if number is signal.SIGKILL:
                await asyncio.sleep(FSYNC_SECONDS)
            ended_at = time.monotonic()
            server.end(number)
            server.start()
            # What was acknowledged before may be read only now, by a loop that stood still meanwhile.
            ends.append((ended_at - FSYNC_SECONDS, time.monotonic()))
        await load.until_each_has(20)
    for log, numbers in load.logs().items():
        assert numbers == sorted({*numbers}), f"{log} has an event twice, or out of order"
        kept = {
            each.number
            for each in load.acknowledged[log]
            if number is signal.SIGTERM or not any(begin < each.at and each.sent_at < end for begin, end in ends)
        }
        assert kept - {*numbers} == set(), f"{log} lost acknowledged events"
        assert len(kept) > 200


# --- everything else -------------------------------------------------------------------------------------------------


class Stand:
    """An edge, and a worker with two places, each with the URL of its own user."""

    def __init__(self, server: AclServer, edge: EdgeProcess) -> None:
        self.server = server
        self.edge = edge

    async def execute(self, agent: str, user: str, **fields: Any) -> str:
        headers = {"Idempotency-Key": f"{agent}-{user}"}
        body = {"task": "t", "agent": agent, **fields}
        async with asyncio.timeout(under_load(15)):  # until the worker has announced its agents
            while (answer := await self.call("POST", EXECUTE, user, body, headers=headers)).status == 422:
                await asyncio.sleep(0.05)
        assert answer.status == 202, answer
        return str(answer.body["executionId"])

    async def call(self, method: str, path: str, user: str, body: Any = None, **headers: Any) -> Answer:
        return await call(self.edge.port, method, path, token_for(user), body, **headers)

    def watch(self, execution_id: str, user: str) -> Follower:
        return Follower([self.edge], stream_path(execution_id), token_for(user))

    async def restart(self) -> None:
        """End the server in order; start it when edge and worker know that it is away."""
        self.server.end(signal.SIGTERM)
        await eventually("it is missed", lambda: self.edge.admin_status("/readyz") == 503)
        self.server.start()
        await eventually("it is found", lambda: self.edge.admin_status("/readyz") == 200)
        assert self.edge.metric("runcast_redis_emptied_total") == 0


@pytest.fixture
def stand(server: AclServer) -> Iterator[Stand]:
    with edge(server.url("edge"), heartbeat_seconds=1) as started:
        worker = WorkerProcess(server.url("worker"), "restart_agents:agents", HERE, concurrency=2, grace_seconds=0)
        try:
            yield Stand(server, started)
        finally:
            worker.close()


def types(viewer: Follower) -> list[str]:
    return [event.type for event in viewer.events]


def data(viewer: Follower, type_: str) -> list[Any]:
    return [json.loads(event.data)["data"] for event in viewer.events if event.type == type_]


async def test_what_ran_waited_and_was_promised_goes_on(stand: Stand) -> None:
    """An agent at work goes on and its viewer misses nothing; a question is answered afterwards; what waits for a
    worker, or for its time, is run; a repeated request gets its first answer; a schedule goes on."""
    ticks = await stand.execute("ticker", "ann")
    asked = await stand.execute("asker", "ann")
    async with stand.watch(ticks, "ann") as ticker, stand.watch(asked, "ann") as asker:
        await ticker.until_events(8)
        await asker.until("a question", lambda viewer: "input:required" in types(viewer))
        waits = await stand.execute("counter", "ann")  # both places are taken
        planned = await stand.execute("counter", "bob", notBefore=int(time.time() * 1000) + 4000)
        await stand.restart()
        assert await stand.execute("ticker", "ann") == ticks
        body = {"inputId": data(asker, "input:required")[0]["inputId"], "value": "blue"}
        assert (await stand.call("POST", f"{EXECUTIONS}/{asked}/input", "ann", body)).status == 202
        await asker.until_done(30)
        await ticker.until_done(30)
        assert [thought["thought"] for thought in data(ticker, "thinking")] == [str(number) for number in range(TICKS)]
        assert types(ticker)[-1] == types(asker)[-1] == "execution:complete"
        assert {"execution:superseded", "execution:error"} & {*types(ticker), *types(asker)} == set()
        assert ticker.resets == asker.resets == []
    for execution_id, user in ((waits, "ann"), (planned, "bob")):
        async with stand.watch(execution_id, user) as viewer:
            await viewer.until_done(30)
            assert data(viewer, "execution:complete")[0]["result"] == 1
    before = await runs_of_the_schedule(stand)
    async with asyncio.timeout(under_load(15)):
        while await runs_of_the_schedule(stand) == before:
            await asyncio.sleep(0.2)


async def runs_of_the_schedule(stand: Stand) -> int:
    listing = await stand.call("GET", EXECUTIONS, "ops")
    return sum(each["state"] == "completed" for each in listing.body["executions"])


async def test_tickets_are_good_and_revocations_hold(stand: Stand) -> None:
    """A ticket that was minted before opens a stream; a user who was revoked before is refused by an edge that starts
    afterwards, which has it from Redis alone."""
    gus = token_for("gus")
    ticket = await stand.call("POST", "/api/agent/stream-tickets", "fay", {})
    assert ticket.status == 201
    assert (await call(stand.edge.port, "POST", "/api/admin/revocations", ADMIN, {"user": "gus"})).status == 202
    await stand.restart()
    async with Follower([stand.edge], f"/api/agent/stream?ticket={ticket.body['ticket']}", "") as feed:
        await feed.until_live()
    with edge(stand.server.url("edge")) as fresh:
        assert (await call(fresh.port, "GET", EXECUTIONS, gus)).status == 401
        assert (await call(fresh.port, "GET", EXECUTIONS, token_for("fay"))).status == 200


# --- and what a server does that was not set so ----------------------------------------------------------------------


async def test_a_server_that_forgot_is_noticed_and_can_be_mended(tmp_path: Path) -> None:
    """With a user `default` that has no rights: `runcast doctor` and a metric say after the restart that the data is
    gone. The append-only file still has it: with the rights, the next restart brings everything back."""
    if (binary := SERVERS["redis"]) is None:
        pytest.skip("needs redis-server (tests/run installs it as root)")
    acl, good = tmp_path / "users.acl", (FOLDER / "users.acl").read_text()
    acl.write_text(good.replace("user default off ~* &* +@all\n", "user default off\n"))
    with acl_server(binary, "--aclfile", str(acl)) as server, edge(server.url("edge")) as started:

        def emptied() -> float:
            return started.metric("runcast_redis_emptied_total")

        async with Load(server) as load:
            await load.until_each_has(20)
        server.end(signal.SIGTERM)
        server.start()
        await eventually("it is missed", lambda: emptied() == 1)
        with server.client("operator") as client:  # an edge counts first
            await eventually("it is noted for the doctor", lambda: bool(client.exists(DATASET_LOST)))
        assert set(map(len, load.logs().values())) == {0}
        found = {finding.what: finding for finding in await look_at_redis(server.url("edge"))}
        assert "came back empty" in found["data"].seen
        assert "NOPERM" in found["Redis user default"].seen
        acl.write_text(good)
        server.end(signal.SIGTERM)
        server.start()
        for log, numbers in load.logs().items():
            assert numbers == [each.number for each in load.acknowledged[log]]
        await eventually("it is ready", lambda: started.admin_status("/readyz") == 200)
        assert emptied() == 1
