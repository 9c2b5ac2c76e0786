"""Responses of the native interface."""

from __future__ import annotations

import msgspec
from aiohttp import web


def json_response(value: msgspec.Struct, *, status: int = 200) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json", headers=headers
    )
