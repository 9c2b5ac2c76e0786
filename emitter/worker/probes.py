"""`/metrics`, `/healthz` and `/readyz` of a worker, in a thread of their own, so that they answer while an agent blocks
the event loop."""

from __future__ import annotations

import errno
import json
import socket
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client.exposition import ThreadingWSGIServer, make_wsgi_app

from emitter.errors import InvalidSetting
from emitter.worker.metrics import Metrics

REQUEST_SECONDS = 10.0

HEADERS = [("Server", "runcast"), ("X-Content-Type-Options", "nosniff")]
"""Of every answer. By default the library would send its own version and that of Python."""

Respond = Callable[[str, list[tuple[str, str]]], Any]


class _Server6(ThreadingWSGIServer):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    timeout = REQUEST_SECONDS  # of a silent connection

    def version_string(self) -> str:
        return "runcast"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Do not log probe requests."""


class Probes:
    """`with Probes(…):` answers on `host:port`; port 0 picks a free one. Raises `InvalidSetting` if it cannot bind."""

    def __init__(self, host: str, port: int, metrics: Metrics) -> None:
        self._metrics = metrics
        self._render: Any = make_wsgi_app(metrics.registry)
        kind = _Server6 if ":" in host else ThreadingWSGIServer
        try:
            self._server: WSGIServer = make_server(host, port, self._answer, kind, _Quiet)
        except OSError as error:
            raise _unusable(host, port, error) from error
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="probes", daemon=True)

    def __enter__(self) -> Probes:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
        return self._route(environ, lambda status, headers: respond(status, [*headers, *HEADERS]))

    def _route(self, environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return self._render(environ, respond)  # type: ignore[no-any-return]
        if path == "/healthz":
            return _respond(respond, "alive", self._metrics.is_alive)
        if path == "/readyz":
            return _respond(respond, "ready", self._metrics.is_ready)
        respond("404 Not Found", [("Content-Length", "0")])
        return []


def _unusable(host: str, port: int, error: OSError) -> InvalidSetting:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return InvalidSetting("RUNCAST_ADMIN_HOST", host, f"an address of this machine ({error.strerror})")
    allowed = f"an address that can be bound ({error.strerror})"
    return InvalidSetting("RUNCAST_WORKER_ADMIN_PORT", f"{host}:{port}", allowed)


def _respond(respond: Respond, what: str, well: bool) -> Iterable[bytes]:
    content = json.dumps({what: well}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    respond("200 OK" if well else "503 Service Unavailable", headers)
    return [content]
