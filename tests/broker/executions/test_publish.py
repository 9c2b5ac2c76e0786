"""Publishing over HTTP without HTTP: headers, bodies, and what is appended once."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from broker.auth.tokens import SCOPES
from broker.base.error_mapping import to_problem
from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.base.settings import Settings
from broker.executions.publish import LOT_BYTES, MAX_EVENTS, Gate, edge_hooks, publish, read_events, read_producer
from emitter.errors import EventsMissing, ExecutionEnded, InvalidSetting, PayloadTooLarge, UnknownExecution
from emitter.events import Custom, Event, Status
from emitter.publishing.hooks import Hook, Origin, name_hooks
from emitter.store.append import LogLimits, append
from emitter.wire.keys import DUE, Owner
from emitter.wire.prepared import DROPPED
from emitter.wire.record import Field
from emitter.wire.redact import Redactor

ALICE = Owner("alice")
PUBLISHER = Identity(ALICE, frozenset({"events:publish"}))
STATUS = {"type": "status", "data": {"status": "s", "message": "m"}}
STARTED = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}
ASKED: dict[str, Any] = {"type": "input:required", "data": {"inputId": "q", "prompt": "p", "kind": "approval"}}
DONE = {"type": "execution:complete", "data": {"result": None, "duration": 1}}


async def read(
    body: bytes | dict[str, Any],
    *,
    ndjson: bool = False,
    max_bytes: int = 65_536,
    hooks: Sequence[Hook] = (),
    identity: Identity = PUBLISHER,
) -> list[Any]:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    gate = Gate(identity, "ex_1", "r1", name_hooks(hooks), Redactor(), max_bytes)
    return await read_events(encoded, gate, ndjson=ndjson)


def lines_of(*events: dict[str, Any]) -> bytes:
    return b"\n".join(json.dumps(event).encode() for event in events)


async def refusal(body: bytes | dict[str, Any], *, ndjson: bool = False, identity: Identity = PUBLISHER) -> Problem:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, it must have an answer
        await read(body, ndjson=ndjson, identity=identity)
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


async def test_one_event_or_many_lines() -> None:
    """A body is one event, or a line each; blank lines and CRLF ends are no events."""
    assert [each.type for each in await read(STATUS)] == ["status"]
    lines = b"\n".join([json.dumps(STARTED).encode(), b"", b"  ", json.dumps(STATUS).encode() + b"\r", b""])
    assert [each.type for each in await read(lines, ndjson=True)] == ["execution:started", "status"]


async def test_the_envelope_is_what_the_caller_gave_or_the_requests() -> None:
    """Time, agent, parent and request id are taken over; the request's own id stands in for none."""
    [prepared] = await read(STATUS | {"ts": 5, "agent": "a", "parentId": "p", "requestId": "mine"})
    head = json.loads(prepared.json)
    assert [head[name] for name in ("ts", "agent", "parentId", "requestId")] == [5, "a", "p", "mine"]
    [prepared] = await read(STATUS)
    assert json.loads(prepared.json)["requestId"] == "r1"


