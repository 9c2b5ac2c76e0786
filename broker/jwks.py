"""The keys an identity provider publishes (a JWK set, RFC 7517), kept fresh without ever making a request wait for a
key that is already here."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from types import TracebackType

import aiohttp
import structlog

from broker.auth import JwkSet, VerifyKey, parse_jwks

MAX_AGE_SECONDS = 600.0
MIN_PAUSE_SECONDS = 60.0
TIMEOUT_SECONDS = 5.0
MAX_BODY_BYTES = 256 * 1024


class Jwks:
    """`async with Jwks(url) as keys:` starts with one try to fetch. A provider that is away does not stop the edge:
    old keys stay good, and one background task goes on fetching.

    `keys.find(key_id)` never waits. `await keys.refresh()` fetches now, for a token with an unknown key, but at most
    once in `min_pause` seconds whatever tokens come in.
    """

    def __init__(
        self,
        url: str,
        *,
        max_age: float = MAX_AGE_SECONDS,
        min_pause: float = MIN_PAUSE_SECONDS,
        timeout: float = TIMEOUT_SECONDS,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.url = url
        self.generation = 0
        self._max_age = max_age
        self._min_pause = min_pause
        self._timeout = timeout
        self._max_body_bytes = max_body_bytes
        self._keys: JwkSet | None = None
        self._body = b""
        self._failures = 0
        self._tried_at = float("-inf")
        self._wake = asyncio.Event()
        self._fetched: asyncio.Future[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> bool:
        """Whether a set was ever fetched."""
        return self._keys is not None

    def find(self, key_id: str | None) -> VerifyKey | None:
        return None if self._keys is None else self._keys.find(key_id)

    async def refresh(self) -> None:
        """Fetch again unless that was tried within the pause; all callers share one fetch, also one under way."""
        if self._fetched is None:
            if time.monotonic() - self._tried_at < self._min_pause:
                return
            self._fetched = asyncio.get_running_loop().create_future()
            self._wake.set()
        # The task fetches, not the caller: a client that leaves takes nothing away from the others.
        await asyncio.shield(self._fetched)

    async def __aenter__(self) -> Jwks:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout))
        try:
            await self._fetch()
        except BaseException:
            await self._session.close()
            raise
        self._task = asyncio.create_task(self._keep_fresh(), name="jwks")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._answer_waiters()
        if self._session is not None:
            await self._session.close()

    async def _keep_fresh(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            self._wake.clear()
            if self._fetched is None:  # so that who asks during this fetch waits for it, too
                self._fetched = asyncio.get_running_loop().create_future()
            await self._fetch()
            self._answer_waiters()

    def _pause(self) -> float:
        """Seconds to the next fetch; jittered, so that a fleet of edges does not ask in step."""
        seconds = self._max_age if self._failures == 0 else min(self._max_age, self._min_pause, 2.0**self._failures)
        return seconds * random.uniform(0.8, 1.0)

    def _answer_waiters(self) -> None:
        if self._fetched is not None and not self._fetched.done():
            self._fetched.set_result(None)
        self._fetched = None

    async def _fetch(self) -> None:
        self._tried_at = time.monotonic()
        try:
            body = await self._read()
            if body != self._body:
                self._keys, self._body = parse_jwks(body), body
                self.generation += 1
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._failures = min(self._failures + 1, 16)
            log = structlog.get_logger("broker.jwks")
            log.warning("jwks_fetch_failed", url=self.url, error=str(error) or type(error).__name__, stale=self.loaded)
        else:
            self._failures = 0

    async def _read(self) -> bytes:
        """The set's bytes. `ValueError` for a wrong status or a body over the limit."""
        assert self._session is not None, "not started"
        # Keys come from the address that was configured, not from where it might point.
        async with self._session.get(self.url, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > self._max_body_bytes:
                    raise ValueError(f"more than {self._max_body_bytes} bytes")
            return bytes(body)
