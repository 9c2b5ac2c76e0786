"""Python read by its own parser: functions, and which module imports which. Pure."""

from __future__ import annotations

import ast
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import NamedTuple

import msgspec

from emitter.demo.survey import SourceFile

LONG_FUNCTION_LINES = 60

_parsing = threading.Lock()
"""One thread parses at a time. Python 3.11 counts the depth of the tree that it builds for all threads together: with
another that parses at the same time, `ast.parse` raises SystemError. `catch_warnings` sets filters for all threads."""


class Function(NamedTuple):
    name: str
    line: int
    length: int


class Module(msgspec.Struct, frozen=True):
    """One Python file. `imports` are the dotted names that it imports when it is imported itself (not for typing, not
    later), with their lines."""

    name: str
    path: str
    lines: int
    is_test: bool
    functions: list[Function]
    imports: dict[str, int]


def parse(source: SourceFile, package: str = "") -> Module | None:
    """A file; `None` for one that Python does not parse. `package` is the dotted name of the directory that paths begin
    in, if that is a package itself."""
    try:
        with _parsing, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd escapes in the code that is surveyed
            tree = ast.parse(source.text)
        return _module(source, tree, package)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def module_name(path: str, package: str = "") -> str:
    """The dotted name of a file. A leading `src` is a layout and not a package."""
    parts = list(PurePosixPath(path).with_suffix("").parts)
    if parts[0] == "src" and len(parts) > 1:
        del parts[0]
    if parts[-1] == "__init__" and (package or len(parts) > 1):
        del parts[-1]
    return ".".join([package, *parts] if package else parts)


def _module(source: SourceFile, tree: ast.Module, package: str) -> Module:
    name = module_name(source.path, package)
    parent = name if source.name == "__init__.py" else name.rpartition(".")[0]
    imports: dict[str, int] = {}
    for target, line in sorted(_imports(tree, parent.split(".") if parent else [])):
        imports.setdefault(target, line)
    return Module(
        name=name,
        path=source.path,
        lines=source.lines,
        is_test=source.is_test,
        functions=list(_functions(tree, "")),
        imports=imports,
    )


def _functions(node: ast.AST, prefix: str) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        inside = prefix
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inside = f"{prefix}{child.name}."
            if not isinstance(child, ast.ClassDef):
                length = (child.end_lineno or child.lineno) - child.lineno + 1
                yield Function(prefix + child.name, child.lineno, length)
        yield from _functions(child, inside)


# --- imports ---------------------------------------------------------------------------------------------------------


def _imports(tree: ast.Module, package: list[str]) -> Iterator[tuple[str, int]]:
    for node in _run_at_import(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: max(0, len(package) - node.level + 1)] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from a import b` may mean the module a.b or a name in a: the graph decides by what exists.
            names = (f"{module}.{alias.name}" if module else alias.name for alias in node.names)
            yield from ((name, node.lineno) for name in names)


def _run_at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                yield child
            elif isinstance(child, (ast.If, ast.Try, ast.ClassDef, ast.With, ast.ExceptHandler)):
                waiting.append(child)


class ImportGraph(msgspec.Struct, frozen=True):
    """Which module imports which, on which line, and how often packages from outside are imported."""

    lines: dict[str, dict[str, int]]
    outside: dict[str, int]

    @property
    def count(self) -> int:
        return sum(map(len, self.lines.values()))

    @property
    def most_imported(self) -> list[tuple[str, int]]:
        counts = Counter(target for targets in self.lines.values() for target in targets)
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))

    @property
    def cycle(self) -> list[str]:
        """Modules each of which imports the next, and the last the first; empty if there is no such ring."""
        try:
            TopologicalSorter(self.lines).prepare()
        except CycleError as error:
            ring: list[str] = error.args[1][:0:-1]  # which names the first again as the last, and goes the other way
            return ring
        return []


def import_graph(modules: Sequence[Module], standard_library: frozenset[str]) -> ImportGraph:
    names = _importable(modules)
    packages = {module.name for module in modules if module.path.endswith("__init__.py")}
    roots = {name.split(".")[0] for name in names}
    lines: dict[str, dict[str, int]] = {module.name: {} for module in modules}
    outside: Counter[str] = Counter()
    for module in modules:
        folder = module.name.rpartition(".")[0]
        for name, line in module.imports.items():
            target = names.get(name) or names.get(name.rpartition(".")[0])
            root = name.split(".")[0]
            if target is None and folder not in packages:  # scripts that lie side by side
                target = names.get(f"{folder}.{root}")
            if target is not None and target != module.name:
                lines[module.name][target] = min(line, lines[module.name].get(target, line))
            elif target is None and root not in roots | standard_library:
                outside[root] += 1
    return ImportGraph(lines, dict(outside))


def _importable(modules: Sequence[Module]) -> dict[str, str]:
    """Under which names each module can be imported: its path, and what is left of it from its topmost package on (a
    project in `backend/` imports `app.models`, not `backend.app.models`)."""
    packages = {module.name for module in modules if module.path.endswith("__init__.py")}
    names = {}
    for module in modules:
        parts = module.name.split(".")
        above = [length for length in range(1, len(parts) + 1) if ".".join(parts[:length]) in packages]
        if above:
            names[".".join(parts[above[0] - 1 :])] = module.name
    return names | {module.name: module.name for module in modules}
