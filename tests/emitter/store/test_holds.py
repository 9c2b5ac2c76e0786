"""Executions that no worker holds: every way out of the block is an end, and a process that dies is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from broker.cli.embedded import EmbeddedRedis
from broker.executions.publish import publish
from emitter import AgentEmitter, Publisher, SyncAgentEmitter, tasks
from emitter.errors import ExecutionEnded, InputExpired
from emitter.events import (
    EXPIRED,
    Event,
    ExecutionCancelled,
    ExecutionComplete,
    ExecutionError,
    ExecutionStarted,
    InputReceived,
    InputRequired,
    Status,
)
from emitter.store import holds, reaper
from emitter.store.append import LogLimits, append, prepare
from emitter.store.connection import connect
from emitter.store.holds import Holds
from emitter.store.lifecycle import Lifecycle
from emitter.store.reaper import Reaper
from emitter.wire.envelope import decode_envelope
from emitter.wire.ids import now_ms
from emitter.wire.keys import DUE, EXPIRIES, Owner, member
from emitter.wire.record import Cancel
from emitter.wire.redact import Redactor
from tests.clusters import cluster
from tests.edges import under_load
from tests.emitter.lossy import lossy

ALICE = Owner("alice", "acme")
KEYS = ALICE.execution("ex_1")
SHORT = LogLimits(unheld_lease_seconds=1)
STARTED = ExecutionStarted(task="Work", started_at=1, attempt=1)


async def events(redis: Redis) -> list[Event]:
    rows: Any = await redis.xrange(KEYS.log)
    return [decode_envelope(next(iter(fields.values())))[1] for _, fields in rows]


async def state(redis: Redis) -> str:
    stored: Any = await redis.hget(KEYS.record, "state")
    return stored.decode()


@contextlib.asynccontextmanager
async def reaping(redis: Redis) -> AsyncIterator[Lifecycle]:
    """A reaper that works for the length of the block, and trusts every lease's end."""
    lifecycle = Lifecycle(redis, SHORT, Redactor())
    task = asyncio.create_task(_reap(Reaper(redis, lifecycle, "w1", 0.0)))
    try:
        yield lifecycle
    finally:
        await tasks.end([task])


async def _reap(each: Reaper) -> None:
    while not tasks.told_to_stop():
        await each.step()
        await asyncio.sleep(0.05)


async def until(redis: Redis, type_: type[Event], seconds: float = 25.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := [event for event in await events(redis) if isinstance(event, type_)]):
            await asyncio.sleep(0.05)
    return found[0]


async def nothing_due(redis: Redis) -> None:
    """Wait until no execution is to be checked."""
    async with asyncio.timeout(15):
        while await redis.zcard(DUE):
            await asyncio.sleep(0.01)


async def renewed(redis: Redis) -> None:
    """Wait until the emitter of the execution has renewed its lease, and so would hear of a cancel."""
    async with asyncio.timeout(15):
        while not await redis.hexists(KEYS.record, "lease"):
            await asyncio.sleep(0.01)


async def over_http(redis: Redis, *said: Event, limits: LogLimits = SHORT) -> None:
    """What an edge does with events that it is sent."""
    prepared = [prepare(event, "ex_1", redact=Redactor()) for event in said]
    await publish(redis, ALICE, "ex_1", prepared, ("", 1), limits)


# --- the last word ---


@pytest.mark.parametrize(
    ("raised", "end"),
    [
        (ValueError("no such page"), ExecutionError(error="ValueError: no such page", code="agent_error")),
        (ExceptionGroup("g", [OSError("x")]), ExecutionError(error="OSError: x", code="agent_error")),
        (SystemExit(3), ExecutionError(error="SystemExit: 3", code="agent_error")),
        (asyncio.CancelledError(), ExecutionCancelled(reason="its process was interrupted")),
        (SystemExit(0), ExecutionCancelled(reason="its process was interrupted")),
    ],
    ids=lambda each: type(each).__name__,
)
async def test_an_exception_that_leaves_the_block_is_the_end(
    redis: Redis, redis_url: str, raised: BaseException, end: Event
) -> None:
    """The execution ends as its code did; the exception itself goes on."""
    with contextlib.suppress(asyncio.CancelledError, SystemExit, Exception):
        async with AgentEmitter("alice", "ex_1", org="acme", redis_url=redis_url) as emitter:
            await emitter.execution_started("Work")
            raise raised
    assert (await events(redis))[-1] == end
    has_stack = await redis.hexists(KEYS.record, "stack")
    assert bool(has_stack) == isinstance(end, ExecutionError)


