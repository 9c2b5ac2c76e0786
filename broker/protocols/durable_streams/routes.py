"""`GET|HEAD /ds/executions/{id}`: an execution as a stream that is read by offsets. Only its agent writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from broker.auth.permissions import require_execution
from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.http.gateway import READS, Gateway
from broker.protocols.durable_streams.reading import (
    CACHED,
    LONG_POLL,
    SSE,
    UNCACHED,
    Reading,
    etag_of,
    is_known,
    items_response,
    reading_of,
    stream_headers,
)
from broker.protocols.durable_streams.renderer import HEADERS, Renderer, control_event
from broker.protocols.item_streams import Form, Forms, ItemPage

PATH = "/ds/executions/{id}"
LONG_POLL_SECONDS = 20.0
"""The Python client (`durable-streams` 0.1.0) gives up after 30 s."""
GATHER_SECONDS = 0.1
"""How long a long poll waits for more once something has come: it is a request of its own for each answer."""


class DurableStreams:
    """The handlers. `forms`: what `format` may name."""

    def __init__(self, gateway: Gateway, forms: Mapping[str, Forms]) -> None:
        self._gateway = gateway
        self._forms = forms

    def routes(self) -> list[web.RouteDef]:
        return [web.get(PATH, self.read, allow_head=False), web.head(PATH, self.head)]

    async def head(self, request: web.Request) -> web.Response:
        """Where the stream ends, and whether it is closed (section 5.5)."""
        reading = reading_of(request)
        identity, form = await self._find(request, reading)
        page = await self._tail(identity, form)
        headers = {**UNCACHED, **stream_headers(page)}
        del headers["Stream-Up-To-Date"]
        return web.Response(content_type="application/json", headers=headers)

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Raises `Problem` 400, 401, 403, 410, 429, 503, and `UnknownExecution`."""
        reading = reading_of(request)
        identity, form = await self._find(request, reading)
        if reading.is_from_now:
            page = await self._tail(identity, form)
        else:
            page = await self._page(identity, form, reading.offset)
        if reading.live == SSE:
            return await self._stream(request, identity, form, reading, page)
        if reading.live == LONG_POLL:
            return await self._poll(request, identity, form, reading, page)
        headers = stream_headers(page, reading.cursor)
        if reading.is_from_now:
            return items_response(page, {**UNCACHED, **headers})
        etag = etag_of(form.execution_id, reading.offset, page)
        headers |= {**CACHED, "ETag": etag}
        return web.Response(status=304, headers=headers) if is_known(request, etag) else items_response(page, headers)

    async def _find(self, request: web.Request, reading: Reading) -> tuple[Identity, Form]:
        identity = await self._gateway.identify(request, "executions:read", ticket=True, rate=READS)
        if reading.live != SSE:
            await self._gateway.take_turn(request, identity)
        forms = self._forms.get(reading.form)
        if forms is None:
            known = ", ".join(self._forms)
            raise Problem(400, "invalid-parameter", f"format is one of {known}", path="format")
        named = request.match_info["id"]
        require_execution(identity, forms.execution_of(named))  # before anything is read: an answer would reveal it
        async with self._gateway.folding(identity):
            return identity, await forms.find(request, identity, named)

    async def _tail(self, identity: Identity, form: Form) -> ItemPage:
        async with self._gateway.folding(identity):
            return await form.tail()

    async def _page(self, identity: Identity, form: Form, offset: str, *, is_fresh: bool = True) -> ItemPage:
        async with self._gateway.folding(identity):
            return await form.page(offset, is_fresh=is_fresh)

    # --- live --------------------------------------------------------------------------------------------------------

    async def _poll(
        self, request: web.Request, identity: Identity, form: Form, reading: Reading, page: ItemPage
    ) -> web.Response:
        """What there is, or else what comes first, or nothing after a while (section 5.7)."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LONG_POLL_SECONDS
        while not page.items and not page.is_closed:
            if page.is_end:
                left = until - loop.time()
                if left <= 0 or not await self._more(request, identity, form, page, left):
                    break
            page = await self._page(identity, form, page.offset, is_fresh=False)
        headers = {**CACHED, **stream_headers(page, reading.cursor)}
        if page.items:
            return items_response(page, {**headers, "ETag": etag_of(form.execution_id, reading.offset, page)})
        return web.Response(status=204, headers={**headers, **UNCACHED})

    async def _more(self, request: web.Request, identity: Identity, form: Form, page: ItemPage, seconds: float) -> bool:
        return await self._gateway.wait(
            request, identity, form.execution_id, page.place, seconds, gather_seconds=GATHER_SECONDS
        )

    async def _stream(
        self, request: web.Request, identity: Identity, form: Form, reading: Reading, page: ItemPage
    ) -> web.StreamResponse:
        """The first read has shown that the offset is one of this log, and whether anything follows it."""
        if page.is_closed and not page.items:
            body = control_event(page.offset, 0, is_end=True, is_closed=True)
            return web.Response(body=body, headers=HEADERS)
        items, after = form.items(page.offset if reading.is_from_now else reading.offset)
        rendering = Renderer(items, reading.cursor)
        return await self._gateway.show(request, identity, form.execution_id, rendering, resumes=True, after=after)
