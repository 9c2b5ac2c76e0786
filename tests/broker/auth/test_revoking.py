"""Revocations over the HTTP interface of real edges, and users whose names fit no key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from redis.asyncio import Redis

from broker.base.identity import Identity
from broker.base.settings import Settings
from broker.cli.embedded import EmbeddedRedis
from broker.edge.edge import Edge
from emitter.events import ExecutionStarted
from emitter.store.append import append, prepare
from emitter.store.connection import connect
from emitter.wire import ids, keys
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from emitter.wire.subjects import owner_named
from tests.edges import ALL_SCOPES, SECRET, SSE, Answer, Connection, call, request, stream_path, token_for

PATH = "/api/admin/revocations"
LIST = "/api/agent/executions"
ADMIN = token_for("root", scopes=ALL_SCOPES)


@contextlib.asynccontextmanager
async def edge_on(redis_url: str, **changes: Any) -> AsyncIterator[Edge]:
    settings = {"host": "127.0.0.1", "admin_host": "127.0.0.1", "port": 0, "admin_port": 0, "jwt_secret": SECRET}
    limits = {"drain_seconds": 0, "heartbeat_seconds": 0.2}
    async with Edge(Settings(redis_url=redis_url, **settings, **limits, **changes)) as edge:  # type: ignore[arg-type]
        yield edge


@pytest.fixture
async def edge(redis: Redis, redis_url: str) -> AsyncIterator[Edge]:
    async with edge_on(redis_url) as edge:
        yield edge


async def status(edge: Edge, token: str) -> int:
    return (await call(edge.port, "GET", LIST, token)).status


async def revoke(edge: Edge, **named: Any) -> Answer:
    return await call(edge.port, "POST", PATH, ADMIN, named)


async def until_revoked(stream: Connection) -> None:
    """The stream ends by itself, and says why."""
    async with asyncio.timeout(5):
        frames = [frame async for frame in stream.frames()]
    assert json.loads(frames[-1].data or "") == {"reason": "revoked"}


# --- what is answered ------------------------------------------------------------------------------------------------


async def test_the_answer_says_what_is_refused_and_until_when(edge: Edge) -> None:
    """A token until its expiry where that is given, else until it is taken back; of a user what is from before."""
    expires_at = int(time.time() * 1000) + 60_000
    answer = await revoke(edge, jti="a", expiresAt=expires_at)
    assert answer.status == 202
    assert answer.body == {"revokedUntil": expires_at + 30_000}
    assert (await revoke(edge, jti="a")).body == {}
    answer = await revoke(edge, user="bob")
    assert answer.body == {"issuedBefore": pytest.approx(time.time() * 1000, abs=5000)}
    assert (await revoke(edge, user="bob", expiresAt=expires_at)).status == 422


@pytest.mark.parametrize("by", ["body", "query"])
@pytest.mark.parametrize("named", [{"jti": "t1"}, {"user": "bob"}, {"user": "bob", "org": "default"}])
async def test_a_revocation_is_taken_back(edge: Edge, named: dict[str, str], by: str) -> None:
    """By the same body, or by the query: some clients' DELETE has no body. Twice does no harm."""
    claims = {"sub": "bob", "jti": "t1", "iat": time.time() - 10, "exp": time.time() + 60}
    token = jwt.encode(claims, SECRET)
    assert await status(edge, token) == 200
    await revoke(edge, **named)
    assert await status(edge, token) == 401
    query = "?" + "&".join(f"{name}={value}" for name, value in named.items()) if by == "query" else ""
    for _ in range(2):
        answer = await call(edge.port, "DELETE", PATH + query, ADMIN, None if query else named)
        assert (answer.status, answer.body) == (204, None)
    assert await status(edge, token) == 200


async def test_a_revocation_while_a_stream_opens_refuses_it(edge: Edge, redis: Redis) -> None:
    """It was let in before, and has no viewer yet that the revocation could close."""
    prepared = prepare(ExecutionStarted(task="t", started_at=1, attempt=1), "ex_1", redact=Redactor())
    await append(redis, Owner("bob"), "ex_1", [prepared])
    read_head = edge.streams._logs.head

    async def head(*args: Any, **kwargs: Any) -> Any:
        found = await read_head(*args, **kwargs)
        await edge.authenticator.revocations.revoke(user="bob")
        return found

    edge.streams._logs.head = head  # type: ignore[method-assign]
    answer = await call(edge.port, "GET", stream_path("ex_1"), token_for("bob"))
    assert (answer.status, answer.body["reason"]) == (401, "revoked")


async def test_a_revoked_link_costs_the_viewers_of_others_nothing(edge: Edge, redis: Redis) -> None:
    """Whoever may share may revoke as well, hundreds of links a minute: other streams are not looked at for each."""
    prepared = prepare(ExecutionStarted(task="t", started_at=1, attempt=1), "ex_1", redact=Redactor())
    await append(redis, Owner("bob"), "ex_1", [prepared])
    shares = f"{LIST}/ex_1/shares"
    made = (await call(edge.port, "POST", shares, token_for("bob"), {})).body
    is_revoked, asked = edge.streams._is_revoked, list[Identity]()

    def ask(identity: Identity) -> bool:
        asked.append(identity)
        return is_revoked(identity)

    async with (
        request(edge.port, "GET", stream_path("ex_1"), token_for("bob"), headers=SSE),
        request(edge.port, "GET", stream_path("ex_1"), made["token"], headers=SSE) as shown,
    ):
        edge.streams._is_revoked = ask
        assert (await call(edge.port, "DELETE", f"{shares}/{made['shareId']}", token_for("bob"))).status == 204
        await until_revoked(shown)
    assert {identity.token_id for identity in asked} == {f"share:{made['shareId']}"}


