"""Imports point down. Every module has its level here; a new one must be given its place."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module may import from its own package what has a lower level, or the same one as long as there is no cycle.
LEVELS = {
    "broker": {
        0: "dataset settings logs metrics api_types ops_types lines egress unsent",
        1: "doctor.findings doctor.servers doctor.proxy protocols.rendering sse hub viewer state versions auth"
        " clipping decoding description timer turns failures eventsource problems vitals tracing claims"
        " revocations descriptors guests fairness responses rates",
        2: "admin api front seats openapi typescript stream replay pulse presence watch commands listing answers forms"
        " publish probes subscription shards history request pages ops collector redis_health redis_metrics rounds"
        " admission access revocation_store jwks embedded client transcript reconnect tickets doctor.* protocols.*"
        " listener connection standby",
        3: "app terminal",
        4: "cli supervisor demo __main__",
    },
    "emitter": {
        0: "wire record events errors settings values storable form_check connection forks redis_url tasks backoff",
        1: "retries batch blockers halves mending spending redact.* deadlines questions schedule observer tracing"
        " subjects",
        2: "hooks held log answers lane publisher listener asking emitter catalogue agents jobs workers intake sync"
        " testing run endings holds leases lifecycle presence reaper scheduler metrics probes otel telemetry",
        3: "worker demo.* integrations.*",
        4: "__main__",
    },
}
LEAVES = {"emitter.wire", "emitter.wire.record", "emitter.events", "emitter.errors", "emitter.values"}
# Names for type checkers only (`if TYPE_CHECKING`) load nothing, so they are not imports here.


def modules(package: str) -> dict[str, Path]:
    """Name within the package → file; the package itself is the name ``."""
    folder = ROOT / package
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def level(package: str, module: str) -> int | None:
    for number, names in LEVELS[package].items():
        for name in names.split():
            stem = name.removesuffix(".*")
            if module == name or (name.endswith(".*") and (module == stem or module.startswith(stem + "."))):
                return number
    return None


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import that runs, wherever it stands."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from statements(child)


def imported(path: Path) -> set[str]:
    """Absolute names of what a file imports: `from broker import sse` is `broker.live.sse`."""
    names = set()
    for statement in statements(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        else:
            assert statement.level == 0, f"{path}: a relative import"
            source = statement.module or ""
            is_package = (ROOT / source.replace(".", "/")).is_dir()
            names |= {f"{source}.{alias.name}" if is_package else source for alias in statement.names}
    return names


def local(package: str, path: Path) -> set[str]:
    """Modules of the same package that a file imports, by their names in it."""
    known = modules(package)
    inside = {name.removeprefix(package).removeprefix(".") for name in imported(path) if is_in(name, package)}
    # A name that is no module is something the package itself exports.
    return {name if name in known else name.rpartition(".")[0] for name in inside}


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


EVERY = [(package, name) for package in LEVELS for name in modules(package)]


@pytest.mark.parametrize(("package", "name"), [each for each in EVERY if each[1]])
def test_every_module_has_a_level(package: str, name: str) -> None:
    """A module is in the table of levels."""
    assert level(package, name) is not None, f"{package}.{name}: give it a level in tests/test_layers.py"


@pytest.mark.parametrize(("package", "name"), [each for each in EVERY if each[1]])
def test_imports_point_down(package: str, name: str) -> None:
    """A module imports nothing of its package that stands above it, and never the package's front door."""
    own = level(package, name)
    assert own is not None
    for other in local(package, modules(package)[name]):
        if other == "" and own < 3:
            pytest.fail(f"{package}.{name} imports from {package} itself")
        theirs = level(package, other) if other else 3
        assert theirs is not None
        assert theirs <= own, f"{package}.{name} (level {own}) imports {package}.{other} (level {theirs})"


@pytest.mark.parametrize("package", LEVELS)
def test_no_cycles(package: str) -> None:
    """Modules of one level may use each other, but never in a circle."""
    graph = {name: local(package, path) for name, path in modules(package).items()}
    done: set[str] = set()
    while ready := {name for name in graph if name not in done and graph[name] <= done | {name}}:
        done |= ready
    assert set(graph) - done == set()


@pytest.mark.parametrize("name", modules("emitter"))
def test_the_emitter_knows_no_broker(name: str) -> None:
    """No module of the emitter imports the broker or an HTTP server."""
    found = imported(modules("emitter")[name])
    assert not [other for other in found if is_in(other, "broker") or is_in(other, "aiohttp")]


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_the_wire_needs_little(name: str) -> None:
    """The wire contract needs the standard library, msgspec and itself."""
    for other in imported(modules("emitter")[name.partition(".")[2]]):
        top = other.partition(".")[0]
        assert top in sys.stdlib_module_names or top == "msgspec" or is_leaf(other), f"{name} imports {other}"


def is_leaf(name: str) -> bool:
    return any(is_in(name, leaf) for leaf in LEAVES)


@pytest.mark.parametrize("name", ["settings", "logs", "metrics", "api_types"])
def test_the_brokers_leaves(name: str) -> None:
    """The broker's leaves import nothing of the broker, and of the emitter only the wire contract and the settings."""
    ours = {other for other in imported(modules("broker")[name]) if other.partition(".")[0] in LEVELS}
    assert all(is_leaf(other) for other in ours - {"emitter.settings"}), ours


def test_importing_the_emitter_is_light() -> None:
    """`import emitter` in a new interpreter loads neither aiohttp nor the broker."""
    code = "import emitter, sys; print(*(name for name in sys.modules if name.split('.')[0] in ('aiohttp', 'broker')))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout.split() == []
