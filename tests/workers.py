"""Workers as separate processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.edges import ROOT, logged_in, under_load


class WorkerProcess:
    """`python -m emitter MODULE:agents`, the module beside the test. Options by name: `lease_seconds=1`.
    `root`: where the code is. `settings`: those that are no options, as variables."""

    def __init__(
        self,
        redis_url: str,
        agents: str,
        folder: Path,
        *,
        root: Path = ROOT,
        settings: Mapping[str, Any] = {},
        **options: Any,
    ) -> None:
        given = {"redis_url": redis_url, "log_level": "info", **options}
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNCAST_")}
        environ |= {f"RUNCAST_{name.upper()}": str(value) for name, value in settings.items()}
        self._log = tempfile.TemporaryFile(prefix="runcast-worker-")  # noqa: SIM115 - closed by `close`
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "emitter", agents, *flags],
            cwd=folder,
            env={**environ, "PYTHONPATH": str(root)},
            stdout=self._log,
            stderr=self._log,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def log_text(self) -> str:
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode(errors="replace")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log's lines about one kind of event."""
        return logged_in(self.log_text(), event)

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(10)

    async def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM, and wait until it has ended, so long `under_load`; the exit code."""
        self.process.terminate()
        try:
            return await asyncio.to_thread(self.process.wait, under_load(seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the worker did not stop within {seconds:g} s:\n{self.log_text()}") from None

    def close(self) -> None:
        if self.alive:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        self._log.close()
