"""People in the loop over HTTP: agents ask, people answer over any edge, and the wait outlives whatever breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.events import EXPIRED
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from tests.edges import EdgeProcess, Follower, Received, call, edges, read_log, stream_path, token_for, under_load
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
ALICE, BOB = token_for("alice"), token_for("bob")


class Stand:
    """Edges and workers over one Redis, and what callers do with them."""

    def __init__(self, url: str, edges: Sequence[EdgeProcess], redis: Redis) -> None:
        self.url = url
        self.edges = edges
        self.redis = redis
        self.workers: list[WorkerProcess] = []

    def add_worker(self, lease_seconds: float = 1) -> WorkerProcess:
        worker = WorkerProcess(self.url, "input_agents:agents", HERE, lease_seconds=lease_seconds, grace_seconds=0)
        self.workers.append(worker)
        return worker

    async def execute(self, agent: str) -> str:
        async with asyncio.timeout(under_load(20)):  # until a worker has announced its agents
            while True:
                body = {"task": "t", "agent": agent}
                answer = await call(self.edges[0].port, "POST", "/api/agent/execute", ALICE, body)
                if answer.status == 202:
                    return str(answer.body["executionId"])
                await asyncio.sleep(0.05)

    def follow(self, execution_id: str) -> Follower:
        return Follower(self.edges, stream_path(execution_id), ALICE)

    async def answer(self, execution_id: str, input_id: str, value: Any, *, edge: int = 0, token: str = ALICE) -> Any:
        path = f"/api/agent/executions/{execution_id}/input"
        return await call(self.edges[edge].port, "POST", path, token, {"inputId": input_id, "value": value})

    async def state(self, execution_id: str, edge: int = 1) -> dict[str, Any]:
        answer = await call(self.edges[edge].port, "GET", f"/api/agent/executions/{execution_id}", ALICE)
        return dict(answer.body)

    async def log(self, execution_id: str) -> list[Received]:
        return await read_log(self.redis, Owner("alice").execution(execution_id).log)

    async def waits(self, execution_id: str, count: int = 1) -> list[dict[str, Any]]:
        """Its open inputs, once there are so many."""
        async with asyncio.timeout(under_load(30)):
            while True:
                state = await self.state(execution_id)
                if len(state["openInputs"]) == count and state["status"] == "waiting_input":
                    return list(state["openInputs"])
                await asyncio.sleep(0.02)


def named(events: Sequence[Received], type_: str) -> list[dict[str, Any]]:
    """The data of the events of one type."""
    return [json.loads(event.data)["data"] for event in events if event.type == type_]


def result(viewer: Follower) -> Any:
    assert viewer.events[-1].type == "execution:complete"
    return json.loads(viewer.events[-1].data)["data"]["result"]


@contextlib.asynccontextmanager
async def standing(server: EmbeddedRedis, both: Sequence[EdgeProcess] = ()) -> AsyncIterator[Stand]:
    async with connect(server.url) as client:
        stand = Stand(server.url, both, client)
        try:
            yield stand
        finally:
            for worker in stand.workers:
                worker.close()


@pytest.fixture(scope="module")
def ground() -> Iterator[tuple[EmbeddedRedis, list[EdgeProcess]]]:
    """A Redis and two edges, which the tests here share; each has its own workers."""
    with EmbeddedRedis() as server, edges(server.url, 2, heartbeat_seconds=1, executes_per_minute=0) as both:
        yield server, both


@pytest.fixture
async def stand(ground: tuple[EmbeddedRedis, list[EdgeProcess]]) -> AsyncIterator[Stand]:
    async with standing(*ground) as found:
        found.add_worker()
        yield found


# --- answering -------------------------------------------------------------------------------------------------------


async def test_of_twenty_answers_over_two_edges_one_counts(stand: Stand) -> None:
    """One is 202, the others are 409 with who answered and when; the log has one, and the agent got that one."""
    execution_id = await stand.execute("asker")
    (question,) = await stand.waits(execution_id)
    async with stand.follow(execution_id) as viewer:
        answers = await asyncio.gather(
            *(stand.answer(execution_id, question["inputId"], f"colour {n}", edge=n % 2) for n in range(20))
        )
        assert sorted(answer.status for answer in answers) == [202] + [409] * 19
        (winner,) = [number for number, answer in enumerate(answers) if answer.status == 202]
        (approval,) = await stand.waits(execution_id)
        assert approval["prompt"] == f"Paint it colour {winner}?"
        (received,) = named(await stand.log(execution_id), "input:received")
        assert received == {"inputId": question["inputId"], "by": "alice", "value": f"colour {winner}"}
        late = [answer.body for answer in answers if answer.status == 409]
        assert {body["type"] for body in late} == {"urn:runcast:problem:already-answered"}
        assert {body["answeredBy"] for body in late} == {"alice"}
        assert len({body["answeredAt"] for body in late}) == 1
        assert (await stand.answer(execution_id, approval["inputId"], False)).status == 202
        await viewer.until_done()
    assert result(viewer)["approved"] is False
    assert (await stand.answer(execution_id, approval["inputId"], True)).status == 409


async def test_a_question_that_is_declined(stand: Stand) -> None:
    """The agent hears of it, and goes on."""
    execution_id = await stand.execute("shy")
    (question,) = await stand.waits(execution_id)
    async with stand.follow(execution_id) as viewer:
        declined = {"inputId": question["inputId"], "declined": True}
        path = f"/api/agent/executions/{execution_id}/input"
        answer = await call(stand.edges[1].port, "POST", path, token_for("alice"), declined)
        assert answer.status == 202
        await viewer.until_done()
    assert result(viewer) == f"declined {question['inputId']}"


async def test_a_form_is_checked_and_its_secret_reaches_the_agent_alone(stand: Stand) -> None:
    """Each field that does not fit is named; what looks secret is the agent's, and not the viewers'."""
    execution_id = await stand.execute("login")
    (question,) = await stand.waits(execution_id)
    input_id = question["inputId"]
    async with stand.follow(execution_id) as viewer:
        wrong = await stand.answer(execution_id, input_id, {"email": "nobody", "password": "short"})
        assert (wrong.status, wrong.body["path"]) == (422, "$.value.email")
        assert [each["path"] for each in wrong.body["errors"]] == ["$.value.email", "$.value.password"]
        missing = await stand.answer(execution_id, input_id, {"password": "long enough"}, edge=1)
        assert (missing.status, missing.body["path"]) == (422, "$.value.email")
        large = await stand.answer(execution_id, input_id, {"email": "a@b", "password": "x" * 70_000})
        assert (large.status, large.body["limit"]) == (413, 65_536)
        assert await stand.waits(execution_id) == [question]
        right = await stand.answer(execution_id, input_id, {"email": "a@b", "password": "hunter2 is long"}, edge=1)
        assert (right.status, right.body) == (202, {"executionId": execution_id, "inputId": input_id})
        await viewer.until_done()
    assert result(viewer) == {"email": "a@b", "length": 15}
    assert named(viewer.events, "input:received")[0]["value"] == {"email": "a@b", "password": "[redacted]"}
    debug = token_for("alice", scopes={"executions:read", "executions:debug"})
    for path in ("", "/events"):
        seen = await call(stand.edges[0].port, "GET", f"/api/agent/executions/{execution_id}{path}", debug)
        assert "hunter2" not in json.dumps(seen.body)


async def test_who_may_not_answer(stand: Stand) -> None:
    """Another user's execution and an input that nobody asked for are unknown; without a scope it is forbidden."""
    execution_id = await stand.execute("asker")
    (question,) = await stand.waits(execution_id)
    foreign = await stand.answer(execution_id, question["inputId"], "red", token=BOB)
    nowhere = await stand.answer("ex_none", question["inputId"], "red", token=BOB)
    assert (foreign.status, nowhere.status) == (404, 404)
    assert foreign.body["type"] == nowhere.body["type"]
    assert (await stand.answer(execution_id, "in_0000000000_1", "red")).status == 404
    reader = token_for("alice", scopes={"executions:read"})
    assert (await stand.answer(execution_id, question["inputId"], "red", token=reader)).status == 403
    assert await stand.waits(execution_id) == [question]
    await call(stand.edges[0].port, "POST", f"/api/agent/executions/{execution_id}/cancel", ALICE, {})


