"""Tokens, keys and scopes, by plain calls."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from broker.auth.claims import ClaimNames
from broker.auth.keys import JwkSet, OneKey, parse_jwks, pem_key, secret_key
from broker.auth.permissions import act_for, origin_allowed, require, require_execution
from broker.auth.refusals import Reason, Unauthorized
from broker.auth.tokens import Verifier, mint
from broker.base.identity import Identity
from broker.base.problem import Problem
from emitter.errors import InvalidEvent
from emitter.wire.keys import OWNER_ID, Owner
from emitter.wire.subjects import owner_named

SECRET = "a secret of at least thirty-two bytes"
NOW = 1_763_682_345.0
ALICE = Owner("alice")


def claims(**changes: Any) -> dict[str, Any]:
    base = {"sub": "alice", "exp": NOW + 60} | changes
    return {name: value for name, value in base.items() if value is not None}


def signed(headers: dict[str, Any] | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), SECRET, "HS256", headers=headers)


def forged(header: dict[str, Any], payload: dict[str, Any], key: bytes = b"") -> str:
    """A token made by hand, for what an honest library refuses to make."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    signature = hmac.new(key, b".".join(parts), hashlib.sha256).digest() if key else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def public_pem(private: Any) -> str:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(private: Any) -> str:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def verifier() -> Verifier:
    return Verifier(secret_key(SECRET))


def reason_of(verifier: Verifier, token: str, now: float = NOW) -> Reason:
    with pytest.raises(Unauthorized) as caught:
        verifier.verify(token, now)
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer ")
    return caught.value.reason


# --- what is in a good token -----------------------------------------------------------------------------------------


def test_a_good_token_becomes_an_identity(verifier: Verifier) -> None:
    """Subject, org, scopes, id and expiry of a token are the identity's; unknown scopes are dropped."""
    token = signed(org="acme", scope="executions:read  ops:read other:thing", jti="t1")
    assert verifier.verify(token, NOW) == Identity(
        Owner("alice", "acme"), frozenset({"executions:read", "ops:read"}), "t1", NOW + 60
    )


def test_a_token_without_scopes_may_only_read(verifier: Verifier) -> None:
    """Where no claim is about scopes, the edge's setting counts, which is to read; an empty claim means nothing at
    all."""
    assert verifier.verify(signed(), NOW).scopes == {"executions:read"}
    assert verifier.verify(signed(scope=""), NOW).scopes == frozenset()
    generous = Verifier(secret_key(SECRET), unscoped=frozenset({"events:publish"}))
    assert generous.verify(signed(), NOW).scopes == {"events:publish"}
    assert generous.verify(signed(scp=[]), NOW).scopes == frozenset()


def test_the_claims_names_can_be_set() -> None:
    """Providers put scopes and organisations under names of their own; others then say nothing."""
    checking = Verifier(secret_key(SECRET), names=ClaimNames(("https://a.example/roles", "permissions"), "tid"))
    token = signed(permissions=["ops:read", "openid"], scope="admin", tid="acme", org="other")
    assert checking.verify(token, NOW).scopes == {"ops:read"}
    assert checking.verify(token, NOW).owner == Owner("alice", "acme")


@pytest.mark.parametrize(
    "subject",
    ["system:serviceaccount:ns:builder", "spiffe://example.org/ns/x", "samlp|x|Jane Doe", "björn", "a}b:*", "~" * 300],
)
def test_any_subject_signs_in_as_itself(verifier: Verifier, subject: str) -> None:
    """A subject that fits no key is known by its digest, and shown as it is."""
    one = verifier.verify(signed(sub=subject), NOW)
    assert one.owner == owner_named(subject)
    assert OWNER_ID.match(one.owner.user)
    assert one.name == subject[:256]
    assert act_for(one, user=subject, org=None) is one, "that is who it is already"


def test_nobody_becomes_somebody_by_the_name_of_a_digest(verifier: Verifier) -> None:
    """A subject in the form of a digest is another user than the one whose digest it is."""
    jane = verifier.verify(signed(sub="Jane Doe"), NOW)
    other = verifier.verify(signed(sub=jane.owner.user), NOW)
    assert other.owner != jane.owner
    assert verifier.verify(signed(org=owner_named("x y").user), NOW).owner.org != owner_named("x y").user


