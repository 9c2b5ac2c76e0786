"""Workers over HTTP: claiming, publishing under an attempt, renewing and giving back, over real edges and Redis."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.auth.tokens import mint
from broker.base.settings import Settings
from broker.cli.embedded import EmbeddedRedis
from broker.edge.edge import Edge
from emitter import tasks
from emitter.events import ExecutionCancelled
from emitter.store.append import append, prepare
from emitter.store.connection import connect
from emitter.wire.keys import DUE, Owner, member
from emitter.wire.record import FORMAT
from emitter.wire.redact import Redactor
from tests.docs.blocks import blocks
from tests.edges import ROOT, SECRET, EdgeProcess, call, edges, eventually, token_for, under_load
from tests.http_workers import (
    BASE,
    OPERATOR,
    HttpWorker,
    announced,
    execute,
    ref,
    state_of,
    types_of,
    until_ended,
)
from tests.ports import reserved_ports

LEASE_SECONDS = 5.0
ALICE = Owner("alice")
_agents = (f"agent-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def redis_of_jobs() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="module")
def pair(redis_of_jobs: EmbeddedRedis) -> Iterator[list[EdgeProcess]]:
    with edges(redis_of_jobs.url, 2, lease_seconds=LEASE_SECONDS, executes_per_minute=0) as started:
        yield started


@pytest.fixture
def agent() -> str:
    """An agent that no other test has."""
    return next(_agents)


async def until_waiting(at: Sequence[EdgeProcess], count: int = 1) -> None:
    """So many claims wait at these edges."""
    await eventually(f"{count} wait", lambda: sum(edge.metric("runcast_job_claims") for edge in at) == count)


# --- claim -----------------------------------------------------------------------------------------------------------


async def test_a_job_is_claimed_run_and_ended(pair: list[EdgeProcess], agent: str) -> None:
    """A worker that only speaks HTTP runs an execution that was started over HTTP: all that the contract says is in the
    job, and the log has one beginning and one end."""
    about = {"name": agent, "description": "d", "timeLimit": 60, "maxAttempts": 2, "inputSchema": {"type": "object"}}
    worker = await announced(pair, about)
    given = {"params": {"a": 1}, "metadata": {"m": 2}, "conversationId": "c1"}
    execution_id = await execute(pair[0], agent, **given)
    job = await worker.one()
    fence = job.pop("fence")
    assert len(fence) > 32
    assert job == {
        "executionId": execution_id,
        "owner": {"user": "alice", "org": "default"},
        "agent": agent,
        "task": "t",
        "attempt": 1,
        "leaseSeconds": LEASE_SECONDS,
        "limits": {"maxAttempts": 2, "timeLimit": 60.0, "idleLimit": None},
        "budget": None,
        "requestId": job["requestId"],
        "traceparent": job["traceparent"],
        "failed": 0,
        "lost": 0,
        **given,
    }
    job["fence"] = fence
    assert (await worker.start(job)).status == 202
    assert (await worker.publish(job, "thinking", thought="hm")).status == 202
    assert [each["state"] for each in await worker.renew(job)] == ["held"]
    assert (await worker.complete(job, {"ok": True})).status == 202
    assert await types_of(pair[1], execution_id) == [
        "execution:queued", "execution:started", "thinking", "execution:complete",
    ]  # fmt: skip
    assert (await until_ended(pair[0], execution_id))["result"] == {"ok": True}
    assert [each["why"] for each in await worker.renew(job)] == ["ended"]


async def test_an_agent_is_known_by_its_claim(pair: list[EdgeProcess], agent: str) -> None:
    """Before a worker claims, its agent is unknown (422); then executions are accepted, and clients see what the worker
    says of it, and who looks at the workers sees the worker."""
    refused = await call(pair[0].port, "POST", "/api/agent/execute", token_for("a"), {"task": "t", "agent": agent})
    assert (refused.status, refused.body["type"]) == (422, "urn:runcast:problem:unknown-agent")
    await announced(pair, {"name": agent, "description": "Looks things up", "inputModes": ["image/*"]})
    await execute(pair[0], agent)
    listed = await call(pair[1].port, "GET", "/api/agent/agents", token_for("a"))
    (found,) = [each for each in listed.body["agents"] if each["name"] == agent]
    assert (found["description"], found["inputModes"]) == ("Looks things up", ["image/*"])


async def test_a_claim_waits_for_a_job(pair: list[EdgeProcess], agent: str) -> None:
    """A waiting claim is answered as soon as a job is queued, at whichever edge; without one it ends in time as 204."""
    worker = await announced(pair, agent)
    began = time.monotonic()
    assert await worker.claim(0.5) == []
    assert 0.4 < time.monotonic() - began < under_load(3)
    waiting = asyncio.create_task(worker.one(10))
    await until_waiting(pair)
    queued_at = time.monotonic()
    await execute(pair[1], agent)
    await waiting
    assert time.monotonic() - queued_at < under_load(1)


async def test_hundreds_wait_and_each_job_has_one_worker(pair: list[EdgeProcess], agent: str) -> None:
    """Three hundred workers with one token wait at two edges, and others are answered meanwhile. Of fifty jobs each
    goes to one worker."""
    await announced(pair, agent)
    workers = [HttpWorker([edge], [agent]) for edge in pair for _ in range(150)]

    async def work(worker: HttpWorker) -> None:
        while True:
            await worker.claim(8)

    waiting = [asyncio.create_task(work(worker)) for worker in workers]
    await until_waiting(pair, 300)
    ids = await asyncio.gather(*(execute(pair[number % 2], agent) for number in range(50)))

    def found() -> list[tuple[str, int]]:
        return [(job["executionId"], job["attempt"]) for worker in workers for job in worker.jobs]

    await eventually("each job has a worker", lambda: {id_ for id_, attempt in found() if attempt == 1} == set(ids))
    assert len(set(found())) == len(found())  # leases end meanwhile, and the next attempts are others
    await tasks.end(waiting)


async def test_who_waits_too_often_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With tokens of one subject no more than three of four that may wait at an edge; others go on renewing."""
    monkeypatch.setattr("broker.http.responses.MAX_WAITING", 4)
    monkeypatch.setattr("broker.http.responses.MAX_WAITING_OF_ONE", 3)
    with EmbeddedRedis() as server, reserved_ports(2) as (port, admin_port):
        settings = Settings(redis_url=server.url, jwt_secret=SECRET, host="127.0.0.1", admin_host="127.0.0.1",
                            port=port, admin_port=admin_port, drain_seconds=0)  # fmt: skip
        async with Edge(settings) as served:
            workers = [HttpWorker([port], ["a"]) for _ in range(4)]
            waiting = [asyncio.create_task(worker.claim()) for worker in workers[:3]]
            async with asyncio.timeout(under_load(15)):
                while served.metrics.job_claims._value.get() < 3:
                    await asyncio.sleep(0.02)
            more = await workers[3].ask("claim", agents=["a"])
            assert (more.status, more.body["type"]) == (503, "urn:runcast:problem:busy")
            assert await HttpWorker([port], ["a"], token=token_for("other", scopes={"jobs:run"})).renew() == []
            assert await asyncio.gather(*waiting) == [[], [], []]
            assert await workers[3].claim(0) == []


