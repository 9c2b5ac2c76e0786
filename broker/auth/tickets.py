"""Stream tickets: what lets a plain `EventSource`, which can send no header, open a stream, and open it again.

A ticket must be used within `FIRST_USE_SECONDS`. While its stream is open, and for a minute after that stream ended or
broke, it opens the stream again, on any edge. The newer stream then replaces the older one, which may be a connection
that is dead and not yet missed: a ticket never has two streams for longer than a message takes.

In Redis a ticket is three strings under its digest: the identity it stands for, how often it was used, and which edge
holds its stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from itertools import islice
from types import TracebackType
from typing import NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from broker.auth.refusals import Reason, Unauthorized
from broker.auth.tokens import check_expiry
from broker.base.identity import Identity
from broker.base.logging import get_logger
from broker.base.reasons import CloseReason
from emitter import tasks
from emitter.store.connection import GONE, publish
from emitter.wire import ids, keys

FIRST_USE_SECONDS = 30
RENEW_SECONDS = 20.0
LIFETIME_SECONDS = 90
"""Of a ticket in use, from its last renewal: at least a minute after its stream broke, wherever that was."""
LOT = 500
RETRY_SECONDS = 1.0
TICKET = re.compile(r"[A-Za-z0-9_-]{22}\Z")  # 128 random bits in base64url
MESSAGE = b"ticket "
"""Begins a message on an edge's own channel: `ticket <digest> <use>`, the stream of that use is replaced."""

_identities = msgspec.json.Decoder(Identity)


class _Open(NamedTuple):
    """The stream that a ticket has on this edge."""

    identity: Identity
    close: Callable[[CloseReason], None]

    @property
    def use(self) -> int:
        return self.identity.ticket_use


