"""Lets requests in: finds their token, cookie or ticket, knows what was revoked, tells browsers who may call (CORS)."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Collection
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler
from redis.asyncio import Redis

from broker.auth import (
    Identity,
    Reason,
    Revocations,
    Unauthorized,
    Verifier,
    check_expiry,
    origin_allowed,
    token_member,
    user_member,
)
from broker.jwks import Jwks
from broker.problems import Problem, retry_after
from emitter import wire
from emitter.wire import Owner

COOKIE = "runcast_token"
TICKET_SECONDS = 30
TICKET = re.compile(r"[A-Za-z0-9_-]{22}\Z")  # 128 random bits in base64url

_identities = msgspec.json.Decoder(Identity)


class Access:
    """The door of an edge. Every edge holds all revocations in memory, so looking one up costs no call to Redis:
    `load()` at the start and whenever the subscription was lost, `on_message()` for what arrives on it."""

    def __init__(
        self,
        redis: Redis,
        verifier: Verifier,
        *,
        origins: Collection[str] = (),
        jwks: Jwks | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._verifier = verifier
        self._origins = exact_origins(origins)
        self._jwks = jwks
        self._clock = clock
        self._revocations = Revocations()

    # --- requests ----------------------------------------------------------------------------------------------------

    def ready(self) -> dict[str, bool]:
        """Whether published keys, where tokens are verified by such, were fetched at least once: without any, nobody
        can be let in."""
        return {} if self._jwks is None else {"keys": self._jwks.loaded}

    async def authenticate(self, request: web.Request, *, ticket: bool = False) -> Identity:
        """Who sends this request. `ticket` says whether `?ticket=` is taken here (streams only); it is spent by this.

        Raises `Unauthorized` (401), `Problem` 403 for a cookie sent by a foreign page, 503 while no key is known yet.
        """
        if ticket and "Authorization" not in request.headers and "ticket" in request.query:
            identity = await self._redeem(request.query["ticket"])
        else:
            identity = await self._verify(self._token(request))
        if self.is_revoked(identity):
            raise Unauthorized(Reason.REVOKED, "the token or its user was revoked")
        return identity

    def _token(self, request: web.Request) -> str:
        if (header := request.headers.get("Authorization")) is not None:
            scheme, _, token = header.partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise Unauthorized(Reason.MALFORMED, "Authorization is not Bearer with a token")
            return token.strip()
        token = request.cookies.get(COOKIE, "")
        if not token:
            raise Unauthorized(Reason.MISSING, f"send Authorization: Bearer, or the cookie {COOKIE}")
        self._check_origin(request)
        return token

    def _check_origin(self, request: web.Request) -> None:
        headers = request.headers
        if not origin_allowed(
            method=request.method,
            origin=headers.get("Origin"),
            host=headers.get("Host", ""),
            fetch_site=headers.get("Sec-Fetch-Site"),
            allowed=self._origins,
        ):
            raise Problem(403, "foreign-origin", "a cookie is only taken from the edge's own or an allowed origin")

    async def _verify(self, token: str) -> Identity:
        try:
            return self._verifier.verify(token, self._clock())
        except Unauthorized as error:
            if error.reason is not Reason.UNKNOWN_KEY or self._jwks is None:
                raise
        await self._jwks.refresh()
        if not self._jwks.loaded:
            raise Problem(
                503, "keys-unavailable", "the keys that sign tokens cannot be fetched", headers=retry_after(5)
            )
        return self._verifier.verify(token, self._clock())

    # --- tickets -----------------------------------------------------------------------------------------------------

    async def mint_ticket(self, identity: Identity, execution_id: str | None = None) -> tuple[str, float]:
        """A ticket that opens one stream (of `execution_id` only, if given) as this identity, and until when it can be
        spent (unix seconds). Its stream ends when the token that made it does."""
        if execution_id is not None:
            wire.check_execution_id(execution_id)
        ticket = secrets.token_urlsafe(16)
        # It is for its owner's streams: with scope admin it would open anybody's, by `?user=`.
        bound = msgspec.structs.replace(identity, execution_id=execution_id, scopes=identity.scopes - {"admin"})
        await self._redis.set(_ticket_key(ticket), msgspec.json.encode(bound), ex=TICKET_SECONDS)
        spend_by = self._clock() + TICKET_SECONDS
        return ticket, spend_by if identity.expires_at is None else min(spend_by, identity.expires_at)

    async def _redeem(self, ticket: str) -> Identity:
        # GETDEL: of two that bring the same ticket, Redis lets exactly one have it.
        stored = await self._redis.getdel(_ticket_key(ticket)) if TICKET.match(ticket) else None
        if stored is None:
            raise Unauthorized(Reason.TICKET, "the ticket is unknown, spent or older than 30 s; get a new one")
        identity = _identities.decode(stored)
        check_expiry(identity, self._clock())
        return identity

    # --- revocations -------------------------------------------------------------------------------------------------

    def is_revoked(self, identity: Identity) -> bool:
        return self._revocations.refuses(identity, self._now_ms())

    async def revoke(
        self, *, until: float, jti: str | None = None, user: str | None = None, org: str = "default"
    ) -> str:
        """Refuse one token, or all tokens of one user, until `until` (unix seconds), here and on every edge. Returns
        the revocation's member. A repeat does nothing twice; a longer revocation is never shortened."""
        member = _member(jti, user, org)
        until_ms = int(until * 1000)
        await self._redis.zadd(wire.REVOCATIONS, {member: until_ms}, gt=True)
        await self._redis.zremrangebyscore(wire.REVOCATIONS, "-inf", self._now_ms())
        # Stored before it is told: an edge that misses the message finds it when it resubscribes and loads.
        await self._redis.publish(wire.REVOCATIONS, f"{until_ms} {member}")
        self._revocations.add(member, until_ms, self._now_ms())
        return member

    async def load(self) -> list[str]:
        """Read all revocations from Redis; returns the members that are news, whose streams are to be closed."""
        now_ms = self._now_ms()
        stored: Any = await self._redis.zrangebyscore(wire.REVOCATIONS, f"({now_ms}", "+inf", withscores=True)
        await self._redis.zremrangebyscore(wire.REVOCATIONS, "-inf", now_ms)
        pairs = [(member.decode(), int(score)) for member, score in stored]
        return [member for member, until_ms in pairs if self._revocations.add(member, until_ms, now_ms)]

    def on_message(self, message: bytes) -> str | None:
        """Learn one revocation from a message `<until ms> <member>` of the channel `wire.REVOCATIONS`. Returns the
        member, whose streams are to be closed, or None if the message is none or its time is over."""
        until, _, member = message.decode("utf-8", "replace").partition(" ")
        if not until.isdecimal() or not member:
            return None
        now_ms = self._now_ms()
        self._revocations.add(member, int(until), now_ms)
        # Known or not: the edge that wrote it knew it first, and has its own streams to close.
        return member if int(until) > now_ms else None

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _ticket_key(ticket: str) -> str:
    """Only a digest is stored: who reads Redis cannot spend what is in it."""
    return wire.ticket_key(hashlib.sha256(ticket.encode()).hexdigest())


