"""The image, as far as it can be tested without building it: the Dockerfile, its context, and what its steps install,
run by an unprivileged user on a read-only root file system."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from broker.base.settings import Settings
from tests.deploy.acl_server import SERVERS, AclServer, acl_server
from tests.deploy.image import (
    DOCKERFILE,
    ROOT,
    UID,
    can_seal,
    context,
    healthcheck,
    install,
    instructions,
    is_sent,
    python,
    sealed,
    steps,
)
from tests.edges import SECRET, call, token_for, under_load
from tests.ports import reserved_ports

START_SECONDS = 30.0
CONTEXT_BYTES = 4 * 2**20


# --- what is written -------------------------------------------------------------------------------------------------


def test_the_dockerfile_has_no_findings() -> None:
    """hadolint has nothing to say."""
    tool = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([tool, str(DOCKERFILE)], capture_output=True, text=True, timeout=30)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_image_runs_as_a_user_who_is_a_number_and_not_root() -> None:
    """Kubernetes can tell that it is not root; the manifests name the same one."""
    assert instructions("runtime", "USER") == [f"{UID}:{UID}"]
    for path in (ROOT / "k8s" / "base").glob("*.yaml"):
        for user in re.findall(r"runAs(?:User|Group): (\d+)", path.read_text()):
            assert int(user) == UID


def test_every_stage_has_the_base_that_can_be_pinned() -> None:
    """One argument names the base of all stages, and the file says how to give it a digest."""
    bases = [step.text.split(" ")[0] for step in steps() if step.name == "FROM"]
    assert set(bases) == {"${PYTHON_IMAGE}", "scratch"}
    assert "@sha256:" in DOCKERFILE.read_text()


def test_nothing_of_the_build_is_in_the_image() -> None:
    """The last stage takes the installed environment, and runs nothing."""
    assert instructions("runtime", "COPY") == ["--from=build /opt/runcast /opt/runcast"]
    assert instructions("runtime", "RUN") == []
    assert instructions("runtime", "ENTRYPOINT") == ['["runcast"]']
    assert instructions("runtime", "EXPOSE") == [f"{Settings().port} {Settings().admin_port}"]


def test_the_context_is_small_and_holds_no_more_than_is_copied() -> None:
    """`.dockerignore` lets in what the build copies: no tests, no environments, no history, no secrets."""
    sent = list(context())
    copied = {name for text in instructions("build", "COPY") for name in text.split()[:-1]}
    assert {path.parts[0] for path in sent} == copied
    assert not [path for path in sent if {"__pycache__", "node_modules"} & set(path.parts)]
    assert sum((ROOT / path).stat().st_size for path in sent) < CONTEXT_BYTES


@pytest.mark.parametrize(
    "path",
    [
        *("node_modules/a.js", "broker/node_modules/a.js", "broker/web/client/node_modules/b/a.js"),
        *("broker/__pycache__/a.pyc", "emitter/demo/__pycache__/a.pyc", "broker/web/console/screenshots/a.png"),
        *(".git/config", ".env", "deploy/tls/tls.key", "tests/conftest.py", ".venv/bin/python"),
    ],
)
def test_what_may_lie_about_stays_out_of_the_context(path: str) -> None:
    """What a developer's folder has, at any depth, whether it is there now or not."""
    assert not is_sent(Path(path))


@pytest.mark.parametrize(
    "path", ["broker/web/client/api.js", "broker/edge/edge.py", "emitter/store/append.lua", "pyproject.toml"]
)
def test_what_is_built_is_in_the_context(path: str) -> None:
    """Nothing that keeps the rest out keeps this out."""
    assert is_sent(Path(path))


