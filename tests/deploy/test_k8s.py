"""Every overlay, alone and with components: valid, whole, and what a cautious cluster accepts."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from broker.base.metrics import Metrics
from broker.base.settings import Settings, load_settings
from broker.edge.admin import admin_app
from emitter.__main__ import load_agents
from tests.deploy.manifests import (
    INSTALLATIONS,
    K8S,
    PROMETHEUS_RULE,
    ROOT,
    RULE_FILES,
    RULES,
    Manifest,
    Manifests,
    installation,
    needs_kustomize,
    prometheus_rule,
)

pytestmark = needs_kustomize

VERSIONS = ("1.30", "1.33", kubernetes_validate.latest_version())
"""The oldest with what is used here (the sleep of a preStop hook), one between, the newest whose schemas are here."""
SCHEMAS = Path(__file__).parent / "schemas"
PLACES = {"RUNCAST_REDIS_URL": "redis://example", "RUNCAST_JWT_SECRET": "x" * 32}
"""What Secrets hold."""
BROUGHT = {
    ("Secret", "runcast-edge", "redis-url"),
    ("Secret", "runcast-worker", "redis-url"),
    ("ConfigMap", "runcast-redis-ca", "ca.crt"),
}
"""What whoever installs it brings, as k8s/README.md says."""


@pytest.fixture(params=INSTALLATIONS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return installation(request.param)


def name_of(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


# --- valid -----------------------------------------------------------------------------------------------------------


WORDS = {
    "selectPolicy": {"Max", "Min", "Disabled"},
    "whenUnsatisfiable": {"ScheduleAnyway", "DoNotSchedule"},
    "unhealthyPodEvictionPolicy": {"AlwaysAllow", "IfHealthyBudget"},
    "pathType": {"Prefix", "Exact", "ImplementationSpecific"},
    "protocol": {"TCP", "UDP"},
    "policyTypes": {"Ingress", "Egress"},
}
"""What may stand where the schemas of Kubernetes allow any text, and a server does not."""


def words(value: Any) -> Iterator[tuple[str, str]]:
    """Every field of `WORDS` in a manifest, with what stands there."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key in WORDS:
                yield from ((key, word) for word in (child if isinstance(child, list) else [child]))
            yield from words(child)
    elif isinstance(value, list):
        for child in value:
            yield from words(child)


def test_words_are_those_that_kubernetes_knows(manifests: Manifests) -> None:
    """No field with a closed choice of words has another one."""
    found = set(words(list(manifests)))
    assert found
    assert {(key, word) for key, word in found if word not in WORDS[key]} == set()


