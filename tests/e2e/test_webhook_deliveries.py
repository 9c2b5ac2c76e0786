"""Webhooks from the request to the receiver, over real edges, workers and sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter import AgentEmitter
from emitter.publishing.publisher import Publisher
from emitter.store.append import LogLimits
from emitter.store.connection import connect
from emitter.wire.keys import WEBHOOKS, WEBHOOKS_HELD, Owner
from tests.clusters import cluster
from tests.edges import EdgeProcess, Received, call, edge, edges, eventually, read_log, token_for, under_load
from tests.receivers import SETTINGS, Got, receiver
from tests.workers import WorkerProcess

HERE = Path(__file__).parent
DEFAULT = {"execution:complete", "execution:error", "execution:cancelled", "input:required"}


class Site:
    def __init__(self, redis: EmbeddedRedis, edges: list[EdgeProcess], worker: WorkerProcess) -> None:
        self.redis_url, self.edges, self.worker = redis.url, edges, worker
        self.numbers = iter(range(10_000))

    def new_user(self) -> str:
        return f"user-{next(self.numbers)}"


async def known(port: int) -> None:
    async with asyncio.timeout(under_load(20)):
        while not (await call(port, "GET", "/api/agent/agents", token_for("alice"))).body["agents"]:
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with (
        EmbeddedRedis() as redis,
        edges(redis.url, 2, heartbeat_seconds=1, executes_per_minute=0, **SETTINGS) as started,
    ):
        worker = WorkerProcess(redis.url, "e2e_agents:agents", HERE)
        try:
            asyncio.run(known(started[0].port))
            yield Site(redis, started, worker)
        finally:
            worker.close()


async def execute(edge: EdgeProcess, user: str, agent: str, url: str | None, **more: Any) -> str:
    hook = {} if url is None else {"webhook": {"url": url, **more.pop("webhook", {})}}
    body = {"task": "t", "agent": agent, **hook, **more}
    answer = await call(edge.port, "POST", "/api/agent/execute", token_for(user), body)
    assert answer.status == 202, answer.body
    return str(answer.body["executionId"])


async def log_of(url: str, user: str, execution_id: str) -> list[Received]:
    redis = connect(url)
    try:
        return await read_log(redis, Owner(user).execution(execution_id).log)
    finally:
        await redis.aclose()


async def state_of(edge: EdgeProcess, user: str, execution_id: str) -> dict[str, Any]:
    """With its webhooks."""
    path = f"/api/agent/executions/{execution_id}"
    answer = await call(edge.port, "GET", path, token_for(user))
    hooks = await call(edge.port, "GET", path + "/webhooks", token_for(user))
    assert (answer.status, hooks.status) == (200, 200)
    return {**answer.body, **hooks.body}


def of(got: list[Got], execution_id: str) -> list[Got]:
    return [each for each in got if each.execution == execution_id]


async def test_an_end_comes_signed_and_as_in_the_log(site: Site) -> None:
    """The default is the end, and the question before it; the body has the event as the log has it, and its id is that
    of the message. Headers that were given come along."""
    user = site.new_user()
    async with receiver() as here:
        hook = {"headers": {"Authorization": "Bearer of-the-receiver", "X-Team": "red"}}
        execution_id = await execute(site.edges[0], user, "counter", here.url, webhook=hook)
        (got,) = await here.until_count(1)
        (*_, end) = await log_of(site.redis_url, user, execution_id)
        assert (got.type, json.dumps(got.body["data"])) == ("execution:complete", json.dumps(json.loads(end.data)))
        assert end.data.encode() in got.raw
        assert got.body.keys() == {"type", "timestamp", "data"}
        assert got.body["timestamp"].endswith("Z")
        assert (got.headers["authorization"], got.headers["x-team"]) == ("Bearer of-the-receiver", "red")
        assert (got.headers["content-type"], got.path) == ("application/json", "/hook")
        await asyncio.sleep(0.5)
        assert len(here.got) == 1


async def test_exactly_what_was_asked_for(site: Site) -> None:
    """In the order of the log, and nothing else."""
    user = site.new_user()
    events = ["execution:queued", "tool:start", "tool:complete", "phase:start", "execution:complete"]
    async with receiver() as here:
        execution_id = await execute(site.edges[1], user, "counter", here.url, webhook={"events": events})
        await here.until("the end", lambda got: got[-1:] != [] and got[-1].type == "execution:complete")
        log = await log_of(site.redis_url, user, execution_id)
        wanted = [json.loads(event.data) for event in log if event.type in events]
        assert [got.body["data"] for got in here.got] == wanted
        assert Counter(got.type for got in here.got)["tool:start"] == 3


async def test_a_question_comes_while_it_is_open(site: Site) -> None:
    user = site.new_user()
    async with receiver() as here:
        execution_id = await execute(site.edges[0], user, "asker", here.url)
        (asked,) = await here.until_count(1)
        assert asked.type == "input:required"
        answer = {"inputId": asked.body["data"]["data"]["inputId"], "value": True}
        path = f"/api/agent/executions/{execution_id}/input"
        assert (await call(site.edges[1].port, "POST", path, token_for(user), answer)).status == 202
        (_, end) = await here.until_count(2)
        assert end.type == "execution:complete"


@pytest.mark.parametrize(("agent", "type_"), [("failer", "execution:error"), ("sleeper", "execution:cancelled")])
async def test_other_ends(site: Site, agent: str, type_: str) -> None:
    """Also those that the edge writes."""
    user = site.new_user()
    async with receiver() as here:
        execution_id = await execute(site.edges[0], user, agent, here.url)
        if agent == "sleeper":
            path = f"/api/agent/executions/{execution_id}/cancel"
            await call(site.edges[1].port, "POST", path, token_for(user), {})
        (got,) = await here.until_count(1)
        assert got.type == type_


async def test_secrets_stay_secret(site: Site) -> None:
    """Headers and the URL's path are in no state, no log of an edge, and after the end not in Redis either; the state
    says what became of the webhook."""
    user = site.new_user()
    async with receiver() as here:
        hook = {"headers": {"X-Key": "very-hidden-header"}}
        execution_id = await execute(site.edges[0], user, "counter", here.url, webhook=hook)
        await here.until_count(1)
        redis: Any = connect(site.redis_url)
        record = Owner(user).execution(execution_id).record
        async with asyncio.timeout(under_load(10)):
            while json.loads(await redis.hget(record, "d:request") or b"{}").get("state") != "done":
                await asyncio.sleep(0.05)
        kept = b"".join((await redis.hgetall(record)).values())
        assert b"hidden" not in kept
        await redis.aclose()
        state = await state_of(site.edges[1], user, execution_id)
        (shown,) = state["webhooks"]
        assert (shown["url"], shown["state"]) == (f"http://127.0.0.1:{here.port}", "done")
        assert (set(shown["events"]), shown["delivered"], shown.keys()) == (
            DEFAULT,
            1,
            {"url", "state", "events", "delivered"},
        )
        for each in site.edges:
            assert "hidden" not in each.log_text()


async def test_a_receiver_that_is_away_gets_all_of_it_in_order(site: Site) -> None:
    """What was asked for while nobody listened comes in the log's order when somebody does, each event under one id."""
    user = site.new_user()
    events = ["tool:start", "tool:complete", "execution:complete"]
    async with receiver() as here:
        await here.stop()
        params = {"params": {"n": 20}}
        started = [
            await execute(site.edges[0], user, "counter", here.url, webhook={"events": events}, **params)
            for _ in range(8)
        ]
        await eventually("tries fail", lambda: any(each.logged("webhook_refused") for each in site.edges))
        await here.start()
        await here.until_count(8 * 41, 60)
        for execution_id in started:
            log = await log_of(site.redis_url, user, execution_id)
            wanted = [json.loads(event.data) for event in log if event.type in events]
            assert [got.body["data"] for got in of(here.got, execution_id)] == wanted


