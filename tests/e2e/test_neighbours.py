"""Deployments that share a Redis server: a database or a key prefix each keeps them apart."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from tests.edges import ALL_SCOPES, FEED_PATH, ROOT, SECRET, Author, Follower, call, edge, token_for, under_load

PUBLISH = """
import asyncio
from emitter import AgentEmitter
async def main():
    async with AgentEmitter(user_id="alice", execution_id="ex_same") as emitter:
        await emitter.execution_started(task="of the prefix")
asyncio.run(main())
"""


def in_database(server: EmbeddedRedis, number: int) -> str:
    return f"{server.url}?db={number}"


async def test_databases_of_one_server_hear_nothing_of_each_other(own_redis: EmbeddedRedis) -> None:
    """Two deployments in databases 0 and 1 run the same execution id of the same user: each viewer gets its own log,
    live, without a reset, and so does each feed."""
    urls = [in_database(own_redis, number) for number in (0, 1)]
    clients = [connect(url) for url in urls]
    with edge(urls[0], heartbeat_seconds=1) as first, edge(urls[1], heartbeat_seconds=1) as second:
        authors = [Author(client, user="alice", execution_id="ex_same") for client in clients]
        for author in authors:
            await author.begin()
        token = token_for("alice")
        async with (
            Follower([first], authors[0].path, token) as one,
            Follower([second], authors[1].path, token) as two,
            Follower([first], FEED_PATH, token) as feed,
        ):
            for viewer in (one, two, feed):
                await viewer.until_live()
            await authors[1].say(5)
            await authors[1].end()
            await two.until_done()
            await authors[0].say(2)
            await authors[0].end()
            await one.until_done()
            await feed.until("its own end", lambda v: any(e.type == "execution:complete" for e in v.events))
        assert [one.events, two.events] == [await author.log() for author in authors]
        assert one.named("stream:reset") == two.named("stream:reset") == []
        assert [event.type for event in feed.events].count("thinking") == 2
    for client in clients:
        await client.aclose()


async def test_a_live_event_reaches_a_viewer_in_another_database_at_once(own_redis: EmbeddedRedis) -> None:
    """The fast path works in any database: long before the log would be looked at again."""
    url = in_database(own_redis, 3)
    client = connect(url)
    author = Author(client)
    with edge(url, heartbeat_seconds=15) as started:
        await author.begin()
        async with Follower([started], author.path, author.token) as viewer:
            await viewer.until_live()
            began = time.monotonic()
            await author.say(1)
            await viewer.until("the event", lambda v: len(v.events) == 2)
            assert time.monotonic() - began < under_load(5)
    await client.aclose()


async def test_a_revocation_stays_in_its_deployment(own_redis: EmbeddedRedis) -> None:
    with (
        edge(in_database(own_redis, 0), heartbeat_seconds=1) as staging,
        edge(in_database(own_redis, 1), heartbeat_seconds=1) as production,
    ):
        token, admin = token_for("bob"), token_for("root", scopes=ALL_SCOPES)
        assert (await call(staging.port, "POST", "/api/admin/revocations", admin, {"user": "bob"})).status == 202
        assert (await call(staging.port, "GET", "/api/agent/executions", token)).status == 401
        assert (await call(production.port, "GET", "/api/agent/executions", token)).status == 200


async def test_a_prefix_keeps_two_deployments_of_one_database_apart(own_redis: EmbeddedRedis) -> None:
    """What an emitter of one prefix writes is in no list of the other, and is live in its own."""
    with edge(own_redis.url) as plain, edge(own_redis.url, redis_prefix="staging") as staging:
        token = token_for("alice")
        async with Follower([staging], FEED_PATH, token) as feed:
            await feed.until_live()
            environ = os.environ | {"RUNCAST_REDIS_URL": own_redis.url, "RUNCAST_REDIS_PREFIX": "staging"}
            subprocess.run([sys.executable, "-c", PUBLISH], cwd=ROOT, env=environ, check=True, timeout=under_load(30))
            await feed.until("the event", lambda v: [e.type for e in v.events] == ["execution:started"])
        path = "/api/agent/executions"
        listed = [len((await call(each.port, "GET", path, token)).body["executions"]) for each in (plain, staging)]
        assert listed == [0, 1]
    client = connect(own_redis.url)
    keys = await client.keys("*")
    assert {key.split(b":")[0] for key in keys} <= {b"rc", b"staging"}
    assert not [key for key in keys if b"alice" in key and key.startswith(b"rc:")]
    await client.aclose()


@pytest.mark.parametrize("command", [["broker", "serve"], ["emitter", "tests.e2e.e2e_agents:agents"]])
def test_a_prefix_that_cannot_be_stops_the_start(command: list[str], own_redis: EmbeddedRedis) -> None:
    environ = os.environ | {
        "RUNCAST_REDIS_URL": own_redis.url,
        "RUNCAST_REDIS_PREFIX": "a:{b}",
        "RUNCAST_JWT_SECRET": SECRET,
        "RUNCAST_PORT": "0",
        "RUNCAST_ADMIN_PORT": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=under_load(30)
    )
    assert done.returncode == 2
    assert "RUNCAST_REDIS_PREFIX" in done.stderr
    assert "1 to 32 of A-Z a-z 0-9 _ -" in done.stderr
    assert "Traceback" not in done.stderr