@pytest.mark.parametrize("subject", ["a\u202eb", "system:expired", "system:disconnect"])
def test_a_subject_that_misleads_is_not_shown(verifier: Verifier, subject: str) -> None:
    """What turns a line around, or stands for no user, is shown by its digest."""
    one = verifier.verify(signed(sub=subject), NOW)
    assert one.name == one.owner.user


def test_an_admin_is_shown_as_himself(verifier: Verifier) -> None:
    """Whoever an admin acts for, what is done is done by the admin."""
    admin = verifier.verify(signed(sub="Jane Doe", scope="admin"), NOW)
    acting = act_for(admin, user="bob", org=None)
    assert (acting.owner, acting.principal, acting.name) == (Owner("bob"), admin.owner, "Jane Doe")


def test_minted_tokens_verify(verifier: Verifier) -> None:
    """A minted token carries what was asked and an id of its own, so that it can be revoked."""
    checking = Verifier(secret_key(SECRET), issuer="me", audience="runcast")
    tokens = [
        mint(SECRET, "bob", "acme", ["admin"], ttl=10, now=NOW, issuer="me", audience="runcast") for _ in range(2)
    ]
    one, two = (checking.verify(token, NOW) for token in tokens)
    assert (one.owner, one.scopes, one.expires_at) == (Owner("bob", "acme"), frozenset({"admin"}), NOW + 10)
    assert one.token_id != two.token_id


def test_mint_refuses_what_would_not_verify() -> None:
    """A weak secret, an unknown scope or an impossible user stops minting."""
    with pytest.raises(ValueError, match="shorter than 32"):
        mint("short", "bob", ttl=10, now=NOW)
    with pytest.raises(ValueError, match="unknown scope 'root'"):
        mint(SECRET, "bob", scopes=["root"], ttl=10, now=NOW)
    with pytest.raises(InvalidEvent):
        mint(SECRET, "bob\n", ttl=10, now=NOW)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": NOW - 31}, Reason.EXPIRED),
        ({"exp": None}, Reason.MALFORMED),
        ({"exp": "soon"}, Reason.MALFORMED),
        ({"exp": 1e300}, Reason.MALFORMED),
        ({"exp": True}, Reason.MALFORMED),
        ({"nbf": NOW + 31}, Reason.EARLY),
        ({"iat": NOW + 31}, Reason.EARLY),
        ({"sub": None}, Reason.MALFORMED),
        ({"sub": ""}, Reason.MALFORMED),
        ({"sub": "x" * 2049}, Reason.MALFORMED),
        ({"sub": "alice\n"}, Reason.MALFORMED),
        ({"org": "a\x9bb"}, Reason.MALFORMED),
        ({"org": ["acme"]}, Reason.MALFORMED),
        ({"jti": ""}, Reason.MALFORMED),
        ({"scope": 5}, Reason.MALFORMED),
        ({"scope": ["admin", 5]}, Reason.MALFORMED),
        ({"iat": "yesterday"}, Reason.MALFORMED),
    ],
)
def test_bad_claims_are_refused(verifier: Verifier, changes: dict[str, Any], reason: Reason) -> None:
    """A token with claims that are missing, of a wrong type or out of range is refused, with the coarse reason."""
    assert reason_of(verifier, signed(**changes)) is reason


def test_claims_may_have_other_forms(verifier: Verifier) -> None:
    """Numbers as text, a subject as a number, null for nothing: as some providers write them."""
    odd = {"sub": 7, "exp": str(NOW + 60), "jti": 8, "org": None, "scope": None, "scp": "ops:read", "iat": NOW}
    token = forged({"alg": "HS256"}, odd, SECRET.encode())
    expected = Identity(Owner("7"), frozenset({"ops:read"}), "8", NOW + 60, issued_at=NOW)
    assert verifier.verify(token, NOW) == expected