async def test_a_repeat_has_the_same_id(site: Site) -> None:
    """A receiver that fails first gets the message again, under the same `webhook-id` and with the same body."""
    user = site.new_user()
    async with receiver() as here:
        here.answer = lambda got: web.Response(status=500) if len(here.got) == 1 else None
        await execute(site.edges[0], user, "counter", here.url)
        first, second = await here.until_count(2)
        assert (first.id, first.body) == (second.id, second.body)
        assert second.at - first.at > 3


async def test_retry_after_is_heeded(site: Site) -> None:
    user = site.new_user()
    async with receiver() as here:
        busy = web.Response(status=429, headers={"Retry-After": "9"})
        here.answer = lambda got: busy if len(here.got) == 1 else None
        await execute(site.edges[0], user, "counter", here.url)
        first, second = await here.until_count(2, 30)
        assert second.at - first.at > 7


async def shown_with_error(site: Site, user: str, execution_id: str) -> list[dict[str, Any]]:
    """Its webhooks, once what they were answered is kept."""
    async with asyncio.timeout(under_load(20)):
        while True:
            shown: list[dict[str, Any]] = (await state_of(site.edges[0], user, execution_id))["webhooks"]
            if all(each.get("error") for each in shown):
                return shown
            await asyncio.sleep(0.05)