def test_names_are_unique_and_in_one_namespace(manifests: Manifests) -> None:
    """Nothing is there twice, and everything is in the overlay's own namespace."""
    names = [name_of(each) for each in manifests]
    assert len(names) == len(set(names))
    (namespace,) = manifests.all("Namespace")
    assert {each["metadata"].get("namespace") for each in manifests if each["kind"] != "Namespace"} == {
        namespace["metadata"]["name"]
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_kubernetes_takes(version: str) -> None:
    """No field is unknown, misspelt or of a wrong type; what Kubernetes does not bring has a schema here. It comes
    after tests that render one installation each: to render all may take longer than a test may."""
    seen: dict[str, Manifest] = {}
    for name in INSTALLATIONS:
        seen |= {json.dumps(each, sort_keys=True): each for each in installation(name)}
    for manifest in seen.values():
        schema = SCHEMAS / f"{manifest['kind'].lower()}.json"
        if schema.exists():
            jsonschema.validate(manifest, json.loads(schema.read_text()))
        else:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_rules_are_those_of_deploy() -> None:
    """The PrometheusRule is made of deploy/prometheus/rules, and not of an older state of them."""
    missing = [name for name in RULE_FILES if not (RULES / name).exists()]
    if missing:
        pytest.skip(f"deploy/prometheus/rules has no {' and '.join(missing)}")
    assert PROMETHEUS_RULE.read_text() == prometheus_rule(), "run `python -m tests.deploy.manifests`"


# --- whole -----------------------------------------------------------------------------------------------------------


def references(manifests: Manifests) -> Iterator[tuple[str, str, str | None]]:
    """Kind, name and key (None: all of them) of every ConfigMap and Secret that a pod needs."""
    for _, pod in manifests.pods():
        for volume in pod["spec"].get("volumes", []):
            if "secret" in volume:
                yield "Secret", volume["secret"]["secretName"], None
            if "configMap" in volume:
                yield "ConfigMap", volume["configMap"]["name"], None
        for container in pod["spec"]["containers"]:
            for source in container.get("envFrom", []):
                yield "ConfigMap", source["configMapRef"]["name"], None
            for variable in container.get("env", []):
                if ref := variable.get("valueFrom", {}).get("secretKeyRef"):
                    yield "Secret", ref["name"], ref["key"]


def test_every_configmap_and_secret_is_there_or_documented(manifests: Manifests) -> None:
    """What a pod refers to is made by the overlay, with that key, or k8s/README.md tells to bring it."""
    made: dict[tuple[str, str], Any] = {
        (each["kind"], each["metadata"]["name"]): each.get("data", {})
        for each in manifests
        if each["kind"] in ("ConfigMap", "Secret")
    }
    for kind, name, key in references(manifests):
        if (kind, name) in made:
            assert key is None or key in made[kind, name], f"{kind} {name} has no {key}"
        else:
            assert (kind, name) in {each[:2] for each in BROUGHT}, f"nobody makes {kind} {name}"
            assert key is None or (kind, name, key) in BROUGHT


def test_what_is_to_be_brought_is_in_the_readme() -> None:
    """k8s/README.md names every Secret and ConfigMap that is not made here, with its key."""
    readme = (K8S / "README.md").read_text()
    for _, name, key in BROUGHT:
        assert f"`{name}`" in readme
        assert f"`{key}`" in readme


def test_every_variable_is_a_setting_with_an_allowed_value(manifests: Manifests) -> None:
    """An edge starts with its environment, a worker understands its own, and both agree on the logs."""
    edge = manifests.environment("runcast-edge")
    worker = manifests.environment("runcast-worker")
    settings = load_settings(edge | {name: PLACES[name] for name, value in edge.items() if value == "(secret)"})
    assert settings.jwt_secret or settings.jwks_url or settings.jwt_public_key
    theirs = load_settings(worker | {name: PLACES[name] for name, value in worker.items() if value == "(secret)"})
    for name in ("log_maxlen", "log_ttl_seconds", "log_finished_ttl_seconds", "feed_maxlen", "max_event_bytes"):
        assert getattr(settings, name) == getattr(theirs, name)


def test_selectors_meet_the_pods_they_mean(manifests: Manifests) -> None:
    """Services, budgets, monitors and spreads select the pods of exactly one workload; those of a workload its own."""

    def selected(labels: dict[str, str]) -> list[str]:
        return [name for name, pod in manifests.pods() if labels.items() <= pod["metadata"]["labels"].items()]

    for kind in ("Deployment", "StatefulSet"):
        for workload in manifests.all(kind):
            name = workload["metadata"]["name"]
            assert selected(workload["spec"]["selector"]["matchLabels"]) == [name]
            for spread in workload["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
                assert selected(spread["labelSelector"]["matchLabels"]) == [name]
    for service in manifests.all("Service"):
        assert selected(service["spec"]["selector"]) == [service["metadata"]["name"]]
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        for each in manifests.all(kind):
            assert selected(each["spec"]["selector"]["matchLabels"]) == [each["metadata"]["name"]]
    assert {each["metadata"]["name"] for each in manifests.all("PodDisruptionBudget")} == {
        "runcast-edge",
        "runcast-worker",
    }


def ports(manifests: Manifests, workload: str) -> dict[str, int]:
    (container,) = manifests.pod(workload)["spec"]["containers"]
    return {port["name"]: port["containerPort"] for port in container["ports"]}


def test_ports_are_the_ones_that_are_listened_on(manifests: Manifests) -> None:
    """Container ports are the settings' defaults, and every Service, route, probe and monitor leads to one of them."""
    defaults = Settings()
    assert ports(manifests, "runcast-edge") == {"http": defaults.port, "admin": defaults.admin_port}
    assert ports(manifests, "runcast-worker") == {"admin": defaults.admin_port}
    assert manifests.environment("runcast-worker")["RUNCAST_WORKER_ADMIN_PORT"] == str(defaults.admin_port)
    for service in manifests.all("Service"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= {
            *ports(manifests, service["metadata"]["name"])
        }
    served = {port["name"]: port["port"] for port in manifests.one("Service", "runcast-edge")["spec"]["ports"]}
    for route in manifests.all("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            assert [(ref["name"], ref["port"]) for ref in rule["backendRefs"]] == [("runcast-edge", served["http"])]
    for ingress in manifests.all("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                assert (service["name"], service["port"]["name"]) == ("runcast-edge", "http")
    for monitor in manifests.all("PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert endpoint["port"] == "admin"
            assert "admin" in ports(manifests, monitor["metadata"]["name"])


def test_pods_are_known_by_their_names(manifests: Manifests) -> None:
    """What alerts call `instance` is a pod's name, not an address that means nothing to whoever is woken."""
    for monitor in manifests.all("PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            named = {"sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "instance"}
            assert endpoint["relabelings"] == [named]


def test_the_admin_port_has_no_service(manifests: Manifests) -> None:
    """Metrics and probes cannot be reached through a Service, and so through no route."""
    for service in manifests.all("Service"):
        for port in service["spec"]["ports"]:
            assert port["targetPort"] not in ("admin", Settings().admin_port)


def test_probes_ask_for_what_the_admin_listener_has(manifests: Manifests) -> None:
    """Readiness asks /readyz, startup and liveness /healthz, all on the admin port; monitors ask /metrics."""
    routes = {resource.canonical for resource in admin_app(Metrics(), dict).router.resources()}
    for name in ("runcast-edge", "runcast-worker"):
        (container,) = manifests.pod(name)["spec"]["containers"]
        asked = {}
        for kind in ("startup", "readiness", "liveness"):
            probe = container[f"{kind}Probe"]
            assert probe["httpGet"]["port"] == "admin"
            assert probe["timeoutSeconds"] <= max(2, probe["periodSeconds"])
            asked[kind] = probe["httpGet"]["path"]
        assert asked == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}
        assert set(asked.values()) <= routes
    for monitor in manifests.all("PodMonitor"):
        assert {endpoint["path"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= routes


def test_commands_are_commands(manifests: Manifests) -> None:
    """Edges serve; workers name agents, which in dev exist."""
    (edge,) = manifests.pod("runcast-edge")["spec"]["containers"]
    (worker,) = manifests.pod("runcast-worker")["spec"]["containers"]
    assert edge["args"] == ["serve"]
    command, agents = worker["args"]
    assert command == "worker"
    if agents != "your_agents:agents":
        assert load_agents(agents)


def test_commands_of_the_cli_are_those_used_here() -> None:
    """`serve` and `worker` are commands of `runcast`, which is the image's entrypoint."""
    tree = ast.parse((ROOT / "broker" / "cli" / "main.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    parsers = [call for call in calls if call.func.attr == "add_parser"]  # type: ignore[attr-defined]
    names = {call.args[0].value for call in parsers if isinstance(call.args[0], ast.Constant)}
    assert {"serve", "worker"} <= names


# --- cautious --------------------------------------------------------------------------------------------------------


def test_pods_meet_the_restricted_standard(manifests: Manifests) -> None:
    """Every pod is what the namespace's `restricted` pod security asks, on a root file system it cannot write, without
    a token of the Kubernetes API, and with a limit to its memory."""
    (namespace,) = manifests.all("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for _, pod in manifests.pods():
        spec = pod["spec"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert all({"emptyDir", "secret", "configMap"} & volume.keys() for volume in spec.get("volumes", []))
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            # Whatever is written goes to a volume with a bound.
            mounts = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            for volume in spec["volumes"]:
                if volume["name"] in mounts:
                    assert volume["emptyDir"]["sizeLimit"]


def test_accounts_have_no_token_and_no_rights(manifests: Manifests) -> None:
    """Every workload has an account of its own, without a token; nothing here gives rights to any."""
    accounts = {each["metadata"]["name"]: each for each in manifests.all("ServiceAccount")}
    assert [pod["spec"]["serviceAccountName"] for _, pod in manifests.pods()] == [name for name, _ in manifests.pods()]
    assert set(accounts) == {name for name, _ in manifests.pods()}
    assert all(account["automountServiceAccountToken"] is False for account in accounts.values())
    assert not [each for each in manifests if "Role" in each["kind"]]


def test_secrets_of_prod_come_from_elsewhere() -> None:
    """The production overlay holds no secret, and no setting of it is one."""
    for name in (each for each in INSTALLATIONS if each.startswith("prod")):
        manifests = installation(name)
        assert not manifests.all("Secret")
        for config in manifests.all("ConfigMap"):
            assert not {"RUNCAST_REDIS_URL", "RUNCAST_JWT_SECRET"} & config["data"].keys()


def test_images_have_a_version(manifests: Manifests) -> None:
    """No image is taken by a moving name."""
    for _, pod in manifests.pods():
        for container in pod["spec"]["containers"]:
            _, _, version = container["image"].rpartition(":")
            assert version not in ("", "latest", container["image"])
