"""Python read by its own parser: modules, functions, imports, documentation, and calls worth a second look. Pure."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, TypeGuard

import msgspec

from emitter.demo.survey import SourceFile

LONG_FUNCTION_LINES = 60
BRANCHY = 15
_BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.match_case)
_RISKY_CALLS = {
    "eval": "eval or exec",
    "exec": "eval or exec",
    "pickle.loads": "unsafe deserialisation",
    "pickle.load": "unsafe deserialisation",
    "marshal.loads": "unsafe deserialisation",
    "yaml.load": "unsafe deserialisation",
    "os.system": "shell commands",
    "os.popen": "shell commands",
}


class Function(NamedTuple):
    name: str
    line: int
    length: int
    branches: int
    documented: bool
    public: bool


class Spot(NamedTuple):
    """A place worth a look: which rule, and where."""

    rule: str
    path: str
    line: int


class Module(msgspec.Struct, frozen=True):
    """One Python file. `imports` are dotted names that are imported when the module is (not for typing, not later), and
    their lines; `bare_tests` are the lines of tests that assert nothing."""

    name: str
    path: str
    lines: int
    documented: bool
    is_test: bool
    functions: list[Function]
    classes: list[tuple[str, bool]]
    imports: dict[str, int]
    spots: list[Spot]
    runnable: bool
    bare_tests: list[int]

    @property
    def tests(self) -> list[Function]:
        return [function for function in self.functions if function.name.split(".")[-1].startswith("test")]


class Unparsable(msgspec.Struct, frozen=True):
    path: str
    reason: str


def parse(source: SourceFile) -> Module | Unparsable:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in somebody's code is not our user's concern
            tree = ast.parse(source.text)
        return _module(source, tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Unparsable(source.path, f"{type(error).__name__}: {error}"[:200])


def parse_all(sources: Sequence[SourceFile]) -> list[Module | Unparsable]:
    return [parse(source) for source in sources]


def module_name(path: str) -> str:
    """The dotted name of a file below the root; a leading `src` is a layout and not a package."""
    parts = list(PurePosixPath(path).with_suffix("").parts)
    if parts[0] == "src" and len(parts) > 1:
        del parts[0]
    if parts[-1] == "__init__" and len(parts) > 1:
        del parts[-1]
    return ".".join(parts)


def _module(source: SourceFile, tree: ast.Module) -> Module:
    functions = list(_functions(tree, ""))
    return Module(
        name=module_name(source.path),
        path=source.path,
        lines=source.lines,
        documented=ast.get_docstring(tree) is not None,
        is_test=source.is_test,
        functions=functions,
        classes=[(n.name, ast.get_docstring(n) is not None) for n in ast.walk(tree) if isinstance(n, ast.ClassDef)],
        imports=_first_lines(_imports(tree, source.path)),
        spots=list(_spots(tree, source.path)),
        runnable="__name__" in source.text and "__main__" in source.text,
        bare_tests=[node.lineno for node in ast.walk(tree) if _is_test_function(node) and not _asserts(node)],
    )


def _functions(node: ast.AST, prefix: str) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = prefix + child.name
            length = (child.end_lineno or child.lineno) - child.lineno + 1
            branches = 1 + sum(isinstance(n, _BRANCHES) for n in ast.walk(child))
            documented = ast.get_docstring(child) is not None
            yield Function(name, child.lineno, length, branches, documented, not child.name.startswith("_"))
            yield from _functions(child, name + ".")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, prefix + child.name + ".")
        else:
            yield from _functions(child, prefix)


# --- imports ---------------------------------------------------------------------------------------------------------


def _imports(tree: ast.Module, path: str) -> Iterator[tuple[str, int]]:
    package = module_name(path).split(".")
    if not path.endswith("__init__.py"):
        del package[-1]
    for node in _run_at_import(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from a import b` may mean the module a.b or a name in a: the graph decides by what exists.
            names = (f"{module}.{alias.name}" if module else alias.name for alias in node.names)
            yield from ((name, node.lineno) for name in names)


def _first_lines(imports: Iterator[tuple[str, int]]) -> dict[str, int]:
    lines: dict[str, int] = {}
    for name, line in sorted(imports):
        lines.setdefault(name, line)
    return lines


def _run_at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                yield child
            elif isinstance(child, (ast.If, ast.Try, ast.ClassDef, ast.With, ast.ExceptHandler)):
                waiting.append(child)


class ImportGraph(msgspec.Struct, frozen=True):
    """Who imports whom inside the project, on which line, and which packages come from outside."""

    edges: dict[str, set[str]]
    outside: dict[str, int]
    lines: dict[tuple[str, str], int] = {}

    @property
    def most_imported(self) -> list[tuple[str, int]]:
        counts: dict[str, int] = {}
        for targets in self.edges.values():
            for target in targets:
                counts[target] = counts.get(target, 0) + 1
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))

    def cycles(self) -> list[list[str]]:
        """Groups of modules that import each other, each sorted; Kosaraju's algorithm."""
        order = _finish_order(self.edges)
        reverse: dict[str, set[str]] = {name: set() for name in self.edges}
        for name, targets in self.edges.items():
            for target in targets:
                reverse[target].add(name)
        groups: list[list[str]] = []
        seen: set[str] = set()
        for name in reversed(order):
            group = _reachable(name, reverse, seen)
            if len(group) > 1:
                groups.append(sorted(group))
        return sorted(groups)


