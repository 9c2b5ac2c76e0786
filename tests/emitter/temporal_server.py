"""A real Temporal server, as its command line's `server start-dev` runs one: alone, in memory, on ports of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from tests.ports import reserved_ports

VARIABLE = "RUNCAST_TEMPORAL"
START_SECONDS = 30.0


def is_wanted() -> bool:
    """Whether there is a server, or somebody says so."""
    return bool(os.environ.get(VARIABLE)) or _binary() is not None


def _binary() -> str | None:
    """The program that `RUNCAST_TEMPORAL` names, or `temporal` in PATH, if there is one."""
    return shutil.which(os.environ.get(VARIABLE) or "temporal")


@contextlib.contextmanager
def temporal_server() -> Iterator[str]:
    """Its address, once it answers."""
    binary = _binary()
    assert binary is not None, f"there is no {os.environ.get(VARIABLE)}"
    with reserved_ports(3) as (port, http, metrics), tempfile.TemporaryFile() as log:
        ports = [f"--port={port}", f"--http-port={http}", f"--metrics-port={metrics}"]
        command = [binary, "server", "start-dev", "--headless", "--ip=127.0.0.1", "--log-level=error", *ports]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(http):
                assert process.poll() is None, os.pread(log.fileno(), 10_000, 0).decode(errors="replace")
                assert time.monotonic() < deadline, f"the server is not there within {START_SECONDS:g} s"
                time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    """Whether the server has made its namespace, which is the last thing it does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/namespaces/default", timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False
