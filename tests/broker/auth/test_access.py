"""Bearer, cookie and ticket requests, revocations and CORS, over real HTTP and a real Redis."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import jwt
import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric import ed25519
from multidict import CIMultiDict
from redis.asyncio import Redis

from broker.auth.authenticator import MAX_ORIGINS_LOGGED, Authenticator, exact_origins, setup_cors
from broker.auth.jwks import Jwks
from broker.auth.keys import secret_key
from broker.auth.tickets import Tickets
from broker.auth.tokens import Verifier, mint
from broker.base import error_mapping
from broker.base.identity import Identity
from broker.cli.embedded import EmbeddedRedis
from broker.http import errors
from emitter import tasks
from emitter.store.connection import connect
from emitter.wire import keys as wire
from emitter.wire.keys import Owner

SECRET = "a secret of at least thirty-two bytes"
APP = "https://app.example"
ALICE = Owner("alice")

Client = Callable[[web.Application], Awaitable[TestClient]]


class Clock:
    """The time, which a test may move."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_access(redis: Redis, clock: Clock | None = None) -> Authenticator:
    clock = clock or Clock()
    tickets = Tickets(redis, "edge-a", clock=clock)
    return Authenticator(redis, Verifier(secret_key(SECRET)), tickets, origins=[APP], clock=clock)


@pytest.fixture
def access(redis: Redis, clock: Clock) -> Authenticator:
    return make_access(redis, clock)


@pytest.fixture
async def private(own_redis: EmbeddedRedis) -> AsyncIterator[Redis]:
    """A Redis that the test may fill."""
    client = connect(own_redis.url)
    yield client
    await client.aclose()


def app_of(access: Authenticator) -> web.Application:
    """`/` takes no tickets, `/stream` does; both answer with the identity."""

    async def rest(request: web.Request) -> web.Response:
        return shown(await access.authenticate(request))

    async def stream(request: web.Request) -> web.Response:
        return shown(await access.authenticate(request, ticket=True))

    def shown(identity: Identity) -> web.Response:
        return web.json_response({"user": identity.owner.user, "execution": identity.execution_id})

    app = web.Application()
    setup_cors(app, [APP])
    errors.setup(app)
    app.router.add_route("*", "/", rest)
    app.router.add_route("*", "/stream", stream)
    return app


@pytest.fixture
async def client(aiohttp_client: Client, access: Authenticator) -> TestClient:
    return await aiohttp_client(app_of(access))


def token(**options: Any) -> str:
    return mint(SECRET, **({"user": "alice", "ttl": 60, "now": time.time()} | options))


def bearer(**options: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(**options)}"}


async def outcome(client: TestClient, path: str = "/", method: str = "GET", **options: Any) -> tuple[int, str]:
    """Status, and the user or the reason or type of the refusal."""
    async with client.request(method, path, **options) as response:
        if response.method == "HEAD":
            return response.status, ""
        body = await response.json()
        return response.status, body.get("user") or body.get("reason") or body["type"].rpartition(":")[2]


# --- bearer ----------------------------------------------------------------------------------------------------------


async def test_a_bearer_token_lets_in(client: TestClient) -> None:
    """A good token is let in whatever the case of the scheme; nothing, rubbish or another scheme is not."""
    assert await outcome(client, headers=bearer()) == (200, "alice")
    assert await outcome(client, headers={"Authorization": f"bEaReR  {token()}"}) == (200, "alice")
    assert await outcome(client) == (401, "missing")
    for value in ("Bearer", "Bearer ", "Basic abc", token(), "Bearer a b"):
        assert await outcome(client, headers={"Authorization": value}) == (401, "malformed")
    assert await outcome(client, headers=bearer(ttl=-31)) == (401, "expired")


async def test_a_bad_bearer_is_not_saved_by_a_good_cookie(client: TestClient) -> None:
    """When both are sent the header decides, so that no one acts as somebody he did not name."""
    headers = {"Authorization": "Bearer x", "Cookie": f"runcast_token={token()}"}
    assert await outcome(client, headers=headers) == (401, "malformed")


# --- cookie ----------------------------------------------------------------------------------------------------------


