"""Verifies and mints tokens. Pure: keys and time are passed in, nothing is fetched or stored.

A token is a JWT (RFC 7519). Its algorithm is never taken from the token: each key says which ones it may be used with.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import OrderedDict
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import jwt
from jwt.algorithms import HMACAlgorithm

from broker.auth.claims import AGENTS, SCOPES, UNSCOPED, BadClaim, ClaimNames, Claims, read_claims
from broker.auth.keys import Keys, VerifyKey, secret_key
from broker.auth.refusals import Reason, Unauthorized, UnknownKey
from broker.base.identity import LEEWAY_SECONDS, Identity
from emitter.errors import InvalidEvent
from emitter.wire.keys import Owner
from emitter.wire.subjects import owner_of_token

MAX_TOKEN_BYTES = 8 * 1024
MAX_REMEMBERED = 10_000
MAX_SHOWN = 256
MAX_HEADERS = 64
"""Headers of tokens whose key id is remembered."""

DEFAULT_SCOPES = frozenset({"executions:read", "executions:write"})
"""What `mint` grants by default."""


class _PreparedHmac(HMACAlgorithm):
    """HMAC with a secret that `secret_key` has checked, once and not for every token."""

    def prepare_key(self, key: str | bytes) -> bytes:
        assert isinstance(key, bytes), "a prepared key"
        return key


class Verifier:
    """Turns tokens into identities. Verified tokens are remembered (by digest), because the viewers of a reconnect
    storm all bring one we have seen, and checking an HS256 signature again costs 40 µs each."""

    def __init__(
        self,
        keys: Keys,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        names: ClaimNames = ClaimNames(),  # noqa: B008 - frozen
        unscoped: frozenset[str] = UNSCOPED,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        self._keys = keys
        self._names = names
        self._unscoped = unscoped
        self._issuer = issuer
        self._audience = audience
        self._max_remembered = max_remembered
        self._remembered: OrderedDict[bytes, Identity] = OrderedDict()
        self._generation = keys.generation
        self._jws = jwt.PyJWS()
        self._jws.unregister_algorithm("HS256")
        self._jws.register_algorithm("HS256", _PreparedHmac(HMACAlgorithm.SHA256))
        self._key_ids: dict[str, Any] = {}

    def verify(self, token: str, now: float) -> Identity:
        """The token's identity at `now` (unix seconds). Raises `Unauthorized`."""
        if not token.isascii() or len(token) > MAX_TOKEN_BYTES:
            raise Unauthorized(Reason.MALFORMED, f"a token is ASCII of at most {MAX_TOKEN_BYTES} bytes")
        digest = hashlib.sha256(token.encode()).digest()
        identity = self._recall(digest)
        if identity is None:
            identity = self._identify(token, now)
            self._remember(digest, identity)
        check_expiry(identity, now)
        return identity

    def _recall(self, digest: bytes) -> Identity | None:
        if self._generation != self._keys.generation:
            self._remembered.clear()
            self._generation = self._keys.generation
        identity = self._remembered.get(digest)
        if identity is not None:
            self._remembered.move_to_end(digest)
        return identity

    def _remember(self, digest: bytes, identity: Identity) -> None:
        self._remembered[digest] = identity
        if len(self._remembered) > self._max_remembered:
            self._remembered.popitem(last=False)

    def _identify(self, token: str, now: float) -> Identity:
        claims = self._signed_claims(token)
        # One that was issued in the future would outlive the revocations of until then.
        if now + LEEWAY_SECONDS < max(claims.not_before or 0, claims.issued_at or 0):
            raise Unauthorized(Reason.EARLY, "the token is not valid yet")
        if self._issuer is not None and claims.issuer != self._issuer:
            raise Unauthorized(Reason.ISSUER, "the token is from another issuer")
        if self._audience is not None and self._audience not in claims.audiences:
            raise Unauthorized(Reason.AUDIENCE, "the token is for another audience")
        return _identity(claims, self._unscoped)

    def _signed_claims(self, token: str) -> Claims:
        try:
            return read_claims(self._payload(token), self._names)
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError) as error:
            raise Unauthorized(Reason.SIGNATURE, "the token's signature or algorithm is wrong") from error
        except BadClaim as error:
            raise Unauthorized(Reason.MALFORMED, str(error)) from error
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise Unauthorized(Reason.MALFORMED, "the token cannot be read") from error

    def _payload(self, token: str) -> bytes:
        """The payload, if one of the keys has made the signature. Raises PyJWT's errors and `Unauthorized`."""
        key_id = self._key_id(token)
        keys = self._keys.find(key_id)
        if not keys:
            raise UnknownKey(key_id)
        for key in keys[:-1]:
            with suppress(jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                return self._decode(token, key)
        return self._decode(token, keys[-1])

    def _key_id(self, token: str) -> Any:
        """What the header says. Only PyJWT parses it, since it decides about a signature; once for each header, which
        most tokens of an issuer share."""
        header = token.partition(".")[0]
        if header not in self._key_ids:
            if len(self._key_ids) >= MAX_HEADERS:
                self._key_ids.clear()
            self._key_ids[header] = jwt.get_unverified_header(token).get("kid")
        return self._key_ids[header]

    def _decode(self, token: str, key: VerifyKey) -> bytes:
        payload: bytes = self._jws.decode(token, key.key, algorithms=list(key.algorithms))
        return payload


def check_expiry(identity: Identity, now: float) -> None:
    """`Unauthorized` once the identity's token has expired, clocks differing by up to the leeway."""
    if identity.expires_at is not None and now >= identity.expires_at + LEEWAY_SECONDS:
        raise Unauthorized(Reason.EXPIRED, "the token has expired")


def _identity(claims: Claims, unscoped: frozenset[str]) -> Identity:
    try:
        owner = owner_of_token(claims.subject, claims.org)
    except InvalidEvent as error:
        raise Unauthorized(Reason.MALFORMED, error.detail) from error
    return Identity(
        owner,
        unscoped if claims.scopes is None else claims.scopes,
        claims.token_id,
        claims.expires_at,
        issued_at=claims.issued_at,
        subject=_shown(claims.subject, owner),
        agents=claims.agents,
    )


_OURS = re.compile(r"system:[^:]*\Z")
"""What events say instead of a user, such as `system:expired`. A service account's name has more parts."""


def _shown(subject: str, owner: Owner) -> str | None:
    """A subject that people may be shown instead of its digest: not one that reorders a line or stands for no user."""
    if subject == owner.user or not subject.isprintable() or _OURS.match(subject):
        return None
    return subject[:MAX_SHOWN]


def mint(
    secret: str,
    user: str,
    org: str = "default",
    scopes: Collection[str] = DEFAULT_SCOPES,
    *,
    ttl: float,
    now: float,
    issuer: str | None = None,
    audience: str | None = None,
    names: ClaimNames = ClaimNames(),  # noqa: B008 - frozen
    agents: Collection[str] | None = None,
) -> str:
    """A token for `runcast token` and for tests, good for `ttl` seconds from `now`. `ValueError` for a weak secret or
    an unknown scope, `InvalidEvent` for a user or org that cannot be."""
    secret_key(secret)
    if unknown := set(scopes) - SCOPES:
        raise ValueError(f"unknown scope {min(unknown)!r}; known: {' '.join(sorted(SCOPES))}")
    owner_of_token(user, org)
    claims: dict[str, Any] = {
        "sub": user,
        names.org: org,
        names.scope[0]: " ".join(sorted(scopes)),
        "iat": now,  # not in whole seconds: a revoked user may log in again within the same second
        "exp": now + ttl,
        "jti": secrets.token_hex(16),
    }
    claims |= {name: value for name, value in (("iss", issuer), ("aud", audience)) if value is not None}
    if agents is not None:
        claims[AGENTS] = sorted(agents)
    return jwt.encode(claims, secret, "HS256")