# --- what is installed -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """The environment that the build stage makes."""
    if python() is None:
        pytest.skip("needs a Python that an unprivileged user may run (Debian's python3)")
    # Not in /tmp, which is another one for what runs sealed; and open to others, as a layer of an image is.
    folder = Path(tempfile.mkdtemp(prefix="runcast-image-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        yield install(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(300)
def test_what_is_installed_is_what_was_tested(installed: Path) -> None:
    """Every package has the version of constraints.txt, and there is no pip to change them."""
    (site,) = installed.glob("lib/python3.*/site-packages")
    names = [path.name.removesuffix(".dist-info").rpartition("-") for path in site.glob("*.dist-info")]
    versions = {name.lower().replace("_", "-").replace(".", "-"): version for name, _, version in names}
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert versions.pop("runcast")
    assert versions == {name: pinned.get(name) for name in versions}
    assert {"aiohttp", "redis", "hiredis", "prometheus-client", "cronsim", "opentelemetry-sdk"} <= versions.keys()
    assert "pip" not in versions
    assert "pytest" not in versions


@pytest.mark.timeout(300)
def test_everything_that_was_sent_is_installed(installed: Path) -> None:
    """Scripts, pages and modules alike: no file of the packages is missing in what was installed."""
    (site,) = installed.glob("lib/python3.*/site-packages")
    sent = {path for path in context() if path.parts[0] in ("broker", "emitter", "runcast")}
    assert Path("emitter/store/append.lua") in sent
    assert {path for path in sent if not (site / path).exists()} == set()


@pytest.fixture(scope="module")
def server() -> Iterator[AclServer]:
    binary = SERVERS["valkey"]
    assert binary is not None
    with acl_server(binary) as started:
        yield started


needs_seal = pytest.mark.skipif(not can_seal(), reason="needs root, unshare and setpriv, to run on a read-only root")


class Sealed:
    """`with Sealed(installed, arguments, …) as process:` a container of sorts: the image's entrypoint as its user on a
    read-only root. Ends with SIGTERM."""

    def __init__(self, installed: Path, *arguments: str, admin_port: int = 0, **settings: object) -> None:
        self._bin = installed / "bin"
        ports = {"admin_port": admin_port, "worker_admin_port": admin_port}
        given = {"admin_host": "127.0.0.1", **ports, **settings}
        self._environ = {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "HOME": "/tmp",
            "PYTHONDONTWRITEBYTECODE": "1",
            **{f"RUNCAST_{name.upper()}": str(value) for name, value in given.items()},
        }
        self._command = [str(self._bin / "runcast"), *arguments]
        self.status: int | None = None

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            sealed(list(command) or self._command),
            env=self._environ,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=under_load(START_SECONDS),
        )

    def __enter__(self) -> Sealed:
        self._log = tempfile.TemporaryFile(prefix="runcast-sealed-")
        self.process = subprocess.Popen(
            sealed(self._command), env=self._environ, cwd="/", stdout=self._log, stderr=self._log
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.terminate()
        try:
            self.status = self.process.wait(under_load(20))
        finally:
            self.process.kill()
            self._log.close()

    def wait_until(self, what: str, command: Sequence[str]) -> None:
        deadline = time.monotonic() + under_load(START_SECONDS)
        while self.run(*command).returncode:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log_text()}"
            assert time.monotonic() < deadline, f"{what}: not in time: {self.log_text()}"
            time.sleep(0.1)

    def log_text(self) -> str:
        return os.pread(self._log.fileno(), 65536, 0).decode(errors="replace")


@needs_seal
@pytest.mark.timeout(300)
def test_an_edge_and_a_worker_run_on_a_read_only_root(installed: Path, server: AclServer) -> None:
    """As the image's user, with nothing to write to but /tmp: an edge becomes healthy by the image's own check, serves,
    hears of a worker's agents, and both end in order."""
    version = Sealed(installed, "--version").run()
    assert (version.returncode, version.stderr) == (0, "")
    assert re.match(r"\d+\.\d+", version.stdout)
    public = {"host": "127.0.0.1", "jwt_secret": SECRET, "drain_seconds": 0, "redis_url": server.url("edge")}
    with (
        reserved_ports(3) as (port, *admin_ports),
        Sealed(installed, "serve", **public, port=port, admin_port=admin_ports[0]) as edge,
    ):
        edge.wait_until("healthy", healthcheck())
        work = {"redis_url": server.url("worker"), "admin_port": admin_ports[1], "grace_seconds": 0}
        with Sealed(installed, "worker", "emitter.demo:agents", **work) as worker:
            worker.wait_until("healthy", healthcheck())
            _wait_for_agents(port)
        assert worker.status == 0
        refused = edge.run("touch", str(installed / "bin" / "new"))
        assert "Read-only file system" in refused.stderr
    assert edge.status == 0
    assert edge.run(*healthcheck()).returncode != 0  # it can tell


def _wait_for_agents(port: int) -> None:
    import asyncio

    async def ask() -> list[str]:
        answer = await call(port, "GET", "/api/agent/agents", token_for("alice"))
        return [agent["name"] for agent in answer.body["agents"]]

    deadline = time.monotonic() + under_load(START_SECONDS)
    while asyncio.run(ask()) != ["analyst", "panel"]:
        assert time.monotonic() < deadline, "no agents in time"
        time.sleep(0.1)
