"""The compose file: what it mounts is there, what it sets is known, and its numbers agree with the processes'."""

from __future__ import annotations

import re
from typing import Any

import yaml

from broker.base.settings import Settings, load_settings
from broker.edge.serving import SHUTDOWN_SECONDS
from emitter.__main__ import load_agents
from emitter.worker.worker import CLOSE_SECONDS, WorkerSettings
from tests.deploy.acl_server import users
from tests.deploy.manifests import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
EDGES = [name for name in SERVICES if name.startswith("edge-")]
WORKERS = [name for name in SERVICES if name.startswith("worker-")]


def settings(name: str) -> Settings:
    environment = dict(SERVICES[name]["environment"])
    if "RUNCAST_JWT_SECRET" in environment:
        environment["RUNCAST_JWT_SECRET"] = "x" * 32
    return load_settings(environment)


def seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)s", text)
    assert found is not None
    return int(found[1])


def test_it_is_what_was_promised() -> None:
    """Valkey, two edges, two workers, nginx, Prometheus, Grafana; no more."""
    assert {*SERVICES} == {"valkey", *EDGES, *WORKERS, "nginx", "prometheus", "grafana"}
    assert (len(EDGES), len(WORKERS)) == (2, 2)
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"name", "services", "networks", "volumes"}


def test_what_is_mounted_is_there() -> None:
    """Every file and folder that is mounted exists, and is mounted to be read; volumes are declared."""
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source, _, rest = mount.partition(":")
            if not source.startswith("."):
                assert source in COMPOSE["volumes"]
                continue
            assert rest.endswith(":ro")
            assert (DEPLOY / source).exists(), f"{source} is not there"


def test_the_build_is_of_our_dockerfile() -> None:
    """Context and Dockerfile lead to the repository's."""
    for name in EDGES + WORKERS:
        build = SERVICES[name]["build"]
        assert (DEPLOY / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]) == DEPLOY / "Dockerfile"


def test_settings_are_known_and_users_their_own() -> None:
    """Edges and workers start with what they are given, each as its own user of Redis, with the file's password."""
    for name in EDGES + WORKERS:
        user = name.partition("-")[0]
        url = settings(name).redis_url
        assert f">change-me-{user}" in users()[user]
        assert url == f"redis://{user}:change-me-{user}@valkey:6379/0"
    for name in EDGES:
        assert SERVICES[name]["command"] == ["serve"]
    for name in WORKERS:
        command, agents = SERVICES[name]["command"]
        assert command == "worker"
        assert load_agents(agents)
        assert settings(name).worker_admin_port == Settings().admin_port


def test_no_secret_is_in_it_that_is_not_marked() -> None:
    """What signs tokens and opens Grafana is asked for, never defaulted."""
    text = (DEPLOY / "compose.yaml").read_text()
    asked = re.findall(r"\$\{(\w+)(:\?)?", text)
    assert {name for name, _ in asked} == {"RUNCAST_JWT_SECRET", "GRAFANA_PASSWORD"}
    assert all(required for _, required in asked)
    assert (DEPLOY / "tls" / ".gitignore").read_text().startswith("*\n")


def test_containers_are_hardened() -> None:
    """Read-only roots, no capabilities but those with which nginx becomes its workers, bounded memory and logs."""
    for name, service in SERVICES.items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service.get("cap_add", []) == ([] if name != "nginx" else ["CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
        assert service["logging"]["options"]["max-size"]
        assert service["image"].rpartition(":")[2] not in ("", "latest")


def test_it_is_reached_from_this_machine_only() -> None:
    """Every port is published on the loopback; Valkey's, the edges' and the admin ports on none."""
    for name, service in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert not (service.get("ports") and name in ("valkey", *EDGES, *WORKERS))


def test_nginx_reaches_edges_and_nothing_behind_them() -> None:
    """nginx shares a network with the edges and none with Valkey and the workers; that of these has no way out."""
    assert SERVICES["nginx"]["networks"] == ["front"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for name in ("valkey", *WORKERS):
        assert SERVICES[name]["networks"] == ["inside"]
    for name in EDGES:
        assert SERVICES[name]["networks"] == ["inside", "front"]
    upstreams = re.findall(
        r"^  upstream (\w+) \{(.*?)^  \}", (DEPLOY / "nginx" / "nginx.conf").read_text(), re.MULTILINE | re.DOTALL
    )
    assert [name for name, _ in upstreams] == ["edges", "event_sources"]
    for _, servers in upstreams:
        found = re.findall(r"^\s*server ([\w-]+):(\d+)", servers, re.MULTILINE)
        assert found == [(name, str(Settings().port)) for name in EDGES]


def test_stopping_has_its_time() -> None:
    """Docker's grace covers a drain and what comes after it; nginx's its own wait for streams."""
    for name in EDGES:
        needed = settings(name).drain_seconds + 2 * SHUTDOWN_SECONDS
        assert seconds(SERVICES[name]["stop_grace_period"]) >= needed + 5
    for name in WORKERS:
        worker = WorkerSettings(grace_seconds=settings(name).grace_seconds)
        needed = worker.grace_seconds + worker.block_ms / 1000 + worker.cancel_grace_seconds + 4 * CLOSE_SECONDS
        assert seconds(SERVICES[name]["stop_grace_period"]) >= needed
    patience = re.search(r"worker_shutdown_timeout (\d+)s", (DEPLOY / "nginx" / "nginx.conf").read_text())
    assert patience is not None
    assert seconds(SERVICES["nginx"]["stop_grace_period"]) > int(patience[1])


def test_every_stream_has_its_file_descriptors() -> None:
    """An edge may open twice as many files as it takes streams; nginx's limit is what its configuration asks for."""
    for name in EDGES:
        assert SERVICES[name]["ulimits"]["nofile"] >= 2 * settings(name).max_connections
    wanted = re.search(r"worker_rlimit_nofile (\d+)", (DEPLOY / "nginx" / "nginx.conf").read_text())
    assert wanted is not None
    assert SERVICES["nginx"]["ulimits"]["nofile"] >= int(wanted[1])


def test_what_is_waited_for_is_there() -> None:
    """`depends_on` names services, and those waited for until they are healthy can say so."""
    for service in SERVICES.values():
        wanted = service.get("depends_on", {})
        assert set(wanted) <= set(SERVICES)
        if isinstance(wanted, dict):
            for name, how in wanted.items():
                assert how == {"condition": "service_healthy"}
                assert "healthcheck" in SERVICES[name] or "build" in SERVICES[name]
