"""Vite as developers run it, from the packages of deploy/examples/react."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.edges import ROOT
from tests.ports import reserved_ports
from tests.web.browser import NODE

EXAMPLE = ROOT / "deploy" / "examples" / "react"
_VITE = EXAMPLE / "node_modules" / "vite" / "bin" / "vite.js"
START_SECONDS = 30.0


def build(folder: Path, *arguments: str) -> None:
    """`vite build` in a folder."""
    done = subprocess.run(
        [str(NODE), str(_VITE), "build", *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def served(folder: Path, command: str, edge: str, log: Path, *arguments: str) -> Iterator[str]:
    """The URL of a folder's application under `vite preview` (what was built) or `vite dev`. Its configuration passes
    on what goes to `RUNCAST_URL`, which is `edge`."""
    with contextlib.ExitStack() as stack:
        (port,) = stack.enter_context(reserved_ports(1))
        options = ["--host", "127.0.0.1", "--port", str(port), "--strictPort", *arguments]
        output = stack.enter_context(log.open("w"))
        given = {**os.environ, "RUNCAST_URL": edge}
        process = subprocess.Popen(
            [str(NODE), str(_VITE), command, *options], cwd=folder, env=given, stdout=output, stderr=subprocess.STDOUT
        )
        stack.callback(process.wait, 10)
        stack.callback(process.terminate)
        url = f"http://127.0.0.1:{port}/"
        _until_served(url, process, log)
        yield url


def _until_served(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=5):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
