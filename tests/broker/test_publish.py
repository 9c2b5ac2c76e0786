"""Publishing over HTTP without HTTP: headers, bodies, and what is appended once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.problems import Problem, to_problem
from broker.publish import MAX_EVENTS, publish, read_events, read_producer
from emitter.errors import ExecutionEnded, PayloadTooLarge, UnknownExecution
from emitter.log import LogLimits
from emitter.redact import Redactor
from emitter.wire import Owner

ALICE = Owner("alice")
STATUS = {"type": "status", "data": {"status": "s", "message": "m"}}
STARTED = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}
DONE = {"type": "execution:complete", "data": {"result": None, "duration": 1}}


def read(body: bytes | dict[str, Any], *, ndjson: bool = False, max_bytes: int = 65_536) -> list[Any]:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_events(encoded, "ex_1", ndjson=ndjson, redact=Redactor(), max_bytes=max_bytes, request_id="r1")


def refusal(body: bytes | dict[str, Any], *, ndjson: bool = False) -> Problem:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, it must have an answer
        read(body, ndjson=ndjson)
    problem = to_problem(caught.value)
    assert problem is not None, f"{caught.value!r} would be a 500"
    return problem


# --- producer --------------------------------------------------------------------------------------------------------


def test_a_producer_is_an_id_and_a_sequence() -> None:
    """Both headers or none; the producer's name cannot be that of an emitter or an edge."""
    assert read_producer({}) == ("", 1)
    assert read_producer({"Producer-Id": "p.1_-", "Producer-Seq": "7"}) == ("http.p.1_-", 7)


@pytest.mark.parametrize(
    "headers",
    [
        {"Producer-Id": "p"},
        {"Producer-Seq": "1"},
        *({"Producer-Id": name, "Producer-Seq": "1"} for name in ("", "a b", "a:b", "x" * 65, "é", "a\n")),
        *({"Producer-Id": "p", "Producer-Seq": seq} for seq in ("", "0", "-1", "1.5", "1e3", "9" * 16, "٣", "01")),
    ],
)
def test_what_is_no_producer_is_refused(headers: dict[str, str]) -> None:
    """Half a producer, or one that cannot be, is a 400."""
    with pytest.raises(Problem) as caught:
        read_producer(headers)
    assert caught.value.status == 400


# --- bodies ----------------------------------------------------------------------------------------------------------


def test_one_event_or_many_lines() -> None:
    """A body is one event, or a line each; blank lines and CRLF ends are no events."""
    assert [each.type for each in read(STATUS)] == ["status"]
    lines = b"\n".join([json.dumps(STARTED).encode(), b"", b"  ", json.dumps(STATUS).encode() + b"\r", b""])
    assert [each.type for each in read(lines, ndjson=True)] == ["execution:started", "status"]


def test_the_envelope_is_what_the_caller_gave_or_the_requests() -> None:
    """Time, agent, parent and request id are taken over; the request's own id stands in for none."""
    [prepared] = read(STATUS | {"ts": 5, "agent": "a", "parentId": "p", "requestId": "mine"})
    head = json.loads(prepared.json)
    assert [head[name] for name in ("ts", "agent", "parentId", "requestId")] == [5, "a", "p", "mine"]
    [prepared] = read(STATUS)
    assert json.loads(prepared.json)["requestId"] == "r1"


