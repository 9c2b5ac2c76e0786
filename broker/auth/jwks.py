"""The keys an identity provider publishes (a JWK set, RFC 7517), kept fresh without ever making a request wait for a
key that is already here."""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

import aiohttp
import structlog

from broker.auth.keys import JwkSet, VerifyKey, parse_jwks
from broker.base.egress import proxy_of
from emitter.tracing.trace import Allowance

MAX_AGE_SECONDS = 600.0
MAX_PAUSE_SECONDS = 60.0
TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = 5.0
MAX_BODY_BYTES = 256 * 1024
# Fetches that tokens with unknown keys may cause. Anybody can make up such tokens, so it is bounded; but a new key must
# not wait for long either, and whatever token causes a fetch, it brings the new key for all.
FETCHES_AT_ONCE = 5
REFILL_SECONDS = 15.0
ABSENT_SECONDS = REFILL_SECONDS  # so that one client with a wrong token never uses up what is there at once
MAX_KEY_ID = 256
MAX_ABSENT = 1_000
"""Ids of keys that were not in a set just fetched."""


class Jwks:
    """`async with Jwks(url) as keys:` starts with one try to fetch. A provider that is away does not stop the edge:
    old keys stay good, and one background task goes on fetching.

    `keys.find(key_id)` never waits. `await keys.refresh(key_id)` fetches now, for a token with an unknown key, as far
    as the allowance goes. The environment's `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` hold for the fetch.
    """

    def __init__(
        self,
        url: str,
        *,
        max_age: float = MAX_AGE_SECONDS,
        fetches_at_once: int = FETCHES_AT_ONCE,
        refill_seconds: float = REFILL_SECONDS,
        absent_seconds: float = ABSENT_SECONDS,
        timeout: float = TIMEOUT_SECONDS,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.url = url
        self.generation = 0
        self._max_age = max_age
        self._allowance = Allowance(fetches_at_once, 1 / refill_seconds)
        self._refill_seconds = refill_seconds
        self._absent_seconds = absent_seconds
        self._timeout = timeout
        self._max_body_bytes = max_body_bytes
        self._keys: JwkSet | None = None
        self._body = b""
        self._failures = 0
        self._absent: OrderedDict[str | None, float] = OrderedDict()
        self._wake = asyncio.Event()
        self._fetched: asyncio.Future[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> bool:
        """Whether a set was ever fetched."""
        return self._keys is not None

    def find(self, key_id: str | None) -> Sequence[VerifyKey]:
        return () if self._keys is None else self._keys.find(key_id)

    async def refresh(self, key_id: str | None) -> float:
        """Fetch for a token whose key is not here; all callers share one fetch. Returns 0 when it is known now whether
        there is such a key, else the seconds after which to ask again."""
        if self._fetched is not None:  # which may have begun before the key was published: it proves no absence
            await asyncio.shield(self._fetched)
        if self.find(key_id) or self._is_absent(key_id):
            return 0
        if self._fetched is None:
            if not self._allowance.take(time.monotonic()):
                return self._refill_seconds
            self._fetched = asyncio.get_running_loop().create_future()
            self._wake.set()
        # The task fetches, not the caller: a client that leaves takes nothing away from the others.
        await asyncio.shield(self._fetched)
        if self._failures:
            return RETRY_SECONDS
        if not self.find(key_id):
            self._note_absent(key_id)
        return 0

    def _is_absent(self, key_id: str | None) -> bool:
        return len(key_id or "") > MAX_KEY_ID or time.monotonic() < self._absent.get(key_id, 0.0)

    def _note_absent(self, key_id: str | None) -> None:
        self._absent[key_id] = time.monotonic() + self._absent_seconds
        self._absent.move_to_end(key_id)
        if len(self._absent) > MAX_ABSENT:
            self._absent.popitem(last=False)

    async def __aenter__(self) -> Jwks:
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        self._session = aiohttp.ClientSession(timeout=timeout, proxy=proxy_of(self.url))
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
            if self._fetched is None:  # so that calls during this fetch wait for it, too
                self._fetched = asyncio.get_running_loop().create_future()
            await self._fetch()
            self._answer_waiters()

    def _pause(self) -> float:
        """Seconds to the next fetch; jittered, so that a fleet of edges does not ask in step."""
        seconds = self._max_age if self._failures == 0 else min(self._max_age, MAX_PAUSE_SECONDS, 2.0**self._failures)
        return seconds * random.uniform(0.8, 1.0)

    def _answer_waiters(self) -> None:
        if self._fetched is not None and not self._fetched.done():
            self._fetched.set_result(None)
        self._fetched = None

    async def _fetch(self) -> None:
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
