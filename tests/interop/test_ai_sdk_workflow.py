"""`WorkflowChatTransport` of `@ai-sdk/workflow`, unmodified, which counts chunks: through a proxy that cuts its streams
at every one of them, over edges that come and go, it has the message that it would have had without."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from clients import NODE_SECONDS, needs_node, node, running
from redis.asyncio import Redis

from broker.cli.embedded import EmbeddedRedis
from broker.protocols.ai_sdk.renderer import Renderer
from emitter.events import (
    Artifact,
    Event,
    ExecutionCancelled,
    ExecutionComplete,
    ExecutionError,
    ExecutionStarted,
    ExecutionSuperseded,
    InputReceived,
    InputRequired,
    MessageComplete,
    MessageDelta,
    PhaseComplete,
    PhaseStart,
    Progress,
    ThinkingDelta,
    ToolComplete,
    ToolError,
    ToolStart,
)
from emitter.store.connection import connect
from emitter.wire import ids, keys
from emitter.wire.entries import parse_stream
from tests.edges import Author, EdgeProcess, call, edges, eventually, request, token_for, under_load

pytestmark = [needs_node, pytest.mark.slow]

SCRIPT = "ai_sdk_workflow.mjs"
SETTINGS = {"heartbeat_seconds": 1, "executes_per_minute": 0, "reads_per_minute": 0, "max_connections_per_user": 0}


class Site(NamedTuple):
    redis_url: str
    edges: Sequence[EdgeProcess]

    @property
    def ports(self) -> list[int]:
        return [edge.port for edge in self.edges]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with EmbeddedRedis() as redis, edges(redis.url, 2, **SETTINGS) as started:
        yield Site(redis.url, started)


@pytest.fixture
async def redis(site: Site) -> AsyncIterator[Redis]:
    client = connect(site.redis_url)
    yield client
    await client.aclose()


# --- runs ------------------------------------------------------------------------------------------------------------


def started(attempt: int = 1) -> Event:
    return ExecutionStarted(task="t", started_at=1, attempt=attempt)


def said(*pieces: str, message: str = "m") -> list[Event]:
    return [MessageDelta(message_id=message, delta=piece) for piece in pieces]


def called(id_: str) -> list[Event]:
    return [
        ToolStart(call_id=id_, tool_name="add", params={"a": 1}),
        ToolComplete(call_id=id_, tool_name="add", result={"sum": 1}, duration=0.5),
    ]


DONE = ExecutionComplete(result={"ok": True}, duration=1.0)
OPEN = ToolStart(call_id="open", tool_name="wait", params=None)
THOUGHT = [ThinkingDelta(message_id="r", delta="Hm"), ThinkingDelta(message_id="r", delta=".")]
PHASE = PhaseStart(phase_id="p", phase_name="P")
ASKED = InputRequired(input_id="i", prompt="Go on?", kind="approval")
ANSWERED = InputReceived(input_id="i", by="alice", value=True)
RUNS: dict[str, list[Event]] = {
    "tools": [
        started(),
        PHASE,
        *THOUGHT,
        *said("Let me ", "see. "),
        *called("c1"),
        *said("So ", "far. "),  # the same message goes on after the call
        ToolStart(call_id="c2", tool_name="divide", params={}),
        *THOUGHT,
        ToolError(call_id="c2", tool_name="divide", error="by zero", duration=0.1),
        PhaseComplete(phase_id="p", phase_name="P"),
        Artifact(artifact_id="a", media_type="text/plain", text="3\n"),
        *said("Sum: \u2028", "é \U0001f600"),
        MessageComplete(message_id="m"),
        Progress(progress=100),
        DONE,
    ],
    "retry": [
        started(),
        PHASE,
        *said("Lost ", "words"),
        *called("c1"),
        OPEN,
        *said("more"),
        ExecutionSuperseded(from_seq=1, attempt=2),
        started(2),
        *called("c1"),
        *said("Found ", "it"),
        ExecutionSuperseded(from_seq=9, attempt=3),
        started(3),
        *said("At last"),
        DONE,
    ],
    "question": [started(), *said("Before. "), OPEN, ASKED, *THOUGHT, ANSWERED, *said("After."), DONE],
    "error": [started(), *said("So ", "far"), OPEN, ExecutionError(error="as told", code="c")],
    "cancel": [started(), *said("So ", "far"), OPEN, ASKED, ExecutionCancelled(reason="enough", by="alice")],
    "result": [started(), ExecutionComplete(result="42", duration=1.0)],
}


class Run(NamedTuple):
    author: Author
    given: dict[str, Any]
    """What the script needs to be in its chat."""

    @property
    def execution_id(self) -> str:
        return self.author.execution_id

    async def chunks(self) -> list[dict[str, Any]]:
        """As the renderer makes them of the log."""
        renderer = Renderer(self.execution_id)
        data = renderer.open() + renderer.render(parse_stream(await self.author.redis.xrange(self.author.keys.log)))
        return [json.loads(frame[6:]) for frame in data.decode().split("\n\n") if frame.startswith("data: {")]


_numbers = iter(range(1_000_000))


async def begin(site: Site, redis: Redis, **given: Any) -> Run:
    """Starts an execution that no worker takes."""
    await redis.zadd(keys.AGENTS_KNOWN, {"manual": ids.now_ms()})
    user = f"user-{next(_numbers)}"
    given = {"chatId": "chat-1", "agent": "manual", "token": token_for(user), "ports": site.ports, **given}
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "t"}]}
    asked = {"id": given["chatId"], "messages": [message], "agent": "manual"}
    body = json.dumps({**asked, "toolApprovals": "toolApprovals" in given}).encode()
    headers = {"Content-Type": "application/json"}
    async with asyncio.timeout(10):
        while True:
            async with request(
                site.edges[0].port, "POST", "/api/agent/chat", given["token"], headers=headers, body=body
            ) as response:
                if response.status == 200:
                    execution_id = response.headers["x-workflow-run-id"]
                    return Run(Author(redis, user, execution_id), given)
            await asyncio.sleep(0.05)  # an edge looks every second which agents there are


# --- cuts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
async def test_a_run_that_is_cut_anywhere(site: Site, redis: Redis, name: str) -> None:
    """Cut after any number of chunks, in any way, the rest comes from another edge, and the message is the same."""
    run = await begin(site, redis)
    await run.author.write(*RUNS[name])
    chunks = await run.chunks()
    seen = await node(SCRIPT, "cuts", {**run.given, "chunks": len(chunks) - 1 - (name == "error")})
    assert seen["differ"] == []
    assert seen["whole"]["status"] == ("error" if name == "error" else "ready")
    assert seen["whole"].get("chunks") == (None if name == "error" else len(chunks))
    assert seen["whole"]["message"]["id"] == run.execution_id
    assert seen["requests"] >= len(chunks) - 2, "cut at each chunk"
    paths = {request["path"] for request in seen["whole"]["requests"]}
    assert paths == {"/api/agent/chat"}
    kept = await call(site.edges[1].port, "GET", "/api/agent/chat/chat-1", run.given["token"])
    asked, answer = kept.body["messages"]
    assert (asked["id"], asked["parts"]) == ("u1", [{"type": "text", "text": "t"}])
    if name != "retry":  # where the lost attempts are left out
        assert without_ids(answer) == without_ids(seen["whole"]["message"])
    else:
        assert [part["text"] for part in answer["parts"] if part["type"] == "text"] == ["At last"]


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    """A thought's id is that of its chunks, which only this version keeps."""
    parts = [{**part, "id": None} if part["type"] == "reasoning" else part for part in message["parts"]]
    return {**message, "parts": parts or [{"type": "step-start"}]}


