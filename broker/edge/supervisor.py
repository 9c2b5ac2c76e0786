"""`runcast serve --workers N`: N edge processes on one port, replaced when they die or hang, stopped in order.

The supervisor binds the public socket and its children accept from it: what waits in the socket's queue when a child
dies is accepted by the others. They share the numbers of their connections, and the least full one accepts. Sockets of
their own (SO_REUSEPORT) would spread by chance, and leave connections to a child that hangs. Each child has an admin
port of its own (the first is `RUNCAST_ADMIN_PORT`), because a shared one would answer for a random child.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Mapping

from broker.base.logging import get_logger
from broker.base.settings import Settings
from broker.http import shares as shares_of
from broker.http.listener import listen
from broker.http.shares import Shares

BEAT_SECONDS = 1.0
HUNG_SECONDS = 15.0
START_SECONDS = 30.0
KILL_AFTER_SECONDS = 15.0
"""Beyond the drain time, for a child's ordered stop."""
RESTART_SECONDS = (0.2, 10.0)
STABLE_SECONDS = 30.0


class Child:
    """One edge process and the pipe over which it says that its loop runs."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.heard_at = 0.0
        self.started_at = 0.0
        self.beats = 0
        self.share: Shares

    def hung(self, now: float) -> bool:
        return now - self.heard_at > (HUNG_SECONDS if self.beats else START_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


class Supervisor:
    """`await Supervisor(settings, workers, environ).run()` until SIGTERM or SIGINT; a second one kills the children."""

    def __init__(self, settings: Settings, workers: int, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = dict(environ)
        self._children = [Child(number) for number in range(workers)]
        self._stopping = asyncio.Event()
        self._killing = asyncio.Event()
        self._log = get_logger()

    async def run(self) -> None:
        """Raises `InvalidSetting` when an address cannot be bound."""
        settings = self._settings
        with contextlib.ExitStack() as sockets:
            public = sockets.enter_context(listen(settings.host, settings.port))
            admins = [sockets.enter_context(self._admin_socket(child.number)) for child in self._children]
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
            shares = shares_of.create(len(self._children))
            sockets.callback(os.close, shares)
            for child in self._children:
                child.share = Shares(shares, child.number)
            both = zip(self._children, admins, strict=True)
            self._log.info("supervisor_started", workers=len(self._children), port=public.getsockname()[1])
            await asyncio.gather(
                *(self._keep(child, public, admin, shares) for child, admin in both),
                self._let_go(public),
            )
        self._log.info("supervisor_stopped")

    def _admin_socket(self, number: int) -> socket.socket:
        port = self._settings.admin_port
        return listen(self._settings.admin_host, port + number if port else 0, "RUNCAST_ADMIN_")

    async def _let_go(self, public: socket.socket) -> None:
        """Once it stops, the children alone hold the public socket: the last of them takes what waits, and then nobody
        can connect to what nobody would answer."""
        await self._stopping.wait()
        public.close()

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._killing.set()
        self.stop()

    def stop(self) -> None:
        """Let the children drain and end; `run` returns when they have."""
        self._stopping.set()

    async def _keep(self, child: Child, public: socket.socket, admin: socket.socket, shares: int) -> None:
        """One child after another, until the supervisor stops."""
        pause = RESTART_SECONDS[0]
        while not self._stopping.is_set():
            child.started_at = time.monotonic()
            try:
                code = await self._run_child(child, public, admin, shares)
            except OSError as error:  # no memory or descriptors for a process now
                self._log.warning("edge_not_started", worker=child.number, error=str(error))
                code = None
            child.share.leave()
            if self._stopping.is_set():
                return
            lived = time.monotonic() - child.started_at
            pause = RESTART_SECONDS[0] if lived > STABLE_SECONDS else min(pause * 2, RESTART_SECONDS[1])
            if code is not None:
                self._log.warning("edge_died", worker=child.number, code=code, seconds=round(lived, 1))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * random.uniform(0.5, 1)):
                    await self._stopping.wait()

    async def _run_child(self, child: Child, public: socket.socket, admin: socket.socket, shares: int) -> int:
        reading, writing = os.pipe()
        fds = (public.fileno(), admin.fileno(), writing, shares)
        command = [sys.executable, "-m", "broker", "edge", *map(str, (child.number, *fds))]
        try:
            child.process = await asyncio.create_subprocess_exec(
                *command, pass_fds=fds, env=self._environ, start_new_session=True
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        child.heard_at = time.monotonic()
        child.beats = 0
        loop = asyncio.get_running_loop()
        loop.add_reader(reading, self._hear, child, reading)
        watch = asyncio.create_task(self._watch(child))
        try:
            return await child.process.wait()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            loop.remove_reader(reading)
            os.close(reading)

    def _hear(self, child: Child, pipe: int) -> None:
        if os.read(pipe, 4096):
            child.beats += 1
            child.heard_at = time.monotonic()
        else:
            asyncio.get_running_loop().remove_reader(pipe)  # the child is gone; its exit is waited for elsewhere

    async def _watch(self, child: Child) -> None:
        """Kill a child with a blocked loop; when stopping, signal it once and kill it after its time."""
        stop_by = float("inf")
        while True:
            now = time.monotonic()
            if self._stopping.is_set() and stop_by == float("inf"):
                child.signal(signal.SIGTERM)
                stop_by = now + self._settings.drain_seconds + KILL_AFTER_SECONDS
            if self._killing.is_set() or now > stop_by or (stop_by == float("inf") and child.hung(now)):
                self._log.warning("edge_killed", worker=child.number, stopping=self._stopping.is_set())
                child.signal(signal.SIGKILL)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS / 2):
                    await (self._killing if self._stopping.is_set() else self._stopping).wait()
