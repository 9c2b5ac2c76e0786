"""What callers do to executions, on a real Redis: execute, list, look, cancel."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from broker.base.identity import Identity
from broker.base.metrics import Metrics
from broker.base.problem import Problem
from broker.executions.accepted import accepted, params_of, shown_params
from broker.executions.commands import Commands
from broker.executions.listing import LIST_PAGE
from broker.executions.message_types import MessageRequest
from broker.executions.types import BudgetRequest, ExecuteRequest, ExecutionState, InputRequest
from broker.log.history import Head, History
from emitter.budgets import Budget
from emitter.errors import (
    ExecutionEnded,
    ExecutionExists,
    PayloadTooLarge,
    UnknownExecution,
)
from emitter.events import (
    Event,
    ExecutionComplete,
    ExecutionError,
    ExecutionStarted,
    InputReceived,
    InputRequired,
    MessageDelta,
    Status,
)
from emitter.store.append import LogLimits, append, prepare
from emitter.store.messages import take_messages
from emitter.wire import envelope, ids
from emitter.wire.ids import START, EventId, now_ms, parse_event_id
from emitter.wire.keys import AGENTS_KNOWN, DUE, Owner, jobs_key, member
from emitter.wire.record import ExecutionRecord, Field
from emitter.wire.redact import Redactor

ALICE, BOB = Identity(Owner("alice"), frozenset()), Identity(Owner("bob"), frozenset())
STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
DONE = ExecutionComplete(result={"ok": True}, duration=1.5)


@pytest.fixture
async def commands(redis: Redis, commands_of: Callable[..., Commands]) -> Commands:
    await known(redis, "analyst")
    return commands_of()


@pytest.fixture
async def commands_of(redis: Redis) -> AsyncIterator[Callable[..., Commands]]:
    """Makes commands with limits of one's own."""
    history = History(redis, Metrics("0"))
    yield lambda **limits: Commands(redis, history, LogLimits(**limits), Redactor())
    await history.close()


async def known(redis: Redis, *agents: str) -> None:
    await redis.zadd(AGENTS_KNOWN, dict.fromkeys(agents, ids.now_ms()))


async def execute(commands: Commands, key: str | None = None, identity: Identity = ALICE, **request: Any) -> Any:
    wanted = ExecuteRequest(**({"task": "do it"} | request))
    return await commands.execute(identity, wanted, request_id="r1", idempotency_key=key)


async def log(redis: Redis, execution_id: str, *events: Event, **options: Any) -> EventId:
    prepared = [prepare(event, execution_id, redact=Redactor()) for event in events]
    return (await append(redis, ALICE.owner, execution_id, prepared, **options)).last


async def jobs_of(redis: Redis, agent: str = "analyst") -> list[str]:
    rows: Any = await redis.xrange(jobs_key(agent))
    return [fields[b"execution"].decode() for _, fields in rows]


# --- execute ---------------------------------------------------------------------------------------------------------


async def test_an_accepted_execution_is_logged_recorded_and_queued(redis: Redis, commands: Commands) -> None:
    """Accepting writes `execution:queued`, a record with all that was asked, and one job."""
    answer, is_new = await execute(commands, params={"a": 1}, metadata={"m": "x"}, conversation_id="c1")
    execution_id = answer.execution_id
    assert is_new
    assert (answer.state, answer.stream_url) == ("queued", f"/api/agent/executions/{execution_id}/stream")
    assert await jobs_of(redis) == [execution_id]
    page = await commands.events(ALICE.owner, execution_id, after=START, limit=10)
    assert [envelope.decode_envelope(each.event)[0].type for each in page.events] == ["execution:queued"]
    raw: Any = await redis.hgetall(ALICE.owner.execution(execution_id).record)
    record = {name.decode(): value.decode() for name, value in raw.items()}
    asked = {"task": "do it", "agent": "analyst", "params": '{"a":1}', "metadata": '{"m":"x"}', "state": "queued"}
    assert record.items() >= (asked | {"conversationId": "c1", "requestId": "r1"}).items()


