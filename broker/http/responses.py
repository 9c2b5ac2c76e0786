"""Requests that are answered at once, with whatever protocol: how many, how many bytes, and how long they may take.

Streams have slots of their own (`broker.streams.slots`), and viewers are watched by their timers
(`broker.streams.timers`). Every other request of a known user is an `Exchange`, from `Gateway.identify` until the last
byte of its answer was handed to the kernel: it holds a slot, its bodies count towards the byte limit, and one task
watches all of them. Long answers to callers without a token are watched in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from broker.base.fairness import FairSemaphore
from broker.base.identity import Identity
from broker.base.logging import get_logger
from broker.base.problem import Problem, retry_after
from broker.base.reasons import CloseReason
from broker.base.request_context import request_id_of
from broker.base.settings import Settings
from broker.base.unsent import unsent_bytes
from emitter.wire.keys import Owner

WATCH_SECONDS = 1.0
PIECE_BYTES = 64 * 1024
"""What is written at a time: with what the kernel holds it is all that an answer to a reader that stopped takes."""
SMALL_BYTES = 64 * 1024
"""A request up to this size is never refused for its size, so users with large ones cannot stop the others."""
RETRY_AFTER_SECONDS = 1
MAX_WAITING = 4096
"""Requests of one sort that may wait at once: each is a socket, and little else."""
MAX_WAITING_OF_ONE = 3072
"""Of them, of one user: others must have room."""
WAIT_ELSEWHERE_SECONDS = 2


class Exchange:
    """One request, and its answer. `identity` is None where nobody needs to be known."""

    __slots__ = ("body_bytes", "ends_at", "has_turn", "identity", "moved_at", "request", "unsent")

    def __init__(self, request: web.Request, identity: Identity | None) -> None:
        self.request = request
        self.identity = identity
        self.body_bytes = 0
        self.has_turn = identity is not None
        self.ends_at: float | None = None
        """When the answer must have ended (unix seconds)."""
        self.unsent = 0
        self.moved_at = 0.0
        """When bytes left last, or none waited to (loop time)."""

    @property
    def user(self) -> Owner:
        assert self.identity is not None, "nobody was identified"
        return self.identity.principal


EXCHANGE = web.RequestKey("exchange", Exchange)


class Responses:
    """All exchanges of one edge. `run()` watches them; `middleware` ends them, and must be the innermost one."""

    def __init__(self, settings: Settings, is_revoked: Callable[[Identity], bool]) -> None:
        self._is_revoked = is_revoked
        self._write_timeout = settings.write_timeout_seconds
        self._max_bytes = settings.max_buffered_bytes
        self._max_user_bytes = settings.max_buffered_bytes_per_user
        self._turns = FairSemaphore("requests", settings.max_requests, settings.max_requests_per_user)
        self._exchanges: set[Exchange] = set()
        self._end_by: float | None = None
        """When all answers must have ended, since the edge stops (loop time)."""
        self._bytes = 0
        self._bytes_of: dict[Owner, int] = {}
        self._log = get_logger()

    def __len__(self) -> int:
        return len(self._exchanges)

    # --- one exchange ------------------------------------------------------------------------------------------------

    async def enter(self, request: web.Request, identity: Identity) -> None:
        """Wait for a turn. Raises `Problem` 429 and 503."""
        if EXCHANGE in request:
            return
        await self._turns.take(identity.principal)
        self._begin(request, identity)

    def _begin(self, request: web.Request, identity: Identity | None) -> None:
        exchange = request[EXCHANGE] = Exchange(request, identity)
        exchange.moved_at = asyncio.get_running_loop().time()
        self._exchanges.add(exchange)

    @contextlib.asynccontextmanager
    async def resting(self, request: web.Request) -> AsyncIterator[None]:
        """Around a wait in which the request does nothing: others of its user have its turn. It ends with the token,
        and as all others when the edge stops. Raises as `enter`, at the end."""
        self.end_with_token(request)
        exchange = request[EXCHANGE]
        self._turns.give_back(exchange.user)
        exchange.has_turn = False
        try:
            yield
        finally:
            await self._turns.take(exchange.user, is_patient=True)
            exchange.has_turn = True

    def end_with_token(self, request: web.Request) -> None:
        """Of an answer that goes on reading what is new: it ends with the token at the latest."""
        exchange = request[EXCHANGE]
        assert exchange.identity is not None
        exchange.ends_at = exchange.identity.expires_at

    def hold(self, request: web.Request, size: int) -> None:
        """Count bytes that this request takes until it is answered. Raises `Problem` 429 and 503. A user's only large
        body always fits its bound: other limits hold for it."""
        exchange = request.get(EXCHANGE)
        if exchange is None or exchange.identity is None:
            return
        user, own = exchange.identity.principal, exchange.body_bytes
        of_user = self._bytes_of.get(user, 0)
        if own + size > SMALL_BYTES:
            if of_user - own > SMALL_BYTES and 0 < self._max_user_bytes < of_user + size:
                raise _too_much("this user", 429, "too-many-requests", self._max_user_bytes)
            if self._bytes > own and 0 < self._max_bytes < self._bytes + size:
                raise _too_much("all users", 503, "busy", self._max_bytes)
        exchange.body_bytes += size
        self._bytes += size
        self._bytes_of[user] = self._bytes_of.get(user, 0) + size

    def _leave(self, exchange: Exchange) -> None:
        self._exchanges.discard(exchange)
        if exchange.identity is None:
            return
        user = exchange.identity.principal
        if exchange.body_bytes:
            self._bytes -= exchange.body_bytes
            left = self._bytes_of.pop(user) - exchange.body_bytes
            if left:
                self._bytes_of[user] = left
        if exchange.has_turn:
            self._turns.give_back(user)

    @property
    def middleware(self) -> Any:
        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                response = await handler(request)
                if isinstance(response, web.Response) and not response.prepared:
                    await self._send(request, response)
                return response
            except ConnectionError:
                if not _has_left(request):
                    raise
                return web.Response()  # to nobody; as an error it would be logged, with a traceback
            finally:
                if EXCHANGE in request:
                    self._leave(request.pop(EXCHANGE))  # it refers to its request: a cycle

        return answer

    async def _send(self, request: web.Request, response: web.Response) -> None:
        """aiohttp would hand a body to the transport whole, which copies what the socket does not take."""
        body = response.body
        if not isinstance(body, bytes) or len(body) <= PIECE_BYTES or request.method == "HEAD":
            await response.prepare(request)
            await response.write_eof()
            return
        if EXCHANGE not in request:
            self._begin(request, None)
        self.hold(request, len(body))
        await response.prepare(request)
        pieces = memoryview(body)
        response.body = None  # or `write_eof` would send it again
        for start in range(0, len(pieces), PIECE_BYTES):
            await response.write(pieces[start : start + PIECE_BYTES])
        await response.write_eof()

    # --- the watch ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        while True:
            await asyncio.sleep(min(WATCH_SECONDS, self._write_timeout / 4))
            now = asyncio.get_running_loop().time()
            for exchange in list(self._exchanges):
                if (reason := self._must_end(exchange, now)) is not None:
                    self._cut(exchange, reason)

    def end_within(self, seconds: float) -> None:
        """The edge stops: what has not ended by then is cut. aiohttp would wait for it twice as long."""
        self._end_by = asyncio.get_running_loop().time() + seconds

    def _must_end(self, exchange: Exchange, now: float) -> CloseReason | None:
        if self._end_by is not None and now >= self._end_by:
            return CloseReason.DRAINING
        if exchange.identity is not None and self._is_revoked(exchange.identity):
            return CloseReason.REVOKED
        if exchange.ends_at is not None and time.time() >= exchange.ends_at:
            return CloseReason.EXPIRED
        unsent = unsent_bytes(exchange.request.transport)
        if not unsent or unsent != exchange.unsent:
            exchange.unsent, exchange.moved_at = unsent, now
        return CloseReason.SLOW if now - exchange.moved_at >= self._write_timeout else None

    def _cut(self, exchange: Exchange, reason: CloseReason) -> None:
        """Cut the connection: a clean end would look like a complete response. The handler then fails to write."""
        transport = exchange.request.transport
        if transport is None or transport.is_closing():
            return
        transport.abort()
        who = None if exchange.identity is None else exchange.identity.principal
        about = {"path": exchange.request.path, "request_id": request_id_of(exchange.request)}
        self._log.info("answer_cut", reason=reason, user=who and who.user, org=who and who.org, **about)


class Waits:
    """Requests of one sort that wait for long. They hold no turn meanwhile (`Responses.resting`), as hundreds of them
    may have one token. `what` names them in refusals."""

    def __init__(self, what: str, resting: Callable[[web.Request], AbstractAsyncContextManager[None]]) -> None:
        self._what = what
        self._resting = resting
        self._waiting: Counter[Owner] = Counter()

    @contextlib.asynccontextmanager
    async def one(self, request: web.Request) -> AsyncIterator[None]:
        """Around what may wait. Raises `Problem` 503, and as `Responses.resting`."""
        user = request[EXCHANGE].user
        if self._waiting.total() >= MAX_WAITING or self._waiting[user] >= MAX_WAITING_OF_ONE:
            raise Problem(503, "busy", f"too many {self._what} wait here", headers=retry_after(WAIT_ELSEWHERE_SECONDS))
        self._waiting[user] += 1
        try:
            async with self._resting(request):
                yield
        finally:
            self._waiting[user] -= 1
            if not self._waiting[user]:
                del self._waiting[user]


def _has_left(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _too_much(whose: str, status: int, slug: str, limit: int) -> Problem:
    detail = f"the open requests and responses of {whose} have more than {limit} bytes"
    return Problem(status, slug, detail, headers=retry_after(RETRY_AFTER_SECONDS), limit=limit)
