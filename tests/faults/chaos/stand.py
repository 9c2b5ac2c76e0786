"""What is broken: edges, workers and Redis as processes, and what was lost of it on purpose or by accident."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.edges import EdgeProcess
from tests.faults.chaos import kept
from tests.faults.chaos.topology import Topology
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
LEASE_SECONDS = 5
KEEP_SECONDS = 300
"""Logs and records of what is over: longer than they are compared for, and short enough for Redis to stay small."""
LIMITS = {"feed_maxlen": 30_000, "log_finished_ttl_seconds": KEEP_SECONDS}
"""Of edges and workers."""
SETTINGS: dict[str, Any] = {
    "heartbeat_seconds": 2,
    "executes_per_minute": 0,
    "max_connections_per_user": 0,
    "lease_seconds": LEASE_SECONDS,
    "log_level": "warning",
    **LIMITS,
}


class Stand:
    def __init__(self, topology: Topology, edges: list[EdgeProcess], users: list[str], workers: int) -> None:
        self.topology = topology
        self.edges = edges
        self.users = users
        self.workers = [self.new_worker() for _ in range(workers)]
        self.losses: list[tuple[float, str]] = []
        """When acknowledged writes may have been lost (monotonic; the end of it), and how."""
        self._next_edge = itertools.count()

    def new_worker(self) -> WorkerProcess:
        options = {"lease_seconds": LEASE_SECONDS, "grace_seconds": 1, "concurrency": 200, "log_level": "warning"}
        return WorkerProcess(self.topology.url, "chaos_agents:agents", HERE, settings=LIMITS, **options)

    def dead(self) -> list[str]:
        """Edges and workers that have ended, and the last that they said; while no fault is carried out."""
        ended = [edge.log_text() for edge in self.edges if edge.process is None or edge.process.poll() is not None]
        ended += [worker.log_text() for worker in self.workers if not worker.alive]
        return [f"a process has ended by itself: {text[-1000:]}" for text in ended]

    def replace_worker(self, number: int) -> None:
        self.workers[number].close()
        self.workers[number] = self.new_worker()

    def edges_from(self, number: int) -> list[EdgeProcess]:
        """All edges, beginning with one."""
        first = number % len(self.edges)
        return self.edges[first:] + self.edges[:first]

    def next_port(self) -> int:
        return self.edges[next(self._next_edge) % len(self.edges)].port

    def note_loss(self, how: str) -> None:
        self.losses.append((time.monotonic(), how))

    def has_lost_since(self, moment: float) -> bool:
        return any(at >= moment for at, _ in self.losses)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()

    def processes(self) -> dict[str, int]:
        """Name → process id, of those there are now."""
        found = {"tool": os.getpid()}
        found |= {f"edge {number}": edge.pid for number, edge in enumerate(self.edges)}
        found |= {f"worker {number}": worker.pid for number, worker in enumerate(self.workers)}
        return found | self.topology.servers()

    def memory(self) -> dict[str, float]:
        """MB of each process."""
        found = {}
        for name, pid in self.processes().items():
            with contextlib.suppress(OSError, KeyError):
                found[f"{name} MB"] = round(int(_status(pid)["VmRSS"].split()[0]) / 1024, 1)
        return found

    def cpu(self) -> dict[int, float]:
        """Process id → seconds that it has used."""
        found = {}
        for pid in self.processes().values():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                found[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return found

    def figures(self) -> dict[str, float]:
        """Of edges: descriptors, threads and clients' connections. The memory of all but servers, which have data,
        and the tool, which keeps for a while what it has seen."""
        found = {name: mb for name, mb in self.memory().items() if not name.startswith(("server", "tool"))}
        for number, edge in enumerate(self.edges):
            found[f"edge {number} threads"] = int(_status(edge.pid)["Threads"])
            found[f"edge {number} descriptors"] = len(list(Path(f"/proc/{edge.pid}/fd").iterdir()))
            found[f"edge {number} clients"] = edge.metric("runcast_sockets")
        return found


def _status(pid: int) -> dict[str, str]:
    return dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


STARTED_MB = 50.0
"""Of a process that has imported what it needs."""


def most(name: str, before: float) -> float:
    """How much of a figure may be left in the end. Memory: the allocator keeps some of the highest that was used;
    descriptors: clients of Redis keep their connections."""
    kind = name.rpartition(" ")[2]
    allowed = {"MB": 2 * max(before, STARTED_MB) + 30, "descriptors": before + 200, "threads": before + 4}
    return allowed.get(kind, before)


SETTLED_SECONDS = max(KEEP_SECONDS, kept.KEEP_SECONDS) + 120.0
"""After so long as much expires as is written, here and in Redis."""


def by_sort(memory: Mapping[str, float]) -> dict[str, float]:
    """MB of all edges, of all servers and so on: one server has the slots that another had before."""
    found: Counter[str] = Counter()
    for name, mb in memory.items():
        found[f"{name.partition(' ')[0]} MB"] += mb  # type: ignore[assignment]
    return dict(found)


def most_when_settled(_: str, before: float) -> float:
    """How much memory processes may have in the end, that had so much when all had settled."""
    return 2 * before + 60
