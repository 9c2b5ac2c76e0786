"""What `.gitattributes` marks as generated is what the commands of CONTRIBUTING make, and nothing else.

The contents have tests of their own, in `tests/broker/edge`, `tests/web` and `tests/deploy`; here it is which files.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "broker" / "web" / "client"
EMITTER = ROOT / "emitter" / "js"
UNMARKED = {
    "`docs/reference/*.md`, without its README and Problems": "pages, which a review reads; tests/docs holds them",
    "capacity tables in `docs/run/sizing.md`": "a part of a page",
    "`tests/bench/RESULTS.md`": "figures, which a review reads",
}
"""Rows of CONTRIBUTING that name no file of their own, or one that is to be read in a review."""


def declarations(package: Path) -> Callable[[Path], set[str]]:
    return lambda _: {f"{module.stem}.d.ts" for module in package.glob("*.js")} | {"events.d.ts"}


def dashboards(folder: Path) -> set[str]:
    subprocess.run([sys.executable, ROOT / "deploy" / "grafana" / "source", folder], check=True, timeout=60)
    return {path.name for path in folder.iterdir()}


def one(name: str) -> Callable[[Path], set[str]]:
    return lambda _: {name}


MADE: dict[str, Callable[[Path], set[str]]] = {
    "broker/web/client/*.d.ts": declarations(CLIENT),
    "constraints.txt": one("constraints.txt"),
    "deploy/grafana/dashboards/*.json": dashboards,
    "emitter/js/*.d.ts": declarations(EMITTER),
    "k8s/components/monitoring/prometheus-rule.yaml": one("prometheus-rule.yaml"),
}
"""Pattern → the names of the files that its command writes; it may write them into the folder."""


def marked() -> set[str]:
    lines = (ROOT / ".gitattributes").read_text().splitlines()
    return {line.split()[0] for line in lines if line.endswith(" linguist-generated")}


def rows() -> set[str]:
    """The first column of the table of generated files."""
    section = (
        (ROOT / ".github" / "CONTRIBUTING.md").read_text().partition("## Generated files")[2].partition("\n## ")[0]
    )
    return set(re.findall(r"^\| (.+?) \|", section, re.MULTILINE)) - {"file"}


def tracked(pattern: str) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--", f":(glob){pattern}"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    return {Path(line).name for line in listed.stdout.splitlines()}


in_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")


def test_what_is_marked_has_its_command() -> None:
    """`.gitattributes`, the table of CONTRIBUTING and the list above name the same files."""
    assert marked() == set(MADE)
    named = {row.strip("`") for row in rows() - set(UNMARKED)}
    assert named == {*MADE, "broker/web/client/events.d.ts", "emitter/js/events.d.ts"}


@in_git
@pytest.mark.parametrize("pattern", MADE)
def test_a_pattern_matches_what_its_command_makes(pattern: str, tmp_path: Path) -> None:
    """No handwritten file is hidden in a review, and no made one is left behind when its source goes."""
    assert tracked(pattern) == MADE[pattern](tmp_path)


def test_the_constraints_pin_every_dependency() -> None:
    """Each requirement of the project has one version in `constraints.txt`, within its range."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    required = [Requirement(each) for each in stated]
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    for each in required:
        if each.name != project["name"]:
            assert each.specifier.contains(pinned[canonicalize_name(each.name)]), each
