"""Processes of a bench: where they run, what they cost, and that they end."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = {CORES[0]}
"""The server under test has a core to itself; the load client, Redis and the publisher share the others."""
OTHER_CORES = set(CORES[1:] or CORES)


class BenchFailed(Exception):
    """A bench could not be carried out."""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far; resolution 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise BenchFailed(f"no Rss of process {pid}")


def peak_bytes(pid: int) -> int:
    """The largest resident set since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise BenchFailed(f"no VmHWM of process {pid}")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def process(command: Sequence[str | Path], *, on_server_core: bool = False, **options: Any) -> Iterator[Any]:
    """A child process that is ended, at the latest killed, when the block ends."""
    child = subprocess.Popen([str(part) for part in command], **options)
    try:
        os.sched_setaffinity(child.pid, SERVER_CORE if on_server_core else OTHER_CORES)
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class Dialogue:
    """A child that answers each command line on its stdin with one line of JSON."""

    def __init__(self, child: Any) -> None:
        self.pid: int = child.pid
        self._child = child

    def tell(self, line: str) -> None:
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def hear(self) -> dict[str, Any]:
        line = self._child.stdout.readline()
        if not line:
            raise BenchFailed(f"{self._child.args[0]} ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, line: str) -> dict[str, Any]:
        self.tell(line)
        return self.hear()


@contextlib.contextmanager
def dialogue(command: Sequence[str | Path], *, on_server_core: bool = False, **options: Any) -> Iterator[Dialogue]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with process(command, on_server_core=on_server_core, **pipes, **options) as child:
        yield Dialogue(child)


@contextlib.contextmanager
def compiled() -> Iterator[Path]:
    """A directory with the C programs of this folder, compiled for this run."""
    with tempfile.TemporaryDirectory(prefix="runcast-bench-") as name:
        for source in ("load_client", "send_loop"):
            command = ["cc", "-O2", "-o", f"{name}/{source}", str(HERE / f"{source}.c")]
            subprocess.run(command, check=True, timeout=60)
        yield Path(name)


def wait_until(what: str, condition: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchFailed(f"{what}: not within {seconds:g} s")
        time.sleep(0.005)


def machine() -> str:
    """One line on where figures come from."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return f"{len(CORES)} cores ({model}), Linux {platform.release()}, Python {platform.python_version()}"