async def test_a_cookie_needs_a_trusted_origin(client: TestClient) -> None:
    """A cookie is taken from the edge's own and from allowed origins, and refused from any other (CSRF)."""
    own = f"http://{client.host}:{client.port}"
    cookie = {"Cookie": f"runcast_token={token()}"}
    good = (200, "alice")
    bad = (403, "foreign-origin")
    assert await outcome(client, method="POST", headers={**cookie, "Origin": APP}) == good
    assert await outcome(client, method="POST", headers={**cookie, "Origin": own}) == good
    assert await outcome(client, method="POST", headers={**cookie, "Origin": own, "Sec-Fetch-Site": "same-site"}) == bad
    assert await outcome(client, method="POST", headers={**cookie, "Origin": "https://evil.example"}) == bad
    assert await outcome(client, method="POST", headers={**cookie, "Origin": "null"}) == bad
    assert await outcome(client, method="POST", headers=cookie) == bad
    assert await outcome(client, headers=cookie) == good
    assert await outcome(client, headers={**cookie, "Sec-Fetch-Site": "same-origin"}) == good
    assert await outcome(client, headers={**cookie, "Sec-Fetch-Site": "cross-site"}) == bad
    async with client.post("/", headers=cookie) as response:
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="runcast"', "which would be taken"


@pytest.mark.parametrize(
    "lines",
    [
        ["a=1", "runcast_token={}", "b=2"],
        ['g_state={"i_l":0}; b="x', "runcast_token={}"],
        ["=; ;;; =x; runcast_tokens=no", "runcast_token={}"],
        ['a=1;runcast_token="{}"'],
        ["runcast_token=", "runcast_token={}; runcast_token=another"],
    ],
)
async def test_a_cookie_is_found_among_others(client: TestClient, lines: list[str]) -> None:
    """In whichever line it is, as proxies of HTTP/2 write them, and whatever the other cookies hold."""
    headers = CIMultiDict([("Cookie", line.replace("{}", token())) for line in lines])
    assert await outcome(client, headers=headers) == (200, "alice")


async def test_a_bearer_needs_no_origin(client: TestClient) -> None:
    """No page can make a browser send another's Authorization header, so any origin may use one."""
    assert await outcome(client, method="POST", headers={**bearer(), "Origin": "https://evil.example"}) == (
        200,
        "alice",
    )


# --- tickets ---------------------------------------------------------------------------------------------------------


def identity(**fields: Any) -> Identity:
    return Identity(**({"owner": ALICE, "scopes": frozenset({"executions:read"})} | fields))


async def test_a_ticket_lets_its_user_in_as_often_as_needed(client: TestClient, access: Authenticator) -> None:
    """A ticket stands for its user, bound to its execution; a stream that broke is opened with it again."""
    ticket, expires_at = await access.tickets.mint(identity(), "ex_1")
    assert expires_at == pytest.approx(time.time() + 30, abs=5)
    for _ in range(3):
        async with client.get("/stream", params={"ticket": ticket}) as response:
            assert await response.json() == {"user": "alice", "execution": "ex_1"}


async def test_tickets_are_for_streams_only(client: TestClient, access: Authenticator) -> None:
    """Elsewhere a ticket is not looked at; a token in a header wins over it."""
    ticket, _ = await access.tickets.mint(identity())
    assert await outcome(client, params={"ticket": ticket}) == (401, "missing")
    assert await outcome(client, "/stream", params={"ticket": ticket}, headers=bearer(user="bob")) == (200, "bob")
    assert await outcome(client, "/stream", params={"ticket": ticket}) == (200, "alice")


@pytest.mark.parametrize("ticket", ["", "x", "x" * 22, "x" * 4000, "a*b", "ü" * 22, "\x00" * 22])
async def test_odd_tickets_are_refused(client: TestClient, ticket: str) -> None:
    """What was never a ticket is refused like one whose time is over."""
    assert await outcome(client, "/stream", params={"ticket": ticket}) == (401, "ticket")