async def test_the_same_key_gets_the_first_answer(redis: Redis, commands: Commands) -> None:
    """A repeat with the same key and body gets the first answer and starts nothing, whatever became of it meanwhile."""
    first, is_new = await execute(commands, "k1", params={"b": 1, "a": 2})
    again, is_again = await execute(commands, "k1", params={"a": 2, "b": 1})
    assert (is_new, is_again, again) == (True, False, first)
    await log(redis, first.execution_id, STARTED, DONE)
    assert await execute(commands, "k1", params={"a": 2, "b": 1}) == (first, False)
    assert len(set(await jobs_of(redis))) == 1
    page = await commands.events(ALICE.owner, first.execution_id, after=START, limit=10)
    assert len(page.events) == 3


async def test_simultaneous_requests_with_one_key_are_one_execution(redis: Redis, commands: Commands) -> None:
    """However many come at once with one key, one execution is made and all are told of it."""
    answers = await asyncio.gather(*(execute(commands, "k1") for _ in range(20)))
    assert len({answer.execution_id for answer, _ in answers}) == 1
    assert sum(is_new for _, is_new in answers) == 1
    assert len((await commands.listing.page(ALICE.owner, state=None, limit=50, cursor=None)).executions) == 1
    assert set(await jobs_of(redis)) == {answers[0][0].execution_id}


async def test_a_key_stands_for_one_request_of_one_user(commands: Commands) -> None:
    """Another body under a known key is refused; another user's same key is another key."""
    first, _ = await execute(commands, "k1")
    for other in ({"task": "other"}, {"params": {}}, {"execution_id": "ex_9"}, {"metadata": {"a": 1}}):
        with pytest.raises(Problem) as caught:
            await execute(commands, "k1", **other)
        assert (caught.value.status, caught.value.slug) == (422, "idempotency-key-reused")
    bobs, is_new = await execute(commands, "k1", BOB)
    assert is_new
    assert bobs.execution_id != first.execution_id


async def test_a_repeat_is_answered_when_no_worker_knows_the_agent_any_more(redis: Redis, commands: Commands) -> None:
    """The first answer stands, whatever has become of the agent; a new request is refused."""
    first, _ = await execute(commands, "k1")
    await redis.delete(AGENTS_KNOWN)
    commands._agents = (0.0, frozenset())
    assert await execute(commands, "k1") == (first, False)
    with pytest.raises(Problem) as caught:
        await execute(commands, "k2")
    assert caught.value.slug == "unknown-agent"


async def test_a_repeat_finishes_what_an_edge_could_not(redis: Redis, commands: Commands) -> None:
    """When the edge died between the key and the log, the repeat makes the execution, under the key's id."""
    first, _ = await execute(commands, "k1")
    await redis.delete(ALICE.owner.execution(first.execution_id).record)
    assert await execute(commands, "k1") == (first, True)


async def test_what_starts_later_is_in_no_queue(redis: Redis, commands: Commands) -> None:
    """With a time to start ahead the execution is accepted, but no worker is offered it; a repeat changes nothing."""
    at = now_ms() + 60_000
    first, _ = await execute(commands, "k1", not_before=at)
    assert await execute(commands, "k1", not_before=at) == (first, False)
    assert await jobs_of(redis) == []
    assert await redis.zrange(DUE, 0, -1, withscores=True) == [(member(ALICE.owner, first.execution_id).encode(), at)]


async def test_what_starts_after_its_record_is_gone_is_refused(commands: Commands) -> None:
    """A time to start beyond the log's life is refused with the latest that is possible."""
    with pytest.raises(Problem) as caught:
        await execute(commands, not_before=now_ms() + 30 * 86_400_000)
    assert (caught.value.status, caught.value.slug) == (422, "invalid")


async def test_an_id_is_taken_once(redis: Redis, commands: Commands) -> None:
    """A second execution of a known id is refused with its state; another user's is another execution."""
    await execute(commands, execution_id="ex_1")
    with pytest.raises(ExecutionExists) as caught:
        await execute(commands, execution_id="ex_1")
    assert caught.value.state == "queued"
    await log(redis, "ex_1", STARTED, DONE)
    with pytest.raises(ExecutionExists) as caught:
        await execute(commands, execution_id="ex_1")
    assert caught.value.state == "completed"
    assert (await execute(commands, None, BOB, execution_id="ex_1"))[1]