async def test_room_for_several(pair: list[EdgeProcess], agent: str) -> None:
    """A claim brings as many jobs as the worker has room for, of all of its agents, and leaves the others."""
    other = next(_agents)
    worker = await announced(pair, agent, other)
    for number in range(5):
        await execute(pair[0], [agent, other][number % 2])
    assert len(await worker.claim(5, max=3)) == 3
    assert len(await worker.claim(5, max=3)) == 2
    assert await worker.claim(0, max=3) == []


async def test_the_answer_to_a_claim_is_lost(pair: list[EdgeProcess], agent: str) -> None:
    """A worker that asks again, saying that it has nothing, gets the same attempt with the same fence, from any edge.
    It is not told again of what it has, nor of what it has begun; and another worker gets nothing."""
    worker = await announced(pair, agent)
    await execute(pair[0], agent)
    lost = await worker.one()
    assert await HttpWorker(pair, [agent]).claim(0, running=[]) == []
    (again,) = await worker.claim(0, running=[])
    assert again == lost
    assert await worker.claim(0, running=[ref(lost)]) == []
    assert await worker.claim(0) == []
    await worker.start(again)
    assert await worker.claim(0, running=[]) == []


async def test_the_edge_dies_while_a_claim_waits(
    redis_of_jobs: EmbeddedRedis, pair: list[EdgeProcess], agent: str
) -> None:
    """The claim breaks off, the worker asks another edge, and the job that came meanwhile is there."""
    await announced(pair, agent)
    with edges(redis_of_jobs.url, 1, lease_seconds=LEASE_SECONDS) as (doomed,):
        worker = HttpWorker([doomed, pair[0]], [agent])
        waiting = asyncio.create_task(worker.claim(20))
        await until_waiting([doomed])
        doomed.kill()
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await waiting
        await execute(pair[1], agent)
        assert (await worker.one())["attempt"] == 1


