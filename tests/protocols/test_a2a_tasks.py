"""Tasks read from Redis: up to now or up to a place, and on until they have ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.executions.commands import Commands
from broker.executions.types import ExecutionSummary
from broker.log.history import PAGE_EVENTS, History
from broker.protocols.a2a import tasks as reading
from broker.protocols.a2a.errors import A2AError
from broker.protocols.a2a.model import ListTasks
from broker.protocols.a2a.tasks import Tasks
from emitter.errors import UnknownExecution
from emitter.events import Artifact, ExecutionStarted, InputReceived, InputRequired
from emitter.store.append import LogLimits
from emitter.wire.ids import EventId, parse_event_id
from emitter.wire.redact import Redactor
from tests.edges import Author

STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
ASK = InputRequired(input_id="i", prompt="?", kind="text")
ANSWER = InputReceived(input_id="i", by="alice", value="x")


@pytest.fixture
async def tasks(redis: Redis) -> AsyncIterator[Tasks]:
    history = History(redis, Metrics("test"))
    yield Tasks(redis, history, Commands(redis, history, LogLimits(), Redactor()))
    await history.close()


async def test_up_to_now(tasks: Tasks, author: Author) -> None:
    """A task is read to its last event, however many pages that takes."""
    await author.begin()
    last = await author.say(PAGE_EVENTS * 2)
    assert (await tasks.read(author.owner, author.execution_id)).last == last


async def test_up_to_a_place(tasks: Tasks, author: Author) -> None:
    """A task is read no further than is asked for: who answered is shown what followed as it followed."""
    await author.begin()
    answered = await author.write(ASK, ANSWER)
    await author.end()
    story = await tasks.read(author.owner, author.execution_id, lambda story: "i" in story.answered)
    assert (story.last, story.state) == (answered, "working")


async def test_what_the_record_knows(tasks: Tasks, author: Author) -> None:
    """The client's message and metadata stay with the task; one that was started without a context is its own; what
    is unknown, or cannot exist, is unknown."""
    await author.begin()
    opening = await tasks.opening(author.owner, author.execution_id)
    assert (opening.context_id, opening.message_id) == (author.execution_id, None)
    metadata = json.dumps({"a2a": {"messageId": "m"}, "trace": "x"})
    await author.redis.hset(author.keys.record, mapping={"metadata": metadata, "conversationId": "c"})
    opening = await tasks.opening(author.owner, author.execution_id)
    assert (opening.context_id, opening.message_id, opening.metadata) == ("c", "m", {"trace": "x"})
    for name in ("nobody", "a:b", "*", ""):
        with pytest.raises(UnknownExecution):
            await tasks.opening(author.owner, name)


async def test_odd_rows_do_not_hide_the_other_tasks(redis: Redis, tasks: Tasks, author: Author) -> None:
    """A record that somebody else has written in is left out, or its metadata is; also where tasks are read whole."""
    await author.begin()
    for name, fields in (("odd", {"ms": "soon"}), ("list", {"metadata": "[1]"}), ("cut", {"metadata": "{"})):
        other = Author(redis, author.user, name)
        await other.begin()
        await redis.hset(other.keys.record, mapping=fields)  # type: ignore[misc,arg-type]
    await redis.zadd(author.owner.index, {b"\xff": 1, "inf": float("inf")})
    for with_artifacts in (False, True):
        page = await tasks.page(author.owner, ListTasks(with_artifacts=with_artifacts))
        assert sorted(task.task_id for task in page.tasks) == sorted(["cut", "list", author.execution_id])


@pytest.mark.parametrize("history_length", [0, 5])
async def test_what_is_listed_is_as_it_was_found(
    tasks: Tasks, author: Author, monkeypatch: pytest.MonkeyPatch, history_length: int
) -> None:
    """Of the tasks in one state none is shown in another, though it ends while the list is made."""
    await author.begin()
    find = tasks._listed

    async def find_too_early(*arguments: Any) -> list[ExecutionSummary]:
        found = await find(*arguments)
        await author.end()
        return found

    monkeypatch.setattr(tasks, "_listed", find_too_early)
    page = await tasks.page(author.owner, ListTasks(state="working", history_length=history_length))
    assert [task.status.state for task in page.tasks] == ["working"]


async def test_cursors(tasks: Tasks, author: Author) -> None:
    """A cursor is reached if it is a place of the log; one of another log, or beyond the end, is refused."""
    await author.begin()
    await author.say(3)
    second = parse_event_id((await author.log())[1].id)
    reached = await tasks.reach(author.owner, author.execution_id, second)
    assert (reached.then.last, reached.lost) == (second, False)
    for foreign in (second._replace(ms=second.ms - 1), EventId(second.ms, 9), EventId(second.ms + 10**9, 3)):
        with pytest.raises(A2AError):
            await tasks.reach(author.owner, author.execution_id, foreign)
    await author.redis.xtrim(author.keys.log, maxlen=1, approximate=False)
    reached = await tasks.reach(author.owner, author.execution_id, second)
    assert (reached.then.last.seq, reached.lost) == (4, True)


async def test_what_was_answered_after_a_cursor(tasks: Tasks, author: Author) -> None:
    """A task at a cursor says which of its questions have their answers by now."""
    await author.begin()
    asked = await author.write(ASK)
    await author.write(ANSWER)
    reached = await tasks.reach(author.owner, author.execution_id, asked)
    assert (reached.then.last, reached.then.answered, reached.answered) == (asked, frozenset(), {"i"})


@pytest.mark.parametrize("metadata", ["[1]", "{", '"x"', "[" * 2_000, "\xff"])
async def test_a_record_that_somebody_else_has_written_in(tasks: Tasks, author: Author, metadata: str) -> None:
    """Metadata that is no object is left out, and the task and the list of tasks are there."""
    await author.begin()
    encoded = metadata.encode("latin-1")
    await author.redis.hset(author.keys.record, "metadata", encoded)
    assert (await tasks.opening(author.owner, author.execution_id)).metadata is None
    assert (await tasks.read(author.owner, author.execution_id)).state == "working"
    if metadata in ("[1]", '"x"'):
        page = await tasks.page(author.owner, ListTasks(with_artifacts=True))
        assert [task.task_id for task in page.tasks] == [author.execution_id]


async def test_a_state_that_nobody_knows(tasks: Tasks, author: Author) -> None:
    """A task of which only a record is left, with a state of somebody else's, is in an unknown one."""
    await author.begin()
    await author.redis.hset(author.keys.record, "state", "dreaming")
    await author.redis.delete(author.keys.log)
    assert (await tasks.read(author.owner, author.execution_id)).state == "unknown"