async def test_the_agent_must_be_known(redis: Redis, commands_of: Callable[..., Commands]) -> None:
    """An unknown agent is refused with the known names; the only known agent needs no naming; nothing is written."""
    commands = commands_of()
    with pytest.raises(Problem) as caught:
        await execute(commands, agent="x")
    assert (caught.value.status, caught.value.slug, caught.value.extensions["known"]) == (422, "unknown-agent", [])
    await known(redis, "b", "a")
    commands = commands_of()
    for agent in (None, "x", "A"):
        with pytest.raises(Problem) as caught:
            await execute(commands, "k1", agent=agent)
        assert caught.value.extensions["known"] == ["a", "b"]
    assert await redis.keys("rc:{default:alice}*") == []
    assert (await execute(commands, "k1", agent="b"))[1]


async def test_an_agent_is_known_once_it_is_announced(redis: Redis, commands_of: Callable[..., Commands]) -> None:
    """Whoever was refused because no worker knew the agent is not refused any more when one does; nor is who names
    none, once there is one."""
    commands = commands_of()
    for agent in (None, "late"):
        with pytest.raises(Problem):
            await execute(commands, agent=agent)
    await known(redis, "late")
    for agent in (None, "late"):
        assert (await execute(commands, agent=agent))[1]


async def test_a_task_that_is_too_large_starts_nothing(redis: Redis, commands_of: Callable[..., Commands]) -> None:
    """A task whose event is over the limit is refused before anything is queued."""
    await known(redis, "analyst")
    with pytest.raises(PayloadTooLarge):
        await execute(commands_of(max_event_bytes=1024), task="x" * 2000)
    assert await jobs_of(redis) == []


# --- list ------------------------------------------------------------------------------------------------------------


async def listed(redis: Redis, *rows: tuple[int, str, str]) -> None:
    """Executions (created ms, id, state) as the append script leaves them."""
    pipe = redis.pipeline(transaction=False)
    for ms, execution_id, state in rows:
        record = ALICE.owner.execution(execution_id).record
        pipe.hset(record, mapping={"state": state, "ms": ms, "seq": 1, "task": "t", "agent": "a", "metadata": "{}"})
        pipe.zadd(ALICE.owner.index, {execution_id: ms})
    await pipe.execute()


