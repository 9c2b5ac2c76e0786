"""The life of an edge's process: its ordered stop, and a supervisor that replaces what died or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from datetime import datetime
from pathlib import Path

from tests.edges import SSE, Author, EdgeProcess, Follower, call, edge, edges, eventually, request, under_load

HASTY = (
    "import sys, broker.edge.supervisor as s; s.HUNG_SECONDS = 3.0; from broker.cli.main import main; sys.exit(main())"
)
"""The supervisor's program, less patient with a child that hangs."""


def seconds_of_drain(of: EdgeProcess) -> list[float]:
    """When each stream was closed, after the drain began, by the edge's own log."""
    (began,) = (datetime.fromisoformat(line["timestamp"]) for line in of.logged("edge_draining"))
    lines = [line for line in of.logged("stream_closed") if line["reason"] == "draining"]
    return [(datetime.fromisoformat(line["timestamp"]) - began).total_seconds() for line in lines]


async def test_a_stopping_edge_sends_its_viewers_away_one_after_the_other(redis_url: str, author: Author) -> None:
    """On SIGTERM: unready at once, streams end spread over the drain time with a retry each, new ones are sent away,
    exit code 0; and the viewers have, over another edge, exactly the log."""
    await author.begin()
    with edges(redis_url, 2, drain_seconds=4, heartbeat_seconds=1) as (first, second):
        viewers = [Follower([first, second], author.path, author.token) for _ in range(20)]
        for viewer in viewers:
            await viewer.__aenter__()
        try:
            for viewer in viewers:
                await viewer.until_live()
            first.send_signal(signal.SIGTERM)
            began = time.monotonic()
            await eventually("unready", lambda: first.admin_status("/readyz") == 503, 0.5)
            assert first.admin_status("/healthz") == 200
            async with request(first.port, "GET", author.path, author.token, headers=SSE) as response:
                assert response.status == 200
                assert [frame.event async for frame in response.frames()] == ["stream:end"]
            assert (await call(first.port, "GET", author.path, author.token)).status == 503
            while not all("draining" in viewer.ends for viewer in viewers):
                await author.say()
                await asyncio.sleep(0.02)
                assert time.monotonic() - began < under_load(8)
            assert await asyncio.to_thread(first.wait) == 0
            left = seconds_of_drain(first)
            assert len(left) == len(viewers)
            assert sum(1 for seconds in left if seconds < 2) >= 3, "some leave early"
            assert sum(1 for seconds in left if seconds > 2) >= 3, "and some late"
            await author.end()
            for viewer in viewers:
                await viewer.until_done()
        finally:
            for viewer in viewers:
                await viewer.__aexit__()
    log = await author.log()
    for viewer in viewers:
        assert viewer.events == log
        assert "draining" in viewer.ends
    assert len({viewer.retries[1] for viewer in viewers}) > 5, "each is told another time to come back"


async def test_a_drain_is_over_when_all_have_left(redis_url: str, author: Author) -> None:
    """Who leaves by themselves need not be waited for."""
    await author.begin()
    with edge(redis_url, drain_seconds=600) as only:
        async with (
            Follower([only], author.path, author.token, pause_seconds=600) as one,
            Follower([only], author.path, author.token, pause_seconds=600) as two,
        ):
            await one.until_live()
            await two.until_live()
            only.send_signal(signal.SIGTERM)
            await eventually("draining", lambda: only.admin_status("/readyz") == 503)
            one.hang_up()
            two.hang_up()
            assert await asyncio.to_thread(only.wait, under_load(15)) == 0


async def test_a_second_signal_cuts_the_drain_short(redis_url: str, author: Author) -> None:
    """Who is in a hurry signals twice; the edge is gone long before its drain time."""
    await author.begin()
    with edge(redis_url, drain_seconds=60) as only:
        async with (
            Follower([only], author.path, author.token) as one,
            Follower([only], author.path, author.token) as two,
        ):
            await one.until_live()
            await two.until_live()
            only.send_signal(signal.SIGTERM)
            await eventually("draining", lambda: only.admin_status("/readyz") == 503)
            only.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(only.wait, 8) == 0


