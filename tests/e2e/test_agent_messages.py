"""Messages to running agents over HTTP: through any edge, to any worker, whatever breaks between."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter import AgentEmitter, SyncAgentEmitter
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from tests.edges import ROOT, Answer, EdgeProcess, Received, call, edges, read_log, token_for, under_load
from tests.faults.chaos import invariants
from tests.faults.outages import redis_stopped
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
BOB = token_for("bob")
ALICE = token_for("alice", scopes=["executions:read", "executions:write", "events:publish"])
WRITE, READ = token_for("alice", scopes=["executions:write"]), token_for("alice", scopes=["executions:read"])


class Stand:
    """Edges and workers over one Redis, and what callers do with them."""

    def __init__(self, url: str, edges: Sequence[EdgeProcess], redis: Redis) -> None:
        self.url = url
        self.edges = list(edges)
        self.redis = redis
        self.workers: list[WorkerProcess] = []

    def add_worker(self, lease_seconds: float = 10) -> WorkerProcess:
        worker = WorkerProcess(self.url, "message_agents:agents", HERE, lease_seconds=lease_seconds, grace_seconds=0)
        self.workers.append(worker)
        return worker

    async def call(self, method: str, path: str, body: Any = None, *, edge: int = 0, token: str = ALICE) -> Answer:
        return await call(self.edges[edge].port, method, "/api/agent/" + path, token, body)

    async def execute(self, agent: str, task: str = "t") -> str:
        async with asyncio.timeout(under_load(20)):  # until a worker has announced its agents
            while True:
                answer = await self.call("POST", "execute", {"task": task, "agent": agent})
                if answer.status == 202:
                    return str(answer.body["executionId"])
                await asyncio.sleep(0.05)

    async def send(self, execution_id: str, text: str | None = None, *, edge: int = 0, **body: Any) -> Answer:
        said = body if text is None else {"text": text, **body}
        return await self.call("POST", f"executions/{execution_id}/messages", said, edge=edge)

    async def state(self, execution_id: str) -> dict[str, Any]:
        return dict((await self.call("GET", f"executions/{execution_id}", edge=-1)).body)

    async def states(self, execution_id: str) -> list[tuple[str, str]]:
        """Text and state of its messages, as listed; the folded state says the same."""
        path, folded, listed, before = f"executions/{execution_id}/messages", [], [], None
        while listed != before:  # nothing has changed between the two
            before = (await self.call("GET", path)).body["messages"]
            folded = (await self.state(execution_id))["userMessages"]
            listed = (await self.call("GET", path)).body["messages"]
        assert [{**each, "sentAt": 0} for each in folded] == [{**each, "sentAt": 0} for each in listed]
        return [(each["text"], each["reason"] or each["state"]) for each in listed]

    async def status(self, execution_id: str, *wanted: str) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                state = await self.state(execution_id)
                if state["status"] in wanted:
                    return state
                await asyncio.sleep(0.02)

    async def result(self, execution_id: str) -> Any:
        state = await self.status(execution_id, "completed", "failed", "cancelled")
        assert state["status"] == "completed", state["error"]
        return state["result"]

    async def written(self, execution_id: str) -> list[Received]:
        """The log as it is stored."""
        return await read_log(self.redis, Owner("alice").execution(execution_id).log)

    async def log(self, execution_id: str) -> list[tuple[str, dict[str, Any]]]:
        events = await self.written(execution_id)
        return [(event.type, json.loads(event.data)["data"]) for event in events]

    async def until_said(self, execution_id: str, type_: str) -> None:
        """Wait until the agent has said something."""
        async with asyncio.timeout(under_load(20)):
            while type_ not in [event.type for event in await self.written(execution_id)]:
                await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def session_stand() -> Iterator[tuple[EmbeddedRedis, list[EdgeProcess]]]:
    with EmbeddedRedis() as server, edges(server.url, 2, executes_per_minute=0) as started:
        yield server, started


@contextlib.asynccontextmanager
async def standing(url: str, started: Sequence[EdgeProcess]) -> AsyncIterator[Stand]:
    redis = connect(url)
    stand = Stand(url, started, redis)
    try:
        yield stand
    finally:
        for worker in stand.workers:
            worker.close()
        await redis.aclose()


@pytest.fixture
async def stand(session_stand: tuple[EmbeddedRedis, list[EdgeProcess]]) -> AsyncIterator[Stand]:
    server, started = session_stand
    async with standing(server.url, started) as made:
        yield made


async def test_an_agent_hears_what_people_say(stand: Stand) -> None:
    """Through any edge, in order; the log, the list and the state show it."""
    stand.add_worker()
    execution_id = await stand.execute("listener")
    first = await stand.send(execution_id, "one", messageId="m1")
    assert (first.status, first.body) == (202, {"executionId": execution_id, "messageId": "m1", "state": "queued"})
    assert (await stand.send(execution_id, "two", edge=1)).status == 202
    assert (await stand.send(execution_id, "stop")).status == 202
    assert await stand.result(execution_id) == ["one", "two", "stop"]
    assert await stand.states(execution_id) == [("one", "taken"), ("two", "taken"), ("stop", "taken")]
    said = [data for type_, data in await stand.log(execution_id) if type_ == "user:message"]
    assert said[0] == {"messageId": "m1", "by": "alice", "mode": "queue", "text": "one"}


async def test_a_repeat_gets_the_first_answer(stand: Stand) -> None:
    """In every state, also after the end."""
    stand.add_worker()
    execution_id = await stand.execute("listener")
    answers = await asyncio.gather(*(stand.send(execution_id, "stop", messageId="m1", edge=n % 2) for n in range(6)))
    await stand.result(execution_id)
    answers.append(await stand.send(execution_id, "stop", messageId="m1"))
    assert {answer.status for answer in answers} == {202}
    assert len({json.dumps(answer.body) for answer in answers}) == 1
    assert len([1 for type_, _ in await stand.log(execution_id) if type_ == "user:message"]) == 1


async def test_what_waits_is_withdrawn_or_dropped(stand: Stand) -> None:
    """Before a worker has it; a cancel ends it, and drops the rest."""
    worker = stand.add_worker()
    await stand.execute("deaf")
    worker.kill()
    execution_id = await stand.execute("listener")
    for id_ in ("a", "b"):
        assert (await stand.send(execution_id, id_, messageId=id_)).status == 202
    path = f"executions/{execution_id}/messages"
    assert (await stand.call("DELETE", path + "/a")).body["state"] == "dropped"
    assert (await stand.call("DELETE", path + "/a")).status == 200
    assert (await stand.call("DELETE", path + "/zz")).status == 404
    assert (await stand.call("POST", f"executions/{execution_id}/cancel")).status == 202
    assert await stand.states(execution_id) == [("a", "withdrawn"), ("b", "ended")]
    gone = await stand.call("DELETE", path + "/b")
    assert (gone.status, gone.body["type"].rpartition("/")[2].rpartition(":")[2]) == (409, "ended")
    types = [type_ for type_, _ in await stand.log(execution_id)]
    assert types[-2:] == ["user:message:dropped", "execution:cancelled"]


async def test_a_taken_message_is_not_withdrawn(stand: Stand) -> None:
    stand.add_worker()
    execution_id = await stand.execute("listener")
    await stand.send(execution_id, "one", messageId="m1")
    async with asyncio.timeout(under_load(20)):
        while await stand.states(execution_id) != [("one", "taken")]:
            await asyncio.sleep(0.02)
    answer = await stand.call("DELETE", f"executions/{execution_id}/messages/m1")
    assert (answer.status, slug(answer)) == (409, "message-taken")
    await stand.send(execution_id, "stop")


def slug(answer: Answer) -> str:
    return str(answer.body["type"]).replace("/", ":").rpartition(":")[2]


async def test_what_an_edge_refuses(stand: Stand) -> None:
    """With a problem that says why."""
    stand.add_worker()
    execution_id = await stand.execute("deaf")
    await stand.status(execution_id, "running")
    for body, status, kind in (
        ({"text": "x"}, 409, "not-steerable"),
        ({}, 422, "invalid"),
        ({"text": ""}, 422, "invalid"),
        ({"text": "x", "mode": "shout"}, 422, "invalid"),
        ({"text": "x", "messageId": "a b"}, 422, "invalid"),
        ({"text": "x", "more": 1}, 422, "invalid"),
    ):
        answer = await stand.send(execution_id, **body)
        assert (answer.status, slug(answer)) == (status, kind), body
    assert (await stand.send("ex_unknown", "x")).status == 404
    bobs = await stand.call("POST", f"executions/{execution_id}/messages", {"text": "x"}, token=BOB)
    assert bobs.status == 404
    path = f"executions/{execution_id}/messages"
    assert (await stand.call("POST", path, {"text": "x"}, token=READ)).status == 403
    assert (await stand.call("DELETE", path + "/m1", token=READ)).status == 403
    assert (await stand.call("GET", path, token=WRITE)).status == 403
    assert (await stand.call("POST", path + "/take", {}, token=WRITE)).status == 403
    listening = await stand.execute("listener")
    await stand.status(listening, "running")
    large = await stand.send(listening, data={"x": "y" * 66_000})
    assert (large.status, slug(large)) == (413, "payload-too-large")
    await stand.send(listening, "stop")
    await stand.result(listening)
    late = await stand.send(listening, "late")
    assert (late.status, slug(late)) == (409, "ended")


async def test_only_so_many_wait(stand: Stand) -> None:
    """50, until the agent takes some."""
    worker = stand.add_worker()
    await stand.execute("deaf")
    worker.kill()
    execution_id = await stand.execute("counter", "51")
    for number in range(50):
        assert (await stand.send(execution_id, messageId=f"m{number}", text="x")).status == 202
    answer = await stand.send(execution_id, messageId="m50", text="x")
    assert (answer.status, slug(answer), answer.body["limit"]) == (429, "too-many-messages", 50)
    stand.add_worker()
    await stand.status(execution_id, "running")
    async with asyncio.timeout(under_load(20)):
        while (await stand.send(execution_id, messageId="m50", text="x")).status == 429:
            await asyncio.sleep(0.05)
    assert await stand.result(execution_id) == [f"m{number}" for number in range(51)]


async def test_agents_say_whether_they_listen(stand: Stand) -> None:
    """In the list of agents."""
    stand.add_worker()
    await stand.execute("deaf")
    listed = (await stand.call("GET", "agents")).body["agents"]
    accepts = {agent["name"]: agent.get("acceptsMessages", False) for agent in listed}
    assert accepts["listener"]
    assert not accepts["deaf"]


async def test_a_message_interrupts(stand: Stand) -> None:
    """Within a second; what waited before is taken after that."""
    stand.add_worker()
    execution_id = await stand.execute("patient")
    await stand.status(execution_id, "running")
    await stand.send(execution_id, "quiet")
    started = asyncio.get_running_loop().time()
    await stand.send(execution_id, "stop that", mode="interrupt")
    assert await stand.result(execution_id) == {"interrupted": "stop that", "others": ["quiet"]}
    assert asyncio.get_running_loop().time() - started < under_load(1)


async def test_a_cancel_ends_an_agent_that_listens(stand: Stand) -> None:
    """Async or sync."""
    stand.add_worker()
    for agent in ("listener", "blocking", "patient"):
        execution_id = await stand.execute(agent)
        await stand.status(execution_id, "running")
        await stand.call("POST", f"executions/{execution_id}/cancel")
        assert (await stand.status(execution_id, "cancelled", "failed"))["status"] == "cancelled"


async def test_a_sync_agent_hears_too(stand: Stand) -> None:
    stand.add_worker()
    execution_id = await stand.execute("blocking")
    await stand.status(execution_id, "running")
    await stand.send(execution_id, "one")
    await stand.until_said(execution_id, "custom:looked")
    await stand.send(execution_id, "stop")
    assert await stand.result(execution_id) == ["one", "stop"]


async def test_a_question_and_messages_at_once(stand: Stand) -> None:
    """Neither stands in the way of the other."""
    stand.add_worker()
    execution_id = await stand.execute("asking")
    state = await stand.status(execution_id, "waiting_input")
    await stand.send(execution_id, "hello")
    await stand.until_said(execution_id, "custom:heard")
    assert await stand.states(execution_id) == [("hello", "taken")]
    answer = {"inputId": state["openInputs"][0]["inputId"], "value": True}
    await stand.call("POST", f"executions/{execution_id}/input", answer)
    assert await stand.result(execution_id) == {"answer": True, "heard": ["hello"]}


async def test_the_command_says_something(stand: Stand) -> None:
    """`runcast message`, and the terminal shows it."""
    stand.add_worker()
    execution_id = await stand.execute("patient")
    await stand.status(execution_id, "running")

    async def runcast(*arguments: str) -> tuple[int, str]:
        where = ("--url", f"http://127.0.0.1:{stand.edges[0].port}", "--token", ALICE)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "broker", *arguments, *where), cwd=ROOT, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(60):
            printed, _ = await process.communicate()
        return process.returncode or 0, printed.decode()

    status, id_ = await runcast("message", execution_id, "quiet")
    assert (status, id_[:4]) == (0, "msg_")
    assert (await runcast("message", execution_id, "stop that", "--interrupt"))[0] == 0
    await stand.result(execution_id)
    assert (await runcast("message", execution_id, "late"))[0] == 1
    _, story = await runcast("tail", execution_id)
    assert "» alice: quiet" in story
    assert "‼ alice: stop that" in story


# --- when something dies ---


async def test_a_lost_worker_loses_no_message(stand: Stand) -> None:
    """The next attempt hears all again, from the first; a message sent between the two as well."""
    worker = stand.add_worker(lease_seconds=3)
    execution_id = await stand.execute("listener")
    await stand.send(execution_id, "one")
    async with asyncio.timeout(under_load(20)):
        while await stand.states(execution_id) != [("one", "taken")]:
            await asyncio.sleep(0.02)
    worker.kill()
    assert (await stand.send(execution_id, "two")).status == 202
    stand.add_worker(lease_seconds=3)  # for as long it leaves the lost one time to renew
    await stand.send(execution_id, "stop")
    assert await stand.result(execution_id) == ["one", "two", "stop"]
    heard = [data for type_, data in await stand.log(execution_id) if type_ == "user:message:taken"]
    by_attempt: dict[int, list[str]] = {}
    for taken in heard:
        by_attempt.setdefault(taken["attempt"], []).extend(taken["messageIds"])
    sent = [data["messageId"] for type_, data in await stand.log(execution_id) if type_ == "user:message"]
    assert by_attempt == {1: sent[:1], 2: sent}


def check_log(log: Sequence[Received]) -> int:
    """Every attempt took a beginning of what was sent, in order and once; how many attempts took something."""
    assert not invariants.messages(log)
    return len({each["attempt"] for each in invariants.of(log, "user:message:taken")})


async def test_workers_are_killed_while_people_talk() -> None:
    """Each message is taken once per attempt and in order, and each agent hears all of them."""
    with EmbeddedRedis() as server, edges(server.url, 2, executes_per_minute=0) as started:
        async with standing(server.url, started) as stand:
            stand.add_worker(lease_seconds=1)
            stand.add_worker(lease_seconds=1)
            count = 12
            ids = [await stand.execute("counter", str(count)) for _ in range(6)]

            killed = asyncio.Event()

            async def talk(execution_id: str, edge: int) -> None:
                for number in range(count):
                    if number == count - 1:  # or it could be over before its worker is killed
                        await killed.wait()
                    while True:
                        answer = await stand.send(execution_id, "x", messageId=f"m{number}", edge=edge)
                        if answer.status == 202:
                            break
                        assert answer.status in (429, 503)
                        await asyncio.sleep(0.1)
                    await asyncio.sleep(0.25)

            async def kill() -> None:
                for execution_id in ids:  # what is killed has taken something
                    while not check_log(await stand.written(execution_id)):
                        await asyncio.sleep(0.02)
                for _ in range(3):
                    await asyncio.sleep(1)
                    stand.workers.pop(0).close()
                    stand.add_worker(lease_seconds=1)
                killed.set()

            await asyncio.gather(kill(), *(talk(id_, number % 2) for number, id_ in enumerate(ids)))
            results = [await stand.result(execution_id) for execution_id in ids]
            assert results == [[f"m{number}" for number in range(count)]] * len(ids)
            attempts = [check_log(await stand.written(execution_id)) for execution_id in ids]
            assert max(attempts) > 1


async def test_an_edge_dies_while_people_talk() -> None:
    """The repeat goes to the other one, and nothing is said twice."""
    with EmbeddedRedis() as server, edges(server.url, 2, executes_per_minute=0) as started:
        async with standing(server.url, started) as stand:
            stand.add_worker()
            execution_id = await stand.execute("counter", "20")
            await stand.status(execution_id, "running")

            async def say(number: int) -> None:
                for edge in (0, 1, 1):
                    with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                        answer = await stand.send(execution_id, "x", messageId=f"m{number}", edge=edge)
                        if answer.status == 202:
                            return
                raise AssertionError(number)

            for number in range(20):
                if number == 10:
                    asyncio.get_running_loop().call_later(0.001, stand.edges[0].kill)
                await say(number)
            assert await stand.result(execution_id) == [f"m{number}" for number in range(20)]
            check_log(await stand.written(execution_id))


async def test_redis_is_away_while_people_talk() -> None:
    """Paused for a while: who waits goes on waiting, and hears what comes after that."""
    with EmbeddedRedis() as server, edges(server.url, 1, executes_per_minute=0) as started:
        async with standing(server.url, started) as stand:
            stand.add_worker()
            execution_id = await stand.execute("counter", "3")
            await stand.send(execution_id, "x", messageId="m0")
            await stand.status(execution_id, "running")
            with redis_stopped(server):
                await asyncio.sleep(3)
            for number in (1, 2):
                async with asyncio.timeout(under_load(20)):
                    while (await stand.send(execution_id, "x", messageId=f"m{number}")).status != 202:
                        await asyncio.sleep(0.2)
            assert await stand.result(execution_id) == ["m0", "m1", "m2"]
            check_log(await stand.written(execution_id))


# --- what runs without a worker ---


async def test_an_emitter_without_a_worker_takes_messages(stand: Stand) -> None:
    """From its beginning, if it says so; its execution is over with it."""
    async with AgentEmitter("alice", "ex_own", redis_url=stand.url, accepts_messages=True) as emitter:
        await emitter.execution_started(task="t")
        await emitter.flush()
        await stand.send("ex_own", "one")
        assert (await stand.send("ex_own", "two")).status == 202
        found = [await emitter.next_message(5), *await emitter.waiting_messages()]
        assert [each.text for each in found if each] == ["one", "two"]
        assert await emitter.next_message(0.05) is None
        await stand.send("ex_own", "late")
        await emitter.execution_complete(None)
    assert await stand.states("ex_own") == [("one", "taken"), ("two", "taken"), ("late", "ended")]


async def test_a_sync_emitter_takes_messages(stand: Stand) -> None:
    def work() -> list[str | None]:
        with SyncAgentEmitter("alice", "ex_sync", redis_url=stand.url, accepts_messages=True) as emitter:
            emitter.execution_started(task="t")
            emitter.flush()
            started.set()
            heard = []
            for message in emitter.messages():
                heard.append(message.text)
                if len(heard) == 2:
                    break
            emitter.execution_complete(None)
        return heard

    started = threading.Event()
    running = asyncio.create_task(asyncio.to_thread(work))
    await asyncio.to_thread(started.wait, 10)
    for text in ("one", "two"):
        assert (await stand.send("ex_sync", text)).status == 202
    assert await running == ["one", "two"]


async def test_messages_are_taken_over_http(stand: Stand) -> None:
    """By a publisher: with a long poll, and again after a lost reply. From its first take on people may send."""
    events = "executions/ex_http/events"
    started = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}
    assert (await stand.call("POST", events, started)).status == 202
    assert (await stand.send("ex_http", "early")).status == 409
    listed = "executions/ex_http/messages"
    assert (await stand.call("GET", listed)).body == {"messages": [], "acceptsMessages": False}
    take = "executions/ex_http/messages/take"
    empty = await stand.call("POST", take, {})
    assert (empty.status, empty.body["messages"]) == (200, [])
    assert (await stand.call("GET", listed)).body == {"messages": [], "acceptsMessages": True}
    waiting = asyncio.create_task(stand.call("POST", take, {"waitSeconds": 20, "takeId": "t1"}, edge=1))
    await asyncio.sleep(0.3)
    began = asyncio.get_running_loop().time()
    await stand.send("ex_http", "one", data={"n": 1})
    first = (await waiting).body["messages"]
    assert asyncio.get_running_loop().time() - began < under_load(1)
    assert [(each["text"], each["data"], each["by"], each["mode"]) for each in first] == [
        ("one", {"n": 1}, "alice", "queue")
    ]
    await stand.send("ex_http", "two")
    again = await stand.call("POST", take, {"takeId": "t1"})
    assert again.body["messages"] == first
    second = await stand.call("POST", take, {"takeId": "t2", "max": 1})
    assert [each["text"] for each in second.body["messages"]] == ["two"]
    complete = {"type": "execution:complete", "data": {"result": None, "duration": 1}}
    assert (await stand.call("POST", events, complete)).status == 202
    assert (await stand.call("GET", listed)).body["acceptsMessages"] is False
    ended = await stand.call("POST", take, {})
    assert (ended.status, slug(ended)) == (409, "ended")


async def test_an_edge_that_stops_ends_the_wait(redis_url: str) -> None:
    """With no messages, soon: the next take goes to another edge."""
    with edges(redis_url, 1, drain_seconds=0) as (edge,):
        path = "/api/agent/executions/ex_stop/"
        started = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}
        assert (await call(edge.port, "POST", path + "events", ALICE, started)).status == 202
        waiting = asyncio.create_task(call(edge.port, "POST", path + "messages/take", ALICE, {"waitSeconds": 50}))
        async with asyncio.timeout(under_load(10)):
            while not (await call(edge.port, "GET", path + "messages", ALICE)).body["acceptsMessages"]:
                await asyncio.sleep(0.02)  # until it has looked for the first time
        began = asyncio.get_running_loop().time()
        await asyncio.to_thread(edge.stop)
        answer = await waiting
        assert (answer.status, answer.body["messages"]) == (200, [])
        assert asyncio.get_running_loop().time() - began < under_load(8)


async def test_a_worker_s_messages_are_not_taken_by_others(stand: Stand) -> None:
    """Who names no attempt, or another one, gets none."""
    stand.add_worker()
    execution_id = await stand.execute("patient")
    await stand.status(execution_id, "running")
    await stand.send(execution_id, "one")
    answer = await stand.call("POST", f"executions/{execution_id}/messages/take", {})
    assert (answer.status, slug(answer)) == (409, "execution-owned")
    await stand.send(execution_id, "now", mode="interrupt")
    assert await stand.result(execution_id) == {"interrupted": "now", "others": ["one"]}


async def test_what_waits_for_its_worker_is_not_taken_by_others(stand: Stand) -> None:
    """Before the first attempt as well: it would never hear of what was taken."""
    stand.add_worker()
    known = await stand.execute("listener")
    await stand.send(known, "stop")
    await stand.result(known)
    later = int(time.time() * 1000) + 2_000
    body = {"task": "t", "agent": "patient", "notBefore": later}
    execution_id = (await stand.call("POST", "execute", body)).body["executionId"]
    await stand.send(execution_id, "one")
    answer = await stand.call("POST", f"executions/{execution_id}/messages/take", {})
    assert (answer.status, slug(answer)) == (409, "execution-owned")
    await stand.status(execution_id, "running")
    await stand.send(execution_id, "now", mode="interrupt")
    assert await stand.result(execution_id) == {"interrupted": "now", "others": ["one"]}
