"""deploy/prometheus and deploy/grafana as Python objects, and a real Prometheus with that configuration."""

from __future__ import annotations

import functools
import json
import math
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pytest
import yaml

from tests.edges import ROOT, under_load
from tests.ports import reserved_ports

PROMETHEUS_FOLDER = ROOT / "deploy" / "prometheus"
GRAFANA_FOLDER = ROOT / "deploy" / "grafana"
PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
START_SECONDS = 20.0

needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None, reason="needs prometheus and promtool (tests/run installs them as root)"
)

Rule = dict[str, Any]


def load(name: str) -> Any:
    """A file of deploy/prometheus."""
    return yaml.safe_load((PROMETHEUS_FOLDER / name).read_text())


def rules(name: str) -> list[Rule]:
    return [rule for group in load(f"rules/{name}.yml")["groups"] for rule in group["rules"]]


@functools.cache
def dashboards() -> dict[str, Any]:
    """Name of the file → the dashboard."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA_FOLDER / "dashboards").glob("*.json"))}


class Target(NamedTuple):
    """A query of a panel, and where it is."""

    place: str
    expr: str


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every panel that shows something, with its place."""
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            if panel["type"] != "row":
                yield f"{name}: {panel['title']}", panel


def targets() -> list[Target]:
    return [Target(place, each["expr"]) for place, panel in panels() for each in panel["targets"]]


def filled(expr: str, *, window: str = "1m", **chosen: str) -> str:
    """An expression as Grafana sends it: variables are what is chosen, and everything where nothing is."""
    expr = expr.replace("$__rate_interval", window)
    for name in ("namespace", "job", "instance", "agent", "node"):
        expr = re.sub(rf"\${name}\b", chosen.get(name, ".*"), expr)
    assert "$" not in expr, expr
    return expr


# Words of PromQL that are neither metrics nor functions (which a bracket follows).
WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset", "inf"}


def metrics_of(expr: str) -> set[str]:
    """The names of metrics that an expression reads."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", expr)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", bare)
    names = re.findall(r"(?<![\w.:])([a-zA-Z_:][\w:]*)(?!\w|\s*\()", bare)
    return {name for name in names if name.lower() not in WORDS}


class Sample(NamedTuple):
    labels: Mapping[str, str]
    value: float


class Prometheus:
    """Prometheus with the configuration of deploy/prometheus, but with targets of a test and in more of a hurry."""

    def __init__(self, edges: Iterable[int], workers: Iterable[int], *, interval: str = "500ms") -> None:
        self._stack = ExitStack()
        (self.port,) = self._stack.enter_context(reserved_ports(1))
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="runcast-prometheus-")))
        shutil.copytree(PROMETHEUS_FOLDER, self.folder, dirs_exist_ok=True)
        text = (self.folder / "prometheus.yml").read_text()
        hurried = re.sub(r"(scrape_interval|scrape_timeout|evaluation_interval): \S+", rf"\1: {interval}", text)
        assert hurried.count(interval) == 3
        (self.folder / "prometheus.yml").write_text(hurried)
        self._write("edges", edges)
        self._write("workers", workers)

    def _write(self, name: str, ports: Iterable[int]) -> None:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        (self.folder / "targets" / f"{name}.yml").write_text(yaml.safe_dump([{"targets": addresses}]))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Prometheus:
        assert PROMETHEUS is not None
        command = [PROMETHEUS, f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data"]
        command += [f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"]
        with (self.folder / "output").open("wb") as output:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=output, stderr=output)
        deadline = time.monotonic() + under_load(START_SECONDS)
        while not self._is_ready():
            assert self.process.poll() is None, self.log_text()
            assert time.monotonic() < deadline, f"it is not ready:\n{self.log_text()}"
            time.sleep(0.05)
        return self

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def log_text(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.process.terminate()
        try:
            self.process.wait(under_load(START_SECONDS))
        finally:
            self.process.kill()
            self._stack.close()

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its HTTP interface."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=15) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expr: str) -> list[Sample]:
        """What an expression is now, without what is no number."""
        data = self.ask("query", query=expr)
        found = data["result"] if data["resultType"] == "vector" else [{"metric": {}, "value": data["result"]}]
        samples = [Sample(each["metric"], float(each["value"][1])) for each in found]
        return [sample for sample in samples if not math.isnan(sample.value)]

    def until(self, what: str, expr: str, seconds: float = 20.0) -> list[Sample]:
        """Wait until an expression has a value that is not 0."""
        deadline = time.monotonic() + under_load(seconds)
        while not (found := [sample for sample in self.query(expr) if sample.value]):
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s\n{self.log_text()}"
            time.sleep(0.1)
        return found
