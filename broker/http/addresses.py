"""Where clients find this edge."""

from __future__ import annotations

import re

from aiohttp import web

from broker.base.problem import Problem

_HOST = re.compile(r"([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?\Z", re.ASCII)


def origin_of(request: web.Request) -> str:
    """Scheme and host by which the request came. What a proxy forwarded is not looked at, since anybody can send that:
    behind one, `public_url` says it. Raises `Problem` 400 for an invalid host."""
    if not _HOST.match(request.host):
        raise Problem(400, "invalid-parameter", "Host is a name or an address, with a port or without")
    return f"{request.scheme}://{request.host}"