def test_clocks_may_differ_by_the_leeway(verifier: Verifier) -> None:
    """A token is taken until 30 s after its expiry and from 30 s before its start, and not longer, also when it is
    remembered."""
    token = signed(exp=NOW, nbf=NOW + 29, iat=NOW + 29)
    verifier.verify(token, NOW)
    verifier.verify(token, NOW + 29.9)
    assert reason_of(verifier, token, NOW + 30) is Reason.EXPIRED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "other", "aud": "runcast"}, Reason.ISSUER),
        ({"aud": "runcast"}, Reason.ISSUER),
        ({"iss": "me"}, Reason.AUDIENCE),
        ({"iss": "me", "aud": "other"}, Reason.AUDIENCE),
        ({"iss": "me", "aud": []}, Reason.AUDIENCE),
        ({"iss": "me", "aud": ["runcast2"]}, Reason.AUDIENCE),
    ],
)
def test_issuer_and_audience_are_checked_when_configured(
    verifier: Verifier, changes: dict[str, Any], reason: Reason
) -> None:
    """With an issuer and an audience configured, tokens of or for others are refused; unconfigured, they are taken."""
    checking = Verifier(secret_key(SECRET), issuer="me", audience="runcast")
    token = signed(**changes)
    assert reason_of(checking, token) is reason
    assert verifier.verify(token, NOW).owner == ALICE
    assert checking.verify(signed(iss="me", aud=["x", "runcast"]), NOW).owner == ALICE


def test_a_wrong_signature_is_refused_each_time(verifier: Verifier) -> None:
    """A token signed with another secret is refused, and refusing it is not forgotten."""
    token = jwt.encode(claims(), SECRET + "!", "HS256")
    assert reason_of(verifier, token) is Reason.SIGNATURE
    assert reason_of(verifier, token) is Reason.SIGNATURE


def test_changed_claims_under_a_good_signature_are_refused(verifier: Verifier) -> None:
    """Nobody becomes somebody else by swapping the claims of a token that is remembered."""
    token = signed()
    verifier.verify(token, NOW)
    header, _, signature = token.split(".")
    payload = base64.urlsafe_b64encode(json.dumps(claims(sub="bob")).encode()).rstrip(b"=").decode()
    assert reason_of(verifier, f"{header}.{payload}.{signature}") is Reason.SIGNATURE


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, ["HS256"], "HS384"])
def test_other_algorithms_are_refused(verifier: Verifier, algorithm: object) -> None:
    """Only the key's own algorithm is taken: not `none` in any spelling, not another HMAC."""
    unsigned = forged({"alg": algorithm}, claims())
    keyed = forged({"alg": algorithm}, claims(), SECRET.encode())
    assert reason_of(verifier, unsigned) in (Reason.SIGNATURE, Reason.MALFORMED)
    assert reason_of(verifier, keyed) in (Reason.SIGNATURE, Reason.MALFORMED)


def test_a_public_key_is_no_hmac_secret(rsa_key: rsa.RSAPrivateKey) -> None:
    """A token signed by HMAC with the published PEM as the secret is refused (key confusion)."""
    pem = public_pem(rsa_key)
    for key in (pem.encode(), pem.strip().encode()):
        for algorithm in ("HS256", "RS256"):
            token = forged({"alg": algorithm}, claims(), key)
            assert reason_of(Verifier(pem_key(pem)), token) is Reason.SIGNATURE
    with pytest.raises(ValueError, match="not a secret"):
        secret_key(pem)


def test_unknown_critical_headers_are_refused(verifier: Verifier) -> None:
    """A token that says an extension must be understood is refused when it is not (RFC 7515 section 4.1.11)."""
    for crit in (["exp"], ["b64"], [], "x"):
        token = forged({"alg": "HS256", "crit": crit, "exp": 1}, claims(), SECRET.encode())
        assert reason_of(verifier, token) is Reason.MALFORMED


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "x" * 8193,
        "é.é.é",
        "\udc80",
        "a.b.c.d.e",
        base64.urlsafe_b64encode(b"[" * 5000).decode() + ".e30.e30",
        base64.urlsafe_b64encode(b"[]").decode() + ".e30.e30",
        base64.urlsafe_b64encode(b'{"alg":"HS256","kid":7}').decode() + ".e30.e30",
    ],
)
def test_garbage_is_refused(verifier: Verifier, token: str) -> None:
    """What is no token is refused as malformed, whatever its shape."""
    assert reason_of(verifier, token) is Reason.MALFORMED


def test_a_huge_token_is_refused_even_if_well_signed(verifier: Verifier) -> None:
    """A token over 8 KiB is refused before anything of it is read."""
    assert reason_of(verifier, signed(pad="x" * 8192)) is Reason.MALFORMED
    assert verifier.verify(signed(pad="x" * 5000), NOW).owner == ALICE


