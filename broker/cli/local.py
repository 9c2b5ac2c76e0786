"""Everything on this machine for the length of a block: a private Redis, one edge and a worker. `runcast demo` and
`runcast dev` are made of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import aiohttp

from broker.auth.claims import SCOPES
from broker.base.settings import Settings, load_settings
from broker.cli.embedded import EmbeddedRedis
from broker.edge.signing import minted
from broker.edge.supervisor import Supervisor
from emitter.settings import with_defaults

READY_SECONDS = 30.0
STOP_SECONDS = 15.0
TOKEN_SECONDS = 7 * 86_400


class Local(NamedTuple):
    """Where it runs. `environ` is that of the edge and the worker; `settings` are read from it."""

    settings: Settings
    environ: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    def token(self, user: str) -> str:
        """A token that may do everything, for a week."""
        return minted(self.settings, user, scopes=SCOPES, ttl=TOKEN_SECONDS)


@contextlib.contextmanager
def local(given: Settings) -> Iterator[Local]:
    """Redis, unless `RUNCAST_REDIS_URL` names one, and settings of loopback only. Raises `NoServer`."""
    with contextlib.ExitStack() as stack:
        environ = {
            **with_defaults(os.environ, drain_seconds="0.5", grace_seconds="3"),
            "RUNCAST_REDIS_URL": given.redis_url or stack.enter_context(EmbeddedRedis()).url,
            "RUNCAST_JWT_SECRET": given.jwt_secret or secrets.token_urlsafe(32),
            "RUNCAST_HOST": "127.0.0.1",
            "RUNCAST_ADMIN_HOST": "127.0.0.1",
            "RUNCAST_LOG_LEVEL": "warning",
        }
        yield Local(load_settings(environ), environ)


@contextlib.asynccontextmanager
async def edge(where: Local) -> AsyncIterator[asyncio.Task[None]]:
    """A supervised edge that is ready. The task ends at SIGINT and SIGTERM. Raises what keeps it from starting."""
    supervisor = Supervisor(where.settings, 1, where.environ)
    serving = asyncio.create_task(supervisor.run(), name="edge")
    waiting = asyncio.create_task(_ready(where.settings))
    try:
        await asyncio.wait([serving, waiting], return_when="FIRST_COMPLETED")
        if not serving.done():
            await waiting
            yield serving
        else:
            waiting.cancel()
        await serving
    finally:
        supervisor.stop()
        await asyncio.gather(serving, return_exceptions=True)


async def _ready(settings: Settings) -> None:
    """Wait until the edge answers. Raises `TimeoutError`."""
    url = f"http://127.0.0.1:{settings.admin_port}/readyz"
    async with asyncio.timeout(READY_SECONDS), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)


async def start_worker(agents: str, environ: Mapping[str, str]) -> asyncio.subprocess.Process:
    """A worker process for `MODULE:AGENTS`."""
    # Its own session: Ctrl-C is for us, and we stop it after the edge.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "emitter", agents, env=dict(environ), start_new_session=True
    )


async def end_process(process: asyncio.subprocess.Process) -> None:
    """End a process in order, and after `STOP_SECONDS` at once."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def runcast_command() -> str:
    """How a person runs `runcast` as this process was run."""
    command = shlex.quote(str(Path(sys.argv[0]).absolute())) if os.access(sys.argv[0], os.X_OK) else "runcast"
    return f"{shlex.quote(sys.executable)} -m broker" if command.endswith("__main__.py") else command