async def test_what_is_said_after_a_call(site: Site, redis: Redis) -> None:
    """This transport leaves out a part with the id of one that has ended in the same step: here none has."""
    run = await begin(site, redis)
    await run.author.write(*RUNS["tools"])
    seen = await node(SCRIPT, "cuts", {**run.given, "chunks": 0})
    texts = [part["text"] for part in seen["whole"]["message"]["parts"] if part["type"] == "text"]
    assert "".join(texts) == "Let me see. So far. Sum: \u2028é \U0001f600"


@pytest.mark.parametrize("name", ["tools", "retry", "question", "cancel"])
async def test_a_run_that_goes_on_meanwhile(site: Site, redis: Redis, name: str) -> None:
    """The same while events come: each response is cut after one to three chunks, and the next edge goes on."""
    run = await begin(site, redis)
    watching = asyncio.create_task(node(SCRIPT, "live", run.given))
    for event in RUNS[name]:
        await asyncio.sleep(0.03)
        await run.author.write(event)
    seen = await watching
    whole = (await node(SCRIPT, "cuts", {**run.given, "chunks": 0}))["whole"]
    assert seen["message"] == whole["message"]
    assert len(seen["requests"]) > 3


async def test_a_page_that_names_no_chat(site: Site, redis: Redis) -> None:
    """As the transport sends it by itself: each turn is a conversation of its own, found by its execution's id."""
    run = await begin(site, redis)
    given = {name: value for name, value in run.given.items() if name != "chatId"}
    watching = asyncio.create_task(node(SCRIPT, "unnamed", given))
    for text in ("One", "Two"):
        author = await _next_execution(site, redis, run)
        await author.write(started(), *said(text), DONE)
    seen = await watching
    assert seen["status"] == "ready", seen
    answers = [message["parts"][-1].get("text") for message in seen["messages"] if message["role"] == "assistant"]
    assert answers == ["One", "Two"]


