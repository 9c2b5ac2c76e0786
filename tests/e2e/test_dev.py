"""`runcast dev`: a developer's own agents run, are reloaded when their code changes, and what ran goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.edges import ROOT, Follower, call, stream_path
from tests.ports import reserved_ports

SECONDS = 60.0
EXECUTE = "/api/agent/execute"
AGENTS = """
import asyncio
from emitter import Agents

agents = Agents()


@agents.agent("greeter", max_attempts=9)
async def greeter(context):
    await context.emitter.thinking("{word} " + context.task)
    if context.attempt == 1:
        await asyncio.sleep(120)
    return {{"said": "{word}"}}
"""


class Dev:
    """The running command, and what it printed."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.port = port
        self.process = process
        self.token = ""
        self._lines: list[str] = []

    async def until(self, text: str) -> None:
        """Read lines up to one that contains this."""
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS):
            while True:
                line = (await self.process.stdout.readline()).decode()
                assert line, f"it ended:\n{''.join(self._lines)}"
                self._lines.append(line)
                if "#token=" in line:
                    self.token = line.strip().partition("#token=")[2]
                if text in line:
                    return


@contextlib.asynccontextmanager
async def dev(folder: Path) -> AsyncIterator[Dev]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNCAST_")}
    with reserved_ports(2) as (port, admin_port):
        environ |= {"RUNCAST_PORT": str(port), "RUNCAST_ADMIN_PORT": str(admin_port), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "broker", "dev", "my_agents:agents"]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=environ, start_new_session=True,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield Dev(process, port)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def test_what_runs_goes_on_with_the_new_code(tmp_path: Path) -> None:
    """The welcome names the agents. After a change of the file the running execution has a second attempt, with the new
    code; a file that cannot be imported is an error line, and the next change mends it. Ctrl-C ends all with status
    0."""
    module = tmp_path / "my_agents.py"
    module.write_text(AGENTS.format(word="hello"))
    async with dev(tmp_path) as started:
        await started.until("In another terminal")
        body = {"agent": "greeter", "task": "ann"}
        async with asyncio.timeout(SECONDS):  # the welcome does not wait for a worker that is slow to come
            while (answer := await call(started.port, "POST", EXECUTE, started.token, body)).status != 202:
                await asyncio.sleep(0.5)
        path = stream_path(answer.body["executionId"])
        async with Follower([started.port], path, started.token) as viewer:
            await viewer.until("the first", lambda seen: any("hello ann" in event.data for event in seen.events))
            module.write_text("agents = nothing\n")
            await started.until("cannot import 'my_agents'")
            await started.until("starts again when a file has changed")
            module.write_text(AGENTS.format(word="good day"))
            await viewer.until_done(SECONDS)
        said = [event.data for event in viewer.events if event.type == "thinking"]
        assert ["hello ann" in said[0], "good day ann" in said[-1]] == [True, True]
        assert viewer.events[-1].type == "execution:complete"
        started.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(SECONDS):
            assert await started.process.wait() == 0


def test_without_the_extra_the_command_says_what_to_install() -> None:
    """`pip install runcast` alone has a command that runs workers; any other command names the extra, and so does
    `--help`."""
    hide = "import sys; sys.modules['rich'] = None; from broker.__main__ import main; sys.exit(main())"
    for arguments in (["--help"], ["token", "--user", "a"]):
        ended = subprocess.run([sys.executable, "-c", hide, *arguments], cwd=ROOT, capture_output=True, text=True)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "pip install 'runcast[broker]'" in ended.stderr
        assert "Traceback" not in ended.stderr
    ended = subprocess.run([sys.executable, "-c", hide, "worker", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, "MODULE:AGENTS" in ended.stdout) == (0, True)