async def test_a_list_is_bounded(tasks: Tasks, author: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the tasks are, a list of them is not: what does not fit says so, and is whole where its task alone
    is asked for."""
    monkeypatch.setattr(reading, "MAX_STATE_BYTES", 100_000)
    made = [Artifact(artifact_id=f"a{n}", media_type="t", text="x" * 20_000) for n in range(4)]
    for name in ("ex_1", "ex_2"):
        await Author(author.redis, author.user, name).write(STARTED, *made)
    page = await tasks.page(author.owner, ListTasks(with_artifacts=True))
    for task in page.tasks:
        marks = [artifact.metadata for artifact in task.artifacts]
        assert marks == [{"truncated": True}] * 2 + [None] * 2
    assert all(artifact.metadata is None for artifact in (await tasks.read(author.owner, "ex_1")).task().artifacts)


async def test_until_it_has_ended(tasks: Tasks, author: Author) -> None:
    """The wait for an end is over with the end, and without one when its time is."""
    await author.begin()
    story = await tasks.read(author.owner, author.execution_id)
    await tasks.until_ended(author.owner, story, 0.05)
    assert not story.is_terminal
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(tasks.until_ended(author.owner, story, 20))
        await author.say()
        await author.end()
    assert story.is_terminal
    assert time.monotonic() - began < 15
