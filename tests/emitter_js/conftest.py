from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from broker.cli.embedded import EmbeddedRedis
from tests.edges import EdgeProcess, edges

_users = itertools.count(1)


@pytest.fixture(scope="module")
def module_edge() -> Iterator[EdgeProcess]:
    with EmbeddedRedis() as redis, edges(redis.url, heartbeat_seconds=1) as started:
        yield started[0]


@pytest.fixture
def js_edge(module_edge: EdgeProcess) -> Iterator[EdgeProcess]:
    """An edge, alive. A test may kill it, and start it again on its port."""
    yield module_edge
    if module_edge.process is not None and module_edge.process.poll() is not None:
        module_edge.start().wait_ready()


@pytest.fixture
def user() -> str:
    """A user of this test only."""
    return f"js-{next(_users)}"