async def test_a_stopping_edge_lets_go(redis_of_jobs: EmbeddedRedis, agent: str) -> None:
    """An edge that drains answers those who wait at once."""
    with edges(redis_of_jobs.url, 1, drain_seconds=1) as (edge,):
        waiting = asyncio.create_task(HttpWorker([edge], [agent]).claim(30))
        await until_waiting([edge])
        began = time.monotonic()
        await asyncio.to_thread(edge.stop)
        assert await waiting == []
        assert time.monotonic() - began < under_load(6)


async def test_a_worker_that_hangs_up_takes_no_job(pair: list[EdgeProcess], agent: str) -> None:
    """A claim whose worker has gone takes nothing: the next worker has the job at once."""
    worker = await announced(pair, agent)
    for _ in range(5):
        leaving = asyncio.create_task(worker.claim(30))
        await until_waiting(pair)
        await tasks.end([leaving])
        await until_waiting(pair, 0)
    await execute(pair[0], agent)
    assert (await HttpWorker(pair, [agent]).one(3))["attempt"] == 1


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"agents": []}, "$.agents"),
        ({"agents": ["Not a name"]}, "$.agents[0]"),
        ({"agents": ["name\n"]}, ""),
        ({"agents": [{"name": "a", "timeLimit": 0}]}, "$.agents[0]"),
        ({"agents": [{"name": "a", "maxAttempts": 0}]}, "$.agents[0]"),
        ({"agents": [{"name": "a", "inputModes": ["text"]}]}, "$.agents[0]"),
        ({"agents": ["a"], "max": 0}, "$.max"),
        ({"agents": ["a"], "waitSeconds": 61}, "$.waitSeconds"),
        ({"agents": ["a"], "worker": "a b"}, "$.worker"),
        ({"agents": ["a"], "wait": 1}, ""),
    ],
)
async def test_a_claim_that_is_wrong(pair: list[EdgeProcess], body: dict[str, Any], path: str) -> None:
    """422, with the place; members of an agent that an edge does not know are no error."""
    answer = await HttpWorker(pair, []).ask("claim", **body)
    assert (answer.status, answer.body.get("path", "")) == (422, path), answer.body
    known = {"name": "a", "acceptsSomething": True}
    assert (await HttpWorker(pair, []).ask("claim", agents=[known], waitSeconds=0)).status == 204


# --- fences ----------------------------------------------------------------------------------------------------------


async def test_only_the_worker_of_an_attempt_publishes_under_it(pair: list[EdgeProcess], agent: str) -> None:
    """A fence is good for one execution, attempt and worker's token; anything else is refused, and nothing is in the
    log."""
    worker = await announced(pair, agent)
    ids = [await execute(pair[0], agent) for _ in range(2)]
    first, second = await worker.claim(5, max=2)
    stranger = HttpWorker(pair, [agent], token=token_for("stranger", scopes={"jobs:run"}))
    cases: list[tuple[HttpWorker, dict[str, Any], int, str]] = [
        (worker, {**first, "fence": second["fence"]}, 403, "bad-fence"),
        (worker, {**first, "attempt": 2}, 403, "bad-fence"),
        (worker, {**first, "fence": first["fence"][:-1] + "A" + first["fence"][-1:]}, 403, "bad-fence"),
        (worker, {**first, "fence": "nonsense"}, 403, "bad-fence"),
        (stranger, first, 403, "bad-fence"),
    ]
    for who, job, status, slug in cases:
        answer = await who.publish(job, "thinking", thought="mine")
        assert (answer.status, answer.body["type"]) == (status, "urn:runcast:problem:" + slug), job
        assert [each["why"] for each in await who.renew(job)] == ["fence"]
        assert (await who.release(job))["state"] == "lost"
    headers = {"Attempt": "1"}
    answer = await call(pair[0].port, "POST", f"{BASE}/{ids[0]}/events", worker.token, {}, headers=headers)
    assert answer.status == 400
    assert {(await types_of(pair[0], each))[-1] for each in ids} == {"execution:queued"}


