"""What is known of a conversation from its executions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.executions import conversations
from broker.executions.attachments import Attachment
from broker.executions.commands import Commands
from broker.executions.conversations import MAX_EXECUTIONS, MAX_TURN_CHARS, PAGE, Turn, given
from broker.log.history import History
from emitter.events import ExecutionComplete, ExecutionError, MessageDelta
from emitter.store.append import LogLimits
from emitter.store.lifecycle import Lifecycle, Start
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from tests.edges import Author

ALICE = Owner("alice")


@pytest.fixture
async def commands(redis: Redis) -> AsyncIterator[Commands]:
    history = History(redis, Metrics("0"))
    yield Commands(redis, history, LogLimits(), Redactor())
    await history.close()


async def begin(
    redis: Redis, execution_id: str, conversation_id: str | None, owner: Owner = ALICE, message_id: str | None = None
) -> Author:
    metadata = None if message_id is None else conversations.message_metadata(message_id)
    start = Start(task=f"ask {execution_id}", agent="a", conversation_id=conversation_id, metadata=metadata)
    await Lifecycle(redis, LogLimits(), Redactor()).accept(owner, execution_id, start)
    return Author(redis, owner.user, execution_id)


async def ids(commands: Commands, **options: Any) -> list[str]:
    options = {"limit": 10, **options}
    return [each.execution_id for each in await conversations.recent(commands, ALICE, "c", **options)]


async def test_recent(redis: Redis, commands: Commands) -> None:
    """A conversation's executions are found newest first, among all others and of nobody else."""
    for number in range(3):
        await begin(redis, f"ex_{number}", "c")
        await begin(redis, f"other_{number}", "d")
        await begin(redis, f"none_{number}", None)
    await begin(redis, "ex_9", "c", Owner("bob"))
    assert sorted(await ids(commands)) == ["ex_0", "ex_1", "ex_2"]
    assert len(await ids(commands, limit=2)) == 2


async def test_running(redis: Redis, commands: Commands) -> None:
    """Those that have ended can be left out."""
    for number, end in enumerate([ExecutionComplete(result=1, duration=1.0), ExecutionError(error="e"), None]):
        author = await begin(redis, f"ex_{number}", "c")
        if end is not None:
            await author.write(end)
    assert await ids(commands, is_running=True, limit=1) == ["ex_2"]


async def test_behind_many_that_have_ended(redis: Redis, commands: Commands) -> None:
    """What runs is also found behind a page of what has ended, and what others do is not even looked at."""
    await begin(redis, "ex_0", "c")
    for number in range(1, PAGE + 5):
        author = await begin(redis, f"ex_{number}", "c")
        await author.write(done(number))
    await redis.delete(ALICE.index)
    assert await ids(commands, is_running=True) == ["ex_0"]
    assert len(await ids(commands, limit=PAGE + 1)) == PAGE + 1


async def test_what_has_gone(redis: Redis, commands: Commands) -> None:
    """An execution whose record has expired, or whose id was used again elsewhere, is no part of it any more."""
    for number in range(3):
        await begin(redis, f"ex_{number}", "c")
    await redis.delete(ALICE.execution("ex_1").record)
    await redis.hset(ALICE.execution("ex_2").record, "conversationId", "d")
    assert await ids(commands) == ["ex_0"]


async def test_turns(redis: Redis, commands: Commands) -> None:
    """Each execution is a question and its answer: the text, or else a result that is text, or none."""
    ends = [
        [MessageDelta(message_id="m", delta="said "), MessageDelta(message_id="m", delta="0"), done({"r": 0})],
        [done("result 1")],
        [done({"r": 2})],
        [],
    ]
    for number, events in enumerate(ends):
        author = await begin(redis, f"ex_{number}", "c")
        await redis.zadd(ALICE.conversation("c"), {f"ex_{number}": number})  # whatever the clock's grain
        if events:
            await author.write(*events)
    assert (await conversations.past(commands, ALICE, "c")).turns == [
        Turn("user", "ask ex_0"),
        Turn("assistant", "said 0"),
        Turn("user", "ask ex_1"),
        Turn("assistant", "result 1"),
        Turn("user", "ask ex_2"),
        Turn("user", "ask ex_3"),
    ]


