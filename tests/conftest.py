"""What every test may use: a real Redis or Valkey of its own, and edges as separate processes."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from broker.embedded import EmbeddedRedis
from emitter.connection import connect
from tests.edges import Author, EdgeProcess, edges

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    return redis_server.url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def session_edges(redis_server: EmbeddedRedis) -> Iterator[list[EdgeProcess]]:
    with edges(redis_server.url, 2, heartbeat_seconds=1) as started:
        yield started


@pytest.fixture
def two_edges(session_edges: list[EdgeProcess], redis: Redis) -> list[EdgeProcess]:
    """Two edges over the shared Redis with a heartbeat of a second. They live as long as the session: a test that
    breaks or reconfigures an edge starts its own."""
    return session_edges


@pytest.fixture
def author(redis: Redis) -> Author:
    """Writes an execution of a user whom no other test has."""
    return Author(redis, user=f"user-{next(_numbers)}")


@pytest.fixture
def own_redis() -> Iterator[EmbeddedRedis]:
    """A Redis that the test may pause, empty or kill."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
async def own_author(own_redis: EmbeddedRedis) -> AsyncIterator[Author]:
    """Writes an execution into the test's own Redis."""
    client = connect(own_redis.url)
    yield Author(client)
    await client.aclose()


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """What a test configures of the logs ends with the test, and with the streams that pytest gave it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers, root.level = handlers, level


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Where everything is said to be installed, a test that skips for want of something has failed."""
    report = yield
    if report.skipped and os.environ.get("RUNCAST_TESTS_COMPLETE") == "1":
        report.outcome = "failed"
    return report
