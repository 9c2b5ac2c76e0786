"""How long viewers were without events, by the fault that did it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tests.faults.chaos.viewers import QUIET_SECONDS, Quiet

LATE_SECONDS = 2.0
"""A pause that begins so long after a fault is over is still its doing: retries have their own times."""


class Struck(NamedTuple):
    """A fault that was carried out: from when to when (monotonic), until all was whole again."""

    kind: str
    begin: float
    end: float


class Outage(NamedTuple):
    """Of one kind. `times`: how often it was done; `watching`: viewers that were there; `longest`: of each of them that
    noticed, how long nothing came (s)."""

    kind: str
    times: int
    watching: int
    longest: list[float]

    @property
    def noticed(self) -> float:
        return len(self.longest) / self.watching if self.watching else 0.0

    def percentile(self, percent: float) -> float:
        """Over those that noticed, by the nearest rank; 0 if nobody did."""
        ranked = sorted(self.longest)
        return ranked[max(0, math.ceil(percent / 100 * len(ranked)) - 1)] if ranked else 0.0


class Seen(NamedTuple):
    """One viewer: from when to when it watched, and its pauses."""

    begin: float
    end: float
    quiet: Sequence[Quiet]


class _OfKind:
    def __init__(self) -> None:
        self.times, self.watching = 0, 0
        self.longest: list[float] = []


class Outages:
    """A pause is the doing of the fault in whose time it began, or shortly before (the last event came a moment before
    the fault). Faults come one after the other."""

    def __init__(self) -> None:
        self._struck: list[Struck] = []
        self._by_kind: dict[str, _OfKind] = {}
        self._waiting: list[Seen] = []

    def strike(self, fault: Struck) -> None:
        """A fault is over."""
        self._struck.append(fault)
        self._by_kind.setdefault(fault.kind, _OfKind()).times += 1
        self.settle()

    def add(self, seen: Seen) -> None:
        """A viewer is done. Nothing of it is kept beyond the end of the fault that it may have seen begin."""
        self._waiting.append(seen)

    def settle(self) -> None:
        """No fault is under way."""
        for seen in self._waiting:
            for fault in reversed(self._struck):
                if fault.begin < seen.begin:
                    break
                if fault.begin <= seen.end:
                    self._count(fault, seen)
        self._waiting.clear()

    def _count(self, fault: Struck, seen: Seen) -> None:
        of_kind = self._by_kind[fault.kind]
        of_kind.watching += 1
        pauses = [
            quiet.end - quiet.begin
            for quiet in seen.quiet
            if fault.begin - QUIET_SECONDS <= quiet.begin <= fault.end + LATE_SECONDS
        ]
        if pauses:
            of_kind.longest.append(max(pauses))

    def found(self) -> list[Outage]:
        """In the order of kinds."""
        return [Outage(kind, of.times, of.watching, of.longest) for kind, of in sorted(self._by_kind.items())]


def as_markdown(found: Iterable[Outage], words: Mapping[str, tuple[str, str]]) -> str:
    """A table for people. `words`: kind → what it is, what a viewer sees."""
    rows = [
        "| fault | what a viewer sees | times | viewers that noticed | seconds without events, p50 | p99 |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for each in found:
        none = f"< {QUIET_SECONDS}"
        middle, most = (f"{each.percentile(percent):.1f}" if each.longest else none for percent in (50, 99))
        rows.append(f"| {' | '.join(words[each.kind])} | {each.times} | {each.noticed:.0%} | {middle} | {most} |")
    return "\n".join(rows)


def as_json(found: Iterable[Outage]) -> list[dict[str, object]]:
    return [
        {
            "kind": each.kind,
            "times": each.times,
            "watching": each.watching,
            "noticed": len(each.longest),
            "p50": round(each.percentile(50), 2),
            "p99": round(each.percentile(99), 2),
        }
        for each in found
    ]
