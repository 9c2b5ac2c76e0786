"""Streamed text in the log: no credential that is cut over chunks, in order, without a wait for anything else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from emitter import AgentEmitter
from emitter.events import ExecutionComplete, MessageDelta
from emitter.publishing import held
from emitter.publishing.publisher import Publisher
from emitter.store.append import LogLimits
from emitter.testing import RecordingEmitter
from emitter.wire.keys import Owner
from tests.emitter.credentials import by_form, by_shape

KEYS = Owner("alice").execution("ex_1")
KEY = "ghp_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
TEXT = f"The key is {KEY}, keep it."
CLEAN = "The key is ghp[redacted], keep it."


@pytest.fixture
async def emitter(redis: Redis, redis_url: str) -> AsyncIterator[AgentEmitter]:
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as made:
        yield made


async def stored(redis: Redis) -> list[dict[str, Any]]:
    return [json.loads(next(iter(fields.values()))) for _, fields in await redis.xrange(KEYS.log)]


async def texts(redis: Redis) -> dict[str, str]:
    """What each message says."""
    found: dict[str, str] = {}
    for event in await stored(redis):
        if event["type"].endswith(":delta"):
            name = event["type"] + " " + event["data"]["messageId"]
            found[name] = found.get(name, "") + event["data"]["delta"]
    return found


async def shape(redis: Redis) -> list[str]:
    """The types of events in the log, chunks with their text."""
    return [event["data"].get("delta", event["type"]) for event in await stored(redis)]


@pytest.mark.parametrize("size", [1, 3, 7, 11])
async def test_a_key_cut_over_chunks_is_not_in_the_log(redis: Redis, emitter: AgentEmitter, size: int) -> None:
    """Of two messages at once, and of thoughts; however long the batches are."""
    for at in range(0, len(TEXT), size):
        await emitter.text(TEXT[at : at + size])
        await emitter.thinking_delta(TEXT[at : at + size], "t")
        await emitter.message_delta(TEXT[at : at + size], "other")
        if at % 2:
            await asyncio.sleep(0.02)
    await emitter.end_text()
    await emitter.flush()
    found = await texts(redis)
    assert len(found) == 3
    for text in found.values():
        assert text.startswith("The key is ")
        assert text.endswith("[redacted], keep it.")
        assert KEY[8:] not in text


async def test_the_whole_corpus_in_small_chunks(redis: Redis, emitter: AgentEmitter) -> None:
    """As models say it: a few characters at a time."""
    items = [*by_shape(), *by_form()]
    for number, item in enumerate(items):
        for at in range(0, len(item.text), 4):
            await emitter.message_delta(item.text[at : at + 4], f"m{number}")
        await emitter.message_complete(f"m{number}")
    await emitter.flush()
    found = await texts(redis)
    assert len(found) == len(items)
    assert [item.text for item, text in zip(items, found.values(), strict=True) if item.secret in text] == []


async def test_text_comes_before_what_follows_it(redis: Redis, emitter: AgentEmitter) -> None:
    """The end of a text that waits is said before a tool is called, a question asked, or the message completed; what is
    only said aside may overtake it."""
    await emitter.text("see sk-abc")
    await emitter.progress(50)
    await emitter.tool_start("c", "search")
    await emitter.text(" and password=hunter2")
    await emitter.end_text()
    await emitter.flush()
    assert await shape(redis) == [
        "see ", "progress", "sk-abc", "tool:start", " and password=[redacted]",
        "message:complete",
    ]  # fmt: skip


async def test_a_pause_shows_what_waits(redis: Redis, emitter: AgentEmitter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for ever; what completes a credential afterwards is redacted."""
    monkeypatch.setattr(held, "HOLD_SECONDS", 0.05)
    await emitter.text("a " + KEY[:10])
    await asyncio.wait_for(until(redis, "a " + KEY[:10]), 10)
    await emitter.text(KEY[10:] + " b")
    await emitter.flush()
    assert "".join(await shape(redis)) == "a " + KEY[:10] + "[redacted] b"


async def until(redis: Redis, text: str) -> None:
    while "".join(await shape(redis)) != text:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["flush", "end", "close"])
async def test_nothing_of_a_text_is_lost(redis: Redis, redis_url: str, how: str) -> None:
    """What waits is said when the agent flushes, ends or leaves."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await emitter.text("see sk-abc")
        if how == "flush":
            await emitter.flush()
            assert "".join(await shape(redis)) == "see sk-abc"
        elif how == "end":
            await emitter.execution_complete()
    assert "".join(await shape(redis)).startswith("see sk-abc")


async def test_text_that_was_held_fits_the_limit(redis: Redis, redis_url: str) -> None:
    """What is said late does not make an event larger than one may be."""
    async with (
        Publisher(redis_url=redis_url, limits=LogLimits(max_event_bytes=1024), redact_keys=()) as shared,
        AgentEmitter("alice", "ex_1", publisher=shared) as emitter,
    ):
        for chunk in ('"password": "', "é" * 200, "é" * 200, '" ', "é" * 2000):
            await emitter.text(chunk)
    assert "".join((await texts(redis)).values()) == '"password": "' + "é" * 400 + '" ' + "é" * 2000


async def test_no_timer_is_left_behind(redis: Redis, redis_url: str) -> None:
    """An emitter that is closed says nothing any more."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await emitter.text("see sk-abc")
        assert emitter._held._timer is not None
    assert emitter._held._timer is None


