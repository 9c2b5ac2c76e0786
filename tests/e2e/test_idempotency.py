"""Exactly once over HTTP: what is asked again, at two edges at once, or after an answer that got lost, happens once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from broker.executions.publish import PRODUCERS_KEPT
from emitter.store import announcements
from emitter.store.connection import connect
from emitter.store.jobs import redis_ms
from emitter.wire.keys import AGENTS_KNOWN, Owner, jobs_key
from emitter.worker.agents import Agents, Context
from emitter.worker.worker import Worker, WorkerSettings
from tests.edges import (
    ALL_SCOPES,
    Answer,
    EdgeProcess,
    assert_dense,
    call,
    edges,
    read_log,
    request,
    token_for,
    under_load,
)
from tests.faults.outages import normal_connections_killed, process_stopped

EXECUTE = "/api/agent/execute"
BODY = {"task": "Write it", "agent": "agent", "params": {"n": 1, "m": 2}}
GONE = (OSError, asyncio.IncompleteReadError, TimeoutError)
BOUND = 30.0

_users = (f"user-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="module")
def both(server: EmbeddedRedis) -> Iterator[list[EdgeProcess]]:
    with edges(server.url, 2, heartbeat_seconds=1, executes_per_minute=0) as started:
        yield started


@pytest.fixture
async def client(server: EmbeddedRedis) -> AsyncIterator[Redis]:
    client = connect(server.url)
    yield client
    await client.aclose()


class Person:
    """A user whom no other test has."""

    def __init__(self, user: str | None = None, org: str = "default") -> None:
        self.owner = Owner(user or next(_users), org)
        self.token = token_for(self.owner.user, org=org, scopes=ALL_SCOPES)

    async def execute(self, port: int, key: str | None = None, body: Any = BODY) -> Answer:
        headers = {} if key is None else {"Idempotency-Key": key}
        return await call(port, "POST", EXECUTE, self.token, body, headers=headers)

    async def publish(self, port: int, execution_id: str, seq: int, *events: Any, producer: str = "p") -> Answer:
        lines = "\n".join(json.dumps(event) for event in events).encode()
        headers = {"Producer-Id": producer, "Producer-Seq": str(seq), "Content-Type": "application/x-ndjson"}
        return await call(port, "POST", events_path(execution_id), self.token, lines, headers=headers)

    async def executions(self, redis: Redis) -> set[str]:
        """Everything that was ever accepted for this user."""
        return {name.decode() for name in await redis.zrange(self.owner.index, 0, -1)}

    async def log(self, redis: Redis, execution_id: str) -> list[Any]:
        """Types and data of the log, whose ordinals are dense."""
        log = await read_log(redis, self.owner.execution(execution_id).log)
        assert_dense(log)
        return [(event.type, json.loads(event.data)["data"]) for event in log]

    async def types(self, redis: Redis, execution_id: str) -> list[str]:
        return [type_ for type_, _ in await self.log(redis, execution_id)]


@pytest.fixture
async def runs(server: EmbeddedRedis, client: Redis) -> AsyncIterator[list[str]]:
    """A worker; the ids of the executions that its agent was started for."""
    started: list[str] = []
    agents = Agents()

    @agents.agent("agent")
    async def agent(context: Context) -> str:
        started.append(context.execution_id)
        return context.task

    worker = Worker(agents, WorkerSettings(redis_url=server.url, concurrency=50, block_ms=100, lease_seconds=3))
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(under_load(BOUND)):
        while "agent" not in await announcements.known_agents(client):
            await asyncio.sleep(0.02)
    yield started
    worker.stop()
    async with asyncio.timeout(under_load(BOUND)):
        await task


async def ended(person: Person, redis: Redis, execution_ids: Sequence[str]) -> None:
    """Wait until these executions are completed and no job is left that could run one of them again."""
    async with asyncio.timeout(under_load(BOUND)):
        for execution_id in execution_ids:
            while await redis.hget(person.owner.execution(execution_id).record, "state") != b"completed":
                await asyncio.sleep(0.02)
        while await redis.xlen(jobs_key("agent")):
            await asyncio.sleep(0.02)


def events_path(execution_id: str) -> str:
    return f"/api/agent/executions/{execution_id}/events"


def ids(answers: Sequence[Answer]) -> set[str]:
    return {answer.body["executionId"] for answer in answers if answer.status == 202}


# --- starting executions ---------------------------------------------------------------------------------------------

ONCE = ["execution:queued", "execution:started", "execution:complete"]


async def test_thirty_requests_at_once_start_one_execution(
    both: list[EdgeProcess], client: Redis, runs: list[str]
) -> None:
    """All get the same 202, over whichever edge; the agent runs once, in a log that begins once."""
    alice = Person()
    answers = await asyncio.gather(*(alice.execute(both[n % 2].port, "k") for n in range(30)))
    assert [answer.status for answer in answers] == [202] * 30
    assert len({json.dumps(answer.body) for answer in answers}) == 1
    (execution_id,) = ids(answers)
    await ended(alice, client, [execution_id])
    assert await alice.types(client, execution_id) == ONCE
    assert runs == [execution_id]
    assert await alice.executions(client) == {execution_id}


async def test_a_repeat_after_the_end_is_the_first_answer(
    both: list[EdgeProcess], client: Redis, runs: list[str]
) -> None:
    """An execution that has come to its end is not started again; the answer is the first one, byte by byte."""
    alice = Person()
    first = await alice.execute(both[0].port, "k")
    await ended(alice, client, list(ids([first])))
    for edge in both:
        again = await alice.execute(edge.port, "k")
        assert (again.status, again.body) == (202, first.body)
    await ended(alice, client, list(ids([first])))
    assert runs == [first.body["executionId"]]


async def test_a_repeat_needs_no_agent(both: list[EdgeProcess], client: Redis, runs: list[str]) -> None:
    """The first answer stands when no worker has known the agent for a day, for which a new request is refused."""
    alice, body = Person(), BODY | {"agent": "former"}
    await client.zadd(AGENTS_KNOWN, {"former": await redis_ms(client)})
    async with asyncio.timeout(under_load(BOUND)):
        while (first := await alice.execute(both[0].port, "k", body)).status != 202:
            await asyncio.sleep(0.05)
    await client.zrem(AGENTS_KNOWN, "former")
    async with asyncio.timeout(under_load(BOUND)):
        while (await alice.execute(both[0].port, None, body)).status != 422:
            await asyncio.sleep(0.05)
    again = await alice.execute(both[0].port, "k", body)
    assert (again.status, again.body) == (202, first.body)


@pytest.mark.parametrize(
    "change",
    [{"task": "Another"}, {"params": {"n": 2}}, {"params": None}, {"metadata": {"a": 1}}, {"conversationId": "c"}],
)
async def test_a_key_stands_for_one_request(
    both: list[EdgeProcess], client: Redis, runs: list[str], change: dict[str, Any]
) -> None:
    """Another body under the same key is refused by both edges and starts nothing; the same body, written in another
    order, is the same request."""
    alice = Person()
    first = await alice.execute(both[0].port, "k")
    for edge in both:
        other = await alice.execute(edge.port, "k", BODY | change)
        assert (other.status, other.body["type"].rpartition(":")[2]) == (422, "idempotency-key-reused")
    same = await alice.execute(both[1].port, "k", {**dict(reversed(BODY.items())), "params": {"m": 2, "n": 1}})
    assert same.body == first.body
    assert await alice.executions(client) == ids([first])


async def test_of_two_requests_that_race_for_a_key_one_wins(
    both: list[EdgeProcess], client: Redis, runs: list[str]
) -> None:
    """Two bodies under one key at both edges at once: every request of one is accepted, every request of the other is
    refused, and one execution begins."""
    alice = Person()
    bodies = [BODY | {"task": "one"}, BODY | {"task": "other"}]
    answers = await asyncio.gather(
        *(alice.execute(both[n // 2 % 2].port, "k", bodies[n % 2]) for n in range(20)),
    )
    statuses = [{answer.status for answer in answers[which::2]} for which in range(2)]
    assert sorted(statuses, key=min) == [{202}, {422}]
    (execution_id,) = ids(answers)
    await ended(alice, client, [execution_id])
    assert runs == [execution_id]
    assert await alice.executions(client) == {execution_id}


async def test_a_key_is_its_users_own(both: list[EdgeProcess], client: Redis, runs: list[str]) -> None:
    """The same key of another user, or of the user of that name in another organisation, is another request."""
    people = [Person("carol", "one"), Person("carol", "two"), Person("dave", "one")]
    answers = await asyncio.gather(
        *(person.execute(both[n % 2].port, "k") for n in range(6) for person in people),
    )
    assert {answer.status for answer in answers} == {202}
    started = [await person.executions(client) for person in people]
    assert [len(each) for each in started] == [1, 1, 1]
    assert len(ids(answers)) == 3
    for person, each in zip(people, started, strict=True):
        await ended(person, client, list(each))
    assert Counter(runs) == Counter([execution_id for each in started for execution_id in each])


async def test_without_a_key_every_request_is_its_own(both: list[EdgeProcess], client: Redis, runs: list[str]) -> None:
    """Nobody's requests are taken for repeats unless they say so; other keys are other requests."""
    alice = Person()
    keys = [None, None, "k1", "k2"]
    answers = [await alice.execute(both[n % 2].port, key) for n, key in enumerate(keys)]
    assert len(ids(answers)) == 4
    await ended(alice, client, list(ids(answers)))
    assert sorted(runs) == sorted(ids(answers))


