"""`analyst`: surveys the code in a directory, tells what it finds as it goes, and writes a report if it may."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from emitter.agents import Context
from emitter.demo import findings, outline, python_code, report, smells, thoughts
from emitter.demo.findings import Facts
from emitter.demo.output import report_path, write_report
from emitter.demo.python_code import ImportGraph, Module, Spot, Unparsable
from emitter.demo.survey import Limits, Listing, Reader, SourceFile, by_directory, find_directory, scan
from emitter.errors import InputExpired

PHASES = (
    ("explore", "Explore"),
    ("structure", "Structure"),
    ("quality", "Quality"),
    ("tests", "Tests"),
    ("report", "Report"),
)
REPORT_NAME = "RUNCAST_REPORT.md"
APPROVAL_SECONDS = 600.0
MAX_PACE = 10.0
MODEL = "none: static analysis"
CHARACTERS_PER_TOKEN = 4
STREAM_SECONDS = 9.0
INPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "pace": {
            "type": "number",
            "minimum": 0,
            "maximum": MAX_PACE,
            "default": 1,
            "description": "how slowly it goes, so that a person can follow; 0: as fast as it can",
        },
        "output": {
            "type": "string",
            "default": REPORT_NAME,
            "description": "where the report goes: a .md file inside the directory",
        },
    },
}

T = TypeVar("T")
S = TypeVar("S")


async def survey_code(context: Context) -> dict[str, Any]:
    """The agent. `context.task` names a directory; params `pace` and `output` are in `INPUT_SCHEMA`.

    Raises `ValueError` for a task without a directory and for params that are not what they should be.
    """
    pace = read_pace(context.params.get("pace", 1))
    root = await asyncio.to_thread(find_directory, context.task)
    output = await asyncio.to_thread(report_path, root, context.params.get("output", REPORT_NAME))
    work = Analysis(context, root, pace)
    await context.emitter.plan_created(f"Survey the code in {root}", PHASES)
    await work.explore()
    await work.structure()
    await work.quality()
    await work.tests()
    return await work.report(output)


def read_pace(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_PACE:
        raise ValueError(f"pace {value!r} is not a number from 0 to {MAX_PACE:g}")
    return float(value)


class Analysis:
    """One survey under way: what is known so far, phase by phase. Files are read in threads, never on the loop."""

    def __init__(self, context: Context, root: Path, pace: float, limits: Limits = Limits()) -> None:  # noqa: B008
        self._ask = context.ask
        self._emitter = context.emitter
        self._root = root
        self._pace = pace
        self._limits = limits
        self._written = 0
        self._reader = Reader(root, limits)
        self._listing = Listing([], 0, {}, [])
        self._files: list[SourceFile] = []
        self._modules: list[Module] = []
        self._unparsable: list[Unparsable] = []
        self._graph = ImportGraph({}, {})
        self._definitions: Counter[str] = Counter()
        self._spots: list[Spot] = []
        self._tests = findings.test_facts([], [], self._graph)

    # --- explore ---

    async def explore(self) -> None:
        async with self._emitter.phase("explore", "Explore", index=0):
            await self._step(0, "Listing files")
            self._listing = await self._tool(
                "list_files",
                {"path": str(self._root), "recursive": True},
                lambda: scan(self._root, self._limits),
                lambda listing: {
                    "files": len(listing.files),
                    "directories": listing.directories,
                    "skipped": listing.skipped,
                },
            )
            await self._think(thoughts.on_listing(self._listing.files, self._listing.skipped, self._listing.truncated))
            await self._read_all()
            languages = findings.lines_by_language(self._files)
            await self._think(thoughts.on_languages(self._files))
            table = [{"name": name, "files": count, "lines": lines} for name, count, lines in languages[:8]]
            await self._emitter.partial_result({"languages": table})
            await self._usage()

    async def _read_all(self) -> None:
        groups = by_directory(self._listing.files)
        for number, (name, files) in enumerate(groups):
            await self._step(2 + 16 * number / len(groups), f"Reading {name}")
            async with self._emitter.tool("read_files", {"path": name, "files": len(files)}) as call:
                sources = await self._in_parts(call, files, self._reader.read, size=200)
                languages = findings.lines_by_language(sources)
                lines = sum(file.lines for file in sources)
                call.result = {
                    "files": len(sources),
                    "lines": lines,
                    "languages": [name for name, _, _ in languages[:4]],
                }
            self._files += sources
            await self._pause(0.35)

    # --- structure ---

    async def structure(self) -> None:
        async with self._emitter.phase("structure", "Structure", index=1):
            await self._key_files()
            await self._parse_python()
            await self._outline_others()
            await self._emitter.partial_result(
                {
                    "entryPoints": outline.entry_points(self._files)[:8],
                    "modules": len(self._modules),
                    "mostImported": [f"{name} ({count})" for name, count in self._graph.most_imported[:5]],
                    "importCycles": len(self._graph.cycles()),
                }
            )
            await self._usage()

    async def _key_files(self) -> None:
        keys = outline.key_files(self._files, 8)
        for number, source in enumerate(keys):
            await self._step(20 + 14 * number / len(keys), f"Looking at {source.path}")
            await self._tool("read_file", {"path": source.path}, partial(thoughts.look_at, source), dict)
            await self._pause(0.4)

    async def _parse_python(self) -> None:
        python = [file for file in self._files if file.language == "Python"]
        if not python:
            return
        await self._step(36, f"Parsing {len(python):,} Python files")
        async with self._emitter.tool("parse_python", {"files": len(python)}) as call:
            parsed = await self._in_parts(
                call, python, lambda part: [python_code.parse(file) for file in part], size=25
            )
            self._modules = [item for item in parsed if isinstance(item, Module)]
            self._unparsable = [item for item in parsed if isinstance(item, Unparsable)]
            call.result = {
                "modules": len(self._modules),
                "classes": sum(len(module.classes) for module in self._modules),
                "functions": sum(len(module.functions) for module in self._modules),
                "unparsable": len(self._unparsable),
            }
        await self._pause(0.8)
        self._graph = await self._tool(
            "import_graph",
            {"modules": len(self._modules)},
            lambda: python_code.import_graph(self._modules, frozenset(sys.stdlib_module_names)),
            lambda graph: {
                "imports": sum(map(len, graph.edges.values())),
                "cycles": len(graph.cycles()),
                "packagesFromOutside": len(graph.outside),
            },
        )
        await self._think(thoughts.on_graph(self._modules, self._graph))
        await self._think(thoughts.on_functions(self._modules))

    async def _outline_others(self) -> None:
        others = [file for file in self._files if file.is_code and file.language != "Python"]
        if not others:
            return
        await self._step(46, f"Outlining {len(others):,} files of other languages")
        async with self._emitter.tool("outline", {"files": len(others)}) as call:
            counts = await self._in_parts(
                call, others, lambda part: [(file.language, len(outline.definitions(file))) for file in part], size=200
            )
            for language, count in counts:
                self._definitions[language] += count
            call.result = {"definitions": dict(self._definitions.most_common(6))}
        await self._pause(0.6)

    # --- quality ---

    async def quality(self) -> None:
        async with self._emitter.phase("quality", "Quality", index=2):
            self._spots = [spot for module in self._modules for spot in module.spots]
            rules = [rule for rule in smells.RULES if smells.applies(rule, self._files)]
            for number, rule in enumerate(rules):
                await self._step(50 + 18 * number / len(rules), f"Searching: {rule.name}")
                params = {"pattern": rule.pattern, "files": smells.applies(rule, self._files)}
                work = partial(smells.grep, self._files, rule)
                spots = await self._tool("grep", params, work, thoughts.show_spots)
                self._spots += spots
                await self._pause(0.35)
            await self._step(69, "Searching: what looks like a credential")
            async with self._emitter.tool("scan_credentials", {"files": len(self._files)}) as call:
                spots = await self._in_parts(call, self._files, smells.credentials, size=100)
                call.result = thoughts.show_spots(spots)
            self._spots += spots
            await self._think(thoughts.on_spots(self._spots))
            common = Counter(spot.rule for spot in self._spots).most_common(8)
            await self._emitter.partial_result({"worthALook": [{"what": rule, "places": n} for rule, n in common]})
            await self._usage()

    # --- tests ---

    async def tests(self) -> None:
        async with self._emitter.phase("tests", "Tests", index=3):
            await self._step(76, "Matching tests with code")
            self._tests = facts = await self._tool(
                "match_tests",
                {"files": sum(file.is_test for file in self._files)},
                lambda: findings.test_facts(self._files, self._modules, self._graph),
                lambda facts: {
                    "testFiles": facts.files,
                    "linesPerLineOfCode": round(facts.ratio, 2),
                    "modulesNoTestMentions": len(facts.untested),
                },
            )
            await self._think(thoughts.on_tests(facts))
            await self._emitter.partial_result({"testFunctions": facts.functions, "unmentioned": facts.untested[:5]})
            await self._pause(0.5)

    # --- report ---

    async def report(self, output: Path) -> dict[str, Any]:
        async with self._emitter.phase("report", "Report", index=4):
            await self._step(82, "Writing the report")
            facts = self._facts()
            text = await asyncio.to_thread(report.write, facts)
            await self._stream(text.removeprefix(report.MARK).lstrip())
            await self._usage()
            await self._step(97, "Waiting for approval")
            written = await self._approved(output) and await self._save(output, text)
            await self._step(100, "Done")
        found = findings.findings(facts)
        return {
            "summary": report.verdict(facts, found),
            "findings": len(found),
            "report": str(output) if written else None,
        }

    def _facts(self) -> Facts:
        limits = list(self._listing.truncated)
        if self._reader.full:
            limits.append(f"reading stopped at {self._limits.total_bytes / 1e6:.0f} MB of text")
        return Facts(
            name=self._root.name or str(self._root),
            files=self._files,
            directories=self._listing.directories,
            skipped=dict(Counter(self._listing.skipped) + self._reader.skipped),
            limits=limits,
            about=outline.about(self._files),
            entries=outline.entry_points(self._files),
            modules=self._modules,
            unparsable=self._unparsable,
            graph=self._graph,
            spots=self._spots,
            definitions=dict(self._definitions.most_common()),
            tests=self._tests,
        )

    async def _stream(self, text: str) -> None:
        """The report in small pieces, as a model would write it, in about the same time however long it is."""
        pieces = re.findall(r"(?:\S+\s*){1,3}", text)
        for number, piece in enumerate(pieces):
            self._written += len(piece)
            await self._emitter.text(piece)
            if number % 40 == 0:
                await self._emitter.progress(82 + round(14 * number / len(pieces), 1))
            await self._pause(min(0.05, STREAM_SECONDS / len(pieces)))
        await self._emitter.end_text()

    async def _approved(self, output: Path) -> bool:
        question = f"Write the report to {output}?"
        try:
            answer = await self._ask(question, kind="approval", expires_in=APPROVAL_SECONDS)
        except InputExpired:
            await self._emitter.status("not_written", "Nobody answered in time, so nothing was written")
            return False
        if answer is not True:
            await self._emitter.status("not_written", "The report was not approved, so nothing was written")
            return False
        return True

    async def _save(self, output: Path, text: str) -> bool:
        try:
            params = {"path": str(output)}
            await self._tool("write_file", params, lambda: write_report(output, text), lambda size: {"bytes": size})
        except (OSError, ValueError) as error:  # a read-only directory: the survey is worth having all the same
            await self._emitter.status("not_written", f"The report could not be written: {error}")
            return False
        await self._emitter.artifact("report", "text/markdown", name=str(output), text=text, last=True)
        return True

    # --- how every phase works ---

    async def _tool(self, name: str, params: Any, work: Callable[[], T], show: Callable[[T], Any]) -> T:
        """A tool call whose work runs in a thread; `show` makes its (small) result for the reader."""
        async with self._emitter.tool(name, params) as call:
            value = await asyncio.to_thread(work)
            call.result = show(value)
        return value

    async def _in_parts(
        self, call: Any, items: Sequence[S], work: Callable[[Sequence[S]], Sequence[T]], size: int
    ) -> list[T]:
        """Work in a thread on so many items at a time: between the parts, the agent can be cancelled."""
        results: list[T] = []
        for start in range(0, len(items), size):
            results += await asyncio.to_thread(work, items[start : start + size])
            if len(items) > size:
                await call.progress(round(100 * min(1.0, (start + size) / len(items)), 1))
        return results

    async def _step(self, progress: float, action: str) -> None:
        await self._emitter.progress(round(progress, 1), current_action=action)

    async def _think(self, thought: str | None) -> None:
        if thought:
            self._written += len(thought)
            await self._emitter.thinking(thought)
            await self._pause(min(2.0, 0.6 + len(thought) / 150))

    async def _usage(self) -> None:
        """No model reads this, so nothing is billed: characters over four, which is what a model would have counted."""
        await self._emitter.usage(
            input_tokens=self._reader.characters // CHARACTERS_PER_TOKEN,
            output_tokens=self._written // CHARACTERS_PER_TOKEN,
            cost_usd=0.0,
            model=MODEL,
        )

    async def _pause(self, seconds: float) -> None:
        if self._pace:
            await asyncio.sleep(seconds * self._pace)