async def test_a_question_nobody_answers_is_closed_for_all(stand: Stand) -> None:
    """The agent goes on, viewers see it closed, and an answer that comes later is told so."""
    execution_id = await stand.execute("hasty")
    async with stand.follow(execution_id) as viewer:
        await viewer.until("the second question", lambda v: len(named(v.events, "input:required")) == 2)
        quick, now = named(viewer.events, "input:required")
        assert named(viewer.events, "input:received") == [{"inputId": quick["inputId"], "by": EXPIRED}]
        late = await stand.answer(execution_id, quick["inputId"], "sorry")
        assert (late.status, late.body["type"]) == (409, "urn:runcast:problem:input-expired")
        assert 0 <= late.body["expiredAt"] - quick["expiresAt"] < under_load(5) * 1000  # when it was closed
        assert await stand.waits(execution_id) == [now]
        await stand.answer(execution_id, now["inputId"], "yes")
        await viewer.until_done()
    assert result(viewer) == "went on: yes"


async def test_specialists_who_ask_at_the_same_time(stand: Stand) -> None:
    """All questions are open to a viewer who comes later; the execution waits until the last has its answer."""
    execution_id = await stand.execute("panel")
    questions = {each["prompt"]: each["inputId"] for each in await stand.waits(execution_id, 3)}
    for count, name in enumerate(("cy", "ann", "bob"), 1):
        assert (await stand.state(execution_id))["status"] == "waiting_input"
        answer = await stand.answer(execution_id, questions[f"What does {name} need?"], name.upper(), edge=count % 2)
        assert answer.status == 202
        if count < 3:
            assert len(await stand.waits(execution_id, 3 - count)) == 3 - count
    async with stand.follow(execution_id) as viewer:
        await viewer.until_done()
    assert result(viewer) == ["ANN", "BOB", "CY"]