async def test_a_client_may_choose_the_id_and_repeat(both: list[EdgeProcess], client: Redis, runs: list[str]) -> None:
    """With an executionId of the client's, a repeat under its key is the first answer, and one without a key is 409."""
    alice = Person()
    body = BODY | {"executionId": "ex_mine"}
    answers = await asyncio.gather(*(alice.execute(both[n % 2].port, "k", body) for n in range(10)))
    assert {(answer.status, answer.body["executionId"]) for answer in answers} == {(202, "ex_mine")}
    assert (await alice.execute(both[0].port, None, body)).status == 409
    await ended(alice, client, ["ex_mine"])
    assert runs == ["ex_mine"]


async def test_a_request_whose_client_left_is_not_lost_nor_doubled(
    both: list[EdgeProcess], client: Redis, runs: list[str]
) -> None:
    """Clients that send and hang up, after the whole request or within it, then ask again: one execution for a key."""
    alice = Person()
    keys = [f"k{number}" for number in range(10)]
    for number, key in enumerate(keys):
        await send_and_leave(both[number % 2].port, alice.token, key, keep=1.0 if number % 3 else 0.8)
    answers = [await alice.execute(both[(number + 1) % 2].port, key) for number, key in enumerate(keys)]
    assert len(ids(answers)) == len(keys)
    again = [await alice.execute(both[number % 2].port, key) for number, key in enumerate(keys)]
    assert [answer.body for answer in again] == [answer.body for answer in answers]
    await ended(alice, client, list(ids(answers)))
    assert sorted(runs) == sorted(ids(answers))
    assert await alice.executions(client) == ids(answers)


