"""`@durable-streams/client` in its modes, `@durable-streams/aisdk-transport`, and `durable-streams` for Python,
unmodified: over an edge that dies in the middle they read everything, once and in order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import pytest
from clients import HERE, NODE, NODE_SECONDS
from pythons import DURABLE, python_of
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from emitter.events import (
    Event,
    ExecutionComplete,
    ExecutionStarted,
    InputRequired,
    MessageComplete,
    MessageDelta,
    ToolStart,
)
from emitter.store.connection import connect
from emitter.wire import ids, keys
from tests.edges import Author, EdgeProcess, call, edge, eventually, token_for
from tests.roads import road

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        NODE is None or not (HERE / "durable" / "node_modules").is_dir(),
        reason="needs node, and `npm ci` in tests/interop/durable (tests/run does it)",
    ),
]

SCRIPT = "durable/durable_clients.mjs"
EVENTS = 450
"""More than two pages."""
AGENT = "manual"
STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
DONE = ExecutionComplete(result=None, duration=1.0)


class Site(NamedTuple):
    redis_url: str
    edge: EdgeProcess

    def given(self, author: Author, port: int = 0, **more: Any) -> dict[str, Any]:
        base = f"http://127.0.0.1:{port or self.edge.port}"
        url = f"{base}/ds/executions/{author.execution_id}"
        return {"base": base, "url": url, "token": author.token, "live": True, "agent": AGENT, **more}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with EmbeddedRedis() as redis, edge(redis.url, heartbeat_seconds=1) as started:
        yield Site(redis.url, started)


@pytest.fixture
async def redis(site: Site) -> AsyncIterator[Redis]:
    client = connect(site.redis_url)
    yield client
    await client.aclose()


_numbers = itertools.count(1)


@pytest.fixture
def author(redis: Redis) -> Author:
    number = next(_numbers)
    return Author(redis, f"user-{number}", f"ex_{number}")


class Reader:
    """A client's process: `items` are what it has read so far, `result` what it says at the end."""

    def __init__(self, *command: str) -> None:
        self._command = command
        self.items: list[Any] = []
        self.result: Any = None

    async def run(self) -> Any:
        process = await asyncio.create_subprocess_exec(*self._command, cwd=HERE, stdout=PIPE, stderr=PIPE, limit=2**24)
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with asyncio.timeout(NODE_SECONDS):
                async for line in process.stdout:
                    said = json.loads(line)
                    if "item" in said:
                        self.items.append(said["item"])
                    else:
                        self.result = said
                assert await process.wait() == 0, (await process.stderr.read()).decode()
        except TimeoutError:
            raise AssertionError(f"{self._command[1:4]}: {len(self.items)} items, then {self.items[-1:]}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        return self.result


def node(scene: str, given: dict[str, Any]) -> Reader:
    assert NODE is not None
    return Reader(NODE, "--no-warnings", SCRIPT, scene, json.dumps(given))


def python(mode: str, given: dict[str, Any]) -> Reader:
    interpreter = python_of(DURABLE)
    if interpreter is None:
        pytest.skip("needs `durable-streams` from PyPI")
    return Reader(str(interpreter), "durable/durable_python.py", mode, given["url"], given["token"])


async def logged(author: Author) -> list[Any]:
    return [json.loads(event.data) for event in await author.log()]


def texts(reader: Reader) -> list[str]:
    """Of the message that a chat has at the end."""
    return [part["text"] for part in reader.result["message"]["parts"] if part["type"] == "text"]


def text(*pieces: str) -> list[Event]:
    return [MessageDelta(message_id="m", delta=piece) for piece in pieces]


# --- an edge that dies -----------------------------------------------------------------------------------------------


async def test_an_edge_dies(site: Site, redis: Redis, author: Author) -> None:
    """Each client, in each of its live modes, reads the whole log once and in order, over an edge that is killed in the
    middle and over the one that takes its place. A chat has the message that it would have had without."""
    await known(redis, site.edge)
    await author.begin()
    await author.say(EVENTS)
    with edge(site.redis_url, heartbeat_seconds=1) as dying:
        await known(redis, dying)
        async with road(dying.port) as way, asyncio.TaskGroup() as group:
            given = site.given(author, way.port)
            readers = [node("read", {**given, "live": mode}) for mode in ("long-poll", "sse")]
            readers += [python(mode, given) for mode in ("auto", "sse")]
            chat = node("chat", {**given, "chatId": "c", "text": "t"})
            for reader in (*readers, chat):
                group.create_task(reader.run())
            run = await began(redis, site.edge, author)
            await run.write(STARTED, *text("One ", "two "))
            await until("the chat shows it", lambda: bool(chat.items))
            await author.say(3)
            await until("all have this", lambda: all(len(reader.items) == EVENTS + 4 for reader in readers))
            dying.kill()
            way.target = site.edge.port
            await author.say(3)
            await run.write(*text("three."))
            await until("all came back", lambda: all(len(reader.items) == EVENTS + 7 for reader in readers))
            await author.end()
            await run.write(MessageComplete(message_id="m"), DONE)
    events = await logged(author)
    for reader in readers:
        assert reader.items == events
    for reader in readers[:2]:
        assert (reader.result["closed"], reader.result["warnings"]) == (True, [])
    assert chat.result["status"] == "ready"
    assert texts(chat) == ["One two three."]


# --- without ---------------------------------------------------------------------------------------------------------


async def test_catching_up(site: Site, author: Author) -> None:
    """What there is, from an offset on, of a stream that is open: the promise helper goes over all pages, and so does
    the client for Python; and what is read later goes on from there."""
    await author.begin()
    await author.say(EVENTS)
    given = site.given(author)
    whole, of_python = node("json", given), python("catch-up", given)
    await asyncio.gather(whole.run(), of_python.run())
    assert whole.result["items"] == of_python.items == await logged(author)
    assert whole.result["offset"] == of_python.result["offset"]
    await author.end()
    rest = await node("json", {**given, "offset": whole.result["offset"]}).run()
    assert ([item["type"] for item in rest["items"]], rest["closed"]) == (["execution:complete"], True)


async def test_refusals(site: Site, redis: Redis, author: Author) -> None:
    """An offset that is gone, and an execution that nobody knows, are final for the client."""
    await author.begin()
    given = site.given(author)
    gone = await node("refused", {**given, "offset": "0000000000001_0000000003"}).run()
    unknown = await node("refused", {**given, "url": given["url"] + "x"}).run()
    assert (gone["status"], unknown["status"]) == (410, 404)


async def test_a_page_that_is_opened_again(site: Site, redis: Redis, author: Author) -> None:
    """While the agent is at work it gets the message from its beginning on; when nothing runs there is nothing to
    resume."""
    await known(redis, site.edge)
    given = site.given(author, chatId="d", text="t")
    first = node("chat", given)
    running = asyncio.create_task(first.run())
    run = await began(redis, site.edge, author)
    await run.write(STARTED, *text("Hello"), ToolStart(call_id="c", tool_name="look", params={}))
    again = node("reopened", given)
    other = asyncio.create_task(again.run())
    await until("it is there", lambda: bool(again.items))
    await run.write(MessageComplete(message_id="m"), DONE)
    assert await running == await other
    assert texts(first) == ["Hello"]
    nothing = await node("reopened", given).run()
    assert (nothing["status"], nothing.get("message")) == ("ready", None)


async def test_an_approval(site: Site, redis: Redis, author: Author) -> None:
    """It ends the stream of its turn, and what follows the answer is another stream of the same execution."""
    await known(redis, site.edge)
    chat = node("approval", site.given(author, chatId="e", text="t"))
    running = asyncio.create_task(chat.run())
    run = await began(redis, site.edge, author)
    await run.write(STARTED, *text("Shall I?"), InputRequired(input_id="i", prompt="Go on?", kind="approval"))
    await until("it is answered", lambda: bool(chat.items))
    await until_logged(run, "input:received")
    await run.write(MessageDelta(message_id="n", delta="Done."), DONE)
    result = await running
    assert (result["status"], texts(chat)) == ("ready", ["Shall I?", "Done."])


async def until_logged(run: Author, type_: str) -> None:
    async with asyncio.timeout(NODE_SECONDS / 2):
        while type_ not in {event.type for event in await run.log()}:
            await asyncio.sleep(0.05)


async def known(redis: Redis, at: EdgeProcess) -> None:
    """Make an edge know an agent that no worker runs: the tests write its executions."""
    await redis.zadd(keys.AGENTS_KNOWN, {AGENT: ids.now_ms()})
    async with asyncio.timeout(10):
        while True:  # an edge looks every second
            refused = await call(
                at.port, "POST", "/api/agent/execute", token_for("nobody"), {"task": "t", "agent": "-"}
            )
            if AGENT in refused.body["known"]:
                return
            await asyncio.sleep(0.05)


async def began(redis: Redis, at: EdgeProcess, author: Author) -> Author:
    """The execution that a chat's page starts."""
    async with asyncio.timeout(NODE_SECONDS):
        while True:
            listed = await call(at.port, "GET", "/api/agent/executions", author.token)
            for found in listed.body["executions"]:
                if found["executionId"] != author.execution_id:
                    return Author(redis, author.user, found["executionId"])
            await asyncio.sleep(0.05)


async def until(what: str, condition: Callable[[], bool]) -> None:
    await eventually(what, condition, NODE_SECONDS / 2)
