"""The HTTP interface of a real edge over real sockets: who may call, what bad input gets, what never touches a key."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.base.settings import Settings
from broker.edge.edge import Edge
from broker.http import api as module
from broker.http import gateway
from emitter.events import (
    Event,
    ExecutionComplete,
    ExecutionError,
    ExecutionStarted,
    InputRequired,
    MessageDelta,
    Status,
)
from emitter.store.append import append, prepare
from emitter.wire import ids, keys
from emitter.wire.ids import EventId
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from tests.edges import ALL_SCOPES, SECRET, SSE, Answer, call, request, stream_path, token_for

ALICE = Owner("alice")
BASE = "/api/agent/executions"
STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
DONE = ExecutionComplete(result={"ok": True}, duration=1.0)
STATUS = {"type": "status", "data": {"status": "s", "message": "m"}}

REF = {"executionId": "ex_1", "attempt": 1, "fence": "f"}

# method, path, scope, a body that is accepted
ROUTES: list[tuple[str, str, str, Any]] = [
    ("GET", BASE + "/ex_1/stream", "executions:read", None),
    ("GET", "/api/agent/stream", "executions:read", None),
    ("POST", "/api/agent/execute", "executions:write", {"task": "t"}),
    ("GET", BASE, "executions:read", None),
    ("GET", BASE + "/ex_1", "executions:read", None),
    ("GET", BASE + "/ex_1/shares", "executions:read", None),
    ("POST", BASE + "/ex_1/shares", "executions:write", {}),
    ("GET", BASE + "/ex_1/request", "executions:read", None),
    ("GET", BASE + "/ex_1/events", "executions:read", None),
    ("POST", BASE + "/ex_1/events", "events:publish", STATUS),
    ("POST", BASE + "/ex_1/cancel", "executions:write", {}),
    ("POST", BASE + "/ex_1/input", "executions:write", {"inputId": "i", "value": "x"}),
    ("POST", "/api/agent/stream-tickets", "executions:read", {}),
    ("GET", "/api/agent/agents", "executions:read", None),
    ("POST", "/api/agent/jobs/claim", "jobs:run", {"worker": "w", "agents": ["a"], "waitSeconds": 0}),
    ("POST", "/api/agent/jobs/renew", "jobs:run", {"worker": "w", "jobs": []}),
    ("POST", "/api/agent/jobs/release", "jobs:run", {"worker": "w", "jobs": [REF]}),
    ("POST", "/api/admin/revocations", "admin", {"jti": "j"}),
    ("DELETE", "/api/admin/revocations", "admin", {"jti": "j"}),
]
OF_ONE = [route for route in ROUTES if "/ex_1" in route[1]]


@pytest.fixture
async def edge(redis: Redis, redis_url: str) -> AsyncIterator[Edge]:
    settings = Settings(
        redis_url=redis_url,
        host="127.0.0.1",
        port=0,
        admin_host="127.0.0.1",
        admin_port=0,
        jwt_secret=SECRET,
        drain_seconds=0,
        executes_per_minute=0,
        connects_per_minute=0,
    )
    async with Edge(settings) as edge:
        yield edge


@pytest.fixture
async def ready(edge: Edge, redis: Redis) -> Edge:
    """An edge that knows an agent, and alice's `ex_1`, which waits for an answer."""
    await redis.zadd(keys.AGENTS_KNOWN, {"analyst": ids.now_ms()})
    await log(redis, "ex_1", STARTED, InputRequired(input_id="i", prompt="?", kind="text"))
    return edge


async def log(redis: Redis, execution_id: str, *events: Event, owner: Owner = ALICE, **options: Any) -> EventId:
    prepared = [prepare(event, execution_id, redact=Redactor()) for event in events]
    return (await append(redis, owner, execution_id, prepared, **options)).last


def token(*scopes: str, user: str = "alice") -> str:
    return token_for(user, scopes=scopes or ALL_SCOPES)


async def ask(edge: Edge, method: str, path: str, value: Any = None, **options: Any) -> Answer:
    headers = options.pop("headers", {})
    return await call(edge.port, method, path, options.pop("token", token()), value, headers=headers)


async def status_of(edge: Edge, method: str, path: str, value: Any = None, **options: Any) -> int:
    """Only the status, so that a stream that opens does not need to end."""
    body = None if value is None else json.dumps(value).encode()
    async with request(edge.port, method, path, options.pop("token", token()), body=body, **options) as response:
        return response.status


