"""Names of users in keys: the same name is the same user wherever it is given, and never anybody else."""

from __future__ import annotations

import pytest

from emitter import AgentEmitter
from emitter.errors import InvalidEvent
from emitter.testing import RecordingEmitter
from emitter.wire.keys import OWNER_ID, Owner
from emitter.wire.subjects import owner_named, owner_of_token

NAMES = ["system:serviceaccount:ns:name", "spiffe://example.org/a", "Jane Doe", "jane doe", "björn", "bjo\u0308rn"]


@pytest.mark.parametrize("name", ["alice", "auth0|a.b+c=d~e@f-g_1", "~", "x" * 128, "~" + "a" * 42, "~" + "a" * 44])
def test_what_fits_a_key_stays(name: str) -> None:
    """Names that worked before are what they were."""
    assert owner_named(name, name) == owner_of_token(name, name) == Owner(name, name)


def test_what_does_not_fit_becomes_a_digest_of_its_own() -> None:
    """Every other name has a key that no other name has, and that names it too."""
    users = {owner_of_token(name).user for name in NAMES}
    assert len(users) == len(NAMES)
    assert all(OWNER_ID.match(user) and len(user) == 44 for user in users)
    for name in NAMES:
        owner = owner_of_token(name, name)
        assert owner_named(name, name) == owner
        assert owner_named(owner.user, owner.org) == owner, "an agent may hand on what its context says"
        assert owner_of_token(owner.user).user not in users


def test_the_digest_is_part_of_the_contract() -> None:
    """It is in keys that stay: this value never changes."""
    assert owner_named("Jane Doe").user == "~ATMsh2UYp5O3wbjfr21LQE_12wmyHGYnyllxDMJPaWo"


@pytest.mark.parametrize("name", ["", "a\n", "a\x00b", "a\x7f", "\x9b31m", "\ud800", "x" * 2049, 5, None])
def test_what_can_be_no_name_is_refused(name: object) -> None:
    """Empty, endless, or with what moves a terminal's cursor."""
    for make in (owner_named, owner_of_token):
        with pytest.raises(InvalidEvent, match=r"^(user|sub)"):
            make(name)  # type: ignore[arg-type]
        with pytest.raises(InvalidEvent, match="org"):
            make("alice", name)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [" alice", "alice ", "Jane Doe\u00a0"])
def test_blanks_around_a_name_are_a_slip_of_who_writes_it(name: str) -> None:
    """A program's are refused. A provider's subject is what it is, and another user's than that without."""
    with pytest.raises(InvalidEvent, match="blank"):
        owner_named(name)
    assert owner_of_token(name) != owner_of_token(name.strip())


async def test_emitters_take_the_subject_of_a_token() -> None:
    """`user_id` is what the user's token has as `sub`."""
    assert RecordingEmitter("Jane Doe").owner == owner_of_token("Jane Doe")
    emitter = AgentEmitter(user_id="spiffe://a/b", redis_url="redis://127.0.0.1:1/0")
    assert emitter.owner == owner_of_token("spiffe://a/b")
    await emitter.close()