async def test_secrets_are_redacted_here_too() -> None:
    """What looks secret is replaced before anything is stored."""
    [prepared] = await read({"type": "custom:x", "data": {"password": "hunter2", "ok": 1}})
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
        (ASKED | {"data": {**ASKED["data"], "expiresAt": 100_000_000_000_000_000}}, 422, "$.expiresAt"),
        (STATUS | {"ts": 253_402_300_800_000}, 422, "$.ts"),
        (DONE | {"data": {"result": json.loads("[" * 900 + "]" * 900), "duration": 1}}, 422, "$.result"),
        ({"type": "execution:superseded", "data": {"fromSeq": 1, "attempt": 2**64}}, 422, "$.attempt"),
        ({"type": "execution:superseded", "data": {"fromSeq": 1, "attempt": 2**31}}, 422, "$.attempt"),
    ],
)
async def test_what_is_no_event_is_refused(body: bytes | dict[str, Any], status: int, path: str | None) -> None:
    """Broken JSON is a 400, a field that does not fit a 422 that names it."""
    problem = await refusal(body)
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
async def test_hostile_json_is_a_clear_refusal(body: bytes) -> None:
    """JSON made to break parsers is refused like other nonsense and fails nothing."""
    assert (await refusal(body)).status in (400, 413, 422)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b'{"messageId":"m","delta":"\\ud83d"}', "$.data.delta"),
        (b'{"messageId":"m","delta":"\\ude00"}', "$.data.delta"),
        (b'{"messageId":"m","delta":"a\\uD83Dbcdefgh"}', "$.data.delta"),
        (b'{"messageId":"m","delta":"","more":[{"a":["\\ud83d"]}]}', "$.data.more[0].a[0]"),
    ],
)
async def test_half_of_an_emoji_is_named(data: bytes, path: str) -> None:
    """With its line and field, by a status after which nobody sends the same again. A whole one is taken."""
    line = b'{"type":"message:delta","data":' + data + b"}"
    problem = await refusal(b"\n".join([json.dumps(STATUS).encode(), line]), ndjson=True)
    assert (problem.status, problem.slug, problem.extensions["path"]) == (422, "invalid", path)
    assert problem.detail.startswith("line 2: half of a surrogate pair (\\u")
    whole = b'{"type":"message:delta","data":{"messageId":"m","delta":"\\ud83d\\ude00"}}'
    assert len(await read(whole, ndjson=True)) == 1


async def test_what_is_cut_off_is_still_malformed() -> None:
    """A body that ends too early is no body, whatever is in it."""
    for body in (b'{"type":"message:delta","data":{"messageId":"m","delta":"\\ud83d', b'{"type":"status"'):
        assert (await refusal(body)).status == 400


@pytest.mark.parametrize("type_", ["progress", "tool:progress"])
async def test_a_percentage_over_by_rounding_is_taken(type_: str) -> None:
    """One that is over by more is refused, as is what is none."""
    for given, stored in ((7 * (100 / 7), 100), (100.00000000000001, 100), (-1e-15, 0), (50, 50)):
        [event] = await read({"type": type_, "data": {"callId": "c", "progress": given}})
        assert json.loads(event.json)["data"]["progress"] == stored
    for given in (100.1, -1, "x", True):
        assert (await refusal({"type": type_, "data": {"callId": "c", "progress": given}})).status == 422
    assert (await refusal({"type": type_, "data": []})).status == 422


async def test_an_error_names_its_line_and_nothing_is_taken() -> None:
    """In NDJSON the first bad line is named, and the events before it are not returned either."""
    lines = b"\n".join([json.dumps(STATUS).encode(), b"{", json.dumps(STATUS).encode()])
    assert "line 2" in (await refusal(lines, ndjson=True)).detail
    lines = b"\n".join([json.dumps(STATUS).encode(), b'{"type":"x","data":{}}'])
    problem = await refusal(lines, ndjson=True)
    assert (problem.status, "line 2" in problem.detail) == (422, True)


async def test_the_number_of_events_is_bounded() -> None:
    """More than the limit, and a body of JSON without an event, are refused; NDJSON without any is a sign of life."""
    assert (await refusal(b"")).status == 400
    assert await read(b"\n \n", ndjson=True) == []
    line = json.dumps(STATUS).encode() + b"\n"
    assert len(await read(line * MAX_EVENTS, ndjson=True)) == MAX_EVENTS
    assert (await refusal(line * (MAX_EVENTS + 1), ndjson=True)).status == 422


@pytest.mark.parametrize("size", [2_000, 100_000])
async def test_an_event_that_is_too_large_is_refused(size: int) -> None:
    """Over the limit is a 413 that names it, before or after the event is decoded."""
    with pytest.raises(PayloadTooLarge) as caught:
        await read({"type": "custom:x", "data": {"a": "x" * size}}, max_bytes=1_024)
    assert caught.value.limit == 1_024


# --- in whose name ---------------------------------------------------------------------------------------------------