async def test_a_ticket_of_a_dead_token_is_refused(client: TestClient, access: Authenticator, clock: Clock) -> None:
    """A ticket is worth no more than its token: refused when that has expired or was revoked, used before or not."""
    ticket, _ = await access.tickets.mint(identity(token_id="t1"))
    assert await outcome(client, "/stream", params={"ticket": ticket}) == (200, "alice")
    await access.revocations.revoke(jti="t1")
    assert await outcome(client, "/stream", params={"ticket": ticket}) == (401, "revoked")
    ticket, _ = await access.tickets.mint(identity(expires_at=time.time() + 20))
    assert await outcome(client, "/stream", params={"ticket": ticket}) == (200, "alice")
    clock.ahead = 60
    assert await outcome(client, "/stream", params={"ticket": ticket}) == (401, "expired")


# --- keys that are fetched -------------------------------------------------------------------------------------------


async def test_a_new_key_is_fetched_when_its_token_comes(aiohttp_client: Client, redis: Redis) -> None:
    """A token signed with a key that was published just now is let in; without any key the answer is 503."""
    published: dict[str, Any] = {}

    async def publish(request: web.Request) -> web.Response:
        return web.json_response(published)

    provider = web.Application()
    provider.router.add_get("/", publish)
    private = ed25519.Ed25519PrivateKey.generate()
    new = jwt.encode({"sub": "alice", "exp": time.time() + 60}, private, "EdDSA", headers={"kid": "k1"})
    async with TestServer(provider) as server, Jwks(str(server.make_url("/"))) as keys:
        client = await aiohttp_client(app_of(Authenticator(redis, Verifier(keys), Tickets(redis, "edge-a"), jwks=keys)))
        headers = {"Authorization": f"Bearer {new}"}
        assert await outcome(client, headers=headers) == (503, "keys-unavailable")
        jwk = jwt.algorithms.OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
        published["keys"] = [{**jwk, "kid": "k1"}]
        assert await outcome(client, headers=headers) == (200, "alice")
        other = jwt.encode({"sub": "alice", "exp": time.time() + 60}, private, "EdDSA", headers={"kid": "k2"})
        assert await outcome(client, headers={"Authorization": f"Bearer {other}"}) == (401, "unknown_key")


async def test_a_key_that_may_not_be_fetched_yet_is_asked_for_again(aiohttp_client: Client, redis: Redis) -> None:
    """While strangers have used up the fetches, the answer to an unknown key is to come back, never that it is wrong;
    known keys are not touched."""
    known, strange = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    jwk = jwt.algorithms.OKPAlgorithm.to_jwk(known.public_key(), as_dict=True)

    async def publish(request: web.Request) -> web.Response:
        return web.json_response({"keys": [{**jwk, "kid": "k1"}]})

    def signed(private: ed25519.Ed25519PrivateKey, kid: str) -> dict[str, str]:
        claims = {"sub": "alice", "exp": time.time() + 60}
        return {"Authorization": f"Bearer {jwt.encode(claims, private, 'EdDSA', headers={'kid': kid})}"}

    provider = web.Application()
    provider.router.add_get("/", publish)
    url_of = TestServer(provider)
    async with url_of as server, Jwks(str(server.make_url("/")), fetches_at_once=3, refill_seconds=1000) as keys:
        client = await aiohttp_client(app_of(Authenticator(redis, Verifier(keys), Tickets(redis, "edge-a"), jwks=keys)))
        answers = [await outcome(client, headers=signed(strange, f"x{number}")) for number in range(5)]
        assert answers == [(401, "unknown_key")] * 3 + [(503, "keys-unavailable")] * 2
        async with client.get("/", headers=signed(strange, "new")) as response:
            assert response.headers["Retry-After"] == "1000"
        assert await outcome(client, headers=signed(known, "k1")) == (200, "alice")