async def pages(commands: Commands, limit: int, state: str | None = None) -> list[list[str]]:
    found, cursor = [], None
    for _ in range(200):
        page = await commands.listing.page(ALICE.owner, state=state, limit=limit, cursor=cursor)
        found.append([each.execution_id for each in page.executions])
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise AssertionError("the list does not end")


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
async def test_pages_join_to_the_list_newest_first(redis: Redis, commands: Commands, limit: int) -> None:
    """Whatever the page size, the pages are all executions, newest first, each once; those of one millisecond too."""
    rows = [(1000 + n // 4, f"ex_{n:02}", "running") for n in range(12)]
    await listed(redis, *rows)
    wanted = [execution_id for _, execution_id, _ in sorted(rows, reverse=True)]
    found = await pages(commands, limit)
    assert [each for page in found for each in page] == wanted
    assert all(len(page) <= limit for page in found)


async def test_many_executions_of_one_millisecond_are_all_listed(redis: Redis, commands: Commands) -> None:
    """More executions of one millisecond than a page holds lose nobody and end."""
    rows = [(1000, f"ex_{n:04}", "running") for n in range(180)] + [(999, f"old_{n:04}", "running") for n in range(150)]
    await listed(redis, *rows)
    wanted = [execution_id for _, execution_id, _ in sorted(rows, reverse=True)]
    assert [each for page in await pages(commands, 90) for each in page] == wanted


async def test_a_list_is_filtered_by_state(redis: Redis, commands: Commands) -> None:
    """With a state only its executions are listed, however rare; records that expired are left out."""
    rows = [(n, f"ex_{n:04}", "failed" if n % 97 == 0 else "running") for n in range(1, 3 * LIST_PAGE)]
    await listed(redis, *rows)
    await redis.delete(*(ALICE.owner.execution(f"ex_{n:04}").record for n in (97, 100)))
    failed = [execution_id for _, execution_id, state in reversed(rows) if state == "failed"]
    assert [each for page in await pages(commands, 2, "failed") for each in page] == failed[:-1]
    assert len([each for page in await pages(commands, 200) for each in page]) == len(rows) - 2
    assert await pages(commands, 5, "cancelled") == [[]]


async def test_a_summary_says_what_the_record_knows(redis: Redis, commands: Commands) -> None:
    """A summary has task, agent, state, times, cursor, conversation and metadata."""
    answer, _ = await execute(commands, metadata={"m": 1}, conversation_id="c1")
    last = await log(redis, answer.execution_id, STARTED)
    [summary] = (await commands.listing.page(ALICE.owner, state="running", limit=5, cursor=None)).executions
    assert (summary.task, summary.agent, summary.state) == ("do it", "analyst", "running")
    assert (summary.metadata, summary.conversation_id, summary.cursor) == ({"m": 1}, "c1", str(last))
    assert summary.updated_at == last.ms
    assert (await commands.listing.page(BOB.owner, state=None, limit=5, cursor=None)).executions == []


@pytest.mark.parametrize("cursor", ["", "x", "-1.ex", "1e3.ex", "9" * 16 + ".x", "5." + "y" * 65, "٣x.a"])
async def test_a_cursor_that_is_not_ours_is_refused(commands: Commands, cursor: str) -> None:
    """Anything that cannot have been a cursor is a 400 that names it."""
    with pytest.raises(Problem) as caught:
        await commands.listing.page(ALICE.owner, state=None, limit=5, cursor=cursor)
    assert (caught.value.status, caught.value.extensions["path"]) == (400, "cursor")


# --- look ------------------------------------------------------------------------------------------------------------


async def state_of(commands: Commands, execution_id: str = "ex_1", *, with_stack: bool = False) -> ExecutionState:
    return await commands.state(ALICE.owner, execution_id, with_stack=with_stack)


async def test_the_state_is_the_folded_log(redis: Redis, commands: Commands) -> None:
    """The state is the fold of all pages of the log, and its cursor is the log's end."""
    last = await log(redis, "ex_1", STARTED, *(MessageDelta(message_id="m", delta="x") for _ in range(450)))
    state = await state_of(commands)
    assert (state.status, state.text, state.cursor) == ("running", "x" * 450, str(last))


async def test_the_state_is_of_one_moment(redis: Redis, commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is appended while a state is read is not in half of it."""
    await log(redis, "ex_1", STARTED)
    read = commands._record

    async def read_too_early(*arguments: Any, **options: Any) -> ExecutionRecord:
        record = await read(*arguments, **options)
        await log(redis, "ex_1", DONE)
        return record

    with monkeypatch.context() as patch:
        patch.setattr(commands, "_record", read_too_early)
        before = await commands.state(ALICE.owner, "ex_1", with_stack=False)
    after = await commands.state(ALICE.owner, "ex_1", with_stack=False)
    assert [(state.status, state.ended_at is None, state.cursor[-1]) for state in (before, after)] == [
        ("running", True, "1"), ("completed", False, "2"),
    ]  # fmt: skip


async def test_an_execution_that_waits_says_for_what(
    redis: Redis, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that comes while the record is read does not leave a state that waits for nothing."""
    await log(redis, "ex_1", STARTED, InputRequired(input_id="i", prompt="?", kind="text"))
    read, records = commands._record, itertools.count(1)

    async def read_too_early(*arguments: Any, **options: Any) -> ExecutionRecord:
        record = await read(*arguments, **options)
        if next(records) == 1:
            await log(redis, "ex_1", InputReceived(input_id="i", by="alice", value="x"))
        return record

    monkeypatch.setattr(commands, "_record", read_too_early)
    state = await commands.state(ALICE.owner, "ex_1", with_stack=False)
    assert (state.status, state.open_inputs, state.cursor[-1]) == ("running", [], "3")


async def test_an_agent_that_never_stops_asking_holds_nobody_up(
    redis: Redis, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often what it waits for changes while it is read, there is an answer."""
    await log(redis, "ex_1", STARTED, InputRequired(input_id="i0", prompt="?", kind="text"))
    read, records = commands._record, itertools.count(1)

    async def read_too_early(*arguments: Any, **options: Any) -> ExecutionRecord:
        record = await read(*arguments, **options)
        await log(redis, "ex_1", InputRequired(input_id=f"i{next(records)}", prompt="?", kind="text"))
        return record

    monkeypatch.setattr(commands, "_record", read_too_early)
    async with asyncio.timeout(10):
        state = await commands.state(ALICE.owner, "ex_1", with_stack=False)
    assert state.status == "waiting_input"
    assert state.open_inputs[0].input_id == "i0"


async def test_a_page_of_events_is_of_one_moment(
    redis: Redis, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No page has an end beside the state running: it ends before, and says that there is more."""
    await log(redis, "ex_1", STARTED)
    read = commands._history.head

    async def read_too_early(record: str) -> Head | None:
        head = await read(record)
        await log(redis, "ex_1", DONE)
        return head

    with monkeypatch.context() as patch:
        patch.setattr(commands._history, "head", read_too_early)
        before = await commands.events(ALICE.owner, "ex_1", after=START, limit=5)
    assert before.next_after is not None
    after = await commands.events(ALICE.owner, "ex_1", after=parse_event_id(before.next_after), limit=5)
    assert [(page.state, [event.id[-1] for event in page.events]) for page in (before, after)] == [
        ("running", ["1"]), ("completed", ["2"]),
    ]  # fmt: skip


async def test_the_states_of_messages_are_of_one_moment(
    redis: Redis, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that was taken before another was withdrawn does not wait in a list in which that one is dropped."""
    owner, limits = ALICE.owner, LogLimits()
    await log(redis, "ex_1", STARTED)
    await redis.hset(owner.execution("ex_1").record, Field.ACCEPTS, "1")  # type: ignore[misc]
    for message_id in ("m1", "m2"):
        await commands.messages.send(ALICE, "ex_1", MessageRequest(message_id=message_id, text="hi"), "r1")
    read, reads = redis.hmget, itertools.count(1)

    async def read_too_early(*arguments: Any) -> Any:
        row = await read(*arguments)  # type: ignore[misc]
        if next(reads) == 1:
            monkeypatch.undo()
            await take_messages(redis, owner, "ex_1", 0, take="t", most=1, redact=Redactor(), limits=limits)
            await commands.messages.withdraw(ALICE, "ex_1", "m2", "r2")
        return row

    monkeypatch.setattr(redis, "hmget", read_too_early)
    found = await commands.messages.list(owner, "ex_1")
    assert [(message.message_id, message.state) for message in found.messages] == [("m1", "taken"), ("m2", "dropped")]


async def test_where_the_log_is_gone_the_record_answers(redis: Redis, commands: Commands) -> None:
    """When the log has expired the tombstone still tells task, agent, state, result and cursor."""
    answer, _ = await execute(commands)
    last = await log(redis, answer.execution_id, STARTED, DONE)
    await redis.delete(ALICE.owner.execution(answer.execution_id).log)
    state = await state_of(commands, answer.execution_id)
    assert (state.status, state.result, state.cursor) == ("completed", {"ok": True}, str(last))
    assert (state.task, state.agent) == ("do it", "analyst")


async def test_where_the_log_is_trimmed_the_record_fills_in(redis: Redis, commands: Commands) -> None:
    """When the log's beginning is gone, task and agent come from the record."""
    answer, _ = await execute(commands)
    last = await log(redis, answer.execution_id, STARTED, Status(status="s", message="m"))
    await redis.xtrim(ALICE.owner.execution(answer.execution_id).log, minid=str(last), approximate=False)
    state = await state_of(commands, answer.execution_id)
    assert (state.task, state.agent, state.status, state.cursor) == ("do it", "analyst", "running", str(last))


async def test_the_request_is_kept_with_the_execution(redis: Redis, commands: Commands) -> None:
    """State and request have the parameters as they were given, but for credentials; with the log gone as well."""
    params = {"mode": "fast", "password": "hunter2", "deep": [1, {"a": None}]}
    answer, _ = await execute(
        commands, params=params, metadata={"team": "blue"}, conversation_id="c1", budget=BudgetRequest(tool_calls=3)
    )
    shown = params | {"password": "[redacted]"}
    assert (await state_of(commands, answer.execution_id)).params == shown
    await log(redis, answer.execution_id, STARTED, DONE)
    await redis.delete(ALICE.owner.execution(answer.execution_id).log)
    assert (await state_of(commands, answer.execution_id)).params == shown
    request = await accepted(redis, ALICE.owner, answer.execution_id)
    assert (request.state, request.user, request.org, request.by) == ("completed", "alice", "default", "alice")
    assert (request.task, request.agent, request.params) == ("do it", "analyst", shown)
    assert (request.metadata, request.conversation_id, request.budget) == ({"team": "blue"}, "c1", Budget(tool_calls=3))
    assert request.created_at is not None
    shared = request.shared
    assert (shared.params, shared.metadata, shared.conversation_id, shared.by) == (shown, None, None, None)


async def test_an_admin_who_starts_for_another_is_named(redis: Redis, commands: Commands) -> None:
    """Who sent the request is kept beside the owner."""
    answer, _ = await execute(commands, identity=Identity(ALICE.owner, frozenset(), actor=Owner("root", "ops")))
    request = await accepted(redis, ALICE.owner, answer.execution_id)
    assert (request.user, request.by) == ("alice", "root")


async def test_what_was_published_has_no_request(redis: Redis, commands: Commands) -> None:
    """Without a request there are no parameters; an unknown execution, or another's, is unknown."""
    await log(redis, "ex_1", STARTED)
    assert (await state_of(commands)).params is None
    request = await accepted(redis, ALICE.owner, "ex_1")
    assert (request.state, request.params, request.by, request.created_at) == ("running", None, None, None)
    for owner, execution_id in ((ALICE.owner, "ex_2"), (BOB.owner, "ex_1")):
        with pytest.raises(UnknownExecution):
            await accepted(redis, owner, execution_id)


def test_very_large_parameters_are_clipped_in_the_state_only() -> None:
    """The largest members go first, until the rest fits."""
    params = {"small": 1, "large": "x" * 900, "larger": ["y" * 2000]}
    record = ExecutionRecord(state="queued", created_ms=1, params=msgspec.json.encode(params))
    assert shown_params(record) == params_of(record) == params
    assert shown_params(record, 1000) == params | {"larger": {"clipped": True}}
    assert shown_params(record, 10) == {"small": 1, "large": {"clipped": True}, "larger": {"clipped": True}}


async def test_the_stack_is_for_those_who_may_see_it(redis: Redis, commands: Commands) -> None:
    """The stack of an error is told only when asked with the right to it."""
    await log(redis, "ex_1", STARTED, ExecutionError(error="e", code="c"), fields={"stack": "Traceback"})
    hidden, shown = await state_of(commands), await state_of(commands, with_stack=True)
    assert hidden.error is not None
    assert shown.error is not None
    assert (hidden.error.stack, shown.error.stack) == (None, "Traceback")
    assert (shown.error.error, shown.error.code) == ("e", "c")


async def test_events_are_paged(redis: Redis, commands: Commands) -> None:
    """The log is read in pages that join to the whole; the last page names no next."""
    await log(redis, "ex_1", STARTED, *(Status(status="s", message=str(n)) for n in range(9)))
    found, after, sizes = [], START, []
    while True:
        page = await commands.events(ALICE.owner, "ex_1", after=after, limit=4)
        found += [each.id for each in page.events]
        sizes.append(len(page.events))
        if page.next_after is None:
            break
        after = ids.parse_event_id(page.next_after)
    assert [int(each.partition("-")[2]) for each in found] == list(range(1, 11))
    assert sizes == [4, 4, 2]
    pages = [page async for page in commands.export(ALICE.owner, "ex_1", ids.parse_event_id(found[7]))]
    exported = b"".join(pages).splitlines()
    assert [msgspec.json.decode(line)["id"] for line in exported] == found[8:]


async def test_events_of_a_trimmed_log_say_where_they_begin(redis: Redis, commands: Commands) -> None:
    """A page after a loss tells the first ordinal that is left."""
    last = await log(redis, "ex_1", STARTED, *(Status(status="s", message=str(n)) for n in range(9)))
    await redis.xtrim(ALICE.owner.execution("ex_1").log, maxlen=3, approximate=False)
    page = await commands.events(ALICE.owner, "ex_1", after=START, limit=100)
    assert (page.first_seq, page.events[-1].id, page.next_after) == (8, str(last), None)


async def test_what_is_not_there_is_unknown(redis: Redis, commands: Commands) -> None:
    """An execution that does not exist, or is another's, is unknown to every command."""
    await log(redis, "ex_1", STARTED)
    for identity, execution_id in ((ALICE, "ex_2"), (BOB, "ex_1")):
        with pytest.raises(UnknownExecution):
            await commands.state(identity.owner, execution_id, with_stack=True)
        with pytest.raises(UnknownExecution):
            await commands.events(identity.owner, execution_id, after=START, limit=5)
        with pytest.raises(UnknownExecution):
            await commands.cancel(identity, execution_id, None, "r")
        with pytest.raises(UnknownExecution):
            await commands.answers.give(identity, execution_id, InputRequest(input_id="i", value=True), "r")
    assert await redis.keys("rc:{default:bob}*") == []


# --- cancel ----------------------------------------------------------------------------------------------------------


async def test_a_queued_execution_is_cancelled_at_once(redis: Redis, commands: Commands) -> None:
    """Where no worker has the execution, cancelling ends it, with reason and name; a repeat changes nothing."""
    answer, _ = await execute(commands)
    for reason in ("enough", "again"):
        assert (await commands.cancel(ALICE, answer.execution_id, reason, "r2")).state == "cancelled"
    state = await state_of(commands, answer.execution_id)
    assert state.cancelled is not None
    assert (state.status, state.cancelled.reason, state.cancelled.by) == ("cancelled", "enough", "alice")
    page = await commands.events(ALICE.owner, answer.execution_id, after=START, limit=10)
    assert len(page.events) == 2


async def test_a_running_execution_is_asked_to_cancel(redis: Redis, commands: Commands) -> None:
    """Where a worker has the execution it is told, once with the first words; the log is the worker's to end."""
    await log(redis, "ex_1", STARTED, fields={"owner": "w1"})
    keys = ALICE.owner.execution("ex_1")
    async with redis.pubsub() as listening:
        await listening.subscribe(keys.control)
        for reason in ("enough", "again"):
            assert (await commands.cancel(ALICE, "ex_1", reason, "r")).state == "running"
        heard = [await listening.get_message(timeout=10) for _ in range(3)]
    assert [each["data"] for each in heard if each] == [1, b"cancel", b"cancel"]
    assert await redis.hget(keys.record, "cancel") == b'{"reason":"enough","by":"alice"}'
    page = await commands.events(ALICE.owner, "ex_1", after=START, limit=10)
    assert len(page.events) == 1


@pytest.mark.parametrize("end", [DONE, ExecutionError(error="e")])
async def test_what_ended_otherwise_is_not_cancelled(redis: Redis, commands: Commands, end: Event) -> None:
    """A completed or failed execution stays so, and the caller is told how it ended."""
    await log(redis, "ex_1", STARTED, end)
    with pytest.raises(ExecutionEnded) as caught:
        await commands.cancel(ALICE, "ex_1", None, "r")
    assert caught.value.state == ("completed" if end is DONE else "failed")


async def test_simultaneous_cancels_are_one(redis: Redis, commands: Commands) -> None:
    """Of many who cancel at once all are told it is cancelled, and the log has one terminal event."""
    answer, _ = await execute(commands)
    states = await asyncio.gather(*(commands.cancel(ALICE, answer.execution_id, None, "r") for _ in range(10)))
    assert {each.state for each in states} == {"cancelled"}
    page = await commands.events(ALICE.owner, answer.execution_id, after=START, limit=10)
    assert len(page.events) == 2


async def test_a_waiting_execution_is_asked_too(redis: Redis, commands: Commands) -> None:
    """An execution that waits for an answer is cancelled like a running one."""
    await log(redis, "ex_1", STARTED, InputRequired(input_id="i", prompt="?", kind="text"), fields={"owner": "w1"})
    assert (await commands.cancel(ALICE, "ex_1", None, "r")).state == "waiting_input"
