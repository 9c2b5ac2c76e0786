"""Authenticates requests: finds their token, cookie or ticket, checks revocations, and answers CORS requests."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection

from aiohttp import web
from aiohttp.typedefs import Handler
from redis.asyncio import Redis

from broker.auth.jwks import Jwks
from broker.auth.permissions import origin_allowed
from broker.auth.refusals import CHALLENGE, Reason, Unauthorized, UnknownKey
from broker.auth.revocation_store import KnownRevocations
from broker.auth.shares import Shares, is_share
from broker.auth.tickets import Tickets
from broker.auth.tokens import Verifier
from broker.base.identity import Identity
from broker.base.logging import get_logger
from broker.base.problem import Problem, retry_after

COOKIE = "runcast_token"


class Authenticator:
    """The door of an edge."""

    def __init__(
        self,
        redis: Redis,
        verifier: Verifier,
        tickets: Tickets,
        *,
        origins: Collection[str] = (),
        jwks: Jwks | None = None,
        clock: Callable[[], float] = time.time,
        on_revoked: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.tickets = tickets
        self.revocations = KnownRevocations(redis, clock=clock, on_revoked=on_revoked)
        self.shares = Shares(redis, self.revocations, clock=clock)
        self._redis = redis
        self._verifier = verifier
        self._origins = exact_origins(origins)
        self._jwks = jwks
        self._clock = clock

    # --- requests ----------------------------------------------------------------------------------------------------

    def ready(self) -> dict[str, bool]:
        """Whether published keys, where tokens are verified by such, were fetched at least once: without any, nobody
        can be let in."""
        return {} if self._jwks is None else {"keys": self._jwks.loaded}

    async def authenticate(self, request: web.Request, *, ticket: bool = False) -> Identity:
        """The sender of this request. `ticket`: whether `?ticket=` is accepted (streams only).

        Raises `Unauthorized` (401), `Problem` 403 for a cookie sent by a foreign page, 503 while no key is known yet.
        """
        if ticket and "Authorization" not in request.headers and "ticket" in request.query:
            identity = await self.tickets.redeem(request.query["ticket"])
        elif is_share(token := self._token(request)):
            identity = await self.shares.redeem(token)
        else:
            identity = await self._verify(token)
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

    def is_revoked(self, identity: Identity) -> bool:
        return self.revocations.refuse(identity)


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
EXPOSED = (
    "X-Request-ID, Retry-After, ETag, WWW-Authenticate, "
    "X-Workflow-Run-Id, X-Workflow-Stream-Tail-Index, "  # the AI SDK's transport asks by them for what it lacks
    "Mcp-Session-Id, "
    "Location, Stream-Next-Offset, Stream-Up-To-Date, Stream-Closed, Stream-Cursor"
)
"""Headers of responses that pages of other origins may read."""


def exact_origins(origins: Collection[str]) -> frozenset[str]:
    """Origins as browsers send them. `ValueError` for a wildcard, which must never meet credentials."""
    if bad := [origin for origin in origins if "*" in origin or origin == "null" or origin.endswith("/")]:
        raise ValueError(f"{bad[0]!r} is not an exact origin such as https://app.example.com")
    return frozenset(origins)


def cors_headers(request: web.Request, allowed: Collection[str]) -> dict[str, str]:
    """What a response says about its reader's page, besides `Vary: Origin`."""
    origin = request.headers.get("Origin")
    if origin is None or origin not in allowed:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": EXPOSED,
    }


def setup_cors(app: web.Application, origins: Collection[str]) -> None:
    """Answer preflights and mark responses for exactly these origins. Call it before `problems.setup`, so that a
    preflight needs neither a route nor a token."""
    allowed = exact_origins(origins)

    async def mark(request: web.Request, response: web.StreamResponse) -> None:
        # A signal, not the middleware: a long response's head is sent long before its handler returns.
        response.headers.add("Vary", "Origin")
        response.headers.update(cors_headers(request, allowed))

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
    """Every requested header is allowed: an origin that may send our cookies may send `baggage`, too."""
    asked = request.headers.get("Access-Control-Request-Headers", "").strip()
    return {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": asked if _HEADER_NAMES.match(asked) else _HEADERS,
        "Access-Control-Max-Age": "600",
        "Vary": "Access-Control-Request-Headers",
    }