async def send_and_leave(port: int, token: str, key: str, *, keep: float) -> None:
    """The first part of a request, and then the connection is cut without a look at the answer."""
    body = json.dumps(BODY)
    head = f"POST {EXECUTE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: {key}\r\n"
    message = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(message[: int(len(message) * keep)])
    await writer.drain()
    writer.transport.abort()


async def test_broken_connections_to_redis_cost_and_double_nothing(
    both: list[EdgeProcess], client: Redis, runs: list[str]
) -> None:
    """While the edges' and the worker's connections to Redis break, a request that got a 503 may have done its work or
    not: repeated until it is a 202, it has been done once."""
    alice = Person()
    statuses: Counter[int] = Counter()

    async def insist(key: str) -> str:
        for number in itertools.count():
            answer = await alice.execute(both[number % 2].port, key)
            statuses[answer.status] += 1
            if answer.status == 202:
                return str(answer.body["executionId"])
        raise AssertionError

    async def ask(name: int) -> list[str]:
        started = []
        while len(started) < 25 or (503 not in statuses and len(started) < 500):  # until one was hit
            started.append(await insist(f"k{name}-{len(started)}"))
        return started

    async with normal_connections_killed(client, every_seconds=0.02):
        started = [execution_id for each in await asyncio.gather(*map(ask, range(4))) for execution_id in each]
    assert len(set(started)) == len(started) >= 100
    assert set(statuses) == {202, 503}
    await ended(alice, client, started)
    assert sorted(runs) == sorted(started)
    assert await alice.executions(client) == set(started)