def check_problem(answer: Answer, status: int, slug: str) -> dict[str, Any]:
    """A problem as RFC 9457 and the contract have it."""
    assert (answer.status, answer.body["type"]) == (status, "urn:runcast:problem:" + slug), answer.body
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.body["status"] == status
    assert answer.body["title"]
    assert answer.body["requestId"] == answer.headers["x-request-id"]
    return dict(answer.body)


# --- who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "scope", "value"), ROUTES)
async def test_every_route_asks_who_and_whether(
    ready: Edge, redis: Redis, method: str, path: str, scope: str, value: Any
) -> None:
    """Without a token a route answers 401, with every scope but its own 403, with just its own it works."""
    before = await redis.dbsize()
    answer = await ask(ready, method, path, value, token=None)
    check_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    answer = await ask(ready, method, path, value, token=token(*(ALL_SCOPES - {scope})))
    assert check_problem(answer, 403, "forbidden")["requiredScope"] == scope
    assert await redis.dbsize() == before, "a refused request leaves nothing behind"
    assert await status_of(ready, method, path, value, token=token(scope)) in (200, 201, 202, 204)


@pytest.mark.parametrize(("method", "path", "scope", "value"), OF_ONE)
async def test_another_users_execution_is_as_unknown_as_none(
    ready: Edge, redis: Redis, method: str, path: str, scope: str, value: Any
) -> None:
    """Another user, and one of the same name in another org, get the same 404 as for what does not exist."""
    for stranger in (token(user="bob"), token_for("alice", org="other", scopes=ALL_SCOPES)):
        theirs = await ask(ready, method, path, value, token=stranger)
        nobodys = await ask(ready, method, path.replace("ex_1", "ex_none"), value, token=stranger)
        check_problem(theirs, 404, "unknown-execution")
        strip = {"requestId": None}
        assert theirs.body | strip == nobodys.body | strip
    assert [key for key in await redis.keys("*:x:*") if b"{default:alice}" not in key] == []


async def test_an_admin_may_act_for_another(ready: Edge) -> None:
    """`?user=` names another user for an admin, and nobody else; the audit sees who really asked."""
    path = BASE + "/ex_1?user=alice"
    assert (await ask(ready, "GET", path, token=token("executions:read", "admin", user="root"))).status == 200
    check_problem(await ask(ready, "GET", path, token=token("executions:read", user="bob")), 403, "forbidden")
    check_problem(await ask(ready, "GET", BASE + "/ex_1?user=a%00", token=token()), 422, "invalid")


async def test_a_ticket_opens_one_stream(ready: Edge) -> None:
    """A ticket opens its stream, again too, and nothing else."""
    answer = await ask(ready, "POST", "/api/agent/stream-tickets", {"executionId": "ex_1"})
    assert answer.status == 201
    ticket = answer.body["ticket"]
    assert await status_of(ready, "GET", BASE + f"/ex_1?ticket={ticket}", token=None) == 401
    assert await status_of(ready, "GET", stream_path("ex_1", f"ticket={ticket}"), token=None) == 200
    assert await status_of(ready, "GET", stream_path("ex_1", f"ticket={ticket}"), token=None) == 200
    ticket = (await ask(ready, "POST", "/api/agent/stream-tickets", {"executionId": "ex_1"})).body["ticket"]
    assert await status_of(ready, "GET", stream_path("ex_2", f"ticket={ticket}"), token=None) == 403
    ticket = (await ask(ready, "POST", "/api/agent/stream-tickets", {"executionId": "ex_1"})).body["ticket"]
    assert await status_of(ready, "GET", f"/api/agent/stream?ticket={ticket}", token=None) == 403


# --- ids -------------------------------------------------------------------------------------------------------------

HOSTILE = [
    "..",
    ".",
    "..%2f..%2fetc",
    "%2e%2e",
    "a%2Fb",
    "%00",
    "a%00b",
    "ex_1%0d%0aX-Evil:%201",
    "ex_1%0a",
    "%7Bx%7D",
    "{x}",
    "a:b",
    "a%3Ab",
    "*",
    "ex_%3F",
    "ex%201",
    "%F0%9F%98%80",
    "%ff",
    "%",
    "x" * 65,
    "x" * 5000,
    "ex_1;a",
    "ex_1%3Bb",
]


