"""The numbers in the manifests agree with each other and with what the processes do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from broker.base.metrics import Metrics
from broker.base.settings import Settings, load_settings
from broker.edge.serving import SHUTDOWN_SECONDS
from emitter.worker.metrics import STALLED_SECONDS
from emitter.worker.metrics import Metrics as WorkerMetrics
from emitter.worker.worker import CLOSE_SECONDS, WorkerSettings
from tests.deploy.manifests import INSTALLATIONS, K8S, Manifests, installation, needs_kustomize

pytestmark = needs_kustomize

MARGIN_SECONDS = 10
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
# An edge without viewers; a viewer of an execution of its own (tests/bench/RESULTS.md), and as much again for its
# socket in the kernel, which counts too.
EDGE_BYTES = 120 * 2**20
VIEWER_BYTES = 12 * 2**10
SLOW_SHARE = 0.05


@pytest.fixture(params=INSTALLATIONS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return installation(request.param)


def edge_settings(manifests: Manifests) -> Settings:
    variables = manifests.environment("runcast-edge").items()
    return load_settings({name: value for name, value in variables if value != "(secret)"})


def spec(manifests: Manifests, name: str) -> Any:
    return manifests.pod(name)["spec"]


def size(text: str) -> int:
    return int(text[:-2]) * UNITS[text[-2:]]


def pre_stop_seconds(manifests: Manifests) -> int:
    seconds: int = spec(manifests, "runcast-edge")["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    return seconds


# --- stopping --------------------------------------------------------------------------------------------------------


def test_an_edge_has_the_time_to_drain(manifests: Manifests) -> None:
    """The grace period covers the preStop pause, the drain, and twice aiohttp's own shutdown (it waits, cancels, and
    waits again)."""
    needed = pre_stop_seconds(manifests) + edge_settings(manifests).drain_seconds + 2 * SHUTDOWN_SECONDS
    assert spec(manifests, "runcast-edge")["terminationGracePeriodSeconds"] >= needed + MARGIN_SECONDS


def test_a_worker_has_the_time_to_hand_back(manifests: Manifests) -> None:
    """The grace period covers the agents' own, and every bounded wait of a worker's stop."""
    grace = load_settings({"RUNCAST_GRACE_SECONDS": manifests.environment("runcast-worker")["RUNCAST_GRACE_SECONDS"]})
    worker = WorkerSettings(grace_seconds=grace.grace_seconds)
    # The last read; what is cut; what lets go; retiring; the loops.
    needed = worker.grace_seconds + worker.block_ms / 1000 + worker.cancel_grace_seconds + 4 * CLOSE_SECONDS
    assert spec(manifests, "runcast-worker")["terminationGracePeriodSeconds"] >= needed


def test_proxies_have_the_time_to_forget_a_pod(manifests: Manifests) -> None:
    """An edge that leaves goes on taking streams for the seconds in which the news travels."""
    assert pre_stop_seconds(manifests) >= 10


def test_a_failover_of_redis_leaves_edges_in_their_service(manifests: Manifests) -> None:
    """All edges lose Redis together: for half a minute they stay where viewers are told to come again."""
    probe = spec(manifests, "runcast-edge")["containers"][0]["readinessProbe"]
    assert 30 <= probe["periodSeconds"] * probe["failureThreshold"] <= 60


def test_a_quarter_of_the_viewers_has_moved_before_the_next(manifests: Manifests) -> None:
    """A rollout's steps are as far apart as a drain is long."""
    assert manifests.one("Deployment", "runcast-edge")["spec"]["minReadySeconds"] >= (
        edge_settings(manifests).drain_seconds
    )


def test_a_worker_that_is_held_up_has_its_time(manifests: Manifests) -> None:
    """A worker is started again well after it says that its event loop stands still, and not for one slow answer."""
    probe = spec(manifests, "runcast-worker")["containers"][0]["livenessProbe"]
    assert probe["failureThreshold"] >= 3
    assert probe["failureThreshold"] * probe["periodSeconds"] < STALLED_SECONDS


def test_a_rollout_never_has_fewer_edges_than_wanted(manifests: Manifests) -> None:
    """A new pod is ready, and has been for a while, before an old one goes; budgets allow one at a time."""
    for name in ("runcast-edge", "runcast-worker"):
        deployment = manifests.one("Deployment", name)["spec"]
        assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": 0}
        assert deployment["minReadySeconds"] >= 10
        assert (
            deployment["progressDeadlineSeconds"] > 2 * deployment["template"]["spec"]["terminationGracePeriodSeconds"]
        )
        assert manifests.one("PodDisruptionBudget", name)["spec"]["maxUnavailable"] == 1