# --- surviving -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
@pytest.mark.parametrize("answered", ["while nobody runs it", "when it is asked again"])
async def test_the_wait_outlives_the_worker(stand: Stand, end: signal.Signals, answered: str) -> None:
    """The next attempt has every answer that was given, asks only what has none, and completes; what was asked before
    has the same id."""
    execution_id = await stand.execute("asker")
    async with stand.follow(execution_id) as viewer:
        (colour,) = await stand.waits(execution_id)
        assert (await stand.answer(execution_id, colour["inputId"], "red")).status == 202
        (approval,) = await stand.waits(execution_id)
        stand.workers[0].send_signal(end)
        await asyncio.to_thread(stand.workers[0].process.wait, under_load(20))
        if answered == "while nobody runs it":
            assert (await stand.answer(execution_id, approval["inputId"], True)).status == 202
        stand.add_worker()
        if answered == "when it is asked again":
            await viewer.until("again", lambda v: len(named(v.events, "input:required")) == 3)
            assert [each["inputId"] for each in await stand.waits(execution_id)] == [approval["inputId"]]
            assert (await stand.answer(execution_id, approval["inputId"], True, edge=1)).status == 202
        await viewer.until_done(30)
    assert viewer.events == await stand.log(execution_id)
    assert result(viewer) == {"colour": "red", "approved": True, "attempt": 2}
    ids = [each["inputId"] for each in named(viewer.events, "input:required")]
    again = [approval["inputId"]] * (answered == "when it is asked again")
    assert ids == [colour["inputId"], approval["inputId"], *again]
    assert len(named(viewer.events, "execution:superseded")) == 1
    assert len(named(viewer.events, "input:received")) == 2


async def test_the_wait_outlives_every_edge_and_connection(own_redis: EmbeddedRedis) -> None:
    """All edges are replaced and every connection to Redis is cut: a viewer who comes later sees what is open, in the
    state and in the stream, and the answer arrives."""
    async with standing(own_redis) as stand:
        with edges(own_redis.url, 2) as stand.edges:
            worker = stand.add_worker(lease_seconds=30)
            execution_id = await stand.execute("asker")
            (colour,) = await stand.waits(execution_id)
            for edge in stand.edges:
                edge.kill()
        client: Any = stand.redis
        for kind in ("pubsub", "normal"):
            async with asyncio.timeout(under_load(20)):
                while not await client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"):
                    await asyncio.sleep(0.02)  # until the worker has one of the kind
        with edges(own_redis.url, 2) as stand.edges:
            assert await stand.waits(execution_id) == [colour]
            async with stand.follow(execution_id) as viewer:
                await viewer.until_live()
                assert named(viewer.events, "input:required") == [colour]
                assert (await stand.answer(execution_id, colour["inputId"], "red", edge=1)).status == 202
                (approval,) = await stand.waits(execution_id)
                await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
                assert (await stand.answer(execution_id, approval["inputId"], True)).status == 202
                await viewer.until_done(30)
            assert result(viewer) == {"colour": "red", "approved": True, "attempt": 1}
        assert worker.alive
