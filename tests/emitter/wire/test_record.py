"""The execution record: its names, its one reader, and what happens to one of a newer format."""

from __future__ import annotations

import ast
import contextlib
import functools
import re
from pathlib import Path
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.executions.listing import Listing
from broker.log.history import History
from emitter import AgentEmitter, events
from emitter.errors import NewerRecord, RuncastError
from emitter.store import jobs
from emitter.store.append import LogLimits, append, prepare
from emitter.store.lifecycle import Lifecycle, Start
from emitter.store.reaper import Reaper
from emitter.wire.ids import EventId
from emitter.wire.keys import DUE, Owner, jobs_key
from emitter.wire.record import FIELDS, FORMAT, PREFIXES, Cancel, ExecutionRecord, Field, Selection, answer, open_input
from emitter.wire.redact import Redactor
from tests.emitter.lua_fields import NotUnderstood, scripts, uses_of

ROOT = Path(__file__).parents[3]
SCRIPTS = scripts(ROOT / "emitter", ROOT / "broker")
GIVEN = {"hold.lua": {"ARGV[1]": {Field.LEASE, Field.SEEN}}}
"""Fields that a script takes as an argument, which `renew_holds` writes."""
NAMES = {name: value for name, value in vars(Field).items() if not name.startswith("_")}
HELPERS = {
    "input_field": "INPUT",
    "answer_field": "ANSWER",
    "producer_field": "PRODUCER",
    "webhook_field": "WEBHOOK",
    "delivery_field": "DELIVERY",
}

