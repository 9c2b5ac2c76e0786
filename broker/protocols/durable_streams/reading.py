"""What a request for a stream asks for, and the headers that answer it (sections 5.5 to 5.8, 10.1). Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal, NamedTuple

from aiohttp import web

from broker.base.problem import Problem
from broker.protocols.durable_streams.offsets import FIRST, NOW, known_cursor, malformed, next_cursor
from broker.protocols.item_streams import ItemPage

EVENTS = "events"
"""The format if none is named."""
LONG_POLL, SSE = "long-poll", "sse"
COMMON = {"Cross-Origin-Resource-Policy": "cross-origin"}
"""CORS says who may read it; this only, that pages of other origins may ask at all."""
CACHED = {**COMMON, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
"""A browser may keep it, and must ask whether it still may show it: tokens are revoked, and users change."""
UNCACHED = {**COMMON, "Cache-Control": "no-store"}


class Reading(NamedTuple):
    """The parameters. `offset` is `-1` if none was given; `cursor` is -1 for none."""

    offset: str
    live: Literal["", "long-poll", "sse"]
    cursor: int
    form: str

    @property
    def is_from_now(self) -> bool:
        return self.offset == NOW


def reading_of(request: web.Request) -> Reading:
    """Raises `Problem` 400. Parameters that are not known change nothing (section 11.1)."""
    query = request.query
    offsets = query.getall("offset", [])
    if len(offsets) > 1 or "" in offsets:
        raise malformed()
    live = query.get("live", "")
    if live not in ("", LONG_POLL, SSE):
        raise Problem(400, "invalid-parameter", f"live is {LONG_POLL}, {SSE}, or left out", path="live")
    if live and not offsets:
        raise Problem(400, "invalid-parameter", "a live read names its offset", path="offset")
    cursor = known_cursor(query.get("cursor"))
    return Reading(offsets[0] if offsets else FIRST, live, cursor, query.get("format", EVENTS))  # type: ignore[arg-type]


def stream_headers(page: ItemPage, cursor: int | None = None) -> dict[str, str]:
    """Of an answer with this page. `cursor`: the client's; None where an answer needs none."""
    headers = {"Stream-Next-Offset": page.offset}
    if page.is_end:
        headers["Stream-Up-To-Date"] = "true"
    if page.is_closed:
        headers["Stream-Closed"] = "true"
    elif cursor is not None:
        headers["Stream-Cursor"] = str(next_cursor(cursor, time.time()))
    return headers


def etag_of(execution_id: str, start: str, page: ItemPage) -> str:
    """It differs when the stream was closed since, or when what was the end is not any more."""
    state = ":c" if page.is_closed else ":e" if page.is_end else ""
    return f'"{execution_id}:{start}:{page.offset}{state}"'


def is_known(request: web.Request, etag: str) -> bool:
    """Whether the client has this answer (RFC 9110, section 13.1.2)."""
    given = request.headers.get("If-None-Match", "")
    return given.strip() == "*" or etag in {each.strip().removeprefix("W/") for each in given.split(",")}


def items_response(page: ItemPage, headers: Mapping[str, str]) -> web.Response:
    body = b"[" + b",".join(page.items) + b"]"
    return web.Response(body=body, content_type="application/json", headers=headers)
