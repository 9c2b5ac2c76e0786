"""Node as a viewer: the client outside of a browser, watched from a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.edges import under_load
from tests.web.browser import NODE

HERE = Path(__file__).resolve().parent
WAIT_SECONDS = 20.0
NODE_SECONDS = 50.0


async def node(*arguments: str, given: bytes | None = None) -> str:
    """Run a script of this folder to its end; what it printed."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE,
        *arguments,
        cwd=HERE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(NODE_SECONDS):
            printed, _ = await process.communicate(given)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


class Viewer:
    """`follow.mjs` of a folder, from `async with` to its end; `ids`, `controls` and `statuses` are what it saw."""

    def __init__(self, urls: list[str], token: str, *, folder: Path = HERE, **given: Any) -> None:
        self._folder = folder
        options = {name: given.pop(name) for name in list(given) if name not in ("fresh", "faults")}
        self._argument = json.dumps({"urls": urls, "token": token, "options": options, **given})
        self._news = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self.ids: list[str] = []
        self.types: list[str] = []
        self.controls: list[tuple[str, dict[str, Any]]] = []
        self.statuses: list[dict[str, Any]] = []
        self.connects: list[dict[str, Any]] = []
        self.refreshed = 0

    async def __aenter__(self) -> Viewer:
        assert NODE is not None
        self._process = await asyncio.create_subprocess_exec(
            NODE,
            "follow.mjs",
            self._argument,
            cwd=self._folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        self._reading = asyncio.create_task(self._read(), name="viewer")
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._process is not None
        assert self._reading is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading

    @property
    def status(self) -> dict[str, Any]:
        return self.statuses[-1] if self.statuses else {"phase": "idle"}

    @property
    def phases(self) -> list[str]:
        """The phases it went through."""
        found = [status["phase"] for status in self.statuses]
        return [phase for before, phase in zip(["", *found], found, strict=False) if phase != before]

    def named(self, name: str) -> list[dict[str, Any]]:
        """What the control events of one name said."""
        return [data for type_, data in self.controls if type_ == name]

    def command(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")

    async def until(self, what: str, condition: Callable[[Viewer], bool]) -> None:
        """Wait until the condition holds, which is looked at whenever something came in; so long `under_load`."""
        try:
            async with asyncio.timeout(under_load(WAIT_SECONDS)):
                while not condition(self):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{what}: not within {WAIT_SECONDS:g} s; {self.status}, {len(self.ids)} ids") from None

    async def until_phase(self, phase: str) -> None:
        await self.until(phase, lambda self: self.status["phase"] == phase)

    async def until_received(self, count: int) -> None:
        await self.until(f"{count} events", lambda self: len(self.ids) >= count)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._take(json.loads(line))
            self._news.set()

    def _take(self, said: dict[str, Any]) -> None:
        if "event" in said:
            self.ids.append(said["event"])
            self.types.append(said["type"])
        elif "control" in said:
            self.controls.append((said["control"], said["data"]))
        elif "status" in said:
            self.statuses.append(said["status"])
        elif "connect" in said:
            self.connects.append(said)
        else:
            self.refreshed += 1