async def test_a_new_key_is_never_refused_whatever_strangers_do(aiohttp_client: Client, redis: Redis) -> None:
    """While somebody makes up keys as fast as possible, a token of a key that was published just now is told to come
    back at most, and is in soon."""
    private = [ed25519.Ed25519PrivateKey.generate() for _ in range(2)]
    to_jwk = jwt.algorithms.OKPAlgorithm.to_jwk
    published = [{**to_jwk(key.public_key(), as_dict=True), "kid": f"k{n}"} for n, key in enumerate(private)]
    keys_now = published[:1]

    async def publish(request: web.Request) -> web.Response:
        return web.json_response({"keys": keys_now})

    def signed(number: int, kid: str) -> dict[str, str]:
        claims = {"sub": "alice", "exp": time.time() + 60}
        return {"Authorization": f"Bearer {jwt.encode(claims, private[number], 'EdDSA', headers={'kid': kid})}"}

    provider = web.Application()
    provider.router.add_get("/", publish)
    options = {"fetches_at_once": 2, "refill_seconds": 0.5}
    async with TestServer(provider) as server, Jwks(str(server.make_url("/")), **options) as keys:  # type: ignore[arg-type]
        client = await aiohttp_client(app_of(Authenticator(redis, Verifier(keys), Tickets(redis, "edge-a"), jwks=keys)))

        async def make_up() -> None:
            for number in itertools.count():
                await outcome(client, headers=signed(0, f"x{number}"))

        stranger = asyncio.create_task(make_up())
        await asyncio.sleep(0.2)
        keys_now[:] = published
        seen = []
        async with asyncio.timeout(10):
            while (200, "alice") not in seen:
                seen.append(await outcome(client, headers=signed(1, "k1")))
                assert await outcome(client, headers=signed(0, "k0")) == (200, "alice"), "known keys are not touched"
        await tasks.end([stranger])
    assert set(seen) <= {(200, "alice"), (503, "keys-unavailable")}


# --- revocations -----------------------------------------------------------------------------------------------------


async def test_a_revocation_reaches_every_edge(redis: Redis, access: Authenticator) -> None:
    """Revoking tells the channel; an edge that hears it refuses the token and learns which streams to close. Taking it
    back is heard as well."""
    other = make_access(redis)
    one = identity(token_id="t 1")
    async with redis.pubsub() as listener:
        await listener.subscribe(wire.REVOCATIONS)
        assert (await listener.get_message(timeout=5) or {})["type"] == "subscribe"
        assert (await access.revocations.revoke(jti="t 1")).member == "jti:t 1"
        message = await listener.get_message(timeout=5)
        assert message is not None
        assert access.is_revoked(one), "the edge that revoked knows at once"
        assert not other.is_revoked(one)
        assert other.revocations.on_message(message["data"]) == "jti:t 1"
        assert other.is_revoked(one)
        assert not other.is_revoked(identity(token_id="t2"))
        assert access.revocations.on_message(message["data"]) == "jti:t 1", (
            "the edge that revoked has streams to close, too"
        )
        assert await access.revocations.take_back(jti="t 1") == "jti:t 1"
        message = await listener.get_message(timeout=5)
    assert message is not None
    assert other.revocations.on_message(message["data"]) is None, "nothing to close"
    assert not access.is_revoked(one)
    assert not other.is_revoked(one)


async def test_an_edge_that_missed_a_revocation_loads_it(redis: Redis, access: Authenticator) -> None:
    """Loading brings what was revoked meanwhile, once as news, and drops what was taken back."""
    other = make_access(redis)
    assert await other.revocations.load() == []
    await access.revocations.revoke(user="bob", org="acme")
    await access.revocations.revoke(jti="t1")
    assert sorted(await other.revocations.load()) == ["jti:t1", "user:acme:bob"]
    assert await other.revocations.load() == []
    bob = identity(owner=Owner("bob", "acme"), token_id="any")
    assert other.is_revoked(bob)
    assert not other.is_revoked(identity(owner=Owner("bob")))
    await access.revocations.take_back(user="bob", org="acme")
    assert other.is_revoked(bob)
    assert await other.revocations.load() == []
    assert not other.is_revoked(bob)
    assert other.is_revoked(identity(token_id="t1"))
    await access.revocations.revoke(user="bob", org="acme")
    assert await other.revocations.load() == ["user:acme:bob"]
    assert other.is_revoked(bob)


async def test_what_redis_lost_is_still_refused(redis: Redis, access: Authenticator) -> None:
    """A Redis that came back empty takes no revocation away from an edge that knows it."""
    await access.revocations.revoke(jti="t1")
    await redis.flushdb()
    await access.revocations.load()
    assert access.is_revoked(identity(token_id="t1"))


