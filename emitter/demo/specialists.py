"""The specialists of the panel. Each looks for something else in the same code, and reports each finding at once.

A specialist is a function that is given a `Desk` and returns its verdict in a sentence; it raises `CannotWork` where
there is nothing for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

import msgspec

from emitter.demo import findings, smells, thoughts
from emitter.demo.findings import MAX_PLACES, SEVERITIES, Finding
from emitter.demo.reading import Code
from emitter.demo.steps import Steps
from emitter.demo.survey import FoundFile, Reader
from emitter.errors import InputExpired
from emitter.worker.agents import Context

CODE = "the code only"
SPECIMENS = "tests and documents too"
SECRETS = "the files that hold secrets too"
PART = 100
"""Files that are searched in one go: between the parts, the panel can be cancelled."""


class CannotWork(Exception):
    """There is nothing in this directory that a specialist knows about."""


class Desk:
    """What one specialist works with: the code, the emitter under its name, and a person to ask.

    `patience`: seconds that a question waits for its answer; 0: nothing is asked.
    """

    def __init__(self, context: Context, steps: Steps, specialist: str, code: Code, patience: float) -> None:
        self.code = code
        self.findings: list[Finding] = []
        self._context = context
        self._steps = steps
        self._specialist = specialist
        self._patience = patience

    async def step(self, progress: float, action: str) -> None:
        await self._steps.step(progress, action, specialist=self._specialist)
        await self._steps.pause(0.4)

    async def tell(self, result: dict[str, Any]) -> None:
        await self._context.emitter.partial_result(result, specialist=self._specialist)

    async def look(self, progress: float, action: str, work: Callable[[], list[Finding]]) -> None:
        """Look for something in a thread, and tell each finding."""
        await self.step(progress, action)
        for finding in await asyncio.to_thread(work):
            self.findings.append(finding)
            severity = SEVERITIES[finding.severity]
            told = {"finding": finding.title, "severity": severity, "count": finding.count, "places": finding.places}
            await self.tell(told)
            await self._steps.pause(0.3)

    async def choose(self, question: str, options: list[str]) -> str | None:
        """What a person chooses; `None` if nobody does in time."""
        if not self._patience:
            return None
        try:
            answer = await self._context.ask(question, kind="choice", options=options, expires_in=self._patience)
        except InputExpired:
            return None
        return answer if answer in options else None


# --- structure -------------------------------------------------------------------------------------------------------


async def structure_of(desk: Desk) -> str:
    code = desk.code
    if not code.modules:
        raise CannotWork("no Python here that parses, and other languages' imports are not followed")
    central = [f"{name} ({count})" for name, count in code.graph.most_imported[:5]]
    await desk.tell({"modules": len(code.modules), "imports": code.graph.count, "mostImported": central})
    await desk.look(20, "Following imports round in circles", lambda: findings.cycle(code.modules, code.graph))
    await desk.look(50, "Measuring functions", lambda: findings.long(code.modules))
    await desk.look(80, "Measuring files", lambda: findings.big(code.files))
    return await asyncio.to_thread(thoughts.on_graph, code.modules, code.graph)


# --- docs ------------------------------------------------------------------------------------------------------------


async def docs_of(desk: Desk) -> str:
    code = desk.code
    if not code.files:
        raise CannotWork("nothing here that can be read")
    first = findings.readme(code.files)
    await desk.tell({"readme": first and first.path})
    await desk.look(20, "Looking for a README", lambda: [] if first else [_NO_README])
    await desk.look(60, "Searching for notes", lambda: findings.from_spots(smells.grep(code.files, smells.NOTES)))
    return "No README." if first is None else f"Lines of the README: {first.lines:,}."


_NO_README = Finding(2, "no README at the top", "A newcomer has to guess what this is.", [], 1)


# --- security --------------------------------------------------------------------------------------------------------


async def security_of(desk: Desk) -> str:
    """Asks how far to go. Without an answer it stays with the code, and never opens a file that holds secrets."""
    code = desk.code
    if not code.files and not code.secretive:
        raise CannotWork("nothing here to look into")
    for number, rule in enumerate(smells.RISKS):
        work = partial(_search, code, rule)
        await desk.look(5 + 8 * number, f"Searching: {rule.name}", work)
    scope = await _ask_how_far(desk)
    spots = await _credentials(desk, everywhere=scope != CODE)
    if scope == SECRETS:
        await desk.step(85, "Opening the files that hold secrets")
        spots += await asyncio.to_thread(lambda: smells.secrets(Reader(code.root).read(code.secretive)))
    await desk.look(95, "Sorting what was found", lambda: findings.from_spots(spots))
    verdict = f"Files searched for risky calls and credentials: {len(code.files):,}."
    return verdict if scope == SECRETS or not code.secretive else f"{verdict} Not opened: {_named(code.secretive)}."


def _search(code: Code, rule: smells.Rule) -> list[Finding]:
    return findings.from_spots(smells.grep(code.files, rule))


async def _credentials(desk: Desk, *, everywhere: bool) -> list[smells.Spot]:
    files, spots = desk.code.files, []
    for start in range(0, len(files), PART):
        await desk.step(50 + 35 * start / len(files), "Searching: what looks like a credential")
        part = files[start : start + PART]
        spots += await asyncio.to_thread(smells.credentials, part, everywhere=everywhere)
    return spots


async def _ask_how_far(desk: Desk) -> str:
    code = desk.code
    specimens = sum(not smells.is_searched(file) for file in code.files)
    options = [CODE, *([SPECIMENS] if specimens else []), *([SECRETS] if code.secretive else [])]
    closed = [file.path for file in code.secretive[:MAX_PLACES]]
    await desk.tell({"testsAndDocuments": specimens, "filesNotOpened": closed})
    if len(options) == 1:
        return CODE
    question = f"Where shall I look for credentials? Tests and documents may hold specimens: {specimens}."
    if code.secretive:
        question += f" These files hold secrets, by their names: {_named(code.secretive)}."
    await desk.step(40, "Waiting for an answer")
    answer = await desk.choose(question, options)
    await desk.step(45, f"Nobody answered: {CODE}" if answer is None else f"Looking into {answer}")
    return answer or CODE


def _named(files: list[FoundFile]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return ", ".join(file.path for file in files[:3])[:300] + more


# --- all of them -----------------------------------------------------------------------------------------------------

Name = Literal["structure", "docs", "security"]


class Specialist(msgspec.Struct, frozen=True):
    """`work` is the specialist itself."""

    name: str
    task: str
    icon: str
    work: Callable[[Desk], Awaitable[str]]


SPECIALISTS = (
    Specialist("structure", "How the modules depend on each other", "layers", structure_of),
    Specialist("docs", "What is written down", "book", docs_of),
    Specialist("security", "What could be turned against its users", "shield", security_of),
)
