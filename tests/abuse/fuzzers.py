"""What of the edge and of the log is given made-up input, and what must hold whatever that is."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
from aiohttp.test_utils import make_mocked_request
from hypothesis import strategies as st
from multidict import CIMultiDict
from redis import Redis

from broker.auth.tokens import DEFAULT_SCOPES
from broker.base.error_mapping import to_problem
from broker.base.identity import Identity
from broker.cli.embedded import EmbeddedRedis
from broker.executions.publish import Gate, read_events, read_producer
from broker.executions.types import EVENT_ID
from broker.http.stream_door import NewConnection, StreamDoor
from broker.protocols.ag_ui.frames import Place
from broker.protocols.ag_ui.interrupts import InterruptId
from broker.protocols.ai_sdk.approvals import parse_run_id
from broker.protocols.durable_streams.offsets import known_cursor, offset_of, place_of
from broker.protocols.mcp.resume import read_id, stream_name
from broker.protocols.question_ids import QuestionId
from broker.streams.request import read_parameters
from emitter.errors import AppendRefused
from emitter.store.append import APPEND_SCRIPT, read_reply
from emitter.wire.ids import parse_event_id
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from tests.abuse.access_table import ROWS, Row
from tests.abuse.fuzz_values import PIECES, TEXTS, bodies
from tests.abuse.fuzzing import Fuzzer, fuzzer
from tests.edges import ALL_SCOPES, EdgeProcess, edge, token_for
from tests.receivers import SETTINGS


def refused(error: Exception) -> None:
    """A refusal tells its sender what is wrong. Anything else would be 500."""
    problem = to_problem(error)
    if problem is None or problem.status >= 500:
        raise error


# --- cursors and offsets ----------------------------------------------------------------------------------------------


def _same(parse: Callable[[str], Any], text: str) -> None:
    """What is read is what was written."""
    with contextlib.suppress(ValueError):
        assert str(parse(text)) == text


@fuzzer
def cursors() -> Iterator[Fuzzer]:
    """Every place in a log or list that a client sends back: it is refused, or is written as it was read."""
    ids = st.from_regex(EVENT_ID, fullmatch=True)
    coded = st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=").decode())
    parts = st.one_of(
        PIECES, ids, coded, st.just("1700000000000_0000000001"), st.sampled_from([".", ":", "-", "ex_1", "?", "#"])
    )

    def check(text: str) -> None:
        with contextlib.suppress(ValueError):
            found = parse_event_id(text)
            assert parse_event_id(str(found)) == found
        with contextlib.suppress(ValueError):
            place = Place.parse(text)
            assert place.id.seq < 10**15
        with contextlib.suppress(ValueError):
            InterruptId.parse(text)
        question = QuestionId.parse(text)
        assert question is None or str(question) == text
        parse_run_id(text)
        assert known_cursor(text) >= -1
        try:
            place = place_of(text)
            assert place.ms >= 10**13 or place.seq >= 10**10 or place_of(offset_of(place)) == place
        except Exception as error:
            refused(error)
        try:
            resumed = read_id(text)
        except Exception as error:
            refused(error)
        else:
            again = read_id(f"{stream_name(resumed.execution_id, resumed.stream)}.{resumed.after}")
            assert again == resumed

    yield Fuzzer(st.lists(parts, max_size=6).map("".join) | TEXTS, check)


# --- requests ---------------------------------------------------------------------------------------------------------

_GOOD = st.sampled_from(["1-1", "now", "start", "event,5", "true", "false", "a,*:b", "execution:*"])
_QUERY = st.lists(
    st.tuples(
        st.sampled_from(["lastEventId", "from", "types", "heartbeat", "named", "compact", "ticket", "x"]), TEXTS | _GOOD
    ),
    max_size=4,
)
_HEADERS = st.lists(
    st.tuples(st.sampled_from(["Last-Event-ID", "Accept", "Accept-Encoding", "Cookie", "Authorization", "X-A"]),
              st.one_of(TEXTS, st.sampled_from(["gzip", "gzip;q=0", "text/event-stream", "Bearer x", "1-1"]))),
    max_size=4,
)  # fmt: skip


@fuzzer
def parameters() -> Iterator[Fuzzer]:
    """What a stream is asked for: the reader refuses it with 400, or has a view that can be written to."""

    def check(asked: tuple[Any, ...]) -> None:
        query, headers, is_feed = asked
        url = "/api/agent/executions/ex_1/stream?" + "&".join(f"{name}={_quoted(value)}" for name, value in query)
        request = make_mocked_request("GET", url, CIMultiDict(_sendable(headers)))
        try:
            wanted = read_parameters(request, is_feed=is_feed)
        except Exception as error:
            refused(error)
        else:
            assert wanted.cursor is None or wanted.cursor.seq >= 0
            assert b"stream:open" in wanted.view.control("stream:open", {}) or wanted.view.coding

    yield Fuzzer(st.tuples(_QUERY, _HEADERS, st.booleans()), check)


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))


def _sendable(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without line ends, which no parser lets through."""
    return [(name, "".join(each for each in value if each.isprintable())) for name, value in headers]