async def test_a_receiver_that_is_gone_is_given_up(site: Site) -> None:
    """After a 410 nothing more comes, and the state says so."""
    user = site.new_user()
    async with receiver() as here:
        here.answer = lambda got: web.Response(status=410)
        events = {"events": ["tool:start", "execution:complete"]}
        execution_id = await execute(site.edges[0], user, "counter", here.url, webhook=events)
        await here.until_count(1)
        async with asyncio.timeout(under_load(20)):
            while (state := await state_of(site.edges[0], user, execution_id))["status"] != "completed":
                await asyncio.sleep(0.05)
        (shown,) = await shown_with_error(site, user, execution_id)
        assert (shown["state"], shown["error"], len(here.got)) == ("gone", "status 410", 1)
        assert state["webhooks"]


async def test_redirects_are_not_followed(site: Site) -> None:
    user = site.new_user()
    async with receiver() as here, receiver() as elsewhere:
        here.answer = lambda got: web.Response(status=307, headers={"Location": elsewhere.url})
        execution_id = await execute(site.edges[0], user, "counter", here.url)
        await here.until_count(1)
        (shown,) = await shown_with_error(site, user, execution_id)
        assert (shown["state"], shown["error"], elsewhere.got) == ("open", "status 307", [])


async def test_a_slow_receiver_slows_nobody(site: Site) -> None:
    """A hundred executions whose receiver takes 10 s for each keep those of another receiver, of the same user, no
    longer than without them."""
    user = site.new_user()
    async with receiver() as slow, receiver() as quick:

        async def delays(count: int) -> list[float]:
            found = []
            for _ in range(count):
                before = len(quick.got)
                execution_id = await execute(site.edges[0], user, "counter", quick.url, params={"n": 0})
                await quick.until_count(before + 1)
                (*_, end) = await log_of(site.redis_url, user, execution_id)
                found.append(time.time() - int(end.id.partition("-")[0]) / 1000)
            return sorted(found)

        alone = await delays(8)
        slow.delay = 10.0
        await asyncio.gather(
            *(execute(site.edges[n % 2], site.new_user(), "counter", slow.url, params={"n": 0}) for n in range(50)),
            *(execute(site.edges[n % 2], user, "counter", slow.url, params={"n": 0}) for n in range(50)),
        )
        await slow.until_count(16)
        beside = await delays(8)
        slow.delay = 0.0
        print(f"median alone {alone[4] * 1000:.0f} ms, beside the slow one {beside[4] * 1000:.0f} ms")
        assert beside[4] < alone[4] + under_load(0.3)
        assert beside[-1] < under_load(2)


