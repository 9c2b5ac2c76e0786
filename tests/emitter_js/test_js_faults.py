"""`@runcast/emitter` behind what breaks: edges that die, proxies that refuse, cut, delay and lie.

The log has everything once and in order."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from tests.edges import EdgeProcess, edges, under_load
from tests.emitter_js.stand import (
    FaultyProxy,
    Script,
    by_chance,
    faulty_proxy,
    log_of,
    needs_node,
    text_of,
    token,
)

pytestmark = needs_node
ID = "ex_js"


def scene(name: str, url: str, user: str, **given: Any) -> Script:
    return Script("agent.mjs", name, **{"url": url, "token": token(user), "executionId": ID, **given})


def check_many(events: list[dict[str, Any]], count: int) -> None:
    """All that the scene `many` says, once and in order, the events between the right chunks."""
    assert text_of(events) == "".join(f"<{number}>" for number in range(count))
    said = [event["data"]["message"] for event in events if event["type"] == "status"]
    assert said == [str(number) for number in range(0, count, 7)]
    text = ""
    for event in events:
        if event["type"] == "message:delta":
            text += event["data"]["delta"]
        elif event["type"] == "status":
            assert text.endswith(f"<{event['data']['message']}>")
    assert events[0]["type"] == "execution:started"
    assert [event["type"] for event in events[-2:]] == ["message:complete", "execution:complete"]


def check_numbers(proxy: FaultyProxy) -> None:
    """A number always stands before the same text."""
    first: dict[str, str] = {}
    for number, body in proxy.bodies:
        if number:
            assert first.setdefault(number, body) == body


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_faults_of_every_kind(js_edge: EdgeProcess, user: str, seed: int) -> None:
    """Requests that are refused, cut before or after the edge has appended, slow, or answered by something else."""
    async with faulty_proxy(js_edge) as proxy:
        proxy.fate = by_chance(seed)
        async with scene("many", proxy.url, user, count=2000, pauseMs=25) as script:
            await script.end()
        assert set(proxy.fates) == {"pass", "drop_reply", "drop_request", "refuse", "slow", "garbage"}
        check_numbers(proxy)
    check_many(await log_of(js_edge, user, ID), 2000)


async def test_a_failover_that_loses_what_was_confirmed(user: str) -> None:
    """Twice the log goes back to what it was; the emitter sends the rest again, and then goes on."""
    with EmbeddedRedis() as redis, edges(redis.url) as (edge,):
        client: Any = connect(redis.url)
        execution = Owner(user).execution(ID)
        async with (
            contextlib.aclosing(client),
            scene("many", f"http://127.0.0.1:{edge.port}", user, count=2000, waits=True) as script,
        ):
            for at in (100, 250):
                await until_length(client, execution.log, at)
                record, log = await client.dump(execution.record), await client.dump(execution.log)
                await until_length(client, execution.log, at + 60)
                async with client.pipeline() as pipe:
                    pipe.restore(execution.record, 0, record, replace=True)
                    pipe.restore(execution.log, 0, log, replace=True)
                    await pipe.execute()
            assert script.process.stdin is not None
            script.process.stdin.write(b"end")
            await script.end()
        check_many(await log_of(edge, user, ID), 2000)


async def until_length(client: Any, log: str, length: int) -> None:
    async with asyncio.timeout(30):
        while await client.xlen(log) < length:
            await asyncio.sleep(0.005)


async def test_every_reply_is_lost_once(js_edge: EdgeProcess, user: str) -> None:
    """Each batch is appended by a request whose answer never arrives, the last one too."""
    async with faulty_proxy(js_edge) as proxy:
        proxy.fate = lambda: "drop_reply" if len(proxy.fates) % 2 == 0 else "pass"
        async with scene("many", proxy.url, user, count=200) as script:
            await script.end()
        assert proxy.fates.count("drop_reply") == proxy.fates.count("pass")
    check_many(await log_of(js_edge, user, ID), 200)


async def test_an_edge_that_dies_in_between(js_edge: EdgeProcess, user: str) -> None:
    """The edge is killed twice while the agent speaks, with batches on the way."""
    async with faulty_proxy(js_edge) as proxy:
        proxy.fate = by_chance(4, good=0.8)
        async with scene("many", proxy.url, user, count=1500, pauseMs=60, tellAt=300) as script:
            await script.until("reached")
            for _ in range(2):
                js_edge.kill()
                await asyncio.sleep(0.4)
                js_edge.start().wait_ready()
                await asyncio.sleep(0.2)
            await script.end()
        check_numbers(proxy)
    check_many(await log_of(js_edge, user, ID), 1500)


async def test_retry_after_is_heard(js_edge: EdgeProcess, user: str) -> None:
    """After a 429 with `Retry-After: 1` nothing is sent for a second."""
    async with faulty_proxy(js_edge) as proxy:
        loop = asyncio.get_running_loop()
        times: list[float] = []

        def fate() -> Any:
            times.append(loop.time())
            return "limit" if len(times) == 1 else "pass"

        proxy.fate = fate
        async with scene("run", proxy.url, user) as script:
            await script.end()
    assert times[1] - times[0] >= 1
    assert (await log_of(js_edge, user, ID))[-1]["type"] == "execution:complete"


async def test_a_slow_edge_gets_larger_batches(js_edge: EdgeProcess, user: str) -> None:
    """What is said while a batch is on the way leaves in the next one, its chunks merged."""
    async with faulty_proxy(js_edge) as proxy:
        proxy.fate = lambda: "slow"
        async with scene("many", proxy.url, user, count=1000) as script:
            await script.end()
        assert len(proxy.bodies) < 30
    check_many(await log_of(js_edge, user, ID), 1000)


# --- bounds ----------------------------------------------------------------------------------------------------------


async def full(proxy: FaultyProxy, user: str, **given: Any) -> list[str]:
    """The failures of calls while the edge is away and the queue of 5 is full; then the edge is back."""
    async with scene("full", proxy.url, user, **given) as script:
        await script.until("started")
        proxy.fate = lambda: "refuse"
        assert script.process.stdin is not None
        script.process.stdin.write(b"go\n")
        failures: list[str] = await script.until("failures")
        proxy.fate = lambda: "pass"
        script.process.stdin.write(b"go\n")
        await script.until("done")
        await script.end()
    return failures


async def test_a_full_queue(js_edge: EdgeProcess, user: str) -> None:
    """A call waits for room, and fails after its bound; the log says how many events were dropped, and has the rest in
    order."""
    async with faulty_proxy(js_edge) as proxy:
        failures = await full(proxy, user, more={"overflowTimeoutMs": 300})
    events = await log_of(js_edge, user, ID)
    assert set(failures) == {"QueueFull"}
    (notice,) = (event["data"] for event in events if event["data"].get("status") == "dropped")
    assert notice["message"] == f"{len(failures)} events were dropped: the queue was full"
    kept = 30 - len(failures)
    assert text_of(events) == "".join(f"<{number}>" for number in range(kept))
    assert events[-1]["type"] == "execution:complete"


async def test_only_chunks_are_dropped(js_edge: EdgeProcess, user: str) -> None:
    """With `dropDeltas` calls do not wait for room, and all events but chunks of text are kept."""
    more = {"overflow": "dropDeltas", "overflowTimeoutMs": 60_000, "maxQueueEvents": 40}
    async with faulty_proxy(js_edge) as proxy:
        failures = await full(proxy, user, more=more, events=True)
    events = await log_of(js_edge, user, ID)
    assert failures == []
    said = [event["data"]["message"] for event in events if event["data"].get("status") == "n"]
    assert said == [str(number) for number in range(30)]
    (notice,) = (event["data"]["message"] for event in events if event["data"].get("status") == "dropped")
    chunks = [event for event in events if event["type"] == "message:delta"]
    assert notice == f"{30 - len(chunks)} events were dropped: the queue was full"


async def test_nobody_answers(user: str) -> None:
    """Without an edge each wait has its bound, and closing says how much was lost."""
    async with scene("lost", "http://127.0.0.1:9", user) as script:
        flush, complete, closed = await script.end()
    assert flush["flush"]["kind"] == "EdgeUnavailable"
    assert complete["complete"]["kind"] == "EdgeUnavailable"
    assert (closed["close"]["kind"], closed["close"]["message"][:8]) == ("EventsLost", "2 events")
    assert closed["took"] < 1000 * under_load(2)
