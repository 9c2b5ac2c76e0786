"""A minute of the chaos tool: a real Cluster that moves, fails over and is cut apart under viewers, by a fixed seed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.edges import ROOT, eventually
from tests.faults.chaos import hosts

SECONDS = 25
"""Of faults. Starting seven servers, three edges and three workers, the end of what runs, and the look at what is left
take as long again."""

SEED = 3782
"""Its first faults: lost writes, slots that move in both ways, a failover, an edge that is killed."""


@contextlib.asynccontextmanager
async def tool(*options: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.chaos", "--server", "valkey", *options),
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            process.terminate()
            await process.wait()


@pytest.mark.timeout(240)
async def test_a_minute_of_everything(tmp_path: Path) -> None:
    """Every viewer has the log or was told, every execution has its one end, and nothing is left."""
    load = ["--viewers", "36", "--steps", "100", "--seconds", str(SECONDS), "--pauses", "0.5", "2"]
    async with tool("--seed", str(SEED), *load, folder=tmp_path) as process:
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-8000:]


@pytest.mark.timeout(240)
async def test_a_run_that_is_stopped_ends_with_its_report(tmp_path: Path) -> None:
    """It and all of its group are told, as `timeout` does; its servers are not, and end after it."""
    figures = tmp_path / "figures.json"
    load = ["--viewers", "12", "--steps", "20", "--seconds", "600", "--only", "nothing", "--figures", str(figures)]
    async with tool(*load, folder=tmp_path) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while len([line for line in lines if "nothing" in line]) < 2:
            lines.append((await process.stdout.readline()).decode())
            assert lines[-1], "".join(lines)
        process.terminate()
        await asyncio.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        rest, _ = await process.communicate()
    assert process.returncode == 0, rest.decode()
    assert "| (nothing: what the machine does to viewers at the same time) | events | " in rest.decode()
    assert json.loads(figures.read_text())["faults_by_kind"]["nothing"] >= 1


@pytest.mark.timeout(240)
async def test_a_run_that_is_killed_leaves_no_server(tmp_path: Path) -> None:
    if not hosts.are_possible():
        pytest.skip("this machine lets nobody make namespaces")
    async with tool("--viewers", "6", "--only", "nothing", folder=tmp_path) as process:
        assert process.stdout is not None
        await process.stdout.readline()  # all has been started
        assert len(_processes(tmp_path)) >= 6 + 3 + 3
        process.kill()
        await process.wait()
        await eventually("they are gone", lambda: not _processes(tmp_path))


def _processes(folder: Path) -> list[str]:
    """Those whose temporary files are there, or that work there: a server writes over its environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (process / "environ").read_bytes()
            if f"TMPDIR={folder}\0".encode() in environment or (process / "cwd").readlink().is_relative_to(folder):
                found.append(process.name)
    return found