def test_pods_spread_over_zones_and_hosts(manifests: Manifests) -> None:
    """Edges and workers spread over zones and hosts, counted for each revision: or the pods that leave would count."""
    for name in ("runcast-edge", "runcast-worker"):
        spreads = spec(manifests, name)["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in spreads] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        assert all(each["matchLabelKeys"] == ["pod-template-hash"] for each in spreads)


# --- proxies ---------------------------------------------------------------------------------------------------------

SECONDS = re.compile(r"(?:^|timeout_seconds=)(\d+)s?$")


def idle_cuts(manifests: Manifests) -> dict[str, int]:
    """Annotation → after how many silent seconds the proxy cuts a stream."""
    found = {}
    for ingress in manifests.all("Ingress"):
        for name, value in ingress["metadata"]["annotations"].items():
            cuts = re.search(r"proxy-(read|send)-timeout$|timeout-server$|load-balancer-attributes$", name)
            if cuts and (seconds := SECONDS.search(value)):
                found[name] = int(seconds[1])
    return found


def test_heartbeats_come_before_every_idle_cut(manifests: Manifests) -> None:
    """Two heartbeats may be lost or late before any proxy takes a stream for dead."""
    cuts = idle_cuts(manifests)
    assert len(cuts) == (5 if manifests.all("Ingress") else 0)
    assert all(seconds > 2 * edge_settings(manifests).heartbeat_seconds for seconds in cuts.values())


def test_load_balancers_wait_for_the_drain(manifests: Manifests) -> None:
    """A balancer that deregisters a pod leaves its streams alone until the edge has closed them in its own time."""
    for ingress in manifests.all("Ingress"):
        text = ingress["metadata"]["annotations"]["alb.ingress.kubernetes.io/target-group-attributes"]
        delay = re.search(r"deregistration_delay.timeout_seconds=(\d+)", text)
        assert delay is not None
        assert int(delay[1]) >= pre_stop_seconds(manifests) + edge_settings(manifests).drain_seconds


def test_routes_have_no_request_timeout(manifests: Manifests) -> None:
    """No HTTPRoute ends a stream for its age."""
    for route in manifests.all("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


# --- size ------------------------------------------------------------------------------------------------------------


def test_a_full_edge_fits_its_memory(manifests: Manifests) -> None:
    """With all the connections it takes, and a twentieth of them too slow to read, an edge stays below its limit."""
    settings = edge_settings(manifests)
    assert settings.max_connections > 0
    slow = settings.max_connections * SLOW_SHARE * settings.viewer_buffer_bytes
    needed = EDGE_BYTES + settings.max_connections * VIEWER_BYTES + slow
    assert needed <= size(spec(manifests, "runcast-edge")["containers"][0]["resources"]["limits"]["memory"])


# --- scaling ---------------------------------------------------------------------------------------------------------


def scalers(manifests: Manifests) -> list[tuple[str, str]]:
    """What scales, and which Deployment."""
    found = [("HorizontalPodAutoscaler", each) for each in manifests.all("HorizontalPodAutoscaler")]
    found += [("ScaledObject", each) for each in manifests.all("ScaledObject")]
    return [(kind, each["spec"]["scaleTargetRef"]["name"]) for kind, each in found]


def test_one_only_decides_how_many(manifests: Manifests) -> None:
    """A Deployment has its number in the manifest or from one autoscaler, never from two."""
    scaled = [name for _, name in scalers(manifests)]
    assert len(scaled) == len(set(scaled))
    for deployment in manifests.all("Deployment"):
        assert ("replicas" in deployment["spec"]) == (deployment["metadata"]["name"] not in scaled)
    assert set(scaled) <= {each["metadata"]["name"] for each in manifests.all("Deployment")}


def edge_targets(manifests: Manifests) -> list[int]:
    """Viewers for each edge that autoscalers aim at."""
    found = []
    for each in manifests.all("HorizontalPodAutoscaler"):
        found += [
            int(metric["pods"]["target"]["averageValue"]) for metric in each["spec"]["metrics"] if "pods" in metric
        ]
    for each in manifests.all("ScaledObject"):
        if each["metadata"]["name"] == "runcast-edge":
            found += [
                int(trigger["metadata"]["threshold"])
                for trigger in each["spec"]["triggers"]
                if "runcast_connections" in trigger["metadata"]["query"]
            ]
    return found


@pytest.mark.parametrize("path", ["components/keda/edge-scaler.yaml", "components/hpa/adapter.yaml"])
def test_long_polls_count_as_viewers(path: str) -> None:
    """What waits takes a slot of an edge as a stream does: whoever scales by one alone comes too late."""
    queries = re.findall(r"[qQ]uery: .*(?:connections|Series).*", (K8S / path).read_text())
    assert {"connections", "waits"} <= set(re.findall(r"runcast_(\w+)", queries[-1]))


def edge_cores(manifests: Manifests) -> list[float]:
    """Cores in use for each edge that autoscalers aim at."""
    found = []
    for each in manifests.all("HorizontalPodAutoscaler"):
        targets = [metric["resource"]["target"] for metric in each["spec"]["metrics"] if "resource" in metric]
        found += [int(target["averageValue"].removesuffix("m")) / 1000 for target in targets]
    for each in manifests.all("ScaledObject"):
        about = [trigger["metadata"] for trigger in each["spec"]["triggers"]]
        found += [float(one["threshold"]) for one in about if "process_cpu_seconds_total" in one["query"]]
    return found


def test_edges_are_scaled_out_with_room_to_spare(manifests: Manifests) -> None:
    """Autoscalers aim at half of what an edge takes; fewer and fewer pods go than come."""
    limit = edge_settings(manifests).max_connections
    assert len(edge_targets(manifests)) == len([name for _, name in scalers(manifests) if name == "runcast-edge"])
    assert all(target <= limit / 2 for target in edge_targets(manifests))
    assert edge_cores(manifests) == [0.7] * len(edge_targets(manifests))
    for behavior in behaviors(manifests):
        assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 600
        assert [policy["type"] for policy in behavior["scaleDown"]["policies"]] == ["Pods"]


def behaviors(manifests: Manifests) -> list[Any]:
    plain = [each["spec"]["behavior"] for each in manifests.all("HorizontalPodAutoscaler")]
    keda = manifests.all("ScaledObject")
    return plain + [each["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] for each in keda]


def test_workers_are_scaled_before_all_of_them_are_busy(manifests: Manifests) -> None:
    """KEDA aims at fewer executions for each worker than it can run."""
    concurrency = int(manifests.environment("runcast-worker")["RUNCAST_WORKER_CONCURRENCY"])
    for each in manifests.all("ScaledObject"):
        if each["metadata"]["name"] == "runcast-worker":
            (trigger,) = each["spec"]["triggers"]
            assert int(trigger["metadata"]["threshold"]) < concurrency


def test_a_lost_prometheus_scales_nothing_in(manifests: Manifests) -> None:
    """KEDA takes no answer for no answer, not for 0, and falls back to no fewer pods than there are."""
    for each in manifests.all("ScaledObject"):
        assert each["spec"]["fallback"]["behavior"] == "currentReplicasIfHigher"
        assert each["spec"]["fallback"]["replicas"] >= each["spec"]["minReplicaCount"]
        for trigger in each["spec"]["triggers"]:
            assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_autoscalers_ask_for_metrics_that_there_are(manifests: Manifests) -> None:
    """The gauges are the ones that edges and workers export; KEDA asks for the overlay's own namespace."""
    exported = {family.name for family in Metrics().registry.collect()}
    workers = {family.name for family in WorkerMetrics(["analyst"]).registry.collect()}
    for each in manifests.all("HorizontalPodAutoscaler"):
        names = [metric["pods"]["metric"]["name"] for metric in each["spec"]["metrics"] if "pods" in metric]
        assert names
        assert set(names) <= exported
    for each in manifests.all("ScaledObject"):
        for trigger in each["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            asked = set(re.findall(r"\b((?:runcast|process)_\w+)", query))
            assert asked
            own = exported if each["metadata"]["name"] == "runcast-edge" else workers
            assert asked <= own | {f"{name}_total" for name in own}
            if each["metadata"]["namespace"] == "runcast":
                assert set(re.findall(r'namespace="([^"]+)"', query)) == {"runcast"}
                assert query.count("namespace=") == len(re.findall(r"\b(?:runcast|process)_", query))


def test_prod_has_an_edge_in_each_of_three_zones() -> None:
    """Production never has fewer than three edges, nor fewer than two workers."""
    for name in (each for each in INSTALLATIONS if each.startswith("prod")):
        manifests = installation(name)
        least = {
            each["spec"]["scaleTargetRef"]["name"]: each["spec"].get("minReplicas", each["spec"].get("minReplicaCount"))
            for kind in ("HorizontalPodAutoscaler", "ScaledObject")
            for each in manifests.all(kind)
        }
        assert least["runcast-edge"] >= 3
        workers = manifests.one("Deployment", "runcast-worker")["spec"].get("replicas")
        assert least.get("runcast-worker", workers) >= 2