@pytest.mark.parametrize(
    ("hook", "slug", "path"),
    [
        ({"url": "http://a.example/"}, "forbidden-target", "$.webhook.url"),
        ({"url": "https://10.0.0.1/"}, "forbidden-target", "$.webhook.url"),
        ({"url": "https://a.example:22/"}, "forbidden-target", "$.webhook.url"),
        ({"url": "https://a.example/", "events": ["message:delta"]}, "invalid", "$.webhook.events[0]"),
        ({"url": "https://a.example/", "events": ["no:such"]}, "invalid", "$.webhook.events[0]"),
        ({"url": "https://a.example/", "headers": {"Host": "b"}}, "invalid", "$.webhook.headers"),
        ({"url": "https://a.example/", "headers": {"X": "a\r\nB: c"}}, "invalid", "$.webhook.headers"),
        ({"url": "https://a.example/", "headers": {"webhook-id": "x"}}, "invalid", "$.webhook.headers"),
    ],
)
async def test_what_cannot_be_asked_for(site: Site, hook: dict[str, Any], slug: str, path: str) -> None:
    body = {"task": "t", "agent": "counter", "webhook": hook}
    answer = await call(site.edges[0].port, "POST", "/api/agent/execute", token_for("alice"), body)
    assert (answer.status, answer.body["type"].rpartition(":")[2], answer.body["path"]) == (422, slug, path)


async def test_without_a_secret_there_are_none(two_edges: list[EdgeProcess], redis: Redis) -> None:
    """Said to the one who asks, with what the operator has to do."""
    body = {"task": "t", "webhook": {"url": "https://a.example/"}}
    answer = await call(two_edges[0].port, "POST", "/api/agent/execute", token_for("alice"), body)
    assert (answer.status, answer.body["type"]) == (422, "urn:runcast:problem:webhooks-not-configured")
    assert "RUNCAST_WEBHOOK_SECRET" in answer.body["detail"]


async def test_a_repeated_request_changes_nothing(site: Site) -> None:
    """With an Idempotency-Key the first request's webhook counts, once."""
    user = site.new_user()
    async with receiver() as here:
        headers = {"Idempotency-Key": "k"}
        body = {"task": "t", "agent": "counter", "webhook": {"url": here.url}}
        answers = [
            await call(each.port, "POST", "/api/agent/execute", token_for(user), body, headers=headers)
            for each in site.edges
        ]
        assert {answer.status for answer in answers} == {202}
        await here.until_count(1)
        await asyncio.sleep(0.5)
        assert len(here.got) == 1


# --- failures --------------------------------------------------------------------------------------------------------


async def test_an_edge_that_dies_in_delivery(own_redis: EmbeddedRedis) -> None:
    """Another edge delivers what the first had begun to; what comes twice has the same id, and the order stays."""
    events = {"events": ["tool:start", "tool:complete", "execution:complete"]}
    worker = WorkerProcess(own_redis.url, "e2e_agents:agents", HERE)
    try:
        async with receiver() as here:
            here.delay = 0.05
            with edges(own_redis.url, 2, **SETTINGS) as started:
                first, second = started
                await known(first.port)
                ids = [
                    await execute(first, "alice", "counter", here.url, webhook=events, params={"n": 15})
                    for _ in range(6)
                ]
                await here.until_count(20)
                first.kill()
                await here.until("all ends", lambda got: sum(g.type == "execution:complete" for g in got) >= 6, 59)
                await eventually("both are idle", lambda: second.metric("runcast_webhooks_held") == 0, 40)
            for execution_id in ids:
                log = await log_of(own_redis.url, "alice", execution_id)
                wanted = [json.loads(event.data) for event in log if event.type in events["events"]]
                seen: dict[str, Any] = {got.id: got.body["data"] for got in of(here.got, execution_id)}
                assert list(seen.values()) == wanted
    finally:
        worker.close()


async def test_what_ends_while_no_edge_lives(own_redis: EmbeddedRedis) -> None:
    """A worker ends an execution, and the reaper others, while all edges are down: the next edge delivers."""
    worker = WorkerProcess(own_redis.url, "e2e_agents:agents", HERE, lease_seconds=1)
    try:
        async with receiver() as here:
            with edge(own_redis.url, **SETTINGS) as first:
                await known(first.port)
                for agent in ("counter", "asker"):
                    await execute(first, "alice", agent, here.url, params={"n": 400})
                first.kill()
            with edge(own_redis.url, **SETTINGS):
                wanted = {"execution:complete", "input:required"}  # which may come twice: the first edge was killed
                await here.until("both", lambda got: {each.type for each in got} >= wanted, 30)
                assert {each.type for each in here.got} == wanted
    finally:
        worker.close()


