"""What kustomize makes of `k8s/`, as Python objects; and the PrometheusRule that is made of `deploy/prometheus/rules`.

`python -m tests.deploy.manifests` writes that PrometheusRule anew.
"""

from __future__ import annotations

import functools
import itertools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
RULES = ROOT / "deploy" / "prometheus" / "rules"
RULE_FILES = ("recording.yml", "alerts.yml")
PROMETHEUS_RULE = K8S / "components" / "monitoring" / "prometheus-rule.yaml"
HEAD = "# Made of deploy/prometheus/rules by `python -m tests.deploy.manifests`; change it there.\n"

Manifest = dict[str, Any]


@functools.cache
def kustomize() -> tuple[str, ...] | None:
    """The command that renders a folder: kustomize 5 as tests/run installs it or of PATH, or a kubectl that has it."""
    for path in (str(ROOT / ".venv-tools" / "bin"), None):
        if found := shutil.which("kustomize", path=path):
            return (found, "build")
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return None
    version = subprocess.run([kubectl, "version", "--client"], capture_output=True, text=True, timeout=20).stdout
    return (kubectl, "kustomize") if re.search(r"Kustomize Version: v5\.", version) else None


needs_kustomize = pytest.mark.skipif(kustomize() is None, reason="needs kustomize 5 (tests/run installs it with Go)")


def render(folder: Path) -> Manifests:
    """What kustomize makes of a folder. A warning of kustomize's is a failure too."""
    command = kustomize()
    assert command is not None
    made = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=30)
    assert made.returncode == 0, f"{folder}: {made.stderr}"
    assert not made.stderr, made.stderr
    return Manifests(yaml.safe_load_all(made.stdout))


class Manifests(list[Manifest]):
    """The rendered objects of one installation."""

    def all(self, kind: str) -> list[Manifest]:
        return [each for each in self if each["kind"] == kind]

    def one(self, kind: str, name: str) -> Manifest:
        found = [each for each in self.all(kind) if each["metadata"]["name"] == name]
        assert len(found) == 1, f"{kind} {name}: {len(found)} of them"
        return found[0]

    def pods(self) -> Iterator[tuple[str, Manifest]]:
        """Name of the workload and its pod template."""
        for kind in ("Deployment", "StatefulSet"):
            for workload in self.all(kind):
                yield workload["metadata"]["name"], workload["spec"]["template"]

    def pod(self, name: str) -> Manifest:
        return dict(self.pods())[name]

    def environment(self, name: str) -> dict[str, str]:
        """The variables of a workload's first container; `(secret)` is the value of those out of a Secret."""
        container = self.pod(name)["spec"]["containers"][0]
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            found |= self.one("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in container.get("env", []):
            found[variable["name"]] = variable.get("value", "(secret)")
        return found


class Overlays:
    """A copy of `k8s/` and what it leans on, to which overlays of a test's own can be added."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        shutil.copytree(K8S, folder / "k8s")
        shutil.copytree(ROOT / "deploy" / "redis", folder / "deploy" / "redis")

    def render(self, overlay: str) -> Manifests:
        return render(self._folder / "k8s" / "overlays" / overlay)

    def add(self, text: str) -> Path:
        """An overlay with this kustomization.yaml, beside the others."""
        folder = self._folder / "k8s" / "overlays" / f"test-{next(self._numbers)}"
        folder.mkdir()
        (folder / "kustomization.yaml").write_text(text)
        return folder

    def with_components(self, overlay: str, components: Sequence[str]) -> Manifests:
        head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
        (namespace,) = self.render(overlay).all("Namespace")
        parts = {
            "namespace": namespace["metadata"]["name"],
            "resources": [f"../{overlay}"],
            "components": [f"../../components/{name}" for name in components],
        }
        return render(self.add(yaml.safe_dump(head | parts)))

    def rewritten(self, overlay: str, changes: Mapping[str, str]) -> Manifests:
        """An overlay whose kustomization.yaml a reader of it changed."""
        folder = self.add("")
        shutil.copytree(self._folder / "k8s" / "overlays" / overlay, folder, dirs_exist_ok=True)
        path = folder / "kustomization.yaml"
        text = path.read_text()
        for old, new in changes.items():
            assert old in text, f"{overlay}: {old!r} is not in its kustomization.yaml"
            text = text.replace(old, new)
        path.write_text(text)
        return render(folder)


KEDA = {"../../components/hpa #": "../../components/keda #"}
INGRESS = {"../../components/gateway #": "../../components/ingress #"}
SINGLE = ("hpa", "keda", "gateway", "ingress", "monitoring", "https-egress", "redis-ca")
OTHERS = ("gateway", "ingress", "monitoring", "https-egress", "redis-ca")
INSTALLATIONS = (
    "dev",
    *(f"dev+{name}" for name in SINGLE),
    "+".join(("dev", "hpa", *OTHERS)),
    "+".join(("dev", "keda", *OTHERS)),
    "prod",
    "prod+redis-ca",
    "prod, keda",
    "prod, keda, ingress",
)
"""The overlays as they are, with each component and with all that go together; and prod as its comments say to change
it."""


@functools.cache
def _overlays() -> tuple[Overlays, tempfile.TemporaryDirectory[str]]:
    directory = tempfile.TemporaryDirectory(prefix="runcast-k8s-")  # removed when the interpreter ends
    return Overlays(Path(directory.name)), directory


@functools.cache
def installation(name: str) -> Manifests:
    """One of `INSTALLATIONS`, rendered once."""
    overlays, _ = _overlays()
    base, *changes = name.split(", ")
    if changes:
        texts = {"keda": KEDA, "ingress": INGRESS}
        return overlays.rewritten(base, {old: new for change in changes for old, new in texts[change].items()})
    overlay, *components = base.split("+")
    return overlays.with_components(overlay, components) if components else overlays.render(overlay)


def render_beside(text: str) -> Manifests:
    """An overlay with this kustomization.yaml, beside the others."""
    overlays, _ = _overlays()
    return render(overlays.add(text))


def prometheus_rule() -> str:
    """`deploy/prometheus/rules` as a PrometheusRule."""
    groups = [group for name in RULE_FILES for group in yaml.safe_load((RULES / name).read_text())["groups"]]
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "runcast"},
        "spec": {"groups": groups},
    }
    return HEAD + yaml.safe_dump(manifest, sort_keys=False, width=120, allow_unicode=True)


def main() -> None:
    PROMETHEUS_RULE.write_text(prometheus_rule())


if __name__ == "__main__":
    main()
