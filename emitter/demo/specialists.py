"""The specialists of the panel. Each looks at the same code for something else, and says what it finds as it finds it.

A specialist is a function that is given a `Desk` and returns its verdict in a sentence; it raises `CannotWork` where
there is nothing for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

import msgspec

from emitter.demo import documents, findings, outline, smells, structure, thoughts
from emitter.demo.findings import MAX_PLACES, SEVERITIES, Finding
from emitter.demo.python_code import Spot
from emitter.demo.reading import Code
from emitter.demo.steps import Steps
from emitter.demo.survey import FoundFile, Reader, SourceFile
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
    """What one specialist works with: the code, a voice of its own, and a person to ask.

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
            await self.tell(
                {
                    "finding": finding.title,
                    "severity": SEVERITIES[finding.severity],
                    "count": finding.count,
                    "places": finding.places,
                }
            )
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
    outside = sorted(code.graph.outside, key=lambda name: -code.graph.outside[name])
    await desk.tell(
        {
            "modules": len(code.modules),
            "entryPoints": outline.entry_points(code.files)[:5],
            "mostImported": [f"{name} ({count})" for name, count in code.graph.most_imported[:5]],
            "packagesFromOutside": outside[:8],
        }
    )
    await desk.look(20, "Following imports round in circles", lambda: structure.rings(code.modules, code.graph))
    await desk.look(50, "Looking for the middle", lambda: structure.middle(code.modules, code.graph))
    await desk.look(70, "Measuring files", lambda: findings.big(code.files))
    await desk.look(90, "Counting what does not parse", lambda: findings.broken(code.unparsable))
    verdict = await asyncio.to_thread(thoughts.on_graph, code.modules, code.graph)
    return verdict or f"{len(code.modules)} modules that hardly know each other."


# --- quality ---------------------------------------------------------------------------------------------------------


async def quality_of(desk: Desk) -> str:
    code = desk.code
    written = [file for file in code.files if file.is_code]
    if not written:
        raise CannotWork("no code here in a language that it knows")
    lines = await asyncio.to_thread(lambda: sum(file.lines for file in written))
    functions = sum(len(module.functions) for module in code.modules)
    await desk.tell({"files": len(written), "lines": lines, "pythonFunctions": functions})
    await desk.look(5, "Measuring functions", lambda: findings.long(code.modules))
    await desk.look(15, "Counting branches", lambda: findings.branchy(code.modules))
    spots = [spot for module in code.modules for spot in module.spots if spot.rule not in smells.RISKS]
    await desk.look(25, "Looking at error handling and defaults", lambda: findings.from_spots(spots))
    rules = [rule for rule in smells.RULES if rule.name not in smells.RISKS and smells.applies(rule, written)]
    for number, rule in enumerate(rules):
        await desk.look(30 + 65 * number / len(rules), f"Searching: {rule.name}", partial(_search, written, rule))
    verdict = await asyncio.to_thread(thoughts.on_functions, code.modules)
    return verdict or f"Lines of code: {lines:,}, in files: {len(written):,}."


def _search(files: list[SourceFile], rule: smells.Rule) -> list[Finding]:
    return findings.from_spots(smells.grep(files, rule))


# --- docs ------------------------------------------------------------------------------------------------------------


async def docs_of(desk: Desk) -> str:
    code = desk.code
    if not code.files:
        raise CannotWork("nothing here that can be read")
    has, public = await asyncio.to_thread(findings.documented, code.modules)
    first = documents.readme(code.files)
    await desk.tell({"readme": first and first.path, "publicNames": public, "withDocstring": has})
    await desk.look(20, "Looking for a README and a licence", lambda: _papers(code))
    await desk.look(50, "Looking for what explains nothing", lambda: _unexplained(code))
    await desk.look(75, "Following links", lambda: findings.from_spots(documents.lost_links(code.root, code.files)))
    says = "No README." if first is None else f"Lines of the README: {first.lines:,}."
    return f"{says} Public Python names with a docstring: {has:,} of {public:,}."


