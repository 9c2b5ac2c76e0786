"""`runcast ls`, `answer`, `cancel`, and what is typed at `run --follow`, against an edge and a worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

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


class Terminal(NamedTuple):
    """A terminal in which `runcast run patient --follow` runs, and takes messages."""

    master: int
    shown: Shown
    process: asyncio.subprocess.Process

    @property
    def edits_lines(self) -> bool:
        flags = termios.tcgetattr(self.master)[tty.LFLAG]
        return bool(flags & termios.ICANON and flags & termios.ECHO)

    async def ends_with(self, status: int) -> None:
        async with asyncio.timeout(30):
            assert await self.process.wait() == status


@contextlib.asynccontextmanager
async def following(redis_url: str) -> AsyncIterator[Terminal]:
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
            shown = Shown(master)
            await shown.until("a message to the agent")
            yield Terminal(master, shown, process)
        finally:
            worker.close()
            os.close(slave)
            os.close(master)


async def test_a_person_types_while_a_run_is_followed(redis_url: str) -> None:
    """In a terminal of their own: a line reaches the agent, `!` interrupts it, and the run ends with its status."""
    async with following(redis_url) as terminal:
        os.write(terminal.master, b"one\n!stop, pl\x7flease\n")
        await terminal.ends_with(0)
        await terminal.shown.until("completed")
        assert "interrupted: stop, please" in terminal.shown.text
        assert "one" in terminal.shown.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_whoever_stops_to_follow_has_the_terminal_back(redis_url: str, number: signal.Signals) -> None:
    """With its lines and its echo, and the run goes on."""
    async with following(redis_url) as terminal:
        assert not terminal.edits_lines
        terminal.process.send_signal(number)
        await terminal.ends_with(130)
        assert terminal.edits_lines
        await terminal.shown.until("it goes on")


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
