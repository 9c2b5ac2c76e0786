"""Which tokens are refused before they expire. Pure: the time is passed in.

A revocation is a member and a score, as they stand in `wire.REVOCATIONS`:

- `jti:<id>`, one token: refused until the score (unix ms).
- `user:<org>:<user>`: a token is refused if it was issued before the score less `HOLD_MS`, or has no `iat`. Later
  tokens are accepted. It refuses the shares as well that were made before, of executions of this user or by this user.

Both hold until they are taken back, unless the caller says when the one token expires. Edges of older versions refuse a
member until its score, whenever the token was issued. What they wrote, with a score of 30 days later, is understood.
"""

from __future__ import annotations

import heapq

from broker.base.identity import LEEWAY_SECONDS, Identity
from emitter.wire.keys import Owner

HOLD_MS = 100 * 365 * 86_400_000
OLD_HOLD_MS = 30 * 86_400_000
NEVER = 0
"""The score in a message that takes a revocation back."""


def token_member(token_id: str) -> str:
    return "jti:" + token_id


def token_of(member: str) -> str | None:
    """The token that a member is about; None for a user."""
    return member.removeprefix("jti:") if member.startswith("jti:") else None


def user_member(owner: Owner) -> str:
    return f"user:{owner.org}:{owner.user}"


def token_score(now_ms: int, expires_at_ms: int | None) -> int:
    """Until when a token is refused: until it expires, or for ever if that is not known."""
    return now_ms + HOLD_MS if expires_at_ms is None else expires_at_ms + LEEWAY_SECONDS * 1000


def user_score(now_ms: int) -> int:
    return now_ms + HOLD_MS


def moment_of(score: int) -> int:
    """The moment (ms) of a user's revocation."""
    return score - (HOLD_MS if score >= HOLD_MS else OLD_HOLD_MS)


class Revocations:
    """Members with their scores. One leaves when its time is over or it is taken back."""

    def __init__(self) -> None:
        self._scores: dict[str, int] = {}
        self._ends: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._scores)

    def add(self, member: str, score: int, now_ms: int) -> bool:
        """Whether this is news: neither over already nor known for as long."""
        self._drop_expired(now_ms)
        if score <= max(now_ms, self._scores.get(member, 0)):
            return False
        self._scores[member] = score
        if score < HOLD_MS:  # anything else ends long after this process
            heapq.heappush(self._ends, (score, member))
        return True

    def take_back(self, member: str) -> None:
        self._scores.pop(member, None)

    def _drop_expired(self, now_ms: int) -> None:
        while self._ends and self._ends[0][0] <= now_ms:
            score, member = heapq.heappop(self._ends)
            if self._scores.get(member) == score:  # not prolonged since
                del self._scores[member]

    def refuses(self, identity: Identity, now_ms: int) -> bool:
        if identity.token_id is not None and self._scores.get(token_member(identity.token_id), 0) > now_ms:
            return True
        users = (identity.owner, identity.maker or identity.owner) if identity.is_share else (identity.principal,)
        return any(self._refuses_user(user, identity.issued_at, now_ms) for user in users)

    def _refuses_user(self, user: Owner, issued_at: float | None, now_ms: int) -> bool:
        score = self._scores.get(user_member(user), 0)
        if score <= now_ms:
            return False
        return issued_at is None or issued_at * 1000 < moment_of(score)
