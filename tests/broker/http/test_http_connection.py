"""What aiohttp answers by itself is answered as everything else, and a client that has said all is heard."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.http.connection import MAX_HEADERS, MAX_LINE_BYTES
from tests.edges import (
    SSE,
    Answer,
    Author,
    EdgeProcess,
    call,
    edge,
    eventually,
    request,
    stream_path,
    token_for,
    under_load,
)

UNREADABLE = {
    "a NUL in a header": (b"GET / HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na", 400),
    "a length and chunks": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a broken request line": (b"GET / HTTP/ab\r\n\r\n", 400),
    "a long header": (b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"a" * (MAX_LINE_BYTES + 100) + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n", 431),
    "a coding that is not installed": (
        b"POST /api/agent/execute HTTP/1.1\r\nHost: x\r\nContent-Encoding: zstd\r\nContent-Length: 1\r\n\r\na",
        415,
    ),
}


@pytest.fixture(scope="module")
def edge_(redis_server: Any) -> Iterator[EdgeProcess]:
    with edge(redis_server.url, cors_origins="https://app.example.com", heartbeat_seconds=1) as started:
        yield started


async def exchange(port: int, data: bytes, *, ends: bool = False) -> bytes:
    """Send this, end our side if so asked, and read until the other side ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if ends:
            writer.write_eof()
        async with asyncio.timeout(under_load(10)):
            return await reader.read()
    finally:
        writer.transport.abort()


def unchunked(body: bytes) -> bytes:
    pieces = []
    while body:
        size, _, body = body.partition(b"\r\n")
        pieces.append(body[: int(size, 16)])
        assert body[int(size, 16) :][:2] == b"\r\n"
        body = body[int(size, 16) + 2 :]
    assert pieces.pop() == b"", "the last chunk"
    return b"".join(pieces)


def parsed(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(status.split(" ")[1]), headers, json.loads(body))


def assert_is_problem(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.headers["server"] == "runcast"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])
    assert answer.body["requestId"] == answer.headers["x-request-id"]
    assert answer.body["status"] == status


# --- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_admin", [False, True], ids=["public", "admin"])
@pytest.mark.parametrize(("sent", "status"), UNREADABLE.values(), ids=UNREADABLE)
async def test_what_cannot_be_read_is_a_problem_too(
    edge_: EdgeProcess, sent: bytes, status: int, is_admin: bool
) -> None:
    """On both ports: problem+json with an id, no versions, nothing of what was sent; then the connection ends."""
    answer = parsed(await exchange(edge_.admin_ports[0] if is_admin else edge_.port, sent))
    assert_is_problem(answer, status)
    assert "\\x" not in answer.body["detail"]
    if status == 431:
        assert str(MAX_LINE_BYTES) in answer.body["detail"]
    if status == 415:
        assert answer.headers["accept-encoding"] == "gzip, deflate"


async def test_many_of_them_are_counted_and_hardly_logged(edge_: EdgeProcess) -> None:
    """A hundred in a row are a line a second, below warning and without a traceback, and a metric counts each."""
    before, logged = edge_.metric("runcast_unreadable_requests_total"), len(edge_.log_text())
    for _ in range(100):
        await exchange(edge_.port, UNREADABLE["a NUL in a header"][0])
    assert edge_.metric("runcast_unreadable_requests_total") == before + 100
    said = edge_.log_text()[logged:]
    assert "Traceback" not in said
    assert len(said) < 100 * 100
    lines = edge_.logged("request_unreadable")
    assert {line["level"] for line in lines} == {"info"}


async def test_an_expectation_that_is_not_met_is_a_problem(edge_: EdgeProcess) -> None:
    """417 as every other error, for allowed origins of browsers too."""
    headers = {"Expect": "a-miracle", "Origin": "https://app.example.com", "X-Request-ID": "r1"}
    answer = await call(edge_.port, "GET", "/api/agent/executions", token_for("alice"), headers=headers)
    assert answer.status == 417
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert (answer.headers["x-request-id"], answer.body["requestId"]) == ("r1", "r1")


async def test_a_body_in_an_unknown_coding_is_refused_by_its_name(edge_: EdgeProcess) -> None:
    """415 says which codings there are; gzip is one of them."""
    token, body = token_for("alice"), gzip.compress(b'{"task": 5}')
    refused = await call(
        edge_.port, "POST", "/api/agent/execute", token, body, headers={"Content-Encoding": "compress"}
    )
    assert (refused.status, refused.headers["accept-encoding"]) == (415, "gzip, deflate")
    read = await call(edge_.port, "POST", "/api/agent/execute", token, body, headers={"Content-Encoding": "gzip"})
    assert (read.status, read.body["path"]) == (422, "$.task")


