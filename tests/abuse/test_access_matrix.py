"""Every route and method of an edge against every kind of caller. The routes are those of a real edge: one without a
row in `access_table.py` fails by its name."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from broker.auth.tokens import mint
from broker.base.settings import Settings
from broker.edge.edge import Edge
from broker.protocols.a2a.rpc import Rpc
from broker.protocols.mcp.routes import Mcp
from emitter import tasks
from emitter.store import announcements
from emitter.store.announcements import AgentInfo, Example, WorkerInfo
from emitter.wire.record import FORMAT
from tests.abuse.access_table import ADMIN_PORT, ROWS, Row
from tests.abuse.asking import Answer, Asking, Caller, Target, prepared, state_of, target
from tests.edges import ALL_SCOPES, SECRET, EdgeProcess, call, edges, token_for, under_load
from tests.receivers import SETTINGS

pytestmark = pytest.mark.timeout(180)

AT_ONCE = 24
UNLIMITED = dict.fromkeys(
    ("executes_per_minute", "publishes_per_minute", "reads_per_minute", "answers_per_minute", "cancels_per_minute",
     "tickets_per_minute", "max_connections_per_user", "max_requests_per_user"), 0,
)  # fmt: skip
HEADS = ("nobody", "foreign user", "cookie of a foreign page")
"""Who asks with HEAD as well, where GET has it."""
UNUSED = ("PUT", "PATCH", "DELETE")
"""Methods that few routes have."""


# --- who asks ---------------------------------------------------------------------------------------------------------


def strangers(row: Row, of: Target, links: Mapping[str, str]) -> Iterator[Caller]:
    """Everybody but the owner, an admin, and who has a ticket. `links`: for what → the share link."""
    user, needs = of.user, row.needs
    if not needs:
        yield Caller("nobody", (row.owner,))
        yield Caller("forged", (row.owner,), "x.y.z")
        return
    refused, some = (401,), set(ALL_SCOPES) - {"admin"}
    yield Caller("nobody", refused)
    yield Caller("forged", refused, mint("x" * 40, user, scopes=ALL_SCOPES, ttl=60, now=time.time()), general=True)
    yield Caller("expired", refused, token_for(user, scopes=ALL_SCOPES, ttl=-60), general=True)
    yield Caller("revoked token", refused, REVOKED, general=True)
    yield Caller("revoked user", refused, REVOKED_USER, general=True)
    yield Caller("foreign user", (row.foreign,), token_for("mallory", scopes=some), says=row.says)
    yield Caller("foreign org", (row.foreign,), token_for(user, org="other", scopes=some), says=row.says)
    yield Caller("no admin for another user", (403,), token_for("mallory", scopes=some), f"user={user}")
    yield Caller(
        "no admin for another org", (403,), token_for(user, org="other", scopes=some), "org=default", general=True
    )
    for scope in needs:
        yield Caller(f"without {scope}", (403,), token_for(user, scopes=ALL_SCOPES - {scope}), says=scope)
    if needs != ("admin",):
        yield Caller(
            "admin without the scopes", (403,), token_for("root", scopes={"admin"}), f"user={user}", general=True
        )
    cookie = {"Cookie": f"runcast_token={token_for(user, scopes=ALL_SCOPES)}"}
    yield Caller("cookie of a foreign page", (403,), headers={**cookie, "Origin": "https://evil.example"}, general=True)
    what = "without Origin" if row.method != "GET" else "of a foreign site"
    site = {} if row.method != "GET" else {"Sec-Fetch-Site": "cross-site"}
    yield Caller(f"cookie {what}", (403,), headers={**cookie, **site})
    is_readable = set(needs) <= {"executions:read"}
    reader = token_for("mallory", scopes=some | {"org:read"})
    yield Caller("reader of the org", (row.owner if is_readable else 403,), reader, f"user={user}", shows=is_readable)
    elsewhere = token_for(user, org="other", scopes=some | {"org:read"})
    yield Caller("reader of another org", (403,), elsewhere, "org=default", general=True)
    yield from _links(row, of, links)


def ticketed(row: Row, of: Target, whose: str, ticket: str) -> Iterator[Caller]:
    """A ticket is for streams of its user, or for one of them; where it is not taken it is no token."""
    status = 401 if not row.ticket else row.foreign if whose == "mallory" else 403
    yield Caller(f"ticket of {whose}", (status,), query=f"ticket={ticket}")
    if row.ticket:
        yield Caller(f"ticket of {whose} for another user", (403,), query=f"ticket={ticket}&user=somebody")


def _links(row: Row, of: Target, links: Mapping[str, str]) -> Iterator[Caller]:
    """A share link shows one execution, where that may be read by one, and is good for nothing else."""
    mine, other = links["this"], links["another"]
    yield Caller("link", (row.owner if row.shared else 403,), mine, shows=row.shared)
    yield Caller("link to another", (403,), other)
    yield Caller("link for another user", (403,), other, f"user={of.user}", general=True)
    yield Caller("link of nothing", (401,), "share_" + "x" * 32, general=True)


REVOKED, REVOKED_USER = token_for("somebody", scopes=ALL_SCOPES), token_for("revoked", scopes=ALL_SCOPES)


# --- the edges --------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(redis_url: str) -> Iterator[list[EdgeProcess]]:
    """Two edges that limit nobody's rates."""
    with edges(redis_url, 2, **SETTINGS, **UNLIMITED) as started:
        yield started


