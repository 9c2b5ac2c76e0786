"""Imports point down: a folder imports only folders below it, and siblings never each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FOLDERS = {
    "broker": (
        "base",
        "live auth",
        "log",
        "streams executions",
        "ops webhooks jobs",
        "http",
        "protocols",
        "edge",
        "cli",
    ),
    "emitter": ("wire tracing", "settings", "store", "publishing", "worker testing", "integrations demo", "__main__"),
}
"""From the lowest to the highest; those on one line are siblings. What else stands in `emitter` itself is a leaf."""
LEAVES = {path.stem for path in (ROOT / "emitter").glob("*.py")} - {"__init__", "__main__", "settings", "testing"}
FOR_THE_BROKER = {*LEAVES, "wire", "tracing", "settings", "store", "publishing.hooks"}
"""What of the emitter an edge is made of."""
EXCEPTIONS = {
    ("broker.__main__", "emitter.__main__"),  # `runcast worker` is the emitter's own command
    ("broker.cli.doctor.network_path", "emitter.publishing"),  # it sends events to see them arrive
}
MAX_CHAIN = 18
"""Modules in the longest chain of imports through both packages."""
MEAN_FLOOR = 3.9
"""Of the broker's modules: how many of its modules one needs below it, on the longest way, itself included."""
MAX_LINES = 450


@cache
def modules() -> Mapping[str, Path]:
    """Dotted name → file, for both packages."""
    return {
        ".".join(part for part in path.relative_to(ROOT).with_suffix("").parts if part != "__init__"): path
        for package in FOLDERS
        for path in sorted((ROOT / package).rglob("*.py"))
        if "node_modules" not in path.parts
    }


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import, wherever it stands, those for type checkers included."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child


def imported(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports: `from broker.live import sse` is `broker.live.sse`."""
    names = set()
    for statement in statements(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        else:
            assert statement.level == 0, f"{path}: a relative import"
            source = statement.module or ""
            full = {f"{source}.{alias.name}" for alias in statement.names}
            names |= {name if name in modules() else source for name in full}
    return names


@cache
def graph() -> Mapping[str, set[str]]:
    """Module → the modules of both packages that it imports."""
    return {name: (imported(path) & set(modules())) - {name} for name, path in modules().items()}


def rank(module: str) -> tuple[int, str]:
    """How high the folder of a module stands (0: a leaf), and the folder."""
    package, _, rest = module.partition(".")
    folder = rest.partition(".")[0]
    for number, names in enumerate(FOLDERS[package], 1):
        if folder in names.split():
            return number, folder
    return 0, ""


def is_below(module: str, other: str) -> bool:
    """Whether a module may import another one of its package."""
    (own, folder), (theirs, their_folder) = rank(module), rank(other)
    return theirs < own or folder == their_folder


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def is_exception(module: str, other: str) -> bool:
    return any(module == who and is_in(other, what) for who, what in EXCEPTIONS)


INSIDE = [name for name in modules() if "." in name]


@pytest.mark.parametrize("name", [name for name in INSIDE if is_in(name, "broker") and name != "broker.__main__"])
def test_every_module_of_the_broker_is_in_a_folder(name: str) -> None:
    assert rank(name)[0] > 0, f"{name}: which folder does it belong to?"


@pytest.mark.parametrize("name", [name for name in INSIDE if name != "broker.__main__"])
def test_imports_point_down(name: str) -> None:
    """A module imports its own folder and lower ones, and never the package's front door."""
    package = name.partition(".")[0]
    for other in graph()[name]:
        if is_exception(name, other):
            continue
        if is_in(other, package):
            assert other != package or rank(name)[0] >= 5, f"{name} imports from {package} itself"
            assert is_below(name, other), f"{name} imports {other}, which is no folder below it"
        else:
            assert package == "broker", f"{name} imports {other}"
            theirs = other.partition(".")[2]
            assert any(is_in(theirs, each) for each in FOR_THE_BROKER), f"{name} imports {other}"


def floors(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """Module → modules in its longest chain of imports. Fails for a circle."""
    known: dict[str, int] = {}

    def floor(name: str, above: tuple[str, ...]) -> int:
        assert name not in above, f"a circle: {' → '.join([*above[above.index(name) :], name])}"
        if name not in known:
            known[name] = 1 + max((floor(other, (*above, name)) for other in graph[name]), default=0)
        return known[name]

    for name in graph:
        floor(name, ())
    return known


def test_no_circles_and_short_chains() -> None:
    """No module needs itself, also for a type checker; whoever reads a module needs few others."""
    longest = max(floors(graph()).items(), key=lambda item: item[1])
    assert longest[1] <= MAX_CHAIN, longest
    inside = {name: {other for other in graph()[name] if is_in(other, "broker")} for name in modules()}
    of_broker = floors({name: others for name, others in inside.items() if is_in(name, "broker")})
    assert sum(of_broker.values()) / len(of_broker) <= MEAN_FLOOR


@pytest.mark.parametrize("name", [name for name in INSIDE if is_in(name, "emitter")])
def test_the_emitter_knows_no_http_server(name: str) -> None:
    assert not [other for other in imported(modules()[name]) if is_in(other, "aiohttp")]


@pytest.mark.parametrize("name", [name for name in INSIDE if is_in(name, "emitter.wire")])
def test_the_wire_needs_little(name: str) -> None:
    """The contract needs the standard library, msgspec, itself and leaves."""
    for other in imported(modules()[name]):
        top = other.partition(".")[0]
        assert top in sys.stdlib_module_names or top in ("msgspec", "emitter"), f"{name} imports {other}"


@pytest.mark.parametrize("name", modules())
def test_modules_are_short(name: str) -> None:
    """One can read a module at a sitting."""
    assert len(modules()[name].read_text().splitlines()) <= MAX_LINES


def test_every_folder_says_what_lives_there() -> None:
    folders = [path for path in modules().values() if path.name == "__init__.py"]
    assert [str(path) for path in folders if not ast.get_docstring(ast.parse(path.read_text()))] == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [("emitter", ("aiohttp", "broker")), ("emitter.wire", ("aiohttp", "broker", "redis", "structlog"))],
)
def test_importing_is_light(module: str, unwanted: tuple[str, ...]) -> None:
    """Importing the emitter loads no server, and its contract no client either."""
    code = f"import {module}, sys; print(*(name for name in sys.modules if name.split('.')[0] in {unwanted!r}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout.split() == []
