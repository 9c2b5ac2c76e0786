"""The key that verifies tokens, and tokens that fit it, both from the settings."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from broker.auth.claims import ClaimNames
from broker.auth.keys import Keys, pem_key, secret_key
from broker.auth.tokens import mint
from broker.base.settings import Settings
from emitter.errors import InvalidSetting


def static_key(settings: Settings) -> Keys:
    """The configured key. Raises `InvalidSetting` if there is none, or if the PEM is invalid."""
    if settings.jwt_public_key:
        pem = settings.jwt_public_key
        try:
            return pem_key(pem if "-----BEGIN" in pem else Path(pem).read_text())
        except (OSError, ValueError) as error:
            raise InvalidSetting(
                "RUNCAST_JWT_PUBLIC_KEY", pem[:80], f"a PEM public key or its path ({error})"
            ) from error
    if settings.jwt_secret:
        return secret_key(settings.jwt_secret)
    allowed = "one of RUNCAST_JWT_SECRET, RUNCAST_JWT_PUBLIC_KEY and RUNCAST_JWKS_URL must be set (or use --dev)"
    raise InvalidSetting("RUNCAST_JWT_SECRET", "", allowed)


def claim_names(settings: Settings) -> ClaimNames:
    return ClaimNames(settings.jwt_scope_claim, settings.jwt_org_claim)


def minted(
    settings: Settings,
    user: str,
    org: str = "default",
    *,
    scopes: Collection[str],
    ttl: float,
    agents: Collection[str] | None = None,
) -> str:
    """A token that edges with these settings take; `agents`: whose jobs it may run (None: all). Errors of `mint`."""
    return mint(
        settings.jwt_secret or "",
        user,
        org,
        scopes,
        ttl=ttl,
        now=time.time(),
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        names=claim_names(settings),
        agents=agents,
    )