@pytest.fixture
async def agents(redis: Redis) -> AsyncIterator[None]:
    """A live worker, as its announcement says, of the agent `matrix` and another: a start must name one."""
    matrix = AgentInfo(name="matrix", description="d", accepts_messages=True, examples=(Example(task="t"),))
    info = WorkerInfo(
        id="w", host="h", pid=1, concurrency=1, running=0, agents=(matrix, AgentInfo(name="x", description=""))
    )

    async def live() -> None:
        while True:
            await announcements.announce(redis, info)
            await asyncio.sleep(3)

    task = asyncio.create_task(live())
    yield
    await tasks.end([task])


@pytest.fixture
def asking(asked: list[EdgeProcess], agents: None) -> Asking:
    return Asking([edge.port for edge in asked])


def routes_of(edge: Edge) -> dict[str, Any]:
    """`GET /path` → its handler."""
    found = list(edge._app()[0].router.routes())
    return {f"{route.method} {route.resource.canonical}": route.handler for route in found if route.resource}


def rpc_methods(routes: Mapping[str, Any]) -> set[str]:
    """The methods of the JSON-RPC endpoints, as rows have them."""
    found = set()
    for ask, handler in routes.items():
        match getattr(handler, "__self__", None):
            case Rpc() as rpc if ask == "POST /a2a":
                found |= {f"{ask} {method}" for method in rpc._methods}
            case Mcp() as mcp if ask == "POST /mcp":
                found |= {f"{ask} {method} (2026)" for method in mcp._modern}
                found |= {f"{ask} {method} (2025)" for method in mcp._legacy}
    return found


# --- the matrix -------------------------------------------------------------------------------------------------------


async def ticket_of(asking: Asking, of: Target, user: str, execution_id: str | None = None) -> str:
    body = {} if execution_id is None else {"executionId": execution_id}
    row = Row("POST /api/agent/stream-tickets", body=body)
    answer = await asking.ask(row, of, Caller("", (201,), token_for(user, scopes=ALL_SCOPES)))
    assert answer.status == 201, answer
    return str(answer.json["ticket"])


async def link_to(asking: Asking, of: Target) -> str:
    row = Row("POST /api/agent/executions/{id}/shares", body={})
    answer = await asking.ask(row, of, Caller("", (201,), token_for(of.user, scopes=ALL_SCOPES)))
    assert answer.status == 201, answer
    return str(answer.json["token"])


async def wrong(asking: Asking, redis: Redis, row: Row, *, has_head: bool, every: int) -> list[str]:
    """What is not as the row says. Of the callers whom one piece of code refuses on all routes, each row has every
    third (`every`), so that all have some."""
    found: list[str] = []

    async def check(caller: Caller, of: Target, method: str = "", *, shows: bool = False) -> Answer:
        def is_told(text: str) -> bool:
            return caller.says in text and (not shows or of.is_in(text))

        answer = await asking.ask(row, of, caller, method=method, until=is_told)
        if answer.status not in caller.statuses:
            found.append(f"{row.name} {method} by {caller.name}: {answer.status}, not {caller.statuses}: {answer.end}")
        elif caller.says and not method and caller.says not in answer.text:
            found.append(f"{row.name} by {caller.name}: no {caller.says!r} in {answer.end}")
        return answer

    of, other = await prepared(asking, redis, row), await prepared(asking, redis, row)
    links = {"this": await link_to(asking, of), "another": await link_to(asking, other)}
    before, names_it = await state_of(redis, of.owner), "{id}" in repr(row)

    async def check_all(callers: Iterable[Caller]) -> None:
        for place, caller in enumerate(callers, ROWS.index(row)):
            if caller.general and place % every:
                continue
            for method in ("", "HEAD") if has_head and caller.name in HEADS else ("",):
                answer = await check(caller, of, method)
                is_shown = of.marker in answer.text or (not names_it and of.is_in(answer.text))
                if is_shown and not caller.shows:
                    found.append(f"{row.name} shows the owner's to {caller.name}")

    await check_all(strangers(row, of, links))
    # Of the owner for something else; where there is but one thing, a ticket is for all of the owner's.
    bound = "another" if row.is_for_one else of.names["id"] if row.ticket else None
    tickets = [("mallory", "mallory", None), ("the owner", of.user, bound)] if row.needs else []
    for whose, user, execution_id in tickets:
        await check_all(ticketed(row, of, whose, await ticket_of(asking, of, user, execution_id)))
    if await state_of(redis, of.owner) != before:
        found.append(f"{row.name} let somebody change the owner's")
    everything = token_for(of.user, scopes=ALL_SCOPES)
    root = token_for("root", scopes=ALL_SCOPES)
    admin = Caller("admin", (row.admin or row.owner,), root, f"user={other.user}")
    for caller, whose in ((admin, other), (Caller("owner", (row.owner,), everything), of)):
        answer = await check(caller, whose, shows=row.shows)
        if row.shows and not whose.is_in(answer.text):
            found.append(f"{row.name} does not show the owner's to {caller.name}: {answer.end}")
    return found + await newer(asking, redis, row)