def test_secrets_are_redacted_here_too() -> None:
    """What looks secret is replaced before anything is stored."""
    [prepared] = read({"type": "custom:x", "data": {"password": "hunter2", "ok": 1}})
    assert json.loads(prepared.json)["data"] == {"password": "[redacted]", "ok": 1}


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b"\xff\xfe", 400, None),
        (b"[1]", 422, "$"),
        ({"data": {}}, 422, "$"),
        ({"type": "status"}, 422, "$"),
        ({"type": "nonsense", "data": {}}, 422, "$"),
        ({"type": "custom:", "data": {}}, 422, "$"),
        ({"type": "custom:x\ny", "data": {}}, 422, "$"),
        ({"type": "custom:x", "data": [1]}, 422, "$"),
        ({"type": "status\r\n", "data": {}}, 422, "$"),
        (STATUS | {"ts": "now"}, 422, "$.ts"),
        (STATUS | {"ts": -1}, 422, "$.ts"),
        (STATUS | {"more": 1}, 422, "$"),
        (STATUS | {"data": {"status": 1, "message": "m"}}, 422, "$.status"),
        ({"type": "input:required", "data": {"inputId": "a b", "prompt": "?", "kind": "text"}}, 422, "$"),
    ],
)
def test_what_is_no_event_is_refused(body: bytes | dict[str, Any], status: int, path: str | None) -> None:
    """Broken JSON is a 400, a field that does not fit a 422 that names it."""
    problem = refusal(body)
    assert (problem.status, problem.extensions.get("path")) == (status, path)


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"custom:x","data":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"type":"custom:x","data":{"a":' + b"[" * 20_000,
        b'{"type":"custom:x","data":{"a":' + b"9" * 6_000 + b"}}",
        b'{"type":"custom:x","data":{"a":1e999}}',
        b'{"type":"custom:x","data":{"a":NaN}}',
        b'{"type":"custom:x","data":{"a":"\\ud800"}}',
        b'{"type":"custom:x","data":{"a":"\xed\xa0\x80"}}',
    ],
    ids=["deep", "deep and open", "huge number", "overflow", "nan", "lone surrogate", "encoded surrogate"],
)
def test_hostile_json_is_a_clear_refusal(body: bytes) -> None:
    """JSON made to break parsers is refused like other nonsense and fails nothing."""
    assert refusal(body).status in (400, 413, 422)


def test_an_error_names_its_line_and_nothing_is_taken() -> None:
    """In NDJSON the first bad line is named, and the events before it are not returned either."""
    lines = b"\n".join([json.dumps(STATUS).encode(), b"{", json.dumps(STATUS).encode()])
    assert "line 2" in refusal(lines, ndjson=True).detail
    lines = b"\n".join([json.dumps(STATUS).encode(), b'{"type":"x","data":{}}'])
    problem = refusal(lines, ndjson=True)
    assert (problem.status, "line 2" in problem.detail) == (422, True)


def test_the_number_of_events_is_bounded() -> None:
    """No events, and more than the limit, are refused."""
    assert refusal(b"\n \n", ndjson=True).status == 422
    line = json.dumps(STATUS).encode() + b"\n"
    assert len(read(line * MAX_EVENTS, ndjson=True)) == MAX_EVENTS
    assert refusal(line * (MAX_EVENTS + 1), ndjson=True).status == 422


@pytest.mark.parametrize("size", [2_000, 100_000])
def test_an_event_that_is_too_large_is_refused(size: int) -> None:
    """Over the limit is a 413 that names it, before or after the event is decoded."""
    with pytest.raises(PayloadTooLarge) as caught:
        read({"type": "custom:x", "data": {"a": "x" * size}}, max_bytes=1_024)
    assert caught.value.limit == 1_024


# --- append ----------------------------------------------------------------------------------------------------------


async def put(redis: Redis, *events: dict[str, Any], producer: tuple[str, int] = ("", 1)) -> Any:
    lines = b"\n".join(json.dumps(event).encode() for event in events)
    return await publish(redis, ALICE, "ex_1", read(lines, ndjson=True), producer, LogLimits())


async def test_a_repeat_with_its_producer_appends_nothing_twice(redis: Redis) -> None:
    """The same producer and sequence is the same batch: a repeat appends what is missing of it, and no more."""
    first = await put(redis, STARTED, STATUS, producer=("http.p", 1))
    assert first.appended == 2
    again = await put(redis, STARTED, STATUS, producer=("http.p", 1))
    assert (again.appended, again.cursor) == (0, first.cursor)
    overlap = await put(redis, STATUS, STATUS, STATUS, producer=("http.p", 2))
    assert overlap.appended == 2
    assert (await put(redis, STATUS, producer=("http.q", 1))).appended == 1
    assert (await put(redis, STATUS)).appended == 1
    assert (await put(redis, STATUS)).appended == 1
    assert await redis.xlen(ALICE.execution("ex_1").log) == 7


async def test_an_execution_begins_with_its_first_event_only(redis: Redis) -> None:
    """An unknown execution is only made by the events that begin one; after the end nothing is taken."""
    with pytest.raises(UnknownExecution):
        await put(redis, STATUS)
    assert await redis.keys("rc:*") == []
    await put(redis, STARTED)
    await put(redis, DONE)
    with pytest.raises(ExecutionEnded):
        await put(redis, STATUS)
