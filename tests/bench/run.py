"""Runs benches and prints their figures beside the targets.

python tests/bench/run.py [--quick] [--write] [NAME…]
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project, installed or not

from bench_churn import attempts, churn, day
from bench_compress import compress
from bench_control import cancel, replace
from bench_emitter import append, emitter, logs, start
from bench_fanout import burst, fanout
from bench_many import latency, many
from bench_messages import message, talk
from bench_render import render
from bench_replay import replay
from bench_shapes import runs, tokens
from bench_viewers import connects, memory, storm, workers
from figures import Bench, Run, keep, table
from processes import OTHER_CORES, compiled, machine

BENCHES: dict[str, Bench] = {
    "fanout": fanout,
    "burst": burst,
    "compress": compress,
    "many": many,
    "latency": latency,
    "runs": runs,
    "tokens": tokens,
    "memory": memory,
    "connects": connects,
    "storm": storm,
    "workers": workers,
    "replay": replay,
    "append": append,
    "logs": logs,
    "emitter": emitter,
    "start": start,
    "cancel": cancel,
    "replace": replace,
    "message": message,
    "talk": talk,
    "render": render,
    "churn": churn,
    "attempts": attempts,
    "day": day,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure speed and memory; README.md says what each bench does.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default: all of {', '.join(BENCHES)})")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it works, not how fast it is")
    parser.add_argument("--write", action="store_true", help="keep the figures in RESULTS.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHES):
        parser.error(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    os.sched_setaffinity(0, OTHER_CORES)  # this process publishes: it stays off the server's core
    print(machine())
    with compiled() as binaries:
        return max([show(name, Run(binaries, arguments.quick), write=arguments.write) for name in names(arguments)])


def names(arguments: argparse.Namespace) -> list[str]:
    return arguments.names or list(BENCHES)


def show(name: str, run: Run, *, write: bool) -> int:
    """Run one bench; 1 if it missed a target."""
    began = time.monotonic()
    print(f"\n{name} …", flush=True)
    figures = BENCHES[name](run)
    print(table(figures), f"\n({time.monotonic() - began:.0f} s)", flush=True)
    if write and not run.quick:
        keep(name, figures, f"python tests/bench/run.py {name}", datetime.datetime.now(datetime.UTC).date().isoformat())
    return int(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
