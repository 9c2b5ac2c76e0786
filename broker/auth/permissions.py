"""What an identity may do."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from broker.auth.refusals import CHALLENGE
from broker.base.identity import Identity
from broker.base.problem import Problem
from emitter.errors import InvalidEvent
from emitter.wire.subjects import owner_named


def require(identity: Identity, scope: str) -> None:
    """403 unless the identity has the scope. No scope implies another."""
    if scope not in identity.scopes:
        challenge = f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'
        headers = {"WWW-Authenticate": challenge}
        raise Problem(403, "forbidden", f"needs scope {scope}", headers=headers, requiredScope=scope)


def require_account(identity: Identity, shared: str | None) -> None:
    """403 when a share link is used for anything but its execution (`shared`: the execution that the request is about,
    where share links may be used)."""
    if identity.is_share and identity.execution_id != shared:
        headers = {"WWW-Authenticate": CHALLENGE}
        raise Problem(403, "forbidden", "this link shows one execution and nothing else", headers=headers)


def require_execution(identity: Identity, execution_id: str | None) -> None:
    """403 when a ticket for one execution is used for another, or for the feed (None)."""
    if identity.execution_id is not None and identity.execution_id != execution_id:
        headers = {"WWW-Authenticate": CHALLENGE}
        raise Problem(403, "forbidden", "this ticket is for another stream", headers=headers)


def require_agents(identity: Identity, agents: Iterable[str]) -> None:
    """403 unless the identity may run the jobs of these agents."""
    for agent in agents:
        if identity.agents is not None and agent not in identity.agents:
            headers = {"WWW-Authenticate": CHALLENGE}
            raise Problem(403, "forbidden", f"this token may not run agent {agent[:64]!r}", headers=headers)


def act_for(identity: Identity, *, user: str | None, org: str | None) -> Identity:
    """The identity that a request with `?user=&org=` acts for. Another user needs scope admin; one of the same org can
    be read with scope org:read as well (403)."""
    if user is None and org is None:
        return identity
    try:
        owner = owner_named(user or identity.owner.user, org or identity.owner.org)
    except InvalidEvent as error:
        raise Problem(422, "invalid", error.detail) from error
    if owner == identity.owner:
        return identity
    if "admin" not in identity.scopes and "org:read" in identity.scopes and owner.org == identity.owner.org:
        scopes = identity.scopes & {"executions:read", "executions:debug"}
        return msgspec.structs.replace(identity, owner=owner, actor=identity.principal, scopes=scopes)
    require(identity, "admin")
    return msgspec.structs.replace(identity, owner=owner, actor=identity.principal)


def origin_allowed(
    *, method: str, origin: str | None, host: str, fetch_site: str | None, allowed: Collection[str]
) -> bool:
    """Whether a request that a browser signed with a cookie was meant by its user, and not by a foreign page (CSRF).

    A listed origin may; so may the edge's own. TLS usually ends in front of the edge, so its own scheme is not known
    here; `Sec-Fetch-Site`, which no page can forge, distinguishes `http` from `https` in browsers. Without `Origin`
    only reads pass, and only when the browser does not say that they come from elsewhere.
    """
    if origin is None:
        return method in ("GET", "HEAD") and fetch_site in (None, "same-origin", "none")
    if origin in allowed:
        return True
    return origin in (f"https://{host}", f"http://{host}") and fetch_site in (None, "same-origin")
