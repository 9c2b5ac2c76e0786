"""Share links on two real edges: what they show, what they do not, and how they end."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from broker.auth.revocations import user_member, user_score
from broker.auth.shares import MAX_SHARES, REVOKED_SECONDS
from broker.auth.tokens import mint
from broker.base.settings import Settings
from broker.edge.edge import Edge
from emitter.events import ExecutionComplete, Thinking
from emitter.store.connection import publish
from emitter.wire import keys
from emitter.wire.keys import Owner
from tests.edges import (
    ALL_SCOPES,
    LONGEST_SECONDS,
    SECRET,
    Answer,
    Author,
    EdgeProcess,
    Follower,
    edges,
    eventually,
    request,
    token_for,
)
from tests.edges import call as call_edge

OWNER_PATHS = [
    ("GET", "/api/agent/executions", None),
    ("GET", "/api/agent/stream", None),
    ("GET", "/api/agent/executions/{other}", None),
    ("GET", "/api/agent/executions/{other}/stream", None),
    ("GET", "/api/agent/executions/{other}/request", None),
    ("GET", "/api/agent/executions/{id}?tree=true", None),
    ("GET", "/api/agent/executions/{id}/webhooks", None),
    ("GET", "/api/agent/executions/{id}/messages", None),
    ("GET", "/api/agent/executions/{id}/shares", None),
    ("POST", "/api/agent/executions/{id}/shares", {}),
    ("POST", "/api/agent/executions/{id}/cancel", {}),
    ("POST", "/api/agent/executions/{id}/input", {"inputId": "in_1", "value": 1}),
    ("POST", "/api/agent/executions/{id}/messages", {"text": "hello"}),
    ("POST", "/api/agent/executions/{id}/events", {"type": "status", "data": {"status": "s", "message": "m"}}),
    ("POST", "/api/agent/execute", {"task": "t"}),
    ("POST", "/api/agent/stream-tickets", {}),
    ("GET", "/api/agent/agents", None),
    ("GET", "/api/ops/stream", None),
    ("POST", "/api/admin/revocations", {"jti": "j"}),
]


async def call(port: int, path: str, *, method: str = "GET", token: str, json: Any = None) -> Answer:
    return await call_edge(port, method, path, token, json)


async def share(edge: EdgeProcess, author: Author, **body: Any) -> dict[str, Any]:
    path = f"/api/agent/executions/{author.execution_id}/shares"
    answer = await call(edge.port, path, method="POST", token=token_for(author.user), json=body)
    assert answer.status == 201, answer
    made: dict[str, Any] = answer.body
    return made


async def test_a_link_shows_its_execution_on_any_edge(two_edges: list[EdgeProcess], author: Author) -> None:
    """Its state, its log and its stream, live; and its address is the console's."""
    await author.begin()
    made = await share(two_edges[0], author)
    assert made["url"].endswith(f"/#/shared/{author.execution_id}/{made['token']}")
    base = f"/api/agent/executions/{author.execution_id}"
    for edge in two_edges:
        state = await call(edge.port, base, token=made["token"])
        assert (state.status, state.body["status"]) == (200, "running")
        events = await call(edge.port, base + "/events", token=made["token"])
        assert len(events.body["events"]) == 1
        request = await call(edge.port, base + "/request", token=made["token"])
        assert (request.status, request.body["user"]) == (200, author.user)
    async with Follower([two_edges[1].port], author.path, made["token"]) as viewer:
        await viewer.until_live()
        await author.write(Thinking(thought="shown"))
        await author.write(ExecutionComplete(result={"ok": True}, duration=1.0))
        await viewer.until_done()
    assert len(viewer.ids) == 3


@pytest.mark.parametrize(("method", "path", "body"), OWNER_PATHS, ids=str)
async def test_a_link_shows_nothing_else(
    two_edges: list[EdgeProcess], redis: Redis, author: Author, method: str, path: str, body: Any
) -> None:
    """Not another execution, not the list, and it changes nothing, though all of it exists and is the owner's."""
    other = Author(redis, user=author.user, execution_id="ex_other")
    await author.begin()
    await other.begin()
    made = await share(two_edges[0], author)
    named = path.format(id=author.execution_id, other=other.execution_id)
    answer = await call(two_edges[1].port, named, method=method, token=made["token"], json=body)
    assert answer.status == 403, answer
    for query in ("user=bob", "org=acme", f"user={author.user}&org=acme"):
        path = f"/api/agent/executions/{author.execution_id}?{query}"
        assert (await call(two_edges[1].port, path, token=made["token"])).status == 403


