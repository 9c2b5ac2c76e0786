"""`runcast demo`: the whole product on this machine in one command, and nothing left behind when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from broker.base.logging import configure_logs
from broker.base.settings import Settings
from broker.cli.local import edge, end_process, local, runcast_command, start_worker
from broker.executions.publish import edge_hooks
from emitter.errors import InvalidEvent, RuncastError
from emitter.store.append import append, prepare
from emitter.store.connection import connect
from emitter.wire.envelope import decode_envelope
from emitter.wire.ids import new_execution_id
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor

USER = "demo"
AGENTS = "emitter.demo:agents"
MAX_GAP_SECONDS = 10.0
"""No pause of a recording is played longer than this."""


async def run(settings: Settings, *, script: str | None, speed: float) -> int:
    """Run until Ctrl-C. With `script`, play that recording instead of running a worker."""
    recording = read_script(Path(script)) if script else []
    if speed <= 0:
        raise ValueError("--speed is above 0")
    edge_hooks(settings)
    configure_logs("warning", console=sys.stderr.isatty())
    with local(settings) as where:
        async with _worker(where.environ, runs=not recording), edge(where) as serving:
            print(welcome(where.url, where.token(USER), recorded=bool(recording)), flush=True)
            if recording:
                await play(where.environ["RUNCAST_REDIS_URL"], recording, speed, where.url)
            await serving
    print("stopped")
    return 0


@contextlib.asynccontextmanager
async def _worker(environ: Mapping[str, str], *, runs: bool) -> AsyncIterator[None]:
    """A worker process with the demo agents, for the length of a block."""
    process = await start_worker(AGENTS, environ) if runs else None
    try:
        yield
    finally:
        if process is not None:
            await end_process(process)


def welcome(url: str, token: str, *, recorded: bool) -> str:
    """What a newcomer copies next."""
    command = runcast_command()
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