async def test_a_revoked_user_may_log_in_again(client: TestClient, access: Authenticator) -> None:
    """What was issued before is refused, seen before or not; what is issued afterwards is taken; others go on."""
    before, other = bearer(user="bob"), bearer(user="bob", now=time.time() - 30)
    ageless = jwt.encode({"sub": "bob", "exp": time.time() + 60}, SECRET)
    assert await outcome(client, headers=before) == (200, "bob")
    await asyncio.sleep(0.01)
    revoked = await access.revocations.revoke(user="bob")
    assert revoked.is_stored
    for headers in (before, other, {"Authorization": f"Bearer {ageless}"}):
        assert await outcome(client, headers=headers) == (401, "revoked")
    assert await outcome(client, headers=bearer(user="bob")) == (200, "bob")
    assert await outcome(client, headers=bearer()) == (200, "alice")
    await access.revocations.take_back(user="bob")
    assert await outcome(client, headers=before) == (200, "bob")


async def test_revocations_hold_as_long_as_tokens_live(redis: Redis, access: Authenticator, clock: Clock) -> None:
    """A token whose expiry is known is forgotten after it, everywhere; any other and a user never are."""
    now = time.time()
    await access.revocations.revoke(jti="t1", expires_at_ms=int(now * 1000) + 60_000)
    await access.revocations.revoke(jti="t1", expires_at_ms=int(now * 1000) + 10_000)
    await access.revocations.revoke(jti="t2")
    await access.revocations.revoke(user="bob")
    old = identity(owner=Owner("bob"), issued_at=now - 1)
    clock.ahead = 80
    assert access.is_revoked(identity(token_id="t1")), "never shortened, and clocks may differ"
    assert sorted(await make_access(redis, clock).revocations.load()) == ["jti:t1", "jti:t2", "user:default:bob"]
    clock.ahead = 91
    assert not access.is_revoked(identity(token_id="t1"))
    clock.ahead = 365 * 86_400
    fresh = make_access(redis, clock)
    assert sorted(await fresh.revocations.load()) == ["jti:t2", "user:default:bob"]
    assert fresh.is_revoked(identity(token_id="t2"))
    assert fresh.is_revoked(old)
    assert await redis.zcard(wire.REVOCATIONS) == 2


async def test_edges_of_older_versions_understand_what_is_written(redis: Redis, access: Authenticator) -> None:
    """They read a member, and a time until which it is refused; and what they write is read here."""
    bob = Owner("bob")
    async with redis.pubsub() as listener:
        await listener.subscribe(wire.REVOCATIONS)
        await listener.get_message(timeout=5)
        await access.revocations.revoke(user="bob")
        message = await listener.get_message(timeout=5)
    assert message is not None
    until, member = message["data"].split(b" ")
    assert member == b"user:default:bob"
    assert int(until) > time.time() * 1000
    assert int(await redis.zscore(wire.REVOCATIONS, member) or 0) == int(until)
    await redis.flushdb()
    moment_ms = int(time.time() * 1000)
    await redis.zadd(wire.REVOCATIONS, {member: moment_ms + 30 * 86_400_000})
    other = make_access(redis)
    assert await other.revocations.load() == [member.decode()]
    assert other.is_revoked(identity(owner=bob, issued_at=moment_ms / 1000 - 1))
    assert not other.is_revoked(identity(owner=bob, issued_at=moment_ms / 1000 + 1))


async def test_a_full_redis_revokes_all_the_same(private: Redis, clock: Clock) -> None:
    """Here and on edges that hear it at once; it is told again to those that start later, and stored when there is
    room."""
    access, other, late = (make_access(private, clock) for _ in range(3))
    one = identity(token_id="t1")
    async with private.pubsub() as listener:
        await listener.subscribe(wire.REVOCATIONS)
        await listener.get_message(timeout=5)
        await private.config_set("maxmemory-policy", "noeviction")
        await private.config_set("maxmemory", 1)
        revoked = await access.revocations.revoke(jti="t1")
        assert not revoked.is_stored
        message = await listener.get_message(timeout=5)
        assert message is not None
        other.revocations.on_message(message["data"])
        assert access.is_revoked(one)
        assert other.is_revoked(one)
        await other.revocations.load()
        assert other.is_revoked(one), "that it is not stored does not mean that it is taken back"
        await access.revocations.settle()
        message = await listener.get_message(timeout=5)
        assert message is not None
        late.revocations.on_message(message["data"])
        assert late.is_revoked(one)
        await private.config_set("maxmemory", 0)
        await access.revocations.settle()
        assert await make_access(private, clock).revocations.load() == ["jti:t1"]
        while await listener.get_message(timeout=0.3):
            pass
        await access.revocations.settle()
        assert await listener.get_message(timeout=0.3) is None, "once"


