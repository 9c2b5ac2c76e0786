"""A slot of a Cluster that is half moved: what has left is asked for at its new node, by any number of connections."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, ClusterError, RedisError

from broker.base.outage import is_away
from emitter import AgentEmitter, Options, Publisher
from emitter.errors import EventsLost
from emitter.publishing.children import patiently
from emitter.store import jobs
from emitter.store.append import LogLimits
from emitter.store.connection import GONE, connect
from emitter.store.jobs import Entry, Lease
from emitter.store.lifecycle import Lifecycle, Start
from emitter.store.reaper import BATCH, Reaper
from emitter.wire.keys import DUE, EXPIRIES, Owner, jobs_key, member
from emitter.wire.redact import Redactor
from emitter.worker.agents import Agents, Context
from emitter.worker.worker import Worker, WorkerSettings
from tests.clusters import SLOTS, Cluster, Node, cluster, until

LEFT, STAYS = "{a}left", "{a}stays"
SLOT = key_slot(b"a")
ALICE, BOB = Owner("alice"), Owner("bob")
REDACT = Redactor()


@pytest.fixture(scope="module")
def moving() -> Iterator[tuple[Cluster, Node]]:
    """`LEFT` is at its new node, `STAYS` is not; clients are told so by the old one."""
    with cluster() as made:
        source = made.primary_of(SLOT)
        to = next(node for node in made.primaries if node is not source)
        for key in (LEFT, STAYS):
            assert source.ask("SET", key, "1") == b"+OK\r\n"
        made.begin_move(SLOT, to)
        assert source.ask("MIGRATE", "127.0.0.1", str(to.port), LEFT, "0", "5000") == b"+OK\r\n"
        yield made, to


@pytest.mark.parametrize("pooled", [1, 2, 5, 20])
async def test_what_has_left_is_read(moving: tuple[Cluster, Node], pooled: int) -> None:
    made, to = moving
    client: Any = connect(made.url)
    async with client:
        node = client.nodes_manager.get_node("127.0.0.1", to.port)
        await asyncio.gather(*(node.execute_command("PING") for _ in range(pooled)))
        assert await asyncio.gather(*(client.get(key) for key in 10 * (LEFT, STAYS))) == [b"1"] * 20
        assert await client.eval("return redis.call('GET', KEYS[1])", 1, LEFT) == b"1"
        assert {key async for key in client.scan_iter(match="{a}*")} == {LEFT.encode(), STAYS.encode()}
        async with client.pipeline(transaction=False) as pipe:
            assert await pipe.get(LEFT).get(STAYS).execute() == [b"1", b"1"]


async def test_a_node_that_the_client_does_not_know_yet(moving: tuple[Cluster, Node]) -> None:
    """It was added a moment ago."""
    made, to = moving
    client: Any = connect(made.url)
    async with client:
        manager = client.nodes_manager
        await client.initialize()
        del manager.nodes_cache[f"127.0.0.1:{to.port}"]
        assert await client.get(LEFT) == b"1"


async def test_keys_on_both_nodes_are_worth_another_try(moving: tuple[Cluster, Node]) -> None:
    """A script over them is refused until all have moved: edges say 503, emitters hold their events."""
    made, _ = moving
    client: Any = connect(made.url)
    async with client:
        with pytest.raises(ClusterError) as caught:
            await client.eval("return 1", 2, LEFT, STAYS)
        assert is_away(caught.value)


async def test_the_reaper_goes_on_with_others(moving: tuple[Cluster, Node]) -> None:
    """What it cannot do for one user whose slot moves it does later, and does not forget: the next user is not kept
    waiting, and a question that has expired stays to be closed."""
    made, _ = moving
    client: Any = connect(made.url)
    async with client:
        lifecycle = Lifecycle(client, LogLimits(), REDACT)
        for owner in (ALICE, BOB):
            await lost_worker(client, lifecycle, owner)
        await client.zadd(EXPIRIES, {f"{member(ALICE, 'ex_1')} i1": 1})
        source = made.primary_of(key_slot(ALICE.feed.encode()))
        to = next(node for node in made.primaries if node is not source)
        made.begin_move(key_slot(ALICE.feed.encode()), to)
        assert (
            source.ask("MIGRATE", "127.0.0.1", str(to.port), ALICE.execution("ex_1").record, "0", "5000") == b"+OK\r\n"
        )
        reaper = Reaper(client, lifecycle, "w1", 2)
        async with asyncio.timeout(60):
            while not await client.hget(BOB.execution("ex_1").record, "lost"):
                with contextlib.suppress(ClusterError):
                    await reaper.step()
        assert await client.zcard(EXPIRIES) == 1
        assert await client.zscore(DUE, member(ALICE, "ex_1")) < await client.zscore(DUE, member(BOB, "ex_1"))


class Stand(NamedTuple):
    """A Cluster that goes on without its node `away`: `gone` is a user there, `there` one of the node that counts."""

    url: str
    away: Node
    gone: Owner
    there: Owner


@pytest.fixture
def stand() -> Iterator[Stand]:
    with cluster() as made:
        counts, users = made.primary_of(key_slot(DUE.encode())), [Owner(f"dora{number}") for number in range(100)]
        away = next(node for node in made.primaries if node not in (counts, made.failing))
        gone = next(each for each in users if made.primary_of(slot_of(each)) is away)
        there = next(each for each in users if made.primary_of(slot_of(each)) is counts)
        for node in made.primaries:
            assert node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no") == b"+OK\r\n"
        yield Stand(f"redis+cluster://127.0.0.1:{counts.port}", away, gone, there)


async def test_a_node_that_is_away_keeps_nobody_else_waiting(stand: Stand) -> None:
    """However many executions it has, which are all due before those of others: the reaper goes on to those."""
    client: Any = connect(stand.url)
    async with client:
        lifecycle = Lifecycle(client, LogLimits(), REDACT)
        await lost_worker(client, lifecycle, stand.there)
        names = {member(stand.gone, f"ex_{number}"): 1 for number in range(2 * BATCH)}
        await client.zadd(DUE, names)
        stand.away.kill()
        reaper = Reaper(client, lifecycle, "w1", 1.0)
        async with asyncio.timeout(40):
            while not await client.hget(stand.there.execution("ex_1").record, "lost"):
                with contextlib.suppress(RedisError, *GONE):
                    await reaper.step()
        assert await client.zcard(DUE) == len(names) + 1


async def test_its_jobs_keep_nobody_else_waiting(stand: Stand) -> None:
    """A worker with one slot reads them first, and goes on to the job of another user."""
    agents = Agents()

    @agents.agent("agent")
    async def agent(context: Context) -> None:
        pass

    client: Any = connect(stand.url)
    async with client:
        lifecycle = Lifecycle(client, LogLimits(), REDACT)
        for owner in (stand.gone, stand.there):
            assert await lifecycle.accept(owner, "ex_1", Start(task="t", agent="agent"))
        stand.away.kill()
        worker = Worker(agents, WorkerSettings(redis_url=stand.url, concurrency=1, block_ms=100))
        working = asyncio.create_task(worker.run())
        try:
            async with asyncio.timeout(90):
                while await client.hget(stand.there.execution("ex_1").record, "state") != b"completed":
                    await asyncio.sleep(0.05)
        finally:
            worker.stop_now()
            await working
        assert await client.zscore(DUE, member(stand.gone, "ex_1")) is not None


async def test_its_executions_keep_no_others_waiting(stand: Stand) -> None:
    """A process that runs some there and some elsewhere: the events of the latter arrive, and their leases are
    renewed."""
    client: Any = connect(stand.url)
    options = Options(flush_timeout=40, close_timeout=0.1)
    async with client, Publisher(redis_url=stand.url, options=options) as publisher:
        gone, there = (AgentEmitter(owner.user, "ex_1", publisher=publisher) for owner in (stand.gone, stand.there))
        for emitter in (gone, there):
            await emitter.execution_started("Work")
            await emitter.flush()
        stand.away.kill()
        await gone.status("lost", "")
        for number in range(4):
            await there.status(f"number {number}", "")
            await there.flush()
            await asyncio.sleep(0.3)  # by now the other is tried again
        leases = [Lease(emitter.owner.execution("ex_1").record, 1) for emitter in (gone, there)]
        assert [renewal.verdict for renewal in await jobs.renew(client, leases, "w1", 1000)] == ["away", "lost"]
        with pytest.raises(EventsLost):
            await gone.close()


async def test_an_agent_that_starts_a_child_waits(moving: tuple[Cluster, Node]) -> None:
    """Until all of its user's keys have moved; it does not fail."""
    made, _ = moving
    client: Any = connect(made.url)
    slot = key_slot(b"b")
    source = made.primary_of(slot)
    to = next(node for node in made.primaries if node is not source)
    async with client:
        for key in ("{b}left", "{b}stays"):
            await client.set(key, "1")
        made.begin_move(slot, to)
        assert source.ask("MIGRATE", "127.0.0.1", str(to.port), "{b}left", "0", "5000") == b"+OK\r\n"
        starting = asyncio.create_task(patiently(lambda: client.eval("return 1", 2, "{b}left", "{b}stays")))
        await asyncio.sleep(1.5)
        assert not starting.done()
        made.move_rest(slot, to)
        async with asyncio.timeout(10):
            assert await starting == 1