SHOWN = {"", "/events", "/request"}  # of its execution, and its stream
PUBLIC = re.compile(r"/|/openapi\.json|/console/sign-in\.json|/(console|client)/.*|/\{name\}|.*/\.well-known/.*")


async def test_a_link_reaches_no_other_route_of_any_protocol(redis: Redis, redis_url: str, author: Author) -> None:
    """Every route of an edge, with the execution's id for all that paths name: none but those above lets it in."""
    await author.begin()
    base, id_ = "/api/agent/executions/{id}", author.execution_id
    settings = Settings(redis_url=redis_url, host="127.0.0.1", admin_host="127.0.0.1", port=0, admin_port=0)
    async with Edge(msgspec.structs.replace(settings, jwt_secret=SECRET, drain_seconds=0)) as edge:
        path = base.format(id=id_) + "/shares"
        made = (await call(edge.port, path, method="POST", token=token_for(author.user), json={})).body
        statuses = {}
        for route in edge._app()[0].router.routes():
            assert route.resource is not None
            path = route.resource.canonical
            if PUBLIC.fullmatch(path) or (route.method, path) == ("GET", base + "/stream"):
                continue
            named = re.sub(r"\{\w+\}", id_, path)
            method, body = ("POST", {}) if route.method == "*" else (route.method, None)
            answer = await call(edge.port, named, method=method, token=made["token"], json=body)
            statuses[route.method, path] = answer.status
    let_in = {name for name, status in statuses.items() if status != 403}
    assert {name for name in let_in if name[0] != "HEAD"} == {("GET", base + rest) for rest in SHOWN}
    assert {path for method, path in let_in if method == "HEAD"} <= {base + rest for rest in SHOWN}
    assert len(statuses) > 100


async def test_a_revoked_link_ends_at_once_everywhere(two_edges: list[EdgeProcess], author: Author) -> None:
    """Its open streams as well; the execution's other links go on."""
    await author.begin()
    ended, kept = await share(two_edges[0], author), await share(two_edges[0], author)
    base = f"/api/agent/executions/{author.execution_id}"
    owner = token_for(author.user)
    async with Follower([two_edges[1].port], author.path, ended["token"]) as viewer:
        await viewer.until_live()
        answer = await call(two_edges[0].port, f"{base}/shares/{ended['shareId']}", method="DELETE", token=owner)
        assert answer.status == 204
        await viewer.until("its end", lambda viewer: "revoked" in viewer.ends)
    for edge in two_edges:
        assert (await call(edge.port, base, token=ended["token"])).status == 401
        assert (await call(edge.port, base, token=kept["token"])).status == 200
    listed = await call(two_edges[1].port, base + "/shares", token=owner)
    assert [each["shareId"] for each in listed.body["shares"]] == [kept["shareId"]]
    assert "token" not in listed.body["shares"][0]
    again = await call(two_edges[0].port, f"{base}/shares/{ended['shareId']}", method="DELETE", token=owner)
    assert again.status == 404


async def test_a_link_ends_with_its_owners_revocation(two_edges: list[EdgeProcess], author: Author) -> None:
    await author.begin()
    made = await share(two_edges[0], author)
    admin = token_for("root", scopes=ALL_SCOPES)
    body = {"user": author.user}
    assert (
        await call(two_edges[0].port, "/api/admin/revocations", method="POST", token=admin, json=body)
    ).status == 202
    answer = await call(two_edges[0].port, f"/api/agent/executions/{author.execution_id}", token=made["token"])
    assert (answer.status, answer.body["reason"]) == (401, "revoked")


async def test_a_link_ends_with_the_revocation_of_who_made_it(two_edges: list[EdgeProcess], author: Author) -> None:
    """An admin, for somebody else: what was made in a stolen name ends with it."""
    await author.begin()
    maker, root = f"{author.user}-admin", token_for("root", scopes=ALL_SCOPES)
    base = f"/api/agent/executions/{author.execution_id}"
    token = token_for(maker, scopes=ALL_SCOPES)
    made = (
        await call(two_edges[0].port, f"{base}/shares?user={author.user}", method="POST", token=token, json={})
    ).body
    assert (await call(two_edges[1].port, base, token=made["token"])).status == 200
    path = "/api/admin/revocations"
    assert (await call(two_edges[0].port, path, method="POST", token=root, json={"user": maker})).status == 202
    answer = await call(two_edges[0].port, base, token=made["token"])
    assert (answer.status, answer.body["reason"]) == (401, "revoked")


