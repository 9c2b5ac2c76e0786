"""What every test may use: a real Redis or Valkey of its own, and edges as separate processes."""

from __future__ import annotations

import gc
import itertools
import logging
import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.store.connection import connect
from tests.edges import ROOT, Author, EdgeProcess, edges
from tests.versions import versions

LONG_FOLDERS = ("abuse", "faults", "e2e", "interop", "web", "emitter_js", "deploy", "docs")
"""Whose tests take the longest."""
SLOW_FILES = (
    *("test_all_bytes", "test_all_endings", "test_all_renderers", "test_endings_table", "test_ag_ui_state"),
    *("test_cluster_subscription", "test_edge_presence", "test_forms", "test_http_connection", "test_http_listener"),
    *("test_main", "test_openapi", "test_responses", "test_revoking", "test_settings_agree", "test_supervisor"),
    *("test_demo_analyst", "test_demo_panel", "test_holds", "test_mending", "test_redact", "test_redact_stream"),
    *("test_temporal", "test_temporal_server", "test_typescript", "test_worker", "test_worker_budgets"),
    *("test_worker_probes", "test_spending", "test_durable_streams"),
    *("test_api", "test_attempt", "test_connection", "test_input_wait", "test_probes", "test_publish"),
    *("test_publisher", "test_schedule", "test_scheduler", "test_stream", "test_viewer"),
    *(
        "test_a2a_projection",
        "test_append",
        "test_delivery",
        "test_batcher",
        "test_control",
        "test_jwks",
        "test_timers",
    ),
)
"""Which `tests/run fast` leaves out besides: each takes seconds, or starts programs."""
EDGES = {"two_edges", "session_edges"}
"""Fixtures that start edges."""

_numbers = itertools.count(1)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """With what this run is tested."""
    return versions() if config.get_verbosity() >= 0 else []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what `tests/run fast` leaves out. Where several processes share the files, the long ones come first, so that
    all end at about the same time, and each folder's are spread, so that not every process has a browser at once."""
    is_in_long_folder = {item.path: item.path.relative_to(ROOT).parts[1] in LONG_FOLDERS for item in items}
    for item in items:
        is_long = is_in_long_folder[item.path] or item.path.stem in SLOW_FILES
        if is_long or EDGES & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    if hasattr(config, "workerinput"):
        files: dict[str, list[Path]] = {}
        for path in is_in_long_folder:
            files.setdefault(path.relative_to(ROOT).parts[1], []).append(path)
        place = {path: index / len(paths) for paths in files.values() for index, path in enumerate(paths)}
        items.sort(key=lambda item: (not is_in_long_folder[item.path], place[item.path]))


def pytest_collection_finish() -> None:
    """What was imported by now stays: no garbage collection looks at it again. Some tests ask for many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """The Redis of the tests that have no edges."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_of_edges() -> Iterator[EmbeddedRedis]:
    """The Redis of the edges that live as long as the session. They hold in memory what is said to all edges, such as
    who was revoked: what another test says without them must not reach them."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    server = "redis_of_edges" if "two_edges" in request.fixturenames else "redis_server"
    return request.getfixturevalue(server).url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def session_edges(redis_of_edges: EmbeddedRedis) -> Iterator[list[EdgeProcess]]:
    with edges(redis_of_edges.url, 2, heartbeat_seconds=1) as started:
        yield started


@pytest.fixture
def two_edges(session_edges: list[EdgeProcess], redis: Redis) -> list[EdgeProcess]:
    """Two edges with a heartbeat of a second, over the Redis that `redis` and `redis_url` are in a test that uses this.
    They live as long as the session: a test that breaks or reconfigures an edge starts its own, and one that tells all
    edges something (a revocation) does it with users of its own."""
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