@fuzzer
def heads() -> Iterator[Fuzzer]:
    """The first bytes of a connection: the short way to a stream takes only what is one whole request."""
    line = st.sampled_from([b"GET /api/agent/stream HTTP/1.1", b"GET /api/agent/executions/ex_1/stream?x HTTP/1.1",
                            b"GET /api/agent/stream?x HTTP/1.0", b"get /api/agent/stream HTTP/1.1"])  # fmt: skip
    field = st.sampled_from([b"Host: x", b"Content-Length: 5", b"Content-Length: 0", b"Transfer-Encoding: chunked",
                             b"Expect: 100-continue", b"Upgrade: websocket", b"Connection: upgrade", b" folded",
                             b"A\0: b", b"Last-Event-ID: 1-1", b"Cookie: a=\xff", b": x", b""])  # fmt: skip
    ends = st.sampled_from([b"\r\n", b"\n", b"\r\n\r\n", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", b""])
    lines = st.tuples(line, st.lists(st.one_of(field, st.binary(max_size=12)), max_size=5), ends)
    data = lines.map(lambda each: each[0] + b"\r\n" + b"".join(part + b"\r\n" for part in each[1]) + each[2])
    loop = asyncio.new_event_loop()

    async def read(raw: bytes) -> Any:
        return NewConnection(StreamDoor(None, None, None))._read(raw)  # type: ignore[arg-type]

    def check(raw: bytes) -> None:
        asked = loop.run_until_complete(read(raw))
        if asked is not None:
            assert b"\r\n\r\n" not in raw.rstrip(b"\r\n"), "nothing of another request is lost"
            assert asked.request.headers.get("Content-Length", "0") == "0"
            assert "Transfer-Encoding" not in asked.request.headers

    try:
        yield Fuzzer(data, check)
    finally:
        loop.close()


# --- what publishers send ---------------------------------------------------------------------------------------------

_EVENTS: list[Any] = [
    {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}},
    {"type": "message:delta", "data": {"messageId": "m", "delta": "hi"}},
    {"type": "input:required", "data": {"inputId": "q", "prompt": "?", "kind": "text", "expiresAt": 2_000_000_000_000}},
    {"type": "tool:call", "data": {"callId": "c", "tool": "t", "input": {"a": [1]}}, "ts": 5, "agent": "a"},
    {"type": "usage", "data": {"inputTokens": 1, "outputTokens": 2, "costUsd": 0.1}},
    {"type": "artifact", "data": {"artifactId": "a", "name": "n", "text": "x", "append": True}},
    {"type": "custom:x", "data": {"k": "v"}},
    {"type": "execution:complete", "data": {"result": {"a": 1}, "duration": 1.5}},
]


@fuzzer
def publishing() -> Iterator[Fuzzer]:
    """Bodies of publishers, NDJSON or one event: read as events that can be stored, or refused with a place."""
    lines = st.lists(st.sampled_from(_EVENTS).flatmap(bodies), max_size=6)
    body = st.tuples(lines, st.sampled_from([b"\n", b"\r\n", b"\n\n"])).map(lambda each: each[1].join(each[0]))
    owner = Owner("alice")
    gate = Gate(Identity(owner, DEFAULT_SCOPES), "ex_1", "r", (), Redactor(), 65_000)
    headers = st.dictionaries(st.sampled_from(["Producer-Id", "Producer-Seq"]), TEXTS | st.just("1"))
    loop = asyncio.new_event_loop()

    def check(sent: tuple[bytes, bool, dict[str, str]]) -> None:
        data, ndjson, given = sent
        try:
            events = loop.run_until_complete(read_events(data, gate, ndjson=ndjson))
        except Exception as error:
            refused(error)
        else:
            for event in events:
                if event.json:
                    assert b"\n" not in event.json
                    msgspec.json.decode(event.json)
        try:
            read_producer(given)
        except Exception as error:
            refused(error)

    try:
        yield Fuzzer(st.tuples(body, st.booleans(), headers), check)
    finally:
        loop.close()


# --- the append script ------------------------------------------------------------------------------------------------

_MARKS = ["", "-", "f", "d", "s:running", "s:completed", "s:failed", "s:waiting_input", "t:2", "c", "u:5 7",
          'w:q {"type":"input:required","data":{"inputId":"q"}}', 'w:r {"expiresAt":1}', 'r:q {"value":1}',
          "m:m1 5 q {}", "m:m2 1 i {}", "y:1 t m1", "y:2 - m1 m2", "x:m1 withdrawn"]  # fmt: skip
_STORED = st.sampled_from(
    [*(("status", mark) for mark in _MARKS), ("budget", "b:total.stop"), ("budget", "b:cost.warn")]
)
_STEP = st.tuples(
    st.integers(0, 3),
    st.sampled_from(["", "p", "accept"]),
    st.integers(1, 6),
    st.sampled_from(["any", "any", "any", "new", "existing", "unowned", "claimed", "lapsed"]),
    st.lists(st.sampled_from(["agent", "budget", "root", "hooks", "conversationId", "g:m1"]).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(["", "x", '{"totalTokens":5}', "root1"]))), max_size=2),
    st.lists(_STORED, min_size=1, max_size=4),
)  # fmt: skip