def _member(jti: str | None, user: str | None, org: str) -> str:
    if (jti is None) == (user is None):
        raise Problem(422, "invalid", "name either jti or user")
    if jti is None:
        return user_member(Owner(user or "", org))
    if not 0 < len(jti) <= 256:
        raise Problem(422, "invalid", "jti: 1 to 256 characters", path="$.jti")
    return token_member(jti)


# --- CORS ------------------------------------------------------------------------------------------------------------

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
    # Ours, and what clients of A2A send from pages.
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, Last-Event-ID, Idempotency-Key, X-Request-ID, Producer-Id, Producer-Seq, "
        "A2A-Version, A2A-Extensions, X-A2A-Extensions, If-None-Match, Cache-Control, traceparent, tracestate"
    ),
    "Access-Control-Max-Age": "600",
}


def exact_origins(origins: Collection[str]) -> frozenset[str]:
    """Origins as browsers send them. `ValueError` for a wildcard, which must never meet credentials."""
    if bad := [origin for origin in origins if "*" in origin or origin == "null" or origin.endswith("/")]:
        raise ValueError(f"{bad[0]!r} is not an exact origin such as https://app.example.com")
    return frozenset(origins)


def setup_cors(app: web.Application, origins: Collection[str]) -> None:
    """Answer preflights and mark responses for exactly these origins. Call it before `problems.setup`, so that a
    preflight needs neither a route nor a token."""
    allowed = exact_origins(origins)

    async def mark(request: web.Request, response: web.StreamResponse) -> None:
        # A signal, not the middleware: a stream's head is sent long before its handler returns.
        response.headers.add("Vary", "Origin")
        origin = request.headers.get("Origin")
        if origin in allowed:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
            response.headers["Access-Control-Expose-Headers"] = "X-Request-ID, Retry-After, ETag"

    @web.middleware
    async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return await handler(request)
        is_allowed = request.headers.get("Origin") in allowed
        return web.Response(status=204, headers=_PREFLIGHT if is_allowed else None)

    app.middlewares.append(cors)
    app.on_response_prepare.append(mark)
