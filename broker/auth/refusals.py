"""Why a caller is not let in."""

from __future__ import annotations

import enum

from broker.base.problem import Problem

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
    SHARE = "share"
    REVOKED = "revoked"


class Unauthorized(Problem):
    """401. `reason` is coarse on purpose: enough to act on, nothing to probe keys with."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        # RFC 6750 section 3.1: a request without credentials gets the scheme, and no error.
        challenge = CHALLENGE + ("" if reason is Reason.MISSING else ', error="invalid_token"')
        super().__init__(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge}, reason=str(reason))
        self.reason = reason


class UnknownKey(Unauthorized):
    """A token that names a key which is not among those known."""

    def __init__(self, key_id: str | None) -> None:
        super().__init__(Reason.UNKNOWN_KEY, "the token is signed with an unknown key")
        self.key_id = key_id