def import_graph(modules: Sequence[Module], standard_library: frozenset[str]) -> ImportGraph:
    names = _importable(modules)
    roots = {name.split(".")[0] for name in names}
    edges: dict[str, set[str]] = {module.name: set() for module in modules}
    outside: dict[str, int] = {}
    lines: dict[tuple[str, str], int] = {}
    for module in modules:
        for name, line in module.imports.items():
            sibling = f"{module.name.rpartition('.')[0]}.{name.split('.')[0]}"  # scripts that lie side by side
            target = names.get(name) or names.get(name.rpartition(".")[0]) or names.get(sibling)
            if target == module.name:
                continue
            if target is not None:
                edges[module.name].add(target)
                lines[module.name, target] = min(line, lines.get((module.name, target), line))
            elif (root := name.split(".")[0]) not in roots | standard_library | {"__future__"}:
                outside[root] = outside.get(root, 0) + 1
    return ImportGraph(edges, outside, lines)


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


def _finish_order(edges: dict[str, set[str]]) -> list[str]:
    order: list[str] = []
    seen: set[str] = set()
    for start in edges:
        stack = [(start, False)]
        while stack:
            name, done = stack.pop()
            if done:
                order.append(name)
            elif name not in seen:
                seen.add(name)
                stack.append((name, True))
                stack.extend((target, False) for target in edges[name] if target not in seen)
    return order


def _reachable(start: str, edges: dict[str, set[str]], seen: set[str]) -> list[str]:
    if start in seen:
        return []
    seen.add(start)
    group, waiting = [start], [start]
    while waiting:
        for target in edges[waiting.pop()] - seen:
            seen.add(target)
            group.append(target)
            waiting.append(target)
    return group


# --- places worth a look ---------------------------------------------------------------------------------------------


def _spots(tree: ast.Module, path: str) -> Iterator[Spot]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            rule = _broad_except(node)
        elif isinstance(node, ast.Call):
            rule = _risky_call(node)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            rule = "mutable default argument" if _mutable_default(node) else None
        elif isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            rule = "star import"
        else:
            continue
        if rule is not None:
            yield Spot(rule, path, node.lineno)


def _broad_except(handler: ast.ExceptHandler) -> str | None:
    """A handler that catches everything; one that also says nothing is worse. Re-raising is no fault."""
    broad = handler.type is None or (
        isinstance(handler.type, ast.Name) and handler.type.id in ("Exception", "BaseException")
    )
    if not broad or any(isinstance(node, ast.Raise) for node in ast.walk(handler)):
        return None
    silent = all(isinstance(node, (ast.Pass, ast.Continue)) for node in handler.body)
    return "broad except that hides the error" if silent else "broad except"


def _risky_call(call: ast.Call) -> str | None:
    if any(
        word.arg == "shell" and isinstance(word.value, ast.Constant) and word.value.value is True
        for word in call.keywords
    ):
        return "shell commands"
    name = ast.unparse(call.func) if isinstance(call.func, (ast.Name, ast.Attribute)) else ""
    if name == "yaml.load" and any("Safe" in ast.dump(argument) for argument in [*call.args, *call.keywords]):
        return None
    return _RISKY_CALLS.get(name)


def _mutable_default(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    defaults = [*function.args.defaults, *(default for default in function.args.kw_defaults if default is not None)]
    return any(isinstance(default, (ast.List, ast.Dict, ast.Set)) for default in defaults)


def _is_test_function(node: ast.AST) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")


def _asserts(test: ast.AST) -> bool:
    """Whether a test can fail by itself: an assert, a context manager such as `raises`, or a call that asserts."""
    for node in ast.walk(test):
        if isinstance(node, (ast.Assert, ast.Raise, ast.With, ast.AsyncWith)):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func) if isinstance(node.func, (ast.Name, ast.Attribute)) else ""
            if any(word in name.lower() for word in ("assert", "check", "expect", "verify", "fail", "raises")):
                return True
    return False
