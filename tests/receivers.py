"""Receivers of webhooks on loopback: what comes is verified with the official package, kept, and answered as told."""

from __future__ import annotations

import asyncio
import atexit
import base64
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from aiohttp import web
from standardwebhooks import Webhook

from tests.edges import under_load
from tests.ports import reserved_ports

SECRET = "whsec_" + base64.b64encode(b"a secret of the tests, of thirty-odd").decode()


class Got(NamedTuple):
    """One request, and when it came (monotonic)."""

    id: str
    headers: dict[str, str]
    body: Any
    raw: bytes
    path: str
    at: float

    @property
    def type(self) -> str:
        return str(self.body["type"])

    @property
    def execution(self) -> str:
        return str(self.body["data"]["executionId"])


class Receiver:
    """`answer` decides the status (and headers) of each; None: 204. The connection of what `cuts` is cut off. Where
    `answers` is cleared each waits for it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.got: list[Got] = []
        self.answer: Callable[[Got], web.Response | None] = lambda _: None
        self.cuts: Callable[[Got], bool] = lambda _: False
        self.delay = 0.0
        self.answers = asyncio.Event()
        self.answers.set()
        self.scheme = "http"
        self._news = asyncio.Event()
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook?key=hidden"

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen; again after `stop`."""
        self.scheme = "http" if tls is None else "https"
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=tls).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        Webhook(SECRET).verify(raw, headers)  # raises: then the answer is a 500, and the test fails for want of it
        got = Got(headers["webhook-id"], headers, json.loads(raw), raw, request.path, time.monotonic())
        self.got.append(got)
        self._news.set()
        if self.cuts(got) and request.transport is not None:
            request.transport.abort()
        await self.answers.wait()
        if self.delay:
            await asyncio.sleep(self.delay)
        return self.answer(got) or web.Response(status=204)

    async def until(self, what: str, condition: Callable[[list[Got]], bool], seconds: float = 20.0) -> list[Got]:
        """Wait until the condition holds of what came, so long `under_load`."""
        try:
            async with asyncio.timeout(under_load(seconds)):
                while not condition(self.got):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            seen = [(got.path, str(got.body)[:80]) for got in self.got[-5:]]
            raise AssertionError(f"{what}: not within {seconds:g} s; {len(self.got)} came, the last {seen}") from None
        return self.got

    async def until_count(self, count: int, seconds: float = 20.0) -> list[Got]:
        return await self.until(f"{count} messages", lambda got: len(got) >= count, seconds)


_kept = contextlib.ExitStack()
"""The ports, until this process ends: an edge may try for hours to deliver to a receiver that has gone, and the next
one must not get that."""
atexit.register(_kept.close)


@contextlib.asynccontextmanager
async def receiver(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    (port,) = _kept.enter_context(reserved_ports(1))
    made = Receiver(port)
    await made.start(tls)
    try:
        yield made
    finally:
        await made.stop()


SETTINGS: dict[str, Any] = {"webhook_secret": SECRET, "webhook_allow_hosts": "127.0.0.1"}
"""Of edges that may deliver to receivers here."""