async def test_what_an_end_leaves_undone_is_done_later(
    pair: list[EdgeProcess], agent: str, redis_of_jobs: EmbeddedRedis
) -> None:
    """An edge that cannot tell the parent of an end, or dies before it does, leaves that to the reaper."""
    worker = await announced(pair, agent)
    parent = await execute(pair[0], agent)
    above = await worker.one()
    await worker.start(above)
    child = await execute(pair[0], agent, parentExecutionId=parent)
    job = await worker.one()
    keys = ALICE.execution(parent)
    async with Redis.from_url(redis_of_jobs.url) as redis:
        await redis.rename(keys.log, keys.log + ":aside")
        await redis.set(keys.log, "no log")
        assert (await worker.complete(job)).status >= 500
        assert await redis.zscore(DUE, member(ALICE, child)) is not None
        await redis.rename(keys.log + ":aside", keys.log)
    async with asyncio.timeout(under_load(10)):
        while "child:ended" not in await types_of(pair[1], parent):
            await worker.renew(above)
            await asyncio.sleep(0.2)
    await worker.complete(above)


async def test_an_attempt_that_was_given_up_is_fenced(pair: list[EdgeProcess], agent: str) -> None:
    """What is published under an attempt that another one has followed is refused with 409, also its end."""
    worker, other = await announced(pair, agent), HttpWorker(pair, [agent])
    execution_id = await execute(pair[0], agent)
    job = await worker.one()
    await worker.start(job)
    assert (await worker.release(job))["state"] == "released"
    for answer in (await worker.publish(job, "thinking", thought="x"), await worker.complete(job)):
        assert (answer.status, answer.body["type"]) == (409, "urn:runcast:problem:superseded")
        assert answer.body["attempt"] == 2
    assert [each["why"] for each in await worker.renew(job)] == ["superseded"]
    second = await other.one()
    assert (second["executionId"], second["attempt"]) == (execution_id, 2)
    assert (await other.complete(second, 2)).status == 202
    assert (await until_ended(pair[0], execution_id))["result"] == 2
    again = await other.complete(second, 3)
    assert (again.status, again.body["type"]) == (409, "urn:runcast:problem:execution-ended")


async def test_scopes_and_agents_of_tokens(pair: list[EdgeProcess], agent: str) -> None:
    """Jobs need `jobs:run`, which no other scope implies; a token may be limited to some agents."""
    worker = HttpWorker(pair, [agent], token=token_for("o", scopes={"admin", "events:publish", "executions:write"}))
    for step, body in (("claim", {"agents": [agent]}), ("renew", {"jobs": []}), ("release", {"jobs": []})):
        answer = await worker.ask(step, **body)
        assert (answer.status, answer.body["requiredScope"]) == (403, "jobs:run")
    limited = mint(SECRET, "o", scopes={"jobs:run"}, ttl=60, now=time.time(), agents=[agent])
    worker = HttpWorker(pair, [agent], token=limited)
    assert await worker.claim(0) == []
    answer = await worker.ask("claim", agents=[agent, "other"], waitSeconds=0)
    assert (answer.status, answer.body["detail"]) == (403, "this token may not run agent 'other'")


# --- publish ---------------------------------------------------------------------------------------------------------