async def test_only_an_admin_takes_back(edge: Edge) -> None:
    """It names one thing, and is asked for by who may."""
    await revoke(edge, user="bob")
    others = token_for("bob", scopes=ALL_SCOPES - {"admin"})
    assert (await call(edge.port, "DELETE", PATH + "?user=bob", others)).status == 403
    assert (await call(edge.port, "DELETE", PATH + "?user=bob", None)).status == 401
    for query in ("", "?jti=a&user=b", "?jti="):
        assert (await call(edge.port, "DELETE", PATH + query, ADMIN)).status == 422, query


async def test_a_full_redis_revokes_all_the_same(own_redis: EmbeddedRedis) -> None:
    """The user's streams end on every edge and the token is refused; the answer warns; later it is stored."""
    client = connect(own_redis.url)
    async with contextlib.aclosing(client), edge_on(own_redis.url) as one, edge_on(own_redis.url) as two:
        prepared = prepare(ExecutionStarted(task="t", started_at=1, attempt=1), "ex_1", redact=Redactor())
        await append(client, Owner("bob"), "ex_1", [prepared])
        token = token_for("bob")
        async with (
            request(one.port, "GET", stream_path("ex_1"), token, headers=SSE) as first,
            request(two.port, "GET", stream_path("ex_1"), token, headers=SSE) as second,
        ):
            await client.config_set("maxmemory", 1)
            answer = await revoke(one, user="bob")
            assert answer.status == 202
            assert "not stored" in answer.body["warning"]
            for stream in (first, second):
                await until_revoked(stream)
        for each in (one, two):
            assert await status(each, token) == 401
        await client.config_set("maxmemory", 0)
        async with asyncio.timeout(10):
            while not await client.zcard(keys.REVOCATIONS):
                await asyncio.sleep(0.02)
        async with edge_on(own_redis.url) as late:
            assert await status(late, token) == 401


# --- users whose names fit no key ------------------------------------------------------------------------------------

NAMES = ["system:serviceaccount:agents:builder", "spiffe://example.org/a?b#c", 'samlp|x|Jan\u00e9 "D" \\', "\U0001f600"]


@pytest.mark.parametrize("account", NAMES)
async def test_any_name_is_a_user_like_any_other(edge: Edge, redis: Redis, account: str) -> None:
    """It starts and cancels, is named in the log as it is, is found by admins and revoked by its name."""
    await redis.zadd(keys.AGENTS_KNOWN, {"analyst": ids.now_ms()})
    token = token_for(account)
    started = await call(edge.port, "POST", "/api/agent/execute", token, {"task": "t", "agent": "analyst"})
    assert started.status == 202
    execution = f"{LIST}/{started.body['executionId']}"
    assert (await call(edge.port, "POST", execution + "/cancel", token, {})).status == 202
    page = await call(edge.port, "GET", execution + "/events", token)
    assert [e["event"]["data"].get("by") for e in page.body["events"]] == [None, account]
    seen = await call(edge.port, "GET", f"{execution}?user={quote(account, safe='')}", ADMIN)
    assert seen.status == 200
    key_form = owner_named(account).user
    assert (await call(edge.port, "GET", f"{execution}?user={quote(key_form)}", ADMIN)).status == 200
    assert (await revoke(edge, user=account)).status == 202
    assert await status(edge, token) == 401


async def test_settings_name_claims_and_scopes(redis: Redis, redis_url: str) -> None:
    """An edge looks for scopes where the settings say, and has its own idea of a token that says nothing."""
    changes = {"jwt_scope_claim": ("permissions",), "jwt_org_claim": "tid", "default_scopes": ("ops:read",)}
    async with edge_on(redis_url, **changes) as edge:
        claims = {"sub": "bob", "tid": "acme", "exp": time.time() + 60}
        allowed = jwt.encode({**claims, "permissions": ["executions:read"]}, SECRET)
        assert await status(edge, allowed) == 200
        assert await status(edge, jwt.encode({**claims, "scope": "executions:read"}, SECRET)) == 403
        await edge.authenticator.revocations.revoke(user="bob", org="acme")
        assert await status(edge, allowed) == 401, "in the organisation that the claim names"


# --- strangers -------------------------------------------------------------------------------------------------------


async def test_strangers_cost_redis_nothing(edge: Edge, redis: Redis) -> None:
    """However a token is wrong, it is found out without a call to Redis."""
    good = token_for("alice")
    expired = token_for("alice", ttl=-60)
    foreign = jwt.encode({"sub": "alice", "exp": time.time() + 60}, SECRET + "x")
    wrong = ["x", "a.b.c", good[:-2], expired, foreign, "x" * 5000]

    async def commands() -> dict[str, int]:
        stats: Any = await redis.info("commandstats")
        return {name: value["calls"] for name, value in stats.items() if "get" in name or "z" in name or "eval" in name}

    await call(edge.port, "GET", LIST, good)
    before, began = await commands(), time.monotonic()
    for _ in range(20):
        for token in wrong:
            assert (await call(edge.port, "GET", LIST, token)).status == 401
            assert (await call(edge.port, "POST", "/api/agent/execute", token, {"task": "t"})).status == 401
    await call(edge.port, "GET", LIST, good)
    after, took = await commands(), time.monotonic() - began
    await asyncio.sleep(took)
    later = await commands()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    by_itself = sum(later.values()) - sum(after.values())
    assert sum(grown.values()) < 80 + by_itself, grown