def test_a_deeply_nested_payload_is_refused(verifier: Verifier) -> None:
    """Nesting that exhausts a parser is a malformed token, not a crash."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"HS256"}', b'{"x":' + b"[" * 4000)]
    mac = hmac.new(SECRET.encode(), b".".join(parts), hashlib.sha256).digest()
    token = b".".join([*parts, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()
    assert reason_of(verifier, token) is Reason.MALFORMED


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "algorithm"),
    [
        (lambda: rsa.generate_private_key(65537, 2048), "RS256"),
        (lambda: rsa.generate_private_key(65537, 2048), "PS384"),
        (lambda: ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (lambda: ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (lambda: ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
)
def test_public_keys_verify_their_own_algorithm(make: Any, algorithm: str) -> None:
    """A PEM public key takes tokens of its private key, and none of another key of its kind."""
    private, other = make(), make()
    verifier = Verifier(pem_key(public_pem(private)))
    assert verifier.verify(jwt.encode(claims(), private, algorithm), NOW).owner == ALICE
    assert reason_of(verifier, jwt.encode(claims(), other, algorithm)) is Reason.SIGNATURE


def test_unfit_keys_stop_the_start(rsa_key: rsa.RSAPrivateKey) -> None:
    """A key that is private, short, unsupported or no key is refused when it is configured."""
    for pem in (
        private_pem(rsa_key),
        public_pem(rsa.generate_private_key(65537, 1024)),
        public_pem(ec.generate_private_key(ec.SECP256K1())),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        SECRET,
    ):
        with pytest.raises(ValueError, match=r".+"):
            pem_key(pem)
    with pytest.raises(ValueError, match="shorter than 32"):
        secret_key("é" * 15)


def jwk(private: Any, **members: Any) -> dict[str, Any]:
    algorithm = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    name = next((name for kind, name in algorithm.items() if isinstance(private, kind)), "EdDSA")
    made = jwt.algorithms.get_default_algorithms()[name].to_jwk(private.public_key(), as_dict=True)  # type: ignore[arg-type]
    return {**made, **members}


def key_set(*keys: dict[str, Any]) -> JwkSet:
    return parse_jwks(json.dumps({"keys": keys}).encode())


def test_a_key_without_an_algorithm_takes_those_of_its_kind(rsa_key: rsa.RSAPrivateKey) -> None:
    """Entra ID names none. RSA then takes its six; a curve has one; and none of them takes HMAC or nothing at all."""
    wide, narrow = jwk(rsa_key, kid="w"), jwk(rsa_key, kid="n", alg="RS384")
    assert "alg" not in wide
    curve = ec.generate_private_key(ec.SECP384R1())
    p384 = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA384).to_jwk(curve.public_key(), as_dict=True)
    verifier = Verifier(Rotating(key_set(wide, narrow, {**p384, "kid": "c"})))

    def taken(private: Any, algorithm: str, kid: str) -> bool:
        try:
            return verifier.verify(jwt.encode(claims(), private, algorithm, headers={"kid": kid}), NOW).owner == ALICE
        except Unauthorized as error:
            if error.reason is not Reason.SIGNATURE:
                raise
            return False

    six = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
    assert [taken(rsa_key, each, "w") for each in six] == [True] * 6
    assert [taken(rsa_key, each, "n") for each in six] == [each == "RS384" for each in six]
    assert taken(curve, "ES384", "c")
    for header in ({"alg": "none", "kid": "w"}, {"alg": "HS256", "kid": "w"}):
        assert reason_of(verifier, forged(header, claims(), public_pem(rsa_key).encode())) is Reason.SIGNATURE


def test_all_keys_of_one_id_are_tried(rsa_key: rsa.RSAPrivateKey) -> None:
    """Some sets use an id twice; a token of either key is taken, one of a third is not, and of many only four count."""
    curve, other = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    twice = key_set(jwk(rsa_key, kid="k"), jwk(curve, kid="k"))
    assert len(twice) == 2
    verifier = Verifier(Rotating(twice))
    for private, algorithm in ((rsa_key, "RS256"), (curve, "ES256")):
        assert verifier.verify(jwt.encode(claims(), private, algorithm, headers={"kid": "k"}), NOW).owner == ALICE
    for algorithm in ("RS256", "PS256"):
        assert reason_of(verifier, jwt.encode(claims(), other, algorithm, headers={"kid": "k"})) is Reason.SIGNATURE
    assert len(key_set(*[jwk(rsa_key, kid="k")] * 50)) == 4


class Rotating:
    """Keys whose set is exchanged by the test."""

    def __init__(self, keys: JwkSet) -> None:
        self.keys = keys
        self.generation = 1

    def find(self, key_id: str | None) -> Any:
        return self.keys.find(key_id)


def test_a_key_set_picks_the_key_by_its_id(rsa_key: rsa.RSAPrivateKey) -> None:
    """The token's key id picks the key; without an id only a single key is unambiguous."""
    curve = ec.generate_private_key(ec.SECP256R1())
    both = Rotating(key_set(jwk(rsa_key, kid="r"), jwk(curve, kid="e")))
    verifier = Verifier(both)

    def token(private: Any, algorithm: str, kid: str | None) -> str:
        return jwt.encode(claims(), private, algorithm, headers={"kid": kid} if kid else None)

    assert verifier.verify(token(rsa_key, "RS256", "r"), NOW).owner == ALICE
    assert verifier.verify(token(curve, "ES256", "e"), NOW).owner == ALICE
    assert reason_of(verifier, token(rsa_key, "RS256", "e")) is Reason.SIGNATURE
    assert reason_of(verifier, token(rsa_key, "RS256", "x")) is Reason.UNKNOWN_KEY
    assert reason_of(verifier, token(rsa_key, "RS256", None)) is Reason.UNKNOWN_KEY
    assert Verifier(Rotating(key_set(jwk(rsa_key, kid="r")))).verify(token(rsa_key, "RS256", None), NOW).owner == ALICE