RECEIVED = {"type": "input:received", "data": {"inputId": "i", "by": "the-boss", "value": True}}
QUEUED = {"type": "execution:queued", "data": {"task": "t", "agent": "a"}}
SUPERSEDED = {"type": "execution:superseded", "data": {"fromSeq": 0, "attempt": 2}}
SAID = {"type": "user:message", "data": {"messageId": "m", "text": "stop", "by": "the-boss", "mode": "queue"}}
TAKEN = {"type": "user:message:taken", "data": {"messageIds": ["m"], "attempt": 1}}
DROPPED_ONE = {"type": "user:message:dropped", "data": {"messageId": "m", "reason": "withdrawn"}}
STARTED_ONE = {"type": "child:started", "data": {"executionId": "c", "agent": "a", "task": "t"}}
ENDED_ONE = {"type": "child:ended", "data": {"executionId": "c", "state": "completed"}}
SPENT = {"type": "budget", "data": {"limit": "toolCalls", "spent": 9, "max": 10, "action": "continuing"}}
OF_OTHERS = (RECEIVED, QUEUED, SUPERSEDED, SAID, TAKEN, DROPPED_ONE, STARTED_ONE, ENDED_ONE, SPENT)
CANCELLED = {"type": "execution:cancelled", "data": {"reason": "r", "by": "the-boss"}}


@pytest.mark.parametrize("event", OF_OTHERS, ids=lambda event: str(event["type"]))
async def test_what_others_do_is_not_published(event: dict[str, Any]) -> None:
    """Answers, messages, children, acceptance and takeovers have doors of their own, whatever the scopes; the type and
    its line are named."""
    everything = Identity(ALICE, SCOPES)
    for identity in (PUBLISHER, everything):
        problem = await refusal(lines_of(STATUS, event), ndjson=True, identity=identity)
        assert (problem.status, problem.slug) == (403, "event-not-publishable")
        assert problem.detail.startswith(f"line 2: {event['type']} cannot be published: ")


async def test_a_cancel_is_in_the_name_of_who_publishes_it() -> None:
    """It needs the scope that every cancel needs, and the body's name does not count; an admin who acts for another is
    named."""
    problem = await refusal(CANCELLED)
    assert (problem.status, problem.slug, problem.extensions["requiredScope"]) == (403, "forbidden", "executions:write")
    scopes = frozenset({"events:publish", "executions:write"})
    for identity, name in ((Identity(ALICE, scopes), "alice"), (Identity(ALICE, scopes, actor=Owner("root")), "root")):
        [prepared] = await read(CANCELLED, identity=identity)
        assert json.loads(prepared.json)["data"] == {"reason": "r", "by": name}


async def test_others_get_the_loop_while_many_events_are_read() -> None:
    """The work of a large request comes in slices."""
    line = {"type": "custom:x", "data": {f"key{number}_{number}": number for number in range(300)}}
    task = asyncio.create_task(read(lines_of(*[line] * 300), ndjson=True))
    rounds = 0
    while not task.done():
        await asyncio.sleep(0)
        rounds += 1
    assert len(task.result()) == 300
    assert rounds > 5


async def test_others_get_the_loop_while_the_chunks_of_one_long_text_are_read() -> None:
    """A text of megabytes that is full of names of credentials."""
    task = asyncio.create_task(read(lines_of(*deltas(*["password: " * 700] * 300)), ndjson=True))
    longest, at = 0.0, time.process_time()
    while not task.done():
        await asyncio.sleep(0)
        now = time.process_time()
        longest, at = max(longest, now - at), now
    assert len(task.result()) == 300
    assert longest < 0.25, longest


async def test_the_events_of_a_request_are_not_all_held_as_objects() -> None:
    """One by one they become what is stored, which takes a tenth."""
    body = lines_of(*[{"type": "custom:x", "data": {f"k{number}": 1.5 for number in range(500)}}] * 300)
    tracemalloc.start()
    try:
        await read(body, ndjson=True)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * len(body)


async def test_a_body_of_line_ends_is_no_list_of_millions() -> None:
    """It is not taken apart: it has no events, and is a sign of life like any such body."""
    assert await read(b"\n" * 8_000_000, ndjson=True) == []


# --- hooks -----------------------------------------------------------------------------------------------------------


def loud(event: Event, _: Origin) -> Event:
    return msgspec.structs.replace(event, message=event.message + "!") if isinstance(event, Status) else event


def drop_custom(event: Event, _: Origin) -> Event | None:
    return None if isinstance(event, Custom) else event


def breaks(event: Event, _: Origin) -> Event:
    raise LookupError("with the payload in its text")


