"""What was found in a directory of code, and what follows from it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import msgspec

from emitter.demo.documents import LOST_LINKS
from emitter.demo.outline import About
from emitter.demo.python_code import BRANCHY, LONG_FUNCTION_LINES, Function, ImportGraph, Module, Spot, Unparsable
from emitter.demo.smells import CREDENTIALS, NOTES, PRIVATE_KEYS, SECRETS
from emitter.demo.survey import SourceFile, is_test

BIG_FILE_LINES = 600
MAX_PLACES = 6
_WHY = {
    CREDENTIALS: (3, "Whoever can read the code, or its history, has it: rotate it, then remove it."),
    "unsafe deserialisation": (3, "Data from outside can run code here. Use JSON or a safe loader."),
    PRIVATE_KEYS: (3, "Whoever reads the file can pose as the key's owner. It does not belong where the code is."),
    SECRETS: (2, "Fine on the one machine that needs it, as long as it is never committed nor copied into an image."),
    "TLS check switched off": (3, "A connection that trusts anyone is readable by anyone on the way."),
    "eval or exec": (2, "Text becomes code. Harmless for constants; worth a look where the text comes from elsewhere."),
    "shell commands": (2, "A shell interprets what it is given; with values from outside that is an injection."),
    "raw HTML from values": (2, "Markup from values is how cross-site scripting begins."),
    "broad except that hides the error": (2, "Failures vanish without a trace; the next one will be found by a user."),
    "empty catch": (2, "Failures vanish without a trace; the next one will be found by a user."),
    "mutable default argument": (2, "The default is shared by all calls: a list that grows there grows for everyone."),
    "broad except": (1, "It also catches the mistakes nobody thought of. Fine as a task's last resort, if it logs."),
    "star import": (1, "A reader cannot tell where a name comes from, and neither can a tool."),
    "panics on error": (1, "A value that is not there ends the process. Fine in tests and in main."),
    "debug output left behind": (1, "Output for one person's debugging, now in everybody's way."),
    "type check switched off": (1, "Each is a place where the type checker was right, or where its types are wrong."),
    "tests that are skipped": (1, "What they would have found, they do not find. Mend them or remove them."),
    "tests that wait for time to pass": (1, "Slow when the time is ample, wrong now and then when it is not."),
    LOST_LINKS: (1, "Whoever follows it finds nothing, and trusts the rest of the page less."),
    NOTES.name: (1, "Somebody knew that something is missing here. Do it, drop it, or give it an owner."),
}  # fmt: skip


SEVERITIES = {3: "soon", 2: "worth a plan", 1: "tidiness"}


class Finding(msgspec.Struct, frozen=True):
    """`severity` is one of `SEVERITIES`. `places` are `path:line`, the first few of `count`; `paths`
    are all files it is about."""

    severity: int
    title: str
    why: str
    places: list[str]
    count: int
    paths: frozenset[str] = frozenset()


class TestFacts(msgspec.Struct, frozen=True):
    """How the code is tested, as far as names and imports tell. `untested` are paths of Python modules."""

    __test__ = False  # a name that pytest would collect

    files: int
    lines: int
    code_lines: int
    functions: int
    bare: int
    untested: list[str]
    candidates: int

    @property
    def ratio(self) -> float:
        """Lines of tests per line of other code."""
        return self.lines / self.code_lines if self.code_lines else 0.0


class Facts(msgspec.Struct, frozen=True):
    """Everything the report is made from. `limits` are sentences on what was left out."""

    name: str
    files: list[SourceFile]
    directories: int
    skipped: dict[str, int]
    limits: list[str]
    about: About
    entries: list[str]
    modules: list[Module]
    unparsable: list[Unparsable]
    graph: ImportGraph
    spots: list[Spot]
    definitions: dict[str, int]
    tests: TestFacts

    @property
    def code(self) -> list[SourceFile]:
        return [file for file in self.files if file.is_code]

    @property
    def product(self) -> list[Module]:
        """Python modules that are no tests."""
        return [module for module in self.modules if not module.is_test]


def lines_by_language(files: Sequence[SourceFile]) -> list[tuple[str, int, int]]:
    """(language, files, lines), the most lines first."""
    counts: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for file in files:
        counts[file.language] += 1
        lines[file.language] += file.lines
    return [(language, counts[language], total) for language, total in lines.most_common()]


def test_facts(files: Sequence[SourceFile], modules: Sequence[Module], graph: ImportGraph) -> TestFacts:
    code = [file for file in files if file.is_code]
    test_modules = [module for module in modules if module.is_test]
    imported = {target for module in test_modules for target in graph.edges.get(module.name, ())}
    test_names = " ".join(PurePosixPath(file.path).stem for file in code if file.is_test)
    candidates = [m for m in modules if not m.is_test and m.lines >= 30 and m.functions]
    untested = [m for m in candidates if m.name not in imported and PurePosixPath(m.path).stem not in test_names]
    return TestFacts(
        files=sum(file.is_test for file in code),
        lines=sum(file.lines for file in code if file.is_test),
        code_lines=sum(file.lines for file in code if not file.is_test),
        functions=sum(len(module.tests) for module in test_modules),
        bare=sum(len(module.bare_tests) for module in test_modules),
        untested=[module.path for module in sorted(untested, key=lambda m: -m.lines)],
        candidates=len(candidates),
    )


def long_functions(modules: Sequence[Module]) -> list[tuple[Module, Function]]:
    found = [(m, f) for m in modules if not m.is_test for f in m.functions if f.length > LONG_FUNCTION_LINES]
    return sorted(found, key=lambda item: -item[1].length)


def branchy_functions(modules: Sequence[Module]) -> list[tuple[Module, Function]]:
    found = [(m, f) for m in modules if not m.is_test for f in m.functions if f.branches > BRANCHY]
    return sorted(found, key=lambda item: -item[1].branches)


def documented(modules: Sequence[Module]) -> tuple[int, int]:
    """(with a docstring, all) of the public functions, classes and modules that are no tests."""
    flags: list[bool] = []
    for module in modules:
        if not module.is_test:
            flags.append(module.documented)
            flags += [function.documented for function in module.functions if function.public]
            flags += [has for name, has in module.classes if not name.startswith("_")]
    return sum(flags), len(flags)


def findings(facts: Facts) -> list[Finding]:
    """All there are, by `rank`."""
    found = [
        *from_spots(facts.spots),
        *cycles(facts.graph),
        *long(facts.modules),
        *branchy(facts.modules),
        *big(facts.files),
        *broken(facts.unparsable),
        *tests(facts.tests, facts.modules),
    ]
    return sorted(found, key=rank)


def rank(finding: Finding) -> tuple[int, int, str]:
    """A key to sort by: the worst first; among equals, the most frequent first."""
    return -finding.severity, -finding.count, finding.title


# --- one kind of finding each: a list that is empty when there is nothing ---


def from_spots(spots: Sequence[Spot]) -> list[Finding]:
    """One finding for each rule."""
    groups: dict[str, list[Spot]] = {}
    for spot in spots:
        groups.setdefault(spot.rule, []).append(spot)
    result = []
    for rule, group in groups.items():
        severity, why = _WHY.get(rule, (1, ""))
        # What only tests do harms nobody but the tests.
        product = [spot for spot in group if not is_test(spot.path)]
        severity = severity if product else 1
        shown = product or group
        places = [f"{spot.path}:{spot.line}" for spot in shown[:MAX_PLACES]]
        result.append(Finding(severity, rule, why, places, len(group), frozenset(spot.path for spot in shown)))
    return result


def cycles(graph: ImportGraph) -> list[Finding]:
    groups = graph.cycles()
    if not groups:
        return []
    why = "Modules that import each other can only be understood, tested and moved together."
    places = [" ↔ ".join(group[:4]) for group in groups[:MAX_PLACES]]
    return [Finding(2, "import cycles", why, places, len(groups))]


def long(modules: Sequence[Module]) -> list[Finding]:
    found = long_functions(modules)
    if not found:
        return []
    why = f"More than {LONG_FUNCTION_LINES} lines is more than fits on a screen and in a head."
    places = [f"{m.path}:{f.line} {f.name} ({f.length} lines)" for m, f in found[:MAX_PLACES]]
    return [Finding(2 if len(found) > 3 else 1, "long functions", why, places, len(found), _paths(found))]


def branchy(modules: Sequence[Module]) -> list[Finding]:
    found = branchy_functions(modules)
    if not found:
        return []
    why = f"More than {BRANCHY} ways through a function is more than its tests are likely to take."
    places = [f"{m.path}:{f.line} {f.name} ({f.branches} branches)" for m, f in found[:MAX_PLACES]]
    return [Finding(2, "functions with many branches", why, places, len(found), _paths(found))]


def _paths(found: Sequence[tuple[Module, Function]]) -> frozenset[str]:
    return frozenset(module.path for module, _ in found)


def big(files: Sequence[SourceFile]) -> list[Finding]:
    found = [file for file in files if file.is_code and file.lines > BIG_FILE_LINES and not file.is_test]
    if not found:
        return []
    found.sort(key=lambda file: -file.lines)
    why = f"Files over {BIG_FILE_LINES} lines tend to be several things that share a name."
    places = [f"{file.path} ({file.lines:,} lines)" for file in found[:MAX_PLACES]]
    severity = 2 if found[0].lines > 3 * BIG_FILE_LINES else 1
    return [Finding(severity, "big files", why, places, len(found), frozenset(file.path for file in found))]


def broken(unparsable: Sequence[Unparsable]) -> list[Finding]:
    if not unparsable:
        return []
    why = "Python's own parser refuses them: templates, another Python version, or broken."
    places = [f"{item.path}: {item.reason}" for item in unparsable[:MAX_PLACES]]
    paths = frozenset(item.path for item in unparsable)
    return [Finding(2, "files that do not parse", why, places, len(unparsable), paths)]


def tests(facts: TestFacts, modules: Sequence[Module]) -> list[Finding]:
    found = []
    if facts.code_lines > 200 and facts.files == 0:
        found.append(Finding(3, "no tests", "Nothing tells whether a change broke something.", [], 1))
    elif facts.untested and len(facts.untested) * 3 > facts.candidates:
        why = "No test file bears their name and none imports them, so at best they are tested by accident."
        places = facts.untested[:MAX_PLACES]
        paths = frozenset(facts.untested)
        found.append(Finding(2, "modules that no test mentions", why, places, len(facts.untested), paths))
    bare = [f"{module.path}:{line}" for module in modules if module.is_test for line in module.bare_tests]
    if bare:
        why = "They pass as long as nothing raises: they show that the code runs, not that it is right."
        found.append(Finding(1, "tests without an assertion", why, bare[:MAX_PLACES], len(bare)))
    return found