def children(pid: int) -> list[int]:
    """Process ids of the edges below a supervisor."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_a_dead_child_is_replaced(redis_url: str, author: Author) -> None:
    """Killing one of two edges on a port costs its viewers a reconnect and no event; a new one takes its place."""
    await author.begin()
    boss = EdgeProcess(redis_url, "--workers", "2", heartbeat_seconds=1)
    try:
        boss.start()
        for port in boss.admin_ports:
            boss.wait_ready(port)
        before = children(boss.pid)
        viewers = [Follower([boss], author.path, author.token) for _ in range(8)]
        for viewer in viewers:
            await viewer.__aenter__()
        try:
            for viewer in viewers:
                await viewer.until_live()
            os.kill(before[0], signal.SIGKILL)
            for _ in range(20):
                await author.say()
            await eventually("two children", lambda: len(set(children(boss.pid)) - {before[0]}) == 2)
            for port in boss.admin_ports:
                boss.wait_ready(port)
            await author.end()
            for viewer in viewers:
                await viewer.until_done()
        finally:
            for viewer in viewers:
                await viewer.__aexit__()
        log = await author.log()
        for viewer in viewers:
            assert viewer.events == log
        assert [line["worker"] for line in boss.logged("edge_died")] == [0]
        assert await asyncio.to_thread(boss.stop) == 0
    finally:
        boss.close()


async def test_the_children_of_a_supervisor_drain_together(redis_url: str, author: Author) -> None:
    """On SIGTERM to a supervisor both of its edges send their viewers away, who have exactly the log over another."""
    await author.begin()
    boss = EdgeProcess(redis_url, "--workers", "2", drain_seconds=4, heartbeat_seconds=1)
    try:
        boss.start()
        with edge(redis_url, heartbeat_seconds=1) as other:
            for port in boss.admin_ports:
                boss.wait_ready(port)
            async with contextlib.AsyncExitStack() as stack:
                viewers: list[Follower] = []
                # Which of the two takes a connection is up to the kernel.
                while not all(boss.metric("runcast_connections", port) for port in boss.admin_ports):
                    viewers.append(Follower([boss, other], author.path, author.token))
                    await stack.enter_async_context(viewers[-1])
                    await viewers[-1].until_live()
                boss.send_signal(signal.SIGTERM)
                for port in boss.admin_ports:
                    await eventually("unready", lambda: boss.admin_status("/readyz", port) == 503, 0.5)  # noqa: B023
                while not all("draining" in viewer.ends for viewer in viewers):
                    await author.say()
                    await asyncio.sleep(0.02)
                assert await asyncio.to_thread(boss.wait) == 0
                await author.end()
                for viewer in viewers:
                    await viewer.until_done()
            drained = [line["viewers"] for line in boss.logged("edge_draining")]
            assert len(drained) == 2
            assert sum(drained) == len(viewers)
            assert all(drained)
    finally:
        boss.close()
    log = await author.log()
    assert all(viewer.events == log for viewer in viewers)


async def test_a_hung_child_is_replaced(redis_url: str, author: Author) -> None:
    """A child whose loop stands still is killed and replaced, and its viewers go on elsewhere."""
    await author.begin()
    boss = EdgeProcess(redis_url, "--workers", "2", program=("-c", HASTY), heartbeat_seconds=1)
    try:
        boss.start()
        for port in boss.admin_ports:
            boss.wait_ready(port)
        hung = children(boss.pid)[0]
        async with Follower([boss], author.path, author.token) as viewer:
            await viewer.until_live()
            os.kill(hung, signal.SIGSTOP)
            await eventually("replaced", lambda: hung not in children(boss.pid), 10)
            await eventually("two children", lambda: len(children(boss.pid)) == 2)
            await author.end()
            await viewer.until_done()
        assert viewer.events == await author.log()
        assert [line["worker"] for line in boss.logged("edge_killed")] == [0]
        assert await asyncio.to_thread(boss.stop) == 0
    finally:
        boss.close()


async def test_the_children_of_a_killed_supervisor_stop(redis_url: str, author: Author) -> None:
    """No edge is left behind on the port when the supervisor is killed."""
    boss = EdgeProcess(redis_url, "--workers", "2")
    try:
        boss.start()
        for port in boss.admin_ports:
            boss.wait_ready(port)
        pids = children(boss.pid)
        assert len(pids) == 2
        boss.kill()
        await eventually("all gone", lambda: not any(_runs(pid) for pid in pids), 8)
    finally:
        boss.close()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
