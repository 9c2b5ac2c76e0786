"""A conversation as UI messages: what each message is made of (`interop/test_ai_sdk_clients.py` has the rest of that),
and which belong to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from broker.executions.attachments import Attachment
from broker.executions.conversations import Turn
from broker.protocols.ai_sdk import conversation, message
from broker.protocols.ai_sdk.conversation import parts_of
from broker.protocols.ai_sdk.message import MessageBuilder
from broker.protocols.ai_sdk.ui_messages import UiMessage
from emitter.events import ExecutionComplete, ExecutionError, ExecutionSuperseded, MessageDelta
from emitter.wire import keys
from emitter.wire.entries import Entry
from emitter.wire.ids import now_ms
from tests.edges import Author, EdgeProcess, call, request, token_for
from tests.protocols import shows
from tests.protocols.made_up import EXECUTION
from tests.protocols.test_ai_sdk import delta, entry
from tests.protocols.test_ai_sdk_routes import DONE, RESTARTED, TEXT

CHAT = "/api/agent/chat"


def built(log: Sequence[Entry], attempt: int = 1) -> dict[str, Any]:
    builder = MessageBuilder(EXECUTION, attempt)
    builder.open()
    builder.add(log)
    return dict(json.loads(msgspec.json.encode(builder.message)))


# --- one message -----------------------------------------------------------------------------------------------------


def test_what_is_open() -> None:
    """Of a log that goes on it has what was said so far."""
    (_, part) = built([entry(1, delta("so ")), entry(2, delta("far"))])["parts"]
    assert (part["text"], part["state"]) == ("so far", "streaming")


def test_an_empty_message() -> None:
    """A message of nothing has a part all the same: clients find one without invalid."""
    assert built([entry(1, ExecutionError(error="e"))])["parts"] == [{"type": "step-start"}]


def test_a_long_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is too long ends early, and says so; how it ended is there."""
    monkeypatch.setattr(message, "MAX_MESSAGE_BYTES", 1_000)
    log = [entry(number, delta("x" * 100)) for number in range(1, 50)]
    made = built([*log, entry(50, DONE)])
    assert made["metadata"] | {"truncated": True, "duration": 1.0} == made["metadata"]
    assert 500 < len(made["parts"][-1]["text"]) < 1_000
    assert "truncated" not in built([*log[:3], entry(4, DONE)])["metadata"]


def test_metadata_is_merged() -> None:
    """Objects member by member, all else in place of what was there."""
    known: dict[str, Any] = {"a": {"b": 1, "c": 2}, "d": [1], "e": {"f": 1}}
    message.merge(known, {"a": {"c": 3}, "d": [2], "e": None, "g": {"h": 1}})
    assert known == {"a": {"b": 1, "c": 3}, "d": [2], "e": None, "g": {"h": 1}}


def test_what_was_asked() -> None:
    """Files, words and the app's data, whatever protocol they came by; a question of nothing has empty words."""
    file = Attachment(url="https://x.example/a.png", media_type="image/png", name="a.png")
    held = Attachment(references={"openai": "f1"})
    data = {"type": "data-place", "id": "p", "data": {"x": 1}}
    foreign = {"type": "data", "data": {"limit": 3}}
    assert parts_of(Turn("user", "look", [file, held], [data, foreign, {"omitted": "3 parts"}])) == [
        {"type": "file", "mediaType": "image/png", "url": "https://x.example/a.png", "filename": "a.png"},
        {"type": "file", "mediaType": "application/octet-stream", "url": "", "providerReference": {"openai": "f1"}},
        {"type": "text", "text": "look"},
        data,
        {"type": "data-other", "data": {"limit": 3}},
        {"type": "data-other", "data": {"omitted": "3 parts"}},
    ]
    assert parts_of(Turn("user", "")) == [{"type": "text", "text": ""}]


# --- a conversation --------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
async def known(redis: Redis, two_edges: list[EdgeProcess]) -> None:
    await shows.known(redis, two_edges)


async def ask(at: EdgeProcess, author: Author, id_: str, text: str = "t", **fields: Any) -> Author:
    said = {"id": id_, "role": "user", "parts": [{"type": "text", "text": text}]}
    body = json.dumps({"id": "c", "message": said, "agent": shows.AGENT, **fields}).encode()
    async with request(at.port, "POST", CHAT, author.token, headers=shows.JSON, body=body) as response:
        assert response.status == 200
        return Author(author.redis, author.user, response.headers["x-workflow-run-id"])