async def test_an_attempt_begins_without_saying_so(pair: list[EdgeProcess], agent: str) -> None:
    """If a worker's first event is another one, the edge writes `execution:started` before it, once; and a repeat with
    the same producer number appends nothing, in each attempt anew."""
    worker = await announced(pair, agent)
    execution_id = await execute(pair[0], agent)
    for attempt in (1, 2):
        job = await worker.one()
        producer = {"Producer-Id": "p", "Producer-Seq": "1"}
        answers = [await worker.publish(job, "thinking", producer, thought="hm") for _ in range(2)]
        assert [answer.body["appended"] for answer in answers] == [1, 0]
        if attempt == 1:
            await worker.release(job)
    state = await state_of(pair[0], execution_id)
    assert (state["status"], state["attempt"]) == ("running", 2)
    assert await types_of(pair[0], execution_id) == [
        "execution:queued", "execution:started", "thinking", "execution:superseded", "execution:started", "thinking",
    ]  # fmt: skip
    await worker.complete(job)


async def test_a_worker_cannot_publish_what_is_not_its_own(pair: list[EdgeProcess], agent: str) -> None:
    """Answers and attempts are written by others."""
    worker = await announced(pair, agent)
    await execute(pair[0], agent)
    job = await worker.one()
    for type_, data in (
        ("execution:superseded", {"fromSeq": 1, "attempt": 9}),
        ("input:received", {"inputId": "i", "value": 1, "by": "me"}),
    ):
        answer = await worker.publish(job, type_, **data)
        assert (answer.status, answer.body["type"]) == (403, "urn:runcast:problem:event-not-publishable")
    await worker.complete(job)


# --- cancel, answers -------------------------------------------------------------------------------------------------


async def test_a_cancel_reaches_the_worker_within_a_second(pair: list[EdgeProcess], agent: str) -> None:
    """A renewal that waits returns with who cancelled and why; the worker's end has both, whatever it says itself."""
    worker = await announced(pair, agent)
    execution_id = await execute(pair[0], agent)
    job = await worker.one()
    await worker.start(job)
    waiting = asyncio.create_task(_until(worker, job, "cancel"))
    await asyncio.sleep(0.2)
    asked_at = time.monotonic()
    path, why = f"{BASE}/{execution_id}/cancel", {"reason": "enough"}
    assert (await call(pair[1].port, "POST", path, token_for("alice"), why)).status == 202
    renewed = await waiting
    assert time.monotonic() - asked_at < under_load(1)
    assert renewed["cancel"] == {"by": "alice", "reason": "enough"}
    assert (await worker.publish(job, "execution:cancelled", by="mallory")).status == 202
    state = await until_ended(pair[0], execution_id)
    assert (state["status"], state["cancelled"]) == ("cancelled", {"reason": "enough", "by": "alice"})


async def _until(worker: HttpWorker, job: dict[str, Any], state: str) -> dict[str, Any]:
    while True:
        (renewed,) = await worker.renew(job, wait_seconds=5)
        if renewed["state"] == state:
            return renewed


async def test_a_child_whose_parent_has_ended_is_cancelled(
    pair: list[EdgeProcess], redis_of_jobs: EmbeddedRedis, agent: str
) -> None:
    """By its next renewal, if what ended the parent was killed before it did so."""
    worker = await announced(pair, agent)
    parent = await execute(pair[0], agent)
    await worker.one()
    await execute(pair[0], agent, parentExecutionId=parent)
    child = await worker.one()
    assert [each["state"] for each in await worker.renew(child)] == ["held"]
    redis = connect(redis_of_jobs.url)
    end = prepare(ExecutionCancelled(), parent, redact=Redactor(), max_bytes=0)
    await append(redis, Owner(org="default", user="alice"), parent, [end])
    await redis.aclose()
    (told,) = await worker.renew(child)
    assert (told["state"], told["cancel"]["by"]) == ("cancel", "system:parent")


async def test_a_renewal_waits_for_a_third_of_the_lease(pair: list[EdgeProcess], agent: str) -> None:
    """Not longer, however long it was told to wait, also for an agent whose limits end much later."""
    worker = await announced(pair, {"name": agent, "timeLimit": 600, "idleLimit": 500})
    await execute(pair[0], agent)
    job = await worker.one()
    for _ in range(3):
        began = time.monotonic()
        (renewed,) = await worker.renew(job, wait_seconds=30)
        assert renewed["state"] == "held"
        assert LEASE_SECONDS / 3 - 0.1 < time.monotonic() - began < LEASE_SECONDS
    await worker.complete(job)


