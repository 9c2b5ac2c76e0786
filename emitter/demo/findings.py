"""What is found in a directory of code, and what follows from it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import msgspec

from emitter.demo.python_code import LONG_FUNCTION_LINES, Function, ImportGraph, Module
from emitter.demo.smells import CREDENTIALS, PRIVATE_KEYS, SECRETS, Spot
from emitter.demo.survey import SourceFile, is_test

BIG_FILE_LINES = 600
MAX_PLACES = 6
SEVERITIES = {3: "soon", 2: "worth a plan", 1: "tidiness"}
_WHY = {
    CREDENTIALS: (3, "Everybody who reads the code, or its history, has it: rotate it, then remove it."),
    "unsafe deserialisation": (3, "Data from outside can run code here. Use JSON or a safe loader."),
    PRIVATE_KEYS: (3, "A reader of the file can pose as the key's owner. It does not belong where the code is."),
    "TLS check switched off": (3, "A connection that trusts anyone is readable by anyone on the way."),
    SECRETS: (2, "Fine on the one machine that needs it, as long as it is never committed nor copied into an image."),
    "eval or exec": (2, "Text becomes code. Look where the text comes from."),
    "shell commands": (2, "A shell interprets what it is given; with values from outside that is an injection."),
    "broad except that hides the error": (2, "Failures vanish without a trace; a user will find the next one."),
    "empty catch": (2, "Failures vanish without a trace; a user will find the next one."),
    "mutable default argument": (2, "All calls share the default: a list that grows there grows for all of them."),
    "note left behind": (1, "Something is missing here. Do it, drop it, or give it an owner."),
}


class Finding(msgspec.Struct, frozen=True):
    """`severity` is one of `SEVERITIES`. `places` are the first few of `count`."""

    severity: int
    title: str
    why: str
    places: list[str]
    count: int


def rank(finding: Finding) -> tuple[int, int, str]:
    """A key to sort by: the worst first; among equals, the most frequent first."""
    return -finding.severity, -finding.count, finding.title


def lines_by_language(files: Sequence[SourceFile]) -> list[tuple[str, int, int]]:
    """(language, files, lines), the most lines first."""
    counts = Counter(file.language for file in files)
    lines: Counter[str] = Counter()
    for file in files:
        lines[file.language] += file.lines
    return [(language, counts[language], total) for language, total in lines.most_common()]


def long_functions(modules: Sequence[Module]) -> list[tuple[Module, Function]]:
    """The longest first; not those of tests."""
    found = [(m, f) for m in modules if not m.is_test for f in m.functions if f.length > LONG_FUNCTION_LINES]
    return sorted(found, key=lambda item: -item[1].length)


def untested(modules: Sequence[Module], graph: ImportGraph) -> list[Module]:
    """Python modules with functions that no test imports, nor names in its own name; the largest first."""
    tests = [module for module in modules if module.is_test]
    imported = {target for module in tests for target in graph.lines[module.name]}
    names = " ".join(PurePosixPath(module.path).stem for module in tests)
    found = [
        module
        for module in modules
        if not module.is_test and module.functions and module.lines >= 30 and module.name not in imported
    ]
    return sorted((m for m in found if PurePosixPath(m.path).stem not in names), key=lambda module: -module.lines)


# --- one kind of finding each: a list that is empty when there is nothing ---


def from_spots(spots: Iterable[Spot]) -> list[Finding]:
    """One finding for each rule. What only tests do harms nothing else."""
    groups: dict[str, list[Spot]] = {}
    for spot in spots:
        groups.setdefault(spot.rule, []).append(spot)
    result = []
    for rule, group in groups.items():
        severity, why = _WHY[rule]
        product = [spot for spot in group if not is_test(spot.path)]
        shown = product or group
        places = [f"{spot.path}:{spot.line}" for spot in shown[:MAX_PLACES]]
        result.append(Finding(severity if product else 1, rule, why, places, len(group)))
    return result


def cycle(modules: Sequence[Module], graph: ImportGraph) -> list[Finding]:
    """An import cycle, if there is one: the line of every import on it."""
    if not (ring := graph.cycle):
        return []
    paths = {module.name: module.path for module in modules}
    steps = zip(ring, [*ring[1:], ring[0]], strict=True)
    place = " → ".join(f"{paths[source]}:{graph.lines[source][target]}" for source, target in steps)
    why = "Modules that import each other can only be understood, tested and moved together."
    return [Finding(2, "import cycle", why, [place], 1)]


def long(modules: Sequence[Module]) -> list[Finding]:
    found = long_functions(modules)
    why = f"More than {LONG_FUNCTION_LINES} lines is more than fits on a screen."
    places = [f"{m.path}:{f.line} {f.name} ({f.length} lines)" for m, f in found[:MAX_PLACES]]
    return [Finding(2 if len(found) > 3 else 1, "long functions", why, places, len(found))] if found else []


def big(files: Sequence[SourceFile]) -> list[Finding]:
    found = [file for file in files if file.is_code and file.lines > BIG_FILE_LINES and not file.is_test]
    found.sort(key=lambda file: -file.lines)
    why = f"Files over {BIG_FILE_LINES} lines tend to be several things that share a name."
    places = [f"{file.path} ({file.lines:,} lines)" for file in found[:MAX_PLACES]]
    return [Finding(1, "big files", why, places, len(found))] if found else []


def readme(files: Sequence[SourceFile]) -> SourceFile | None:
    """The one at the top."""
    return next((file for file in files if "/" not in file.path and file.name.lower().startswith("readme")), None)