async def test_a_link_ends_with_a_revocation_that_its_edge_heard_of_late(
    two_edges: list[EdgeProcess], author: Author, redis: Redis
) -> None:
    """It is as old as the token that made it: what somebody makes by a stolen one meanwhile ends with that."""
    await author.begin()
    base = f"/api/agent/executions/{author.execution_id}"
    stolen = mint(SECRET, author.user, ttl=3600, now=time.time() - 60)
    made = (await call(two_edges[0].port, base + "/shares", method="POST", token=stolen, json={})).body
    score = user_score(int((time.time() - 30) * 1000))
    await publish(redis, keys.REVOCATIONS, f"{score} {user_member(author.owner)}".encode())
    async with asyncio.timeout(LONGEST_SECONDS):
        while (await call(two_edges[0].port, base, token=stolen)).status == 200:
            await asyncio.sleep(0.02)
    answer = await call(two_edges[0].port, base, token=made["token"])
    assert (answer.status, answer.body["reason"]) == (401, "revoked")


async def test_a_link_expires(two_edges: list[EdgeProcess], author: Author, redis: Redis) -> None:
    """Redis forgets it; until then its identity says when it ends."""
    await author.begin()
    made = await share(two_edges[0], author, expiresInSeconds=60)
    assert 55_000 < made["expiresAt"] - made["createdAt"] <= 60_000
    (key,) = [key async for key in redis.scan_iter("rc:share:*")]
    assert 55 < await redis.ttl(key) <= 60
    await redis.delete(key)
    answer = await call(two_edges[0].port, f"/api/agent/executions/{author.execution_id}", token=made["token"])
    assert (answer.status, answer.body["reason"]) == (401, "share")


async def test_a_link_does_not_show_a_later_execution_with_the_same_id(
    two_edges: list[EdgeProcess], author: Author, redis: Redis
) -> None:
    """The record has expired before the link, and the id was given again: its links are others."""
    await author.begin()
    old, owner = await share(two_edges[0], author), token_for(author.user)
    keys = Owner(author.user).execution(author.execution_id)
    await redis.delete(keys.record, keys.log)
    base = f"/api/agent/executions/{author.execution_id}"
    assert (await call(two_edges[0].port, base, token=old["token"])).status == 401
    await Author(redis, user=author.user, execution_id=author.execution_id).begin()
    for path in (base, base + "/events", base + "/request", base + "/stream"):
        answer = await call(two_edges[0].port, path, token=old["token"])
        assert (answer.status, answer.body["reason"]) == (401, "share")
    new = await share(two_edges[1], author)
    assert (await call(two_edges[0].port, base, token=new["token"])).status == 200
    assert (await call(two_edges[0].port, base, token=old["token"])).status == 401
    listed = await call(two_edges[1].port, base + "/shares", token=owner)
    assert [each["shareId"] for each in listed.body["shares"]] == [new["shareId"]]


async def test_what_another_program_wrote_hides_no_link(
    two_edges: list[EdgeProcess], author: Author, redis: Redis
) -> None:
    await author.begin()
    made, owner = await share(two_edges[0], author), token_for(author.user)
    odd = {"a": b"\xff", "b": b"{}", "c": b'{"id":1}', "d": b"[[[["}
    await redis.hset(Owner(author.user).shares(author.execution_id), mapping=odd)  # type: ignore[misc]
    path = f"/api/agent/executions/{author.execution_id}/shares"
    listed = await call(two_edges[1].port, path, token=owner)
    assert [each["shareId"] for each in listed.body["shares"]] == [made["shareId"]]
    assert await share(two_edges[0], author)
    ended = await call(two_edges[0].port, f"{path}/{made['shareId']}", method="DELETE", token=owner)
    assert ended.status == 204


@pytest.mark.parametrize("token", ["share_", "share_" + "x" * 32, "share_" + "x" * 4000, "share_*", "share_\xe9"])
async def test_a_made_up_link_is_refused(two_edges: list[EdgeProcess], author: Author, token: str) -> None:
    await author.begin()
    answer = await call(two_edges[0].port, f"/api/agent/executions/{author.execution_id}", token=token)
    assert answer.status == 401


async def test_links_have_bounds(two_edges: list[EdgeProcess], author: Author) -> None:
    """In number, in time, and there must be an execution."""
    await author.begin()
    path, owner = f"/api/agent/executions/{author.execution_id}/shares", token_for(author.user)

    async def made(path: str = path, token: str = owner, **body: Any) -> int:
        return (await call(two_edges[0].port, path, method="POST", token=token, json=body)).status

    assert await made(expiresInSeconds=59) == 422
    assert await made(expiresInSeconds=7 * 86_400 + 1) == 422
    assert await made("/api/agent/executions/ex_none/shares") == 404
    assert await made(token=token_for("somebody-else")) == 404
    assert await made(token=token_for(author.user, scopes={"executions:read"})) == 403
    assert [await made() for _ in range(MAX_SHARES + 1)] == [201] * MAX_SHARES + [409]