async def test_odd_rows_stop_no_edge(redis: Redis, access: Authenticator) -> None:
    """What somebody wrote by hand is read as far as it can be."""
    await redis.zadd(wire.REVOCATIONS, {b"\xff": 9e15, "jti:t1": float("inf"), "": 9e15})
    await redis.zadd(wire.REVOCATIONS_TAKEN_BACK, {b"\xff\xfe": 9e15})
    assert "jti:t1" in await access.revocations.load()
    assert access.is_revoked(identity(token_id="t1"))


async def test_what_is_taken_back_while_it_is_stored_is_not_stored(redis: Redis, access: Authenticator) -> None:
    """Whichever of the two reaches Redis first."""
    for _ in range(20):
        await asyncio.gather(access.revocations.revoke(user="bob"), access.revocations.take_back(user="bob"))
        assert await redis.zcard(wire.REVOCATIONS) == int(access.is_revoked(identity(owner=Owner("bob"))))
        await access.revocations.take_back(user="bob")


async def test_what_is_not_stored_can_be_taken_back(private: Redis, clock: Clock) -> None:
    """Also while Redis is full; then it is not stored later either."""
    access = make_access(private, clock)
    await private.config_set("maxmemory-policy", "noeviction")
    await private.config_set("maxmemory", 1)
    await access.revocations.revoke(jti="t1")
    await access.revocations.take_back(jti="t1")
    assert not access.is_revoked(identity(token_id="t1"))
    await private.config_set("maxmemory", 0)
    await access.revocations.settle()
    assert await make_access(private, clock).revocations.load() == []


async def test_what_cannot_be_told_holds_here_until_it_can(private: Redis, clock: Clock) -> None:
    """With no Redis at all the edge that was asked refuses the token, says that it failed, and tells the others once
    it can."""
    gone = connect("unix:///nonexistent/redis.sock")
    access = make_access(gone, clock)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it becomes for the client is what counts
        await access.revocations.revoke(jti="t1")
    problem = error_mapping.to_problem(caught.value)  # type: ignore[arg-type]
    assert problem is not None
    assert problem.status == 503
    assert access.is_revoked(identity(token_id="t1"))
    access.revocations._redis = private  # it is back
    await access.revocations.settle()
    assert await make_access(private, clock).revocations.load() == ["jti:t1"]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"x",
        b"12",
        b"12 ",
        b" jti:x",
        b"-5 jti:x",
        b"1 jti:x",
        b"\xff\xfe jti:x",
        "\u0661 jti:x".encode(),
        b"9" * 5000 + b" jti:x",
    ],
)
async def test_odd_messages_revoke_nothing(access: Authenticator, message: bytes) -> None:
    """A message that is no revocation, or one whose time is over, is passed by."""
    assert access.revocations.on_message(message) is None
    assert not access.is_revoked(identity(token_id="x"))


