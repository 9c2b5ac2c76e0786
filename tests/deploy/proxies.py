"""nginx and HAProxy from the system's packages on loopback ports, with configurations of ours."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.edges import ROOT, EdgeProcess
from tests.ports import reserved_ports

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
START_SECONDS = 10.0

needs_nginx = pytest.mark.skipif(NGINX is None, reason="needs nginx (tests/run installs it as root)")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="needs haproxy (tests/run installs it as root)")


class Proxy:
    """A proxy process in a folder of its own, for the length of a `with` block. `port` speaks plain HTTP/1.1, and
    `tls_port`, where there is one, HTTPS with HTTP/2 and a certificate of its own."""

    def __init__(self) -> None:
        self._kept = contextlib.ExitStack()
        self.port, self.tls_port = self._kept.enter_context(reserved_ports(2))
        self._folder = tempfile.TemporaryDirectory(prefix="runcast-proxy-")
        self.folder = Path(self._folder.name)
        self.folder.chmod(0o755)  # its workers are another user's when root starts it
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log_text(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    def __enter__(self) -> Self:
        with (self.folder / "output").open("wb") as output:
            self.process = subprocess.Popen(self.command(), stdout=output, stderr=output)
        deadline = time.monotonic() + START_SECONDS
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
            self.process.wait(START_SECONDS)
        finally:
            self.process.kill()
            self._folder.cleanup()
            self._kept.close()


class Nginx(Proxy):
    """nginx with a whole configuration, in which `{port}` and `{folder}` are filled in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        text = text.replace("{port}", str(self.port)).replace("{folder}", str(self.folder))
        (self.folder / "nginx.conf").write_text(text.replace("{tls_port}", str(self.tls_port)))

    def command(self) -> list[str]:
        assert NGINX is not None
        return [NGINX, "-p", str(self.folder), "-c", "nginx.conf", "-g", "daemon off;"]


class HAProxy(Proxy):
    """HAProxy with a whole configuration, in which `{port}`, `{tls_port}` and `{folder}` are filled in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        text = text.replace("{port}", str(self.port)).replace("{folder}", str(self.folder))
        (self.folder / "haproxy.cfg").write_text(text.replace("{tls_port}", str(self.tls_port)))

    def command(self) -> list[str]:
        assert HAPROXY is not None
        return [HAPROXY, "-f", str(self.folder / "haproxy.cfg"), "-db"]


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


def deployed_nginx(edges: Sequence[EdgeProcess]) -> Nginx:
    """nginx as deploy/nginx has it, for these edges, and with a plain HTTP listener besides."""
    text = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text()
    text = _replace(text, r"listen 8443 ssl http2;", "listen 127.0.0.1:{tls_port} ssl http2; listen 127.0.0.1:{port};")
    text = _replace(text, r"/tmp/nginx", "{folder}/nginx")
    text = _replace(text, r"/etc/nginx/tls", "{folder}")
    text = _replace(text, r"\n *server edge-2[^\n]*", "")
    text = _replace(text, r"server edge-1:8080 ([^\n]*)", _per_edge(edges, "server 127.0.0.1:{} \\1"))
    text = _replace(text, r"/dev/std(out|err)", "{folder}/log")  # which a test may not be allowed to open again
    text = _replace(text, r"worker_processes auto", "worker_processes 1")
    text = _replace(text, r"worker_connections 65536", "worker_connections 4096")
    text = _replace(text, r"worker_rlimit_nofile [^\n]*", "")
    proxy = Nginx(text)
    write_certificate(proxy.folder)
    return proxy


def deployed_haproxy(edges: Sequence[EdgeProcess]) -> HAProxy:
    """HAProxy as deploy/haproxy has it, for these edges, and with a plain HTTP listener besides."""
    text = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text()
    text = _replace(text, r"bind :8443 (ssl [^\n]*)", "bind 127.0.0.1:{tls_port} \\1\n  bind 127.0.0.1:{port}")
    text = _replace(text, r"/etc/haproxy/tls", "{folder}")
    text = _replace(text, r"\n *server edge-2[^\n]*", "")
    text = _replace(text, r" port 9090", "")
    text = _replace(
        text,
        r" *server edge-1 [^\n]*",
        "\n".join(f"  server edge-{edge.port} 127.0.0.1:{edge.port} port {edge.admin_ports[0]}" for edge in edges),
    )
    text = _replace(text, r"maxconn 100000", "maxconn 4000")
    proxy = HAProxy(text)
    write_certificate(proxy.folder)
    return proxy


def _per_edge(edges: Sequence[EdgeProcess], line: str) -> str:
    return "\n    ".join(line.format(edge.port) for edge in edges)


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
