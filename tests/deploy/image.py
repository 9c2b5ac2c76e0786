"""The image without Docker: what deploy/Dockerfile says, and its install steps carried out in a folder.

Nothing here builds the image. The steps are read from the Dockerfile, so that a change of them is tested.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.deploy.manifests import ROOT

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
IGNORE = ROOT / ".dockerignore"
UID = 10001


class Step(NamedTuple):
    """One instruction: its stage, its name, and what follows it on one line."""

    stage: str
    name: str
    text: str


@functools.cache
def steps() -> tuple[Step, ...]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    found, stage = [], ""
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, text = line.partition(" ")
        if name == "FROM":
            stage = text.rpartition(" ")[2]
        if name:
            found.append(Step(stage, name, text))
    return tuple(found)


def instructions(stage: str, name: str) -> list[str]:
    return [step.text for step in steps() if (step.stage, step.name) == (stage, name)]


def healthcheck() -> list[str]:
    (text,) = instructions("runtime", "HEALTHCHECK")
    command: list[str] = json.loads(text[text.index("CMD ") + 4 :])
    return command


# --- the context -----------------------------------------------------------------------------------------------------


def context() -> Iterator[Path]:
    """The files that are sent to a build."""
    for folder, folders, files in os.walk(ROOT):
        here = Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if is_sent(here / name)]
        yield from (here / name for name in files if is_sent(here / name))


def is_sent(path: Path) -> bool:
    """Whether a file or folder of the repository is sent to a build, by `.dockerignore`: the last line that fits a path
    or a folder above decides (of its patterns only those that stand there: plain paths, and `**/` before a name)."""
    sent = True
    for line in _ignored():
        pattern = line.removeprefix("!")
        if any(_fits(part, pattern) for part in [path, *path.parents][:-1]):
            sent = line.startswith("!")
    return sent


@functools.cache
def _ignored() -> tuple[str, ...]:
    return tuple(line for line in IGNORE.read_text().splitlines() if line and not line.startswith("#"))


def _fits(path: Path, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatch(path.name, pattern[3:])
    return path.parts == Path(pattern).parts or (pattern == "*" and len(path.parts) == 1)


# --- the steps -------------------------------------------------------------------------------------------------------


def python() -> str | None:
    """A Python that an unprivileged user may run too, as it is in the image."""
    candidates = [sys._base_executable, "/usr/bin/python3"]  # type: ignore[attr-defined]
    return next((path for path in candidates if Path(path).exists() and _anybody_runs(path)), None)


def _anybody_runs(path: str) -> bool:
    """Whether another user gets the same Python: one in root's home finds the system's library instead of its own."""
    command = [path, "-c", "import sys, venv; print(sys.version, sys.base_prefix)"]
    ours, theirs = (
        subprocess.run(each, capture_output=True, cwd="/", text=True) for each in (command, unprivileged(command))
    )
    return ours.returncode == 0 and ours.stdout == theirs.stdout and ours.stdout >= "3.11"


def unprivileged(command: list[str]) -> list[str]:
    """The command as the image's user; only root can become one."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs", *command]


def sealed(command: list[str]) -> list[str]:
    """The command as the image's user on a read-only root file system, with a /tmp of its own. Needs root."""
    script = 'mount -t tmpfs tmpfs /tmp && mount -o remount,ro,bind / && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh", *unprivileged(command)]


def can_seal() -> bool:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        return False
    return subprocess.run(sealed(["true"]), capture_output=True).returncode == 0


def install(folder: Path) -> Path:
    """Carry the build stage out in a folder; where its environment is. What the stage says of itself holds: sources
    copied from the context, commands run in the working directory, variables and arguments set."""
    source, target = folder / "src", folder / "runcast"
    source.mkdir()
    _copy(source)
    arguments = dict(text.partition("=")[::2] for text in instructions("build", "ARG"))
    names = {**os.environ, **arguments, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    base = python()
    assert base is not None
    for command in instructions("build", "RUN"):
        local = command.replace("/opt/runcast", str(target)).replace("python -m venv", f"{base} -m venv")
        local = local.replace("python -m pip", f"{sys.executable} -m pip")
        made = subprocess.run(["sh", "-c", local], cwd=source, env=names, capture_output=True, text=True, timeout=280)
        assert made.returncode == 0, made.stderr[-2000:]
    return target


def _copy(source: Path) -> None:
    sent = set(context())
    for text in instructions("build", "COPY"):
        *names, target = text.split()
        for name in names:
            found = [path for path in sent if path == Path(name) or Path(name) in path.parents]
            assert found, f"COPY {name}: .dockerignore leaves it out"
            for path in found:
                place = source / path if target == "./" else source / target / path.relative_to(name)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, place)