async def test_a_cancel_before_the_claim_ends_it(pair: list[EdgeProcess], agent: str) -> None:
    """Nobody gets the job of an execution that was cancelled while it waited."""
    worker = await announced(pair, agent)
    execution_id = await execute(pair[0], agent)
    await call(pair[0].port, "POST", f"{BASE}/{execution_id}/cancel", token_for("alice"), {})
    assert await worker.claim(1) == []
    assert (await state_of(pair[0], execution_id))["status"] == "cancelled"


async def test_the_answer_to_a_question_comes_with_the_renewal(pair: list[EdgeProcess], agent: str) -> None:
    """A worker that asks a person hears the answer by its renewal, at once, and as often as it asks."""
    worker = await announced(pair, agent)
    execution_id = await execute(pair[0], agent)
    job = await worker.one()
    await worker.start(job)
    await worker.publish(job, "input:required", inputId="q1", prompt="Which?", kind="text")
    waiting = asyncio.create_task(_until_answered(worker, job))
    await asyncio.sleep(0.2)
    asked_at = time.monotonic()
    given = {"inputId": "q1", "value": "blue"}
    assert (await call(pair[1].port, "POST", f"{BASE}/{execution_id}/input", token_for("alice"), given)).status == 202
    (answer,) = await waiting
    assert time.monotonic() - asked_at < under_load(1)
    assert (answer["inputId"], answer["value"], answer["by"]) == ("q1", "blue", "alice")
    (again,) = await worker.renew(job, waitingFor=["q1", "q2"])
    assert again["answers"] == [answer]
    await worker.complete(job)


async def test_a_question_is_declined(pair: list[EdgeProcess], agent: str) -> None:
    """A worker hears that the person does not want to answer, and of its other jobs as before."""
    worker = await announced(pair, agent)
    execution_id = await execute(pair[0], agent)
    job = await worker.one()
    await worker.start(job)
    await worker.publish(job, "input:required", inputId="q1", prompt="Which?", kind="text")
    given = {"inputId": "q1", "declined": True}
    said = await call(pair[1].port, "POST", f"{BASE}/{execution_id}/input", token_for("alice"), given)
    assert said.status == 202, said
    (renewed,) = await worker.renew(job, waitingFor=["q1"])
    (answer,) = renewed["answers"]
    assert (answer["inputId"], answer["value"], answer["by"], answer["declined"]) == ("q1", None, "alice", True)
    await worker.complete(job)


async def test_people_talk_to_the_agent(pair: list[EdgeProcess], agent: str) -> None:
    """An agent that takes messages gets those of its execution, under its attempt; nobody else does with its fence."""
    worker = await announced(pair, {"name": agent, "acceptsMessages": True})
    execution_id = await execute(pair[0], agent)
    job = await worker.one()
    await worker.start(job)
    path = f"{BASE}/{execution_id}/messages"
    sent = await call(pair[1].port, "POST", path, token_for("alice"), {"text": "Shorter, please"})
    assert sent.status == 202, sent
    under = {"Attempt": "1", "Fence": job["fence"]}
    taken = await call(pair[0].port, "POST", path + "/take", worker.token, {"waitSeconds": 5}, headers=under)
    assert [(each["text"], each["by"]) for each in taken.body["messages"]] == [("Shorter, please", "alice")]
    for headers in ({"Attempt": "1"}, {**under, "Fence": "x"}):
        refused = await call(pair[0].port, "POST", path + "/take", worker.token, {}, headers=headers)
        assert refused.status == 403
    await worker.complete(job)


async def _until_answered(worker: HttpWorker, job: dict[str, Any]) -> list[Any]:
    while True:
        (renewed,) = await worker.renew(job, wait_seconds=5, waitingFor=["q1"])
        if renewed["answers"]:
            return list(renewed["answers"])


# --- the page ------------------------------------------------------------------------------------------------------