def test_a_rotated_key_takes_its_remembered_tokens_along(rsa_key: rsa.RSAPrivateKey) -> None:
    """Once a key has left the set, a token it signed is refused, though it was verified before."""
    keys = Rotating(key_set(jwk(rsa_key, kid="old")))
    verifier = Verifier(keys)
    token = jwt.encode(claims(), rsa_key, "RS256", headers={"kid": "old"})
    verifier.verify(token, NOW)
    keys.keys = key_set(jwk(ec.generate_private_key(ec.SECP256R1()), kid="new"))
    keys.generation += 1
    assert reason_of(verifier, token) is Reason.UNKNOWN_KEY


def test_unfit_keys_of_a_set_are_left_out(rsa_key: rsa.RSAPrivateKey) -> None:
    """Symmetric, private, short, encryption and unknown keys of a set verify nothing."""
    shared = {"kty": "oct", "kid": "s", "k": base64.urlsafe_b64encode(SECRET.encode()).decode()}
    private = jwt.algorithms.get_default_algorithms()["RS256"].to_jwk(rsa_key, as_dict=True)  # type: ignore[arg-type]
    good = jwk(rsa_key, kid="good")
    unfit = [
        shared,
        {**private, "kid": "p"},
        {**good, "kid": "enc", "use": "enc"},
        {**good, "kid": "none", "alg": "none"},
        {**good, "kid": "hs", "alg": "HS256"},
        {**good, "kid": "es", "alg": "ES256"},
        {**good, "kid": 7},
        {**good, "kid": "tiny", "n": "AQAB"},
        jwk(rsa.generate_private_key(65537, 1024), kid="short"),
        {"kty": "OKP", "crv": "X25519", "kid": "x", "x": "AA"},
        {"kid": "empty"},
    ]
    assert len(key_set(*unfit, good)) == 1
    assert key_set(*unfit, good).find("good")
    assert not key_set(*unfit, good).find("short")
    with pytest.raises(ValueError, match="no key"):
        key_set(*unfit)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"keys":5}', b'{"keys":[5]}', b"\xff", b'{"keys":' + b"[" * 5000]
)
def test_what_is_no_key_set_is_refused(body: bytes) -> None:
    """A body that is not a JWK set raises ValueError and nothing else."""
    with pytest.raises(ValueError, match="JWK set"):
        parse_jwks(body)


# --- remembering -----------------------------------------------------------------------------------------------------


class Counting(OneKey):
    """Counts how often a key is looked for, that is, how often a signature is checked."""

    asked = 0

    def find(self, key_id: str | None) -> Any:
        self.asked += 1
        return super().find(key_id)