@pytest.mark.parametrize("execution_id", HOSTILE)
async def test_an_id_that_cannot_be_never_touches_a_key(ready: Edge, redis: Redis, execution_id: str) -> None:
    """Traversal, braces, line ends, percent-encodings and the like are a 404 on every route, without asking Redis."""
    async with redis.monitor() as monitor:
        for method, path, _, value in OF_ONE:
            hostile = path.replace("ex_1", execution_id)
            async with request(
                ready.port, method, hostile, token(), body=None if value is None else json.dumps(value).encode()
            ) as response:
                assert response.status in (404, 405), hostile
                assert "x-evil" not in response.headers
        await redis.echo("all asked")
        asked = []
        while "all asked" not in (command := (await monitor.next_command())["command"]):
            asked.append(command.lower())
    touching = {"hmget", "hget", "hgetall", "xrange", "xrevrange", "evalsha", "eval", "get"}
    # What the edge does by itself goes on; it names no user.
    assert not {command.split()[0] for command in asked if "alice" in command} & touching


async def test_ids_in_bodies_are_checked_as_well(ready: Edge, redis: Redis) -> None:
    """An execution id in a body is refused with its field, and makes no key."""
    before = await keys_of(redis)
    for bad in ("", "a b", "{x}", "a:b", "x" * 65, "a\nb", "é", 5):
        answer = await ask(ready, "POST", "/api/agent/execute", {"task": "t", "executionId": bad})
        assert check_problem(answer, 422, "invalid")["path"] == "$.executionId"
        answer = await ask(ready, "POST", "/api/agent/stream-tickets", {"executionId": bad})
        assert check_problem(answer, 422, "invalid")["path"] == "$.executionId"
    assert await keys_of(redis) == before


async def keys_of(redis: Redis) -> set[bytes]:
    """All but the rates: those name users, and nothing that a request says."""
    return {key for key in await redis.keys() if b":rate:" not in key}


# --- bodies ----------------------------------------------------------------------------------------------------------

WITH_BODY = [route for route in ROUTES if route[3] is not None]


@pytest.mark.parametrize(("method", "path", "scope", "value"), WITH_BODY)
async def test_bad_json_is_a_400(ready: Edge, method: str, path: str, scope: str, value: Any) -> None:
    """What is not JSON, or not UTF-8, is malformed."""
    for body in (b"{", b"nonsense", b"\xff"):
        check_problem(await ask(ready, method, path, body), 400, "malformed")
    names = ("task", "reason", "inputId", "executionId", "jti", "type", "worker")
    answers = [await ask(ready, method, path, b'{"%b":"\xff"}' % name.encode()) for name in names]
    # A request of shares has no text that could be no UTF-8.
    expected = {422} if path.endswith("/shares") else {400, 422}
    assert {answer.status for answer in answers} == expected, "400 where the field is known"


@pytest.mark.parametrize(("method", "path", "scope", "value"), WITH_BODY)
async def test_a_field_that_is_not_known_is_named(
    ready: Edge, method: str, path: str, scope: str, value: dict[str, Any]
) -> None:
    """An unknown field, and a body of another kind, are a 422."""
    answer = await ask(ready, method, path, value | {"surprise": 1})
    assert "surprise" in check_problem(answer, 422, "invalid")["detail"]
    for body in (b"[]", b"1", b'"x"', b"null"):
        check_problem(await ask(ready, method, path, body), 422, "invalid")


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("/api/agent/execute", {}, "$.task"),
        ("/api/agent/execute", {"task": ""}, "$.task"),
        ("/api/agent/execute", {"task": 5}, "$.task"),
        ("/api/agent/execute", {"task": "x" * 65_537}, "$.task"),
        ("/api/agent/execute", {"task": "t", "agent": "nobody"}, "$.agent"),
        ("/api/agent/execute", {"task": "t", "params": [1]}, "$.params"),
        ("/api/agent/execute", {"task": "t", "metadata": {str(n): n for n in range(65)}}, "$.metadata"),
        (BASE + "/ex_1/cancel", {"reason": 5}, "$.reason"),
        (BASE + "/ex_1/cancel", {"reason": "x" * 1025}, "$.reason"),
        (BASE + "/ex_1/input", {"inputId": "i"}, "$.value"),
        (BASE + "/ex_1/input", {"inputId": "i", "value": 5}, "$.value"),
        (BASE + "/ex_1/events", {"type": "status", "data": {"status": 5, "message": ""}}, "$.status"),
    ],
)
async def test_the_field_at_fault_is_named(ready: Edge, path: str, value: Any, field: str) -> None:
    """A field that is missing or does not fit is a 422 with its path."""
    assert (await ask(ready, "POST", path, value)).body["path"] == field


