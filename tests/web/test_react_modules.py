"""The modules behind the hooks, in Node: pure parts, types, imports."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.edges import ROOT
from tests.web.browser import NODE, needs_npm

HERE = Path(__file__).resolve().parent / "react"
CLIENT = ROOT / "broker" / "web" / "client"
PACKAGES: dict[str, set[str]] = {"index.js": set(), "react.js": {"react"}, "store.js": {"react", "zustand"}}
IMPORT = re.compile(r'^(?:import|export)\b[^;"=]*?"([^"]+)";', re.MULTILINE)

pytestmark = [needs_npm(HERE), pytest.mark.timeout(120)]  # a compiler's 5 s of CPU, on a busy machine


def node(*arguments: str) -> None:
    assert NODE is not None
    done = subprocess.run([NODE, *arguments], cwd=HERE, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr


def imports(name: str) -> set[str]:
    """Everything that a module imports, and what that imports."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        module = CLIENT / waiting.pop()
        for imported in IMPORT.findall(module.read_text()):
            is_ours = imported.startswith(".")
            name = (module.parent / imported).resolve().relative_to(CLIENT).as_posix() if is_ours else imported
            if is_ours and name not in found:
                waiting.append(name)
            found.add(name)
    return found


def test_the_pure_parts() -> None:
    """units.test.mjs: the list of executions, reference counts, errors."""
    node("--test", "units.test.mjs")


def test_types(tmp_path: Path) -> None:
    """Every module of the client, the hooks and the store passes `tsc --checkJs --strict`, and the declarations beside
    them are those that `node types.mjs` makes."""
    node("types.mjs", str(tmp_path))
    made = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.d.ts")}
    assert set(made) == {path.relative_to(CLIENT).with_suffix(".d.ts").as_posix() for path in CLIENT.rglob("*.js")}
    assert made == {name: (CLIENT / name).read_text() for name in made}, "run `node types.mjs` in tests/web/react"


def test_an_application_of_hooks_in_typescript() -> None:
    """An application in TypeScript can use the hooks and the store, and gets errors for wrong uses (usage.tsx)."""
    node("types.mjs", "usage")


def test_each_needs_only_its_own_packages() -> None:
    """The client needs no package, the hooks need React and not zustand, the store needs both."""
    packages = {name: {path for path in imports(name) if not path.endswith(".js")} for name in PACKAGES}
    assert packages == PACKAGES