async def _next_execution(site: Site, redis: Redis, run: Run) -> Author:
    """The one that is queued besides the run's own."""
    async with asyncio.timeout(under_load(20)):
        while True:
            listed = await call(site.edges[0].port, "GET", "/api/agent/executions?state=queued", run.given["token"])
            for each in listed.body["executions"]:
                if each["executionId"] != run.execution_id:
                    assert each["conversationId"] == each["executionId"]
                    return Author(redis, run.author.user, each["executionId"])
            await asyncio.sleep(0.05)


async def test_an_approval_and_what_follows(site: Site, redis: Redis) -> None:
    """After an approval of the SDK's own a stream is of what follows it, and its chunks are counted from there: cut at
    any of them, it goes on."""
    run = await begin(site, redis, toolApprovals=True)
    await run.author.write(*RUNS["question"])
    seen = await node(SCRIPT, "approval", run.given)
    assert seen["differ"] == []
    whole = seen["whole"]
    assert whole["status"] == "ready"
    texts = [part["text"] for part in whole["message"]["parts"] if part["type"] == "text"]
    assert "".join(texts) == "Before. After."
    states = [(part["toolName"], part["state"]) for part in whole["message"]["parts"] if part["type"] == "dynamic-tool"]
    assert states == [("wait", "output-error"), ("approval", "output-available")]
    assert [request["path"] for request in whole["requests"]] == ["/api/agent/chat"] * 2


# --- edges that come and go ------------------------------------------------------------------------------------------


class Watching:
    """The script, while it reads."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def chunk(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, (await self._process.stderr.read()).decode()  # type: ignore[union-attr]
        return dict(json.loads(line))

    async def until(self, delta: str) -> None:
        while (await self.chunk()).get("delta") != delta:
            pass

    def aim(self, *ports: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(ports).encode() + b"\n")

    async def end(self) -> dict[str, Any]:
        while "chunks" not in (seen := await self.chunk()):
            pass
        return seen


@contextlib.asynccontextmanager
async def watching(run: Run, *ports: int, **given: Any) -> AsyncIterator[Watching]:
    script = running(SCRIPT, "edges", {**run.given, **given, "ports": ports})
    async with script as process, asyncio.timeout(NODE_SECONDS):
        yield Watching(process)


async def test_edges_that_come_and_go(site: Site, redis: Redis) -> None:
    """One edge is killed, the next one drained: the chunks are all of them, each once and in order. A drain is no error
    to this client, not even where it forgives none; nor is what the drained edge says to those who come back to it."""
    run = await begin(site, redis)
    drain = {**SETTINGS, "drain_seconds": 60}  # it listens for some seconds more, so that all come back to it in time
    with edges(site.redis_url, 1, **SETTINGS) as (killed,), edges(site.redis_url, 1, **drain) as (drained,):
        async with watching(run, killed.port, maxErrors=1) as page:
            await run.author.write(started(), *said("one"))
            await page.until("one")
            page.aim(drained.port)
            killed.send_signal(signal.SIGKILL)
            await run.author.write(*said("two"))
            await page.until("two")
            drained.send_signal(signal.SIGTERM)
            await eventually("it came back", lambda: drained.metric("runcast_rejected_total", reason="draining") > 0)
            await run.author.write(*said("three"))
            page.aim(site.edges[1].port)
            await page.until("three")
            await run.author.write(*said("four"), DONE)
            seen = await page.end()
    assert seen["chunks"] == await run.chunks()
    statuses = [each.get("status") for each in seen["requests"]]
    assert set(statuses) == {200}
    assert len(statuses) >= 4, "it came back to the drained edge too"


# --- pages that are opened again -------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["chat", "execution"])
@pytest.mark.parametrize("start", [0, 5, -1, -6, -1000])
@pytest.mark.parametrize("is_cut", [False, True])
async def test_a_page_that_is_opened_again(site: Site, redis: Redis, by: str, start: int, is_cut: bool) -> None:
    """It gets the chunks from a number on, or the last ones from the beginning of their step on, each once, also if its
    connection breaks again."""
    run = await begin(site, redis)
    await run.author.write(*RUNS["tools"])
    chunks = await run.chunks()
    named = run.given["chatId"] if by == "chat" else run.execution_id
    cut = {"after": 1, "how": "break"} if is_cut else None
    seen = await node(SCRIPT, "reopened", {**run.given, "reopen": named, "startIndex": start, "cut": cut})
    got = seen["chunks"]
    assert got == chunks[-len(got) :]
    if start >= 0:
        assert len(got) == len(chunks) - start
    else:
        assert len(got) >= min(-start, len(chunks))
        assert got[0]["type"] in ("start", "start-step")


async def test_a_page_without_anything_to_show(site: Site, redis: Redis) -> None:
    """A chat in which nothing was ever asked has nothing to resume, and no error."""
    run = await begin(site, redis)
    for start in (0, 3, -5):
        seen = await node(SCRIPT, "reopened", {**run.given, "reopen": "another", "startIndex": start})
        assert seen["chunks"] == [{"type": "finish"}]