class Tickets:
    """`async with Tickets(redis, edge_id) as tickets:`; streams report what they open and close."""

    def __init__(self, redis: Redis, edge_id: str, *, clock: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._edge_id = edge_id
        self._clock = clock
        self._open: dict[str, _Open] = {}
        self._unclaimed: dict[str, None] = {}  # an ordered set: digests of streams that Redis does not know of yet
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._log = get_logger()

    # --- requests ----------------------------------------------------------------------------------------------------

    async def mint(self, identity: Identity, execution_id: str | None = None) -> tuple[str, float]:
        """A ticket for streams of this identity (of `execution_id` only, if given), and until when it can first be used
        (unix seconds). It ends with the token that it was made with. Raises redis errors."""
        if execution_id is not None:
            ids.check_execution_id(execution_id)
        ticket = secrets.token_urlsafe(16)
        # It is for its owner's streams: with these scopes it would open those of others, by `?user=`.
        scopes, digest = identity.scopes - {"admin", "org:read"}, _digest(ticket)
        bound = msgspec.structs.replace(identity, scopes=scopes, execution_id=execution_id, ticket=digest)
        await self._redis.set(keys.ticket_key(digest), msgspec.json.encode(bound), ex=FIRST_USE_SECONDS)
        use_by = self._clock() + FIRST_USE_SECONDS
        return ticket, use_by if identity.expires_at is None else min(use_by, identity.expires_at)

    async def redeem(self, ticket: str) -> Identity:
        """The identity of a ticket. Raises `Unauthorized` and redis errors."""
        stored = None
        if TICKET.match(ticket):
            stored = await self._redis.getex(keys.ticket_key(_digest(ticket)), ex=LIFETIME_SECONDS)
        if stored is None:
            raise Unauthorized(Reason.TICKET, "the ticket is unknown or was not used in time; get a new one")
        identity = _identities.decode(stored)
        check_expiry(identity, self._clock())
        uses = keys.ticket_uses_key(_digest(ticket))
        pipe = self._redis.pipeline(transaction=False)
        pipe.incrby(uses, 1)
        pipe.pexpire(uses, LIFETIME_SECONDS * 1000)
        use, _ = await pipe.execute()
        return msgspec.structs.replace(identity, ticket_use=use)

    # --- streams -----------------------------------------------------------------------------------------------------

    def opened(self, identity: Identity, close: Callable[[CloseReason], None]) -> None:
        """A stream begins, with a ticket or without; `close` ends it when another replaces it."""
        digest = identity.ticket
        if digest is not None:
            self._replace(digest)
            self._open[digest] = _Open(identity, close)
            self._unclaimed[digest] = None
            self._wake.set()

    def closed(self, identity: Identity) -> None:
        """The stream that was opened with this very identity has ended. Its ticket stays good for a while."""
        digest = identity.ticket
        if digest is not None and (known := self._open.get(digest)) is not None and known.identity is identity:
            del self._open[digest]
            self._unclaimed.pop(digest, None)

    def on_message(self, message: bytes) -> None:
        """A ticket's stream was opened on another edge."""
        digest, _, use = message.removeprefix(MESSAGE).decode("utf-8", "replace").partition(" ")
        known = self._open.get(digest)
        if known is not None and str(known.use) == use:
            self._replace(digest)

    def _replace(self, digest: str) -> None:
        if (known := self._open.pop(digest, None)) is not None:
            known.close(CloseReason.REPLACED)

    # --- in Redis ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Tickets:
        self._task = asyncio.create_task(self._run(), name="tickets")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._task is not None
        await tasks.end([self._task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        renew_at = loop.time() + RENEW_SECONDS
        while not tasks.told_to_stop():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(renew_at):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if loop.time() >= renew_at:
                    renew_at = loop.time() + RENEW_SECONDS
                    await self._renew()
                await self._claim()
            except (RedisError, *GONE) as error:
                self._log.warning("tickets_not_renewed", error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()

    async def _claim(self) -> None:
        """Announce the streams opened since, and close those that they replace."""
        while lot := [(digest, self._open[digest].use) for digest in islice(self._unclaimed, LOT)]:
            pipe = self._redis.pipeline(transaction=False)
            for digest, use in lot:
                pipe.set(keys.ticket_holder_key(digest), f"{self._edge_id} {use}", ex=LIFETIME_SECONDS, get=True)
            for (digest, use), holder in zip(lot, await pipe.execute(), strict=True):
                if (known := self._open.get(digest)) is not None and known.use == use:
                    self._unclaimed.pop(digest, None)
                await self._settle(digest, use, (holder or b"").decode())

    async def _settle(self, digest: str, use: int, holder: str) -> None:
        """Of two streams on two edges the newer one stays. A claim may come late, after that of a newer one."""
        edge_id, _, other = holder.partition(" ")
        if not edge_id or edge_id == self._edge_id:
            return
        if int(other) < use:
            await publish(self._redis, keys.edge_channel(edge_id), MESSAGE + f"{digest} {other}".encode())
        else:
            await self._redis.set(keys.ticket_holder_key(digest), holder, ex=LIFETIME_SECONDS)
            if (known := self._open.get(digest)) is not None and known.use == use:
                self._replace(digest)

    async def _renew(self) -> None:
        """Keep the tickets of open streams. One that is gone, as after a failover, is written again."""
        digests = iter(list(self._open))
        while lot := list(islice(digests, LOT)):
            pipe = self._redis.pipeline(transaction=False)
            for digest in lot:
                pipe.pexpire(keys.ticket_key(digest), LIFETIME_SECONDS * 1000)
                pipe.pexpire(keys.ticket_holder_key(digest), LIFETIME_SECONDS * 1000)
                pipe.pexpire(keys.ticket_uses_key(digest), LIFETIME_SECONDS * 1000)
            replies = await pipe.execute()
            for digest, is_there in zip(lot, replies[::3], strict=True):
                known = self._open.get(digest)
                if not is_there and known is not None:
                    stored = msgspec.json.encode(known.identity)
                    await self._redis.set(keys.ticket_key(digest), stored, ex=LIFETIME_SECONDS, nx=True)


def _digest(ticket: str) -> str:
    """Only this is stored: a ticket cannot be had from Redis."""
    return hashlib.sha256(ticket.encode()).hexdigest()
