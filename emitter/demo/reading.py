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
from emitter.demo.python_code import ImportGraph, Module, Unparsable
from emitter.demo.steps import Steps
from emitter.demo.survey import FoundFile, Limits, Listing, Reader, SourceFile, by_directory, package_of, scan
from emitter.worker.agents import Context


class Code(msgspec.Struct, frozen=True):
    """A directory of code, as far as it was read. `secretive` files were not: their names say that they hold secrets.
    `limits` are sentences on what was left out, `skipped` counts by reason."""

    root: Path
    files: list[SourceFile]
    modules: list[Module]
    unparsable: list[Unparsable]
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

    async def read_files(self, listing: Listing, begin: float, end: float) -> list[SourceFile]:
        """All files of a listing, directory by directory; progress goes from `begin` to `end`."""
        groups = by_directory(listing.files)
        found: list[SourceFile] = []
        for number, (name, files) in enumerate(groups):
            where = "what lies at the top" if name == "." else name
            await self._steps.step(begin + (end - begin) * number / len(groups), f"Reading {where}")
            async with self._emitter.tool("read_files", {"path": name, "files": len(files)}) as call:
                sources = await self._steps.in_parts(call, files, self._reader.read, size=200)
                languages = [language for language, _, _ in lines_by_language(sources)[:4]]
                lines = sum(file.lines for file in sources)
                call.result = {"files": len(sources), "lines": lines, "languages": languages}
            found += sources
            await self._steps.pause(0.35)
        return found

    async def parse(self, listing: Listing, files: list[SourceFile], progress: float) -> Code:
        """What Python's parser sees in the Python among the files, and which module imports which."""
        python = [file for file in files if file.language == "Python"]
        modules: list[Module] = []
        unparsable: list[Unparsable] = []
        if python:
            await self._steps.step(progress, f"Parsing {len(python):,} Python files")
            modules, unparsable = await self._parse_python(python)
        graph = await self._import_graph(modules) if modules else ImportGraph({}, {})
        limits = list(listing.truncated)
        if self._reader.full:
            limits.append(f"reading stopped at {self._limits.total_bytes / 1e6:.0f} MB of text")
        skipped = dict(Counter(listing.skipped) + self._reader.skipped)
        return Code(self._root, files, modules, unparsable, graph, listing.secretive, limits, skipped)

    async def _parse_python(self, python: list[SourceFile]) -> tuple[list[Module], list[Unparsable]]:
        package = package_of(self._root)

        def parse(part: Sequence[SourceFile]) -> list[Module | Unparsable]:
            return [python_code.parse(source, package) for source in part]

        async with self._emitter.tool("parse_python", {"files": len(python)}) as call:
            parsed = await self._steps.in_parts(call, python, parse, size=25)
            modules = [item for item in parsed if isinstance(item, Module)]
            unparsable = [item for item in parsed if isinstance(item, Unparsable)]
            functions = sum(len(module.functions) for module in modules)
            call.result = {"modules": len(modules), "functions": functions, "unparsable": len(unparsable)}
        return modules, unparsable

    async def _import_graph(self, modules: list[Module]) -> ImportGraph:
        return await self._steps.tool(
            "import_graph",
            {"modules": len(modules)},
            lambda: python_code.import_graph(modules, frozenset(sys.stdlib_module_names)),
            lambda graph: {
                "imports": graph.count,
                "cycles": len(graph.cycles()),
                "packagesFromOutside": len(graph.outside),
            },
        )
