"""Bearer, cookie and ticket requests, revocations and CORS, over real HTTP and a real Redis."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric import ed25519
from redis.asyncio import Redis

from broker import problems
from broker.access import Access, exact_origins, setup_cors
from broker.auth import Identity, Verifier, act_for, mint, secret_key
from broker.jwks import Jwks
from broker.problems import Problem
from emitter import wire
from emitter.wire import Owner

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


def make_access(redis: Redis, clock: Clock | None = None) -> Access:
    return Access(redis, Verifier(secret_key(SECRET)), origins=[APP], clock=clock or Clock())


@pytest.fixture
def access(redis: Redis, clock: Clock) -> Access:
    return make_access(redis, clock)


def app_of(access: Access) -> web.Application:
    """`/` takes no tickets, `/stream` does; both answer with the identity."""

    async def rest(request: web.Request) -> web.Response:
        return shown(await access.authenticate(request))

    async def stream(request: web.Request) -> web.Response:
        return shown(await access.authenticate(request, ticket=True))

    def shown(identity: Identity) -> web.Response:
        return web.json_response({"user": identity.owner.user, "execution": identity.execution_id})

    app = web.Application()
    setup_cors(app, [APP])
    problems.setup(app)
    app.router.add_route("*", "/", rest)
    app.router.add_route("*", "/stream", stream)
    return app


@pytest.fixture
async def client(aiohttp_client: Client, access: Access) -> TestClient:
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


async def test_a_bearer_needs_no_origin(client: TestClient) -> None:
    """No page can make a browser send another's Authorization header, so any origin may use one."""
    assert await outcome(client, method="POST", headers={**bearer(), "Origin": "https://evil.example"}) == (
        200,
        "alice",
    )


# --- tickets ---------------------------------------------------------------------------------------------------------


def identity(**fields: Any) -> Identity:
    return Identity(**({"owner": ALICE, "scopes": frozenset({"executions:read"})} | fields))


async def test_a_ticket_opens_one_stream_once(client: TestClient, access: Access) -> None:
    """A ticket lets in its user, bound to its execution, and the second time it is refused."""
    ticket, expires_at = await access.mint_ticket(identity(), "ex_1")
    assert expires_at == pytest.approx(time.time() + 30, abs=5)
    async with client.get("/stream", params={"ticket": ticket}) as response:
        assert await response.json() == {"user": "alice", "execution": "ex_1"}
    assert await outcome(client, "/stream", params={"ticket": ticket}) == (401, "ticket")


async def test_of_many_who_bring_one_ticket_exactly_one_gets_in(client: TestClient, access: Access) -> None:
    """Twenty concurrent uses of one ticket are one success and nineteen refusals."""
    ticket, _ = await access.mint_ticket(identity())
    results = await asyncio.gather(*(outcome(client, "/stream", params={"ticket": ticket}) for _ in range(20)))
    assert sorted(results) == [(200, "alice")] + [(401, "ticket")] * 19


async def test_tickets_are_for_streams_only(client: TestClient, access: Access) -> None:
    """Elsewhere a ticket is not looked at, and not spent."""
    ticket, _ = await access.mint_ticket(identity())
    assert await outcome(client, params={"ticket": ticket}) == (401, "missing")
    assert await outcome(client, "/stream", params={"ticket": ticket}, headers=bearer(user="bob")) == (200, "bob")
    assert await outcome(client, "/stream", params={"ticket": ticket}) == (200, "alice")


@pytest.mark.parametrize("ticket", ["", "x", "x" * 22, "x" * 4000, "a*b", "ü" * 22, "\x00" * 22])
async def test_odd_tickets_are_refused(client: TestClient, ticket: str) -> None:
    """What was never a ticket is refused like a spent one."""
    assert await outcome(client, "/stream", params={"ticket": ticket}) == (401, "ticket")


async def test_redis_never_sees_a_ticket_and_forgets_it_in_time(redis: Redis, access: Access) -> None:
    """Only a digest is stored, for 30 s; tickets do not repeat."""
    ticket, _ = await access.mint_ticket(identity())
    other, _ = await access.mint_ticket(identity())
    assert ticket != other
    keys = await redis.keys("*")
    assert len(keys) == 2
    assert not any(ticket.encode() in key for key in keys)
    assert all([29_000 < await redis.pttl(key) <= 30_000 for key in keys])


async def test_a_ticket_keeps_all_that_its_token_was(redis: Redis, access: Access) -> None:
    """Scopes, token id, expiry and the admin behind an identity survive the way through a ticket; but it is for one
    owner's streams, so the right to name another one is not in it."""
    admin = identity(scopes=frozenset({"admin", "ops:read"}), token_id="t1", expires_at=time.time() + 10.5)
    acting = act_for(admin, user="bob", org="acme")
    ticket, expires_at = await access.mint_ticket(acting)
    assert expires_at == admin.expires_at, "a ticket does not outlive its token"
    redeemed = await access._redeem(ticket)
    assert redeemed == msgspec.structs.replace(acting, scopes=frozenset({"ops:read"}))
    assert act_for(redeemed, user="bob", org=None) == redeemed
    with pytest.raises(Problem):
        act_for(redeemed, user="carol", org=None)


