"""What all protocols of an edge have in common: starts, answers and cancels are counted and logged in the same way, and
room for a stream is had before anything is started for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from broker.base.settings import Settings
from broker.edge.edge import Edge
from broker.protocols.a2a.tasks import Tasks
from emitter import tasks
from emitter.events import ExecutionStarted, InputRequired
from emitter.wire import ids, keys
from emitter.wire.keys import Owner
from emitter.wire.record import FORMAT
from tests.edges import ALL_SCOPES, LONGEST_SECONDS, SECRET, SSE, Author, call, eventually, request, token_for

Json = dict[str, Any]
JSON = {"Content-Type": "application/json"}
NEW = {"A2A-Version": "1.0"}
PROTOCOLS = ["native", "ai_sdk", "ag_ui", "a2a"]
STREAMING = ["ai_sdk", "ag_ui", "a2a", "a2a_blocking"]
STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
_numbers = itertools.count(1)


@contextlib.asynccontextmanager
async def serving(redis: Redis, redis_url: str, **settings: Any) -> AsyncIterator[Edge]:
    """An edge of this process that knows the agent `a`, which no worker runs."""
    await redis.zadd(keys.AGENTS_KNOWN, {"a": ids.now_ms()})
    given = {"executes_per_minute": 0, "connects_per_minute": 0, **settings}
    addresses = {"host": "127.0.0.1", "port": 0, "admin_host": "127.0.0.1", "admin_port": 0}
    async with Edge(Settings(redis_url=redis_url, jwt_secret=SECRET, drain_seconds=0, **addresses, **given)) as edge:
        yield edge


def start_of(protocol: str, text: str = "t") -> tuple[str, dict[str, str], Json]:
    """Path, headers and body of a request to start an execution; sent again it is a repeat."""
    name = f"r{next(_numbers)}"
    key = {"Idempotency-Key": name}
    if protocol == "native":
        return "/api/agent/execute", key, {"task": text, "agent": "a"}
    if protocol == "ai_sdk":
        said = {"id": name, "role": "user", "parts": [{"type": "text", "text": text}]}
        return "/api/agent/chat", {}, {"id": "c", "messages": [said], "agent": "a"}
    if protocol == "ag_ui":
        said = {"id": "u", "role": "user", "content": text}
        return "/ag-ui/a", {}, {"threadId": "c", "runId": name, "messages": [said]}
    parts = {"messageId": name, "role": "ROLE_USER", "contextId": "c", "parts": [{"text": text}]}
    return a2a("SendMessage" if protocol == "a2a_blocking" else "SendStreamingMessage", {"message": parts}, **key)


def a2a(method: str, params: Json, **headers: str) -> tuple[str, dict[str, str], Json]:
    given = NEW | {name.replace("_", "-"): value for name, value in headers.items()}
    return "/a2a/a", given, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


async def send(edge: Edge, author: Author, asked: tuple[str, dict[str, str], Json], token: str = "") -> int:
    """The status; a stream is left as soon as it is there."""
    path, headers, body = asked
    given = JSON | headers
    body_ = json.dumps(body).encode()
    async with request(edge.port, "POST", path, token or author.token, headers=given, body=body_) as response:
        return response.status


async def executions(author: Author) -> list[str]:
    return [member.decode() for member in await author.redis.zrange(author.owner.index, 0, -1)]


def counted(edge: Edge) -> dict[str, float]:
    found = {name: counter._value.get() for name, counter in edge.metrics.executes.items()}
    return {str(name): value for name, value in found.items() if value}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_starts_are_counted_and_logged(redis: Redis, redis_url: str, author: Author, protocol: str) -> None:
    """A start is counted and in the log, as is its repeat, which starts nothing; what does not fit is counted, and what
    is too much for one minute."""
    asked = start_of(protocol)
    async with serving(redis, redis_url, executes_per_minute=4) as edge:
        with capture_logs() as lines:
            assert {await send(edge, author, asked) for _ in range(2)} <= {200, 202}
        (execution_id,) = await executions(author)
        assert counted(edge) == {"accepted": 1, "repeated": 1}
        await send(edge, author, start_of(protocol, text=""))
        assert counted(edge) == {"accepted": 1, "repeated": 1, "invalid": 1}
        while await send(edge, author, start_of(protocol)) != 429:
            pass
        assert counted(edge)["refused"] == edge.metrics.rejected["execute_rate"]._value.get() == 1
    told = [line for line in lines if line["event"] == "execution_accepted"]
    assert [line.pop("repeated") for line in told] == [False, True]
    about = {"execution": execution_id, "user": author.user, "org": "default", "protocol": protocol}
    assert all(about.items() <= line.items() and line["request_id"] for line in told)
    opened = [line["protocol"] for line in lines if line["event"] == "stream_opened"]
    assert opened == ([] if protocol == "native" else [protocol] * 2)


async def test_few_cancels_wait_at_once(
    redis: Redis, redis_url: str, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an agent to stop: each takes a connection to Redis, of which the edge has few for all users. One more is
    answered as its task is."""
    waiting, gate = list[str](), asyncio.Event()

    async def until_ended(_: Tasks, owner: Owner, *__: Any) -> None:
        waiting.append(owner.user)
        await gate.wait()

    monkeypatch.setattr(Tasks, "until_ended", until_ended)
    monkeypatch.setattr("broker.protocols.a2a.handlers.CANCELS_PER_USER", 2)
    monkeypatch.setattr("broker.protocols.a2a.handlers.CANCEL_SECONDS", 0.1)

    async def cancel(name: str, user: str = author.user) -> int:
        of = Author(redis, user, name)
        await of.write(STARTED)
        return await send(edge, of, a2a("CancelTask", {"id": name}))

    async with serving(redis, redis_url) as edge:
        held = [asyncio.create_task(cancel(name)) for name in ("ex_1", "ex_2")]
        await eventually("two wait", lambda: len(waiting) == 2)
        assert await cancel("ex_3") == 200
        held.append(asyncio.create_task(cancel("ex_1", f"{author.user}-2")))
        await eventually("another user waits", lambda: len(waiting) == 3)
        gate.set()
        assert await asyncio.gather(*held) == [200] * 3