@fuzzer
def appending() -> Iterator[Fuzzer]:
    """Any sequence of calls of the append script leaves a log whose ordinals are dense, and a record that has its last
    one; it refuses with a verdict, never with an error of Lua; and nothing follows an end."""
    with EmbeddedRedis() as server:
        redis = Redis.from_url(server.url)
        sha = redis.script_load(APPEND_SCRIPT)
        owner = Owner("fuzz")
        keys = owner.execution("ex_1")
        names = [keys.record, keys.log, owner.feed, owner.feed_seq, owner.index, keys.control]

        def step(attempt: int, producer: str, first: int, mode: str, extra: Any, events: Any) -> None:
            fields = [text for pair in extra for text in pair]
            told = [text for type_, mark in events for text in (type_, '{"type":"x"}', mark)]
            arguments = [attempt, producer, first, mode, 50, 20, 60_000, 30_000, 60_000, "PUBLISH", "", "ex_1", 3, 4096]
            before = redis.hget(keys.record, "state")
            reply = redis.evalsha(sha, len(names), *names, *arguments, len(fields), *fields, *told)
            with contextlib.suppress(AppendRefused):
                appended = read_reply("ex_1", reply)
                assert appended.added <= len(events)
                assert not (before in (b"completed", b"failed") and appended.added)
            check_log()

        def check_log() -> None:
            ordinals = [int(id_.partition(b"-")[2]) for id_, _ in redis.xrange(keys.log)]
            record = redis.hgetall(keys.record)
            last = int(record.get(b"seq", 0))
            assert ordinals == list(range(last - len(ordinals) + 1, last + 1)), record
            assert redis.ttl(keys.record) > 0 or not record

        def check(steps: Any) -> None:
            redis.flushdb()
            for each in steps:
                step(*each)

        try:
            yield Fuzzer(st.lists(_STEP, min_size=1, max_size=6), check)
        finally:
            redis.close()


