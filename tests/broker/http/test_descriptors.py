"""There are never more connections than descriptors for them, and for all else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from broker.base.settings import Settings
from broker.http import descriptors
from broker.http.descriptors import Room
from tests.edges import EdgeProcess


@pytest.mark.parametrize(
    ("settings", "of", "room"),
    [
        (Settings(), 1 << 20, (11_000, 10_000)),
        (Settings(), 1024, (683, 621)),
        (Settings(max_connections=150), 1024, (214, 150)),
        (Settings(max_connections=0), 10_384, (10_000, 9091)),
        (Settings(max_sockets=5000), 1 << 20, (5000, 4546)),
        (Settings(), 64, (16, 8)),
    ],
)
def test_there_is_room_for_what_descriptors_allow(settings: Settings, of: int, room: tuple[int, int]) -> None:
    """A tenth of the connections is no streams, and enough descriptors stay for Redis, probes and files."""
    assert descriptors.room(settings, of) == Room(*room, of)


def test_fewer_descriptors_than_streams_are_told_at_the_start(redis_url: str) -> None:
    """The soft limit is raised to the hard one; if that is too little, the log says by how much."""
    with narrow(redis_url, 200, max_connections=150) as started:
        [line] = started.logged("streams_limited")
        asked = {name: line[name] for name in ("max_connections", "descriptors", "sockets", "streams", "level")}
        assert asked == {
            "max_connections": 150,
            "descriptors": 200,
            "sockets": 104,
            "streams": 95,
            "level": "warning",
        }
        assert started.metric("runcast_connections_limit") == 95


@contextlib.contextmanager
def narrow(redis_url: str, hard: int, **settings: Any) -> Iterator[EdgeProcess]:
    """An edge with so many descriptors at most, and fewer to begin with."""
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (90, {hard}));"
        "from broker.cli.main import main; sys.exit(main())"
    )
    started = EdgeProcess(redis_url, program=("-c", code), **settings).start()
    try:
        yield started.wait_ready()
    finally:
        started.close()
