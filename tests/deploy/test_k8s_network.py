"""Who may talk to whom: what the policies allow, spelt out, and not a word more."""

from __future__ import annotations

from typing import Any

import pytest

from broker.base.targets import PORTS
from tests.deploy.manifests import INSTALLATIONS, Manifest, Manifests, installation, needs_kustomize

pytestmark = needs_kustomize

DNS = "namespace kube-system, pods k8s-app=kube-dns"
NODE_DNS = "169.254.20.10/32"
VALKEY = "pods app.kubernetes.io/name=valkey"
OURS = "pods app.kubernetes.io/name=runcast"
PUBLIC = "0.0.0.0/0 but 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16"
REDIS = "192.0.2.0/24"
GATEWAY = "namespace gateway"
MONITORING = "namespace monitoring"


@pytest.fixture(params=INSTALLATIONS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return installation(request.param)


def peer(rule: Manifest) -> str:
    """A peer in words. A peer without a selector is everybody."""
    words = []
    if "namespaceSelector" in rule:
        (pair,) = rule["namespaceSelector"]["matchLabels"].items()
        assert pair[0] == "kubernetes.io/metadata.name"
        words.append(f"namespace {pair[1]}")
    if "podSelector" in rule:
        words.append("pods " + " ".join(f"{key}={value}" for key, value in rule["podSelector"]["matchLabels"].items()))
    if "ipBlock" in rule:
        without = rule["ipBlock"].get("except", [])
        words.append(rule["ipBlock"]["cidr"] + (" but " + " ".join(without) if without else ""))
    return ", ".join(words) or "everybody"


def allowed(manifests: Manifests, workload: str, direction: str) -> set[tuple[str, str]]:
    """Everything that the policies which select a workload's pods allow in one direction: peer, and port."""
    labels = manifests.pod(workload)["metadata"]["labels"]
    key, side = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    found: set[tuple[str, str]] = set()
    walled = False
    for policy in manifests.all("NetworkPolicy"):
        spec: Any = policy["spec"]
        if not spec["podSelector"]["matchLabels"].items() <= labels.items() or direction not in spec["policyTypes"]:
            continue
        walled = True
        for rule in spec.get(key, []):
            peers = [peer(each) for each in rule.get(side) or [{}]]
            ports = [
                f"{each['protocol']} {each['port']}" for each in rule.get("ports") or [{"protocol": "", "port": "any"}]
            ]
            found |= {(each, port) for each in peers for port in ports}
    assert walled, f"no policy closes the {key} of {workload}"
    return found


def world(manifests: Manifests) -> set[tuple[str, str]]:
    named = [each["metadata"]["name"] for each in manifests.all("NetworkPolicy")]
    return {(PUBLIC, f"TCP {port}") for port in PORTS} if "runcast-https" in named else set()


def redis(manifests: Manifests) -> set[tuple[str, str]]:
    return {(VALKEY if manifests.all("StatefulSet") else REDIS, "TCP 6379")}


NAMES = {(server, f"{protocol} 53") for server in (DNS, NODE_DNS) for protocol in ("UDP", "TCP")}


def test_edges_are_reached_by_the_gateway_and_prometheus_only(manifests: Manifests) -> None:
    """Viewers come through the gateway to the public port, Prometheus to the admin port."""
    assert allowed(manifests, "runcast-edge", "Ingress") == {(GATEWAY, "TCP http"), (MONITORING, "TCP admin")}


def test_workers_are_reached_by_prometheus_only(manifests: Manifests) -> None:
    """Nobody calls a worker: jobs come through Redis."""
    assert allowed(manifests, "runcast-worker", "Ingress") == {(MONITORING, "TCP admin")}


@pytest.mark.parametrize("workload", ["runcast-edge", "runcast-worker"])
def test_edges_and_workers_reach_redis_and_names_only(manifests: Manifests, workload: str) -> None:
    """Both reach Redis and DNS; the world outside, on the ports of webhooks, only where the component for it was
    chosen."""
    assert allowed(manifests, workload, "Egress") == redis(manifests) | NAMES | world(manifests)


def test_keys_that_are_fetched_can_be_fetched(manifests: Manifests) -> None:
    """Edges that verify tokens with published keys may go out by HTTPS."""
    if "RUNCAST_JWKS_URL" in manifests.environment("runcast-edge"):
        assert world(manifests)


def test_valkey_is_reached_by_edges_and_workers_only(manifests: Manifests) -> None:
    """The development Valkey takes edges and workers, and goes nowhere but to DNS."""
    if manifests.all("StatefulSet"):
        assert allowed(manifests, "valkey", "Ingress") == {(OURS, "TCP redis")}
        assert allowed(manifests, "valkey", "Egress") == NAMES


def test_selectors_of_peers_in_the_namespace_meet_pods(manifests: Manifests) -> None:
    """A policy that lets pods of this namespace in or out names labels that some pod here has."""
    for policy in manifests.all("NetworkPolicy"):
        for key, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(key, []):
                for each in rule.get(side, []):
                    if each.keys() == {"podSelector"}:
                        wanted = each["podSelector"]["matchLabels"].items()
                        assert any(wanted <= pod["metadata"]["labels"].items() for _, pod in manifests.pods())