async def test_one_for_all(own_redis: EmbeddedRedis) -> None:
    """`RUNCAST_WEBHOOK_URL` gets the end of what a worker runs, of what a script publishes by itself, and of what comes
    over HTTP; beside it a user's own webhook."""
    async with receiver() as everything, receiver() as own:
        settings = {**SETTINGS, "webhook_url": everything.url}
        limits = LogLimits(webhook_url=everything.url)
        with edges(own_redis.url, 1, **settings) as (first,):
            worker = WorkerProcess(own_redis.url, "e2e_agents:agents", HERE)
            try:
                await known(first.port)
                one = await execute(first, "alice", "counter", own.url)
                async with (
                    Publisher(redis_url=own_redis.url, limits=limits, redact_keys=()) as publisher,
                    AgentEmitter(user_id="bob", publisher=publisher) as emitter,
                ):
                    await emitter.execution_started(task="t")
                    await emitter.execution_complete(result=1)
                for body in (
                    {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}},
                    {"type": "execution:complete", "data": {"result": 2, "duration": 1}},
                ):
                    token = token_for("carl", scopes=["events:publish"])
                    answer = await call(first.port, "POST", "/api/agent/executions/ex_http/events", token, body)
                    assert answer.status in (200, 202), answer.body
                got = await everything.until_count(3)
                assert {each.execution for each in got} == {one, emitter.execution_id, "ex_http"}
                await own.until_count(1)
                redis: Any = connect(own_redis.url)
                async with asyncio.timeout(under_load(20)):
                    while await redis.zcard(WEBHOOKS) or await redis.hlen(WEBHOOKS_HELD):
                        await asyncio.sleep(0.05)
                await redis.aclose()
                assert len(everything.got) == 3
            finally:
                worker.close()


async def test_a_receiver_is_given_up_in_the_end(own_redis: EmbeddedRedis) -> None:
    """After `RUNCAST_WEBHOOK_RETRY_HOURS`: in the state, in a metric, and in the log of an edge, without secrets."""
    worker = WorkerProcess(own_redis.url, "e2e_agents:agents", HERE)
    try:
        async with receiver() as here:
            here.answer = lambda got: web.Response(status=500)
            with edge(own_redis.url, **SETTINGS, webhook_retry_hours=0.001) as first:
                await known(first.port)
                execution_id = await execute(first, "alice", "counter", here.url)
                await eventually("a line", lambda: bool(first.logged("webhook_failed")), 20)
                (line,) = first.logged("webhook_failed")
                assert (line["execution"], line["host"], line["error"]) == (execution_id, "127.0.0.1", "status 500")
                assert first.metric("runcast_webhooks_total", result="failed") == 1
                async with asyncio.timeout(under_load(20)):
                    while True:  # it is kept after it is said
                        (shown,) = (await state_of(first, "alice", execution_id))["webhooks"]
                        if shown["state"] != "open":
                            break
                        await asyncio.sleep(0.05)
                assert (shown["state"], shown["delivered"]) == ("failed", 0)
                assert "hidden" not in first.log_text()
    finally:
        worker.close()


async def test_over_a_cluster() -> None:
    """Where executions and the set of webhooks are on different nodes: soon, and once."""
    with cluster(3) as nodes, edges(nodes.url, 2, **SETTINGS) as started:
        worker = WorkerProcess(nodes.url, "e2e_agents:agents", HERE)
        try:
            await known(started[0].port)
            async with receiver() as here:
                users = [f"user-{number}" for number in range(6)]
                begun = time.monotonic()
                ids = [await execute(started[0], user, "counter", here.url) for user in users]
                await here.until_count(6)
                assert time.monotonic() - begun < under_load(8)
                assert {got.execution for got in here.got} == set(ids)
                await asyncio.sleep(0.5)
                assert len(here.got) == 6
        finally:
            worker.close()