# --- every response --------------------------------------------------------------------------------------------------


async def test_no_response_is_taken_for_another_type(edge_: EdgeProcess, redis: Redis) -> None:
    """`nosniff` and a `Server` without versions: answers, errors, streams, pages, and the admin port's."""
    author = Author(redis, "nosniff")
    await author.begin()
    seen = {}
    for port, path, token in (
        (edge_.port, "/api/agent/executions", author.token),
        (edge_.port, "/api/agent/executions", None),
        (edge_.port, "/nowhere", None),
        (edge_.port, "/", None),
        (edge_.port, "/openapi.json", None),
        (edge_.port, author.path, author.token),
        (edge_.admin_ports[0], "/healthz", None),
        (edge_.admin_ports[0], "/readyz", None),
        (edge_.admin_ports[0], "/metrics", None),
        (edge_.admin_ports[0], "/nowhere", None),
    ):
        async with request(port, "GET", path, token, headers=SSE) as answer:
            seen[path, token] = (answer.headers.get("x-content-type-options"), answer.headers["server"])
    assert set(seen.values()) == {("nosniff", "runcast")}, seen


# --- clients that have said all --------------------------------------------------------------------------------------


def get(path: str, token: str | None = None) -> bytes:
    who = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{who}\r\n".encode()


async def test_a_half_closed_client_gets_its_answer(edge_: EdgeProcess) -> None:
    """What `nc -N` sends is answered, once for each request that it sent, and then the connection ends at once."""
    for port, path, token in (
        (edge_.port, "/api/agent/executions", token_for("alice")),
        (edge_.admin_ports[0], "/readyz", None),
        (edge_.admin_ports[0], "/healthz", None),
    ):
        async with asyncio.timeout(under_load(5)):
            raw = await exchange(port, get(path, token) * 2, ends=True)
        assert raw.count(b"HTTP/1.1 200 OK\r\n") == 2, raw


@pytest.mark.parametrize("coding", ["", "gzip"])
async def test_a_half_closed_client_gets_its_stream(edge_: EdgeProcess, redis: Redis, coding: str) -> None:
    """To the end of the execution, after the head; the probes whether it is still there are comments."""
    author = Author(redis, f"half-closed{coding}")
    await author.begin()
    asked = get(author.path, author.token).replace(b"\r\n\r\n", f"\r\nAccept-Encoding: {coding}\r\n\r\n".encode())
    task = asyncio.create_task(exchange(edge_.port, asked, ends=True))
    await eventually("it is there", lambda: edge_.metric("runcast_connections") == 1)
    await asyncio.sleep(1)
    await author.say()
    await author.end()
    head, _, body = (await task).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    got = unchunked(body)
    got = gzip.decompress(got) if coding else got
    ids = re.findall(rb"^id: (\S+)$", got, re.MULTILINE)
    assert [id_.decode() for id_ in ids] == [event.id for event in await author.log()]
    assert b'{"reason":"finished"}' in got


async def test_a_request_that_will_never_be_whole_is_not_waited_for(edge_: EdgeProcess) -> None:
    """Whoever ends in the middle of a head or a body is gone at once."""
    bearer = token_for("alice").encode()  # without one the answer would need no body
    head = (
        b"POST /api/agent/execute HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: 9\r\n\r\n" % bearer
    )
    for part in (b"GET / HTTP/1.1\r\nHo", head + b"{"):
        async with asyncio.timeout(under_load(5)):
            assert await exchange(edge_.port, part, ends=True) == b""


@pytest.mark.parametrize("says_nothing_more", [False, True])
async def test_a_viewer_that_left_is_noticed_soon(edge_: EdgeProcess, redis: Redis, says_nothing_more: bool) -> None:
    """Whether it closed its connection as a whole, or first one side of it: not by the next heartbeat but at once."""
    author = Author(redis, "leaves")
    await author.begin()
    async with request(edge_.port, "GET", stream_path("ex_1"), author.token, headers=SSE) as viewer:
        if says_nothing_more:
            viewer._writer.write_eof()
            await asyncio.sleep(0.1)
        await eventually("it is there", lambda: edge_.metric("runcast_connections") == 1)
    await eventually("it is gone", lambda: edge_.metric("runcast_connections") == 0, 5)
