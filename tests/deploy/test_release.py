"""What is released: a wheel and three npm packages, installed as the first pages of the documentation say; and one
version in all places."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.edges import ROOT, call
from tests.npm import copied
from tests.ports import reserved_ports

pytestmark = pytest.mark.timeout(300)
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PACKAGES = {"client": "broker/web/client", "emitter": "emitter/js", "worker": "emitter/worker-js"}
NPM = shutil.which("npm")
AGENTS = """
from runcast import Agents, Context

agents = Agents()


@agents.agent("greeter")
async def greeter(context: Context) -> dict[str, str]:
    async with context.emitter.tool("look", {"at": context.task}) as tool:
        tool.result = "seen"
    return {"said": f"hello {context.task}"}
"""


def run(*command: str | Path, cwd: Path, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("RUNCAST_", "PYTHON", "PIP_"))}
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=seconds)


def done(*command: str | Path, cwd: Path) -> str:
    """What it printed; it must have succeeded."""
    result = run(*command, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# --- one version -----------------------------------------------------------------------------------------------------


def test_every_place_names_the_same_version() -> None:
    """Packages, image, manifests and the newest heading of the changelog."""
    found: dict[str, Any] = {}
    for path in PACKAGES.values():
        package = json.loads((ROOT / path / "package.json").read_text())
        found[path] = package["version"]
        for name, version in package.get("dependencies", {}).items():
            found[f"{path}: {name}"] = version
    for path in ("broker/web/client", "emitter/js"):
        (found[f"{path}/README.md"], *_) = re.findall(
            r"runcast-\w+-([\d.]+)\.tgz", (ROOT / path / "README.md").read_text()
        )
    for page in (ROOT / "docs").rglob("*.md"):
        for name, version in re.findall(r"(runcast-\w+)-([\d.]+)\.tgz", page.read_text()):
            found[f"{page.relative_to(ROOT)}: {name}"] = version
    found["Dockerfile"] = re.findall(r"ARG VERSION=(\S+)", (ROOT / "deploy" / "Dockerfile").read_text())[0]
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    images = {name: service["image"] for name, service in compose["services"].items() if "build" in service}
    found |= {f"compose: {name}": image.removeprefix("runcast:") for name, image in images.items()}
    prod = yaml.safe_load((ROOT / "k8s" / "overlays" / "prod" / "kustomization.yaml").read_text())
    found |= {f"prod: {image['name']}": str(image["newTag"]) for image in prod["images"] if "newTag" in image}
    found["k8s/README.md"] = re.findall(r"overlays/prod\?ref=v(\S+)", (ROOT / "k8s" / "README.md").read_text())[0]
    (supported,) = re.findall(r"^\| ([\d.]+) \| yes \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    assert supported == VERSION.rpartition(".")[0]
    headings = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    found["CHANGELOG.md"] = headings[0]
    assert {place: version for place, version in found.items() if version != VERSION} == {}


# --- Python ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as deploy/RELEASE.md says."""
    folder = tmp_path_factory.mktemp("wheel")
    done(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_what_is_imported_and_served(wheel: Path) -> None:
    """Types, scripts of Redis, console and client; no packages of npm, no tests."""
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name == f"runcast-{VERSION}-py3-none-any.whl"
    for needed in (
        *("runcast/__init__.py", "runcast/py.typed", "emitter/py.typed", "broker/py.typed"),
        *("emitter/store/append.lua", "broker/web/console/index.html", "broker/web/client/index.js"),
    ):
        assert needed in names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"broker", "emitter", "runcast", f"runcast-{VERSION}.dist-info"}
    assert not [name for name in names if name.startswith(("emitter/js/", "emitter/worker-js/"))]


async def test_a_wheel_in_an_empty_environment_runs_agents(wheel: Path, tmp_path: Path) -> None:
    """Without extras there are agents and workers, and every other command names the extra; with them `runcast dev`
    runs one's own agents, which the command line starts and follows."""
    folder = tmp_path / "venv"
    venv.create(folder)
    python, runcast = folder / "bin" / "python", folder / "bin" / "runcast"
    pinned = ROOT / "constraints.txt"

    def install(what: str) -> None:
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--disable-pip-version-check")
        done(*pip, "--no-compile", "--constraint", pinned, what, cwd=tmp_path)

    (tmp_path / "own.py").write_text(AGENTS)
    await asyncio.to_thread(install, str(wheel))
    assert "own" in done(python, "-c", "import own, runcast; print(own.agents and own.__name__)", cwd=tmp_path)
    assert "MODULE:AGENTS" in done(runcast, "worker", "--help", cwd=tmp_path)
    for command in (["--help"], ["token", "--user", "a"], ["dev", "own:agents"], ["doctor"]):
        refused = run(runcast, *command, cwd=tmp_path)
        assert (refused.returncode, "pip install 'runcast[broker]'" in refused.stderr) == (2, True), refused

    await asyncio.to_thread(install, f"{wheel}[broker,embedded]")
    assert done(runcast, "--version", cwd=tmp_path).strip() == VERSION
    with reserved_ports(2) as (port, admin_port):
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        environ |= {"RUNCAST_PORT": str(port), "RUNCAST_ADMIN_PORT": str(admin_port)}
        dev = await asyncio.create_subprocess_exec(
            *(runcast, "dev", "own:agents"), cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            assert dev.stdout is not None
            async with asyncio.timeout(60):
                while b"#token=" not in (line := await dev.stdout.readline()):
                    assert line, "it ended"
            token = line.decode().strip().partition("#token=")[2]
            where = ("--url", f"http://127.0.0.1:{port}", "--token", token)
            async with asyncio.timeout(60):
                while not (await call(port, "GET", "/api/agent/agents", token)).body["agents"]:
                    await asyncio.sleep(0.1)
            said = await asyncio.to_thread(done, runcast, "run", "greeter", "world", "--follow", *where, cwd=tmp_path)
            assert "hello world" in said
            listed = await asyncio.to_thread(done, runcast, "ls", *where, cwd=tmp_path)
            assert "completed" in listed
        finally:
            dev.terminate()
            await asyncio.wait_for(dev.communicate(), 30)


# --- npm -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(NPM is None, reason="needs npm")
def test_packed_packages_install_into_an_empty_project(tmp_path: Path) -> None:
    """From their tarballs alone, without a registry: each is imported by its name, types beside it."""
    assert NPM is not None
    quiet = ("--silent", "--no-audit", "--no-fund")
    for path in PACKAGES.values():
        package = copied(ROOT / path, tmp_path / "packed")
        done(NPM, "pack", *quiet, "--pack-destination", tmp_path, package, cwd=tmp_path)
    tarballs = sorted(path.name for path in tmp_path.glob("*.tgz"))
    assert tarballs == [f"runcast-{name}-{VERSION}.tgz" for name in PACKAGES]
    (tmp_path / "package.json").write_text('{"name": "own", "private": true, "type": "module"}')
    done(NPM, "install", *quiet, "--offline", *(f"./{name}" for name in tarballs), cwd=tmp_path)
    script = "".join(f'import * as {name} from "@runcast/{name}";\n' for name in PACKAGES)
    script += "console.log([client.RuncastClient, emitter.AgentEmitter, worker.Worker].every(Boolean));\n"
    (tmp_path / "own.js").write_text(script)
    assert done("node", "own.js", cwd=tmp_path).strip() == "true"
    for name in PACKAGES:
        package = tmp_path / "node_modules" / "@runcast" / name
        entry = json.loads((package / "package.json").read_text())["exports"]["."]
        assert (package / entry["types"]).exists()
        assert (package / "LICENSE").exists()