async def test_the_original_exception_comes_out(redis: Redis, redis_url: str) -> None:
    """Also of an execution that ended meanwhile."""

    async def script() -> None:
        async with AgentEmitter("alice", "ex_1", org="acme", redis_url=redis_url) as emitter:
            await emitter.execution_started("Work")
            await emitter.flush()
            await over_http(redis, ExecutionComplete(result=1, duration=0.1))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await script()
    assert isinstance((await events(redis))[-1], ExecutionComplete)


@pytest.mark.parametrize("raised", [ValueError("no"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
async def test_the_blocking_twin_says_it_too(redis: Redis, redis_url: str, raised: BaseException) -> None:
    def script() -> None:
        with (
            contextlib.suppress(ValueError, KeyboardInterrupt),
            SyncAgentEmitter("alice", "ex_1", org="acme", redis_url=redis_url) as emitter,
        ):
            emitter.execution_started("Work")
            raise raised

    await asyncio.to_thread(script)
    expected = ExecutionError if isinstance(raised, ValueError) else ExecutionCancelled
    assert isinstance((await events(redis))[-1], expected)


@pytest.mark.parametrize("how", ["opted out", "not started here", "ended"])
async def test_what_is_not_ours_to_end_goes_on(redis: Redis, redis_url: str, how: str) -> None:
    """Code that tries again, a specialist in somebody else's execution, and one that has ended already."""
    with contextlib.suppress(ValueError):
        async with AgentEmitter(
            "alice", "ex_1", org="acme", redis_url=redis_url, end_on_error=how != "opted out"
        ) as emitter:
            if how == "not started here":
                await emitter.status("working", "")
            else:
                await emitter.execution_started("Work")
            if how == "ended":
                await emitter.execution_complete(1)
            raise ValueError("no")
    assert not [event for event in await events(redis) if isinstance(event, ExecutionError)]


# --- leases ---


@pytest.fixture
def script(redis_url: str) -> Iterator[Any]:
    """Starts the script; its process."""
    started = []

    def start(seconds: float) -> subprocess.Popen[bytes]:
        environ = {**os.environ, "RUNCAST_UNHELD_LEASE_SECONDS": "5", "PYTHONPATH": str(Path(__file__).parents[3])}
        command = [sys.executable, str(Path(__file__).parents[1] / "script.py"), redis_url, "ex_1", str(seconds)]
        started.append(subprocess.Popen(command, env=environ, stdout=subprocess.PIPE))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == b"started\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def test_a_script_that_is_killed_is_noticed(redis: Redis, script: Any) -> None:
    """SIGKILL: after its lease the execution fails with `producer_lost`, and nothing is left to look at."""
    process = await asyncio.to_thread(script, 60)
    await renewed(redis)
    process.kill()
    async with reaping(redis):
        assert (await until(redis, ExecutionError)).code == "producer_lost"
        await nothing_due(redis)


async def test_what_begins_is_checked_before_it_is_renewed(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies right after its first event is noticed as well."""
    monkeypatch.setattr(holds, "FIRST_SECONDS", 60.0)
    async with Publisher(redis_url=redis_url, limits=LogLimits(unheld_lease_seconds=600)) as publisher:
        emitter = AgentEmitter("alice", "ex_1", org="acme", publisher=publisher)
        await emitter.execution_started("Work")
        await emitter.flush()
        async with asyncio.timeout(15):
            while not await redis.zcard(DUE):
                await asyncio.sleep(0.01)
        assert not await redis.hexists(KEYS.record, "lease")
        await emitter.close()


async def test_what_is_left_at_once_is_checked(redis: Redis, redis_url: str) -> None:
    """An emitter that is closed without an end, before its first renewal."""
    async with AgentEmitter("alice", "ex_1", org="acme", redis_url=redis_url) as emitter:
        await emitter.execution_started("Work")
    assert await redis.zrange(DUE, 0, -1) == [member(ALICE, "ex_1").encode()]


class Away:
    """A Redis that is away, and counts who asks."""

    asked = 0

    async def zadd(self, *_: Any, **__: Any) -> None:
        self.asked += 1
        raise ConnectionError


async def test_webhooks_are_scheduled_patiently() -> None:
    """Without a lease too, a process does not spin while Redis is away."""
    redis, nothing = Away(), Lifecycle.__new__(Lifecycle)
    each = Holds(redis, nothing, 0.0, has_webhook=True)  # type: ignore[arg-type]
    each.add(ALICE, "ex_1")
    for _ in range(1000):
        await asyncio.sleep(0)
    await each.aclose()
    assert redis.asked < 10


async def test_a_script_that_lives_keeps_its_execution(redis: Redis, script: Any) -> None:
    """Silence of over two leases is no loss while the process is there."""
    async with reaping(redis):
        process = await asyncio.to_thread(script, 11)
        assert await asyncio.to_thread(process.wait, 30) == 0
    assert isinstance((await events(redis))[-1], ExecutionComplete)


async def test_over_http_every_publish_keeps_it(redis: Redis) -> None:
    """So does one without events; silence for a lease ends it."""
    limits = LogLimits(unheld_lease_seconds=4)
    async with reaping(redis):
        await over_http(redis, STARTED, limits=limits)
        for number in range(6):
            said = [Status(status="working", message="")] if number % 2 else []
            await over_http(redis, *said, limits=limits)
            await asyncio.sleep(0.8)
        assert await state(redis) == "running"
        assert (await until(redis, ExecutionError)).code == "producer_lost"


async def test_over_http_a_question_waits_for_its_answer(redis: Redis) -> None:
    """Who publishes over HTTP has nothing to say meanwhile. A question that expires is closed, whoever asked it, and
    the process has another lease to go on."""
    question = InputRequired(input_id="q", prompt="Go?", kind="approval", expires_at=now_ms() + 1000)
    forever = InputRequired(input_id="r", prompt="Go?", kind="approval")
    async with reaping(redis):
        await over_http(redis, STARTED, question, forever)
        assert await until(redis, InputReceived) == InputReceived(input_id="q", by=EXPIRED)
        await asyncio.sleep(2)
        assert await state(redis) == "waiting_input"
        await over_http(redis, InputReceived(input_id="r", by="alice", value=True))
        assert await state(redis) == "running"
        await redis.zadd(DUE, {member(ALICE, "ex_1"): 1})  # which is planned within the minute
        assert (await until(redis, ExecutionError)).code == "producer_lost"


async def test_without_a_lease_nothing_is_ended(redis: Redis) -> None:
    """`RUNCAST_UNHELD_LEASE_SECONDS=0`."""
    await over_http(redis, STARTED, limits=LogLimits(unheld_lease_seconds=0))
    async with reaping(redis):
        await redis.zadd(DUE, {member(ALICE, "ex_1"): 1})
        await nothing_due(redis)
        assert await state(redis) == "running"


async def test_a_question_that_nobody_waits_for_is_closed(redis: Redis, redis_url: str) -> None:
    """One whose wait was given up stays open until its time is over, and no longer."""
    async with AgentEmitter("alice", "ex_1", org="acme", redis_url=redis_url) as emitter:
        await emitter.execution_started("Work")
        asking = asyncio.create_task(emitter.ask("Go?", expires_in=3, input_id="q"))
        await until(redis, InputRequired)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        async with reaping(redis):
            assert await until(redis, InputReceived) == InputReceived(input_id="q", by=EXPIRED)
        assert await state(redis) == "running"
        assert await redis.zcard(EXPIRIES) == 0
        with pytest.raises(InputExpired):
            await emitter.ask("Go?", expires_in=1, input_id="q")


async def test_many_leases_are_renewed_by_few_calls(redis: Redis) -> None:
    """Each record has its own answer; one that is no record keeps no other from its renewal."""
    names = [f"ex_{number}" for number in range(holds.RECORDS_MAX)]
    for name in names:
        started = prepare(STARTED, name, redact=Redactor())
        await append(redis, ALICE, name, [started], producer="p", first_seq=1, fields={"hold": "60000"})
    records = [ALICE.execution(name).record for name in names]
    await redis.hset(records[0], "state", "completed")
    await redis.hset(records[1], "owner", "w1")
    await redis.hset(records[2], "cancel", '{"by":"alice"}')
    await redis.script_load(holds.HOLD_SCRIPT)
    before = (await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
    renewals = await holds.renew_holds(redis, [*records, "none"])
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 2
    assert [renewal.ends for renewal in (*renewals[:2], renewals[-1])] == [-1, 0, 0]
    assert min(renewal.ends for renewal in renewals[2:-1]) > now_ms() + 50_000
    assert [renewal.cancel for renewal in renewals[2:4]] == [b'{"by":"alice"}', b""]
    assert await redis.hget(records[5], "lease") == str(renewals[5].ends).encode()
    await redis.set("text", "no record")
    await redis.hdel(records[5], "lease")
    renewals = await holds.renew_holds(redis, [*records[:7], "text", *records[7:]])
    assert await redis.hget(records[5], "lease") == str(renewals[5].ends).encode()
    assert renewals[7] == holds.Renewal(0)
    assert [renewal.cancel for renewal in renewals[2:4]] == [b'{"by":"alice"}', b""]
    assert min(renewal.ends for renewal in (*renewals[2:7], *renewals[8:])) > now_ms() + 50_000
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await holds.renew_holds(redis, ["text"])


async def test_a_record_that_is_none_hides_no_cancel(redis: Redis, redis_url: str) -> None:
    """Of another execution of the process, whose lease and check go on as well."""
    async with Publisher(redis_url=redis_url) as shared:
        broken, emitter = (AgentEmitter(user, "ex_1", org="acme", publisher=shared) for user in ("bob", "alice"))
        for each in (broken, emitter):
            await each.execution_started("Work")
            await each.flush()
        await redis.delete(Owner("bob", "acme").execution("ex_1").record)
        await redis.set(Owner("bob", "acme").execution("ex_1").record, "no record")
        await redis.hset(KEYS.record, "cancel", '{"by":"alice"}')
        await asyncio.wait_for(emitter.until_cancelled(), 10)
        assert await redis.zscore(DUE, member(ALICE, "ex_1")) is not None
        await emitter.execution_cancelled(reason="asked")
        await redis.delete(Owner("bob", "acme").execution("ex_1").record)


@pytest.mark.parametrize(
    ("answer", "lots"),
    [
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", 0),
        (b"-READONLY You can't write against a read only replica.\r\n", 0),
        (b"-BUSY Redis is busy running a script.\r\n", 0),
        (b"-LOADING Redis is loading the dataset in memory\r\n", 0),
        (b"-CROSSSLOT Keys in request don't hash to the same slot\r\n", 1),
    ],
    ids=lambda each: each[1:].split()[0].decode() if isinstance(each, bytes) else "",
)
async def test_what_concerns_the_whole_server_is_not_asked_again_for_each(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, answer: bytes, lots: int
) -> None:
    """It has enough to do. Where one call is for one server of several, each record is asked for by itself."""
    await redis.script_load(holds.HOLD_SCRIPT)
    async with lossy(str(redis_server.socket_path), tmp_path) as (proxy, url), connect(url) as client:
        proxy.answers = [answer]
        with contextlib.nullcontext() if lots else pytest.raises(RedisError):
            await holds.renew_holds(client, ["a", "b", "c"])
        assert proxy.answers == []
        assert proxy.lots == lots


async def test_in_a_cluster_too_leases_are_renewed() -> None:
    """Each record at the node that has it, by an emitter and by a client over HTTP; also the first time, when the nodes
    do not know the script."""
    with cluster() as made:
        client: Any = connect(made.url)
        async with client, Publisher(redis=client) as shared:
            owners = [Owner(f"user{number}") for number in range(6)]
            for owner in owners:
                started = prepare(STARTED, "ex_1", redact=Redactor())
                await append(client, owner, "ex_1", [started], producer="p", first_seq=1, fields={"hold": "60000"})
            records = [owner.execution("ex_1").record for owner in owners]
            assert len({client.get_node_from_key(record).port for record in records}) > 1
            renewals = await holds.renew_holds(client, [*records, Owner("nobody").execution("ex_1").record])
            assert min(renewal.ends for renewal in renewals[:-1]) > now_ms() + 50_000
            assert renewals[-1].ends == 0
            assert [await client.hget(record, "lease") for record in records] == [
                b"%d" % each.ends for each in renewals[:-1]
            ]
            await over_http(client, STARTED)
            await over_http(client)
            assert await client.hexists(KEYS.record, "seen")
            emitter = AgentEmitter("bob", "ex_2", publisher=shared)
            await emitter.execution_started("Work")
            await emitter.flush()
            record = Owner("bob").execution("ex_2").record
            async with asyncio.timeout(under_load(5)):
                while not await client.hexists(record, "lease"):
                    await asyncio.sleep(0.05)
            await emitter.execution_complete(1)


# --- cancels ---


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grace of a second."""
    monkeypatch.setattr(holds, "CANCEL_GRACE_SECONDS", 1.0)
    monkeypatch.setattr(reaper, "GRACE_MS", 1000)
    monkeypatch.setattr("emitter.store.jobs.CANCEL_GRACE_SECONDS", 1.0)


async def test_a_cancel_reaches_the_emitter_which_says_the_last_word(redis: Redis, redis_url: str) -> None:
    """It is asked first, and leaving the block says that it was cancelled, by whom and why."""
    lifecycle = Lifecycle(redis, LogLimits(), Redactor())
    async with AgentEmitter("alice", "ex_1", org="acme", redis_url=redis_url) as emitter:
        await emitter.execution_started("Work")
        await emitter.flush()
        assert not emitter.cancelled
        blocking = SyncAgentEmitter.over(emitter, asyncio.get_running_loop())
        waiting = asyncio.gather(emitter.until_cancelled(), asyncio.to_thread(blocking.until_cancelled))
        await renewed(redis)
        assert await lifecycle.cancel(ALICE, "ex_1", reason="enough", by="alice") == "running"
        await asyncio.wait_for(waiting, 10)
        assert emitter.cancelled
        await emitter.status("tidying up", "")
    assert (await events(redis))[-2:] == [
        Status(status="tidying up", message=""),
        ExecutionCancelled(reason="enough", by="alice"),
    ]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("by_reaper", [True, False])
async def test_a_cancel_that_is_not_followed_ends_it(redis: Redis, redis_url: str, by_reaper: bool) -> None:
    """After the grace, by the reaper; where no worker runs, by the emitter itself."""
    async with contextlib.AsyncExitStack() as stack:
        lifecycle = Lifecycle(redis, LogLimits(), Redactor())
        if by_reaper:
            await stack.enter_async_context(reaping(redis))
        emitter = await stack.enter_async_context(AgentEmitter("alice", "ex_1", org="acme", redis_url=redis_url))
        await emitter.execution_started("Work")
        await emitter.flush()
        await renewed(redis)
        started = time.monotonic()
        await lifecycle.cancel(ALICE, "ex_1", reason="enough", by="alice")
        assert await until(redis, ExecutionCancelled) == ExecutionCancelled(reason="enough", by="alice")
        assert time.monotonic() - started > 0.8
        await emitter.status("x", "")
        with pytest.raises(ExecutionEnded):
            await emitter.flush()


async def test_over_http_a_cancel_ends_it_at_once(redis: Redis) -> None:
    """Nobody could be asked; the next publish says so."""
    await over_http(redis, STARTED)
    lifecycle = Lifecycle(redis, LogLimits(), Redactor())
    assert await lifecycle.cancel(ALICE, "ex_1", reason=None, by="alice") == "cancelled"
    with pytest.raises(ExecutionEnded):
        await over_http(redis, Status(status="x", message=""))


async def test_a_forgotten_emitter_renews_nothing(redis: Redis, redis_url: str) -> None:
    """One that was dropped without being closed keeps no execution alive."""
    async with Publisher(redis_url=redis_url, limits=SHORT) as publisher:
        emitter: AgentEmitter | None = AgentEmitter("alice", "ex_1", org="acme", publisher=publisher)
        assert emitter is not None
        await emitter.execution_started("Work")
        await emitter.flush()
        await renewed(redis)
        emitter = None
        gc.collect()
        async with reaping(redis):
            assert (await until(redis, ExecutionError)).code == "producer_lost"


async def test_the_first_words_of_a_cancel_are_kept(redis: Redis, redis_url: str) -> None:
    lifecycle = Lifecycle(redis, LogLimits(), Redactor())
    async with AgentEmitter("alice", "ex_1", org="acme", redis_url=redis_url) as emitter:
        await emitter.execution_started("Work")
        await emitter.flush()
        await renewed(redis)
        for reason in ("first", "second"):
            await lifecycle.cancel(ALICE, "ex_1", reason=reason, by="alice")
        await asyncio.wait_for(emitter.until_cancelled(), 10)
        assert emitter._hold is not None
        assert emitter._hold.cancel == Cancel(reason="first", by="alice")


async def test_many_emitters_of_one_execution_renew_it_together(own_redis: EmbeddedRedis) -> None:
    """Thousands may write to one execution; it has one lease."""
    client: Any = connect(own_redis.url)
    async with client, Publisher(redis_url=own_redis.url) as publisher:
        emitters = [AgentEmitter("alice", "ex_1", publisher=publisher) for _ in range(50)]
        for emitter in emitters:
            await emitter.status("x", "")
        await asyncio.gather(*(emitter.flush() for emitter in emitters))
        await client.config_resetstat()
        await asyncio.sleep(3)
        assert (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] <= 4


async def test_what_expires_long_after_is_not_planned(redis: Redis) -> None:
    """Nothing stands in Redis for years because somebody asked for it."""
    far = InputRequired(input_id="far", prompt="Go?", kind="approval", expires_at=now_ms() + 300 * 86_400_000)
    near = InputRequired(input_id="near", prompt="Go?", kind="approval", expires_at=now_ms() + 86_400_000)
    await over_http(redis, STARTED, far, near)
    assert await redis.zrange(EXPIRIES, 0, -1) == [f"{member(ALICE, 'ex_1')} near".encode()]