async def test_who_waits_for_messages_leaves_room_for_others(
    redis: Redis, redis_url: str, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four takes that may wait at an edge no more than three are one user's."""
    monkeypatch.setattr("broker.http.responses.MAX_WAITING", 4)
    monkeypatch.setattr("broker.http.responses.MAX_WAITING_OF_ONE", 3)
    other = Author(redis, f"{author.user}-2")

    async def take(of: Author, seconds: float = 0) -> int:
        path = f"/api/agent/executions/{of.execution_id}/messages/take"
        token = token_for(of.user, scopes={"events:publish"})
        return (await call(edge.port, "POST", path, token, {"waitSeconds": seconds})).status

    async def wait() -> None:
        while await take(author, 50) == 503:  # one that does not wait took its place
            await asyncio.sleep(0.02)

    async with serving(redis, redis_url) as edge:
        for each in (author, other):
            await each.write(STARTED)
        waiting = [asyncio.create_task(wait()) for _ in range(3)]
        async with asyncio.timeout(LONGEST_SECONDS):
            while (status := await take(author)) == 200:
                await asyncio.sleep(0.02)
        assert (status, await take(other)) == (503, 200)
        await tasks.end(waiting)


async def test_few_refusals_are_held(
    redis: Redis, redis_url: str, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client to which any error is the end is held for a moment before it asks again; of those who are refused
    together only some are, since each has a connection."""
    monkeypatch.setattr("broker.protocols.ai_sdk.counted_routes.PAUSED_AT_ONCE", 1)
    monkeypatch.setattr("broker.protocols.ai_sdk.counted_routes.PAUSE_SECONDS", (60.0, 60.0))

    async def ask() -> bytes:
        path = "/api/agent/chat/c/stream?startIndex=0"
        async with request(edge.port, "GET", path, author.token) as response:
            return await response.body()

    async with serving(redis, redis_url, reads_per_minute=1) as edge:
        assert b"finish" in await ask()
        asked = [asyncio.create_task(ask()) for _ in range(2)]
        done, held = await asyncio.wait(asked, timeout=LONGEST_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [b": later\n\n"]
        await tasks.end(held)


@contextlib.asynccontextmanager
async def full(redis: Redis, redis_url: str, author: Author, limit: str) -> AsyncIterator[Edge]:
    """An edge on which no more streams are to be had, in general or for this user; `ex_1` asks something there."""
    await author.write(STARTED, InputRequired(input_id="i", prompt="?", kind="approval"))
    async with (
        serving(redis, redis_url, **{limit: 1}) as edge,
        request(edge.port, "GET", author.path, author.token, headers=SSE) as stream,
    ):
        assert stream.status == 200
        yield edge


@pytest.mark.parametrize("protocol", STREAMING)
@pytest.mark.parametrize(("limit", "status"), [("max_connections", 503), ("max_connections_per_user", 429)])
async def test_room_comes_first(
    redis: Redis, redis_url: str, author: Author, limit: str, status: int, protocol: str
) -> None:
    """Where there is no room to show it, nothing is started, answered or counted as started."""
    async with full(redis, redis_url, author, limit) as edge:
        assert await send(edge, author, start_of(protocol)) == status
        place = (await author.log())[1].id
        ask = f"ex_1:{place}:i"
        if protocol != "ai_sdk":  # whose answers are given elsewhere
            assert await send(edge, author, answer_of(protocol, ask)) == status
        assert await executions(author) == ["ex_1"]
        assert await redis.hget(author.keys.record, "open") == b" i "
        assert counted(edge) == {}
        assert edge.admission.open_for(author.owner) == 1


def answer_of(protocol: str, interrupt: str) -> tuple[str, dict[str, str], Json]:
    """A request to answer what `ex_1` asks, and to be shown what follows."""
    if protocol == "ag_ui":
        resume = [{"interruptId": interrupt, "status": "resolved", "payload": True}]
        return "/ag-ui", {}, {"threadId": "c", "runId": "r", "messages": [], "resume": resume}
    said = {"messageId": "m", "role": "ROLE_USER", "taskId": "ex_1", "parts": [{"text": "yes"}]}
    return a2a("SendMessage" if protocol == "a2a_blocking" else "SendStreamingMessage", {"message": said})


async def test_room_is_given_back(redis: Redis, redis_url: str, author: Author) -> None:
    """Room that was held for what then was refused, or needed none, is there for the next."""
    said = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "t"}]}
    at_once = a2a("SendMessage", {"message": said, "configuration": {"returnImmediately": True}})
    async with serving(redis, redis_url, max_connections=1) as edge:
        for protocol in STREAMING:
            await send(edge, author, start_of(protocol, text=""))
            assert edge.admission.open_for(author.owner) == 0
        path = start_of("ai_sdk")
        async with request(
            edge.port, "POST", path[0], author.token, headers=JSON, body=json.dumps(path[2]).encode()
        ) as stream:
            assert stream.status == 200
            assert await send(edge, author, start_of("a2a")) == 503
            assert await send(edge, author, at_once) == 200
    assert len(await executions(author)) == 2


async def test_answers_and_cancels_are_logged(redis: Redis, redis_url: str, author: Author) -> None:
    """Who answers and who cancels is in the log, in whatever protocol."""
    await author.redis.hset(author.keys.record, "conversationId", "c")
    questions = [InputRequired(input_id=name, prompt="?", kind="approval") for name in ("i", "j", "k")]
    await author.write(STARTED, *questions)
    place = (await author.log())[2].id
    async with serving(redis, redis_url) as edge:
        with capture_logs() as lines:
            given = {"inputId": "i", "value": True}
            assert await send(edge, author, ("/api/agent/executions/ex_1/input", {}, given)) == 202
            assert await send(edge, author, answer_of("ag_ui", f"ex_1:{place}:j")) == 200
            assert await send(edge, author, answer_of("a2a", "")) == 200
            for asked in (
                a2a("CancelTask", {"id": "ex_1"}),  # which refuses a second one
                ("/api/agent/executions/ex_1/cancel", {}, {}),
            ):
                assert await send(edge, author, asked) in (200, 202)
    told = [(line["event"], line["protocol"], line["user"]) for line in lines if line["event"] in STEERED]
    assert told == [
        *(("input_answered", protocol, author.user) for protocol in ("native", "ag_ui", "a2a")),
        *(("cancel_requested", protocol, author.user) for protocol in ("a2a", "native")),
    ]


STEERED = ("input_answered", "cancel_requested")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "{native}", None),
        ("GET", "{native}/events", None),
        ("GET", "{native}/stream", None),
        ("POST", "{native}/cancel", {}),
        ("POST", "{native}/input", {"inputId": "q", "value": True}),
        ("POST", "{native}/events", {"type": "status", "data": {"status": "s", "message": "m"}}),
        ("GET", "/ag-ui/{id}", None),
        ("GET", "/a2a/a/tasks/{id}", None),
        ("POST", "/a2a/a", {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "{id}"}}),
        ("POST", "/a2a/a", {"jsonrpc": "2.0", "id": 1, "method": "CancelTask", "params": {"id": "{id}"}}),
    ],
)
async def test_a_newer_record_is_answered_by_a_newer_edge(
    method: str, path: str, body: Json | None, redis: Redis, redis_url: str
) -> None:
    """An edge that does not know a record's format answers 503 and a time to retry, in every protocol."""
    async with serving(redis, redis_url) as edge:
        author = Author(redis)
        await author.write(STARTED)
        await redis.hset(author.keys.record, "format", FORMAT + 1)  # type: ignore[misc,arg-type]
        path = path.format(native=f"/api/agent/executions/{author.execution_id}", id=author.execution_id)
        content = None if body is None else json.dumps(body).replace("{id}", author.execution_id).encode()
        headers = JSON | NEW if body is not None else NEW
        token = token_for(author.user, scopes=ALL_SCOPES)
        async with request(edge.port, method, path, token, headers=headers, body=content) as response:
            problem = await response.json()
    assert (response.status, problem["type"]) == (503, "urn:runcast:problem:newer-record")
    assert response.headers["retry-after"] == "10"
    assert problem["detail"] == f"the record has format {FORMAT + 1}; this edge knows up to {FORMAT}"
