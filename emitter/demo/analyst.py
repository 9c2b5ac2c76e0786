"""`analyst`: surveys the code in a directory, tells what it finds as it goes, and writes a report if it may."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from emitter.demo import findings, report, smells, thoughts
from emitter.demo.output import report_path, write_report
from emitter.demo.python_code import Module
from emitter.demo.reading import Code, Reading
from emitter.demo.smells import Spot
from emitter.demo.steps import MAX_PACE, Steps
from emitter.demo.survey import Listing, SourceFile, find_directory
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
    listing, files = await work.explore()
    code = await work.structure(listing, files)
    spots = await work.quality(code)
    untested = await work.tests(code)
    return await work.report(code, spots, untested, output)


def read_pace(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_PACE:
        raise ValueError(f"pace {value!r} is not a number from 0 to {MAX_PACE:g}")
    return float(value)


class Analysis:
    """One survey under way, phase by phase. Files are read in threads, never on the loop."""

    def __init__(self, context: Context, root: Path, pace: float) -> None:
        self._ask = context.ask
        self._emitter = context.emitter
        self._steps = Steps(context.emitter, pace)
        self._reading = Reading(context, self._steps, root)

    async def explore(self) -> tuple[Listing, list[SourceFile]]:
        async with self._emitter.phase("explore", "Explore", index=0):
            await self._steps.step(0, "Listing files")
            listing = await self._reading.list_files()
            await self._steps.think(thoughts.on_listing(listing))
            files = await self._reading.read_files(listing, 5)
            languages = [
                {"name": name, "files": count, "lines": lines}
                for name, count, lines in findings.lines_by_language(files)[:8]
            ]
            await self._emitter.partial_result({"languages": languages})
            await self._steps.usage(self._reading.characters)
        return listing, files

    async def structure(self, listing: Listing, files: list[SourceFile]) -> Code:
        async with self._emitter.phase("structure", "Structure", index=1):
            first = [file for file in (findings.readme(files),) if file is not None]
            biggest = sorted((f for f in files if f.is_code and not f.is_test), key=lambda file: -file.lines)
            for number, source in enumerate([*first, *biggest[:5]]):
                await self._steps.step(20 + 3 * number, f"Looking at {source.path}")
                await self._steps.tool("read_file", {"path": source.path}, partial(thoughts.look_at, source), dict)
                await self._steps.pause(0.4)
            code = await self._reading.parse(listing, files, 38)
            if code.modules:
                await self._steps.think(thoughts.on_graph(code.modules, code.graph))
                await self._steps.think(thoughts.on_functions(code.modules))
            central = [f"{name} ({count})" for name, count in code.graph.most_imported[:5]]
            await self._emitter.partial_result({"modules": len(code.modules), "mostImported": central})
            await self._steps.usage(self._reading.characters)
        return code

    async def quality(self, code: Code) -> list[Spot]:
        async with self._emitter.phase("quality", "Quality", index=2):
            spots: list[Spot] = []
            for number, rule in enumerate(smells.RULES):
                await self._steps.step(50 + 2 * number, f"Searching: {rule.name}")
                work = partial(smells.grep, code.files, rule)
                found = await self._steps.tool("grep", {"pattern": rule.pattern}, work, thoughts.show_spots)
                spots += found
                await self._steps.pause(0.5)
            await self._steps.step(70, "Searching: what looks like a credential")
            async with self._emitter.tool("scan_credentials", {"files": len(code.files)}) as call:
                found = await self._steps.in_parts(call, code.files, smells.credentials, size=100)
                call.result = thoughts.show_spots(found)
            spots += found
            await self._steps.think(thoughts.on_spots(spots))
            common = Counter(spot.rule for spot in spots).most_common(8)
            await self._emitter.partial_result({"worthALook": [{"what": rule, "places": n} for rule, n in common]})
        return spots

    async def tests(self, code: Code) -> list[Module]:
        async with self._emitter.phase("tests", "Tests", index=3):
            await self._steps.step(76, "Matching tests with code")
            untested = await self._steps.tool(
                "match_tests",
                {"files": sum(file.is_test for file in code.files)},
                lambda: findings.untested(code.modules, code.graph),
                lambda found: {"modulesNoTestMentions": len(found)},
            )
            await self._steps.think(thoughts.on_tests(code.files, untested))
            await self._emitter.partial_result({"unmentioned": [module.path for module in untested[:5]]})
        return untested

    async def report(self, code: Code, spots: list[Spot], untested: list[Module], output: Path) -> dict[str, Any]:
        async with self._emitter.phase("report", "Report", index=4):
            await self._steps.step(82, "Writing the report")
            found = await asyncio.to_thread(_findings, code, spots)
            text = await asyncio.to_thread(report.write, code, found, untested)
            await self._steps.stream(text.removeprefix(report.MARK).lstrip(), 82, 96)
            await self._steps.usage(self._reading.characters)
            await self._steps.step(97, "Waiting for approval")
            written = await self._approved(output) and await self._save(output, text)
            await self._steps.step(100, "Done")
        summary = report.verdict(code, found)
        return {"summary": summary, "findings": len(found), "report": str(output) if written else None}

    async def _approved(self, output: Path) -> bool:
        try:
            question = f"Write the report to {output}?"
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
            work = partial(write_report, output, text)
            await self._steps.tool("write_file", params, work, lambda size: {"bytes": size})
        except (OSError, ValueError) as error:  # a read-only directory, for one: the survey still completes
            await self._emitter.status("not_written", f"The report could not be written: {error}")
            return False
        await self._emitter.artifact("report", "text/markdown", name=str(output), text=text, last=True)
        return True


def _findings(code: Code, spots: list[Spot]) -> list[findings.Finding]:
    found = [
        *findings.from_spots(spots),
        *findings.cycle(code.modules, code.graph),
        *findings.long(code.modules),
        *findings.big(code.files),
    ]
    return sorted(found, key=findings.rank)
