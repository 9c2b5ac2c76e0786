"""`runcast ls`, `answer`, `cancel`, and what is typed at `run --follow`, against an edge and a worker."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.edges import ROOT, call, edge, token_for
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
ALICE = token_for("alice")
Said = tuple[int, str, str]


def commands(port: int) -> Callable[..., Awaitable[Said]]:
    """Runs a command of `runcast` as alice; its status and what it printed."""

    async def run(*arguments: str) -> Said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "broker", *arguments, "--url", f"http://127.0.0.1:{port}", "--token", ALICE),
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    return run


async def test_an_execution_is_listed_answered_and_cancelled(redis_url: str) -> None:
    """The newest are lines; a question is listed with its options and answered by an option's number; another one is
    cancelled. What cannot be is one line on standard error and status 2 or 1."""
    with edge(redis_url) as started:
        worker = WorkerProcess(redis_url, "choice_agents:agents", HERE, grace_seconds=0)
        try:
            runcast = commands(started.port)
            ids = []
            for _ in range(2):
                async with asyncio.timeout(20):
                    body = {"agent": "chooser", "task": "pick a colour"}
                    while (answer := await call(started.port, "POST", "/api/agent/execute", ALICE, body)).status != 202:
                        await asyncio.sleep(0.05)
                ids.append(answer.body["executionId"])
            async with asyncio.timeout(20):
                while "colour" not in (asked := await runcast("answer", ids[0]))[1].partition("\n")[0]:
                    await asyncio.sleep(0.1)
            assert asked[1].splitlines()[1:] == ["  1  red", "  2  blue"]
            status, listed, _ = await runcast("ls")
            rows = [line.split() for line in listed.splitlines()]
            assert (status, [row[0] for row in rows]) == (0, ids[::-1])
            assert all("chooser" in row and "pick" in row for row in rows)
            assert (await runcast("answer", ids[0], "3"))[::2] == (2, "runcast: one of 1 to 2, please: red, blue\n")
            assert (await runcast("answer", ids[0], "2"))[0] == 0
            assert (await runcast("answer", ids[0], "2", "--input", "in_0"))[0] == 2
            assert (await runcast("cancel", ids[1], "--reason", "enough"))[0] == 0
            async with asyncio.timeout(20):
                while len((await runcast("ls", "--state", "completed"))[1].splitlines()) != 1:
                    await asyncio.sleep(0.1)
                while ids[1] not in (await runcast("ls", "--state", "cancelled"))[1]:
                    await asyncio.sleep(0.1)
            assert (await runcast("cancel", "ex_nothing"))[0] == 1
        finally:
            worker.close()


async def test_a_person_types_while_a_run_is_followed(redis_url: str) -> None:
    """In a terminal of their own: a line reaches the agent, `!` interrupts it, and the run ends with its status."""
    master, slave = pty.openpty()
    with edge(redis_url) as started:
        worker = WorkerProcess(redis_url, "message_agents:agents", HERE, grace_seconds=0)
        try:
            async with asyncio.timeout(20):
                while not (await call(started.port, "GET", "/api/agent/agents", ALICE)).body["agents"]:
                    await asyncio.sleep(0.05)
            url = f"http://127.0.0.1:{started.port}"
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "broker", "run", "patient", "work", "--follow", "--url", url, "--token", ALICE),
                cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            )  # fmt: skip
            os.close(slave)
            shown = Shown(master)
            await shown.until("a message to the agent")
            os.write(master, b"one\n!stop, pl\x7flease\n")
            async with asyncio.timeout(30):
                assert await process.wait() == 0
            await shown.until("completed")
            assert "interrupted: stop, please" in shown.text
            assert "one" in shown.text
        finally:
            worker.close()
            os.close(master)


class Shown:
    """What a terminal was given to show."""

    def __init__(self, master: int) -> None:
        self.text = ""
        self._master = master
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            self.text += os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # nobody writes any more
            asyncio.get_running_loop().remove_reader(self._master)
        self._more.set()

    async def until(self, text: str) -> None:
        async with asyncio.timeout(30):
            while text not in self.text:
                self._more.clear()
                await self._more.wait()
