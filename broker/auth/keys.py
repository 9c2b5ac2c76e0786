"""The keys that tokens are verified with (RFC 7517, RFC 7518)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import get_default_algorithms

MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: an HS256 key is at least as long as its hash
MAX_JWKS_KEYS = 100
MAX_KEYS_OF_ONE_ID = 4
"""Each is a signature check that a stranger can cause."""

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
