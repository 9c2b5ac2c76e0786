"""The numbers in the proxies' files agree with the edges' settings: where they run under Compose and in Kubernetes."""

from __future__ import annotations

import re
import socket
from typing import Any

import yaml

from broker.base.settings import Settings, load_settings
from broker.http.api import MAX_BODY_BYTES
from broker.http.connection import KEEPALIVE_SECONDS
from broker.http.listener import USER_TIMEOUT_MS
from tests.deploy.manifests import K8S, ROOT

DEPLOY = ROOT / "deploy"
NGINX = (DEPLOY / "nginx" / "nginx.conf").read_text()
HAPROXY = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
CADDY = (DEPLOY / "caddy" / "Caddyfile").read_text()
ENVOY_TEXT = (DEPLOY / "envoy" / "envoy.yaml").read_text()
ENVOY: Any = yaml.safe_load(ENVOY_TEXT)


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


def cluster() -> Any:
    (found,) = ENVOY["static_resources"]["clusters"]
    return found


def endpoints() -> Any:
    (group,) = cluster()["load_assignment"]["endpoints"]
    return group["lb_endpoints"]


def downstream_connections() -> int:
    (limit,) = [
        int(monitor["typed_config"]["max_active_downstream_connections"])
        for monitor in ENVOY["overload_manager"]["resource_monitors"]
        if monitor["name"] == "envoy.resource_monitors.global_downstream_max_connections"
    ]
    return limit


def idle_cuts() -> dict[str, int]:
    """What cuts a stream, and after how many silent seconds."""
    cuts = {f"nginx {name}": number(NGINX, rf"{name} (\d+)s;") for name in ("proxy_read_timeout", "proxy_send_timeout")}
    cuts |= {f"HAProxy {name}": number(HAPROXY, rf"timeout {name} (\d+)s") for name in ("server", "client")}
    cuts |= {f"Caddy {name}": number(CADDY, rf"\n\t+{name} (\d+)s") for name in ("read_timeout", "write_timeout")}
    return cuts | {"Envoy": number(manager()["stream_idle_timeout"], r"^(\d+)s$")}


def test_two_heartbeats_come_before_every_idle_cut() -> None:
    """One heartbeat may be lost or late before a proxy takes a stream for dead."""
    for name, seconds in idle_cuts().items():
        assert all(seconds > 2 * each.heartbeat_seconds for each in settings()), name


def test_a_proxy_that_is_reloaded_waits_no_shorter_than_an_edge_that_drains() -> None:
    """Its streams, too, are let go over as long a time as those of an edge."""
    waits = [number(NGINX, r"worker_shutdown_timeout (\d+)s"), number(HAPROXY, r"hard-stop-after (\d+)s")]
    waits.append(number(CADDY, r"grace_period (\d+)s"))
    waits.append(number(ENVOY_TEXT, r"--drain-time-s (\d+)"))
    assert number(ENVOY_TEXT, r"--parent-shutdown-time-s (\d+)") > waits[-1]
    assert all(wait >= each.drain_seconds for wait in waits for each in settings())


def test_proxies_have_room_for_every_stream_of_an_edge() -> None:
    """An edge refuses what is too much for it, not the proxy in front of it."""
    (thresholds,) = cluster()["circuit_breakers"]["thresholds"]
    names = ("max_connections", "max_pending_requests", "max_requests")
    whole = [number(HAPROXY, r"\n  maxconn (\d+)"), downstream_connections(), *(thresholds[name] for name in names)]
    edges = len(endpoints())
    assert all(limit > edges * each.max_connections for limit in whole for each in settings())
    assert all(number(HAPROXY, r"rise 1 maxconn (\d+)") >= each.max_connections for each in settings())
    # A stream through nginx is a connection on either side.
    assert all(number(NGINX, r"worker_connections (\d+);") > 2 * each.max_connections for each in settings())


