"""Servers on hosts of their own: each in a network namespace with a cable to a switch, so that some can be cut off from
others and not from clients. Everything ends with its process: a namespace with its server, the switch with the tool.

Needs root, or a kernel that lets users make namespaces. The tool itself runs in a namespace as well (`enter`), so that
no address of the machine is used.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.clusters import Node

NET = "10.77.0."
ENTERED = "CHAOS_HAS_SWITCH"
ONE_SECONDS = 3.0
"""Signals within this are one: `timeout` sends two, to its program and to all of its group. It may be held up between
them."""
_SELF = "/proc/self/ns/net"
_cables = itertools.count(1)


def _unshare() -> list[str]:
    """Namespaces of networks and of processes, which end with the program that is process 1 of them."""
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        *root,
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]


def are_possible() -> bool:
    """Whether this process can make namespaces, and cables between them."""
    if not all(map(shutil.which, ("setpriv", "unshare", "nsenter", "ip"))):
        return False
    try_it = "ip link set lo up && ip link add try0 type veth peer name try1 && ip link add try2 type bridge"
    return subprocess.run([*_unshare(), "sh", "-c", try_it], capture_output=True, check=False).returncode == 0


def enter(module: str, arguments: Sequence[str]) -> None:
    """Start this program again in namespaces with a switch; return there. What is left of a program that was killed is
    ended by the kernel. Its servers are in a group of their own: `timeout`, and a terminal, signal all of a group."""
    numbers = {signal.SIGINT, signal.SIGTERM}
    if os.environ.get(ENTERED):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "switch", "type", "bridge")
        _run("ip", "address", "add", f"{NET}1/24", "dev", "switch")
        _run("ip", "link", "set", "switch", "up")
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    command = [*_unshare(), sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, env=os.environ | {ENTERED: "1"}, start_new_session=True)
    while process.poll() is None:
        if signal.sigtimedwait(numbers, 0.5) is not None:
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)
            time.sleep(ONE_SECONDS)
            while signal.sigtimedwait(numbers, 0) is not None:
                pass
    sys.exit(process.returncode)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)


class HostNode(Node):
    """A server on a host of its own. `number` makes its address."""

    def __init__(self, number: int, *arguments: str, server: str | None = None) -> None:
        super().__init__(6379, *arguments, server=server)
        self.host = f"{NET}{10 + number}"

    def _launch(self, command: list[str]) -> None:
        # The shell waits for its network, then becomes the server: one process, whose end ends the namespace.
        wait = ["unshare", "--net", "sh", "-c", 'read -r go && exec "$@"', "sh", *command]
        process = self._process = subprocess.Popen(wait, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        own, deadline = Path(_SELF).readlink(), time.monotonic() + 10
        while Path(f"/proc/{process.pid}/ns/net").readlink() == own:
            assert time.monotonic() < deadline, "no namespace in time"
            time.sleep(0.005)
        cable = f"cable{next(_cables)}"
        # One hardware address for as long as it lives: what the others remember of it stays true after a restart.
        address = f"02:00:0a:4d:00:{self.host.rpartition('.')[2]:0>2}"
        peer = ("peer", "name", "eth0", "address", address, "netns", str(process.pid))
        _run("ip", "link", "add", cable, "type", "veth", *peer)
        _run("ip", "link", "set", cable, "master", "switch", "up")
        inside = f"ip link set lo up && ip address add {self.host}/24 dev eth0 && ip link set eth0 up"
        self._inside("sh", "-c", inside)
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()

    def _inside(self, *command: str) -> None:
        assert self._process is not None
        _run("nsenter", "--net", "--target", str(self._process.pid), *command)

    def cut_from(self, others: Iterable[Node]) -> None:
        """Nothing goes to these hosts any more, so that no answer comes back to what they send."""
        for other in others:
            self._inside("ip", "route", "add", "blackhole", f"{other.host}/32")

    def join(self, others: Iterable[Node]) -> None:
        for other in others:
            self._inside("ip", "route", "delete", "blackhole", f"{other.host}/32")
