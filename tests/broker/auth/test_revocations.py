"""What is refused, since when, and until when, by plain calls."""

from __future__ import annotations

from broker.auth.permissions import act_for
from broker.auth.revocations import (
    HOLD_MS,
    OLD_HOLD_MS,
    Revocations,
    moment_of,
    token_member,
    token_score,
    user_member,
    user_score,
)
from broker.base.identity import Identity
from emitter.wire.keys import Owner

ALICE = Owner("alice")
NOW = 1_763_682_345_000


def of_alice(issued_at: float | None = None, **fields: object) -> Identity:
    return Identity(ALICE, frozenset(), "t1", issued_at=issued_at, **fields)  # type: ignore[arg-type]


def test_a_token_is_refused_until_it_expires() -> None:
    """One token and no other; until its expiry and the leeway of clocks, or for good where that is not known."""
    revocations = Revocations()
    assert revocations.add(token_member("t1"), token_score(NOW, NOW + 1000), NOW)
    assert revocations.refuses(of_alice(), NOW + 30_999)
    assert not revocations.refuses(of_alice(), NOW + 31_000)
    assert not revocations.refuses(Identity(ALICE, frozenset(), "t2"), NOW)
    assert revocations.add(token_member("t1"), token_score(NOW, None), NOW)
    assert revocations.refuses(of_alice(), NOW + 50 * 365 * 86_400_000)


def test_a_user_is_refused_by_the_moment() -> None:
    """What was issued before, or does not say when, is refused for good; what comes after is taken at once."""
    revocations = Revocations()
    assert revocations.add(user_member(ALICE), user_score(NOW), NOW)
    for now in (NOW, NOW + 365 * 86_400_000):
        assert revocations.refuses(of_alice(NOW / 1000 - 0.001), now)
        assert revocations.refuses(of_alice(None), now)
        assert not revocations.refuses(of_alice(NOW / 1000), now)
    assert not revocations.refuses(Identity(Owner("alice", "acme"), frozenset()), NOW)
    assert revocations.add(user_member(ALICE), user_score(NOW + 5000), NOW + 5000), "a later moment is news"
    assert revocations.refuses(of_alice(NOW / 1000 + 2), NOW + 5000)


def test_what_edges_of_older_versions_wrote_is_understood() -> None:
    """Their score is 30 days after the moment; once it is over, so is the revocation."""
    revocations = Revocations()
    revocations.add(user_member(ALICE), NOW + OLD_HOLD_MS, NOW)
    assert moment_of(NOW + OLD_HOLD_MS) == moment_of(NOW + HOLD_MS) == NOW
    assert revocations.refuses(of_alice(NOW / 1000 - 1), NOW + 1)
    assert not revocations.refuses(of_alice(NOW / 1000 + 1), NOW + 1)
    assert not revocations.refuses(of_alice(NOW / 1000 - 1), NOW + OLD_HOLD_MS)


def test_an_admin_is_revoked_by_his_own_name() -> None:
    """An admin who acts for somebody is refused when the admin is revoked, not when that somebody is."""
    revocations = Revocations()
    acting = act_for(Identity(ALICE, frozenset({"admin"})), user="bob", org=None)
    revocations.add("user:default:bob", user_score(NOW), NOW)
    assert not revocations.refuses(acting, NOW)
    revocations.add("user:default:alice", user_score(NOW), NOW)
    assert revocations.refuses(acting, NOW)


def test_revocations_are_prolonged_taken_back_and_forgotten_in_time() -> None:
    """A repeat is no news unless it is longer; what is over or taken back leaves memory."""
    revocations = Revocations()
    assert revocations.add("jti:t1", 1000, now_ms=0)
    assert not revocations.add("jti:t1", 1000, now_ms=0)
    assert not revocations.add("jti:t1", 500, now_ms=0)
    assert revocations.add("jti:t1", 3000, now_ms=0)
    assert not revocations.add("jti:late", 1000, now_ms=1000)
    assert revocations.add("jti:t2", 4000, now_ms=2000)
    assert revocations.refuses(of_alice(), 2999)
    assert revocations.add("jti:t3", 9000, now_ms=5000)
    assert len(revocations) == 1
    revocations.take_back("jti:t3")
    revocations.take_back("jti:never-was")
    assert len(revocations) == 0
    assert revocations.add("jti:t3", 9000, now_ms=5000), "again, after it was taken back"