def test_proxies_take_bodies_that_edges_take() -> None:
    """The largest request passes."""
    assert number(NGINX, r"client_max_body_size (\d+)m;") * 2**20 >= MAX_BODY_BYTES
    assert number(CADDY, r"max_size (\d+)MiB") * 2**20 >= MAX_BODY_BYTES


def test_proxies_ask_where_edges_answer() -> None:
    """Public and admin ports are the edges' own."""
    ports = (Settings().port, Settings().admin_port)
    assert set(map(int, re.findall(r"server edge-\d:(\d+)", NGINX))) == {ports[0]}
    servers = set(map(int, re.findall(r"server edge-\d edge-\d:(\d+)", HAPROXY)))
    assert (servers, number(HAPROXY, r"check port (\d+)")) == ({ports[0]}, ports[1])
    assert re.findall(r"edge-\d:(\d+)", CADDY) == [str(ports[0])] * 2
    assert number(CADDY, r"health_port (\d+)") == ports[1]
    for each in endpoints():
        endpoint = each["endpoint"]
        found = (endpoint["address"]["socket_address"]["port_value"], endpoint["health_check_config"]["port_value"])
        assert found == ports


def test_envoy_has_no_limit_for_a_whole_response() -> None:
    """A stream is one response, and it lasts, whatever method asked for it."""
    for host in manager()["route_config"]["virtual_hosts"]:
        assert [route["route"]["timeout"] for route in host["routes"]] == ["0s", "0s"]


def test_proxies_let_go_of_idle_connections_before_an_edge_does() -> None:
    """Or a POST, which nobody repeats, might meet their end."""
    assert number(CADDY, r"keepalive (\d+)s") < KEEPALIVE_SECONDS
    (options,) = cluster()["typed_extension_protocol_options"].values()
    idle_seconds = number(options["common_http_protocol_options"]["idle_timeout"], r"^(\d+)s$")
    assert idle_seconds < KEEPALIVE_SECONDS


def test_proxies_give_up_vanished_viewers_when_edges_would() -> None:
    """Behind a proxy an edge does not see them. nginx has nothing for it but the system's setting."""
    (listener,) = ENVOY["static_resources"]["listeners"]
    (option,) = listener["socket_options"]
    assert (option["level"], option["name"]) == (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert option["int_value"] == USER_TIMEOUT_MS == 1000 * number(HAPROXY, r"tcp-ut (\d+)s")


def limits_of_a_client() -> dict[str, tuple[int, int]]:
    """By proxy: what one client may ask at once, and then in a second."""
    (limit,) = [each for each in manager()["http_filters"] if each["name"].endswith("local_ratelimit")]
    (descriptor,) = limit["typed_config"]["descriptors"]
    bucket = descriptor["token_bucket"]
    assert bucket["fill_interval"] == "1s"
    ten_seconds = number(HAPROXY, r"sc_http_req_rate\(0\) gt (\d+)")
    connections = number(HAPROXY, r"sc_conn_cur\(0\) gt (\d+)")
    return {
        "nginx": (number(NGINX, r"burst=(\d+) nodelay"), number(NGINX, r"rate=(\d+)r/s")),
        "HAProxy": (connections, (ten_seconds - connections) // 10),
        "Envoy": (bucket["max_tokens"], bucket["tokens_per_fill"]),
    }


def test_limits_of_a_client_suit_an_office_behind_one_address() -> None:
    """They are the same at every proxy: twenty users with all that each may have fit in at once, and ten who open
    streams as fast as each may; and one address has no more than a fifth of what two edges hold."""
    ((burst, per_second),) = set(limits_of_a_client().values())
    assert number(NGINX, r"limit_conn streams (\d+)") == burst
    for each in settings():
        assert burst >= 20 * each.max_connections_per_user
        assert per_second * 60 >= 10 * each.connects_per_minute
        assert burst <= 2 * each.max_connections / 5
