"""Virtual environments with clients and tools for Python: `python tests/interop/pythons.py` makes them all."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent / ".venvs"
VERSIONS = ("1.3.0", "0.3.26", "0.2.16")
"""Of a2a-sdk."""
MCP = "mcp-2.3.0"
OPENAI = "openai"
OPENAPI = "openapi-python-client"
DURABLE = "durable-streams-0.1.0"
AGENTS = "agents"
PACKAGES = {
    **{version: (f"a2a-sdk=={version}", "httpx") for version in VERSIONS},
    MCP: ("mcp==2.3.0",),
    DURABLE: ("durable-streams==0.1.0",),
    OPENAI: ("openai==3.57.0", "openai-agents==0.24.0"),
    OPENAPI: ("openapi-python-client==0.29.1",),
    AGENTS: (
        *("openai-agents==0.24.0", "pydantic-ai-slim[openai]==2.68.0"),
        *("redis[hiredis]>=8.1,<9", "msgspec>=0.20", "structlog>=25.1"),  # what `runcast` needs
    ),
}
"""What each environment has."""
INSTALL_SECONDS = 50.0
"""Within a test."""


def python_of(name: str, seconds: float = INSTALL_SECONDS) -> Path | None:
    """The interpreter of an environment, installed now if it was not yet; None where that cannot be had."""
    folder = HERE / name
    python, done = folder / "bin" / "python", folder / "installed"
    wanted = f"{sys.version}\n{PACKAGES[name]}"
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            subprocess.run([*install, *PACKAGES[name]], check=True, timeout=seconds, capture_output=True)
        except (subprocess.SubprocessError, OSError):
            return None
        done.write_text(wanted)
    return python


if __name__ == "__main__":
    missing = [name for name in PACKAGES if python_of(name, 300) is None]
    sys.exit(f"could not install {', '.join(missing)}" if missing else 0)
