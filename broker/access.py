"""Lets requests in: finds their token, cookie or ticket, knows what was revoked, tells browsers who may call (CORS)."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler
from redis.asyncio import Redis
from redis.exceptions import RedisError

from broker.auth import CHALLENGE, Identity, Reason, Unauthorized, UnknownKey, Verifier, check_expiry, origin_allowed
from broker.jwks import Jwks
from broker.logs import get_logger
from broker.problems import Problem, retry_after
from broker.revocations import NEVER, Revocations, token_member, token_score, user_member, user_score
from emitter import wire
from emitter.connection import GONE
from emitter.subjects import owner_named

COOKIE = "runcast_token"
TICKET_SECONDS = 30
TICKET = re.compile(r"[A-Za-z0-9_-]{22}\Z")  # 128 random bits in base64url

TAKEN_BACK_MS = 86_400_000
"""How long an edge that was cut off can still learn that a revocation was taken back."""
MAX_UNSAVED = 10_000
MAX_DIGITS = 16

_identities = msgspec.json.Decoder(Identity)


class Revoked(NamedTuple):
    """What was revoked. `score` as in `broker.revocations`; `is_stored` is false while Redis takes no writes."""

    member: str
    score: int
    is_stored: bool


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
        self._unsaved: dict[str, int] = {}

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
        token = _cookie(request, COOKIE)
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
            detail = "a cookie is only taken from the edge's own or an allowed origin"
            raise Problem(403, "foreign-origin", detail, headers={"WWW-Authenticate": CHALLENGE})

    async def _verify(self, token: str) -> Identity:
        try:
            return self._verifier.verify(token, self._clock())
        except UnknownKey as error:
            if self._jwks is None:
                raise
            wait_seconds = await self._jwks.refresh(error.key_id)
        if wait_seconds:
            # Not 401: whether there is such a key is not known, and an `EventSource` never comes back from a 401.
            detail = "the key of this token is not here, and keys cannot be fetched just now"
            raise Problem(503, "keys-unavailable", detail, headers=retry_after(wait_seconds))
        return self._verifier.verify(token, self._clock())

    # --- tickets -----------------------------------------------------------------------------------------------------

    async def mint_ticket(self, identity: Identity, execution_id: str | None = None) -> tuple[str, float]:
        """A ticket that opens one stream (of `execution_id` only, if given) as this identity, and until when it can be
        spent (unix seconds). Its stream ends when the token that made it does."""
        if execution_id is not None:
            wire.check_execution_id(execution_id)
        ticket = secrets.token_urlsafe(16)
        bound = msgspec.structs.replace(identity, execution_id=execution_id)
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
        self,
        *,
        jti: str | None = None,
        user: str | None = None,
        org: str = "default",
        expires_at_ms: int | None = None,
    ) -> Revoked:
        """Refuse one token (until `expires_at_ms`, when it expires, if that is known), or all that a user was issued
        until now, here and on every edge. It holds here even if it cannot be stored or told: `settle` tries again.

        Raises `Problem` 422, and what Redis does where the others cannot be told."""
        now_ms = self._now_ms()
        member = _member(jti, user, org)
        if len(self._unsaved) >= MAX_UNSAVED:
            raise Problem(503, "unavailable", "too many revocations wait to be stored", headers=retry_after(60))
        score = user_score(now_ms) if jti is None else token_score(now_ms, expires_at_ms)
        self._revocations.add(member, score, now_ms)
        self._unsaved[member] = score
        # Stored before it is told: an edge that misses the message finds it when it resubscribes and loads.
        await self._store()
        is_stored = member not in self._unsaved
        await self._tell(member, score)
        return Revoked(member, score, is_stored)

    async def take_back(self, *, jti: str | None = None, user: str | None = None, org: str = "default") -> str:
        """Undo a revocation on every edge, if there is one; returns its member. Raises what `revoke` does: repeat it
        then."""
        member = _member(jti, user, org)
        await self._redis.zrem(wire.REVOCATIONS, member)
        self._forget(member)
        with contextlib.suppress(RedisError):  # full: only an edge that misses the message too will not hear of it
            await self._redis.zadd(wire.REVOCATIONS_TAKEN_BACK, {member: self._now_ms()})
        await self._tell(member, NEVER)
        return member

    def _forget(self, member: str) -> None:
        self._unsaved.pop(member, None)
        self._revocations.take_back(member)

    async def _tell(self, member: str, score: int) -> None:
        await self._redis.publish(wire.REVOCATIONS, f"{score} {member}")

    async def _store(self) -> None:
        """Store what is not yet stored, as far as Redis takes it: a full one takes nothing."""
        unsaved = dict(self._unsaved)
        try:
            await self._redis.zrem(wire.REVOCATIONS_TAKEN_BACK, *unsaved)
            await self._redis.zadd(wire.REVOCATIONS, {**unsaved}, gt=True)
        except (RedisError, *GONE) as error:
            get_logger().warning("revocations_not_stored", count=len(unsaved), error=type(error).__name__)
            return
        self._unsaved = {member: score for member, score in self._unsaved.items() if unsaved.get(member) != score}
        await self._trim()

    async def settle(self) -> None:
        """Tell and store again what could not be stored: an edge that started meanwhile has not heard of it."""
        if self._unsaved:
            for member, score in list(self._unsaved.items()):
                await self._tell(member, score)
            await self._store()

    async def _trim(self) -> None:
        now_ms = self._now_ms()
        await self._redis.zremrangebyscore(wire.REVOCATIONS, "-inf", now_ms)
        await self._redis.zremrangebyscore(wire.REVOCATIONS_TAKEN_BACK, "-inf", now_ms - TAKEN_BACK_MS)

    async def load(self) -> list[str]:
        """Read all revocations from Redis; returns the members that are news, whose streams are to be closed."""
        now_ms = self._now_ms()
        stored: Any = await self._redis.zrangebyscore(wire.REVOCATIONS, f"({now_ms}", "+inf", withscores=True)
        taken_back: Any = await self._redis.zrange(wire.REVOCATIONS_TAKEN_BACK, 0, -1)
        await self._trim()
        pairs = [(member.decode(), int(score)) for member, score in stored]
        # What is not in Redis is not for that reason taken back: Redis may have been full, or have lost it.
        for member in {each.decode() for each in taken_back} - {member for member, _ in pairs}:
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


def _ticket_key(ticket: str) -> str:
    """Only a digest is stored: who reads Redis cannot spend what is in it."""
    return wire.ticket_key(hashlib.sha256(ticket.encode()).hexdigest())


def _member(jti: str | None, user: str | None, org: str) -> str:
    if (jti is None) == (user is None):
        raise Problem(422, "invalid", "name either jti or user")
    if jti is None:
        return user_member(owner_named(user or "", org))
    if not 0 < len(jti) <= 256:
        raise Problem(422, "invalid", "jti: 1 to 256 characters", path="$.jti")
    return token_member(jti)


def _cookie(request: web.Request, name: str) -> str:
    """A cookie's value, or nothing. HTTP/2 lets a client send one line a cookie, which proxies pass on as they are
    (RFC 9113 section 8.2.3); and cookies of others, whatever is in them, must not hide ours."""
    for pair in "; ".join(request.headers.getall("Cookie", ())).split(";"):
        key, _, value = pair.partition("=")
        if key.strip() == name and value.strip():
            return value.strip().strip('"')
    return ""


# --- CORS ------------------------------------------------------------------------------------------------------------

_METHODS = "GET, HEAD, POST, DELETE"
# Ours, and what clients of A2A send from pages.
_HEADERS = (
    "Authorization, Content-Type, Last-Event-ID, Idempotency-Key, X-Request-ID, Producer-Id, Producer-Seq, "
    "A2A-Version, A2A-Extensions, X-A2A-Extensions, If-None-Match, Cache-Control, traceparent, tracestate"
)
_HEADER_NAMES = re.compile(r"[!#$%&'+.^_`|~0-9A-Za-z-]{1,64}([ \t]*,[ \t]*[!#$%&'+.^_`|~0-9A-Za-z-]{1,64}){0,63}\Z")
MAX_ORIGINS_LOGGED = 100


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
            response.headers["Access-Control-Expose-Headers"] = "X-Request-ID, Retry-After, ETag, WWW-Authenticate"

    refused: set[str] = set()

    @web.middleware
    async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return await handler(request)
        origin = request.headers.get("Origin", "")
        if origin in allowed:
            return web.Response(status=204, headers=_preflight(request))
        if origin not in refused and len(refused) < MAX_ORIGINS_LOGGED:  # once each, or pages would fill the log
            refused.add(origin)
            get_logger().warning("preflight_refused", origin=origin[:200], allowed_by="RUNCAST_CORS_ORIGINS")
        return web.Response(status=204)

    app.middlewares.append(cors)
    app.on_response_prepare.append(mark)


def _preflight(request: web.Request) -> dict[str, str]:
    """Every header that was asked for is allowed: whoever may send our cookies may send `baggage`, too."""
    asked = request.headers.get("Access-Control-Request-Headers", "").strip()
    return {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": asked if _HEADER_NAMES.match(asked) else _HEADERS,
        "Access-Control-Max-Age": "600",
        "Vary": "Access-Control-Request-Headers",
    }
