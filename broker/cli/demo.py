"""`runcast demo`: the whole product on this machine in one command, and nothing left behind when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from broker.auth.claims import SCOPES
from broker.base.logging import configure_logs
from broker.base.settings import Settings, load_settings
from broker.cli.embedded import EmbeddedRedis
from broker.edge.signing import minted
from broker.edge.supervisor import Supervisor
from broker.executions.publish import edge_hooks
from emitter.errors import InvalidEvent, RuncastError
from emitter.settings import with_defaults
from emitter.store.append import append, prepare
from emitter.store.connection import connect
from emitter.wire.envelope import decode_envelope
from emitter.wire.ids import new_execution_id
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor

USER = "demo"
AGENTS = "emitter.demo:agents"
READY_SECONDS = 30.0
STOP_SECONDS = 15.0
MAX_GAP_SECONDS = 10.0
"""No pause of a recording is played longer than this."""


async def run(settings: Settings, *, script: str | None, speed: float) -> int:
    """Run until Ctrl-C. With `script`, play that recording instead of running a worker."""
    recording = read_script(Path(script)) if script else []
    if speed <= 0:
        raise ValueError("--speed is above 0")
    edge_hooks(settings)
    configure_logs("warning", console=sys.stderr.isatty())
    async with contextlib.AsyncExitStack() as stack:
        redis_url = settings.redis_url or stack.enter_context(EmbeddedRedis()).url
        secret = settings.jwt_secret or secrets.token_urlsafe(32)
        environ = {
            **with_defaults(os.environ, drain_seconds="0.5", grace_seconds="3"),
            "RUNCAST_REDIS_URL": redis_url,
            "RUNCAST_JWT_SECRET": secret,
            "RUNCAST_HOST": "127.0.0.1",
            "RUNCAST_ADMIN_HOST": "127.0.0.1",
            "RUNCAST_LOG_LEVEL": "warning",
        }
        local = load_settings(environ)
        supervisor = Supervisor(local, 1, environ)
        edge = asyncio.create_task(supervisor.run(), name="edge")
        if not recording:
            await stack.enter_async_context(worker(environ))
        token = minted(local, USER, scopes=SCOPES, ttl=7 * 86_400)
        url = f"http://127.0.0.1:{local.port}"
        try:
            await asyncio.wait([edge, playing := asyncio.create_task(ready(local))], return_when="FIRST_COMPLETED")
            if edge.done():
                playing.cancel()
                await edge  # raises what kept it from starting
                return 1
            await playing
            print(welcome(url, token, recorded=bool(recording)), flush=True)
            if recording:
                await play(redis_url, recording, speed, url)
            await edge
        finally:
            supervisor.stop()
            await asyncio.gather(edge, return_exceptions=True)
    print("stopped")
    return 0


async def ready(settings: Settings) -> None:
    """Wait until the edge answers. Raises `TimeoutError`."""
    url = f"http://127.0.0.1:{settings.admin_port}/readyz"
    async with asyncio.timeout(READY_SECONDS), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def worker(environ: dict[str, str]) -> AsyncIterator[None]:
    """A worker process with the demo agents, for the length of a block."""
    command = [sys.executable, "-m", "emitter", AGENTS]
    # Its own session: Ctrl-C is for us, and we stop it after the edge.
    process = await asyncio.create_subprocess_exec(*command, env=environ, start_new_session=True)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def welcome(url: str, token: str, *, recorded: bool) -> str:
    """What a newcomer copies next."""
    command = shlex.quote(str(Path(sys.argv[0]).absolute())) if os.access(sys.argv[0], os.X_OK) else "runcast"
    if command.endswith("__main__.py"):
        command = f"{shlex.quote(sys.executable)} -m broker"
    start = f'{command} run analyst "{Path.cwd()}" --follow'
    panel = f'{command} run panel "{Path.cwd()}" --follow'
    lines = [
        "Runcast runs on this machine only, with a made-up secret. Ctrl-C stops everything.",
        "",
        "Open the console (the token is in the fragment of the URL, which is never sent to a server):",
        "",
        f"  {url}/#token={token}",
        "",
        "Or stay in the terminal. In another one:",
        "",
        f"  export RUNCAST_URL={url}",
        f"  export RUNCAST_TOKEN={token}",
    ]
    if not recorded:
        lines += ["", "Survey a directory of code, and watch:", "", f"  {start}"]
        lines += ["", "Or have three specialists look at it at the same time:", "", f"  {panel}"]
    lines += [
        "",
        "Watch the same in a third (an execution's id in place of EXECUTION):",
        "",
        f"  {command} tail EXECUTION",
        f"  {command} tail --user {USER}",
        f'  curl -N -H "Authorization: Bearer $RUNCAST_TOKEN" {url}/api/agent/executions/EXECUTION/stream',
        "",
        "Then kill the edge (`pkill -9 -f 'broker edge'`): a new one takes over, and both resume without a gap.",
    ]
    return "\n".join(lines)


# --- a recording -----------------------------------------------------------------------------------------------------


def read_script(path: Path) -> list[tuple[int, Any]]:
    """The events of a recording, (ts in ms, event) each: lines as the NDJSON export writes them, `{"id":…,"event":…}`,
    or bare envelopes. Raises `ValueError` naming the line."""
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            parsed = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
            head, event = decode_envelope(bytes(parsed["event"]) if "event" in parsed else line)
        except (msgspec.DecodeError, InvalidEvent) as error:
            raise ValueError(f"{path}:{number}: {error}") from error
        found.append((head.ts, event))
    if not found:
        raise ValueError(f"{path}: no events")
    return found


async def play(redis_url: str, recording: list[tuple[int, Any]], speed: float, url: str) -> None:
    """Append the recorded events to a new execution, with the pauses they had, `speed` times faster."""
    execution_id, redis, redact = new_execution_id(), connect(redis_url), Redactor()
    print(f"\nPlaying {len(recording)} events as {execution_id}:\n  {url}/api/agent/executions/{execution_id}/stream")
    try:
        for seq, (ts, event) in enumerate(recording, 1):
            pause = (ts - recording[max(0, seq - 2)][0]) / 1000 / speed
            await asyncio.sleep(min(max(0.0, pause), MAX_GAP_SECONDS))
            prepared = prepare(event, execution_id, redact=redact)
            await append(redis, Owner(USER), execution_id, [prepared], producer="script", first_seq=seq)
    except RuncastError as error:
        print(f"the recording stopped: {error}")
    finally:
        await redis.aclose()
    print("the recording has ended")
