"""Who is asking, and what may they do. Pure: keys, time and requests are passed in, nothing is fetched or stored.

A token is a JWT (RFC 7519). Its algorithm is never taken from the token: each key says which ones it may be used with.
"""

from __future__ import annotations

import enum
import hashlib
import re
import secrets
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import get_default_algorithms

from broker.claims import SCOPES, UNSCOPED, BadClaim, ClaimNames, Claims, read_claims
from broker.problems import Problem
from emitter.errors import InvalidEvent
from emitter.subjects import owner_named, owner_of_token
from emitter.wire import Owner

MAX_TOKEN_BYTES = 8 * 1024
MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: an HS256 key is at least as long as its hash
LEEWAY_SECONDS = 30
MAX_REMEMBERED = 10_000
MAX_JWKS_KEYS = 100
MAX_KEYS_OF_ONE_ID = 4
"""Each is a signature check that a stranger can cause."""
MAX_SHOWN = 256

DEFAULT_SCOPES = frozenset({"executions:read", "executions:write"})
"""What `mint` grants unless it is told otherwise."""


CHALLENGE = 'Bearer realm="runcast"'


class Reason(enum.StrEnum):
    """Why a request is not let in; also the metric label."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    EARLY = "not_yet_valid"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    TICKET = "ticket"
    REVOKED = "revoked"


class Unauthorized(Problem):
    """401. `reason` is coarse on purpose: enough to act on, nothing to probe keys with."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        # RFC 6750 section 3.1: a request that carried nothing is told the scheme, and no error.
        challenge = CHALLENGE + ("" if reason is Reason.MISSING else ', error="invalid_token"')
        super().__init__(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge}, reason=str(reason))
        self.reason = reason


class UnknownKey(Unauthorized):
    """A token that names a key which is not among those known."""

    def __init__(self, key_id: str | None) -> None:
        super().__init__(Reason.UNKNOWN_KEY, "the token is signed with an unknown key")
        self.key_id = key_id


class Identity(msgspec.Struct, frozen=True):
    """Whose executions a request is about, and what it may do with them.

    `expires_at` and `issued_at` are the token's `exp` and `iat` (unix seconds). `execution_id` is set by a ticket that
    is good for one execution only; `ticket` is the digest of that ticket, `ticket_use` how often it
    has been used. `actor` is who really asks, when an admin
    acts for `owner`. `subject` is the token's subject where the owner's name is only its digest.
    """

    owner: Owner
    scopes: frozenset[str]
    token_id: str | None = None
    expires_at: float | None = None
    execution_id: str | None = None
    actor: Owner | None = None
    ticket: str | None = None
    ticket_use: int = 0
    issued_at: float | None = None
    subject: str | None = None

    @property
    def principal(self) -> Owner:
        """Who asks: the one to count, to limit, and to revoke."""
        return self.actor or self.owner

    @property
    def name(self) -> str:
        """Who asks, as people read it: what is stored as `by`, and stands in audit lines."""
        return self.subject or self.principal.user


# --- what an identity may do -----------------------------------------------------------------------------------------


def require(identity: Identity, scope: str) -> None:
    """403 unless the identity has the scope. No scope implies another."""
    if scope not in identity.scopes:
        challenge = f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'
        headers = {"WWW-Authenticate": challenge}
        raise Problem(403, "forbidden", f"needs scope {scope}", headers=headers, requiredScope=scope)


def require_execution(identity: Identity, execution_id: str | None) -> None:
    """403 when a ticket for one execution is used for another, or for the feed (None)."""
    if identity.execution_id is not None and identity.execution_id != execution_id:
        headers = {"WWW-Authenticate": CHALLENGE}
        raise Problem(403, "forbidden", "this ticket is for another stream", headers=headers)


def act_for(identity: Identity, *, user: str | None, org: str | None) -> Identity:
    """The identity on whose behalf a request with `?user=&org=` acts. Naming somebody else needs scope admin (403)."""
    if user is None and org is None:
        return identity
    try:
        owner = owner_named(user or identity.owner.user, org or identity.owner.org)
    except InvalidEvent as error:
        raise Problem(422, "invalid", error.detail) from error
    if owner == identity.owner:
        return identity
    require(identity, "admin")
    return msgspec.structs.replace(identity, owner=owner, actor=identity.principal)


def origin_allowed(
    *, method: str, origin: str | None, host: str, fetch_site: str | None, allowed: Collection[str]
) -> bool:
    """Whether a request that a browser signed with a cookie was meant by its user, and not by a foreign page (CSRF).

    A listed origin may; so may the edge's own. TLS usually ends in front of the edge, so its own scheme is not known
    here; `Sec-Fetch-Site`, which no page can forge, tells `http` from `https` in browsers. Without `Origin` only reads
    pass, and only when the browser does not say that they come from elsewhere.
    """
    if origin is None:
        return method in ("GET", "HEAD") and fetch_site in (None, "same-origin", "none")
    if origin in allowed:
        return True
    return origin in (f"https://{host}", f"http://{host}") and fetch_site in (None, "same-origin")


# --- keys ------------------------------------------------------------------------------------------------------------