async def test_a_node_that_says_that_the_cluster_is_down(moving: tuple[Cluster, Node]) -> None:
    """It says nothing of the execution that is checked: that is due at once when the node is well again, and a question
    that has expired is closed then."""
    made, _ = moving
    counts = key_slot(DUE.encode())
    users = (Owner(f"carol{number}") for number in range(100))
    carol = next(each for each in users if made.primary_of(slot_of(each)) is not made.primary_of(counts))
    node, name = made.primary_of(slot_of(carol)), member(carol, "ex_1")
    unused = next(slot for slot in range(SLOTS) if made.primary_of(slot) is node)
    client: Any = connect(made.url)
    async with client:
        lifecycle = Lifecycle(client, LogLimits(), REDACT)
        await lost_worker(client, lifecycle, carol)
        await client.zadd(EXPIRIES, {f"{name} i1": 1})
        due = await client.zscore(DUE, name)
        reaper = Reaper(client, lifecycle, "w1", 0.01)
        assert node.ask("CLUSTER", "DELSLOTS", str(unused)) == b"+OK\r\n"
        try:
            await asyncio.to_thread(until, lambda: node.ask("TYPE", carol.feed).startswith(b"-CLUSTERDOWN"))
            with pytest.raises(ClusterDownError):
                await reaper._check(name.encode(), int(due))
            await reaper._close_expired(int(time.time() * 1000))
            assert await client.zscore(DUE, name) == due
            assert await client.zscore(EXPIRIES, f"{name} i1") == 1
        finally:
            assert node.ask("CLUSTER", "ADDSLOTS", str(unused)) == b"+OK\r\n"
        await asyncio.to_thread(until, lambda: node.ask("TYPE", carol.feed).startswith(b"+"))


def slot_of(owner: Owner) -> int:
    return key_slot(owner.feed.encode())


async def lost_worker(client: Any, lifecycle: Lifecycle, owner: Owner) -> None:
    """An execution whose lease has ended."""
    assert await lifecycle.accept(owner, "ex_1", Start(task="t", agent=owner.user))
    ((id_, _),) = await client.xrange(jobs_key(owner.user))
    entry = Entry(owner.user, id_, owner, "ex_1")
    job: Any = await jobs.claim(client, entry, "w2", 1, 3)
    await jobs.ack(client, entry, job)
    await asyncio.sleep(0.005)
