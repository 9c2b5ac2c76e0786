"""Who asks: an owner, and what the request may do."""

from __future__ import annotations

import msgspec

from emitter.wire.keys import Owner

LEEWAY_SECONDS = 30


class Identity(msgspec.Struct, frozen=True):
    """The owner of the executions that a request is about, and what it may do with them.

    `expires_at` and `issued_at` are the token's `exp` and `iat` (unix seconds). `execution_id` is set by a ticket that
    is good for one execution only, and by a share (`is_share`); `maker` is who made that share, if not the owner.
    `ticket` is the digest of a ticket, `ticket_use` how often it has been used. `actor` is who really asks, when
    another acts for `owner`. `subject` is the token's subject where the owner's name is only its digest. `agents` are
    those whose jobs it may run; None: all.
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
    agents: frozenset[str] | None = None
    is_share: bool = False
    maker: Owner | None = None

    @property
    def principal(self) -> Owner:
        """Who asks: the one to count, to limit, and to revoke."""
        return self.actor or self.owner

    @property
    def is_visitor(self) -> bool:
        """Whether the executions are another's, and may only be looked at: that changes nothing, nor does leaving."""
        return self.actor is not None and self.scopes.isdisjoint(("executions:write", "admin"))

    @property
    def name(self) -> str:
        """Who asks, as people read it: what is stored as `by`, and stands in audit lines."""
        return self.subject or self.principal.user
