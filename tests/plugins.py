"""Plug-in packages as an installer leaves them: modules, and the metadata that `importlib.metadata` finds."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "deploy" / "examples" / "hooks"
GROUP = "runcast.hooks"


def install(site: Path, package: str, hooks: Mapping[str, str], source: str = "", module: str | None = None) -> None:
    """A package with one module and these hooks, name → `module:function`, in a folder of the import path."""
    site.mkdir(exist_ok=True)
    if source:
        (site / f"{module or package}.py").write_text(source)
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {where}" for name, where in hooks.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))


def install_example(site: Path) -> None:
    """The example package, with the entry points that its pyproject.toml declares."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(site, project["name"].replace("-", "_"), project["entry-points"][GROUP])
    for module in EXAMPLE.glob("*.py"):
        shutil.copy(module, site)
