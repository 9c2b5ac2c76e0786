"""Virtual environments with the A2A clients for Python, one a version: `python tests/interop/pythons.py` makes them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent / ".venvs"
VERSIONS = ("1.3.0", "0.3.26", "0.2.16")
INSTALL_SECONDS = 50.0


def python_of(version: str) -> Path | None:
    """The interpreter that has this version, installed now if it was not yet; None where that cannot be had."""
    folder = HERE / version
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            subprocess.run(
                [*install, f"a2a-sdk=={version}", "httpx"], check=True, timeout=INSTALL_SECONDS, capture_output=True
            )
        except (subprocess.SubprocessError, OSError):
            return None
        done.touch()
    return python


if __name__ == "__main__":
    missing = [version for version in VERSIONS if python_of(version) is None]
    sys.exit(f"could not install a2a-sdk {', '.join(missing)}" if missing else 0)
