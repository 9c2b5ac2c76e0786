"""What a bench returns, and how it is printed and kept."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from processes import HERE, machine

RESULTS = HERE / "RESULTS.md"
MARK = "<!-- figures: {name} -->"


class Figure(NamedTuple):
    """One measured value. `met` is None where there is no target; `note` says what the value is made of."""

    what: str
    value: float
    unit: str = ""
    target: str = ""
    met: bool | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        return {None: "", True: "met", False: "MISSED"}[self.met]


class Run(NamedTuple):
    """What every bench gets: the compiled C programs, and whether to be quick (smaller, and good for nothing else
    than seeing that it works)."""

    binaries: Path
    quick: bool

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


Bench = Callable[[Run], list[Figure]]


def at_most(what: str, value: float, unit: str, limit: float, note: str = "") -> Figure:
    return Figure(what, value, unit, f"≤ {limit:g}", value <= limit, note)


def at_least(what: str, value: float, unit: str, limit: float, note: str = "") -> Figure:
    return Figure(what, value, unit, f"≥ {limit:g}", value >= limit, note)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def number(value: float) -> str:
    if value >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def table(figures: Sequence[Figure]) -> str:
    lines = ["| what | measured | target | | made of |", "|---|---|---|---|---|"]
    for each in figures:
        measured = f"{number(each.value)} {each.unit}".strip()
        lines.append(f"| {each.what} | {measured} | {each.target} | {each.verdict} | {each.note} |")
    return "\n".join(lines)


def keep(name: str, figures: Sequence[Figure], command: str, date: str) -> None:
    """Replace the section of one bench in RESULTS.md."""
    text = RESULTS.read_text() if RESULTS.exists() else "# Results\n"
    body = f"{MARK.format(name=name)}\n## {name}\n\n{date}, `{command}`, {machine()}\n\n{table(figures)}\n\n"
    section = re.compile(re.escape(MARK.format(name=name)) + r".*?(?=<!-- figures: |\Z)", re.DOTALL)
    text = section.sub("", text).rstrip("\n") + "\n\n" + body
    RESULTS.write_text(text.rstrip("\n") + "\n")