ALICE = Owner("alice", "acme")
KEYS = ALICE.execution("ex_1")
REDACT = Redactor()
STATUS = prepare(events.Status(status="s", message="m"), "ex_1", redact=REDACT)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_uses_only_fields_that_have_a_name(name: str) -> None:
    """Whatever field of a record a script reads, writes or deletes is named in `Field`, and what it takes is known."""
    uses = uses_of(SCRIPTS[name])
    if uses is None:
        assert "record" not in re.sub(r"--.*", "", SCRIPTS[name])
        return
    assert (uses.reads | uses.writes | uses.deletes) - FIELDS == set()
    assert uses.given == set(GIVEN.get(name, {}))


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("redis.call('HSET', KEYS[1], 'state', 'x', 'odd', 1)", {"state", "odd"}),
        ("call('HINCRBY', record, 'odd', 1)", None),
        ("redis.pcall('HDEL', record, 'o:' .. id)", {"o:"}),
        ("call('HGET', record, format('o:%d', 1))", {"o:"}),
        ("local odd = 'o:' .. id\ncall('HGET', record, odd)", {"o:"}),
        ("call('HGET', record, odd)", None),
        ("local list = {'ms', 1, 'odd', 2}\ncall('HSET', record, unpack(list))", {"ms", "odd"}),
        ("list[#list + 1] = 'odd'\nlist[#list + 1] = value\ncall('HSET', record, unpack(list))", {"odd"}),
        ("gone['odd'] = true\nfor k in pairs(gone) do l[#l + 1] = k end\ncall('HDEL', record, unpack(l))", {"odd"}),
    ],
)
def test_no_field_of_a_script_passes_by(line: str, fields: set[str] | None) -> None:
    """What the scripts could say is found, or refused."""
    text = "-- KEYS  1 record\n" + line
    if fields is None:
        with pytest.raises(NotUnderstood):
            uses_of(text)
        return
    uses = uses_of(text)
    assert uses is not None
    assert uses.reads | uses.writes | uses.deletes == fields


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every module of both packages but `emitter.wire.record`."""
    files = [*(ROOT / "emitter").rglob("*.py"), *(ROOT / "broker").rglob("*.py")]
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text()) for file in files if file.name != "record.py"}


def named(node: ast.AST) -> set[str]:
    """The fields that are named within: `Field.STATE`, `input_field(…)`."""
    found = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "Field":
            found.add(NAMES[each.attr])
        elif isinstance(each, ast.Name) and each.id in HELPERS:
            found.add(NAMES[HELPERS[each.id]])
    return found


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_every_field_is_written_and_read() -> None:
    """A field of the record has somebody who writes it and somebody who reads it, in a script or in Python."""
    uses = [found for text in SCRIPTS.values() if (found := uses_of(text)) is not None]
    reads, writes = set().union(*(each.reads for each in uses)), set().union(*(each.writes for each in uses))
    writes |= {field for given in GIVEN.values() for fields in given.values() for field in fields}
    for tree in modules().values():
        selected = [call for call in calls(tree) if ast.unparse(call.func) == "Selection"]
        here = set().union(*(named(call) for call in selected))
        reads |= here
        inside = {id(node) for call in selected for node in ast.walk(call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and id(node) not in inside:
                writes |= {NAMES[node.attr]} if ast.unparse(node.value) == "Field" else set()
    assert writes == FIELDS
    unread = FIELDS - reads
    assert unread == set(), "nobody reads them"


def test_records_are_read_through_selections_only() -> None:
    """No module asks for a field by a name of its own, or writes one past the scripts."""
    for path, tree in modules().items():
        for call in calls(tree):
            command = call.func.attr.upper() if isinstance(call.func, ast.Attribute) else ""
            text = ast.unparse(call)
            if command == "ASK" and text.startswith("self._rounds.ask('HMGET'"):
                command = "HMGET"
            if not command.startswith("H") or not re.search(r"\brecord\b", text):
                continue
            if command in ("HGET", "HMGET", "HGETALL", "HEXISTS", "HSET", "HSETNX", "HDEL", "HINCRBY"):
                assert re.search(r"\*[\w.]+\.names\)$", text), f"{path}:{call.lineno}: {text}"
                assert command == "HMGET", f"{path}:{call.lineno}: {text}"


def test_scripts_have_the_format_of_the_reader() -> None:
    """What a script writes and refuses is what Python knows."""
    found = {name: re.findall(r"^local record_format = (\d+)$", text, re.MULTILINE) for name, text in SCRIPTS.items()}
    assert {name: number for name, number in found.items() if number} == {
        "append.lua": [str(FORMAT)],
        "claim.lua": [str(FORMAT)],
    }


# --- reading ---------------------------------------------------------------------------------------------------------

WHOLE: dict[bytes, bytes] = {
    b"format": b"1", b"state": b"waiting_input", b"ms": b"7", b"seq": b"8", b"bytes": b"9", b"end": b"{}",
    b"stack": b"at", b"task": b"T\xc3\xa4", b"agent": b"a", b"params": b'{"p":1}', b"metadata": b'{"m":1}',
    b"given": b"G", b"requestId": b"r", b"conversationId": b"c", b"createdAt": b"10", b"key": b"k", b"notBefore": b"11",
    b"cancelAfter": b"12", b"traceparent": b"tp", b"tracestate": b"ts", b"attempt": b"2", b"from": b"3", b"owner": b"w",
    b"lease": b"13", b"claimedAt": b"14", b"maxAttempts": b"5", b"lost": b"1", b"lostAfter": b"15", b"failed": b"6",
    b"hold": b"16", b"seen": b"17", b"cancel": b'{"reason":"enough","by":"bob"}', b"cancelAt": b"18",
    b"open": b" in_1 in_2 ", b"i:in_1": b"Q", b"a:in_0": b"A", b"p:worker": b"19", b"fresh": b"20", b"n:1": b"in_0",
    b"hooks": b"c m h t ", b"w:h": b"W", b"d:h": b"D",
    b"unheard-of": b"1", b"\xff": b"1",
}  # fmt: skip


def test_a_whole_record() -> None:
    """Every field is where it belongs; what only scripts use, and what a newer version added, is passed over."""
    found = ExecutionRecord.read(WHOLE)
    assert found == ExecutionRecord(
        state="waiting_input", ms=7, seq=8, log_bytes=9, end=b"{}", stack="at", task="Tä", agent="a", params=b'{"p":1}',
        metadata=b'{"m":1}', given=b"G", request_id="r", conversation_id="c", created_ms=10, key="k", not_before_ms=11,
        cancel_after_ms=12, traceparent="tp", tracestate="ts", attempt=2, from_seq=3, owner="w", lease_ms=13,
        claimed_ms=14, max_attempts=5, lost=1, lost_after_ms=15, failed=6, hold_ms=16, seen_ms=17,
        cancel=Cancel("enough", "bob"), cancel_ms=18, open_inputs=("in_1", "in_2"), inputs={"in_1": b"Q"},
        answers={"in_0": b"A"}, producers={"worker": 19}, wake="c m h t ", webhooks={"h": b"W"}, deliveries={"h": b"D"},
    )  # fmt: skip
    assert (found.exists, found.has_ended, found.last) == (True, False, EventId(7, 8))


def test_what_is_missing_has_one_default() -> None:
    """A record that is not there, one whose fields are empty, and one of which nothing was found are alike."""
    nothing = ExecutionRecord.read({})
    assert nothing == ExecutionRecord() == Selection(Field.STATE, Field.LEASE).read([None, None, None])
    assert (nothing.exists, nothing.has_ended, nothing.last, nothing.max_attempts) == (False, False, EventId(0, 0), 3)
    empty = [
        name for name in WHOLE if name not in (b"state", b"task", b"stack", b"end", b"format") and b":" not in name
    ]
    assert ExecutionRecord.read(dict.fromkeys(empty, b"")) == nothing


def test_a_selection_reads_what_it_names() -> None:
    """The names are sent once each, the format with them; fields of one question are found by its id."""
    selection = Selection(Field.STATE, Field.STATE, open_input("q"), answer("q"))
    assert selection.names == ("format", "state", "i:q", "a:q")
    found = selection.read([b"1", b"running", None, b"yes"])
    assert (found.state, found.inputs, found.answers) == ("running", {}, {"q": b"yes"})


@pytest.mark.parametrize("value", [b"soon", b"1e3", b"\xff", b"1 2"])
@pytest.mark.parametrize("name", [b"lease", b"attempt", b"p:x", b"format"])
def test_a_number_that_is_none_raises(name: bytes, value: bytes) -> None:
    """Somebody else has written there; a reader of many records goes on with the next."""
    with pytest.raises(ValueError, match=r"\S"):
        ExecutionRecord.read({b"state": b"running", name: value})


# --- a newer format --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [b"%d" % FORMAT, b"%d.7" % FORMAT, b"0", None])
def test_this_format_and_older_ones_are_read(written: bytes | None) -> None:
    """So is one that only adds to it."""
    fields = {b"state": b"running"} if written is None else {b"format": written, b"state": b"running"}
    assert ExecutionRecord.read(fields).state == "running"


@pytest.mark.parametrize("written", [b"%d" % (FORMAT + 1), b"%d.0" % (FORMAT + 9)])
def test_a_newer_format_is_refused(written: bytes) -> None:
    """Before anything of it is read, as it may mean something else."""
    with pytest.raises(NewerRecord) as caught:
        Selection(Field.LEASE).read([written, b"by other rules"])
    assert (caught.value.found, caught.value.known) == (int(written.partition(b".")[0]), FORMAT)
    assert str(caught.value) == f"its record has format {caught.value.found}; this version knows up to {FORMAT}"


async def a_newer_one(redis: Redis, execution_id: str = "ex_1") -> dict[bytes, bytes]:
    """A record that a newer version began, and that waits for a worker."""
    lifecycle = Lifecycle(redis, LogLimits(), REDACT)
    await lifecycle.accept(ALICE, execution_id, Start(task="t", agent="writer"))
    await redis.hset(ALICE.execution(execution_id).record, "format", FORMAT + 1)  # type: ignore[misc,arg-type]
    return await fields_of(redis, execution_id)


async def fields_of(redis: Redis, execution_id: str = "ex_1") -> dict[bytes, bytes]:
    found: Any = redis.hgetall(ALICE.execution(execution_id).record)
    return dict(await found)


async def test_nothing_is_appended_to_a_newer_record(redis: Redis) -> None:
    """Not by an edge, nor by an emitter; both are told."""
    before = await a_newer_one(redis)
    for options in ({}, {"producer": "p"}, {"mode": "existing"}, {"mode": "unowned"}):
        with pytest.raises(NewerRecord) as caught:
            await append(redis, ALICE, "ex_1", [STATUS], **options)
        assert (caught.value.execution_id, caught.value.found) == ("ex_1", FORMAT + 1)
    with pytest.raises(NewerRecord):
        await Lifecycle(redis, LogLimits(), REDACT).cancel(ALICE, "ex_1", reason=None, by="alice")
    assert await fields_of(redis) == before


async def test_an_emitter_hears_that_a_record_is_newer(redis: Redis, redis_url: str) -> None:
    """It does not try again for ever."""
    await a_newer_one(redis)
    with contextlib.suppress(RuncastError):
        async with AgentEmitter("alice", "ex_1", org="acme", redis_url=redis_url) as emitter:
            await emitter.status("s", "m")
            with pytest.raises(NewerRecord):
                await emitter.flush()


async def test_a_newer_record_is_left_to_newer_workers(redis: Redis) -> None:
    """A worker that cannot read it puts the job off, and changes nothing."""
    await jobs.ensure_group(redis, "writer")
    before = await a_newer_one(redis)
    (entry,) = await jobs.read(redis, ["writer"], "w1", count=1, block_ms=1000)
    claim = await jobs.claim(redis, entry, "w1", 30_000, 3)
    assert isinstance(claim, jobs.Apart)
    await jobs.ack(redis, entry, None, check_ms=claim.check_ms)
    assert await fields_of(redis) == before
    assert await redis.zrange(DUE, 0, -1, withscores=True) == [(b"acme:alice:ex_1", claim.check_ms)]
    assert await redis.xlen(jobs_key("writer")) == 0


async def test_a_newer_record_hides_no_other(redis: Redis) -> None:
    """Lists, looks at many logs and the reaper leave it out, say so, and go on."""
    await a_newer_one(redis)
    lifecycle = Lifecycle(redis, LogLimits(), REDACT)
    await lifecycle.accept(ALICE, "ex_2", Start(task="t", agent="writer"))
    await redis.zadd(DUE, {"acme:alice:ex_1": 1, "acme:alice:ex_2": 2})
    history = History(redis, Metrics("test"))
    with structlog.testing.capture_logs() as logs:
        page = await Listing(redis, 3600).page(ALICE, state=None, limit=10, cursor=None)
        other = ALICE.execution("ex_2")
        lasts = await history.lasts([(KEYS.log, KEYS.record), (other.log, other.record)])
        await redis.delete(jobs_key("writer"))
        await Reaper(redis, lifecycle, "w", 1).step()
    with pytest.raises(NewerRecord):
        await history.head(KEYS.record)
    await history.close()
    assert [each.execution_id for each in page.executions] == ["ex_2"]
    assert [None if last is None else last.seq for last in lasts] == [None, 1]
    assert await redis.xlen(jobs_key("writer")) == 1
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["record_unreadable"] * 3


def test_prefixes_are_two_letters() -> None:
    """By which fields of one question, producer or place are told from all others."""
    assert {len(prefix) for prefix in PREFIXES} == {2}
