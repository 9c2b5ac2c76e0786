"""Events of a plug-in's own, `custom:<name>`, from whoever says them to whoever wants them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from redis.asyncio import Redis

from emitter import AgentEmitter, SyncAgentEmitter
from tests.edges import ALL_SCOPES, Author, EdgeProcess, Follower, call, read_log, request, stream_path, token_for

PREVIEW = {"url": "https://example.com/\u2028", "nested": {"ok": True, "n": [1, 2.5, None]}, "type": "mine"}


def token_of(author: Author) -> str:
    return token_for(author.user, scopes=ALL_SCOPES)


async def say(edge: EdgeProcess, author: Author, redis_url: str) -> None:
    """The same event three ways: by an emitter, by the blocking one, and over HTTP; between others."""
    async with AgentEmitter(author.user, author.execution_id, redis_url=redis_url) as emitter:
        await emitter.execution_started("t")
        await emitter.custom("acme.preview", PREVIEW)
        await emitter.thinking("between")
    await call_off_loop(author, redis_url)
    event = {"type": "custom:acme.preview", "data": PREVIEW}
    path = f"/api/agent/executions/{author.execution_id}/events"
    assert (await call(edge.port, "POST", path, token_of(author), event)).status == 202
    async with AgentEmitter(author.user, author.execution_id, redis_url=redis_url) as emitter:
        await emitter.custom("other", {})
        await emitter.execution_complete(1)


async def call_off_loop(author: Author, redis_url: str) -> None:
    def work() -> None:
        with SyncAgentEmitter(author.user, author.execution_id, redis_url=redis_url) as emitter:
            emitter.custom("acme.preview", PREVIEW)

    await asyncio.to_thread(work)


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ("custom:*", ["custom:acme.preview"] * 3 + ["custom:other"]),
        ("custom:acme.*", ["custom:acme.preview"] * 3),
        ("custom:other,execution:complete", ["custom:other", "execution:complete"]),
        ("tool:*", []),
    ],
)
async def test_whoever_wants_them_gets_them(
    two_edges: list[EdgeProcess], author: Author, redis_url: str, types: str, expected: list[str]
) -> None:
    """However a custom event was said, it is stored and streamed alike, by its name or its family; who asks for other
    types sees none, and all come to the end."""
    await say(two_edges[0], author, redis_url)
    async with Follower(two_edges, stream_path(author.execution_id, f"types={types}"), author.token) as viewer:
        await viewer.until_done()
    log = await author.log()
    assert viewer.events == [event for event in log if event.type in expected]
    assert [event.type for event in viewer.events] == expected
    assert [json.loads(event.data)["data"] for event in viewer.events if "acme" in event.type] == (
        [PREVIEW] * sum("acme" in type_ for type_ in expected)
    )


async def test_they_are_in_the_feed_and_in_the_log_as_json(
    two_edges: list[EdgeProcess], author: Author, redis: Redis, redis_url: str
) -> None:
    """The owner's feed carries them live; the log's JSON has them; the folded state passes over them."""
    async with Follower(two_edges, "/api/agent/stream?types=custom:*", author.token) as feed:
        await feed.until_live()
        await say(two_edges[0], author, redis_url)
        await feed.until_events(4)
    assert [event.type for event in feed.events] == ["custom:acme.preview"] * 3 + ["custom:other"]
    assert feed.events == [e for e in await read_log(redis, author.owner.feed) if e.type.startswith("custom:")]
    path = f"/api/agent/executions/{author.execution_id}"
    page = await call(two_edges[1].port, "GET", path + "/events", author.token)
    assert [e["event"]["data"] for e in page.body["events"] if e["event"]["type"] == "custom:acme.preview"] == (
        [PREVIEW] * 3
    )
    state = await call(two_edges[1].port, "GET", path, author.token)
    assert (state.body["status"], state.body["cursor"]) == ("completed", (await author.log())[-1].id)


async def test_they_are_what_the_description_says(two_edges: list[EdgeProcess], author: Author, redis_url: str) -> None:
    """Each is exactly one of the events that `/openapi.json` describes, `CustomEvent`."""
    await say(two_edges[0], author, redis_url)
    document = (await call(two_edges[0].port, "GET", "/openapi.json", None)).body

    def fits(schema: str, value: Any) -> bool:
        whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
        return bool(Draft202012Validator(whole).is_valid(value))

    for event in await author.log():
        value = json.loads(event.data)
        assert fits("Event", value), value
        assert fits("CustomEvent", value) == event.type.startswith("custom:")
    assert not fits("Event", {"type": "custom:No", "executionId": "ex_1", "ts": 1, "data": {}})
    assert not fits("Event", {"type": "custom:x", "executionId": "ex_1", "ts": 1, "data": [1]})


async def test_in_the_default_event_they_keep_their_type(
    two_edges: list[EdgeProcess], author: Author, redis_url: str
) -> None:
    """`named=false` is for `onmessage`: the data says which type it is."""
    await say(two_edges[0], author, redis_url)
    path = stream_path(author.execution_id, "named=false&types=custom:*")
    async with request(two_edges[0].port, "GET", path, author.token) as response:
        frames = [frame async for frame in response.frames() if frame.id and frame.event == "message"]
    assert [(frame.event, json.loads(frame.data or "")["type"]) for frame in frames] == [
        ("message", name) for name in ["custom:acme.preview"] * 3 + ["custom:other"]
    ]