def _papers(code: Code) -> list[Finding]:
    found, first = [], documents.readme(code.files)
    if first is None:
        found.append(Finding(2, "no README at the top", "A newcomer has to guess what this is.", [], 1))
    elif not documents.shows_an_example(first):
        why = "The first thing a reader tries is what can be copied."
        found.append(Finding(1, "a README without an example", why, [f"{first.path}:1"], 1, frozenset([first.path])))
    if not documents.has_licence(code.root):
        found.append(Finding(1, "no licence at the top", "Without one, nobody else may use it.", [], 1))
    return found


def _unexplained(code: Code) -> list[Finding]:
    found = documents.unexplained(code.modules)
    if not found:
        return []
    why = f"Public, {documents.EXPLAIN_LINES} lines or more, and a name is all that tells what they do."
    places = [f"{m.path}:{f.line} {f.name} ({f.length} lines)" for m, f in found[:MAX_PLACES]]
    paths = frozenset(module.path for module, _ in found)
    return [Finding(1, "public functions without a docstring", why, places, len(found), paths)]


# --- tests -----------------------------------------------------------------------------------------------------------


async def tests_of(desk: Desk) -> str:
    code = desk.code
    if not any(file.is_code for file in code.files):
        raise CannotWork("no code here that could be tested")
    facts = await asyncio.to_thread(findings.test_facts, code.files, code.modules, code.graph)
    await desk.tell(
        {"testFiles": facts.files, "testFunctions": facts.functions, "linesPerLineOfCode": round(facts.ratio, 2)}
    )
    await desk.look(30, "Matching tests with modules", lambda: findings.tests(facts, code.modules))
    tests = [file for file in code.files if file.is_test]
    for number, rule in enumerate(smells.TEST_RULES):
        await desk.look(50 + 25 * number, f"Searching: {rule.name}", partial(_search, tests, rule))
    return thoughts.on_tests(facts)


# --- security --------------------------------------------------------------------------------------------------------


async def security_of(desk: Desk) -> str:
    """Asks how far to go. Without an answer it stays with the code, and never opens a file that holds secrets."""
    code = desk.code
    if not code.files and not code.secretive:
        raise CannotWork("nothing here to look into")
    spots = await _risky_calls(desk)
    await desk.look(35, "Sorting what was found", lambda: findings.from_spots(spots))
    scope = await _ask_how_far(desk)
    spots = await _credentials(desk, everywhere=scope != CODE)
    if scope == SECRETS:
        await desk.step(85, "Opening the files that hold secrets")
        spots += await asyncio.to_thread(lambda: smells.secrets(Reader(code.root).read(code.secretive)))
    await desk.look(95, "Sorting what was found", lambda: findings.from_spots(spots))
    verdict = f"Files searched for risky calls and credentials: {len(code.files):,}."
    return verdict if scope == SECRETS or not code.secretive else f"{verdict} Not opened: {_named(code.secretive)}."


async def _risky_calls(desk: Desk) -> list[Spot]:
    code = desk.code
    spots = [spot for module in code.modules for spot in module.spots if spot.rule in smells.RISKS]
    rules = [rule for rule in smells.RULES if rule.name in smells.RISKS and smells.applies(rule, code.files)]
    for number, rule in enumerate(rules):
        await desk.step(5 + 30 * number / len(rules), f"Searching: {rule.name}")
        spots += await asyncio.to_thread(smells.grep, code.files, rule)
    return spots


async def _credentials(desk: Desk, *, everywhere: bool) -> list[Spot]:
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

Name = Literal["structure", "quality", "docs", "tests", "security"]


class Specialist(msgspec.Struct, frozen=True):
    """`work` is the specialist itself."""

    name: str
    task: str
    icon: str
    work: Callable[[Desk], Awaitable[str]]


SPECIALISTS = (
    Specialist("structure", "How the modules hang together", "layers", structure_of),
    Specialist("quality", "How the code is written", "gauge", quality_of),
    Specialist("docs", "What is written down", "book", docs_of),
    Specialist("tests", "How the code is tested", "check", tests_of),
    Specialist("security", "What could be turned against its users", "shield", security_of),
)