async def test_who_has_a_link_has_limits_of_their_own(redis: Redis, redis_url: str, author: Author) -> None:
    """However many come by links, their owner is let in; and all of them are let in as one user, whatever they look at:
    nobody has higher limits for having made links."""
    other = Author(redis, user=author.user, execution_id="ex_other")
    await author.begin()
    await other.begin()
    with edges(redis_url, 1, max_connections_per_user=2) as (edge,):
        made, more = await share(edge, author), await share(edge, other)
        async with (
            Follower([edge.port], author.path, made["token"]) as first,
            Follower([edge.port], other.path, more["token"]) as second,
        ):
            await first.until_live()
            await second.until_live()
            async with Follower([edge.port], author.path, author.token) as owner:
                await owner.until_live()
            await eventually("two viewers", lambda: edge.metric("runcast_connections") == 2)
            again = await share(edge, author)
            for path, token in ((author.path, again["token"]), (other.path, more["token"])):
                async with request(edge.port, "GET", path, token) as refused:
                    assert refused.status == 429


async def test_making_links_has_a_rate(redis: Redis, redis_url: str, author: Author) -> None:
    """Also for who revokes them at once: edges remember each for a while, an hour at most. Tickets have theirs."""
    await author.begin()
    path, owner = f"/api/agent/executions/{author.execution_id}/shares", token_for(author.user)
    with edges(redis_url, 1, tickets_per_minute=2) as (edge,):
        for _ in range(2):
            made = await share(edge, author, expiresInSeconds=7 * 86_400)
            assert (await call(edge.port, f"{path}/{made['shareId']}", method="DELETE", token=owner)).status == 204
        assert (await call(edge.port, path, method="POST", token=owner, json={})).status == 429
        tickets = "/api/agent/stream-tickets"
        assert (await call(edge.port, tickets, method="POST", token=owner, json={})).status == 201
    known = await redis.zrange(keys.REVOCATIONS, 0, -1, withscores=True)
    assert len(known) == 2
    assert all(until <= (time.time() + REVOKED_SECONDS + 60) * 1000 for _, until in known)


@pytest.mark.parametrize("host", ["a b", "a:b", "a/b", "ü"])
async def test_no_link_is_made_where_its_address_cannot_be_said(
    two_edges: list[EdgeProcess], author: Author, host: str
) -> None:
    await author.begin()
    path, owner = f"/api/agent/executions/{author.execution_id}/shares", token_for(author.user)
    answer = await call_edge(two_edges[0].port, "POST", path, owner, {}, headers={"Host": host})
    assert (answer.status, answer.body["type"]) == (400, "urn:runcast:problem:invalid-parameter")
    assert (await call(two_edges[0].port, path, token=owner)).body["shares"] == []


async def test_links_can_be_switched_off(redis: Redis, redis_url: str, author: Author) -> None:
    await author.begin()
    with edges(redis_url, 1, share_max_seconds=0) as (edge,):
        path = f"/api/agent/executions/{author.execution_id}/shares"
        answer = await call(edge.port, path, method="POST", token=token_for(author.user), json={})
        assert (answer.status, answer.body["title"] != "") == (403, True)


# --- others of the same org ------------------------------------------------------------------------------------------


async def test_with_org_read_others_of_the_org_are_read_and_not_changed(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    await author.begin()
    port, base = two_edges[0].port, f"/api/agent/executions/{author.execution_id}"
    colleague = token_for("colleague", scopes={"executions:read", "executions:write", "org:read"})
    stranger = token_for("stranger", org="elsewhere", scopes={"executions:read", "org:read"})
    plain = token_for("plain")
    query = f"?user={author.user}"
    assert (await call(port, base + query, token=colleague)).body["status"] == "running"
    assert len((await call(port, "/api/agent/executions" + query, token=colleague)).body["executions"]) == 1
    assert (await call(port, base + "/cancel" + query, method="POST", token=colleague, json={})).status == 403
    assert (await call(port, base + "/shares" + query, method="POST", token=colleague, json={})).status == 403
    for token in (stranger, plain):
        assert (await call(port, base + query + "&org=default", token=token)).status == 403
