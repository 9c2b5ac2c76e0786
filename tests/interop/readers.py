"""The readers of deploy/examples/readers: `python -m tests.interop.readers` builds those that are compiled."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "readers"
MAVEN = ("mvn", "-q", "-B", "compile", "dependency:copy-dependencies")
BUILDS = {
    "go": (("go", "build", "-o", "target/reader", "."),),
    "rust": (("cargo", "build", "--quiet", "--release"),),
    "okhttp": (MAVEN,),
    "ktor": (MAVEN,),
}
"""Of each folder: what the first lines of the example say, and with it the program that is needed."""
JAVA = ("java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp")
RUNS: dict[str, tuple[str, ...]] = {
    "httpx": (sys.executable, "httpx_reader.py"),
    "aiohttp": (sys.executable, "aiohttp_reader.py"),
    "node": ("node", "reader.mjs"),
    "go": ("go/target/reader",),
    "rust": ("rust/target/release/runcast-reader",),
    "okhttp": (*JAVA, "okhttp/target/classes:okhttp/target/dependency/*", "Reader"),
    "ktor": (*JAVA, "ktor/target/classes:ktor/target/dependency/*", "ReaderKt"),
}
BUILD_SECONDS = 600.0


def build(name: str) -> str | None:
    """Build one, if it was not yet; why it cannot be."""
    folder = FOLDER / name
    sources = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and "target" not in path.parts and path.name != "Cargo.lock"
    )
    stamp, digest = folder / "target" / "stamp", hashlib.sha256()
    for path in sources:
        digest.update(path.read_bytes())
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return None
    for command in BUILDS[name]:
        if shutil.which(command[0]) is None:
            return f"needs {command[0]}"
        try:
            environ = {**os.environ, "GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local"}
            subprocess.run(
                command, cwd=folder, env=environ, check=True, timeout=BUILD_SECONDS, capture_output=True, text=True
            )
        except (subprocess.SubprocessError, OSError) as error:
            return f"could not be built: {getattr(error, 'stderr', None) or error}"
    stamp.write_text(digest.hexdigest())
    return None


def missing(name: str) -> str | None:
    """Why a reader cannot run here, within a test: nothing is fetched for long."""
    if name in BUILDS:
        return (
            None
            if (FOLDER / name / "target" / "stamp").exists()
            else f"`python -m tests.interop.readers` builds {name}"
        )
    return None if shutil.which(RUNS[name][0]) else f"needs {RUNS[name][0]}"


class Reader:
    """One that runs. `lines`: what it has printed, an id and an event each."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.lines: list[tuple[str, str]] = []
        self._process = process
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._read(), name=f"reader {name}")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event_id, _, data = line.decode().rstrip("\n").partition(" ")
            self.lines.append((event_id, data))
            self._news.set()

    async def until(self, what: str, condition: Callable[[Reader], bool], seconds: float = 60.0) -> None:
        """Wait until its lines are so."""
        try:
            async with asyncio.timeout(seconds):
                while not condition(self):
                    assert not self._task.done(), f"{self.name} ended before: {what}; {await self.error()}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{self.name}: {what}: not within {seconds:g} s; {len(self.lines)} lines") from None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self, seconds: float = 60.0) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            async with asyncio.timeout(seconds):
                await self._task
                return await self._process.wait()
        except TimeoutError:
            raise AssertionError(f"{self.name} did not end; {len(self.lines)} lines") from None

    async def error(self) -> str:
        assert self._process.stderr is not None
        return (await self._process.stderr.read()).decode(errors="replace")[-2000:]

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._process.wait()


@contextlib.asynccontextmanager
async def running(names: Sequence[str], url: str, token: str) -> AsyncIterator[list[Reader]]:
    """All of these, on one stream."""
    async with contextlib.AsyncExitStack() as stack:
        readers = []
        for name in names:
            program, *arguments = RUNS[name]
            process = await asyncio.create_subprocess_exec(
                str(FOLDER / program) if "/target/" in program else program,
                *arguments,
                url,
                token,
                cwd=FOLDER,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=2**22,
            )
            readers.append(Reader(name, process))
            stack.push_async_callback(readers[-1].close)
        yield readers


if __name__ == "__main__":
    found = {name: reason for name in BUILDS if (reason := build(name))}
    sys.exit("\n".join(f"{name}: {reason}" for name, reason in found.items()) or 0)