async def test_events_pass_the_hooks_of_the_edge() -> None:
    """Every event passes the chain in order; a dropped one leaves its place empty."""
    lines = lines_of(STARTED, {"type": "custom:x", "data": {}}, STATUS)
    started, dropped, status = await read(lines, ndjson=True, hooks=[loud, drop_custom, loud])
    assert (started.type, dropped) == ("execution:started", DROPPED)
    assert json.loads(status.json)["data"]["message"] == "m!!"


async def test_a_hook_learns_where_an_event_comes_from() -> None:
    """Whose execution, the envelope's agent and request id, and that it came over HTTP."""
    origins = []

    def hook(event: Event, origin: Origin) -> Event:
        origins.append(origin)
        return event

    await read(lines_of(STATUS, STATUS | {"agent": "a", "requestId": "mine"}), ndjson=True, hooks=[hook])
    common: Any = {"user": "alice", "org": "default", "execution_id": "ex_1", "attempt": 0, "source": "http"}
    assert origins == [Origin(request_id="r1", **common), Origin(request_id="mine", agent="a", **common)]


async def test_redaction_comes_after_the_hooks() -> None:
    """A credential that a hook puts into an event is not stored either."""

    def tells(event: Event, _: Origin) -> Event:
        return Custom(name="told", data={"password": "hunter2"})

    [prepared] = await read(STATUS, hooks=[tells])
    assert json.loads(prepared.json)["data"] == {"password": "[redacted]"}


async def test_a_failing_hook_refuses_the_whole_request() -> None:
    """It is the edge's failure, named by hook and line, without what the hook said; no event is taken."""
    lines = lines_of(STARTED, STATUS)

    def on_status(event: Event, origin: Origin) -> Event:
        return breaks(event, origin) if isinstance(event, Status) else event

    with pytest.raises(Problem) as caught:
        await read(lines, ndjson=True, hooks=[loud, on_status])
    problem = caught.value
    assert (problem.status, problem.slug, problem.extensions) == (500, "hook-failed", {"hook": "on_status"})
    assert problem.detail == "line 2: hook 'on_status' failed on status: LookupError"


async def test_a_hook_does_not_drop_an_end_over_http_either() -> None:
    """The request fails, and can be repeated when the hook is mended."""
    for event in (STARTED, DONE):
        with pytest.raises(Problem) as caught:
            await read(event, hooks=[lambda event, origin: None])
        assert caught.value.status == 500


def test_an_edge_does_not_start_with_hooks_that_it_has_not() -> None:
    """A name that is not installed is a bad setting."""
    assert edge_hooks(Settings()) == ()
    with pytest.raises(InvalidSetting, match=r"RUNCAST_HOOKS: 'nope' is not allowed.*there is no 'nope'"):
        edge_hooks(Settings(hooks=("nope",)))


# --- append ----------------------------------------------------------------------------------------------------------


async def put(
    redis: Redis, *events: dict[str, Any], producer: tuple[str, int] = ("", 1), hooks: Sequence[Hook] = ()
) -> Any:
    prepared = await read(lines_of(*events), ndjson=True, hooks=hooks)
    return await publish(redis, ALICE, "ex_1", prepared, producer, LogLimits())


async def test_a_failover_between_the_check_of_a_number_and_the_append(redis: Redis) -> None:
    """The log decides once more, and nothing is appended after a gap."""
    keys = ALICE.execution("ex_1")
    await put(redis, STARTED, producer=("http.p", 1))
    before: Any = await redis.dump(keys.record), await redis.dump(keys.log)
    await put(redis, STATUS, producer=("http.p", 2))

    class Replaced(Redis):
        """Which has lost the last event, from the look at the record on."""

        async def execute_command(self, *args: Any, **options: Any) -> Any:
            found = await super().execute_command(*args, **options)
            if args[0] == "HMGET" and Field.PRODUCERS in args:
                for key, value in zip((keys.record, keys.log), before, strict=True):
                    await self.restore(key, 0, value, replace=True)
            return found

    with pytest.raises(EventsMissing) as caught:
        await put(Replaced(connection_pool=redis.connection_pool), STATUS, producer=("http.p", 3))
    assert caught.value.reached == 1
    assert await redis.xlen(keys.log) == 1
    assert (await put(redis, STATUS, STATUS, producer=("http.p", 2))).appended == 2


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


