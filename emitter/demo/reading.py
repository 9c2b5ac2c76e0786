"""Reading a directory of code once, told as it goes: what is there, what the files say, and what Python's parser sees.

Files are read and parsed in threads, never on the loop, and so many at a time that a cancellation waits for little.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from emitter.demo import python_code
from emitter.demo.findings import lines_by_language
from emitter.demo.python_code import ImportGraph, Module
from emitter.demo.steps import Steps
from emitter.demo.survey import FoundFile, Limits, Listing, Reader, SourceFile, package_of, scan
from emitter.worker.agents import Context


class Code(msgspec.Struct, frozen=True):
    """A directory of code, as far as it was read. `secretive` files were not: their names say that they hold secrets.
    `limits` are sentences on what was left out, `skipped` counts by reason."""

    root: Path
    files: list[SourceFile]
    modules: list[Module]
    graph: ImportGraph
    secretive: list[FoundFile]
    limits: list[str]
    skipped: dict[str, int]

    @property
    def name(self) -> str:
        return self.root.name or str(self.root)

    @property
    def written(self) -> list[SourceFile]:
        """The files in languages that are code."""
        return [file for file in self.files if file.is_code]


class Reading:
    """One directory being read. Each step is a tool call or more, and gives what it found."""

    def __init__(self, context: Context, steps: Steps, root: Path, limits: Limits = Limits()) -> None:  # noqa: B008
        self._emitter = context.emitter
        self._steps = steps
        self._root = root
        self._limits = limits
        self._reader = Reader(root, limits)

    @property
    def characters(self) -> int:
        return self._reader.characters

    async def list_files(self) -> Listing:
        return await self._steps.tool(
            "list_files",
            {"path": str(self._root), "recursive": True},
            lambda: scan(self._root, self._limits),
            lambda listing: {
                "files": len(listing.files),
                "directories": listing.directories,
                "skipped": listing.skipped,
            },
        )

    async def read_files(self, listing: Listing, progress: float) -> list[SourceFile]:
        await self._steps.step(progress, f"Reading {len(listing.files):,} files")
        async with self._emitter.tool("read_files", {"files": len(listing.files)}) as call:
            files = await self._steps.in_parts(call, listing.files, self._reader.read, size=100)
            languages = [language for language, _, _ in lines_by_language(files)[:4]]
            lines = sum(file.lines for file in files)
            call.result = {"files": len(files), "lines": lines, "languages": languages}
        await self._steps.pause(1)
        return files

    async def parse(self, listing: Listing, files: list[SourceFile], progress: float) -> Code:
        """What Python's parser sees in the Python among the files, and which module imports which."""
        python = [file for file in files if file.language == "Python"]
        modules: list[Module] = []
        if python:
            await self._steps.step(progress, f"Parsing {len(python):,} Python files")
            modules = await self._parse_python(python)
        graph = await self._import_graph(modules) if modules else ImportGraph({}, {})
        limits = list(listing.truncated)
        if self._reader.full:
            limits.append(f"reading stopped at {self._limits.total_bytes / 1e6:.0f} MB of text")
        if len(modules) < len(python):
            limits.append(f"{len(python) - len(modules):,} Python files do not parse")
        skipped = dict(Counter(listing.skipped) + self._reader.skipped)
        return Code(self._root, files, modules, graph, listing.secretive, limits, skipped)

    async def _parse_python(self, python: list[SourceFile]) -> list[Module]:
        package = package_of(self._root)

        def parse(part: Sequence[SourceFile]) -> list[Module]:
            return [module for source in part if (module := python_code.parse(source, package)) is not None]

        async with self._emitter.tool("parse_python", {"files": len(python)}) as call:
            modules = await self._steps.in_parts(call, python, parse, size=25)
            call.result = {"modules": len(modules), "functions": sum(len(module.functions) for module in modules)}
        return modules

    async def _import_graph(self, modules: list[Module]) -> ImportGraph:
        return await self._steps.tool(
            "import_graph",
            {"modules": len(modules)},
            lambda: python_code.import_graph(modules, frozenset(sys.stdlib_module_names)),
            lambda graph: {
                "imports": graph.count,
                "cycle": graph.cycle,
                "packagesFromOutside": len(graph.outside),
            },
        )
