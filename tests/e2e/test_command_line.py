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

from tests.edges import ALL_SCOPES, ROOT, EdgeProcess, call, token_for, until_announced
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
ALICE = token_for("alice")
Said = tuple[int, str, str]

pytestmark = pytest.mark.timeout(180)  # many commands, each a process


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


async def until(at: EdgeProcess, execution_id: str, state: str) -> None:
    async with asyncio.timeout(60):
        while (await call(at.port, "GET", f"/api/agent/executions/{execution_id}", ALICE)).body["status"] != state:
            await asyncio.sleep(0.05)


async def test_an_execution_is_listed_answered_and_cancelled(two_edges: list[EdgeProcess], redis_url: str) -> None:
    """The newest are lines; a question is listed with its options and answered by an option's number; another one is
    cancelled. What cannot be is one line on standard error and status 2 or 1."""
    started = two_edges[0]
    worker = WorkerProcess(redis_url, "choice_agents:agents", HERE, grace_seconds=0)
    try:
        runcast = commands(started.port)
        await until_announced(started, "chooser")
        body = {"agent": "chooser", "task": "pick a colour"}
        ids = []
        for _ in range(2):
            answer = await call(started.port, "POST", "/api/agent/execute", ALICE, body)
            ids.append(answer.body["executionId"])
        await until(started, ids[0], "waiting_input")
        asked = (await runcast("answer", ids[0]))[1].splitlines()
        assert "colour" in asked[0]
        assert asked[1:] == ["  1  red", "  2  blue"]
        status, listed, _ = await runcast("ls")
        rows = [line.split() for line in listed.splitlines()]
        assert (status, [row[0] for row in rows]) == (0, ids[::-1])
        assert all("chooser" in row and "pick" in row for row in rows)
        assert (await runcast("ls", "COLOUR", ids[0][-6:], "--agent", "chooser"))[1].split()[0] == ids[0]
        assert (await runcast("ls", "no-such-word")) == (0, "", "")
        assert f"/#/shared/{ids[0]}/share_" in (await runcast("share", ids[0], "--hours", "1"))[1]
        assert (await runcast("answer", ids[0], "3"))[::2] == (2, "runcast: one of 1 to 2, please: red, blue\n")
        assert (await runcast("answer", ids[0], "2"))[0] == 0
        assert (await runcast("answer", ids[0], "2", "--input", "in_0"))[0] == 2
        assert (await runcast("cancel", ids[1], "--reason", "enough"))[0] == 0
        for execution_id, state in zip(ids, ("completed", "cancelled"), strict=True):
            await until(started, execution_id, state)
            assert [line.split()[0] for line in (await runcast("ls", "--state", state))[1].splitlines()] == [
                execution_id
            ]
        assert (await runcast("cancel", "ex_nothing"))[0] == 1
    finally:
        worker.close()


async def test_an_execution_is_started_again(two_edges: list[EdgeProcess], redis_url: str) -> None:
    """As a new one with its agent, task, parameters and budget, some of them replaced. What had credentials needs
    them again; what was never requested is refused."""
    started = two_edges[0]
    worker = WorkerProcess(redis_url, "choice_agents:agents", HERE, grace_seconds=0)
    try:
        runcast = commands(started.port)
        params = '{"size": 1, "shape": {"corners": 3}, "password": "hunter2-hunter2"}'
        command = ("run", "chooser", "pick", "--params", params, "--budget", "toolCalls=9")
        await until_announced(started, "chooser")
        first = await runcast(*command)
        assert first[0] == 0, first
        first_id = first[1].strip()
        status, _, said = await runcast("retry", first_id)
        assert (status, "credentials are not kept" in said) == (2, True)
        again = await runcast("retry", first_id, "--task", "pick again", "--params", '{"size": 2, "password": "x"}')
        assert again[0] == 0, again
        path = f"/api/agent/executions/{again[1].strip()}/request"
        given = (await call(started.port, "GET", path, ALICE)).body
        assert (given["agent"], given["task"], given["budget"]) == ("chooser", "pick again", {"toolCalls": 9})
        assert given["params"] == {"size": 2, "shape": {"corners": 3}, "password": "[redacted]"}
        assert again[1] != first[1]
        await call(
            *(started.port, "POST", "/api/agent/executions/ex_published/events"),
            token_for("alice", scopes=ALL_SCOPES),
            {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}},
        )  # fmt: skip
        assert "not started by a request" in (await runcast("retry", "ex_published"))[2]
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
        async with asyncio.timeout(60):
            assert await self.process.wait() == status


@contextlib.asynccontextmanager
async def following(at: EdgeProcess, redis_url: str) -> AsyncIterator[Terminal]:
    master, slave = pty.openpty()
    worker = WorkerProcess(redis_url, "message_agents:agents", HERE, grace_seconds=0)
    try:
        await until_announced(at, "patient")
        url = f"http://127.0.0.1:{at.port}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "broker", "run", "patient", "work", "--follow", "--url", url, "--token", ALICE),
            cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # nohup ignores it
        )  # fmt: skip
        shown = Shown(master)
        await shown.until("a message to the agent")
        yield Terminal(master, shown, process)
    finally:
        worker.close()
        os.close(slave)
        os.close(master)


async def test_a_person_types_while_a_run_is_followed(two_edges: list[EdgeProcess], redis_url: str) -> None:
    """In a terminal of their own: a line reaches the agent, `!` interrupts it, and the run ends with its status."""
    async with following(two_edges[0], redis_url) as terminal:
        os.write(terminal.master, b"one\n!stop, pl\x7flease\n")
        await terminal.ends_with(0)
        for text in ("completed", "interrupted: stop, please"):
            await terminal.shown.until(text)
        assert "one" in terminal.shown.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_whoever_stops_to_follow_has_the_terminal_back(
    two_edges: list[EdgeProcess], redis_url: str, number: signal.Signals
) -> None:
    """With its lines and its echo, and the run goes on."""
    async with following(two_edges[0], redis_url) as terminal:
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
        async with asyncio.timeout(60):
            while text not in self.text:
                self._more.clear()
                await self._more.wait()
