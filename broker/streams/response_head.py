"""The head of a stream's response (RFC 9112), which leaves in one write with the first bytes of its body.

Not by aiohttp, which would write it alone, and which cannot write to a connection that a viewer has.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate

from aiohttp import HttpVersion, web


def response_head(version: HttpVersion, headers: Mapping[str, str], *, chunked: bool) -> bytes:
    """Status 200. A body that is not `chunked` ends with its connection. `ValueError` for a header with a line end."""
    framing = "Transfer-Encoding: chunked" if chunked else "Connection: close"
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if fields.count("\r") != len(headers) or fields.count("\n") != len(headers):
        raise ValueError("a header has a line end")
    head = f"HTTP/{version.major}.{version.minor} 200 OK\r\n{fields}{framing}\r\nDate: {_date()}\r\n\r\n"
    return head.encode("latin-1")


class TakenOver(web.StreamResponse):
    """What a handler returns whose connection a viewer has: aiohttp has nothing more to do with it."""

    async def prepare(self, request: web.BaseRequest) -> None:  # noqa: ARG002 - aiohttp's signature
        raise ConnectionResetError("a viewer has taken over this connection")


_date_of = (0, "")


def _date() -> str:
    global _date_of
    now = int(time.time())
    if _date_of[0] != now:
        _date_of = (now, formatdate(now, usegmt=True))
    return _date_of[1]
