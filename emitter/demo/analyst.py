"""`analyst`: surveys the code in a directory, tells what it finds as it goes, and writes a report if it may."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from emitter.demo import findings, outline, report, smells, thoughts
from emitter.demo.findings import Facts
from emitter.demo.output import report_path, write_report
from emitter.demo.python_code import ImportGraph, Module, Spot, Unparsable
from emitter.demo.reading import Reading
from emitter.demo.steps import MAX_PACE, Steps
from emitter.demo.survey import Limits, Listing, SourceFile, find_directory
from emitter.errors import InputExpired
from emitter.worker.agents import Context

PHASES = (
    ("explore", "Explore"),
    ("structure", "Structure"),
    ("quality", "Quality"),
    ("tests", "Tests"),
    ("report", "Report"),
)
REPORT_NAME = "RUNCAST_REPORT.md"
APPROVAL_SECONDS = 600.0
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
        self._steps = Steps(context.emitter, pace)
        self._reading = Reading(context, self._steps, root, limits)
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
            await self._steps.step(0, "Listing files")
            self._listing = await self._reading.list_files()
            await self._steps.think(
                thoughts.on_listing(self._listing.files, self._listing.skipped, self._listing.truncated)
            )
            self._files = await self._reading.read_files(self._listing, 2, 18)
            languages = findings.lines_by_language(self._files)
            await self._steps.think(thoughts.on_languages(self._files))
            table = [{"name": name, "files": count, "lines": lines} for name, count, lines in languages[:8]]
            await self._emitter.partial_result({"languages": table})
            await self._steps.usage(self._reading.characters)

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
            await self._steps.usage(self._reading.characters)

    async def _key_files(self) -> None:
        keys = outline.key_files(self._files, 8)
        for number, source in enumerate(keys):
            await self._steps.step(20 + 14 * number / len(keys), f"Looking at {source.path}")
            await self._steps.tool("read_file", {"path": source.path}, partial(thoughts.look_at, source), dict)
            await self._steps.pause(0.4)

    async def _parse_python(self) -> None:
        self._modules, self._unparsable = await self._reading.parse_python(self._files, 36)
        if not self._modules and not self._unparsable:
            return
        await self._steps.pause(0.8)
        self._graph = await self._reading.import_graph(self._modules)
        await self._steps.think(thoughts.on_graph(self._modules, self._graph))
        await self._steps.think(thoughts.on_functions(self._modules))

    async def _outline_others(self) -> None:
        others = [file for file in self._files if file.is_code and file.language != "Python"]
        if not others:
            return
        await self._steps.step(46, f"Outlining {len(others):,} files of other languages")
        async with self._emitter.tool("outline", {"files": len(others)}) as call:
            counts = await self._steps.in_parts(
                call, others, lambda part: [(file.language, len(outline.definitions(file))) for file in part], size=200
            )
            for language, count in counts:
                self._definitions[language] += count
            call.result = {"definitions": dict(self._definitions.most_common(6))}
        await self._steps.pause(0.6)

    # --- quality ---

    async def quality(self) -> None:
        async with self._emitter.phase("quality", "Quality", index=2):
            self._spots = [spot for module in self._modules for spot in module.spots]
            rules = [rule for rule in smells.RULES if smells.applies(rule, self._files)]
            for number, rule in enumerate(rules):
                await self._steps.step(50 + 18 * number / len(rules), f"Searching: {rule.name}")
                params = {"pattern": rule.pattern, "files": smells.applies(rule, self._files)}
                work = partial(smells.grep, self._files, rule)
                spots = await self._steps.tool("grep", params, work, thoughts.show_spots)
                self._spots += spots
                await self._steps.pause(0.35)
            await self._steps.step(69, "Searching: what looks like a credential")
            async with self._emitter.tool("scan_credentials", {"files": len(self._files)}) as call:
                spots = await self._steps.in_parts(call, self._files, smells.credentials, size=100)
                call.result = thoughts.show_spots(spots)
            self._spots += spots
            await self._steps.think(thoughts.on_spots(self._spots))
            common = Counter(spot.rule for spot in self._spots).most_common(8)
            await self._emitter.partial_result({"worthALook": [{"what": rule, "places": n} for rule, n in common]})
            await self._steps.usage(self._reading.characters)

    # --- tests ---

    async def tests(self) -> None:
        async with self._emitter.phase("tests", "Tests", index=3):
            await self._steps.step(76, "Matching tests with code")
            self._tests = facts = await self._steps.tool(
                "match_tests",
                {"files": sum(file.is_test for file in self._files)},
                lambda: findings.test_facts(self._files, self._modules, self._graph),
                lambda facts: {
                    "testFiles": facts.files,
                    "linesPerLineOfCode": round(facts.ratio, 2),
                    "modulesNoTestMentions": len(facts.untested),
                },
            )
            await self._steps.think(thoughts.on_tests(facts))
            await self._emitter.partial_result({"testFunctions": facts.functions, "unmentioned": facts.untested[:5]})
            await self._steps.pause(0.5)

    # --- report ---

    async def report(self, output: Path) -> dict[str, Any]:
        async with self._emitter.phase("report", "Report", index=4):
            await self._steps.step(82, "Writing the report")
            facts = self._facts()
            text = await asyncio.to_thread(report.write, facts)
            await self._steps.stream(text.removeprefix(report.MARK).lstrip(), 82, 96)
            await self._steps.usage(self._reading.characters)
            await self._steps.step(97, "Waiting for approval")
            written = await self._approved(output) and await self._save(output, text)
            await self._steps.step(100, "Done")
        found = findings.findings(facts)
        return {
            "summary": report.verdict(facts, found),
            "findings": len(found),
            "report": str(output) if written else None,
        }

    def _facts(self) -> Facts:
        limits, skipped = self._reading.left_out(self._listing)
        return Facts(
            name=self._root.name or str(self._root),
            files=self._files,
            directories=self._listing.directories,
            skipped=skipped,
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
            await self._steps.tool(
                "write_file", params, lambda: write_report(output, text), lambda size: {"bytes": size}
            )
        except (OSError, ValueError) as error:  # a read-only directory: the survey is worth having all the same
            await self._emitter.status("not_written", f"The report could not be written: {error}")
            return False
        await self._emitter.artifact("report", "text/markdown", name=str(output), text=text, last=True)
        return True
