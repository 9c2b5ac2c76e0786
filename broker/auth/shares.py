"""Share links: whoever has one reads one execution, for a while, without an account.

A share is a random secret. Redis has its digest only, with the identity it stands for, and beside the execution a hash
with what its owner is shown of it. It ends at its time, or when it is revoked: the revocation, as that of a token,
reaches all edges and closes open streams. For the limits, all who use the shares of one owner are one user more: one
for each share would make the limits of a user as many times larger as that user likes.

An id can be used again once the execution's record has expired, which may be before a share of it ends. So a share
names a mark in the record (`share_mark.lua`), which a later execution with the same id does not have.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from broker.auth.refusals import Reason, Unauthorized
from broker.auth.revocation_store import KnownRevocations
from broker.auth.tokens import check_expiry
from broker.base.identity import Identity
from broker.base.logging import get_logger
from broker.base.problem import Problem
from emitter.errors import UnknownExecution
from emitter.wire import keys
from emitter.wire.keys import Owner
from emitter.wire.record import Field, Selection
from emitter.wire.subjects import owner_named

PREFIX = "share_"
SHARE = re.compile(PREFIX + r"[A-Za-z0-9_-]{32}\Z")  # 192 random bits in base64url
MAX_SHARES = 20
"""Of one execution at a time."""
REVOKED_SECONDS = 3600
"""How long edges remember that a share was revoked. Its secret is gone, so only open streams need to hear of it."""

MARK_SCRIPT = Path(__file__).with_name("share_mark.lua").read_text()
_MARK = Selection(Field.SHARED)


class Share(msgspec.Struct, frozen=True):
    """What is known of a share without its secret. Times are unix seconds."""

    id: str
    digest: str
    by: str
    created_at: float
    expires_at: float
    mark: str


class _Secret(msgspec.Struct, frozen=True):
    """What Redis has under the digest of a secret."""

    reader: Identity
    mark: str


_shares = msgspec.json.Decoder(Share)
_secrets = msgspec.json.Decoder(_Secret)


class Shares:
    """The shares of all executions."""

    def __init__(self, redis: Redis, revocations: KnownRevocations, *, clock: Callable[[], float] = time.time) -> None:
        self._redis: Any = redis
        self._revocations = revocations
        self._clock = clock

    async def mint(self, identity: Identity, execution_id: str, seconds: int) -> tuple[str, Share]:
        """A new share of an execution of the caller's, and its secret. Raises `UnknownExecution`, `Problem` 409 if
        there are too many, and redis errors."""
        record = identity.owner.execution(execution_id).record
        mark = await self._redis.eval(MARK_SCRIPT, 1, record, secrets.token_hex(8))
        if mark is None:
            raise UnknownExecution(execution_id)
        now, shares = self._clock(), await self.of(identity.owner, execution_id)
        if len(shares) >= MAX_SHARES:
            raise Problem(409, "too-many-shares", f"an execution has at most {MAX_SHARES} shares; revoke one first")
        secret = PREFIX + secrets.token_urlsafe(24)
        digest = _digest(secret)
        share = Share(digest[:16], digest, identity.name, now, now + seconds, mark.decode())
        reader = Identity(
            owner=identity.owner,
            scopes=frozenset({"executions:read"}),
            token_id=f"share:{share.id}",
            expires_at=share.expires_at,
            # As old as the owner's token: an edge that has not yet heard of a revocation makes none that outlives it.
            issued_at=now if identity.actor else identity.issued_at,
            execution_id=execution_id,
            actor=owner_named(f"share={identity.owner.user}", identity.owner.org),
            is_share=True,
            maker=identity.actor,
        )
        listed = identity.owner.shares(execution_id)
        longest = max(each.expires_at for each in (*shares, share))
        pipe = self._redis.pipeline(transaction=True)
        pipe.hset(listed, share.id, msgspec.json.encode(share))
        pipe.pexpire(listed, int((longest - now) * 1000) + 1000)
        await pipe.execute()
        stored = msgspec.json.encode(_Secret(reader, share.mark))
        await self._redis.set(keys.share_key(digest), stored, ex=seconds)
        return secret, share

    async def redeem(self, secret: str) -> Identity:
        """The identity that a share stands for. Raises `Unauthorized` and redis errors."""
        stored = await self._redis.get(keys.share_key(_digest(secret))) if SHARE.match(secret) else None
        share = stored and _secrets.decode(stored)
        if not share or share.mark != await self._mark(share.reader.owner, share.reader.execution_id or ""):
            raise Unauthorized(Reason.SHARE, "this link is unknown, has expired or was revoked")
        check_expiry(share.reader, self._clock())
        return share.reader

    async def of(self, owner: Owner, execution_id: str) -> list[Share]:
        """Those that have not ended, oldest first."""
        stored = await self._redis.hgetall(owner.shares(execution_id))
        mark = await self._mark(owner, execution_id)
        shares = [share for value in stored.values() if (share := _readable(execution_id, value)) is not None]
        over = {share.id for share in shares if share.expires_at <= self._clock() or share.mark != mark}
        if over:
            await self._redis.hdel(owner.shares(execution_id), *over)
        return sorted((share for share in shares if share.id not in over), key=lambda share: share.created_at)

    async def _mark(self, owner: Owner, execution_id: str) -> str:
        """Of an execution that was shared; empty for any other, and if there is none."""
        record = owner.execution(execution_id).record
        return _MARK.read(await self._redis.hmget(record, *_MARK.names)).shared

    async def revoke(self, owner: Owner, execution_id: str, share_id: str) -> Share:
        """End a share and its streams. Raises `Problem` 404 and redis errors: repeat it then."""
        share = next((each for each in await self.of(owner, execution_id) if each.id == share_id), None)
        if share is None:
            raise Problem(404, "unknown-share", "there is no such share of this execution")
        await self._redis.delete(keys.share_key(share.digest))
        until = min(share.expires_at, self._clock() + REVOKED_SECONDS)
        await self._revocations.revoke(jti=f"share:{share.id}", expires_at_ms=int(until * 1000))
        await self._redis.hdel(owner.shares(execution_id), share.id)
        return share


def is_share(token: str) -> bool:
    return token.startswith(PREFIX)


def _readable(execution_id: str, stored: bytes) -> Share | None:
    """None for what another program wrote: the others are shown."""
    try:
        return _shares.decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        get_logger().warning("share_unreadable", execution=execution_id, error=str(error)[:200])
        return None


def _digest(secret: str) -> str:
    """Only this is stored: a share cannot be had from Redis."""
    return hashlib.sha256(secret.encode()).hexdigest()
