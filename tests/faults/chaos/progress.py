"""What is told of a run while it goes on: a line every ten seconds, and figures in a file every minute, so that a run
that is cut still has them."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.faults.chaos.stand import Stand

LINE_SECONDS = 10.0
FILE_SECONDS = 60.0


def _idle() -> float:
    """Seconds, of all cores."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


class Meter:
    """Rates since it was read before. A process that was not there then counts from the next time on."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._at, self._delivered, self._cpu, self._was_idle = time.monotonic(), 0, stand.cpu(), _idle()

    def read(self, delivered: int) -> dict[str, Any]:
        """Deliveries per second, and per cent of a core that each sort of process used, or nobody did."""
        now, cpu, idle = time.monotonic(), self._stand.cpu(), _idle()
        seconds = max(now - self._at, 0.001)
        used: Counter[str] = Counter()
        for name, pid in self._stand.processes().items():
            if pid in cpu and pid in self._cpu:
                used[name.partition(" ")[0]] += round(100 * (cpu[pid] - self._cpu[pid]) / seconds)
        used["idle"] = round(100 * (idle - self._was_idle) / seconds)
        rate = round((delivered - self._delivered) / seconds)
        self._at, self._delivered, self._cpu, self._was_idle = now, delivered, cpu, idle
        return {"per_second": rate, "cpu_percent": dict(used)}


def write(file: Path, figures: dict[str, Any]) -> None:
    """Whole, or as it was before."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(figures, indent=1) + "\n")
    part.replace(file)
