"""The numbers in the proxies' files agree with the edges' settings: where they run under Compose and in Kubernetes."""

from __future__ import annotations

import re
from typing import Any

import yaml

from broker.api import MAX_BODY_BYTES
from broker.settings import Settings, load_settings
from tests.deploy.manifests import K8S, ROOT

DEPLOY = ROOT / "deploy"
NGINX = (DEPLOY / "nginx" / "nginx.conf").read_text()
HAPROXY = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
ENVOY: Any = yaml.safe_load((DEPLOY / "envoy" / "envoy.yaml").read_text())


def settings() -> list[Settings]:
    """Of an edge as it starts by itself, under Compose, and in every overlay."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    given = compose["services"]["edge-1"]["environment"] | {"RUNCAST_JWT_SECRET": "x" * 32}
    texts = [(K8S / "base" / "edge.env").read_text(), (K8S / "overlays" / "prod" / "edge.env").read_text()]
    files = [dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)) for text in texts]
    return [Settings(), load_settings(given), load_settings(files[0]), load_settings(files[0] | files[1])]


def number(text: str, pattern: str) -> int:
    found = re.findall(pattern, text)
    assert len(found) == 1, f"{pattern}: {found}"
    return int(found[0])


def manager() -> Any:
    (listener,) = ENVOY["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def idle_cuts() -> dict[str, int]:
    """What cuts a stream, and after how many silent seconds."""
    cuts = {f"nginx {name}": number(NGINX, rf"{name} (\d+)s;") for name in ("proxy_read_timeout", "proxy_send_timeout")}
    cuts |= {f"HAProxy {name}": number(HAPROXY, rf"timeout {name} (\d+)s") for name in ("server", "client")}
    return cuts | {"Envoy": number(manager()["stream_idle_timeout"], r"^(\d+)s$")}


def test_two_heartbeats_come_before_every_idle_cut() -> None:
    """One heartbeat may be lost or late before a proxy takes a stream for dead."""
    for name, seconds in idle_cuts().items():
        assert all(seconds > 2 * each.heartbeat_seconds for each in settings()), name


def test_a_proxy_that_is_reloaded_waits_no_shorter_than_an_edge_that_drains() -> None:
    """Its streams, too, are let go over as long a time as those of an edge."""
    waits = [number(NGINX, r"worker_shutdown_timeout (\d+)s"), number(HAPROXY, r"hard-stop-after (\d+)s")]
    waits.append(number(manager()["drain_timeout"], r"^(\d+)s$"))
    assert all(wait >= each.drain_seconds for wait in waits for each in settings())


def test_proxies_have_room_for_every_stream_of_an_edge() -> None:
    """An edge refuses what is too much for it, not the proxy in front of it."""
    (cluster,) = ENVOY["static_resources"]["clusters"]
    (threshold,) = cluster["circuit_breakers"]["thresholds"]
    limits = [number(HAPROXY, r"rise 1 maxconn (\d+)"), threshold["max_connections"], threshold["max_requests"]]
    assert all(limit > each.max_connections for limit in limits for each in settings())
    # A stream through nginx is a connection on either side.
    assert all(number(NGINX, r"worker_connections (\d+);") > 2 * each.max_connections for each in settings())


def test_nginx_takes_bodies_that_edges_take() -> None:
    """The largest request passes."""
    assert number(NGINX, r"client_max_body_size (\d+)m;") * 2**20 >= MAX_BODY_BYTES


def test_proxies_ask_where_edges_answer() -> None:
    """Public and admin ports are the edges' own."""
    ports = (Settings().port, Settings().admin_port)
    assert set(map(int, re.findall(r"server edge-\d:(\d+)", NGINX))) == {ports[0]}
    servers = set(map(int, re.findall(r"server edge-\d edge-\d:(\d+)", HAPROXY)))
    assert (servers, number(HAPROXY, r"check port (\d+)")) == ({ports[0]}, ports[1])
    (cluster,) = ENVOY["static_resources"]["clusters"]
    for each in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]:
        endpoint = each["endpoint"]
        found = (endpoint["address"]["socket_address"]["port_value"], endpoint["health_check_config"]["port_value"])
        assert found == ports


def test_envoy_has_no_limit_for_a_whole_response() -> None:
    """A stream is one response, and it lasts."""
    for host in manager()["route_config"]["virtual_hosts"]:
        assert [route["route"]["timeout"] for route in host["routes"]] == ["0s"]