async def test_the_requests_of_the_page(pair: list[EdgeProcess]) -> None:
    """The commands of docs/agents/over-http.md, in their order, do what the page says."""
    page = ROOT / "docs" / "agents" / "over-http.md"
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    helper = next(line for line in lines if line.startswith("post() {"))
    claim, started, delta, renew, release = commands(lines)
    await HttpWorker(pair, ["translator"], name="w1").claim(0)
    execution_id = await execute(pair[0], "translator", task="Good morning")
    job = (await bash(pair[0], helper, claim))["jobs"][0]
    assert (job["executionId"], job["task"], job["limits"]["timeLimit"]) == (execution_id, "Good morning", 600)
    given = {"ID": execution_id, "ATTEMPT": str(job["attempt"]), "FENCE": job["fence"]}
    for publish in (started, delta):
        assert (await bash(pair[0], helper, publish, **given))["appended"] == 1
    assert (await bash(pair[0], helper, renew, **given))["jobs"][0]["state"] == "held"
    assert (await bash(pair[0], helper, release, **given))["jobs"][0]["state"] == "released"


def commands(lines: list[str]) -> list[str]:
    """Those that call `post`, each until its quotes are closed and no line is continued."""
    found: list[str] = []
    is_open = False
    for line in lines:
        if is_open:
            found[-1] += "\n" + line
        elif line.startswith("post "):
            found.append(line)
        else:
            continue
        is_open = found[-1].count("'") % 2 == 1 or line.endswith("\\")
    return found


async def bash(edge: EdgeProcess, helper: str, command: str, **environ: str) -> Any:
    """The command's answer."""
    given = {**os.environ, "URL": f"http://127.0.0.1:{edge.port}", "TOKEN": OPERATOR, **environ}
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f"{helper}\n{command}", env=given, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), under_load(30))
    return json.loads(output)


# --- release, retry --------------------------------------------------------------------------------------------------


async def test_a_failure_is_tried_again_and_counts(pair: list[EdgeProcess], agent: str) -> None:
    """A job that is given back for a failure waits as long as the worker says, then for some seconds, until its
    attempts are used up: then it fails with the worker's words."""
    worker = await announced(pair, {"name": agent, "maxAttempts": 3})
    execution_id = await execute(pair[0], agent)
    job = await worker.one()
    released_at = time.monotonic()
    released = await worker.release(job, error="busy", retryAfterSeconds=1.5)
    assert (released["state"], released["retryAfterSeconds"]) == ("retrying", 1.5)
    assert (await worker.release(job, error="busy"))["state"] == "lost"
    second = await worker.one(15)
    assert time.monotonic() - released_at > 1.4
    assert (second["attempt"], second["failed"]) == (2, 1)
    released = await worker.release(second, error="busy")
    assert 1 <= released["retryAfterSeconds"] <= 2
    third = await worker.one(15)
    assert (await worker.release(third, error="no luck", code="gave_up"))["state"] == "failed"
    state = await until_ended(pair[0], execution_id)
    assert (state["status"], state["error"]["error"], state["error"]["code"]) == ("failed", "no luck", "gave_up")


# --- versions that meet ----------------------------------------------------------------------------------------------


async def test_a_newer_job_keeps_no_other_from_being_renewed(
    pair: list[EdgeProcess], redis_of_jobs: EmbeddedRedis, agent: str
) -> None:
    """A worker claims from edges of both versions. One that does not know a record's format leaves its lease to those
    that do, says that the worker still has it, and renews the others."""
    worker = await announced(pair, agent)
    names = [await execute(pair[0], agent) for _ in range(2)]
    held = [await worker.one() for _ in names]
    newer, other = (ALICE.execution(job["executionId"]).record for job in held)
    async with connect(redis_of_jobs.url) as redis:
        client: Any = redis
        await client.hset(newer, "format", FORMAT + 1)
        before = [await client.hget(record, "lease") for record in (newer, other)]
        assert [job["state"] for job in await worker.renew(*held)] == ["held", "held"]
        after = [await client.hget(record, "lease") for record in (newer, other)]
    assert after[0] == before[0]
    assert after[1] > before[1]