async def test_what_came_with_messages(redis: Redis, commands: Commands) -> None:
    """Files and data of a message stay with it, whatever others have put into the record; files alone have no words."""
    file = {"url": "https://h.example/a", "name": "a"}
    last = {"role": "user", "content": "look", "attachments": [file]}
    asked: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
        ({"messages": [{"role": "user", "content": "old"}, last]}, None),
        ({"messages": [{**last, "content": ""}]}, None),
        ({"messages": [last, {"role": "assistant", "content": "wait"}]}, None),
        ({"messages": [last], "n": 1}, {"a2a": {"messageId": "m"}}),
        ({"n": 1}, {"a2a": {"messageId": "m", "text": False}}),
        ({"n": 1}, None),
        ({"messages": "mine"}, None),
        ({"messages": [1, {"role": "user", "content": "x", "attachments": "mine"}]}, None),
    ]
    for number, (params, metadata) in enumerate(asked):
        start = Start(task=f"ask {number}", agent="a", conversation_id="c", params=params, metadata=metadata)
        await Lifecycle(redis, LogLimits(), Redactor()).accept(ALICE, f"ex_{number}", start)
        await redis.zadd(ALICE.conversation("c"), {f"ex_{number}": number})
    attachments, data = [Attachment(url="https://h.example/a", name="a")], [{"type": "data", "data": {"n": 1}}]
    assert (await conversations.past(commands, ALICE, "c")).turns == [
        Turn("user", "ask 0", attachments),
        Turn("user", "", attachments),
        Turn("user", "ask 2", attachments),
        Turn("user", "ask 3", attachments, data),
        *(Turn("user", f"ask {number}") for number in range(4, 8)),
    ]


async def test_a_message_that_is_answered_again(redis: Redis, commands: Commands) -> None:
    """Of a message that was answered again the last answer counts, and nothing that was said between them; what is to
    be answered again now is no part of the conversation, nor is what follows it."""
    for number, message_id in enumerate(["u1", "u2", "u3", "u2", None, "u4"]):
        await begin(redis, f"ex_{number}", "c", message_id=message_id)
        await redis.zadd(ALICE.conversation("c"), {f"ex_{number}": number})

    async def asked(instead_of: str | None) -> list[str]:
        said = (await conversations.past(commands, ALICE, "c", instead_of=instead_of)).turns
        return [turn.content.removeprefix("ask ex_") for turn in said]

    assert await asked(None) == ["0", "3", "4", "5"]
    assert await asked("u2") == ["0"]
    assert await asked("u4") == ["0", "3", "4"]
    assert await asked("u3") == ["0", "3", "4", "5"], "it is not in the conversation any more"


async def test_turns_of_the_newest(redis: Redis, commands: Commands) -> None:
    """Only so many logs are read, the newest, and it is known that there is more."""
    for number in range(MAX_EXECUTIONS + 2):
        await begin(redis, f"ex_{number}", "c")
        await redis.zadd(ALICE.conversation("c"), {f"ex_{number}": number})
    turns, omitted = await conversations.past(commands, ALICE, "c")
    assert [turn.content for turn in turns] == [f"ask ex_{number}" for number in range(2, MAX_EXECUTIONS + 2)]
    assert omitted == 1, "how many more there are would have to be read"
    assert given(turns, Turn("user", "now"), omitted=omitted)["messagesOmitted"] == 1


async def test_no_more_is_read_than_an_agent_is_given(redis: Redis, commands: Commands) -> None:
    """The logs of turns that are left out anyway are not read."""
    for number in range(4):
        author = await begin(redis, f"ex_{number}", "c")
        await author.write(done("x" * 20_000))
        await redis.zadd(ALICE.conversation("c"), {f"ex_{number}": number})
    turns = (await conversations.past(commands, ALICE, "c")).turns
    assert [turn.content[:8] for turn in turns] == ["ask ex_2", "xxxxxxxx", "ask ex_3", "xxxxxxxx"]


def test_what_an_agent_is_given_of_a_conversation() -> None:
    """What is asked now is always there; of what was said before the newest, and how many turns are left out."""
    asked = Turn("user", "x" * (MAX_TURN_CHARS + 1))
    few, many = [Turn("user", "a"), Turn("assistant", "b")], [Turn("user", str(number)) for number in range(60)]
    as_given = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    last = {"role": "user", "content": asked.content}
    assert given([], asked) == {"messages": [last]}
    assert given(few, asked) == {"messages": [*as_given, last]}
    cut = given(many, asked)
    assert [turn["content"] for turn in cut["messages"][:-1]] == [str(number) for number in range(10, 60)]
    assert cut["messagesOmitted"] == 10


def done(result: Any) -> ExecutionComplete:
    return ExecutionComplete(result=result, duration=1.0)