def test_remembered_tokens_are_bounded_and_not_checked_again() -> None:
    """A token seen before costs no signature check; the least recently used one is forgotten first."""
    keys = Counting(secret_key(SECRET).find(None)[0])
    verifier = Verifier(keys, max_remembered=2)
    one, two, three = (signed(jti=name) for name in "abc")
    first = verifier.verify(one, NOW)
    verifier.verify(two, NOW)
    assert verifier.verify(one, NOW) is first
    assert keys.asked == 2
    verifier.verify(three, NOW)
    verifier.verify(one, NOW)
    assert keys.asked == 3, "one was used more recently than two"
    verifier.verify(two, NOW)
    assert keys.asked == 4


def test_a_remembered_token_is_cheap() -> None:
    """Verifying a remembered token costs less than half of verifying it afresh."""
    verifier = Verifier(secret_key(SECRET))
    tokens = [signed(jti=str(number)) for number in range(300)]

    def timed() -> float:
        start = time.thread_time()
        for token in tokens:
            verifier.verify(token, NOW)
        return time.thread_time() - start

    assert timed() > 2 * timed()


# --- what an identity may do -----------------------------------------------------------------------------------------


def identity(*scopes: str, **fields: Any) -> Identity:
    return Identity(ALICE, frozenset(scopes), "t1", NOW + 60, **fields)


def test_a_missing_scope_is_forbidden() -> None:
    """Only the very scope opens the door; admin is not a master key."""
    require(identity("ops:read"), "ops:read")
    for one in (identity(), identity("admin"), identity("executions:read")):
        with pytest.raises(Problem) as caught:
            require(one, "ops:read")
        assert caught.value.status == 403
        assert caught.value.extensions == {"requiredScope": "ops:read"}


def test_only_an_admin_acts_for_another() -> None:
    """`?user=&org=` names oneself, or needs scope admin; the admin stays the principal."""
    alice, admin = identity(), identity("admin")
    assert act_for(alice, user=None, org=None) is alice
    assert act_for(alice, user="alice", org=None) is alice
    for user, org in (("bob", None), (None, "acme"), ("alice", "acme")):
        with pytest.raises(Problem) as caught:
            act_for(alice, user=user, org=org)
        assert caught.value.status == 403
    acting = act_for(admin, user="bob", org="acme")
    assert (acting.owner, acting.principal, acting.token_id) == (Owner("bob", "acme"), ALICE, "t1")
    assert act_for(acting, user="carol", org=None).principal == ALICE
    with pytest.raises(Problem) as caught:
        act_for(admin, user="b\x00", org=None)
    assert caught.value.status == 422


def test_a_bound_ticket_opens_its_execution_only() -> None:
    """An identity bound to one execution opens neither another nor the feed."""
    require_execution(identity(), None)
    require_execution(identity(), "ex_1")
    require_execution(identity(execution_id="ex_1"), "ex_1")
    for other in ("ex_2", None):
        with pytest.raises(Problem) as caught:
            require_execution(identity(execution_id="ex_1"), other)
        assert caught.value.status == 403


@pytest.mark.parametrize(
    ("method", "origin", "site", "allowed"),
    [
        ("GET", None, None, True),
        ("GET", None, "same-origin", True),
        ("GET", None, "none", True),
        ("GET", None, "cross-site", False),
        ("GET", None, "same-site", False),
        ("HEAD", None, None, True),
        ("POST", None, None, False),
        ("POST", None, "same-origin", False),
        ("POST", "https://app.example", "cross-site", True),
        ("POST", "https://edge.example:8443", "same-origin", True),
        ("POST", "https://edge.example:8443", None, True),
        ("POST", "http://edge.example:8443", "same-site", False),
        ("GET", "https://evil.example", None, False),
        ("GET", "https://evil.example", "cross-site", False),
        ("GET", "null", "cross-site", False),
        ("GET", "", None, False),
        ("POST", "https://app.example.evil.example", None, False),
        ("POST", "https://edge.example", None, False),
    ],
)
def test_cookies_need_a_trusted_origin(method: str, origin: str | None, site: str | None, allowed: bool) -> None:
    """A cookie counts from the edge's own origin and listed ones; without Origin only for reads not from elsewhere."""
    verdict = origin_allowed(
        method=method, origin=origin, host="edge.example:8443", fetch_site=site, allowed={"https://app.example"}
    )
    assert verdict is allowed