async def read(at: EdgeProcess, author: Author, chat: str = "c") -> dict[str, Any]:
    answer = await call(at.port, "GET", f"{CHAT}/{chat}", author.token)
    assert answer.status == 200
    return dict(answer.body)


def texts(seen: dict[str, Any]) -> list[str]:
    return ["".join(part.get("text", "") for part in each["parts"]) for each in seen["messages"]]


async def test_turns(two_edges: list[EdgeProcess], author: Author) -> None:
    """Questions and answers in order, with the ids that the page knows; of what runs there is the question alone."""
    first = await ask(two_edges[0], author, "u1", "one")
    await first.write(*TEXT, DONE)
    await ask(two_edges[0], author, "u2", "two")
    seen = await read(two_edges[1], author)
    assert (seen["id"], texts(seen)) == ("c", ["one", "Hi", "two"])
    assert [(each["role"], each["id"]) for each in seen["messages"]] == [
        ("user", "u1"),
        ("assistant", first.execution_id),
        ("user", "u2"),
    ]
    assert "omitted" not in seen


async def test_another_answer(two_edges: list[EdgeProcess], author: Author) -> None:
    """Of a message that was answered again the last answer counts, and nothing that came between."""
    for number, id_ in enumerate(("u1", "u2", "u1")):
        again = {"trigger": "regenerate-message", "messageId": "a"} if number == 2 else {}
        turn = await ask(two_edges[0], author, id_, **again)
        await turn.write(MessageDelta(message_id="m", delta=f"answer {number}"), DONE)
    assert texts(await read(two_edges[1], author)) == ["t", "answer 2"]


async def test_a_lost_attempt(two_edges: list[EdgeProcess], author: Author) -> None:
    """What a retry made void is not shown."""
    turn = await ask(two_edges[0], author, "u1")
    await turn.write(*TEXT)
    await turn.write(ExecutionSuperseded(from_seq=1, attempt=2), RESTARTED)
    await turn.write(MessageDelta(message_id="n", delta="Ho"), DONE)
    assert texts(await read(two_edges[1], author)) == ["t", "Ho"]


async def test_a_chat_of_others(two_edges: list[EdgeProcess], author: Author) -> None:
    """A chat that nobody has heard of is empty, and so is one of somebody else; without the right there is nothing."""
    await ask(two_edges[0], author, "u1")
    assert await read(two_edges[0], author, "d") == {"id": "d", "messages": []}
    stranger = await call(two_edges[0].port, "GET", f"{CHAT}/c", token_for("stranger"))
    assert stranger.body["messages"] == []
    limited = token_for(author.user, scopes=["executions:write"])
    assert (await call(two_edges[0].port, "GET", f"{CHAT}/c", limited)).status == 403
    assert (await call(two_edges[0].port, "GET", f"{CHAT}/c", None)).status == 401


async def test_an_execution_of_its_own(two_edges: list[EdgeProcess], author: Author) -> None:
    """A turn of a page that named no chat is found by its execution's id."""
    turn = await ask(two_edges[0], author, "u1", id=None)
    await turn.write(*TEXT, DONE)
    assert texts(await read(two_edges[1], author, turn.execution_id)) == ["t", "Hi"]


async def test_a_log_that_has_gone(two_edges: list[EdgeProcess], author: Author) -> None:
    """The question and the end are there for as long as the record, and the answer says what is not."""
    turn = await ask(two_edges[0], author, "u1")
    await turn.write(*TEXT, ExecutionComplete(result="42", duration=1.0))
    await turn.redis.delete(turn.keys.log)
    seen = await read(two_edges[0], author)
    assert texts(seen) == ["t", "42"]
    assert seen["messages"][1]["metadata"]["lostBefore"] > 1


async def test_too_many(redis: Redis, two_edges: list[EdgeProcess], author: Author) -> None:
    """Of a long conversation the newest turns are given, and it is said how many are not."""
    await redis.zadd(keys.AGENTS_KNOWN, {shows.AGENT: now_ms()})
    for number in range(conversation.MAX_TURNS + 1):
        turn = await ask(two_edges[0], author, f"u{number}", f"q{number}")
        await turn.write(DONE)
    seen = await read(two_edges[1], author)
    assert (seen["omitted"], texts(seen)[0], len(seen["messages"])) == (1, "q1", 2 * conversation.MAX_TURNS)


def test_the_form_of_a_message() -> None:
    """Fields that a message does not have are left out."""
    assert msgspec.json.encode(UiMessage("i", "user", [])) == b'{"id":"i","role":"user","parts":[]}'
