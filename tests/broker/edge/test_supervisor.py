"""N edges on one port: replaced when they die or hang, stopped in order, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from broker.base.settings import Settings
from broker.edge import supervisor as module
from broker.edge.supervisor import Supervisor
from emitter.errors import InvalidSetting
from emitter.events import ExecutionStarted
from emitter.store.append import append, prepare
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from tests.edges import ROOT, SECRET, SSE, call, eventually, request, stream_path, token_for, under_load
from tests.ports import reserved_ports

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that loses patience soon; its children beat every second as always."""
    monkeypatch.setattr(module, "HUNG_SECONDS", 5.0)
    monkeypatch.setattr(module, "RESTART_SECONDS", (0.05, 1.0))


@pytest.fixture
def ports() -> Iterator[list[int]]:
    with reserved_ports(2) as ports:
        yield ports


class Running:
    """A supervisor in this process, with its edges."""

    def __init__(self, redis_url: str, ports: Sequence[int], drain_seconds: float = 0.0) -> None:
        port, *self.admin_ports = ports
        self.settings = Settings(
            redis_url=redis_url,
            host="127.0.0.1",
            admin_host="127.0.0.1",
            port=port,
            admin_port=self.admin_ports[0],
            jwt_secret=SECRET,
            drain_seconds=drain_seconds,
        )
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNCAST_")}
        environ |= {
            "RUNCAST_REDIS_URL": redis_url,
            "RUNCAST_JWT_SECRET": SECRET,
            "RUNCAST_DRAIN_SECONDS": str(drain_seconds),
            "RUNCAST_LOG_LEVEL": "warning",
        }
        self.supervisor = Supervisor(self.settings, len(self.admin_ports), environ)
        self.task = asyncio.create_task(self.supervisor.run())

    @property
    def pids(self) -> list[int]:
        return [child.process.pid if child.process else 0 for child in self.supervisor._children]

    @property
    def exit_codes(self) -> list[int | None]:
        return [child.process.returncode if child.process else None for child in self.supervisor._children]

    async def ready(self, number: int = 0) -> None:
        """Wait until this child is."""
        async with asyncio.timeout(under_load(20)):
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    if (await call(self.admin_ports[number], "GET", "/readyz", None)).status == 200:
                        return
                await asyncio.sleep(0.02)

    async def beating(self) -> None:
        """Wait until every child said that it runs: from then on silence counts as hanging."""
        await eventually("every child beats", lambda: all(child.beats for child in self.supervisor._children))

    async def another(self, pid: int, number: int) -> None:
        """Wait until another process has taken a child's place and works."""
        await eventually("the child is replaced", lambda: self.pids[number] != pid)
        await self.ready(number)


@contextlib.asynccontextmanager
async def running(redis_url: str, workers: int = 1, drain_seconds: float = 0.0) -> AsyncIterator[Running]:
    with reserved_ports(1 + workers) as ports:
        started = Running(redis_url, ports, drain_seconds)
        try:
            for number in range(workers):
                await started.ready(number)
            yield started
        finally:
            started.supervisor._stopping.set()
            started.supervisor._killing.set()
            async with asyncio.timeout(10):
                await asyncio.gather(started.task, return_exceptions=True)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_child_that_dies_or_hangs_is_replaced(redis: Redis, redis_url: str) -> None:
    """A killed child and one whose loop stands still are replaced, while the other goes on as it was; then all stop in
    order, each with status 0, and nothing listens any more."""
    async with running(redis_url, 2) as edges:
        await edges.beating()
        first, second = edges.pids
        os.kill(first, signal.SIGKILL)
        await edges.another(first, 0)
        assert edges.pids[1] == second
        os.kill(second, signal.SIGSTOP)
        await edges.another(second, 1)
        assert not is_alive(second)
        answer = await call(edges.settings.port, "GET", "/api/agent/executions", token_for("alice"))
        assert answer.status == 200
        pids = edges.pids
        edges.supervisor.stop()
        async with asyncio.timeout(under_load(10)):
            await edges.task
        assert edges.exit_codes == [0, 0]
        assert not any(is_alive(pid) for pid in pids)
        for port in (edges.settings.port, *edges.admin_ports):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)


