"""What every edge knows of revocations, and how they learn of it from each other: by Redis, also while that is full."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from broker.auth.revocations import NEVER, Revocations, token_member, token_score, user_member, user_score
from broker.base.identity import Identity
from broker.base.logging import get_logger
from broker.base.problem import Problem, retry_after
from emitter.store.connection import GONE, publish
from emitter.wire import keys
from emitter.wire.subjects import owner_named

TAKEN_BACK_MS = 86_400_000
"""How long an edge that was cut off can still learn that a revocation was taken back."""
MAX_UNSAVED = 10_000
MAX_DIGITS = 15
MAX_SCORE = 10**MAX_DIGITS - 1


class Revoked(NamedTuple):
    """What was revoked. `score` as in `broker.auth.revocations`; `is_stored` is false while Redis takes no writes."""

    member: str
    score: int
    is_stored: bool


class KnownRevocations:
    """Every edge holds all revocations in memory, so looking one up costs no call to Redis: `load()` at the start and
    whenever the subscription was lost, `on_message()` for what arrives on it, `settle()` every few seconds.

    `on_revoked` is called with the member when streams may have to be closed for a revocation that is made here."""

    def __init__(
        self,
        redis: Redis,
        *,
        clock: Callable[[], float] = time.time,
        on_revoked: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._redis = redis
        self._clock = clock
        self._on_revoked = on_revoked
        self._revocations = Revocations()
        self._unsaved: dict[str, int] = {}

    def refuse(self, identity: Identity) -> bool:
        return self._revocations.refuses(identity, self._now_ms())

    async def revoke(
        self,
        *,
        jti: str | None = None,
        user: str | None = None,
        org: str = "default",
        expires_at_ms: int | None = None,
    ) -> Revoked:
        """Refuse one token (until `expires_at_ms`, when it expires, if that is known), or all that a user was issued
        until now, here and on every edge. It is valid here even if it cannot be stored or published: `settle` retries.

        Raises `Problem` 422, and errors of Redis if it cannot be published."""
        now_ms = self._now_ms()
        member = _member(jti, user, org)
        if len(self._unsaved) >= MAX_UNSAVED:
            raise Problem(503, "unavailable", "too many revocations wait to be stored", headers=retry_after(60))
        score = user_score(now_ms) if jti is None else token_score(now_ms, expires_at_ms)
        self._revocations.add(member, score, now_ms)
        self._unsaved[member] = score
        self._on_revoked(member)  # before anything that Redis may hold up
        # Stored before it is published: an edge that misses the message finds it when it resubscribes and loads.
        await self._store()
        is_stored = member not in self._unsaved
        try:
            await self._tell(member, score)
        except (RedisError, *GONE):
            self._unsaved[member] = score  # so that `settle` publishes it
            raise
        return Revoked(member, score, is_stored)

    async def take_back(self, *, jti: str | None = None, user: str | None = None, org: str = "default") -> str:
        """Undo a revocation on every edge, if there is one; returns its member. Raises what `revoke` does: repeat it
        then."""
        member = _member(jti, user, org)
        await self._redis.zrem(keys.REVOCATIONS, member)
        self._forget(member)
        await self._redis.zrem(keys.REVOCATIONS, member)  # it may just have been stored
        with contextlib.suppress(RedisError):  # full: only an edge that also misses the message does not learn it
            await self._redis.zadd(keys.REVOCATIONS_TAKEN_BACK, {member: self._now_ms()})
        await self._tell(member, NEVER)
        return member

    def _forget(self, member: str) -> None:
        self._unsaved.pop(member, None)
        self._revocations.take_back(member)

    async def _tell(self, member: str, score: int) -> None:
        await publish(self._redis, keys.REVOCATIONS, f"{score} {member}".encode())

    async def _store(self) -> None:
        """Store what is not yet stored, as far as Redis takes it: a full one takes nothing."""
        unsaved = dict(self._unsaved)
        try:
            await self._redis.zrem(keys.REVOCATIONS_TAKEN_BACK, *unsaved)
            await self._redis.zadd(keys.REVOCATIONS, {**unsaved}, gt=True)
            if taken_back := unsaved.keys() - self._unsaved.keys():  # meanwhile
                await self._redis.zrem(keys.REVOCATIONS, *taken_back)
            self._unsaved = {member: score for member, score in self._unsaved.items() if unsaved.get(member) != score}
            await self._trim()
        except (RedisError, *GONE) as error:
            get_logger().warning("revocations_not_stored", count=len(self._unsaved), error=type(error).__name__)

    async def settle(self) -> None:
        """Publish and store again what could not be stored: an edge that started since does not know it."""
        if self._unsaved:
            for member, score in list(self._unsaved.items()):
                await self._tell(member, score)
            await self._store()

    async def _trim(self) -> None:
        now_ms = self._now_ms()
        await self._redis.zremrangebyscore(keys.REVOCATIONS, "-inf", now_ms)
        await self._redis.zremrangebyscore(keys.REVOCATIONS_TAKEN_BACK, "-inf", now_ms - TAKEN_BACK_MS)

    async def load(self) -> list[str]:
        """Read all revocations from Redis; returns the new members; their streams are to be closed."""
        now_ms = self._now_ms()
        stored: Any = await self._redis.zrangebyscore(keys.REVOCATIONS, f"({now_ms}", "+inf", withscores=True)
        taken_back: Any = await self._redis.zrange(keys.REVOCATIONS_TAKEN_BACK, 0, -1)
        await self._trim()
        pairs = [(member.decode("utf-8", "replace"), int(min(score, MAX_SCORE))) for member, score in stored]
        # What is not in Redis is not for that reason taken back: Redis may have been full, or have lost it.
        for member in {each.decode("utf-8", "replace") for each in taken_back} - {member for member, _ in pairs}:
            self._forget(member)
        return [member for member, score in pairs if self._revocations.add(member, score, now_ms)]

    def on_message(self, message: bytes) -> str | None:
        """Learn one revocation from a message `<score> <member>` of the channel `wire.REVOCATIONS`, or that it is taken
        back. Returns the member, whose streams are to be closed, or None if there are none to close."""
        text, _, member = message.decode("utf-8", "replace").partition(" ")
        if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS and member):
            return None
        score, now_ms = int(text), self._now_ms()
        if score == NEVER:
            self._forget(member)
            return None
        self._revocations.add(member, score, now_ms)
        # Known or not: the edge that wrote it knew it first, and has its own streams to close.
        return member if score > now_ms else None

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _member(jti: str | None, user: str | None, org: str) -> str:
    if (jti is None) == (user is None):
        raise Problem(422, "invalid", "name either jti or user")
    if jti is None:
        return user_member(owner_named(user or "", org))
    if not 0 < len(jti) <= 256:
        raise Problem(422, "invalid", "jti: 1 to 256 characters", path="$.jti")
    return token_member(jti)
