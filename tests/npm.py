"""npm packages for tests that pack them. While npm packs a folder, its scripts put the licence there and take it away
again: two tests that pack one folder at once take it from each other."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.edges import ROOT


def copied(package: Path, into: Path) -> Path:
    """A copy of a package, which nobody else packs, at its place in a folder that stands for the repository."""
    copy = into / package.relative_to(ROOT)
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("node_modules", "LICENSE"))
    shutil.copy(ROOT / "LICENSE", into)
    return copy