async def test_a_ticket_of_a_dead_token_is_refused(client: TestClient, access: Access, clock: Clock) -> None:
    """A ticket is worth no more than its token: refused when that has expired or was revoked."""
    ticket, _ = await access.mint_ticket(identity(token_id="t1"))
    await access.revoke(jti="t1", until=time.time() + 60)
    assert await outcome(client, "/stream", params={"ticket": ticket}) == (401, "revoked")
    ticket, _ = await access.mint_ticket(identity(expires_at=time.time() + 20))
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
    async with TestServer(provider) as server, Jwks(str(server.make_url("/")), min_pause=0) as keys:
        client = await aiohttp_client(app_of(Access(redis, Verifier(keys), jwks=keys)))
        headers = {"Authorization": f"Bearer {new}"}
        assert await outcome(client, headers=headers) == (503, "keys-unavailable")
        jwk = jwt.algorithms.OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
        published["keys"] = [{**jwk, "kid": "k1"}]
        assert await outcome(client, headers=headers) == (200, "alice")
        other = jwt.encode({"sub": "alice", "exp": time.time() + 60}, private, "EdDSA", headers={"kid": "k2"})
        assert await outcome(client, headers={"Authorization": f"Bearer {other}"}) == (401, "unknown_key")


# --- revocations -----------------------------------------------------------------------------------------------------


async def test_a_revocation_reaches_every_edge(redis: Redis, access: Access) -> None:
    """Revoking tells the channel; an edge that hears it refuses the token and learns which streams to close."""
    other = make_access(redis)
    async with redis.pubsub() as listener:
        await listener.subscribe(wire.REVOCATIONS)
        assert (await listener.get_message(timeout=5) or {})["type"] == "subscribe"
        assert await access.revoke(jti="t 1", until=time.time() + 60) == "jti:t 1"
        message = await listener.get_message(timeout=5)
    assert message is not None
    assert access.is_revoked(identity(token_id="t 1")), "the edge that revoked knows at once"
    assert not other.is_revoked(identity(token_id="t 1"))
    assert other.on_message(message["data"]) == "jti:t 1"
    assert other.is_revoked(identity(token_id="t 1"))
    assert not other.is_revoked(identity(token_id="t2"))
    assert access.on_message(message["data"]) == "jti:t 1", "the edge that revoked has streams to close, too"


async def test_an_edge_that_missed_a_revocation_loads_it(redis: Redis, access: Access) -> None:
    """Loading brings what was revoked meanwhile, once as news."""
    other = make_access(redis)
    assert await other.load() == []
    await access.revoke(user="bob", org="acme", until=time.time() + 60)
    await access.revoke(jti="t1", until=time.time() + 60)
    assert sorted(await other.load()) == ["jti:t1", "user:acme:bob"]
    assert await other.load() == []
    assert other.is_revoked(identity(owner=Owner("bob", "acme"), token_id="any"))
    assert other.is_revoked(identity(owner=Owner("bob", "acme")))
    assert not other.is_revoked(identity(owner=Owner("bob")))


async def test_revoked_requests_are_refused(client: TestClient, access: Access) -> None:
    """A revoked user's requests get 401, with a token that was seen before as with a new one; others go on."""
    headers = bearer(user="bob")
    assert await outcome(client, headers=headers) == (200, "bob")
    await access.revoke(user="bob", until=time.time() + 60)
    assert await outcome(client, headers=headers) == (401, "revoked")
    assert await outcome(client, headers=bearer(user="bob")) == (401, "revoked")
    assert await outcome(client, headers=bearer()) == (200, "alice")


async def test_revocations_end_and_are_trimmed(redis: Redis, access: Access, clock: Clock) -> None:
    """After its time a revocation refuses nothing and leaves Redis; a shorter repeat does not shorten it."""
    now = time.time()
    await access.revoke(jti="t1", until=now + 60)
    await access.revoke(jti="t1", until=now + 10)
    clock.ahead = 30
    assert access.is_revoked(identity(token_id="t1"))
    assert await make_access(redis, clock).load() == ["jti:t1"]
    clock.ahead = 61
    assert not access.is_revoked(identity(token_id="t1"))
    assert await make_access(redis, clock).load() == []
    assert await redis.zcard(wire.REVOCATIONS) == 0


@pytest.mark.parametrize("message", [b"", b"x", b"12", b"12 ", b" jti:x", b"-5 jti:x", b"1 jti:x", b"\xff\xfe jti:x"])
async def test_odd_messages_revoke_nothing(access: Access, message: bytes) -> None:
    """A message that is no revocation, or one whose time is over, is passed by."""
    assert access.on_message(message) is None
    assert not access.is_revoked(identity(token_id="x"))


@pytest.mark.parametrize("what", [{}, {"jti": "a", "user": "b"}, {"jti": ""}, {"jti": "x" * 257}, {"user": "a:*"}])
async def test_a_revocation_names_one_token_or_one_user(redis: Redis, access: Access, what: dict[str, str]) -> None:
    """Naming neither, both or what cannot be is a 422, and nothing is stored."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it becomes for the client is what counts
        await access.revoke(until=time.time() + 60, **what)
    problem = problems.to_problem(caught.value)  # type: ignore[arg-type]
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
        assert response.headers["Access-Control-Expose-Headers"] == "X-Request-ID, Retry-After, ETag"
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
        allowed = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert set(allowed) == {
            "authorization",
            "content-type",
            "last-event-id",
            "idempotency-key",
            "x-request-id",
            "producer-id",
            "producer-seq",
            "a2a-version",
            "a2a-extensions",
            "x-a2a-extensions",
            "if-none-match",
            "cache-control",
            "traceparent",
            "tracestate",
        }
    async with client.options("/", headers={**ask, "Origin": "https://evil.example"}) as response:
        assert not [name for name in response.headers if name.startswith("Access-Control")]
    assert await outcome(client, method="OPTIONS", headers={"Origin": APP}) == (401, "missing")


async def test_a_stream_that_prepares_itself_is_marked(aiohttp_client: Client) -> None:
    """The head of a response that a handler sends itself carries CORS headers and the request's id."""

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Vary": "Accept"})
        await response.prepare(request)
        await response.write(json.dumps({"user": "x"}).encode())
        return response

    app = web.Application()
    setup_cors(app, [APP])
    problems.setup(app)
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