async def test_an_edge_killed_amid_requests_costs_and_doubles_nothing(
    server: EmbeddedRedis, client: Redis, runs: list[str]
) -> None:
    """While one of two edges is killed and comes back, twice, clients repeat each request until it is answered: there
    is one execution for each key, it runs once, and every later answer for the key is the first one."""
    alice = Person()
    answered: dict[str, Answer] = {}
    with edges(server.url, 2, heartbeat_seconds=1, executes_per_minute=0) as pair:
        victim, ports = pair[0], [edge.port for edge in pair]

        async def insist(key: str) -> Answer:
            for number in itertools.count():
                with contextlib.suppress(*GONE):
                    answer = await alice.execute(ports[number % 2], key)
                    if answer.status == 202:
                        return answer
                await asyncio.sleep(0.02)
            raise AssertionError

        async def ask(name: int) -> None:
            for number in range(25):
                answered[f"k{name}-{number}"] = await insist(f"k{name}-{number}")

        async def kill_when(count: int) -> None:
            while len(answered) < count:
                await asyncio.sleep(0.005)
            victim.kill()
            await asyncio.to_thread(victim.start().wait_ready)

        async with asyncio.timeout(under_load(BOUND)), asyncio.TaskGroup() as group:
            clients = [group.create_task(ask(name)) for name in range(8)]
            for count in (40, 120):
                await kill_when(count)
            await asyncio.wait(clients)
        assert len(ids(list(answered.values()))) == len(answered) == 200
        for edge in pair:
            for key in list(answered)[::20]:
                assert (await alice.execute(edge.port, key)).body == answered[key].body
    started = ids(list(answered.values()))
    await ended(alice, client, list(started))
    assert sorted(runs) == sorted(started)
    assert await alice.executions(client) == started


# --- publishing ------------------------------------------------------------------------------------------------------

STARTED = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}
DONE = {"type": "execution:complete", "data": {"result": None, "duration": 1}}


def thinking(number: int, who: str = "") -> dict[str, Any]:
    return {"type": "thinking", "data": {"thought": f"{who}{number}"}}


def thoughts(log: Sequence[tuple[str, Any]], who: str = "") -> list[int]:
    found = [data["thought"] for type_, data in log if type_ == "thinking"]
    return [int(thought.removeprefix(who)) for thought in found if thought.startswith(who)]


async def test_two_edges_that_get_the_same_batch_append_it_once(both: list[EdgeProcess], client: Redis) -> None:
    """However often a batch arrives at once, its events are appended by one request and every answer is 202."""
    alice, ports = Person(), [edge.port for edge in both] * 2
    assert (await alice.publish(ports[0], "ex_1", 1, STARTED)).body["appended"] == 1
    for seq in range(2, 62, 3):
        batch = [thinking(number) for number in range(seq, seq + 3)]
        answers = await asyncio.gather(*(alice.publish(port, "ex_1", seq, *batch) for port in ports))
        assert [answer.status for answer in answers] == [202] * 4
        assert sorted(answer.body["appended"] for answer in answers) == [0, 0, 0, 3]
        assert {answer.body["cursor"].partition("-")[2] for answer in answers} == {str(seq + 2)}
    assert thoughts(await alice.log(client, "ex_1")) == list(range(2, 62))


async def test_of_overlapping_batches_only_what_is_new_is_appended(both: list[EdgeProcess], client: Redis) -> None:
    """After 1 to 3, a batch of 2 to 5 appends 4 and 5, also when both edges get it; an older one appends nothing."""
    alice, ports = Person(), [edge.port for edge in both]
    first = await alice.publish(ports[0], "ex_1", 1, STARTED, thinking(2), thinking(3))
    later = await asyncio.gather(
        *(alice.publish(port, "ex_1", 2, *(thinking(number) for number in range(2, 6))) for port in ports)
    )
    older = await alice.publish(ports[1], "ex_1", 1, STARTED, thinking(2))
    assert [answer.status for answer in (first, *later, older)] == [202] * 4
    assert first.body["appended"] == 3
    assert sorted(answer.body["appended"] for answer in later) == [0, 2]
    assert (older.body["appended"], older.body["cursor"]) == (0, later[0].body["cursor"])
    assert thoughts(await alice.log(client, "ex_1")) == [2, 3, 4, 5]