async def test_nothing_is_left_to_a_child_that_is_dead(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the death of a child until another takes its place, the others do not leave it connections."""
    monkeypatch.setattr(module, "RESTART_SECONDS", (60.0, 60.0))
    async with running(redis_url, 2) as edges:
        dying, other = edges.supervisor._children
        assert other.share.least() == 0
        os.kill(edges.pids[0], signal.SIGKILL)
        await eventually("it counts no more", lambda: other.share.least() is None)
        assert dying.share.least() == 0


async def test_the_first_signal_drains_and_the_second_kills(redis: Redis, redis_url: str) -> None:
    """On SIGTERM the children drain, unready and with their streams; on a second one everything ends at once."""
    prepared = [prepare(ExecutionStarted(task="t", started_at=1, attempt=1), "ex_1", redact=Redactor())]
    await append(redis, Owner("alice"), "ex_1", prepared)
    async with running(redis_url, 1, drain_seconds=60) as edges, contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            opened = request(edges.settings.port, "GET", stream_path("ex_1"), token_for("alice"), headers=SSE)
            stream = await stack.enter_async_context(opened)
            assert stream.status == 200
        [pid] = edges.pids
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(under_load(10)):
            while (await call(edges.admin_ports[0], "GET", "/readyz", None)).status != 503:
                await asyncio.sleep(0.02)
        assert not edges.task.done()
        assert is_alive(pid)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(under_load(5)):
            await edges.task
        assert edges.exit_codes == [-signal.SIGKILL]
        assert not is_alive(pid)


async def test_children_do_not_outlive_their_supervisor(redis: Redis, redis_url: str, ports: list[int]) -> None:
    """When the supervisor is killed its children notice, drain and end by themselves."""
    port, admin = ports
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNCAST_")}
    environ |= {
        "RUNCAST_REDIS_URL": redis_url,
        "RUNCAST_JWT_SECRET": SECRET,
        "RUNCAST_HOST": "127.0.0.1",
        "RUNCAST_ADMIN_HOST": "127.0.0.1",
        "RUNCAST_PORT": str(port),
        "RUNCAST_ADMIN_PORT": str(admin),
        "RUNCAST_DRAIN_SECONDS": "0",
        "RUNCAST_LOG_LEVEL": "error",
    }
    command = [sys.executable, "-m", "broker", "serve", "--workers", "1"]
    supervisor = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(under_load(20)):
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    if (await call(admin, "GET", "/readyz", None)).status == 200:
                        break
                await asyncio.sleep(0.05)
        children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
        assert len(children) == 1
    finally:
        supervisor.kill()
        supervisor.wait()
    await eventually("the child ends", lambda: not is_alive(int(children[0])), 45)


async def test_a_child_that_cannot_start_is_tried_again_ever_more_slowly(
    redis: Redis, redis_url: str, ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children that die at once are started again with growing pauses, and the supervisor still stops at once."""
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    started = Running(redis_url, ports)
    seen: set[int] = set()

    def third() -> bool:
        seen.update(started.pids)
        return len(seen - {0}) >= 3

    await eventually("it is tried again", third)
    started.supervisor.stop()
    async with asyncio.timeout(under_load(2)):
        await started.task


async def test_a_process_that_cannot_be_made_is_tried_again(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the system refuses a process in a dead child's place, the other serves and nothing is leaked; then one is
    made."""
    async with running(redis_url, 2) as edges:
        first, second = edges.pids
        python = sys.executable
        descriptors = open_descriptors()
        with structlog.testing.capture_logs() as logs:
            monkeypatch.setattr(module.sys, "executable", "/nowhere")
            os.kill(first, signal.SIGKILL)
            await eventually("it is tried twice", lambda: len(of(logs, "edge_not_started")) >= 2)
            assert open_descriptors() <= descriptors
            assert is_alive(second)
            monkeypatch.setattr(module.sys, "executable", python)
            await edges.another(first, 0)
        assert edges.pids[1] == second
        assert [line["code"] for line in of(logs, "edge_died")] == [-signal.SIGKILL]
        assert "No such file" in of(logs, "edge_not_started")[0]["error"]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def of(logs: Sequence[MutableMapping[str, Any]], event: str) -> list[MutableMapping[str, Any]]:
    return [line for line in logs if line["event"] == event]


async def test_a_port_that_is_taken_is_a_bad_setting(redis_url: str, ports: list[int]) -> None:
    """An address that cannot be bound stops the supervisor before any child, with the setting's name."""
    running = Running(redis_url, ports)
    second = Supervisor(running.settings, 1, {})
    await asyncio.sleep(0)
    with pytest.raises(InvalidSetting) as caught:
        await second.run()
    assert caught.value.name == "RUNCAST_PORT"
    running.supervisor._stopping.set()
    running.supervisor._killing.set()
    async with asyncio.timeout(10):
        await running.task
