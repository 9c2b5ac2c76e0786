"""What a token's payload says (RFC 7519 section 4), in the forms that identity providers give it. Pure.

A provider may write a time as text, a subject as a number, scopes as a list, and null for what it leaves out.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar, get_args

import msgspec

from broker.base.settings import Scope

SCOPES: frozenset[str] = frozenset(get_args(Scope))
UNSCOPED: frozenset[str] = frozenset({"executions:read"})
"""What a token without any claim about scopes may do, unless a setting says otherwise."""

_SAME: dict[frozenset[str], frozenset[str]] = {}
"""Each set of scopes once: thousands of viewers hold one. There are few, since all are subsets of `SCOPES`."""

MAX_TIME = 32_503_680_000  # the year 3000
MAX_TOKEN_ID = 256
AGENTS = "runcast_agents"
"""The claim with the agents whose jobs a token of scope `jobs:run` may run."""
T = TypeVar("T")

_NUMBER = re.compile(r"\d{1,11}(\.\d{1,9})?\Z", re.ASCII)


class BadClaim(ValueError):
    """A claim that is missing or cannot be used. The text names the claim and holds nothing of its value."""


class ClaimNames(msgspec.Struct, frozen=True):
    """Where to look: scopes in the first of `scope` that a token has, the organisation in `org`."""

    scope: tuple[str, ...] = ("scope", "scp")
    org: str = "org"


class Claims(msgspec.Struct, frozen=True):
    """Times are unix seconds. `scopes` holds known ones only, and is None where the token has no claim about them.
    `agents` are those whose jobs it may run; None: all."""

    subject: str
    expires_at: float
    org: str = "default"
    scopes: frozenset[str] | None = None
    not_before: float | None = None
    issued_at: float | None = None
    token_id: str | None = None
    issuer: str | None = None
    audiences: tuple[str, ...] = ()
    agents: frozenset[str] | None = None


def read_claims(payload: bytes, names: ClaimNames = ClaimNames()) -> Claims:  # noqa: B008 - frozen
    """Raises `BadClaim`, `msgspec.DecodeError`, `RecursionError` and `UnicodeDecodeError`."""
    found = msgspec.json.decode(payload, type=dict[str, Any])
    given = {name: value for name, value in found.items() if value is not None}
    return Claims(
        subject=_needed("sub", _text(given, "sub")),
        expires_at=_needed("exp", _time(given, "exp")),
        org=_text(given, names.org) or "default",
        scopes=_scopes(given, names.scope),
        not_before=_time(given, "nbf"),
        issued_at=_time(given, "iat"),
        token_id=_token_id(given),
        issuer=_text(given, "iss"),
        audiences=tuple(_texts(given, "aud")),
        agents=frozenset(_texts(given, AGENTS)) if AGENTS in given else None,
    )


def _needed(name: str, value: T | None) -> T:
    if value is None:
        raise BadClaim(f"the claim {name} is missing")
    return value


def _text(claims: dict[str, Any], name: str) -> str | None:
    match claims.get(name):
        case None:
            return None
        case str(text):
            return text
        case int(number) if not isinstance(number, bool):
            return str(number)
    raise BadClaim(f"the claim {name} is not text")


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, str) and _NUMBER.match(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME:
        raise BadClaim(f"the claim {name} is not a time in seconds since 1970")
    return float(value)


def _token_id(claims: dict[str, Any]) -> str | None:
    token_id = _text(claims, "jti")
    if token_id is not None and not 0 < len(token_id) <= MAX_TOKEN_ID:
        raise BadClaim(f"the claim jti is not 1 to {MAX_TOKEN_ID} characters")
    return token_id


def _texts(claims: dict[str, Any], name: str) -> list[str]:
    """A claim that is one text or a list of texts."""
    value = claims.get(name, [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise BadClaim(f"the claim {name} is neither text nor a list of texts")
    return values


def _scopes(claims: dict[str, Any], names: tuple[str, ...]) -> frozenset[str] | None:
    name = next((name for name in names if name in claims), None)
    if name is None:
        return None
    scopes = SCOPES & {scope for text in _texts(claims, name) for scope in text.split()}
    return _SAME.setdefault(scopes, scopes)