async def test_a_retry_after_the_end_is_no_error(both: list[EdgeProcess], client: Redis) -> None:
    """The batch that ended the execution, and those before it, may be repeated for ever; what is new is refused."""
    alice = Person()
    answers = await asyncio.gather(
        *(alice.publish(both[n % 2].port, "ex_1", 1, STARTED, thinking(2), DONE) for n in range(6))
    )
    assert [answer.status for answer in answers] == [202] * 6
    assert sorted(answer.body["appended"] for answer in answers) == [0, 0, 0, 0, 0, 3]
    for edge in both:
        for seq, events in ((1, [STARTED, thinking(2), DONE]), (2, [thinking(2), DONE]), (3, [DONE]), (2, [DONE])):
            again = await alice.publish(edge.port, "ex_1", seq, *events)
            assert (again.status, again.body["appended"]) == (202, 0)
        for seq, events in ((4, [thinking(4)]), (2, [thinking(2), DONE, thinking(4)])):
            assert (await alice.publish(edge.port, "ex_1", seq, *events)).status == 409
        other = await alice.publish(edge.port, "ex_1", 1, STARTED, producer="q")
        assert (other.status, other.body["state"]) == (409, "completed")
    assert await alice.types(client, "ex_1") == ["execution:started", "thinking", "execution:complete"]


async def test_a_batch_that_overtook_its_retry_is_not_appended_again(both: list[EdgeProcess], client: Redis) -> None:
    """A batch that hung in one edge, was repeated at the other and followed by more, changes nothing when the first
    edge comes to it at last."""
    alice = Person()
    await alice.publish(both[1].port, "ex_1", 1, STARTED)
    with process_stopped(both[0].pid):
        late = asyncio.create_task(alice.publish(both[0].port, "ex_1", 2, thinking(2), thinking(3)))
        await asyncio.sleep(0.1)  # so that it most likely lies in the socket of the edge that stands still
        for seq in (2, 4):
            answer = await alice.publish(both[1].port, "ex_1", seq, thinking(seq), thinking(seq + 1))
            assert answer.body["appended"] == 2
    answer = await late
    assert (answer.status, answer.body["appended"]) == (202, 0)
    assert thoughts(await alice.log(client, "ex_1")) == [2, 3, 4, 5]


async def test_producers_and_executions_do_not_know_each_other(both: list[EdgeProcess], client: Redis) -> None:
    """The same numbers of another producer, in another execution or of another user are other events."""
    alice, bob = Person(), Person()
    for person, execution_id in ((alice, "ex_1"), (alice, "ex_2"), (bob, "ex_1")):
        for edge in both:
            answers = [
                await person.publish(edge.port, execution_id, 1, STARTED, thinking(2), producer=name) for name in "pq"
            ]
            assert [answer.body["appended"] for answer in answers] == ([2, 2] if edge is both[0] else [0, 0])
        assert thoughts(await person.log(client, execution_id)) == [2, 2]