async def test_what_begins_is_checked_even_if_its_edge_dies_then(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else would notice that its process is gone too."""

    async def dies(*args: Any, **options: Any) -> None:
        await append(*args, **options)
        raise ConnectionError

    monkeypatch.setattr("broker.executions.publish.append", dies)
    with pytest.raises(ConnectionError):
        await put(redis, STARTED)
    assert await redis.zrange(DUE, 0, -1) == [b"default:alice:ex_1"]


# --- numbers, when hooks drop ----------------------------------------------------------------------------------------


def numbered(number: int) -> dict[str, Any]:
    return {"type": "custom:n", "data": {"number": number}}


def without(*numbers: int) -> Hook:
    """A hook that drops the events of these numbers."""

    def drop(event: Event, _: Origin) -> Event | None:
        return None if isinstance(event, Custom) and event.data["number"] in numbers else event

    return drop


async def numbers_in(redis: Redis) -> list[int]:
    rows: Any = await redis.xrange(ALICE.execution("ex_1").log)
    return [json.loads(fields[b"custom:n"])["data"]["number"] for _, fields in rows if b"custom:n" in fields]


@pytest.mark.parametrize("dropped", [each for size in range(4) for each in itertools.combinations((1, 2, 3, 4), size)])
async def test_repeats_and_overlaps_find_their_places(redis: Redis, dropped: tuple[int, ...]) -> None:
    """Whatever is dropped of a request: a repeat of it appends nothing, one that overlaps it only what is new, and the
    next request is taken as a whole."""
    await put(redis, STARTED)
    hooks = [without(*dropped)]
    kept = [number for number in (1, 2, 3, 4) if number not in dropped]
    for added in (len(kept), 0):
        answer = await put(redis, *map(numbered, (1, 2, 3, 4)), producer=("http.p", 1), hooks=hooks)
        assert answer.appended == added
        assert answer.cursor.endswith(f"-{1 + len(kept)}")
    assert (await put(redis, *map(numbered, (2, 3, 4, 5)), producer=("http.p", 2), hooks=hooks)).appended == 1
    assert (await put(redis, *map(numbered, (6, 7)), producer=("http.p", 6), hooks=hooks)).appended == 2
    assert await numbers_in(redis) == [*kept, 5, 6, 7]


@pytest.mark.parametrize("seed", range(20))
async def test_hooks_that_change_their_mind_cost_no_event_and_double_none(redis: Redis, seed: int) -> None:
    """Requests that repeat and overlap, before hooks that drop something else each time: no event is in the log twice
    or out of order, and every event that was kept when it was first sent is there."""
    dice = random.Random(seed)
    await put(redis, STARTED)
    sent, kept_at_first = 0, set()
    while sent < 40:
        first = dice.randint(max(1, sent - 6), sent + 1)
        window = range(first, first + dice.randint(1, 8))
        dropped = {number for number in window if dice.random() < 0.4}
        await put(redis, *map(numbered, window), producer=("http.p", first), hooks=[without(*dropped)])
        kept_at_first |= {number for number in window if number > sent} - dropped
        sent = max(sent, window[-1])
    found = await numbers_in(redis)
    assert found == sorted(set(found))
    assert kept_at_first <= set(found)


async def appends(redis: Redis) -> int:
    stats: Any = await redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


async def test_a_large_request_is_appended_in_lots(redis: Redis) -> None:
    """Redis does what others want in between. The lots are one request to its producer, wherever it was cut off."""
    texts = [{"type": "message:complete", "data": {"messageId": "m", "text": "x" * 60_000}}] * 20
    events = [STARTED, *texts, DONE, STATUS]
    producer = ("http.p", 1)
    assert (await put(redis, *events[:7], producer=producer)).appended == 7
    before = await appends(redis)
    assert (await put(redis, *events, producer=producer, hooks=[without_status])).appended == 15
    assert await appends(redis) - before >= sum(60_000 for _ in texts) // LOT_BYTES
    repeat = await put(redis, *events, producer=producer, hooks=[without_status])
    rows: Any = await redis.xrange(ALICE.execution("ex_1").log)
    assert (repeat.appended, repeat.cursor) == (0, rows[-1][0].decode())
    assert [int(id_.decode().rpartition("-")[2]) for id_, _ in rows] == list(range(1, 23))
    with pytest.raises(ExecutionEnded):
        await put(redis, *texts, producer=("http.p", 24))


def without_status(event: Event, _: Origin) -> Event | None:
    return None if event.type == "status" else event


async def test_without_a_producer_dropping_costs_nothing(redis: Redis) -> None:
    """Events without numbers are appended in one step, whatever lies between them was dropped."""
    await put(redis, STARTED)  # and the script is loaded
    await redis.config_resetstat()
    answer = await put(redis, *map(numbered, (1, 2, 3, 4, 5)), hooks=[without(2, 4)])
    stats: Any = await redis.info("commandstats")
    assert (answer.appended, stats["cmdstat_evalsha"]["calls"]) == (3, 1)
    assert await numbers_in(redis) == [1, 3, 5]


@pytest.mark.parametrize("name", ["", "http.p"])
async def test_when_everything_is_dropped_the_answer_is_the_cursor(redis: Redis, name: str) -> None:
    """Nothing is appended, and the answer says where the log is. What would be refused without hooks is refused."""
    hooks = [without(1, 2)]
    with pytest.raises(UnknownExecution):
        await put(redis, numbered(1), producer=(name, 1), hooks=hooks)
    assert await redis.keys("rc:*") == []
    started = await put(redis, STARTED)
    answer = await put(redis, numbered(1), numbered(2), producer=(name, 1), hooks=hooks)
    assert (answer.appended, answer.cursor) == (0, started.cursor)
    assert (await put(redis, numbered(3), producer=(name, 3), hooks=hooks)).appended == 1
    await put(redis, DONE)
    with pytest.raises(ExecutionEnded):
        await put(redis, numbered(1), hooks=hooks)


async def test_a_repeat_of_an_end_with_a_dropped_event_after_it_is_a_repeat(redis: Redis) -> None:
    """The dropped event's number is spent with the rest."""
    for appended in (2, 0):
        again = await put(redis, STARTED, DONE, numbered(1), producer=("http.p", 1), hooks=[without(1)])
        assert again.appended == appended


async def test_an_end_is_the_last_whatever_follows_it(redis: Redis) -> None:
    """Dropped events after the end change nothing; one that is not dropped is refused."""
    await put(redis, STARTED, DONE, numbered(1), producer=("http.p", 1), hooks=[without(1)])
    with pytest.raises(ExecutionEnded):
        await put(redis, STARTED, DONE, numbered(1), numbered(2), producer=("http.p", 1), hooks=[without(1)])


def deltas(*pieces: str, message_id: str = "m", type_: str = "message:delta") -> list[dict[str, Any]]:
    return [{"type": type_, "data": {"messageId": message_id, "delta": piece}} for piece in pieces]


async def test_a_credential_cut_over_the_chunks_of_a_request_is_redacted() -> None:
    """Of each message by itself, whatever stands between; a chunk of which nothing is left is dropped in its place."""
    key = "ghp_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
    events = [
        *deltas("use " + key[:9]),
        *deltas("use " + key[:9], message_id="other"),
        *deltas(key[9:20]),
        STATUS,
        *deltas(key[20:] + " now"),
        *deltas(key[9:12] + ".", message_id="other"),
        *deltas(key[9:], type_="thinking:delta"),
        *(
            {"type": "artifact", "data": {"artifactId": "a", "mediaType": "t", "text": text}}
            for text in (key[:9], key[9:])
        ),
    ]
    prepared = await read(b"\n".join(json.dumps(event).encode() for event in events), ndjson=True)
    said = [None if one is DROPPED else json.loads(one.json)["data"].get("delta") for one in prepared]
    assert said == ["use [redacted]", "use " + key[:9], None, None, " now", key[9:12] + ".", key[9:], None, None]
    assert [json.loads(one.json)["data"]["text"] for one in prepared[7:]] == ["[redacted]", ""]
    assert prepared[2] is DROPPED
    assert prepared[3].type == "status"