@pytest.mark.parametrize("what", [{}, {"jti": "a", "user": "b"}, {"jti": ""}, {"jti": "x" * 257}, {"user": "a\n"}])
async def test_a_revocation_names_one_token_or_one_user(
    redis: Redis, access: Authenticator, what: dict[str, str]
) -> None:
    """Naming neither, both or what cannot be is a 422, and nothing is stored."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it becomes for the client is what counts
        await access.revocations.revoke(**what)
    problem = error_mapping.to_problem(caught.value)  # type: ignore[arg-type]
    assert problem is not None
    assert problem.status == 422
    assert await redis.dbsize() == 0


# --- CORS ------------------------------------------------------------------------------------------------------------


async def test_only_listed_origins_may_read_answers(client: TestClient) -> None:
    """A listed origin is echoed with credentials, on errors too; no other one is, and never a star."""
    async with client.get("/", headers={"Origin": APP}) as response:
        assert response.status == 401
        assert response.headers["Access-Control-Allow-Origin"] == APP
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
        assert exposed[:4] == ["X-Request-ID", "Retry-After", "ETag", "WWW-Authenticate"]
        of_protocols = {"X-Workflow-Run-Id", "X-Workflow-Stream-Tail-Index", "Mcp-Session-Id", "Location"}
        of_durable_streams = {"Stream-Next-Offset", "Stream-Up-To-Date", "Stream-Closed", "Stream-Cursor"}
        assert set(exposed[4:]) == of_protocols | of_durable_streams
        assert response.headers["Vary"] == "Origin"
    for origin in ("https://evil.example", "null", APP + ".evil.example", APP.upper()):
        async with client.get("/", headers={**bearer(), "Origin": origin}) as response:
            assert response.headers["Vary"] == "Origin", "or a cache would mix the two up"
            assert not [name for name in response.headers if name.startswith("Access-Control")]


async def test_preflights_need_no_token(client: TestClient) -> None:
    """A preflight of a listed origin names methods and headers; another origin's names nothing; a plain OPTIONS is a
    request like any other."""
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    async with client.options("/anything", headers={**ask, "Origin": APP}) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == APP
        assert response.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST, DELETE"
        assert response.headers["Access-Control-Allow-Headers"] == "authorization"
        assert "Access-Control-Request-Headers" in response.headers.getall("Vary")
    async with client.options("/", headers={**ask, "Origin": "https://evil.example"}) as response:
        assert not [name for name in response.headers if name.startswith("Access-Control")]
    assert await outcome(client, method="OPTIONS", headers={"Origin": APP}) == (401, "missing")


@pytest.mark.parametrize(
    "asked",
    ["authorization,content-type,user-agent", "baggage, sentry-trace", "x-b3-traceid\t,x-datadog-parent-id", "b3"],
)
async def test_a_listed_origin_may_send_any_header(client: TestClient, asked: str) -> None:
    """Clients and tracing libraries send headers of their own, which we cannot list."""
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked, "Origin": APP}
    async with client.options("/", headers=ask) as response:
        assert response.headers["Access-Control-Allow-Headers"] == asked


@pytest.mark.parametrize("asked", ["", "*", "a b", "a;b", "x" * 65, ",".join(["x"] * 65), "a,,b", "ü"])
async def test_what_names_no_headers_is_not_repeated(client: TestClient, asked: str) -> None:
    """Then those are allowed that our own clients send."""
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked, "Origin": APP}
    async with client.options("/", headers=ask) as response:
        allowed = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert {"authorization", "content-type", "last-event-id", "producer-seq", "a2a-version"} < set(allowed)


async def test_a_refused_origin_is_logged_once(client: TestClient) -> None:
    """The reason is found in the log, and pages cannot fill it."""
    ask = {"Access-Control-Request-Method": "POST"}
    with structlog.testing.capture_logs() as logs:
        for number in range(2 * MAX_ORIGINS_LOGGED):
            for _ in range(2):
                headers = {**ask, "Origin": f"https://{number}.example"}
                async with client.options("/", headers=headers) as response:
                    assert not [name for name in response.headers if name.startswith("Access-Control")]
    assert [line["origin"] for line in logs] == [f"https://{number}.example" for number in range(MAX_ORIGINS_LOGGED)]
    assert {line["event"] for line in logs} == {"preflight_refused"}


async def test_a_stream_that_prepares_itself_is_marked(aiohttp_client: Client) -> None:
    """The head of a response that a handler sends itself carries CORS headers and the request's id."""

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Vary": "Accept"})
        await response.prepare(request)
        await response.write(json.dumps({"user": "x"}).encode())
        return response

    app = web.Application()
    setup_cors(app, [APP])
    errors.setup(app)
    app.router.add_get("/", stream)
    client = await aiohttp_client(app)
    async with client.get("/", headers={"Origin": APP, "X-Request-ID": "r1"}) as response:
        assert response.headers["Access-Control-Allow-Origin"] == APP
        assert response.headers["X-Request-ID"] == "r1"
        assert response.headers.getall("Vary") == ["Accept", "Origin"]


@pytest.mark.parametrize("origin", ["*", "https://*.example", "null", "https://app.example/"])
def test_wildcards_are_refused(origin: str) -> None:
    """An origin that is not exact stops the start."""
    with pytest.raises(ValueError, match="exact origin"):
        exact_origins([APP, origin])