# --- whole edges ------------------------------------------------------------------------------------------------------

_UNLIMITED = dict.fromkeys(("executes_per_minute", "publishes_per_minute", "reads_per_minute", "answers_per_minute",
                            "cancels_per_minute", "tickets_per_minute", "max_connections_per_user"), 0)  # fmt: skip
WAITING_SECONDS = 1.0
_NAMES = {"id": "ex_fuzz", "chatId": "chat", "agent": "matrix", "name": "ex_fuzz", "config": "c", "messageId": "m1",
          "share": "0" * 16, "job": "ex_fuzz", "fence": "f", "attempt": "1"}  # fmt: skip


_PARAMETERS = ["limit", "after", "cursor", "offset", "live", "state", "parent", "tree", "compact", "startIndex",
               "pageToken", "pageSize", "historyLength", "taskId", "format", "threadId", "lastEventId", "agent",
               "A2A-Version"]  # fmt: skip


class Sent(NamedTuple):
    row: Row
    query: str
    body: bytes | None


def _filled(value: Any) -> Any:
    text = json.dumps(value)
    for name, other in _NAMES.items():
        text = text.replace("{" + name + "}", other)
    return json.loads(text)


def _requests() -> st.SearchStrategy[Sent]:
    """A request of any route, its body and query changed."""

    pairs = st.lists(st.tuples(st.sampled_from(_PARAMETERS), TEXTS), max_size=2)
    query = pairs.map(lambda each: "&".join(f"{name}={_quoted(value)}" for name, value in each))

    def of(row: Row) -> st.SearchStrategy[Sent]:
        return st.builds(Sent, st.just(row), query, st.none() if row.body is None else bodies(_filled(row.body)))

    return st.sampled_from([row for row in ROWS if row.needs != ("admin",)]).flatmap(of)


@fuzzer
def routes() -> Iterator[Fuzzer]:
    """Any body and query on any route of a real edge: it is never answered with 500, no error is logged, and the edge
    answers others meanwhile."""
    with EmbeddedRedis() as server, edge(server.url, mcp_hold_seconds=1, **SETTINGS, **_UNLIMITED) as started:
        token = token_for("fuzz", scopes=ALL_SCOPES - {"admin"})

        read = 0

        def check(sent: Sent) -> None:
            nonlocal read
            status = _status(started, sent, token)
            told = started.log_text(read)
            read += len(told.encode())
            assert status < 500 or status == 503, f"{sent.row.name}: {status}\n{told[-4000:]}"
            assert '"level":"error"' not in told, told[-4000:]

        _begin(started, token)
        yield Fuzzer(_requests(), check)


def _begin(at: EdgeProcess, token: str) -> None:
    started = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}
    row = Row("POST /api/agent/executions/ex_fuzz/events")
    sent = Sent(row, "", json.dumps(started).encode())
    assert _status(at, sent, token) in (0, 202)


def _status(at: EdgeProcess, sent: Sent, token: str) -> int:
    """0: the answer waits for something; the edge answers others meanwhile."""
    row = sent.row
    query = "&".join(part for part in (_filled(row.query), sent.query) if part)
    path = _filled(row.path) + (f"?{query}" if query else "")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **_filled(dict(row.headers))}
    try:
        return _answered(at, row.method, path, sent.body, headers, WAITING_SECONDS)
    except TimeoutError:
        assert _answered(at, "GET", "/openapi.json", None, {}, 30) == 200
        return 0


def _answered(at: EdgeProcess, method: str, path: str, body: bytes | None, headers: Any, seconds: float) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=seconds)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()