async def test_the_chunks_of_an_artifact_are_one_text(redis: Redis, emitter: AgentEmitter) -> None:
    """They cannot wait: of a key that is cut a part is seen, the whole never. Each keeps its place and its flags."""
    chunks = ["key: " + KEY[:12], KEY[12:20], KEY[20:] + "\n", "end"]
    for number, chunk in enumerate(chunks):
        await emitter.artifact("a", "text/plain", text=chunk, append=number > 0, last=number == 3)
    await emitter.artifact("b", "text/plain", text=KEY[12:20])
    await emitter.flush()
    found = [event["data"] for event in await stored(redis)]
    said = "".join(data["text"] for data in found[:4])
    assert said.startswith("key: ")
    assert said.endswith("[redacted]\nend")
    assert KEY[20:] not in said
    assert [data.get("last", False) for data in found] == [False, False, False, True, False]
    assert found[4]["text"] == KEY[12:20]


async def test_an_artifact_may_have_the_id_of_a_message(redis: Redis, emitter: AgentEmitter) -> None:
    """The end of the one takes nothing from the other."""
    await emitter.message_delta("see sk-abc", "m")
    await emitter.artifact("m", "text/plain", text="x", last=True)
    await emitter.flush()
    assert "".join(await shape(redis)) == "see sk-abcartifact"


async def test_the_recording_emitter_shows_the_same() -> None:
    """Who tests an agent sees what a reader would."""
    emitter = RecordingEmitter()
    for at in range(0, len(TEXT), 3):
        await emitter.text(TEXT[at : at + 3])
    await emitter.tool_start("c", "search")
    assert emitter.text_emitted.endswith("[redacted], keep it.")
    assert KEY[4:] not in emitter.text_emitted
    await emitter.text("see sk-abc")
    await emitter.emit(ExecutionComplete(result=None, duration=1.0))
    assert emitter.text_emitted.endswith("see sk-abc")
    assert emitter.types[-3:] == ["message:delta", "message:complete", "execution:complete"]


async def said_by(emitter: AgentEmitter | RecordingEmitter) -> None:
    """Two sub-agents and the agent itself speak at once; each text ends in what may begin a credential, or is one."""
    for at in range(0, len(TEXT), 5):
        for message, speaker in (("a", "clerk"), ("b", "cook"), ("c", None)):
            parent = None if speaker is None else f"in_{message}"
            await emitter.emit(
                MessageDelta(message_id=message, delta=TEXT[at : at + 5]), agent=speaker, parent_id=parent
            )
    await emitter.emit(MessageDelta(message_id="a", delta=" see sk-abc"), agent="clerk", parent_id="in_a")
    await emitter.emit(MessageDelta(message_id="c", delta=" see sk-abc"))
    await emitter.emit(MessageDelta(message_id="b", delta=" see sk-abc"), agent="cook", parent_id="in_b")


def voices(events: list[dict[str, Any]]) -> set[tuple[str, str | None, str | None]]:
    return {(event["data"]["messageId"], event.get("agent"), event.get("parentId")) for event in events}


VOICES = {("a", "clerk", "in_a"), ("b", "cook", "in_b"), ("c", None, None)}


@pytest.mark.parametrize("how", ["flush", "pause", "end"])
async def test_what_waits_stays_its_speakers(
    redis: Redis, emitter: AgentEmitter, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it comes to be said, the end of a sub-agent's text is said by the sub-agent, in its call."""
    monkeypatch.setattr(held, "HOLD_SECONDS", 0.05 if how == "pause" else 60.0)
    await said_by(emitter)
    if how == "flush":
        await emitter.flush()
    elif how == "end":
        await emitter.execution_complete()
    else:
        async with asyncio.timeout(10):
            while [text[-6:] for text in (await texts(redis)).values()] != ["sk-abc"] * 3:
                await asyncio.sleep(0.01)
    chunks = [event for event in await stored(redis) if event["type"] == "message:delta"]
    assert voices(chunks) == VOICES
    found = await texts(redis)
    assert len(found) == 3
    assert [text for text in found.values() if not text.endswith(", keep it. see sk-abc") or KEY[8:] in text] == []
    assert emitter._held._speakers == {}


async def test_one_message_of_two_speakers_is_one_text(redis: Redis, emitter: AgentEmitter) -> None:
    """A key that one begins and another ends is redacted: a reader would see it in one piece."""
    for number, at in enumerate(range(0, len(TEXT), 7)):
        event = MessageDelta(message_id="m", delta=TEXT[at : at + 7])
        await emitter.emit(event, agent=f"x{number % 2}")
    await emitter.flush()
    (text,) = (await texts(redis)).values()
    assert text.endswith("[redacted], keep it.")
    assert KEY[8:] not in text


async def test_the_recording_emitter_knows_the_speakers() -> None:
    """`envelopes` are those of `events`, what waited included."""
    emitter = RecordingEmitter()
    await said_by(emitter)
    heads = emitter.envelopes
    assert len(heads) == len(emitter.events)
    said = zip(heads, emitter.of("message:delta"), strict=True)
    assert {(event.message_id, head.agent, head.parent_id) for head, event in said} == VOICES
    assert KEY[8:] not in emitter.text_emitted