_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class VerifyKey(NamedTuple):
    """A key and the only algorithms it may be used with."""

    key: Any
    algorithms: tuple[str, ...]


class Keys(Protocol):
    """Where a verifier finds the key of a token."""

    generation: int
    """Changes when the keys do: what was verified with the old ones is verified again."""

    def find(self, key_id: str | None) -> Sequence[VerifyKey]:
        """The keys that a token with this key id may be signed with; none if the id is unknown."""
        ...


class OneKey:
    """One key for every token, whatever key id it names."""

    generation = 0

    def __init__(self, key: VerifyKey) -> None:
        self._key = key

    def find(self, key_id: str | None) -> Sequence[VerifyKey]:  # noqa: ARG002 - part of the protocol
        return (self._key,)


def secret_key(secret: str) -> OneKey:
    """An HS256 secret. `ValueError` if it is too short to resist guessing or is a public key by mistake."""
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"the secret is shorter than {MIN_SECRET_BYTES} bytes")
    try:
        key = get_default_algorithms()["HS256"].prepare_key(secret)
    except jwt.PyJWTError as error:
        raise ValueError(f"not a secret: {error}") from error
    return OneKey(VerifyKey(key, ("HS256",)))


def pem_key(pem: str) -> OneKey:
    """A public key (RSA of 2048 bits or more, P-256, P-384, P-521, Ed25519). `ValueError` for anything else."""
    try:
        key = load_pem_public_key(pem.encode())
    except Exception as error:  # cryptography raises its own kinds for unsupported encodings and curves
        raise ValueError(f"not a public key in PEM form: {error}") from error
    algorithms = _algorithms_of(key)
    if problem := get_default_algorithms()[algorithms[0]].check_key_length(key):
        raise ValueError(problem)
    return OneKey(VerifyKey(key, algorithms))


def _algorithms_of(key: object) -> tuple[str, ...]:
    if isinstance(key, RSAPublicKey):
        return _RSA
    if isinstance(key, Ed25519PublicKey):
        return ("EdDSA",)
    if isinstance(key, EllipticCurvePublicKey) and (algorithm := _CURVES.get(key.curve.name)):
        return (algorithm,)
    raise ValueError("the public key is neither RSA, nor P-256, P-384 or P-521, nor Ed25519")


class JwkSet:
    """The keys of one published set. A token without key id is only checked when the set has a single key."""

    def __init__(self, keys: Mapping[str | None, Sequence[VerifyKey]]) -> None:
        self._keys = dict(keys)

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._keys.values())

    def find(self, key_id: str | None) -> Sequence[VerifyKey]:
        if key_id is None and len(self) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id, ())


def parse_jwks(body: bytes) -> JwkSet:
    """A JWK Set (RFC 7517 section 5). Keys that cannot verify signatures are left out; `ValueError` if none remains."""
    try:
        listed = msgspec.json.decode(body, type=_JwksBody).keys
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not a JWK set: {error}") from error
    keys: dict[str | None, list[VerifyKey]] = {}
    for jwk in listed[:MAX_JWKS_KEYS]:
        if (key := _usable(jwk)) is not None:
            keys.setdefault(jwk.get("kid"), []).append(key)
    if not keys:
        raise ValueError("the JWK set has no key that can verify tokens")
    return JwkSet({key_id: tuple(same[:MAX_KEYS_OF_ONE_ID]) for key_id, same in keys.items()})


class _JwksBody(msgspec.Struct):
    keys: list[dict[str, Any]]


def _usable(jwk: dict[str, Any]) -> VerifyKey | None:
    """A public key for signatures with the algorithms that its kind allows: only the one that it names, if it does
    (Entra ID names none). A symmetric key that anyone can fetch proves nothing."""
    is_public_for_signing = "d" not in jwk and jwk.get("kty") != "oct" and jwk.get("use", "sig") == "sig"
    if not (isinstance(jwk.get("kid", ""), str) and is_public_for_signing):
        return None
    try:
        parsed = jwt.PyJWK(jwk)
        allowed = _algorithms_of(parsed.key)
        too_short = parsed.Algorithm.check_key_length(parsed.key)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError, NotImplementedError):
        return None
    named = jwk.get("alg")
    if too_short or not (named is None or named in allowed):
        return None
    # The bare key, since PyJWT binds a PyJWK to one algorithm.
    return VerifyKey(parsed.key, allowed if named is None else (named,))


# --- tokens ----------------------------------------------------------------------------------------------------------


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
        """The payload, whose signature one of the keys has made. Raises PyJWT's errors and `Unauthorized`."""
        # Twice through the header, so that only PyJWT ever parses what decides about a signature.
        key_id = jwt.get_unverified_header(token).get("kid")
        keys = self._keys.find(key_id)
        if not keys:
            raise UnknownKey(key_id)
        for key in keys[:-1]:
            with suppress(jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                return self._decode(token, key)
        return self._decode(token, keys[-1])

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
        "iat": now,  # not in whole seconds: who is revoked may log in again within the same one
        "exp": now + ttl,
        "jti": secrets.token_hex(16),
    }
    claims |= {name: value for name, value in (("iss", issuer), ("aud", audience)) if value is not None}
    return jwt.encode(claims, secret, "HS256")