async def test_a_thousand_batches_of_faulty_clients_make_the_log_they_meant(
    both: list[EdgeProcess], client: Redis
) -> None:
    """Clients that hang up, repeat themselves, send to both edges at once and send old batches again, while the edges'
    connections to Redis break: the log has what each meant, in order, once."""
    alice, ports = Person(), [edge.port for edge in both]
    await alice.publish(ports[0], "ex_1", 1, STARTED, producer="begin")

    class Faulty:
        """A producer that sends 250 batches, each until it was acknowledged."""

        def __init__(self, name: str) -> None:
            self.name, self.random, self.sent, self.appended = name, random.Random(name), 0, 0
            self.batches: list[tuple[int, list[Any]]] = []

        async def work(self) -> None:
            for _ in range(250):
                batch = [thinking(self.sent + n, self.name) for n in range(1, self.random.randint(1, 4) + 1)]
                self.batches.append((self.sent + 1, batch))
                self.sent += len(batch)
                while not await self.send(*self.batches[-1]):
                    pass
                if self.random.random() < 0.1:
                    await self.send(*self.random.choice(self.batches))

        async def send(self, seq: int, batch: list[Any]) -> bool:
            """Once in one of the ways that go wrong, or at both edges; whether it was acknowledged."""
            way, port = self.random.random(), self.random.choice(ports)
            if way < 0.2:
                await self.leave(port, seq, batch)
                return False
            targets = ports if way < 0.3 else [port]
            tries = [alice.publish(each, "ex_1", seq, *batch, producer=self.name) for each in targets]
            answers = await asyncio.gather(*tries)
            assert {answer.status for answer in answers} <= {202, 503}
            self.appended += sum(answer.body["appended"] for answer in answers if answer.status == 202)
            return any(answer.status == 202 for answer in answers)

        async def leave(self, port: int, seq: int, batch: list[Any]) -> None:
            lines = "\n".join(json.dumps(event) for event in batch).encode()
            headers = {"Producer-Id": self.name, "Producer-Seq": str(seq), "Content-Type": "application/x-ndjson"}
            path = events_path("ex_1")
            with contextlib.suppress(*GONE):
                async with request(port, "POST", path, alice.token, headers=headers, body=lines, seconds=0.001):
                    pass

    producers = [Faulty(name) for name in "abcd"]
    async with normal_connections_killed(client, every_seconds=0.2):
        await asyncio.gather(*(producer.work() for producer in producers))
    log = await alice.log(client, "ex_1")
    for producer in producers:
        assert thoughts(log, producer.name) == list(range(1, producer.sent + 1))
        assert 0 < producer.appended < producer.sent  # the rest came with requests that nobody waited for
    assert len(log) == 1 + sum(producer.sent for producer in producers)


# --- what is no repeat ---


async def test_a_fresh_key_does_not_hide_that_the_id_is_taken(
    both: list[EdgeProcess], client: Redis, runs: list[str]
) -> None:
    """An executionId that another request began is 409, with a key as without; and 409 again when repeated."""
    alice = Person()
    first = await alice.execute(both[0].port, None, BODY | {"executionId": "ex_mine"})
    assert first.status == 202
    other = BODY | {"executionId": "ex_mine", "task": "Another"}
    for key in ("k", "k"):
        answer = await alice.execute(both[0].port, key, other)
        assert answer.status == 409, answer.body


async def test_a_key_refused_by_a_taken_id_stays_refused(
    both: list[EdgeProcess], client: Redis, runs: list[str]
) -> None:
    """The same where the execution was begun by publishing."""
    alice = Person()
    await alice.publish(both[0].port, "ex_mine", 1, STARTED)
    for key in ("k", "k"):
        answer = await alice.execute(both[0].port, key, BODY | {"executionId": "ex_mine"})
        assert answer.status == 409, answer.body


async def test_two_keys_with_one_id(both: list[EdgeProcess], client: Redis, runs: list[str]) -> None:
    """Of several keys that ask for one id at once one gets it, and the others are told that it is taken."""
    alice = Person()
    body = BODY | {"executionId": "ex_mine"}
    answers = await asyncio.gather(
        *(alice.execute(both[n % 2].port, f"k{n}", body | {"task": f"{n}"}) for n in range(4))
    )
    assert sorted(a.status for a in answers) == [202, 409, 409, 409]


async def test_a_gap_is_refused(both: list[EdgeProcess], client: Redis) -> None:
    """A batch beyond the next number is not taken, so that what comes late is not taken for a repeat and lost."""
    alice = Person()
    await alice.publish(both[0].port, "ex_1", 1, STARTED)
    ahead = await alice.publish(both[0].port, "ex_1", 4, thinking(4))
    late = await alice.publish(both[1].port, "ex_1", 2, thinking(2), thinking(3))
    assert (ahead.status, late.body["appended"]) == (409, 2), (ahead, late)
    assert thoughts(await alice.log(client, "ex_1")) == [2, 3]
    assert (ahead.body["expected"], "forgotten" in ahead.body) == (2, False)
    # The record knows so many producers that it may have forgotten one: its numbers begin anew.
    await client.hset(alice.owner.execution("ex_1").record, "producers", str(PRODUCERS_KEPT))
    for producer, expected, forgotten in (("p", 4, None), ("q", 1, True)):
        refused = await alice.publish(both[0].port, "ex_1", 9, thinking(9), producer=producer)
        assert (refused.body["expected"], refused.body.get("forgotten")) == (expected, forgotten)