async def newer(asking: Asking, redis: Redis, row: Row) -> list[str]:
    """The same for an execution whose record is of a format that this version does not know: it changes nothing, and
    says why not."""
    if not row.newer:
        return []
    of, client = await prepared(asking, redis, row), cast("Any", redis)
    for id_ in await client.zrange(of.owner.index, 0, -1):
        await client.hset(of.owner.execution(id_.decode()).record, "format", FORMAT + 1)
    before = await state_of(redis, of.owner)
    answer = await asking.ask(row, of, Caller("owner", (), token_for(of.user, scopes=ALL_SCOPES)))
    is_same = await state_of(redis, of.owner) == before
    is_told = answer.status == row.newer and (row.newer != 503 or "this edge knows up to" in answer.text)
    return [] if is_same and is_told else [f"{row.name} of a newer record: {answer.status}, {is_same=}: {answer.end}"]


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.abuse_long)])
async def test_who_may_do_what(
    asking: Asking, asked: list[EdgeProcess], redis: Redis, redis_url: str, every: int
) -> None:
    """Nobody but the owner, and an admin who names them, sees or changes anything, on any route of any protocol; and
    both may with exactly the scopes that the table says."""
    settings = Settings(redis_url=redis_url, host="127.0.0.1", port=0, admin_host="127.0.0.1", admin_port=0,
                        jwt_secret=SECRET, drain_seconds=0)  # fmt: skip
    async with Edge(settings) as edge:
        routes = routes_of(edge)
    asks = {route for route in routes if not route.startswith("HEAD ")} | rpc_methods(routes)
    rows = {row.ask for row in ROWS} | {row.name for row in ROWS}
    assert sorted(asks - rows) == [], "no row in access_table.py"
    assert sorted({row.name for row in ROWS if not row.rpc} - asks) == [], "no route for these rows"
    await revoke(asked)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(row: Row) -> list[str]:
        async with room:
            return await wrong(asking, redis, row, has_head=f"HEAD {row.ask}" in routes, every=every)

    async with asyncio.timeout(150), asyncio.TaskGroup() as group:  # one that fails ends the others
        running = [group.create_task(one(row)) for row in ROWS]
        running.append(group.create_task(unused(asking, redis, asks)))
    found = [task.result() for task in running]
    assert not (bad := [each for some in found for each in some]), "\n".join(bad)


async def unused(asking: Asking, redis: Redis, asks: Iterable[str]) -> list[str]:
    """Which methods that a path does not have are answered all the same."""
    of, found = await target(redis), []
    owner = Caller("owner", (), token_for(of.user, scopes=ALL_SCOPES))
    for path in sorted({ask.split(" ")[1] for ask in asks}):
        for method in UNUSED:
            if f"{method} {path}" not in asks:
                answer = await asking.ask(Row(f"{method} {path}"), of, owner)
                if answer.status not in (404, 405):
                    found.append(f"{method} {path}: {answer.status}")
    return found


async def revoke(edges: Sequence[EdgeProcess]) -> None:
    """Revoke `REVOKED`, and the user of `REVOKED_USER`, and wait until every edge knows of both."""
    each_asking = [Asking([edge.port]) for edge in edges]
    of, root = Target("root", "", {}), token_for("root", scopes=ALL_SCOPES)
    jti = json.loads(base64.urlsafe_b64decode(REVOKED.split(".")[1] + "=="))["jti"]
    for body in ({"jti": jti}, {"user": "revoked"}):
        row = Row("POST /api/admin/revocations", body=body)
        assert (await each_asking[0].ask(row, of, Caller("root", (), root))).status == 202
    listing = Row("GET /api/agent/executions")
    async with asyncio.timeout(under_load(10)):
        for asking in each_asking:
            for token in (REVOKED, REVOKED_USER):
                while (await asking.ask(listing, of, Caller("revoked", (), token))).status != 401:
                    await asyncio.sleep(0.02)


async def test_the_admin_port_is_apart(two_edges: list[EdgeProcess]) -> None:
    """What the cluster asks is answered to everybody there, and to nobody on the public port."""
    edge = two_edges[0]
    for row in ADMIN_PORT:
        assert edge.admin_status(row.path) == row.owner
        assert (await call(edge.port, "GET", row.path, token_for("root", scopes=ALL_SCOPES))).status == 404
