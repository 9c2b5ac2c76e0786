"""What one user may make Redis and an edge hold or read, at every door: refused with the limit, and nothing is kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.events import Thinking
from emitter.wire import ids, keys
from tests.edges import ALL_SCOPES, Author, EdgeProcess, call, edge, request, token_for, under_load

EXECUTE = "/api/agent/execute"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def only(redis_server: EmbeddedRedis) -> Iterator[EdgeProcess]:
    with edge(redis_server.url, executes_per_minute=0, max_open_inputs=20, max_queued_per_user=8) as started:
        yield started


@pytest.fixture
async def known(redis: Redis, only: EdgeProcess) -> None:
    """An agent that no worker runs."""
    await redis.zadd(keys.AGENTS_KNOWN, {"manual": ids.now_ms()})
    body = {"task": "t", "agent": "-"}
    async with asyncio.timeout(under_load(10)):
        while not (await call(only.port, "POST", EXECUTE, token_for("nobody"), body)).body["known"]:
            await asyncio.sleep(0.05)  # an edge looks every second


def chat(text: str = "hi", **fields: Any) -> Json:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"id": "c", "messages": [message], "agent": "manual", **fields}


def run(**fields: Any) -> Json:
    return {"threadId": "t", "runId": "r", "messages": [{"id": "u", "role": "user", "content": "hi"}], **fields}


def task(metadata: Json, data: Json | None = None) -> Json:
    parts = [{"text": "hi"}, *([] if data is None else [{"data": data}])]
    message = {"messageId": "m", "role": "ROLE_USER", "parts": parts}
    params = {"message": message, "metadata": {"agent": "manual", **metadata}}
    return {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}


BIG = {"k": "x" * 40_000}
DOORS: list[tuple[str, Json]] = [
    (EXECUTE, {"task": "t", "agent": "manual", "metadata": {"k": [0] * 40_000}}),
    (EXECUTE, {"task": "t", "agent": "manual", "params": {"k": "x" * 70_000}}),
    (EXECUTE, {"task": "t", "agent": "manual", "params": BIG, "metadata": BIG}),
    (EXECUTE, {"task": "t", "agent": "manual", "params": {"messages": ["x" * 600_000]}}),
    ("/api/agent/chat", chat(metadata=BIG, params=BIG)),
    ("/ag-ui/manual", run(forwardedProps=BIG, state=BIG)),
]


@pytest.mark.usefixtures("known")
async def test_parameters_and_metadata_are_bounded(only: EdgeProcess, redis: Redis, author: Author) -> None:
    """Together, by whatever protocol; the answer names the limit and its setting, and nothing is stored."""
    for path, body in DOORS:
        headers = {"Idempotency-Key": "k"} if path == EXECUTE else {}
        answer = await call(only.port, "POST", path, author.token, body, headers=headers)
        assert (answer.status, answer.body["type"]) == (413, "urn:runcast:problem:payload-too-large")
        setting, limit = ("CONVERSATION", 262_144) if "messages" in body.get("params", {}) else ("PARAMS", 65_536)
        assert answer.body["limit"] == limit < answer.body["size"]
        assert f"RUNCAST_MAX_{setting}_BYTES" in answer.body["detail"]
    assert await redis.keys(author.owner.prefix + "x:*") == []
    assert await redis.keys(author.owner.prefix + "idem:*") == []


@pytest.mark.usefixtures("known")
async def test_parameters_and_metadata_are_bounded_in_a2a(only: EdgeProcess, redis: Redis, author: Author) -> None:
    """Its own error says so."""
    for body in (task({"k": "x" * 70_000}), task(BIG, BIG)):
        answer = await call(only.port, "POST", "/a2a", author.token, body, headers={"A2A-Version": "1.0"})
        assert answer.body["error"]["code"] == -32602
        assert "65536 bytes (RUNCAST_MAX_PARAMS_BYTES)" in answer.body["error"]["message"]
    assert await redis.keys(author.owner.prefix + "x:*") == []


@pytest.mark.usefixtures("known")
async def test_a_long_chat_is_cut_and_says_so(only: EdgeProcess, redis: Redis, author: Author) -> None:
    """A history over its bound starts the execution all the same: the agent has its newest turns, and their number."""
    said = [{"id": f"u{n}", "role": "user", "parts": [{"type": "text", "text": "x" * 9_000}]} for n in range(20)]
    body = chat(messages=said, params={"k": "x" * 50_000})
    posting = asyncio.create_task(call(only.port, "POST", "/api/agent/chat", author.token, body))
    async with asyncio.timeout(under_load(10)):
        while not (found := await redis.keys(author.owner.prefix + "x:chat_*")):
            await asyncio.sleep(0.02)
    record = next(key for key in found if not key.endswith(b":log"))
    params = json.loads(await redis.hget(record, "params"))  # type: ignore[misc,arg-type]
    assert (len(params["messages"]), params["messagesOmitted"]) == (4, 16)
    posting.cancel()


@pytest.mark.usefixtures("known")
async def test_executions_that_wait_are_bounded(only: EdgeProcess, author: Author) -> None:
    """One too many of a user's is 429 with the limit, by any protocol; a repeat is the first answer, and others start
    theirs."""
    body = {"task": "t", "agent": "manual"}
    for number in range(8):
        headers = {"Idempotency-Key": f"k{number}"}
        assert (await call(only.port, "POST", EXECUTE, author.token, body, headers=headers)).status == 202
    for path, more in ((EXECUTE, body), ("/api/agent/chat", chat()), ("/ag-ui/manual", run())):
        refused = await call(only.port, "POST", path, author.token, more)
        assert (refused.status, refused.body["type"]) == (429, "urn:runcast:problem:too-many-queued")
        assert (refused.body["limit"], int(refused.headers["retry-after"]) > 0) == (8, True)
    repeated = await call(only.port, "POST", EXECUTE, author.token, body, headers={"Idempotency-Key": "k3"})
    assert repeated.status == 202
    assert (await call(only.port, "POST", EXECUTE, token_for(author.user + "-other"), body)).status == 202


async def test_one_question_too_many(only: EdgeProcess, author: Author) -> None:
    """It is 409 with the limit; those before it stand, and an answer makes room."""
    token = token_for(author.user, scopes=ALL_SCOPES)
    path = f"/api/agent/executions/{author.execution_id}"
    await author.begin()

    async def ask(*names: str) -> Any:
        events = [{"type": "input:required", "data": {"inputId": n, "prompt": "?", "kind": "text"}} for n in names]
        lines = "\n".join(map(json.dumps, events)).encode()
        headers = {"Content-Type": "application/x-ndjson"}
        return await call(only.port, "POST", path + "/events", token, lines, headers=headers)

    assert (await ask(*(f"q{number}" for number in range(20)))).status == 202
    refused = await ask("more")
    assert (refused.status, refused.body["type"]) == (409, "urn:runcast:problem:too-many-inputs")
    assert (refused.body["limit"], "RUNCAST_MAX_OPEN_INPUTS" in refused.body["detail"]) == (20, True)
    answer = await call(only.port, "POST", path + "/input", token, {"inputId": "q3", "value": "x"})
    assert answer.status == 202
    assert (await ask("more")).status == 202
    state = (await call(only.port, "GET", path, token)).body
    assert [each["inputId"] for each in state["openInputs"]] == [f"q{n}" for n in range(20) if n != 3] + ["more"]


async def test_nobody_waits_for_anothers_questions(only: EdgeProcess, redis: Redis, author: Author) -> None:
    """However often somebody asks: no script holds Redis, and the record stays small."""
    token = token_for(author.user, scopes=ALL_SCOPES)
    path = f"/api/agent/executions/{author.execution_id}/events"
    await author.begin()
    slowest = []
    for turn in range(10):
        slowest.append(0.0)
        events = [
            {"type": "input:required", "data": {"inputId": f"{turn}-{n:060}", "prompt": "", "kind": "text"}}
            for n in range(1000)
        ]
        body = "\n".join(map(json.dumps, events)).encode()
        posting = asyncio.create_task(
            call(only.port, "POST", path, token, body, headers={"Content-Type": "application/x-ndjson"})
        )
        while not posting.done():
            began = time.monotonic()
            await redis.ping()
            slowest[turn] = max(slowest[turn], time.monotonic() - began)
            await asyncio.sleep(0.002)
        assert posting.result().status == 409
    assert min(slowest) < 0.25, "it would be so in each turn"
    assert await redis.hlen(author.keys.record) < 60  # type: ignore[misc]


async def test_a_list_of_large_metadata_costs_what_it_shows(only: EdgeProcess, redis: Redis, author: Author) -> None:
    """The edge's memory does not grow with what a user has stored, and a page holds about a megabyte."""
    pipe = redis.pipeline(transaction=False)
    for number in range(200):
        record = author.owner.execution(f"ex_{number}").record
        metadata = json.dumps({"k": [0] * 21_000})
        pipe.hset(record, mapping={"state": "running", "ms": 1, "seq": 1, "metadata": metadata, "params": "x" * 60_000})
        pipe.zadd(author.owner.index, {f"ex_{number}": number})
    await pipe.execute()
    before = only.metric("process_resident_memory_bytes")
    for _ in range(5):
        answers = await asyncio.gather(
            *(call(only.port, "GET", "/api/agent/executions?limit=200", author.token) for _ in range(4))
        )
        assert {len(answer.body["executions"]) for answer in answers} == {17}
    assert only.metric("process_resident_memory_bytes") - before < 80_000_000


async def test_viewers_of_a_log_of_large_events_cost_redis_what_they_get(
    only: EdgeProcess, redis: Redis, author: Author
) -> None:
    """Wherever in the log they begin, and however many at once."""
    await author.begin()
    size, count = 60_000, 120
    for _ in range(count):
        await author.write(Thinking(thought="x" * size))
    await author.end()
    log = await author.log()
    places = range(0, count, 12)

    async def sent() -> int:
        stats: Any = await redis.info("stats")
        return int(stats["total_net_output_bytes"])

    async def watch(place: int) -> int:
        path = f"{author.path}?lastEventId={log[place].id}"
        async with request(only.port, "GET", path, author.token) as response:
            return len([frame async for frame in response.frames() if frame.event == "thinking"])

    before = await sent()
    found = await asyncio.gather(*(watch(place) for place in places))
    assert [*found] == [count - place for place in places]
    first_pages = len(places) * 33 * size
    assert await sent() - before < 1.5 * sum(found) * size + first_pages
