"""What k8s/README.md tells people to do and to look at is there, and its examples render."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import jwt
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from broker.base.metrics import Metrics
from broker.base.settings import Settings, describe
from broker.edge.openapi import build_openapi
from broker.ops.redis_metrics import GAUGES
from emitter.worker.metrics import Metrics as WorkerMetrics
from tests.deploy.manifests import K8S, installation, needs_kustomize, render_beside
from tests.edges import EdgeProcess, call

README = (K8S / "README.md").read_text()
HEAD = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
OWN, KEDA = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


def exported() -> set[str]:
    """Every name under which edges and workers export something."""
    names = set()
    for registry in (Metrics().registry, WorkerMetrics(["analyst"]).registry):
        for family in registry.collect():
            names |= {family.name, f"{family.name}_total"}
    return names | {"runcast_redis_up"} | {f"runcast_redis_{fact.name}" for fact in GAUGES}


def test_metrics_and_settings_are_those_that_there_are() -> None:
    """Every metric in it is exported, every variable is a setting."""
    asked = set(re.findall(r"`(runcast_\w+)", README))
    assert len(asked) > 10
    assert asked <= exported()
    variables = {row.name for row in describe(Settings())}
    assert set(re.findall(r"RUNCAST_\w+", README)) - {"RUNCAST_TOKEN"} <= variables


def test_files_and_routes_are_those_that_there_are() -> None:
    """Every folder, file and route that it names exists; and every component, overlay and page is named."""
    for path in re.findall(r"`((?:deploy|k8s|base|overlays|components)/[\w./-]*)", README):
        assert (K8S / path).exists() or (K8S.parent / path).exists(), path
    for folder in (*(K8S / "components").iterdir(), *(K8S / "overlays").iterdir()):
        assert f"`{folder.parent.name}/{folder.name}`" in README
    routes = {re.sub(r"\{\w+\}", "$ID", route) for route in build_openapi("0")["paths"]}
    for path in re.findall(r"`(?:GET|POST) (/[\w/$-]+)`", README):
        assert path in routes
    titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([\w-]+)\)", README)) <= anchors


@needs_kustomize
def test_the_numbers_of_a_rolling_update_are_those_of_prod() -> None:
    """Its table adds up to what the production overlay says."""
    prod = installation("prod")
    pod = prod.pod("runcast-edge")["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = int(prod.environment("runcast-edge")["RUNCAST_DRAIN_SECONDS"])
    rows = re.findall(r"^\| (\d+)(?: to (\d+))? \|", README, re.MULTILINE)
    assert rows == [
        ("0", str(pause)),
        (str(pause), str(pause + drain)),
        (str(pause + drain), str(pause + drain + 10)),
        (str(pod["terminationGracePeriodSeconds"]), ""),
    ]
    assert f"`minReadySeconds`, as many old ones are stopped. That is {drain} s in prod" in " ".join(README.split())


@needs_kustomize
def test_an_overlay_of_ones_own_replaces_everything_that_is_marked() -> None:
    """The example renders, and no name or address that belongs to nobody is left but what it does not speak of."""
    text = re.sub(r"https://git\.example\.com/\S+", "../prod", OWN)
    manifests = render_beside(text)
    images = [pod["spec"]["containers"][0]["image"] for _, pod in manifests.pods()]
    assert sorted(images) == ["registry.internal/agents:7", "registry.internal/runcast:0.3.0"]
    edge = manifests.environment("runcast-edge")
    assert edge["RUNCAST_PUBLIC_URL"] == "https://agents.internal"
    assert edge["RUNCAST_DRAIN_SECONDS"] == "60"  # merged, not replaced
    assert edge["RUNCAST_WEBHOOK_SECRET"] == "(secret)"
    route = manifests.one("HTTPRoute", "runcast")["spec"]
    assert route["hostnames"] == ["agents.internal"]
    assert [(each["name"], each["namespace"]) for each in route["parentRefs"]] == [("internal", "gateway")]
    assert manifests.pod("runcast-worker")["spec"]["containers"][0]["args"] == ["worker", "agents.all:agents"]
    policy: Any = manifests.one("NetworkPolicy", "runcast-redis")["spec"]
    assert policy["egress"][0]["to"] == [{"ipBlock": {"cidr": "10.20.0.0/24"}}]


@needs_kustomize
async def test_an_edge_with_that_overlay_takes_the_tokens_of_its_provider(redis_url: str) -> None:
    """Started with the very environment that the example renders (but for addresses of this machine), an edge takes a
    token as the overlay describes it, and none of the issuer or audience that the overlay has replaced."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "1", "use": "sig", "alg": "ES256"}

    async def keys(_: web.Request) -> web.Response:
        return web.json_response({"keys": [public]})

    application = web.Application()
    application.add_routes([web.get("/keys", keys)])
    async with TestServer(application) as provider:
        text = re.sub(r"https://git\.example\.com/\S+", "../prod", OWN)
        assert "RUNCAST_JWKS_URL=https://id.example.org/keys" in text
        text = text.replace("https://id.example.org/keys", str(provider.make_url("/keys")))
        rendered = render_beside(text).environment("runcast-edge")
        own = {"RUNCAST_HOST", "RUNCAST_PORT", "RUNCAST_ADMIN_HOST", "RUNCAST_ADMIN_PORT"}
        given = {name: value for name, value in rendered.items() if name not in own and value != "(secret)"}
        settings: dict[str, Any] = {name[8:].lower(): value for name, value in given.items()}
        settings |= {"jwt_secret": "", "drain_seconds": 0}
        issuer, audience = re.findall(r"RUNCAST_JWT_(?:ISSUER|AUDIENCE)=(\S+)", OWN)

        def token(iss: str = issuer, aud: str = audience) -> str:
            scope = "openid executions:read executions:write"
            claims = {"iss": iss, "aud": aud, "sub": "alice", "scope": scope, "exp": time.time() + 60}
            return jwt.encode(claims, key, "ES256", {"kid": "1"})

        edge = EdgeProcess(redis_url, **settings)
        try:
            await asyncio.to_thread(edge.start().wait_ready)
            tokens = token(), token(iss="https://id.example.com/"), token(aud="another")
            statuses = [(await call(edge.port, "GET", "/api/agent/executions", given)).status for given in tokens]
        finally:
            await asyncio.to_thread(edge.close)
    assert statuses == [200, 401, 401]


@needs_kustomize
def test_kedas_prometheus_can_be_another() -> None:
    """The example renders, and only the address changes."""
    manifests = render_beside(f"{HEAD}resources: [../dev]\ncomponents: [../../components/keda]\n{KEDA}")
    triggers = {each["metadata"]["name"]: each["spec"]["triggers"] for each in manifests.all("ScaledObject")}
    assert triggers["runcast-edge"][0]["metadata"]["serverAddress"] == "http://prometheus.internal:9090"
    assert triggers["runcast-worker"][0]["metadata"]["serverAddress"].startswith("http://prometheus-operated")


def test_the_examples_are_yaml() -> None:
    """And the first is a whole kustomization."""
    assert yaml.safe_load(OWN)["kind"] == "Kustomization"
    assert yaml.safe_load(KEDA).keys() == {"patches"}