HOSTILE_JSON = {
    "deep": b'{"task":"t","params":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "huge number": b'{"task":"t","params":{"a":' + b"9" * 6_000 + b"}}",
    "overflow": b'{"task":"t","params":{"a":1e999}}',
    "lone surrogate": b'{"task":"\\ud800"}',
}


@pytest.mark.parametrize("kind", HOSTILE_JSON)
async def test_hostile_json_is_the_callers_fault(ready: Edge, kind: str) -> None:
    """JSON made to break parsers is a clear refusal, and never the server's failure."""
    answer = await ask(ready, "POST", "/api/agent/execute", HOSTILE_JSON[kind])
    assert answer.status in (400, 413, 422), answer.body
    answer = await ask(ready, "POST", BASE + "/ex_1/input", HOSTILE_JSON[kind].replace(b'"task"', b'"inputId"'))
    assert answer.status in (400, 413, 422), answer.body


async def test_a_body_that_is_too_large_is_a_413(ready: Edge) -> None:
    """Over the limit the body is refused, plain or compressed, and so is an event over its own limit."""
    large = b'{"task":"' + b"x" * module.MAX_BODY_BYTES + b'"}'
    assert (await ask(ready, "POST", "/api/agent/execute", large)).status == 413
    bomb = gzip.compress(large)
    answer = await ask(ready, "POST", "/api/agent/execute", bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status == 413
    event = {"type": "custom:x", "data": {"a": "x" * 100_000}}
    problem = check_problem(await ask(ready, "POST", BASE + "/ex_1/events", event), 413, "payload-too-large")
    assert problem["limit"] == 65_536


async def test_a_body_whose_coding_lies_is_a_400(ready: Edge) -> None:
    """A body that says gzip and is not is the caller's fault."""
    answer = await ask(ready, "POST", "/api/agent/execute", b'{"task":"t"}', headers={"Content-Encoding": "gzip"})
    assert answer.status == 400


async def test_a_slow_body_is_a_408(ready: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not come in time is given up, on every route that reads one."""
    monkeypatch.setattr(gateway, "BODY_SECONDS", 0.05)
    for path in ("/api/agent/execute", BASE + "/ex_1/events"):
        reader, writer = await asyncio.open_connection("127.0.0.1", ready.port)
        head = f"POST {path} HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer {token()}\r\nContent-Length: 100\r\n\r\n"
        writer.write(head.encode() + b"{")
        async with asyncio.timeout(5):
            assert b" 408 " in await reader.readline()
        writer.transport.abort()


# --- headers and methods ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        ("abc-1.2_3", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("a b", False),
        ("é", False),
        ("", False),
        ("a;b", False),
    ],
)
async def test_a_sane_request_id_is_kept(ready: Edge, given: str, is_kept: bool) -> None:
    """A sane `X-Request-ID` comes back, on success and on error; any other is replaced."""
    for path in (BASE, BASE + "/ex_none"):
        async with request(ready.port, "GET", path, token(), headers={"X-Request-ID": given}) as response:
            assert (response.headers["x-request-id"] == given) is is_kept
            assert response.headers["x-request-id"]


async def test_a_request_id_injects_no_header(ready: Edge) -> None:
    """Line ends in any guise within a request id make no header of ours."""
    for evil in (b"a\rX-Evil: 1", b"a\x0bX-Evil: 1", b"a%0d%0aX-Evil: 1", b"a\\r\\nX-Evil: 1"):
        reader, writer = await asyncio.open_connection("127.0.0.1", ready.port)
        writer.write(b"GET /api/agent/agents HTTP/1.1\r\nHost: e\r\nConnection: close\r\nX-Request-ID: " + evil)
        writer.write(b"\r\n\r\n")
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.transport.abort()
        head = answer.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
        assert head[0].split()[1] in (b"400", b"401")
        assert not [line for line in head if line.startswith(b"x-evil")]
        assert b"\n" not in b"".join(head)


async def test_a_stream_has_no_head_and_no_other_methods(ready: Edge) -> None:
    """HEAD, which would open a stream for nobody, and other methods are a 405 with what is allowed."""
    for path in (stream_path("ex_1"), "/api/agent/stream"):
        for method in ("HEAD", "POST", "DELETE", "PUT"):
            async with request(ready.port, method, path, token(), headers=SSE) as response:
                assert (response.status, response.headers["allow"]) == (405, "GET")
    check_problem(await ask(ready, "DELETE", BASE + "/ex_1"), 405, "method-not-allowed")
    check_problem(await ask(ready, "GET", "/api/nothing"), 404, "not-found")
    assert len(ready.streams) == 0


async def test_answers_are_not_cached(ready: Edge) -> None:
    """What is a user's is never stored by caches on the way."""
    for path in (BASE, BASE + "/ex_1", BASE + "/ex_none", "/api/agent/agents"):
        assert (await ask(ready, "GET", path)).headers["cache-control"] == "no-store"


# --- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (BASE + "?limit=0", "limit"),
        (BASE + "?limit=201", "limit"),
        (BASE + "?limit=x", "limit"),
        (BASE + "?limit=1e2", "limit"),
        (BASE + "?limit=-1", "limit"),
        (BASE + "?state=gone", "state"),
        (BASE + "?since=yesterday", "since"),
        (BASE + "?until=-1", "until"),
        (BASE + "?q=" + "x" * 201, "q"),
        (BASE + "?cursor=zz", "cursor"),
        (BASE + "/ex_1/events?after=zz", "after"),
        (BASE + "/ex_1/events?after=1", "after"),
        (BASE + "/ex_1/events?limit=5000", "limit"),
        (BASE + "/ex_1/events?compact=1", "compact"),
        (stream_path("ex_1", "compact=yes"), "compact"),
        (stream_path("ex_1", "from=yesterday"), "from"),
        (stream_path("ex_1", "types=A"), "types"),
        (stream_path("ex_1", "types="), "types"),
        (stream_path("ex_1", "lastEventId=zz"), "Last-Event-ID"),
    ],
)
async def test_a_parameter_that_is_not_understood_is_named(ready: Edge, path: str, field: str) -> None:
    """A bad parameter is a 400 with its name, and not a default."""
    answer = await ask(ready, "GET", path)
    assert (answer.status, answer.body["path"]) == (400, field)


@pytest.mark.parametrize("key", ["x" * 256, "é"])
async def test_an_idempotency_key_has_bounds(ready: Edge, key: str) -> None:
    """A key that is too long or not printable is a 400."""
    answer = await ask(ready, "POST", "/api/agent/execute", {"task": "t"}, headers={"Idempotency-Key": key})
    check_problem(answer, 400, "invalid-parameter")


# --- what the routes do ----------------------------------------------------------------------------------------------


async def test_execute_look_answer_cancel(ready: Edge, redis: Redis) -> None:
    """The life of an execution over HTTP: accepted, listed, looked at, asked for, cancelled."""
    headers = {"Idempotency-Key": "k"}
    wanted = {"task": "do it", "params": {"n": 1, "api_key": "k"}}
    first = await ask(ready, "POST", "/api/agent/execute", wanted, headers=headers)
    assert (first.status, first.body["state"]) == (202, "queued")
    execution_id = first.body["executionId"]
    assert first.body["streamUrl"] == stream_path(execution_id)
    again = await ask(ready, "POST", "/api/agent/execute", wanted, headers=headers)
    assert again.body == first.body
    listed = await ask(ready, "GET", BASE + "?state=queued")
    assert [each["executionId"] for each in listed.body["executions"]] == [execution_id]
    for path in (f"{BASE}/{execution_id}", f"{BASE}/{execution_id}/request"):
        found = (await ask(ready, "GET", path)).body
        assert (found["task"], found["params"]) == ("do it", {"n": 1, "api_key": "[redacted]"})
    assert all("params" not in each for each in listed.body["executions"])
    answered = await ask(ready, "POST", BASE + "/ex_1/input", {"inputId": "i", "value": "yes"})
    assert answered.status == 202
    late = await ask(ready, "POST", BASE + "/ex_1/input", {"inputId": "i", "value": "no"})
    assert check_problem(late, 409, "already-answered")["answeredBy"] == "alice"
    for _ in range(2):
        cancelled = await ask(ready, "POST", f"{BASE}/{execution_id}/cancel", {"reason": "enough"})
        assert (cancelled.status, cancelled.body["state"]) == (202, "cancelled")
    await log(redis, "ex_1", DONE)
    answer = await ask(ready, "POST", BASE + "/ex_1/cancel")
    assert check_problem(answer, 409, "execution-ended")["state"] == "completed"


async def test_the_log_is_paged_and_exported(ready: Edge, redis: Redis) -> None:
    """The log is JSON pages, or all of it as NDJSON: the same events with the same ids."""
    await log(redis, "ex_1", *(Status(status="s", message=str(n)) for n in range(300)))
    found, after = [], ""
    while after is not None:
        page = (await ask(ready, "GET", f"{BASE}/ex_1/events?limit=150" + (f"&after={after}" if after else ""))).body
        found += page["events"]
        after = page.get("nextAfter")
    headers = {"Accept": "application/x-ndjson"}
    async with request(ready.port, "GET", BASE + "/ex_1/events", token(), headers=headers) as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = (await response.body()).splitlines()
        assert response.whole
    assert [json.loads(line) for line in lines] == found
    assert [int(each["id"].partition("-")[2]) for each in found] == list(range(1, 303))


async def test_a_page_of_the_log_in_short(ready: Edge, redis: Redis) -> None:
    """With `compact` neighbouring chunks of one text are one event with the last one's id, page by page."""
    await log(redis, "ex_1", *(MessageDelta(message_id="m", delta=f"{n} ") for n in range(100)))
    path = f"{BASE}/ex_1/events?compact=true&limit=60"
    first = (await ask(ready, "GET", path)).body
    plain = (await ask(ready, "GET", f"{BASE}/ex_1/events?limit=60")).body
    assert [each["id"] for each in first["events"]] == [plain["events"][at]["id"] for at in (0, 1, 59)]
    assert first["events"][:2] == plain["events"][:2]
    assert first["events"][2]["event"]["data"]["delta"] == "".join(f"{n} " for n in range(58))
    assert first["nextAfter"] == plain["nextAfter"] == first["events"][2]["id"]
    rest = (await ask(ready, "GET", f"{path}&after={first['nextAfter']}")).body
    assert [each["event"]["data"]["delta"] for each in rest["events"]] == ["".join(f"{n} " for n in range(58, 100))]


async def test_a_published_event_is_in_the_log(ready: Edge) -> None:
    """Publishing appends, a repeat with its producer does not, and the answer says so."""
    headers = {"Producer-Id": "p", "Producer-Seq": "1"}
    for appended in (1, 0):
        answer = await ask(ready, "POST", BASE + "/ex_1/events", STATUS, headers=headers)
        assert (answer.status, answer.body["appended"]) == (202, appended)
    lines = b"\n".join([json.dumps(STATUS).encode()] * 3)
    answer = await ask(ready, "POST", BASE + "/ex_1/events", lines, headers={"Content-Type": "application/x-ndjson"})
    assert answer.body["appended"] == 3


async def test_the_stack_needs_its_scope(ready: Edge, redis: Redis) -> None:
    """An error's stack is in the state for scope executions:debug only."""
    await log(redis, "ex_2", STARTED, ExecutionError(error="e"), fields={"stack": "Traceback"})
    reader, debugger = token("executions:read"), token("executions:read", "executions:debug")
    assert (await ask(ready, "GET", BASE + "/ex_2", token=reader)).body["error"].get("stack") is None
    assert (await ask(ready, "GET", BASE + "/ex_2", token=debugger)).body["error"]["stack"] == "Traceback"


async def test_a_revoked_token_is_out(ready: Edge) -> None:
    """After a revocation the user's open streams end and requests with earlier tokens are refused."""
    before = token()
    async with request(ready.port, "GET", stream_path("ex_1"), before, headers=SSE) as stream:
        answer = await ask(ready, "POST", "/api/admin/revocations", {"user": "alice"}, token=token(user="root"))
        assert answer.status == 202
        async with asyncio.timeout(5):
            frames = [frame async for frame in stream.frames()]
        assert json.loads(frames[-1].data or "") == {"reason": "revoked"}
        assert (await ask(ready, "GET", BASE, token=before)).body["reason"] == "revoked"
    assert (await ask(ready, "GET", BASE)).status == 200, "who logged in again"


async def test_every_result_is_counted(ready: Edge) -> None:
    """Accepted, repeated, refused and invalid requests move their own counters."""
    headers = {"Idempotency-Key": "k"}
    for value in ({"task": "t"}, {"task": "t"}):
        await ask(ready, "POST", "/api/agent/execute", value, headers=headers)
    await ask(ready, "POST", "/api/agent/execute", {"task": 5})
    await ask(ready, "POST", "/api/agent/execute", {"task": "t", "agent": "x"})
    await ask(ready, "POST", "/api/agent/execute", {"task": "t"}, token=None)
    counted = {name: counter._value.get() for name, counter in ready.metrics.executes.items()}
    assert {name: counted[name] for name in ("accepted", "repeated", "invalid", "unknown_agent")} == {
        "accepted": 1, "repeated": 1, "invalid": 1, "unknown_agent": 1,
    }  # fmt: skip
    assert ready.metrics.auth_failures["missing"]._value.get() == 1
