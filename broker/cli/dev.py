"""`runcast dev MODULE:AGENTS`: one's own agents on this machine, with everything around them, and their code reloaded
when it changes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp

from broker.base.logging import configure_logs
from broker.base.settings import Settings
from broker.cli.embedded import MissingLibrary
from broker.cli.local import Local, edge, end_process, local, runcast_command, start_worker
from broker.executions.publish import edge_hooks

USER = "dev"
ANNOUNCED_SECONDS = 10.0
"""How long the welcome waits for the names of the agents."""
OTHER_ENVIRONMENTS = ("venv", "env", "site-packages", ".venv-demo", ".nox")
KILLED_PAUSE_SECONDS = 1.0


async def run(settings: Settings, agents: str) -> int:
    """Run until Ctrl-C."""
    edge_hooks(settings)
    configure_logs("warning", console=sys.stderr.isatty())
    with local(settings) as where:
        environ = {**where.environ, "RUNCAST_GRACE_SECONDS": "0", "RUNCAST_LOG_LEVEL": settings.log_level}
        async with _reloaded_worker(agents, environ), edge(where) as serving:
            token = where.token(USER)
            print(welcome(where, token, await _announced(where, token)), flush=True)
            await serving
    print("stopped")
    return 0


@contextlib.asynccontextmanager
async def _reloaded_worker(agents: str, environ: Mapping[str, str]) -> AsyncIterator[None]:
    """A worker for the length of a block, started anew whenever a Python file below the working directory changes. What
    it ran goes on with the new code, as the next attempt. Raises `MissingLibrary`."""
    try:
        from watchfiles import PythonFilter, awatch
    except ModuleNotFoundError as error:
        raise MissingLibrary(f"reloading needs pip install 'runcast[embedded]': {error}") from error
    seen = PythonFilter()
    seen.ignore_dirs = (*seen.ignore_dirs, *OTHER_ENVIRONMENTS)
    stopping, changed = asyncio.Event(), asyncio.Event()

    async def notice() -> None:
        async for changes in awatch(Path.cwd(), watch_filter=seen, stop_event=stopping):
            names = sorted({Path(path).name for _, path in changes})
            print(f"changed: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}", file=sys.stderr, flush=True)
            changed.set()

    noticing = asyncio.create_task(notice(), name="changes")
    running = asyncio.create_task(_keep_worker(agents, environ, changed), name="worker")
    try:
        yield
    finally:
        stopping.set()
        running.cancel()
        await asyncio.gather(noticing, running, return_exceptions=True)


async def _keep_worker(agents: str, environ: Mapping[str, str], changed: asyncio.Event) -> None:
    """Run a worker; another one after a change of the code, or when it was killed."""
    while True:
        process = await start_worker(agents, environ)
        ended, waiting = asyncio.create_task(process.wait()), asyncio.create_task(changed.wait())
        try:
            await asyncio.wait([ended, waiting], return_when="FIRST_COMPLETED")
            if ended.done() and ended.result() < 0:
                await asyncio.sleep(KILLED_PAUSE_SECONDS)
            elif not waiting.done():
                print("the worker starts again when a file has changed", file=sys.stderr, flush=True)
                await waiting
        finally:
            waiting.cancel()
            await asyncio.shield(end_process(process))
        changed.clear()


async def _announced(where: Local, token: str) -> list[str]:
    """The names of the agents, once the worker has announced them; none, if it cannot start."""
    headers = {"Authorization": f"Bearer {token}"}
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(ANNOUNCED_SECONDS), aiohttp.ClientSession(headers=headers) as session:
            while True:
                async with session.get(where.url + "/api/agent/agents") as response:
                    if names := [each["name"] for each in (await response.json())["agents"]]:
                        return names
                await asyncio.sleep(0.1)
    return []


def welcome(where: Local, token: str, agents: list[str]) -> str:
    """What a developer copies next."""
    return "\n".join(
        [
            "Runcast runs on this machine only, with a made-up secret. It reloads your agents when their code changes.",
            "Ctrl-C stops everything.",
            "",
            f"Agents:  {', '.join(agents) or 'none yet (see above)'}",
            f"Console: {where.url}/#token={token}",
            "",
            "In another terminal:",
            "",
            f"  export RUNCAST_URL={where.url}",
            f"  export RUNCAST_TOKEN={token}",
            f"  {runcast_command()} run {agents[0] if agents else 'AGENT'} 'a task' --follow",
            "",
            "From code without a worker:",
            "",
            f"  export RUNCAST_REDIS_URL={where.environ['RUNCAST_REDIS_URL']}",
        ]
    )
