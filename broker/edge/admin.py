"""The admin port of an edge: what the cluster and Prometheus ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from broker.base.metrics import Metrics
from broker.http import errors


def admin_app(metrics: Metrics, ready: Callable[[], dict[str, bool]]) -> web.Application:
    """`/metrics`, `/healthz` and `/readyz`: for the cluster, never on the public listener."""

    async def render_metrics(_: web.Request) -> web.Response:
        body, content_type = metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def readyz(_: web.Request) -> web.Response:
        parts = ready()
        return web.json_response({"ready": all(parts.values()), **parts}, status=200 if all(parts.values()) else 503)

    app = web.Application()
    errors.setup(app)
    routes: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
        "/metrics": render_metrics,
        "/healthz": healthz,
        "/readyz": readyz,
    }
    for path, handler in routes.items():
        app.router.add_get(path, handler)
    return app
